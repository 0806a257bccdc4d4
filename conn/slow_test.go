package conn

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// L8.3 by bytes: at the limit nothing happens, one byte above it the connection is closed with 3335: what is unsent is
// dropped, the frame that is half sent is completed, the Close frame follows; others on the loop notice nothing.
func TestSlowByBytes(t *testing.T) {
	const size = 1000 // of a frame: 4 bytes of header and 996 of payload
	payload := strings.Repeat("x", size-4)
	for name, send := range map[string]func(c *Conn) error{
		"Send":         func(c *Conn) error { return c.Send(frame.Binary, []byte(payload)) },
		"SendPrepared": func(c *Conn) error { return c.SendPrepared(Prepare(frame.Binary, []byte(payload))) },
	} {
		for _, taken := range []int{0, 1, 999, 1000, 1001} { // bytes that the peer takes at first
			t.Run(fmt.Sprint(name, " ", taken), func(t *testing.T) {
				n := newNode(t, noPings, func(cfg *Config) { cfg.MaxPending = 100*size + 500 })
				p, other := n.connect(), n.connect()
				var c *Conn
				n.reg.Each(func(x *Conn) {
					if c == nil {
						c = x
					}
				})
				p.SetWindow(taken)
				var filled int
				n.on(func() {
					for range 2 {
						if err := send(c); err != nil {
							t.Error(err)
						}
					}
				})
				for filled = 2; c.Pending()+size <= n.cfg.MaxPending; filled++ {
					n.on(func() {
						if err := send(c); err != nil {
							t.Errorf("message %d, %d bytes pending: %v", filled+1, c.Pending(), err)
						}
					})
				}
				if want := (n.cfg.MaxPending + taken) / size; filled != want {
					t.Errorf("%d messages fitted, expected %d", filled, want)
				}
				n.on(func() { // to the limit, to the byte
					rest := n.cfg.MaxPending - c.Pending()
					if err := c.Send(frame.Text, []byte(strings.Repeat("y", rest-frame.HeaderSize(rest-4, false)))); err != nil {
						t.Errorf("at the limit: %v", err)
					}
					if c.Pending() != n.cfg.MaxPending {
						t.Errorf("%d pending", c.Pending())
					}
				})
				if c.State() != Open {
					t.Fatal("closed at the limit")
				}
				n.on(func() {
					if err := send(c); !errors.Is(err, ErrSlow) {
						t.Errorf("above the limit: %v", err)
					}
					if err := send(c); !errors.Is(err, ErrNotOpen) {
						t.Errorf("after that: %v", err)
					}
				})
				if c.State() != Closing || c.Pending() > size+frame.MaxHeader+20 || n.net.Loop.PendingBytes() != int64(c.Pending()) {
					t.Errorf("state %v, %d bytes pending", c.State(), c.Pending())
				}
				if s := n.reg.Stats(); s.SlowBytes != 1 || s.SlowTime != 0 {
					t.Errorf("counted %d by bytes, %d by time", s.SlowBytes, s.SlowTime)
				}
				other.send(frame.Ping, "?")
				other.expect(`pong "?"`)
				p.SetWindow(1 << 20)
				n.net.Run()
				want := (taken + size - 1) / size // whole frames and the one that was begun
				got := p.read()
				if len(got) != want+1 || got[want].String() != `close 3335 "unexpected-close"` {
					t.Errorf("got %d frames, the last %v; expected %d and a Close", len(got), got[len(got)-1], want)
				}
				for _, f := range got[:want] {
					if f.payload != payload {
						t.Errorf("a torn frame: %v", f)
					}
				}
				p.sendClose(3335, "")
				p.quit()
				if s := n.reg.Stats(); s.Disconnects[CauseSlow][codeIndex(3335)] != 1 {
					t.Error("not counted as a slow consumer")
				}
				other.sendClose(1000, "")
				other.quit()
				n.expectNothing()
			})
		}
	}
}

