package roomstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
)

var (
	errClosed  = errors.New("roomstore: closed")
	errBusy    = errors.New("roomstore: too many operations wait for the room")
	errTooLate = errors.New("roomstore: the room could not be reached in time")
	errUnknown = errors.New("roomstore: it could not be found out whether the change was stored")
)

// waiting is an operation on a room, or the creation of one, and what became of it.
type waiting struct {
	op     rooms.Op
	create *rooms.Room // instead of op
	until  time.Time

	found bool // for a creation: the room is there already
	err   error
	done  chan struct{}
}

func (p *waiting) finish(found bool, err error) {
	p.found, p.err = found, err
	close(p.done)
}

// actor is a room in the memory of this worker. One goroutine at a time works through what waits for it.
type actor struct {
	e       *Engine
	id      string
	token   string
	subject string

	mu    sync.Mutex // taken under Engine.mu
	queue []*waiting
	busy  bool      // a goroutine is at work
	last  time.Time // of the last work

	// The rest belongs to the goroutine.
	loaded  bool
	room    *rooms.Room // nil or ended: there is none
	seq     uint64      // last sequence of the subject that room shows
	records int         // since the last snapshot
	cost    int         // bytes of the last snapshot
	empty   bool        // nobody was in the room before the operations in hand

	events  []record.Event
	payload []byte // of events
	delta   []byte
	replay  []rooms.Event
	read    record.Record
}

// do puts an operation into the queue of its room and waits for what becomes of it.
func (e *Engine) do(id string, p *waiting) (bool, error) {
	p.until, p.done = time.Now().Add(opTimeout), make(chan struct{})
	if err := e.enqueue(id, p); err != nil {
		return false, err
	}
	<-p.done
	return p.found, p.err
}

// Do implements rooms.Store.
func (e *Engine) Do(id string, op rooms.Op) (bool, error) { return e.do(id, &waiting{op: op}) }

func (e *Engine) enqueue(id string, p *waiting) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	a := e.actors[id]
	if a == nil {
		id = strings.Clone(id) // it may be a view of the request
		token := subjects.RoomToken(id)
		a = &actor{e: e, id: id, token: token, subject: e.names.LogOf(token)}
		e.actors[id] = a
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maxQueue {
		return errBusy
	}
	a.queue = append(a.queue, p)
	if !a.busy {
		a.busy = true
		e.work.Go(a.run)
	}
	return nil
}

// forgetIdle lets go of the rooms that nobody has asked about since a time.
func (e *Engine) forgetIdle(since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, a := range e.actors {
		a.mu.Lock()
		if !a.busy && a.last.Before(since) {
			delete(e.actors, id)
		}
		a.mu.Unlock()
	}
}

