package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
)

// world is one shard between a fake stream and a fake gateway. Nothing happens but by its steps, all on the test's
// goroutine, in an order that a seed chooses: what is on its way anywhere waits in a list until a step moves it.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	now   int64
	shard *shard
	trace []string

	// The stream.
	seq      uint64
	logs     map[string][]Record // by subject
	subs     []*fakeSub
	flying   []flight // published, on their way to the shard, in the order of publication
	applied  uint64   // up to where the replicas have it: they answer what is not for the leader
	jobs     []func() // requests to the stream, in any order
	posted   []func(now int64)
	away     bool // the connection is cut
	cut      bool // it was, once
	faults   bool
	fetches  int
	truths   int
	checkers int

	gw *fakeGateway
}

type fakeSub struct {
	subject string
	active  bool // the servers know of it
	ended   bool
}

type flight struct {
	sub *fakeSub
	rec Record
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 6)), now: 1, logs: map[string][]Record{}}
	w.gw = &fakeGateway{w: w, loops: make([][]func(), 3), interest: map[string]int{}}
	w.shard = newShard(w, w.gw, slog.New(slog.DiscardHandler), defaultLinger, defaultCheckEvery, w.now)
	return w
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3fs ", float64(w.now)/1e9)+fmt.Sprintf(format, args...))
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-60):] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

// store stores a record and publishes it to who the servers know of.
func (w *world) store(subject string, r record.Record) uint64 {
	w.seq++
	prev := uint64(0)
	if log := w.logs[subject]; len(log) > 0 {
		prev = log[len(log)-1].Seq
	}
	rec := Record{Subject: subject, Seq: w.seq, Prev: prev, Data: r.AppendTo(nil)}
	w.logs[subject] = append(w.logs[subject], rec)
	w.log("stored %d (after %d) in %s", w.seq, prev, subject)
	w.send(rec)
	return w.seq
}

// send puts a record, or a plain event, on its way to the subscriptions.
func (w *world) send(rec Record) {
	for _, sub := range w.subs {
		if !sub.active || sub.subject != rec.Subject || w.away {
			continue
		}
		f := flight{sub, rec}
		switch n := w.rng.IntN(100); {
		case !w.faults || rec.Seq == 0 || n >= 8:
			w.flying = append(w.flying, f)
		case n < 3: // lost
			w.log("lost %d", rec.Seq)
		case n < 6: // twice
			w.flying = append(w.flying, f, f)
		default: // overtakes, as when a new leader publishes what the old one has published too late
			at := w.rng.IntN(len(w.flying) + 1)
			w.flying = slices.Insert(w.flying, at, f)
		}
	}
}

// subscribe implements outside.
func (w *world) subscribe(subject string) (func(), error) {
	if w.faults && w.rng.IntN(20) == 0 {
		return nil, errors.New("no subscription today")
	}
	sub := &fakeSub{subject: subject, active: w.rng.IntN(2) == 0}
	for _, other := range w.subs {
		if other.subject == subject && !other.ended {
			w.fatal("a second subscription to %s", subject)
		}
	}
	w.subs = append(w.subs, sub)
	w.log("subscribed to %s", subject)
	return func() { sub.ended, sub.active = true, false; w.log("unsubscribed from %s", subject) }, nil
}

// view is what is answered of a log after a sequence.
func (w *world) view(subject string, after uint64, truth bool) (recs []Record) {
	for _, rec := range w.logs[subject] {
		if rec.Seq > after && (truth || rec.Seq <= w.applied) {
			recs = append(recs, rec)
		}
	}
	return recs
}

var errFake = errors.New("no answer")

// job answers a request: it is looked up at one time and arrives at a later one.
func (w *world) job(look func() error, arrive func(now int64)) {
	w.jobs = append(w.jobs, func() {
		err := errFake
		if !w.away && (!w.faults || w.rng.IntN(10) > 0) {
			err = look()
		}
		w.jobs = append(w.jobs, func() {
			if err != nil {
				w.log("a request was not answered: %v", err)
			}
			w.posted = append(w.posted, arrive)
		})
	})
}

