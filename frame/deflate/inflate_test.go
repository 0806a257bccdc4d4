package deflate

import (
	"bytes"
	stdlib "compress/flate"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// RFC 7692 section 7.2.3, all of its examples, and what may be built of them. Each is fed whole, byte by byte, and cut in
// two at every place.
func TestVectors(t *testing.T) {
	const hello, again = "f2 48 cd c9 c9 07 00", "f2 00 11 00 00"
	for _, tc := range []struct {
		name, in string
		before   string // in the window
		want     string
		err      error
	}{
		{"7.2.3.1 one block", hello, "", "Hello", nil},
		{"7.2.3.2 sharing the window, second message", again, "Hello", "Hello", nil},
		{"7.2.3.2 sharing the window, second message as the first", hello, "Hello", "Hello", nil},
		{"7.2.3.2 second message without the window", again, "", "H", errCorrupt},
		{"7.2.3.3 a block without compression", "00 05 00 fa ff 48 65 6c 6c 6f 00", "", "Hello", nil},
		{"7.2.3.4 BFINAL", "f3 48 cd c9 c9 07 00 00", "", "Hello", nil},
		{"7.2.3.4 BFINAL, without the octet behind it", "f3 48 cd c9 c9 07 00", "", "Hello", errCorrupt},
		{"7.2.3.4 BFINAL, then another block", "f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00", "", "HelloHello", nil},
		{"7.2.3.4 BFINAL, and the next block refers to what is before it", "f3 48 cd c9 c9 07 00 f2 00 11 00 00", "", "HelloHello", nil},
		{"7.2.3.4 a stored block with BFINAL", "01 05 00 fa ff 48 65 6c 6c 6f 00", "", "Hello", nil},
		{"7.2.3.5 two blocks", "f2 48 05 00 00 00 ff ff ca c9 c9 07 00", "", "Hello", nil},
		{"7.2.3.6 empty", "00", "", "", nil},
		{"7.2.3.6 empty, by a block of the fixed code", "02 00", "", "", nil},
		{"empty stored blocks", "00 00 00 ff ff 00 00 00 ff ff 00", "", "", nil},
		{"no octet at all", "", "", "", errCorrupt},
		{"an octet of the four that are taken off", "00 00", "", "", errCorrupt},

		{"reserved block type", "06", "", "", errCorrupt},
		{"reserved block type after BFINAL", "f3 48 cd c9 c9 07 00 07", "", "Hello", errCorrupt},
		{"stored length and its complement", "00 05 00 fb ff 48 65 6c 6c 6f 00", "", "", errCorrupt},
		{"stored block that is not complete", "00 05 00 fa ff 48", "", "H", errCorrupt},
		{"stored block that would take the four octets", "00 04 00 fb ff", "", "", errCorrupt},
		{"bits behind the last block's header are padding", "f8", "", "", nil},
		{"block that does not end", "f2 48 cd c9", "", "Hel", errCorrupt},
		{"287 literals", "f4 00", "", "", errCorrupt},
		{"31 distances", "04 1e 00 00", "", "", errCorrupt},
		{"a code of lengths that is empty", "04 00 00 00 00", "", "", errCorrupt},
	} {
		in := unhex(tc.in)
		check := func(size func() int) {
			t.Helper()
			var w *Window
			if tc.before != "" {
				w = window(MaxWindowBits, []byte(tc.before))
			}
			var z Inflater
			out, err := inflate(t, &z, in, w, 1000, size)
			if string(out) != tc.want || err != tc.err {
				t.Errorf("%s: %q %v, want %q %v", tc.name, out, err, tc.want, tc.err)
			}
		}
		check(whole)
		check(func() int { return 1 })
		for cut := 1; cut < len(in); cut++ {
			sizes := []int{cut, len(in)}
			i := -1
			check(func() int { i++; return sizes[i] })
		}
		if _, ok := oracle(in, []byte(tc.before)); ok != (tc.err == nil) {
			t.Errorf("%s: compress/flate says %v", tc.name, ok)
		}
	}
}

// What compress/flate compresses, in every way it has, however it is cut.
func TestInflateOthers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7692))
	noise := make([]byte, 3000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	// A code with words of 15 bits: frequencies as the numbers of Fibonacci.
	var skewed []byte
	for i, a, b := 0, 1, 1; i < 20; i, a, b = i+1, b, a+b {
		skewed = append(skewed, bytes.Repeat([]byte{byte('a' + i)}, a)...)
	}
	rng.Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	for name, text := range map[string][]byte{
		"empty": nil, "a": []byte("a"), "run": bytes.Repeat([]byte("a"), 5000), "pairs": bytes.Repeat([]byte("ab"), 500), "noise": noise,
		"chat": chat(1, 5000), "long chat": chat(2, 12_000), "envelopes": envelopes(3, 5000), "skewed": skewed,
		"far": append(append(bytes.Clone(noise), make([]byte, 1<<13)...), noise...),
	} {
		for way, in := range compressions(text) {
			for _, size := range []func() int{whole, func() int { return 1 }, func() int { return 1 + rng.IntN(50) }, func() int { return 4096 }} {
				var z Inflater
				out, err := inflate(t, &z, in, nil, len(text), size)
				if err != nil || !bytes.Equal(out, text) {
					t.Fatalf("%s, %s: %d bytes of %d, %v", name, way, len(out), len(text), err)
				}
				if len(text) > 0 {
					z.Reset()
					out, err = inflate(t, &z, in, nil, len(text)-1, size)
					if err != errTooBig || !bytes.Equal(out, text[:len(text)-1]) {
						t.Fatalf("%s, %s: one byte too long: %d bytes of %d, %v", name, way, len(out), len(text), err)
					}
				}
			}
		}
	}
}

