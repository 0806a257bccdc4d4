package mq

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"unsafe"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

// pendingRequest is a request of a client that the worker will answer later, or never.
type pendingRequest struct {
	conn       conn.Ref
	generation uint32 // of the shard's requests, to tell it from others that have the slot at other times; 0: not in use
	gone       uint32 // generation of the last one in this slot that ended with its connection
	client     uint32 // number of the client state
	next, prev uint32 // chain of the client's requests
	start      int64  // [ns]
	id         []byte // the request id; the memory stays with the slot
	change     change
	room       string // of change
}

// requests are the pending ones of a shard, and a timer for each.
type requests struct {
	slab[pendingRequest]
	timers *loop.Timers
	last   uint32 // generation
}

// current is what the gateway knows of the request that Worker.Process has.
type current struct {
	conn     *conn.Conn
	id       string // borrowed, as the request
	start    int64  // [ns]
	active   bool   // inside Process
	answered bool   // by Reply or Fail
	later    uint32 // slot in pending, when it has one
}

// OnMessage implements conn.Handler (L3.1, L3.2).
func (g *Gateway) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	s := g.shardOf(c)
	if op == frame.Text {
		var err error
		if p, err = wire.DecodeText(p[:0], p); err != nil {
			s.drop(DropMalformed, c, err.Error())
			return
		}
	}
	var env wire.Envelope
	if err := env.Unmarshal(p); err != nil {
		s.drop(DropMalformed, c, err.Error())
		return
	}
	if op == frame.Text { // the form that the peer uses (L3.6): garbage does not show it
		c.User &^= formBinary
	} else {
		c.User |= formBinary
	}
	switch env.MessageType {
	case wire.Request:
		if c.State() != conn.Open {
			s.drop(DropNotOpen, c, "request")
			return
		}
		s.accept(c, &env)
	case wire.Response: // also while CLOSING (L1.3)
		s.resolve(c, &env)
	case wire.Event:
		s.drop(DropClientEvent, c, "event") // L3.10
	}
}

// accept handles a Request (L3.3).
func (s *shard) accept(c *conn.Conn, env *wire.Envelope) {
	switch n := len(env.RequestID); {
	case n == 0:
		s.drop(DropNoRequestID, c, "request without an id") // L3.12
		return
	case n > maxRequestID:
		s.drop(DropRequestID, c, "request id too long")
		return
	}
	s.stats.Accepted++
	s.current = current{conn: c, id: env.RequestID, start: s.loop.Now(), active: true}
	if _, cl := s.clientOf(c); cl != nil && int(cl.inFlight) >= s.g.cfg.MaxRequests || c.Draining() {
		// Too many at once, or the connection only waits for its last answers (L5.5): the client may ask elsewhere.
		s.failCurrent(wire.ReasonFailed, OutcomeFailed)
		s.current = current{}
		return
	}
	r := s.request
	r.Conn, r.SessionID, r.Type, r.Payload = c.ID(), env.SessionID, env.Type, env.Payload
	s.process(r)
	if !s.current.answered && s.current.later == 0 {
		s.later(r) // nobody will answer: the timeout does
	}
	r.SessionID, r.Type, r.Payload = "", "", nil // borrowed, and their time is up
	s.current = current{}
}

// process calls the worker and survives its panic (L8.2).
func (s *shard) process(r *Request) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, r.Type)
			if i := s.current.later; i != 0 {
				s.finishPending(i, "", nil, errPanicked, nil)
			} else if !s.current.answered {
				s.failCurrent(wire.ReasonFailed, OutcomeFailed)
			}
		}
	}()
	s.g.cfg.Worker.Process(r)
}

var errPanicked = errors.New("the worker panicked")

// panicked counts a panic of the worker and logs it with its stack. where may be borrowed.
func (s *shard) panicked(p any, where string) {
	s.stats.Panics++
	if n, ok := s.panics.line(s.loop.Now()); ok {
		s.g.logPanic(p, where, n)
	}
}

func (g *Gateway) logPanic(p any, where string, notLogged uint64) {
	g.cfg.Log.Error("the worker panicked", "panic", fmt.Sprint(p), "in", excerpt(where), "stack", string(debug.Stack()),
		"not_logged", notLogged)
}

// survive is deferred around calls of the worker's own functions: their panics harm nothing else (L8.2).
func (s *shard) survive(where string) {
	if p := recover(); p != nil {
		s.panicked(p, where)
	}
}

// logFailure logs that the worker failed a request (L3.5). typ may be borrowed; it is "" when the answer comes later, for
// which the type is not kept.
func (s *shard) logFailure(typ string, id conn.ID, cause error) {
	if n, ok := s.failed.line(s.loop.Now()); ok {
		args := []any{"err", cause, "id", id.String(), "not_logged", n}
		if typ != "" {
			args = append([]any{"type", excerpt(typ)}, args...)
		}
		s.g.cfg.Log.Warn("request failed", args...)
	}
}

