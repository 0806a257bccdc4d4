package mq

import (
	"flag"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

// null is a kernel that allocates nothing: one buffer is all that can be read, and what is written is counted. What is
// measured above it is the real loop, connection and gateway.
type null struct {
	now     int64
	in      []byte // what the next read gets
	buf     []byte // in's memory
	last    []byte // what the last write took
	writes  int
	written int
	awake   bool
}

func (k *null) Now() int64                                              { return k.now }
func (k *null) Watch(_ *netpoll.FDOperator, _, _ loop.Interest) error   { return nil }
func (k *null) ShutdownWrite(int) syscall.Errno                         { return 0 }
func (k *null) Close(int, bool)                                         {}
func (k *null) Connect(netip.AddrPort, netip.Addr) (int, syscall.Errno) { return -1, syscall.ENOSYS }
func (k *null) ConnectError(int) syscall.Errno                          { return syscall.ENOSYS }
func (k *null) Local(int) netip.AddrPort                                { return netip.AddrPort{} }
func (k *null) Wake()                                                   { k.awake = true }
func (k *null) SetTimer(int64)                                          {}
func (k *null) Read(_ int, b []byte) (int, syscall.Errno) {
	if len(k.in) == 0 {
		return -1, syscall.EAGAIN
	}
	n := copy(b, k.in)
	k.in = k.in[n:]
	return n, 0
}
func (k *null) Write(_ int, b []byte) (int, syscall.Errno) {
	k.last = append(k.last[:0], b...)
	k.writes++
	k.written += len(b)
	return len(b), 0
}
func (k *null) Writev(_ int, v [][]byte) (int, syscall.Errno) {
	n := 0
	for _, b := range v {
		n += len(b)
	}
	k.writes++
	k.written += n
	return n, 0
}

// rig is a gateway and a plain echo over a null kernel.
type rig struct {
	k *null
	l *loop.Loop
	r *conn.Registry
	g *Gateway
	w *script
}

func newRig(tb testing.TB) *rig {
	x := &rig{k: &null{now: 1e9}, w: &script{}}
	var err error
	x.g, err = New(Config{Worker: x.w, RequestTimeout: requestTimeout, ServerRequestTimeout: serverRequestTimeout, MaxRequests: 8}, 1)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := &conn.Config{
		Endpoints:        []conn.Endpoint{{Path: "/ws", Handler: x.g, MaxMessage: maxMessage}, {Path: "/echo", Handler: plainEcho{}, MaxMessage: maxMessage}},
		HandshakeTimeout: time.Second, PingInterval: time.Second, CloseTimeout: time.Second, WriteTimeout: time.Second,
		Heartbeat: conn.HeartbeatOff, MaxPending: maxPending,
	}
	if err := cfg.Validate(); err != nil {
		tb.Fatal(err)
	}
	x.r = conn.NewRegistry(cfg)
	x.l = loop.New(loop.Config{Kernel: x.k, Handler: x.r})
	x.r.Attach(x.l)
	x.g.Attach(x.r)
	x.g.Start(finder{x.r})
	return x
}

type finder struct{ r *conn.Registry }

func (f finder) Do(id conn.ID, do func(*conn.Conn)) { f.r.Loop().PostFunc(func() { do(f.r.Find(id)) }) }

// plainEcho is what the gateway is compared with.
type plainEcho struct{}

func (plainEcho) OnOpen(*conn.Conn) {}
func (plainEcho) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	if err := c.Send(op, p); err != nil {
		panic(err)
	}
}
func (plainEcho) OnPong(*conn.Conn, time.Duration) {}
func (plainEcho) OnDrain(*conn.Conn)               {}
func (plainEcho) OnError(*conn.Conn, error)        {}
func (plainEcho) OnClose(*conn.Conn, conn.End)     {}

// turn lets the loop read what is in b from a socket and do all that follows.
func (x *rig) turn(slot uint32, b []byte) {
	x.k.buf = append(x.k.buf[:0], b...)
	x.k.in = x.k.buf
	x.l.Begin()
	if len(b) > 0 {
		x.l.SocketEvent(slot, true, false)
	}
	if x.k.awake {
		x.k.awake = false
		x.l.RunTasks()
	}
	x.l.End()
}

// connect opens n connections to a path and returns the slot of the last.
func (x *rig) connect(tb testing.TB, path string, n int) (slot uint32) {
	before := x.r.Stats().Total
	for i := range n {
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(1+before))
		x.l.Begin()
		x.l.Accept(3+x.l.Open(), 0, remote)
		x.l.End()
		slot = uint32(x.l.Open() - 1)
		x.turn(slot, []byte("GET "+path+upgrade[len("GET /ws"):]))
	}
	if x.r.Stats().Total != before+uint64(n) {
		tb.Fatal("a connection was not opened")
	}
	return slot
}

func masked(op frame.OpCode, payload []byte) []byte {
	return frame.AppendMaskedFrame(nil, op, true, payload, [4]byte{1, 2, 3, 4})
}

// smallRequests are a small request in both forms.
func smallRequests(typ string) map[string][]byte {
	env := wire.Envelope{SessionID: "s1", RequestID: "C123", Type: typ, Payload: []byte("twenty bytes payload")}
	return map[string][]byte{
		"binary": masked(frame.Binary, env.AppendForm(nil, wire.Binary)),
		"text":   masked(frame.Text, env.AppendForm(nil, wire.Text)),
	}
}