// L8.3 by time: the oldest waiting for --write-timeout; below that nothing, and a peer that takes it in time is not slow.
// With and without a heartbeat whose own times lie before and after.
func TestSlowByTime(t *testing.T) {
	for _, interval := range []time.Duration{0, 3 * time.Second, 20 * time.Second} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			n := newNode(t, func(cfg *Config) {
				cfg.PingInterval = interval
				if interval == 0 {
					cfg.PingInterval, cfg.Heartbeat = time.Second, HeartbeatOff
				}
			})
			p := n.connect()
			alive := func(d time.Duration) {
				for ; d > 0; d -= 10 * time.Millisecond {
					p.Send(p.frame(frame.Pong, "alive"))
					n.advance(10 * time.Millisecond)
				}
			}
			send := func() { n.on(func() { _ = n.only().Send(frame.Text, []byte("0123456789")) }) }
			p.SetWindow(3)
			send()
			alive(9990 * time.Millisecond)
			if n.only().State() != Open {
				t.Fatal("closed below --write-timeout")
			}
			p.SetWindow(1000) // taken in time
			n.net.Run()
			alive(30 * time.Second)
			if n.only().State() != Open {
				t.Fatal("closed although it took everything in time")
			}
			p.SetWindow(3)
			send()
			alive(5 * time.Second)
			send() // the oldest counts, not the newest
			alive(4980 * time.Millisecond)
			if n.only().State() != Open {
				t.Fatal("closed below --write-timeout")
			}
			alive(30 * time.Millisecond)
			if n.only().State() != Closing || n.only().Pending() > 150 {
				t.Fatalf("state %v, %d bytes pending", n.only().State(), n.only().Pending())
			}
			if s := n.reg.Stats(); s.SlowTime != 1 || s.SlowBytes != 0 {
				t.Errorf("counted %d by time, %d by bytes", s.SlowTime, s.SlowBytes)
			}
			p.SetWindow(1000)
			n.net.Run()
			var texts, closes int
			for _, f := range p.read() {
				switch {
				case f.op == frame.Text:
					texts++
				case f.String() == `close 3335 "unexpected-close"`:
					closes++
				}
			}
			if texts != 2 || closes != 1 { // the one taken in time, and the one that was begun
				t.Errorf("%d texts, %d closes", texts, closes)
			}
			p.sendClose(3335, "")
			p.quit()
			n.expectNothing()
		})
	}
}

// L8.3: a peer that takes nothing at all after that is cut off at --close-timeout, and its memory is back at once.
func TestSlowNeverReads(t *testing.T) {
	n := newNode(t, noPings)
	p := n.connect()
	p.SetWindow(0)
	n.on(func() {
		for n.only().Send(frame.Binary, make([]byte, 1000)) == nil {
		}
	})
	if got := n.net.Loop.PendingBytes(); got > 200 {
		t.Errorf("%d bytes are still pending", got)
	}
	n.advance(5 * time.Second)
	n.h.expect("open", `close 1006 "forced" forced`)
	if !p.GotReset() {
		t.Error("not cut off")
	}
	n.expectNothing()
}

// L8.3: a peer that floods with pings and does not read: its pongs are bounded by the same limit.
func TestPingFlood(t *testing.T) {
	n := newNode(t, noPings)
	p, other := n.connect(), n.connect()
	p.SetWindow(1)
	flood := []byte(strings.Repeat(string(p.frame(frame.Ping, strings.Repeat("f", 125))), 400))
	most := int64(0)
	for range 100 {
		p.Send(flood)
		n.net.Run()
		most = max(most, n.net.Loop.PendingBytes())
		n.check()
	}
	if most > testMaxPending+30 { // and the Close frame
		t.Errorf("%d bytes were pending", most)
	}
	if s := n.reg.Stats(); s.SlowBytes != 1 {
		t.Errorf("slow by bytes: %d", s.SlowBytes)
	}
	other.send(frame.Ping, "?")
	other.expect(`pong "?"`)
	n.advance(5 * time.Second)
	n.h.expect("open", "open", `close 1006 "forced" forced`)
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// A handler that sends too much before the answer to the upgrade is with the kernel: the answer is not among what is
// dropped, and the peer gets HTTP first, then the Close frame.
func TestSlowWithinOnOpen(t *testing.T) {
	n := newNode(t)
	n.h.open = func(c *Conn) {
		for c.Send(frame.Binary, make([]byte, 4000)) == nil {
		}
	}
	p := n.dialIn()
	p.SetWindow(10)
	p.Send([]byte(request()))
	n.net.Run()
	if got := n.net.Loop.PendingBytes(); got > testMaxPending+200 {
		t.Errorf("%d bytes are pending", got)
	}
	p.SetWindow(1 << 20)
	n.net.Run()
	p.read()
	if p.http != accepted || p.all[len(p.all)-1].String() != `close 3335 "unexpected-close"` {
		t.Errorf("answer %q, then %d frames", p.http, len(p.all))
	}
	p.sendClose(3335, "")
	p.quit()
	n.expectNothing()
}

// Pending output is with the sender's own Conn only: a broadcast to many of which one does not read.
func TestBroadcastWithOneSlow(t *testing.T) {
	n := newNode(t, noPings)
	peers := make([]*peer, 20)
	for i := range peers {
		peers[i] = n.connect()
	}
	peers[7].SetWindow(0)
	m := Prepare(frame.Text, []byte(strings.Repeat("b", 10000)))
	for range 100 { // 1 MB, four times the limit
		n.on(func() { n.reg.Each(func(c *Conn) { _ = c.SendPrepared(m) }) })
		n.check()
	}
	for i, p := range peers {
		got := len(p.read())
		if i == 7 {
			if got != 0 {
				t.Errorf("%d frames to a peer that takes nothing", got)
			}
		} else if got != 100 {
			t.Errorf("peer %d got %d of 100", i, got)
		}
	}
	if s := n.reg.Stats(); s.SlowBytes != 1 {
		t.Errorf("%d slow", s.SlowBytes)
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}
