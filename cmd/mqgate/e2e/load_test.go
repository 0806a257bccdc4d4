package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// A load is clients of all kinds that go on until it is stopped, whatever process serves them, and what they find wrong.
// They connect to addresses that must not change.
type load struct {
	addr, admin string
	stop        chan struct{}
	running     sync.WaitGroup
	faults      *journal[string]

	newcomers atomic.Int64 // connections that were opened, used and closed
	admins    atomic.Int64 // requests to the admin interface that were answered
	residents []*resident
}

// A resident stays connected, and comes back when it is told 3333.
type resident struct {
	told     atomic.Int64 // Close frames with 3333
	answered atomic.Int64 // messages that came back since then
}

func startLoad(t *testing.T, s *server, newcomers, admins, echoes, requesters int) *load {
	t.Helper()
	l := &load{addr: s.addr, admin: s.admin, stop: make(chan struct{}), faults: newJournal[string]()}
	t.Cleanup(l.end)
	for i := range newcomers {
		l.running.Go(func() { l.repeat(func() error { return l.newcomer(loopback(2 + i)) }) })
	}
	for range admins {
		l.running.Go(func() { l.repeat(l.askAdmin) })
	}
	for i := range echoes + requesters {
		r := new(resident)
		l.residents = append(l.residents, r)
		stay := l.echo
		if i >= echoes {
			stay = l.request
		}
		l.running.Go(func() { l.repeat(func() error { return stay(r) }) })
	}
	return l
}

// loopback is a source address of its own for who connects often: an address has but so many ports.
func loopback(n int) net.IP { return net.IPv4(127, 0, 0, byte(n)) }

// repeat does it until the load is stopped. What goes wrong is kept; after a few times it is enough.
func (l *load) repeat(do func() error) {
	for faults := 0; faults < 3 && !l.stopped(); {
		if err := do(); err != nil {
			l.faults.add(err.Error())
			faults++
		}
	}
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// end stops all clients, which close their connections in good order.
func (l *load) end() {
	if !l.stopped() {
		close(l.stop)
	}
	l.running.Wait()
}

// check fails the test if a client found something wrong.
func (l *load) check(t *testing.T) {
	t.Helper()
	for _, fault := range l.faults.rest() {
		t.Error(fault)
	}
}

// settled reports whether every resident was told to go as often as said, is back, and has been answered again; and
// newcomers and admins have got on by as much as said, since the counts given.
func (l *load) settled(told, newcomers, admins int64) bool {
	for _, r := range l.residents {
		if r.told.Load() != told || r.answered.Load() < 20 {
			return false
		}
	}
	return l.newcomers.Load() >= newcomers && l.admins.Load() >= admins
}

// A wsClient is a WebSocket connection at the level of frames.
type wsClient struct {
	net.Conn
	in *bufio.Reader
}

// connect opens a WebSocket connection. Every step must succeed.
func (l *load) connect(path string, source net.IP) (*wsClient, error) {
	dialer := net.Dialer{Timeout: patience}
	if source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: source}
	}
	conn, err := dialer.Dial("tcp", l.addr)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	c := &wsClient{conn, bufio.NewReader(conn)}
	err = c.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	}
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(c.in, nil)
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	if err != nil {
		_ = c.Close() // the error that matters is returned
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return c, nil
}

const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xa
)

// send sends a frame, masked with zeros.
func (c *wsClient) send(op byte, payload []byte) error {
	head := []byte{0x80 | op, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{0x80 | op, 0x80 | 126}, uint16(len(payload)))
		head = append(head, 0, 0, 0, 0)
	}
	_, err := c.Write(append(head, payload...))
	return err
}

// errTold: a Close frame with 3333 came.
var errTold = errors.New("closed with 3333")

// read reads the next message; errTold when it is the Close frame of a drain. Pings are answered.
func (c *wsClient) read() (op byte, payload []byte, err error) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(c.in, head[:2]); err != nil {
			return 0, nil, fmt.Errorf("reading: %w", err)
		}
		size := int(head[1])
		if size == 126 {
			if _, err := io.ReadFull(c.in, head[2:]); err != nil {
				return 0, nil, fmt.Errorf("reading: %w", err)
			}
			size = int(binary.BigEndian.Uint16(head[2:]))
		} else if size > 126 {
			return 0, nil, fmt.Errorf("frame with head %x", head[:2])
		}
		payload = make([]byte, size)
		if _, err := io.ReadFull(c.in, payload); err != nil {
			return 0, nil, fmt.Errorf("reading: %w", err)
		}
		switch op = head[0] & 0xf; op {
		case opPing:
			if err := c.send(opPong, payload); err != nil {
				return 0, nil, err
			}
		case opClose:
			if len(payload) >= 2 && binary.BigEndian.Uint16(payload) == 3333 && string(payload[2:]) == "drain" {
				return op, payload, errTold
			}
			return op, payload, nil
		default:
			return op, payload, nil
		}
	}
}

