package rooms_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// A client that ends for good leaves at once; one that is lost stays a member for the grace, to the tick.
func TestDisconnectCodes(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for code, atOnce := range map[uint16]bool{
			1000: true, 4000: true, 4001: true,
			1001: false, 1002: false, 1005: false, 1006: false, 1009: false, 1013: false, 3333: false, 3334: false, 3335: false, 3999: false, 4002: false,
		} {
			simulated(t, im, func(t *testing.T, g *gateway) {
				a, b := g.login(), g.login()
				room := a.room()
				a.join(room)
				b.join(room)
				a.take()
				b.lose(code)
				b.lose(code) // the gateway tells once; told again, nothing happens
				if !atOnce {
					g.pass(grace - 1)
					a.expect()
					if got := a.members(room); len(got) != 2 {
						t.Errorf("code %d: members %v", code, got)
					}
					a.take()
					g.pass(1)
				}
				a.expect("left " + b.session)
				if n := g.w.Counters(); n.Members != 1 || n.Sessions != 1 {
					t.Errorf("code %d: %+v", code, n)
				}
				again := g.dial()
				again.auth(b.session, "")
				if again.session == b.session {
					t.Errorf("code %d: the session is still there", code)
				}
			})
		}
	})
}

// The client comes back in time, authenticates with its session and reenters: nobody notices.
func TestReenter(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			joined, _ := b.join(room)
			a.take()
			b.lose(1006)
			g.pass(grace - 1)
			back := g.dial()
			g.must("authenticate", back.auth(b.session, ""), wire.StatusOK)
			if back.session != b.session {
				t.Fatal("a new session was issued")
			}
			g.must("say before reentering", back.say(room, "x"), wire.StatusOK) // still a member
			g.pass(grace - 1)                                                   // the time to reenter counts from authenticating
			again, status := back.join(room, wire.OptionReenter)
			g.must("reenter", status, wire.StatusOK)
			if len(again.Members) != 2 || again.Room == nil || again.Self.LastUpdate != joined.Self.LastUpdate {
				t.Errorf("answered %+v", again)
			}
			g.pass(10 * grace)
			a.expect()
			if got := a.members(room); !slices.Equal(got, []string{a.session, b.session}) {
				t.Errorf("members %v", got)
			}
			// It is a full member: it hears, and is heard leaving.
			back.take()
			a.joinAs(room, wire.Member{ScreenName: "other name"}, wire.OptionReenter)
			back.expect("updated " + a.session)
			back.lose(1000)
			heard := a.log()
			if g.js != nil { // its update once more, when it came before the answer, whose members are older
				heard = slices.Compact(heard)
			}
			if want := []string{"updated " + a.session, "left " + b.session}; !slices.Equal(heard, want) {
				t.Errorf("received %q, want %q", heard, want)
			}
		})
	})
}

// What has changed while the client was away is told as an update.
func TestReenterWithChanges(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.joinAs(room, wire.Member{ScreenName: "Bob", Streams: []wire.Stream{{URI: "old"}}})
			a.take()
			b.lose(1001)
			back := g.dial()
			back.auth(b.session, "")
			self, _ := back.joinAs(room, wire.Member{ScreenName: "Bob", Streams: []wire.Stream{{URI: "new"}}}, wire.OptionReenter)
			if self.Self.Streams[0].URI != "new" {
				t.Errorf("%+v", self.Self)
			}
			a.expect("updated " + b.session)
		})
	})
}

// Joining without "reenter" keeps the membership too: the client is told that it is in the room already.
func TestJoinAgainWithoutReenter(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			a.take()
			b.lose(1006)
			back := g.dial()
			back.auth(b.session, "")
			_, status := back.join(room)
			g.must("join", status, wire.StatusAlreadyInRoom)
			g.pass(10 * grace)
			a.expect()
		})
	})
}

// A client that comes back but joins only one of its rooms again leaves the other.
func TestReenterSomeRooms(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			one, two := a.room(), a.room()
			for _, r := range []string{one, two} {
				a.join(r)
				b.join(r)
			}
			a.take()
			b.lose(1006)
			back := g.dial()
			back.auth(b.session, "")
			back.join(one, wire.OptionReenter)
			g.pass(grace - 1)
			a.expect()
			g.pass(1)
			a.expect("left " + b.session)
			if x, y := a.members(one), a.members(two); len(x) != 2 || len(y) != 1 {
				t.Errorf("members %v and %v", x, y)
			}
			g.must("say in the room that was left", back.say(two, "x"), wire.StatusNotInRoom)
			_, status := back.join(two, wire.OptionReenter)
			g.must("too late: a new join", status, wire.StatusOK)
			a.take()
			a.take()
			if got := a.members(two); len(got) != 2 {
				t.Errorf("members %v", got)
			}
		})
	})
}

// Lost again and again: each loss has a grace of its own, and an old timer ends nothing.
func TestLostTwice(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			a.take()
			for range 5 {
				b.lose(1006)
				g.pass(grace * 2 / 3)
				back := g.dial()
				back.auth(b.session, "")
				back.join(room, wire.OptionReenter)
				b = back
				g.pass(grace * 2 / 3)
			}
			a.expect()
			b.lose(1006)
			g.pass(grace)
			a.expect("left " + b.session)
		})
	})
}

