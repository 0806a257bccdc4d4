package clientaddr

import "sync"

// shard is a part of a Limiter's table: entries in a slab, an index by address, and a list of the idle ones. None of it
// holds pointers to entries, so that the garbage collector need not look at a million of them.
//
// An entry is idle when it has no connections. It is in the list then, and in no other case; the list is in the order of
// at, since entries are appended with at being the present time, which never goes back. One that has been idle for a
// second has a full bucket and is removed.
type shard struct {
	mu    sync.Mutex
	now   int64 // the latest time seen [ns]
	rate  int64 // as in Limiter
	index map[key]uint32
	slab  []entry
	free  uint32 // list of unused entries, linked by newer

	oldest, newest uint32 // the list of idle entries

	_ [60]byte // to 128: locks of two shards do not share a cache line
}

// entry is what is known of an address.
type entry struct {
	key         key
	at          int64 // when bucket was right [ns]
	bucket      int64 // handshakes left [billionths]; unused without a limit on them
	connections int32 // unused without a limit on them
	older       uint32
	newer       uint32
	idle        bool
}

const (
	second = 1_000_000_000 // [ns]
	whole  = 1_000_000_000 // a handshake in a bucket [billionths], so that a bucket fills by rate per nanosecond
	none   = ^uint32(0)    // no entry
)

func (s *shard) init(rate int64) {
	s.rate, s.free, s.oldest, s.newest = rate, none, none, none
	s.index = make(map[key]uint32)
}

// full is what a bucket holds.
func (s *shard) full() int64 { return s.rate * whole }

// bucket returns what is in the bucket of e now.
func (s *shard) bucket(e *entry) int64 {
	return min(s.full(), e.bucket+min(s.now-e.at, second)*s.rate)
}

// advance moves the shard's time on, and removes up to limit entries that have been idle for a second. It returns how
// many.
func (s *shard) advance(now int64, limit int) (n int) {
	s.now = max(s.now, now)
	for n < limit && s.oldest != none && s.now-s.slab[s.oldest].at >= second {
		s.evict()
		n++
	}
	return n
}

// evict removes the entry that has been idle for longest, if any is.
func (s *shard) evict() bool {
	i := s.oldest
	if i == none {
		return false
	}
	s.unlink(i)
	s.remove(i)
	return true
}

// add makes an entry with a full bucket, no connections, and not in the list yet.
func (s *shard) add(k key) (i uint32) {
	if i = s.free; i != none {
		s.free = s.slab[i].newer
	} else {
		i = uint32(len(s.slab))
		s.slab = append(s.slab, entry{})
	}
	s.slab[i] = entry{key: k, at: s.now, bucket: s.full(), older: none, newer: none}
	s.index[k] = i
	return i
}

// remove forgets an entry that is not in the list.
func (s *shard) remove(i uint32) {
	delete(s.index, s.slab[i].key)
	s.slab[i] = entry{newer: s.free}
	s.free = i
}

// link appends an entry to the list of idle ones.
func (s *shard) link(i uint32) {
	e := &s.slab[i]
	e.idle, e.older, e.newer = true, s.newest, none
	if s.newest != none {
		s.slab[s.newest].newer = i
	} else {
		s.oldest = i
	}
	s.newest = i
}

// unlink takes an entry out of the list.
func (s *shard) unlink(i uint32) {
	e := &s.slab[i]
	if e.older != none {
		s.slab[e.older].newer = e.newer
	} else {
		s.oldest = e.newer
	}
	if e.newer != none {
		s.slab[e.newer].older = e.older
	} else {
		s.newest = e.older
	}
	e.idle, e.older, e.newer = false, none, none
}

// shrink gives memory back when less than a quarter of it is in use. A map does not by itself.
func (s *shard) shrink() {
	n := len(s.index)
	if cap(s.slab) <= smallSlab || n > cap(s.slab)/4 {
		return
	}
	old, oldest, index := s.slab, s.oldest, s.index
	s.slab = make([]entry, 0, max(2*n, smallSlab))
	s.index = make(map[key]uint32, n)
	s.free, s.oldest, s.newest = none, none, none
	move := func(i uint32) uint32 {
		to := uint32(len(s.slab))
		s.slab = append(s.slab, old[i])
		s.index[old[i].key] = to
		return to
	}
	for i := oldest; i != none; i = old[i].newer {
		s.link(move(i))
	}
	for _, i := range index {
		if !old[i].idle {
			move(i)
		}
	}
}
