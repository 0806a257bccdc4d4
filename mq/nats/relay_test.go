package nats

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// A worker in any language sees the subject, the payload as it was, and headers; and its answer may be short.
func TestRequestOnTheWire(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	got := make(chan *natsio.Msg, 10)
	listen(t, c, "mqgate.req.shop.Buy-1_x", "workers", func(m *natsio.Msg) {
		got <- m
		if err := m.Respond(append([]byte("re:"), m.Data...)); err != nil {
			t.Error(err)
		}
	})
	g := newGate(t, c, nil)
	id := g.conn(7)
	before := time.Now()
	a := g.send(id, "shop.Buy-1_x", "a\x00\r\nb").ok()
	if a.typ != "shop.Buy-1_xResponse" || a.payload != "re:a\x00\r\nb" {
		t.Errorf("answer %q %q", a.typ, a.payload)
	}
	m := <-got
	want := map[string]string{"Mqgate-Connection": id.String(), "Mqgate-Node": fmt.Sprintf("%08x", id.Node()), "Mqgate-Remote": "[2001:db8::7]:4711",
		"Mqgate-Client-Session": "client says " + id.String()[:4], "Mqgate-Meta-User-Agent": "test/1", "traceparent": "00-ab-cd-01",
		"Mqgate-Start": "1700000000123"}
	headers := map[string]string{}
	for k, v := range m.Header {
		headers[k] = strings.Join(v, "|")
	}
	deadline, err := strconv.ParseInt(headers["Mqgate-Deadline"], 10, 64)
	if at := time.UnixMilli(deadline); err != nil || at.Before(before.Add(requestTimeout-time.Second)) || at.After(time.Now().Add(requestTimeout)) {
		t.Errorf("deadline %q, expected %v from now", headers["Mqgate-Deadline"], requestTimeout)
	}
	delete(headers, "Mqgate-Deadline")
	if !maps.Equal(headers, want) {
		t.Errorf("headers\n got %q\nwant %q", headers, want)
	}
	if st := g.x.Stats(); st.Answered != 1 || st.InFlight != 0 || st.FlightBytes != 0 || st.Latency.SumUS == 0 {
		t.Errorf("stats %+v", st)
	}
}

// A client's session is passed on up to a length; above that there is none.
func TestClientSessionLength(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	got := make(chan string, 1)
	listen(t, c, "mqgate.req.x.Y", "workers", func(m *natsio.Msg) {
		got <- m.Header.Get(subjects.HeaderClientSession)
		_ = m.Respond(nil)
	})
	g := newGate(t, c, nil)
	for _, n := range []int{0, 1, maxClientSession, maxClientSession + 1, 1 << 20} {
		a := &asked{g: g, done: make(chan struct{})}
		g.mu.Lock()
		g.next++
		a.id = g.next
		g.asked[a.id] = a
		g.mu.Unlock()
		r := mq.NewRequest(&loopEnd{a, g.conn(1)})
		r.Conn, r.Type, r.SessionID = g.conn(1), "x.Y", strings.Repeat("s", n)
		g.x.Process(r)
		a.ok()
		want := n
		if n > maxClientSession {
			want = 0
		}
		if l := len(<-got); l != want {
			t.Errorf("session of %d bytes: passed on as %d, expected %d", n, l, want)
		}
	}
}

// An answer may name its type or say why there is none.
func TestAnswers(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	listen(t, c, "mqgate.req.>", "workers", func(m *natsio.Msg) {
		a := &natsio.Msg{Subject: m.Reply, Header: natsio.Header{}, Data: []byte("p")}
		switch m.Subject {
		case "mqgate.req.typed":
			a.Header.Set("Mqgate-Type", "other.Type")
		case "mqgate.req.failed":
			a.Header.Set("Mqgate-Error", "out of order")
		case "mqgate.req.twice":
			_ = m.RespondMsg(&natsio.Msg{Data: []byte("first")})
		case "mqgate.req.empty":
			a.Data = nil
		}
		_ = m.RespondMsg(a)
	})
	g := newGate(t, c, nil)
	if a := g.send(g.conn(1), "typed", "").ok(); a.typ != "other.Type" || a.payload != "p" {
		t.Errorf("typed: %q %q", a.typ, a.payload)
	}
	if a := g.send(g.conn(1), "failed", "").wait(); a.err == nil || a.err.Error() != "worker: out of order" {
		t.Errorf("failed: %v", a.err)
	}
	if a := g.send(g.conn(1), "twice", "").ok(); a.payload != "first" {
		t.Errorf("twice: %q", a.payload)
	}
	if a := g.send(g.conn(1), "empty", "").ok(); a.payload != "" || a.typ != "emptyResponse" {
		t.Errorf("empty: %q", a.payload)
	}
	eventually(t, "the second answer is counted", func() bool { return g.x.Stats().Late == 1 })
	if st := g.x.Stats(); st.Answered != 3 || st.Failed != 1 {
		t.Errorf("stats %+v", st)
	}
}

