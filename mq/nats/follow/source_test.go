package follow

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
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

// put stores a record of so many bytes in a room, with the sequence before it when that is not 0.
func put(t *testing.T, js jetstream.JetStream, room string, last uint64, size int) uint64 {
	t.Helper()
	m := &nats.Msg{Subject: names(t).Log(room), Data: sized(size), Header: nats.Header{}}
	if last > 0 {
		m.Header.Set(subjects.HeaderExpectedLast, strconv.FormatUint(last, 10))
	}
	ack, err := js.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func stream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<20)) // a slow machine may not keep up
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), names(t).Rooms()); err != nil {
		t.Fatal(err)
	}
	return js
}

// What the stream answers, in each of its ways: whole answers, parts of them, nothing, and no stream.
func TestSource(t *testing.T) {
	s := natstest.Single(t)
	nc := natstest.Connect(t, []string{s.URL()})
	n := newSource([]*nats.Conn{nc}, names(t))
	fetch := func(id string, after uint64, truth bool) *fetchJob {
		j := &fetchJob{room: &room{subject: names(t).Room(id)}, after: after, truth: truth}
		n.fetch(t.Context(), n.links[0], j)
		return j
	}
	check := func(after uint64, rooms ...string) *checkJob {
		j := &checkJob{after: after}
		for _, room := range rooms {
			j.subjects = append(j.subjects, names(t).Room(room))
		}
		n.check(t.Context(), n.links[0], j)
		return j
	}
	for _, truth := range []bool{false, true} {
		if j := fetch("a", 0, truth); j.err == nil || len(j.recs) > 0 {
			t.Errorf("without a stream: %d records, %v", len(j.recs), j.err)
		}
	}
	if j := check(0, "a"); j.err == nil {
		t.Error("a check without a stream")
	}
	if _, err := n.created(t.Context()); err == nil {
		t.Error("a stream that does not exist was made")
	}

	js := stream(t, nc)
	if j := check(0, "a"); j.err != nil || len(j.recs) != 0 || j.upTo != 0 {
		t.Errorf("an empty stream: %+v", j)
	}
	var seqs []uint64
	last := uint64(0)
	for range fetchRecords + 2 {
		seqs = append(seqs, put(t, js, "a", last, 10))
		last = seqs[len(seqs)-1]
		put(t, js, "b", 0, 10)
	}
	for _, test := range []struct {
		after uint64
		truth bool
		from  int
		n     int
	}{{0, false, 0, fetchRecords}, {seqs[0], false, 1, fetchRecords}, {seqs[1], false, 2, fetchRecords}, {seqs[2], false, 3, fetchRecords - 1},
		{last, false, 0, 0}, {0, true, 0, 1}, {seqs[6], true, 7, 1}, {last - 1, true, len(seqs) - 1, 1}, {last, true, 0, 0}} {
		j := fetch("a", test.after, test.truth)
		if j.err != nil || len(j.recs) != test.n {
			t.Fatalf("%+v: %d records, %v", test, len(j.recs), j.err)
		}
		for i, rec := range j.recs {
			prev := uint64(0)
			if test.from+i > 0 {
				prev = seqs[test.from+i-1]
			}
			if rec.Seq != seqs[test.from+i] || rec.Prev != prev || len(rec.Data) != 10 {
				t.Fatalf("%+v: record %d is %d after %d, %d bytes", test, i, rec.Seq, rec.Prev, len(rec.Data))
			}
		}
	}
	if j := fetch("none", 0, false); j.err != nil || len(j.recs) != 0 {
		t.Errorf("a room without a log: %+v", j)
	}

	j := check(0, "a", "b", "none")
	if j.err != nil || len(j.recs) != 2 || j.upTo != last+1 || j.recs[0].Subject != names(t).Room("a") || j.recs[0].Prev != last-2 || j.recs[1].Prev != last {
		t.Errorf("%d records up to %d, %v", len(j.recs), j.upTo, j.err)
	}
	if j := check(last, "a", "b"); j.err != nil || len(j.recs) != 1 || j.recs[0].Seq != last+1 || j.upTo != last+1 {
		t.Errorf("%d records up to %d, %v", len(j.recs), j.upTo, j.err)
	}
	if j := check(last+1, "a", "b"); j.err != nil || len(j.recs) != 0 {
		t.Errorf("%d records up to %d, %v", len(j.recs), j.upTo, j.err)
	}
	var big []string
	for i := range 4 { // more than one answer may have
		big = append(big, fmt.Sprint("big", i))
		put(t, js, big[i], 0, fetchBytes*2/5)
	}
	if j := check(0, big...); j.err != nil || len(j.recs) != 4 || j.upTo != last+5 {
		t.Errorf("%d records up to %d, %v", len(j.recs), j.upTo, j.err)
	}

	nc.Close()
	if j := fetch("a", 0, false); j.err != errAway {
		t.Errorf("not connected: %v", j.err)
	}
	if j := check(0, "a"); j.err != errAway {
		t.Errorf("not connected: %v", j.err)
	}
	if _, err := n.created(t.Context()); err != errAway {
		t.Errorf("not connected: %v", err)
	}
}

