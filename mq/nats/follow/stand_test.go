package follow

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
)

// stand is a shard in the test's hands: requests to the stream wait until the test answers them.
type stand struct {
	*testing.T
	s       *shard
	now     int64
	got     []string // what went to clients, in order
	fetches []*fetchJob
	checks  []*checkJob
	subs    []string // what was subscribed to, and "-" before what was unsubscribed from
	refuse  error    // subscriptions
	posted  []func(int64)
	logged  bytes.Buffer
}

func newStand(t *testing.T) *stand {
	b := &stand{T: t, now: 1}
	b.s = newShard(b, b, slog.New(slog.NewTextHandler(&b.logged, nil)), defaultLinger, defaultCheckEvery, b.now)
	return b
}

func (b *stand) subscribe(subject string) (func(), error) {
	if b.refuse != nil {
		return nil, b.refuse
	}
	b.subs = append(b.subs, subject)
	return func() { b.subs = append(b.subs, "-"+subject) }, nil
}
func (b *stand) fetch(j *fetchJob)   { b.fetches = append(b.fetches, j) }
func (b *stand) check(j *checkJob)   { b.checks = append(b.checks, j) }
func (b *stand) post(f func(int64))  { b.posted = append(b.posted, f) }
func (b *stand) EndTopic(t mq.Topic) { b.got = append(b.got, fmt.Sprint("end ", t.Kind, t.Room)) }
func (b *stand) Publish(t mq.Topic, typ string, _ []byte) {
	b.got = append(b.got, fmt.Sprint(string([]byte(typ)), " ", t.Kind, t.Room))
}
func (b *stand) Unsubscribe(id conn.ID, t mq.Topic) {
	b.got = append(b.got, fmt.Sprint("unsubscribe ", id[0], " ", t.Kind, t.Room))
}

// rec makes a record of the room "a" with an event of each topic.
func rec(seq, prev uint64) Record {
	r := record.Record{Events: []record.Event{{Topic: mq.TopicRoom, Type: fmt.Sprint("e", seq)}, {Topic: mq.TopicConversation, Type: fmt.Sprint("c", seq)}}}
	return Record{Subject: subjectOf("a"), Seq: seq, Prev: prev, Data: r.AppendTo(nil)}
}

func (b *stand) message(rec Record) { b.s.message(subjectOf("a"), rec, b.now) }

// hand hands over an answer for connection n in room "a".
func (b *stand) hand(n byte, seq uint64) {
	h := Handover{Room: "a", Seq: seq, Topic: mq.TopicRoom, Conn: conn.ID{n}}
	h.Deliver = func(missed []mq.Event, done func()) {
		line := fmt.Sprint("answer ", n)
		for _, e := range missed {
			line += " " + e.Type
		}
		b.got = append(b.got, line)
		done()
	}
	h.Fail = func(err error) { b.got = append(b.got, fmt.Sprintf("fail %d: %v", n, err)) }
	b.s.handover(h, subjectOf("a"), b.now)
	b.tick()
}

// interest says whether room "a" has subscribers.
func (b *stand) interest(some bool) { b.s.interest("a", subjectOf("a"), some, b.now); b.tick() }

func (b *stand) tick() {
	for _, f := range b.posted {
		f(b.now)
	}
	b.posted = nil
	if b.s.next() <= b.now {
		b.s.tick(b.now)
	}
}

// advance lets time pass up to d, tick by tick.
func (b *stand) advance(d time.Duration) {
	for end := b.now + int64(d); ; {
		b.tick()
		next := max(b.s.next(), b.now+1)
		if next > end {
			b.now = end
			return
		}
		b.now = next
		b.tick()
	}
}

// fetched answers the only fetch that waits.
func (b *stand) fetched(after uint64, truth bool, err error, recs ...Record) {
	b.Helper()
	if len(b.fetches) != 1 {
		b.Fatalf("%d fetches, expected one", len(b.fetches))
	}
	j := b.fetches[0]
	b.fetches = nil
	if j.after != after || j.truth != truth {
		b.Fatalf("fetch after %d, truth %v, expected %d, %v", j.after, j.truth, after, truth)
	}
	j.recs, j.err = recs, err
	b.s.fetched(j, b.now)
	b.tick()
}

// checked answers the only check that waits, of the given number of rooms.
func (b *stand) checked(rooms int, upTo uint64, err error, recs ...Record) {
	b.Helper()
	if len(b.checks) != 1 || len(b.checks[0].rooms) != rooms {
		b.Fatalf("%d checks, expected one of %d rooms", len(b.checks), rooms)
	}
	j := b.checks[0]
	b.checks = nil
	j.recs, j.upTo, j.err = recs, upTo, err
	b.s.checkedRooms(j, b.now)
	b.tick()
}

func (b *stand) expect(want ...string) {
	b.Helper()
	if !slices.Equal(b.got, want) {
		b.Fatalf("got %q, expected %q", b.got, want)
	}
	b.got = nil
}

func (b *stand) stats() (s Stats) {
	b.s.stats.addTo(&s)
	return s
}

// member makes "a" a room with subscribers that have everything up to seq.
func member(t *testing.T, seq uint64) *stand {
	b := newStand(t)
	b.hand(1, seq)
	b.interest(true)
	b.expect("answer 1")
	b.checked(1, seq, nil)
	return b
}