// Nobody there: the client does not wait.
func TestNoResponders(t *testing.T) {
	s := natstest.Single(t)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	for _, typ := range []string{"x.Y", "chat.JoinRoom", "chat.GetRoomInfo"} {
		a := g.send(g.conn(1), typ, "").wait()
		if !errors.Is(a.err, errNobody) || a.took > time.Second {
			t.Errorf("%s: %v after %v, expected %v at once", typ, a.err, a.took, errNobody)
		}
	}
	if st := g.x.Stats(); st.NoResponders != 3 || st.InFlight != 0 {
		t.Errorf("stats %+v", st)
	}
}

// What cannot be part of a subject never gets to NATS.
func TestBadTypes(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	seen := make(chan string, 100)
	other := natstest.Connect(t, []string{s.URL()})
	sub, err := other.Subscribe("mqgate.req.>", func(m *natsio.Msg) {
		seen <- m.Subject
		_ = m.Respond(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, c, nil)
	bad := []string{"", ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>", "a b", "a\tb", "a\r\nPUB x 0\r\n", "ä", "a\x00", "a/b", "a$b", "a:b",
		strings.Repeat("a", subjects.MaxType+1), "\xff"}
	for _, typ := range bad {
		if a := g.send(g.conn(1), typ, "p"); !a.answered() || !errors.Is(a.err, errType) {
			t.Errorf("type %.30q: %v, expected %v before Process returns", typ, a.err, errType)
		}
	}
	if st := g.x.Stats(); st.Refused != uint64(len(bad)) || st.InFlight != 0 {
		t.Errorf("stats %+v", st)
	}
	// This one comes after all of them on the same way.
	longest := strings.Repeat("a", subjects.MaxType)
	g.send(g.conn(1), longest, "").ok()
	if first := <-seen; first != "mqgate.req."+longest {
		t.Errorf("NATS saw %q", first)
	}
}

// Thousands in flight at once over each of a few links, from several loops.
func TestManyInFlight(t *testing.T) {
	const each, loops = 2000, 4
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered, func(o *Options) { o.Connections = 3 })
	var mu sync.Mutex
	var kept []mq.Completion
	open := make(chan struct{})
	serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		select {
		case <-open:
			r.Reply(r.Type+"Response", r.Payload)
		default:
			mu.Lock()
			kept = append(kept, r.Later())
			mu.Unlock()
		}
	}})
	g := newGate(t, c, nil)
	var list [loops][]*asked
	var all sync.WaitGroup
	for i := range loops {
		all.Go(func() {
			for k := range each {
				list[i] = append(list[i], g.send(g.conn(i*each+k), "x.Y", fmt.Sprint(i, k)))
			}
		})
	}
	all.Wait()
	eventually(t, "all are with the worker", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(kept) == loops*each
	})
	if n := g.x.Stats().InFlight; n != loops*each {
		t.Errorf("%d in flight, expected %d", n, loops*each)
	}
	if n := g.x.Stats().FlightBytes; n != 0 {
		t.Errorf("%d bytes kept of requests that are not sent again", n)
	}
	close(open)
	mu.Lock()
	rand.Shuffle(len(kept), func(i, k int) { kept[i], kept[k] = kept[k], kept[i] })
	for i, k := range kept {
		k.Reply("T", []byte(fmt.Sprint(i)))
	}
	mu.Unlock()
	seen := map[string]bool{}
	for i := range list {
		for _, a := range list[i] {
			if p := a.ok().payload; seen[p] {
				t.Fatalf("answer %s came twice", p)
			} else {
				seen[p] = true
			}
		}
	}
	if st := g.x.Stats(); st.InFlight != 0 || st.Answered != loops*each || st.Late != 0 {
		t.Errorf("stats %+v", st)
	}
}

