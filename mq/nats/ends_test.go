package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/wire"
)

// taker is a worker that takes ends.
type taker struct {
	worker
	mu    sync.Mutex
	taken map[string]int // how often
	last  map[string]mq.Disconnect
}

func newTaker() *taker {
	w := &taker{taken: map[string]int{}, last: map[string]mq.Disconnect{}}
	w.process = echo
	w.disconnected = func(d mq.Disconnect, session string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.taken[d.Conn.String()]++
		w.last[d.Conn.String()+session] = d
		return nil
	}
	return w
}

func (w *taker) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken)
}

func takesEnds(c *ServiceConfig) { c.Disconnects = true }

// What is in the stream, and what a worker is told of it.
func TestEnd(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	g := newGate(t, c, nil)
	id := g.conn(3)
	d := mq.Disconnect{Conn: id, Code: 4001, Description: "gone, ä", Duration: 90*time.Second + 5*time.Millisecond}
	if err := g.x.Disconnected(d); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stored", func() bool { st := g.x.Stats(); return st.Published == 1 && st.Unpublished == 0 })
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "mqgate_disconnected")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	var body wire.ConnectionDisconnected
	if err := body.Unmarshal(m.Data); err != nil || body != (wire.ConnectionDisconnected{ConnectionID: id.String(), ReasonCode: 4001, Description: "gone, ä"}) {
		t.Errorf("%v %+v", err, body)
	}
	h := m.Header
	if m.Subject != "mqgate.disconnected."+g.x.node || h.Get("Nats-Msg-Id") != id.String() || h.Get("Mqgate-Connection") != id.String() ||
		h.Get("Mqgate-Duration") != "90005" || h.Get("Mqgate-Node") != g.x.node || len(h["Mqgate-Session"]) != 0 {
		t.Errorf("%s %v", m.Subject, h)
	}
	w := newTaker()
	service := serve(t, connect(t, s.URL()), w, takesEnds)
	eventually(t, "the worker is told", func() bool { return service.Stats().Ends == 1 })
	if got := w.last[id.String()]; got != d {
		t.Errorf("told %+v, expected %+v", got, d)
	}
}

// NATS is away for a while, workers come and go: every end is told exactly once.
func TestEndsWhileNATSIsAway(t *testing.T) {
	s := newRestartable(t)
	w := newTaker()
	first := serve(t, connect(t, s.url()), w, takesEnds)
	second := serve(t, connect(t, s.url()), w, takesEnds)
	g := newGate(t, connect(t, s.url(), unbuffered), nil)
	const n = 3000
	next := 0
	end := func(count int) {
		for range count {
			if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(next), Code: 1006}); err != nil {
				t.Fatal(err)
			}
			next++
		}
	}
	end(n / 3)
	s.stop()
	end(n / 3)
	eventually(t, "storing has failed", func() bool { return g.x.Stats().PublishRetry > 0 })
	s.start()
	eventually(t, "some are stored again", func() bool { return g.x.Stats().Published > n/3 })
	if err := first.Drain(within(t, deadline)); err != nil {
		t.Error(err)
	}
	end(n / 3)
	eventually(t, "all are stored", func() bool { st := g.x.Stats(); return st.Unpublished == 0 && st.Published == n })
	eventually(t, "all are told", func() bool { return w.count() == n })
	eventually(t, "all are acknowledged", func() bool {
		js, err := g.x.c.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		cons, err := js.Consumer(t.Context(), "mqgate_disconnected", subjects.Workers)
		if err != nil {
			return false
		}
		info := cons.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, times := range w.taken {
		// What had been taken just when the server went, and whose acknowledgement was lost, may come again: at least once.
		if times != 1 && first.Stats().EndsAgain+second.Stats().EndsAgain == 0 {
			t.Errorf("end of %s told %d times", id, times)
		}
	}
}

// An end that is published twice, because NATS was lost before the acknowledgement, is stored once.
func TestEndTwice(t *testing.T) {
	s := natstest.Single(t)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	w := newTaker()
	serve(t, connect(t, s.URL()), w, takesEnds)
	for range 3 {
		if !g.x.ends.reserve() {
			t.Fatal("no room")
		}
		g.x.ends.push(&end{Disconnect: mq.Disconnect{Conn: g.conn(1)}})
	}
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(2)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are told", func() bool { return w.count() == 2 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken[g.conn(1).String()] != 1 || w.taken[g.conn(2).String()] != 1 {
		t.Errorf("%v", w.taken)
	}
}

// later is an error that says when to try again.
type later time.Duration

func (later) Error() string               { return "not yet" }
func (l later) RetryAfter() time.Duration { return time.Duration(l) }

