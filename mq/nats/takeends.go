package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/wire"
)

// takeEnds begins to take ends of connections from their stream. Every Service has the same durable consumer, so that each
// end goes to one of them, and to another one when that does not say within takeWait that it is done.
func (s *Service) takeEnds(ctx context.Context) error {
	if err := EnsureDisconnected(ctx, s.c, s.cfg.Replicas); err != nil {
		return err
	}
	js, err := s.c.JetStream()
	if err != nil {
		return err
	}
	stream := s.c.names.DisconnectedStream()
	cons, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: s.cfg.Group, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: takeWait, MaxDeliver: -1, MaxAckPending: maxTaken})
	if err != nil {
		return fmt.Errorf("nats: consumer of %s: %w", stream, err)
	}
	messages, err := cons.Messages(jetstream.PullMaxMessages(endsBatch))
	if err != nil {
		return fmt.Errorf("nats: consumer of %s: %w", stream, err)
	}
	s.takers.Go(func() {
		<-s.stop
		messages.Drain()
	})
	s.takers.Go(func() {
		for {
			m, err := messages.Next()
			switch {
			case err == nil:
				s.takeEnd(m)
			case errors.Is(err, jetstream.ErrMsgIteratorClosed):
				return
			default: // NATS is away, or the server has said something about the consumer: Next goes on by itself
				select {
				case <-s.stop:
				case <-time.After(retryLeast):
				}
			}
		}
	})
	return nil
}

// takeEnd tells the worker of one end.
func (s *Service) takeEnd(m jetstream.Msg) {
	if meta, err := m.Metadata(); err == nil && meta.NumDelivered > 1 {
		s.count.endsAgain.Add(1)
	}
	d, err := readEnd(m)
	if err != nil {
		s.count.endsBad.Add(1)
		s.log.Error("the end of a connection cannot be read: thrown away", "err", err, "subject", m.Subject())
		s.acknowledge(m.Term())
		return
	}
	err = s.disconnected(d, m.Headers().Get(subjects.HeaderSession))
	var later attemptAfter
	switch {
	case err == nil:
		s.count.ends.Add(1)
		s.acknowledge(m.Ack())
	case errors.As(err, &later):
		s.count.endsLater.Add(1)
		s.acknowledge(m.NakWithDelay(later.RetryAfter()))
	default:
		s.count.endsFailed.Add(1)
		if n, ok := s.panics.line(s.c.now()); ok {
			s.log.Warn("the worker did not take the end of a connection; it is told again", "err", err, "id", d.Conn.String(), "not_logged", n)
		}
		s.acknowledge(m.NakWithDelay(endsRetry))
	}
}

// acknowledge counts what could not be said to the server: the end comes again.
func (s *Service) acknowledge(err error) {
	if err != nil {
		s.count.answersLost.Add(1)
	}
}

// disconnected calls the worker and survives its panic.
func (s *Service) disconnected(d mq.Disconnect, session string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, "Disconnected")
			err = errPanicked
		}
	}()
	if w, ok := s.cfg.Worker.(SessionWorker); ok {
		return w.SessionDisconnected(d, session)
	}
	return s.cfg.Worker.Disconnected(d)
}

// SessionWorker is a mq.Worker that wants to know which session was bound to a connection that has ended.
type SessionWorker interface {
	mq.Worker
	// SessionDisconnected is called instead of Disconnected; session is empty when none was bound.
	SessionDisconnected(d mq.Disconnect, session string) error
}

// attemptAfter is how an error of Disconnected says when the worker wants to be told again.
type attemptAfter interface{ RetryAfter() time.Duration }

// readEnd reads a message of the stream of ends.
func readEnd(m jetstream.Msg) (d mq.Disconnect, err error) {
	var body wire.ConnectionDisconnected
	if err := body.Unmarshal(m.Data()); err != nil {
		return d, err
	}
	if d.Conn, err = conn.ParseID(body.ConnectionID); err != nil {
		return d, err
	}
	if body.ReasonCode > 0xffff {
		return d, fmt.Errorf("close code %d, expected at most 65535", body.ReasonCode)
	}
	d.Code, d.Description = uint16(body.ReasonCode), body.Description
	if ms, err := strconv.ParseInt(m.Headers().Get(HeaderDuration), 10, 64); err == nil {
		d.Duration = time.Duration(ms) * time.Millisecond
	}
	return d, nil
}
