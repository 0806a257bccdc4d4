package roomstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// model is what a client knows for sure after its operations: whether it is in a room, and which messages it was told are
// sent.
type model struct {
	in   map[string]bool
	said []string
}

// Several workers on one store, hundreds of operations at once on few rooms, some of the workers dying in between: no
// message that was acknowledged is lost, none is in the log twice, messages of one sender keep their order, ids and
// timestamps grow, the records of a room follow each other, and the members are those that have joined and not left.
func TestWorkers(t *testing.T) {
	for _, c := range []struct {
		name          string
		workers, kill int
	}{{"one", 1, 0}, {"two", 2, 0}, {"three of which two die", 3, 2}} {
		t.Run(c.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			s := newSystem(t, rooms.DefaultConfig())
			for range c.workers {
				s.start()
			}
			const people, steps = 24, 40
			names := []string{"r0", "r1", "r2"}
			keeper := s.login()
			for _, r := range names {
				s.must("create", keeper.create(r), wire.StatusOK)
			}
			var wg sync.WaitGroup
			models := make([]model, people)
			clients := make([]*client, people)
			var failed sync.Map
			for i := range people {
				clients[i] = s.login()
				models[i].in = map[string]bool{}
				wg.Go(func() {
					c, m, rnd := clients[i], &models[i], rand.New(rand.NewPCG(seed, uint64(i)))
					for n := range steps {
						room := names[rnd.IntN(len(names))]
						c.step(m, room, i, n, rnd, &failed)
					}
				})
			}
			rnd := rand.New(rand.NewPCG(seed, 1000))
			for range c.kill {
				at := rnd.IntN(people * steps / 3)
				s.await("some operations", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return len(s.log) > at/2
				})
				s.mu.Lock()
				w := s.workers[rnd.IntN(len(s.workers))]
				s.mu.Unlock()
				s.kill(w)
			}
			wg.Wait()
			check(s, names, clients, models)
			var conflicts, commits, operations int64
			for _, w := range s.workers {
				st := w.e.Stats()
				conflicts, commits, operations = conflicts+st.Conflicts, commits+st.Commits, operations+st.Operations
			}
			t.Logf("%d operations in %d commits, %d conflicts", operations, commits, conflicts)
		})
	}
}

// step does one thing. What fails is done again until it does not, so that the model knows; a message is not sent twice.
func (c *client) step(m *model, room string, i, n int, rnd *rand.Rand, failed *sync.Map) {
	until := func(f func() string, good ...string) {
		for {
			status := f()
			if slices.Contains(good, status) {
				return
			}
			if status != "" {
				c.s.t.Errorf("client %d, step %d: status %q, want one of %q", i, n, status, good)
				return
			}
		}
	}
	switch {
	case !m.in[room]:
		until(func() string { return c.join(room) }, wire.StatusOK)
		m.in[room] = true
	case rnd.IntN(8) == 0:
		until(func() string { return c.leave(room) }, wire.StatusOK, wire.StatusNotInRoom)
		m.in[room] = false
	case rnd.IntN(8) == 0:
		members, status := c.members(room)
		if status != "" && !slices.Contains(members, c.session) {
			c.s.t.Errorf("client %d, step %d: it does not see itself in %s", i, n, room)
		}
	default:
		text := fmt.Sprintf("%d:%d", i, n)
		switch status := c.say(room, text); status {
		case wire.StatusOK:
			m.said = append(m.said, room+" "+text)
		case "":
			failed.Store(text, true)
		default:
			c.s.t.Errorf("client %d, step %d: %s", i, n, status)
		}
	}
}

