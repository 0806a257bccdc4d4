package frame

import (
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/valyala/bytebufferpool"
)

func TestConfigValidate(t *testing.T) {
	for _, tc := range []struct {
		cfg   Config
		wrong []string
	}{
		{Config{Role: RoleServer, MaxMessage: 1}, nil},
		{Config{Role: RoleClient, MaxMessage: 1 << 40}, nil},
		{Config{MaxMessage: 0}, []string{"MaxMessage is 0"}},
		{Config{MaxMessage: -1}, []string{"MaxMessage is -1"}},
		{Config{Role: 2, MaxMessage: 1}, []string{"Role is 2"}},
		{Config{Role: 3}, []string{"Role is 3", "MaxMessage is 0"}},
		{Config{Inflate: true, MaxMessage: 1}, []string{"Inflate needs AllowRSV1"}},
		{Config{Inflate: true, AllowRSV1: true, MaxMessage: 1}, nil},
	} {
		err := tc.cfg.Validate()
		if (err == nil) != (tc.wrong == nil) {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
		for _, s := range tc.wrong {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%+v: %v, expected it to say %q", tc.cfg, err, s)
			}
		}
	}
	// Even so, a limit that is no limit lets nothing through.
	for _, n := range []int{0, -1} {
		var r Reader
		if _, _, _, err := r.Next(&Config{Role: RoleClient, MaxMessage: n}, wire(`82 01 00`)); err != ErrTooBig {
			t.Errorf("MaxMessage %d: %v", n, err)
		}
		for _, in := range [][]byte{wire(`c2 01 00`), wire(`c2 00`), wire(`42 00`)} {
			r.Reset()
			if _, _, _, err := r.Next(&Config{Role: RoleClient, AllowRSV1: true, Inflate: true, MaxMessage: n}, in); err != ErrTooBig {
				t.Errorf("MaxMessage %d: %v", n, err)
			}
		}
	}
}

// The sum in limits.go.
func TestLimitsSum(t *testing.T) {
	if stateSize > 192 || unsafe.Sizeof(bytebufferpool.ByteBuffer{}) != 24 || minBuffer != 256 {
		t.Errorf("state %d, buffer header %d, smallest buffer %d: not what the comment in limits.go adds up", stateSize, unsafe.Sizeof(bytebufferpool.ByteBuffer{}), minBuffer)
	}
	if MaxControlPayload < MaxHeader {
		t.Error("a header does not fit into scratch")
	}
	if maxPooledBuffer != 64<<19 {
		t.Error("maxPooledBuffer is not where the statistics of bytebufferpool end")
	}
}

// A message of the largest size is announced, and hardly anything of it sent: memory follows what was sent.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	header := AppendHeader(nil, Binary, true, server.MaxMessage, true, [4]byte{})
	var r Reader
	sent := 0
	feed := func(p []byte) {
		t.Helper()
		if _, _, ok, err := r.Next(&server, p); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	feed(header)
	if got := r.Buffered(); got != stateSize {
		t.Errorf("the header alone holds %d bytes, expected the state, %d", got, stateSize)
	}
	for sent < server.MaxMessage-1 {
		n := min(1+sent/3, server.MaxMessage-1-sent)
		feed(make([]byte, n))
		sent += n
		if got := r.Buffered(); got > maxHeld(sent) || got < sent {
			t.Fatalf("%d bytes sent, %d held, expected at most %d", sent, got, maxHeld(sent))
		}
	}
	m, _, ok, err := r.Next(&server, []byte{0})
	if !ok || err != nil || len(m.Payload) != server.MaxMessage {
		t.Fatal(len(m.Payload), ok, err)
	}
	r.Release()
	if r.Buffered() != 0 {
		t.Errorf("%d bytes held at the end", r.Buffered())
	}
}

// However large messages were before, and however many: a small partial one gets a small buffer. (The plain
// bytebufferpool fails both halves of this: it hands out what comes, and calibrates after 42,000 returns.)
func TestSmallPartialAfterLargeOnes(t *testing.T) {
	large := masked(Binary, true, strings.Repeat("x", 64<<10))
	var r Reader
	for range 50 {
		r.Next(&server, large[:1000])
		r.Next(&server, large[1000:])
		r.Release()
	}
	for range 100_000 {
		putBuffer(getBuffer(64 << 10))
	}
	small := masked(Binary, true, "small")
	readers := make([]Reader, 200)
	for i := range readers {
		readers[i].Next(&server, small[:8])
		if got := readers[i].Buffered(); got > maxHeld(1) {
			t.Fatalf("%d bytes held for two", got)
		}
	}
	for i := range readers {
		readers[i].Reset()
	}
}