// The session moves to another connection while the old one is still there.
func TestTakeover(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			b.fetch(room, "", "", 0, wire.Subscribe)
			thief := g.dial()
			g.must("authenticate", thief.auth(b.session, ""), wire.StatusOK)
			if thief.session != b.session {
				t.Fatal("not taken over")
			}
			a.take()
			b.take()
			a.say(room, "secret")
			a.joinAs(room, wire.Member{ScreenName: "changed"}, wire.OptionReenter)
			b.expect() // has lost its subscriptions
			g.must("old connection", b.say(room, "x"), wire.StatusUnauthorized)
			if n := g.authenticated(); n != 2 {
				t.Errorf("%d connections in the index", n)
			}
			b.lose(1000) // its end means nothing any more
			a.take()
			g.pass(grace - 1)
			_, status := thief.join(room, wire.OptionReenter)
			g.must("reenter", status, wire.StatusOK)
			g.pass(10 * grace)
			a.expect()
			if got := a.members(room); len(got) != 2 {
				t.Errorf("members %v", got)
			}
			if n := g.w.Counters(); n.Sessions != 2 || n.Members != 2 {
				t.Errorf("%+v", n)
			}
		})
	})
}

// Taken over, but not joined again.
func TestTakeoverWithoutJoin(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			a.take()
			heir := g.dial()
			heir.auth(b.session, "")
			b.lose(1006)
			_, status := heir.fetch(room, "", "", 0, wire.Subscribe)
			g.must("still a member", status, wire.StatusOK)
			a.say(room, "1")
			g.pass(grace)
			a.expect("left " + b.session)
			a.say(room, "2")
			heir.expect("said 1") // and no more
			g.must("the session lives", heir.leave(room), wire.StatusNotInRoom)
		})
	})
}

// Authenticating again on the same connection.
func TestAuthenticateAgain(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			a.take()
			b.take()
			first := b.session
			g.must("same session", b.auth(first, ""), wire.StatusOK)
			if b.session != first {
				t.Error("a new session was issued")
			}
			a.joinAs(room, wire.Member{ScreenName: "1"}, wire.OptionReenter)
			b.expect("updated " + a.session) // still subscribed
			a.take()
			g.must("unknown session", b.auth("made up", ""), wire.StatusOK)
			if b.session == first || b.session == "made up" {
				t.Errorf("session %q", b.session)
			}
			a.expect("left " + first)
			a.joinAs(room, wire.Member{ScreenName: "2"}, wire.OptionReenter)
			b.expect()
			second := b.session
			g.must("another known session", b.auth(a.session, ""), wire.StatusOK)
			if b.session != a.session {
				t.Error("not taken over")
			}
			g.must("the one before has ended", g.dial().auth(second, ""), wire.StatusOK)
			if n := g.w.Counters().Sessions; n != 2 {
				t.Errorf("%d sessions", n)
			}
		})
	})
}

func TestNoGrace(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		cfg := DefaultConfig()
		cfg.ReenterGrace = 0
		g := im.gateway(t, cfg)
		a, b := g.login(), g.login()
		room := a.room()
		a.join(room)
		b.join(room)
		a.take()
		b.lose(1006)
		a.expect("left " + b.session)
	})
}

// After Close no timer does anything, requests fail, and ends of connections are still taken.
func TestClose(t *testing.T) {
	simulated(t, implementations[0], func(t *testing.T, g *gateway) {
		a, b, c := g.login(), g.login(), g.login()
		room, empty := a.room(), a.room()
		a.join(room)
		b.join(room)
		c.join(room)
		a.take()
		b.lose(1006)
		g.w.Close()
		for _, id := range g.w.RunningTimers() {
			t.Errorf("the timer of room %s is still running", id)
		}
		g.pass(MaxTTL)
		a.expect()
		if n := g.w.Counters(); n.Rooms != 2 || n.Members != 3 {
			t.Errorf("%+v (rooms %s %s)", n, room, empty)
		}
		if x := g.raw(a.id, "", wire.TypeGetRoomInfo, nil); x.failed != ErrClosed {
			t.Error(x.failed)
		}
		c.lose(1006)
		a.expect("left " + c.session)
	})
}

// A thousand lost clients leave no timers, sessions or members behind.
func TestManyLost(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			a := g.login()
			room := a.room()
			a.join(room)
			for range 1000 {
				c := g.login()
				c.join(room)
				c.lose(1006)
			}
			if n := g.w.Counters(); n.Sessions != 1001 || n.Members != 1001 {
				t.Errorf("%+v", n)
			}
			g.pass(grace)
			if n := g.w.Counters(); n.Sessions != 1 || n.Members != 1 {
				t.Errorf("%+v", n)
			}
			if n := g.authenticated(); n != 1 {
				t.Errorf("%d connections in the index", n)
			}
		})
	})
}

