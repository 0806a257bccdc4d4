package sequences

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq/wire"
)

// client is a peer of the gateway, in the scene's hands.
type client struct {
	p    *play
	name string // "" when it is the only one
	peer *looptest.Peer
	addr netip.AddrPort
	id   conn.ID // from OnOpen on

	state  conn.State // the last one that was seen
	ended  bool       // OnClose was seen
	raw    []byte     // received and not taken apart yet
	http   bool       // the answer to the upgrade is in
	reader frame.Reader
	ping   []byte // payload of the last ping
	closed bool   // a Close frame was received: nothing may follow
	fin    bool   // the server's FIN was received, or its RST
	gone   bool   // the server's socket is closed
	cut    bool   // it sent RST: nothing reaches it any more
	frames [conn.NumKinds]uint64
}

var readerConfig = frame.Config{Role: frame.RoleClient, MaxMessage: 8 << 20}

func (c *client) tag() string {
	if c == nil || c.name == "" {
		return ""
	}
	return c.name + ": "
}

// connect opens a TCP connection and says nothing.
func (p *play) connect(name string) *client {
	c := &client{p: p, name: name, addr: netip.AddrPortFrom(clientAddr, uint16(1001+len(p.clients)))}
	p.note(fromClient, c.tag()+"TCP connect")
	p.clients = append(p.clients, c)
	c.peer = p.net.Client(0, c.addr)
	p.run()
	return c
}

// open returns a client whose connection is open, which is not written down. The scene's time begins now.
func (p *play) open(name string) (c *client) {
	p.t.Helper()
	p.quietly(func() {
		c = p.connect(name)
		c.send(upgrade("/ws"))
	})
	if c.state != conn.Open {
		p.t.Fatalf("the connection is %v", c.state)
	}
	return c
}

// upgrade is a good request with further header lines.
func upgrade(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		strings.Join(append(lines, "\r\n"), "\r\n")
}

// asks sends an upgrade request, written down as what.
func (c *client) asks(what, request string) {
	c.note(what)
	c.send(request)
}

func (c *client) note(what string) { c.p.note(fromClient, c.tag()+what) }

// send puts bytes on the wire and lets the loop work.
func (c *client) send(b string) {
	c.peer.Send([]byte(b))
	c.p.run()
}

func masked(op frame.OpCode, payload []byte) string {
	return string(frame.AppendMaskedFrame(nil, op, true, payload, [4]byte{1, 2, 3, 4}))
}

// frame sends a frame and writes it down as it reads.
func (c *client) frame(op frame.OpCode, payload []byte) {
	c.note(describe(op, payload))
	c.send(masked(op, payload))
}

// text and binary send an envelope in that form.
func (c *client) text(e *wire.Envelope) {
	c.frame(frame.Text, []byte(base64.StdEncoding.EncodeToString(e.AppendTo(nil))))
}
func (c *client) binary(e *wire.Envelope) { c.frame(frame.Binary, e.AppendTo(nil)) }

func (c *client) request(id, typ string) { c.text(&wire.Envelope{RequestID: id, Type: typ}) }

func (c *client) respond(id string) {
	c.text(&wire.Envelope{RequestID: id, Type: "app.AskResponse", Payload: ok("ok"), MessageType: wire.Response})
}

func (c *client) close(code uint16, reason string) {
	c.frame(frame.Close, frame.AppendCloseBody(nil, code, reason))
}

// leaves closes with 1000 and ends the TCP connection when the server has.
func (c *client) leaves() {
	c.close(1000, "")
	c.finish()
}

// answersClose echoes the Close frame that it got, then ends the TCP connection when the server has.
func (c *client) answersClose(code uint16) {
	if !c.closed {
		c.p.t.Fatal("there is no Close frame to be answered")
	}
	c.close(code, "")
	c.finish()
}

func (c *client) finish() {
	c.note("FIN")
	c.peer.CloseWrite()
	c.p.run()
}

func (c *client) reset() {
	c.note("RST")
	c.cut = true
	c.peer.Reset()
	c.p.run()
}

// stopsReading: from now on the kernel takes nothing more for this client.
func (c *client) stopsReading() {
	c.note("reads no more, and the kernel's buffers are full")
	c.peer.SetWindow(0)
}

