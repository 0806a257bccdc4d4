package rooms_test

import (
	"errors"
	"testing"

	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// Whatever comes in is answered exactly once, and what was there before stays in order.
func FuzzProcess(f *testing.F) {
	types := append([]string{wire.TypeAuthenticate, "chat.Nonsense"}, requestTypes...)
	seeds := map[string]message{
		wire.TypeAuthenticate:          &wire.Authenticate{SessionID: "x", AuthenticationToken: "t"},
		wire.TypeCreateRoom:            &wire.CreateRoom{Room: wire.Room{RoomID: "q", Alias: "a", Options: []string{"o"}}},
		wire.TypeJoinRoom:              &wire.JoinRoom{RoomID: "r", Member: wire.Member{ScreenName: "n", Streams: []wire.Stream{{URI: "u"}}}, Options: []string{"reenter"}},
		wire.TypeLeaveRoom:             &wire.LeaveRoom{RoomID: "r"},
		wire.TypeUpdateRoom:            &wire.UpdateRoom{Room: wire.Room{RoomID: "r", Name: "m"}},
		wire.TypeUpdateMember:          &wire.UpdateMember{RoomID: "r", Member: wire.MemberUpdate{HasScreenName: true, ScreenName: "z"}},
		wire.TypeGetRoomInfo:           &wire.GetRoomInfo{Alias: "al"},
		wire.TypeSendMessageToRoom:     &wire.SendMessageToRoom{RoomID: "r", ChatMessage: wire.ChatMessage{Message: "m"}},
		wire.TypeFetchRoomConversation: &wire.FetchRoomConversation{RoomID: "r", AfterMessageID: "0000000000000001", Limit: 1},
		wire.TypeDestroyRoom:           &wire.DestroyRoom{RoomID: "r"},
	}
	for i, typ := range types {
		if m := seeds[typ]; m != nil {
			f.Add(uint8(i), m.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, payload []byte) {
		g := newGateway(t, DefaultConfig())
		defer g.w.Close()
		a, b := g.login(), g.login()
		b.create(wire.Room{RoomID: "r", Alias: "al", Name: "n"})
		a.join("r")
		b.join("r")
		x := g.raw(a.id, "", types[int(i)%len(types)], payload)
		if x.failed != nil && !errors.Is(x.failed, ErrUnknownType) {
			t.Error(x.failed)
		}
		info, status := b.roomInfo("r")
		if status == wire.StatusNotFound {
			info.Members = nil // destroyed
		}
		if n := g.w.Counters(); n.Members != int64(len(info.Members)) && n.Rooms == 1 {
			t.Errorf("%+v, members %v", n, info.Members)
		}
		a.lose(1000)
		b.bye()
		if n := g.w.Counters(); n.Sessions != 0 || n.Members != 0 {
			t.Errorf("%+v", n)
		}
	})
}
