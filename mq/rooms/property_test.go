package rooms_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// view is a room as a client sees it: from the answer to JoinRoom and from events, with the rules of real clients.
type view struct {
	members map[string]wire.Member
	name    string
	ended   bool
}

// own copies a decoded member out of its buffer.
func own(m wire.Member) wire.Member {
	m.SessionID, m.ScreenName = strings.Clone(m.SessionID), strings.Clone(m.ScreenName)
	m.Streams = CloneStreams(m.Streams)
	return m
}

func (v *view) apply(t testing.TB, r received) {
	switch r.typ {
	case wire.TypeJoinRoomResponse:
		var a wire.JoinRoomResponse
		if err := a.Unmarshal(r.payload); err != nil {
			t.Fatal(err)
		}
		if a.Room == nil {
			return
		}
		v.members, v.name, v.ended = map[string]wire.Member{}, strings.Clone(a.Room.Name), false
		for _, m := range a.Members {
			v.members[m.SessionID] = own(m)
		}
	case wire.TypeRoomEvent:
		var e wire.RoomEvent
		if err := e.Unmarshal(r.payload); err != nil {
			t.Fatal(err)
		}
		if v.members == nil {
			t.Errorf("event %v before the answer to JoinRoom", e.EventType)
			return
		}
		switch e.EventType {
		case wire.MemberJoined:
			for _, m := range e.Members {
				v.members[m.SessionID] = own(m)
			}
		case wire.MemberLeft:
			for _, m := range e.Members {
				if known, ok := v.members[m.SessionID]; !ok || m.LastUpdate < known.LastUpdate {
					t.Errorf("%s left at %d, known at %d, %v", m.SessionID, m.LastUpdate, known.LastUpdate, ok)
				}
				delete(v.members, m.SessionID)
			}
		case wire.MemberUpdated:
			for _, m := range e.Members {
				known, ok := v.members[m.SessionID]
				same := m.LastUpdate == known.LastUpdate && SameMember(&m, &known) // one's own, known from the answer
				if !ok || m.LastUpdate <= known.LastUpdate && !same {
					t.Errorf("%s updated at %d, known at %d, %v", m.SessionID, m.LastUpdate, known.LastUpdate, ok)
				}
				v.members[m.SessionID] = own(m)
			}
		case wire.RoomUpdated:
			v.name = strings.Clone(e.Room.Name)
		case wire.RoomEnded:
			v.ended = true
		}
	}
}

// same compares a view with what GetRoomInfo says.
func (v *view) same(info wire.GetRoomInfoResponse) string {
	if info.Room == nil {
		return ""
	}
	if v.name != info.Room.Name {
		return fmt.Sprintf("name %q, really %q", v.name, info.Room.Name)
	}
	if len(v.members) != len(info.Members) {
		return fmt.Sprintf("sees %v, really %v", slices.Sorted(maps.Keys(v.members)), info.Members)
	}
	for _, m := range info.Members {
		seen := v.members[m.SessionID]
		if string(seen.AppendTo(nil)) != string(m.AppendTo(nil)) {
			return fmt.Sprintf("sees %+v, really %+v", seen, m)
		}
	}
	return ""
}