func (c *client) readsAgain() {
	c.note("reads again")
	c.peer.SetWindow(1 << 30)
	c.p.run()
}

// deliver writes down what has reached clients since the last time.
func (p *play) deliver() {
	for _, c := range p.clients {
		if c.peer == nil {
			continue
		}
		c.raw = append(c.raw, c.peer.Take()...)
		c.receive()
		if c.peer.GotFIN() && !c.fin && !c.cut {
			c.fin = true
			p.note(toClient, c.tag()+map[bool]string{false: "FIN", true: "RST"}[c.peer.GotReset()])
		}
		if c.peer.Closed() && !c.gone {
			c.gone = true
			p.note(gateway, c.tag()+"socket closed")
		}
	}
}

func (c *client) receive() {
	if !c.http {
		head, rest, all := bytes.Cut(c.raw, []byte("\r\n\r\n"))
		if !all {
			return
		}
		c.http = true
		what := httpAnswer(string(head))
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			_, reason, _ := strings.Cut(string(rest), ": ")
			what += "\n" + strings.TrimSpace(reason)
			rest = nil
		}
		c.p.note(toClient, c.tag()+what)
		c.raw = rest
	}
	for len(c.raw) > 0 {
		m, n, whole, err := c.reader.Next(&readerConfig, c.raw)
		if err != nil {
			c.p.t.Fatalf("the gateway sent what is no frame: %v", err)
		}
		c.raw = c.raw[n:]
		if !whole {
			return
		}
		if c.closed {
			c.p.t.Fatalf("L1.3: %v after the Close frame", m.Op)
		}
		c.closed = m.Op == frame.Close
		c.frames[slices.Index([]frame.OpCode{frame.Text, frame.Binary, frame.Ping, frame.Pong, frame.Close}, m.Op)]++
		if m.Op == frame.Ping {
			c.ping = slices.Clone(m.Payload)
		}
		c.p.note(toClient, c.tag()+describe(m.Op, slices.Clone(m.Payload)))
		c.reader.Release()
	}
}

// httpAnswer is the status line with the headers that matter to a client.
func httpAnswer(head string) string {
	lines := strings.Split(head, "\r\n")
	what := lines[0]
	for _, l := range lines[1:] {
		name, _, _ := strings.Cut(l, ":")
		switch name {
		case "Allow", "Retry-After", "Sec-WebSocket-Accept", "Sec-WebSocket-Version":
			what += "; " + l
		}
	}
	return what
}

// describe says what a frame is. payload may be changed.
func describe(op frame.OpCode, payload []byte) string {
	switch op {
	case frame.Close:
		if len(payload) == 0 {
			return "Close without a code"
		}
		code, reason, err := frame.ParseCloseBody(payload)
		if err != nil {
			return "Close: " + err.Error()
		}
		return fmt.Sprintf("Close %d %q", code, reason)
	case frame.Ping, frame.Pong:
		return op.String()
	case frame.Text, frame.Binary, frame.Continuation:
	}
	form := op.String()
	if op == frame.Text {
		b, err := base64.StdEncoding.DecodeString(string(payload))
		if err != nil {
			return fmt.Sprintf("%s %q", form, payload)
		}
		payload = b
	}
	var e wire.Envelope
	if err := e.Unmarshal(payload); err != nil {
		return fmt.Sprintf("%s % x", form, payload)
	}
	what := form + " " + e.MessageType.String()
	if e.RequestID != "" {
		what += " " + e.RequestID
	}
	what += " " + e.Type
	if s := show(e.Type, e.Payload); s != "" {
		what += " " + s
	}
	if e.HasWallTime {
		what += fmt.Sprintf(" wallTime %g", e.WallTime)
	}
	return what
}

// show says what is in a payload.
func show(typ string, payload []byte) string {
	if typ == wire.TypeError {
		var e wire.Error
		if err := e.Unmarshal(payload); err != nil {
			return err.Error()
		}
		return "{reason: " + e.Reason + "}"
	}
	if strings.HasSuffix(typ, "Response") {
		if status, err := wire.PeekStatus(payload); err == nil && status != "" {
			return "{status: " + status + "}"
		}
	}
	return strings.TrimPrefix(size(payload), " ")
}

func size(payload []byte) string {
	if len(payload) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d bytes)", len(payload))
}
