package conn

import (
	"errors"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/frame"
)

// L8.3: a peer that reads is not slow, however much it is sent in one turn: many replies to one read that are together
// above the limit, a message of the greatest size with a limit one byte above it, a message above the limit.
func TestReaderIsNotSlow(t *testing.T) {
	for _, test := range []struct {
		name     string
		pending  int
		messages int
		size     int
	}{
		{"many in one turn", testMaxMessage + 1, 300, 100},
		{"the greatest message", testMaxMessage + 1, 2, testMaxMessage},
		{"larger than the limit", testMaxMessage + 1, 2, 3 * testMaxMessage},
	} {
		for name, send := range map[string]func(c *Conn, p []byte) error{
			"Send":         func(c *Conn, p []byte) error { return c.Send(frame.Binary, p) },
			"SendPrepared": func(c *Conn, p []byte) error { return c.SendPrepared(Prepare(frame.Binary, p)) },
		} {
			t.Run(test.name+" "+name, func(t *testing.T) {
				n := newNode(t, noPings, func(cfg *Config) { cfg.MaxPending = test.pending })
				p := n.connect()
				payload := strings.Repeat("x", test.size)
				n.h.message = func(c *Conn, _ frame.OpCode, _ []byte) {
					for i := range test.messages {
						if err := send(c, []byte(payload)); err != nil {
							t.Fatalf("message %d: %v", i, err)
						}
					}
				}
				p.send(frame.Binary, "go")
				got := p.read()
				if len(got) != test.messages {
					t.Fatalf("got %d messages of %d", len(got), test.messages)
				}
				for i, f := range got {
					if f.payload != payload {
						t.Fatalf("message %d is wrong", i)
					}
				}
				p.sendClose(1000, "")
				p.quit()
			})
		}
	}
}

// L8.3: one that has not taken everything is slow also when the message that is too much is the second one.
func TestLargeMessageToSlowReader(t *testing.T) {
	n := newNode(t, noPings, func(cfg *Config) { cfg.MaxPending = testMaxMessage + 1 })
	p := n.connect()
	p.SetWindow(1)
	var first, second error
	n.h.message = func(c *Conn, _ frame.OpCode, _ []byte) {
		payload := []byte(strings.Repeat("x", 2*testMaxMessage))
		first, second = c.Send(frame.Binary, payload), c.Send(frame.Binary, payload)
	}
	p.send(frame.Binary, "go")
	if first != nil || !errors.Is(second, ErrSlow) {
		t.Errorf("first: %v, second: %v", first, second)
	}
	p.SetWindow(1 << 20)
	n.net.Run()
	got := p.read()
	if len(got) != 2 || len(got[0].payload) != 2*testMaxMessage || got[1].String() != `close 3335 "unexpected-close"` {
		t.Errorf("got %d frames, the last %v", len(got), got[len(got)-1])
	}
	p.sendClose(3335, "")
	p.quit()
}

// L8.3: of empty messages no more may wait than a sixteenth of the limit: at it nothing happens, one above it closes.
func TestSlowByUnits(t *testing.T) {
	for name, send := range map[string]func(c *Conn) error{
		"Send":         func(c *Conn) error { return c.Send(frame.Binary, nil) },
		"SendPrepared": func(c *Conn) error { return c.SendPrepared(Prepare(frame.Binary, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, noPings, func(cfg *Config) { cfg.MaxPending = testMaxMessage + 16 })
			p := n.connect()
			p.SetWindow(0)
			most := n.cfg.MaxPending / 16
			n.on(func() {
				c := n.only()
				for i := range most {
					if err := send(c); err != nil {
						t.Fatalf("message %d of %d: %v", i+1, most, err)
					}
				}
				if err := send(c); !errors.Is(err, ErrSlow) {
					t.Errorf("message %d: %v", most+1, err)
				}
			})
			p.SetWindow(1 << 20)
			n.net.Run()
			if got := p.read(); len(got) != 1 || got[0].String() != `close 3335 "unexpected-close"` {
				t.Errorf("got %d frames", len(got))
			}
			p.sendClose(3335, "")
			p.quit()
		})
	}
}
