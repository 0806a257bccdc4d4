package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// A worker gets everything about a request that it would get in the gateway's process.
func TestServiceRequest(t *testing.T) {
	s := natstest.Single(t)
	var got mq.Request
	var meta mq.Meta
	serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		got, meta = *r, r.Meta()
		got.Payload = append([]byte(nil), r.Payload...)
		r.Reply("some.Type", []byte("answer"))
	}})
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	id := g.conn(5)
	if a := g.send(id, "chat.A", "payload").ok(); a.typ != "some.Type" || a.payload != "answer" {
		t.Errorf("answer %q %q", a.typ, a.payload)
	}
	if got.Conn != id || got.SessionID != "client says "+id.String()[:4] || got.Type != "chat.A" || string(got.Payload) != "payload" || got.Bound != "" {
		t.Errorf("request %+v", got)
	}
	want := mq.Meta{Remote: (&loopEnd{}).Meta(nil).Remote, Start: started, Headers: []mq.Header{{Name: "User-Agent", Value: "test/1"}, {Name: "traceparent", Value: "00-ab-cd-01"}}}
	if meta.Remote != want.Remote || !meta.Start.Equal(want.Start) || !slices.Equal(meta.Headers, want.Headers) {
		t.Errorf("meta %+v, expected %+v", meta, want)
	}
}

// All ways to answer, and what a worker does wrong.
func TestServiceAnswers(t *testing.T) {
	s := natstest.Single(t)
	rules := make(chan string, 10)
	broken := func(f func()) {
		defer func() { rules <- fmt.Sprint(recover()) }()
		f()
	}
	var old *mq.Request
	service := serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		switch r.Type {
		case "reply":
			r.Reply("replyResponse", []byte("a"))
			r.Reply("replyResponse", []byte("b"))
			r.Fail(errors.New("c"))
		case "fail":
			r.Fail(errors.New("because"))
		case "nil":
			r.Fail(nil)
		case "later":
			c := r.Later()
			broken(func() { r.Later() })
			go func() { c.Reply("T", []byte("later")); c.Fail(nil) }()
		case "laterfail":
			c := r.Later()
			go c.Fail(nil)
		case "panic":
			panic("on purpose")
		case "panic after":
			panic("unreachable")
		case "panicafter":
			r.Reply("T", nil)
			panic("on purpose")
		case "old":
			old = r
			r.Reply("T", nil)
		case "useold":
			broken(func() { old.Reply("T", nil) })
			r.Reply("T", nil)
		}
	}}, func(c *ServiceConfig) { c.Concurrency = 1 })
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	for _, test := range []struct{ typ, payload, err string }{
		{"reply", "a", ""}, {"fail", "", "worker: because"}, {"nil", "", "worker: worker failed without saying why"}, {"later", "later", ""},
		{"laterfail", "", "worker: worker failed without saying why"}, {"panic", "", "worker: the worker panicked"}, {"panicafter", "", ""},
		{"old", "", ""}, {"useold", "", ""},
	} {
		a := g.send(g.conn(1), test.typ, "").wait()
		if text := fmt.Sprint(a.err); a.payload != test.payload || text != test.err && (test.err != "" || a.err != nil) {
			t.Errorf("%s: %q %v, expected %q %s", test.typ, a.payload, a.err, test.payload, test.err)
		}
	}
	for _, want := range []string{"mq: Later must be called once", "mq: Request used after Worker.Process returned"} {
		if got := <-rules; !strings.HasPrefix(got, want) {
			t.Errorf("panic %q, expected %q", got, want)
		}
	}
	eventually(t, "second answers are counted, and nothing is in flight", func() bool {
		st := service.Stats()
		return st.SecondReply == 4 && st.InFlight == 0
	})
	st := service.Stats()
	if st.Requests != 9 || st.Answered != 5 || st.Failed != 4 || st.Panics != 2 || st.InFlight != 0 || st.Waiting != 0 || st.Busy != 0 {
		t.Errorf("stats %+v", st)
	}
}

