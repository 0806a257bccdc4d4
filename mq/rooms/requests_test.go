package rooms_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// payloads has an empty payload for every request but Authenticate.
var requestTypes = []string{
	wire.TypeBye, wire.TypeCreateRoom, wire.TypeJoinRoom, wire.TypeLeaveRoom, wire.TypeUpdateRoom, wire.TypeUpdateMember,
	wire.TypeGetRoomInfo, wire.TypeSendMessageToRoom, wire.TypeFetchRoomConversation, wire.TypeDestroyRoom,
}

func TestBeforeAuthenticate(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		c := g.dial()
		for _, typ := range requestTypes {
			x := g.raw(c.id, "", typ, nil)
			status, _ := wire.PeekStatus(x.answer)
			g.must(typ, status, wire.StatusUnauthorized)
		}
		if n := g.w.Counters().Unauthorized; n != int64(len(requestTypes)) {
			t.Errorf("%d counted", n)
		}
	})
}

// L3.5: the gateway makes an mq.Error of it.
func TestUnknownRequest(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		for _, c := range []*client{g.dial(), g.login()} {
			for _, typ := range []string{"", "chat.Nonsense", "chat.JoinRoomResponse", "pcast.SetupStream"} {
				if x := g.raw(c.id, "", typ, nil); !errors.Is(x.failed, ErrUnknownType) {
					t.Errorf("%s: %v", typ, x.failed)
				}
			}
		}
		if n := g.w.Counters().Unknown; n != 8 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestMalformedPayload(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		c := g.login()
		for _, typ := range append(requestTypes, wire.TypeAuthenticate) {
			x := g.raw(c.id, "", typ, []byte{0x0a, 0x05, 'x'})
			status, _ := wire.PeekStatus(x.answer)
			g.must(typ, status, wire.StatusFailed)
		}
		if n := g.w.Counters().Malformed; n != int64(len(requestTypes)+1) {
			t.Errorf("%d counted", n)
		}
	})
}

// A request that names another session, in its own field or in the envelope's, is refused and changes nothing.
func TestForeignSession(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b := g.login(), g.login()
		room := a.room()
		a.join(room)
		s := a.session
		for typ, m := range map[string]message{
			wire.TypeBye:                   &wire.Bye{SessionID: s},
			wire.TypeCreateRoom:            &wire.CreateRoom{SessionID: s, Room: wire.Room{Name: "x"}},
			wire.TypeJoinRoom:              &wire.JoinRoom{RoomID: room, SessionID: s},
			wire.TypeLeaveRoom:             &wire.LeaveRoom{RoomID: room, SessionID: s},
			wire.TypeUpdateRoom:            &wire.UpdateRoom{SessionID: s, Room: wire.Room{RoomID: room}},
			wire.TypeUpdateMember:          &wire.UpdateMember{RoomID: room, SessionID: s},
			wire.TypeGetRoomInfo:           &wire.GetRoomInfo{RoomID: room, SessionID: s},
			wire.TypeSendMessageToRoom:     &wire.SendMessageToRoom{RoomID: room, ChatMessage: wire.ChatMessage{From: wire.ChatUser{SessionID: s}}},
			wire.TypeFetchRoomConversation: &wire.FetchRoomConversation{RoomID: room, SessionID: s},
		} {
			g.must(typ, b.ask(typ, m, nil), wire.StatusUnauthorized)
		}
		x := g.raw(b.id, s, wire.TypeDestroyRoom, (&wire.DestroyRoom{RoomID: room}).AppendTo(nil))
		status, _ := wire.PeekStatus(x.answer)
		g.must("envelope", status, wire.StatusUnauthorized)
		x = g.raw(a.id, s, wire.TypeGetRoomInfo, (&wire.GetRoomInfo{RoomID: room}).AppendTo(nil))
		status, _ = wire.PeekStatus(x.answer)
		g.must("own envelope, no session in the request", status, wire.StatusOK)
		if got := a.members(room); !slices.Equal(got, []string{s}) {
			t.Errorf("members %v", got)
		}
		if n := g.w.Counters().Rooms; n != 1 {
			t.Errorf("%d rooms", n)
		}
	})
}

