package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// What a client receives. The parser is strict about RFC 6455 and knows nothing of package frame but the opcodes' names;
// every message is compared with what this client may get.

// read takes in what has come.
func (c *client) read() {
	b := c.p.Take()
	if len(b) > 0 {
		c.in = append(c.in, b...) // a copy: parse keeps none of it
		c.parse()
	}
	if c.dialer != nil {
		c.pump(b)
	}
	if c.p.GotFIN() && !c.fins {
		c.fins = true
		c.w.note(c, "gets FIN")
		if len(c.in) > 0 && c.excused == "" && !c.p.Unwatched() && !c.p.GotReset() {
			c.w.fail(c, "frames are whole", "FIN after %d bytes of a frame: %x", len(c.in), c.in[:min(len(c.in), 20)])
		}
		if c.polite || c.w.chance(0.3) {
			c.fin()
		}
	}
}

func (c *client) parse() {
	if c.closeGot {
		c.w.fail(c, "L1.3: nothing after a Close frame", "%d bytes: %x", len(c.in), c.in)
	}
	if c.head == "" {
		const http = "HTTP/1.1 "
		if n := min(len(c.in), len(http)); string(c.in[:n]) != http[:n] {
			c.w.fail(c, "L2.1: the answer to the upgrade comes first", "%x", c.in[:min(len(c.in), 20)])
		}
		i := bytes.Index(c.in, []byte("\r\n\r\n"))
		if i < 0 {
			return
		}
		c.head = string(c.in[:i+4])
		c.in = c.in[i+4:]
		c.answered()
	}
	if c.status != 101 {
		c.body = append(c.body, c.in...)
		c.in = nil
		return
	}
	for !c.closeGot {
		op, payload, n := c.nextFrame()
		if n == 0 {
			return
		}
		c.in = c.in[n:]
		c.got(op, payload)
	}
	if len(c.in) > 0 {
		c.w.fail(c, "L1.3: nothing after a Close frame", "%d bytes: %x", len(c.in), c.in)
	}
}

// answered reads the header block of the answer to the upgrade.
func (c *client) answered() {
	line, _, _ := strings.Cut(c.head, "\r\n")
	if len(line) < 13 || !strings.HasPrefix(line, "HTTP/1.1 ") {
		c.w.fail(c, "L2.1: HTTP answers", "%q", c.head)
	}
	c.status, _ = strconv.Atoi(line[9:12])
	c.w.note(c, "gets %q", line)
	switch c.status {
	case 101:
		if c.dialer == nil && !strings.Contains(c.head, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") {
			c.w.fail(c, "RFC 6455 section 4.2.2", "%q", c.head)
		}
		c.agree()
	case 400, 403, 404, 405, 408, 426, 431, 503, 505:
	default:
		c.w.fail(c, "L2.1: HTTP answers", "%q", c.head)
	}
}

// answerWhole reports whether all of a refusal has come. The answer to HEAD has no body.
func (c *client) answerWhole() bool {
	_, after, _ := strings.Cut(c.head, "Content-Length: ")
	n, err := strconv.Atoi(after[:max(0, strings.Index(after, "\r\n"))])
	if err != nil || len(c.body) > n {
		c.w.fail(c, "L2.1: HTTP answers", "%q, %d bytes of body", c.head, len(c.body))
	}
	return len(c.body) == n
}

// nextFrame parses one frame; n is 0 when it is not whole.
func (c *client) nextFrame() (op frame.OpCode, payload []byte, n int) {
	b := c.in
	if len(b) < 2 {
		return 0, nil, 0
	}
	packed := b[0]&0x40 != 0
	if b[0]&0xb0 != 0x80 || packed && (b[0]&8 != 0 || !c.packing.agreed) {
		c.w.fail(c, "server frames are whole, and have RSV1 only if compressed", "%x", b[:2])
	}
	if b[1]&0x80 != 0 {
		c.w.fail(c, "server frames are not masked", "%x", b[:2])
	}
	op, n = frame.OpCode(b[0]&15), 2
	length := uint64(b[1])
	switch {
	case length == 126:
		if len(b) < 4 {
			return 0, nil, 0
		}
		if length, n = uint64(binary.BigEndian.Uint16(b[2:])), 4; length < 126 {
			c.w.fail(c, "lengths are in their shortest form", "%x", b[:4])
		}
	case length == 127:
		if len(b) < 10 {
			return 0, nil, 0
		}
		if length, n = binary.BigEndian.Uint64(b[2:]), 10; length < 1<<16 || length > math.MaxInt32 {
			c.w.fail(c, "lengths are in their shortest form", "%x", b[:10])
		}
	}
	switch op {
	case frame.Text, frame.Binary:
	case frame.Close, frame.Ping, frame.Pong:
		if length > 125 {
			c.w.fail(c, "control frames are short", "%x", b[:n])
		}
	default:
		c.w.fail(c, "opcodes are known", "%x", b[:n])
	}
	if uint64(len(b)-n) < length {
		return 0, nil, 0
	}
	n += int(length)
	payload = b[n-int(length) : n : n]
	if packed {
		payload = c.inflate(payload)
	}
	return op, payload, n
}

