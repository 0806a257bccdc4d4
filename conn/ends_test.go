package conn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// raw makes frames that the frame package refuses to build.
func (p *peer) raw(b0 byte, payload string) {
	b := []byte{b0, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	p.Send(append(b, payload...))
	p.n.net.Run()
}

// ending is one way for an open connection to end.
type ending struct {
	name  string
	do    func(n *node, p *peer)
	calls []string // after "open"
	sent  []string // frames, the Close among them
	cause Cause
	code  uint16
	cut   bool // the socket goes at once, by RST or because the peer reset it
	bye   bool // the server lingers until our FIN
}

var endings = []ending{
	{name: "close by the peer", do: func(_ *node, p *peer) { p.sendClose(1000, "x") },
		calls: []string{`close 1000 "x" client`}, sent: []string{`close 1000 "x"`}, cause: CauseClient, code: 1000, bye: true},
	{name: "close without a status", do: func(_ *node, p *peer) { p.sendClose(0, "") },
		calls: []string{`close 1005 "" client`}, sent: []string{`close`}, cause: CauseClient, code: 1005, bye: true},
	{name: "FIN without a Close", do: func(n *node, p *peer) { p.CloseWrite(); n.net.Run() },
		calls: []string{`close 1006 "connection lost" socket-error`}, sent: []string{`close 1002 "FIN without a Close frame"`}, cause: CauseSocket, code: 1006},
	{name: "FIN behind a Close", do: func(n *node, p *peer) { p.Send(p.frame(frame.Close, "")); p.CloseWrite(); n.net.Run() },
		calls: []string{`close 1005 "" client`}, sent: []string{`close`}, cause: CauseClient, code: 1005},
	{name: "FIN inside a message", do: func(n *node, p *peer) {
		p.Send(p.part(frame.Text, false, "begun"))
		p.Send(p.frame(frame.Binary, "")[:1])
		p.CloseWrite()
		n.net.Run()
	}, calls: []string{`close 1002 "new message inside a fragmented one" protocol`}, sent: []string{`close 1002 "new message inside a fragmented one"`}, cause: CauseProtocol, code: 1002},
	{name: "FIN inside a frame", do: func(n *node, p *peer) {
		b := p.frame(frame.Text, "half")
		p.Send(b[:len(b)-1])
		p.CloseWrite()
		n.net.Run()
	}, calls: []string{`close 1006 "connection lost" socket-error`}, sent: []string{`close 1002 "FIN without a Close frame"`}, cause: CauseSocket, code: 1006},
	{name: "FIN in answer to our Close", do: func(n *node, p *peer) {
		n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
		p.CloseWrite()
		n.net.Run()
	}, calls: []string{`close 1006 "connection lost" local`}, sent: []string{`close 4000 "go"`}, cause: CauseLocal, code: 1006},
	{name: "RST", do: func(n *node, p *peer) { p.Reset(); n.net.Run() },
		calls: []string{`error connection reset by peer`, `close 1006 "socket-error" socket-error`}, cause: CauseSocket, code: 1006, cut: true},
	{name: "RST while CLOSING", do: func(n *node, p *peer) {
		n.on(func() { _ = n.only().CloseFor(CauseDrain) })
		p.Reset()
		n.net.Run()
	}, calls: []string{`error connection reset by peer`, `close 1006 "drain" drain`}, sent: []string{`close 3333 "drain"`}, cause: CauseDrain, code: 1006, cut: true},
	{name: "write fails", do: func(n *node, p *peer) {
		n.on(func() { p.Reset(); _ = n.only().Send(frame.Text, []byte("x")) })
	}, calls: []string{`error broken pipe`, `close 1006 "socket-error" socket-error`}, cause: CauseSocket, code: 1006, cut: true},
	{name: "closed here", do: func(n *node, p *peer) {
		n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
		p.sendClose(4000, "gone")
	}, calls: []string{`close 4000 "gone" local`}, sent: []string{`close 4000 "go"`}, cause: CauseLocal, code: 4000, bye: true},
	{name: "forced", do: func(n *node, _ *peer) {
		n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
		n.advance(5 * time.Second)
	}, calls: []string{`close 1006 "forced" forced`}, sent: []string{`close 4000 "go"`}, cause: CauseForced, code: 1006, cut: true},
	{name: "ForceAll", do: func(n *node, _ *peer) {
		n.on(func() {
			if k := n.reg.ForceAll(); k != 1 {
				n.t.Errorf("%d were forced", k)
			}
		})
	}, calls: []string{`close 1006 "forced" forced`}, cause: CauseForced, code: 1006, cut: true},
	{name: "heartbeat", do: func(n *node, p *peer) {
		n.advance(34 * time.Second) // ping at 12.4 s, timeout at 32.4
		p.sendClose(3334, "sorry")
	}, calls: []string{`close 3334 "sorry" timeout`}, sent: []string{"ping", `close 3334 "timeout"`}, cause: CauseTimeout, code: 3334, bye: true},
	{name: "drain", do: func(n *node, p *peer) {
		n.h.drain = func(c *Conn) { _ = c.CloseFor(CauseDrain) }
		n.on(func() { n.reg.StartDrain(1000) })
		p.sendClose(3333, "")
	}, calls: []string{"drain", `close 3333 "" drain`}, sent: []string{`close 3333 "drain"`}, cause: CauseDrain, code: 3333, bye: true},
	{name: "slow by bytes", do: func(n *node, p *peer) {
		p.SetWindow(0)
		n.on(func() {
			c := n.only()
			for range 2 * testMaxPending / 1000 {
				_ = c.Send(frame.Binary, make([]byte, 1000))
			}
		})
		p.SetWindow(1 << 20)
		p.sendClose(1000, "")
	}, calls: []string{`close 1000 "" slow-consumer`}, sent: []string{`close 3335 "unexpected-close"`}, cause: CauseSlow, code: 1000, bye: true},
	{name: "slow by time", do: func(n *node, p *peer) {
		p.SetWindow(0)
		n.on(func() { _ = n.only().Send(frame.Binary, make([]byte, 1000)) })
		n.advance(10*time.Second + 20*time.Millisecond)
		p.SetWindow(1 << 20)
		p.sendClose(1000, "")
	}, calls: []string{`close 1000 "" slow-consumer`}, sent: []string{`close 3335 "unexpected-close"`}, cause: CauseSlow, code: 1000, bye: true},
	{name: "garbage after our Close", do: func(n *node, p *peer) {
		n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
		p.raw(0x83, "")
	}, calls: []string{`close 1002 "reserved opcode" protocol`}, sent: []string{`close 4000 "go"`}, cause: CauseProtocol, code: 1002, bye: true},
}

func init() {
	// Protocol errors of each kind (L1.6), with the code that is sent and reported.
	for _, e := range []struct {
		name  string
		text  string
		code  uint16
		cause Cause
		send  func(p *peer)
	}{
		{"reserved bit 1", "reserved bits set", 1002, CauseProtocol, func(p *peer) { p.raw(0xc1, "x") }},
		{"reserved bit 2", "reserved bits set", 1002, CauseProtocol, func(p *peer) { p.raw(0xa1, "x") }},
		{"reserved bit 3", "reserved bits set", 1002, CauseProtocol, func(p *peer) { p.raw(0x91, "x") }},
		{"reserved opcode 3", "reserved opcode", 1002, CauseProtocol, func(p *peer) { p.raw(0x83, "x") }},
		{"reserved opcode 11", "reserved opcode", 1002, CauseProtocol, func(p *peer) { p.raw(0x8b, "x") }},
		{"fragmented ping", "control frame fragmented", 1002, CauseProtocol, func(p *peer) { p.raw(0x09, "x") }},
		{"long ping", "control frame longer than 125 bytes", 1002, CauseProtocol, func(p *peer) { p.Send([]byte{0x89, 0xfe, 0, 126}) }},
		{"continuation of nothing", "continuation without a message to continue", 1002, CauseProtocol, func(p *peer) { p.raw(0x80, "x") }},
		{"message within a message", "new message inside a fragmented one", 1002, CauseProtocol, func(p *peer) { p.raw(0x01, "x"); p.raw(0x82, "x") }},
		{"not masked", "frame from a client not masked", 1002, CauseProtocol, func(p *peer) { p.Send(frame.AppendFrame(nil, frame.Text, true, []byte("x"))) }},
		{"long length", "payload length not in its shortest form", 1002, CauseProtocol, func(p *peer) { p.Send([]byte{0x82, 0xfe, 0, 5}) }},
		{"top bit", "top bit of a 64-bit payload length set", 1002, CauseProtocol, func(p *peer) { p.Send([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}) }},
		{"too big", "message too big", 1009, CauseTooBig, func(p *peer) { p.Send([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1}) }}, // 64 KiB + 1
		{"too big in parts", "message too big", 1009, CauseTooBig, func(p *peer) {
			p.Send(p.part(frame.Binary, false, strings.Repeat("x", testMaxMessage)))
			p.Send(p.part(frame.Continuation, true, "x"))
		}},
		{"bad UTF-8", "invalid UTF-8 in a text message", 1007, CauseBadUTF8, func(p *peer) { p.raw(0x81, "\xff") }},
		{"bad UTF-8 in a part", "invalid UTF-8 in a text message", 1007, CauseBadUTF8, func(p *peer) { p.raw(0x01, "a\xc0") }},
		{"close body of one byte", "close body of one byte", 1002, CauseProtocol, func(p *peer) { p.raw(0x88, "x") }},
		{"close code", "close code that must not be sent", 1002, CauseProtocol, func(p *peer) { p.raw(0x88, "\x03\xee") }}, // 1006
		{"close reason", "invalid UTF-8 in a close reason", 1007, CauseBadUTF8, func(p *peer) { p.raw(0x88, "\x03\xe8\xff") }},
	} {
		endings = append(endings, ending{name: e.name, cause: e.cause, code: e.code, bye: true,
			do: func(n *node, p *peer) {
				e.send(p)
				p.Send([]byte("and whatever else: it is not looked at, and causes no RST"))
				n.net.Run()
			},
			calls: []string{fmt.Sprintf(`close %d %q %s`, e.code, e.text, e.cause.Label())}, sent: []string{fmt.Sprintf(`close %d %q`, e.code, e.text)}})
	}
}

// L1.6, L8.1: exactly one OnClose after one OnOpen whatever ends it (OnError before it when the socket broke), counted once under the right cause and code; L1.8: the
// last words arrive, and the socket is closed in good order where there was one.
func TestAllEndings(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			n := newNode(t)
			p := n.connect()
			p.Send(p.frame(frame.Pong, "")) // alive
			n.net.Run()
			e.do(n, p)
			n.check()
			n.h.expect(append([]string{"open"}, e.calls...)...)
			var sent []string
			for _, f := range p.read() {
				switch f.op {
				case frame.Ping:
					sent = append(sent, "ping")
				case frame.Binary: // the part of a slow consumer's backlog that was on its way
				default:
					sent = append(sent, f.String())
				}
			}
			if strings.Join(sent, "\n") != strings.Join(e.sent, "\n") {
				t.Errorf("sent %q, expected %q", sent, e.sent)
			}
			s := n.reg.Stats()
			if s.Disconnects[e.cause][codeIndex(e.code)] != 1 || s.Disconnected() != 1 || s.Open != 0 {
				t.Errorf("disconnected %d, as %s %d: %d, open %d", s.Disconnected(), e.cause.Label(), e.code, s.Disconnects[e.cause][codeIndex(e.code)], s.Open)
			}
			switch {
			case e.cut:
				if !p.Closed() || s.Lingering != 0 {
					t.Errorf("closed %v, lingering %d", p.Closed(), s.Lingering)
				}
			case e.bye:
				if s.Lingering != 1 {
					t.Errorf("lingering %d", s.Lingering)
				}
				p.quit()
			default: // the peer's FIN had come
				p.expectGone()
			}
			n.expectNothing()
			n.advance(time.Minute)
			n.h.expect()
		})
	}
}

