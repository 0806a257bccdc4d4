package roomstore_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// lease writes or takes away the lease of the gateway of all clients.
func (s *system) lease(there bool) {
	kv, err := s.js.KeyValue(s.t.Context(), s.names.GatewaysBucket())
	if err == nil {
		key := subjects.NodeToken(s.is.Node())
		if there {
			_, err = kv.Put(s.t.Context(), key, []byte("x"))
		} else {
			err = kv.Delete(s.t.Context(), key)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) sweep() {
	s.t.Helper()
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Go(func() {
			if err := w.e.SweepGateways(s.t.Context()); err != nil {
				s.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// The sessions of a gateway without a lease are lost connections: nobody hears of it while the grace runs, then they
// leave. Several workers sweep at once, and again. A gateway that was only away keeps what it asks about.
func TestLease(t *testing.T) {
	cfg := rooms.DefaultConfig()
	s := newSystem(t, cfg)
	s.start()
	s.start()
	s.lease(true)
	a, b, c := s.login(), s.login(), s.login()
	s.must("create", a.create("r"), wire.StatusOK)
	for _, x := range []*client{a, b, c} {
		s.must("join", x.join("r"), wire.StatusOK)
	}
	s.sweep()
	lost := func() (n int64) {
		for _, w := range s.workers {
			n += w.e.Stats().LostGates
		}
		return n
	}
	if n := lost(); n != 0 {
		t.Errorf("%d sessions of a gateway that is there are lost", n)
	}
	s.lease(false)
	s.sweep()
	s.sweep()
	if n := lost(); n < 3 { // two workers may both have lost the same one
		t.Errorf("%d sessions are lost", n)
	}
	e := s.workers[0].e
	holds := func(c *client, session string, want bool) {
		t.Helper()
		ok, err := e.Holds(t.Context(), c.id, session)
		if err != nil || ok != want {
			t.Errorf("holds %v, %v, want %v", ok, err, want)
		}
	}
	holds(a, a.session, true)
	holds(a, a.session, true)
	holds(a, b.session, false)
	holds(b, "AAAA", false)
	heir := s.dial()
	s.must("taken over in the grace", heir.auth(b.session), wire.StatusOK)
	if heir.session != b.session {
		t.Error("not taken over")
	}
	s.must("reenter", heir.join("r"), wire.StatusOK)
	if members, _ := a.members("r"); len(members) != 3 {
		t.Errorf("members %v while the grace runs", members)
	}
	s.now.Add(int64(cfg.ReenterGrace))
	want := []string{a.session, b.session}
	slices.Sort(want)
	s.await("the lost one has left", func() bool {
		members, _ := a.members("r")
		return slices.Equal(members, want)
	})
	holds(c, c.session, false)
	holds(b, b.session, false)                    // it is the heir's
	s.await("its session has gone", func() bool { // after its rooms
		n, err := e.Sessions()
		return n == 2 && err == nil
	})
}

// A session whose worker died before it could say so ends with its connection, or with the next one that it gets.
func TestUnknownSession(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	sessions := func() int {
		n, err := w.e.Sessions()
		if err != nil {
			t.Error(err)
		}
		return n
	}
	c := s.login()
	s.mu.Lock()
	delete(s.bound, c.id) // as if the answer had not come
	s.mu.Unlock()
	first := c.session
	s.must("again", c.auth(""), wire.StatusOK)
	if c.session == first || sessions() != 1 {
		t.Errorf("%d sessions", sessions())
	}
	s.mu.Lock()
	delete(s.bound, c.id)
	s.mu.Unlock()
	c.lose(1000)
	s.await("the session has ended", func() bool { return sessions() == 0 })
}

// A timer of another epoch than the session's ends nothing: the session has changed hands since it was set.
func TestOldTimer(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	c := s.login()
	c.lose(1006)
	s.await("the grace is running, and the end was handled", func() bool {
		st, err := s.js.Stream(t.Context(), roomstore.TimersStream(s.names))
		if err != nil || st.CachedInfo().State.Msgs != 1 {
			return false
		}
		has, err := w.e.HasConn(t.Context(), c.id)
		return err == nil && !has
	})
	body := `{"session":"` + c.session + `","epoch":7,"due":1}`
	if _, err := s.js.Publish(t.Context(), s.names.Prefix()+".timer.grace."+c.session, []byte(body)); err != nil {
		t.Fatal(err)
	}
	s.await("the timer was looked at", func() bool {
		st, err := s.js.Stream(t.Context(), roomstore.TimersStream(s.names))
		return err == nil && st.CachedInfo().State.Msgs == 0 && w.e.Stats().Timers > 0
	})
	all, err := w.e.All(t.Context())
	if v := all[c.session]; err != nil || v == nil || v.Ended {
		t.Errorf("%+v, %v", v, err)
	}
	if ok, err := w.e.Holds(t.Context(), c.id, c.session); ok || err != nil {
		t.Errorf("a connection that has ended has a session: %v, %v", ok, err)
	}
}
