package roomstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// timer is the body of a message of the stream of timers: exactly one of Session and Room is set. There is at most one for
// each session and each room; a new one takes the place of the old.
type timer struct {
	Session string `json:"session,omitempty"` // whose grace it is
	Epoch   uint64 `json:"epoch,omitempty"`   // of the session; at another one the timer is out of date
	Room    string `json:"room,omitempty"`    // that has become empty
	Due     int64  `json:"due"`               // [ms since 1970]
}

func (e *Engine) setTimer(ctx context.Context, name string, t *timer) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	m := nats.NewMsg(e.names.Prefix() + ".timer." + name)
	m.Data = b
	_, err = e.publish(ctx, m)
	return err
}

// setGrace sets the timer that ends a session, or its memberships, unless its epoch is another one by then.
func (e *Engine) setGrace(ctx context.Context, id string, epoch uint64) error {
	return e.setTimer(ctx, "grace."+id, &timer{Session: id, Epoch: epoch, Due: e.now().Add(e.cfg.ReenterGrace).UnixMilli()})
}

// consume takes messages of a stream until the engine is closed. handle returns nil when the message is done with, or when
// it wants it again: after errAgain in its time, after another error soon.
func (e *Engine) consume(ctx context.Context, stream, durable string, handle func(context.Context, jetstream.Msg) error) error {
	c, err := e.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: durable, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: e.o.AckWait, MaxDeliver: -1, MaxAckPending: -1})
	if errors.Is(err, jetstream.ErrConsumerExists) {
		c, err = e.js.Consumer(ctx, stream, durable)
	}
	if err != nil {
		return fmt.Errorf("roomstore: consumer of %s: %w", stream, err)
	}
	slots := make(chan struct{}, handlers)
	it, err := c.Consume(func(m jetstream.Msg) {
		select {
		case slots <- struct{}{}:
		case <-e.ctx.Done():
			return // it is given to another worker
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.closed {
			return
		}
		e.work.Go(func() {
			defer func() { <-slots }()
			e.settle(m, handle)
		})
	}, jetstream.PullMaxMessages(2*handlers), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		e.log.Debug("consumer", "stream", stream, "err", err) // it goes on by itself
	}))
	if err != nil {
		return fmt.Errorf("roomstore: consumer of %s: %w", stream, err)
	}
	e.stop = append(e.stop, it.Stop)
	return nil
}

// later is the error that asks for a message again after a while.
type later time.Duration

func (l later) Error() string { return fmt.Sprintf("roomstore: again in %v", time.Duration(l)) }

// settle handles a message and says so to the stream. If that gets lost, the message comes again, which does no harm.
func (e *Engine) settle(m jetstream.Msg, handle func(context.Context, jetstream.Msg) error) {
	ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
	defer cancel()
	err := handle(ctx, m)
	var wait later
	switch {
	case err == nil:
		err = m.DoubleAck(ctx)
	case errors.As(err, &wait):
		err = m.NakWithDelay(min(max(time.Duration(wait), time.Millisecond), e.o.Look))
	default:
		if e.ctx.Err() == nil {
			e.log.Warn("will be tried again", "subject", m.Subject(), "err", err)
		}
		err = m.NakWithDelay(time.Second)
	}
	if err != nil && e.ctx.Err() == nil {
		e.log.Debug("a message will come again", "subject", m.Subject(), "err", err)
	}
}

// handleEnd handles the end of a connection. The codes with which clients end for good end the session; after every other
// one it waits for the grace.
func (e *Engine) handleEnd(ctx context.Context, m jetstream.Msg) error {
	var d wire.ConnectionDisconnected
	err := d.Unmarshal(m.Data())
	var c conn.ID
	if err == nil {
		c, err = conn.ParseID(d.ConnectionID)
	}
	if err != nil {
		e.log.Warn("the end of a connection cannot be read", "subject", m.Subject(), "err", err)
		return nil
	}
	away := e.endBut
	switch d.ReasonCode {
	case 1000, 4000, 4001:
	default:
		if e.cfg.ReenterGrace > 0 {
			away = e.lose
		}
	}
	done, err := e.closeConn(ctx, c, away)
	if err != nil {
		return err
	}
	// What its gateway knows of is in conns as a rule. It is not when this has been done before, by someone who may have
	// died on the way.
	if id := sessionOf(m.Headers().Get(subjects.HeaderSession)); id != "" && id != done && validKey(id) {
		err = away(ctx, id, of(c), c)
	}
	if errors.Is(err, rooms.ErrNoSession) {
		return nil // taken over or ended before
	}
	return err
}

