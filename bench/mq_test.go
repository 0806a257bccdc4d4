package bench

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// serveGateway starts a gateway with its built-in worker, on two loops, until the test ends.
func serveGateway(t *testing.T) (netip.AddrPort, *rooms.Worker) {
	t.Helper()
	worker, err := rooms.New(rooms.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	g, err := mq.New(mq.Config{Worker: worker, RequestTimeout: 15 * time.Second, ServerRequestTimeout: 15 * time.Second, MaxRequests: 256,
		Log: slog.New(slog.DiscardHandler)}, 2)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &conn.Config{Role: frame.RoleServer, Endpoints: []conn.Endpoint{{Path: "/ws", Handler: g, MaxMessage: 1 << 20}},
		HandshakeTimeout: 10 * time.Second, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, PingInterval: time.Minute, MaxPending: 4 << 20}
	server, err := conn.NewServer(cfg, conn.ServerConfig{Loops: 2, Attach: func(_ int, r *conn.Registry) { g.Attach(r) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		worker.Close()
	})
	g.Start(server)
	addr, err := server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1024)
	if err != nil {
		t.Fatal(err)
	}
	return addr, worker
}

// mqOptions returns the options of a small run of a scenario that speaks MQ.
func mqOptions(t *testing.T, addr netip.AddrPort, path, scenario string) Options {
	t.Helper()
	target, err := ParseTarget("ws://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Scenario: scenario, Target: target, Connections: 8, Duration: 200 * time.Millisecond, Loops: 2, Payload: 128, Depth: 4, RampOf: scenarioRequest,
		RequestType: DefaultRequest, AnswerStatus: DefaultStatus, AnswerTimeout: 18 * time.Second}
	if scenario == scenarioBroadcast {
		o.Rooms, o.Members, o.Connections, o.Rate = 2, 4, 8, 400
	}
	return o
}

// fakeGateway speaks as much MQ as the scenarios need, on one loop, and makes mistakes. It is the misbehave of an
// echoServer.
type fakeGateway struct {
	form  wire.Form
	rooms map[string][]*member
	sent  map[conn.Ref]int // requests of the traffic, by connection

	// answer, if not nil, is called for request n (1, 2, ...) of the traffic on a connection and reports whether it has
	// dealt with its answer; good is the right one.
	answer func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool
	// deliver likewise, for the event of message n to member k of its room.
	deliver func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool
	// status, if not nil, is that of the answer to a request of the setup.
	status func(typ string) string
}

type member struct {
	c   *conn.Registry
	ref conn.Ref
}

// send sends an envelope.
func (f *fakeGateway) send(c *conn.Conn, e wire.Envelope) {
	op := frame.Binary
	if f.form == wire.Text {
		op = frame.Text
	}
	_ = c.Send(op, e.AppendForm(nil, f.form)) // closing
}

func (f *fakeGateway) message(c *conn.Conn, _ int, op frame.OpCode, p []byte) bool {
	f.form = wire.Binary
	if op == frame.Text {
		f.form = wire.Text
		p, _ = wire.DecodeText(nil, p)
	}
	var e wire.Envelope
	if e.Unmarshal(slices.Clone(p)) != nil {
		panic("the generator sent no envelope")
	}
	status, traffic := wire.StatusOK, false
	if f.status != nil {
		status = f.status(e.Type)
	}
	switch e.Type {
	case wire.TypeJoinRoom:
		var m wire.JoinRoom
		_ = m.Unmarshal(e.Payload)
		f.rooms[m.RoomID] = append(f.rooms[m.RoomID], &member{c.Registry(), c.Ref()})
	case wire.TypeSendMessageToRoom:
		traffic = true
	case wire.TypeGetRoomInfo:
		status, traffic = wire.StatusNotFound, true
	}
	answer := wire.SendMessageToRoomResponse{Status: status} // all have the status first
	good := wire.Envelope{RequestID: e.RequestID, Type: e.Type + "Response", Payload: answer.AppendTo(nil), MessageType: wire.Response}
	if !traffic {
		f.send(c, good)
		return true
	}
	f.sent[c.Ref()]++
	n := f.sent[c.Ref()]
	if f.answer == nil || !f.answer(f, c, n, good) {
		f.send(c, good)
	}
	if e.Type == wire.TypeSendMessageToRoom {
		f.publish(n, e.Payload)
	}
	return true
}

func (f *fakeGateway) publish(n int, payload []byte) {
	var m wire.SendMessageToRoom
	_ = m.Unmarshal(payload)
	event := wire.RoomConversationEvent{RoomID: m.RoomID, ChatMessages: []wire.ChatMessage{m.ChatMessage}}
	good := wire.Envelope{Type: wire.TypeRoomConversationEvent, Payload: event.AppendTo(nil), MessageType: wire.Event}
	for k, to := range f.rooms[m.RoomID] {
		if c := to.c.Get(to.ref); c != nil && (f.deliver == nil || !f.deliver(f, c, n, k, good)) {
			f.send(c, good)
		}
	}
}

// serve starts f at the path /echo.
func (f *fakeGateway) serve(t *testing.T) netip.AddrPort {
	f.rooms, f.sent = map[string][]*member{}, map[conn.Ref]int{}
	s := &echoServer{misbehave: f.message}
	s.serve(t)
	return s.addr
}

// Requests and broadcasts against the gateway and its worker, in each form.
func TestMQScenarios(t *testing.T) {
	t.Parallel()
	sizes, err := ParseSizes("64:50%,1000:40%,4000:10%", plainSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		scenario string
		change   func(o *Options)
	}{
		{"request", scenarioRequest, func(*Options) {}},
		{"request in text", scenarioRequest, func(o *Options) { o.Text = true }},
		{"request, one in flight", scenarioRequest, func(o *Options) { o.Depth = 1 }},
		{"request at a rate", scenarioRequest, func(o *Options) { o.Rate = 500 }},
		{"request after a warm-up", scenarioRequest, func(o *Options) { o.Warmup = 50 * time.Millisecond }},
		{"request of sizes", scenarioRequest, func(o *Options) { o.Sizes, o.Payload = sizes, 4000 }},
		{"request of the smallest size", scenarioRequest, func(o *Options) { o.Payload = MinPayload }},
		{"request of a kind of one's own", scenarioRequest, func(o *Options) {
			o.RequestType, o.RequestPayload, o.AnswerStatus = wire.TypeLeaveRoom, []byte{}, wire.StatusNotFound
		}},
		{"request with charts", scenarioRequest, func(o *Options) { o.Charts = true }},
		{"broadcast", scenarioBroadcast, func(*Options) {}},
		{"broadcast in text", scenarioBroadcast, func(o *Options) { o.Text = true }},
		{"broadcast of sizes", scenarioBroadcast, func(o *Options) { o.Sizes, o.Payload = sizes, 4000 }},
		{"broadcast, the default rate", scenarioBroadcast, func(o *Options) { o.Rate, o.Duration = 0, time.Second }},
		{"broadcast in one room", scenarioBroadcast, func(o *Options) { o.Rooms, o.Members = 1, 8 }},
		{"broadcast to oneself", scenarioBroadcast, func(o *Options) { o.Rooms, o.Members = 8, 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			addr, worker := serveGateway(t)
			o := mqOptions(t, addr, "/ws", test.scenario)
			test.change(&o)
			p := mustRun(t, t.Context(), o)
			if !p.OK || p.Opened != 8 || p.Messages == 0 || p.Latency.P50 == nil || p.RatePerSecond == 0 {
				t.Errorf("the report is %+v", *p)
			}
			if n := worker.Counters(); n.Rooms != 0 || n.Malformed != 0 || n.Unknown != 0 || n.Unauthorized != 0 {
				t.Errorf("the worker counts %+v", n)
			}
			if b := p.Broadcast; b != nil && (b.Deliveries != b.Sent*uint64(o.Members) || b.Spread.P50 == nil || *b.Spread.Max < *p.Latency.P50) {
				t.Errorf("the broadcast is %+v", *b)
			} else if b != nil && p.MessagesUnsent == 0 && p.hist.TotalCount() != int64(b.Deliveries) { // there is no warm-up
				t.Errorf("%d of %d deliveries were measured", p.hist.TotalCount(), b.Deliveries)
			}
		})
	}
}

// Every mistake in answering requests is found and counted exactly.
func TestRequestMistakes(t *testing.T) {
	t.Parallel()
	type counts struct{ lost, duplicate, wrong uint64 }
	const each, all = 5, 5 * 8 // mistakes per connection, at requests 2, 4, ... 10; in all
	due := func(n int) bool { return n > 0 && n%2 == 0 && n <= 2*each }
	instead := func(change func(e *wire.Envelope)) func(*fakeGateway, *conn.Conn, int, wire.Envelope) bool {
		return func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n) {
				change(&good)
				f.send(c, good)
			}
			return due(n)
		}
	}
	also := func(change func(e *wire.Envelope)) func(*fakeGateway, *conn.Conn, int, wire.Envelope) bool {
		return func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n) {
				changed := good
				change(&changed)
				f.send(c, changed)
			}
			return false
		}
	}
	held := map[conn.Ref]wire.Envelope{} // on the server's one loop
	for _, test := range []struct {
		name   string
		answer func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool
		want   counts
	}{
		{"none", nil, counts{}},
		// Four are in flight: a connection whose requests 2, 4, 6 and 8 are not answered waits for ever.
		{"drops", func(_ *fakeGateway, _ *conn.Conn, n int, _ wire.Envelope) bool { return n == 2 || n == 4 }, counts{lost: 2 * 8}},
		{"answers twice", also(func(*wire.Envelope) {}), counts{duplicate: all}},
		{"answers with another type", instead(func(e *wire.Envelope) { e.Type = wire.TypeByeResponse }), counts{wrong: all}},
		{"answers with an error", instead(func(e *wire.Envelope) {
			m := wire.Error{Reason: wire.ReasonFailed}
			e.Type, e.Payload = wire.TypeError, m.AppendTo(nil)
		}), counts{wrong: all}},
		{"answers with another status", instead(func(e *wire.Envelope) {
			m := wire.ByeResponse{Status: wire.StatusOK}
			e.Payload = m.AppendTo(nil)
		}), counts{wrong: all}},
		{"answers without an id", instead(func(e *wire.Envelope) { e.RequestID = "" }), counts{wrong: all}},
		{"answers in capitals", instead(func(e *wire.Envelope) { e.RequestID = "ABCDEFABCDEFABCD" }), counts{wrong: all}},
		{"answers another connection", also(func(e *wire.Envelope) { e.RequestID = "00000fff" + e.RequestID[8:] }), counts{wrong: all}},
		{"answers what was not asked", also(func(e *wire.Envelope) { e.RequestID = e.RequestID[:8] + "00ffffff" }), counts{wrong: all}},
		{"answers the setup again", also(func(e *wire.Envelope) { e.RequestID = e.RequestID[:8] + "ffffffff" }), counts{duplicate: all}},
		{"sends events", also(func(e *wire.Envelope) { e.MessageType = wire.Event }), counts{}},
		{"sends garbage", func(_ *fakeGateway, c *conn.Conn, n int, _ wire.Envelope) bool {
			if due(n) {
				_ = c.Send(frame.Binary, []byte{0xff})
			}
			return due(n)
		}, counts{wrong: all}},
		{"answers in text", func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n) {
				_ = c.Send(frame.Text, good.AppendForm(nil, wire.Text))
			}
			return due(n)
		}, counts{wrong: all}},
		{"answers in another order", func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			switch {
			case due(n):
				good.Payload, good.RequestID = slices.Clone(good.Payload), string([]byte(good.RequestID))
				held[c.Ref()] = good
				return true
			case due(n - 1):
				f.send(c, good)
				f.send(c, held[c.Ref()])
				return true
			}
			return false
		}, counts{}}, // MQ promises none
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fakeGateway{answer: test.answer}
			o := mqOptions(t, f.serve(t), "/echo", scenarioRequest)
			o.Duration = 400 * time.Millisecond // a slow machine needs the time for the mistakes
			p := mustRun(t, t.Context(), o)
			if got := (counts{p.LostMessages, p.Duplicate, p.Wrong}); got != test.want || *p.Late != 0 {
				t.Errorf("lost, duplicate, wrong: %v, want %v; %d late", got, test.want, *p.Late)
			}
			if p.OK != (test.want == counts{}) {
				t.Errorf("ok %v", p.OK)
			}
		})
	}
}

