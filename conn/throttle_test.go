package conn

import (
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

func maxMessages(n int) func(*Config) { return func(cfg *Config) { cfg.MaxMessages = n } }

// TestThrottle: L3.13, a connection may send as many messages as the limit at once; with one more it is not read until that one
// is paid for, and then what it sent meanwhile comes. Others are not affected.
func TestThrottle(t *testing.T) {
	n := newNode(t, maxMessages(10), noPings)
	p, other := n.connect(), n.connect()
	var all []byte
	for range 10 {
		all = append(all, p.frame(frame.Text, "x")...)
	}
	p.Send(all)
	n.net.Run()
	n.h.expect(append(repeat("open", 2), repeat(`text "x"`, 10)...)...)
	if s := n.reg.Stats(); s.Throttled != 0 || s.Paused != 0 {
		t.Fatal("throttled at its limit")
	}
	p.send(frame.Ping, "") // control frames are work as well
	if s := n.reg.Stats(); s.Throttled != 1 || s.Paused != 1 {
		t.Fatalf("one above its limit: throttled %d, paused %d", s.Throttled, s.Paused)
	}
	p.send(frame.Text, "later")
	other.send(frame.Text, "at once")
	n.h.expect(`text "at once"`)
	n.advance(90 * time.Millisecond)
	p.expect()
	n.advance(20 * time.Millisecond)
	p.expect(`pong ""`)
	n.advance(80 * time.Millisecond)
	n.h.expect()
	n.advance(20 * time.Millisecond)
	n.h.expect(`text "later"`)
	n.advance(2 * time.Second)
	if s := n.reg.Stats(); s.Paused != 0 {
		t.Error("still paused")
	}
	n.finish(p, other)
}

// TestThrottleRate: over a long time no more messages come than the limit says, and no fewer, in whatever portions they
// are sent, also when one read brings thousands.
func TestThrottleRate(t *testing.T) {
	for _, portion := range []int{1, 7, 100, 2000} {
		n := newNode(t, maxMessages(100), noPings)
		p := n.connect()
		var all []byte
		for range portion {
			all = append(all, p.frame(frame.Binary, "")...)
		}
		for range 2000 / portion {
			p.Send(all)
		}
		sent := 2000 / portion * portion
		n.net.Run()
		if got := len(n.h.calls) - 1; got != 100 {
			t.Fatalf("portions of %d: %d messages at once, expected 100", portion, got)
		}
		for second := 1; second < 19; second++ {
			n.advance(time.Second)
			if got := len(n.h.calls) - 1; got < 98+100*second || got > 100+100*second {
				t.Fatalf("portions of %d: %d messages after %d s, expected %d", portion, got, second, 100+100*second)
			}
		}
		n.advance(time.Second)
		if got := len(n.h.calls) - 1; got != sent || n.reg.Stats().Paused != 0 {
			t.Fatalf("portions of %d: %d messages in the end, expected %d; %d paused", portion, got, sent, n.reg.Stats().Paused)
		}
		n.advance(time.Second) // a Close frame must wait as well
		n.finish(p)
	}
}

// TestThrottleSteady: a client that sends just as much as it may is never paused, one that sends a little more is, and
// gets just its rate.
func TestThrottleSteady(t *testing.T) {
	for _, c := range []struct {
		every time.Duration
		want  int // messages in 20 s
		most  int
	}{{10 * time.Millisecond, 2000, 2000}, {5 * time.Millisecond, 2099, 2103}} {
		n := newNode(t, maxMessages(100), noPings)
		p := n.connect()
		for range int(20 * time.Second / c.every) {
			p.send(frame.Text, "x")
			n.advance(c.every)
		}
		got := len(n.h.calls) - 1
		if got < c.want || got > c.most {
			t.Errorf("one message every %v: %d came in 20 s, expected %d to %d", c.every, got, c.want, c.most)
		}
		if c.every == 10*time.Millisecond && n.reg.Stats().Throttled != 0 {
			t.Error("throttled at the rate that is allowed")
		}
		n.advance(30 * time.Second)
		n.finish(p)
	}
}

// TestThrottledIsNotDead: L7.2 and L7.5, who is not read cannot be heard, and is not closed for that.
func TestThrottledIsNotDead(t *testing.T) {
	for _, mode := range []Heartbeat{HeartbeatServer, HeartbeatClient} {
		n := newNode(t, maxMessages(1), func(cfg *Config) { cfg.Heartbeat = mode })
		p := n.connect()
		for range 300 {
			p.Send(p.frame(frame.Text, ""))
		}
		n.advance(290 * time.Second)
		if s := n.reg.Stats(); s.Open != 1 || s.Paused != 1 {
			t.Fatalf("heartbeat %d: open %d, paused %d", mode, s.Open, s.Paused)
		}
		n.advance(2 * time.Minute) // now it is read, and silent
		if s := n.reg.Stats(); s.Open != 0 {
			t.Errorf("heartbeat %d: a dead peer that is read again stays", mode)
		}
		n.expectNothing()
	}
}

// TestThrottledCloses: when a throttled connection is closed what was kept of it is handled, and it is read again, or the
// peer's Close would not be seen: that may be in what was kept, or come later, or even with the same turn. A new connection
// in its slot begins with a clean slate.
func TestThrottledCloses(t *testing.T) {
	for _, kept := range []bool{true, false} {
		n := newNode(t, maxMessages(5), noPings)
		p := n.connect()
		for range 500 {
			p.Send(p.frame(frame.Text, ""))
		}
		if kept {
			p.Send(p.frame(frame.Close, closeBody(4000, "mine")))
		}
		n.net.Run()
		n.h.expect(append([]string{"open"}, repeat(`text ""`, 5)...)...)
		n.on(func() { n.only().closeFor(CauseDrain) })
		want := `close 4000 "mine" drain`
		if !kept {
			p.sendClose(3333, "")
			want = `close 3333 "" drain`
		}
		n.h.expect(append(repeat(`text ""`, 495), want)...)
		p.quit()
		n.nextInSlot()
	}
}

// TestThrottledMessageCloses: what was kept has a message on which the handler closes the connection; the rest of it is
// still handled, in order and before what is read afterwards.
func TestThrottledMessageCloses(t *testing.T) {
	n := newNode(t, maxMessages(1), noPings)
	n.h.message = func(c *Conn, _ frame.OpCode, p []byte) {
		if string(p) == "go" {
			c.closeFor(CauseDrain)
		}
	}
	p := n.connect()
	for _, text := range []string{"1", "2", "go", "3"} {
		p.Send(p.frame(frame.Text, text))
	}
	n.net.Run()
	p.Send(p.frame(frame.Text, "4"))
	p.Send(p.frame(frame.Close, ""))
	n.advance(3 * time.Second)
	n.h.expect("open", `text "1"`, `text "2"`, `text "go"`, `text "3"`, `text "4"`, `close 1005 "" drain`)
	p.quit()
	n.expectNothing()
}

// TestThrottledParts: a part of a message is kept as well, and a fault in what was kept is found when its turn comes.
func TestThrottledParts(t *testing.T) {
	n := newNode(t, maxMessages(1), noPings)
	p := n.connect()
	whole := p.frame(frame.Text, "cut in two")
	p.Send(append(p.frame(frame.Text, "1"), whole[:4]...))
	n.net.Run()
	p.Send(whole[4:])
	p.Send([]byte{0xff, 0xff})
	n.advance(900 * time.Millisecond)
	n.h.expect("open", `text "1"`)
	n.advance(200 * time.Millisecond)
	n.h.expect(`text "cut in two"`)
	n.advance(time.Second)
	if len(n.h.calls) != 1 || n.reg.Stats().Disconnects[CauseProtocol][codeIndex(1002)] != 1 {
		t.Errorf("calls %v", n.h.calls)
	}
	p.quit()
	n.expectNothing()
}

// TestThrottledForced: what was kept goes with the connection, whatever ends it.
func TestThrottledForced(t *testing.T) {
	n := newNode(t, maxMessages(1), noPings)
	p := n.connect()
	for range 100 {
		p.Send(p.frame(frame.Text, ""))
	}
	n.net.Run()
	if n.reg.pressure.partial < 99*6 {
		t.Errorf("%d bytes are counted, 594 or more are kept", n.reg.pressure.partial)
	}
	n.reg.ForceAll()
	n.net.Run()
	n.expectNothing()
}

func (n *node) nextInSlot() {
	n.t.Helper()
	t := n.t
	q := n.connect()
	q.send(frame.Text, "new")
	if s := n.reg.Stats(); s.Paused != 0 || s.Throttled != 1 {
		t.Errorf("the next connection of the slot: paused %d, throttled %d", s.Paused, s.Throttled)
	}
	n.finish(q)
}

// TestThrottledClosesByTimer: a message that was kept makes the handler close, in the timer that goes on with it; the close
// then has its own time.
func TestThrottledClosesByTimer(t *testing.T) {
	for _, heartbeat := range []Heartbeat{HeartbeatOff, HeartbeatServer} {
		n := newNode(t, maxMessages(1), func(cfg *Config) { cfg.Heartbeat, cfg.PingInterval = heartbeat, 3*time.Second })
		n.h.message = func(c *Conn, _ frame.OpCode, p []byte) {
			if string(p) == "go" {
				c.closeFor(CauseDrain)
			}
		}
		p := n.connect()
		p.Send(append(p.frame(frame.Text, "1"), p.frame(frame.Text, "go")...))
		n.advance(1100 * time.Millisecond)
		n.h.expect("open", `text "1"`, `text "go"`)
		n.advance(4800 * time.Millisecond)
		n.h.expect()
		n.advance(200 * time.Millisecond)
		n.h.expect(`close 1006 "forced" forced`)
		n.expectNothing()
	}
}

// TestThrottledOrder: when a throttled connection is closed, what was kept comes before what waits in the socket, also when
// the loop comes to that first: data or the peer's FIN.
func TestThrottledOrder(t *testing.T) {
	for _, fin := range []bool{false, true} {
		n := newNode(t, maxMessages(1), noPings)
		p := n.connect()
		p.Send(append(p.frame(frame.Text, "1"), p.frame(frame.Text, "2")...))
		if fin {
			p.Send(p.frame(frame.Close, closeBody(4001, "mine")))
		}
		n.net.Run()
		if fin {
			p.CloseWrite()
		} else {
			p.Send(append(p.frame(frame.Text, "3"), p.frame(frame.Close, closeBody(4001, "mine"))...))
		}
		n.on(func() { n.only().closeFor(CauseDrain) })
		want := []string{"open", `text "1"`, `text "2"`}
		if !fin {
			want = append(want, `text "3"`)
		}
		n.h.expect(append(want, `close 4001 "mine" drain`)...)
		p.CloseWrite()
		n.net.Run()
		p.expectGone()
		n.expectNothing()
	}
}

// TestThrottledKeepsItsOwn: what is kept of a connection is its own memory, also after another one went on with what was
// kept of it.
func TestThrottledKeepsItsOwn(t *testing.T) {
	n := newNode(t, maxMessages(1), noPings)
	a, b, other := n.connect(), n.connect(), n.connect()
	a.Send(append(a.frame(frame.Text, "a1"), a.frame(frame.Text, "a2")...))
	n.advance(1100 * time.Millisecond)
	b.Send(append(b.frame(frame.Text, "b1"), b.frame(frame.Text, "b2")...))
	n.net.Run()
	other.send(frame.Text, "over the read buffer of the loop, all of it")
	n.advance(1100 * time.Millisecond)
	n.h.expect("open", "open", "open", `text "a1"`, `text "a2"`, `text "b1"`, "text 43 bytes", `text "b2"`)
	n.advance(time.Second)
	n.finish(a, b, other)
}

// TestResumedIsNotDead: L7.2, when a connection is read again what it has sent meanwhile is not read yet: its silence begins
// now, also when the next ping is due in this very moment.
func TestResumedIsNotDead(t *testing.T) {
	for _, reason := range []connFlags{throttled, overBudget} {
		n := newNode(t)
		p := n.connect()
		n.on(func() {
			c := n.only()
			c.pause(reason)
			c.flags |= pinged
			c.flags &^= alive
			c.resume(reason)
			if !n.reg.beat(c, n.net.Loop.Now()) || c.flags&alive != 0 {
				t.Error("it is dead, or will never be")
			}
		})
		p.read()
		n.finish(p)
	}
}