func TestCreateRoom(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b := g.login(), g.login()
		want := wire.Room{Alias: "lobby", Name: "The Lobby", Description: "d", Type: wire.Channel, Options: []string{"o"}, BridgeID: "b", Pin: "1"}
		first, status := a.create(want)
		g.must("create", status, wire.StatusOK)
		if len(first.RoomID) < 20 {
			t.Errorf("id %q", first.RoomID)
		}
		got := first
		got.RoomID = ""
		if string(got.AppendTo(nil)) != string(want.AppendTo(nil)) {
			t.Errorf("answered %+v", first)
		}
		again, status := b.create(wire.Room{Alias: "lobby", Name: "another"})
		g.must("same alias", status, wire.StatusAlreadyExists)
		if again.RoomID != first.RoomID || again.Name != "The Lobby" {
			t.Errorf("answered %+v", again)
		}
		named, status := b.create(wire.Room{RoomID: "my#id", Name: "n"})
		g.must("own id", status, wire.StatusOK)
		if named.RoomID != "my#id" {
			t.Errorf("answered %+v", named)
		}
		again, status = a.create(wire.Room{RoomID: "my#id", Alias: "unused", Name: "other"})
		g.must("same id", status, wire.StatusAlreadyExists)
		if again.RoomID != "my#id" || again.Name != "n" {
			t.Errorf("answered %+v", again)
		}
		_, status = a.create(wire.Room{Alias: "unused", Name: "x"})
		g.must("alias of a room that was not created", status, wire.StatusOK)
		if n := g.w.Counters(); n.Rooms != 3 || n.Members != 0 {
			t.Errorf("%+v", n)
		}
	})
}

func TestJoinLeave(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b, c := g.login(), g.login(), g.login()
		created, _ := a.create(wire.Room{Alias: "lobby", Name: "n", Type: wire.TownHall})
		room := created.RoomID

		_, status := a.join("no such room")
		g.must("no such room", status, wire.StatusNotFound)
		_, status = a.join("")
		g.must("no room named", status, wire.StatusNotFound)
		g.must("leave before join", a.leave(room), wire.StatusNotInRoom)
		g.must("leave no such room", a.leave("x"), wire.StatusNotFound)

		stream := wire.Stream{Type: wire.StreamAudio, URI: "pcast://x", AudioState: wire.TrackDisabled}
		in := wire.Member{ScreenName: "Ann", Role: wire.RolePresenter, State: wire.StateHandRaised, Streams: []wire.Stream{stream}, LastUpdate: 3}
		first, status := a.joinAs(room, in)
		g.must("join", status, wire.StatusOK)
		if first.Room == nil || first.Room.RoomID != room || first.Room.Type != wire.TownHall || len(first.Members) != 1 || first.Self == nil {
			t.Fatalf("answered %+v", first)
		}
		self := first.Members[0]
		if self.SessionID != a.session || self.ScreenName != "Ann" || self.Role != in.Role || self.State != in.State ||
			!slices.Equal(self.Streams, in.Streams) || self.LastUpdate <= 1e12 || first.Self.LastUpdate != self.LastUpdate {
			t.Errorf("self %+v", self)
		}
		a.expect("joined " + a.session) // after the answer: the answer is what subscribes

		var byAlias wire.JoinRoomResponse
		g.must("join by alias", b.ask(wire.TypeJoinRoom, &wire.JoinRoom{Alias: "lobby", SessionID: b.session,
			Member: wire.Member{SessionID: a.session, ScreenName: "Bob"}}, &byAlias), wire.StatusOK)
		if len(byAlias.Members) != 2 || byAlias.Members[1].SessionID != b.session {
			t.Errorf("members %+v", byAlias.Members)
		}
		b.expect("joined " + b.session)
		a.expect("joined " + b.session)
		g.must("join by unknown alias", b.ask(wire.TypeJoinRoom, &wire.JoinRoom{Alias: "nowhere"}, nil), wire.StatusNotFound)

		second, status := b.join(room)
		g.must("join twice", status, wire.StatusAlreadyInRoom)
		if len(second.Members) != 2 || second.Room == nil || second.Self.ScreenName != "Bob" {
			t.Errorf("answered %+v", second)
		}
		a.expect()

		g.must("leave", b.leave(room), wire.StatusOK)
		a.expect("left " + b.session)
		b.expect()
		g.must("leave twice", b.leave(room), wire.StatusNotInRoom)
		third, status := c.join(room, wire.OptionReenter)
		g.must("reenter of a stranger is a join", status, wire.StatusOK)
		if len(third.Members) != 2 {
			t.Errorf("members %+v", third.Members)
		}
		a.expect("joined " + c.session)
		if n := g.w.Counters().Members; n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

// What a client ignores, it ignores by lastUpdate: so it grows over everything that happens to a member, a second join
// of the same session included.
func TestLastUpdateGrows(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a := g.login()
		room := a.room()
		var last uint64
		step := func(what string, now uint64) {
			t.Helper()
			if now <= last {
				t.Errorf("%s: lastUpdate %d after %d", what, now, last)
			}
			last = now
		}
		watch := g.login()
		watch.join(room)
		for range 3 {
			j, _ := a.join(room)
			step("join", j.Self.LastUpdate)
			var u wire.UpdateMemberResponse
			a.ask(wire.TypeUpdateMember, &wire.UpdateMember{RoomID: room, Member: wire.MemberUpdate{HasState: true, State: wire.StatePassive}}, &u)
			step("update", u.LastUpdate)
			watch.take()
			a.leave(room)
			var e wire.RoomEvent
			if err := e.Unmarshal(watch.take()[0].payload); err != nil || e.EventType != wire.MemberLeft {
				t.Fatal(e, err)
			}
			step("left", e.Members[0].LastUpdate)
			if e.Timestamp != e.Members[0].LastUpdate || e.RoomID != room || e.SessionID != a.session {
				t.Errorf("event %+v", e)
			}
		}
	})
}

