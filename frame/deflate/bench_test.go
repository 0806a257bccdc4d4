package deflate

import (
	"bytes"
	stdlib "compress/flate"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/gobwas/ws/wsflate"
	"github.com/klauspost/compress/flate"
)

type payload struct {
	name string
	of   func(seed uint64, n int) []byte
}

var payloads = []payload{{"chat", chat}, {"envelopes", envelopes}}

var benchSizes = []int{128, 1 << 10, 16 << 10}

// flusher is what the writers of the libraries have in common.
type flusher interface {
	io.Writer
	Flush() error
	Reset(io.Writer)
}

// packer is one way to compress a message; it returns how long the message becomes.
type packer struct {
	name string
	make func(before []byte) func(p []byte) int
}

func writer(name string, open func() (flusher, error)) packer {
	return packer{name, func([]byte) func([]byte) int {
		w, err := open()
		if err != nil {
			panic(err)
		}
		var out sink
		return func(p []byte) int {
			out.b = out.b[:0]
			w.Reset(&out)
			_, _ = w.Write(p)
			_ = w.Flush()
			return len(out.b) - len(tail)
		}
	}}
}

func dictionary(n, level int) packer {
	return packer{fmt.Sprintf("klauspost-%d-dictionary-%d", level, n), func(before []byte) func([]byte) int {
		var out sink
		w, err := flate.NewWriter(&out, level)
		if err != nil {
			panic(err)
		}
		return func(p []byte) int {
			out.b = out.b[:0]
			w.ResetDict(&out, before[len(before)-n:])
			_, _ = w.Write(p)
			_ = w.Flush()
			return len(out.b) - len(tail)
		}
	}}
}

func packers() []packer {
	all := []packer{
		{"here-shared", func([]byte) func([]byte) int {
			var c Compressor
			var out []byte
			return func(p []byte) int {
				out, _ = c.Append(out[:0], p, MaxWindowBits, nil)
				return len(out)
			}
		}},
		{"here-takeover", func(before []byte) func([]byte) int {
			var c Compressor
			w := window(dictionaryBits, before)
			var out []byte
			return func(p []byte) int {
				out, _ = c.Append(out[:0], p, MaxWindowBits, w) // no w.Add: the same message again is not the case to measure
				return len(out)
			}
		}},
	}
	for _, level := range []int{1, 6} {
		all = append(all, writer(fmt.Sprintf("compress-flate-%d", level), func() (flusher, error) { return stdlib.NewWriter(nil, level) }))
	}
	for _, level := range []int{1, 3, 5, -2} {
		all = append(all, writer(fmt.Sprintf("klauspost-%d", level), func() (flusher, error) { return flate.NewWriter(io.Discard, level) }))
	}
	all = append(all,
		packer{"klauspost-stateless", func([]byte) func([]byte) int {
			var out sink
			return func(p []byte) int {
				out.b = out.b[:0]
				_ = flate.StatelessDeflate(&out, p, false, nil)
				return len(out.b) - len(tail)
			}
		}},
		packer{"klauspost-stateless-dictionary-4096", func(before []byte) func([]byte) int {
			var out sink
			return func(p []byte) int {
				out.b = out.b[:0]
				_ = flate.StatelessDeflate(&out, p, false, before[len(before)-4096:])
				return len(out.b) - len(tail)
			}
		}},
		dictionary(4096, 1), dictionary(32<<10, 1), dictionary(32<<10, 5),
		packer{"wsflate", func([]byte) func([]byte) int { // with the compressor that its documentation shows
			var out sink
			w := wsflate.NewWriter(&out, func(w io.Writer) wsflate.Compressor {
				f, _ := stdlib.NewWriter(w, 6)
				return f
			})
			return func(p []byte) int {
				out.b = out.b[:0]
				w.Reset(&out)
				_, _ = w.Write(p)
				_ = w.Flush()
				return len(out.b)
			}
		}})
	return all
}

func BenchmarkDeflate(b *testing.B) {
	for _, kind := range payloads {
		for _, n := range benchSizes {
			text, before := kind.of(1, n), kind.of(2, 1<<MaxWindowBits)
			for _, way := range packers() {
				b.Run(fmt.Sprintf("%s/%d/%s", kind.name, n, way.name), func(b *testing.B) {
					pack := way.make(before)
					length := pack(text)
					b.SetBytes(int64(n))
					b.ReportAllocs()
					for b.Loop() {
						pack(text)
					}
					b.ReportMetric(float64(length), "bytes/msg")
				})
			}
		}
	}
}