// What members learn from answers and events is what is the case, whatever the clients do; and what the model of who is
// where says.
func TestRandomOperations(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		rapid.Check(t, func(rt *rapid.T) {
			cfg := DefaultConfig()
			cfg.Limits.MembersPerRoom, cfg.Limits.RoomsPerSession = 4, 2
			g := im.gateway(t, cfg)
			defer g.w.Close()
			rooms := []string{"r0", "r1", "r2"}
			alive := map[string]bool{}
			in := map[string]map[string]bool{} // room → sessions, the model
			for _, r := range rooms {
				in[r] = map[string]bool{}
			}
			clients := make([]*client, 5)
			views := make([]map[string]*view, len(clients)) // of this connection
			away := map[string]map[string]bool{}            // session → rooms that it has not joined again since it came back
			for i := range clients {
				clients[i] = g.login()
				views[i] = map[string]*view{}
			}
			gone := func(session string) {
				for _, r := range rooms {
					delete(in[r], session)
				}
			}
			pick := rapid.IntRange(0, len(clients)-1)
			pickRoom := rapid.SampledFrom(rooms)
			check := func() {
				for i, c := range clients {
					for _, r := range c.take() {
						room := ""
						switch r.typ {
						case wire.TypeRoomEvent:
							var e wire.RoomEvent
							_ = e.Unmarshal(r.payload)
							room = e.RoomID
						case wire.TypeJoinRoomResponse:
							_, room, _ = wire.PeekJoinRoomResponse(r.payload)
						}
						if room == "" {
							continue
						}
						if views[i][room] == nil {
							views[i][strings.Clone(room)] = &view{}
						}
						views[i][room].apply(t, r)
					}
				}
				total := 0
				watcher := clients[0]
				for _, room := range rooms {
					info, status := watcher.roomInfo(room)
					if (status == wire.StatusOK) != alive[room] {
						rt.Fatalf("%s: %s, alive %v", room, status, alive[room])
					}
					got := []string{}
					for _, m := range info.Members {
						got = append(got, m.SessionID)
					}
					slices.Sort(got)
					if want := slices.Sorted(maps.Keys(in[room])); !slices.Equal(got, want) && alive[room] {
						rt.Fatalf("%s: members %v, want %v", room, got, want)
					}
					total += len(got)
					for i, c := range clients {
						if v := views[i][room]; v != nil && alive[room] && in[room][c.session] && !v.ended && g.subscribed(c.id, mq.Topic{Room: room}) {
							if diff := v.same(info); diff != "" {
								rt.Fatalf("%s, client %d: %s", room, i, diff)
							}
						}
					}
				}
				watcher.take()
				if n := g.w.Counters(); n.Members != int64(total) || n.Sessions != int64(len(clients)) {
					rt.Fatalf("%+v, %d members", n, total)
				}
			}
			actions := map[string]func(*rapid.T){
				"": func(*rapid.T) { check() },
				"create": func(rt *rapid.T) {
					room := pickRoom.Draw(rt, "room")
					_, status := clients[pick.Draw(rt, "client")].create(wire.Room{RoomID: room, Name: "n"})
					want := wire.StatusOK
					if alive[room] {
						want = wire.StatusAlreadyExists
					}
					g.must("create", status, want)
					alive[room] = true
				},
				"join": func(rt *rapid.T) {
					c, room := clients[pick.Draw(rt, "client")], pickRoom.Draw(rt, "room")
					reenter := rapid.Bool().Draw(rt, "reenter")
					m := wire.Member{ScreenName: strconv.Itoa(rapid.IntRange(0, 2).Draw(rt, "name"))}
					options := []string{}
					if reenter {
						options = []string{wire.OptionReenter}
					}
					rooms := 0
					for _, r := range in {
						if r[c.session] {
							rooms++
						}
					}
					_, status := c.joinAs(room, m, options...)
					want := wire.StatusOK
					switch {
					case in[room][c.session]:
						if !reenter {
							want = wire.StatusAlreadyInRoom
						}
					case rooms == 2:
						want = wire.StatusCapacity
					case !alive[room]:
						want = wire.StatusNotFound
					case len(in[room]) == 4:
						want = wire.StatusCapacity
					}
					g.must("join", status, want)
					if want == wire.StatusOK {
						in[room][c.session] = true
					}
					if status == wire.StatusOK || status == wire.StatusAlreadyInRoom {
						delete(away[c.session], room)
					}
				},
				"leave": func(rt *rapid.T) {
					c, room := clients[pick.Draw(rt, "client")], pickRoom.Draw(rt, "room")
					want := wire.StatusNotFound
					if alive[room] {
						want = wire.StatusNotInRoom
					}
					if in[room][c.session] {
						want = wire.StatusOK
					}
					g.must("leave", c.leave(room), want)
					delete(in[room], c.session)
				},
				"update": func(rt *rapid.T) {
					c, room := clients[pick.Draw(rt, "client")], pickRoom.Draw(rt, "room")
					if !in[room][c.session] {
						rt.Skip()
					}
					g.must("update", c.ask(wire.TypeUpdateMember, &wire.UpdateMember{RoomID: room, Member: wire.MemberUpdate{HasState: true,
						State: wire.MemberState(rapid.IntRange(0, 4).Draw(rt, "state"))}}, nil), wire.StatusOK)
				},
				"rename": func(rt *rapid.T) {
					c, room := clients[pick.Draw(rt, "client")], pickRoom.Draw(rt, "room")
					if !in[room][c.session] {
						rt.Skip()
					}
					g.must("rename", c.ask(wire.TypeUpdateRoom, &wire.UpdateRoom{Room: wire.Room{RoomID: room,
						Name: rapid.StringMatching("[a-z]{1,3}").Draw(rt, "name")}}, nil), wire.StatusOK)
				},
				"destroy": func(rt *rapid.T) {
					c, room := clients[pick.Draw(rt, "client")], pickRoom.Draw(rt, "room")
					if !in[room][c.session] {
						rt.Skip()
					}
					g.must("destroy", c.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: room}, nil), wire.StatusOK)
					alive[room] = false
					clear(in[room])
				},
				"bye": func(rt *rapid.T) {
					i := pick.Draw(rt, "client")
					g.must("bye", clients[i].bye(), wire.StatusOK)
					gone(clients[i].session)
					clients[i] = g.login()
					clear(views[i])
				},
				"end": func(rt *rapid.T) {
					i := pick.Draw(rt, "client")
					clients[i].lose(1000)
					gone(clients[i].session)
					clients[i] = g.login()
					clear(views[i])
				},
				"lose and come back": func(rt *rapid.T) {
					i := pick.Draw(rt, "client")
					c := g.dial()
					if rapid.Bool().Draw(rt, "while the old one is there") {
						c.auth(clients[i].session, "")
						clients[i].lose(1000)
					} else {
						clients[i].lose(1006)
						c.auth(clients[i].session, "")
					}
					if c.session != clients[i].session {
						rt.Fatal("not taken over")
					}
					clients[i] = c
					clear(views[i])
					away[c.session] = map[string]bool{}
					for _, r := range rooms {
						if in[r][c.session] {
							away[c.session][r] = true
						}
					}
				},
				"grace over": func(rt *rapid.T) {
					c := clients[pick.Draw(rt, "client")]
					over := g.passGrace(c)
					for _, session := range over {
						for room := range away[session] {
							delete(in[room], session)
						}
						delete(away, session)
					}
				},
			}
			rt.Repeat(actions)
		})
	})
}