func TestUpdateMember(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, mod, out := g.login(), g.login(), g.login()
		room := a.room()
		uri := []wire.Stream{{URI: "u"}}
		a.joinAs(room, wire.Member{ScreenName: "Ann", Role: wire.RoleAudience, Streams: uri})
		mod.joinAs(room, wire.Member{ScreenName: "Mod", Role: wire.RoleModerator})
		update := func(c *client, m wire.MemberUpdate) string {
			return c.ask(wire.TypeUpdateMember, &wire.UpdateMember{SessionID: c.session, RoomID: room, Member: m}, nil)
		}
		member := func(session string) wire.Member {
			info, _ := a.roomInfo(room)
			i := slices.IndexFunc(info.Members, func(m wire.Member) bool { return m.SessionID == session })
			return info.Members[i]
		}
		a.take()
		mod.take()
		g.must("state only", update(a, wire.MemberUpdate{SessionID: a.session, State: wire.StateInactive, HasState: true}), wire.StatusOK)
		if m := member(a.session); m.ScreenName != "Ann" || m.Role != wire.RoleAudience || m.State != wire.StateInactive || len(m.Streams) != 1 {
			t.Errorf("%+v", m)
		}
		mod.expect("updated " + a.session)
		a.expect("updated " + a.session)
		g.must("screen name and role", update(a, wire.MemberUpdate{ScreenName: "", HasScreenName: true, HasRole: true}), wire.StatusOK)
		if m := member(a.session); m.ScreenName != "" || m.Role != wire.RoleParticipant || m.State != wire.StateInactive {
			t.Errorf("%+v", m)
		}
		g.must("no streams any more", update(a, wire.MemberUpdate{UpdateStreams: true}), wire.StatusOK)
		if m := member(a.session); len(m.Streams) != 0 {
			t.Errorf("%+v", m)
		}
		g.must("streams without the flag", update(a, wire.MemberUpdate{Streams: uri}), wire.StatusOK)
		if m := member(a.session); !slices.Equal(m.Streams, uri) {
			t.Errorf("%+v", m)
		}
		g.must("someone else", update(a, wire.MemberUpdate{SessionID: mod.session}), wire.StatusUnauthorized)
		mod.take()
		g.must("someone else, as moderator", update(mod, wire.MemberUpdate{SessionID: a.session, HasState: true, State: wire.StateActive}), wire.StatusOK)
		mod.expect("updated " + a.session)
		g.must("nobody, as moderator", update(mod, wire.MemberUpdate{SessionID: out.session}), wire.StatusNotFound)
		g.must("not a member", update(out, wire.MemberUpdate{}), wire.StatusNotInRoom)

		// Old clients do not name the room.
		none := &wire.UpdateMember{Member: wire.MemberUpdate{HasState: true, State: wire.StateOffline}}
		g.must("room not named", a.ask(wire.TypeUpdateMember, none, nil), wire.StatusOK)
		if m := member(a.session); m.State != wire.StateOffline {
			t.Errorf("%+v", m)
		}
		g.must("room not named, in none", out.ask(wire.TypeUpdateMember, none, nil), wire.StatusNotInRoom)
		other := a.room()
		a.join(other)
		g.must("room not named, in two", a.ask(wire.TypeUpdateMember, none, nil), wire.StatusFailed)
	})
}

