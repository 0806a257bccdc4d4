package rooms_test

import (
	"testing"

	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// Rooms vanish when nobody has been in them for a while, and not before.
func TestEmptyRoom(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			ttl := DefaultConfig().EmptyRoomTTL
			a, b := g.login(), g.login()
			created, _ := a.create(wire.Room{Alias: "al", Name: "n"})
			room := created.RoomID
			there := func() bool { _, status := a.roomInfo(room); return status == wire.StatusOK }
			g.pass(ttl - 1)
			b.join(room)
			g.pass(3 * ttl)
			if !there() {
				t.Fatal("gone with a member in it")
			}
			b.leave(room)
			g.pass(ttl - 1)
			b.join(room)
			b.leave(room)
			g.pass(ttl - 1)
			if !there() {
				t.Fatal("gone too early")
			}
			g.pass(1)
			if there() || g.w.Counters().Rooms != 0 {
				t.Fatal("still there")
			}
			_, status := a.create(wire.Room{Alias: "al", Name: "n"})
			g.must("alias is free", status, wire.StatusOK)
			g.pass(ttl)
			if g.w.Counters().Rooms != 0 {
				t.Fatal("a room that nobody ever joined is still there")
			}
		})
	})
}

// A destroyed room's timer does not end a room of the same id.
func TestEmptyRoomRecreated(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
			ttl := DefaultConfig().EmptyRoomTTL
			a := g.login()
			a.create(wire.Room{RoomID: "r", Name: "n"})
			g.pass(ttl / 2)
			a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: "r"}, nil)
			a.create(wire.Room{RoomID: "r", Name: "n"})
			g.pass(ttl - 1)
			if _, status := a.roomInfo("r"); status != wire.StatusOK {
				t.Error("gone too early")
			}
		})
	})
}

func TestRoomsForEver(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		im.simulated(t, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.EmptyRoomTTL = 0
			g := im.gateway(t, cfg)
			a := g.login()
			room := a.room()
			g.pass(MaxTTL)
			if _, status := a.roomInfo(room); status != wire.StatusOK {
				t.Error(status)
			}
			g.w.Close()
		})
	})
}

// A request that has found a room just before it ended finds that it is too late.
func TestRoomEndedWhileWaiting(t *testing.T) {
	g := newGateway(t, DefaultConfig())
	defer g.w.Close()
	a := g.login()
	room := a.room()
	e := g.w.Entry(room)
	a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: room}, nil)
	g.w.PutBack(room, e)
	_, status := a.join(room)
	g.must("join", status, wire.StatusNotFound)
	g.w.Expire(e)
	if n := g.w.Counters().Rooms; n != 0 {
		t.Errorf("%d rooms", n)
	}
}

// Messages at the same moment still come one after the other.
func TestClockStandsStill(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		simulated(t, im, func(t *testing.T, g *gateway) {
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
	})
}
