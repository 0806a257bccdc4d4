package rooms_test

import (
	"testing"
	"time"

	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// A message can be fetched until it is older than Limits.HistoryAge: below, at and above it; and for ever without it.
// (TestHistoryAge has the limit to the microsecond, and what goes from memory.)
func TestHistoryAgePasses(t *testing.T) {
	const age = 5 * time.Minute
	each(t, func(t *testing.T, im implementation) {
		for _, limit := range []time.Duration{age, 0} {
			im.simulated(t, func(t *testing.T) {
				cfg := DefaultConfig()
				cfg.Limits.HistoryAge = limit
				g := im.gateway(t, cfg)
				defer g.w.Close()
				a := g.login()
				room := a.room()
				a.join(room)
				g.pass(time.Second) // so that the id of the message, from which its age is counted, is just the time
				g.must("say", a.say(room, "old"), wire.StatusOK)
				g.pass(time.Second)
				g.must("say", a.say(room, "new"), wire.StatusOK)
				check := func(when string, want int) {
					t.Helper()
					if limit == 0 {
						want = 2
					}
					all, status := a.fetch(room, "", "", 0)
					if g.must("fetch", status, wire.StatusOK); len(all) != want {
						t.Errorf("limit %v, %s: %d messages, want %d", limit, when, len(all), want)
					}
				}
				g.pass(age - 2*time.Second)
				check("a second before the first is too old", 2)
				g.pass(time.Second)
				check("when the first is as old as may be", 2)
				g.pass(time.Second)
				check("a second later", 1)
				g.pass(time.Second)
				check("when both are too old", 0)
				g.must("say", a.say(room, "third"), wire.StatusOK)
				if limit == 0 {
					return
				}
				if all, _ := a.fetch(room, "", "", 0); len(all) != 1 || all[0].Message != "third" {
					t.Errorf("after the next one: %+v", all)
				}
			})
		}
	})
}
