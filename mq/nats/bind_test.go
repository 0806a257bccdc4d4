package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// binder is a worker that binds the session in the payload of pcast requests and answers others with the bound one.
func binder(lines *recorder) *worker {
	return &worker{
		process: func(r *mq.Request) {
			c, typ := r.Later(), r.Type
			if session, bind := strings.CutPrefix(string(r.Payload), "bind "); bind {
				c.ReplyNoted(typ+"Response", nil, mq.Note{Bind: true, Session: session})
				return
			}
			c.Reply(typ+"Response", []byte(r.Bound))
		},
		disconnected: func(d mq.Disconnect, session string) error {
			lines.add("end %d session %q", d.Conn.Slot(), session)
			return nil
		},
	}
}

// A session that an answer binds goes with all later requests of the connection, and with its end.
func TestBind(t *testing.T) {
	s := natstest.Single(t)
	var lines recorder
	serve(t, connect(t, s.URL()), binder(&lines), takesEnds)
	near := &nobody{}
	g := newGate(t, connect(t, s.URL(), unbuffered), near)
	bound := func(slot int, typ string) string { return g.send(g.conn(slot), typ, "").ok().payload }

	// Pipelined as clients do it: the second request has the session already.
	g.send(g.conn(1), "pcast.Authenticate", "bind S1")
	if got := bound(1, "chat.A"); got != "S1" {
		t.Errorf("next ordered request: %q", got)
	}
	if got := bound(1, "x.Y"); got != "S1" {
		t.Errorf("next request: %q", got)
	}
	if got := bound(2, "x.Y"); got != "" {
		t.Errorf("another connection: %q", got)
	}
	g.send(g.conn(1), "pcast.Authenticate", "bind S1").ok()
	if got := near.calls.all(); len(got) != 0 {
		t.Errorf("the same session again: %q", got)
	}
	g.send(g.conn(1), "pcast.Authenticate", "bind S2").ok()
	if got := near.calls.all(); !slices.Equal(got, []string{"unsubscribe all " + g.conn(1).String()}) {
		t.Errorf("another session: %q", got)
	}
	if got := bound(1, "chat.A"); got != "S2" {
		t.Errorf("another session: %q", got)
	}
	g.send(g.conn(2), "pcast.Authenticate", "bind S3").ok()
	g.send(g.conn(2), "pcast.Bye", "bind ").ok()
	if got := bound(2, "chat.A"); got != "" {
		t.Errorf("after Bye: %q", got)
	}
	eventually(t, "only one connection is known", func() bool { return slices.Equal(peersOf(g.x), []string{g.conn(1).String()}) })
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(1)}); err != nil {
		t.Error(err)
	}
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(2)}); err != nil {
		t.Error(err)
	}
	// The connection ends while its session is on the way.
	g.send(g.conn(3), "pcast.Authenticate", "bind S4")
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(3)}); err != nil {
		t.Error(err)
	}
	eventually(t, "all ends are told", func() bool { return len(lines.all()) == 3 })
	got := lines.all()
	slices.Sort(got)
	if want := []string{`end 1 session "S2"`, `end 2 session ""`, `end 3 session "S4"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
	if got := peersOf(g.x); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	// An answer to what is not ordered binds nothing.
	g.send(g.conn(4), "x.Y", "bind S5").ok()
	if got := bound(4, "x.Y"); got != "" || g.x.Stats().BadBinds != 1 {
		t.Errorf("%q %+v", got, g.x.Stats())
	}
}

// A worker takes a session away from a connection, if it still has it.
func TestBindCommand(t *testing.T) {
	s := natstest.Single(t)
	var lines recorder
	serve(t, connect(t, s.URL()), binder(&lines))
	near := &nobody{}
	g := newGate(t, connect(t, s.URL(), unbuffered), near)
	x, err := NewClients(connect(t, s.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	bind := func(id conn.ID, old, session string) error {
		got := make(chan error)
		x.Bind(id, old, session, func(err error) { got <- err })
		return <-got
	}
	g.send(g.conn(1), "pcast.Authenticate", "bind S1").ok()
	for _, test := range []struct{ old, session, after string }{
		{"S0", "", "S1"}, {"", "S2", "S1"}, {"S1", "S1", "S1"}, {"S1", "S2", "S2"}, {"S2", "", ""}, {"S2", "", ""},
	} {
		if err := bind(g.conn(1), test.old, test.session); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		if got := g.send(g.conn(1), "x.Y", "").ok().payload; got != test.after {
			t.Errorf("%+v: bound to %q", test, got)
		}
	}
	if got := peersOf(g.x); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if got := near.calls.all(); len(got) != 2 {
		t.Errorf("subscriptions ended: %q, expected twice", got)
	}
	if err := bind(conn.NewIssuer().Make(0, 1, 1), "S", ""); err != mq.ErrNotFound {
		t.Errorf("no such gateway: %v", err)
	}
}

// The lease is there while the gateway is, goes with it, and is over by itself when the gateway says nothing more.
func TestLease(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	c := connect(t, s.URL())
	g := newGate(t, connect(t, p.URL(), unbuffered), nil, func(c *RelayConfig) { c.Lease = 2 * time.Second })
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "mqgate_gateways")
	if err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, err := kv.Get(t.Context(), g.x.node)
		if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !there() {
		t.Error("not there after Start")
	}
	eventually(t, "it was renewed for longer than it lasts", func() bool { return g.x.Stats().LeaseRenewed > 5 })
	if !there() {
		t.Error("not there while it is renewed")
	}
	p.Cut()
	eventually(t, "it is over", func() bool { return !there() })
	if g.x.Stats().LeaseFailed == 0 {
		t.Error("no failure counted")
	}
	p.Heal()
	eventually(t, "it is there again", there)
	if err := g.x.Close(within(t, deadline)); err != nil {
		t.Error(err)
	}
	if there() {
		t.Error("there after Close")
	}
}

// After NATS was away the gateway asks which sessions hold, in batches, and ends what connections of others had.
func TestCheckBindings(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	near := &nobody{}
	g := newGate(t, connect(t, p.URL(), unbuffered), near, func(c *RelayConfig) { c.Lease = 3 * time.Second })
	const n = checkBatch*2 + 1
	for i := range n {
		if !g.x.peers.enter(&flight{conn: g.conn(i)}) {
			t.Fatal("busy")
		}
		g.x.peers.bind(g.conn(i), fmt.Sprint("S", i), func(string) bool { return true })
	}
	var mu sync.Mutex
	asked, calls := map[Binding]int{}, 0
	var batches []int
	gone := Binding{g.conn(7), "S7"}
	p.Cut()
	eventually(t, "it is noticed", func() bool { return g.x.c.Away() > 0 })
	p.Heal()
	// At first nobody is there, then who is there does not know about the second batch: it is not begun anew.
	eventually(t, "the lease is renewed", func() bool { return g.x.Stats().LeaseRenewed >= 2 && g.x.c.Away() == 0 })
	service := serve(t, connect(t, s.URL()), &worker{process: echo}, func(c *ServiceConfig) {
		c.CheckBindings = func(_ context.Context, list []Binding) ([]Binding, error) {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == 2 {
				return nil, errors.New("not ready")
			}
			batches = append(batches, len(list))
			var answer []Binding
			for _, b := range list {
				asked[b]++
				if b == gone {
					answer = append(answer, b, Binding{g.conn(8), "another"}) // the second one is not what is bound
				}
			}
			return answer, nil
		}
	})
	eventually(t, "all are asked about", func() bool { mu.Lock(); defer mu.Unlock(); return len(asked) == n })
	eventually(t, "one is ended", func() bool { return len(near.calls.all()) >= 2 })
	id := gone.Conn.String()
	if got, want := near.calls.all(), []string{"unsubscribe all " + id, "close " + id + " 1012 session is gone"}; !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
	if g.x.peers.session(gone.Conn) != "" || g.x.peers.session(g.conn(8)) != "S8" || g.x.Stats().Unbound != 1 {
		t.Error("not the right one is unbound")
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(batches, []int{checkBatch, checkBatch, 1}) {
		t.Errorf("batches of %v", batches)
	}
	for b, times := range asked {
		if times != 1 {
			t.Errorf("asked about %v %d times", b, times)
		}
	}
	if st := service.Stats(); st.AnswersLost != 0 {
		t.Errorf("%+v", st)
	}
}

func TestBindingLines(t *testing.T) {
	id := conn.NewIssuer().Make(1, 2, 3)
	list := []Binding{{id, "S1"}, {id, "a session with spaces"}}
	got, err := parseBindings(appendBindings(nil, list))
	if err != nil || !slices.Equal(got, list) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"x S\n", id.String() + "\n", id.String() + " \n", "\n"} {
		if got, err := parseBindings([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	if got, err := parseBindings(nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v %v", got, err)
	}
}