// Many goroutines at once in a few rooms, for the race detector and for the order of things: every member's view of its
// room, kept from answers and events alone, ends up the same as the room, and each conversation reaches every subscriber
// in the same order, from the answer that subscribed it on without gap or repetition.
func TestConcurrent(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		const workers, rounds = 8, 150
		g := im.gateway(t, DefaultConfig())
		defer g.w.Close()
		rooms := []string{"r0", "r1"}
		keeper := g.login()
		for _, r := range rooms {
			keeper.create(wire.Room{RoomID: r, Name: "n"})
		}
		clients := make([]*client, workers)
		var wg sync.WaitGroup
		for i := range clients {
			clients[i] = g.login()
			wg.Go(func() {
				c := clients[i]
				for n := range rounds {
					room := rooms[(i+n/10)%2]
					switch (n + i) % 6 {
					case 0:
						c.join(room)
					case 1:
						c.fetch(room, "", "", 5, wire.Subscribe)
					case 2, 3:
						c.say(room, "x")
						c.joinAs(room, wire.Member{ScreenName: strconv.Itoa(n)}, wire.OptionReenter)
					case 4:
						c.roomInfo(room)
					case 5:
						c.leave(room)
					}
				}
				for _, room := range rooms { // all end in both rooms, subscribed
					c.join(room)
					c.fetch(room, "", "", 5, wire.Subscribe)
					c.say(room, "last of "+c.session)
				}
			})
		}
		wg.Wait()
		for _, room := range rooms {
			info, _ := keeper.roomInfo(room)
			if len(info.Members) != workers {
				t.Errorf("%s: %d members", room, len(info.Members))
			}
			all, _ := clients[0].fetch(room, "", "", 0)
			for i, c := range clients {
				g.mu.Lock()
				in := slices.Clone(g.inbox[c.id])
				g.mu.Unlock()
				v := &view{}
				var seen []string // ids since the last subscription
				for _, r := range in {
					switch r.typ {
					case wire.TypeJoinRoomResponse, wire.TypeRoomEvent:
						var e wire.RoomEvent
						_, id, _ := wire.PeekJoinRoomResponse(r.payload)
						if r.typ == wire.TypeRoomEvent && e.Unmarshal(r.payload) == nil {
							id = e.RoomID
						}
						if id == room {
							v.apply(t, r)
						}
					case wire.TypeRoomConversationEvent:
						var e wire.RoomConversationEvent
						if err := e.Unmarshal(r.payload); err != nil {
							t.Fatal(err)
						}
						if e.RoomID == room {
							seen = append(seen, e.ChatMessages[0].MessageID)
						}
					}
				}
				if diff := v.same(info); diff != "" {
					t.Errorf("%s, client %d: %s", room, i, diff)
				}
				if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
					t.Errorf("%s, client %d: messages out of order or twice", room, i)
				}
				mine := slices.IndexFunc(all, func(m wire.ChatMessage) bool { return m.Message == "last of "+c.session })
				if tail := all[mine:]; len(seen) < len(tail) || seen[len(seen)-len(tail)] != tail[0].MessageID {
					t.Errorf("%s, client %d: gap at the end: %d of %d", room, i, len(seen), len(tail))
				}
			}
		}
		if n := g.w.Counters(); n.Members != workers*2 {
			t.Errorf("%+v", n)
		}
	})
}
