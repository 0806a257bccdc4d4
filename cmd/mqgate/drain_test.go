package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/mq/wire"
)

// refused reports whether nobody listens on addr.
func refused(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err != nil
}

// summary checks the numbers of the line that a drain ends with.
func (p *process) summary(t *testing.T, closed, unanswered, forced, otherwise float64) {
	t.Helper()
	line := p.logs.find("drained")
	if line == nil {
		t.Fatal("no summary was logged")
	}
	want := map[string]any{"connections": closed + unanswered + forced + otherwise,
		"closed": closed, "unanswered": unanswered, "forced": forced, "otherwise": otherwise}
	for key, want := range want {
		if line[key] != want {
			t.Errorf("summary: %s is %v, want %v: %v", key, line[key], want, line)
		}
	}
}

// L5.5: readiness first, the listeners --drain-delay later; taken back in between, nothing has happened.
func TestDrainDelay(t *testing.T) {
	p := start(t, newStub(), "--drain-delay=1h", "--drain-timeout=2h")
	early := p.dial(t, "/ws")
	p.ask(t, "POST", "/drain", "").want(t, "drain", 202, `{"draining":true}`)
	p.ask(t, "GET", "/readyz", "").want(t, "readyz", 503, "draining")
	p.ask(t, "GET", "/healthz", "").want(t, "healthz", 200, "alive")
	late := p.dial(t, "/ws") // the load balancer has not noticed yet
	if got := p.samples(t)["mqgate_drain_remaining"]; got != "2" {
		t.Errorf("drain_remaining %s, want 2", got)
	}
	p.ask(t, "POST", "/drain", "").want(t, "drain again", 202, `{"draining":true}`)
	p.ask(t, "DELETE", "/drain", "").want(t, "cancel", 200, `{"cancelled":true}`)
	p.ask(t, "DELETE", "/drain", "").want(t, "cancel again", 200, `{"cancelled":false}`)
	p.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
	for _, c := range []client{early, late, p.dial(t, "/ws")} {
		c.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"})
		c.read(t)
	}
	if got := p.samples(t)["mqgate_drain_remaining"]; got != "0" {
		t.Errorf("drain_remaining %s, want 0", got)
	}
}

// L5.5: the delay ends, the listeners close, then the connections.
func TestDrainAfterDelay(t *testing.T) {
	p := start(t, newStub(), "--drain-delay=50ms")
	c := p.dial(t, "/ws")
	p.signals <- syscall.SIGTERM
	began := time.Now()
	c.readClose(t, 3333, "drain")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	if !refused(p.addr) {
		t.Error("it still listens")
	}
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	if !p.drainer.Active() {
		t.Error("ready again, though it has ended")
	}
	p.summary(t, 1, 0, 0, 0)
}

// L5.5: an even pace over all loops, at least 1,000 a second.
func TestDrainPace(t *testing.T) {
	const n = 400
	p := start(t, newStub(), "--drain-spread=50s", "--loops=2", "--echo-path=/echo")
	clients := make([]client, n)
	for i := range clients {
		clients[i] = p.dial(t, []string{"/ws", "/echo"}[i%2])
	}
	closed := make([]time.Duration, n)
	var all sync.WaitGroup
	began := time.Now()
	for i, c := range clients {
		all.Go(func() {
			if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 3333) {
				t.Error(err)
			}
			closed[i] = time.Since(began)
			_ = c.Close()
		})
	}
	p.ask(t, "POST", "/drain", "")
	all.Wait()
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	p.summary(t, n, 0, 0, 0)
	// Never ahead of the pace, two ticks of 10 ms for rounding: that is certain, whatever this machine is busy with. That
	// it does not fall behind either is shown in simulated time, where the registry is tested (package conn).
	slices.Sort(closed)
	for i, d := range closed {
		if due := d.Seconds()*1000 + 20; float64(i) > due {
			t.Fatalf("%d connections were closed after %v", i+1, d)
		}
	}
}

// L5.5: requests in flight are answered before their connection's Close.
func TestDrainAnswersFirst(t *testing.T) {
	worker := newStub()
	p := start(t, worker, "--drain-spread=0s")
	busy, idle := p.dial(t, "/ws"), p.dial(t, "/ws")
	for i := range 2 {
		busy.send(t, wire.Envelope{RequestID: fmt.Sprint("C", i), Type: "test.Later"})
	}
	first, second := receive(t, "a request", worker.later), receive(t, "a request", worker.later)
	p.signals <- syscall.SIGINT
	idle.readClose(t, 3333, "drain")
	first.Reply("test.LaterResponse", nil)
	if e := busy.read(t); e.RequestID != "C0" || e.Type != "test.LaterResponse" {
		t.Errorf("%+v", e)
	}
	// A new one is refused: the client may ask elsewhere.
	busy.send(t, wire.Envelope{RequestID: "C2", Type: "test.Now"})
	if e := busy.read(t); e.RequestID != "C2" || e.Type != wire.TypeError {
		t.Errorf("%+v", e)
	}
	if got := p.samples(t)["mqgate_drain_remaining"]; got == "0" {
		t.Error("drain_remaining is 0")
	}
	second.Reply("test.LaterResponse", nil)
	if e := busy.read(t); e.RequestID != "C1" || e.Type != "test.LaterResponse" {
		t.Errorf("%+v", e)
	}
	busy.readClose(t, 3333, "drain")
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	p.summary(t, 2, 0, 0, 0)
}

