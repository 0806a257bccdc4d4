package roomstore_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// A gateway that has ended is not listed at each sweep: not while nothing is left of it, nor while only closed places are.
// A session that is there all the same later is found at once.
func TestSweepOfNothing(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	lists := 0
	hold := holder(func(subject string, do func() error) error {
		if strings.HasPrefix(subject, "$JS.API.CONSUMER.CREATE.") {
			lists++
		}
		return do()
	})
	node := subjects.NodeToken(s.is.Node())
	sweep := func(what string, want int) {
		t.Helper()
		w.hold.Store(&hold)
		defer w.hold.Store(nil)
		lists = 0
		for range 3 {
			if err := w.e.SweepGateway(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
		if lists != want {
			t.Errorf("%s: listed %d times in 3 sweeps, expected %d", what, lists, want)
		}
	}
	sweep("nothing", 0)
	ended := s.login()
	if err := s.end(w, ended.id, 1000, ""); err != nil {
		t.Fatal(err)
	}
	sweep("a closed place", 1)
	sweep("a closed place, again", 0)
	c := s.login()
	sweep("a session", 3)
	if s.connected(c.session) || w.e.Stats().LostGates != 1 {
		t.Errorf("the session is not lost: %+v", w.e.Stats())
	}
	if err := s.end(w, c.id, 1000, ""); err != nil {
		t.Fatal(err)
	}
	sweep("two closed places", 1)
	s.clear("KV_" + s.names.ConnsBucket())
	sweep("nothing any more", 0)
}

// When messages are missing from a listing, because NATS is slow or has lost them, the sweep fails instead of leaving
// sessions out.
func TestShortListing(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	var clients []*client
	for range 300 { // more than come in a batch
		clients = append(clients, s.login())
	}
	node := subjects.NodeToken(s.is.Node())
	for _, test := range []struct {
		name string
		what func(n int, batch []jetstream.Msg) []jetstream.Msg // n: of batches before
	}{
		{"nothing comes", func(int, []jetstream.Msg) []jetstream.Msg { return nil }},
		{"only the first batch comes", func(n int, batch []jetstream.Msg) []jetstream.Msg {
			if n > 0 {
				return nil
			}
			return batch
		}},
		{"half a batch comes", func(n int, batch []jetstream.Msg) []jetstream.Msg {
			if n == 0 {
				return batch[:len(batch)/2]
			}
			return batch
		}},
		{"the end does not come", func(n int, batch []jetstream.Msg) []jetstream.Msg {
			if n > 0 {
				return batch[:len(batch)/2]
			}
			return batch
		}},
	} {
		n := 0
		w.e.Fetched(func(batch []jetstream.Msg) []jetstream.Msg {
			batch = test.what(n, batch)
			n++
			return batch
		})
		if err := w.e.SweepGateway(t.Context(), node); err == nil || !strings.Contains(err.Error(), "not all keys") {
			t.Errorf("%s: %v, lost %d", test.name, err, w.e.Stats().LostGates)
		}
	}
	w.e.Fetched(nil)
	if err := w.e.SweepGateway(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if n := w.e.Stats().LostGates; n != int64(len(clients)) {
		t.Errorf("%d sessions are lost, expected %d", n, len(clients))
	}
}

// Who asks whether a session that was given up still holds takes no other one away from the connection.
func TestHoldsLeavesOthers(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	c := s.login()
	if err := w.e.SweepGateway(t.Context(), subjects.NodeToken(s.is.Node())); err != nil {
		t.Fatal(err)
	}
	kv, err := s.js.KeyValue(t.Context(), s.names.ConnsBucket())
	if err == nil {
		err = kv.Delete(t.Context(), subjects.NodeToken(c.id.Node())+"."+c.id.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	first := c.session
	s.mu.Lock()
	delete(s.bound, c.id)
	s.mu.Unlock()
	s.must("again", c.auth(""), wire.StatusOK)
	if ok, err := w.e.Holds(t.Context(), c.id, first); ok || err != nil {
		t.Errorf("the first session holds: %v, %v", ok, err)
	}
	if ok, err := w.e.Holds(t.Context(), c.id, c.session); !ok || err != nil || !s.connected(c.session) {
		t.Errorf("the second session holds: %v, %v", ok, err)
	}
}