// Reply implements Responder: an answer given inside Process (L3.6).
func (s *shard) Reply(r *Request, typ string, payload []byte) {
	if !s.answering() {
		return
	}
	cur := &s.current
	cur.answered = true
	if s.respond(cur.conn, cur.id, typ, payload, cur.start) == OutcomeOK {
		change, room := changeOf(r.Type, r.Payload)
		if t, join, any := change.effect(room, payload); any {
			s.applyInTurn(cur.conn, t, join)
		}
	}
}

// Fail implements Responder (L3.5).
func (s *shard) Fail(r *Request, cause error) {
	if !s.answering() {
		return
	}
	s.logFailure(r.Type, r.Conn, cause)
	s.failCurrent(wire.ReasonFailed, OutcomeFailed)
}

// answering reports whether the request that Process has may be answered now.
func (s *shard) answering() bool {
	if !s.current.active {
		panic("mq: Request used after Worker.Process returned: take a Completion with Later")
	}
	if s.current.answered || s.current.later != 0 {
		s.drop(DropLateAnswer, s.current.conn, "a second answer")
		return false
	}
	return true
}

func (s *shard) failCurrent(reason string, o Outcome) {
	s.current.answered = true
	s.respondError(s.current.conn, s.current.id, reason, o, s.current.start)
}

// Meta implements Responder.
func (s *shard) Meta(*Request) Meta {
	if !s.current.active {
		panic("mq: Request used after Worker.Process returned")
	}
	c := s.current.conn
	m := Meta{Remote: c.Remote(), Start: c.Start()}
	for i, v := range c.Meta() {
		if v != "" {
			m.Headers = append(m.Headers, Header{Name: s.g.cfg.MetaHeaders[i], Value: v})
		}
	}
	return m
}

// Later implements Responder.
func (s *shard) Later(r *Request) Completion {
	if !s.current.active || s.current.answered || s.current.later != 0 {
		panic("mq: Later must be called once, inside Worker.Process and before any answer")
	}
	return s.later(r)
}

func (s *shard) later(r *Request) Completion {
	i, p := s.pending.take()
	s.current.later = i
	number, cl := s.needClient(s.current.conn)
	if s.pending.last++; s.pending.last == 0 {
		s.pending.last = 1
	}
	p.conn, p.client, p.start, p.generation = cl.conn, number, s.current.start, s.pending.last
	p.id = append(p.id[:0], s.current.id...)
	p.change, p.room = changeOf(r.Type, r.Payload)
	p.room = strings.Clone(p.room)
	p.prev, p.next = 0, cl.first
	if cl.first != 0 {
		s.pending.at(cl.first).prev = i
	}
	cl.first = i
	cl.inFlight++
	s.stats.InFlight++
	s.pending.timers.Set(i, p.start+int64(s.g.cfg.RequestTimeout))
	return NewCompletion(s, uint64(p.generation)<<32|uint64(i))
}

// answer carries an answer from any goroutine to the loop. The memory of typ and payload stays with it.
type answer struct {
	s       *shard
	id      uint64
	typ     []byte
	payload []byte
	cause   error
	missed  []Event // with ReplySubscribing
	done    func()  // likewise; nil: nobody waits
}

var answers = sync.Pool{New: func() any { return new(answer) }}

// Complete implements Completer. Safe from any goroutine.
func (s *shard) Complete(id uint64, typ string, payload []byte, cause error) {
	s.complete(id, typ, payload, cause, nil, nil)
}

// CompleteSubscribing implements SubscribingCompleter. Safe from any goroutine.
func (s *shard) CompleteSubscribing(id uint64, typ string, payload []byte, missed []Event, done func()) {
	s.complete(id, typ, payload, nil, missed, done)
}

func (s *shard) complete(id uint64, typ string, payload []byte, cause error, missed []Event, done func()) {
	a := answers.Get().(*answer)
	a.s, a.id, a.cause, a.missed, a.done = s, id, cause, missed, done
	a.typ = append(a.typ[:0], typ...)
	a.payload = append(a.payload[:0], payload...)
	s.loop.Post(a) // false: the loop has stopped, and with it the connection
}

// Run implements loop.Task.
func (a *answer) Run() {
	s, i, generation := a.s, uint32(a.id), uint32(a.id>>32)
	switch {
	case s.pending.has(i) && s.pending.at(i).generation == generation:
		s.finishPending(i, view(a.typ), a.payload, a.cause, a.missed)
	case s.pending.has(i) && s.pending.at(i).gone == generation:
		s.drop(DropAnswerNotOpen, nil, view(a.typ)) // L3.7; what is known no more counts as late
	default:
		s.drop(DropLateAnswer, nil, view(a.typ))
	}
	if a.done != nil {
		s.callDone(a.done)
	}
	a.s, a.cause, a.missed, a.done = nil, nil, nil, nil
	if cap(a.typ)+cap(a.payload) > maxKeptAnswer {
		a.typ, a.payload = nil, nil
	}
	answers.Put(a)
}

// view returns the bytes of b as a string without a copy: good until b changes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// callDone tells a worker that its answer has been dealt with, and survives its panic (L8.2).
func (s *shard) callDone(done func()) {
	defer s.survive("ReplySubscribing")
	done()
}

