package rooms

import (
	"testing"

	"github.com/mqgate/mqgate/mq/wire"
)

// Changes and messages after the clock was set back still come one after the other.
func TestClockSetBack(t *testing.T) {
	r := newRoom(wire.Room{RoomID: "r"}, "s", 0)
	var res Result
	limits := DefaultLimits()
	r.Join("s", 0, &wire.Member{}, false, 1000, &limits, &res)
	r.Join("s", 0, &wire.Member{ScreenName: "x"}, true, 10, &limits, &res)
	if r.members[0].LastUpdate != 1001 {
		t.Errorf("%+v", r.members[0])
	}
	r.Send("s", "1", 5000, &limits, &res)
	r.Send("s", "2", 50, &limits, &res)
	if r.history[1].id != 5001 {
		t.Errorf("%d", r.history[1].id)
	}
}
