package conn

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

// The registries of these tests run over a simulated network and clock (package looptest). The peers are the test: they
// speak raw bytes, and what they are sent is read by a parser of their own, strict about RFC 6455 and about silence
// after a Close frame.

const (
	testPath       = "/ws"
	testMaxMessage = 64 << 10
	testMaxPending = 256 << 10
)

var (
	clientAddr = netip.MustParseAddrPort("192.0.2.9:1234")
	serverAddr = netip.MustParseAddrPort("192.0.2.1:8080")
)

// rec is a handler that writes down what it is told, checks on the way that every connection gets one OnOpen, then its
// messages, then one OnClose, then nothing (L1.6), and does what the test says.
type rec struct {
	t     testing.TB
	calls []string
	life  map[Ref]int // 1: told of the opening, 2: told of the end

	open    func(c *Conn)
	message func(c *Conn, op frame.OpCode, p []byte)
	pong    func(c *Conn, rtt time.Duration)
	drain   func(c *Conn)
	error   func(c *Conn, err error)
	close   func(c *Conn, e End)
}

func newRec(t testing.TB) *rec { return &rec{t: t, life: make(map[Ref]int)} }

func (h *rec) call(c *Conn, life int, format string, args ...any) {
	if got := h.life[c.Ref()]; got != life {
		h.t.Fatalf("%s for a connection that has been told %d (1: opened, 2: closed), expected %d", fmt.Sprintf(format, args...), got, life)
	}
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

// expect compares the calls since the last time.
func (h *rec) expect(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.calls, want) {
		h.t.Fatalf("calls:\n %s\nexpected:\n %s", strings.Join(h.calls, "\n "), strings.Join(want, "\n "))
	}
	h.calls = nil
}

func (h *rec) OnOpen(c *Conn) {
	h.call(c, 0, "open")
	h.life[c.Ref()] = 1
	if c.State() != Connected {
		h.t.Errorf("OnOpen in state %v", c.State())
	}
	if h.open != nil {
		h.open(c)
	}
}

func (h *rec) OnMessage(c *Conn, op frame.OpCode, p []byte) {
	if len(p) > 40 {
		h.call(c, 1, "%v %d bytes", op, len(p))
	} else {
		h.call(c, 1, "%v %q", op, p)
	}
	if s := c.State(); s != Open && s != Closing {
		h.t.Errorf("OnMessage in state %v", s)
	}
	if h.message != nil {
		h.message(c, op, p)
	}
}

func (h *rec) OnPong(c *Conn, rtt time.Duration) {
	h.call(c, 1, "pong %v", rtt)
	if h.pong != nil {
		h.pong(c, rtt)
	}
}

func (h *rec) OnDrain(c *Conn) {
	h.call(c, 1, "drain")
	if h.drain != nil {
		h.drain(c)
	}
}

func (h *rec) OnError(c *Conn, err error) {
	h.call(c, 1, "error %v", err)
	if h.error != nil {
		h.error(c, err)
	}
}

func (h *rec) OnClose(c *Conn, e End) {
	h.call(c, 1, "close %d %q %s", e.Code, e.Reason, e.Cause.Label())
	h.life[c.Ref()] = 2
	if s := c.State(); s != Closing && s != Closed {
		h.t.Errorf("OnClose in state %v", s)
	}
	if h.close != nil {
		h.close(c, e)
	}
	if c.Registry().Get(c.Ref()) != nil {
		h.t.Error("within OnClose the connection can still be found")
	}
}

// testConfig is a server's configuration with round times.
func testConfig(h Handler) *Config {
	return &Config{
		Role: frame.RoleServer, Endpoints: []Endpoint{{Path: testPath, Handler: h, MaxMessage: testMaxMessage}},
		HandshakeTimeout: 10 * time.Second, PingInterval: 20 * time.Second, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		MaxPending: testMaxPending, Log: slog.New(slog.DiscardHandler),
	}
}

// node is a registry on a simulated loop.
type node struct {
	t   testing.TB
	net *looptest.Net
	reg *Registry
	h   *rec
	cfg *Config
}

