package rooms

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// Config is what a Worker is made of.
type Config struct {
	Authenticator Authenticator // required: Open{} or a *JWT, or something else
	Limits        Limits

	// ReenterGrace is how long a session, and its membership of rooms, outlive a lost connection. 0: not at all.
	ReenterGrace time.Duration

	// EmptyRoomTTL is how long a room stays with nobody in it, from its creation or from the last leaving on. 0: until
	// it is destroyed.
	EmptyRoomTTL time.Duration

	// Engine keeps sessions and rooms; nil: in memory, and every request is answered before Process returns.
	Engine Engine

	// Now is the clock; nil: time.Now. The timers of rooms and sessions in memory do not follow it.
	Now func() time.Time
}

// DefaultConfig lets everyone in.
func DefaultConfig() Config {
	return Config{
		Authenticator: Open{},
		Limits:        DefaultLimits(),
		ReenterGrace:  10 * time.Second,
		EmptyRoomTTL:  10 * time.Minute,
	}
}

// Worker implements mq.Worker with everything in the memory of this process, or in an Engine. Process and Disconnected may
// run on any number of loops at once, for one connection on one loop at a time.
type Worker struct {
	cfg      Config
	engine   Engine // nil: in memory
	sessions *index // nil with an engine
	store    Store
	clients  mq.Clients
	calls    sync.Pool // *call
	closed   atomic.Bool
	failed   atomic.Pointer[error] // why the engine did not start
	work     work                  // requests that an engine has not answered yet
	count    counters
}

var _ mq.Worker = (*Worker)(nil)

// New returns a Worker. The error lists all faults of cfg.
func New(cfg Config) (*Worker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	w := &Worker{cfg: cfg, engine: cfg.Engine}
	if w.cfg.Now == nil {
		w.cfg.Now = time.Now
	}
	if w.engine != nil {
		w.store = w.engine
	} else {
		w.sessions, w.store = newIndex(), newMemStore(cfg.Limits.Rooms, cfg.EmptyRoomTTL)
	}
	w.calls.New = func() any { return &call{w: w} }
	return w, nil
}

// Attach implements mq.Worker. With an engine that cannot start every request fails with the reason.
func (w *Worker) Attach(c mq.Clients) {
	w.clients = c
	if w.engine == nil {
		return
	}
	if err := w.engine.Start(w, c); err != nil {
		w.failed.Store(&err)
	}
}

var errClosed = errors.New("rooms: worker is closed")

// errUnknownType is the cause of failing a request of a type that this worker does not know.
var errUnknownType = errors.New("rooms: unknown request type")

// Process implements mq.Worker: every request is answered before it returns, or with an engine later.
func (w *Worker) Process(r *mq.Request) {
	if w.closed.Load() {
		r.Fail(errClosed)
		return
	}
	q := kindOf(r.Type)
	if q == unknownRequest {
		w.count.add(r.Conn, cntUnknown, 1)
		r.Fail(errUnknownType)
		return
	}
	if w.engine != nil {
		w.processLater(q, r)
		return
	}
	c := w.calls.Get().(*call)
	c.begin(q, r)
	// Not deferred: if something panics, the state of c is unknown, and it must not be used again.
	c.process()
	c.release()
}

// Disconnected implements mq.Worker. The codes with which clients end for good end the session, and its members leave
// at once: 1000 (a clean stop), 4000 and 4001 (after which clients do not come back either). After every other code the
// client may be back, and the session waits for the grace. When another connection has taken the session over, or the
// client had said Bye, there is nothing left to do. It always takes what it is told: the error is nil. An engine hears of
// the ends of connections in its own way, from all gateways.
func (w *Worker) Disconnected(d mq.Disconnect) error {
	if w.engine != nil {
		return nil
	}
	s := w.sessions.byConn(d.Conn)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.connected || s.conn != d.Conn {
		return nil // taken over while this waited for the lock
	}
	w.sessions.dropConn(d.Conn)
	s.connected = false
	switch d.Code {
	case 1000, 4000, 4001:
		w.end(s)
		return nil
	}
	if w.cfg.ReenterGrace == 0 || w.closed.Load() {
		w.end(s)
		return nil
	}
	w.startGrace(s)
	return nil
}

// RoundTrip implements mq.Worker. Nothing here depends on round trip times; the gateway keeps their histogram.
func (w *Worker) RoundTrip(conn.ID, time.Duration) {}

