package frame

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// againstReference feeds in to a Reader whole, byte by byte and in chunks of the given sizes less one (around and around),
// and compares with the reference parser.
func againstReference(t testing.TB, cfg Config, in, sizes []byte) {
	t.Helper()
	want := judge(cfg, in)
	compare(t, deliver(t, cfg, in, false, func() int { return len(in) }), want, len(in))
	compare(t, deliver(t, cfg, in, true, func() int { return 1 }), want, 1)
	for _, release := range []bool{false, true} {
		var i, start, last int
		got := deliver(t, cfg, in, release, func() int {
			start += last
			last = 7
			if len(sizes) > 0 {
				last = int(sizes[i%len(sizes)]) + 1
			}
			last = min(last, len(in)-start)
			i++
			return last
		})
		// deliver gives the place of an error as that of the chunk's unread rest: measure from there.
		compare(t, got, want, start+last-got.at)
	}
}

// mode is one byte of a fuzz input that picks the configuration.
func mode(b byte, maxMessage uint16) Config {
	return Config{Role: Role(b & 1), AllowRSV1: b&2 != 0, Inflate: b&6 == 6, MaxMessage: int(maxMessage) + 1}
}

func FuzzReader(f *testing.F) {
	hello := AppendMaskedFrame(nil, Text, true, []byte("hello"), [4]byte{1, 2, 3, 4})
	smile := join(
		AppendMaskedFrame(nil, Text, false, []byte("a\xf0\x9f"), [4]byte{9, 8, 7, 6}),
		AppendMaskedFrame(nil, Ping, true, []byte("?"), [4]byte{}),
		AppendMaskedFrame(nil, Continuation, true, []byte("\x98\x80"), [4]byte{0xff}))
	f.Add(join(hello, smile, hello), []byte{}, byte(0), uint16(1000))
	f.Add(join(hello, smile, hello), []byte{0}, byte(0), uint16(5))
	f.Add(join(smile, smile), []byte{2, 0, 5}, byte(0), uint16(4))
	f.Add(join(smile, hello[:7]), []byte{30, 1}, byte(2), uint16(100))
	f.Add(wire(`01 02 61 f0  00 01 9f  89 02 ff ff  00 01 98  80 01 80`), []byte{3}, byte(1), uint16(100))
	f.Add(wire(`41 02 61 f0  80 01 9f  c1 00  81 02 e0 9f`), []byte{1}, byte(3), uint16(100))
	f.Add(wire(`02 00 00 00 00 00 80 00  88 02 03 e8  82 01 61`), []byte{1, 2}, byte(1), uint16(0))
	f.Add(join(wire(`82 7e 00 80`), make([]byte, 128), wire(`82 7e 00 7d`)), []byte{64}, byte(1), uint16(300))
	f.Add(join(wire(`82 7f 00 00 00 00 00 01 00 00`), make([]byte, 3000)), []byte{200}, byte(1), uint16(65535))
	f.Add(wire(`82 7f 80 00`), []byte{1}, byte(1), uint16(65535))
	f.Add(join(wire(`89 fd 01 02 03 04`), make([]byte, 125)), []byte{10, 100}, byte(0), uint16(1))
	f.Add(join(wire(`81 7e 01 00`), make([]byte, 100), wire(`ff`)), []byte{10, 100}, byte(1), uint16(500))
	f.Add(join(compressed(server, Text, "hello hello hello"), hello), []byte{1, 4}, byte(6), uint16(100))
	f.Add(compressed(client, Text, strings.Repeat("\xf0\x9f\x98\x80", 9)+"\xff and more"), []byte{}, byte(7), uint16(100))
	f.Add(compressed(client, Binary, strings.Repeat("0", 900)), []byte{2}, byte(7), uint16(800))
	f.Fuzz(func(t *testing.T, in, sizes []byte, m byte, maxMessage uint16) {
		if len(in) == 0 || len(in) > 1<<12 {
			return
		}
		againstReference(t, mode(m, maxMessage), in, sizes)
	})
}

// The same with inputs that are mostly right, so that deep states are reached in every run of the tests.
func TestReaderAgainstReference(t *testing.T) {
	const seed = 6455
	outcomes := map[*Error]int{}
	messages := 0
	for i := range uint64(6000) {
		rng := rand.New(rand.NewPCG(seed, i))
		cfg := mode(byte(rng.IntN(8)), uint16(rng.IntN(400)))
		in := randomTraffic(rng, cfg)
		sizes := make([]byte, rng.IntN(5))
		for i := range sizes {
			sizes[i] = byte(rng.IntN(1 << rng.IntN(8)))
		}
		v := judge(cfg, in)
		outcomes[v.err]++
		messages += len(v.events)
		againstReference(t, cfg, in, sizes)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, i)
		}
	}
	// The test is worth what it reaches: every outcome that a Reader has.
	for _, e := range []*Error{nil, ErrReservedBits, ErrReservedOpCode, ErrControlFragmented, ErrControlTooLong, ErrUnexpectedContinuation,
		ErrExpectedContinuation, ErrMaskRequired, ErrMaskForbidden, ErrLengthNotMinimal, ErrLengthTopBit, ErrTooBig, ErrInvalidUTF8, ErrDeflate} {
		if outcomes[e] < 10 {
			t.Errorf("only %d inputs ended with %v", outcomes[e], e)
		}
	}
	if messages < 10_000 {
		t.Errorf("only %d messages", messages)
	}
}

