package rooms

import (
	"testing"
	"testing/synctest"

	"github.com/mqgate/mqgate/mq/wire"
)

// Rooms vanish when nobody has been in them for a while, and not before.
func TestEmptyRoom(t *testing.T) {
	simulated(t, func(t *testing.T, g *gateway) {
		ttl := DefaultConfig().EmptyRoomTTL
		a, b := g.login(), g.login()
		created, _ := a.create(wire.Room{Alias: "al", Name: "n"})
		room := created.RoomID
		there := func() bool { _, status := a.roomInfo(room); return status == wire.StatusOK }
		pass(ttl - 1)
		b.join(room)
		pass(3 * ttl)
		if !there() {
			t.Fatal("gone with a member in it")
		}
		b.leave(room)
		pass(ttl - 1)
		b.join(room)
		b.leave(room)
		pass(ttl - 1)
		if !there() {
			t.Fatal("gone too early")
		}
		pass(1)
		if there() || g.w.Counters().Rooms != 0 {
			t.Fatal("still there")
		}
		_, status := a.create(wire.Room{Alias: "al", Name: "n"})
		g.must("alias is free", status, wire.StatusOK)
		pass(ttl)
		if g.w.Counters().Rooms != 0 {
			t.Fatal("a room that nobody ever joined is still there")
		}
	})
}

// A destroyed room's timer does not end a room of the same id.
func TestEmptyRoomRecreated(t *testing.T) {
	simulated(t, func(t *testing.T, g *gateway) {
		ttl := DefaultConfig().EmptyRoomTTL
		a := g.login()
		a.create(wire.Room{RoomID: "r", Name: "n"})
		pass(ttl / 2)
		a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: "r"}, nil)
		a.create(wire.Room{RoomID: "r", Name: "n"})
		pass(ttl - 1)
		if _, status := a.roomInfo("r"); status != wire.StatusOK {
			t.Error("gone too early")
		}
	})
}

func TestRoomsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.EmptyRoomTTL = 0
		g := newGateway(t, cfg)
		a := g.login()
		room := a.room()
		pass(maxTTL)
		if _, status := a.roomInfo(room); status != wire.StatusOK {
			t.Error(status)
		}
		g.w.Close()
	})
}

// A request that has found a room just before it ended finds that it is too late.
func TestRoomEndedWhileWaiting(t *testing.T) {
	g := newGateway(t, DefaultConfig())
	defer g.w.Close()
	a := g.login()
	room := a.room()
	st := g.w.store.(*memStore)
	e := st.shard(room).m[room]
	a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: room}, nil)
	st.shard(room).m[room] = e
	_, status := a.join(room)
	g.must("join", status, wire.StatusNotFound)
	st.expire(e)
	if n := g.w.Counters().Rooms; n != 0 {
		t.Errorf("%d rooms", n)
	}
}

// Messages and changes at the same moment, and after the clock was set back, still come one after the other.
func TestClockStandsStill(t *testing.T) {
	simulated(t, func(t *testing.T, g *gateway) {
		a := g.login()
		room := a.room()
		a.join(room)
		for range 20 {
			a.say(room, "x")
		}
		all, _ := a.fetch(room, "", "", 0)
		for i, m := range all[1:] {
			if m.MessageID <= all[i].MessageID || m.Timestamp < all[i].Timestamp {
				t.Errorf("%+v after %+v", m, all[i])
			}
		}
	})
	r := newRoom(wire.Room{RoomID: "r"}, "s")
	var res Result
	limits := DefaultLimits()
	r.Join("s", &wire.Member{}, false, 1000, &limits, &res)
	r.Join("s", &wire.Member{ScreenName: "x"}, true, 10, &limits, &res)
	if r.members[0].LastUpdate != 1001 {
		t.Errorf("%+v", r.members[0])
	}
	r.Send("s", "1", 5000, &limits, &res)
	r.Send("s", "2", 50, &limits, &res)
	if r.history[1].id != 5001 {
		t.Errorf("%d", r.history[1].id)
	}
}
