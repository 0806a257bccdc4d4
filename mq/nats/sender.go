package nats

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// sender writes the requests of a Relay to one link, on a goroutine of its own: nats.go writes to the socket on the
// goroutine that publishes, which a slow server would hold up.
type sender struct {
	x       *Relay
	link    *link
	replies string // beginning of the subjects for answers to requests of this link
	wake    chan struct{}

	mu    sync.Mutex
	queue []item
	spare []item

	// Of the goroutine: the message that is written next, and the memory of its headers.
	msg    natsio.Msg
	values []string
}

// item is a flight, or the answer to a command.
type item struct {
	f *flight
	m *natsio.Msg
}

func newSender(x *Relay, l *link) *sender {
	return &sender{x: x, link: l, wake: make(chan struct{}, 1), msg: natsio.Msg{Header: make(natsio.Header)},
		replies: x.names.Replies(x.cfg.Node) + strconv.Itoa(l.index) + "."}
}

// push queues a flight; false when there are too many. From any goroutine; it does not block.
func (s *sender) push(f *flight) bool { return s.add(item{f: f}) }

// pushAnswer queues the answer to a command, likewise.
func (s *sender) pushAnswer(m *natsio.Msg) bool { return s.add(item{m: m}) }

func (s *sender) add(i item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxQueued {
		return false
	}
	s.queue = append(s.queue, i)
	if len(s.queue) == 1 {
		poke(s.wake)
	}
	return true
}

func (s *sender) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) >= maxQueued
}

func (s *sender) take() []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue, s.spare = s.spare[:0], nil
	return q
}

// run writes until the Relay is closed.
func (s *sender) run() {
	for {
		q := s.take()
		for i, it := range q {
			if it.f != nil {
				s.send(it.f)
			} else {
				s.sendAnswer(it.m)
			}
			q[i] = item{}
		}
		s.mu.Lock()
		if cap(q) <= maxQueued/16 {
			s.spare = q[:0]
		}
		idle := len(s.queue) == 0
		s.mu.Unlock()
		select {
		case <-s.x.closing:
			return
		default:
		}
		if idle {
			select {
			case <-s.x.closing:
				return
			case <-s.wake:
			}
		}
	}
}

// send writes a request, as soon as the link is there; it fails it when the link has been away for too long.
func (s *sender) send(f *flight) {
	for !f.done.Load() {
		if s.link.away() > max(0, s.x.cfg.Hold) {
			s.fail(f, errAway)
			return
		}
		if s.link.up() {
			// The socket is read before the message is written: if the message goes into the next one, the flight fails
			// for nothing when this one is found closed; the other way round it would never fail.
			f.via.Store(s.link.current.Load())
			err := s.publish(f)
			switch {
			case err == nil:
				if !f.idempotent {
					f.payload = nil
					s.x.release(f)
				}
				return
			case errors.Is(err, natsio.ErrReconnectBufExceeded): // the link was lost: no byte went out
				f.via.Store(nil)
			case errors.Is(err, natsio.ErrMaxPayload), errors.Is(err, natsio.ErrConnectionClosed), errors.Is(err, natsio.ErrBadSubject),
				errors.Is(err, natsio.ErrHeadersNotSupported):
				s.fail(f, err)
				return
			default:
				// A write has failed; what had been buffered before is lost with it, but nats.go keeps the connection.
				s.fail(f, err)
				_ = s.link.nc.ForceReconnect() // fails when the connection is closed: then there is nothing to do
				return
			}
		}
		if !s.wait() {
			return
		}
	}
}

// sendAnswer writes the answer to a command. When it cannot, the worker's own time for it passes.
func (s *sender) sendAnswer(m *natsio.Msg) {
	for s.link.away() <= max(0, s.x.cfg.Hold) {
		switch err := s.link.nc.PublishMsg(m); {
		case err == nil:
			return
		case !errors.Is(err, natsio.ErrReconnectBufExceeded) || !s.wait():
			s.x.count.answersLost.Add(1)
			return
		}
	}
	s.x.count.answersLost.Add(1)
}

// wait waits a moment for the link; false when the Relay is closing.
func (s *sender) wait() bool {
	select {
	case <-s.x.closing:
		return false
	case <-s.wake:
	case <-time.After(linkPoll):
	}
	return true
}

func (s *sender) fail(f *flight, cause error) {
	if s.x.flights.take(f.token) != nil {
		s.x.count.unsent.Add(1)
		s.x.fail(f, cause)
	}
}

func (s *sender) publish(f *flight) error {
	m := &s.msg
	clear(m.Header)
	s.values = s.values[:0]
	m.Subject, m.Data = s.x.names.Request(f.typ), f.payload
	m.Reply = s.replies + strconv.FormatUint(f.token, 36)
	s.set(subjects.HeaderConnection, f.conn.String())
	s.set(subjects.HeaderNode, s.x.node)
	s.set(subjects.HeaderDeadline, strconv.FormatInt(f.deadline, 10))
	s.set(HeaderStart, strconv.FormatInt(f.begun, 10))
	if f.remote.IsValid() {
		s.set(subjects.HeaderRemote, f.remote.String())
	}
	if session := s.x.peers.session(f.conn); session != "" {
		s.set(subjects.HeaderSession, session)
	}
	if f.clientSession != "" {
		s.set(subjects.HeaderClientSession, f.clientSession)
	}
	for _, h := range f.headers {
		if name := strings.ToLower(h.Name); name == "traceparent" || name == "tracestate" {
			s.set(name, h.Value)
		} else {
			s.set(subjects.HeaderMeta+h.Name, h.Value)
		}
	}
	return s.link.nc.PublishMsg(m)
}

// set sets a header of the message. The values of one message share memory, which the next one uses again.
func (s *sender) set(name, value string) {
	s.values = append(s.values, value)
	n := len(s.values)
	s.msg.Header[name] = s.values[n-1 : n : n]
}

// Headers besides those of package subjects.
const (
	HeaderStart    = "Mqgate-Start"     // when the client's connection began [ms since 1970]
	HeaderBound    = "Mqgate-Bound"     // of the command bind: the session that must be bound for it to change anything
	HeaderTopic    = "Mqgate-Topic"     // of the command unsubscribe: "room" or "conversation"
	HeaderWallTime = "Mqgate-Wall-Time" // of an answer to the command request [ms]
	HeaderDuration = "Mqgate-Duration"  // how long a connection lasted [ms]
)
