package roomstore_test

import (
	"encoding/json"
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
	e := s.start().e
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
	s.lease(false)
	if err := e.SweepGateway(t.Context(), subjects.NodeToken(s.is.Node())); err != nil {
		t.Fatal(err)
	}
	if n, lost := count(), e.Stats().LostGates; n != 0 || lost != int64(len(clients)) {
		t.Errorf("%d of %d sessions are connected without a lease, %d counted as lost", n, len(clients), lost)
	}
}
