package rooms_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// small are limits small enough to be reached in a test.
func small() Config {
	c := DefaultConfig()
	c.Limits = Limits{
		Sessions: 6, Rooms: 3, MembersPerRoom: 3, RoomsPerSession: 2, HistoryMessages: 4, HistoryBytes: 1000, RequestBytes: 1024,
		MessageBytes: 100, NameBytes: 40, RoomBytes: 200, MemberBytes: 150,
	}
	return c
}

func TestDefaultConfig(t *testing.T) {
	for _, c := range []Config{DefaultConfig(), small()} {
		if _, err := New(c); err != nil {
			t.Error(err)
		}
	}
}

// New lists all faults at once, each with field, value and what is allowed.
func TestConfigFaults(t *testing.T) {
	_, err := New(Config{ReenterGrace: -1, EmptyRoomTTL: MaxTTL + 1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"Limits.Sessions is 0, must be between 1 and", "Limits.Rooms is 0", "Limits.MembersPerRoom is 0", "Limits.RoomsPerSession is 0",
		"Limits.HistoryMessages is 0", "Limits.HistoryBytes is 0", "Limits.RequestBytes is 0", "Limits.MessageBytes is 0", "Limits.NameBytes is 0",
		"Limits.RoomBytes is 0", "Limits.MemberBytes is 0", "ReenterGrace is -1ns, must be between 0 and 1h0m0s",
		"EmptyRoomTTL is 720h0m0.000000001s, must be between 0 (never) and 720h0m0s", "Authenticator is missing",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	for name, c := range map[string]struct {
		change func(*Config)
		ok     bool
	}{
		"history holds one message":   {func(c *Config) { c.Limits.HistoryBytes = 100 + 40 + MessageOverhead }, true},
		"history is too small":        {func(c *Config) { c.Limits.HistoryBytes = 100 + 40 + MessageOverhead - 1 }, false},
		"request holds a room":        {func(c *Config) { c.Limits.RoomBytes = 1024 }, true},
		"room beyond a request":       {func(c *Config) { c.Limits.RoomBytes = 1025 }, false},
		"member beyond a request":     {func(c *Config) { c.Limits.MemberBytes = 1025 }, false},
		"longest grace":               {func(c *Config) { c.ReenterGrace = time.Hour }, true},
		"grace too long":              {func(c *Config) { c.ReenterGrace = time.Hour + 1 }, false},
		"most sessions":               {func(c *Config) { c.Limits.Sessions = 1 << 30 }, true},
		"too many sessions":           {func(c *Config) { c.Limits.Sessions = 1<<30 + 1 }, false},
		"members negative":            {func(c *Config) { c.Limits.MembersPerRoom = -1 }, false},
		"history for ever":            {func(c *Config) { c.Limits.HistoryAge = 0 }, true},
		"shortest history":            {func(c *Config) { c.Limits.HistoryAge = time.Second }, true},
		"history too short":           {func(c *Config) { c.Limits.HistoryAge = time.Second - 1 }, false},
		"longest history":             {func(c *Config) { c.Limits.HistoryAge = MaxHistoryAge }, true},
		"history too long":            {func(c *Config) { c.Limits.HistoryAge = MaxHistoryAge + 1 }, false},
		"history negative":            {func(c *Config) { c.Limits.HistoryAge = -time.Second }, false},
		"one member per room is fine": {func(c *Config) { c.Limits.MembersPerRoom = 1 }, true},
	} {
		cfg := small()
		c.change(&cfg)
		if _, err := New(cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSessionsLimit(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		all := []*client{}
		for range 6 {
			all = append(all, g.login())
		}
		c := g.dial()
		g.must("one too many", c.auth("", ""), wire.StatusCapacity)
		g.must("has none", c.leave("x"), wire.StatusUnauthorized)
		g.must("takeover needs no new one", c.auth(all[0].session, ""), wire.StatusOK)
		all[1].lose(1006) // still counts: it may come back
		g.must("still full", g.dial().auth("", ""), wire.StatusCapacity)
		all[2].bye()
		g.must("one has ended", g.dial().auth("", ""), wire.StatusOK)
		g.must("again on a full server", all[3].auth("unknown", ""), wire.StatusOK) // its own makes room
		if n := g.w.Counters(); n.Sessions != 6 || n.Capacity != 2 {
			t.Errorf("%+v", n)
		}
	})
}

func TestRoomsLimit(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		a := g.login()
		rooms := []string{a.room(), a.room()}
		first, status := a.create(wire.Room{Alias: "al", Name: "n"})
		g.must("the last", status, wire.StatusOK)
		_, status = a.create(wire.Room{Name: "n"})
		g.must("one too many", status, wire.StatusCapacity)
		_, status = a.create(wire.Room{Alias: "bl", Name: "n"})
		g.must("one too many, with an alias", status, wire.StatusCapacity)
		there, status := a.create(wire.Room{Alias: "al"})
		g.must("one that is there", status, wire.StatusAlreadyExists)
		if there.RoomID != first.RoomID {
			t.Errorf("%+v", there)
		}
		a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: rooms[0]}, nil)
		_, status = a.create(wire.Room{Alias: "bl", Name: "n"})
		g.must("one has ended", status, wire.StatusOK)
		if n := g.w.Counters().Rooms; n != 3 {
			t.Errorf("%d rooms", n)
		}
	})
}