// What a window of each size allows, to the byte, and that more is refused although it is there.
func TestInflateReach(t *testing.T) {
	for bits := uint8(MinWindowBits); bits <= MaxWindowBits; bits++ {
		size := 1 << bits
		text := chat(uint64(bits), size+10)
		for _, tc := range []struct {
			before, distance int
			want             error
		}{
			{size, size, nil}, {size - 1, size - 1, nil}, {size - 1, size, errCorrupt}, {size, size + 1, errCorrupt}, {size + 10, size + 1, errCorrupt},
		} {
			if tc.distance > 1<<15 {
				continue // cannot be said
			}
			in := matchOf(tc.distance)
			// From the window,
			var z Inflater
			out, err := inflate(t, &z, in, window(bits, text[:tc.before]), 100, whole)
			if err != tc.want || err == nil && !bytes.Equal(out, text[tc.before-tc.distance:][:3]) {
				t.Errorf("%d bits, %d back, %d bytes in the window: %q %v", bits, tc.distance, tc.before, out, err)
			}
			// and from the same message.
			z.Reset()
			out, err = inflate(t, &z, append(stored(text[:tc.before]), in...), &Window{bits: bits}, 1<<20, whole)
			if err != tc.want || err == nil && !bytes.Equal(out[tc.before:], text[tc.before-tc.distance:][:3]) {
				t.Errorf("%d bits, %d back, %d bytes before it in the message: %v", bits, tc.distance, tc.before, err)
			}
		}
	}
	// Over the border of the window and the message, and onto itself.
	w := window(MaxWindowBits, []byte("abc"))
	for distance, want := range map[int]string{1: "xxxxx"[:4], 2: "xcxc"[:4], 4: "xabc"} {
		in := append(stored([]byte("x")), matchOf(distance)...)
		var z Inflater
		out, err := inflate(t, &z, in, w, 100, func() int { return 1 })
		if err != nil || string(out) != want {
			t.Errorf("%d back: %q %v, want %q", distance, out, err, want)
		}
	}
}

// stored is a block without compression.
func stored(p []byte) (in []byte) {
	for len(p) > 0 {
		k := min(len(p), 0xffff)
		in = append(in, 0, byte(k), byte(k>>8), ^byte(k), ^byte(k>>8))
		in = append(in, p[:k]...)
		p = p[k:]
	}
	return in
}

// bitWriter writes DEFLATE bit by bit.
type bitWriter struct {
	b []byte
	n uint
}

