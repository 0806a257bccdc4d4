package mq

// slab is numbered storage that grows in chunks and never moves. Numbers begin at 1, so that 0 can say "none". What a
// burst has made it grow by is let go of when the last element is free.
type slab[T any] struct {
	chunks []*[slabChunk]T
	unused []uint32
	taken  int
}

const (
	slabChunk = 256 // elements per chunk
	slabKept  = 4   // chunks that are kept when nothing is in them
)

// take returns a free element: zero, or as free left it.
func (s *slab[T]) take() (uint32, *T) {
	if len(s.unused) == 0 {
		base := uint32(len(s.chunks)*slabChunk) + 1
		s.chunks = append(s.chunks, new([slabChunk]T))
		for i := uint32(slabChunk); i > 0; i-- {
			s.unused = append(s.unused, base+i-1)
		}
	}
	i := s.unused[len(s.unused)-1]
	s.unused = s.unused[:len(s.unused)-1]
	s.taken++
	return i, s.at(i)
}

// has reports whether there is an element i, in use or not.
func (s *slab[T]) has(i uint32) bool { return i > 0 && int((i-1)/slabChunk) < len(s.chunks) }

func (s *slab[T]) at(i uint32) *T { return &s.chunks[(i-1)/slabChunk][(i-1)%slabChunk] }

// free gives element i back; the caller has cleared it and does not use it any more.
func (s *slab[T]) free(i uint32) {
	s.unused = append(s.unused, i)
	s.taken--
	if s.taken == 0 && len(s.chunks) > slabKept {
		s.chunks, s.unused = nil, nil
	}
}

func (s *slab[T]) len() int { return s.taken }