// An answer that took longer than clients wait is late, and the run has failed.
func TestLateAnswers(t *testing.T) {
	f := &fakeGateway{}
	o := mqOptions(t, f.serve(t), "/echo", scenarioRequest)
	o.AnswerTimeout = time.Nanosecond
	if p := mustRun(t, t.Context(), o); p.OK || *p.Late == 0 || p.Lost+p.Wrong+p.Duplicate != 0 {
		t.Errorf("ok %v, %d late, %d lost, %d wrong", p.OK, *p.Late, p.Lost, p.Wrong)
	}
}

// A setup that the server refuses is counted, connection by connection, and nothing is measured.
func TestRefusedSetup(t *testing.T) {
	for _, test := range []struct {
		scenario, typ string
		failed        uint64
	}{
		{scenarioRequest, wire.TypeAuthenticate, 8},
		{scenarioRamp, wire.TypeAuthenticate, 8},
		{scenarioBroadcast, wire.TypeAuthenticate, 8},
		{scenarioBroadcast, wire.TypeCreateRoom, 2},
		{scenarioBroadcast, wire.TypeJoinRoom, 8},
		{scenarioBroadcast, wire.TypeFetchRoomConversation, 8},
		{scenarioBroadcast, wire.TypeDestroyRoom, 2},
	} {
		f := &fakeGateway{status: func(typ string) string {
			if typ == test.typ {
				return wire.StatusCapacity
			}
			return wire.StatusOK
		}}
		p := mustRun(t, t.Context(), mqOptions(t, f.serve(t), "/echo", test.scenario))
		if p.OK || p.Failures[test.typ+` was answered with "capacity"`] != test.failed || (p.Messages > 0) != (test.typ == wire.TypeDestroyRoom) {
			t.Errorf("%s, %s: ok %v, %v, %d messages", test.scenario, test.typ, p.OK, p.Failures, p.Messages)
		}
	}
}

