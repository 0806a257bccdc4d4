package nats

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// restartable is a NATS server that can be ended and started again on its port, with its store.
type restartable struct {
	t       testing.TB
	address string
	dir     string
	s       *embedded.Server
}

func newRestartable(t testing.TB) *restartable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &restartable{t: t, address: ln.Addr().String(), dir: t.TempDir()}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	var err error
	if r.s, err = embedded.Start(embedded.Options{Listen: r.address, StoreDir: r.dir}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *restartable) stop() {
	if r.s == nil {
		return
	}
	if err := r.s.Shutdown(); err != nil {
		r.t.Error(err)
	}
	r.s = nil
}

func (r *restartable) url() string { return "nats://" + r.address }

// NATS goes in the middle: what is in flight fails, but for what may be handled twice, which is sent again; new requests
// wait a moment, then fail at once; and all is well when it is back.
func TestNATSRestart(t *testing.T) {
	s := newRestartable(t)
	var states recorder
	c := connect(t, s.url(), unbuffered, func(o *Options) {
		o.OnState = func(st State) { states.add("link %d up %v %s", st.Link, st.Up, st.URL) }
	})
	workers := connect(t, s.url())
	var mu sync.Mutex
	var kept []mq.Completion
	sw := &worker{process: func(r *mq.Request) {
		mu.Lock()
		defer mu.Unlock()
		if len(kept) < 4 {
			kept = append(kept, r.Later())
			return
		}
		r.Reply("T", r.Payload)
	}}
	serve(t, workers, sw)
	g := newGate(t, c, nil, func(c *RelayConfig) { c.Hold = 500 * time.Millisecond })
	plain, ordered := g.send(g.conn(1), "x.Y", "1"), g.send(g.conn(1), "chat.SendMessageToRoom", "2")
	twice, orderedTwice := g.send(g.conn(2), "chat.GetRoomInfo", "3"), g.send(g.conn(3), "chat.FetchRoomConversation", "4")
	behind := g.send(g.conn(3), "chat.SendMessageToRoom", "5")
	eventually(t, "four are with the worker", func() bool { mu.Lock(); defer mu.Unlock(); return len(kept) == 4 })
	s.stop()
	for _, a := range []*asked{plain, ordered} {
		if a.wait(); !errors.Is(a.err, errLinkLost) {
			t.Errorf("in flight: %v, expected %v", a.err, errLinkLost)
		}
	}
	held := g.send(g.conn(4), "x.Y", "held")
	if held.answered() {
		t.Errorf("a request just after NATS has gone: %v at once, expected it to wait", held.err)
	}
	if g.x.Ready(time.Hour) != true || g.x.Ready(0) {
		t.Error("readiness does not depend on the grace")
	}
	if held.wait(); !errors.Is(held.err, errAway) || held.took < 100*time.Millisecond {
		t.Errorf("held: %v after %v", held.err, held.took)
	}
	if a := g.send(g.conn(4), "x.Y", "6"); !a.answered() || !errors.Is(a.err, errAway) {
		t.Errorf("after the hold: %v, expected %v at once", a.err, errAway)
	}
	// The idempotent ones were held as well, and are over with the hold: what is retried is retried while there is hope.
	for _, a := range []*asked{twice, orderedTwice, behind} {
		if a.wait(); !errors.Is(a.err, errAway) {
			t.Errorf("held: %v, expected %v", a.err, errAway)
		}
	}
	s.start()
	eventually(t, "both are connected again", func() bool { return c.Away() == 0 && workers.Away() == 0 })
	if err := workers.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	if a := g.send(g.conn(4), "x.Y", "7").ok(); a.payload != "7" {
		t.Errorf("%q", a.payload)
	}
	if !g.x.Ready(0) {
		t.Error("not ready")
	}
	if st := g.x.Stats(); st.Lost != 2 || st.Resent != 2 || st.InFlight != 0 || st.FlightBytes != 0 {
		t.Errorf("stats %+v", st)
	}
	if st := c.Stats(); st.Reconnects != 1 || st.Up != 1 {
		t.Errorf("stats %+v", st)
	}
	eventually(t, "both states were told", func() bool {
		return strings.Join(states.all(), ", ") == fmt.Sprintf("link 0 up false %[1]s, link 0 up true %[1]s", s.url())
	})
}