// fetch implements outside.
func (w *world) fetch(j *fetchJob) {
	if w.fetches++; j.truth {
		w.truths++
	}
	j.err = errFake
	w.job(func() error {
		j.recs, j.err = w.view(j.room.subject, j.after, j.truth), nil
		n := 1
		if !j.truth {
			n = 1 + w.rng.IntN(4)
		}
		j.recs = j.recs[:min(n, len(j.recs))]
		return nil
	}, func(now int64) { w.shard.fetched(j, now) })
}

// check implements outside.
func (w *world) check(j *checkJob) {
	w.checkers++
	j.err = errFake
	w.job(func() error {
		j.err = nil
		j.upTo = w.applied
		for _, subject := range j.subjects {
			if recs := w.view(subject, 0, false); len(recs) > 0 && recs[len(recs)-1].Seq > j.after {
				j.recs = append(j.recs, recs[len(recs)-1])
			}
		}
		return nil
	}, func(now int64) { w.shard.checkedRooms(j, now) })
}

// post implements outside.
func (w *world) post(f func(now int64)) { w.posted = append(w.posted, f) }

// move moves one thing that is on its way. false: nothing is.
func (w *world) move() bool {
	var can []func()
	if len(w.flying) > 0 && !w.away {
		can = append(can, func() {
			f := w.flying[0]
			w.flying = w.flying[1:]
			if !f.sub.ended || w.rng.IntN(2) == 0 { // some come after the end of the subscription
				w.shard.message(f.sub.subject, f.rec, w.now)
			}
		})
	}
	if len(w.jobs) > 0 {
		can = append(can, func() {
			i := w.rng.IntN(len(w.jobs))
			f := w.jobs[i]
			w.jobs = slices.Delete(w.jobs, i, i+1)
			f()
		})
	}
	if len(w.posted) > 0 {
		can = append(can, func() {
			f := w.posted[0]
			w.posted = w.posted[1:]
			f(w.now)
		})
	}
	for i, loop := range w.gw.loops {
		if len(loop) > 0 {
			can = append(can, func() {
				w.gw.loops[i] = loop[1:]
				loop[0]()
			})
		}
	}
	if w.applied < w.seq && (w.rng.IntN(4) == 0 || !w.faults) {
		can = append(can, func() { w.applied++ })
	}
	for _, sub := range w.subs {
		if !sub.active && !sub.ended {
			can = append(can, func() { sub.active = true })
		}
	}
	if len(can) == 0 {
		return false
	}
	can[w.rng.IntN(len(can))]()
	if w.shard.next() <= w.now {
		w.shard.tick(w.now)
	}
	return true
}

// advance lets time pass, and what is due happen.
func (w *world) advance(d time.Duration) {
	for end := w.now + int64(d); ; {
		next := max(w.shard.next(), w.now)
		if next > end {
			w.now = end
			return
		}
		w.now = next
		w.shard.tick(w.now)
		if !w.faults {
			w.settle()
		} else {
			return
		}
	}
}

// settle moves everything that is on its way.
func (w *world) settle() {
	for range 1 << 20 {
		if !w.move() {
			return
		}
	}
	w.fatal("it never comes to rest")
}

// fakeGateway is a gateway as a shard sees it: loops with tasks in order, connections with subscriptions.
type fakeGateway struct {
	w        *world
	loops    [][]func()
	peers    []*fakePeer
	interest map[string]int
	ended    int
}

// fakePeer is a connection. What it gets of a topic it compares with the log at once.
type fakePeer struct {
	id     conn.ID
	loop   int
	topics map[mq.Topic]*expectation
	asking bool // a request of it is under way
}

// expectation is what a subscriber must get next.
type expectation struct {
	after uint64 // sequence of the last record of which it got all
	index int    // events that it got of the next one that has any for it
}