// leave ends the connection in good order: our Close, and whatever comes till the server ends it, which is not a reset.
func (c *wsClient) leave() error {
	defer func() { _ = c.Close() }() // all has been read
	if err := c.send(opClose, []byte{0x03, 0xe8}); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	for {
		if _, _, err := c.read(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil && !errors.Is(err, errTold) {
			return fmt.Errorf("closing: %w", err)
		}
	}
}

// newcomer connects, is echoed once, unless it is told to go first, and leaves.
func (l *load) newcomer(source net.IP) error {
	c, err := l.connect("/echo", source)
	if err != nil {
		return fmt.Errorf("newcomer: %w", err)
	}
	const text = "is anybody there?"
	if err := c.send(opText, []byte(text)); err != nil {
		return fmt.Errorf("newcomer: %w", err)
	}
	op, back, err := c.read()
	if err == nil && (op != opText || string(back) != text) {
		err = fmt.Errorf("echo %x %q", op, back)
	}
	if err != nil && !errors.Is(err, errTold) {
		_ = c.Close()
		return fmt.Errorf("newcomer: %w", err)
	}
	l.newcomers.Add(1)
	return c.leave()
}

func (l *load) askAdmin() error {
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: loopback(100)}}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	resp, err := client.Get("http://" + l.admin + "/healthz")
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "alive\n" {
		return fmt.Errorf("admin: %s %q, %w", resp.Status, body, err)
	}
	l.admins.Add(1)
	return nil
}

// echo is a resident of /echo with one message on its way at any time: it gets each back, in order, but for those that it
// sent when the server had said its Close.
func (l *load) echo(r *resident) error {
	c, err := l.connect("/echo", nil)
	if err != nil {
		return fmt.Errorf("resident: %w", err)
	}
	for i := 0; ; i++ {
		if l.stopped() {
			return c.leave()
		}
		text := make([]byte, 1+i*37%3000)
		for k := range text {
			text[k] = byte(i + k)
		}
		if err := c.send(opBinary, text); err != nil {
			return fmt.Errorf("resident: %w", err)
		}
		op, back, err := c.read()
		switch {
		case errors.Is(err, errTold):
			r.answered.Store(0)
			r.told.Add(1)
			return c.leave()
		case err == nil && (op != opBinary || string(back) != string(text)):
			err = fmt.Errorf("message %d: opcode %x, %d bytes, expected the %d that were sent", i, op, len(back), len(text))
		}
		if err != nil {
			_ = c.Close()
			return fmt.Errorf("resident: %w", err)
		}
		r.answered.Add(1)
	}
}

// requestsInFlight is how many requests a requester has on their way.
const requestsInFlight = 4

// request is a resident of /ws with several requests in flight: each is answered once, but for those that came when the
// server had said its Close. Nothing comes after that.
func (l *load) request(r *resident) error {
	c, err := l.connect("/ws", nil)
	if err != nil {
		return fmt.Errorf("requester: %w", err)
	}
	inFlight := map[string]bool{}
	for next := 0; ; {
		if l.stopped() {
			return c.leave()
		}
		for len(inFlight) < requestsInFlight {
			id := fmt.Sprintf("C%d", next)
			next++
			inFlight[id] = true
			e := wire.Envelope{RequestID: id, Type: "test.Unknown"} // answered by mq.Error
			if err := c.send(opBinary, e.AppendTo(nil)); err != nil {
				return fmt.Errorf("requester: %w", err)
			}
		}
		op, b, err := c.read()
		if errors.Is(err, errTold) {
			r.answered.Store(0)
			r.told.Add(1)
			return c.leave()
		}
		var e wire.Envelope
		if err == nil && op != opBinary {
			err = fmt.Errorf("opcode %x", op)
		}
		if err == nil {
			err = e.Unmarshal(b)
		}
		if err == nil && !inFlight[e.RequestID] {
			err = fmt.Errorf("an answer to %q, in flight are %v", e.RequestID, maps.Keys(inFlight))
		}
		if err != nil {
			_ = c.Close()
			return fmt.Errorf("requester: %w", err)
		}
		delete(inFlight, e.RequestID)
		r.answered.Add(1)
	}
}