// newNode returns a server; change may alter its configuration. At the end of the test everything must be gone.
func newNode(t testing.TB, change ...func(*Config)) *node {
	t.Helper()
	n := &node{t: t, h: newRec(t)}
	n.cfg = testConfig(n.h)
	for _, f := range change {
		f(n.cfg)
	}
	if err := n.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	n.reg = NewRegistry(n.cfg)
	n.net = looptest.New(n.reg, n.reg.Attach)
	t.Cleanup(func() {
		if !t.Failed() {
			n.check()
		}
	})
	return n
}

func asClient(cfg *Config) { cfg.Role = frame.RoleClient }
func noPings(cfg *Config)  { cfg.Heartbeat = HeartbeatOff }

// on runs f on the loop.
func (n *node) on(f func()) {
	n.net.Loop.PostFunc(f)
	n.net.Run()
}

// advance moves the clock.
func (n *node) advance(d time.Duration) { n.net.Advance(int64(d)) }

// only returns the one connection.
func (n *node) only() (only *Conn) {
	n.t.Helper()
	n.reg.Each(func(c *Conn) {
		if only != nil {
			n.t.Fatal("there are several connections")
		}
		only = c
	})
	if only == nil {
		n.t.Fatal("there is no connection")
	}
	return only
}

// check compares the accounts with what there really is (L6.2).
func (n *node) check() {
	n.t.Helper()
	s := n.reg.Snapshot()
	total, gone := int64(s.Conn.Total), int64(s.Conn.Disconnected())
	if entries := n.reg.Entries(); total-gone != s.Conn.Open || s.Conn.Open != entries || s.Drift != 0 {
		n.t.Fatalf("L6.2: total %d - disconnected %d, open %d, entries %d, drift %d", total, gone, s.Conn.Open, entries, s.Drift)
	}
	if int(s.Sockets) != n.net.Sockets() {
		n.t.Fatalf("%d sockets counted, the kernel has %d", s.Sockets, n.net.Sockets())
	}
	if lim := n.cfg.Limits; lim != nil && lim.open.Load() != s.Conn.Open {
		n.t.Fatalf("the limit counts %d connections, there are %d", lim.open.Load(), s.Conn.Open)
	}
	var partial, held, paused int64
	for slot := range uint32(len(n.reg.chunks) * chunkConns) {
		if c := n.reg.at(slot); c.reg != nil {
			partial += int64(c.partial())
			if c.flags&pauses != 0 {
				paused++
			}
			if n.net.Loop.InUse(slot) {
				held += int64(n.net.Loop.Held(slot))
			}
		}
	}
	if partial != n.reg.pressure.partial || held != n.net.Loop.HeldBytes() || paused != s.Conn.Paused {
		n.t.Fatalf("L8.6: partial messages take %d, counted %d; output takes %d, counted %d; %d are paused, counted %d", partial,
			n.reg.pressure.partial, held, n.net.Loop.HeldBytes(), paused, s.Conn.Paused)
	}
	opened, closed := 0, 0
	for _, l := range n.h.life {
		opened++
		closed += l - 1
	}
	if opened != int(total) || closed != int(gone) {
		n.t.Fatalf("L1.6: %d OnOpen for %d connections, %d OnClose for %d ends", opened, total, closed, gone)
	}
}

