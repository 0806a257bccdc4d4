package deflate

import (
	"bytes"
	"testing"
)

// FuzzInflate: any bytes, cut anywhere, behind any window, give what compress/flate gives when it sees them at once: the
// same output and the same verdict, with output bounded to the byte. sizes are the pieces' less one, around and around.
func FuzzInflate(f *testing.F) {
	before := chat(9, 300)
	for _, text := range [][]byte{nil, []byte("Hello"), bytes.Repeat([]byte("ab"), 400), chat(1, 700), envelopes(1, 300)} {
		for _, in := range compressions(text) {
			f.Add(in, before, []byte{0}, uint16(1000))
			f.Add(in, []byte{}, []byte{6, 0, 20}, uint16(5))
		}
		var c Compressor
		in, _ := c.Append(nil, text, MaxWindowBits, window(MaxWindowBits, before))
		f.Add(in, before, []byte{1}, uint16(2000))
	}
	for _, s := range []string{"f3 48 cd c9 c9 07 00 00", "f2 00 11 00 00", "06", "04 c0 81 08 00 00 00 00 20 7f eb 0b 00 00", "00 04 00 fb ff", ""} {
		f.Add(unhex(s), before, []byte{2}, uint16(100))
	}
	f.Fuzz(func(t *testing.T, in, before, sizes []byte, limit uint16) {
		if len(in) > 1<<12 || len(before) > 1<<MaxWindowBits {
			return
		}
		full, ok := oracle(in, before)
		want, wantErr := full, error(nil)
		if !ok {
			wantErr = errCorrupt
		}
		i := 0
		some := func() int {
			if len(sizes) == 0 {
				return 3
			}
			i++
			return 1 + int(sizes[i%len(sizes)])
		}
		var z Inflater
		for _, size := range []func() int{whole, func() int { return 1 }, some} {
			w := window(MaxWindowBits, before)
			out, err := inflate(t, &z, in, w, 1<<22, size)
			// What a broken message was before it broke is more or less according to how far the oracle looked ahead.
			if err != wantErr || ok && !bytes.Equal(out, want) {
				t.Fatalf("%d bytes %v, compress/flate gives %d, %v", len(out), err, len(want), wantErr)
			}
			z.Reset()
			short, err := inflate(t, &z, in, w, int(limit), size)
			if len(out) > int(limit) {
				if err != errTooBig || !bytes.Equal(short, out[:limit]) {
					t.Fatalf("limited to %d: %d bytes %v", limit, len(short), err)
				}
			} else if err != wantErr || !bytes.Equal(short, out) {
				t.Fatalf("limited to %d: %d bytes %v, want %d %v", limit, len(short), err, len(out), wantErr)
			}
			z.Reset()
		}
	})
}

// FuzzRoundTrip: two messages through a Compressor come back, whatever window was agreed on, also from compress/flate, and
// refer to nothing farther back than that.
func FuzzRoundTrip(f *testing.F) {
	for bits := byte(MinWindowBits); bits <= MaxWindowBits; bits++ {
		f.Add(chat(1, 600), chat(2, 400), bits, true)
		f.Add(bytes.Repeat([]byte("abc"), 1<<min(bits, 9)), []byte{}, bits, false)
		f.Add(envelopes(1, 3<<min(bits, 10)), envelopes(1, 1<<min(bits, 10)), bits, true)
	}
	var c Compressor
	f.Fuzz(func(t *testing.T, first, second []byte, bits byte, takeover bool) {
		roundTrip(t, &c, first, second, bits, takeover)
	})
}

// The same with messages much longer than every window: a farther match is refused by the Inflater.
func TestRoundTripLong(t *testing.T) {
	var c Compressor
	for bits := byte(MinWindowBits); bits <= MaxWindowBits; bits++ {
		for _, takeover := range []bool{false, true} {
			roundTrip(t, &c, envelopes(1, 3<<bits), chat(2, 1<<bits), bits, takeover)
			roundTrip(t, &c, chat(1, 40_000), chat(2, 1<<bits-1), bits, takeover)
			roundTrip(t, &c, chat(3, 1<<bits+1), chat(4, 300), bits, takeover)
		}
	}
}

func roundTrip(t *testing.T, c *Compressor, first, second []byte, bits byte, takeover bool) {
	bits = MinWindowBits + bits%(MaxWindowBits-MinWindowBits+1)
	p := Params{ServerMaxWindowBits: bits, ClientMaxWindowBits: bits, ServerNoContextTakeover: !takeover, ClientNoContextTakeover: !takeover}
	server, client := NewContext(p, true), NewContext(p, false)
	var before []byte
	var z Inflater
	for _, text := range [][]byte{first, second, first} {
		prefix := []byte("prefix")
		in, ok := c.Append(prefix, text, bits, server.Out())
		if string(in[:6]) != "prefix" || !ok && len(in) != 6 {
			t.Fatalf("dst is not kept: %q", in[:6])
		}
		if in = in[6:]; !ok {
			continue
		}
		if len(in) >= len(text) && len(text) > 0 {
			t.Fatalf("%d bytes became %d", len(text), len(in))
		}
		w := client.In()
		if w == nil {
			w = &Window{bits: bits} // for the reach
		}
		out, err := inflate(t, &z, in, w, len(text), whole)
		if err != nil || !bytes.Equal(out, text) {
			t.Fatalf("%d bits: %d bytes of %d, %v", bits, len(out), len(text), err)
		}
		if !takeover {
			before = nil
		}
		if out, ok := oracle(in, before); !ok || !bytes.Equal(out, text) {
			t.Fatalf("compress/flate gives %d bytes of %d, %v", len(out), len(text), ok)
		}
		before = append(before, text...)
		before = before[max(0, len(before)-1<<bits):]
		if takeover {
			server.Out().Add(text)
			client.In().Add(text)
		}
	}
	for server, c := range map[bool]*Context{true: server, false: client} {
		if held := c.In().memory() + c.Out().memory(); takeover && held > p.Memory(server) || !takeover && c != nil {
			t.Fatalf("%d bytes held, at most %d announced", held, p.Memory(server))
		}
	}
}

// FuzzWindow: a Window is the end of all that was added.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{1, 255, 3, 0, 200, 7}, byte(8))
	f.Add(bytes.Repeat([]byte{255, 1}, 70), byte(12))
	f.Add(bytes.Repeat([]byte{17, 255, 90}, 20), byte(9))
	f.Fuzz(func(t *testing.T, sizes []byte, bits byte) {
		w := Window{bits: MinWindowBits + bits%(MaxWindowBits-MinWindowBits+1)}
		var all []byte
		for i, n := range sizes {
			p := bytes.Repeat([]byte{byte(i)}, int(n)*int(n)/50)
			all = append(all, p...)
			w.Add(p)
			if want := all[max(0, len(all)-1<<w.bits):]; !bytes.Equal(w.b, want) {
				t.Fatalf("after %d pieces: %d bytes, want %d", i+1, len(w.b), len(want))
			}
			if cap(w.b) > max(minWindow, 2*len(w.b)) || cap(w.b) > 1<<w.bits {
				t.Fatalf("%d bytes held for %d", cap(w.b), len(w.b))
			}
		}
	})
}

func (w *Window) memory() int {
	if w == nil {
		return 0
	}
	return w.Memory()
}