// What ends a connection before it is one reaches no handler and leaves no trace.
func TestEndingsBeforeOpen(t *testing.T) {
	for name, end := range map[string]func(n *node, p *peer){
		"FIN at once":     func(n *node, p *peer) { p.CloseWrite() },
		"FIN in request":  func(n *node, p *peer) { p.Send([]byte(request())[:70]); n.net.Run(); p.CloseWrite() },
		"RST at once":     func(n *node, p *peer) { p.Reset() },
		"RST in request":  func(n *node, p *peer) { p.Send([]byte(request())[:70]); n.net.Run(); p.Reset() },
		"silence":         func(n *node, p *peer) { n.advance(10 * time.Second) },
		"ForceAll":        func(n *node, p *peer) { n.on(func() { n.reg.ForceAll() }) },
		"ForceAll behind": func(n *node, p *peer) { p.Send([]byte(request())[:70]); n.net.Run(); n.on(func() { n.reg.ForceAll() }) },
		"RST refused": func(n *node, p *peer) { // the handler was never told of it
			p.Send([]byte("nonsense\r\n\r\n"))
			n.net.Run()
			p.Reset()
		},
		"ForceAll refused": func(n *node, p *peer) {
			p.Send([]byte("nonsense\r\n\r\n"))
			n.net.Run()
			if s := n.reg.Stats(); s.Lingering != 1 {
				n.t.Errorf("lingering %d", s.Lingering)
			}
			n.on(func() { n.reg.ForceAll() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.dialIn()
			if s := n.reg.Stats(); s.Handshake != 1 {
				t.Fatalf("handshake gauge %d", s.Handshake)
			}
			n.check()
			end(n, p)
			n.net.Run()
			if !p.Closed() {
				t.Error("not closed")
			}
			n.h.expect()
			n.expectNothing()
			if s := n.reg.Stats(); s.Total != 0 {
				t.Errorf("total %d", s.Total)
			}
		})
	}
}

// L1.8: after the last words the server sends FIN, then throws away what comes until the peer's FIN or --close-timeout;
// unread input never leads to RST before. The gauge counts the socket meanwhile.
func TestLingering(t *testing.T) {
	for name, fin := range map[string]bool{"FIN comes": true, "no FIN": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.connect()
			p.sendClose(1000, "x")
			p.expect(`close 1000 "x"`)
			for i := range 49 { // 4.9 s
				p.Send([]byte(strings.Repeat("late", 1000)))
				n.advance(100 * time.Millisecond)
				if s := n.reg.Stats(); !p.GotFIN() || p.Closed() || s.Lingering != 1 || s.Open != 0 {
					t.Fatalf("after %d x 100 ms: FIN %v, closed %v, lingering %d", i+1, p.GotFIN(), p.Closed(), s.Lingering)
				}
			}
			if fin {
				p.quit()
			} else {
				n.advance(100 * time.Millisecond)
				p.expectGone()
			}
			n.h.expect("open", `close 1000 "x" client`)
			n.expectNothing()
		})
	}
}