// value writes the k lowest bits of v, the lowest first; word writes a code word, the highest first.
func (w *bitWriter) value(v, k int) {
	for i := range k {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

func (w *bitWriter) word(v, k int) {
	for i := k - 1; i >= 0; i-- {
		w.value(v>>i&1, 1)
	}
}

// matchOf is a message that is three bytes of the given distance.
func matchOf(distance int) []byte {
	var w bitWriter
	w.value(0b010, 3)
	w.word(257-256, 7)
	symbol := 0
	for symbol+1 < maxDist && int(distSpans[symbol+1].base) <= distance {
		symbol++
	}
	w.word(symbol, 5)
	w.value(distance-int(distSpans[symbol].base), int(distSpans[symbol].extra))
	w.word(0, 7)
	w.value(0, 3) // the empty stored block
	return w.b
}

// What was read ahead in a block of codes belongs to the stored block behind it, at every place of the border.
func TestStoredBehindCodes(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 20)
	for n := range 30 {
		var w bitWriter
		w.value(0b010, 3)
		for range n {
			w.word(0x30+'a', 8)
		}
		w.word(0, 7)
		w.value(0, 3)
		in := append(w.b, stored(ones)[1:]...)
		in = append(in, unhex("f2 48 cd c9 c9 07 00")...)
		for _, size := range []func() int{whole, func() int { return 9 }, func() int { return 13 }} {
			var z Inflater
			out, err := inflate(t, &z, in, nil, 100, size)
			if want := strings.Repeat("a", n) + string(ones) + "Hello"; string(out) != want || err != nil {
				t.Errorf("%d literals before it: %q %v", n, out, err)
			}
		}
	}
}

// Codes that are allowed at the edge, and those that are not. Lengths are given for the code of lengths and, in its words,
// for the codes.
func TestCodes(t *testing.T) {
	// header begins a block with codes of their own; in the code of lengths 0, 1, 2 and 18 have two bits each.
	type run struct{ symbol, extra int }
	zeros := func(n int) run { return run{18, n - 11} }
	words := map[int]int{0: 0, 1: 1, 2: 2, 18: 3}
	block := func(nlit, ndist int, lengths ...run) *bitWriter {
		w := new(bitWriter)
		w.value(0b100, 3)
		w.value(nlit-257, 5)
		w.value(ndist-1, 5)
		w.value(18-4, 4)
		for _, symbol := range order[:18] {
			k := 0
			if _, ok := words[int(symbol)]; ok {
				k = 2
			}
			w.value(k, 3)
		}
		for _, r := range lengths {
			w.word(words[r.symbol], 2)
			if r.symbol == 18 {
				w.value(r.extra, 7)
			}
		}
		return w
	}
	var all []run
	all = append(all, zeros(97), run{symbol: 1}, zeros(138), zeros(20), run{symbol: 1}) // 'a' and the end, a bit each
	for _, tc := range []struct {
		name string
		in   func() *bitWriter
		want string
		err  error
	}{
		{"no distance", func() *bitWriter {
			w := block(257, 1, append(all, run{symbol: 0})...)
			w.word(0b001, 3)
			w.value(0, 3)
			return w
		}, "aa", nil},
		{"one distance of one bit", func() *bitWriter {
			w := block(257, 1, append(all, run{symbol: 1})...)
			w.word(0b01, 2)
			w.value(0, 3)
			return w
		}, "a", nil},
		{"one distance of two bits", func() *bitWriter {
			w := block(257, 1, append(all, run{symbol: 2})...)
			w.word(0b01, 2)
			w.value(0, 3)
			return w
		}, "", errCorrupt},
		{"too many words", func() *bitWriter {
			return block(258, 1, append(all, run{symbol: 1}, run{symbol: 0})...)
		}, "", errCorrupt},
		{"a match without a distance", func() *bitWriter {
			w := block(258, 1, zeros(97), run{symbol: 2}, zeros(138), zeros(20), run{symbol: 1}, run{symbol: 2}, run{symbol: 0})
			w.word(0b10, 2) // 'a'
			w.word(0b11, 2) // a length of three
			w.word(0, 1)
			return w
		}, "a", errCorrupt},
		{"a match with the distance that there is not", func() *bitWriter {
			w := block(258, 1, zeros(97), run{symbol: 2}, zeros(138), zeros(20), run{symbol: 1}, run{symbol: 2}, run{symbol: 1})
			w.word(0b10, 2)
			w.word(0b11, 2)
			w.word(1, 1)
			return w
		}, "a", errCorrupt},
		{"a match with the distance that there is", func() *bitWriter {
			w := block(258, 1, zeros(97), run{symbol: 2}, zeros(138), zeros(20), run{symbol: 1}, run{symbol: 2}, run{symbol: 1})
			w.word(0b10, 2)
			w.word(0b11, 2)
			w.word(0, 1)
			w.word(0, 1)
			w.value(0, 3)
			return w
		}, "aaaa", nil},
		{"repeated up to the last length", func() *bitWriter {
			w := block(257, 11, append(all, zeros(11))...)
			w.word(0b01, 2)
			w.value(0, 3)
			return w
		}, "a", nil},
		{"repeated one beyond the last length", func() *bitWriter {
			w := block(257, 10, append(all, zeros(11))...)
			w.word(0b01, 2)
			w.value(0, 3)
			return w
		}, "", errCorrupt},
		{"repeated beyond the last length", func() *bitWriter {
			return block(257, 1, zeros(138), zeros(138))
		}, "", errCorrupt},
		{"no end of block", func() *bitWriter {
			w := block(257, 1, zeros(97), run{symbol: 1}, run{symbol: 1}, zeros(138), zeros(20), run{symbol: 0})
			w.word(0, 1)
			return w
		}, "aaaaaaaa", errCorrupt}, // the padding of the last byte
	} {
		in := tc.in().b
		for _, size := range []func() int{whole, func() int { return 1 }} {
			var z Inflater
			out, err := inflate(t, &z, in, nil, 100, size)
			if string(out) != tc.want || err != tc.err {
				t.Errorf("%s: %q %v, want %q %v", tc.name, out, err, tc.want, tc.err)
			}
		}
		if _, ok := oracle(in, nil); ok != (tc.err == nil) {
			t.Errorf("%s: compress/flate says %v", tc.name, ok)
		}
	}
	// A repetition of nothing.
	var w bitWriter
	w.value(0b100, 3)
	w.value(0, 5)
	w.value(0, 5)
	w.value(0, 4)
	w.value(0b001_000_000_001, 12) // 16 and 0 in one bit each, 0 first
	w.word(1, 1)
	var z Inflater
	if _, err := inflate(t, &z, w.b, nil, 100, whole); err != errCorrupt {
		t.Errorf("a repetition of nothing: %v", err)
	}
}

// A bomb is found out when the limit is reached: not a byte more has been written, and hardly any of it read.
func TestBomb(t *testing.T) {
	const limit = 64 << 10
	var b bytes.Buffer
	w, _ := stdlib.NewWriter(&b, stdlib.BestCompression)
	_, _ = w.Write(make([]byte, 64*limit))
	_ = w.Flush()
	bomb := b.Bytes()
	if ratio := 64 * limit / len(bomb); ratio < 1000 {
		t.Fatalf("a bomb of 1:%d", ratio)
	}
	out := make([]byte, 0, limit)
	guard := out[:limit]
	var z Inflater
	got, n, status := z.Inflate(out, bomb, nil)
	if status != NeedRoom || len(got) != limit || &got[0] != &guard[0] || n > len(bomb)/32 {
		t.Errorf("%v after %d of %d bytes, %d of output", status, n, len(bomb), len(got))
	}
}

// A message is too long when a byte too many comes, not when one is announced: so the verdict is the same at any cut.
func TestTooLongIsLate(t *testing.T) {
	var z Inflater
	if out, err := inflate(t, &z, unhex("00 05 00 fa ff 48 65"), nil, 2, whole); string(out) != "He" || err != errCorrupt {
		t.Errorf("%q %v", out, err)
	}
}

// Everything that the bytes so far say is given out at once.
func TestInflateIsPrompt(t *testing.T) {
	text := chat(1, 3000)
	for way, in := range compressions(text) {
		var z Inflater
		out := make([]byte, 0, len(text))
		for i := range in {
			out, _, _ = z.Inflate(out, in[i:i+1], nil)
			if i%23 > 0 {
				continue
			}
			// All that compress/flate makes of the same bytes, when it finds nothing behind them. (It is late by a symbol or
			// two, for it wants as many bits as the end of the block has before it looks at any.)
			want, _ := io.ReadAll(stdlib.NewReader(bytes.NewReader(in[:i+1])))
			if !bytes.HasPrefix(out, want) && way != "streams" {
				t.Fatalf("%s: %d bytes after %d, compress/flate gives %d", way, len(out), i+1, len(want))
			}
		}
		if !bytes.Equal(out, text) {
			t.Errorf("%s: %d bytes", way, len(out))
		}
	}
}

// Reset and Free leave nothing of a message behind, wherever it was.
func TestInflaterReset(t *testing.T) {
	in := compressions(chat(1, 2000))["level 6"]
	for cut := range in {
		z := NewInflater()
		z.Inflate(make([]byte, 0, 100), in[:cut], nil)
		z.Reset()
		if z.t != nil || z.n != 0 || z.left != 0 || z.state != stepBlock || z.final {
			t.Fatal("something is left")
		}
		out, err := inflate(t, z, in, nil, 2000, whole)
		if err != nil || !bytes.Equal(out, chat(1, 2000)) {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
		z.Free()
	}
}
