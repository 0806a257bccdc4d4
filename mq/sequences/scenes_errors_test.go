package sequences

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// broken sends bytes that end the connection, then does as a client that has read why.
func broken(what, bytes string) func(p *play) {
	return func(p *play) {
		c := p.open("")
		c.note(what)
		c.send(bytes)
		c.finish()
	}
}

var faults = section{
	title: "Error handling",
	text: "When the client breaks the protocol it gets a Close that says how, and is not waited for. The " +
		"reason is what was wrong, in plain words.",
	scenes: []scene{
		{
			title: "Protocol error", rows: "L1.6",
			text: "Here a frame that is not masked (RFC 6455 section 5.1).",
			play: broken("a frame that is not masked", string(frame.AppendFrame(nil, frame.Text, true, []byte("hi")))),
		},
		{
			title: "Not UTF-8", rows: "L1.6",
			text: "In a text message, as soon as it shows.",
			play: broken("text that is not UTF-8", masked(frame.Text, []byte{'h', 0xff})),
		},
		{
			title: "Too big", rows: "L1.6",
			text: "Above `--max-message-bytes`: the frame's header is enough.",
			play: broken("the header of a binary frame of 2 MiB", string(frame.AppendHeader(nil, frame.Binary, true, 2<<20, true, [4]byte{1, 2, 3, 4}))),
		},
		{
			title: "An envelope that does not decode", rows: "L3.1",
			text: "Dropped; the connection stays. More of the kind are [above](#what-is-no-request).",
			play: func(p *play) { p.open("").frame(frame.Binary, []byte{0x0a, 0x05, 'a'}) },
		},
		{
			title: "The worker panics", rows: "L8.2",
			text: "That request fails; the next one is served.",
			play: func(p *play) {
				c := p.open("")
				p.process = func(*mq.Request) {
					p.note(fromWorker, "panics")
					panic("index out of range")
				}
				c.request("C1", info)
				p.replies()
				c.request("C2", info)
			},
		},
		{
			title: "Socket error", rows: "L8.1, L6.1",
			text: "The network resets a connection with requests in flight both ways. OnError, then OnClose.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.ask(c, c.id)
				c.reset()
			},
		},
	},
}

var slow = section{
	title: "Slow consumer",
	text: "A client that does not read is closed with 3335. What it has not taken is dropped, in whole " +
		"frames, so that the Close can follow; memory stays bounded.",
	scenes: []scene{
		{
			title: "By bytes", rows: "L8.3",
			text: "Here with `--max-pending-bytes 64KiB` and `--max-message-bytes 32KiB`. Of what waits, nothing " +
				"had left when the client stopped reading; when it reads again it finds the Close.",
			set: func(s settings) { s.conn.MaxPending, s.conn.Endpoints[0].MaxMessage = 64<<10, 32<<10 },
			play: func(p *play) {
				c := p.open("")
				p.record.bytes = true
				p.begin()
				c.stopsReading()
				p.event(c, c.id, make([]byte, 24<<10))
				p.ask(c, c.id, make([]byte, 24<<10)...)
				p.pass(2 * time.Second)
				c.readsAgain()
				c.answersClose(3335)
			},
			lossy: true,
		},
		{
			title: "By time", rows: "L8.3, L5.3",
			text: "The oldest byte waits for `--write-timeout`. This client never reads again: it is forced.",
			play: func(p *play) {
				c := p.open("")
				p.record.bytes = true
				p.begin()
				c.stopsReading()
				p.event(c, c.id, make([]byte, 1<<10))
				p.wait(time.Minute)
				p.wait(time.Minute)
			},
			lossy: true,
		},
	},
}

// memory is what the process uses besides what clients cause it to hold.
func (p *play) memory(percent int64) {
	p.note(gateway, fmt.Sprintf("(other memory of the process is now %d %% of the limit)", percent))
	p.cfg.Budget.SetBase(p.cfg.Budget.Limit() / 100 * percent)
	p.loop.PostFunc(p.reg.Account)
	p.pass(time.Second)
}