// check compares the log and the rooms with what the clients know.
func check(s *system, names []string, clients []*client, models []model) {
	t := s.t
	limits := rooms.DefaultLimits()
	seen := map[string]int{}  // "room text" → how often
	order := map[string]int{} // "room client" → last n
	state := map[string]*rooms.Room{}
	last := map[string]uint64{} // sequence
	lastID := map[string]string{}
	lastStamp := map[string]uint64{}
	for _, en := range s.settle() {
		if en.last != last[en.room] {
			t.Errorf("record %d follows %d, want %d", en.seq, en.last, last[en.room])
		}
		last[en.room] = en.seq
		var events []rooms.Event
		for _, ev := range en.rec.Events {
			events = append(events, rooms.Event{Kind: ev.Topic, Type: ev.Type, Payload: ev.Payload})
			switch ev.Type {
			case wire.TypeRoomConversationEvent:
				var e wire.RoomConversationEvent
				if err := e.Unmarshal(ev.Payload); err != nil {
					t.Fatal(err)
				}
				m := e.ChatMessages[0]
				seen[e.RoomID+" "+m.Message]++
				if m.MessageID <= lastID[e.RoomID] {
					t.Errorf("message id %s after %s", m.MessageID, lastID[e.RoomID])
				}
				lastID[e.RoomID] = m.MessageID
				who, num, _ := strings.Cut(m.Message, ":")
				n, err := strconv.Atoi(num)
				if err != nil {
					t.Fatal(err)
				}
				key := e.RoomID + " " + who
				if before, ok := order[key]; ok && n <= before {
					t.Errorf("%s: message %d after %d", key, n, before)
				}
				order[key] = n
			case wire.TypeRoomEvent:
				var e wire.RoomEvent
				if err := e.Unmarshal(ev.Payload); err != nil {
					t.Fatal(err)
				}
				if e.Timestamp <= lastStamp[e.RoomID] {
					t.Errorf("timestamp %d after %d", e.Timestamp, lastStamp[e.RoomID])
				}
				lastStamp[e.RoomID] = e.Timestamp
			}
		}
		room, err := rooms.Replay(state[en.room], events, en.rec.Delta, &limits)
		if err != nil {
			t.Fatalf("record %d: %v", en.seq, err)
		}
		state[en.room] = room
	}
	for key, n := range seen {
		if n > 1 {
			t.Errorf("%q is in the log %d times", key, n)
		}
	}
	for i := range models {
		for _, key := range models[i].said {
			if seen[key] != 1 {
				t.Errorf("%q was acknowledged and is in the log %d times", key, seen[key])
			}
		}
	}
	for _, name := range names {
		var want []string
		for i, m := range models {
			if m.in[name] {
				want = append(want, clients[i].session)
			}
		}
		slices.Sort(want)
		got, _ := clients[0].members(name)
		if !slices.Equal(got, want) {
			t.Errorf("%s: members %v, want %v", name, got, want)
		}
		if n := state[subjects.RoomToken(name)].Members(); n != len(want) {
			t.Errorf("%s: the log says %d members, want %d", name, n, len(want))
		}
	}
}

// Sessions that end in every way, while workers die: when all graces are over nobody is in any room, and no session is
// left. What a dead worker had taken another one does. There are no leases here: nothing else may be needed.
func TestNoGhosts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	cfg := rooms.DefaultConfig()
	cfg.EmptyRoomTTL = 0
	s := newSystem(t, cfg)
	for range 3 {
		s.start()
	}
	keeper := s.login()
	names := []string{"r0", "r1", "r2"}
	for _, r := range names {
		s.must("create", keeper.create(r), wire.StatusOK)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			c := s.dial()
			if i%3 == 0 { // its end is told while it authenticates
				var both sync.WaitGroup
				both.Go(func() {
					if c.auth("") == wire.StatusOK {
						c.join(names[rnd.IntN(3)])
					}
				})
				both.Go(func() { c.lose([]uint32{1000, 1006}[i%2]) })
				both.Wait()
				return
			}
			for c.auth("") == "" {
			}
			for range rnd.IntN(4) {
				c.join(names[rnd.IntN(3)]) // may fail: then it may be in the room or not
			}
			if rnd.IntN(3) == 0 { // comes back by another connection, and does not join everything again
				heir := s.dial()
				for heir.auth(c.session) == "" {
				}
				c.lose(1006)
				heir.join(names[rnd.IntN(3)])
				c = heir
			}
			switch rnd.IntN(3) {
			case 0:
				if c.bye() == "" {
					c.lose(1006) // as a client does whose request has failed
				}
			case 1:
				c.lose(1000)
			default:
				c.lose(1006)
			}
		})
	}
	for range 2 {
		s.await("some records", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.log) > 10
		})
		s.mu.Lock()
		w := s.workers[0]
		s.mu.Unlock()
		s.kill(w)
	}
	wg.Wait()
	s.await("everybody has left", func() bool {
		// Time goes on: the grace of an end that a dead worker had taken begins when another one takes it, some seconds later.
		s.now.Add(int64(cfg.ReenterGrace / 10))
		for _, r := range names {
			if members, status := keeper.members(r); status == "" || len(members) > 0 {
				return false
			}
		}
		all, err := s.workers[0].e.All(t.Context())
		return err == nil && len(all) == 1
	})
}
