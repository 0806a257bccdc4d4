package mq

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

func joinAnswer(status, room string) []byte {
	m := wire.JoinRoomResponse{Status: status}
	if room != "" {
		m.Room = &wire.Room{RoomID: room}
	}
	return m.AppendTo(nil)
}

func statusAnswer(status string) []byte {
	return (&wire.LeaveRoomResponse{Status: status}).AppendTo(nil)
}

func leave(room string) []byte { return (&wire.LeaveRoom{RoomID: room, SessionID: "s"}).AppendTo(nil) }

func fetch(room string, options ...wire.RoomConversationOption) []byte {
	m := wire.FetchRoomConversation{SessionID: "s", RoomID: room, Limit: 10, Options: options}
	return m.AppendTo(nil)
}

// subscriptions returns what the connection is subscribed to, "R" rooms and "C" conversations, in alphabetic order.
func (p *peer) subscriptions() string {
	cl := p.state()
	if cl == nil {
		return ""
	}
	out := ""
	for _, kind := range []TopicKind{TopicRoom, TopicConversation} {
		for _, room := range []string{"a", "b", "c"} {
			for _, sub := range cl.topics {
				if sub.topic.name == (Topic{kind, room}) {
					out += " " + []string{"R", "C"}[kind] + room
				}
			}
		}
	}
	return strings.TrimSpace(out)
}