// A connection that is back soon: idempotent requests in flight are sent again, requests that came meanwhile are sent late,
// and no client notices.
func TestShortCut(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	c := connect(t, p.URL(), unbuffered)
	got := make(chan *natsio.Msg, 100)
	listen(t, connect(t, s.URL()), "mqgate.req.>", "workers", func(m *natsio.Msg) { got <- m })
	g := newGate(t, c, nil, func(c *RelayConfig) { c.Hold = deadline })
	lost := g.send(g.conn(1), "x.Y", "lost")
	again := g.send(g.conn(2), "chat.GetRoomInfo", "again")
	behind := g.send(g.conn(2), "chat.X", "behind")
	first := map[string]*natsio.Msg{}
	for range 2 {
		m := <-got
		first[string(m.Data)] = m
	}
	p.Cut()
	if lost.wait(); !errors.Is(lost.err, errLinkLost) {
		t.Errorf("%v", lost.err)
	}
	var late []*asked
	for i := range 10 {
		late = append(late, g.send(g.conn(3+i), "x.Y", fmt.Sprint("late ", i)))
	}
	p.Heal()
	m := <-got
	if string(m.Data) != "again" {
		t.Fatalf("the worker got %q first", m.Data)
	}
	_ = m.Respond([]byte("second"))
	if again.ok(); again.payload != "second" {
		t.Errorf("%q", again.payload)
	}
	for range 11 {
		m := <-got
		_ = m.Respond(m.Data)
	}
	behind.ok()
	for i, a := range late {
		if a.ok(); a.payload != fmt.Sprint("late ", i) {
			t.Errorf("%q", a.payload)
		}
	}
	// The worker's answers to what was lost still come, and find nobody.
	_ = first["lost"].Respond(nil)
	_ = first["again"].Respond(nil)
	eventually(t, "both are late", func() bool { return g.x.Stats().Late == 2 })
	if st := g.x.Stats(); st.Lost != 1 || st.Resent != 1 || st.Answered != 12 {
		t.Errorf("stats %+v", st)
	}
}

// staller passes TCP on to a server and can stop to read, as a server that takes nothing more.
type staller struct {
	ln   net.Listener
	mu   sync.Mutex
	cond *sync.Cond
	stop bool
	all  []net.Conn
	done sync.WaitGroup
}

