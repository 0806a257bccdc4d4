package frame

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

var benchSizes = []int{16, 128, 1 << 10, 64 << 10}

// reading is one way to get the payloads out of buf; it returns how many bytes of payload it delivered.
type reading struct {
	name string
	read func(buf []byte) int
}

// readings are the Reader, and what it is measured against. Each works on a buffer that was just filled by a copy, as a
// read from a socket does; "copy" is that alone, the floor.
func readings() []reading {
	var r Reader
	next := func(p []byte, chunk int) (delivered int) {
		for len(p) > 0 {
			c := p[:min(chunk, len(p))]
			p = p[len(c):]
			for len(c) > 0 {
				m, n, _, err := r.Next(&server, c)
				if err != nil {
					panic(err)
				}
				delivered += len(m.Payload)
				c = c[n:]
				r.Release()
			}
		}
		return delivered
	}
	var src bytes.Reader
	return []reading{
		{"copy", func(p []byte) int { return len(p) }},
		{"frame", func(p []byte) int { return next(p, len(p)) }},
		{"frame-cut-in-two", func(p []byte) int { return next(p, len(p)/2+1) }},
		// What one writes with gobwas/ws in a minute. It checks nothing.
		{"gobwas", func(p []byte) int {
			src.Reset(p)
			h, err := ws.ReadHeader(&src)
			if err != nil {
				panic(err)
			}
			payload := make([]byte, h.Length)
			if _, err := io.ReadFull(&src, payload); err != nil {
				panic(err)
			}
			ws.Cipher(payload, h.Mask, 0)
			return len(payload)
		}},
	}
}

func BenchmarkReader(b *testing.B) {
	for _, op := range []OpCode{Binary, Text} {
		for _, size := range benchSizes {
			in := masked(op, true, strings.Repeat("b", size))
			buf := make([]byte, len(in))
			for _, way := range readings() {
				b.Run(fmt.Sprintf("%v/%d/%s", op, size, way.name), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						copy(buf, in)
						way.read(buf)
					}
				})
			}
		}
	}
}

// Many small frames in one read, the way of a busy connection; per frame.
func BenchmarkReaderBatch(b *testing.B) {
	const frames = 100
	in := []byte(strings.Repeat(string(masked(Binary, true, strings.Repeat("b", 128))), frames))
	buf := make([]byte, len(in))
	read := readings()[1].read
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, in)
		read(buf)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/frames, "ns/frame")
}

var masks = []struct {
	name string
	f    func(p, src []byte)
}{
	{"copy", func(p, src []byte) { copy(p, src) }},
	{"frame", func(p, _ []byte) { Mask(p, [4]byte{1, 2, 3, 4}, 1) }},
	{"gobwas", func(p, _ []byte) { ws.Cipher(p, [4]byte{1, 2, 3, 4}, 1) }},
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{5, 16, 63, 128, 256, cipherFrom - 1, cipherFrom, 1 << 10, 64 << 10} {
		p, src := make([]byte, size), make([]byte, size)
		for _, way := range masks {
			b.Run(fmt.Sprintf("%d/%s", size, way.name), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					way.f(p, src)
				}
			})
		}
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for _, size := range benchSizes {
		payload := make([]byte, size)
		dst := make([]byte, 0, size+MaxHeader)
		b.Run(fmt.Sprintf("plain/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				AppendFrame(dst, Binary, true, payload)
			}
		})
		b.Run(fmt.Sprintf("masked/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				AppendMaskedFrame(dst, Binary, true, payload, [4]byte{1, 2, 3, 4})
			}
		})
	}
}

// The benchmarks do what they say: each way of reading delivers every payload.
func TestBenchmarksDeliver(t *testing.T) {
	for _, size := range benchSizes {
		in := masked(Text, true, strings.Repeat("b", size))
		for _, way := range readings()[1:] {
			for range 3 {
				if n := way.read(bytes.Clone(in)); n != size {
					t.Errorf("%s: %d bytes delivered of %d", way.name, n, size)
				}
			}
		}
		for _, way := range masks[1:] {
			p := make([]byte, size)
			way.f(p, nil)
			if p[0] != 2 || p[size-1] != byte(size%4+1) {
				t.Errorf("%s: %d bytes are not masked", way.name, size)
			}
		}
	}
}