// A small request that is answered inline allocates nothing on its whole way, read to write; nor does one that is
// answered later, but for what the worker does itself.
func TestRequestsDoNotAllocate(t *testing.T) {
	for _, typ := range []string{"echo", "later", "never"} {
		for form, raw := range smallRequests(typ) {
			t.Run(typ+"/"+form, func(t *testing.T) {
				x := newRig(t)
				slot := x.connect(t, "/ws", 1)
				x.w.later = make([]Completion, 0, 8)
				payload := []byte("answer of the worker")
				round := func() {
					writes := x.k.writes
					x.turn(slot, raw)
					for _, c := range x.w.later {
						c.Reply("laterResponse", payload)
						x.turn(0, nil)
					}
					x.w.later = x.w.later[:0]
					if typ == "never" {
						x.k.now += int64(requestTimeout)
						x.turn(0, nil)
					}
					if x.k.writes != writes+1 {
						t.Fatal("no answer")
					}
				}
				for range 1000 { // pools and slabs fill
					round()
				}
				if n := testing.AllocsPerRun(1000, round); n > 0 && plainBuild {
					t.Errorf("%v allocations per request", n)
				}
			})
		}
	}
}

// What a broadcast allocates does not depend on the number of its receivers.
func TestBroadcastAllocations(t *testing.T) {
	measure := func(members int) float64 {
		x := newRig(t)
		x.connect(t, "/ws", members)
		room := Topic{TopicRoom, "room"}
		x.r.Each(func(c *conn.Conn) { x.g.shards[0].subscribe(c, room.Kind, room.Room) })
		payload := []byte("somebody has joined")
		return testing.AllocsPerRun(20, func() {
			writes := x.k.writes
			x.g.Publish(room, "chat.RoomEvent", payload)
			x.turn(0, nil)
			if x.k.writes != writes+members {
				t.Fatalf("%d deliveries", x.k.writes-writes)
			}
		})
	}
	few, many := measure(10), measure(1000)
	t.Logf("%v allocations for 10 members, %v for 1,000", few, many)
	if few > 20 && plainBuild {
		t.Errorf("%v allocations for a broadcast to 10", few)
	}
	if many > few+8 && plainBuild {
		t.Errorf("%v allocations for a broadcast to 1,000, %v for one to 10", many, few)
	}
}

func BenchmarkInline(b *testing.B) {
	for form, raw := range smallRequests("echo") {
		b.Run(form, func(b *testing.B) {
			x := newRig(b)
			benchmarkMessages(b, x, x.connect(b, "/ws", 1), raw)
		})
	}
}

// BenchmarkPlainEcho is the same number of bytes without MQ.
func BenchmarkPlainEcho(b *testing.B) {
	for form, raw := range smallRequests("echo") {
		b.Run(form, func(b *testing.B) {
			x := newRig(b)
			benchmarkMessages(b, x, x.connect(b, "/echo", 1), raw)
		})
	}
}

func benchmarkMessages(b *testing.B, x *rig, slot uint32, raw []byte) {
	b.ReportAllocs()
	writes := x.k.writes
	rounds := 0
	for b.Loop() {
		x.turn(slot, raw)
		rounds++
	}
	if lost := rounds - (x.k.writes - writes); lost != 0 {
		b.Fatalf("%d answers lost", lost)
	}
}

func BenchmarkLater(b *testing.B) {
	x := newRig(b)
	slot := x.connect(b, "/ws", 1)
	raw, payload := smallRequests("later")["binary"], []byte("twenty bytes payload")
	b.ReportAllocs()
	for b.Loop() {
		x.turn(slot, raw)
		x.w.later[0].Reply("laterResponse", payload)
		x.w.later = x.w.later[:0]
		x.turn(0, nil)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, members := range []int{10, 10_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) { benchmarkPublish(b, members) })
	}
}

func benchmarkPublish(b *testing.B, members int) {
	x := newRig(b)
	x.connect(b, "/ws", members)
	room := Topic{TopicRoom, "room"}
	x.r.Each(func(c *conn.Conn) { x.g.shards[0].subscribe(c, room.Kind, room.Room) })
	payload := []byte("somebody has joined")
	b.ReportAllocs()
	writes, rounds := x.k.writes, 0
	for b.Loop() {
		x.g.Publish(room, "chat.RoomEvent", payload)
		x.turn(0, nil)
		rounds++
	}
	if lost := rounds*members - (x.k.writes - writes); lost != 0 {
		b.Fatalf("%d deliveries lost", lost)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*members), "ns/delivery")
}

// The benchmarks run small, so that they do not rot: each checks its result.
func TestBenchmarks(t *testing.T) {
	benchtime := flag.Lookup("test.benchtime").Value
	old := benchtime.String()
	if err := benchtime.Set("20x"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = benchtime.Set(old) }()
	for name, f := range map[string]func(b *testing.B){
		"inline": func(b *testing.B) {
			x := newRig(b)
			benchmarkMessages(b, x, x.connect(b, "/ws", 1), smallRequests("echo")["text"])
		},
		"echo": func(b *testing.B) {
			x := newRig(b)
			benchmarkMessages(b, x, x.connect(b, "/echo", 1), smallRequests("echo")["text"])
		},
		"later":   BenchmarkLater,
		"publish": func(b *testing.B) { benchmarkPublish(b, 10) },
	} {
		if r := testing.Benchmark(f); r.N != 20 { // 0 after an error
			t.Errorf("%s: %+v", name, r)
		}
	}
}