// L3.8: which answers change the subscriptions, inline and later.
func TestSubscriptionsFromAnswers(t *testing.T) {
	join := func(id, alias string) []byte {
		return (&wire.JoinRoom{RoomID: id, Alias: alias, SessionID: "s"}).AppendTo(nil)
	}
	packed := append(fetch("a"), 0x32, 1, 0)
	long := strings.Repeat("x", maxRoomID)
	tests := []struct {
		name    string
		typ     string
		payload []byte
		answer  []byte // nil: the worker fails
		want    string // from "Rb Cb" on
	}{
		{"join", wire.TypeJoinRoom, join("a", ""), joinAnswer("ok", "a"), "Ra Rb Cb"},
		{"join by alias: the room of the answer", wire.TypeJoinRoom, join("", "lobby"), joinAnswer("ok", "a"), "Ra Rb Cb"},
		{"the answer counts, not the request", wire.TypeJoinRoom, join("c", ""), joinAnswer("ok", "a"), "Ra Rb Cb"},
		{"join again", wire.TypeJoinRoom, join("b", ""), joinAnswer("already-in-room", "b"), "Rb Cb"},
		{"already in a room that the gateway has not heard of", wire.TypeJoinRoom, join("a", ""), joinAnswer("already-in-room", "a"), "Ra Rb Cb"},
		{"no such room", wire.TypeJoinRoom, join("a", ""), joinAnswer("not-found", "a"), "Rb Cb"},
		{"room full", wire.TypeJoinRoom, join("a", ""), joinAnswer("capacity", "a"), "Rb Cb"},
		{"not authenticated", wire.TypeJoinRoom, join("a", ""), joinAnswer("unauthorized", "a"), "Rb Cb"},
		{"joined no room", wire.TypeJoinRoom, join("a", ""), joinAnswer("ok", ""), "Rb Cb"},
		{"an answer that is none", wire.TypeJoinRoom, join("a", ""), []byte("garbage"), "Rb Cb"},
		{"join failed", wire.TypeJoinRoom, join("a", ""), nil, "Rb Cb"},

		{"leave", wire.TypeLeaveRoom, leave("b"), statusAnswer("ok"), ""},
		{"leave another", wire.TypeLeaveRoom, leave("a"), statusAnswer("ok"), "Rb Cb"},
		{"leave refused", wire.TypeLeaveRoom, leave("b"), statusAnswer("not-in-room"), "Rb Cb"},
		{"leave failed", wire.TypeLeaveRoom, leave("b"), nil, "Rb Cb"},
		{"leave with garbage", wire.TypeLeaveRoom, []byte("garbage"), statusAnswer("ok"), "Rb Cb"},

		{"fetch", wire.TypeFetchRoomConversation, fetch("a"), statusAnswer("ok"), "Rb Cb"},
		{"fetch with Subscribe", wire.TypeFetchRoomConversation, fetch("a", wire.Subscribe), statusAnswer("ok"), "Rb Ca Cb"},
		{"fetch with Subscribe, twice", wire.TypeFetchRoomConversation, fetch("b", wire.Subscribe, wire.Subscribe), statusAnswer("ok"), "Rb Cb"},
		{"fetch with Subscribe, packed", wire.TypeFetchRoomConversation, packed, statusAnswer("ok"), "Rb Ca Cb"},
		{"fetch with an empty list", wire.TypeFetchRoomConversation, append(fetch("a"), 0x32, 0), statusAnswer("ok"), "Rb Cb"},
		{"fetch refused", wire.TypeFetchRoomConversation, fetch("a", wire.Subscribe), statusAnswer("not-in-room"), "Rb Cb"},
		{"fetch of already-in-room", wire.TypeFetchRoomConversation, fetch("a", wire.Subscribe), statusAnswer("already-in-room"), "Rb Cb"},
		{"fetch failed", wire.TypeFetchRoomConversation, fetch("a", wire.Subscribe), nil, "Rb Cb"},
		{"fetch of no room", wire.TypeFetchRoomConversation, fetch("", wire.Subscribe), statusAnswer("ok"), "Rb Cb"},

		{"another type", "chat.GetRoomInfo", join("a", ""), joinAnswer("ok", "a"), "Rb Cb"},
		{"the longest id", wire.TypeJoinRoom, join("a", ""), joinAnswer("ok", long), "Rb Cb +1"},
		{"an id too long", wire.TypeJoinRoom, join("a", ""), joinAnswer("ok", long+"x"), "Rb Cb"},
		{"the longest id, fetched", wire.TypeFetchRoomConversation, fetch(long, wire.Subscribe), statusAnswer("ok"), "Rb Cb +1"},
		{"an id too long, fetched", wire.TypeFetchRoomConversation, fetch(long+"x", wire.Subscribe), statusAnswer("ok"), "Rb Cb"},
	}
	for _, test := range tests {
		for _, how := range []string{"inline", "later"} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				s := newSim(t, 1)
				p := s.connect(0)
				s.on(0, func() {
					s.g.shards[0].subscribe(p.conn(), TopicRoom, "b")
					s.g.shards[0].subscribe(p.conn(), TopicConversation, "b")
				})
				s.w.process = func(r *Request) {
					switch {
					case how == "later":
						s.w.later = append(s.w.later, r.Later())
					case test.answer == nil:
						r.Fail(errWorker)
					default:
						r.Reply(r.Type+"Response", test.answer)
					}
				}
				p.request(test.typ, test.payload)
				s.run()
				// The bytes of the request are not kept: others take their place (invariants build: are overwritten).
				p.text(&wire.Envelope{Type: strings.Repeat("z", 5000), MessageType: wire.Event})
				s.run()
				for _, c := range s.w.later {
					if test.answer == nil {
						c.Fail(errWorker)
					} else {
						answer := bytes.Clone(test.answer)
						c.Reply(test.typ+"Response", answer)
						clear(answer) // it was copied
					}
				}
				s.run()
				if n := len(p.take()); n != 1 {
					t.Fatalf("%d answers", n)
				}
				got := p.subscriptions()
				want, more, found := strings.Cut(test.want, " +")
				known := len(strings.Fields(got))
				if n := s.stats().Subscriptions; got != want || n[0]+n[1] != int64(known+len(more)) {
					t.Errorf("subscribed to %q (%v in all), expected %q and %v more", got, n, want, found)
				}
			})
		}
	}
}

// L3.8: an answer that does not go out changes nothing.
func TestNoSubscriptionWhileClosing(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
	p.request(wire.TypeJoinRoom, nil)
	s.run()
	s.w.clients.CloseConnection(p.id, 1000, "", nil)
	s.w.later[0].Reply("x", joinAnswer("ok", "a"))
	s.run()
	if n := s.stats().Subscriptions; n[0] != 0 || s.stats().Clients != 0 {
		t.Errorf("subscriptions %v, %d clients", n, s.stats().Clients)
	}
}