func (g *fakeGateway) peer() *fakePeer {
	p := &fakePeer{loop: g.w.rng.IntN(len(g.loops)), topics: map[mq.Topic]*expectation{}}
	p.id[0] = byte(len(g.peers) + 1)
	g.peers = append(g.peers, p)
	return p
}

func (g *fakeGateway) task(loop int, f func()) { g.loops[loop] = append(g.loops[loop], f) }

func subjectOf(room string) string { return "p.room." + room }

func (g *fakeGateway) subscribe(p *fakePeer, t mq.Topic, seq uint64) bool {
	if p.topics[t] != nil {
		return false
	}
	p.topics[t] = &expectation{after: seq}
	if g.interest[t.Room]++; g.interest[t.Room] == 1 {
		g.w.post(func(now int64) { g.w.shard.interest(t.Room, subjectOf(t.Room), true, now) })
	}
	return true
}

func (g *fakeGateway) unsubscribe(p *fakePeer, t mq.Topic) {
	if p.topics[t] == nil {
		return
	}
	delete(p.topics, t)
	if g.interest[t.Room]--; g.interest[t.Room] == 0 {
		g.w.post(func(now int64) { g.w.shard.interest(t.Room, subjectOf(t.Room), false, now) })
	}
}

// Publish implements Clients.
func (g *fakeGateway) Publish(t mq.Topic, typ string, payload []byte) {
	typ = string([]byte(typ)) // it is borrowed
	for i := range g.loops {
		g.task(i, func() {
			for _, p := range g.peers {
				if p.loop == i && p.topics[t] != nil {
					g.got(p, t, typ)
				}
			}
		})
	}
}

// EndTopic implements Clients.
func (g *fakeGateway) EndTopic(t mq.Topic) {
	for i := range g.loops {
		g.task(i, func() {
			for _, p := range g.peers {
				if p.loop == i && p.topics[t] != nil {
					g.endOf(p, t)
					g.unsubscribe(p, t)
				}
			}
		})
	}
}

// Unsubscribe implements Clients.
func (g *fakeGateway) Unsubscribe(id conn.ID, t mq.Topic) {
	for _, p := range g.peers {
		if p.id == id {
			g.task(p.loop, func() {
				if p.topics[t] != nil {
					g.endOf(p, t)
					g.unsubscribe(p, t)
				}
			})
		}
	}
}

// endOf checks that a subscriber has got all up to the end of its room.
func (g *fakeGateway) endOf(p *fakePeer, t mq.Topic) {
	g.ended++
	x := p.topics[t]
	seq, _, _, end := g.next(t, x)
	if !end {
		g.w.fatal("the room ends for peer %d, which has all of %v up to %d but not event %d of %d", p.id[0], t, x.after, x.index, seq)
	}
}

// next returns the next event that a subscriber must get, or that its room ends.
func (g *fakeGateway) next(t mq.Topic, x *expectation) (seq uint64, typ string, more, end bool) {
	for _, rec := range g.w.logs[subjectOf(t.Room)] {
		if rec.Seq <= x.after {
			continue
		}
		var r record.Record
		if err := r.Unmarshal(rec.Data); err != nil {
			g.w.fatal("%v", err)
		}
		i := 0
		for _, e := range r.Events {
			if e.Topic == t.Kind {
				if i == x.index {
					return rec.Seq, e.Type, true, false
				}
				i++
			}
		}
		if r.End {
			return rec.Seq, "", false, true
		}
		x.after, x.index = rec.Seq, 0
	}
	return 0, "", false, false
}

// got compares what a subscriber gets with what it must get.
func (g *fakeGateway) got(p *fakePeer, t mq.Topic, typ string) {
	if typ == plainType {
		return
	}
	x := p.topics[t]
	seq, want, more, _ := g.next(t, x)
	if !more || typ != want {
		g.w.fatal("peer %d got %s of %v, expected %q of %d, having all up to %d", p.id[0], typ, t, want, seq, x.after)
	}
	x.index++
}

const plainType = "plain"
