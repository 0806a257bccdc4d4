package mq

import (
	"hash/maphash"
	"sync"
)

// interest counts, over all loops, what is subscribed of each room, for an InterestedWorker. It hears of the first
// subscriber of a topic on a loop and of the last one that goes, never of those between.
//
// The worker is told inside the lock of the room's part: otherwise, when the last subscriber on one loop goes while the
// first on another comes, the two calls could overtake each other and the worker would be left with the wrong one.
type interest struct {
	worker InterestedWorker
	seed   maphash.Seed
	parts  [interestParts]interestPart
}

type interestPart struct {
	mu    sync.Mutex
	rooms map[string]uint32 // how many (loop, topic kind) have subscribers; no entry: none
	_     [48]byte          // fills a cache line, which loops would fight for otherwise
}

func newInterest(w InterestedWorker) *interest {
	in := &interest{worker: w, seed: maphash.MakeSeed()}
	for i := range in.parts {
		in.parts[i].rooms = make(map[string]uint32)
	}
	return in
}

// change counts one more topic of a room with subscribers on a loop, or one fewer. room is kept.
func (in *interest) change(room string, some bool) {
	p := &in.parts[maphash.String(in.seed, room)%interestParts]
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.rooms[room]
	switch {
	case some:
		p.rooms[room] = n + 1
		if n > 0 {
			return
		}
	case n > 1:
		p.rooms[room] = n - 1
		return
	case n == 1:
		delete(p.rooms, room)
	default:
		panic("mq: more subscriptions to a room have ended than there were")
	}
	in.worker.Interest(room, some)
}

// interested tells that a topic of a room has its first subscriber on this loop, or has lost its last. room is kept.
func (s *shard) interested(room string, some bool) {
	if s.g.interest == nil {
		return
	}
	defer s.survive("Interest")
	s.g.interest.change(room, some)
}
