package sequences

import (
	"errors"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

const (
	info         = "chat.GetRoomInfo"
	infoResponse = "chat.GetRoomInfoResponse"
)

var requests = section{
	title: "Request of a client",
	text: "Every request that is accepted has one outcome: ok, failed, timeout, or dropped because its " +
		"connection was not OPEN any more.",
	scenes: []scene{
		{
			title: "Answered", rows: "L3.3, L3.6",
			text: "The answer has the request's id, the form (text or binary) that the client used last, and as " +
				"wallTime the milliseconds that it took. Answers come in the order in which the worker gives " +
				"them; what it says after the first is dropped.",
			play: func(p *play) {
				c := p.open("")
				p.process = func(r *mq.Request) {
					if r.Type == info {
						p.later = append(p.later, r.Later())
						return
					}
					p.note(fromWorker, "Reply "+r.Type+"Response {status: ok}")
					r.Reply(r.Type+"Response", ok("ok"))
				}
				c.request("C1", info)
				p.pass(10 * time.Millisecond)
				c.binary(&wire.Envelope{RequestID: "C2", Type: "pcast.Bye"})
				p.pass(20 * time.Millisecond)
				p.reply(0, infoResponse, ok("ok"))
				p.reply(0, infoResponse, ok("ok"))
			},
		},
		{
			title: "Failed", rows: "L3.5, L8.2",
			text: "The worker fails the request, at once or later, or panics: the client gets the same mq.Error. " +
				"The cause is in the log and never goes out.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.pass(40 * time.Millisecond)
				p.note(fromWorker, "Fail: no database")
				p.later[0].Fail(errors.New("no database"))
				p.run()
				p.process = func(*mq.Request) {
					p.note(fromWorker, "panics")
					panic("index out of range")
				}
				c.request("C2", info)
			},
		},
		{
			title: "Timeout", rows: "L3.4",
			text: "After `--request-timeout` the client gets mq.Error `timeout`; what the worker says later is dropped.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.wait(time.Minute)
				p.pass(time.Second)
				p.reply(0, infoResponse, ok("ok"))
			},
		},
		{
			title: "Dropped: the connection is not open any more", rows: "L3.2, L3.7, L1.3",
			text: "C1 is answered while the client's Close is awaited, C2 when the connection is gone: both answers " +
				"are dropped. A request that comes after our Close (C3) is not even accepted.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				c.request("C2", info)
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				p.reply(0, infoResponse, ok("ok"))
				c.request("C3", info)
				c.answersClose(4001)
				p.reply(1, infoResponse, ok("ok"))
			},
		},
		{
			title: "Too many in flight", rows: "L3.3",
			text: "Here with `--max-requests-per-connection 2`. The one too many is failed at once and does not " +
				"reach the worker; an answer makes room.",
			set: func(s settings) { s.mq.MaxRequests = 2 },
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				c.request("C2", info)
				c.request("C3", info)
				p.reply(1, infoResponse, ok("ok"))
				c.request("C4", info)
				p.reply(0, infoResponse, ok("ok"))
				p.reply(2, infoResponse, ok("ok"))
			},
		},
		{
			title: "Two with the same id", rows: "L3.11, L3.12",
			text: "They are two requests; each is answered. Clients that want to tell their answers apart count.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				c.request("C1", "chat.LeaveRoom")
				p.reply(1, "chat.LeaveRoomResponse", ok("ok"))
				p.reply(0, infoResponse, ok("ok"))
			},
		},
		{
			title: "What is no request", rows: "L3.1, L3.10, L3.12",
			text: "Not base64, not an envelope, no request id, an id above 128 bytes, an Event: dropped, counted, " +
				"and logged at most once a second per reason (not_logged: how many were not since the last line). " +
				"The connection stays.",
			play: func(p *play) {
				c := p.open("")
				p.replies()
				c.frame(frame.Text, []byte(`{"hello": 1}`))
				c.frame(frame.Binary, []byte{0xff, 0xff, 0xff})
				c.request("", info)
				c.note("text Request of a request id of 129 bytes")
				c.send(masked(frame.Binary, (&wire.Envelope{RequestID: string(make([]byte, 129)), Type: info}).AppendTo(nil)))
				c.text(&wire.Envelope{Type: "app.News", MessageType: wire.Event})
				p.pass(time.Second)
				c.frame(frame.Text, []byte("not base64"))
				c.request("C1", info)
			},
		},
	},
}