// What a message says of its place.
func TestPublished(t *testing.T) {
	for _, test := range []struct {
		seq, last string
		want      Record
	}{
		{"", "", Record{}},
		{"", "5", Record{}},
		{"7", "5", Record{Seq: 7, Prev: 5}},
		{"7", "0", Record{Seq: 7}},
		{"7", "", Record{Seq: 7, Prev: 6}},
		{"7", "9", Record{Seq: 7, Prev: 6}},
		{"seven", "5", Record{}},
	} {
		m := &nats.Msg{Header: nats.Header{}}
		if test.seq != "" {
			m.Header[subjects.HeaderSequence] = []string{test.seq}
		}
		if test.last != "" {
			m.Header[subjects.HeaderLastSequence] = []string{test.last}
		}
		if got := published(m); got.Seq != test.want.Seq || got.Prev != test.want.Prev {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}

// sink takes what clients would get.
type sink struct {
	mu   sync.Mutex
	got  []string
	hold chan struct{} // nil: Publish does not wait
}

func (s *sink) Publish(_ mq.Topic, typ string, _ []byte) {
	s.mu.Lock()
	s.got = append(s.got, strings.Clone(typ))
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
}
func (s *sink) EndTopic(mq.Topic)             {}
func (s *sink) Unsubscribe(conn.ID, mq.Topic) {}

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// All faults of a configuration are said at once.
func TestNewFails(t *testing.T) {
	_, err := New(Config{Linger: -1})
	if err == nil || strings.Count(err.Error(), "follow:") != 4 {
		t.Errorf("%v", err)
	}
	nc := natstest.Connect(t, []string{natstest.Single(t).URL()})
	nc.Close()
	if _, err := New(Config{Conns: []*nats.Conn{nc}, Names: names(t), Clients: &sink{}}); err == nil {
		t.Error("a connection that is closed")
	}
}

// After Close nothing is followed, and answers fail, those that wait and new ones.
func TestClose(t *testing.T) {
	nc := natstest.Connect(t, []string{natstest.Single(t).URL()})
	stream(t, nc)
	before := nc.NumSubscriptions()
	f, err := New(Config{Conns: []*nats.Conn{nc}, Names: names(t), Clients: &sink{}})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 2)
	h := Handover{Room: "a", Seq: 5, Deliver: func(_ []mq.Event, done func()) { done() }, Fail: func(err error) { failed <- err }}
	f.Handover(h)
	h.Seq = 10
	f.Handover(h)
	f.Interest("a", true)
	natstest.Eventually(t, "an answer waits", func() bool { return f.Stats().Held == 1 && f.Stats().Handovers == 1 })
	f.Close()
	f.Handover(h)
	f.Interest("a", false)
	f.CheckAll()
	for range 2 {
		if err := <-failed; err != ErrClosed {
			t.Error(err)
		}
	}
	if n := nc.NumSubscriptions(); n > before+1 { // one is nats.go's own, for answers
		t.Errorf("%d subscriptions, %d before", n, before)
	}
}

// A shard that cannot keep up loses messages, and reads them from the stream when it can.
func TestOverflow(t *testing.T) {
	nc := natstest.Connect(t, []string{natstest.Single(t).URL()}, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	js := stream(t, nc)
	out := &sink{hold: make(chan struct{})}
	f, err := New(Config{Conns: []*nats.Conn{nc}, Names: names(t), Clients: out, Shards: 1, CheckEvery: time.Hour, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Handover(Handover{Room: "a", Deliver: func(_ []mq.Event, done func()) { f.Interest("a", true); done() }, Fail: func(err error) { t.Error(err) }})
	natstest.Eventually(t, "the room is followed", func() bool { return f.Stats().Rooms == 1 })
	const n = 2*messages + 1000
	for i := range n {
		r := record.Record{Events: []record.Event{{Type: fmt.Sprint(i)}}}
		if _, err := js.PublishAsync(names(t).Log("a"), r.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	if err := nc.Flush(); err != nil { // nats.go has given all there is
		t.Fatal(err)
	}
	close(out.hold)
	natstest.Eventually(t, "everything has arrived", func() bool { return out.len() >= n })
	for i, typ := range out.got {
		if typ != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, typ)
		}
	}
	if s := f.Stats(); s.Overflows == 0 || s.Filled == 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

// How many records may wait for a shard that is busy: up to the limit they all come as they are, above it the rest is read
// from the stream.
func TestMessagesLimit(t *testing.T) {
	for _, test := range []struct {
		n    int // behind the one that the shard is busy with
		lost bool
	}{{messages - 1, false}, {messages, false}, {messages + 1, true}} {
		slow := make(chan struct{}, 1)
		nc := natstest.Connect(t, []string{natstest.Single(t).URL()}, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {
			select {
			case slow <- struct{}{}:
			default:
			}
		}))
		js := stream(t, nc)
		out := &sink{hold: make(chan struct{})}
		f, err := New(Config{Conns: []*nats.Conn{nc}, Names: names(t), Clients: out, Shards: 1, CheckEvery: time.Hour, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		f.Handover(Handover{Room: "a", Deliver: func(_ []mq.Event, done func()) { f.Interest("a", true); done() }, Fail: func(err error) { t.Error(err) }})
		ask(f.shards[0], func(*shard) bool { return true }) // the room is followed
		store := func(n int) {
			t.Helper()
			for range n {
				r := record.Record{Events: []record.Event{{Type: "t"}}}
				if _, err := js.PublishAsync(names(t).Log("a"), r.AppendTo(nil)); err != nil {
					t.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			if err := nc.Flush(); err != nil { // nats.go has given all there is
				t.Fatal(err)
			}
		}
		store(1)
		natstest.Eventually(t, "the shard is busy", func() bool { return out.len() == 1 })
		store(test.n)
		if test.lost {
			natstest.Eventually(t, "one is lost", func() bool { return len(slow) == 1 })
			<-slow
		}
		close(out.hold)
		natstest.Eventually(t, "everything has arrived", func() bool { return out.len() >= 1+test.n })
		f.Close()
		if s := f.Stats(); s.Filled > 0 != test.lost || s.Lost != 0 || out.len() != 1+test.n || len(slow) > 0 {
			t.Errorf("%d behind one: %+v, %d events", test.n, s, out.len())
		}
	}
}

// The stream is made anew, with sequences from 1: subscribers get what is in it.
func TestStreamReplaced(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	direct := natstest.Connect(t, []string{s.URL()})
	js := stream(t, direct)
	out := &sink{}
	f, err := New(Config{Conns: []*nats.Conn{natstest.Connect(t, []string{p.URL()})}, Names: names(t), Clients: out, Log: testLog(t),
		CheckEvery: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	store := func(typ string) {
		t.Helper()
		r := record.Record{Events: []record.Event{{Type: typ}}}
		if _, err := js.Publish(t.Context(), names(t).Log("a"), r.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		store("before")
	}
	f.Handover(Handover{Room: "a", Seq: 4, Deliver: func(_ []mq.Event, done func()) { f.Interest("a", true); done() }, Fail: func(err error) { t.Error(err) }})
	natstest.Eventually(t, "the room is followed", func() bool { return out.len() == 1 && f.Stats().Checks > 0 })
	p.Cut()
	if err := js.DeleteStream(t.Context(), names(t).RoomsStream()); err != nil {
		t.Fatal(err)
	}
	stream(t, direct)
	store("new")
	p.Heal()
	natstest.Eventually(t, "the new stream is followed", func() bool { return out.len() >= 2 })
	if out.got[0] != "before" || out.got[1] != "new" {
		t.Errorf("%q", out.got)
	}
}

// Thousands of rooms, and what each costs. Ten thousand subscribers of one room are one subscription.
func TestManyRooms(t *testing.T) {
	const rooms, members = 5000, 10000
	nc := natstest.Connect(t, []string{natstest.Single(t).URL()})
	js := stream(t, nc)
	out := &sink{}
	f, err := New(Config{Conns: []*nats.Conn{nc}, Names: names(t), Clients: out, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var heap [2]runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap[0])
	subscriptions := nc.NumSubscriptions()
	pass := func(room string) Handover {
		return Handover{Room: room, Deliver: func(_ []mq.Event, done func()) { done() }, Fail: func(err error) { t.Error(err) }}
	}
	for i := range rooms {
		room := fmt.Sprintf("%026d", i) // as long as a room id is
		f.Handover(pass(room))
		f.Interest(room, true)
	}
	for range members {
		f.Handover(pass(fmt.Sprintf("%026d", 0)))
	}
	natstest.Eventually(t, "all rooms are followed and checked", func() bool {
		s := f.Stats()
		return s.Rooms == rooms && s.Handovers == rooms+members && s.Checks >= 3*rooms/checkRooms
	})
	runtime.GC()
	runtime.ReadMemStats(&heap[1])
	if n := nc.NumSubscriptions() - subscriptions; n < rooms || n > rooms+20 { // and those of requests under way
		t.Errorf("%d subscriptions for %d rooms", n, rooms)
	}
	each := int(heap[1].HeapAlloc-heap[0].HeapAlloc) / rooms
	t.Logf("%d bytes per room, with the client's and the server's part of its subscription", each)
	for i := range rooms {
		r := record.Record{Events: []record.Event{{Type: "t"}}}
		if _, err := js.PublishAsync(names(t).Log(fmt.Sprintf("%026d", i)), r.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, "every room got its record", func() bool { return out.len() >= rooms })
	if n := out.len(); n != rooms {
		t.Errorf("%d events", n)
	}
	<-js.PublishAsyncComplete()
}

// What a followed room costs a shard itself, when nothing happens in it: the limit is a little above what was measured.
func TestRoomMemory(t *testing.T) {
	const rooms, limit = 20000, 640
	b := newStand(t)
	var heap [2]runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap[0])
	for i := range rooms {
		room := fmt.Sprintf("%026d", i)
		b.s.interest(room, names(t).Room(room), true, b.now)
	}
	b.subs, b.posted = nil, nil
	runtime.GC()
	runtime.ReadMemStats(&heap[1])
	each := int(heap[1].HeapAlloc-heap[0].HeapAlloc) / rooms
	t.Logf("%d bytes per room", each)
	if each > limit {
		t.Errorf("%d bytes per room, expected at most %d", each, limit)
	}
	runtime.KeepAlive(b)
}

// Jobs are done in their turn by however many goroutines, and those that wait when it ends are not.
func TestWork(t *testing.T) {
	n := newLink(nil)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 3 {
		all.Go(func() { n.work(ctx) })
	}
	for range 1000 {
		n.put(func(context.Context) { mu.Lock(); done++; mu.Unlock() })
	}
	natstest.Eventually(t, "all jobs are done", func() bool { mu.Lock(); defer mu.Unlock(); return done == 1000 })
	cancel()
	all.Wait()
	n.put(func(context.Context) { t.Error("done after the end") })
}
