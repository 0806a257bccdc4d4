package mq

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq/wire"
)

// sim is a gateway over simulated loops: networks, clock and worker are in the test's hands, and nothing happens but by
// its calls. It uses the names of the package itself, because most of what can go wrong here is in the bookkeeping.
type sim struct {
	t    testing.TB
	nets []*looptest.Net
	regs []*conn.Registry
	cfg  *conn.Config
	g    *Gateway
	w    *script
	log  *logs
	port uint16
}

const (
	requestTimeout       = 15 * time.Second
	serverRequestTimeout = 10 * time.Second
	closeTimeout         = 5 * time.Second
	maxPending           = 64 << 10
	maxMessage           = 32 << 10
)

type simOption func(*Config, *conn.Config)

func withMaxRequests(n int) simOption {
	return func(m *Config, _ *conn.Config) { m.MaxRequests = n }
}

// newSim returns a gateway with the given number of loops. At the end of the test everything is closed and nothing may
// be left.
func newSim(t testing.TB, loops int, options ...simOption) *sim {
	s := newSimUnchecked(t, loops, options...)
	t.Cleanup(func() {
		if !t.Failed() {
			s.finish()
		}
	})
	return s
}

func newSimUnchecked(t testing.TB, loops int, options ...simOption) *sim {
	s := &sim{t: t, w: &script{}, log: &logs{}, port: 1000}
	m := Config{Worker: s.w, RequestTimeout: requestTimeout, ServerRequestTimeout: serverRequestTimeout, MaxRequests: 8,
		MetaHeaders: []string{"User-Agent", "X-Second"}, Log: slog.New(s.log)}
	s.cfg = &conn.Config{
		Endpoints:        []conn.Endpoint{{Path: "/ws", MaxMessage: maxMessage}},
		HandshakeTimeout: 10 * time.Second, PingInterval: 20 * time.Second, CloseTimeout: closeTimeout, WriteTimeout: 10 * time.Second,
		Heartbeat: conn.HeartbeatOff, MaxPending: maxPending, MetaHeaders: m.MetaHeaders,
	}
	for _, o := range options {
		o(&m, s.cfg)
	}
	var err error
	if s.g, err = New(m, loops); err != nil {
		t.Fatal(err)
	}
	s.cfg.Endpoints[0].Handler = s.g
	if err := s.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for i := range loops {
		r := conn.NewRegistry(s.cfg)
		n := looptest.New(r, nil)
		n.Loop = loop.New(loop.Config{Index: i, Kernel: n, Handler: r}) // the net's own has number 0
		r.Attach(n.Loop)
		s.g.Attach(r)
		s.nets, s.regs = append(s.nets, n), append(s.regs, r)
	}
	s.g.Start(s)
	return s
}

// Do implements Finder as conn.Server does.
func (s *sim) Do(id conn.ID, f func(*conn.Conn)) {
	if id.Loop() >= len(s.regs) || !s.cfg.Issuer.Verify(id) {
		f(nil)
		return
	}
	r := s.regs[id.Loop()]
	r.Loop().PostFunc(func() { f(r.Find(id)) })
}

// run lets every loop do all there is to do now, and what that causes on the others.
func (s *sim) run() {
	for again := true; again; {
		again = false
		for _, n := range s.nets {
			for n.Step() {
				again = true
			}
		}
	}
}

func (s *sim) advance(d time.Duration) {
	s.run()
	for _, n := range s.nets {
		n.Advance(int64(d))
	}
	s.run()
}

// on runs f on loop i, as a task.
func (s *sim) on(i int, f func()) {
	s.nets[i].Loop.PostFunc(f)
	s.run()
}

// drain starts to drain every loop, all connections at once.
func (s *sim) drain() {
	for i, r := range s.regs {
		s.on(i, func() { r.StartDrain(1e6) })
	}
}

// stats returns the sum over the shards.
func (s *sim) stats() (sum Stats) {
	for _, r := range s.regs {
		st := s.g.Stats(r.Loop())
		sum.Add(&st)
	}
	return sum
}

// ledger checks L3.11's sum.
func (s *sim) ledger() {
	s.t.Helper()
	st := s.stats()
	var done uint64
	for _, n := range st.Requests {
		done += n
	}
	if st.Accepted != done+uint64(st.InFlight) {
		s.t.Fatalf("ledger: %d accepted, outcomes %v, %d in flight", st.Accepted, st.Requests, st.InFlight)
	}
	var answered uint64
	for _, n := range st.Duration {
		answered += n
	}
	if answered != st.Requests[OutcomeOK] {
		s.t.Fatalf("ledger: %d durations of %d answered requests", answered, st.Requests[OutcomeOK])
	}
}

