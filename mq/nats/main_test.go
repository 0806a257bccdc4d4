package nats

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what must happen; it is never reached when all is well.
const deadline = natstest.Deadline

var eventually = natstest.Eventually

// connect connects with the given options over the defaults of these tests, and closes with the test.
func connect(t testing.TB, url string, change ...func(*Options)) *Conn {
	t.Helper()
	o := Options{URLs: []string{url}, Name: t.Name(), Buffer: natsio.DefaultReconnectBufSize}
	for _, f := range change {
		f(&o)
	}
	c, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// unbuffered is what gateways use.
func unbuffered(o *Options) { o.Buffer = 0 }

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// gate stands for a gateway: it gives requests to a Relay as loops do, and keeps the answers.
type gate struct {
	t      testing.TB
	x      *Relay
	issuer *conn.Issuer

	mu    sync.Mutex
	next  uint64
	asked map[uint64]*asked
	twice int // answers to what had been answered
}

// asked is a request and its answer.
type asked struct {
	g       *gate
	id      uint64
	typ     string
	payload string
	err     error
	begun   time.Time
	took    time.Duration
	order   int // among the answers of the gate
	done    chan struct{}
}

const requestTimeout = 15 * time.Second

// newGate returns a gate with a Relay that was started.
func newGate(t testing.TB, c *Conn, clients mq.Clients, change ...func(*RelayConfig)) *gate {
	t.Helper()
	g := &gate{t: t, issuer: conn.NewIssuer(), asked: make(map[uint64]*asked)}
	cfg := RelayConfig{Conn: c, Node: g.issuer.Node(), RequestTimeout: requestTimeout, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	x, err := NewRelay(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.x = x
	if clients == nil {
		clients = &nobody{}
	}
	x.Attach(clients)
	if err := x.Start(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // tests that care call Close themselves
		_ = x.Close(ctx)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.twice > 0 {
			t.Errorf("%d second answers", g.twice)
		}
	})
	return g
}

// conn returns the id of a connection of the gate.
func (g *gate) conn(slot int) conn.ID { return g.issuer.Make(slot%4, uint32(slot), 1) }

// started is when the connections of gates began.
var started = time.UnixMilli(1_700_000_000_123)

// send gives a request to the relay.
func (g *gate) send(id conn.ID, typ, payload string) *asked {
	a := &asked{g: g, begun: time.Now(), done: make(chan struct{})}
	g.mu.Lock()
	g.next++
	a.id = g.next
	g.asked[a.id] = a
	g.mu.Unlock()
	r := mq.NewRequest(&loopEnd{a, id})
	r.Conn, r.SessionID, r.Type, r.Payload = id, "client says "+id.String()[:4], typ, []byte(payload)
	g.x.Process(r)
	clear(r.Payload) // borrowed
	return a
}

// Complete implements mq.Completer.
func (g *gate) Complete(id uint64, typ string, payload []byte, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.asked[id]
	select {
	case <-a.done:
		g.twice++
		return
	default:
	}
	a.typ, a.payload, a.err, a.took = typ, string(payload), cause, time.Since(a.begun)
	g.next++ // answers count as well, which gives them an order
	a.order = int(g.next)
	close(a.done)
}

// CompleteSubscribing implements mq.SubscribingCompleter.
func (g *gate) CompleteSubscribing(id uint64, typ string, payload []byte, missed []mq.Event, done func()) {
	g.Complete(id, typ, append(payload, fmt.Sprint(" missed ", len(missed))...), nil)
	go done()
}

func (a *asked) answered() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// wait waits for the answer.
func (a *asked) wait() *asked {
	a.g.t.Helper()
	select {
	case <-a.done:
	case <-time.After(deadline):
		a.g.t.Fatalf("request %d: no answer within %v", a.id, deadline)
	}
	return a
}

// ok waits for an answer that is no error.
func (a *asked) ok() *asked {
	a.g.t.Helper()
	if a.wait(); a.err != nil {
		a.g.t.Fatalf("request %d failed: %v", a.id, a.err)
	}
	return a
}

// loopEnd is the mq.Responder of a request.
type loopEnd struct {
	a  *asked
	id conn.ID
}

func (e *loopEnd) Reply(_ *mq.Request, typ string, payload []byte) {
	e.a.g.Complete(e.a.id, typ, payload, nil)
}
func (e *loopEnd) Fail(_ *mq.Request, cause error) { e.a.g.Complete(e.a.id, "", nil, cause) }
func (e *loopEnd) Later(*mq.Request) mq.Completion { return mq.NewCompletion(e.a.g, e.a.id) }
func (e *loopEnd) Meta(*mq.Request) mq.Meta {
	return mq.Meta{Remote: netip.MustParseAddrPort("[2001:db8::7]:4711"), Start: started,
		Headers: []mq.Header{{Name: "User-Agent", Value: "test/1"}, {Name: "Traceparent", Value: "00-ab-cd-01"}}}
}

// nobody is mq.Clients of a gateway without connections.
type nobody struct{ calls recorder }

func (n *nobody) Publish(t mq.Topic, typ string, payload []byte) {}
func (n *nobody) SendEvent(id conn.ID, typ string, payload []byte, done func(error)) {
	done(mq.ErrNotFound)
}
func (n *nobody) SendRequest(id conn.ID, typ string, payload []byte, done func(mq.Response, error)) {
	done(mq.Response{}, mq.ErrNotFound)
}
func (n *nobody) Unsubscribe(id conn.ID, t mq.Topic) {}
func (n *nobody) UnsubscribeAll(id conn.ID)          { n.calls.add("unsubscribe all %s", id) }
func (n *nobody) EndTopic(t mq.Topic)                {}
func (n *nobody) CloseConnection(id conn.ID, code uint16, reason string, done func(bool)) {
	n.calls.add("close %s %d %s", id, code, reason)
	if done != nil {
		done(false)
	}
}

// recorder keeps lines.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// worker is a mq.Worker made of functions.
type worker struct {
	clients      mq.Clients
	process      func(*mq.Request)
	disconnected func(mq.Disconnect, string) error
}

func (w *worker) Attach(c mq.Clients)              { w.clients = c }
func (w *worker) Process(r *mq.Request)            { w.process(r) }
func (w *worker) RoundTrip(conn.ID, time.Duration) {}
func (w *worker) Disconnected(mq.Disconnect) error { panic("SessionDisconnected is called instead") }
func (w *worker) SessionDisconnected(d mq.Disconnect, session string) error {
	return w.disconnected(d, session)
}

// echo answers with what it got.
func echo(r *mq.Request) { r.Reply(r.Type+"Response", r.Payload) }

// serve starts a Service for w; it drains with the test.
func serve(t testing.TB, c *Conn, w mq.Worker, change ...func(*ServiceConfig)) *Service {
	t.Helper()
	cfg := ServiceConfig{Conn: c, Worker: w}
	for _, f := range change {
		f(&cfg)
	}
	s, err := NewService(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Drain(ctx) // tests that care call it themselves
	})
	return s
}

// listen subscribes as a worker in another language would. The message is f's.
func listen(t testing.TB, c *Conn, subject, group string, f func(*natsio.Msg)) {
	t.Helper()
	sub, err := c.NATS().QueueSubscribe(subject, group, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}