var pushBack = section{
	title: "Pushing back",
	text:  "A client that is not read for a while notices by TCP: its sending stalls.",
	scenes: []scene{
		{
			title: "Too many messages", rows: "L3.13",
			text: "Here with `--max-messages-per-second 2` (off by default). A burst of a second's worth is let through; then the connection " +
				"is read as its messages are paid for. None is lost.",
			set: func(s settings) { s.conn.MaxMessages = 2 },
			play: func(p *play) {
				c := p.open("")
				p.replies()
				bye := &wire.Envelope{RequestID: "C1", Type: "pcast.Bye"}
				c.note("binary Request C1 pcast.Bye, four times in one packet")
				c.send(strings.Repeat(masked(frame.Binary, bye.AppendTo(nil)), 4))
				c.binary(bye)
				p.wait(time.Minute)
				p.wait(time.Minute)
			},
		},
		{
			title: "Memory is short", rows: "L8.6",
			text: "A has sent a part of a large message. Above 80 % of `--memory-limit` A, who holds most, is not read; above 90 % nobody new " +
				"is taken; above 95 % A is closed with 1013. That it is over is logged no sooner than 5 s after.",
			set: func(s settings) { s.conn.Budget = conn.NewBudget(10<<20, s.log) },
			play: func(p *play) {
				a := p.open("A")
				p.open("B")
				a.note("the first 200,000 bytes of a message")
				a.send(string(frame.AppendMaskedFrame(nil, frame.Binary, false, make([]byte, 200_000), [4]byte{1, 2, 3, 4})))
				p.memory(80)
				p.memory(90)
				c := p.connect("C")
				c.asks("GET /ws", upgrade("/ws"))
				c.finish()
				p.memory(95)
				a.answersClose(1013)
				p.memory(50)
				p.pass(5 * time.Second)
			},
		},
	},
}

var ends = section{
	title: "The worker is told of an end",
	scenes: []scene{{
		title: "It does not take it", rows: "L6.3",
		text: "The end is kept and offered again every second, until it is taken. Later ends wait their turn.",
		play: func(p *play) {
			a := p.open("A")
			b := p.open("B")
			p.disconnected = func() error {
				p.note(fromWorker, "Disconnected not taken: no connection to the bus")
				return errors.New("no connection to the bus")
			}
			a.leaves()
			b.leaves()
			p.pass(time.Second)
			p.disconnected = nil
			p.pass(time.Second)
		},
	}},
}

var drain = section{
	title: "Drain",
	text: "SIGTERM or `POST /drain`. `/readyz` turns 503 first, and the listeners close; that is the " +
		"process's, and not on this page. Connections are told 3333 at an even pace, here 20 a second. " +
		"(The gateway takes at least 1,000 a second.)",
	scenes: []scene{
		{
			title: "At an even pace", rows: "L5.5",
			text: "In the order of their slots. An upgrade that is still on its way is refused.",
			play: func(p *play) {
				a, b, c := p.open("A"), p.open("B"), p.open("C")
				d := p.connect("D")
				p.begin()
				p.operator("drain, 20 a second", func() { p.reg.StartDrain(20) })
				d.asks("GET /ws", upgrade("/ws"))
				d.finish()
				p.wait(time.Minute)
				a.answersClose(3333)
				p.wait(time.Minute)
				b.answersClose(3333)
				p.wait(time.Minute)
				c.answersClose(3333)
			},
		},
		{
			title: "Requests are answered before the Close", rows: "L5.5, L3.3",
			text: "The connection is told to go and has a request at the worker. A new request is failed at once: " +
				"the client may ask elsewhere. With the last answer comes the Close.",
			play: func(p *play) {
				c := p.open("")
				c.request("C1", info)
				p.operator("drain", func() { p.reg.StartDrain(1000) })
				p.pass(10 * time.Millisecond)
				c.request("C2", info)
				p.pass(200 * time.Millisecond)
				p.reply(0, infoResponse, ok("ok"))
				c.answersClose(3333)
			},
		},
		{
			title: "The rest is forced", rows: "L5.5, L5.3",
			text: "What is left after `--drain-timeout`: here A, which waits for its answer, and B, whose Close has " +
				"not come. A second signal does the same at once.",
			set: func(s settings) { s.mq.RequestTimeout = 5 * time.Minute },
			play: func(p *play) {
				a := p.open("A")
				p.open("B")
				a.request("C1", info)
				p.operator("drain", func() { p.reg.StartDrain(1000) })
				p.pass(4 * time.Second)
				p.operator("force what is left", func() { p.reg.ForceAll() })
			},
		},
		{
			title: "Cancelled", rows: "L5.5",
			text: "`DELETE /drain`: who was told to go and has not been closed stays, and requests are taken again. " +
				"A Close that is out cannot be taken back.",
			play: func(p *play) {
				a := p.open("A")
				b := p.open("B")
				p.open("C")
				a.request("C1", info)
				p.operator("drain, 20 a second", func() { p.reg.StartDrain(20) })
				p.wait(time.Minute)
				p.wait(time.Minute)
				p.operator("cancel the drain", p.reg.CancelDrain)
				p.replies()
				p.reply(0, infoResponse, ok("ok"))
				a.request("C2", info)
				b.answersClose(3333)
				p.pass(time.Second)
			},
		},
	},
}
