package sequences

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// settings is what a scene may change. They begin as the defaults of the flags, without heartbeat and connection limit.
type settings struct {
	conn *conn.Config
	mq   *mq.Config
	log  *slog.Logger
}

// play is one scene on its stage: a gateway on one simulated loop, with the test as network, clock, clients and worker.
type play struct {
	record
	t    testing.TB
	net  *looptest.Net
	loop *loop.Loop
	reg  *conn.Registry
	gw   *mq.Gateway
	cfg  *conn.Config

	clients []*client
	broken  bool // the network: every write fails with EPIPE

	// The worker's side.
	worker       mq.Clients
	process      func(r *mq.Request) // nil: every request is kept for later
	later        []mq.Completion
	disconnected func() error // nil: taken
}

func newPlay(t testing.TB, change func(settings)) *play {
	p := &play{t: t}
	p.record.play = p
	log := slog.New(logged{p})
	m := mq.Config{Worker: worker{p}, RequestTimeout: 15 * time.Second, ServerRequestTimeout: 15 * time.Second, MaxRequests: 256, Log: log}
	p.cfg = &conn.Config{
		Endpoints:        []conn.Endpoint{{Path: "/ws", MaxMessage: 1 << 20}},
		HandshakeTimeout: 10 * time.Second, PingInterval: 20 * time.Second, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		Heartbeat: conn.HeartbeatOff, MaxPending: 4 << 20, Log: log,
	}
	if change != nil {
		change(settings{p.cfg, &m, log})
	}
	var err error
	if p.gw, err = mq.New(m, 1); err != nil {
		t.Fatal(err)
	}
	p.cfg.Endpoints[0].Handler = handler{p}
	if err := p.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	p.reg = conn.NewRegistry(p.cfg)
	clock := looptest.NewClock()
	p.net = clock.New(loop.Config{Handler: p.reg}, nil)
	p.loop = loop.New(loop.Config{Kernel: kernel{p.net, p}, Handler: p.reg}) // the net's own has not our kernel
	p.net.Loop = p.loop
	p.reg.Attach(p.loop)
	p.gw.Attach(p.reg)
	p.gw.Start(p)
	p.begin()
	clock.AfterTurn = func() {
		p.sample()
		p.changed()
	}
	return p
}

// Do implements mq.Finder as conn.Server does.
func (p *play) Do(id conn.ID, f func(*conn.Conn)) {
	if !p.cfg.Issuer.Verify(id) {
		f(nil)
		return
	}
	p.loop.PostFunc(func() { f(p.reg.Find(id)) })
}

// run lets the loop do all there is to do now.
func (p *play) run() {
	p.net.Run()
	p.check()
}

func (p *play) check() {
	p.sample()
	p.changed()
	if drift := p.reg.Snapshot().Drift; drift != 0 {
		p.t.Fatalf("L6.2: the accounts drift by %d", drift)
	}
}

// pass lets d pass.
func (p *play) pass(d time.Duration) {
	p.net.Advance(int64(d))
	p.check()
}

// wait lets time pass until something is recorded, at most d.
func (p *play) wait(d time.Duration) {
	p.t.Helper()
	rows := len(p.rows)
	for end := p.net.Now() + int64(d); p.net.Now() < end; {
		p.net.Advance(min(end-p.net.Now(), int64(10*time.Millisecond)))
		if len(p.rows) > rows {
			p.check()
			return
		}
	}
	p.t.Fatalf("nothing happened in %v", d)
}

// quietly does what the scene takes as given; the record begins anew behind it.
func (p *play) quietly(f func()) {
	f()
	p.run()
	p.begin()
}

// finish cuts off who is left and checks that nothing is.
func (p *play) finish() {
	p.t.Helper()
	p.disconnected = nil
	p.loop.PostFunc(func() { p.reg.ForceAll() })
	p.pass(time.Minute) // what is kept for a time is gone as well
	st, s := p.gw.Stats(p.loop), p.reg.Snapshot()
	if p.net.Sockets() != 0 || s.Pending != 0 || s.Conn.Open != 0 || s.Conn.Lingering != 0 || s.Conn.Handshake != 0 || p.reg.Entries() != 0 ||
		st.InFlight != 0 || st.ServerWaiting != 0 || st.Clients != 0 || st.Subscriptions != [2]int64{} || st.Unpublished != 0 {
		p.t.Errorf("left at the end: %d sockets, %+v, %+v", p.net.Sockets(), s, st)
	}
	var done uint64
	for _, n := range st.Requests {
		done += n
	}
	if st.Accepted != done {
		p.t.Errorf("L3.11: %d requests accepted, %d ended", st.Accepted, done)
	}
}

// stateOf reads a connection's state where the registry keeps it: from the accept on and until its slot is used again,
// which no method shows. Not ok: its slot is somebody else's by now.
func (p *play) stateOf(c *client) (conn.State, bool) {
	chunks := reflect.ValueOf(p.reg).Elem().FieldByName("chunks")
	if chunks.Len() == 0 {
		return 0, false
	}
	slots := chunks.Index(0).Elem()
	for i := range min(slots.Len(), len(p.clients)) { // slots are taken from the first on
		if slot := slots.Index(i); slot.FieldByName("port").Uint() == uint64(c.addr.Port()) {
			return conn.State(slot.FieldByName("state").Uint()), true
		}
	}
	return 0, false
}

// kernel is the simulated kernel with a witness at every call that a peer can see.
type kernel struct {
	*looptest.Net
	p *play
}

func (k kernel) Write(fd int, b []byte) (int, syscall.Errno) {
	if k.p.broken {
		return -1, syscall.EPIPE
	}
	n, errno := k.Net.Write(fd, b)
	k.p.deliver()
	return n, errno
}

