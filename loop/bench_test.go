package loop

import (
	"flag"
	"log/slog"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
)

var (
	base        = time.Now()
	discard     = slog.New(slog.DiscardHandler)
	fakeMessage = []byte("a message of some forty bytes, as is usual")
)

// fake is a kernel that costs next to nothing: every read brings the same message, every write succeeds.
type fake struct {
	now     int64
	short   int // when not 0: a write takes this many bytes, and the next one none
	full    bool
	written int
}

// newFake returns a loop over a fake kernel with one socket that echoes, in slot 0.
func newFake() (*fake, *Loop) {
	k := &fake{}
	h := &echoHandler{}
	l := New(Config{Kernel: k, Handler: h, Log: discard})
	h.Loop = l
	l.Begin()
	l.Accept(3, 0, netip.AddrPort{})
	l.End()
	return k, l
}

func (k *fake) Now() int64 { k.now += 1000; return k.now }

func (k *fake) Watch(*netpoll.FDOperator, Interest, Interest) error { return nil }

func (k *fake) Read(_ int, p []byte) (int, syscall.Errno) { return copy(p, fakeMessage), 0 }

func (k *fake) Write(_ int, p []byte) (int, syscall.Errno) {
	n := len(p)
	if k.short > 0 {
		if k.full = !k.full; !k.full {
			return -1, syscall.EAGAIN
		}
		n = min(n, k.short)
	}
	k.written += n
	return n, 0
}

func (k *fake) Writev(fd int, v [][]byte) (int, syscall.Errno) {
	n := 0
	for _, b := range v {
		n += len(b)
	}
	k.written += n
	return n, 0
}

func (k *fake) ShutdownWrite(int) syscall.Errno                         { return 0 }
func (k *fake) Close(int, bool)                                         {}
func (k *fake) Connect(netip.AddrPort, netip.Addr) (int, syscall.Errno) { return 3, 0 }
func (k *fake) ConnectError(int) syscall.Errno                          { return 0 }
func (k *fake) Local(int) netip.AddrPort                                { return netip.AddrPort{} }
func (k *fake) Wake()                                                   {}
func (k *fake) SetTimer(int64)                                          {}

// echoHandler does nothing but echo.
type echoHandler struct{ *Loop }

func (h *echoHandler) OnAccept(uint32, int, netip.AddrPort) {}
func (h *echoHandler) OnConnect(uint32, syscall.Errno)      {}
func (h *echoHandler) OnData(slot uint32, p []byte)         { copy(h.Reserve(slot, len(p)), p) }
func (h *echoHandler) OnEOF(uint32)                         {}
func (h *echoHandler) OnError(uint32, syscall.Errno)        {}
func (h *echoHandler) OnBlocked(uint32)                     {}
func (h *echoHandler) OnDrained(uint32)                     {}
func (h *echoHandler) OnTimer(uint32)                       {}

// task is a Task that can be posted again and again.
type task struct{ f func() }

func (t *task) Run() { t.f() }

func BenchmarkEchoTurn(b *testing.B) {
	k, l := newFake()
	b.ReportAllocs()
	for b.Loop() {
		l.Begin()
		l.SocketEvent(0, true, false)
		l.End()
	}
	if want := b.N * len(fakeMessage); k.written != want {
		b.Errorf("%d bytes were written, expected %d", k.written, want)
	}
}

func BenchmarkPost(b *testing.B) {
	_, l := newFake()
	ran := 0
	t := &task{func() { ran++ }}
	posted := 0
	b.ReportAllocs()
	for b.Loop() {
		l.Post(t)
		if posted++; posted%64 == 0 {
			l.RunTasks()
		}
	}
	l.RunTasks()
	if ran != posted {
		b.Errorf("%d of %d tasks ran", ran, posted)
	}
}

// BenchmarkBroadcast writes one frame to 10,000 sockets per iteration.
func BenchmarkBroadcast(b *testing.B) {
	const sockets = 10_000
	k, l := newFake()
	l.Begin()
	for range sockets - 1 {
		l.Accept(3, 0, netip.AddrPort{})
	}
	l.End()
	sh := NewShared(fakeMessage)
	b.ReportAllocs()
	for b.Loop() {
		l.Begin()
		for slot := range uint32(sockets) {
			l.WriteShared(slot, sh)
		}
		l.End()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sockets, "ns/socket")
	if want := b.N * sockets * len(fakeMessage); k.written != want {
		b.Errorf("%d bytes were written, expected %d", k.written, want)
	}
}

// The benchmarks run small, so that they do not rot: each checks its result.
func TestBenchmarks(t *testing.T) {
	benchtime := flag.Lookup("test.benchtime").Value
	old := benchtime.String()
	if err := benchtime.Set("20x"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = benchtime.Set(old) }()
	for name, f := range map[string]func(b *testing.B){"echo": BenchmarkEchoTurn, "post": BenchmarkPost, "broadcast": BenchmarkBroadcast} {
		if r := testing.Benchmark(f); r.N != 20 { // 0 after an error
			t.Errorf("%s: %+v", name, r)
		}
	}
}
