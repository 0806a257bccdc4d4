package rooms

import (
	"crypto/rand"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/conn"
)

// session is what pcast.Authenticate gives a client. It belongs to one connection at a time, or to none for a while
// after that was lost.
type session struct {
	w       *Worker
	id      string // 130 random bits: knowing it is the right to take the session over
	subject string // whom the Authenticator saw; does not change

	// mu is held while a request of the session is handled, so that nothing is half done when another connection takes
	// the session over. Only the connection's own loop wants it, but for that and for the end of the grace.
	mu        sync.Mutex
	conn      conn.ID
	connected bool // conn is the connection; false: lost, or ended
	ended     bool // not in the index any more; nothing may be done with it
	rooms     []membership

	// grace runs while connected is false or some membership is detached. epoch counts its starts and stops, so that a
	// callback that could not be stopped in time knows itself out of date.
	grace *time.Timer
	epoch uint64
}

// membership is a room that a session has joined. The room has the last word: a room may have ended since.
type membership struct {
	room string // id
	// detached: joined by another connection than the one that has the session now. JoinRoom clears it; if the grace
	// ends first, the session leaves the room. Of no meaning while there is no connection.
	detached bool
}

// find returns the index of the membership of a room, or -1.
func (s *session) find(room string) int {
	for i := range s.rooms {
		if s.rooms[i].room == room {
			return i
		}
	}
	return -1
}

// forget removes a membership, if there is one.
func (s *session) forget(room string) {
	if i := s.find(room); i >= 0 {
		s.rooms = append(s.rooms[:i], s.rooms[i+1:]...)
	}
}

// detach marks all memberships as joined by a lost connection, and reports whether there are any.
func (s *session) detach() bool {
	for i := range s.rooms {
		s.rooms[i].detached = true
	}
	return len(s.rooms) > 0
}

// attached reports whether no membership is detached.
func (s *session) attached() bool {
	for i := range s.rooms {
		if s.rooms[i].detached {
			return false
		}
	}
	return true
}

// stopGrace stops the timer. s.mu is held.
func (s *session) stopGrace() {
	s.epoch++
	if s.grace != nil {
		s.grace.Stop()
		s.grace = nil
	}
}

// The methods of Session, for the time while a request of the session is handled: mu is held then, so that nothing needs
// to be noted beforehand.

// ID implements Session.
func (s *session) ID() string { return s.id }

// Rooms implements Session.
func (s *session) Rooms() ([]Membership, error) {
	out := make([]Membership, 0, len(s.rooms))
	for i := range s.rooms {
		out = append(out, Membership{Room: s.rooms[i].room})
	}
	return out, nil
}

// Joining implements Session.
func (s *session) Joining(room string, limit int) (uint64, bool, error) {
	return 0, len(s.rooms) < limit || s.find(room) >= 0, nil
}

// Joined implements Session: a session that has joined a room is in it by its present connection.
func (s *session) Joined(room string, joined bool) error {
	if !joined {
		return nil
	}
	if i := s.find(room); i >= 0 {
		s.rooms[i].detached = false
	} else {
		s.rooms = append(s.rooms, membership{room: room})
	}
	s.settle()
	return nil
}

// Leaving implements Session.
func (s *session) Leaving(string) (uint64, error) { return 0, nil }

// Left implements Session.
func (s *session) Left(room string) error {
	s.forget(room)
	s.settle()
	return nil
}

// Forget implements Session.
func (s *session) Forget(m Membership) error {
	s.forget(m.Room)
	return nil
}

// End implements Session.
func (s *session) End() error {
	s.w.sessions.dropConn(s.conn)
	s.w.clients.UnsubscribeAll(s.conn) // first: it need not hear of its own leaving
	s.w.end(s)
	return nil
}

// Close implements Session.
func (s *session) Close() { s.mu.Unlock() }

// settle stops the grace when it has nothing left to end.
func (s *session) settle() {
	if s.grace != nil && s.attached() {
		s.stopGrace()
	}
}

const indexShards = 64 // power of two

// index finds sessions by their id and by their connection. Its locks are leaves.
type index struct {
	seed  maphash.Seed
	ids   [indexShards]shard[*session]
	conns [indexShards]struct {
		mu sync.RWMutex
		m  map[conn.ID]*session
		_  [32]byte
	}
	count atomic.Int64
}

func newIndex() *index {
	x := &index{seed: maphash.MakeSeed()}
	for i := range indexShards {
		x.ids[i].m = map[string]*session{}
		x.conns[i].m = map[conn.ID]*session{}
	}
	return x
}

// connShard keeps the connections of each loop together: only that loop looks them up, so that no two processors want
// the same lock (but for takeovers, and with more than 64 loops).
func connShard(id conn.ID) int { return id.Loop() % indexShards }

// byConn returns the session of a connection, or nil.
func (x *index) byConn(id conn.ID) *session {
	c := &x.conns[connShard(id)]
	c.mu.RLock()
	s := c.m[id]
	c.mu.RUnlock()
	return s
}

func (x *index) setConn(id conn.ID, s *session) {
	c := &x.conns[connShard(id)]
	c.mu.Lock()
	c.m[id] = s
	c.mu.Unlock()
}

// dropConn forgets a connection.
func (x *index) dropConn(id conn.ID) {
	c := &x.conns[connShard(id)]
	c.mu.Lock()
	delete(c.m, id)
	c.mu.Unlock()
}

// byID returns a session, or nil.
func (x *index) byID(id string) *session {
	i := &x.ids[maphash.String(x.seed, id)%indexShards]
	i.mu.RLock()
	s := i.m[id]
	i.mu.RUnlock()
	return s
}

// create makes a session of a connection, or returns nil when there are limit already.
func (x *index) create(w *Worker, id conn.ID, subject string, limit int) *session {
	if x.count.Add(1) > int64(limit) {
		x.count.Add(-1)
		return nil
	}
	s := &session{w: w, id: rand.Text(), subject: subject, conn: id, connected: true}
	i := &x.ids[maphash.String(x.seed, s.id)%indexShards]
	i.mu.Lock()
	i.m[s.id] = s
	i.mu.Unlock()
	x.setConn(id, s)
	return s
}

// remove takes a session that has ended out of the index.
func (x *index) remove(s *session) {
	i := &x.ids[maphash.String(x.seed, s.id)%indexShards]
	i.mu.Lock()
	delete(i.m, s.id)
	i.mu.Unlock()
	x.count.Add(-1)
}

// all returns every session there is at some moment.
func (x *index) all() []*session {
	var out []*session
	for i := range x.ids {
		x.ids[i].mu.RLock()
		for _, s := range x.ids[i].m {
			out = append(out, s)
		}
		x.ids[i].mu.RUnlock()
	}
	return out
}
