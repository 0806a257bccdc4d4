package follow

import (
	"errors"
	"slices"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// Handover is an answer that subscribes a connection to a topic of a room, and the sequence of the room's log that it
// includes.
type Handover struct {
	Room  string
	Seq   uint64
	Topic mq.TopicKind
	Conn  conn.ID

	// Deliver passes the answer on, with the events that the connection has missed: see mq.Completion.ReplySubscribing,
	// which does what is wanted with both. It must not block. Called once, or Fail is.
	Deliver func(missed []mq.Event, done func())

	// Fail says that the answer cannot be passed on. It must not block.
	Fail func(err error)
}

// Why a Handover fails.
var (
	ErrHeld   = errors.New("the log of the room did not reach what the answer includes")
	ErrClosed = errors.New("the gateway does not follow rooms any more")
)

// handover takes an answer in.
func (s *shard) handover(h Handover, subject string, now int64) {
	r := s.rooms[subject]
	if r == nil {
		r = s.newRoom(h.Room, subject, now)
	}
	if !r.known {
		s.start(r, h.Seq)
	}
	w := &held{Handover: h, fetchAt: now + int64(holdBeforeFetch), until: now + int64(maxHold)}
	if h.Seq <= r.last {
		s.let(r, w, now)
		return
	}
	at, _ := slices.BinarySearchFunc(r.waiting, h.Seq, func(w *held, seq uint64) int {
		if w.Seq <= seq { // equal ones keep their order
			return -1
		}
		return 1
	})
	r.waiting = slices.Insert(r.waiting, at, w)
	s.stats.held.Add(1)
	s.schedule(r, w.fetchAt)
}

// release lets the answers pass that include no more than the room has delivered.
func (s *shard) release(r *room, now int64) {
	n := 0
	for n < len(r.waiting) && r.waiting[n].Seq <= r.last {
		n++
	}
	if n == 0 {
		return
	}
	ready := r.waiting[:n:n]
	if r.waiting = r.waiting[n:]; len(r.waiting) == 0 {
		r.waiting = nil
	}
	for _, h := range ready {
		s.stats.held.Add(-1)
		s.let(r, h, now)
	}
}

// let passes an answer on that includes no more than the room has delivered, or fetches what it does not.
func (s *shard) let(r *room, h *held, now int64) {
	switch have := h.have(); {
	case have >= r.last:
		s.pass(r, h, now)
	case have >= r.ringFrom:
		h.missed = append(h.missed, r.after(have)...)
		s.pass(r, h, now)
	default:
		r.behind = append(r.behind, h)
		s.fetchFor(r, h, now)
	}
}

// pass gives an answer to the gateway, with the events of the records that it has missed, which are all.
func (s *shard) pass(r *room, h *held, now int64) {
	var missed []mq.Event
	end := false
	for _, rec := range h.missed {
		if end {
			break // what comes after the end of a room is of another one
		}
		if err := s.scratch.Unmarshal(rec.Data); err != nil {
			s.malformed(r, err, now)
			continue
		}
		for _, e := range s.scratch.Events {
			if e.Topic == h.Topic {
				missed = append(missed, mq.Event{Type: e.Type, Payload: e.Payload})
			}
		}
		end = s.scratch.End
	}
	s.stats.handovers.Add(1)
	s.stats.replayed.Add(uint64(len(h.missed)))
	r.passing++
	h.Deliver(missed, func() {
		s.out.post(func(now int64) {
			r.passing--
			if !r.gone {
				s.rest(r, now)
			}
		})
	})
	if end {
		for _, t := range r.topics() {
			s.clients.Unsubscribe(h.Conn, t)
		}
	}
}

// fetchFor reads what an answer has missed from the stream.
func (s *shard) fetchFor(r *room, h *held, now int64) {
	if h.fetching || now < h.at {
		return
	}
	h.fetching = true
	s.out.fetch(&fetchJob{room: r, held: h, after: h.have(), truth: h.misses > 0})
}

// fetchedFor is the answer to fetchFor.
func (s *shard) fetchedFor(j *fetchJob, now int64) {
	r, h := j.room, j.held
	at := slices.Index(r.behind, h)
	if at < 0 {
		return
	}
	h.fetching = false
	moved := false
	for _, rec := range j.recs {
		if rec.Seq > r.last {
			break // it will come to all
		}
		if rec.Prev > h.have() {
			s.lose(r, "the stream has later ones only", now)
		}
		h.missed = append(h.missed, rec)
		moved = true
	}
	switch {
	case moved:
		h.retry = retry{}
	case j.err != nil:
		h.later(now)
	case h.fruitless(now, j.truth):
		s.lose(r, "the stream does not have them", now)
		h.missed = append(h.missed, r.after(h.have())...)
		r.behind = slices.Delete(r.behind, at, at+1)
		s.pass(r, h, now)
		return
	}
	if have := h.have(); have >= r.last || have >= r.ringFrom {
		r.behind = slices.Delete(r.behind, at, at+1)
		s.let(r, h, now)
		return
	}
	s.fetchFor(r, h, now)
	if !h.fetching {
		s.schedule(r, h.at)
	}
}

// wakeHeld looks after the answers of a room that wait.
func (s *shard) wakeHeld(r *room, now int64) {
	late := func(h *held) bool {
		if now < h.until {
			return false
		}
		s.stats.expired.Add(1)
		h.Fail(ErrHeld)
		return true
	}
	n := len(r.waiting)
	r.waiting = slices.DeleteFunc(r.waiting, late)
	s.stats.held.Add(int64(len(r.waiting) - n))
	r.behind = slices.DeleteFunc(r.behind, late)
	for _, h := range r.waiting {
		if now >= h.fetchAt {
			h.fetchAt = h.until
			s.want(r, h.Seq, now)
		}
	}
	for _, h := range r.behind {
		s.fetchFor(r, h, now)
	}
	if n > len(r.waiting) {
		s.rest(r, now)
	}
}