// L3.8: nor does one that a slow peer does not get (L8.3), answered inline.
func TestNoSubscriptionOfSlowPeer(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	s.w.process = func(r *Request) {
		if r.Type == "fill" {
			r.Reply("filled", make([]byte, maxPending-100))
		} else {
			r.Reply("x", joinAnswer("ok", strings.Repeat("a", 100)))
		}
	}
	p.p.SetWindow(0)
	p.binary(&wire.Envelope{RequestID: "C0", Type: "fill"})
	p.binary(&wire.Envelope{RequestID: "C1", Type: wire.TypeJoinRoom})
	s.run()
	if st := s.stats(); st.Subscriptions[0] != 0 || st.Clients != 0 || st.Requests != [NumOutcomes]uint64{OutcomeOK: 1, OutcomeDropped: 1} {
		t.Errorf("subscriptions %v, %d clients, %v", st.Subscriptions, st.Clients, st.Requests)
	}
}

// subscribe subscribes a peer without a request.
func (s *sim) subscribe(p *peer, t Topic) {
	s.on(p.loop, func() { p.shard().subscribe(p.conn(), t.Kind, t.Room) })
}

// Publish reaches the subscribers of that topic on all loops, each in its own form; nobody else.
func TestPublish(t *testing.T) {
	s := newSim(t, 3)
	room := Topic{TopicRoom, "a"}
	var members []*peer
	for i := range 6 {
		p := s.connect(i % 3)
		s.subscribe(p, room)
		if i >= 3 {
			p.binary(&wire.Envelope{RequestID: "C0", Type: "echo"})
			s.run()
			p.take()
		}
		members = append(members, p)
	}
	outsider, conversation, elsewhere := s.connect(0), s.connect(1), s.connect(2)
	s.subscribe(conversation, Topic{TopicConversation, "a"})
	s.subscribe(elsewhere, Topic{TopicRoom, "b"})

	payload := []byte("one")
	s.w.clients.Publish(room, "chat.RoomEvent", payload)
	copy(payload, "XXX") // it was copied
	s.w.clients.Publish(room, "chat.RoomEvent", []byte("two"))
	s.run()
	for i, p := range members {
		form := "text"
		if i >= 3 {
			form = "binary"
		}
		p.expect(form+` Event chat.RoomEvent "one"`, form+` Event chat.RoomEvent "two"`)
	}
	for _, p := range []*peer{outsider, conversation, elsewhere} {
		p.expect()
	}
	if n := s.stats().Deliveries; n != 12 {
		t.Errorf("%d deliveries", n)
	}
	if d := s.g.Describe(members[0].conn()); len(d.Rooms) != 1 || d.Rooms[0] != "a" || d.Requests != 0 {
		t.Errorf("described as %+v", d)
	}
	if d := s.g.Describe(conversation.conn()); len(d.Rooms) != 0 {
		t.Errorf("described as %+v", d)
	}

	s.w.clients.Unsubscribe(members[0].id, room)
	s.w.clients.Unsubscribe(members[1].id, Topic{TopicConversation, "a"}) // not subscribed to it
	s.w.clients.Unsubscribe(conn.ID{}, room)
	s.w.clients.UnsubscribeAll(members[2].id)
	s.w.clients.UnsubscribeAll(outsider.id)
	s.w.clients.UnsubscribeAll(conn.ID{})
	s.w.clients.Publish(room, "x", nil)
	members[0].expect()
	members[1].expect(`text Event x ""`)
	members[2].expect()

	// What was published before the end of a topic is still delivered; nothing is after it.
	s.w.clients.Publish(room, "last", nil)
	s.w.clients.EndTopic(room)
	s.w.clients.Publish(room, "never", nil)
	members[1].expect(`text Event last ""`)
	members[4].expect(`binary Event x ""`, `binary Event last ""`)
	if n := s.stats(); n.Subscriptions != [2]int64{1, 1} || n.Clients != 2 {
		t.Errorf("subscriptions %v, %d clients", n.Subscriptions, n.Clients)
	}
	s.w.clients.EndTopic(room) // of nobody
	s.run()
}

