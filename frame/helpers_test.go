package frame

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/mqgate/mqgate/frame/deflate"
)

// wire reads bytes written for people: hexadecimal, in lines, with remarks behind semicolons.
func wire(lines string) []byte {
	var all []byte
	for line := range strings.Lines(lines) {
		line, _, _ = strings.Cut(line, ";")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			panic(fmt.Sprintf("%q: %v", line, err))
		}
		all = append(all, b...)
	}
	return all
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// maxHeld is the promise of limits.go: what a Reader may hold after payload bytes of a partial message.
func maxHeld(payload int) int { return 192 + 24 + max(256, 2*payload-1) }

// maxHeldInflating is the same with Config.Inflate: a byte may inflate to 1032.
func maxHeldInflating(cfg Config, payload int) int {
	return deflate.InflaterMemory + maxHeld(min(cfg.MaxMessage, 1032*payload))
}

// deliver feeds in to a Reader in chunks of the sizes that size gives, the way a connection would: one buffer for
// reads, overwritten by the next. It returns what came out, and fails the test where the Reader breaks a promise that
// holds for every input. release says whether to Release after each message.
func deliver(t testing.TB, cfg Config, in []byte, release bool, size func() int) (got verdict) {
	t.Helper()
	var r Reader
	base := 0 // offset in the input of p[0]
	for rest := in; len(rest) > 0; {
		chunk := bytes.Clone(rest[:max(1, min(size(), len(rest)))])
		rest = rest[len(chunk):]
		start := base
		for p := chunk; len(p) > 0; {
			m, n, ok, err := r.Next(&cfg, p)
			if err != nil {
				e := err.(*Error)
				if ok || n != 0 || m.Payload != nil {
					t.Fatalf("error together with n=%d ok=%v %v", n, ok, m)
				}
				if _, _, _, again := r.Next(&cfg, []byte{0x81, 0x80, 0, 0, 0, 0}); again != err {
					t.Fatalf("the error does not stick: %v, then %v", err, again)
				}
				if r.Partial() || r.Buffered() != 0 {
					t.Fatalf("after an error: Partial %v, Buffered %d", r.Partial(), r.Buffered())
				}
				r.Release()
				if _, _, _, again := r.Next(&cfg, nil); again != err {
					t.Fatalf("the error does not outlast Release: %v", again)
				}
				r.Reset()
				if r != (Reader{}) {
					t.Fatal("Reset leaves something after an error")
				}
				got.err, got.at = e, start
				return got
			}
			if !ok && n != len(p) {
				t.Fatalf("took %d of %d bytes without a message or an error", n, len(p))
			}
			p, base = p[n:], base+n
			if held := r.Buffered(); held > maxHeld(base) && !(cfg.Inflate && held <= maxHeldInflating(cfg, base)) {
				t.Fatalf("%d bytes held after %d of input", held, base)
			}
			if !ok {
				break
			}
			if len(m.Payload) != cap(m.Payload) {
				t.Fatalf("payload of %d bytes with a capacity of %d", len(m.Payload), cap(m.Payload))
			}
			got.events = append(got.events, event{m.Op, m.RSV1, bytes.Clone(m.Payload), base})
			for i := range m.Payload {
				m.Payload[i] = 0xee // the borrower may do that
			}
			if release {
				r.Release()
			}
		}
		for i := range chunk {
			chunk[i] = 0xcc
		}
	}
	got.partial = r.Partial()
	r.Release()
	if !got.partial && r != (Reader{}) {
		t.Fatalf("%d bytes held although nothing is partial", r.Buffered())
	}
	r.Reset()
	return got
}

// compare fails the test unless got, from chunks of which the last began at got.at, is want.
func compare(t testing.TB, got, want verdict, chunk int) {
	t.Helper()
	if !slices.EqualFunc(got.events, want.events, func(a, b event) bool {
		return a.op == b.op && a.rsv1 == b.rsv1 && a.end == b.end && bytes.Equal(a.payload, b.payload)
	}) {
		t.Fatalf("delivered\n%v\nexpected\n%v", got.events, want.events)
	}
	if got.err != want.err {
		t.Fatalf("error %v, expected %v", got.err, want.err)
	}
	if got.err != nil && (want.at < got.at || want.at >= got.at+chunk) {
		t.Fatalf("error in the chunk at %d of %d bytes, expected for the byte at %d", got.at, chunk, want.at)
	}
	if got.partial != want.partial {
		t.Fatalf("partial %v, expected %v", got.partial, want.partial)
	}
}

// feedEveryWay checks that in comes to want however it is cut: not at all, everywhere, and at each place into two.
func feedEveryWay(t *testing.T, cfg Config, in []byte, want verdict) {
	t.Helper()
	compare(t, deliver(t, cfg, in, true, func() int { return len(in) }), want, len(in))
	compare(t, deliver(t, cfg, in, false, func() int { return 1 }), want, 1)
	for cut := 1; cut < len(in) && cut < 600; cut++ {
		first := true
		got := deliver(t, cfg, in, cut%2 == 0, func() int {
			if first {
				first = false
				return cut
			}
			return len(in)
		})
		size := cut
		if got.at > 0 {
			size = len(in) - cut
		}
		compare(t, got, want, size)
	}
}

func TestReaderIsOnePointer(t *testing.T) {
	if n := unsafe.Sizeof(Reader{}); n != 8 {
		t.Errorf("a Reader takes %d bytes in every connection, expected 8", n)
	}
	if stateSize > 192 {
		t.Errorf("a state takes %d bytes, more than the allocation class of 192 that limits.go counts with", stateSize)
	}
}
