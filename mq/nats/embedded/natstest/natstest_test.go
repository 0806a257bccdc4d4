package natstest_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.signal_recv"))
}

// A stream with three replicas outlives the node that leads it, and the node comes back.
func TestCluster(t *testing.T) {
	c := natstest.StartCluster(t, 3)
	nc := natstest.Connect(t, c.URLs())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	publish := func(id string) {
		t.Helper()
		natstest.Eventually(t, "message "+id+" is stored", func() bool {
			_, err := js.Publish(ctx, "s", []byte(id), jetstream.WithMsgID(id))
			return err == nil
		})
	}
	publish("1")
	killed := c.LeaderOf(nc, "s")
	c.Kill(killed)
	c.Kill(killed) // again is nothing
	publish("2")
	if now := c.LeaderOf(nc, "s"); now == killed {
		t.Fatal("a node that was killed leads")
	}
	c.Restart(killed)
	s, err := js.Stream(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "every replica is current", func() bool {
		info, err := s.Info(ctx)
		return err == nil && info.Cluster != nil && len(info.Cluster.Replicas) == 2 &&
			!slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline })
	})
	info, err := s.Info(ctx)
	if err != nil || info.State.Msgs != 2 {
		t.Errorf("%+v, %v", info, err)
	}
	led := c.LeaderOf(nc, "s")
	c.Pause(led)
	publish("3")
	c.Resume(led)
}

// A proxy cuts and heals.
func TestProxy(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	gone := make(chan struct{}, 10)
	back := make(chan struct{}, 10)
	nc := natstest.Connect(t, []string{p.URL()}, nats.DisconnectErrHandler(func(*nats.Conn, error) { gone <- struct{}{} }),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	<-gone
	if _, err := nats.Connect(p.URL()); err == nil || errors.Is(err, nats.ErrTimeout) {
		t.Errorf("a proxy that is cut takes connections: %v", err)
	}
	p.Heal()
	<-back
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}
