package roomstore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// A worker that comes new reads the room from the last snapshot and the log after it, small rooms and such whose snapshot
// does not fit into one message; also when the log has begun to drop its beginning.
func TestSnapshot(t *testing.T) {
	for _, c := range []struct {
		name           string
		members, bytes int
		messages       int
	}{{"small", 2, 10, 200}, {"large", 160, 3900, 130}, {"longer than the log", 1, 10, 1300}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := rooms.DefaultConfig()
			s := newSystem(t, cfg)
			first := s.start()
			a := s.login()
			s.must("create", a.create("r"), wire.StatusOK)
			s.must("join", a.join("r"), wire.StatusOK)
			for i := range c.members - 1 {
				b := s.login()
				m := wire.Member{ScreenName: fmt.Sprint(i), Streams: []wire.Stream{{URI: strings.Repeat("u", c.bytes)}}}
				status, _ := b.ask(wire.TypeJoinRoom, &wire.JoinRoom{RoomID: "r", Member: m})
				s.must("join", status, wire.StatusOK)
			}
			for i := range c.messages {
				s.must("say", a.say("r", fmt.Sprint(i)), wire.StatusOK)
			}
			if n := first.e.Stats().Snapshots; n == 0 {
				t.Error("no snapshot was written")
			}
			kv, err := s.js.KeyValue(t.Context(), s.names.SnapshotsBucket())
			if err != nil {
				t.Fatal(err)
			}
			if st, err := kv.Status(t.Context()); err != nil || (st.Values() > 1) != (c.name == "large") {
				t.Errorf("the snapshot has %d parts, %v", st.Values(), err)
			}
			second := s.start()
			for _, q := range []struct {
				typ string
				m   message
			}{{wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: "r"}}, {wire.TypeFetchRoomConversation, &wire.FetchRoomConversation{RoomID: "r"}}} {
				status1, f1 := a.askOf(first, q.typ, q.m)
				status2, f2 := a.askOf(second, q.typ, q.m)
				s.must(q.typ, status1, wire.StatusOK)
				s.must(q.typ, status2, wire.StatusOK)
				if !bytes.Equal(f1.payload, f2.payload) {
					t.Errorf("%s: two workers answer with %d and %d bytes", q.typ, len(f1.payload), len(f2.payload))
				}
			}
			status, _ := a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: "r"})
			s.must("destroy", status, wire.StatusOK)
			if st, err := kv.Status(t.Context()); err != nil || st.Values() != 0 {
				t.Errorf("%d parts of snapshots are left of a room that has ended, %v", st.Values(), err)
			}
			third := s.start()
			for _, w := range []*worker{first, second, third} {
				status, _ := a.askOf(w, wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: "r"})
				s.must("has ended", status, wire.StatusNotFound)
			}
			s.must("create again", a.create("r"), wire.StatusOK)
			for _, w := range []*worker{first, second, third} {
				status, f := a.askOf(w, wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: "r"})
				var info wire.GetRoomInfoResponse
				if err := info.Unmarshal(f.payload); status != wire.StatusOK || err != nil || len(info.Members) != 0 {
					t.Errorf("a room that was made again: %s, %v, %d members", status, err, len(info.Members))
				}
			}
		})
	}
}

// NATS is cut off again and again while messages are sent: what was acknowledged is there once, what was not at most once,
// and the worker goes on when NATS is back.
func TestCut(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	proxy := natstest.NewProxy(t, server.URL())
	w := s.startOn(natstest.Connect(t, []string{proxy.URL()}, nats.ReconnectBufSize(-1)))
	const people = 8
	models := make([]model, people)
	clients := make([]*client, people)
	for i := range clients {
		clients[i] = s.login()
		models[i].in = map[string]bool{"r": true}
	}
	s.must("create", clients[0].create("r"), wire.StatusOK)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range clients {
		s.must("join", c.join("r"), wire.StatusOK)
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
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
	records := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.log)
	}
	for range 4 {
		before := records()
		s.await("messages are sent", func() bool { return records() > before+50 })
		proxy.Cut()
		s.await("the worker is cut off", func() bool { return !w.nc.IsConnected() })
		proxy.Heal()
	}
	before := records()
	s.await("messages are sent in the end", func() bool { return records() > before+50 })
	close(stop)
	wg.Wait()
	check(s, []string{"r"}, clients, models)
}