// A buffer keeps the capacity of its class, before and after the pools have calibrated.
func TestBufferClasses(t *testing.T) {
	for _, n := range []int{1, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 1 << 20, 1<<20 + 1, maxPooledBuffer, maxPooledBuffer + 1} {
		rounds := 10
		if n == 257 {
			rounds = 100_000
		}
		for range rounds {
			b := getBuffer(n)
			if len(b.B) != 0 || cap(b.B) < n || cap(b.B) > max(minBuffer, 2*n-1) {
				t.Fatalf("%d bytes: length %d, capacity %d", n, len(b.B), cap(b.B))
			}
			if n <= maxPooledBuffer && cap(b.B)&(cap(b.B)-1) != 0 {
				t.Fatalf("%d bytes: capacity %d is no power of two", n, cap(b.B))
			}
			putBuffer(b)
		}
	}
}

// A flood of empty fragments costs nothing but the state.
func TestFloodOfEmptyFragments(t *testing.T) {
	for _, cfg := range []Config{server, client} {
		frame := func(op OpCode, fin bool, p string) []byte {
			if cfg.Role == RoleServer {
				return masked(op, fin, p)
			}
			return AppendFrame(nil, op, fin, []byte(p))
		}
		var r Reader
		r.Next(&cfg, frame(Text, false, ""))
		flood := []byte(strings.Repeat(string(frame(Continuation, false, "")), 10_000))
		for range 10 {
			if _, n, ok, err := r.Next(&cfg, flood); n != len(flood) || ok || err != nil {
				t.Fatal(n, ok, err)
			}
			if r.Buffered() != stateSize {
				t.Fatalf("%d bytes held for nothing", r.Buffered())
			}
		}
		m, _, ok, err := r.Next(&cfg, frame(Continuation, true, "x"))
		if !ok || err != nil || string(m.Payload) != "x" {
			t.Fatal(m, ok, err)
		}
		r.Reset()
	}
}

// A flood of one-byte fragments costs a copy for each doubling, not for each fragment.
func TestFloodOfTinyFragments(t *testing.T) {
	var r Reader
	r.Next(&client, wire(`02 00`))
	flood := []byte(strings.Repeat("\x00\x01x", 100_000))
	if _, n, ok, err := r.Next(&client, flood); n != len(flood) || ok || err != nil {
		t.Fatal(n, ok, err)
	}
	if got := r.Buffered(); got > maxHeld(100_000) {
		t.Errorf("%d bytes held for 100000", got)
	}
	r.Reset()
}

// After a burst of 64 KiB messages on 10,000 connections all of its memory is garbage, or dropped by the pools within
// two collections.
func TestMemoryAfterBurst(t *testing.T) {
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	readers := make([]Reader, 10_000)
	large := masked(Binary, true, strings.Repeat("x", 64<<10))
	before := heap()
	cut := 2000 // of each message a part is there when the next connection's turn comes; 64 KiB each would be 640 MB here
	for i := range readers {
		readers[i].Next(&server, append([]byte(nil), large[:cut]...))
	}
	if held := heap() - before; held < len(readers)*cut || held > len(readers)*maxHeld(cut)*11/10 {
		t.Errorf("%d bytes held by %d partial messages of %d bytes", held, len(readers), cut)
	}
	rest := make([]byte, len(large)-cut)
	for i := range readers {
		copy(rest, large[cut:])
		if m, _, ok, err := readers[i].Next(&server, rest); !ok || err != nil || len(m.Payload) != 64<<10 {
			t.Fatal(len(m.Payload), ok, err)
		}
		readers[i].Release()
	}
	if left := heap() - before; left > 100_000 {
		t.Errorf("%d bytes are left of the burst", left)
	}
	for i := range readers {
		if readers[i] != (Reader{}) {
			t.Fatalf("connection %d holds something", i)
		}
	}
	runtime.KeepAlive(readers)
}
