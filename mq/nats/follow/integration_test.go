package follow

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// after calls the steps one after the other with a pause between them, on another goroutine, and closes the channel when
// the last pause is over.
func after(pause time.Duration, steps ...func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		<-tick.C
		for _, step := range steps {
			step()
			<-tick.C
		}
	}()
	return done
}

// Subscribers come and go under load while the gateway's connection is cut again and again: everyone gets everything once.
func TestCutConnection(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	gateway := natstest.Connect(t, []string{p.URL()})
	direct := natstest.Connect(t, []string{s.URL()})
	a := newArena(t, natstest.Connect(t, []string{s.URL()}), []*nats.Conn{gateway, direct}, 1, 20,
		Config{Linger: 50 * time.Millisecond, CheckEvery: time.Second, Log: testLog(t)})
	a.load(4, after(500*time.Millisecond, p.Cut, p.Heal, p.Cut, p.Heal))
	if s := a.f.Stats(); s.Gaps == 0 || s.Filled == 0 {
		t.Errorf("nothing was missing: %+v", s)
	}
}

// The same while the nodes of a cluster are killed and stopped, with the leader of the stream first.
func TestClusterChanges(t *testing.T) {
	c := natstest.StartCluster(t, 3)
	gateway := natstest.Connect(t, c.URLs(), nats.DontRandomize())
	workers := natstest.Connect(t, []string{c.URLs()[2], c.URLs()[1], c.URLs()[0]}, nats.DontRandomize())
	a := newArena(t, workers, []*nats.Conn{gateway}, 3, 20, Config{Linger: 50 * time.Millisecond, CheckEvery: 2 * time.Second, Log: testLog(t)})
	var killed int
	a.load(4, after(3*time.Second,
		func() { killed = c.LeaderOf(workers, a.names.RoomsStream()); c.Kill(killed) },
		func() { c.Restart(killed) },
		func() {},
		func() { killed = c.LeaderOf(workers, a.names.RoomsStream()); c.Pause(killed) },
		func() {},
		func() { c.Resume(killed) },
		func() { // the node that the gateway is connected to
			killed = slices.Index(c.URLs(), gateway.ConnectedUrl())
			c.Kill(killed)
		},
		func() { c.Restart(killed) },
	))
}
