package conn

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// L1.3: OPEN → CLOSING, our Close goes out behind what was sent; messages are still received, nothing is sent any more;
// the peer's Close brings OnClose with its code, then FIN.
func TestCloseStartedHere(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	n.h.expect("open")
	c := n.only()
	n.on(func() {
		if err := c.Send(frame.Text, []byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(4000, "bye", CauseLocal); err != nil {
			t.Fatal(err)
		}
		if c.State() != Closing {
			t.Errorf("state %v", c.State())
		}
		if err := c.Send(frame.Text, []byte("more")); !errors.Is(err, ErrNotOpen) {
			t.Errorf("send while CLOSING: %v", err)
		}
		if err := c.SendPrepared(Prepare(frame.Text, []byte("more"))); !errors.Is(err, ErrNotOpen) {
			t.Errorf("prepared send while CLOSING: %v", err)
		}
		if _, err := c.Reserve(frame.Binary, 3); !errors.Is(err, ErrNotOpen) {
			t.Errorf("reserve while CLOSING: %v", err)
		}
	})
	p.expect(`text "last"`, `close 4000 "bye"`)
	n.h.expect()
	p.send(frame.Text, "in flight")
	p.send(frame.Ping, "are you there")
	p.send(frame.Pong, "")
	p.expect()
	n.h.expect(`text "in flight"`)
	if p.GotFIN() {
		t.Fatal("FIN before the peer's Close frame")
	}
	p.sendClose(4001, "and you")
	n.h.expect(`close 4001 "and you" local`)
	p.expect()
	p.quit()
	n.expectNothing()
}

// L1.4: → CLOSING, OnClose once, the Close echoed with the same code, behind what was sent before; the server ends TCP
// first.
func TestCloseStartedByPeer(t *testing.T) {
	for _, test := range []struct {
		code         uint16
		reason       string
		echo, onEnd  string
		disconnected int // index of the code's label
	}{
		{1000, "done", `close 1000 "done"`, `close 1000 "done" client`, codeIndex(1000)},
		{1001, "", `close 1001 ""`, `close 1001 "" client`, codeIndex(1001)},
		{4999, strings.Repeat("x", 123), fmt.Sprintf("close 4999 %q", strings.Repeat("x", 123)), fmt.Sprintf("close 4999 %q client", strings.Repeat("x", 123)), codeIndex(4999)},
		{0, "", `close`, `close 1005 "" client`, codeIndex(1005)}, // L1.6: 1005 reported, an empty Close echoed
	} {
		t.Run(fmt.Sprint(test.code), func(t *testing.T) {
			n := newNode(t)
			n.h.message = func(c *Conn, op frame.OpCode, p []byte) { _ = c.Send(op, p) }
			n.h.close = func(c *Conn, e End) {
				if err := c.Send(frame.Text, []byte("too late")); !errors.Is(err, ErrNotOpen) {
					t.Errorf("send within OnClose: %v", err)
				}
				if err := c.Close(1000, "", CauseLocal); !errors.Is(err, ErrNotOpen) { // L1.5
					t.Errorf("close within OnClose: %v", err)
				}
				if err := c.CloseFor(CauseDrain); !errors.Is(err, ErrNotOpen) {
					t.Errorf("close within OnClose: %v", err)
				}
			}
			p := n.connect()
			p.Send(p.frame(frame.Text, "one"))
			p.Send(p.frame(frame.Close, closeBody(test.code, test.reason)))
			p.Send(p.frame(frame.Text, "after the Close: nobody looks at it"))
			n.net.Run()
			p.expect(`text "one"`, test.echo)
			n.h.expect("open", `text "one"`, test.onEnd)
			if !p.GotFIN() {
				t.Fatal("the server did not send its FIN first")
			}
			if s := n.reg.Stats(); s.Disconnects[CauseClient][test.disconnected] != 1 || s.Disconnected() != 1 || s.Lingering != 1 {
				t.Errorf("stats %+v", s)
			}
			p.quit()
			n.expectNothing()
		})
	}
}

// L1.4: TCP is not torn down before our Close frame is with the kernel, however slowly the peer takes it.
func TestCloseWaitsForItsFrame(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.SetWindow(0)
	p.sendClose(1000, "now")
	n.h.expect("open", `close 1000 "now" client`)
	for i := range len("\x88\x05..now") {
		if p.GotFIN() {
			t.Fatalf("FIN after %d bytes of the Close frame", i)
		}
		n.advance(400 * time.Millisecond) // 2.8 s, below --close-timeout
		p.SetWindow(1)
		n.net.Run()
	}
	p.expect(`close 1000 "now"`)
	p.quit()
	n.expectNothing()
}

// L1.5: the peer's Close arrives while ours is in flight. One Close each way, one OnClose.
func TestOverlappingClose(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.SetWindow(0)
	n.on(func() { _ = n.only().Close(3000, "ours", CauseLocal) })
	p.sendClose(1001, "theirs") // sent before ours was read
	n.h.expect("open", `close 1001 "theirs" local`)
	p.SetWindow(1000)
	n.net.Run()
	p.expect(`close 3000 "ours"`)
	p.quit()
	n.expectNothing()
}

// L1.5: Close is called again in every state after the first.
func TestDoubleClose(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	c := n.only()
	n.on(func() {
		if err := c.Close(1000, "first", CauseLocal); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := c.Close(1001, "second", CauseDrain); !errors.Is(err, ErrNotOpen) {
				t.Errorf("second close: %v", err)
			}
		}
	})
	p.expect(`close 1000 "first"`)
	p.sendClose(1000, "first")
	n.h.expect("open", `close 1000 "first" local`)
	n.on(func() { // lingering: CLOSED, its slot not yet another's
		if err := c.Close(1001, "third", CauseDrain); !errors.Is(err, ErrNotOpen) {
			t.Errorf("close while lingering: %v", err)
		}
	})
	p.quit()
	n.expectNothing()
}