func TestUpdateRoom(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b, out := g.login(), g.login(), g.login()
		created, _ := a.create(wire.Room{Alias: "al", Name: "n", Description: "d", Type: wire.DirectChat, Pin: "p"})
		room := created.RoomID
		b.join(room)
		b.take()
		update := func(c *client, r wire.Room) string {
			return c.ask(wire.TypeUpdateRoom, &wire.UpdateRoom{SessionID: c.session, Room: r}, nil)
		}
		g.must("member", update(b, wire.Room{RoomID: room, Name: "new", Type: wire.Channel, Options: []string{"x"}}), wire.StatusOK)
		in := b.take()
		var e wire.RoomEvent
		// Over NATS the event may come before the answer.
		i := slices.IndexFunc(in, func(r received) bool { return r.typ == wire.TypeRoomEvent })
		if err := e.Unmarshal(in[i].payload); err != nil || e.EventType != wire.RoomUpdated || e.Room == nil || e.Room.Name != "new" || e.Room.RoomID != room {
			t.Errorf("%+v, %v", e, err)
		}
		info, _ := a.roomInfo(room)
		want := wire.Room{RoomID: room, Alias: "al", Name: "new", Description: "d", Type: wire.Channel, Pin: "p", Options: []string{"x"}}
		if string(info.Room.AppendTo(nil)) != string(want.AppendTo(nil)) {
			t.Errorf("%+v", info.Room)
		}
		g.must("creator, by alias", update(a, wire.Room{Alias: "al", Name: "newer"}), wire.StatusOK)
		b.expect("room")
		g.must("another alias", update(b, wire.Room{RoomID: room, Alias: "bl", Name: "x"}), wire.StatusFailed)
		g.must("stranger", update(out, wire.Room{RoomID: room, Name: "x"}), wire.StatusNotInRoom)
		g.must("no such room", update(a, wire.Room{RoomID: "none", Name: "x"}), wire.StatusNotFound)
		g.must("no room named", update(a, wire.Room{Name: "x"}), wire.StatusNotFound)
		b.expect()
	})
}

func TestGetRoomInfo(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b := g.login(), g.login()
		created, _ := a.create(wire.Room{Alias: "al", Name: "n"})
		a.join(created.RoomID)
		var info wire.GetRoomInfoResponse
		g.must("by alias, not a member", b.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{Alias: "al"}, &info), wire.StatusOK)
		if info.Room.RoomID != created.RoomID || len(info.Members) != 1 || info.Members[0].SessionID != a.session {
			t.Errorf("%+v", info)
		}
		g.must("id before alias", b.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: "x", Alias: "al"}, nil), wire.StatusNotFound)
		g.must("nothing", b.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{}, nil), wire.StatusNotFound)
	})
}

func TestDestroyRoom(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b, out := g.login(), g.login(), g.login()
		created, _ := a.create(wire.Room{Alias: "al", Name: "n"})
		room := created.RoomID
		b.join(room)
		out.take()
		destroy := func(c *client, id string) string {
			return c.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: id}, nil)
		}
		g.must("stranger", destroy(out, room), wire.StatusNotInRoom)
		g.must("no such room", destroy(a, "none"), wire.StatusNotFound)
		b.take()
		g.must("creator", destroy(a, room), wire.StatusOK)
		b.expect("ended")
		if want := []mq.Topic{{Kind: mq.TopicRoom, Room: room}, {Kind: mq.TopicConversation, Room: room}}; !slices.Equal(g.ended, want) {
			t.Errorf("ended %v", g.ended)
		}
		g.must("twice", destroy(a, room), wire.StatusNotFound)
		g.must("leave", b.leave(room), wire.StatusNotFound)
		g.must("say", b.say(room, "x"), wire.StatusNotFound)
		fresh, status := b.create(wire.Room{RoomID: room, Alias: "al", Name: "second life"})
		g.must("id and alias are free", status, wire.StatusOK)
		if got := a.members(fresh.RoomID); len(got) != 0 {
			t.Errorf("members %v", got)
		}
		b.join(room)
		g.must("member", destroy(b, room), wire.StatusOK)
		if n := g.w.Counters(); n.Rooms != 0 || n.Members != 0 {
			t.Errorf("%+v", n)
		}
	})
}