// lose starts the grace of a session whose connection is not there any more. but is as in endBut.
func (e *Engine) lose(ctx context.Context, id string, mine func(*session) bool, but conn.ID) error {
	s, err := e.update(ctx, id, func(s *session) error {
		switch {
		case !mine(s):
			return rooms.ErrNoSession
		case s.Ended:
			return errSame
		}
		s.Fences++ // also when it is lost already: so that the same connection does not get it back meanwhile
		if !s.Connected {
			return nil
		}
		s.Connected = false
		s.Epoch++
		return e.setGrace(ctx, id, s.Epoch) // before it counts: that it comes for nothing does no harm
	})
	if err == nil && s.Ended { // whoever ended it may have died on the way
		err = e.endBut(ctx, id, mine, but)
	}
	return err
}

// handleTimer looks at a timer.
func (e *Engine) handleTimer(ctx context.Context, m jetstream.Msg) error {
	var t timer
	if err := json.Unmarshal(m.Data(), &t); err != nil {
		e.log.Warn("a timer cannot be read", "subject", m.Subject(), "err", err)
		return nil
	}
	if wait := time.UnixMilli(t.Due).Sub(e.now()); wait > 0 {
		return later(wait)
	}
	e.stats.timers.Add(1)
	if t.Room != "" {
		return e.emptyOver(&t)
	}
	return e.graceOver(ctx, &t)
}

// emptyOver ends a room in which nobody has been for the time to live.
func (e *Engine) emptyOver(t *timer) error {
	ttl := uint64(e.cfg.EmptyRoomTTL.Milliseconds())
	x := expire{now: e.millis(), ttl: ttl}
	found, err := e.Do(t.Room, &x)
	if err != nil || !found || !x.empty {
		return err
	}
	if !x.res.Changed() { // left and joined again since the timer was set, and left again
		return later(time.Duration(x.since+ttl-x.now) * time.Millisecond)
	}
	return nil
}

// graceOver ends a session whose client has not come back, or takes one that has come back out of the rooms that it has
// not joined again.
func (e *Engine) graceOver(ctx context.Context, t *timer) error {
	same := func(s *session) bool { return s.Epoch == t.Epoch }
	s, err := e.update(ctx, t.Session, func(s *session) error {
		if !same(s) {
			return rooms.ErrNoSession
		}
		if !s.Connected || s.Ended {
			return errSame
		}
		changed := false
		for i := range s.Rooms {
			if r := &s.Rooms[i]; r.Conn != s.Conn && !r.Leaving {
				r.Leaving, changed = true, true
			}
		}
		if !changed {
			return errSame
		}
		return nil
	})
	if errors.Is(err, rooms.ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	if !s.Connected {
		err := e.end(ctx, t.Session, func(s *session) bool { return same(s) || s.Ended })
		if errors.Is(err, rooms.ErrNoSession) {
			return nil
		}
		return err
	}
	c, err := conn.ParseID(s.Conn)
	if err != nil {
		return fmt.Errorf("roomstore: session: %w", err)
	}
	for _, r := range s.Rooms {
		if !r.Leaving {
			continue
		}
		// A member that has not joined again may have subscribed to the conversation all the same.
		e.clients.Unsubscribe(c, mq.Topic{Kind: mq.TopicConversation, Room: r.Room})
		if _, err := e.w.Leave(t.Session, r.Room, r.Attempt); err != nil {
			return err
		}
		h := handle{e: e, id: t.Session, ctx: ctx}
		if err := h.Forget(rooms.Membership{Room: r.Room, Attempt: r.Attempt}); err != nil {
			return err
		}
	}
	return nil
}