// finishPending answers a pending request: with a failure when cause is not nil. missed follows an answer that subscribes.
func (s *shard) finishPending(i uint32, typ string, payload []byte, cause error, missed []Event) {
	p := s.pending.at(i)
	c := s.registry.Get(p.conn)
	if c == nil {
		panic("mq: a request outlived its connection")
	}
	if cause != nil {
		s.logFailure("", c.ID(), cause)
		s.respondError(c, view(p.id), wire.ReasonFailed, OutcomeFailed, p.start)
	} else if s.respond(c, view(p.id), typ, payload, p.start) == OutcomeOK {
		if t, join, any := p.change.effect(p.room, payload); any {
			fresh := s.apply(c, t, join) // at once: this is a task already
			if fresh || join && t.Kind == TopicRoom {
				// Who joins a room again may have had these events before the answer, but the answer's list of members,
				// which is older than they are, has taken their place: it needs them once more.
				s.sendMissed(c, missed)
			}
		}
	}
	s.freePending(i)
	s.answered(c)
}

// sendMissed sends the events that a new subscriber has missed.
func (s *shard) sendMissed(c *conn.Conn, missed []Event) {
	for i := range missed {
		env := wire.Envelope{Type: missed[i].Type, Payload: missed[i].Payload, MessageType: wire.Event}
		if s.send(c, &env) {
			s.stats.Deliveries++
		}
	}
}

// requestTimedOut is the timer of a pending request (L3.4).
func (s *shard) requestTimedOut(i uint32) {
	p := s.pending.at(i)
	c := s.registry.Get(p.conn)
	if c == nil {
		panic("mq: the timer of a request outlived its connection")
	}
	s.respondError(c, view(p.id), wire.ReasonTimeout, OutcomeTimeout, p.start)
	s.freePending(i)
	s.answered(c)
}

// answered lets a draining connection go once its last request is answered (L5.5).
func (s *shard) answered(c *conn.Conn) {
	i, cl := s.clientOf(c)
	if cl != nil && cl.inFlight > 0 {
		return
	}
	if c.Draining() {
		_ = c.CloseFor(conn.CauseDrain) // ErrNotOpen: closing already
	}
	if cl != nil {
		s.freeIfIdle(c, i, cl)
	}
}

// freePending takes a request out of its client's chain and frees it. Answers that come for it later are late.
func (s *shard) freePending(i uint32) {
	p := s.pending.at(i)
	cl := s.clients.at(p.client)
	if p.prev != 0 {
		s.pending.at(p.prev).next = p.next
	} else {
		cl.first = p.next
	}
	if p.next != 0 {
		s.pending.at(p.next).prev = p.prev
	}
	cl.inFlight--
	s.stats.InFlight--
	s.pending.timers.Cancel(i)
	*p = pendingRequest{gone: p.gone, id: p.id[:0]}
	s.pending.free(i)
}

// dropRequests forgets the requests of a connection that has ended.
func (s *shard) dropRequests(cl *client) {
	for cl.first != 0 {
		s.stats.Requests[OutcomeDropped]++
		p := s.pending.at(cl.first)
		p.gone = p.generation
		s.freePending(cl.first)
	}
}

// respond sends the answer to a request and counts what became of it (L3.6, L3.7).
func (s *shard) respond(c *conn.Conn, id, typ string, payload []byte, start int64) Outcome {
	us := s.loop.Clock() - start
	us /= 1000
	env := wire.Envelope{RequestID: id, Type: typ, Payload: payload, WallTime: float64(us) / 1000, HasWallTime: true,
		MessageType: wire.Response}
	if !s.send(c, &env) {
		s.stats.Requests[OutcomeDropped]++
		return OutcomeDropped
	}
	s.stats.Requests[OutcomeOK]++
	s.stats.observe(us)
	return OutcomeOK
}

// respondError answers a request with mq.Error.
func (s *shard) respondError(c *conn.Conn, id, reason string, o Outcome, start int64) {
	s.scratch = (&wire.Error{Reason: reason}).AppendTo(s.scratch[:0])
	env := wire.Envelope{RequestID: id, Type: wire.TypeError, Payload: s.scratch, WallTime: float64(s.loop.Clock()-start) / 1e6,
		HasWallTime: true, MessageType: wire.Response}
	if !s.send(c, &env) {
		o = OutcomeDropped
	}
	s.stats.Requests[o]++
}

// send sends an envelope in the form that the peer uses.
func (s *shard) send(c *conn.Conn, env *wire.Envelope) bool {
	binary := c.User&formBinary != 0
	form := wire.Text
	if binary {
		form = wire.Binary
	}
	b, err := c.Reserve(opOf(binary), env.FormSize(form))
	switch err {
	case nil:
		env.AppendForm(b[:0], form)
		c.Commit(b)
		return true
	case conn.ErrSlow:
		s.drop(DropSlow, c, env.Type)
	default:
		s.drop(DropAnswerNotOpen, c, env.Type)
	}
	return false
}
