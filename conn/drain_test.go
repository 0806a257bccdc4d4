package conn

import (
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// drained counts the connections that were told to go.
func drained(n *node) (told int) {
	for _, c := range n.h.calls {
		if c == "drain" {
			told++
		}
	}
	return told
}

// L5.5: connections are told to go at an even pace: in every 10 ms within one of the share.
func TestDrainPace(t *testing.T) {
	const conns, rate = 1000, 333.0
	n := newNode(t, noPings)
	for range conns {
		n.connect()
	}
	n.h.drain = func(c *Conn) {
		if !c.Draining() {
			t.Error("OnDrain for a connection that is not draining")
		}
		_ = c.CloseFor(CauseDrain)
	}
	n.on(func() { n.reg.StartDrain(rate) })
	for ms := 0; ; ms += 10 {
		want := min(conns, (float64(ms)+10)/1000*rate) // the first step is due at once
		if got := float64(drained(n)); got > want || got < want-1 {
			t.Fatalf("%v were told after %d ms, expected %v", got, ms, want)
		}
		if want == conns {
			break
		}
		n.advance(10 * time.Millisecond)
	}
	if timers := n.reg.drain.timer.Len(); timers > 1 {
		t.Errorf("%d timers", timers)
	}
	n.advance(time.Second)
	if n.reg.drain.timer.Len() != 0 {
		t.Error("the drain's timer is still armed when all have been told")
	}
	n.advance(5 * time.Second)
	n.expectNothing()
	if s := n.reg.Stats(); s.Disconnects[CauseForced][codeIndex(1006)] != conns {
		t.Errorf("%d were forced", s.Disconnects[CauseForced][codeIndex(1006)])
	}
}

// L5.5: while draining, upgrades are refused; those that are CLOSING or lingering or still in handshake are not told;
// a handler may keep a connection until its requests are answered.
func TestDrainStates(t *testing.T) {
	n := newNode(t, noPings)
	handshaking := n.dialIn()
	handshaking.Send([]byte(request())[:40])
	lingering := n.connect()
	lingering.sendClose(1000, "")
	refused := n.dialIn()
	refused.Send([]byte("nonsense\r\n\r\n"))
	closing := n.connect()
	n.on(func() { _ = n.only().Close(4000, "", CauseLocal) })
	keeps, goes := n.connect(), n.connect()
	n.h.calls = nil
	n.h.drain = func(c *Conn) {
		if drained(n) == 2 {
			_ = c.CloseFor(CauseDrain)
		}
	}
	n.on(func() { n.reg.StartDrain(1e6) })
	n.h.expect("drain", "drain")
	if !n.reg.Draining() || !n.reg.Snapshot().Draining {
		t.Error("not draining")
	}
	goes.expect(`close 3333 "drain"`)
	keeps.expect()
	if _, got := n.try(); got != "refused" {
		t.Errorf("a new connection is %s", got)
	}
	handshaking.Send([]byte(request())[40:])
	n.net.Run()
	if handshaking.read(); handshaking.http[:12] != "HTTP/1.1 503" {
		t.Errorf("the handshake under way got %q", handshaking.http)
	}
	keeps.send(frame.Text, "working")
	closing.sendClose(4000, "")
	goes.sendClose(3333, "")
	n.h.expect(`text "working"`, `close 4000 "" local`, `close 3333 "" drain`)
	n.advance(5 * time.Second) // those that linger
	if s := n.reg.Snapshot(); s.Sockets != 1 || s.Conn.Open != 1 {
		t.Errorf("%d sockets, %d open", s.Sockets, s.Conn.Open)
	}
	n.on(func() {
		if got := n.reg.ForceAll(); got != 1 {
			t.Errorf("%d were forced", got)
		}
	})
	n.h.expect(`close 1006 "forced" forced`)
	n.expectNothing()
}

// L5.5: a drain that is cancelled: those not yet told stay, those told and kept by the handler stay as well; upgrades are
// accepted again, and a later drain begins anew.
func TestCancelDrain(t *testing.T) {
	n := newNode(t, noPings)
	for range 100 {
		n.connect()
	}
	n.on(func() { n.reg.StartDrain(1000) }) // 10 at once
	n.advance(10 * time.Millisecond)
	n.on(func() { n.reg.CancelDrain() })
	if got := drained(n); got != 20 {
		t.Errorf("%d were told", got)
	}
	n.advance(time.Second)
	if got := drained(n); got != 20 || n.reg.Draining() || n.reg.drain.timer.Len() != 0 {
		t.Errorf("%d were told, draining %v", got, n.reg.Draining())
	}
	n.reg.Each(func(c *Conn) {
		if c.Draining() || c.State() != Open {
			t.Errorf("draining %v, state %v", c.Draining(), c.State())
		}
	})
	if _, got := n.try(); got != "open" {
		t.Errorf("a new connection is %s", got)
	}
	n.h.calls = nil
	n.on(func() { n.reg.StartDrain(1e6) })
	if got := drained(n); got != 101 {
		t.Errorf("%d were told by the second drain", got)
	}
	n.on(func() { n.reg.CancelDrain(); n.reg.CancelDrain() })
	// Cancelled from within OnDrain.
	n.h.calls = nil
	n.h.drain = func(c *Conn) { c.Registry().CancelDrain() }
	n.on(func() { n.reg.StartDrain(1e6) })
	if got := drained(n); got != 1 || n.reg.drain.timer.Len() != 0 {
		t.Errorf("%d were told after a cancel from within", got)
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// L5.5: ForceAll ends whatever there is, in every state, and counts the open ones.
func TestForceAll(t *testing.T) {
	n := newNode(t)
	n.dialIn()
	half := n.dialIn()
	half.Send([]byte(request())[:40])
	refused := n.dialIn()
	refused.Send([]byte("nonsense\r\n\r\n"))
	n.connect()
	lingering := n.connect()
	lingering.sendClose(1000, "")
	closing := n.connect()
	slot := closing.n.reg.Stats().Total
	n.on(func() {
		n.reg.Each(func(c *Conn) {
			if c.slot == 5 {
				_ = c.Close(1000, "", CauseLocal)
			}
		})
	})
	blocked := n.connect()
	blocked.SetWindow(0)
	n.on(func() { n.reg.Each(func(c *Conn) { _ = c.Send(frame.Text, []byte("x")) }) })
	partial := n.connect()
	partial.send(frame.Text, "whole")
	partial.Send(partial.part(frame.Text, false, "part"))
	n.net.Run()
	if s := n.reg.Snapshot(); s.Sockets != 8 || slot != 3 {
		t.Fatalf("%d sockets", s.Sockets)
	}
	n.on(func() {
		if got := n.reg.ForceAll(); got != 4 {
			t.Errorf("%d open ones were forced, expected 4", got)
		}
		if got := n.reg.ForceAll(); got != 0 {
			t.Errorf("%d were forced again", got)
		}
	})
	n.expectNothing()
	n.advance(time.Minute)
	n.expectNothing()
}

// L5.5: the pace covers the spread, and is 1,000 a second at least.
func TestPace(t *testing.T) {
	for _, test := range []struct {
		open   int64
		spread time.Duration
		want   float64
	}{
		{0, 30 * time.Second, 1000}, {1, 30 * time.Second, 1000}, {29999, 30 * time.Second, 1000}, {30000, 30 * time.Second, 1000},
		{30003, 30 * time.Second, 1000.1}, {1000000, 30 * time.Second, 1e6 / 30},
		{0, 0, 1000}, {5000, 0, 5e6},
	} {
		if got := Pace(test.open, test.spread); got < test.want*0.999999 || got > test.want*1.000001 {
			t.Errorf("%d over %v: %v a second, expected %v", test.open, test.spread, got, test.want)
		}
	}
	// At once means within the first step.
	n := newNode(t, noPings)
	for range 700 {
		n.connect()
	}
	n.on(func() { n.reg.StartDrain(Pace(700, 0)) })
	if got := drained(n); got != 700 {
		t.Errorf("%d of 700 were told at once", got)
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}