// unpackers are the Inflater and the readers of the libraries, each with its working memory kept between messages. in has
// the four bytes at its end that these need.
func unpackers() map[string]func(in, out []byte) int {
	pull := func(r io.ReadCloser, reset func(io.Reader)) func(in, out []byte) int {
		var src bytes.Reader
		return func(in, out []byte) int {
			src.Reset(in)
			reset(&src)
			n, err := io.ReadFull(r, out[:cap(out)])
			if err != nil {
				panic(err)
			}
			return n
		}
	}
	s, k := stdlib.NewReader(nil), flate.NewReader(nil)
	var frames bytes.Reader
	w := wsflate.NewReader(nil, func(r io.Reader) wsflate.Decompressor { return stdlib.NewReader(r) })
	return map[string]func(in, out []byte) int{
		"here": func(in, out []byte) int {
			z := NewInflater()
			got, _, _ := z.Inflate(out[:0], in[:len(in)-len(tail)], nil)
			if !z.End() {
				panic("incomplete")
			}
			z.Free()
			return len(got)
		},
		"compress-flate": pull(s, func(r io.Reader) { _ = s.(stdlib.Resetter).Reset(r, nil) }),
		"klauspost":      pull(k, func(r io.Reader) { _ = k.(flate.Resetter).Reset(r, nil) }),
		"wsflate": func(in, out []byte) int {
			frames.Reset(in[:len(in)-len(tail)]) // it puts them back itself
			w.Reset(&frames)
			n, err := io.ReadFull(w, out[:cap(out)])
			if err != nil {
				panic(err)
			}
			return n
		},
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, kind := range payloads {
		for _, n := range benchSizes {
			in := append(compressions(kind.of(1, n))["level 6"], tail...)
			out := make([]byte, 0, n)
			for _, name := range []string{"here", "compress-flate", "klauspost", "wsflate"} {
				b.Run(fmt.Sprintf("%s/%d/%s", kind.name, n, name), func(b *testing.B) {
					unpack := unpackers()[name]
					b.SetBytes(int64(n))
					b.ReportAllocs()
					for b.Loop() {
						unpack(in, out)
					}
				})
			}
		}
	}
}

// The benchmarks do what they say, and the tables of docs/compression.md have the right order of magnitude.
func TestBenchmarks(t *testing.T) {
	for _, kind := range payloads {
		for _, n := range benchSizes {
			text, before := kind.of(1, n), kind.of(2, 1<<MaxWindowBits)
			for _, way := range packers() {
				if length := way.make(before)(text); length == 0 && way.name[:4] != "here" || length > n+20 {
					t.Errorf("%s: %d bytes became %d", way.name, n, length)
				}
			}
			in := append(compressions(text)["level 6"], tail...)
			for name, unpack := range unpackers() {
				out := make([]byte, 0, n)
				if got := unpack(in, out); got != n || !bytes.Equal(out[:n], text) {
					t.Errorf("%s: %d bytes of %d", name, got, n)
				}
			}
		}
	}
	heap := func(make func() any) int {
		var before, after runtime.MemStats
		make() // whatever is made once for all
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := make()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		return int(after.HeapAlloc) - int(before.HeapAlloc)
	}
	text := chat(1, 16<<10)
	for name, tc := range map[string]struct {
		make func() any
		most int
	}{
		"Compressor":            {func() any { c := new(Compressor); c.Append(nil, text, MaxWindowBits, nil); return c }, 900_000},
		"Compressor for 9 bits": {func() any { c := new(Compressor); c.Append(nil, text, 9, nil); return c }, 1_200_000},
		"klauspost's reader":    {func() any { return flate.NewReader(bytes.NewReader(nil)) }, 50_000},
	} {
		runtime.GC()
		if got := heap(tc.make); got > tc.most {
			t.Errorf("a %s takes %d bytes", name, got)
		} else {
			t.Logf("a %s takes %d bytes", name, got)
		}
	}
	if InflaterMemory > 4<<10 {
		t.Errorf("an Inflater takes %d bytes", InflaterMemory)
	}
	t.Logf("an Inflater takes %d bytes", InflaterMemory)
}
