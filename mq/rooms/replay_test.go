package rooms

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// logged is an operation's trace in a log.
type logged struct {
	events []Event
	delta  []byte
}

func (l *logged) add(res *Result) {
	if res.EventType != "" {
		l.events = append(l.events, Event{res.EventKind, res.EventType, slices.Clone(res.Event)})
	}
	l.delta = append(l.delta, res.Delta...)
}

// operate does something to a room, drawn by rt, and returns what it was.
func operate(rt *rapid.T, r *Room, now uint64, limits *Limits, res *Result) string {
	session := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "session")
	other := rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(rt, "other")
	member := wire.Member{ScreenName: rapid.StringN(0, 5, 12).Draw(rt, "name"), Role: wire.MemberRole(rapid.IntRange(0, 3).Draw(rt, "role")),
		State: wire.MemberState(rapid.IntRange(0, 4).Draw(rt, "state"))}
	for range rapid.IntRange(0, 2).Draw(rt, "streams") {
		member.Streams = append(member.Streams, wire.Stream{URI: rapid.StringN(0, 3, 6).Draw(rt, "uri"), Type: wire.StreamAudio})
	}
	what := rapid.SampledFrom([]string{"join", "join", "leave", "update member", "update", "send", "send", "send", "bar", "destroy", "info", "expire"}).Draw(rt, "what")
	switch what {
	case "join":
		r.Join(session, rapid.Uint64Range(1, 4).Draw(rt, "attempt"), &member, rapid.Bool().Draw(rt, "reenter"), now, limits, res)
	case "leave":
		r.Leave(session, now, res)
	case "update member":
		r.UpdateMember(session, &wire.MemberUpdate{SessionID: other, HasScreenName: rapid.Bool().Draw(rt, "has name"), ScreenName: member.ScreenName,
			HasState: true, State: member.State, UpdateStreams: rapid.Bool().Draw(rt, "has streams"), Streams: member.Streams}, now, limits, res)
	case "update":
		r.Update(session, &wire.Room{Name: member.ScreenName, Type: wire.Channel, Options: []string{"x", member.ScreenName}}, now, limits, res)
	case "send":
		r.Send(session, member.ScreenName, now*1000, limits, res)
	case "bar":
		r.Leave(session, now, res)
		r.Bar(session, rapid.Uint64Range(1, 4).Draw(rt, "attempt"), now, res)
	case "destroy":
		if rapid.IntRange(0, 9).Draw(rt, "really") == 0 {
			r.Destroy(session, now, res)
		} else {
			res.reset()
		}
	case "info":
		r.Info(res)
	case "expire":
		r.Expire(now, 5000, res)
	}
	return what
}

// state is everything about a room, for comparing; it checks what must be the same in two places.
func state(t rapid.TB, r *Room) string {
	if r == nil || r.ended {
		return "ended"
	}
	if len(r.index) != len(r.members) {
		t.Fatalf("%d members, %d in the index", len(r.members), len(r.index))
	}
	total := 0
	for _, m := range r.members {
		if r.index[m.SessionID] != m {
			t.Fatalf("the index does not know %s", m.SessionID)
		}
	}
	for _, k := range r.history {
		if total += len(k.msg); len(k.msg) == 0 {
			t.Fatal("a message was cleared that is kept")
		}
	}
	if total != r.historyBytes {
		t.Fatalf("history has %d bytes, counted %d", total, r.historyBytes)
	}
	return fmt.Sprintf("%x", r.AppendSnapshot(nil))
}

func smallLimits() *Limits {
	l := DefaultLimits()
	l.HistoryMessages, l.HistoryBytes, l.HistoryAge, l.MembersPerRoom = 4, 250, 3*time.Second, 3
	return &l
}

// Whatever is done to a room: the log gives the same room, from the beginning and from any snapshot; a transaction that is
// rolled back leaves no trace, and one that is kept does the same as none.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := smallLimits()
		now := uint64(1_700_000_000_000)
		r := newRoom(wire.Room{RoomID: "r", Alias: "al", Name: "n"}, "a", now)
		log := []logged{{delta: r.AppendCreation(nil)}}
		fromSnapshot, err := Replay(nil, nil, log[0].delta, limits)
		if err != nil {
			rt.Fatal(err)
		}
		var res Result
		for range rapid.IntRange(0, 40).Draw(rt, "records") {
			if r.Ended() {
				break
			}
			now += rapid.Uint64Range(0, 2000).Draw(rt, "pause")
			before := state(rt, r)
			if rapid.Bool().Draw(rt, "in vain") {
				r.Begin()
				for range rapid.IntRange(1, 4).Draw(rt, "operations in vain") {
					if !r.Ended() {
						operate(rt, r, now, limits, &res)
					}
				}
				r.Rollback()
				if after := state(rt, r); after != before {
					rt.Fatalf("rolled back to\n%s from\n%s", after, before)
				}
			}
			var rec logged
			transaction := rapid.Bool().Draw(rt, "in a transaction")
			if transaction {
				r.Begin()
			}
			for range rapid.IntRange(1, 3).Draw(rt, "operations") {
				if r.Ended() {
					break
				}
				was := state(rt, r)
				what := operate(rt, r, now, limits, &res)
				if is := state(rt, r); is != was && !res.Changed() {
					rt.Fatalf("%s has changed the room without a trace", what)
				}
				rec.add(&res)
			}
			if transaction {
				r.Commit()
			}
			log = append(log, rec)
			if fromSnapshot, err = Replay(fromSnapshot, rec.events, rec.delta, limits); err != nil {
				rt.Fatal(err)
			}
			if want, got := state(rt, r), state(rt, fromSnapshot); got != want {
				rt.Fatalf("from a snapshot\n%s, want\n%s", got, want)
			}
			if rapid.Bool().Draw(rt, "snapshot") && !r.Ended() {
				b := r.AppendSnapshot(nil)
				if fromSnapshot, err = DecodeSnapshot(b, limits); err != nil {
					rt.Fatal(err)
				}
				if again := fromSnapshot.AppendSnapshot(nil); !bytes.Equal(again, b) {
					rt.Fatal("a snapshot changes on the way")
				}
				clear(b) // it was borrowed
			}
		}
		var again *Room
		for _, rec := range log {
			if again, err = Replay(again, rec.events, rec.delta, limits); err != nil {
				rt.Fatal(err)
			}
			for _, e := range rec.events {
				clear(e.Payload)
			}
		}
		if want, got := state(rt, r), state(rt, again); got != want {
			rt.Fatalf("from the log\n%s, want\n%s", got, want)
		}
	})
}

