// Not under the race detector, with which sync.Pool drops what it is given at random, nor with the invariants, which read
// goroutine numbers: both allocate on purpose.
//
//go:build !race && !invariants

package conn

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/mqgate/mqgate/loop"
)

// quiet is a kernel with one socket after another that takes everything and allocates nothing.
type quiet struct {
	now   int64
	fd    int
	in    []byte
	out   [1 << 16]byte
	wrote int
}

func (k *quiet) Now() int64                                                    { return k.now }
func (k *quiet) Watch(*netpoll.FDOperator, loop.Interest, loop.Interest) error { return nil }
func (k *quiet) Read(_ int, p []byte) (int, syscall.Errno) {
	if len(k.in) == 0 {
		return -1, syscall.EAGAIN
	}
	n := copy(p, k.in)
	k.in = k.in[n:]
	return n, 0
}
func (k *quiet) Write(_ int, p []byte) (int, syscall.Errno) {
	k.wrote = copy(k.out[:], p)
	return len(p), 0
}
func (k *quiet) Writev(_ int, v [][]byte) (n int, errno syscall.Errno) {
	for _, p := range v {
		n += copy(k.out[n:], p)
	}
	k.wrote = n
	return n, 0
}
func (k *quiet) ShutdownWrite(int) syscall.Errno                         { return 0 }
func (k *quiet) Close(int, bool)                                         {}
func (k *quiet) Connect(netip.AddrPort, netip.Addr) (int, syscall.Errno) { k.fd++; return k.fd, 0 }
func (k *quiet) ConnectError(int) syscall.Errno                          { return 0 }
func (k *quiet) Local(int) netip.AddrPort                                { return netip.AddrPort{} }
func (k *quiet) Wake()                                                   {}
func (k *quiet) SetTimer(int64)                                          {}

// deliver is one turn in which slot gets input.
func (k *quiet) deliver(l *loop.Loop, slot uint32, in []byte) {
	k.in = in
	l.Begin()
	l.SocketEvent(slot, true, false)
	l.End()
}

// echoing sends back what it gets and otherwise does nothing.
type echoing struct{}

func (echoing) OnOpen(*Conn)                                 {}
func (echoing) OnMessage(c *Conn, op frame.OpCode, p []byte) { _ = c.Send(op, p) }
func (echoing) OnPong(*Conn, time.Duration)                  {}
func (echoing) OnDrain(*Conn)                                {}
func (echoing) OnError(*Conn, error)                         {}
func (echoing) OnClose(*Conn, End)                           {}

func newQuiet(t *testing.T, change ...func(*Config)) (*quiet, *Registry, *loop.Loop) {
	cfg := testConfig(echoing{})
	for _, f := range change {
		f(cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	k, r := &quiet{now: 1e9}, NewRegistry(cfg)
	l := loop.New(loop.Config{Kernel: k, Handler: r})
	r.Attach(l)
	return k, r, l
}

// No allocation on the way of a frame at steady state: echo, ping and pong, the heartbeat, a prepared broadcast.
func TestAllocations(t *testing.T) {
	k, r, l := newQuiet(t)
	for i := range 100 {
		l.Begin()
		l.Accept(1000+i, 0, clientAddr)
		l.End()
		k.deliver(l, uint32(i), []byte(request()))
	}
	if r.stats.Open != 100 {
		t.Fatalf("%d open", r.stats.Open)
	}
	key := [4]byte{1, 2, 3, 4}
	text := frame.AppendMaskedFrame(nil, frame.Text, true, []byte("hello, world: äöü"), key)
	binaryFrame := frame.AppendMaskedFrame(nil, frame.Binary, true, []byte(strings.Repeat("b", 1000)), key)
	ping := frame.AppendMaskedFrame(nil, frame.Ping, true, []byte("ping"), key)
	pipelined := append(append(append([]byte(nil), text...), binaryFrame...), ping...)
	prepared := Prepare(frame.Text, []byte(strings.Repeat("p", 500)))
	buf := make([]byte, 0, 4096)
	var pong [8]byte
	for name, test := range map[string]struct {
		do   func()
		want int // bytes of the last write; 0: any
	}{
		"text":      {func() { k.deliver(l, 3, append(buf[:0], text...)) }, len(text) - 4},
		"binary":    {func() { k.deliver(l, 4, append(buf[:0], binaryFrame...)) }, len(binaryFrame) - 4},
		"ping":      {func() { k.deliver(l, 5, append(buf[:0], ping...)) }, len(ping) - 4},
		"pipelined": {func() { k.deliver(l, 5, append(buf[:0], pipelined...)) }, len(pipelined) - 12},
		"in two pieces": {func() {
			k.deliver(l, 6, append(buf[:0], binaryFrame[:500]...))
			k.deliver(l, 6, append(buf[:0], binaryFrame[500:]...))
		}, len(binaryFrame) - 4},
		"heartbeat": {func() { // everybody is pinged and answers
			for range 2000 {
				k.now += int64(loop.Tick)
				l.Begin()
				l.End()
			}
			for slot := range uint32(100) {
				binary.BigEndian.PutUint64(pong[:], uint64(r.at(slot).pingAt))
				k.deliver(l, slot, frame.AppendMaskedFrame(buf[:0], frame.Pong, true, pong[:], key))
			}
		}, 0},
		"broadcast": {func() {
			l.Begin()
			for slot := range uint32(100) {
				_ = r.at(slot).SendPrepared(prepared)
			}
			l.End()
		}, 504},
	} {
		test.do() // warm
		if allocs := testing.AllocsPerRun(50, test.do); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
		if test.want != 0 && k.wrote != test.want {
			t.Errorf("%s: %d bytes were written last, expected %d", name, k.wrote, test.want)
		}
	}
	if s := r.Stats(); s.Open != 100 || s.PongsUnsolicited != 0 || s.MessagesReceived[KindPong] == 0 {
		t.Errorf("open %d, unsolicited pongs %d, pongs %d", s.Open, s.PongsUnsolicited, s.MessagesReceived[KindPong])
	}
}

// Nor on the way of a compressed message, in either direction, with and without context takeover; nor of a broadcast that
// is compressed, but for the first receiver.
func TestCompressedAllocations(t *testing.T) {
	for _, mode := range []deflate.Mode{deflate.Shared, deflate.Takeover} {
		k, r, l := newQuiet(t, compressing(mode, 10))
		l.Begin()
		l.Accept(1000, 0, clientAddr)
		l.End()
		k.deliver(l, 0, []byte(request("Sec-WebSocket-Extensions: permessage-deflate")))
		text := strings.Repeat("what is said again and again; ", 40)
		in := frame.AppendMaskedFrame(nil, frame.Text, true, []byte(deflated(t, text, "")), [4]byte{1, 2, 3, 4})
		in[0] |= 0x40
		buf := make([]byte, 0, 4096)
		prepared := Prepare(frame.Text, []byte(text))
		for name, do := range map[string]func(){
			"echo": func() { k.deliver(l, 0, append(buf[:0], in...)) },
			"broadcast": func() {
				l.Begin()
				_ = r.at(0).SendPrepared(prepared)
				l.End()
			},
		} {
			for range 100 { // until the windows are full
				do()
			}
			if allocs := testing.AllocsPerRun(100, do); allocs != 0 {
				t.Errorf("%v, %s: %v allocations", mode, name, allocs)
			}
		}
		if s := r.Stats(); s.Open != 1 || s.CompressedReceived < 200 || s.CompressedSent < 400 {
			t.Errorf("open %d, compressed %d and %d", s.Open, s.CompressedReceived, s.CompressedSent)
		}
	}
}