// Ordered types are handled one after the other for each connection, whatever workers there are; others are not.
func TestOrder(t *testing.T) {
	s := natstest.Single(t)
	var mu sync.Mutex
	began := map[string][]int{} // by connection and kind
	under := map[string]int{}   // under way
	most := map[string]int{}    // largest number under way at once
	handled := map[int]int{}    // by worker
	for w := range 3 {
		serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
			n, err := strconv.Atoi(string(r.Payload))
			if err != nil {
				t.Error(err)
			}
			key := r.Conn.String() + " " + strings.SplitAfter(r.Type, ".")[0]
			mu.Lock()
			began[key] = append(began[key], n)
			under[key]++
			most[key] = max(most[key], under[key])
			handled[w]++
			mu.Unlock()
			c, typ := r.Later(), r.Type
			time.AfterFunc(time.Duration(rand.IntN(3))*time.Millisecond, func() {
				mu.Lock()
				under[key]--
				mu.Unlock()
				c.Reply(typ+"Response", nil)
			})
		}})
	}
	g := newGate(t, connect(t, s.URL(), unbuffered, func(o *Options) { o.Connections = 2 }), nil)
	const conns, each = 20, 30
	var all [conns][]*asked
	for k := range each {
		for i := range conns {
			typ := []string{"chat.A", "chat.B", "pcast.C"}[k%3]
			all[i] = append(all[i], g.send(g.conn(i), typ, strconv.Itoa(k)), g.send(g.conn(i), "x.Y", strconv.Itoa(k)))
		}
	}
	for i := range all {
		last := 0
		for k, a := range all[i] {
			a.ok()
			if k%2 == 0 {
				if a.order < last {
					t.Errorf("connection %d: answers of ordered requests are not in order", i)
				}
				last = a.order
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	concurrent, outOfOrder := 0, 0
	for i := range conns {
		id := g.conn(i).String()
		var ordered []int
		for _, p := range []string{"chat.", "pcast."} {
			ordered = append(ordered, began[id+" "+p]...)
			if n := most[id+" "+p]; n != 1 {
				t.Errorf("connection %d: %d of %s at once", i, n, p)
			}
			if !slices.IsSorted(began[id+" "+p]) {
				t.Errorf("connection %d: %s in the order %v", i, p, began[id+" "+p])
			}
		}
		if len(ordered) != each {
			t.Errorf("connection %d: %d ordered requests handled, expected %d", i, len(ordered), each)
		}
		if most[id+" x."] > 1 {
			concurrent++
		}
		if !slices.IsSorted(began[id+" x."]) {
			outOfOrder++
		}
	}
	if concurrent < conns/2 || outOfOrder == 0 {
		t.Errorf("requests that are not ordered: on %d connections several at once, on %d out of order; expected most of %d, and some", concurrent, outOfOrder, conns)
	}
	if len(handled) != 3 {
		t.Errorf("handled by worker: %v, expected all three", handled)
	}
}

// A chat. and a pcast. request of one connection are in one order, too; a failed one lets the next one go.
func TestOrderAcrossTypesAndFailures(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	answer := make(chan *natsio.Msg, 10)
	listen(t, c, "mqgate.req.*.A", "workers", func(m *natsio.Msg) { answer <- m })
	g := newGate(t, c, nil)
	id := g.conn(1)
	first, second, third, fourth := g.send(id, "chat.A", "1"), g.send(id, "pcast.A", "2"), g.send(id, "chat.None", "3"), g.send(id, "chat.A", "4")
	other := g.send(g.conn(2), "chat.A", "other")
	m := <-answer
	o := <-answer
	if string(m.Data) != "1" || string(o.Data) != "other" {
		t.Fatalf("worker got %q and %q", m.Data, o.Data)
	}
	_ = o.Respond(nil)
	other.ok()
	if n := g.x.Stats().InFlight; n != 4 {
		t.Errorf("%d in flight, expected 4", n)
	}
	_ = m.RespondMsg(&natsio.Msg{Header: natsio.Header{"Mqgate-Error": {"no"}}})
	if first.wait(); first.err == nil {
		t.Error("first: no error")
	}
	if m = <-answer; string(m.Data) != "2" {
		t.Fatalf("then worker got %q", m.Data)
	}
	if third.answered() || fourth.answered() {
		t.Error("third or fourth overtook")
	}
	_ = m.Respond(nil)
	second.ok()
	if third.wait(); !errors.Is(third.err, errNobody) {
		t.Errorf("third: %v", third.err)
	}
	_ = (<-answer).Respond(nil)
	fourth.ok()
	eventually(t, "nothing is kept of the connection", func() bool { return len(peersOf(g.x)) == 0 })
}

func peersOf(x *Relay) (list []string) {
	for i := range x.peers.shards {
		s := &x.peers.shards[i]
		s.mu.Lock()
		for id := range s.byID {
			list = append(list, id.String())
		}
		s.mu.Unlock()
	}
	return list
}

// Nobody answers: the flight goes with the gateway's timeout, the next ordered one goes out, and an answer that comes
// then is late.
func TestTimeout(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	got := make(chan *natsio.Msg, 10)
	listen(t, c, "mqgate.req.>", "workers", func(m *natsio.Msg) { got <- m })
	g := newGate(t, c, nil, func(c *RelayConfig) { c.RequestTimeout = 300 * time.Millisecond })
	g.send(g.conn(1), "chat.A", "1")
	g.send(g.conn(1), "chat.A", "2") // its time passes while it waits
	g.send(g.conn(1), "x.Y", "3")
	first, third := <-got, <-got
	if string(first.Data) != "1" || string(third.Data) != "3" {
		t.Fatalf("worker got %q, %q", first.Data, third.Data)
	}
	eventually(t, "all three are given up", func() bool { st := g.x.Stats(); return st.TimedOut == 3 && st.InFlight == 0 })
	_ = first.Respond(nil)
	_ = third.Respond(nil)
	eventually(t, "both answers are late", func() bool { return g.x.Stats().Late == 2 })
	fourth := g.send(g.conn(1), "chat.A", "4")
	if m := <-got; string(m.Data) != "4" {
		t.Errorf("then worker got %q", m.Data)
	} else {
		_ = m.Respond(nil)
	}
	fourth.ok()
	if st := g.x.Stats(); st.FlightBytes != 0 {
		t.Errorf("stats %+v", st)
	}
	eventually(t, "nothing is kept of the connection", func() bool { return len(peersOf(g.x)) == 0 })
}

// What waits behind a request that nobody answers goes out as soon as that one is given up, with what is left of its time.
func TestNextAfterTimeout(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	got := make(chan *natsio.Msg, 10)
	listen(t, c, "mqgate.req.>", "workers", func(m *natsio.Msg) { got <- m })
	g := newGate(t, c, nil, func(c *RelayConfig) { c.RequestTimeout = time.Hour })
	held, next := g.send(g.conn(1), "chat.A", "1"), g.send(g.conn(1), "chat.A", "2")
	first := <-got
	for _, f := range g.x.flights.all(func(f *flight) bool { return f.token == held.id }) {
		shard := &g.x.flights.shards[f.token%flightShards]
		shard.mu.Lock()
		f.until = 0 // an hour later
		shard.mu.Unlock()
	}
	eventually(t, "the next one goes out", func() bool { return len(got) == 1 })
	m := <-got
	if string(first.Data) != "1" || string(m.Data) != "2" {
		t.Fatalf("worker got %q, %q", first.Data, m.Data)
	}
	_ = m.Respond(nil)
	next.ok()
	if st := g.x.Stats(); st.TimedOut != 1 || st.Answered != 1 || st.InFlight != 0 || held.answered() { // the gateway answers it
		t.Errorf("stats %+v", st)
	}
}

// Above the limit of requests in flight they fail at once, and are taken again below.
func TestMaxInFlight(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	got := make(chan *natsio.Msg, 10)
	listen(t, c, "mqgate.req.>", "workers", func(m *natsio.Msg) { got <- m })
	g := newGate(t, c, nil, func(c *RelayConfig) { c.MaxInFlight = 3 })
	var list []*asked
	for range 3 {
		list = append(list, g.send(g.conn(1), "x.Y", ""))
	}
	if a := g.send(g.conn(1), "x.Y", ""); !a.answered() || !errors.Is(a.err, errBusy) {
		t.Errorf("the fourth: %v, expected %v at once", a.err, errBusy)
	}
	_ = (<-got).Respond(nil)
	eventually(t, "one is answered", func() bool { return g.x.Stats().InFlight == 2 })
	list = append(list, g.send(g.conn(1), "x.Y", ""))
	for range 3 {
		_ = (<-got).Respond(nil)
	}
	for _, a := range list {
		a.ok()
	}
	if st := g.x.Stats(); st.FailedAtOnce != 1 {
		t.Errorf("stats %+v", st)
	}
}

// A payload above what the server takes fails at once, and the connection to NATS stays.
func TestPayloadTooLarge(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	var n atomic.Int64
	listen(t, c, "mqgate.req.>", "workers", func(m *natsio.Msg) { n.Store(int64(len(m.Data))); _ = m.Respond(nil) })
	g := newGate(t, c, nil)
	limit := c.NATS().MaxPayload()
	if a := g.send(g.conn(1), "chat.A", strings.Repeat("x", int(limit))).wait(); !errors.Is(a.err, natsio.ErrMaxPayload) {
		t.Errorf("%v, expected %v", a.err, natsio.ErrMaxPayload)
	}
	g.send(g.conn(1), "chat.A", strings.Repeat("x", int(limit)-1000)).ok()
	if n.Load() != limit-1000 || c.Stats().Reconnects != 0 {
		t.Errorf("%d bytes, %+v", n.Load(), c.Stats())
	}
}

// Payloads that are kept are bounded in all.
func TestMaxFlightBytes(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	serve(t, connect(t, s.URL()), &worker{process: echo})
	g := newGate(t, c, nil)
	const others = maxFlightBytes - 10
	g.x.bytes.Add(others)
	for n, want := range map[int]error{9: nil, 10: nil, 11: errBusy} {
		if a := g.send(g.conn(1), "x.Y", strings.Repeat("x", n)).wait(); !errors.Is(a.err, want) {
			t.Errorf("%d bytes: %v, expected %v", n, a.err, want)
		}
		eventually(t, "its bytes are given back", func() bool { return g.x.Stats().FlightBytes == others })
	}
}
