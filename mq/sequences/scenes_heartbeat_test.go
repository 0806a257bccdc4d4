package sequences

import (
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

func pings(s settings) { s.conn.Heartbeat = conn.HeartbeatServer }

// pong answers the last ping.
func (c *client) pong() {
	c.note("Pong with the ping's payload")
	c.send(masked(frame.Pong, c.ping))
}

var heartbeat = section{
	title: "Heartbeat",
	text: "Every connection is pinged every `--ping-interval`, each at a phase of its own; the first " +
		"connection's first ping comes after 12.37 s.",
	scenes: []scene{
		{
			title: "Ping and Pong", rows: "L7.1, L7.4",
			text: "The ping's payload tells which ping a Pong answers.",
			set:  pings,
			play: func(p *play) {
				c := p.open("")
				p.wait(time.Minute)
				p.pass(35 * time.Millisecond)
				c.pong()
				p.wait(time.Minute)
				p.pass(40 * time.Millisecond)
				c.pong()
			},
		},
		{
			title: "No Pong, and nothing else", rows: "L7.2, L5.1, L5.3",
			text: "When the next ping is due and nothing has come since the last one, the client is taken for dead. " +
				"It gets a Close all the same, and five seconds to answer it.",
			set: pings,
			play: func(p *play) {
				p.open("")
				p.wait(time.Minute)
				p.wait(time.Minute)
				p.wait(time.Minute)
			},
		},
		{
			title: "No Pong, but a byte", rows: "L7.2",
			text: "Any byte counts as life: here the first of a frame that takes long. In the interval after that " +
				"nothing comes.",
			set: pings,
			play: func(p *play) {
				c := p.open("")
				p.wait(time.Minute)
				p.pass(10 * time.Second)
				c.note("one byte of a frame")
				c.send("\x82")
				p.wait(time.Minute)
				p.wait(time.Minute)
				p.wait(time.Minute)
			},
		},
		{
			title: "A ping skipped, then timeout", rows: "L7.3, L7.2",
			text: "The client reads nothing: the last ping has not left us when the next is due. With the defaults " +
				"a client that reads nothing is a [slow consumer](#slow-consumer) first; here `--write-timeout` " +
				"is 60 s.",
			set: func(s settings) {
				pings(s)
				s.conn.WriteTimeout = time.Minute
			},
			play: func(p *play) {
				c := p.open("")
				c.stopsReading()
				p.pass(12370 * time.Millisecond)
				p.wait(time.Minute)
				p.wait(time.Minute)
				p.wait(time.Minute)
			},
			lossy: true,
		},
		{
			title: "A ping that cannot be sent", rows: "L7.6, L8.1",
			text: "The kernel refuses to send it, with another error than that its buffers are full. The connection is closed with 3335, which " +
				"cannot go out either, and ends as after any socket error; the cause is `send-error`.",
			set: pings,
			play: func(p *play) {
				c := p.open("")
				p.pass(10 * time.Second)
				c.note("vanishes, and the network says so to whoever sends")
				p.broken, c.cut = true, true
				p.wait(time.Minute)
				p.broken = false
			},
			lossy: true,
		},
		{
			title: "Clients that cannot answer pings", rows: "L7.5",
			text: "With `--heartbeat client` there are no pings; a client that sends nothing for two intervals is closed.",
			set:  func(s settings) { s.conn.Heartbeat = conn.HeartbeatClient },
			play: func(p *play) {
				p.replies()
				c := p.open("")
				p.pass(30 * time.Second)
				c.request("C1", info)
				p.wait(2 * time.Minute)
				c.answersClose(3334)
			},
		},
		{
			title: "A Pong that is none of ours", rows: "L7.4",
			text: "One before any ping, one with another payload, one that comes twice: counted and ignored. They " +
				"are life, as any byte.",
			set: pings,
			play: func(p *play) {
				c := p.open("")
				c.note("Pong")
				c.send(masked(frame.Pong, nil))
				p.wait(time.Minute)
				c.note("Pong with another payload")
				c.send(masked(frame.Pong, []byte("12345678")))
				p.pass(35 * time.Millisecond)
				c.pong()
				c.pong()
			},
		},
		{
			title: "A ping of the client", rows: "L7.2",
			text: "It is answered by a Pong with its payload, ahead of messages that wait (RFC 6455 section 5.5.3).",
			play: func(p *play) { p.open("").frame(frame.Ping, []byte("hi")) },
		},
	},
}
