//go:build !race && !invariants

package deflate

import (
	"math/rand/v2"
	"testing"
)

// Not with -race: sync.Pool then throws away at random, to find races.

// No allocation per message, either way, in either mode.
func TestMessagesAllocateNothing(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		for _, bits := range []uint8{MinWindowBits, 12, MaxWindowBits} {
			for _, n := range []int{16, 128, 1 << 10, 16 << 10, 100 << 10} {
				text := chat(1, n)
				if bits == 12 { // what does not become shorter
					rng := rand.New(rand.NewPCG(1, 1))
					for i := range text {
						text[i] = byte(rng.Uint32())
					}
				}
				p := Params{ServerMaxWindowBits: bits, ClientMaxWindowBits: bits, ServerNoContextTakeover: !takeover}
				server, client := NewContext(p, true), NewContext(p, false)
				var c Compressor
				var packed []byte
				out := make([]byte, 0, n)
				round := func() {
					in, ok := c.Append(packed[:0], text, bits, server.Out())
					packed = in
					if !ok {
						return
					}
					z := NewInflater()
					got, k, status := z.Inflate(out, in, client.In())
					if status != NeedInput || k != len(in) || len(got) != n || !z.End() {
						t.Fatal(status, k, len(got))
					}
					z.Free()
					if takeover {
						server.Out().Add(text)
						client.In().Add(text)
					}
				}
				for range 20 {
					round()
				}
				if got := testing.AllocsPerRun(100, round); got != 0 {
					t.Errorf("takeover %v, %d bits, %d bytes: %v allocations", takeover, bits, n, got)
				}
			}
		}
	}
}
