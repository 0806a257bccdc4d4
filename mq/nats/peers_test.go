package nats

import (
	"errors"
	"testing"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// Requests that are over while they wait are passed over, and finished without a turn.
func TestTurns(t *testing.T) {
	p := newPeers()
	var a, b, c flight
	if !p.enter(&a) || p.enter(&b) || p.enter(&c) {
		t.Fatal("not one after the other")
	}
	b.done.Store(true)
	if next, e := p.leave(&b); next != nil || e != nil {
		t.Error("one that waits gives its turn away")
	}
	if next, _ := p.leave(&a); next != &c {
		t.Errorf("next is %p, expected the third, %p", next, &c)
	}
	if e := p.finish(mq.Disconnect{Code: 7}); e != nil {
		t.Error("the end overtakes")
	}
	if next, e := p.leave(&c); next != nil || e == nil || e.Code != 7 {
		t.Errorf("after the last one: %v %v", next, e)
	}
}

// The queue of a link is bounded for whatever comes: then the next ordered request fails, and those behind it.
func TestFullQueue(t *testing.T) {
	s := natstest.Single(t)
	g := &gate{t: t, asked: make(map[uint64]*asked)}
	x, err := NewRelay(RelayConfig{Conn: connect(t, s.URL()), RequestTimeout: requestTimeout}) // not started: nothing leaves the queue
	if err != nil {
		t.Fatal(err)
	}
	var chain []*flight
	for i := range uint64(3) {
		g.asked[i] = &asked{g: g, id: i, done: make(chan struct{})}
		f := &flight{link: x.c.links[0], ordered: true, completion: mq.NewCompletion(g, i)}
		x.flights.add(f)
		x.peers.enter(f)
		chain = append(chain, f)
	}
	for i := range maxQueued {
		if !x.senders[0].push(&flight{}) {
			t.Fatalf("full after %d", i)
		}
	}
	if x.senders[0].push(&flight{}) || x.senders[0].pushAnswer(&natsio.Msg{}) || !x.senders[0].full() {
		t.Error("one too many was taken")
	}
	x.flights.take(chain[0].token)
	x.finish(chain[0])
	for i := uint64(1); i < 3; i++ {
		if a := g.asked[i]; !a.answered() || !errors.Is(a.err, errQueue) {
			t.Errorf("%d: %v, expected %v", i, a.err, errQueue)
		}
	}
	if n := len(peersOf(x)); n != 0 || x.flights.count.Load() != 0 {
		t.Errorf("%d connections and %d flights are left", n, x.flights.count.Load())
	}
}