// Every mistake in delivering is found and counted exactly. Each is made with messages 2, 4 and 6 of each of the 2 rooms,
// to one of the 4 members.
func TestBroadcastMistakes(t *testing.T) {
	t.Parallel()
	type counts struct{ lost, duplicate, wrong uint64 }
	const all = 2 * 3
	due := func(n, k int) bool { return k == 3 && n > 0 && n%2 == 0 && n <= 6 }
	instead := func(change func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent)) func(*fakeGateway, *conn.Conn, int, int, wire.Envelope) bool {
		return func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool {
			if due(n, k) {
				var e wire.RoomConversationEvent
				_ = e.Unmarshal(good.Payload)
				change(f, c, e)
			}
			return due(n, k)
		}
	}
	send := func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent) {
		f.send(c, wire.Envelope{Type: wire.TypeRoomConversationEvent, Payload: e.AppendTo(nil), MessageType: wire.Event})
	}
	held := map[conn.Ref]wire.Envelope{}
	for _, test := range []struct {
		name    string
		deliver func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool
		answer  func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool
		want    counts
	}{
		{"none", nil, nil, counts{}},
		{"drops", func(_ *fakeGateway, _ *conn.Conn, n, k int, _ wire.Envelope) bool { return due(n, k) }, nil, counts{lost: all}},
		{"delivers twice", func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool {
			if due(n, k) {
				f.send(c, good)
			}
			return false
		}, nil, counts{duplicate: all}},
		{"changes the text", instead(func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent) {
			text := []byte(e.ChatMessages[0].Message)
			text[len(text)-1] ^= 1
			e.ChatMessages[0].Message = string(text)
			send(f, c, e)
		}), nil, counts{wrong: all}},
		{"cuts the text", instead(func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent) {
			e.ChatMessages[0].Message = e.ChatMessages[0].Message[:100]
			send(f, c, e)
		}), nil, counts{wrong: all}},
		{"sends an empty event", instead(func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent) {
			e.ChatMessages = nil
			send(f, c, e)
		}), nil, counts{wrong: all}},
		{"sends garbage", instead(func(f *fakeGateway, c *conn.Conn, e wire.RoomConversationEvent) {
			_ = c.Send(frame.Binary, []byte{0xff})
		}), nil, counts{wrong: all}},
		{"delivers another room's too", func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool {
			if due(n, k) {
				var e wire.RoomConversationEvent
				_ = e.Unmarshal(good.Payload)
				e.RoomID = "another"
				send(f, c, e)
			}
			return false
		}, nil, counts{wrong: all}},
		{"delivers in another order", func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool {
			switch {
			case due(n, k):
				held[c.Ref()] = good
				return true
			case due(n-1, k):
				f.send(c, good)
				f.send(c, held[c.Ref()])
				return true
			}
			return false
		}, nil, counts{wrong: all}},
		{"tells of other things", func(f *fakeGateway, c *conn.Conn, n, k int, good wire.Envelope) bool {
			f.send(c, wire.Envelope{Type: wire.TypeRoomEvent, MessageType: wire.Event})
			return false
		}, nil, counts{}},
		{"drops answers", nil, func(_ *fakeGateway, _ *conn.Conn, n int, _ wire.Envelope) bool { return due(n, 3) }, counts{lost: all}},
		{"answers twice", nil, func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n, 3) {
				f.send(c, good)
			}
			return false
		}, counts{duplicate: all}},
		{"refuses", nil, func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n, 3) {
				m := wire.SendMessageToRoomResponse{Status: wire.StatusNotInRoom}
				good.Payload = m.AppendTo(nil)
				f.send(c, good)
			}
			return due(n, 3)
		}, counts{wrong: all}},
		{"answers what was not asked", nil, func(f *fakeGateway, c *conn.Conn, n int, good wire.Envelope) bool {
			if due(n, 3) {
				again := good
				again.RequestID = again.RequestID[:8] + "00ffffff"
				f.send(c, again)
			}
			return false
		}, counts{wrong: all}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fakeGateway{deliver: test.deliver, answer: test.answer}
			o := mqOptions(t, f.serve(t), "/echo", scenarioBroadcast)
			o.Loops, o.Duration = 1, 400*time.Millisecond
			p := mustRun(t, t.Context(), o)
			if got := (counts{p.LostMessages, p.Duplicate, p.Wrong}); got != test.want || p.OK != (test.want == counts{}) {
				t.Errorf("lost, duplicate, wrong: %v, want %v; ok %v", got, test.want, p.OK)
			}
		})
	}
}
