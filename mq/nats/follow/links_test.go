package follow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/record"
)

// proxied returns connections to a server, each with a proxy of its own.
func proxied(t *testing.T, s *embedded.Server, n int) (conns []*nats.Conn, proxies []*natstest.Proxy) {
	for range n {
		p := natstest.NewProxy(t, s.URL())
		proxies = append(proxies, p)
		conns = append(conns, natstest.Connect(t, []string{p.URL()}))
	}
	return conns, proxies
}

// ask runs f on the goroutine of a shard and returns what it returns.
func ask[T any](r *runner, f func(s *shard) T) T {
	answer := make(chan T, 1)
	r.post(func(int64) { answer <- f(r.shard) })
	return <-answer
}

// periodic returns when a shard's rooms are checked next because of the time alone. A checkAll moves it.
func periodic(r *runner) int64 {
	return ask(r, func(s *shard) int64 { return s.rounds[len(s.rounds)-1] })
}

// Rooms are spread over all links evenly, and each link has as many shards.
func TestRoomsAreSpread(t *testing.T) {
	s := natstest.Single(t)
	var conns []*nats.Conn
	for range 5 {
		conns = append(conns, natstest.Connect(t, []string{s.URL()}))
	}
	stream(t, conns[0])
	for _, test := range []struct{ links, shards, want int }{
		{1, 0, 4}, {1, 1, 1}, {2, 0, 4}, {3, 0, 6}, {3, 1, 3}, {3, 3, 3}, {3, 4, 6}, {4, 0, 4}, {5, 0, 5}, {5, 5, 5}, {5, 6, 10},
	} {
		f, err := New(Config{Conns: conns[:test.links], Names: names(t), Clients: &sink{}, Shards: test.shards})
		if err != nil {
			t.Fatal(err)
		}
		of := map[*link]int{}
		for _, r := range f.shards {
			of[r.link]++
		}
		if len(f.shards) != test.want || len(of) != test.links {
			t.Errorf("%+v: %d shards on %d links", test, len(f.shards), len(of))
		}
		for _, n := range of {
			if n != test.want/test.links {
				t.Errorf("%+v: %d shards on one of them", test, n)
			}
		}
		f.Close()
	}

	const links, rooms = 3, 900
	f, err := New(Config{Conns: conns[:links], Names: names(t), Clients: &sink{}, CheckEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := make([]int, links)
	for i, nc := range conns[:links] {
		before[i] = nc.NumSubscriptions()
	}
	for i := range rooms {
		f.Interest(fmt.Sprint("room", i), true)
	}
	for _, r := range f.shards {
		ask(r, func(*shard) bool { return true }) // what was posted before is done
	}
	for i, nc := range conns[:links] {
		// 300 expected, standard deviation 14; a few more may be those of questions to the stream.
		if n := nc.NumSubscriptions() - before[i]; n < 200 || n > 400 {
			t.Errorf("link %d has %d of %d rooms", i, n, rooms)
		}
	}
	if n := conns[links].NumSubscriptions(); n != 0 {
		t.Errorf("%d subscriptions on a connection that is no link of it", n)
	}
}

// One of two links is cut. Its rooms get nothing, those of the other one everything; when it is back, its rooms get what
// they have missed, in order and once, and only they are compared with the stream.
func TestOneLinkIsCut(t *testing.T) {
	s := natstest.Single(t)
	conns, proxies := proxied(t, s, 2)
	a := newArena(t, natstest.Connect(t, []string{s.URL()}), conns, 1, 24, Config{CheckEvery: time.Hour, Log: testLog(t)})
	rng := rand.New(rand.NewPCG(1, 2))
	joined := make(chan *arenaPeer)
	peers := map[*arenaRoom]*arenaPeer{}
	cut := map[*arenaRoom]bool{} // whether it is on the link that is going to be cut
	there := 0
	for _, r := range a.rooms {
		a.join(rng, r, func(p *arenaPeer) { joined <- p })
		peers[r] = <-joined
		if cut[r] = a.f.runnerOf(r.id).link == a.f.source.links[1]; !cut[r] {
			there++
		}
	}
	if there == 0 || there == len(a.rooms) { // once in eight million runs
		t.Fatalf("%d of %d rooms are on one link", there, len(a.rooms))
	}
	a.check()
	filled := a.f.Stats().Filled
	var checked []int64
	for _, r := range a.f.shards {
		checked = append(checked, periodic(r))
	}

	proxies[1].Cut()
	natstest.Eventually(t, "the link is away", func() bool { return !conns[1].IsConnected() })
	const each = 50
	for range each {
		for _, r := range a.rooms {
			a.store(r, 1)
		}
	}
	natstest.Eventually(t, "the rooms of the other link have everything", func() bool {
		all := true
		a.do(func() {
			for r, p := range peers {
				all = all && (cut[r] || len(p.got) == len(a.want(p)))
			}
		})
		return all
	})
	a.do(func() {
		for r, p := range peers {
			if missed := len(a.want(p)) - len(p.got); cut[r] && missed != each {
				t.Errorf("%s is on the link that is cut and has missed %d of %d", r.id, missed, each)
			}
		}
	})

	proxies[1].Heal()
	a.check()
	for i, r := range a.f.shards {
		again := r.link == a.f.source.links[1]
		natstest.Eventually(t, "the rooms of the link are checked", func() bool { return !again || periodic(r) != checked[i] })
		if !again && periodic(r) != checked[i] {
			t.Error("rooms of a link that was there all the time were checked")
		}
	}
	// The last record of a room comes with the check, and is counted only when nothing else was missing.
	if st := a.f.Stats(); st.Lost != 0 || st.Filled-filled < uint64((each-1)*(len(a.rooms)-there)) {
		t.Errorf("%d records were read from the stream, expected %d of each of %d rooms: %+v", st.Filled-filled, each, len(a.rooms)-there, st)
	}
	for _, r := range a.rooms {
		a.store(r, 1)
	}
	a.check()
}

// The links are cut one after the other and together while rooms are written to, and connections come and go.
func TestLinksAreCutUnderLoad(t *testing.T) {
	s := natstest.Single(t)
	conns, p := proxied(t, s, 3)
	a := newArena(t, natstest.Connect(t, []string{s.URL()}), conns, 1, 20, Config{Linger: 50 * time.Millisecond, CheckEvery: time.Second, Log: testLog(t)})
	a.load(4, after(250*time.Millisecond, p[0].Cut, p[0].Heal, p[1].Cut, p[2].Cut, p[1].Heal, p[0].Cut, p[2].Heal, p[0].Heal))
	if s := a.f.Stats(); s.Filled == 0 {
		t.Errorf("nothing was missing: %+v", s)
	}
}

// Questions to the stream that nobody answers on one link hold up those of another one as little as its messages.
func TestSilentLink(t *testing.T) {
	s := natstest.Single(t)
	conns := []*nats.Conn{natstest.Connect(t, []string{s.URL()}), natstest.Connect(t, []string{s.URL()})}
	js := stream(t, conns[0])
	out := &sink{}
	f, err := New(Config{Conns: conns, Names: names(t), Clients: out, CheckEvery: time.Hour, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 10 * fetchers {
		f.source.links[0].put(func(ctx context.Context) { <-ctx.Done() })
	}
	room := ""
	for i := 0; room == "" || f.runnerOf(room).link != f.source.links[1]; i++ {
		room = fmt.Sprint("room", i)
	}
	r := record.Record{Events: []record.Event{{Type: "missed"}}}
	for range 2 {
		if _, err := js.Publish(t.Context(), names(t).Log(room), r.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	f.Handover(Handover{Room: room, Seq: 1, Deliver: func(_ []mq.Event, done func()) { f.Interest(room, true); done() }, Fail: func(err error) { t.Error(err) }})
	natstest.Eventually(t, "the record is read from the stream", func() bool { return out.len() == 1 })
}

// A link that is closed under a Follower takes its own rooms only, and Close ends the rest.
func TestLinkIsClosed(t *testing.T) {
	s := natstest.Single(t)
	direct := natstest.Connect(t, []string{s.URL()})
	js := stream(t, direct)
	conns := []*nats.Conn{natstest.Connect(t, []string{s.URL()}), natstest.Connect(t, []string{s.URL()})}
	out := &sink{}
	f, err := New(Config{Conns: conns, Names: names(t), Clients: out, CheckEvery: time.Hour, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	var rooms [2]string // one on each link
	for i := 0; rooms[0] == "" || rooms[1] == ""; i++ {
		room := fmt.Sprint("room", i)
		if f.runnerOf(room).link == f.source.links[0] {
			rooms[0] = room
		} else {
			rooms[1] = room
		}
	}
	passed := make(chan bool)
	for _, room := range rooms {
		f.Handover(Handover{Room: room, Deliver: func(_ []mq.Event, done func()) { f.Interest(room, true); done(); passed <- true }, Fail: func(err error) { t.Error(err) }})
		<-passed
	}
	conns[0].Close()
	r := record.Record{Events: []record.Event{{Type: "event"}}}
	const n = 10
	for range n {
		for _, room := range rooms {
			if _, err := js.Publish(t.Context(), names(t).Log(room), r.AppendTo(nil)); err != nil {
				t.Fatal(err)
			}
		}
	}
	natstest.Eventually(t, "the room of the other link has everything", func() bool { return out.len() == n })
	failed := make(chan error, 1)
	f.Handover(Handover{Room: rooms[0], Seq: 1 << 40, Deliver: func([]mq.Event, func()) { t.Error("passed on") }, Fail: func(err error) { failed <- err }})
	f.Close()
	if err := <-failed; err != ErrClosed {
		t.Error(err)
	}
	left := conns[1].NumSubscriptions()
	if left > 1 { // nats.go's own, for answers
		t.Errorf("%d subscriptions are left", left)
	}
	if got := out.len(); got != n {
		t.Errorf("%d events, expected %d", got, n)
	}
	// And none is begun on a link that is closed: nothing is left on the others.
	if _, err := New(Config{Conns: []*nats.Conn{conns[1], conns[0]}, Names: names(t), Clients: out}); err == nil {
		t.Error("begun on a link that is closed")
	}
	if got := conns[1].NumSubscriptions(); got != left {
		t.Errorf("%d subscriptions are left of one that was not begun", got-left)
	}
}
