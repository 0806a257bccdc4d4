package nats

import (
	"sync"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// peer is what a Relay keeps of a connection: while it is bound to a session, or has an ordered request.
type peer struct {
	session string
	busy    bool      // one of its ordered requests is under way
	waiting []*flight // the others, in their order
	end     *end      // the connection has ended: to be published after the last ordered request
}

// end is the end of a connection on its way to the stream of ends.
type end struct {
	mq.Disconnect
	session string
}

// peers are the peers of a Relay. Safe from any goroutine; locks are held for a few instructions.
type peers struct {
	shards [peerShards]peerShard
}

const peerShards = 64

type peerShard struct {
	mu   sync.Mutex
	byID map[conn.ID]*peer
}

func newPeers() *peers {
	p := &peers{}
	for i := range p.shards {
		p.shards[i].byID = make(map[conn.ID]*peer)
	}
	return p
}

func (p *peers) shard(id conn.ID) *peerShard { return &p.shards[id.Slot()%peerShards] }

// enter takes an ordered request in and reports whether its turn has come.
func (p *peers) enter(f *flight) bool {
	s := p.shard(f.conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.byID[f.conn]
	if q == nil {
		q = &peer{}
		s.byID[f.conn] = q
	}
	if q.busy {
		q.waiting = append(q.waiting, f)
		return false
	}
	q.busy, f.turn = true, true
	return true
}

// leave is called once for an ordered request that is finished. It returns the one whose turn has come, or the end of the
// connection when nothing is in front of it any more.
func (p *peers) leave(f *flight) (next *flight, ended *end) {
	s := p.shard(f.conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.turn {
		return nil, nil // it waits in the list, where it is passed over
	}
	q := s.byID[f.conn]
	for len(q.waiting) > 0 {
		g := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		if !g.done.Load() {
			g.turn = true // if it is taken out just now, leave is called for it after this
			return g, nil
		}
	}
	q.busy, q.waiting = false, nil
	if q.end != nil {
		q.end.session = q.session
		delete(s.byID, f.conn)
		return nil, q.end
	}
	if q.session == "" {
		delete(s.byID, f.conn)
	}
	return nil, nil
}

// finish takes the end of a connection. It returns nil when ordered requests are in front of it: then leave returns it.
func (p *peers) finish(d mq.Disconnect) *end {
	e := &end{Disconnect: d}
	s := p.shard(d.Conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.byID[d.Conn]
	if q == nil {
		return e
	}
	if q.busy {
		q.end = e
		return nil
	}
	e.session = q.session
	delete(s.byID, d.Conn)
	return e
}

// session returns the session to which a connection is bound, or "".
func (p *peers) session(id conn.ID) string {
	s := p.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.byID[id]; q != nil {
		return q.session
	}
	return ""
}

// bind binds a connection to a session, none when it is empty, if compare holds for the one it is bound to. known tells
// that there is something about the connection here; nothing can be bound to another one.
func (p *peers) bind(id conn.ID, session string, compare func(old string) bool) (old string, changed, known bool) {
	s := p.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.byID[id]
	if q == nil {
		return "", false, false
	}
	old = q.session
	if !compare(old) || old == session {
		return old, false, true
	}
	q.session = session
	if session == "" && !q.busy {
		delete(s.byID, id)
	}
	return old, true, true
}

// Binding is a connection and the session bound to it.
type Binding struct {
	Conn    conn.ID
	Session string
}

// bindings returns all of them.
func (p *peers) bindings() (list []Binding) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		for id, q := range s.byID {
			if q.session != "" && q.end == nil {
				list = append(list, Binding{id, q.session})
			}
		}
		s.mu.Unlock()
	}
	return list
}