// expectNothing checks that nothing is left of any connection: sockets, gauges, timers, buffers, header values.
func (n *node) expectNothing() {
	n.t.Helper()
	n.check()
	s := n.reg.Snapshot()
	if s.Sockets != 0 || s.Pending != 0 || s.Conn.Open != 0 || s.Conn.Handshake != 0 || s.Conn.Lingering != 0 {
		n.t.Fatalf("left: %d sockets, %d bytes pending, open %d, handshake %d, lingering %d", s.Sockets, s.Pending, s.Conn.Open, s.Conn.Handshake, s.Conn.Lingering)
	}
	if n.reg.pressure.partial != 0 || n.net.Loop.HeldBytes() != 0 || s.Conn.Paused != 0 {
		n.t.Fatalf("left: partial messages of %d bytes, output of %d, %d paused", n.reg.pressure.partial, n.net.Loop.HeldBytes(), s.Conn.Paused)
	}
	if armed := timersArmed(n.reg.loop); armed != 0 {
		n.t.Fatalf("%d timers are armed", armed)
	}
	for slot := range uint32(len(n.reg.chunks) * chunkConns) {
		if c := n.reg.at(slot); c.reg != nil && (c.hs != nil || c.partial() != 0) {
			n.t.Fatalf("slot %d holds buffers: handshake %v, partial message %d bytes", slot, c.hs != nil, c.partial())
		}
	}
	for i, e := range n.reg.metas.entries {
		if e.refs != 0 || e.values != nil {
			n.t.Fatalf("header values %d: %d references, %q", i, e.refs, e.values)
		}
	}
	if len(n.reg.metas.index) != 0 {
		n.t.Fatalf("%d header values are still indexed", len(n.reg.metas.index))
	}
}

// timersArmed counts the armed timers of a loop's sockets, which the loop keeps to itself.
func timersArmed(l *loop.Loop) int64 {
	return reflect.ValueOf(l).Elem().FieldByName("timers").Elem().FieldByName("armed").Int()
}

// wire is one frame as it was sent.
type wire struct {
	op      frame.OpCode
	payload string
	packed  bool // it was compressed
}

func (f wire) String() string {
	if f.packed {
		f.packed = false
		return "packed " + f.String()
	}
	switch {
	case f.op == frame.Close && f.payload != "":
		return fmt.Sprintf("close %d %q", binary.BigEndian.Uint16([]byte(f.payload)), f.payload[2:])
	case f.op == frame.Close:
		return "close"
	case len(f.payload) > 40:
		return fmt.Sprintf("%v %d bytes", f.op, len(f.payload))
	}
	return fmt.Sprintf("%v %q", f.op, f.payload)
}

// peer is the other end of one of a node's sockets.
type peer struct {
	*looptest.Peer
	t      testing.TB
	n      *node
	masks  bool   // it is a client, whose frames are masked
	http   string // the header block it got
	plain  bool   // the answer was no 101: what follows is its body
	body   string
	rest   []byte // not yet parsed
	closed bool   // a Close frame came: nothing may follow
	all    []wire

	inflate func(p []byte) []byte // compression was agreed on
}

// dialIn is a client that connects and says nothing.
func (n *node) dialIn() *peer {
	return &peer{Peer: n.net.Client(0, clientAddr), t: n.t, n: n, masks: true}
}

const requestKey = "dGhlIHNhbXBsZSBub25jZQ=="

// request is a good request with further header lines.
func request(lines ...string) string {
	s := "GET " + testPath + " HTTP/1.1\r\nHost: gate\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + requestKey + "\r\n"
	for _, l := range lines {
		s += l + "\r\n"
	}
	return s + "\r\n"
}

// connect is a client whose connection is open.
func (n *node) connect() *peer {
	n.t.Helper()
	p := n.dialIn()
	p.Send([]byte(request()))
	n.net.Run()
	p.read()
	if !strings.HasPrefix(p.http, "HTTP/1.1 101 ") {
		n.t.Fatalf("answer %q", p.http)
	}
	return p
}

// read parses what has been sent to the peer and returns the new frames.
func (p *peer) read() []wire {
	p.t.Helper()
	b := p.Take()
	if p.closed && len(b) > 0 {
		p.t.Fatalf("L1.3: %d bytes after the Close frame: %x", len(b), b)
	}
	p.rest = append(p.rest, b...)
	if p.http == "" {
		i := strings.Index(string(p.rest), "\r\n\r\n")
		if i < 0 {
			return nil
		}
		p.http = string(p.rest[:i+4])
		p.rest = p.rest[i+4:]
		p.plain = !strings.HasPrefix(p.http, "HTTP/1.1 101 ") && !strings.HasPrefix(p.http, "GET ")
	}
	if p.plain {
		p.body += string(p.rest)
		p.rest = nil
		return nil
	}
	first := len(p.all)
	for {
		f, n := p.parse(p.rest)
		if n == 0 {
			return p.all[first:]
		}
		if p.closed {
			p.t.Fatalf("L1.3: %v after the Close frame", f)
		}
		p.closed = f.op == frame.Close
		p.rest = p.rest[n:]
		p.all = append(p.all, f)
	}
}