// L1.1, L1.3: a close from within OnOpen goes CONNECTED → CLOSING; the answer to the upgrade goes out before it, and
// messages pipelined behind the request still come.
func TestCloseWithinOnOpen(t *testing.T) {
	n := newNode(t)
	n.h.open = func(c *Conn) {
		if err := c.Send(frame.Text, []byte("hello")); err != nil {
			t.Error(err)
		}
		if err := c.Close(1008, "not you", CauseLocal); err != nil || c.State() != Closing {
			t.Errorf("%v, state %v", err, c.State())
		}
	}
	p := n.dialIn()
	p.Send([]byte(request()))
	p.Send(p.frame(frame.Text, "eager"))
	n.net.Run()
	p.expect(`text "hello"`, `close 1008 "not you"`)
	n.h.expect("open", `text "eager"`)
	n.advance(4900 * time.Millisecond)
	n.h.expect()
	n.advance(200 * time.Millisecond)
	n.h.expect(`close 1006 "forced" forced`) // L5.3
	n.expectNothing()
}

// L1.3, L1.5: close within OnMessage: later frames of the same read are still handled, the peer's Close among them ends
// it in one go.
func TestCloseWithinOnMessage(t *testing.T) {
	n := newNode(t)
	n.h.message = func(c *Conn, op frame.OpCode, p []byte) { _ = c.Close(1000, string(p), CauseLocal) }
	p := n.connect()
	p.Send(p.frame(frame.Text, "a"))
	p.Send(p.frame(frame.Text, "b"))
	p.Send(p.frame(frame.Close, closeBody(1000, "x")))
	n.net.Run()
	p.expect(`close 1000 "a"`)
	n.h.expect("open", `text "a"`, `text "b"`, `close 1000 "x" local`)
	p.quit()
	n.expectNothing()
}

// L1.7: every class of code at, below and above its bounds.
func TestCloseCodes(t *testing.T) {
	allowed := func(code int) bool {
		return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
	}
	codes := []int{-70000, -1, 0, 1, 999, 1015, 1016, 1099, 1100, 1999, 2000, 2999, 3000, 3333, 3999, 4000, 4998, 4999, 5000, 5001, 65535, 65536,
		66536 /* 1000 in 16 bits */, 70000, 1 << 32, 1<<32 + 1000}
	for code := 1000; code <= 1015; code++ {
		codes = append(codes, code)
	}
	for _, code := range codes {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			n := newNode(t)
			p := n.connect()
			c := n.only()
			n.on(func() {
				err := c.Close(code, "why", CauseLocal)
				if allowed(code) {
					if err != nil || c.State() != Closing {
						t.Errorf("%v, state %v", err, c.State())
					}
				} else if !errors.Is(err, ErrCloseCode) || c.State() != Open {
					t.Errorf("%v, state %v: expected ErrCloseCode and nothing to happen", err, c.State())
				}
			})
			if allowed(code) {
				p.expect(fmt.Sprintf(`close %d "why"`, code))
				p.sendClose(uint16(code), "")
			} else {
				p.expect()
				p.sendClose(1000, "")
				p.expect(`close 1000 ""`)
			}
			p.quit()
			n.expectNothing()

			if code < 0 || code > 65535 {
				return
			}
			// Received: the same set, else a protocol error.
			n = newNode(t)
			p = n.connect()
			body := string([]byte{byte(code >> 8), byte(code)})
			p.send(frame.Close, body)
			if allowed(code) {
				p.expect(fmt.Sprintf(`close %d ""`, code))
				n.h.expect("open", fmt.Sprintf(`close %d "" client`, code))
			} else {
				p.expect(`close 1002 "close code that must not be sent"`)
				n.h.expect("open", `close 1002 "close code that must not be sent" protocol`)
			}
			p.quit()
			n.expectNothing()
		})
	}
}

