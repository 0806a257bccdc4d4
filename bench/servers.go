package bench

import (
	"slices"
	"time"
)

// servers are the processes of a run's servers, place by place. A process that is at several places, because it listens
// at several addresses, counts once.
type servers struct {
	each  []process // with pid 0: not known
	first []int     // the first place at which the process is
	known bool      // all are
}

func newServers(each []process) servers {
	s := servers{each: each, known: len(each) > 0}
	for _, p := range each {
		s.first = append(s.first, slices.Index(each, p))
		s.known = s.known && p.pid != 0
	}
	return s
}

// memory returns what the processes hold in RAM together.
func (s *servers) memory() (memory, error) {
	if h := s.held(); h.all != nil {
		return *h.all, nil
	}
	return memory{}, errNoServer
}

// openFiles returns how many files the processes have open together.
func (s *servers) openFiles() (int, error) {
	if all := together(s, readEach(s, process.openFiles), func(a, b int) int { return a + b }); all != nil {
		return *all, nil
	}
	return 0, errNoServer
}

// readEach reads something of every process, place by place; nil when it is not known.
func readEach[V any](s *servers, read func(process) (V, error)) []*V {
	list := make([]*V, len(s.each))
	for k, p := range s.each {
		if first := s.first[k]; first < k {
			list[k] = list[first]
		} else if v, err := read(p); err == nil {
			list[k] = &v
		}
	}
	return list
}

// held is what the servers hold in RAM at one moment.
type held struct {
	all  *memory   // together; nil when one of them is not known
	each []*memory // place by place; nil: not known
}

func (s *servers) held() held {
	h := held{each: readEach(s, process.memory)}
	h.all = together(s, h.each, func(a, b memory) memory { return memory{RSS: a.RSS + b.RSS, Anon: a.Anon + b.Anon} })
	return h
}

// together adds up what was read of every process; nil when one of them is not known.
func together[V any](s *servers, each []*V, add func(a, b V) V) *V {
	var sum V
	for k, v := range each {
		if v == nil {
			return nil
		}
		if s.first[k] == k {
			sum = add(sum, *v)
		}
	}
	if len(each) == 0 {
		return nil
	}
	return &sum
}

// at returns what the process at place k holds; nil when it is not known.
func (h *held) at(k int) *memory {
	if k >= len(h.each) {
		return nil
	}
	return h.each[k]
}

// spent is processor time of the servers.
type spent struct {
	all  *time.Duration   // together; nil when one of them is not known
	each []*time.Duration // place by place; nil: not known
}

func (s *servers) spent() spent {
	c := spent{each: readEach(s, process.cpu)}
	c.all = together(s, c.each, func(a, b time.Duration) time.Duration { return a + b })
	return c
}

// since returns what has been spent since before.
func (c spent) since(before spent) (took spent) {
	less := func(a, b *time.Duration) *time.Duration {
		if a == nil || b == nil {
			return nil
		}
		d := *a - *b
		return &d
	}
	took.all = less(c.all, before.all)
	for k := range min(len(c.each), len(before.each)) {
		took.each = append(took.each, less(c.each[k], before.each[k]))
	}
	return took
}

// at returns what the process at place k has spent; nil when it is not known.
func (c *spent) at(k int) *time.Duration {
	if k >= len(c.each) {
		return nil
	}
	return c.each[k]
}
