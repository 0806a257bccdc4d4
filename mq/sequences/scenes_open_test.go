package sequences

import (
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
)

var establishment = section{
	title: "Establishment",
	scenes: []scene{
		{
			title: "A connection opens", rows: "L1.1, L2.1, L2.2, L2.4",
			text: "The connection is counted before the handler is told, and OPEN when the handler has returned. " +
				"The answer to the upgrade leaves with the end of the turn; a client may send its first frame in " +
				"the packet of its request.",
			play: func(p *play) {
				c := p.connect("")
				c.asks("GET /ws HTTP/1.1\nHost: gateway\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"+
					"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", upgrade("/ws"))
			},
		},
		{
			title: "A request in pieces", rows: "L2.1, L2.7",
			text: "The request may come byte by byte, as long as all of it is there within `--handshake-timeout`.",
			play: func(p *play) {
				c := p.connect("")
				whole := upgrade("/ws")
				c.asks("the first 40 bytes of an upgrade request", whole[:40])
				p.pass(9 * time.Second)
				c.asks("the rest of it", whole[40:])
			},
		},
	},
}

// try connects a client that sends one request.
func try(p *play, what, request string) *client {
	c := p.connect("")
	c.asks(what, request)
	return c
}

var refusals = section{
	title: "Establishment refused",
	text: "What is no upgrade gets an HTTP answer with a sentence that says what was wrong. It is told to " +
		"nobody else, and counted only as refused, never as a connection.",
	scenes: []scene{
		{
			title: "400, in full", rows: "L2.1, L1.8",
			text: "The answer, then our FIN; what the client still sends is thrown away until its FIN, at most " +
				"`--close-timeout`. The socket is lingering meanwhile.",
			play: func(p *play) {
				c := try(p, "GET /ws HTTP/1.1, without Sec-WebSocket-Key", without("Sec-WebSocket-Key"))
				p.pass(20 * time.Millisecond)
				c.finish()
			},
		},
		{
			title: "The other answers", rows: "L2.1",
			text: "The same for every status, without what goes on inside.",
			set: func(s settings) {
				s.conn.Origins, _ = clientaddr.ParseOrigins([]string{"https://chat.example"})
			},
			play: func(p *play) {
				p.brief = true
				p.begin()
				for _, r := range []struct{ what, request string }{
					{"GET /ws, Origin: https://elsewhere.example", upgrade("/ws", "Origin: https://elsewhere.example")},
					{"GET /chat", upgrade("/chat")},
					{"POST /ws", "POST" + strings.TrimPrefix(upgrade("/ws"), "GET")},
					{"GET /ws, without Upgrade: websocket", without("Upgrade")},
					{"GET /ws, Sec-WebSocket-Version: 8", strings.Replace(upgrade("/ws"), ": 13", ": 8", 1)},
					{"GET /ws, X-Filler: 9000 bytes", upgrade("/ws", "X-Filler: "+strings.Repeat("x", 9000))},
					{"GET /ws HTTP/2.0", strings.Replace(upgrade("/ws"), "HTTP/1.1", "HTTP/2.0", 1)},
				} {
					c := try(p, r.what, r.request)
					c.peer.CloseWrite()
					p.run()
				}
			},
		},
		{
			title: "408, and nothing at all", rows: "L2.7",
			text: "Who has begun a request is told; who has sent nothing is just closed. Single bytes do not extend " +
				"the time.",
			play: func(p *play) {
				a := p.connect("A")
				b := p.connect("B")
				a.asks("the first 40 bytes of an upgrade request", upgrade("/ws")[:40])
				p.pass(9 * time.Second)
				a.asks("one byte more", upgrade("/ws")[40:41])
				p.pass(time.Second)
				a.finish()
				if !b.gone {
					p.t.Error("B is not closed")
				}
			},
		},
		{
			title: "503, too many from one address", rows: "L2.6",
			text: "Here with `--max-connections-per-ip 1`. `--handshake-rate-per-ip` refuses in the same way, with " +
				"another reason in the metric.",
			set: func(s settings) {
				s.conn.PerAddress, _ = clientaddr.NewLimiter(clientaddr.LimiterConfig{ConnectionsPerAddress: 1, MaxAddresses: 10})
			},
			play: func(p *play) {
				a := p.open("A")
				b := p.connect("B")
				b.asks("GET /ws", upgrade("/ws"))
				b.finish()
				a.leaves()
				c := p.connect("C")
				c.asks("GET /ws", upgrade("/ws"))
			},
		},
	},
}

// without is an upgrade request that lacks a header.
func without(header string) string {
	before, after, _ := strings.Cut(upgrade("/ws"), header+": ")
	_, after, _ = strings.Cut(after, "\r\n")
	return before + after
}

// full is --max-connections 1 with a slack of two.
func full(tell int64) func(settings) {
	return func(s settings) { s.conn.Limits = &conn.Limits{Soft: 1, Hard: 3, TellPerSec: tell} }
}

var limit = section{
	title: "Limit exceeded",
	text:  "Here with `--max-connections 1` and room for two more that are told so (`--max-connections-slack`).",
	scenes: []scene{
		{
			title: "1013", rows: "L2.5, L5.1",
			text: "The client is accepted, counted and closed; OnOpen and OnClose are paired, so the worker hears " +
				"of its end as of any other.",
			set: full(100),
			play: func(p *play) {
				p.open("A")
				b := p.connect("B")
				b.asks("GET /ws", upgrade("/ws"))
				p.pass(20 * time.Millisecond)
				b.answersClose(1013)
			},
		},
		{
			title: "503 beyond the slack", rows: "L2.6",
			text: "A client that takes no notice of 503 and Retry-After costs an HTTP answer, no connection.",
			set:  full(100),
			play: func(p *play) {
				p.open("A")
				p.brief = true
				p.begin()
				for _, name := range []string{"B", "C", "D"} {
					p.connect(name).asks("GET /ws", upgrade("/ws"))
				}
			},
		},
		{
			title: "503 when enough were told", rows: "L2.5, L2.6",
			text: "Here with `--limit-closes-per-second 1`: clients that are accepted and closed come back at once, " +
				"those that are refused back off.",
			set: full(1),
			play: func(p *play) {
				p.open("A")
				p.brief = true
				p.begin()
				b := p.connect("B")
				b.asks("GET /ws", upgrade("/ws"))
				b.answersClose(1013)
				c := p.connect("C")
				c.asks("GET /ws", upgrade("/ws"))
				p.pass(time.Second)
				d := p.connect("D")
				d.asks("GET /ws", upgrade("/ws"))
			},
		},
	},
}
