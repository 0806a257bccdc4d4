package rooms_test

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// sink is a Responder and Clients that does nothing, for measuring.
type sink struct{ answers int }

func (s *sink) Reply(*mq.Request, string, []byte)                             { s.answers++ }
func (s *sink) Fail(*mq.Request, error)                                       { panic("failed") }
func (s *sink) Later(*mq.Request) mq.Completion                               { panic("later") }
func (s *sink) Meta(*mq.Request) mq.Meta                                      { panic("meta") }
func (s *sink) Publish(mq.Topic, string, []byte)                              {}
func (s *sink) SendEvent(conn.ID, string, []byte, func(error))                {}
func (s *sink) SendRequest(conn.ID, string, []byte, func(mq.Response, error)) {}
func (s *sink) Unsubscribe(conn.ID, mq.Topic)                                 {}
func (s *sink) UnsubscribeAll(conn.ID)                                        {}
func (s *sink) EndTopic(mq.Topic)                                             {}
func (s *sink) CloseConnection(conn.ID, uint16, string, func(bool))           {}

// workload returns a function for each of a few requests in a room of ten.
func workload(t testing.TB) map[string]func() {
	g := newGateway(t, DefaultConfig())
	a := g.login()
	room := a.room()
	a.join(room)
	for range 9 {
		g.login().join(room)
	}
	stranger := g.login()
	s := &sink{}
	g.w.Attach(s)
	request := func(c *client, typ string, m message) func() {
		r := mq.NewRequest(s)
		r.Conn, r.Type, r.Payload = c.id, typ, m.AppendTo(nil)
		return func() { g.w.Process(r) }
	}
	return map[string]func(){
		"GetRoomInfo":       request(a, wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: room, SessionID: a.session}),
		"GetRoomInfo none":  request(a, wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: "none"}),
		"SendMessage":       request(a, wire.TypeSendMessageToRoom, &wire.SendMessageToRoom{RoomID: room, ChatMessage: wire.ChatMessage{Message: strings.Repeat("x", 100)}}),
		"SendMessage not":   request(stranger, wire.TypeSendMessageToRoom, &wire.SendMessageToRoom{RoomID: room}),
		"Fetch":             request(a, wire.TypeFetchRoomConversation, &wire.FetchRoomConversation{RoomID: room, Limit: 10}),
		"JoinRoom again":    request(a, wire.TypeJoinRoom, &wire.JoinRoom{RoomID: room}),
		"no session":        request(g.dial(), wire.TypeLeaveRoom, &wire.LeaveRoom{RoomID: room}),
		"session of others": request(a, wire.TypeLeaveRoom, &wire.LeaveRoom{RoomID: room, SessionID: "x"}),
	}
}

func BenchmarkProcess(b *testing.B) {
	work := workload(b)
	for _, name := range slices.Sorted(maps.Keys(work)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				work[name]()
			}
		})
	}
}

// heapPer returns by how many bytes the heap has grown for each of n.
func heapPer(n int, f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(n)
}

// Every request of the workload does what it is to measure, also where the measuring itself is left out.
func TestWorkload(t *testing.T) {
	for _, f := range workload(t) {
		f()
		f()
	}
}