// parse reads one whole frame, 0 when there is none.
func (p *peer) parse(b []byte) (wire, int) {
	if len(b) < 2 {
		return wire{}, 0
	}
	op, masked, length, size := frame.OpCode(b[0]&15), b[1]&128 != 0, uint64(b[1]&127), 2
	switch {
	case length == 126 && len(b) >= 4:
		if length, size = uint64(binary.BigEndian.Uint16(b[2:])), 4; length < 126 {
			p.t.Fatalf("length %d is not in its shortest form", length)
		}
	case length == 127 && len(b) >= 10:
		if length, size = binary.BigEndian.Uint64(b[2:]), 10; length < 65536 || length > math.MaxInt32 {
			p.t.Fatalf("length %d is not in its shortest form, or absurd", length)
		}
	case length > 125:
		return wire{}, 0
	}
	packed := p.inflate != nil && b[0]&0xf0 == 0xc0 && op < frame.Close
	if b[0]&0xf0 != 0x80 && !packed || op != frame.Text && op != frame.Binary && op < frame.Close || op > frame.Pong || op >= frame.Close && length > 125 {
		p.t.Fatalf("a frame that begins with %x was sent", b[:2])
	}
	if masked == p.masks { // we are a client: what we are sent is not masked
		p.t.Fatalf("masked is %v in what was sent to a peer that masks itself: %v", masked, p.masks)
	}
	var key [4]byte
	if masked {
		if len(b) < size+4 {
			return wire{}, 0
		}
		key = [4]byte(b[size:])
		size += 4
	}
	if uint64(len(b)-size) < length {
		return wire{}, 0
	}
	payload := slices.Clone(b[size : size+int(length)])
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	if packed {
		payload = p.inflate(payload)
	}
	return wire{op, string(payload), packed}, size + int(length)
}

// frame returns a whole frame as the peer sends it.
func (p *peer) frame(op frame.OpCode, payload string) []byte {
	return p.part(op, true, payload)
}

func (p *peer) part(op frame.OpCode, fin bool, payload string) []byte {
	if p.masks {
		return frame.AppendMaskedFrame(nil, op, fin, []byte(payload), [4]byte{1, 2, 3, 4})
	}
	return frame.AppendFrame(nil, op, fin, []byte(payload))
}

// send sends a frame and lets the loop work.
func (p *peer) send(op frame.OpCode, payload string) {
	p.Send(p.frame(op, payload))
	p.n.net.Run()
}

// sendClose sends a Close frame; code 0: without a body.
func (p *peer) sendClose(code uint16, reason string) { p.send(frame.Close, closeBody(code, reason)) }

func closeBody(code uint16, reason string) string {
	if code == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

// expect reads and compares the new frames, as String gives them.
func (p *peer) expect(want ...string) {
	p.t.Helper()
	var got []string
	for _, f := range p.read() {
		got = append(got, f.String())
	}
	if !slices.Equal(got, want) {
		p.t.Fatalf("sent:\n %s\nexpected:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// quit ends the TCP connection as a client does that has the server's FIN, and checks that it got no RST.
func (p *peer) quit() {
	p.t.Helper()
	if !p.GotFIN() || p.Closed() {
		p.t.Fatalf("FIN %v, closed %v: expected the server to have sent its FIN and to wait for ours (L1.8)", p.GotFIN(), p.Closed())
	}
	p.CloseWrite()
	p.n.net.Run()
	p.expectGone()
}

// expectGone checks that the socket was closed in good order.
func (p *peer) expectGone() {
	p.t.Helper()
	if !p.Closed() || p.GotReset() {
		p.t.Fatalf("closed %v, by RST %v: expected a close in good order", p.Closed(), p.GotReset())
	}
}