// What one goroutine sends in some order arrives in that order, answers included.
func TestOrder(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	room := Topic{TopicRoom, "a"}
	s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
	p.request(wire.TypeJoinRoom, nil)
	s.run()
	s.w.clients.Publish(room, "before", nil)
	s.w.clients.SendEvent(p.id, "event", nil, nil)
	s.w.later[0].Reply("answer", joinAnswer("ok", "a"))
	s.w.clients.Publish(room, "after", nil)
	s.w.clients.SendRequest(p.id, "ask", nil, nil)
	s.w.clients.Unsubscribe(p.id, room)
	s.w.clients.Publish(room, "too late", nil)
	s.w.clients.CloseConnection(p.id, 1000, "", nil)
	s.w.clients.SendEvent(p.id, "too late", nil, nil)
	s.run()
	var got []string
	for _, m := range p.take() {
		got = append(got, m.env.Type)
	}
	if want := "event,answer,after,ask,"; strings.Join(got, ",") != want {
		t.Errorf("received %q, expected %q", strings.Join(got, ","), want)
	}
}

// Each form of an event is built once, whoever needs it first.
func TestBroadcastFormsAreShared(t *testing.T) {
	b := &broadcast{env: wire.Envelope{Type: "x", Payload: []byte("p"), MessageType: wire.Event}}
	for _, form := range []wire.Form{wire.Text, wire.Binary} {
		if first := b.prepared(form); first == nil || b.prepared(form) != first {
			t.Errorf("%v: built twice", form)
		}
	}
	if b.prepared(wire.Text) == b.prepared(wire.Binary) {
		t.Error("one form for both")
	}
	if n := testing.AllocsPerRun(100, func() { b.prepared(wire.Text) }); n != 0 {
		t.Errorf("%v allocations for a form that is built", n)
	}
}

// A slow consumer in a broadcast is closed (L8.3), and the others get everything.
func TestSlowConsumerInBroadcast(t *testing.T) {
	s := newSim(t, 1)
	room := Topic{TopicRoom, "a"}
	var members []*peer
	for range 5 {
		p := s.connect(0)
		s.subscribe(p, room)
		members = append(members, p)
	}
	slow := members[2]
	slow.p.SetWindow(0)
	const events = 10
	payload := bytes.Repeat([]byte("x"), 8<<10) // 11 KiB as text: the sixth is too much
	for i := range events {
		s.w.clients.Publish(room, fmt.Sprint("e", i), payload)
		s.run()
	}
	for _, p := range members {
		if p == slow {
			continue
		}
		got := p.take()
		for i, m := range got {
			if m.env.Type != fmt.Sprint("e", i) || !bytes.Equal(m.env.Payload, payload) {
				t.Fatalf("event %d is %v", i, m.env.Type)
			}
		}
		if len(got) != events {
			t.Errorf("%d events received", len(got))
		}
	}
	if c := slow.conn(); c.State() != conn.Closing {
		t.Errorf("the slow one is %v", c.State())
	}
	st := s.stats()
	if st.Dropped[DropSlow] != 1 || st.Dropped[DropAnswerNotOpen] != 4 || st.Deliveries != 4*events+5 || st.Subscriptions[0] != 5 {
		t.Errorf("dropped %v, %d deliveries, %v", st.Dropped, st.Deliveries, st.Subscriptions)
	}
	slow.p.SetWindow(1 << 20)
	s.run()
	got := slow.take()
	if len(got) != 1 || got[0].op != frame.Close {
		t.Errorf("the slow one got %d messages", len(got)) // whole frames that were not begun are dropped
	}
	slow.close(3335)
	s.run()
	if n := s.stats().Subscriptions[0]; n != 4 {
		t.Errorf("%d subscriptions", n)
	}
}
