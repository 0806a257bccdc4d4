package nats

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// crowd is mq.Clients of a gateway whose connections answer by their slot.
type crowd struct {
	nobody
	pending chan func(mq.Response, error)
}

func (c *crowd) SendEvent(id conn.ID, typ string, payload []byte, done func(error)) {
	c.calls.add("event %d %s %s", id.Slot(), typ, payload)
	done(map[uint32]error{1: mq.ErrNotFound, 2: mq.ErrNotOpen}[id.Slot()])
}

func (c *crowd) SendRequest(id conn.ID, typ string, payload []byte, done func(mq.Response, error)) {
	switch id.Slot() {
	case 0:
		scratch := []byte("answer to " + string(payload))
		done(mq.Response{Type: typ + "Response", Payload: scratch, WallTime: 1.25}, nil)
		clear(scratch) // borrowed
	case 9:
		c.pending <- done
	default:
		done(mq.Response{}, []error{nil, mq.ErrNotFound, mq.ErrNotOpen, mq.ErrTimeout, mq.ErrConnectionClosed, mq.ErrTooMany, errors.New("else")}[id.Slot()])
	}
}

func (c *crowd) CloseConnection(id conn.ID, code uint16, reason string, done func(bool)) {
	c.calls.add("close %d %d %q", id.Slot(), code, reason)
	done(id.Slot() == 0)
}

func (c *crowd) Unsubscribe(id conn.ID, t mq.Topic) {
	c.calls.add("unsubscribe %d %v %q", id.Slot(), t.Kind, t.Room)
}

func (c *crowd) UnsubscribeAll(id conn.ID) { c.calls.add("unsubscribe all %d", id.Slot()) }

