package follow

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// arena is a gateway of one loop with a Follower, and workers that write the logs of rooms, on real NATS servers.
type arena struct {
	t     testing.TB
	names subjects.Names
	js    jetstream.JetStream // of the workers
	f     *Follower
	rooms []*arenaRoom

	tasks chan func() // the loop of the gateway
	done  sync.WaitGroup

	// What follows belongs to the loop.
	subscribers map[mq.Topic][]*arenaPeer
	interest    map[string]int
	peers       []*arenaPeer // all there have ever been
}

// arenaRoom is a log as its worker knows it.
type arenaRoom struct {
	id  string
	mu  sync.Mutex
	log []arenaRecord
	ids int
}

type arenaRecord struct {
	seq    uint64
	events int // of each topic
}

type arenaPeer struct {
	id    conn.ID
	topic mq.Topic
	after uint64
	until uint64 // 0: it stays; else everything up to here it must have
	got   []string
}

func names(t testing.TB) subjects.Names {
	n, err := subjects.New(subjects.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newArena makes the stream with the workers' connection and a Follower with the gateway's. Both connections outlive it.
func newArena(t testing.TB, workers *nats.Conn, gateway []*nats.Conn, replicas, rooms int, cfg Config) *arena {
	t.Helper()
	a := &arena{t: t, names: names(t), tasks: make(chan func(), 1<<20), subscribers: map[mq.Topic][]*arenaPeer{}, interest: map[string]int{}}
	var err error
	if a.js, err = jetstream.New(workers); err != nil {
		t.Fatal(err)
	}
	sc := a.names.Rooms()
	sc.Replicas = replicas
	natstest.Eventually(t, "the stream is made", func() bool {
		_, err := a.js.CreateOrUpdateStream(t.Context(), sc)
		return err == nil
	})
	cfg.Conns, cfg.Names, cfg.Clients = gateway, a.names, a
	if a.f, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	for i := range rooms {
		a.rooms = append(a.rooms, &arenaRoom{id: fmt.Sprint("room", i)})
	}
	a.done.Go(func() {
		for f := range a.tasks {
			f()
		}
	})
	t.Cleanup(func() {
		a.f.Close()
		close(a.tasks)
		a.done.Wait()
	})
	return a
}

// do runs f on the loop and waits for it.
func (a *arena) do(f func()) {
	done := make(chan struct{})
	a.tasks <- func() { f(); close(done) }
	<-done
}

// Publish implements Clients.
func (a *arena) Publish(t mq.Topic, typ string, payload []byte) {
	typ = string([]byte(typ))
	a.tasks <- func() {
		for _, p := range a.subscribers[t] {
			p.got = append(p.got, typ)
		}
	}
}

// EndTopic implements Clients. No room ends here.
func (a *arena) EndTopic(t mq.Topic) { a.t.Errorf("%v ends", t) }

// Unsubscribe implements Clients.
func (a *arena) Unsubscribe(_ conn.ID, t mq.Topic) { a.t.Errorf("unsubscribed from %v", t) }

// store writes a record with n events of each topic and returns its sequence, whatever the servers do.
func (a *arena) store(r *arenaRoom, n int) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids++
	id := fmt.Sprintf("%s-%d", r.id, r.ids)
	last := uint64(0)
	if len(r.log) > 0 {
		last = r.log[len(r.log)-1].seq
	}
	rec := record.Record{Delta: []byte(id)}
	for i := range n {
		for _, kind := range []mq.TopicKind{mq.TopicRoom, mq.TopicConversation} {
			rec.Events = append(rec.Events, record.Event{Topic: kind, Type: fmt.Sprintf("%s.%d.%d", id, i, kind), Payload: make([]byte, 100)})
		}
	}
	m := &nats.Msg{Subject: a.names.Log(r.id), Data: rec.AppendTo(nil), Header: nats.Header{}}
	m.Header.Set(subjects.HeaderMsgID, id)
	m.Header.Set(subjects.HeaderExpectedLast, strconv.FormatUint(last, 10))
	var err error
	for end := time.Now().Add(natstest.Deadline); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		var ack *jetstream.PubAck
		ack, err = a.js.PublishMsg(ctx, m)
		cancel()
		if err == nil {
			r.log = append(r.log, arenaRecord{ack.Sequence, n})
			return ack.Sequence
		}
	}
	a.t.Errorf("%s was not stored: %v", id, err)
	return last
}