// randomTraffic is a run of frames that keep the rules, now and then with some bits wrong.
func randomTraffic(rng *rand.Rand, cfg Config) (in []byte) {
	const letters = "abcdefé€😀\ud7ff\U0010ffff"
	open, text := false, false
	for range rng.IntN(12) {
		op := []OpCode{Text, Binary, Text, Binary, Ping, Pong, Close}[rng.IntN(7)]
		fin := true
		if !op.IsControl() {
			if open {
				op = Continuation
			} else {
				text = op == Text
			}
			fin = rng.IntN(3) > 0
			open = !fin
		}
		payload := make([]byte, rng.IntN(1+rng.IntN(150)))
		if op.IsControl() {
			payload = payload[:min(len(payload), MaxControlPayload)]
		}
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		if text && !op.IsControl() {
			n := len(payload)
			payload = payload[:0]
			for len(payload) < n {
				runes := []rune(letters)
				payload = append(payload, string(runes[rng.IntN(len(runes))])...)
			}
			if rng.IntN(20) == 0 && n > 0 { // a code point cut, or broken
				payload = payload[:n]
			}
		}
		start := len(in)
		var key [4]byte
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		if cfg.Inflate && (op == Text || op == Binary) && rng.IntN(2) == 0 {
			in = append(in, randomCompressed(rng, cfg, op, bytes.Repeat(payload, 1+rng.IntN(3)))...)
			open = false
			continue
		}
		switch masked := cfg.Role == RoleServer; {
		case rng.IntN(60) == 0 && !op.IsControl(): // a length that is not in its shortest form
			in = append(AppendHeader(in, op, fin, 0x10000, masked, key)[:start+2], 0, 0, 0, 0, 0, 0, 0, byte(len(payload)))
			if rng.IntN(2) == 0 {
				in = append(AppendHeader(in[:start], op, fin, 300, masked, key)[:start+2], 0, byte(len(payload)%126))
			} else if rng.IntN(2) == 0 {
				in[start+2] = 0x80
			}
		case masked:
			in = AppendMaskedFrame(in, op, fin, payload, key)
		default:
			in = AppendFrame(in, op, fin, payload)
		}
		if rng.IntN(25) == 0 { // any bit of the first two bytes
			in[start+rng.IntN(2)] ^= 1 << rng.IntN(8)
		} else if op.IsControl() && rng.IntN(25) == 0 {
			in[start+1] |= byte(126 + rng.IntN(2))
		} else if cfg.AllowRSV1 && rng.IntN(4) == 0 && (op == Text || op == Binary) {
			in[start] |= bitRSV1
		}
	}
	if len(in) == 0 {
		in = []byte{0x81}
	}
	return in[:len(in)-rng.IntN(1+min(3, len(in)-1))]
}

// randomCompressed is a compressed message in some frames, with pings between them, now and then with a bit wrong.
func randomCompressed(rng *rand.Rand, cfg Config, op OpCode, payload []byte) (in []byte) {
	p := packed(payload)
	if rng.IntN(10) == 0 {
		p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
	}
	for first, fin := true, false; !fin; first = false {
		n := rng.IntN(len(p) + 1)
		if fin = rng.IntN(3) == 0; fin {
			n = len(p)
		}
		part := p[:n:n]
		p = p[n:]
		start := len(in)
		if cfg.Role == RoleServer {
			in = AppendMaskedFrame(in, op, fin, part, [4]byte{1, 2, 3, byte(n)})
		} else {
			in = AppendFrame(in, op, fin, part)
		}
		if first {
			in[start] |= bitRSV1
		}
		op = Continuation
		if !fin && rng.IntN(4) == 0 {
			if cfg.Role == RoleServer {
				in = AppendMaskedFrame(in, Ping, true, part[:min(n, 9)], [4]byte{})
			} else {
				in = AppendFrame(in, Ping, true, part[:min(n, 9)])
			}
		}
	}
	return in
}

// FuzzRoundTrip writes a message in fragments with pings between them, and reads it back.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a message"), []byte{1, 0, 3}, byte(0), uint32(0x01020304))
	f.Add([]byte("a m€ssage"), []byte{4}, byte(3), uint32(0))
	f.Add([]byte("\xff\xfe"), []byte{}, byte(5), uint32(0xffffffff))
	f.Add(make([]byte, 1500), []byte{200, 255}, byte(4), uint32(0x80402010))
	f.Fuzz(func(t *testing.T, payload, sizes []byte, m byte, k uint32) {
		if len(payload) > 1<<12 {
			return
		}
		cfg := Config{Role: Role(m & 1), MaxMessage: len(payload) + 1}
		op := Binary
		if m&2 != 0 && utf8.Valid(payload) {
			op = Text
		}
		write := func(in []byte, op OpCode, fin bool, p []byte) []byte {
			k = k*1664525 + 1013904223
			if cfg.Role == RoleServer {
				return AppendMaskedFrame(in, op, fin, p, [4]byte{byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)})
			}
			return AppendFrame(in, op, fin, p)
		}
		var in []byte
		var want verdict
		next, rest := op, payload
		if len(sizes) > 20 {
			sizes = sizes[:20]
		}
		for _, n := range sizes {
			part := rest[:min(int(n), len(rest))]
			rest = rest[len(part):]
			in = write(in, next, false, part)
			next = Continuation
			if m&4 != 0 {
				in = write(in, Ping, true, part[:min(len(part), MaxControlPayload)])
				want.events = append(want.events, event{Ping, false, part[:min(len(part), MaxControlPayload)], len(in)})
			}
		}
		in = write(in, next, true, rest)
		want.events = append(want.events, event{op, false, payload, len(in)})
		for _, size := range []int{len(in), 1 + int(m), 997} {
			compare(t, deliver(t, cfg, in, true, func() int { return size }), want, size)
		}
	})
}