// got handles one frame.
func (c *client) got(op frame.OpCode, payload []byte) {
	switch op {
	case frame.Ping:
		c.w.note(c, "gets a ping")
		if len(payload) != 8 {
			c.w.fail(c, "L7.4: the payload of a ping is its time", "%x", payload)
		}
		if c.answers && !c.closeGot {
			c.frame(frame.Pong, true, payload)
		}
	case frame.Pong:
	case frame.Close:
		c.gotClose(payload)
	case frame.Text, frame.Binary:
		if c.dialer != nil {
			c.dialer.due = append(c.dialer.due, bytes.Clone(payload))
		}
		if c.echo {
			c.gotEcho(payload)
		} else {
			c.gotEnvelope(op, payload)
		}
	case frame.Continuation:
	}
}

func (c *client) gotClose(body []byte) {
	w := c.w
	c.closeGot, c.code = true, 1005
	if len(body) == 1 {
		w.fail(c, "L1.7: Close frames", "%x", body)
	}
	if len(body) > 1 {
		c.code, c.reasonIn = int(binary.BigEndian.Uint16(body)), string(body[2:])
		valid := c.code >= 1000 && c.code <= 1003 || c.code >= 1007 && c.code <= 1014 || c.code >= 3000 && c.code <= 4999
		if !valid || !utf8.ValidString(c.reasonIn) {
			w.fail(c, "L1.7: codes that may be sent", "%d %q", c.code, c.reasonIn)
		}
	}
	w.note(c, "gets Close %d %q", c.code, c.reasonIn)
	echoed := slices.Contains(c.closed, c.code)
	if c.code == 3334 && !echoed && c.closingAt != 0 { // L7.2, L7.5
		silence, least := c.closingAt-c.heardAt, int64(w.cfg.PingInterval)
		if c.w.cfg.Heartbeat == 1 {
			least *= 2
		}
		if silence < least {
			w.fail(c, "L7.2: any byte counts as life", "closed for its silence after %v of being read, expected at least %v", d(silence), d(least))
		}
	}
	if c.code == 3333 && !echoed && len(c.accepted) > 0 {
		w.fail(c, "L5.5: a draining connection goes when its requests are answered", "%d are not", len(c.accepted))
	}
	if c.dialer == nil && !c.cut && len(c.closed) == 0 && (c.polite || w.chance(0.3)) {
		code := c.code
		if w.chance(0.1) {
			code = 1000
		}
		c.sendClose(code)
	}
}

func (c *client) gotEcho(payload []byte) {
	if len(c.echoes) == 0 || !bytes.Equal(c.echoes[0], payload) {
		c.w.fail(c, "messages arrive whole and in order", "got %d bytes, expected %d messages", len(payload), len(c.echoes))
	}
	c.echoes = c.echoes[1:]
}

func (c *client) gotEnvelope(op frame.OpCode, payload []byte) {
	w := c.w
	if op == frame.Text {
		var err error
		if payload, err = base64.StdEncoding.DecodeString(string(payload)); err != nil {
			w.fail(c, "text is base64", "%v", err)
		}
	}
	var e wire.Envelope
	if err := e.Unmarshal(payload); err != nil {
		w.fail(c, "messages are envelopes", "%v", err)
	}
	if e.MessageType == wire.Response && c.forms == 0 && op != c.form {
		w.fail(c, "L3.6: answers come in the client's form", "%v to a client that speaks %v", op, c.form)
	}
	w.note(c, "gets %v id %.20q type %s, %d bytes", e.MessageType, e.RequestID, e.Type, len(e.Payload))
	switch e.MessageType {
	case wire.Response:
		c.gotResponse(&e)
	case wire.Event:
		c.inTurn(serialOf(w, c, e.Type, "sim.E"), e.Payload)
	case wire.Request:
		serial := serialOf(w, c, e.Type, "sim.Q")
		c.inTurn(serial, e.Payload)
		i := slices.IndexFunc(w.asks, func(a *ask) bool { return a.serial == serial })
		if i < 0 || w.asks[i].client != c || w.asks[i].id != "" {
			w.fail(c, "L4.1: requests of the server arrive once", "type %s id %s", e.Type, e.RequestID)
		}
		a := w.asks[i]
		a.id = strings.Clone(e.RequestID)
		c.asked = append(c.asked, a)
		if len(c.asked) > 30 {
			c.asked = c.asked[1:]
		}
	}
}