// finish cuts off every client that is left and checks that nothing is.
func (s *sim) finish() {
	s.t.Helper()
	for i, r := range s.regs {
		s.nets[i].Loop.PostFunc(func() { r.ForceAll() })
	}
	s.w.disconnected = nil
	s.advance(time.Minute) // everything that was kept for a time is gone as well
	s.ledger()
	s.empty()
}

// empty checks that nothing exists for any connection.
func (s *sim) empty() {
	s.t.Helper()
	for i, sh := range s.g.shards {
		if n := sh.registry.Entries(); n != 0 {
			s.t.Errorf("loop %d: %d connections left", i, n)
		}
		for _, left := range []struct {
			what string
			n    int
		}{
			{"sockets", s.nets[i].Sockets()}, {"clients", sh.clients.len()}, {"pending requests", sh.pending.len()},
			{"their timers", sh.pending.timers.Len()}, {"server requests", sh.waiting.len()}, {"their timers", sh.waiting.timers.Len()},
			{"numbers", len(sh.byNumber)}, {"topics", len(sh.topics)}, {"unpublished ends", len(sh.unpublished)},
			{"in flight", int(sh.stats.InFlight)}, {"waiting", int(sh.stats.ServerWaiting)},
			{"room subscriptions", int(sh.stats.Subscriptions[TopicRoom])},
			{"conversation subscriptions", int(sh.stats.Subscriptions[TopicConversation])},
		} {
			if left.n != 0 {
				s.t.Errorf("loop %d: %d %s left", i, left.n, left.what)
			}
		}
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// peer is a client of the gateway.
type peer struct {
	s    *sim
	net  *looptest.Net
	p    *looptest.Peer
	loop int
	id   conn.ID
	addr netip.AddrPort
	raw  []byte // received, not parsed yet
	next int    // of its request ids
}

// message is what a client has received.
type message struct {
	op      frame.OpCode
	payload []byte
	env     wire.Envelope // of a text or binary message
}

const upgrade = "GET /ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nUser-Agent: sim\r\n\r\n"

// connect opens a connection on a loop.
func (s *sim) connect(i int) *peer {
	s.t.Helper()
	s.port++
	addr := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), s.port)
	p := &peer{s: s, net: s.nets[i], loop: i, addr: addr}
	p.p = p.net.Client(0, addr)
	p.p.Send([]byte(upgrade))
	s.run()
	answer := p.p.Take()
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) || !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
		s.t.Fatalf("upgrade answered with %q", answer)
	}
	s.regs[i].Each(func(c *conn.Conn) {
		if c.Remote() == addr {
			p.id = c.ID()
		}
	})
	if p.id.IsZero() {
		s.t.Fatal("the connection is not in the registry")
	}
	return p
}

// conn returns the server's end, nil when it has ended.
func (p *peer) conn() *conn.Conn { return p.s.regs[p.loop].Find(p.id) }

// state returns the gateway's state of the connection, nil when there is none.
func (p *peer) state() *client {
	_, cl := p.s.g.shards[p.loop].clientOf(p.conn())
	return cl
}

func (p *peer) shard() *shard { return p.s.g.shards[p.loop] }

// frame puts a frame on its way.
func (p *peer) frame(op frame.OpCode, payload []byte) {
	p.p.Send(frame.AppendMaskedFrame(nil, op, true, payload, [4]byte{1, 2, 3, 4}))
}

// text and binary put an envelope on its way in that form.
func (p *peer) text(env *wire.Envelope) {
	p.frame(frame.Text, []byte(base64.StdEncoding.EncodeToString(env.AppendTo(nil))))
}
func (p *peer) binary(env *wire.Envelope) { p.frame(frame.Binary, env.AppendTo(nil)) }

// request puts a request on its way, as text, with an id of the usual kind, which it returns.
func (p *peer) request(typ string, payload []byte) string {
	id := fmt.Sprintf("C%d", p.next)
	p.next++
	p.text(&wire.Envelope{RequestID: id, Type: typ, Payload: payload})
	return id
}

func (p *peer) close(code uint16) {
	p.frame(frame.Close, frame.AppendCloseBody(nil, code, ""))
}

// take returns what has been received since the last call; only whole frames. The parser is this test's own.
func (p *peer) take() []message {
	p.s.t.Helper()
	p.raw = append(p.raw, p.p.Take()...)
	var got []message
	for len(p.raw) >= 2 {
		head, n := 2, int(p.raw[1])
		if n&0x80 != 0 || p.raw[0]&0xf0 != 0x80 {
			p.s.t.Fatalf("the server sent a frame that begins with % x", p.raw[:2])
		}
		switch {
		case n == 126 && len(p.raw) >= 4:
			head, n = 4, int(binary.BigEndian.Uint16(p.raw[2:]))
		case n == 127 && len(p.raw) >= 10:
			head, n = 10, int(binary.BigEndian.Uint64(p.raw[2:]))
		}
		if len(p.raw) < head+n || n >= 126 && head == 2 {
			break
		}
		m := message{op: frame.OpCode(p.raw[0] & 0xf), payload: slices.Clone(p.raw[head : head+n])}
		p.raw = p.raw[head+n:]
		b := slices.Clone(m.payload)
		var err error
		switch m.op {
		case frame.Text:
			if b, err = base64.StdEncoding.DecodeString(string(b)); err != nil {
				p.s.t.Fatalf("the server sent text that is not base64: %q", m.payload)
			}
			fallthrough
		case frame.Binary:
			if err := m.env.Unmarshal(b); err != nil {
				p.s.t.Fatalf("the server sent an envelope that does not decode: %v", err)
			}
		case frame.Continuation, frame.Close, frame.Ping, frame.Pong:
		}
		got = append(got, m)
	}
	return got
}