// L1.7: the reason is 123 bytes at most, cut at a rune, and valid UTF-8.
func TestCloseReason(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct{ reason, want string }{
		{"", ""},
		{x(122), x(122)},
		{x(123), x(123)},
		{x(124), x(123)},
		{x(500), x(123)},
		{x(121) + "é", x(121) + "é"}, // 123 bytes
		{x(122) + "é", x(122)},       // 124: the rune does not fit
		{x(120) + "€", x(120) + "€"}, // 123
		{x(121) + "€", x(121)},       // 124
		{x(119) + "\U0001F600", x(119) + "\U0001F600"},
		{x(120) + "\U0001F600", x(120)},
		{x(122) + "é" + "y", x(122)}, // nothing after the cut, though it would fit
		{"a\xffb", "a\uFFFDb"},
		{x(121) + "\xff", x(121)}, // U+FFFD takes three
	} {
		n := newNode(t)
		p := n.connect()
		n.on(func() { _ = n.only().Close(1000, test.reason, CauseLocal) })
		p.expect(fmt.Sprintf("close 1000 %q", test.want))
		p.sendClose(1000, "")
		p.quit()
		n.expectNothing()
	}
}

// L5.1, L5.2: CloseFor takes code and reason from the table; a cause that never closes is an error.
func TestCloseFor(t *testing.T) {
	for _, cause := range []Cause{CauseTimeout, CauseDrain, CauseLimit, CauseSendError, CauseSlow} {
		n := newNode(t)
		p := n.connect()
		n.on(func() {
			if err := n.only().CloseFor(cause); err != nil {
				t.Error(err)
			}
		})
		code, reason := cause.Close()
		p.expect(fmt.Sprintf("close %d %q", code, reason))
		p.sendClose(code, "")
		n.h.expect("open", fmt.Sprintf(`close %d "" %s`, code, cause.Label()))
		p.quit()
		if s := n.reg.Stats(); s.Disconnects[cause][codeIndex(code)] != 1 {
			t.Errorf("%s is not counted under its own label", cause.Label())
		}
	}
	n := newNode(t)
	p := n.connect()
	n.on(func() {
		if err := n.only().CloseFor(CauseClient); !errors.Is(err, ErrCloseCode) {
			t.Error(err)
		}
	})
	p.expect()
}

// L5.3: no Close from the peer within --close-timeout: the socket goes by RST, OnClose(1006) and the decrement happen
// now, once; whatever comes later changes nothing.
func TestForced(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	ref := n.only().Ref()
	n.on(func() { _ = n.only().Close(1000, "bye", CauseLocal) })
	p.expect(`close 1000 "bye"`)
	n.advance(5*time.Second - time.Millisecond)
	if s := n.reg.Stats(); s.Open != 1 || s.Disconnected() != 0 {
		t.Fatalf("open %d before --close-timeout", s.Open)
	}
	p.send(frame.Text, "still here") // what is no Close does not extend it
	n.h.expect("open", `text "still here"`)
	n.advance(time.Millisecond)
	n.h.expect(`close 1006 "forced" forced`)
	if s := n.reg.Stats(); s.Open != 0 || s.Disconnects[CauseForced][codeIndex(1006)] != 1 || s.Disconnected() != 1 || s.Lingering != 0 {
		t.Fatalf("open %d, lingering %d, disconnected %d", s.Open, s.Lingering, s.Disconnected())
	}
	if !p.Closed() || !p.GotReset() {
		t.Error("the socket was not cut")
	}
	p.sendClose(1000, "late")
	if n.reg.Get(ref) != nil {
		t.Error("the connection can still be found")
	}
	n.advance(time.Minute)
	n.h.expect()
	n.expectNothing()
	// The slot's next owner is told apart.
	q := n.connect()
	if n.reg.Get(ref) != nil || n.only().Ref().Slot != ref.Slot {
		t.Error("the slot's next connection answers to the old reference, or the slot is not used again")
	}
	q.sendClose(1000, "")
	q.quit()
	n.expectNothing()
}

// L5.2: an id that has ended, or never was, is not found.
func TestFind(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	c := n.only()
	id := c.ID()
	if n.reg.Find(id) != c {
		t.Fatal("not found by its own id")
	}
	for _, ref := range []Ref{{c.slot + 1, 0}, {c.slot, 7}, {chunkConns + 5, 0}, {1 << 23, 0}, {1<<24 - 1, 1}} {
		if n.reg.Get(ref) != nil {
			t.Errorf("%v resolves", ref)
		}
	}
	q := n.dialIn() // in handshake: not yet a connection
	if n.reg.Get(Ref{c.slot + 1, 0}) != nil {
		t.Error("a socket in handshake resolves")
	}
	q.CloseWrite()
	p.sendClose(1000, "")
	if n.reg.Find(id) != nil {
		t.Error("a lingering connection is found")
	}
	p.quit()
	if n.reg.Find(id) != nil {
		t.Error("a closed connection is found")
	}
	n.expectNothing()
}
