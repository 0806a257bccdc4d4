package nats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// A network that drops everything loses no connection: nobody tells the gateway that its lease was over meanwhile. It asks
// all the same which sessions still hold: the workers have given them up, and would end them when their grace is over.
func TestLapse(t *testing.T) {
	s := natstest.Single(t)
	p := newStaller(t, s.URL())
	c := connect(t, s.URL())
	near := &nobody{}
	g := newGate(t, connect(t, p.url(), unbuffered), near, func(c *RelayConfig) { c.Lease = 2 * time.Second })
	bound := Binding{g.conn(1), "S"}
	if !g.x.peers.enter(&flight{conn: bound.Conn}) {
		t.Fatal("busy")
	}
	g.x.peers.bind(bound.Conn, bound.Session, func(string) bool { return true })
	asked := make(chan []Binding, 100)
	serve(t, c, &worker{process: echo}, func(c *ServiceConfig) {
		c.CheckBindings = func(_ context.Context, list []Binding) ([]Binding, error) {
			asked <- list
			return list, nil
		}
	})
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "mqgate_gateways")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease is renewed", func() bool { return g.x.Stats().LeaseRenewed > 2 })
	if len(asked) > 0 {
		t.Error("asked while the lease holds")
	}
	p.set(true)
	eventually(t, "the lease is over", func() bool {
		_, err := kv.Get(t.Context(), g.x.node)
		return errors.Is(err, jetstream.ErrKeyNotFound)
	})
	p.set(false)
	select {
	case list := <-asked:
		if len(list) != 1 || list[0] != bound {
			t.Errorf("asked about %v", list)
		}
	case <-time.After(deadline):
		t.Fatal("nobody was asked which sessions hold")
	}
	if n := g.x.c.links[0].reconnects.Load(); n > 0 {
		t.Errorf("%d reconnects, the test wants none", n)
	}
	id := bound.Conn.String()
	eventually(t, "what is gone is ended", func() bool { return len(near.calls.all()) == 2 })
	if got, want := fmt.Sprint(near.calls.all()), fmt.Sprintf("[unsubscribe all %s close %s 1012 session is gone]", id, id); got != want {
		t.Errorf("%s, expected %s", got, want)
	}
}

// Workers that take longer than the lease lasts to say which sessions hold do not let it run out: it is renewed meanwhile.
func TestSlowCheck(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL())
	g := newGate(t, connect(t, s.URL(), unbuffered), nil, func(c *RelayConfig) { c.Lease = 2 * time.Second })
	if !g.x.peers.enter(&flight{conn: g.conn(1)}) {
		t.Fatal("busy")
	}
	g.x.peers.bind(g.conn(1), "S", func(string) bool { return true })
	renewed := make(chan bool, 100)
	serve(t, c, &worker{process: echo}, func(c *ServiceConfig) {
		c.CheckBindings = func(ctx context.Context, list []Binding) ([]Binding, error) {
			before := g.x.Stats().LeaseRenewed
			for g.x.Stats().LeaseRenewed < before+2 {
				select {
				case <-ctx.Done():
					renewed <- false
					return nil, ctx.Err()
				case <-time.After(time.Millisecond):
				}
			}
			renewed <- true
			return nil, nil
		}
	})
	g.x.linkBack(g.x.c.links[0])
	for end := time.After(deadline); ; {
		select {
		case ok := <-renewed:
			if ok {
				return
			}
		case <-end:
			t.Fatal("the lease is not renewed while the gateway waits for the answer")
		}
	}
}