// String shows a message in one line.
func (m message) String() string {
	switch m.op {
	case frame.Close:
		code, reason, err := frame.ParseCloseBody(m.payload)
		if err != nil {
			return "close: " + err.Error()
		}
		return fmt.Sprintf("close %d %q", code, reason)
	case frame.Ping, frame.Pong:
		return fmt.Sprintf("%v %d bytes", m.op, len(m.payload))
	case frame.Text, frame.Binary, frame.Continuation:
	}
	e := &m.env
	out := fmt.Sprintf("%v %v", m.op, e.MessageType)
	if e.RequestID != "" {
		out += " " + e.RequestID
	}
	out += " " + e.Type
	if e.Type == wire.TypeError {
		var w wire.Error
		if w.Unmarshal(e.Payload) != nil {
			return out + " malformed"
		}
		out += fmt.Sprintf(" {%s}", w.Reason)
	} else {
		out += fmt.Sprintf(" %q", e.Payload)
	}
	if e.HasWallTime {
		out += fmt.Sprintf(" %gms", e.WallTime)
	}
	return out
}

// expect runs and compares what was received, in the form of message.String.
func (p *peer) expect(want ...string) {
	p.s.t.Helper()
	p.s.run()
	got := show(p.take())
	if !slices.Equal(got, want) {
		p.s.t.Fatalf("received\n  %s\nexpected\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func show(ms []message) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, m.String())
	}
	return out
}

// script is a worker that does what the test, or the type of the request, says.
type script struct {
	clients      Clients
	process      func(r *Request) // nil: by type
	disconnected func(d Disconnect) error
	roundTrip    func(id conn.ID, rtt time.Duration)
	later        []Completion // of requests of type "later", in order
	calls        int
	ends         []Disconnect // all that were taken
}

func (w *script) Attach(c Clients) { w.clients = c }

func (w *script) RoundTrip(id conn.ID, rtt time.Duration) {
	if w.roundTrip != nil {
		w.roundTrip(id, rtt)
	}
}

func (w *script) Disconnected(d Disconnect) error {
	if w.disconnected != nil {
		if err := w.disconnected(d); err != nil {
			return err
		}
	}
	w.ends = append(w.ends, d)
	return nil
}

var errWorker = errors.New("secret cause")

func (w *script) Process(r *Request) {
	w.calls++
	if w.process != nil {
		w.process(r)
		return
	}
	switch r.Type {
	case "echo":
		r.Reply("echoResponse", r.Payload)
	case "later":
		w.later = append(w.later, r.Later())
	case "never":
	case "twice":
		r.Reply("first", r.Payload)
		r.Reply("second", r.Payload)
	case "fail":
		r.Fail(errWorker)
	case "fail-reply":
		r.Fail(errWorker)
		r.Reply("second", r.Payload)
	case "panic":
		panic("secret panic")
	case "reply-panic":
		r.Reply("first", r.Payload)
		panic("secret panic")
	case "later-panic":
		w.later = append(w.later, r.Later())
		panic("secret panic")
	case "later-reply":
		w.later = append(w.later, r.Later())
		r.Reply("second", r.Payload)
	default:
		r.Fail(fmt.Errorf("no %q here", r.Type))
	}
}

// logs keeps the records of a logger: a handler that holds on to what it is given, as it may.
type logs struct{ records []slog.Record }

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	l.records = append(l.records, r)
	return nil
}
func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logs) WithGroup(string) slog.Handler      { return l }

// lines returns the records with that message as "LEVEL key=value ...", and forgets all records.
func (l *logs) lines(message string) (lines []string) {
	for _, r := range l.records {
		if r.Message != message {
			continue
		}
		line := r.Level.String()
		r.Attrs(func(a slog.Attr) bool {
			line += " " + a.String()
			return true
		})
		lines = append(lines, line)
	}
	l.records = nil
	return lines
}

// seeds returns how many seeds a random test tries: n of them, or a few in the builds that check more.
func seeds(n uint64) uint64 {
	if plainBuild {
		return n
	}
	return 6
}