// serialOf reads the number in a type.
func serialOf(w *world, c *client, typ, prefix string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(typ, prefix))
	if err != nil || !strings.HasPrefix(typ, prefix) {
		w.fail(c, "types arrive as they were sent", "%q", typ)
	}
	return n
}

// inTurn checks that an event or a request of the server is the next one that this client may get.
func (c *client) inTurn(serial int, payload []byte) {
	for len(c.expected) > 0 {
		x := c.expected[0]
		c.expected = c.expected[1:]
		if x.serial == serial {
			if !bytes.Equal(payload, pattern(serial, len(payload))) {
				c.w.fail(c, "payloads arrive as they were sent", "number %d: %x", serial, payload)
			}
			return
		}
		if !x.maybe {
			c.w.fail(c, "L4.1, L3.8: what the server sends arrives in order", "number %d, expected %d", serial, x.serial)
		}
	}
	c.w.fail(c, "L3.8: no event for those who are not subscribed, none twice", "number %d", serial)
}

// gotResponse finds the request that this is the answer to.
func (c *client) gotResponse(e *wire.Envelope) {
	w := c.w
	if !e.HasWallTime || e.WallTime < 0 {
		w.fail(c, "L3.6: wallTime", "%v %v", e.HasWallTime, e.WallTime)
	}
	fits := func(q *request) bool { return q.id == e.RequestID }
	if e.Type == wire.TypeError {
		var m wire.Error
		if err := m.Unmarshal(e.Payload); err != nil {
			w.fail(c, "mq.Error", "%v", err)
		}
		switch m.Reason {
		case wire.ReasonFailed:
			fits = func(q *request) bool { return q.id == e.RequestID && q.want == failed }
		case wire.ReasonTimeout:
			fits = func(q *request) bool {
				return q.id == e.RequestID && (q.want == nobody || q.late) && w.now() >= q.start+int64(w.mq.RequestTimeout)
			}
		default:
			w.fail(c, "L3.5: reasons of mq.Error", "%q", m.Reason)
		}
	} else {
		serial := serialOf(w, c, e.Type, "sim.A")
		fits = func(q *request) bool {
			return q.id == e.RequestID && q.serial == serial && q.want == replied && bytes.Equal(q.reply, e.Payload)
		}
	}
	// A request that nobody answered is rather the one that has timed out than one whose answer was late.
	i := slices.IndexFunc(c.accepted, func(q *request) bool { return fits(q) && !q.late })
	if i < 0 {
		i = slices.IndexFunc(c.accepted, fits)
	}
	if i < 0 {
		w.fail(c, "L3.11: every answer belongs to an accepted request, each has one at most", "id %q type %s payload %.40q; not answered:%s",
			e.RequestID, e.Type, e.Payload, c.list())
	}
	c.accepted[i].got = true
	c.accepted = slices.Delete(c.accepted, i, i+1)
}

// list shows the requests that are not answered.
func (c *client) list() (s string) {
	for _, q := range c.accepted {
		s += fmt.Sprintf("\n  q%d id %q since %v: %v, late %v", q.serial, q.id, d(c.w.now()-q.start), q.want, q.late)
	}
	return s
}

// gone checks what a client must have when its socket is closed.
func (c *client) gone() {
	w := c.w
	w.note(c, "is gone; RST %v, excuse %q", c.p.GotReset(), c.excused)
	if c.p.Unwatched() {
		c.excuse("it could not be watched")
	}
	if c.endStall != w.stalled {
		c.excuse("the process was stopped while the last words were on their way")
	}
	if c.excused != "" {
		return
	}
	if c.opened == 1 && c.ended == 1 && c.end.Code != 1006 {
		if !c.closeGot {
			w.fail(c, "L1.4: our Close frame is with the kernel before TCP is torn down", "OnClose said %d", c.end.Code)
		}
		if c.end.Cause == conn.CauseClient && c.code != int(c.end.Code) {
			w.fail(c, "L1.4: the client's Close is echoed", "OnClose said %d, the Close frame %d", c.end.Code, c.code)
		}
	}
	if c.opened == 1 && c.p.GotReset() && c.p.Unread() == 0 && c.end.Code != 1006 && c.cut {
		w.fail(c, "L1.8: no RST to those who close in good order", "OnClose said %d", c.end.Code)
	}
}