// Everything that a worker may tell a connection, between the objects of two processes.
func TestClients(t *testing.T) {
	s := natstest.Single(t)
	far := &crowd{}
	g := newGate(t, connect(t, s.URL(), unbuffered, func(o *Options) { o.Connections = 2 }), far)
	x, err := NewClients(connect(t, s.URL(), func(o *Options) { o.Connections = 2 }))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()

	for i, want := range []error{nil, mq.ErrNotFound, mq.ErrNotOpen} {
		got := make(chan error)
		x.SendEvent(g.conn(i), "x.E", []byte("p\r\n"), func(err error) { got <- err })
		if err := <-got; !errors.Is(err, want) {
			t.Errorf("event to %d: %v, expected %v", i, err, want)
		}
	}
	type answer struct {
		r   mq.Response
		err error
	}
	for i, want := range []error{nil, mq.ErrNotFound, mq.ErrNotOpen, mq.ErrTimeout, mq.ErrConnectionClosed, mq.ErrTooMany, nil} {
		got := make(chan answer)
		x.SendRequest(g.conn(i), "x.R", []byte("p"), func(r mq.Response, err error) {
			r.Payload = append([]byte(nil), r.Payload...)
			got <- answer{r, err}
		})
		a := <-got
		switch i {
		case 0:
			if a.err != nil || a.r.Type != "x.RResponse" || string(a.r.Payload) != "answer to p" || a.r.WallTime != 1.25 {
				t.Errorf("request to 0: %+v", a)
			}
		case 6:
			if a.err == nil || a.err.Error() != "gateway: else" {
				t.Errorf("request to 6: %v", a.err)
			}
		default:
			if a.err != want {
				t.Errorf("request to %d: %v, expected %v", i, a.err, want)
			}
		}
	}
	for i, want := range []bool{true, false} {
		got := make(chan bool)
		x.CloseConnection(g.conn(i), 4000+uint16(i), "a reason, ä", func(ok bool) { got <- ok })
		if ok := <-got; ok != want {
			t.Errorf("close %d: %v, expected %v", i, ok, want)
		}
	}
	x.Unsubscribe(g.conn(1), mq.Topic{Kind: mq.TopicRoom, Room: "a room\n"})
	x.Unsubscribe(g.conn(1), mq.Topic{Kind: mq.TopicConversation, Room: "b"})
	x.UnsubscribeAll(g.conn(1))
	x.SendEvent(g.conn(0), "x.E", nil, nil) // nobody waits
	x.SendRequest(g.conn(0), "x.R", nil, nil)
	x.CloseConnection(g.conn(0), 1000, "", nil)
	want := []string{`event 0 x.E p` + "\r\n", "event 1 x.E p\r\n", "event 2 x.E p\r\n", `close 0 4000 "a reason, ä"`, `close 1 4001 "a reason, ä"`,
		`unsubscribe 1 0 "a room\n"`, `unsubscribe 1 1 "b"`, "unsubscribe all 1", "event 0 x.E ", `close 0 1000 ""`}
	eventually(t, "everything has arrived", func() bool { return len(far.calls.all()) == len(want) })
	got := far.calls.all()
	slices.Sort(got)
	slices.Sort(want) // the links of two connections have an order each
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What is told to one connection arrives in that order.
func TestClientsOrder(t *testing.T) {
	s := natstest.Single(t)
	far := &crowd{}
	g := newGate(t, connect(t, s.URL(), unbuffered), far)
	x, err := NewClients(connect(t, s.URL(), func(o *Options) { o.Connections = 3 }))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	const n = 500
	for i := range n {
		switch i % 2 {
		case 0:
			x.SendEvent(g.conn(0), "e", []byte(fmt.Sprint(i)), nil)
		case 1:
			x.CloseConnection(g.conn(0), uint16(i), "", nil)
		}
	}
	eventually(t, "everything has arrived", func() bool { return len(far.calls.all()) == n })
	for i, line := range far.calls.all() {
		if want := []string{fmt.Sprintf("event 0 e %d", i), fmt.Sprintf("close 0 %d \"\"", i)}[i%2]; line != want {
			t.Fatalf("%d: %s, expected %s", i, line, want)
		}
	}
}

// A gateway that is not there, one that goes while its answer is awaited, NATS that goes, and the end of Clients.
func TestClientsWithoutGateway(t *testing.T) {
	s := natstest.Single(t)
	p := natstest.NewProxy(t, s.URL())
	far := &crowd{pending: make(chan func(mq.Response, error), 10)}
	g := newGate(t, connect(t, s.URL(), unbuffered), far)
	x, err := NewClients(connect(t, p.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	other := conn.NewIssuer()
	errs := make(chan error, 10)
	x.SendEvent(other.Make(0, 0, 1), "x.E", nil, func(err error) { errs <- err })
	if err := <-errs; err != mq.ErrNotFound {
		t.Errorf("no such gateway: %v", err)
	}
	x.SendRequest(g.conn(9), "x.R", nil, func(_ mq.Response, err error) { errs <- err })
	<-far.pending
	p.Cut()
	if err := <-errs; !errors.Is(err, errNodeLost) {
		t.Errorf("NATS lost: %v", err)
	}
	p.Heal()
	eventually(t, "it is back", func() bool { return x.c.Away() == 0 })
	x.SendRequest(g.conn(9), "x.R", nil, func(_ mq.Response, err error) { errs <- err })
	<-far.pending
	x.mu.Lock()
	x.newest.until = 0
	x.mu.Unlock()
	if err := <-errs; err != mq.ErrTimeout {
		t.Errorf("no answer: %v", err)
	}
	x.SendRequest(g.conn(9), "x.R", nil, func(_ mq.Response, err error) { errs <- err })
	<-far.pending
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; err != errClientsClosed {
		t.Errorf("closed: %v", err)
	}
	x.SendEvent(g.conn(0), "x.E", nil, func(err error) { errs <- err })
	if err := <-errs; err != errClientsClosed {
		t.Errorf("after Close: %v", err)
	}
	if len(x.calls) != 0 || x.oldest != nil || x.newest != nil {
		t.Error("something is left")
	}
}

// Commands that are wrong are answered, and do nothing.
func TestBadCommands(t *testing.T) {
	s := natstest.Single(t)
	far := &crowd{}
	g := newGate(t, connect(t, s.URL(), unbuffered), far)
	nc := natstest.Connect(t, []string{s.URL()})
	id := g.conn(0).String()
	for _, test := range []struct {
		command string
		h       natsio.Header
		want    string
	}{
		{"event", nil, "Mqgate-Connection"},
		{"event", natsio.Header{"Mqgate-Connection": {"short"}, "Mqgate-Type": {"x"}}, "Mqgate-Connection"},
		{"event", natsio.Header{"Mqgate-Connection": {id}}, "Mqgate-Type"},
		{"request", natsio.Header{"Mqgate-Connection": {id}}, "Mqgate-Type"},
		{"close", natsio.Header{"Mqgate-Connection": {id}}, "Mqgate-Code"},
		{"close", natsio.Header{"Mqgate-Connection": {id}, "Mqgate-Code": {"65536"}}, "Mqgate-Code"},
		{"unsubscribe", natsio.Header{"Mqgate-Connection": {id}}, "Mqgate-Topic"},
		{"bind", natsio.Header{"Mqgate-Connection": {id}}, "Mqgate-Bind"},
		{"bind", natsio.Header{"Mqgate-Connection": {id}, "Mqgate-Bind": {"s"}}, errNotBound.Error()},
		{"dance", natsio.Header{"Mqgate-Connection": {id}}, errNoCommand.Error()},
	} {
		m, err := nc.RequestMsg(&natsio.Msg{Subject: g.x.names.Gateway(g.issuer.Node(), subjects.Command(test.command)), Header: test.h}, deadline)
		if err != nil {
			t.Fatalf("%s: %v", test.command, err)
		}
		if text := m.Header.Get("Mqgate-Error"); !strings.Contains(text, test.want) {
			t.Errorf("%s %v: %q, expected something of %s", test.command, test.h, text, test.want)
		}
	}
	if got := far.calls.all(); len(got) != 0 {
		t.Errorf("done: %q", got)
	}
	if n := g.x.Stats().Commands; n != 10 {
		t.Errorf("%d commands counted", n)
	}
}

// Events to a room go out as records without a sequence.
func TestClientsPublish(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL())
	x, err := NewClients(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	nc := natstest.Connect(t, []string{s.URL()})
	var mu sync.Mutex
	var got []string
	if _, err := nc.Subscribe("mqgate.room.*", func(m *natsio.Msg) {
		var r record.Record
		if err := r.Unmarshal(m.Data); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %q %v %d", strings.TrimPrefix(m.Subject, "mqgate.room."), r.Events, r.End, len(m.Header)))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	x.Publish(mq.Topic{Kind: mq.TopicConversation, Room: "r 1"}, "x.E", []byte("p"))
	x.Publish(mq.Topic{Room: ""}, "x.E", nil)
	x.EndTopic(mq.Topic{Kind: mq.TopicConversation, Room: "r 1"})
	x.EndTopic(mq.Topic{Kind: mq.TopicRoom, Room: "r 1"})
	token := subjects.RoomToken("r 1")
	want := []string{token + ` [{'\x01' "x.E" "p"}] false 0`, token + " [] true 0"}
	eventually(t, "both are there", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= 2 })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
}

// Answers that are awaited are bounded.
func TestMaxCalls(t *testing.T) {
	s := natstest.Single(t)
	g := newGate(t, connect(t, s.URL(), unbuffered), &crowd{})
	x, err := NewClients(connect(t, s.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	const first = 1 << 40
	x.mu.Lock()
	for i := range uint64(maxCalls) {
		x.calls[first+i] = nil
	}
	x.mu.Unlock()
	send := func() error {
		got := make(chan error, 1)
		x.SendEvent(g.conn(0), "x.E", nil, func(err error) { got <- err })
		return <-got
	}
	if err := send(); err != mq.ErrTooMany {
		t.Errorf("one too many: %v", err)
	}
	x.mu.Lock()
	delete(x.calls, first)
	x.mu.Unlock()
	if err := send(); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	x.mu.Lock()
	clear(x.calls)
	x.mu.Unlock()
}
