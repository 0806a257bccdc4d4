package follow

import (
	"fmt"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
)

var rooms = []string{"a", "b", "c"}

// commit stores a record with some events in a room.
func (w *world) commit(room string, end bool) uint64 {
	r := record.Record{Delta: []byte("delta"), End: end}
	for i := range w.rng.IntN(4) {
		kind := mq.TopicKind(w.rng.IntN(2))
		r.Events = append(r.Events, record.Event{Topic: kind, Type: fmt.Sprintf("%d.%d", w.seq+1, i)})
	}
	return w.store(subjectOf(room), r)
}

// join lets a connection subscribe: a worker stores a record and answers what includes it, and the answer is on its way.
func (w *world) join(p *fakePeer, t mq.Topic) {
	seq := uint64(0)
	if w.rng.IntN(3) > 0 {
		seq = w.commit(t.Room, false)
	} else if log := w.logs[subjectOf(t.Room)]; len(log) > 0 { // it changes nothing
		seq = log[len(log)-1].Seq
	}
	p.asking = true
	h := Handover{Room: t.Room, Seq: seq, Topic: t.Kind, Conn: p.id}
	h.Deliver = func(missed []mq.Event, done func()) {
		w.log("answer with %d passed on to peer %d, %d events missed", seq, p.id[0], len(missed))
		w.gw.task(p.loop, func() {
			if w.gw.subscribe(p, t, seq) {
				for _, e := range missed {
					w.gw.got(p, t, e.Type)
				}
			}
			p.asking = false
			done()
		})
	}
	h.Fail = func(err error) {
		w.log("answer with %d failed: %v", seq, err)
		w.gw.task(p.loop, func() { p.asking = false })
	}
	w.log("peer %d joins %v, answer with %d", p.id[0], t, seq)
	w.jobs = append(w.jobs, func() {
		w.posted = append(w.posted, func(now int64) { w.shard.handover(h, subjectOf(t.Room), now) })
	})
}

// TestModel compares what every subscriber gets with the logs, over random orders of everything that happens, with
// what NATS may do: lose, repeat and reorder, answer late, with old news or not at all, cut the connection, elect leaders.
func TestModel(t *testing.T) {
	total := Stats{}
	for seed := range uint64(600) {
		if !t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { modelRun(t, seed, &total) }) {
			break
		}
	}
	t.Logf("%+v", total)
	for what, n := range map[string]uint64{"duplicates": total.Duplicates, "gaps": total.Gaps, "filled": total.Filled,
		"replayed": total.Replayed, "checks": total.Checks, "failures": total.Failures, "plain": total.Plain} {
		if n == 0 {
			t.Errorf("no %s in all seeds: the model does not try that", what)
		}
	}
	if total.Lost != 0 || total.Malformed != 0 {
		t.Errorf("%d lost, %d malformed", total.Lost, total.Malformed)
	}
}

func modelRun(t *testing.T, seed uint64, total *Stats) {
	w := newWorld(t, seed)
	w.faults = seed%4 != 0
	for range 1 + w.rng.IntN(5) {
		w.gw.peer()
	}
	for range 600 {
		w.step()
	}
	w.finish()
	w.shard.stats.addTo(total)
}

func (w *world) step() {
	p := w.gw.peers[w.rng.IntN(len(w.gw.peers))]
	room := rooms[w.rng.IntN(len(rooms))]
	topic := mq.Topic{Kind: mq.TopicKind(w.rng.IntN(2)), Room: room}
	switch n := w.rng.IntN(200); {
	case n < 40:
		w.commit(room, false)
	case n < 43:
		w.send(Record{Subject: subjectOf(room), Data: (&record.Record{Events: []record.Event{{Topic: topic.Kind, Type: plainType}}}).AppendTo(nil)})
	case n < 60:
		if !p.asking {
			w.join(p, topic)
		}
	case n < 66:
		w.gw.task(p.loop, func() { w.gw.unsubscribe(p, topic) })
	case n < 67:
		w.commit(room, true)
	case n < 70:
		w.advance(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
	case n < 71:
		w.advance(time.Duration(w.rng.IntN(20)) * time.Second)
	case n < 73 && w.faults:
		w.toggle()
	case n < 75 && w.faults: // a new leader: what the old one has published may come late, once more, or never
		w.log("new leader")
		w.rng.Shuffle(len(w.flying), func(i, j int) { w.flying[i], w.flying[j] = w.flying[j], w.flying[i] })
		w.flying = w.flying[:len(w.flying)-w.rng.IntN(len(w.flying)/2+1)]
		w.post(func(now int64) { w.shard.checkAll(now) })
	default:
		w.move()
	}
}

// toggle cuts the connection or gives it back.
func (w *world) toggle() {
	if w.away = !w.away; w.away {
		w.cut = true
		w.log("cut")
		w.flying = nil
		return
	}
	w.log("back")
	w.post(func(now int64) { w.shard.checkAll(now) })
}

// finish lets everything arrive and checks that every subscriber has everything, and that nothing is left when they have
// gone.
func (w *world) finish() {
	w.log("finish")
	if w.away {
		w.toggle()
	}
	w.faults = false
	w.settle()
	w.advance(time.Minute)
	w.settle()
	for _, p := range w.gw.peers {
		if p.asking {
			w.fatal("the answer to peer %d never came", p.id[0])
		}
		for t, x := range p.topics {
			if seq, typ, more, end := w.gw.next(t, x); more || end {
				w.fatal("peer %d did not get %q of %d in %v (the end: %v), having all up to %d", p.id[0], typ, seq, t, end, x.after)
			}
		}
	}
	for _, p := range w.gw.peers {
		for t := range p.topics {
			w.gw.task(p.loop, func() { w.gw.unsubscribe(p, t) })
		}
	}
	w.settle()
	w.advance(2 * time.Minute)
	w.settle()
	if n := w.shard.stats.expired.Load(); n > 0 && !w.cut {
		w.fatal("%d answers failed", n)
	}
	s := w.shard
	if len(s.rooms) != 0 || s.ringBytes != 0 || s.queueBytes != 0 || s.stats.rooms.Load() != 0 || s.stats.held.Load() != 0 || len(s.suspects) != 0 {
		w.fatal("left: %d rooms, %d and %d bytes, %d rooms and %d held counted, %d to be checked", len(s.rooms), s.ringBytes, s.queueBytes,
			s.stats.rooms.Load(), s.stats.held.Load(), len(s.suspects))
	}
	for _, sub := range w.subs {
		if !sub.ended {
			w.fatal("still subscribed to %s", sub.subject)
		}
	}
}
