package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// counters checks the accounts of a gateway against each other and against what its clients know.
func (x *chaos) counters(t *testing.T, i int, s *server) {
	t.Helper()
	open := 0
	for _, r := range x.residents {
		if c := r.conn.Load(); c != nil && c.gateway == i {
			open++
		}
	}
	for name, want := range map[string]float64{"connections_open": float64(open), "requests_in_flight": 0, "nats_requests_in_flight": 0,
		"nats_requests_bytes": 0, "nats_answers_held": 0, "disconnects_unpublished": 0, "nats_disconnects_unpublished": 0} {
		s.awaitMetric(t, name, want)
	}
	opened, ended := s.metric(t, "connections_total"), s.metric(t, "disconnects_total")
	if opened-ended != float64(open) {
		t.Errorf("gateway %d: %v connections, %v have ended, but %d are there", i, opened, ended, open)
	}
	accepted, outcomes := s.metric(t, "requests_accepted_total"), s.metric(t, "requests_total")
	if accepted != outcomes {
		t.Errorf("gateway %d: %v requests were accepted, %v have ended", i, accepted, outcomes)
	}
	dropped := s.seriesOr0(t, `requests_total{outcome="dropped"}`)
	if n := x.tally(i); accepted > float64(n.asked) || outcomes-dropped < float64(n.answered) {
		t.Errorf("gateway %d: %v requests were accepted, %v answered; the clients have sent %d, and got %d answers", i, accepted, outcomes-dropped,
			n.asked, n.answered)
	}
	for _, name := range []string{"accounting_drift", `nats_room_records_total{result="malformed"}`, `nats_room_gaps_total{result="lost"}`,
		"disconnects_unpublished_lost_total", "worker_panics_total"} {
		if n := s.seriesOr0(t, name); n != 0 {
			t.Errorf("gateway %d: mqgate_%s is %v", i, name, n)
		}
	}
	if n := s.seriesOr0(t, "nats_errors_total"); n != 0 { // who is cut off may have some
		t.Logf("gateway %d: mqgate_nats_errors_total is %v: see \"NATS error\" in:\n%s", i, n, s.text.String())
	}
}

// seriesOr0 is series for one that may not be there yet.
func (s *server) seriesOr0(t *testing.T, name string) (value float64) {
	t.Helper()
	_, body := get(t, "http://"+s.admin+"/metrics")
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, "mqgate_"+name+" "); ok {
			if _, err := fmt.Sscan(text, &value); err != nil {
				t.Fatalf("/metrics: %q: %v", line, err)
			}
		}
	}
	return value
}

// noMembers waits until the rooms are empty.
func (x *chaos) noMembers(t *testing.T) {
	t.Helper()
	c, err := x.dial("inspector", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if !c.enter("") {
		t.Fatal("the inspector cannot enter")
	}
	for room := range x.rooms {
		var list map[string]string
		eventually(t, func() bool {
			list, err = x.listed(c, room)
			return err == nil && len(list) == 0
		}, func() string { return fmt.Sprintf("room %d has members when all have left: %v, %v", room, list, err) })
	}
	c.bye()
	x.running.Wait()
}

// noSessions waits until the workers' bucket of sessions has none: all clients have gone.
func (x *chaos) noSessions(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	left := map[string]string{} // by id
	eventually(t, func() bool {
		clear(left)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		bucket, err := js.KeyValue(ctx, "mqgate_sessions")
		if err != nil {
			left["-"] = err.Error()
			return false
		}
		list, err := bucket.ListKeys(ctx)
		if err != nil {
			left["-"] = err.Error()
			return false
		}
		for id := range list.Keys() {
			left[id] = ""
			if e, err := bucket.Get(ctx, id); err == nil {
				left[id] = string(e.Value())
			}
		}
		return len(left) == 0
	}, func() string {
		for _, c := range x.conns {
			if what, there := left[c.session]; there {
				left[c.session] = fmt.Sprintf("%s of %v, which has ended: %s", what, c, c.end)
			}
		}
		return fmt.Sprintf("sessions that are left when all clients have gone: %v", left)
	})
}

// ends looks into the stream of ends: each end of a connection is there once, those of the gateways that live all are, and
// the workers have taken all of them.
func (x *chaos) ends(t *testing.T, js jetstream.JetStream, gateways []*server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const name = "mqgate_disconnected"
	stream, err := js.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	times, nodes := map[string]int{}, map[string]float64{}
	last := stream.CachedInfo().State.LastSeq
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for at := uint64(0); at < last; {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		at = meta.Sequence.Stream
		times[m.Headers().Get("Mqgate-Connection")]++
		nodes[m.Headers().Get("Mqgate-Node")]++
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("the end of connection %s is in the stream %d times", id, n)
		}
	}
	for i, s := range gateways {
		node, _ := s.ready["node"].(string)
		if ended := s.metric(t, "disconnects_total"); nodes[node] != ended {
			t.Errorf("gateway %d: %v connections have ended, and %v ends are in the stream", i, ended, nodes[node])
		}
	}
	t.Logf("%d ends of connections in the stream, by gateway %v", len(times), maps.Clone(nodes))
	var state string
	natstest.Eventually(t, "the workers have taken all ends", func() bool {
		info, err := js.Stream(ctx, name)
		if err != nil {
			return false
		}
		worker, err := info.Consumer(ctx, "rooms")
		if err != nil {
			return false
		}
		i := worker.CachedInfo()
		state = fmt.Sprintf("%d pending, %d not acknowledged", i.NumPending, i.NumAckPending)
		return i.NumPending == 0 && i.NumAckPending == 0
	})
	t.Log("the workers' consumer of ends: ", state)
}