// An alias of a room that never came to be can be taken again, but not before whoever wanted it has given up.
func TestAliasLeftBehind(t *testing.T) {
	cfg := rooms.DefaultConfig()
	s := newSystem(t, cfg)
	w := s.start()
	a := s.login()
	kv, err := s.js.KeyValue(t.Context(), s.names.AliasesBucket())
	if err != nil {
		t.Fatal(err)
	}
	const claim = 20 * time.Second
	leave := func(alias string, at time.Time) {
		b, err := json.Marshal(map[string]any{"alias": alias, "room": "never", "at": at.UnixMilli()})
		if err == nil {
			_, err = kv.Put(t.Context(), subjects.RoomToken(alias), b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	create := func(alias string) string {
		status, _ := a.ask(wire.TypeCreateRoom, &wire.CreateRoom{Room: wire.Room{Alias: alias}})
		return status
	}
	leave("old", time.Now().Add(-claim))
	s.must("old", create("old"), wire.StatusOK)
	s.must("taken", create("old"), wire.StatusAlreadyExists)
	leave("young", time.Now())
	done := make(chan string, 1)
	before := w.e.Stats().Reads
	go func() { done <- create("young") }()
	s.await("it has looked some times whether the room is there", func() bool { return w.e.Stats().Reads > before+3 || len(done) > 0 })
	if len(done) > 0 {
		t.Error("taken at once")
	}
	s.now.Add(int64(claim))
	s.must("young", <-done, wire.StatusOK)
}

// Two workers create the same room, or rooms of the same alias, at once: one of them does.
func TestCreateAtOnce(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	s.start()
	s.start()
	people := make([]*client, 8)
	for i := range people {
		people[i] = s.login()
	}
	for round := range 20 {
		for _, r := range []wire.Room{{RoomID: fmt.Sprint("id", round)}, {Alias: fmt.Sprint("alias", round)}} {
			var wg sync.WaitGroup
			var mu sync.Mutex
			ids := map[string]bool{}
			created := 0
			for _, c := range people {
				wg.Go(func() {
					status, f := c.ask(wire.TypeCreateRoom, &wire.CreateRoom{Room: r})
					var a wire.CreateRoomResponse
					if err := a.Unmarshal(f.payload); err != nil || a.Room == nil {
						t.Errorf("%s %v %v", status, f.err, err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					ids[strings.Clone(a.Room.RoomID)] = true
					if status == wire.StatusOK {
						created++
					}
				})
			}
			wg.Wait()
			if created != 1 || len(ids) != 1 {
				t.Fatalf("%+v: created %d times, as %v", r, created, ids)
			}
		}
	}
	if n, err := s.workers[0].e.Len(); n != 40 || err != nil {
		t.Errorf("%d rooms, %v", n, err)
	}
}

// panicking is an operation that panics.
type panicking struct{ res rooms.Result }

func (*panicking) Apply(*rooms.Room)                { panic("as asked for") }
func (p *panicking) Result() *rooms.Result          { return &p.res }
func (*panicking) Subscribes() (mq.TopicKind, bool) { return 0, false }
func (*panicking) Deliver(*rooms.Room, uint64)      {}

// An operation that panics fails alone; the room goes on as if it had not been, also after it has left the memory.
func TestPanic(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	people := make([]*client, 8)
	for i := range people {
		people[i] = s.login()
		people[i].create("r")
		s.must("join", people[i].join("r"), wire.StatusOK)
	}
	var wg sync.WaitGroup
	for i, c := range people {
		wg.Go(func() {
			for n := range 20 {
				if n%5 == 0 {
					if _, err := w.e.Do("r", &panicking{}); err == nil {
						t.Error("no error")
					}
				}
				s.must("say", c.say("r", fmt.Sprint(i)), wire.StatusOK)
			}
		})
	}
	wg.Wait()
	w.e.ForgetIdle(time.Now().Add(time.Hour))
	if n := w.e.Stats().Cached; n != 0 {
		t.Errorf("%d rooms in memory", n)
	}
	if members, _ := people[0].members("r"); len(members) != len(people) {
		t.Errorf("members %v", members)
	}
	if n := w.Counters(); n.Messages != 160 || n.Members != 8 {
		t.Errorf("%+v", n)
	}
}

// A worker that lost a compare-and-set finds out whether it lost it to itself, its acknowledgement having got lost: then
// its state is that of its own record, and not of what came after.
func TestOwnRecord(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	a := s.login()
	s.must("create", a.create("r"), wire.StatusOK)
	s.must("join", a.join("r"), wire.StatusOK)
	var readers [2]roomstore.Reader
	for i := range readers {
		var err error
		if readers[i], err = w.e.Read(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		s.must("say", a.say("r", fmt.Sprint(i)), wire.StatusOK)
	}
	log := s.settle()
	own := log[len(log)-2].seq
	st, err := s.js.Stream(t.Context(), s.names.RoomsStream())
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetMsg(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	found, seq, err := readers[0].ReadOn(t.Context(), m.Header.Get(subjects.HeaderMsgID))
	if !found || seq != own || err != nil {
		t.Errorf("its own: %v at %d, want %d, %v", found, seq, own, err)
	}
	found, seq, err = readers[1].ReadOn(t.Context(), "someone else's")
	if found || seq != own+1 || err != nil {
		t.Errorf("another one: %v at %d, want %d, %v", found, seq, own+1, err)
	}
}