// L5.5: after --drain-timeout whatever is left is forced, also when the delay takes all of it. The clients do not read,
// so they never answer the Close.
func TestDrainTimeout(t *testing.T) {
	for _, flags := range []string{
		"--drain-timeout=100ms --drain-spread=0s", "--drain-timeout=50ms --drain-delay=50ms --drain-spread=0s", "--drain-timeout=0s --drain-spread=0s",
	} {
		t.Run(flags, func(t *testing.T) {
			p := start(t, newStub(), append(strings.Fields(flags), "--close-timeout=1h")...)
			for range 3 {
				p.dial(t, "/ws")
			}
			p.signals <- syscall.SIGTERM
			if err := p.awaitEnd(t); err != nil {
				t.Error(err)
			}
			p.summary(t, 0, 0, 3, 0)
		})
	}
}

// L5.5: a second signal forces at once, however soon it comes.
func TestDrainSecondSignal(t *testing.T) {
	p := start(t, newStub(), "--close-timeout=1h", "--drain-delay=1h", "--drain-timeout=2h")
	p.dial(t, "/ws")
	p.signals <- syscall.SIGTERM
	p.signals <- syscall.SIGINT
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	if !p.drainer.Active() {
		t.Error("ready again, though everything was ended")
	}
	p.summary(t, 0, 0, 1, 0)
}

// A service manager asks through the admin interface, then by a signal: that is not the second signal of an operator in
// haste. One more is.
func TestDrainThenSignal(t *testing.T) {
	p := start(t, newStub(), "--close-timeout=1h", "--drain-delay=1h", "--drain-timeout=2h")
	p.dial(t, "/ws")
	p.ask(t, "POST", "/drain", "")
	p.signals <- syscall.SIGTERM
	eventually(t, "the signal is taken", func() bool { return p.logs.find("signal: draining; a second one ends everything at once") != nil })
	p.ask(t, "GET", "/readyz", "").want(t, "readyz", 503, "draining")
	if p.ended() || p.logs.find("second signal: ending everything now") != nil {
		t.Fatal("the first signal of a drain forced it")
	}
	p.signals <- syscall.SIGTERM
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	p.summary(t, 0, 0, 1, 0)
}

