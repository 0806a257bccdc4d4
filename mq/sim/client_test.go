package sim

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

const (
	opText   = frame.Text
	opBinary = frame.Binary
)

// client is one client: its temper, what it has sent and what it has received. A client is never used again.
type client struct {
	w       *world
	n       int // 1...
	loop    int
	p       *looptest.Peer
	addr    netip.AddrPort
	arrived int64
	stalled int64 // world.stalled at that time

	dialer *dialer // nil: the client is this test itself

	// its temper
	binary  bool    // speaks binary, else base64
	answers bool    // answers pings
	polite  bool    // answers Close frames, and our FIN by its own
	pieces  float64 // how often it sends a part of what it has to send
	eager   bool    // does not wait for the answer to its upgrade
	echo    bool    // asked for the echo endpoint

	out     []byte // not sent yet
	cut     bool   // its FIN or RST is sent: nothing can be sent any more
	finSent bool
	spoilt  bool   // something was sent after which what follows may not be understood
	closed  []int  // the codes of the Close frames that it has begun to send; 1005: without one
	excused string // why nobody may expect that it gets every last word
	forced  bool   // by ForceAll
	packing packing
	rsv1    bool // the next frame has RSV1
	broke   int  // the code with which a Close frame must follow what was sent; 0: none in particular
	brokeAt int  // the first request that must not arrive after that
	ids     int
	forms   int  // how often it has changed its form, as the gateway saw it
	open    bool // between OnOpen and OnClose
	asked   []*ask
	answer1 []*ask // answered already

	// what the gateway's side says of it
	id        conn.ID
	ref       conn.Ref
	opened    int
	ended     int
	end       conn.End
	reason    string
	endAt     int64
	endStall  int64 // world.stalled at that time
	bornAt    int64
	closingAt int64 // first seen CLOSING
	heardAt   int64 // the last byte of it before that, or when it last was not read
	deaf      bool  // the gateway does not read it,
	deafAt    int64 // and when it last did not
	told      int   // how often the worker took the news
	offers    int   // how often the worker panicked on them
	form      frame.OpCode
	draining  bool

	// what it has received
	in       []byte
	head     string // the answer to the upgrade
	status   int
	body     []byte
	closeGot bool
	code     int
	reasonIn string
	fins     bool

	unseen  []*request // sent, and the gateway has not had them yet
	unheard [][]byte   // likewise, to the echo endpoint
	items   int        // messages and control frames sent: what counts against --max-messages-per-second
	handed  int        // of those how many must have been had by the gateway
	seenAt  int64      // when it last had a request,

	seenStall int64 // and world.stalled at that time
	sentAt    int64 // when all that the client had to send was sent
	paid      int64 // for how many messages it has paid, as time [ns]

	// what it must receive
	accepted []*request // and not answered yet
	expected []expected
	echoes   [][]byte
	topics   map[mq.Topic]sureness
}

// request is one request of a client.
type request struct {
	serial int
	client *client
	id     string
	typ    string
	room   string // of a request that changes subscriptions
	fetch  bool   // a FetchRoomConversation with Subscribe
	body   []byte
	item   int // client.items

	accepted bool
	called   bool // Worker.Process had it
	start    int64
	want     outcome
	late     bool // the answer may have come too late
	reply    []byte
	got      bool
	later    mq.Completion
	posted   bool // later is used
}

// outcome is the answer that a request must get.
type outcome uint8

const (
	nobody outcome = iota // the worker has not answered: a timeout
	replied
	failed
)

func (o outcome) String() string { return [...]string{"nobody answers", "reply", "failed"}[o] }

// ask is one request of the server.
type ask struct {
	serial  int
	client  *client // nil: to nobody
	at      int64
	stalled int64  // world.stalled at that time
	id      string // as the client got it
	calls   int
	sent    bool // the client has answered
}

// expected is an event or a request of the server that a client gets.
type expected struct {
	serial int
	maybe  bool // it may as well not
}

type sureness uint8

const (
	sure sureness = iota + 1
	maybe
)

func (c *client) String() string { return fmt.Sprintf("client %d", c.n) }

// excuse says why last words may not reach the client.
func (c *client) excuse(why string) {
	if c.excused == "" {
		c.excused = why
	}
}

