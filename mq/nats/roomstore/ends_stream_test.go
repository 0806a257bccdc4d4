package roomstore_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Gateways and workers make the same stream of ends, whoever comes first, and neither changes one that is there: what an
// operator has set stays, and so does what an older version has made.
func TestStreamOfEnds(t *testing.T) {
	nc := natstest.Connect(t, []string{server.URL()})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	gateway := func(t *testing.T, names subjects.Names) {
		c, err := nats.Connect(t.Context(), nats.Options{URLs: []string{server.URL()}, Prefix: names.Prefix()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := nats.EnsureDisconnected(t.Context(), c, 1); err != nil {
			t.Error(err)
		}
	}
	worker := func(t *testing.T, names subjects.Names) {
		e, err := roomstore.New(t.Context(), roomstore.Options{Conn: nc, Names: names})
		if err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	fresh := func() subjects.Names {
		names, err := subjects.New("ends" + strconv.FormatInt(prefixes.Add(1), 10))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	config := func(t *testing.T, names subjects.Names) jetstream.StreamConfig {
		st, err := js.Stream(t.Context(), names.DisconnectedStream())
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().Config
	}
	var made []jetstream.StreamConfig
	for _, order := range [][]func(*testing.T, subjects.Names){{gateway, worker}, {worker, gateway}} {
		names := fresh()
		for _, make := range order {
			make(t, names)
			c := config(t, names)
			c.Name, c.Subjects, c.Metadata = "", nil, nil
			made = append(made, c)
		}
	}
	for i := range made {
		if diff := cmp.Diff(made[0], made[i]); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
	}
	old := fresh()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: old.DisconnectedStream(), Description: "an operator's",
		Subjects: []string{old.AllDisconnected()}, MaxAge: time.Hour, Duplicates: 2 * time.Minute, MaxMsgs: 1000}); err != nil {
		t.Fatal(err)
	}
	want := config(t, old)
	gateway(t, old)
	worker(t, old)
	if diff := cmp.Diff(want, config(t, old)); diff != "" {
		t.Errorf("changed: %s", diff)
	}
}
