package sequences

import (
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

var serverClose = section{
	title: "Close by the server",
	text: "Our Close goes out behind what was sent before and nothing after it. The end - one OnClose, one " +
		"decrement, one publication to the worker - comes with the client's Close, or after " +
		"`--close-timeout` without it.",
	scenes: []scene{
		{
			title: "Answered", rows: "L1.3, L5.2, L6.1, L1.8",
			text: "Here closed by the worker with a code of its own (cause `local`). A second close is a no-op. The " +
				"client still sends a request, which is dropped, then its Close.",
			play: func(p *play) {
				c := p.open("")
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				p.closeConnection(c, c.id, 4002, "moved again")
				p.run()
				p.pass(10 * time.Millisecond)
				c.request("C1", info)
				p.pass(10 * time.Millisecond)
				c.close(4001, "moved")
				p.pass(10 * time.Millisecond)
				c.finish()
			},
		},
		{
			title: "Forced", rows: "L5.3, L5.4",
			text: "The client does not answer. The end is counted then and there, with 1006 and cause `forced`, the " +
				"socket is reset, and what somebody still wants of the connection by its id finds nothing.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.ask(c, c.id)
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				p.wait(time.Minute)
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				p.reply(0, infoResponse, ok("ok"))
			},
		},
		{
			title: "Close of what is not there", rows: "L5.2, L5.4",
			text: "A connection that has ended, and an id that never was.",
			play: func(p *play) {
				c := p.open("")
				p.quietly(c.leaves)
				p.closeConnection(c, c.id, 1000, "")
				p.run()
				p.closeConnection(&client{name: "an id that never was"}, conn.ID{}, 1000, "")
				p.run()
			},
		},
		{
			title: "A code that must not be sent", rows: "L1.7",
			text: "Nothing happens. A reason is cut at 123 bytes, at a character.",
			play: func(p *play) {
				c := p.open("")
				p.closeConnection(c, c.id, 1006, "")
				p.run()
				p.note(fromWorker, "CloseConnection 4001 with 130 bytes: an x, then e acute 64 times, then an x")
				p.worker.CloseConnection(c.id, 4001, "x"+strings.Repeat("\u00e9", 64)+"x", nil)
				p.run()
				c.answersClose(4001)
			},
		},
		{
			title: "The client's Close is lost with its socket", rows: "L1.6",
			text: "A FIN without a Close, and an RST, while ours waits for its answer: 1006. The cause remains ours.",
			play: func(p *play) {
				a := p.open("A")
				b := p.open("B")
				p.closeConnection(a, a.id, 4001, "moved")
				p.run()
				p.closeConnection(b, b.id, 4001, "moved")
				p.run()
				a.finish()
				b.reset()
			},
		},
		{
			title: "Every cause with its code", rows: "L5.1, L1.6",
			text: "One client for each cause, without what goes on inside; every Close is answered. Here with " +
				"`--max-connections 8`, `--max-message-bytes 1KiB` and `--max-pending-bytes 2KiB`. Not " +
				"here: `forced`, [above](#forced), and `send-error` (3335 `unexpected-close`), which no client ever " +
				"reads, [because its socket is broken](#a-ping-that-cannot-be-sent).",
			set: func(s settings) {
				s.conn.Limits = &conn.Limits{Soft: 8, Hard: 9, TellPerSec: 100}
				s.conn.Heartbeat = conn.HeartbeatClient
				s.conn.Endpoints[0].MaxMessage = 1 << 10
				s.conn.MaxPending = 2 << 10
			},
			play:  everyCause,
			lossy: true,
		},
	},
}

func everyCause(p *play) {
	var cs []*client
	for _, name := range strings.Split("ABCDEFGH", "") {
		cs = append(cs, p.open(name))
	}
	p.brief = true
	p.begin()
	closes := func(c *client) { // and the connection it leaves is taken by nobody
		if c.closed {
			c.peer.CloseWrite()
			p.run()
		}
	}
	x := p.connect("I")
	x.asks("GET /ws", upgrade("/ws"))
	x.answersClose(1013)
	p.closeConnection(cs[0], cs[0].id, 4001, "moved")
	p.run()
	cs[0].answersClose(4001)
	cs[1].close(1000, "bye")
	closes(cs[1])
	cs[2].note("a frame with a reserved opcode")
	cs[2].send("\x83\x81\x01\x02\x03\x04x")
	closes(cs[2])
	cs[3].note("text that is not UTF-8")
	cs[3].send(masked(frame.Text, []byte{0xff}))
	closes(cs[3])
	cs[4].note("binary (1025 bytes)")
	cs[4].send(masked(frame.Binary, make([]byte, 1025)))
	closes(cs[4])
	cs[5].stopsReading()
	p.event(cs[5], cs[5].id, make([]byte, 1000))
	p.event(cs[5], cs[5].id, make([]byte, 1000))
	cs[5].readsAgain()
	cs[5].answersClose(3335)
	cs[6].reset()
	p.wait(time.Minute)
	cs[7].answersClose(3334)
	y := p.connect("J")
	y.asks("GET /ws", upgrade("/ws"))
	p.operator("drain", func() { p.reg.StartDrain(1000) })
	y.answersClose(3333)
}

