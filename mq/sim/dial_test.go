package sim

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

// Some clients are package conn in its other role (L1.2), on a loop of their own. What they and the gateway send each
// other goes through client.in and client.out as with all others, so the same checks see it.

// dialers is the process of those clients.
type dialers struct {
	w   *world
	net *looptest.Net
	reg *conn.Registry
	cfg *conn.Config
}

// dialer is one of them.
type dialer struct {
	conn   *conn.Conn // while it is open
	peer   *looptest.Peer
	opened int
	ended  int
	failed int
	due    [][]byte // messages that the gateway has sent it
	told   bool     // that the gateway's side has ended
}

func (w *world) buildDialers() {
	k := &dialers{w: w}
	k.cfg = &conn.Config{
		Role: frame.RoleClient, Endpoints: []conn.Endpoint{{Path: gatePath, MaxMessage: 1 << 20, Handler: k}},
		HandshakeTimeout: w.seconds(0.2, 5), PingInterval: w.seconds(0.5, 8), CloseTimeout: w.seconds(0.1, 4), WriteTimeout: w.seconds(0.1, 6),
		Heartbeat: oneOf(w, conn.HeartbeatServer, conn.HeartbeatClient, conn.HeartbeatOff), MaxPending: 2 << 20, Log: w.cfg.Log,
	}
	if w.chance(0.5) {
		k.cfg.Compression, k.cfg.CompressMin = w.anyCompression(), oneOf(w, 0, 100)
	}
	if err := k.cfg.Validate(); err != nil {
		panic(err)
	}
	k.reg = conn.NewRegistry(k.cfg)
	k.net = w.clock.New(loop.Config{Handler: k.reg, MaxSlots: 12}, k.reg.Attach)
	k.net.Faults = w.faults()
	w.dialers = k
}

// dial has the client dial; false: it could not even begin.
func (k *dialers) dial(c *client) bool {
	w := k.w
	path := gatePath
	if c.echo {
		path = echoPath
	}
	d := &conn.DialConfig{Addr: netip.MustParseAddrPort("192.0.2.1:8080"), Host: "gate", Path: path, Failed: func(user uint32, err error) {
		c := w.clients[user-1]
		w.note(c, "could not connect: %v", err)
		if c.dialer.failed++; c.dialer.failed > 1 || c.dialer.opened > 0 {
			w.fail(c, "a dialled connection opens or fails, once", "%v", err)
		}
	}}
	if w.chance(0.5) {
		d.Header = []handshake.Header{{Name: "User-Agent", Value: "dialer"}}
	}
	c.packing.offers = offersOf(k.cfg.Compression)
	var err error
	k.net.Refuse = 0
	if w.chance(0.05) {
		k.net.Refuse = syscall.ECONNREFUSED
	}
	k.net.Loop.PostFunc(func() { err = k.reg.Dial(d, netip.Addr{}, uint32(c.n)) })
	k.net.Step()
	peers := k.net.Dialed()
	if err != nil {
		if !errors.Is(err, syscall.ENFILE) {
			w.fail(c, "dialling", "%v", err)
		}
		return false
	}
	c.dialer.peer = peers[0]
	return true
}

// pump carries what the two ends send each other.
func (c *client) pump(received []byte) {
	k := c.dialer
	k.peer.Send(received)
	if b := k.peer.Take(); len(b) > 0 {
		c.put(b)
	}
	switch {
	case c.cut || !k.peer.GotFIN() || len(c.out) > 0:
	case k.peer.GotReset():
		c.excuse("it was reset by its end")
		c.cut = true
		c.p.Reset()
	default:
		c.cut = true
		c.p.CloseWrite()
	}
	if c.p.GotFIN() && !k.told {
		k.told = true
		c.w.moved = true
		if c.p.GotReset() {
			k.peer.Reset()
		} else {
			k.peer.CloseWrite()
		}
	}
}

// sendFrame sends a message if the connection is open.
func (k *dialer) sendFrame(c *client, op frame.OpCode, payload []byte) {
	if k.conn == nil {
		return
	}
	if err := k.conn.Send(op, payload); (err == nil) != (k.conn != nil && k.conn.State() == conn.Open) && err != conn.ErrNotOpen {
		c.w.fail(c, "what is open can be sent to", "%v", err)
	}
}

func (k *dialers) check(c *conn.Conn, call string) *client {
	i := k.w.clients[c.User-1]
	k.w.note(i, "its end: %s", call)
	if i.dialer.opened != 1 || i.dialer.ended != 0 || i.dialer.failed != 0 {
		k.w.fail(i, "L1.6: one OnOpen, then messages, then one OnClose", "at its end: %s, opened %d, closed %d, failed %d", call, i.dialer.opened, i.dialer.ended, i.dialer.failed)
	}
	return i
}

func (k *dialers) OnOpen(c *conn.Conn) {
	i := k.w.clients[c.User-1]
	i.dialer.opened++
	k.check(c, "OnOpen")
	i.dialer.conn = c
	if k.w.chance(0.05) {
		_ = c.Close(1000, "changed my mind", conn.CauseLocal)
	}
}

func (k *dialers) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	i := k.check(c, fmt.Sprintf("OnMessage, %d bytes", len(p)))
	if due := i.dialer.due; len(due) == 0 || !bytes.Equal(due[0], p) {
		k.w.fail(i, "messages arrive whole and in order", "at its end: %d bytes, %d messages are due", len(p), len(due))
	}
	i.dialer.due = i.dialer.due[1:]
}

func (k *dialers) OnPong(c *conn.Conn, _ time.Duration) { k.check(c, "OnPong") }
func (k *dialers) OnDrain(c *conn.Conn)                 { k.check(c, "OnDrain") }
func (k *dialers) OnError(c *conn.Conn, err error)      { k.check(c, fmt.Sprint("OnError ", err)) }

func (k *dialers) OnClose(c *conn.Conn, e conn.End) {
	i := k.check(c, fmt.Sprintf("OnClose %d %q %s", e.Code, e.Reason, e.Cause.Label()))
	i.dialer.ended++
	i.dialer.conn = nil
}
