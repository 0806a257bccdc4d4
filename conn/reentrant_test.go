package conn

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// A handler that does everything it may in every callback: send, close, look the connection up, close others.
func TestHandlerDoesEverythingEverywhere(t *testing.T) {
	for _, closes := range []bool{false, true} {
		for _, e := range endings {
			t.Run(fmt.Sprint(e.name, " closing ", closes), func(t *testing.T) {
				n := newNode(t)
				act := func(where string) func(c *Conn) {
					return func(c *Conn) {
						r := c.Registry()
						r.Each(func(c *Conn) {
							_ = c.Send(frame.Text, []byte(where))
							_ = c.SendPrepared(Prepare(frame.Binary, []byte(where)))
						})
						_ = c.Send(frame.Text, []byte(where))
						_, _ = r.Get(c.Ref()), r.Find(c.ID())
						_, _, _, _, _ = c.Meta(), c.Remote(), c.Pending(), c.State(), c.RTT()
						_ = r.Stats()
						if closes {
							_ = c.Close(1000, where, CauseLocal)
							_ = c.CloseFor(CauseDrain)
							r.Each(func(c *Conn) { _ = c.Close(1001, where, CauseLocal) })
						}
						if where == "close" || where == "error" && closes {
							if err := c.Send(frame.Text, nil); !errors.Is(err, ErrNotOpen) {
								t.Errorf("send within %s: %v", where, err)
							}
						}
					}
				}
				p := n.connect() // its OnOpen does nothing: e.do is for an open connection
				other := n.connect()
				var victim *Conn
				n.reg.Each(func(c *Conn) {
					if victim == nil {
						victim = c
					}
				})
				message, pong, fail, end := act("message"), act("pong"), act("error"), act("close")
				n.h.message = func(c *Conn, _ frame.OpCode, _ []byte) { message(c) }
				n.h.pong = func(c *Conn, _ time.Duration) { pong(c) }
				n.h.error = func(c *Conn, _ error) { fail(c) }
				n.h.close = func(c *Conn, _ End) { end(c) }
				n.h.drain = act("drain")
				p.Send(p.frame(frame.Text, "go"))
				p.Send(p.frame(frame.Ping, "go"))
				n.net.Run()
				n.check()
				n.on(func() {
					if e.name == "ForceAll" {
						n.reg.ForceAll()
					} else if victim.State() == Open {
						_ = victim.Close(4000, "go", CauseLocal)
					}
				})
				n.check()
				p.sendClose(1000, "")
				p.read()
				other.Reset()
				n.net.Run()
				n.check()
				n.advance(time.Minute)
				n.expectNothing()
			})
		}
	}
}

// Everything within OnOpen, in both roles, with frames of the peer right behind the handshake.
func TestHandlerClosesOthersWithinOnOpen(t *testing.T) {
	n := newNode(t)
	n.h.open = func(c *Conn) {
		c.Registry().Each(func(other *Conn) {
			if other != c {
				_ = other.Close(4000, "replaced", CauseLocal)
			}
		})
	}
	var before *peer
	for range 5 {
		p := n.connect()
		if before != nil {
			before.expect(`close 4000 "replaced"`)
			before.sendClose(4000, "")
			before.quit()
		}
		n.check()
		before = p
	}
	before.sendClose(1000, "")
	before.quit()
	n.expectNothing()
}

// A client that dials again within OnClose, which is what one does, gets a slot of its own.
func TestDialWithinOnClose(t *testing.T) {
	n := newNode(t, asClient, noPings)
	dials := 0
	n.h.close = func(c *Conn, _ End) {
		if dials++; dials < 5 {
			if err := n.reg.Dial(n.dialing(), serverAddr.Addr(), c.User+1); err != nil {
				t.Error(err)
			}
		}
	}
	p := n.dialed()
	for i := range 5 {
		switch i % 3 { // the ways in which the old socket is or is not still there
		case 0:
			p.Reset()
		case 1:
			p.CloseWrite()
		case 2:
			p.sendClose(1000, "")
			p.CloseWrite()
		}
		n.net.Run()
		n.check()
		if i == 4 {
			break
		}
		d := n.net.Dialed()
		if len(d) != 1 {
			t.Fatalf("%d dials", len(d))
		}
		p = &peer{Peer: d[0], t: t, n: n}
		p.Send([]byte(p.answer()))
		n.net.Run()
		if got := n.only().User; got != uint32(i+1) {
			t.Errorf("user %d, expected %d", got, i+1)
		}
	}
	n.expectNothing()
}

// A reference that is kept beyond the end never finds the slot's next owner, also within one turn.
func TestReferencesAfterTheEnd(t *testing.T) {
	n := newNode(t, noPings)
	var refs []Ref
	var ids []ID
	n.h.open = func(c *Conn) { refs, ids = append(refs, c.Ref()), append(ids, c.ID()) }
	for range 50 {
		p := n.connect()
		p.Reset()
		n.net.Run()
	}
	n.connect()
	for i, ref := range refs {
		c := n.reg.Get(ref)
		if last := i == len(refs)-1; (c != nil) != last || (n.reg.Find(ids[i]) != nil) != last {
			t.Errorf("reference %d of %d: %v", i, len(refs), c)
		}
		for j := range i {
			if refs[j] == ref || ids[j] == ids[i] {
				t.Errorf("connections %d and %d have the same id", i, j)
			}
		}
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}