// run works until nothing waits any more.
func (a *actor) run() {
	var batch []*waiting
	for {
		a.mu.Lock()
		batch = append(batch, a.queue...)
		clear(a.queue)
		a.queue = a.queue[:0]
		if len(batch) == 0 {
			a.busy, a.last = false, time.Now()
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		n := a.step(batch)
		batch = append(batch[:0], batch[n:]...)
	}
}

// step handles the first few operations and returns how many.
func (a *actor) step(batch []*waiting) (n int) {
	first := batch[0]
	if !time.Now().Before(first.until) || a.e.ctx.Err() != nil {
		first.finish(false, errTooLate)
		return 1
	}
	ctx, cancel := context.WithDeadline(a.e.ctx, first.until)
	defer cancel()
	n, err := a.commit(ctx, batch)
	if err != nil {
		a.loaded = false // whatever happened: the log knows
		for _, p := range batch[:n] {
			p.finish(false, err)
		}
	}
	return n
}

// commit handles the first n operations. On an error they have not been told.
func (a *actor) commit(ctx context.Context, batch []*waiting) (n int, err error) {
	for {
		if !a.loaded {
			if err := a.load(ctx); err != nil {
				return max(n, 1), err
			}
		}
		there := a.there()
		if there {
			_, a.empty = a.room.EmptySince()
			a.room.Begin()
		}
		var created *rooms.Room
		n, created, err = a.apply(batch)
		if err != nil { // the last one has panicked
			a.rollback(there)
			if n == 1 {
				return 1, err
			}
			batch = batch[:n-1] // those before it first
			continue
		}
		if len(a.events) == 0 && len(a.delta) == 0 {
			a.rollback(there)
			current, err := a.e.lastSeq(ctx, a.subject)
			if err != nil {
				return n, err
			}
			if current != a.seq {
				if err := a.catchUp(ctx, current); err != nil {
					return n, err
				}
				continue
			}
			a.deliver(batch[:n], a.seq, there, nil)
			return n, nil
		}
		before := a.seq
		ended := there && a.room.Ended()
		err := a.write(ctx, there, created, ended)
		switch {
		case errors.Is(err, errConflict):
			continue
		case err != nil:
			return n, err
		}
		a.e.stats.commits.Add(1)
		a.e.stats.operations.Add(int64(n))
		if ended {
			a.e.cleanUp(ctx, a.room, a.token, a.seq)
		}
		a.deliver(batch[:n], before, there, created)
		a.snapshotIfDue(ctx)
		return n, nil
	}
}

func (a *actor) there() bool { return a.room != nil && !a.room.Ended() }

func (a *actor) rollback(there bool) {
	if there {
		a.room.Rollback()
	}
}

// apply applies as many operations as one record may have, and leaves the record in a.events and a.delta. created is the
// room that the record creates.
func (a *actor) apply(batch []*waiting) (n int, created *rooms.Room, err error) {
	a.events, a.payload, a.delta = a.events[:0], a.payload[:0], a.delta[:0]
	there := a.there()
	var blocked [2]bool // by topic: an answer that subscribes must not come after this in the record
	for _, p := range batch[:min(len(batch), maxBatch)] {
		if p.create != nil {
			if there {
				n++
				continue
			}
			if n > 0 {
				return n, nil, nil
			}
			a.delta = p.create.AppendCreation(a.delta)
			return 1, p.create, nil
		}
		if !there {
			n++
			continue
		}
		if kind, ok := p.op.Subscribes(); ok && blocked[kind] {
			return n, nil, nil
		}
		if err := applySafely(p.op, a.room); err != nil {
			return n + 1, nil, err
		}
		n++
		res := p.op.Result()
		if res.EventType != "" {
			at := len(a.payload)
			a.payload = append(a.payload, res.Event...)
			a.events = append(a.events, record.Event{Topic: res.EventKind, Type: res.EventType, Payload: a.payload[at:len(a.payload):len(a.payload)]})
			if joined := res.EventKind == mq.TopicRoom && res.Members > 0; !joined {
				blocked[res.EventKind] = true
			}
		}
		a.delta = append(a.delta, res.Delta...)
		if a.room.Ended() || len(a.payload)+len(a.delta) > maxRecordBytes {
			return n, nil, nil
		}
	}
	return n, nil, nil
}

func applySafely(op rooms.Op, r *rooms.Room) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("roomstore: panic: %v", p)
		}
	}()
	op.Apply(r)
	return nil
}

// deliver tells the operations that what they have done is stored, or that there is no room. there: the room was there
// before; created: the one that was made.
func (a *actor) deliver(batch []*waiting, seq uint64, there bool, created *rooms.Room) {
	for _, p := range batch {
		switch {
		case p.create != nil:
			p.finish(p.create != created, nil)
		case !there:
			p.finish(false, nil)
		default:
			p.op.Deliver(a.room, seq)
			p.finish(true, nil)
		}
	}
}

// write writes the record, and its state is that of the actor then. After errConflict that is what came in between, and
// after another error nothing is sure.
func (a *actor) write(ctx context.Context, there bool, created *rooms.Room, ended bool) error {
	settled := false
	defer func() {
		if !settled {
			a.rollback(there)
		}
	}()
	if err := a.watchEmpty(ctx, created); err != nil {
		return err
	}
	rec := record.Record{Events: a.events, Delta: a.delta, End: ended}
	m := nats.NewMsg(a.subject)
	m.Data = rec.AppendTo(make([]byte, 0, rec.Size()))
	id := nuid.Next()
	m.Header.Set(subjects.HeaderMsgID, id)
	m.Header.Set(subjects.HeaderExpectedLast, strconv.FormatUint(a.seq, 10))
	if ended {
		m.Header.Set("Nats-TTL", endTTL.String())
	}
	ack, err := a.e.publish(ctx, m)
	switch {
	case err == nil:
		settled = true
		if there {
			a.room.Commit()
		} else {
			a.room = created
		}
		a.seq = ack.Sequence
		a.records++
		return nil
	case errors.Is(err, errConflict):
	case temporary(err), ctx.Err() != nil:
		a.e.stats.unknown.Add(1)
		return fmt.Errorf("%w: %w", errUnknown, err)
	default:
		return fmt.Errorf("roomstore: a record of room %s: %w", a.id, err)
	}
	// Someone else was faster, or it is our own record, whose acknowledgement was lost.
	settled = true
	a.rollback(there)
	current, err := a.e.lastSeq(ctx, a.subject)
	if err != nil {
		return err
	}
	mine, err := a.readFrom(ctx, current, id)
	if err == nil && !mine {
		a.e.stats.conflicts.Add(1)
		err = errConflict
	}
	return err
}