// The old connection's end and the takeover at the same moment, in either order, any code: a client that reenters at
// once stays a member, or (its old connection having ended with 1000 first) gets a new session; never a ghost.
func TestTakeoverRace(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for i := range im.rounds {
			code := []uint16{1006, 1000}[i%2]
			g := im.gateway(t, DefaultConfig())
			a, b := g.login(), g.login()
			room := a.room()
			a.join(room)
			b.join(room)
			a.take()
			heir := g.dial()
			done := make(chan bool)
			go func() { b.lose(code); done <- true }()
			go func() {
				heir.auth(b.session, "")
				_, status := heir.join(room, wire.OptionReenter)
				g.must("reenter", status, wire.StatusOK)
				done <- true
			}()
			<-done
			<-done
			if got := a.members(room); !slices.Equal(got, []string{a.session, heir.session}) {
				t.Fatalf("code %d: members %v, want %v", code, got, []string{a.session, heir.session})
			}
			if heir.session != b.session {
				if code != 1000 {
					t.Fatalf("code %d: the session was lost", code)
				}
				events := a.log()
				if g.js != nil {
					slices.Sort(events) // other workers may do both
					slices.Reverse(events)
				}
				if want := []string{"left " + b.session, "joined " + heir.session}; !slices.Equal(events, want) {
					t.Errorf("received %q, want %q", events, want)
				}
			} else {
				a.expect()
			}
			g.must("heir speaks", heir.say(room, "x"), wire.StatusOK)
			heir.lose(1000)
			if n := g.w.Counters(); n.Members != 1 || n.Sessions != 1 {
				t.Fatalf("code %d: %+v", code, n)
			}
			g.w.Close()
		}
	})
}

// Many connections fight for one session: at the end exactly one has it.
func TestTakeoverFight(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		defer g.w.Close()
		a := g.login()
		room := a.room()
		a.join(room)
		fighters := make([]*client, 16)
		done := make(chan bool)
		for i := range fighters {
			fighters[i] = g.dial()
			go func() {
				for range 50 {
					if s := fighters[i].auth(a.session, ""); s != wire.StatusOK {
						t.Error(s)
					}
					fighters[i].join(room, wire.OptionReenter)
				}
				done <- true
			}()
		}
		for range fighters {
			<-done
		}
		g.eventually("one has it", func() bool {
			winners := 0
			for _, f := range fighters {
				if _, status := f.roomInfo(room); status == wire.StatusOK {
					winners++
				}
			}
			return winners == 1
		})
		if n := g.w.Counters(); n.Sessions != 1 || n.Members != 1 {
			t.Errorf("%+v", n)
		}
		if subs := len(g.subs[mq.Topic{Kind: mq.TopicRoom, Room: room}]); subs > 1 {
			t.Errorf("%d subscribed", subs)
		}
	})
}

// What has found the session just before another connection took it over, and gets the lock just after, finds that it
// is too late: the end of the old connection and a request on it. Here the index is set back to what they had seen.
func TestTakeoverWhileWaiting(t *testing.T) {
	for _, code := range []uint16{1000, 1006} {
		g := newGateway(t, DefaultConfig())
		a, b := g.login(), g.login()
		room := a.room()
		a.join(room)
		b.join(room)
		heir := g.dial()
		heir.auth(b.session, "")
		heir.join(room, wire.OptionReenter)
		a.take()
		g.w.SetConn(b.id, heir.session)
		g.must("request", b.leave(room), wire.StatusUnauthorized)
		b.lose(code)
		a.expect()
		g.must("heir", heir.say(room, "x"), wire.StatusOK)
		if running, _ := g.w.Grace(heir.session); running {
			t.Error("the grace is running")
		}
		g.w.Close()
	}
}

// A grace that could not be stopped in time ends nothing, and one that has no more to do is stopped.
func TestGraceTooLate(t *testing.T) {
	simulated(t, implementations[0], func(t *testing.T, g *gateway) {
		a, b := g.login(), g.login()
		room := a.room()
		a.join(room)
		b.join(room)
		a.take()
		s := g.w.Handle(b.session)
		b.lose(1006)
		_, first := g.w.Grace(b.session)
		heir := g.dial()
		heir.auth(b.session, "")
		if !s.GraceRunning() {
			t.Error("no time to join again")
		}
		heir.join(room, wire.OptionReenter)
		if s.GraceRunning() {
			t.Error("the grace goes on after everything was joined again")
		}
		heir.lose(1006)
		g.w.GraceOver(heir.session, first)
		a.expect()
		last := g.dial()
		last.auth(b.session, "")
		g.must("bye", last.bye(), wire.StatusOK)
		if s.GraceRunning() {
			t.Error("the grace goes on after the end of the session")
		}
		a.expect("left " + b.session)
	})
}

func TestSessionIDs(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		seen := map[string]bool{}
		for range 1000 {
			s := g.login().session
			if seen[s] || len(s) != 26 {
				t.Fatal(s)
			}
			seen[s] = true
		}
		if s := fmt.Sprint(g.w.Counters().Sessions); s != "1000" {
			t.Error(s)
		}
	})
}