// A partial message is of no use any more when its connection lingers, and its buffer goes back at once.
func TestLingeringHoldsNoBuffers(t *testing.T) {
	for name, end := range map[string]func(n *node, p *peer){
		"close within a message": func(_ *node, p *peer) { p.sendClose(1000, "") },
		"FIN within a message":   func(n *node, p *peer) { p.CloseWrite(); n.net.Run() },
		"protocol error":         func(_ *node, p *peer) { p.raw(0x81, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.connect()
			p.SetWindow(0) // so that it lingers in any case
			p.Send(p.part(frame.Binary, false, strings.Repeat("x", 10000)))
			n.net.Run()
			c := n.only()
			if c.in.Buffered() == 0 {
				t.Fatal("nothing is partial")
			}
			end(n, p)
			if s := n.reg.Stats(); s.Lingering != 1 || c.in.Buffered() != 0 {
				t.Errorf("lingering %d, %d bytes held", s.Lingering, c.in.Buffered())
			}
			n.advance(time.Minute)
			n.expectNothing()
		})
	}
}

// L1.8: a peer that never reads our last words is cut off by RST at --close-timeout: there is no good order to be had.
func TestLingeringUnread(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.SetWindow(2)
	p.sendClose(1000, "x")
	n.advance(4990 * time.Millisecond)
	if p.Closed() || p.GotFIN() {
		t.Fatal("given up early")
	}
	n.advance(10 * time.Millisecond)
	if !p.GotReset() {
		t.Error("no RST")
	}
	n.expectNothing()
}

