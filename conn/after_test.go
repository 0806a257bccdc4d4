package conn

import (
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// L5.4: whatever comes for a connection after its end changes nothing: no second OnClose, no answer, no count, whether it
// ended by the peer's Close, by an answer to ours, by a broken protocol, or by force.
func TestAfterTheEnd(t *testing.T) {
	ends := map[string]func(n *node, p *peer){
		"closed by the peer": func(n *node, p *peer) { p.sendClose(1000, "bye") },
		"closed by us": func(n *node, p *peer) {
			n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
			p.sendClose(4000, "")
		},
		"broken protocol": func(n *node, p *peer) { p.Send([]byte{0xff, 0xff}); n.net.Run() },
		"forced": func(n *node, p *peer) {
			n.on(func() { _ = n.only().Close(4000, "go", CauseLocal) })
			n.advance(n.cfg.CloseTimeout + time.Second)
		},
	}
	later := map[string]func(n *node, p *peer){
		"a message":     func(_ *node, p *peer) { p.Send(p.frame(frame.Text, "late")) },
		"a ping":        func(_ *node, p *peer) { p.Send(p.frame(frame.Ping, "late")) },
		"a Close":       func(_ *node, p *peer) { p.Send(p.frame(frame.Close, closeBody(1001, "late"))) },
		"garbage":       func(_ *node, p *peer) { p.Send([]byte("garbage")) },
		"a reset":       func(_ *node, p *peer) { p.Reset() },
		"FIN":           func(_ *node, p *peer) { p.CloseWrite() },
		"nothing, long": func(n *node, _ *peer) { n.advance(time.Minute) },
	}
	for name, end := range ends {
		for what, come := range later {
			t.Run(name+", then "+what, func(t *testing.T) {
				n := newNode(t, noPings)
				p := n.connect()
				ref := n.only().Ref()
				end(n, p)
				p.read()
				before := n.reg.Stats()
				if before.Open != 0 || before.Disconnected() != 1 {
					t.Fatalf("open %d, disconnected %d", before.Open, before.Disconnected())
				}
				n.h.calls = nil
				if !p.Closed() { // a closed socket gets nothing
					come(n, p)
					n.net.Run()
				}
				n.on(func() {
					if n.reg.Get(ref) != nil {
						t.Error("the connection can still be found")
					}
				})
				n.h.expect()
				if got := p.read(); len(got) != 0 {
					t.Errorf("sent %v", got)
				}
				after := n.reg.Stats()
				after.Lingering, before.Lingering, after.Errors = 0, 0, before.Errors
				if what == "a reset" && name != "forced" { // of a forced one the socket is gone already
					before.After[AlreadyDisconnected]++
				}
				if after != before {
					t.Errorf("counted\n%+v, before\n%+v", after, before)
				}
				p.CloseWrite()
				n.advance(time.Minute)
				n.expectNothing()
			})
		}
	}
}

// L5.4: who asks for a connection by its id after its end gets nothing, and that is counted by how it had ended: while its
// socket lingers, when that is gone, and when its slot is another's.
func TestAskedForAfterTheEnd(t *testing.T) {
	n := newNode(t, noPings)
	find := func(id ID, want AfterEnd) {
		t.Helper()
		before := n.reg.Stats().After
		before[want]++
		n.on(func() {
			if n.reg.Find(id) != nil {
				t.Error("found")
			}
		})
		if got := n.reg.Stats().After; got != before {
			t.Errorf("counted %v, expected %v", got, before)
		}
	}
	p := n.connect()
	id := n.only().ID()
	n.on(func() {
		if n.reg.Find(id) != n.only() {
			t.Error("a connection that is open is not found")
		}
	})
	if n.reg.Stats().After != [NumAfterEnds]uint64{} {
		t.Error("a question for an open connection is counted")
	}
	p.sendClose(1000, "")
	find(id, AlreadyDisconnected)
	p.quit()
	find(id, AlreadyDisconnected)

	n.connect()
	forced := n.only().ID()
	if forced.Slot() != id.Slot() {
		t.Fatal("the slot is not used again")
	}
	n.on(func() { n.only().closeFor(CauseDrain) })
	n.advance(n.cfg.CloseTimeout + time.Second)
	find(forced, AfterForced)
	find(id, AlreadyDisconnected)
	p = n.connect()
	find(forced, AlreadyDisconnected) // its slot is another's now
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
	for a, want := range map[AfterEnd]string{AlreadyDisconnected: "already-disconnected", AfterForced: "after-forceful-close"} {
		if a.String() != want {
			t.Errorf("%v, expected %s", a, want)
		}
	}
}
