package frame

import (
	"math/bits"
	"sync"

	"github.com/valyala/bytebufferpool"
)

// The memory of partial messages. A bytebufferpool.Pool used as it comes is wrong for it, in two ways:
//
//   - it hands out whatever buffer comes first. After a burst of large messages a frame of 20 bytes, cut in two by a read,
//     would sit in a megabyte for as long as its sender likes;
//   - it calibrates: after 42,000 returns a fresh buffer is made as large as the most common returned one. Whoever sends
//     42,000 messages of 512 KiB and then one byte on each of a million connections would be given half a terabyte.
//
// So there is one pool for each power of two. A buffer has exactly the capacity of its class, and is returned with its
// length set to its capacity: then all that a pool's calibration can find is that very size (which it then allocates by
// itself when empty, and that is right).
//
// The pools hand memory back through sync.Pool: what is not used again is freed by the second garbage collection after
// its return, so a burst costs its peak, and memory is back two collections later. The state is pooled for the same
// reason: nothing of a partial message outlives it in the connection.
var (
	states  = sync.Pool{New: func() any { return new(state) }}
	buffers [maxPooledBits - minBufferBits + 1]bytebufferpool.Pool
)

// bufferBits returns the class of the buffer for n bytes: the smallest power of two that holds them.
func bufferBits(n int) int { return max(minBufferBits, bits.Len(uint(n-1))) }

// getBuffer returns an empty buffer with room for n (at least 1) bytes: its capacity is at least n, and minBuffer or less
// than 2*n.
func getBuffer(n int) *bytebufferpool.ByteBuffer {
	class := bufferBits(n)
	if class > maxPooledBits {
		return &bytebufferpool.ByteBuffer{B: make([]byte, 0, n+n/4)}
	}
	b := buffers[class-minBufferBits].Get()
	if cap(b.B) != 1<<class {
		b.B = make([]byte, 0, 1<<class)
	}
	return b
}

// putBuffer takes b back.
func putBuffer(b *bytebufferpool.ByteBuffer) {
	class := bufferBits(cap(b.B))
	if invariants {
		mangle(b.B)
	}
	if class > maxPooledBits {
		return
	}
	b.B = b.B[:cap(b.B)]
	buffers[class-minBufferBits].Put(b)
}

// getState returns a state that is as good as new.
func getState() *state {
	s := states.Get().(*state)
	*s = state{}
	return s
}

// putState takes back s and what it holds.
func putState(s *state) {
	if s.buf != nil {
		putBuffer(s.buf)
		s.buf = nil
	}
	if s.z != nil {
		s.z.Free()
		s.z = nil
	}
	if invariants {
		if s.pooled {
			panic("frame: a Reader was copied while it held something")
		}
		s.pooled = true
		mangle(s.scratch[:])
	}
	states.Put(s)
}

// mangle overwrites what somebody may still be looking at although its time is up.
func mangle(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
