//go:build !race && !invariants

package frame

import (
	"strings"
	"testing"
)

// Not with -race: sync.Pool then throws away at random, to find races.

// No allocation per frame once the pools are warm, whichever way a frame takes.
func TestReaderAllocatesNothing(t *testing.T) {
	large := strings.Repeat("é", 32<<10)
	for _, tc := range []struct {
		name     string
		in       []byte
		chunk    int
		messages int
	}{
		{"small frame, whole", masked(Binary, true, "sixteen bytes it"), 1 << 20, 1},
		{"small text, whole", masked(Text, true, "sixteen bytes it"), 1 << 20, 1},
		{"64 KiB, whole", masked(Text, true, large), 1 << 20, 1},
		{"64 KiB over reads", masked(Text, true, large), 5000, 1},
		{"small frame, byte by byte", masked(Text, true, "sixteen bytes it"), 1, 1},
		{"fragmented, in one read", join(masked(Text, false, "frag"), masked(Continuation, false, "ment"), masked(Continuation, true, "ed")), 1 << 20, 1},
		{"fragmented over reads", join(masked(Text, false, large), masked(Continuation, true, large)), 9999, 1},
		{"control frame", masked(Ping, true, "ping"), 1 << 20, 1},
		{"control frame over reads", masked(Ping, true, "ping"), 3, 1},
		{"control frames between fragments", join(masked(Text, false, "a"), masked(Ping, true, "ping"), masked(Continuation, true, "b")), 4, 2},
		{"error", join(masked(Text, false, "a"), wire(`81`)), 4, 0},
	} {
		var r Reader
		p := make([]byte, len(tc.in))
		got := 0
		round := func() {
			copy(p, tc.in)
			for rest := p; len(rest) > 0; {
				chunk := rest[:min(tc.chunk, len(rest))]
				rest = rest[len(chunk):]
				for len(chunk) > 0 {
					_, n, ok, err := r.Next(&server, chunk)
					if err != nil {
						r.Reset()
						break
					}
					if ok {
						got++
					}
					chunk = chunk[n:]
					r.Release()
				}
			}
		}
		round()
		if got != tc.messages {
			t.Errorf("%s: %d messages, expected %d", tc.name, got, tc.messages)
		}
		if n := testing.AllocsPerRun(500, round); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

// The same with messages that are inflated: whole, in pieces, dropped in the middle, and wrong.
func TestInflatingAllocatesNothing(t *testing.T) {
	cfg := inflating(server)
	chat := compressed(server, Text, strings.Repeat(`{"type":"chat.message","text":"hello there"},`, 100))
	for _, tc := range []struct {
		name  string
		in    []byte
		chunk int
	}{
		{"whole", chat, len(chat)},
		{"byte by byte", chat, 1},
		{"left in the middle", chat[:len(chat)-9], len(chat)},
		{"wrong", append(chat[:len(chat)-2:len(chat)-2], 0xff, 0xff), len(chat)},
	} {
		var r Reader
		p := make([]byte, len(tc.in))
		round := func() {
			copy(p, tc.in)
			for at := 0; at < len(p); at += tc.chunk {
				if _, _, _, err := r.Next(&cfg, p[at:min(len(p), at+tc.chunk)]); (err != nil) != (tc.name == "wrong") {
					t.Fatal(tc.name, err)
				}
			}
			r.Reset()
		}
		if n := testing.AllocsPerRun(500, round); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 1024)
	payload := make([]byte, 200)
	for name, f := range map[string]func(){
		"AppendFrame":       func() { AppendFrame(dst, Binary, true, payload) },
		"AppendMaskedFrame": func() { AppendMaskedFrame(dst, Binary, true, payload, [4]byte{1, 2, 3, 4}) },
		"AppendCloseBody":   func() { AppendCloseBody(dst, 3333, "drain \xff") },
		"ParseCloseBody":    func() { ParseCloseBody([]byte("\x03\xe8bye")) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The pools still give back what they were given after bytebufferpool has calibrated them (every 42,000 returns), whatever
// the buffers had in them.
func TestPoolsAllocateNothing(t *testing.T) {
	for _, n := range []int{1, 300, 5000, 64 << 10} {
		round := func() {
			b := getBuffer(n)
			b.B = append(b.B, 'x')
			putBuffer(b)
		}
		for range 130_000 {
			round()
		}
		if got := testing.AllocsPerRun(1000, round); got != 0 {
			t.Errorf("%d bytes: %v allocations", n, got)
		}
	}
}
