package rooms

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/mq"
)

// Op is one operation on one room.
type Op interface {
	// Apply changes the room. It only computes: a store that loses a compare-and-set calls it again on a newer state.
	Apply(*Room)
	// Result returns what Apply has left behind. It is good until the next Apply.
	Result() *Result
	// Subscribes reports whether the answer subscribes a client to a topic of the room, and to which.
	Subscribes() (mq.TopicKind, bool)
	// Deliver is called once, after the change is in the store, and before Deliver of any later change to the same room.
	// In the memory of one process it answers the request and publishes the event: so answers and events leave in the
	// order of the changes. An Engine publishes events by itself; seq is then the number of the last record of the room's
	// log that a subscriber must not get any more.
	Deliver(r *Room, seq uint64)
}

// Store keeps rooms and the names they are found by. All methods are safe from any goroutine.
type Store interface {
	// Create adds a room. When its id or its alias is taken, or when the store is full, nothing happens: the result
	// says which, and id is that of the room in the way.
	Create(r *Room) (result CreateResult, id string, err error)

	// Find returns the id of the room with an alias, or "".
	Find(alias string) (id string, err error)

	// Do applies op to a room and delivers it. False: there is no such room, and Deliver was not called. A room that has
	// ended after Apply is removed, and its alias is free, when Do returns. After an error Deliver was not called, and it
	// is not known whether the change was made.
	Do(id string, op Op) (bool, error)

	// Len returns the number of rooms.
	Len() (int, error)

	// Close stops everything the store does by itself. It waits for nothing.
	Close()
}

// CreateResult is what became of a room that was to be created.
type CreateResult uint8

const (
	Created CreateResult = iota
	Exists
	Full
)

const storeShards = 64 // power of two; a shard's lock is held for a map access

// memStore is the Store in memory: a lock per room, and maps in shards to find it.
type memStore struct {
	seed    maphash.Seed
	rooms   [storeShards]shard[*memRoom]
	aliases [storeShards]shard[string]
	count   atomic.Int64
	max     int64
	ttl     time.Duration // how long a room stays with nobody in it; 0: for ever
	closed  atomic.Bool
}

// shard is a part of a map. Its lock is a leaf: nothing else is locked while it is held, but for an id shard under an
// alias shard.
type shard[V any] struct {
	mu sync.RWMutex
	m  map[string]V
	_  [32]byte // keeps neighbours off each other's cache line
}

// memRoom is a room and its lock.
type memRoom struct {
	mu   sync.Mutex
	room *Room
	gone bool // not in the store any more

	// timer removes the room when it has been empty for the ttl; nil until it was empty for the first time. It runs
	// only while the room is empty. A callback that comes too late to be stopped sees that emptySince has moved on.
	timer      *time.Timer
	emptySince time.Time // zero while there are members
}

func newMemStore(limit int, ttl time.Duration) *memStore {
	st := &memStore{seed: maphash.MakeSeed(), max: int64(limit), ttl: ttl}
	for i := range st.rooms {
		st.rooms[i].m = map[string]*memRoom{}
		st.aliases[i].m = map[string]string{}
	}
	return st
}

func (st *memStore) shard(id string) *shard[*memRoom] {
	return &st.rooms[maphash.String(st.seed, id)%storeShards]
}

func (st *memStore) aliasShard(alias string) *shard[string] {
	return &st.aliases[maphash.String(st.seed, alias)%storeShards]
}

// Create implements Store.
func (st *memStore) Create(r *Room) (CreateResult, string, error) {
	id, alias := r.ID(), r.Alias()
	if alias != "" {
		as := st.aliasShard(alias)
		as.mu.Lock()
		defer as.mu.Unlock()
		if other, ok := as.m[alias]; ok {
			return Exists, other, nil
		}
		result, other := st.insert(r)
		if result == Created {
			as.m[alias] = id
		}
		return result, other, nil
	}
	result, other := st.insert(r)
	return result, other, nil
}

func (st *memStore) insert(r *Room) (CreateResult, string) {
	e := &memRoom{room: r}
	s := st.shard(r.ID())
	s.mu.Lock()
	if _, ok := s.m[r.ID()]; ok {
		s.mu.Unlock()
		return Exists, r.ID()
	}
	if st.count.Add(1) > st.max {
		st.count.Add(-1)
		s.mu.Unlock()
		return Full, ""
	}
	s.m[r.ID()] = e
	s.mu.Unlock()
	e.mu.Lock()
	st.watch(e)
	e.mu.Unlock()
	return Created, r.ID()
}

// Find implements Store.
func (st *memStore) Find(alias string) (string, error) {
	s := st.aliasShard(alias)
	s.mu.RLock()
	id := s.m[alias]
	s.mu.RUnlock()
	return id, nil
}

// Do implements Store.
func (st *memStore) Do(id string, op Op) (bool, error) {
	s := st.shard(id)
	s.mu.RLock()
	e := s.m[id]
	s.mu.RUnlock()
	if e == nil {
		return false, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return false, nil
	}
	op.Apply(e.room)
	op.Deliver(e.room, 0)
	if e.room.Ended() {
		st.remove(e) // not before Deliver: nobody may join a new room of this id while the old one is being ended
	} else {
		st.watch(e)
	}
	return true, nil
}

// watch starts or stops the timer of a room that has become empty or is so no longer. e.mu is held.
func (st *memStore) watch(e *memRoom) {
	switch empty := e.room.Empty(); {
	case empty == !e.emptySince.IsZero() || st.ttl == 0 || e.gone:
	case !empty:
		e.emptySince = time.Time{}
		e.timer.Stop()
	case st.closed.Load():
	case e.timer == nil:
		e.emptySince = time.Now()
		e.timer = time.AfterFunc(st.ttl, func() { st.expire(e) })
	default:
		e.emptySince = time.Now()
		e.timer.Reset(st.ttl)
	}
}

// expire removes a room that has been empty for the ttl.
func (st *memStore) expire(e *memRoom) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone || e.emptySince.IsZero() || time.Since(e.emptySince) < st.ttl || st.closed.Load() {
		return
	}
	e.room.end()
	st.remove(e)
}

// remove takes a room and its alias out of the maps. e.mu is held.
func (st *memStore) remove(e *memRoom) {
	e.gone = true
	if e.timer != nil {
		e.timer.Stop()
	}
	id, alias := e.room.ID(), e.room.Alias()
	if alias != "" {
		as := st.aliasShard(alias)
		as.mu.Lock()
		defer as.mu.Unlock() // the alias is not free before the room is gone
		delete(as.m, alias)
	}
	s := st.shard(id)
	s.mu.Lock()
	delete(s.m, id)
	s.mu.Unlock()
	st.count.Add(-1)
}

// Len implements Store.
func (st *memStore) Len() (int, error) { return int(st.count.Load()), nil }

// Close implements Store. Timers that are running are stopped, and none is started any more.
func (st *memStore) Close() {
	st.closed.Store(true)
	for i := range st.rooms {
		s := &st.rooms[i]
		s.mu.RLock()
		all := make([]*memRoom, 0, len(s.m))
		for _, e := range s.m {
			all = append(all, e)
		}
		s.mu.RUnlock() // a room's lock is never taken under a shard's
		for _, e := range all {
			e.mu.Lock()
			if e.timer != nil {
				e.timer.Stop()
			}
			e.mu.Unlock()
		}
	}
}