func TestMembersLimit(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		a := g.login()
		room := a.room()
		a.join(room)
		var last *client
		for range 2 {
			last = g.login()
			_, status := last.join(room)
			g.must("join", status, wire.StatusOK)
		}
		c := g.login()
		a.take()
		answer, status := c.join(room)
		g.must("one too many", status, wire.StatusCapacity)
		if answer.Room != nil || len(answer.Members) != 0 {
			t.Errorf("answered %+v", answer)
		}
		a.expect()
		_, status = last.join(room)
		g.must("a member again", status, wire.StatusAlreadyInRoom)
		_, status = last.join(room, wire.OptionReenter)
		g.must("a member reenters", status, wire.StatusOK)
		last.leave(room)
		_, status = c.join(room)
		g.must("one has left", status, wire.StatusOK)
		if n := g.w.Counters().Members; n != 3 {
			t.Errorf("%d members", n)
		}
	})
}

func TestRoomsPerSessionLimit(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		a, b := g.login(), g.login()
		one, two, three := a.room(), a.room(), a.room()
		b.join(one)
		_, status := b.join(two)
		g.must("the last", status, wire.StatusOK)
		_, status = b.join(three)
		g.must("one too many", status, wire.StatusCapacity)
		_, status = b.join(two)
		g.must("one of them again", status, wire.StatusAlreadyInRoom)
		a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: one}, nil)
		_, status = b.join(three)
		g.must("one was destroyed", status, wire.StatusOK)
		b.leave(two)
		g.must("left", b.leave(two), wire.StatusNotInRoom)
		a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: two}, nil)
		four := a.room()
		_, status = b.join(four)
		g.must("one was left", status, wire.StatusOK)
	})
}

func TestHistoryLimit(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		a := g.login()
		room := a.room()
		a.joinAs(room, wire.Member{ScreenName: "n"})
		texts := func() (s string) {
			all, _ := a.fetch(room, "", "", 0)
			for _, m := range all {
				s += m.Message[:1]
			}
			return s
		}
		for i, want := range []string{"a", "ab", "abc", "abcd", "bcde", "cdef"} {
			g.must("say", a.say(room, string(rune('a'+i))), wire.StatusOK)
			if got := texts(); got != want {
				t.Errorf("history %q, want %q", got, want)
			}
		}
		old, _ := a.fetch(room, "", "", 0)
		cfg := small()
		cfg.Limits.HistoryMessages = 100
		g = im.gateway(t, cfg)
		a = g.login()
		room = a.room()
		a.joinAs(room, wire.Member{ScreenName: "n"})
		for i := range 20 {
			a.say(room, string(rune('a'+i))+strings.Repeat("x", 99))
			var bytes int
			all, _ := a.fetch(room, "", "", 0)
			for j := range all {
				bytes += len(all[j].AppendTo(nil))
			}
			one := len(all[0].AppendTo(nil))
			if bytes > 1000 || i >= 10 && bytes+one <= 1000 {
				t.Errorf("after %d messages %d bytes are kept, %d each", i+1, bytes, one)
			}
		}
		if got := texts(); !strings.HasSuffix(got, "rst") {
			t.Errorf("history %q", got)
		}
		if len(old) != 4 {
			t.Error(len(old))
		}
	})
}