// What is no record or no snapshot is refused, and nothing panics; what is accepted is a room in order.
func FuzzReplay(f *testing.F) {
	limits := smallLimits()
	r := newRoom(wire.Room{RoomID: "r"}, "a", 1)
	f.Add(r.AppendCreation(nil), []byte{}, uint8(0))
	var res Result
	for i, op := range []func(){
		func() { r.Join("a", 1, &wire.Member{ScreenName: "n"}, false, 10, limits, &res) },
		func() { r.Send("a", "text", 20_000, limits, &res) },
		func() { r.Leave("a", 30, &res); r.Bar("a", 1, 30, &res) },
		func() { r.Destroy("a", 40, &res) },
	} {
		op()
		f.Add(res.Delta, res.Event, uint8(i))
		if !r.Ended() {
			f.Add(r.AppendSnapshot(nil), []byte{}, uint8(9))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte, kind uint8) {
		room := newRoom(wire.Room{RoomID: "r"}, "a", 1)
		var res Result
		room.Join("a", 0, &wire.Member{}, false, 2, limits, &res)
		typ := wire.TypeRoomEvent
		if kind%2 == 1 {
			typ = wire.TypeRoomConversationEvent
		}
		if room, err := Replay(room, []Event{{mq.TopicRoom, typ, b}}, a, limits); err == nil {
			state(t, room)
		}
		if room, err := DecodeSnapshot(a, limits); err == nil {
			state(t, room)
		}
	})
}

// A join that was on its way when its session was taken out is refused; a later one is not, nor one after the bar's time.
func TestBar(t *testing.T) {
	limits := DefaultLimits()
	r := newRoom(wire.Room{RoomID: "r"}, "s", 0)
	var res Result
	join := func(session string, attempt uint64) string {
		r.Join(session, attempt, &wire.Member{}, false, 2000, &limits, &res)
		status := res.Status
		r.Leave(session, 2000, &res)
		return status
	}
	r.Bar("s", 5, 1000, &res)
	for attempt, want := range map[uint64]string{4: wire.StatusUnauthorized, 5: wire.StatusUnauthorized, 6: wire.StatusOK} {
		if got := join("s", attempt); got != want {
			t.Errorf("attempt %d: %s, want %s", attempt, got, want)
		}
	}
	if got := join("t", 1); got != wire.StatusOK {
		t.Errorf("another session: %s", got)
	}
	for at, want := range map[uint64]int{1000 + barTime - 1: 2, 1000 + barTime: 2, 1000 + barTime + 1: 1} {
		r.bars = []bar{{"s", 5, 1000}}
		if r.Bar("t", AllAttempts, at, &res); len(r.bars) != want {
			t.Errorf("at %d: %d bars, want %d", at, len(r.bars), want)
		}
	}
}

// Messages go when they are too old: with the next message from memory, and from the answer at once.
func TestHistoryAge(t *testing.T) {
	limits := DefaultLimits()
	limits.HistoryAge = time.Minute
	minute := uint64(time.Minute / time.Microsecond)
	r := newRoom(wire.Room{RoomID: "r"}, "s", 0)
	var res Result
	r.Join("s", 0, &wire.Member{}, false, 1000, &limits, &res)
	const first = 1_000_000_000
	r.Send("s", "1", first, &limits, &res)
	count := func(now uint64) int {
		r.Fetch("s", &wire.FetchRoomConversation{RoomID: "r"}, now, &limits, &res)
		var a wire.FetchRoomConversationResponse
		if err := a.Unmarshal(res.Answer); err != nil {
			t.Fatal(err)
		}
		return len(a.ChatMessages)
	}
	for now, want := range map[uint64]int{first: 1, first + minute - 1: 1, first + minute: 1, first + minute + 1: 0} {
		if got := count(now); got != want {
			t.Errorf("after %d us: %d messages, want %d", now-first, got, want)
		}
	}
	r.Send("s", "2", first+minute, &limits, &res)
	if len(r.history) != 2 {
		t.Errorf("%d messages are kept at the limit", len(r.history))
	}
	r.Send("s", "3", first+minute+1, &limits, &res)
	if len(r.history) != 2 {
		t.Errorf("%d messages are kept above the limit", len(r.history))
	}
	limits.HistoryAge = 0
	if got := count(first + 1000*minute); got != 2 {
		t.Errorf("without a limit: %d", got)
	}
}
