package roomstore

import (
	"errors"
	"testing"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// fake is an operation with a given result.
type fake struct {
	look
	kind       mq.TopicKind
	event      int // bytes, 0: none
	members    int
	subscribes bool
	panics     bool
}

func (f *fake) Apply(*rooms.Room) {
	if f.panics {
		panic("as asked for")
	}
	f.res = rooms.Result{EventKind: f.kind, Members: f.members}
	if f.event > 0 {
		f.res.EventType, f.res.Event = wire.TypeRoomEvent, make([]byte, f.event)
	}
}

func (f *fake) Subscribes() (mq.TopicKind, bool) { return f.kind, f.subscribes }

func emptyRoom(t *testing.T) *rooms.Room {
	limits := rooms.DefaultLimits()
	info := wire.Room{RoomID: "r"}
	var delta, in []byte
	in = append(in, 0x12, byte(len(info.AppendTo(nil))))
	in = append(in, info.AppendTo(nil)...)
	delta = append(append(delta, 0x0a, byte(len(in))), in...)
	r, err := rooms.Replay(nil, nil, delta, &limits)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func many(n int, f fake) (out []*fake) {
	for range n {
		own := f
		out = append(out, &own)
	}
	return out
}

// How many operations go into one record: up to the limits, and so that a new subscriber gets nothing that would hurt.
func TestApply(t *testing.T) {
	const room, conversation = mq.TopicRoom, mq.TopicConversation
	join := fake{kind: room, event: 1, members: 1, subscribes: true}
	again := fake{kind: room, subscribes: true} // of a member, without a change
	fetch := fake{kind: conversation, subscribes: true}
	left := fake{kind: room, event: 1, members: -1}
	updated := fake{kind: room, event: 1}
	said := fake{kind: conversation, event: 1}
	for _, c := range []struct {
		name string
		ops  []*fake
		want int
	}{
		{"joins", []*fake{&join, &join, &again, &fetch}, 4},
		{"join after a message", []*fake{&said, &join, &again}, 3},
		{"join after a leave", []*fake{&join, &left, &join}, 2},
		{"join again after an update", []*fake{&updated, &again}, 1},
		{"fetch after an update", []*fake{&updated, &left, &fetch, &said}, 4},
		{"fetch after a message", []*fake{&said, &said, &fetch}, 2},
		{"one below the limit", many(maxBatch-1, said), maxBatch - 1},
		{"at the limit", many(maxBatch, said), maxBatch},
		{"above the limit", many(maxBatch+1, said), maxBatch},
		{"bytes below the limit", many(3, fake{event: maxRecordBytes/2 - 1}), 3},
		{"bytes at the limit", many(3, fake{event: maxRecordBytes / 2}), 3},
		{"bytes above the limit", many(3, fake{event: maxRecordBytes/2 + 1}), 2},
	} {
		a := &actor{room: emptyRoom(t)}
		var batch []*waiting
		for _, f := range c.ops {
			batch = append(batch, &waiting{op: f})
		}
		if n, _, err := a.apply(batch); n != c.want || err != nil {
			t.Errorf("%s: %d of %d in the first record, want %d; %v", c.name, n, len(batch), c.want, err)
		}
	}
	a := &actor{room: emptyRoom(t)}
	n, _, err := a.apply([]*waiting{{op: &said}, {op: &fake{panics: true}}, {op: &said}})
	if n != 2 || err == nil {
		t.Errorf("a panic: %d, %v", n, err)
	}
}

// Errors that are worth another try, and such that are not.
func TestTemporary(t *testing.T) {
	for err, want := range map[error]bool{errConflict: false, errTooLate: false, errors.New("x"): false} {
		if temporary(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