func TestConversation(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b, out := g.login(), g.login(), g.login()
		room := a.room()
		a.joinAs(room, wire.Member{ScreenName: "Ann", Role: wire.RoleModerator})
		b.join(room)
		for _, s := range []string{"1", "2", "3"} {
			g.must("say", a.say(room, s), wire.StatusOK)
		}
		g.must("not a member says", out.say(room, "x"), wire.StatusNotInRoom)
		g.must("no such room", out.say("none", "x"), wire.StatusNotFound)
		_, status := out.fetch(room, "", "", 0)
		g.must("not a member fetches", status, wire.StatusNotInRoom)
		b.take()
		all, status := b.fetch(room, "", "", 0, wire.Subscribe)
		g.must("subscribe", status, wire.StatusOK)
		texts := func(ms []wire.ChatMessage) (s string) {
			for _, m := range ms {
				s += m.Message
			}
			return s
		}
		if texts(all) != "123" {
			t.Fatalf("history %q", texts(all))
		}
		m := all[0]
		if m.From.SessionID != a.session || m.From.ScreenName != "Ann" || m.From.Role != wire.RoleModerator || m.From.LastUpdate == 0 ||
			m.Timestamp < 1e12 || len(m.MessageID) != MessageIDLen || !(all[0].MessageID < all[1].MessageID && all[1].MessageID < all[2].MessageID) {
			t.Errorf("%+v", m)
		}
		a.take()
		g.must("say", a.say(room, "4"), wire.StatusOK)
		b.expect("said 4")
		a.expect() // has not subscribed
		all, _ = b.fetch(room, "", "", 0)
		id := func(i int) string { return all[i].MessageID }
		gap := "0000000000000000"
		for _, c := range []struct {
			after, before string
			limit         uint32
			want          string
		}{
			{"", "", 0, "1234"}, {"", "", 1, "4"}, {"", "", 3, "234"}, {"", "", 4, "1234"}, {"", "", 5, "1234"},
			{id(0), "", 0, "234"}, {id(0), "", 2, "23"}, {id(3), "", 0, ""}, {"", id(3), 0, "123"}, {"", id(3), 2, "23"}, {"", id(0), 5, ""},
			{id(0), id(3), 0, "23"}, {id(0), id(3), 1, "2"}, {id(3), id(0), 0, ""}, {gap, "", 0, "1234"}, {"", gap, 0, ""},
			{"9999999999999999", "", 0, ""}, {"", "9999999999999999", 0, "1234"}, {"", "", 4294967295, "1234"},
		} {
			got, status := b.fetch(room, c.after, c.before, c.limit)
			if status != wire.StatusOK || texts(got) != c.want {
				t.Errorf("after %q before %q limit %d: %s %q, want %q", c.after, c.before, c.limit, status, texts(got), c.want)
			}
		}
		for _, bad := range []string{"x", "123", strings.Repeat("9", 17), "000000000000000x"} {
			_, status := b.fetch(room, bad, "", 0)
			g.must("after "+bad, status, wire.StatusFailed)
			_, status = b.fetch(room, "", bad, 0)
			g.must("before "+bad, status, wire.StatusFailed)
		}
		b.take()
		b.leave(room)
		a.say(room, "5")
		b.expect()
		if n := g.w.Counters().Messages; n != 5 {
			t.Errorf("%d messages", n)
		}
	})
}

func TestBye(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		a, b := g.login(), g.login()
		one, two := a.room(), a.room()
		for _, r := range []string{one, two} {
			a.join(r)
			b.join(r)
		}
		a.take()
		b.take()
		g.must("bye", b.bye(), wire.StatusOK)
		a.expect("left "+b.session, "left "+b.session)
		b.expect()
		g.must("afterwards", b.leave(one), wire.StatusUnauthorized)
		g.must("bye again", b.bye(), wire.StatusUnauthorized)
		old := b.session
		g.must("authenticate again", b.auth(old, ""), wire.StatusOK)
		if b.session == old {
			t.Error("a session that has ended came back")
		}
		b.lose(1006)
		a.expect()
		if n := g.w.Counters(); n.Members != 2 {
			t.Errorf("%+v", n)
		}
	})
}