// startGrace starts the grace anew. s.mu is held.
func (w *Worker) startGrace(s *session) {
	s.stopGrace()
	if w.closed.Load() {
		return
	}
	epoch := s.epoch
	s.grace = time.AfterFunc(w.cfg.ReenterGrace, func() { w.graceOver(s, epoch) })
}

// graceOver ends a session whose client has not come back, or takes one that has come back out of the rooms that it has
// not joined again. On a goroutine of its own.
func (w *Worker) graceOver(s *session, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.epoch != epoch {
		return
	}
	s.stopGrace()
	if !s.connected {
		w.end(s)
		return
	}
	stay := s.rooms[:0]
	for _, m := range s.rooms {
		if m.detached {
			// A member that has not joined again may have subscribed to the conversation all the same.
			w.clients.Unsubscribe(s.conn, mq.Topic{Kind: mq.TopicConversation, Room: m.room})
			w.leave(s, m.room)
		} else {
			stay = append(stay, m)
		}
	}
	s.rooms = stay
}

// end ends a session: it leaves its rooms and is forgotten. The caller takes care of the connection, and holds s.mu.
func (w *Worker) end(s *session) {
	s.ended, s.connected = true, false
	s.stopGrace()
	for _, m := range s.rooms {
		w.leave(s, m.room)
	}
	s.rooms = nil
	w.sessions.remove(s)
}

// leave takes a session out of a room without a request. s.mu is held.
func (w *Worker) leave(s *session, room string) {
	_, _ = w.takeOut(s.id, room, 0, s.conn) // in memory there are no errors
}

// begin returns the session of a request, or nil. It must be closed.
func (w *Worker) begin(r *mq.Request) Session {
	if w.engine != nil {
		if r.Bound == "" {
			return nil
		}
		return w.engine.Session(r.Bound, r.Conn)
	}
	s := w.sessions.byConn(r.Conn)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	if s.ended || !s.connected || s.conn != r.Conn {
		s.mu.Unlock()
		return nil // taken over while this waited for the lock
	}
	return s
}

// authenticate gives the connection of a request a session: see Engine.Authenticate.
func (w *Worker) authenticate(r *mq.Request, id, subject string) (granted, bind string, err error) {
	if w.engine != nil {
		return w.engine.Authenticate(r.Conn, r.Bound, id, subject)
	}
	if old := w.sessions.byConn(r.Conn); old != nil && (old.id != id || old.subject != subject) {
		w.drop(old, r.Conn)
	}
	var s *session
	if id != "" {
		s = w.takeOver(id, subject, r.Conn)
	}
	if s == nil {
		s = w.sessions.create(w, r.Conn, subject, w.cfg.Limits.Sessions)
	}
	if s == nil {
		return "", "", ErrFull
	}
	return s.id, "", nil
}

// takeOver gives a session to a connection, and reports whether it could: the session must be there, and of the same
// subject.
func (w *Worker) takeOver(id, subject string, to conn.ID) *session {
	s := w.sessions.byID(id)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.subject != subject {
		return nil
	}
	if s.connected && s.conn == to {
		return s
	}
	if s.connected {
		w.sessions.dropConn(s.conn)
		w.clients.UnsubscribeAll(s.conn)
	}
	s.conn, s.connected = to, true
	w.sessions.setConn(to, s)
	if s.detach() {
		w.startGrace(s) // anew: the client has only now got the chance to join again
	} else {
		s.stopGrace()
	}
	return s
}

// drop ends the session that a connection has, if any: the connection gets another one. Its subscriptions end.
func (w *Worker) drop(s *session, id conn.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.connected || s.conn != id {
		return
	}
	w.sessions.dropConn(id)
	w.clients.UnsubscribeAll(id)
	w.end(s)
}

// Close stops all timers: nobody leaves, and no room vanishes, any more. What is asked afterwards fails. In memory it does
// not wait for requests that are being handled; the gateway is stopped first. With an engine it does.
func (w *Worker) Close() {
	w.closed.Store(true)
	if w.engine != nil {
		w.work.close()
		w.engine.Close()
		return
	}
	for _, s := range w.sessions.all() {
		s.mu.Lock()
		s.stopGrace()
		s.mu.Unlock()
	}
	w.store.Close()
}