// shape gives the client its temper.
func (c *client) shape() {
	w := c.w
	c.binary, c.answers, c.polite = w.chance(0.5), w.chance(0.75), w.chance(0.8)
	c.pieces = oneOf(w, 0, 0, 0.2, 0.8)
	c.echo = w.chance(0.12)
	c.eager = w.chance(0.1)
}

// pattern is a payload that tells itself from others. Two of three can be compressed.
func pattern(serial, n int) []byte {
	p, period := make([]byte, n), 256
	if serial%3 > 0 {
		period = 23
	}
	for i := range p {
		p[i] = byte(serial*31 + i%period)
	}
	return p
}

// put adds bytes to what is to be sent, and sends all of it or a part.
func (c *client) put(b []byte) {
	if c.cut {
		return
	}
	c.out = append(c.out, b...)
	if c.w.chance(c.pieces) {
		c.send(c.w.rng.IntN(len(c.out) + 1))
	} else {
		c.send(len(c.out))
	}
}

func (c *client) send(n int) {
	if c.cut || n == 0 {
		return
	}
	c.w.moved = true
	c.p.Send(c.out[:n])
	if c.out = c.out[n:]; len(c.out) == 0 {
		c.sentAt = c.w.now()
	}
}

// more sends more of what was begun.
func (c *client) more() {
	if len(c.out) > 0 {
		c.send(1 + c.w.rng.IntN(len(c.out)))
	}
}

// frame puts one frame. A dialer sends whole messages only, and control frames by itself.
func (c *client) frame(op frame.OpCode, fin bool, payload []byte) {
	if c.dialer != nil {
		if fin && (op == opText || op == opBinary) {
			c.dialer.sendFrame(c, op, payload)
		}
		return
	}
	key := [4]byte{}
	binary.LittleEndian.PutUint32(key[:], c.w.rng.Uint32())
	b := frame.AppendMaskedFrame(nil, op, fin, payload, key)
	if c.rsv1 {
		b[0] |= 0x40
		c.rsv1 = false
	}
	if fin {
		c.items++
	}
	c.put(b)
}

// envelope puts a message, whole or in fragments with a ping in between.
func (c *client) envelope(e *wire.Envelope) {
	if c.w.chance(0.02) {
		c.binary = !c.binary
	}
	op, p := opBinary, e.AppendTo(nil)
	if !c.binary {
		op, p = opText, []byte(base64.StdEncoding.EncodeToString(p))
	}
	c.w.note(c, "sends %v %v id %.20q type %s, %d bytes as %v", e.MessageType, e.SessionID, e.RequestID, e.Type, len(p), op)
	p = c.pack(p)
	for c.dialer == nil && c.w.chance(0.1) {
		n := c.w.rng.IntN(len(p) + 1)
		c.frame(op, false, p[:n])
		op, p = frame.Continuation, p[n:]
		if c.w.chance(0.5) {
			c.frame(frame.Ping, true, []byte("between"))
		}
	}
	c.frame(op, true, p)
}

const upgradeKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgrade sends the upgrade request: mostly a good one.
func (c *client) upgrade() {
	w := c.w
	if w.cfg.ProxyProtocol || w.chance(0.01) {
		c.proxyHeader()
	}
	path := gatePath
	if c.echo {
		path = echoPath
	}
	lines := []string{"GET " + path + " HTTP/1.1", "Host: gate", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + upgradeKey}
	if w.chance(0.5) {
		lines = append(lines, "User-Agent: agent "+fmt.Sprint(w.rng.IntN(4)))
	}
	if w.chance(0.2) {
		lines = append(lines, "X-Second: "+strings.Repeat("s", w.rng.IntN(400)))
	}
	if w.chance(0.2) {
		lines = append(lines, fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", w.rng.IntN(4)))
	}
	lines = c.offering(lines)
	if w.cfg.Origins != nil {
		lines = append(lines, oneOf(w, "Origin: https://good.example", "Origin: https://good.example", "Origin: https://evil.example", "X: y"))
	}
	if w.chance(0.15) {
		c.spoilt = true
		switch w.rng.IntN(9) {
		case 0:
			lines[0] = "GET /elsewhere HTTP/1.1"
		case 1:
			lines[0] = "POST " + path + " HTTP/1.1"
		case 2:
			lines[0] = "GET " + path + " HTTP/1.0"
		case 3:
			lines[4] = "Sec-WebSocket-Version: 12"
		case 4:
			lines[2] = "Upgrade: h2c"
		case 5:
			lines = append(lines, "Cookie: "+strings.Repeat("c", 9000))
		case 6:
			lines[0] = "junk"
		case 7:
			lines[0] = oneOf(w, "HEAD "+path+" HTTP/1.1", "HEAD /elsewhere HTTP/1.1", "GET "+path+" HTTP/2.0")
		case 8:
			lines[5] = "Sec-WebSocket-Key: short"
		}
	}
	request := []byte(strings.Join(lines, "\r\n") + "\r\n\r\n")
	w.note(c, "asks for the upgrade: %.60q", request)
	switch {
	case w.chance(0.05): // never finishes
		c.spoilt = true
		c.out = append(c.out, request[:w.rng.IntN(len(request))]...)
		c.send(len(c.out))
		if w.chance(0.3) {
			c.fin()
		}
	case w.chance(0.2):
		c.out = append(c.out, request...)
		c.send(w.rng.IntN(len(c.out)))
	default:
		c.put(request)
	}
}

// proxyHeader sends a PROXY header, version 1 or 2, mostly a good one.
func (c *client) proxyHeader() {
	w := c.w
	if !w.cfg.ProxyProtocol {
		c.spoilt = true
	}
	switch w.rng.IntN(8) {
	case 0:
		c.spoilt = true
		c.put([]byte("PROXY TCP4 nonsense\r\n"))
	case 1:
		c.spoilt = true // what follows is no PROXY header
	case 2:
		c.put([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")) // LOCAL: the proxy itself
	case 3:
		c.put([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x05\xc0\x00\x02\x01\x10\x00\x1f\x90"))
	default:
		c.put([]byte("PROXY TCP4 203.0.113.7 192.0.2.1 4000 8080\r\n"))
	}
}

// speaks reports whether the client may send messages: it has the answer to its upgrade, or does not wait for it.
func (c *client) speaks() bool { return c.status == 101 || !c.spoilt && c.eager }

// rooms are few, so that they are shared.
func (c *client) anyRoom() string { return fmt.Sprintf("room%d", c.w.rng.IntN(3)) }

func (c *client) newRequest() *request {
	w := c.w
	q := &request{serial: len(w.requests), client: c}
	w.requests = append(w.requests, q)
	return q
}

// request sends one request, or some.
func (c *client) request() {
	if c.echo {
		c.message()
		return
	}
	for c.speaks() {
		c.oneRequest()
		if !c.w.chance(0.3) {
			return
		}
	}
}

func (c *client) oneRequest() {
	w := c.w
	q := c.newRequest()
	q.id = fmt.Sprintf("C%d", c.ids)
	c.ids++
	switch w.rng.IntN(30) {
	case 0:
		q.id = ""
	case 1:
		q.id = strings.Repeat("i", 129)
	case 2, 3, 4:
		q.id = fmt.Sprintf("D%d", w.rng.IntN(2)) // often in use
	}
	limit := w.cfg.Endpoints[0].MaxMessage/2 - 200
	switch w.rng.IntN(12) {
	case 0, 1:
		q.typ = wire.TypeJoinRoom
		q.room = c.anyRoom()
	case 2:
		q.typ, q.room = wire.TypeLeaveRoom, c.anyRoom()
		q.body = (&wire.LeaveRoom{RoomID: q.room, SessionID: "s"}).AppendTo(nil)
	case 3:
		m := wire.FetchRoomConversation{RoomID: c.anyRoom()}
		q.typ, q.room = wire.TypeFetchRoomConversation, m.RoomID
		if q.fetch = w.chance(0.8); q.fetch {
			m.Options = []wire.RoomConversationOption{wire.Subscribe}
		}
		q.body = m.AppendTo(nil)
	case 4:
		q.typ, q.body = "sim.Long", pattern(q.serial, w.rng.IntN(max(1, limit)))
	default:
		q.typ, q.body = "sim.Do", pattern(q.serial, w.rng.IntN(max(1, min(limit, 100))))
	}
	c.unseen = append(c.unseen, q)
	defer func() { q.item = c.items }()
	c.envelope(&wire.Envelope{SessionID: fmt.Sprintf("q%d", q.serial), RequestID: q.id, Type: q.typ, Payload: q.body})
}

// message sends a message to the echo endpoint.
func (c *client) message() {
	if !c.echo {
		return
	}
	if c.speaks() {
		c.toEcho(c.w.rng.IntN(min(2000, c.w.cfg.Endpoints[1].MaxMessage)))
	}
}

// toEcho sends n bytes to the echo endpoint.
func (c *client) toEcho(n int) {
	p := pattern(c.ids, n)
	c.ids++
	if c.dialer == nil {
		c.unheard = append(c.unheard, p)
	}
	c.frame(opBinary, true, c.pack(p))
}

// answer answers the oldest request of the server.
func (c *client) answer() {
	if len(c.asked) == 0 {
		return
	}
	i := c.w.rng.IntN(len(c.asked))
	a := c.asked[i]
	c.asked = append(c.asked[:i:i], c.asked[i+1:]...)
	c.respond(a)
	c.answer1 = append(c.answer1, a)
}

func (c *client) respond(a *ask) {
	a.sent = true
	c.envelope(&wire.Envelope{RequestID: a.id, Type: fmt.Sprintf("sim.R%d", a.serial), Payload: pattern(a.serial, 20), MessageType: wire.Response})
}

func (c *client) ping() {
	if c.speaks() {
		for range 1 + c.w.rng.IntN(3)*c.w.rng.IntN(20) {
			c.frame(frame.Ping, true, pattern(c.n, c.w.rng.IntN(126)))
		}
	}
}

// pong sends a pong that nobody asked for.
func (c *client) pong() {
	if c.speaks() {
		c.frame(frame.Pong, true, pattern(c.n, oneOf(c.w, 0, 8, 125)))
	}
}

// fragments sends a message in many fragments, some of them never ended.
func (c *client) fragments() {
	if !c.speaks() || c.echo || c.dialer != nil {
		return
	}
	p := (&wire.Envelope{RequestID: "frag", Type: "sim.Do", Payload: make([]byte, c.w.rng.IntN(200))}).AppendTo(nil)
	op, p := opBinary, c.pack(p)
	for len(p) > 0 {
		n := 1 + c.w.rng.IntN(len(p))
		fin := n == len(p)
		if c.w.chance(0.02) {
			c.spoilt = true
			return // never ended
		}
		c.frame(op, fin, p[:n])
		op, p = frame.Continuation, p[n:]
	}
}

// close sends a Close frame.
func (c *client) close() {
	if c.speaks() {
		c.sendClose(oneOf(c.w, 1000, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3333, 3334, 3335, 4000, 4999, 1005,
			0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65535))
	}
}

// sendClose sends a Close frame with that code; 1005: without one.
func (c *client) sendClose(code int) {
	if k := c.dialer; k != nil {
		if k.conn != nil && k.conn.Close(code, "the dialer says so", conn.CauseLocal) == nil {
			c.closed = append(c.closed, code)
		}
		return
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(code))
	switch {
	case code == 1005:
		body = nil
	case c.w.chance(0.05):
		c.spoilt = true
		body = append(body, 0xff) // not UTF-8
	case c.w.chance(0.02):
		c.spoilt = true
		body = body[:1]
	default:
		body = append(body, strings.Repeat("r", c.w.rng.IntN(124))...)
	}
	c.w.note(c, "sends Close %d", code)
	c.closed = append(c.closed, code)
	c.frame(frame.Close, true, body)
}

// fin ends the client's side; it still reads.
func (c *client) fin() {
	if !c.cut && c.dialer == nil {
		c.w.note(c, "sends FIN")
		c.w.moved, c.finSent = true, true
		c.p.CloseWrite()
		c.cut = true
	}
}

func (c *client) rst() {
	if c.w.chance(0.5) {
		return
	}
	c.w.note(c, "sends RST")
	c.excuse("it sent RST")
	c.cut = true
	if c.dialer != nil {
		c.dialer.peer.Reset()
	}
	if c.w.chance(0.5) {
		c.p.Reset()
	} else {
		c.p.ResetBehind()
	}
}

// window has the client take only so many bytes more.
func (c *client) window() {
	n := oneOf(c.w, 0, 0, 3, 20, 500, 5000)
	c.w.note(c, "reads %d bytes more", n)
	c.excuse("it stopped reading")
	c.p.SetWindow(n)
	if c.dialer != nil && c.w.chance(0.3) {
		c.dialer.peer.SetWindow(n)
	}
}

func (c *client) unblock() {
	if c.excused != "" {
		c.w.note(c, "reads again")
		c.p.SetWindow(1 << 30)
		if c.dialer != nil {
			c.dialer.peer.SetWindow(1 << 30)
		}
	}
}
