package mq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/wire"
)

// interestedScript is a script that keeps what it hears of rooms with subscribers.
type interestedScript struct {
	*script
	t     testing.TB
	rooms map[string]bool
	heard []string // since the last look
	panic bool
}

func (w *interestedScript) Interest(room string, some bool) {
	if w.rooms[room] == some {
		w.t.Errorf("Interest(%s, %v) twice", room, some)
	}
	if w.rooms[room] = some; !some {
		delete(w.rooms, room)
	}
	w.heard = append(w.heard, fmt.Sprint(room, some))
	if w.panic {
		panic("secret panic")
	}
}

func (w *interestedScript) expect(want ...string) {
	w.t.Helper()
	if !slices.Equal(w.heard, want) {
		w.t.Fatalf("heard %q, expected %q", w.heard, want)
	}
	w.heard = nil
}

// withInterest makes the script of a sim an interestedScript.
func withInterest(t testing.TB, w **interestedScript) simOption {
	return func(m *Config, _ *conn.Config) {
		*w = &interestedScript{script: m.Worker.(*script), t: t, rooms: map[string]bool{}}
		m.Worker = *w
	}
}

// The first subscriber of a room on any loop, in either topic, is told, and so is the end of the last one, however it
// ends; nothing in between is.
func TestInterest(t *testing.T) {
	var w *interestedScript
	s := newSim(t, 2, withInterest(t, &w))
	p, q, r := s.connect(0), s.connect(0), s.connect(1)
	room, conversation := Topic{TopicRoom, "a"}, Topic{TopicConversation, "a"}
	s.subscribe(p, room)
	w.expect("atrue")
	s.subscribe(p, room)
	s.subscribe(p, conversation)
	s.subscribe(q, room)
	s.subscribe(r, conversation)
	s.subscribe(r, Topic{TopicRoom, "b"})
	w.expect("btrue")
	s.w.clients.Unsubscribe(p.id, room)
	s.w.clients.UnsubscribeAll(q.id)
	s.w.clients.Unsubscribe(q.id, room)
	s.run()
	w.expect()
	s.w.clients.EndTopic(conversation)
	s.run()
	w.expect("afalse")
	r.p.Reset()
	s.run()
	w.expect("bfalse")

	w.panic = true // harms nothing but the log
	s.subscribe(p, room)
	s.w.clients.UnsubscribeAll(p.id)
	s.run()
	w.expect("atrue", "afalse")
	if st := s.stats(); st.Panics != 2 || st.Subscriptions != [2]int64{} {
		t.Errorf("%d panics, subscriptions %v", st.Panics, st.Subscriptions)
	}
	w.panic = false
	s.subscribe(p, room)
	w.expect("atrue")
}

// A gateway whose worker does not ask has nothing of it.
func TestNoInterest(t *testing.T) {
	if s := newSim(t, 1); s.g.interest != nil {
		t.Error("rooms are counted for nobody")
	}
}

// Loops that subscribe and unsubscribe at the same time: the calls for a room never overlap and take turns, and the last
// one says how things are.
func TestInterestParallel(t *testing.T) {
	const loops, rooms, steps = 8, 5, 20000
	told := &tellings{t: t, busy: map[string]bool{}, some: map[string]bool{}}
	in := newInterest(told)
	left := make([]map[string]bool, loops) // what each loop ends with
	var all sync.WaitGroup
	for i := range loops {
		left[i] = map[string]bool{}
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range steps {
				room := fmt.Sprint("room", rng.IntN(rooms))
				some := !left[i][room]
				left[i][room] = some
				in.change(room, some)
			}
		})
	}
	all.Wait()
	for k := range rooms {
		room := fmt.Sprint("room", k)
		want := slices.ContainsFunc(left, func(m map[string]bool) bool { return m[room] })
		if told.some[room] != want {
			t.Errorf("%s: the last call said %v, expected %v", room, told.some[room], want)
		}
	}
	if told.calls < 2*rooms {
		t.Errorf("only %d calls: the loops did not meet", told.calls)
	}
	for i := range loops {
		for room, some := range left[i] {
			if some {
				in.change(room, false)
			}
		}
	}
	for i := range in.parts {
		if n := len(in.parts[i].rooms); n != 0 {
			t.Errorf("%d rooms are still counted", n)
		}
	}
}

// tellings checks the calls of Interest that several loops make.
type tellings struct {
	*script
	t     testing.TB
	mu    sync.Mutex
	busy  map[string]bool
	some  map[string]bool
	calls int
}

func (w *tellings) Interest(room string, some bool) {
	w.mu.Lock()
	if w.busy[room] || w.some[room] == some {
		w.t.Errorf("Interest(%s, %v) inside another call, or twice", room, some)
	}
	w.busy[room] = true
	w.calls++
	w.mu.Unlock()
	w.mu.Lock() // others get in between if the caller lets them
	w.busy[room], w.some[room] = false, some
	w.mu.Unlock()
}

// What a worker may not do wrong is noticed: an end without a beginning.
func TestInterestEndsOnce(t *testing.T) {
	in := newInterest(&tellings{t: t, busy: map[string]bool{}, some: map[string]bool{}})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	in.change("a", true)
	in.change("a", false)
	in.change("a", false)
}