var responses = section{
	title: "Response of a client",
	text: "A Response resolves the server's request of that id on that connection: " +
		"[below](#request-of-the-server). Without one it is dropped.",
	scenes: []scene{{
		title: "A Response to nothing", rows: "L3.9",
		text: "Unknown. (Late is what answers a request that has timed out.)",
		play: func(p *play) { p.open("").respond("S7") },
	}},
}

var lobby = mq.Topic{Kind: mq.TopicRoom, Room: "lobby"}

func publish(p *play) {
	p.note(fromWorker, "Publish chat.RoomEvent to room lobby")
	p.worker.Publish(lobby, "chat.RoomEvent", make([]byte, 24))
	p.run()
}

var events = section{
	title: "Event",
	text:  "Events go from the server to clients and have no answer.",
	scenes: []scene{
		{
			title: "To those in a room", rows: "L3.8, L6.1",
			text: "A successful JoinRoom subscribes the connection to the room of the answer; LeaveRoom, or its end, ends that. " +
				"One event to many subscribers is encoded once for each form.",
			play: func(p *play) {
				a := p.open("A")
				b := p.open("B")
				p.process = func(r *mq.Request) {
					p.note(fromWorker, "Reply "+r.Type+"Response {status: ok}")
					if r.Type == wire.TypeJoinRoom {
						r.Reply(wire.TypeJoinRoomResponse, (&wire.JoinRoomResponse{Status: "ok", Room: &wire.Room{RoomID: "lobby"}}).AppendTo(nil))
						return
					}
					r.Reply(r.Type+"Response", ok("ok"))
				}
				join := &wire.Envelope{RequestID: "C1", Type: wire.TypeJoinRoom, Payload: (&wire.JoinRoom{RoomID: "lobby", SessionID: "s"}).AppendTo(nil)}
				a.text(join)
				b.binary(join)
				publish(p)
				a.text(&wire.Envelope{RequestID: "C2", Type: wire.TypeLeaveRoom,
					Payload: (&wire.LeaveRoom{RoomID: "lobby", SessionID: "s"}).AppendTo(nil)})
				publish(p)
				b.leaves()
				publish(p)
			},
		},
		{
			title: "To one connection", rows: "L4.1, L4.2",
			text: "The worker names it by its id. It hears when nobody has that id; that an event has arrived it " +
				"does not hear.",
			play: func(p *play) {
				c := p.open("")
				p.event(c, c.id, make([]byte, 24))
				c.leaves()
				p.event(c, c.id, make([]byte, 24))
			},
		},
	},
}

var asking = section{
	title: "Request of the server",
	scenes: []scene{
		{
			title: "Answered", rows: "L4.1, L3.9",
			text: "The second Response finds nothing any more.",
			play: func(p *play) {
				c := p.open("")
				p.ask(c, c.id)
				p.pass(30 * time.Millisecond)
				c.respond("S1")
				c.respond("S1")
			},
		},
		{
			title: "Timeout, late and unknown responses", rows: "L4.3, L3.9",
			text: "After `--server-request-timeout` the worker is told; as long again the request is remembered, so " +
				"that a late Response is known for what it is.",
			play: func(p *play) {
				c := p.open("")
				p.ask(c, c.id)
				p.ask(c, c.id)
				p.wait(time.Minute)
				p.pass(5 * time.Second)
				c.respond("S1")
				p.pass(15 * time.Second)
				c.respond("S2")
			},
		},
		{
			title: "Somebody else's Response", rows: "L4.1, L3.9",
			text: "B answers what A was asked: unknown. A's answer counts.",
			play: func(p *play) {
				a := p.open("A")
				b := p.open("B")
				p.ask(a, a.id)
				b.respond("S1")
				a.respond("S1")
			},
		},
		{
			title: "Not found", rows: "L4.2",
			text: "No connection has that id, or none any more.",
			play: func(p *play) {
				c := p.open("")
				c.leaves()
				p.ask(c, c.id)
			},
		},
		{
			title: "Not opened", rows: "L4.2, L4.4",
			text: "The connection is there and is closing. (A connection that is not closing yet would be closed " +
				"with 3335.)",
			play: func(p *play) {
				c := p.open("")
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				p.ask(c, c.id)
				c.answersClose(4001)
			},
		},
		{
			title: "The connection ends meanwhile", rows: "L4.3",
			text: "The worker does not wait for the timeout.",
			play: func(p *play) {
				c := p.open("")
				p.ask(c, c.id)
				p.pass(2 * time.Second)
				c.leaves()
			},
		},
	},
}