// watchEmpty sets the timer of a room that the record leaves without members. It is set before the record is written, so
// that no room is left without one: that it comes for nothing does no harm.
func (a *actor) watchEmpty(ctx context.Context, created *rooms.Room) error {
	ttl := a.e.cfg.EmptyRoomTTL
	r := a.room
	if created != nil {
		r = created
	}
	since, empty := r.EmptySince()
	if ttl == 0 || r.Ended() || !empty || created == nil && a.empty {
		return nil
	}
	return a.e.setTimer(ctx, "empty."+a.token, &timer{Room: a.id, Due: int64(since) + ttl.Milliseconds()})
}

// catchUp reads what has come in up to a sequence.
func (a *actor) catchUp(ctx context.Context, to uint64) error {
	_, err := a.readFrom(ctx, to, "")
	return err
}

var errGap = errors.New("roomstore: the log of the room has a gap")

// readFrom reads the log up to a sequence and stops after the record with the message id mine, if it meets it.
func (a *actor) readFrom(ctx context.Context, to uint64, mine string) (found bool, err error) {
	if to < a.seq { // everything has gone: the end of a room was some time ago
		a.loaded = false
		return false, a.load(ctx)
	}
	err = a.e.readLog(ctx, a.subject, a.seq+1, to, func(m *stored) error {
		if found {
			return nil
		}
		found = mine != "" && m.header.Get(subjects.HeaderMsgID) == mine
		return a.take(m)
	})
	if errors.Is(err, errGap) { // more came in than the log keeps: there is a snapshot
		a.loaded = false
		return false, a.load(ctx)
	}
	if err != nil {
		a.loaded = false
	}
	return found, err
}

// take applies one record of the log.
func (a *actor) take(m *stored) error {
	if m.seq <= a.seq {
		return nil
	}
	if err := a.read.Unmarshal(m.data); err != nil {
		return fmt.Errorf("roomstore: record %d of room %s: %w", m.seq, a.id, err)
	}
	a.replay = a.replay[:0]
	for i := range a.read.Events {
		ev := &a.read.Events[i]
		a.replay = append(a.replay, rooms.Event{Kind: ev.Topic, Type: ev.Type, Payload: ev.Payload})
	}
	if headerUint(m.header, subjects.HeaderExpectedLast) != a.seq {
		switch {
		case a.read.End: // all that is left of a room
			a.room, a.seq = nil, m.seq
			return nil
		case rooms.Creates(a.read.Delta):
			a.room = nil // another one, long ago
		default:
			return errGap
		}
	}
	room, err := rooms.Replay(a.room, a.replay, a.read.Delta, &a.e.cfg.Limits)
	if err != nil {
		a.room = nil
		return fmt.Errorf("roomstore: record %d of room %s: %w", m.seq, a.id, err)
	}
	a.room, a.seq = room, m.seq
	a.records++
	return nil
}

// load reads the room from its snapshot and its log.
func (a *actor) load(ctx context.Context) error {
	a.e.stats.loads.Add(1)
	last, err := a.e.lastSeq(ctx, a.subject)
	if err != nil {
		return err
	}
	a.room, a.seq, a.records, a.cost = nil, 0, 0, 0
	if last == 0 {
		a.loaded = true
		return nil
	}
	room, seq, size, err := a.e.readSnapshot(ctx, a.token)
	if err != nil {
		return err
	}
	if seq <= last && room != nil {
		a.room, a.seq, a.cost = room, seq, size
	}
	err = a.e.readLog(ctx, a.subject, a.seq+1, last, a.take)
	if errors.Is(err, errGap) {
		err = fmt.Errorf("%w: room %s after sequence %d", errGap, a.id, a.seq)
	}
	a.loaded = err == nil
	return err
}
