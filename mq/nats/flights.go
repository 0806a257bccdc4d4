package nats

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// flight is a request of a client between Process and its answer. Who takes it out of the table (flights.take) finishes
// it, and nobody else.
type flight struct {
	token         uint64
	link          *link
	conn          conn.ID
	typ           string
	clientSession string
	remote        netip.AddrPort
	begun         int64 // of the connection [ms since 1970]
	headers       []mq.Header
	payload       []byte       // of the link's sender, once it is queued
	held          atomic.Int64 // how many bytes of payload are counted as kept
	start         int64        // [ns, Conn.now]
	until         int64        // when the gateway's timeout has passed [ns, Conn.now]
	deadline      int64        // the same for workers [ms since 1970]
	completion    mq.Completion
	ordered       bool
	idempotent    bool

	via       atomic.Pointer[dialed] // the socket through which it went out last; nil: it waits
	done      atomic.Bool            // taken out of the table
	answering atomic.Bool            // a Follower has its answer

	turn bool // ordered: it is the one under way on its connection; guarded by the peers' lock

	next, prev *flight // in the shard's list, in the order of until
}

// flights are the flights of a Relay by token. Safe from any goroutine.
type flights struct {
	last   atomic.Uint64
	count  atomic.Int64
	shards [flightShards]flightShard
}

const flightShards = 64

type flightShard struct {
	mu      sync.Mutex
	byToken map[uint64]*flight
	oldest  *flight
	newest  *flight
}

func newFlights() *flights {
	t := &flights{}
	for i := range t.shards {
		t.shards[i].byToken = make(map[uint64]*flight)
	}
	return t
}

// add gives f a token and takes it in.
func (t *flights) add(f *flight) {
	f.token = t.last.Add(1)
	s := &t.shards[f.token%flightShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byToken[f.token] = f
	if s.newest != nil {
		f.prev, s.newest.next = s.newest, f
	} else {
		s.oldest = f
	}
	s.newest = f
	t.count.Add(1)
}

// get returns the flight with a token and leaves it in.
func (t *flights) get(token uint64) *flight {
	s := &t.shards[token%flightShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byToken[token]
}

// take takes the flight with a token out; nil when there is none any more.
func (t *flights) take(token uint64) *flight {
	s := &t.shards[token%flightShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byToken[token]
	if f != nil {
		s.remove(f)
		t.count.Add(-1)
	}
	return f
}

func (s *flightShard) remove(f *flight) {
	f.done.Store(true)
	delete(s.byToken, f.token)
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		s.oldest = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		s.newest = f.prev
	}
	f.next, f.prev = nil, nil
}

// takeExpired takes out what is above its time.
func (t *flights) takeExpired(now int64) (expired []*flight) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for f := s.oldest; f != nil && f.until <= now; f = s.oldest {
			s.remove(f)
			t.count.Add(-1)
			expired = append(expired, f)
		}
		s.mu.Unlock()
	}
	return expired
}

// all returns the flights for which keep holds, oldest first in each shard.
func (t *flights) all(keep func(*flight) bool) (list []*flight) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for f := s.oldest; f != nil; f = f.next {
			if keep(f) {
				list = append(list, f)
			}
		}
		s.mu.Unlock()
	}
	return list
}