// Above its limits a worker says so at once.
func TestServiceBusy(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*ServiceConfig)
		taken  int
	}{
		{"waiting", func(c *ServiceConfig) { c.Concurrency, c.MaxWaiting = 2, 3 }, 2 + 3},
		{"in flight", func(c *ServiceConfig) { c.Concurrency, c.MaxWaiting, c.MaxInFlight = 2, 100, 4 }, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := natstest.Single(t)
			open := make(chan struct{})
			service := serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
				<-open
				r.Reply("T", nil)
			}}, test.change)
			g := newGate(t, connect(t, s.URL(), unbuffered), nil)
			var list []*asked
			for i := range test.taken {
				list = append(list, g.send(g.conn(1), "x.Y", ""))
				eventually(t, "it is taken", func() bool {
					st := service.Stats()
					return st.InFlight == int64(i+1) && st.Waiting == int64(max(0, i+1-2))
				})
			}
			if a := g.send(g.conn(1), "x.Y", "").wait(); a.err == nil || a.err.Error() != "worker: "+errWorkerBusy.Error() {
				t.Errorf("one too many: %v", a.err)
			}
			close(open)
			for _, a := range list {
				a.ok()
			}
			g.send(g.conn(1), "x.Y", "").ok()
			eventually(t, "nothing is in flight", func() bool { return service.Stats().InFlight == 0 }) // counted after the answer has gone
			if st := service.Stats(); st.Busy != 1 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// Under load one worker after the other goes and comes, and every request is answered well.
func TestDrainLosesNothing(t *testing.T) {
	s := natstest.Single(t)
	w := func() *worker {
		return &worker{process: func(r *mq.Request) {
			c, typ, p := r.Later(), r.Type, string(r.Payload)
			time.AfterFunc(2*time.Millisecond, func() { c.Reply(typ+"Response", []byte(p)) })
		}}
	}
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	first := serve(t, connect(t, s.URL()), w())
	stop := make(chan struct{})
	var sent, failed atomic.Int64
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				a := g.send(g.conn(i), []string{"x.Y", "chat.A"}[k%2], fmt.Sprint(i, k)).wait()
				sent.Add(1)
				if a.err != nil || a.payload != fmt.Sprint(i, k) {
					failed.Add(1)
					t.Errorf("%v %q", a.err, a.payload)
					return
				}
			}
		})
	}
	for range 5 {
		next := serve(t, connect(t, s.URL()), w())
		eventually(t, "the next one works", func() bool { return next.Stats().Requests > 100 })
		if err := first.Drain(within(t, deadline)); err != nil {
			t.Error(err)
		}
		if st := first.Stats(); st.InFlight != 0 || st.Answered != st.Requests || st.AnswersLost != 0 {
			t.Errorf("drained: %+v", st)
		}
		first = next
	}
	close(stop)
	clients.Wait()
	t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
}

// What a worker does not answer ends a drain with its time, and the error says how much it is.
func TestDrainWaitsNoLongerThanAllowed(t *testing.T) {
	s := natstest.Single(t)
	kept := make(chan mq.Completion, 10)
	open, blocked := make(chan struct{}), make(chan struct{}, 2)
	block := func() { blocked <- struct{}{}; <-open }
	service := serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		kept <- r.Later()
		if r.Type == "x.Block" {
			block()
		}
	}, disconnected: func(mq.Disconnect, string) error { block(); return nil }}, takesEnds)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(9)}); err != nil {
		t.Fatal(err)
	}
	g.send(g.conn(2), "x.Block", "")
	<-blocked
	<-blocked
	defer close(open)
	(<-kept).Reply("T", nil) // answered, but still in Process
	g.send(g.conn(1), "x.Y", "")
	first := <-kept
	a := g.send(g.conn(1), "x.Y", "")
	second := <-kept
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error)
	go func() { drained <- service.Drain(ctx) }()
	eventually(t, "nothing more is taken", func() bool { return !service.subs[0].IsValid() })
	if err := g.send(g.conn(2), "z.Z", "").wait().err; !errors.Is(err, errNobody) {
		t.Errorf("while it drains: %v", err)
	}
	second.Reply("T", []byte("in time"))
	if a.ok(); a.payload != "in time" {
		t.Errorf("%q", a.payload)
	}
	cancel()
	if err := <-drained; err == nil || !strings.Contains(err.Error(), "1 requests are not answered") || !strings.Contains(err.Error(), "an end of a connection") || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	first.Reply("T", nil) // harms nothing
}

// A worker for some types gets those alone, and each request goes to one of a group.
func TestServiceTypes(t *testing.T) {
	s := natstest.Single(t)
	var a, b, rest atomic.Int64
	count := func(n *atomic.Int64) *worker {
		return &worker{process: func(r *mq.Request) { n.Add(1); r.Reply(r.Type+"Response", nil) }}
	}
	serve(t, connect(t, s.URL()), count(&a), func(c *ServiceConfig) { c.Types = []string{"x.A", "x.B"} })
	serve(t, connect(t, s.URL()), count(&b), func(c *ServiceConfig) { c.Types = []string{"x.A"} })
	serve(t, connect(t, s.URL()), count(&rest), func(c *ServiceConfig) { c.Types = []string{"y"} })
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	var list []*asked
	for range 100 {
		list = append(list, g.send(g.conn(1), "x.A", ""), g.send(g.conn(1), "y", ""))
	}
	for _, q := range list {
		q.ok()
	}
	if a.Load()+b.Load() != 100 || a.Load() == 0 || b.Load() == 0 || rest.Load() != 100 {
		t.Errorf("%d and %d of x.A, %d of y", a.Load(), b.Load(), rest.Load())
	}
	if err := g.send(g.conn(1), "z", "").wait().err; !errors.Is(err, errNobody) {
		t.Errorf("z: %v", err)
	}
}