func TestLengthLimits(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, small())
		defer g.w.Close()
		a := g.login()
		room := a.room()
		a.join(room)
		x := func(n int) string { return strings.Repeat("x", n) }
		create := func(r wire.Room) string {
			r2, status := a.create(r)
			if status == wire.StatusOK {
				a.ask(wire.TypeDestroyRoom, &wire.DestroyRoom{RoomID: r2.RoomID}, nil)
			}
			return status
		}
		join := func(m wire.Member) string {
			b := g.login()
			defer b.bye()
			m.LastUpdate = 1
			_, status := b.joinAs(room, m)
			return status
		}
		update := func(m wire.MemberUpdate) string {
			return a.ask(wire.TypeUpdateMember, &wire.UpdateMember{RoomID: room, Member: m}, nil)
		}
		updateRoom := func(r wire.Room) string {
			r.RoomID = room
			return a.ask(wire.TypeUpdateRoom, &wire.UpdateRoom{Room: r}, nil)
		}
		// The rest of a room beside a description of n (< 128) bytes, with an id of 26: 2+26 + 2+1 + 2 + 2.
		restOfRoom := 2 + 26 + 2 + 1 + 2 + 2
		// The rest of a member beside one stream's URI: session id, name, role, stream, state, lastUpdate.
		member := func(n int) wire.Member { return wire.Member{ScreenName: "n", Streams: []wire.Stream{{URI: x(n)}}} }
		full := member(60)
		full.SessionID, full.LastUpdate = a.session, 1
		restOfMember := len(full.AppendTo(nil)) - 60
		for _, c := range []struct {
			name  string
			limit int
			try   func(n int) string
		}{
			{"message", 100, func(n int) string { return a.say(room, x(n)) }},
			{"room id", 40, func(n int) string { return create(wire.Room{RoomID: x(n)}) }},
			{"alias", 40, func(n int) string { return create(wire.Room{Alias: x(n)}) }},
			{"room name", 40, func(n int) string { return create(wire.Room{Name: x(n)}) }},
			{"new room name", 40, func(n int) string { return updateRoom(wire.Room{Name: x(n)}) }},
			{"room", 200 - restOfRoom - 1, func(n int) string { return create(wire.Room{Name: "n", Description: x(n)}) }},
			{"updated room", 200 - restOfRoom - 1, func(n int) string { return updateRoom(wire.Room{Name: "n", Description: x(n)}) }},
			{"screen name", 40, func(n int) string { return join(wire.Member{ScreenName: x(n)}) }},
			{"new screen name", 40, func(n int) string { return update(wire.MemberUpdate{ScreenName: x(n), HasScreenName: true}) }},
			{"member", 150 - restOfMember, func(n int) string { return join(member(n)) }},
			{"request", 1024, func(n int) string {
				return a.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: room, Secret: x(n - 28 - 3)}, nil)
			}},
			{"authentication", 1024, func(n int) string {
				b := g.dial()
				defer b.lose(1000)
				return b.ask(wire.TypeAuthenticate, &wire.Authenticate{AuthenticationToken: x(n - 8 - 3)}, nil)
			}},
		} {
			for d, want := range map[int]string{-1: wire.StatusOK, 0: wire.StatusOK, 1: wire.StatusCapacity} {
				g.must(c.name, c.try(c.limit+d), want)
			}
		}
		updated := member(150)
		g.must("updated member", update(wire.MemberUpdate{Streams: updated.Streams}), wire.StatusCapacity)
		g.must("still in order", update(wire.MemberUpdate{Streams: member(10).Streams}), wire.StatusOK)
	})
}

// What a session takes is within what the documentation of Limits says.
func TestMemory(t *testing.T) {
	const n = 20_000
	g := newGateway(t, DefaultConfig())
	defer g.w.Close()
	ids := make([]*client, n)
	for i := range ids {
		ids[i] = g.dial()
	}
	per := heapPer(n, func() {
		for _, c := range ids {
			if !g.w.CreateSession(c.id, n) {
				t.Fatal("full")
			}
		}
	})
	if per > 512 {
		t.Errorf("%d bytes a session", per)
	}
	t.Logf("%d bytes a session", per)
}
