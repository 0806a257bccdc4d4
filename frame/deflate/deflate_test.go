package deflate

import (
	"bytes"
	"fmt"
	"testing"
	"unsafe"
)

// What is sent is what the examples of RFC 7692 section 7.2.3 inflate to, and the shortest message is one octet.
func TestAppend(t *testing.T) {
	var c Compressor
	if out, ok := c.Append([]byte("x"), nil, MaxWindowBits, nil); !ok || string(out) != "x\x00" {
		t.Errorf("an empty message: %x %v", out, ok)
	}
	if out, ok := c.Append([]byte("x"), []byte("Hello"), MaxWindowBits, nil); ok || string(out) != "x" {
		t.Errorf("a message that does not become shorter: %q %v", out, ok)
	}
	text := bytes.Repeat([]byte("Hello "), 50)
	whole, ok := c.Append(nil, text, MaxWindowBits, nil)
	if !ok || len(whole) > 30 {
		t.Errorf("%d bytes %v", len(whole), ok)
	}
	if again, _ := c.Append(nil, text, MaxWindowBits, nil); !bytes.Equal(again, whole) {
		t.Error("the next message depends on the one before")
	}
	if string(text) != string(bytes.Repeat([]byte("Hello "), 50)) {
		t.Error("the message was changed")
	}
}

// With context takeover the second of two like messages is little more than a reference; without it is as long as the first.
func TestTakeover(t *testing.T) {
	var c Compressor
	for bits := uint8(MinWindowBits); bits <= MaxWindowBits; bits++ {
		p := Params{ServerMaxWindowBits: bits, ClientMaxWindowBits: MaxWindowBits}
		ctx := NewContext(p, true)
		text := chat(1, 200)
		first, _ := c.Append(nil, text, bits, ctx.Out())
		before, _ := c.Append(nil, text, bits, ctx.Out())
		if !bytes.Equal(first, before) {
			t.Errorf("%d bits: Append changes the window", bits)
		}
		ctx.Out().Add(text)
		second, ok := c.Append(nil, text, bits, ctx.Out())
		if !ok || bits > 8 && len(second) > 40 || len(second) > len(first) {
			t.Errorf("%d bits: %d bytes, then %d", bits, len(first), len(second))
		}
	}
}

// A message that is compressed once is good for every connection of its Kind, also between messages with context takeover.
func TestKind(t *testing.T) {
	for _, tc := range []struct {
		bits uint8
		n    int
		want uint8
	}{{15, 1 << 20, 15}, {15, 0, 15}, {8, 256, 15}, {8, 257, 8}, {14, 16384, 15}, {14, 16385, 14}} {
		if got := Kind(tc.bits, tc.n); got != tc.want {
			t.Errorf("%d bits, %d bytes: %d, want %d", tc.bits, tc.n, got, tc.want)
		}
	}
	var c Compressor
	for bits := uint8(MinWindowBits); bits <= MaxWindowBits; bits++ {
		p := Params{ServerMaxWindowBits: bits, ClientMaxWindowBits: bits}
		server, client := NewContext(p, true), NewContext(p, false)
		for i, n := range []int{200, 1 << bits, 1<<bits + 1, 300} {
			text := chat(uint64(i), n)
			w := server.Out()
			kind := bits
			if i%2 == 1 { // as a broadcast
				w, kind = nil, Kind(bits, n)
			}
			in, ok := c.Append(nil, text, kind, w)
			if !ok {
				t.Fatal("not shorter")
			}
			server.Out().Add(text)
			var z Inflater
			out, err := inflate(t, &z, in, client.In(), n, whole)
			if err != nil || !bytes.Equal(out, text) {
				t.Fatalf("%d bits, message %d: %v", bits, i, err)
			}
			client.In().Add(text)
		}
	}
}

func TestContext(t *testing.T) {
	for _, tc := range []struct {
		p                  Params
		server             bool
		in, out            int // bits, 0: no window
		most               int
		sendBits, recvBits uint8
	}{
		{Params{true, true, 15, 15}, true, 0, 0, 0, 15, 15},
		{Params{true, true, 9, 10}, false, 0, 0, 0, 10, 9},
		{Params{false, false, 15, 15}, true, 15, 12, 32<<10 + 4<<10 + 72, 15, 15},
		{Params{false, false, 15, 15}, false, 15, 12, 32<<10 + 4<<10 + 72, 15, 15},
		{Params{false, true, 15, 15}, true, 0, 12, 4<<10 + 72, 15, 15},
		{Params{false, true, 15, 15}, false, 15, 0, 32<<10 + 72, 15, 15},
		{Params{true, false, 15, 10}, true, 10, 0, 1<<10 + 72, 15, 10},
		{Params{true, false, 15, 10}, false, 0, 10, 1<<10 + 72, 10, 15},
		{Params{false, false, 8, 9}, true, 9, 8, 512 + 256 + 72, 8, 9},
	} {
		c := NewContext(tc.p, tc.server)
		bits := func(w *Window) int {
			if w == nil {
				return 0
			}
			return int(w.bits)
		}
		if bits(c.In()) != tc.in || bits(c.Out()) != tc.out || tc.p.Memory(tc.server) != tc.most || tc.p.SendBits(tc.server) != tc.sendBits || tc.p.SendBits(!tc.server) != tc.recvBits {
			t.Errorf("%+v server %v: in %d, out %d, at most %d bytes, sends %d bits", tc.p, tc.server, bits(c.In()), bits(c.Out()), tc.p.Memory(tc.server), tc.p.SendBits(tc.server))
		}
		if (c == nil) != (tc.most == 0) {
			t.Errorf("%+v: a Context %v", tc.p, c)
		}
		for _, w := range []*Window{c.In(), c.Out()} {
			if w == nil {
				continue
			}
			if w.Memory() != 0 {
				t.Errorf("%+v: %d bytes before anything came or went", tc.p, w.Memory())
			}
			for range 10 {
				w.Add(make([]byte, 10_000))
			}
			if w.Memory() != 1<<w.bits {
				t.Errorf("%+v: %d bytes held", tc.p, w.Memory())
			}
		}
	}
	if n := unsafe.Sizeof(Context{}); n != 72 {
		t.Errorf("a Context takes %d bytes, its comment says 72", n)
	}
}

func TestBudget(t *testing.T) {
	b := NewBudget(100)
	if !b.Take(60) || b.Take(41) || !b.Take(40) || b.Take(1) || b.Left() != 0 {
		t.Error("100 bytes were not given as 60 and 40")
	}
	b.Give(60)
	if b.Left() != 60 || !b.Take(60) {
		t.Error("what is given back cannot be taken")
	}
	if new(Budget).Take(1) || !new(Budget).Take(0) {
		t.Error("the zero Budget")
	}
}

func TestMode(t *testing.T) {
	for m, name := range []string{"off", "shared", "takeover"} {
		if got, err := ParseMode(name); got != Mode(m) || err != nil || got.String() != name {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	for _, name := range []string{"", "Off", "on", "unknown"} {
		if _, err := ParseMode(name); err == nil || err.Error() != fmt.Sprintf("compression %q: must be off, shared or takeover", name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if Mode(3).String() != "unknown" {
		t.Error(Mode(3))
	}
}