// ReplySubscribing: who subscribes gets what it missed behind the answer and before what is published next, and so does who
// joins a room again, since the answer replaces what it knows; who is subscribed to a conversation already, or does not get
// the answer, does not; done is called in every case, once.
func TestReplySubscribing(t *testing.T) {
	missed := []Event{{"missed1", []byte("a")}, {"missed2", nil}}
	room := Topic{TopicRoom, "a"}
	ok := joinAnswer("ok", "a")
	answer := fmt.Sprintf(`text Response C0 r %q 0ms`, ok)
	tests := []struct {
		name   string
		before func(s *sim, p *peer) // between request and answer
		answer []byte
		want   []string
		count  uint64 // deliveries
	}{
		{"subscribes", nil, ok, []string{answer, `text Event missed1 "a"`, `text Event missed2 ""`, `text Event next ""`}, 3},
		{"is subscribed", func(s *sim, p *peer) { s.subscribe(p, room) }, ok,
			[]string{answer, `text Event missed1 "a"`, `text Event missed2 ""`, `text Event next ""`}, 3},
		{"is subscribed to the other topic", func(s *sim, p *peer) { s.subscribe(p, Topic{TopicConversation, "a"}) }, ok,
			[]string{answer, `text Event missed1 "a"`, `text Event missed2 ""`, `text Event next ""`}, 3},
		{"is refused", nil, joinAnswer("not-found", "a"), []string{fmt.Sprintf(`text Response C0 r %q 0ms`, joinAnswer("not-found", "a"))}, 0},
		{"too late", func(s *sim, p *peer) { s.advance(requestTimeout); p.take() }, ok, nil, 0},
		{"has gone", func(s *sim, p *peer) { p.p.Reset(); s.run() }, ok, nil, 0},
		{"drains", func(s *sim, p *peer) { s.drain(); s.advance(time.Second) }, ok,
			[]string{answer[:len(answer)-3] + "1000ms", `text Event missed1 "a"`, `text Event missed2 ""`, `close 3333 "drain"`}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 1)
			p := s.connect(0)
			s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
			p.request(wire.TypeJoinRoom, nil)
			s.run()
			if test.before != nil {
				test.before(s, p)
			}
			done := 0
			s.w.later[0].ReplySubscribing("r", test.answer, missed, func() { done++ })
			s.w.clients.Publish(room, "next", nil)
			if done != 0 {
				t.Error("done was called on another goroutine than the loop's")
			}
			s.run()
			if got := show(p.take()); !slices.Equal(got, test.want) && len(got)+len(test.want) > 0 {
				t.Errorf("got\n  %q\nexpected\n  %q", got, test.want)
			}
			if st := s.stats(); done != 1 || st.Deliveries != test.count {
				t.Errorf("done %d times, %d deliveries", done, st.Deliveries)
			}
			if p.conn() != nil {
				p.p.Reset()
			}
		})
	}
}

// Who is subscribed to a conversation has had what came after the messages of the answer, and must not get it twice.
func TestReplySubscribingConversation(t *testing.T) {
	for _, subscribed := range []bool{false, true} {
		s := newSim(t, 1)
		p := s.connect(0)
		if subscribed {
			s.subscribe(p, Topic{TopicConversation, "a"})
		}
		s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
		fetch := wire.FetchRoomConversation{RoomID: "a", Options: []wire.RoomConversationOption{wire.Subscribe}}
		p.request(wire.TypeFetchRoomConversation, fetch.AppendTo(nil))
		s.run()
		ok := (&wire.FetchRoomConversationResponse{Status: wire.StatusOK}).AppendTo(nil)
		s.w.later[0].ReplySubscribing("r", ok, []Event{{"missed", nil}}, nil)
		s.run()
		want := []string{fmt.Sprintf(`text Response C0 r %q 0ms`, ok)}
		if !subscribed {
			want = append(want, `text Event missed ""`)
		}
		if got := show(p.take()); !slices.Equal(got, want) {
			t.Errorf("subscribed before %v: got\n  %q\nexpected\n  %q", subscribed, got, want)
		}
		p.p.Reset()
	}
}

// A binary client gets binary events, a panic in done harms nothing, nil is no function, and a Completion of somebody
// else's says that it cannot.
func TestReplySubscribingForms(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.binary(&wire.Envelope{RequestID: "C0", Type: "later"})
	p.binary(&wire.Envelope{RequestID: "C1", Type: wire.TypeJoinRoom})
	s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
	s.run()
	s.w.later[0].ReplySubscribing("other", nil, []Event{{"missed", nil}}, func() { panic("secret panic") })
	s.w.later[1].ReplySubscribing("r", joinAnswer("already-in-room", "a"), []Event{{"missed", nil}}, nil)
	p.expect(`binary Response C0 other "" 0ms`, fmt.Sprintf(`binary Response C1 r %q 0ms`, joinAnswer("already-in-room", "a")),
		`binary Event missed ""`)
	if st := s.stats(); st.Panics != 1 {
		t.Errorf("%d panics", st.Panics)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewCompletion(deafCompleter{}, 1).ReplySubscribing("r", nil, nil, nil)
}

type deafCompleter struct{}

func (deafCompleter) Complete(uint64, string, []byte, error) {}