// Requests without a connection, or with one that is none.
func TestServiceStrangers(t *testing.T) {
	s := natstest.Single(t)
	var said output
	serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		r.Reply("T", []byte(fmt.Sprint(r.Conn.IsZero(), r.Meta().Remote.IsValid(), len(r.Meta().Headers))))
	}}, func(c *ServiceConfig) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) })
	nc := natstest.Connect(t, []string{s.URL()})
	m, err := nc.Request("mqgate.req.x", nil, deadline)
	if err != nil || string(m.Data) != "true false 0" {
		t.Errorf("%v %q", err, m.Data)
	}
	m, err = nc.RequestMsg(&natsio.Msg{Subject: "mqgate.req.x", Header: natsio.Header{"Mqgate-Connection": {"nonsense"}}}, deadline)
	if err != nil || m.Header.Get("Mqgate-Error") == "" {
		t.Errorf("%v %+v", err, m)
	}
	for _, text := range []string{"", "soon", "9223372036854775807", fmt.Sprint(time.Now().UnixMilli())} {
		m, err = nc.RequestMsg(&natsio.Msg{Subject: "mqgate.req.x", Header: natsio.Header{"Mqgate-Deadline": {text}}}, deadline)
		if err != nil || string(m.Data) != "true false 0" {
			t.Errorf("deadline %q: %v %+v", text, err, m)
		}
	}
	m, err = nc.RequestMsg(&natsio.Msg{Subject: "mqgate.req.x", Header: natsio.Header{"Mqgate-Deadline": {"1000"}}}, deadline)
	if err != nil || !strings.Contains(m.Header.Get("Mqgate-Error"), "deadline") {
		t.Errorf("a request of 1970: %v %+v", err, m)
	}
	if got := said.String(); strings.Count(got, "long after their deadline") != 1 || !strings.Contains(got, " late=") {
		t.Errorf("logged %q", got)
	}
	if err := nc.Publish("mqgate.req.x", nil); err != nil { // nobody wants the answer
		t.Error(err)
	}
}

func TestTooLate(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	for _, test := range []struct {
		text string
		now  time.Time
		late bool
	}{
		{"1800000000000", at.Add(-time.Hour), false}, {"1800000000000", at, false}, {"1800000000000", at.Add(30 * time.Second), false},
		{"1800000000000", at.Add(30*time.Second + time.Millisecond), true}, {"1800000000000", at.Add(24 * time.Hour), true},
		{"", at, false}, {"x", at, false}, {"99999999999999999999", at, false}, {"-1", at, true},
		{"9223372036854775807", at, false}, {"-9223372036854775808", at, true},
	} {
		if got := lateness(test.text, test.now) > lateBy; got != test.late {
			t.Errorf("%q at %v: %v, expected %v", test.text, test.now, got, test.late)
		}
	}
}

// An answer that is given while the worker's NATS connection is away is sent when it is back.
func TestAnswerWhileAway(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	c := connect(t, p.URL())
	kept := make(chan mq.Completion, 1)
	service := serve(t, c, &worker{process: func(r *mq.Request) { kept <- r.Later() }})
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	a := g.send(g.conn(1), "x.Y", "")
	k := <-kept
	p.Cut()
	eventually(t, "it is noticed", func() bool { return c.Away() > 0 && !c.NATS().IsConnected() })
	k.Reply("T", []byte("from afar"))
	p.Heal()
	if a.ok(); a.payload != "from afar" {
		t.Errorf("%q", a.payload)
	}
	if st := service.Stats(); st.AnswersLost != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestServiceConfig(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL())
	_, err := NewService(ServiceConfig{Concurrency: -1, Types: []string{"a..b"}, Group: "a.b"})
	for _, want := range []string{"needs a Conn and a Worker", "expected above 0", `"a..b"`, `"a.b"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: expected it to say %s", err, want)
		}
	}
	if _, err := NewService(ServiceConfig{Conn: c, Worker: &worker{}, Group: "a-b", Types: []string{"a.b"}}); err != nil {
		t.Error(err)
	}
}