var clientClose = section{
	title: "Close by the client",
	scenes: []scene{
		{
			title: "With a code", rows: "L1.4, L6.1",
			text: "OnClose with the client's code and reason, then our Close with the same, then our FIN. What the " +
				"worker answers later is dropped.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.pass(1500 * time.Millisecond)
				c.close(1000, "byebye")
				p.pass(10 * time.Millisecond)
				c.finish()
				p.reply(0, infoResponse, ok("ok"))
			},
		},
		{
			title: "Without a code", rows: "L1.6",
			text: "Reported as 1005, answered by a Close without a code.",
			play: func(p *play) {
				c := p.open("")
				c.frame(frame.Close, nil)
				c.finish()
			},
		},
		{
			title: "With a code that must not be sent", rows: "L1.7, L1.6",
			text: "A breach of the protocol like any other.",
			play: func(p *play) {
				c := p.open("")
				c.note("Close 1006")
				c.send(masked(frame.Close, []byte{1006 >> 8, 1006 & 0xff}))
				c.finish()
			},
		},
		{
			title: "FIN without a Close", rows: "L1.6",
			text: "Reported as 1006. Whoever still reads is told why.",
			play: func(p *play) { p.open("").finish() },
		},
		{
			title: "RST", rows: "L1.6, L8.1",
			text: "Nothing can be sent any more.",
			play: func(p *play) { p.open("").reset() },
		},
		{
			title: "A client that does not close its end", rows: "L1.8",
			text: "The connection has ended; only the socket lingers, for `--close-timeout` at most.",
			play: func(p *play) {
				c := p.open("")
				c.close(1000, "")
				p.pass(time.Second)
				c.note("more bytes, behind its Close")
				c.send("hello?")
				p.wait(time.Minute)
			},
		},
	},
}

var overlap = section{
	title: "Overlapping close",
	text:  "Both ends close at once. One Close each way, one OnClose, one decrement, whoever is first.",
	scenes: []scene{
		{
			title: "The client's Close is here first", rows: "L1.5",
			text: "The worker closes a moment later: a no-op, which tells it false.",
			play: func(p *play) {
				c := p.open("")
				c.note(describe(frame.Close, frame.AppendCloseBody(nil, 1000, "bye")))
				c.peer.Send([]byte(masked(frame.Close, frame.AppendCloseBody(nil, 1000, "bye"))))
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				c.finish()
			},
		},
		{
			title: "Our Close is out first", rows: "L1.5, L1.3",
			text: "The client's own Close crosses ours on the way: it counts as the answer, and OnClose has the " +
				"client's code. The cause is ours. The client takes our Close for its answer in the same way.",
			play: func(p *play) {
				c := p.open("")
				p.closeConnection(c, c.id, 4001, "moved")
				p.run()
				c.close(1000, "bye")
				c.finish()
			},
		},
		{
			title: "Closed within the handling of its last message", rows: "L1.5",
			text: "A request and a Close come in one packet, and the worker closes while it answers the request.",
			play: func(p *play) {
				c := p.open("")
				p.replies()
				reply := p.process
				p.process = func(r *mq.Request) {
					reply(r)
					p.closeConnection(c, c.id, 4001, "moved")
				}
				b := masked(frame.Binary, (&wire.Envelope{RequestID: "C1", Type: "pcast.Bye"}).AppendTo(nil))
				c.note("binary Request C1 pcast.Bye")
				c.note(describe(frame.Close, frame.AppendCloseBody(nil, 1000, "bye")))
				c.send(b + masked(frame.Close, frame.AppendCloseBody(nil, 1000, "bye")))
				c.finish()
			},
		},
	},
}