// What the worker does not take comes again: soon, or when it wants it.
func TestEndAgain(t *testing.T) {
	s := natstest.Single(t)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	var mu sync.Mutex
	told := map[uint32][]time.Time{}
	service := serve(t, connect(t, s.URL()), &worker{process: echo, disconnected: func(d mq.Disconnect, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		slot := d.Conn.Slot()
		told[slot] = append(told[slot], time.Now())
		if len(told[slot]) > 1 {
			return nil
		}
		switch slot {
		case 1:
			return fmt.Errorf("wrapped: %w", later(300*time.Millisecond))
		case 2:
			return errors.New("no")
		case 3:
			panic("on purpose")
		}
		return nil
	}}, takesEnds)
	for i := range 4 {
		if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are taken", func() bool { return service.Stats().Ends == 4 })
	mu.Lock()
	defer mu.Unlock()
	for slot, least := range map[uint32]time.Duration{1: 300 * time.Millisecond, 2: endsRetry, 3: endsRetry} {
		if len(told[slot]) != 2 || told[slot][1].Sub(told[slot][0]) < least-10*time.Millisecond {
			t.Errorf("%d: told at %v, expected twice with %v between", slot, told[slot], least)
		}
	}
	if st := service.Stats(); len(told[0]) != 1 || st.EndsLater != 1 || st.EndsFailed != 2 || st.EndsAgain != 3 || st.Panics != 1 {
		t.Errorf("%v %+v", told[0], st)
	}
}

// What nobody can read is thrown away, and the next one comes.
func TestBadEnds(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL(), unbuffered)
	g := newGate(t, c, nil)
	js, err := c.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	bad := [][]byte{nil, []byte("\xff"), (&wire.ConnectionDisconnected{ConnectionID: "short"}).AppendTo(nil),
		(&wire.ConnectionDisconnected{ConnectionID: g.conn(1).String(), ReasonCode: 65536}).AppendTo(nil)}
	for _, b := range bad {
		if _, err := js.Publish(t.Context(), "mqgate.disconnected.00000001", b); err != nil {
			t.Fatal(err)
		}
	}
	w := newTaker()
	service := serve(t, connect(t, s.URL()), w, takesEnds)
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(1), Code: 65535}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the good one is told", func() bool { return w.count() == 1 })
	if st := service.Stats(); st.EndsBad != uint64(len(bad)) || st.EndsAgain != 0 {
		t.Errorf("stats %+v", st)
	}
}

// Above the limit Disconnected refuses; what was taken is stored when NATS is back, and then it takes again.
func TestTooManyEnds(t *testing.T) {
	s := newRestartable(t)
	g := newGate(t, connect(t, s.url(), unbuffered), nil)
	s.stop()
	for i := range maxUnpublished {
		if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(i), Code: 1006}); err != nil {
			t.Fatalf("end %d: %v", i, err)
		}
	}
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(maxUnpublished)}); !errors.Is(err, errEnds) {
		t.Errorf("one too many: %v, expected %v", err, errEnds)
	}
	if n := g.x.Stats().Unpublished; n != maxUnpublished {
		t.Errorf("%d unpublished", n)
	}
	s.start()
	eventually(t, "all are stored", func() bool { st := g.x.Stats(); return st.Published == maxUnpublished && st.Unpublished == 0 })
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(maxUnpublished)}); err != nil {
		t.Error(err)
	}
	if err := g.x.Close(within(t, deadline)); err != nil {
		t.Error(err)
	}
	if n := g.x.Stats().Published; n != maxUnpublished+1 {
		t.Errorf("%d stored after Close", n)
	}
}

// The end of a connection comes after its requests, to workers too.
func TestEndAfterRequests(t *testing.T) {
	s := natstest.Single(t)
	var lines recorder
	kept := make(chan mq.Completion, 10)
	w := &worker{process: func(r *mq.Request) {
		lines.add("%s %s", r.Type, r.Payload)
		if r.Type == "x.Y" {
			return
		}
		kept <- r.Later()
	}, disconnected: func(d mq.Disconnect, _ string) error {
		lines.add("end %d", d.Code)
		return nil
	}}
	serve(t, connect(t, s.URL()), w, takesEnds)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	g.send(g.conn(1), "x.Y", "not ordered: waits for nothing")
	for i := range 3 {
		g.send(g.conn(1), "chat.A", fmt.Sprint(i))
	}
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(1), Code: 1000}); err != nil {
		t.Fatal(err)
	}
	if n := g.x.Stats().Unpublished; n != 1 {
		t.Errorf("%d unpublished, expected it to be counted while it waits", n)
	}
	for range 3 {
		(<-kept).Reply("T", nil)
	}
	eventually(t, "the end is told", func() bool { return len(lines.all()) == 5 })
	got := strings.Join(lines.all(), ", ")
	got = strings.Replace(got, "x.Y not ordered: waits for nothing, ", "", 1)
	if got != "chat.A 0, chat.A 1, chat.A 2, end 1000" {
		t.Errorf("%s", got)
	}
	if len(peersOf(g.x)) != 0 {
		t.Error("something is left of the connection")
	}
}

// Close waits until everything is stored, but no longer than it may, and says what is not.
func TestCloseStoresEnds(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	g := newGate(t, connect(t, p.URL(), unbuffered), nil)
	p.Cut()
	eventually(t, "it is noticed", func() bool { return g.x.c.Away() > 0 })
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(1)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.x.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 ends of connections are not stored") {
		t.Errorf("%v", err)
	}
	if a := g.send(g.conn(1), "x.Y", ""); !errors.Is(a.err, errClosing) {
		t.Errorf("after Close: %v", a.err)
	}
	if g.x.Ready(time.Hour) {
		t.Error("ready after Close")
	}
}