// A drain that a signal has asked for, by itself or after the admin interface, cannot be taken back: not during the delay,
// which goes on, and not later.
func TestDrainSignalled(t *testing.T) {
	for _, flags := range []string{"--drain-delay=1h", "--drain-spread=0s"} {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked before %v", flags, asked), func(t *testing.T) {
				p := start(t, newStub(), flags, "--close-timeout=1h", "--drain-timeout=2h")
				c := p.dial(t, "/ws") // which does not answer the Close: the drain goes on
				if asked {            // and one before it was taken back, which leaves nothing behind
					for range 2 {
						p.ask(t, "POST", "/drain", "").want(t, "drain", 202, `{"draining":true}`)
						p.ask(t, "DELETE", "/drain", "").want(t, "cancel", 200, `{"cancelled":true}`)
					}
					p.ask(t, "POST", "/drain", "").want(t, "drain", 202, `{"draining":true}`)
				}
				p.signals <- syscall.SIGTERM
				eventually(t, "the signal is taken", func() bool { return p.logs.find("signal: draining; a second one ends everything at once") != nil })
				later := flags == "--drain-spread=0s"
				eventually(t, "the listener is closed, or not yet", func() bool { return refused(p.addr) == later })
				for range 2 {
					if a := p.ask(t, "DELETE", "/drain", ""); a.status != 409 || a.body != errSignalled.Error() {
						t.Fatalf("cancel: %+v", a)
					}
				}
				if refused(p.addr) != later {
					t.Error("the listener has changed")
				}
				p.ask(t, "GET", "/readyz", "").want(t, "readyz", 503, "draining")
				if !later {
					c.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"})
					c.read(t)
				}
				p.signals <- syscall.SIGTERM
				if err := p.awaitEnd(t); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A drain taken back: it listens again on the same port, whoever is still there stays. Whoever's table the descriptors are in.
func TestDrainCancel(t *testing.T) {
	for _, tables := range []string{"shared", "per-loop"} {
		t.Run(tables, func(t *testing.T) { testDrainCancel(t, tables) })
	}
}

func testDrainCancel(t *testing.T, tables string) {
	worker := newStub()
	p := start(t, worker, "--drain-spread=0s", "--loops=2", "--fd-tables="+tables)
	idle, busy := p.dial(t, "/ws"), p.dial(t, "/ws")
	busy.send(t, wire.Envelope{RequestID: "C0", Type: "test.Later"})
	late := receive(t, "a request", worker.later)
	for range 2 {
		p.ask(t, "POST", "/drain", "").want(t, "drain", 202, `{"draining":true}`)
		idle.readClose(t, 3333, "drain")
		if !refused(p.addr) {
			t.Error("it still listens")
		}
		p.ask(t, "DELETE", "/drain", "").want(t, "cancel", 200, `{"cancelled":true}`)
		p.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
		idle = p.dial(t, "/ws")
		idle.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"})
		if e := idle.read(t); e.Type != "test.NowResponse" {
			t.Errorf("%+v", e)
		}
	}
	late.Reply("test.LaterResponse", nil)
	busy.read(t)
	busy.send(t, wire.Envelope{RequestID: "C1", Type: "test.Now"})
	if e := busy.read(t); e.Type != "test.NowResponse" {
		t.Errorf("after the cancelled drain: %+v", e)
	}
	if p.drainer.Active() {
		t.Error("it drains")
	}
}

// When somebody else has taken one of the ports, a drain cannot be taken back; it goes on, and nobody is let in on the others.
func TestDrainCancelFails(t *testing.T) {
	p := start(t, newStub(), "--listen=127.0.0.1:0,127.0.0.2:0", "--drain-spread=0s", "--close-timeout=1h", "--drain-timeout=1h")
	first, second, _ := strings.Cut(p.addr, ",")
	p.addr = first
	silent := p.dial(t, "/ws")
	p.ask(t, "POST", "/drain", "")
	eventually(t, "the listeners are closed", func() bool { return refused(first) && refused(second) })
	l := listenLocal(t, second)
	a := p.ask(t, "DELETE", "/drain", "")
	if a.status != 500 || !strings.HasPrefix(a.body, "the drain goes on, listening again failed: --listen 127.0.0.2:0: ") {
		t.Errorf("%+v", a)
	}
	if !refused(first) {
		t.Error("it listens on the port that is free")
	}
	p.ask(t, "GET", "/readyz", "").want(t, "readyz", 503, "draining")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	p.ask(t, "DELETE", "/drain", "").want(t, "cancel", 200, `{"cancelled":true}`)
	silent.readClose(t, 3333, "drain") // its Close was out
	p.dial(t, "/ws")
	p.addr = second
	p.dial(t, "/ws")
}

// The four numbers of the summary: each connection is in exactly one.
func TestDrainSummary(t *testing.T) {
	worker := newStub()
	p := start(t, worker, "--drain-spread=0s", "--close-timeout=100ms", "--drain-timeout=1h")
	p.dial(t, "/ws").readCloseLater(t) // answers
	p.dial(t, "/ws")                   // never answers
	leaves, stuck := p.dial(t, "/ws"), p.dial(t, "/ws")
	for _, c := range []client{leaves, stuck} { // may not be told yet: requests in flight
		c.send(t, wire.Envelope{RequestID: "C0", Type: "test.Later"})
		receive(t, "a request", worker.later)
	}
	before := p.dial(t, "/ws") // has ended before: in none of the numbers
	if err := before.Close(); err != nil {
		t.Error(err)
	}
	open := func(n string) func() bool {
		return func() bool { return p.samples(t)["mqgate_connections_open"] == n }
	}
	eventually(t, "four are left", open("4"))
	p.signals <- syscall.SIGTERM
	eventually(t, "two are left", open("2"))
	if err := leaves.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "byebye"), time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
	eventually(t, "one is left", open("1"))
	p.signals <- os.Interrupt
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	p.summary(t, 1, 1, 1, 1)
}

// readCloseLater answers the Close whenever it comes.
func (c client) readCloseLater(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = c.ReadMessage()
		_ = c.Close()
	}()
	t.Cleanup(func() { receive(t, "the Close", done) })
}

// With nobody connected a drain is over at once, whatever its spread.
func TestDrainNobody(t *testing.T) {
	p := start(t, newStub(), "--drain-spread=1h", "--drain-timeout=2h")
	p.signals <- syscall.SIGTERM
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
	p.summary(t, 0, 0, 0, 0)
}