// join lets a new connection subscribe by an answer that comes after a while, and calls then, on the loop, when it is there.
func (a *arena) join(rng *rand.Rand, r *arenaRoom, then func(p *arenaPeer)) {
	p := &arenaPeer{topic: mq.Topic{Kind: mq.TopicKind(rng.IntN(2)), Room: r.id}}
	p.after = a.store(r, 1)
	if rng.IntN(3) == 0 { // the answer lags behind
		a.store(r, rng.IntN(3))
	}
	a.f.Handover(Handover{Room: r.id, Seq: p.after, Topic: p.topic.Kind, Conn: p.id,
		Deliver: func(missed []mq.Event, done func()) {
			a.tasks <- func() {
				a.peers = append(a.peers, p)
				a.subscribers[p.topic] = append(a.subscribers[p.topic], p)
				if a.interest[r.id]++; a.interest[r.id] == 1 {
					a.f.Interest(r.id, true)
				}
				for _, e := range missed {
					p.got = append(p.got, e.Type)
				}
				done()
				then(p)
			}
		},
		Fail: func(err error) { a.t.Errorf("answer with %d: %v", p.after, err) }})
}

// leave ends a subscription. On the loop.
func (a *arena) leave(p *arenaPeer) {
	s := a.subscribers[p.topic]
	i := slices.Index(s, p)
	a.subscribers[p.topic] = slices.Delete(s, i, i+1)
	if a.interest[p.topic.Room]--; a.interest[p.topic.Room] == 0 {
		a.f.Interest(p.topic.Room, false)
	}
	p.until = 1
}

// want returns what a subscriber must get of a log when it stays.
func (a *arena) want(p *arenaPeer) (want []string) {
	i := slices.IndexFunc(a.rooms, func(r *arenaRoom) bool { return r.id == p.topic.Room })
	r := a.rooms[i]
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, rec := range r.log {
		for k := 0; rec.seq > p.after && k < rec.events; k++ {
			want = append(want, fmt.Sprintf("%s-%d.%d.%d", r.id, n+1, k, p.topic.Kind))
		}
	}
	return want
}

// check waits until all who stay have everything, and compares.
func (a *arena) check() {
	a.t.Helper()
	natstest.Eventually(a.t, "every subscriber has everything", func() bool {
		all := true
		a.do(func() {
			for _, p := range a.peers {
				all = all && (p.until != 0 || len(p.got) >= len(a.want(p)))
			}
		})
		return all
	})
	a.do(func() {
		for i, p := range a.peers {
			want := a.want(p)
			if p.until != 0 {
				want = want[:min(len(want), len(p.got))]
			}
			if !slices.Equal(p.got, want) {
				at := 0
				for at < len(p.got) && at < len(want) && p.got[at] == want[at] {
					at++
				}
				a.t.Errorf("peer %d of %v after %d: %d events, expected %d; the first difference is at %d: %q, expected %q", i, p.topic, p.after,
					len(p.got), len(want), at, p.got[at:min(at+3, len(p.got))], want[at:min(at+3, len(want))])
				if a.t.Failed() {
					return
				}
			}
		}
	})
}

// load writes records into all rooms from several workers while connections come and go, until stop says so. Then it
// checks.
func (a *arena) load(workers int, stop <-chan struct{}) {
	a.t.Helper()
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r := a.rooms[rng.IntN(len(a.rooms))]
				if rng.IntN(6) > 0 {
					a.store(r, rng.IntN(3))
					continue
				}
				stays := rng.IntN(2) == 0
				a.join(rng, r, func(p *arenaPeer) {
					if !stays && len(a.peers)%3 > 0 { // it leaves a little later
						q := a.peers[len(a.peers)/2]
						if q.until == 0 {
							a.leave(q)
						}
					}
				})
			}
		})
	}
	all.Wait()
	a.check()
	s := a.f.Stats()
	a.t.Logf("%+v", s)
	if s.Lost != 0 || s.Malformed != 0 || s.Expired != 0 {
		a.t.Errorf("lost or failed: %+v", s)
	}
}

// testLog writes what is logged to the test.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p[:len(p)-1]))
	return len(p), nil
}
