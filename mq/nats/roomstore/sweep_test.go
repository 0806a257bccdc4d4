package roomstore_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// connected reports whether a session is not given up, as it is stored.
func (s *system) connected(session string) bool {
	s.t.Helper()
	kv, err := s.js.KeyValue(s.t.Context(), s.names.SessionsBucket())
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := kv.Get(s.t.Context(), session)
	if err != nil {
		s.t.Fatal(err)
	}
	var stored struct{ Connected bool }
	if err := json.Unmarshal(e.Value(), &stored); err != nil {
		s.t.Fatal(err)
	}
	return stored.Connected
}

// A sweep that has looked at the lease before the gateway renewed it, and gives the sessions up only after the gateway has
// asked whether they hold, sees that it has come back: nobody is lost, though nobody asks again.
func TestLeaseBackDuringSweep(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	e := w.e
	var clients []*client
	for i := range 70 { // more than are given up at a time
		c := s.login()
		if i == 0 {
			s.must("create", c.create("r"), wire.StatusOK)
		}
		s.must("join", c.join("r"), wire.StatusOK)
		clients = append(clients, c)
	}
	count := func() (n int) {
		for _, c := range clients {
			if s.connected(c.session) {
				n++
			}
		}
		return n
	}
	s.lease(true)
	if err := e.SweepGateway(t.Context(), subjects.NodeToken(s.is.Node())); err != nil {
		t.Fatal(err)
	}
	if n, lost := count(), e.Stats().LostGates; n != len(clients) || lost != 0 {
		t.Errorf("%d of %d sessions are connected, %d counted as lost", n, len(clients), lost)
	}
	kv, err := s.js.KeyValue(t.Context(), s.names.ConnsBucket())
	if err == nil { // the last key is none of ours
		_, err = kv.Put(t.Context(), subjects.NodeToken(s.is.Node())+".nonsense", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Now it comes back when the first batch has been given up for good.
	s.lease(false)
	written := 0
	hold := holder(func(subject string, do func() error) error {
		if strings.HasPrefix(subject, "$KV."+s.names.SessionsBucket()+".") {
			if written++; written == 65 {
				s.lease(true)
			}
		}
		return do()
	})
	w.hold.Store(&hold)
	if err := e.SweepGateway(t.Context(), subjects.NodeToken(s.is.Node())); err != nil {
		t.Fatal(err)
	}
	w.hold.Store(nil)
	if n, lost := count(), e.Stats().LostGates; n != 6 || lost != 64 {
		t.Errorf("%d of %d sessions are connected, %d counted as lost, expected 6 and 64", n, len(clients), lost)
	}
	s.lease(false)
	if err := e.SweepGateway(t.Context(), subjects.NodeToken(s.is.Node())); err != nil {
		t.Fatal(err)
	}
	if n, lost := count(), e.Stats().LostGates; n != 0 || lost != int64(len(clients)) {
		t.Errorf("%d of %d sessions are connected without a lease, %d counted as lost", n, len(clients), lost)
	}
}
