package nats

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Limits that no other test takes to the edge: below, at and above. The others: maxQueued in TestFullQueue, maxFlightBytes
// in TestMaxFlightBytes, maxClientSession in TestClientSessionLength, maxUnpublished in TestTooManyEnds, maxCalls in
// TestMaxCalls, checkBatch in TestCheckBindings, leases in TestRelayConfig, MaxLinks in TestOptionsValidate.

// slowCrowd is mq.Clients of a gateway in which the first event to a connection waits.
type slowCrowd struct {
	nobody
	hold   chan struct{}
	events atomic.Int64
}

func (c *slowCrowd) SendEvent(_ conn.ID, _ string, _ []byte, done func(error)) {
	if c.events.Add(1) == 1 {
		<-c.hold
	}
	done(nil)
}

// flushAll waits until everything that a has published has come to b's process.
func flushAll(t *testing.T, a, b *natsio.Conn) {
	t.Helper()
	for _, nc := range []*natsio.Conn{a, b} {
		if err := nc.FlushWithContext(within(t, deadline)); err != nil {
			t.Fatal(err)
		}
	}
}

// What comes to a gateway waits while it is busy with something else, maxInbox messages; one more is lost and counted.
func TestRelayInbox(t *testing.T) {
	s := natstest.Single(t)
	far := &slowCrowd{hold: make(chan struct{})}
	gateway, worker := connect(t, s.URL(), unbuffered), connect(t, s.URL())
	g := newGate(t, gateway, far)
	release := sync.OnceFunc(func() { close(far.hold) })
	t.Cleanup(release) // before the gate is closed
	m := &natsio.Msg{Subject: worker.Names().Gateway(g.issuer.Node(), subjects.CommandEvent),
		Header: natsio.Header{subjects.HeaderConnection: {g.conn(1).String()}, subjects.HeaderType: {"x.E"}}}
	send := func(n int) {
		t.Helper()
		for range n {
			if err := worker.NATS().PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		flushAll(t, worker.NATS(), gateway.NATS())
	}
	send(1)
	eventually(t, "the gateway is busy", func() bool { return far.events.Load() == 1 })
	send(maxInbox - 1)
	send(1)
	if n := gateway.Stats().Slow; n != 0 {
		t.Errorf("%d times something was lost at the limit", n)
	}
	send(1)
	eventually(t, "one too many is lost and counted", func() bool { return gateway.Stats().Slow == 1 })
	release()
	eventually(t, "the others are handled", func() bool { return far.events.Load() == 1+maxInbox })
	send(1)
	eventually(t, "and what comes then", func() bool { return far.events.Load() == 2+maxInbox })
	if n := g.x.Stats().Commands; n != 2+maxInbox {
		t.Errorf("%d commands", n)
	}
}

// The same for the answers that come to a worker; who waits for the one that is lost is told when the time is over.
func TestClientsInbox(t *testing.T) {
	s := natstest.Single(t)
	gateway, workers := connect(t, s.URL(), unbuffered), connect(t, s.URL())
	g := newGate(t, gateway, &crowd{})
	x, err := NewClients(workers)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.timeout = time.Hour
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release() // before x is closed
	var answers, late atomic.Int64
	id := g.conn(0)
	send := func(n int) {
		t.Helper()
		want := g.x.Stats().Commands + uint64(n)
		for range n {
			x.SendEvent(id, "x.E", nil, func(err error) {
				switch {
				case errors.Is(err, errClientsClosed):
					late.Add(1)
				case err != nil:
					t.Error(err)
				case answers.Add(1) == 1:
					<-hold
				}
			})
		}
		eventually(t, "the gateway has answered", func() bool {
			q := g.x.senders[0]
			q.mu.Lock()
			defer q.mu.Unlock()
			return g.x.Stats().Commands == want && len(q.queue) == 0
		})
		// The sender may have the last ones in its hands, to be written: what is queued behind them is written after them.
		last := make(chan struct{})
		sub, err := workers.NATS().Subscribe(fmt.Sprint("last.", want), func(*natsio.Msg) { close(last) })
		if err != nil {
			t.Fatal(err)
		}
		flushAll(t, workers.NATS(), workers.NATS())
		if !g.x.senders[0].pushAnswer(&natsio.Msg{Subject: sub.Subject}) {
			t.Fatal("the queue of the gateway is full")
		}
		<-last
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
	send(1)
	eventually(t, "the worker is busy", func() bool { return answers.Load() == 1 })
	send(maxInbox - 1)
	send(1)
	if n := workers.Stats().Slow; n != 0 {
		t.Errorf("%d times something was lost at the limit", n)
	}
	send(1)
	eventually(t, "one too many is lost and counted", func() bool { return workers.Stats().Slow == 1 })
	release()
	eventually(t, "the others are told", func() bool { return answers.Load() == 1+maxInbox })
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if n := late.Load(); n != 1 {
		t.Errorf("%d wait for an answer at the end, expected one", n)
	}
}

// Ends are published in batches; what does not fit into one is in the next.
func TestEndsBatch(t *testing.T) {
	s := natstest.Single(t)
	for _, test := range []struct{ n, left int }{{1, 0}, {endsBatch - 1, 0}, {endsBatch, 0}, {endsBatch + 1, 1}, {2*endsBatch + 1, endsBatch + 1}} {
		c := connect(t, s.URL(), func(o *Options) { o.Prefix = fmt.Sprint("n", test.n) })
		x, err := NewRelay(RelayConfig{Conn: c, RequestTimeout: requestTimeout}) // not started: nobody else publishes
		if err != nil {
			t.Fatal(err)
		}
		if err := EnsureDisconnected(within(t, deadline), c, 1); err != nil {
			t.Fatal(err)
		}
		if x.ends.js, err = c.JetStream(); err != nil {
			t.Fatal(err)
		}
		is := conn.NewIssuer()
		for i := range test.n {
			if err := x.Disconnected(mq.Disconnect{Conn: is.Make(0, uint32(i), 1)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.ends.publish(); err != nil {
			t.Fatal(err)
		}
		if st := x.Stats(); x.ends.len() != test.left || st.Unpublished != int64(test.left) || st.Published != uint64(test.n-test.left) {
			t.Errorf("%d ends: %d left in the queue, %+v", test.n, x.ends.len(), st)
		}
	}
}

// While a worker has as many ends as it may have taken, those that it wants to be told again later included, it gets no
// further one. The limit is a million in truth, and three here.
func TestMaxTaken(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	g := newGate(t, c, nil)
	w := newTaker()
	var take atomic.Bool
	told := w.disconnected
	w.disconnected = func(d mq.Disconnect, session string) error {
		if err := told(d, session); err != nil || take.Load() {
			return err
		}
		return later(10 * time.Millisecond)
	}
	service := serve(t, connect(t, s.URL()), w, takesEnds)
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	stream := c.Names().DisconnectedStream()
	cons, err := js.Consumer(t.Context(), stream, subjects.Workers)
	if err != nil {
		t.Fatal(err)
	}
	cfg := cons.CachedInfo().Config
	if cfg.MaxAckPending != maxTaken || cfg.AckWait != takeWait || cfg.MaxDeliver != -1 {
		t.Errorf("%+v", cfg)
	}
	const most = 3
	cfg.MaxAckPending = most
	if _, err := js.UpdateConsumer(t.Context(), stream, cfg); err != nil {
		t.Fatal(err)
	}
	end := func(i int) {
		t.Helper()
		if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(i), Code: 1006}); err != nil {
			t.Fatal(err)
		}
	}
	// toldAgain waits until each of the first n has been told as often as that.
	toldAgain := func(n, times int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d are told again and again", n), func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			for i := range n {
				if w.taken[g.conn(i).String()] < times {
					return false
				}
			}
			return true
		})
	}
	for i := range most - 1 {
		end(i)
	}
	toldAgain(most-1, 2)
	end(most - 1)
	toldAgain(most, 2)
	end(most)
	eventually(t, "one waits with the server", func() bool {
		info, err := cons.Info(t.Context())
		return err == nil && info.NumPending == 1 && info.NumAckPending == most
	})
	toldAgain(most, 6)
	if n := w.count(); n != most {
		t.Errorf("%d are with the worker, expected %d", n, most)
	}
	take.Store(true)
	eventually(t, "all are taken", func() bool { return service.Stats().Ends == most+1 })
	if n := w.count(); n != most+1 {
		t.Errorf("%d", n)
	}
}