func newStaller(t testing.TB, target string) *staller {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &staller{ln: ln}
	p.cond = sync.NewCond(&p.mu)
	p.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", strings.TrimPrefix(target, "nats://"))
			if err != nil {
				t.Error(err)
				_ = c.Close()
				return
			}
			p.mu.Lock()
			p.all = append(p.all, c, up)
			p.mu.Unlock()
			p.done.Go(func() { p.copy(up, c) })
			p.done.Go(func() { _, _ = io.Copy(c, up); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.set(false)
		p.mu.Lock()
		for _, c := range p.all {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	return p
}

func (p *staller) url() string { return "nats://" + p.ln.Addr().String() }

func (p *staller) set(stop bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = stop
	p.cond.Broadcast()
}

func (p *staller) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.stop {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A NATS server that takes nothing more holds up no loop: requests queue, and above the limit they fail at once. When it
// goes on, what waits is handled.
func TestSlowNATSBlocksNobody(t *testing.T) {
	s := natstest.Single(t)
	p := newStaller(t, s.URL())
	c := connect(t, p.url(), unbuffered)
	serve(t, connect(t, s.URL()), &worker{process: echo}, func(c *ServiceConfig) { c.MaxWaiting = 1 << 17; c.MaxInFlight = 1 << 17 })
	g := newGate(t, c, nil, func(c *RelayConfig) { c.MaxInFlight, c.RequestTimeout = 1<<20, 10*time.Minute })
	g.send(g.conn(1), "x.Y", "before").ok()
	p.set(true)
	const requests = maxQueued + 40_000
	payload := strings.Repeat("x", 1000) // 100 MB in all: no buffer of the kernel takes that
	var longest time.Duration
	var list []*asked
	refused := 0
	for i := range requests {
		begun := time.Now()
		a := g.send(g.conn(i%1000), "x.Y", payload)
		longest = max(longest, time.Since(begun))
		if a.answered() {
			if refused++; !errors.Is(a.err, errQueue) {
				t.Fatalf("request %d: %v", i, a.err)
			}
			continue
		}
		list = append(list, a)
	}
	t.Logf("%d requests, of which %d were refused; the longest Process took %v", requests, refused, longest)
	if refused == 0 || len(list) < maxQueued {
		t.Errorf("%d refused, %d taken: expected at least %d to be taken and the rest to be refused", refused, len(list), maxQueued)
	}
	if longest > writeTimeout/4 {
		t.Errorf("Process took %v", longest)
	}
	begun := time.Now()
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(1), Code: 1000}); err != nil || time.Since(begun) > writeTimeout/4 {
		t.Errorf("Disconnected: %v after %v", err, time.Since(begun))
	}
	p.set(false)
	for _, a := range list {
		switch a.wait(); {
		case a.err == nil && a.payload == payload:
		case errors.Is(a.err, errLinkLost) && a.took > writeTimeout: // a slow machine: the write took too long
		default:
			t.Fatalf("%v after %v", a.err, a.took)
		}
	}
	eventually(t, "the end is stored", func() bool { return g.x.Stats().Published == 1 })
	if st := g.x.Stats(); st.InFlight != 0 || st.FlightBytes != 0 || st.FailedAtOnce != uint64(refused) {
		t.Errorf("stats %+v", st)
	}
}

// A server that takes nothing for longer than a write may take is given up: what had gone into the socket fails then, and
// not after its whole time.
func TestStalledForGood(t *testing.T) {
	s := natstest.Single(t)
	p := newStaller(t, s.URL())
	c := connect(t, p.url(), unbuffered)
	serve(t, connect(t, s.URL()), &worker{process: echo})
	g := newGate(t, c, nil, func(c *RelayConfig) { c.RequestTimeout = deadline })
	g.send(g.conn(1), "x.Y", "before").ok()
	p.set(true)
	a := g.send(g.conn(1), "x.Y", "into the socket")
	for range 30 { // more than the kernel's buffers take
		g.send(g.conn(1), "x.Y", strings.Repeat("x", 1<<20))
	}
	a.wait()
	if !errors.Is(a.err, errLinkLost) || a.took > 3*writeTimeout {
		t.Errorf("%v after %v, expected %v after about %v", a.err, a.took, errLinkLost, writeTimeout)
	}
	eventually(t, "the connection is noticed as lost", func() bool { return c.Away() > 0 || c.Stats().Reconnects > 0 })
}

// breakable is a way to a server whose writes can be made to fail.
type breakable struct {
	address string
	broken  atomic.Bool
}

type breakableConn struct {
	net.Conn
	b *breakable
}

func (b *breakable) InProcessConn() (net.Conn, error) {
	c, err := net.Dial("tcp", b.address)
	return &breakableConn{c, b}, err
}

func (c *breakableConn) Write(p []byte) (int, error) {
	if c.b.broken.Load() {
		return 0, errors.New("broken")
	}
	return c.Conn.Write(p)
}

// A write that fails may have taken others with it, whose bytes were in the same buffer: the connection is made anew, so
// that they fail as well.
func TestFailedWrite(t *testing.T) {
	s := natstest.Single(t)
	b := &breakable{address: strings.TrimPrefix(s.URL(), "nats://")}
	c := connect(t, "nats://unused", unbuffered, func(o *Options) { o.InProcess = natsio.InProcessServer(b) })
	got := make(chan *natsio.Msg, 10)
	listen(t, connect(t, s.URL()), "mqgate.req.>", "workers", func(m *natsio.Msg) { got <- m })
	g := newGate(t, c, nil)
	before := g.send(g.conn(1), "x.Y", "before")
	<-got
	b.broken.Store(true)
	a := g.send(g.conn(2), "x.Y", strings.Repeat("x", 200_000)).wait() // more than nats.go buffers
	b.broken.Store(false)
	if a.err == nil || !strings.Contains(a.err.Error(), "broken") {
		t.Errorf("%v", a.err)
	}
	if before.wait(); !errors.Is(before.err, errLinkLost) {
		t.Errorf("%v, expected %v", before.err, errLinkLost)
	}
	eventually(t, "the connection is back", func() bool { return c.Stats().Reconnects == 1 && c.Away() == 0 })
	after := g.send(g.conn(1), "x.Y", "after")
	_ = (<-got).Respond(nil)
	after.ok()
}