func (k kernel) Writev(fd int, v [][]byte) (int, syscall.Errno) {
	n, errno := k.Net.Writev(fd, v)
	k.p.deliver()
	return n, errno
}

func (k kernel) ShutdownWrite(fd int) syscall.Errno {
	errno := k.Net.ShutdownWrite(fd)
	k.p.deliver()
	return errno
}

func (k kernel) Close(fd int, reset bool) {
	k.Net.Close(fd, reset)
	k.p.deliver()
}

// handler is the gateway as the connections see it, with a witness. OnMessage is not written down: the frame before it
// and what the worker is told after it say as much.
type handler struct{ p *play }

func (h handler) OnOpen(c *conn.Conn) {
	cl := h.p.of(c)
	cl.id = c.ID()
	h.p.note(gateway, cl.tag()+"OnOpen")
	h.p.gw.OnOpen(c)
}

func (h handler) OnMessage(c *conn.Conn, op frame.OpCode, b []byte) {
	h.p.sample()
	h.p.gw.OnMessage(c, op, b)
}

func (h handler) OnPong(c *conn.Conn, rtt time.Duration) {
	h.p.note(gateway, h.p.of(c).tag()+"OnPong "+rtt.String())
	h.p.gw.OnPong(c, rtt)
}

func (h handler) OnDrain(c *conn.Conn) {
	h.p.note(gateway, h.p.of(c).tag()+"OnDrain")
	h.p.gw.OnDrain(c)
}

func (h handler) OnError(c *conn.Conn, err error) {
	h.p.note(gateway, h.p.of(c).tag()+fmt.Sprintf("OnError %q", err))
	h.p.gw.OnError(c, err)
}

func (h handler) OnClose(c *conn.Conn, e conn.End) {
	cl := h.p.of(c)
	if cl.ended {
		h.p.t.Fatal("L1.6: a second OnClose")
	}
	cl.ended = true
	h.p.note(gateway, cl.tag()+fmt.Sprintf("OnClose %d %q, cause %s", e.Code, e.Reason, e.Cause.Label()))
	h.p.gw.OnClose(c, e)
}

// worker is the mq.Worker: it does what the scene says.
type worker struct{ p *play }

func (w worker) Attach(c mq.Clients) { w.p.worker = c }

func (w worker) Process(r *mq.Request) {
	w.p.note(toWorker, w.p.byID(r.Conn).tag()+"Process "+r.Type)
	if w.p.process != nil {
		w.p.process(r)
		return
	}
	w.p.later = append(w.p.later, r.Later())
}

func (w worker) Disconnected(d mq.Disconnect) error {
	w.p.note(toWorker, w.p.byID(d.Conn).tag()+fmt.Sprintf("Disconnected %d %q, lasted %v", d.Code, d.Description, d.Duration))
	if w.p.disconnected != nil {
		return w.p.disconnected()
	}
	return nil
}

func (w worker) RoundTrip(id conn.ID, rtt time.Duration) {
	w.p.note(toWorker, w.p.byID(id).tag()+"RoundTrip "+rtt.String())
}

// ok is an answer's payload with that status.
func ok(status string) []byte { return (&wire.LeaveRoomResponse{Status: status}).AppendTo(nil) }

// reply answers the i-th request that was kept, counted from 0.
func (p *play) reply(i int, typ string, payload []byte) {
	p.note(fromWorker, fmt.Sprintf("Reply %s %s", typ, show(typ, payload)))
	p.later[i].Reply(typ, payload)
	p.run()
}

// replies has the worker answer every request at once with status ok.
func (p *play) replies() {
	p.process = func(r *mq.Request) {
		p.note(fromWorker, fmt.Sprintf("Reply %sResponse {status: ok}", r.Type))
		r.Reply(r.Type+"Response", ok("ok"))
	}
}

// ask has the worker ask a client something.
func (p *play) ask(c *client, id conn.ID, payload ...byte) {
	p.note(fromWorker, c.tag()+"SendRequest app.Ask"+size(payload))
	p.worker.SendRequest(id, "app.Ask", payload, func(r mq.Response, err error) {
		if err != nil {
			p.note(toWorker, c.tag()+fmt.Sprintf("SendRequest failed: %v", err))
		} else {
			p.note(toWorker, c.tag()+"SendRequest answered: "+strings.TrimSpace(r.Type+" "+show(r.Type, r.Payload)))
		}
	})
	p.run()
}

// event has the worker send one client an event.
func (p *play) event(c *client, id conn.ID, payload []byte) {
	p.note(fromWorker, c.tag()+"SendEvent app.News"+size(payload))
	p.worker.SendEvent(id, "app.News", payload, func(err error) {
		if err != nil {
			p.note(toWorker, c.tag()+fmt.Sprintf("SendEvent failed: %v", err))
		}
	})
	p.run()
}

// closeConnection has the worker close a connection; run is the caller's.
func (p *play) closeConnection(c *client, id conn.ID, code uint16, reason string) {
	p.note(fromWorker, c.tag()+fmt.Sprintf("CloseConnection %d %q", code, reason))
	p.worker.CloseConnection(id, code, reason, func(ok bool) {
		p.note(toWorker, c.tag()+fmt.Sprintf("CloseConnection: %v", ok))
	})
}

// operator has the operator do something on the loop.
func (p *play) operator(what string, f func()) {
	p.note(byOperator, what)
	p.loop.PostFunc(f)
	p.run()
}

var clientAddr = netip.MustParseAddr("192.0.2.7")
