package roomstore_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// The same on a cluster of three nodes with three replicas of everything: the node that leads the log is killed while
// messages are sent, and comes back. What was acknowledged is in the log once, and the workers go on.
func TestCluster(t *testing.T) {
	cluster := natstest.StartCluster(t, 3)
	s := newSystemOn(t, rooms.DefaultConfig(), cluster.URLs(), 3)
	s.start()
	s.start()
	const people, each = 8, 60
	models := make([]model, people)
	clients := make([]*client, people)
	for i := range clients {
		clients[i] = s.dial()
		for clients[i].auth("") == "" {
		}
		models[i].in = map[string]bool{"r": true}
		for status := ""; status == ""; {
			status = clients[i].create("r")
		}
		for status := ""; status == ""; {
			status = clients[i].join("r")
		}
	}
	half := make(chan struct{}, people)
	goOn := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for n := range each {
				if n == each/3 {
					half <- struct{}{}
				}
				if n == each-3 {
					<-goOn // some are sent when the node is back
				}
				text := fmt.Sprintf("%d:%d", i, n)
				switch status := c.say("r", text); status {
				case wire.StatusOK:
					models[i].said = append(models[i].said, "r "+text)
				case "": // not known
				default:
					t.Errorf("%s", status)
				}
			}
		})
	}
	<-half
	leader := cluster.LeaderOf(s.nc, s.names.RoomsStream())
	cluster.Kill(leader)
	for range people - 1 {
		<-half
	}
	cluster.Restart(leader)
	close(goOn)
	wg.Wait()
	said := 0
	for i := range models {
		said += len(models[i].said)
	}
	t.Logf("%d of %d messages were acknowledged", said, people*each)
	if said < people*each/2 {
		t.Errorf("only %d of %d messages were acknowledged", said, people*each)
	}
	check(s, []string{"r"}, clients, models)
}

// readStream returns the log as it is stored.
func (s *system) readStream() (out []entry) {
	st, err := s.js.Stream(s.t.Context(), s.names.RoomsStream())
	if err != nil {
		s.t.Fatal(err)
	}
	for seq := st.CachedInfo().State.FirstSeq; seq <= st.CachedInfo().State.LastSeq; seq++ {
		var m *jetstream.RawStreamMsg
		s.await("a record is read", func() bool {
			m, err = st.GetMsg(s.t.Context(), seq)
			return err == nil
		})
		en := entry{seq: seq, room: m.Subject[len(s.names.LogOf("")):]}
		if en.last, err = strconv.ParseUint(m.Header.Get(subjects.HeaderExpectedLast), 10, 64); err != nil {
			s.t.Fatal(err)
		}
		if err := en.rec.Unmarshal(m.Data); err != nil {
			s.t.Fatal(err)
		}
		out = append(out, en)
	}
	return out
}