// A half-closed peer still gets all that was sent before, for --write-timeout.
func TestFINThenSlowRead(t *testing.T) {
	for name, enough := range map[string]bool{"read in time": true, "never read": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.connect()
			p.SetWindow(0)
			n.on(func() { _ = n.only().Send(frame.Text, []byte("answer")) })
			p.CloseWrite()
			n.net.Run()
			n.h.expect("open", `close 1006 "connection lost" socket-error`)
			n.advance(9900 * time.Millisecond)
			if p.Closed() {
				t.Fatal("given up early")
			}
			if enough {
				p.SetWindow(1000)
				n.net.Run()
				p.expect(`text "answer"`, `close 1002 "FIN without a Close frame"`)
				p.expectGone()
			} else {
				n.advance(200 * time.Millisecond)
				if !p.GotReset() {
					t.Error("no RST")
				}
			}
			n.expectNothing()
		})
	}
}

// L1.4: the answer to a Close is still delivered when the peer's FIN is in before it was taken.
func TestCloseThenFINThenSlowRead(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.SetWindow(2)
	p.sendClose(1000, "x")
	p.CloseWrite()
	n.advance(4 * time.Second)
	if p.Closed() || n.reg.Stats().Lingering != 1 {
		t.Fatal("given up early")
	}
	p.SetWindow(1000)
	n.net.Run()
	p.expect(`close 1000 "x"`)
	p.expectGone()
	n.h.expect("open", `close 1000 "x" client`)
	n.expectNothing()
}

// L6.1: within the one OnClose the connection is out of the registry, counted as gone, and its duration is known; a
// connection that was closed here and waits for the peer's Close is still open.
func TestEndIsOneStep(t *testing.T) {
	for _, forced := range []bool{false, true} {
		n := newNode(t, noPings)
		p := n.connect()
		n.advance(7 * time.Second)
		want := 7 * time.Second
		n.on(func() { _ = n.only().Close(1000, "", CauseLocal) })
		if s := n.reg.Stats(); s.Open != 1 || n.reg.Entries() != 1 {
			t.Errorf("open %d while the peer's Close is awaited", s.Open)
		}
		n.h.close = func(c *Conn, e End) {
			s := c.Registry().Stats()
			if s.Open != 0 || s.Disconnected() != 1 || c.Registry().Entries() != 0 || time.Duration(e.NS) != want {
				t.Errorf("open %d, disconnected %d, duration %v, expected %v", s.Open, s.Disconnected(), time.Duration(e.NS), want)
			}
		}
		if want += 5 * time.Second; !forced {
			want -= 2 * time.Second
			n.advance(3 * time.Second)
			p.sendClose(1000, "")
		}
		n.advance(5 * time.Second)
		n.expectNothing()
	}
}
