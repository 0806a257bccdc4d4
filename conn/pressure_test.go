package conn

import (
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// TestBudgetBroadcast: L8.6, what is shared between peers that do not read counts once, and each of them holds its part of
// it: of those who wait for the same, none is closed before one who holds more alone.
func TestBudgetBroadcast(t *testing.T) {
	n := newNode(t, withBudget(1<<20), noPings)
	alone, together, reads := n.connect(), []*peer{n.connect(), n.connect(), n.connect()}, n.connect()
	for _, p := range append([]*peer{alone}, together...) {
		p.read()
		p.SetWindow(0)
	}
	budget := n.cfg.Budget
	send := func(size int, slots ...uint32) {
		t.Helper()
		m := Prepare(frame.Binary, make([]byte, size))
		n.on(func() {
			for _, slot := range slots {
				if err := n.reg.at(slot).SendPrepared(m); err != nil {
					t.Error(err)
				}
			}
		})
	}
	send(60_000, 0)
	send(120_000, 1, 2, 3, 4) // 40,000 for each of those who do not read it
	n.on(n.reg.Account)
	if held := budget.Held(); held < 180_000 || held > 181_000 {
		t.Errorf("%d bytes are known to be held, expected 180,000 and little more", held)
	}
	budget.SetBase(budget.part(95) - budget.Held())
	n.on(n.reg.Account)
	n.advance(time.Second)
	n.h.expect(append(repeat("open", 5), `close 1013 "memory-limit-exceeded" memory-limit`)...)
	if n.reg.at(0).state != Closed {
		t.Error("not the one who held most was closed")
	}
	budget.SetBase(2 * budget.Limit())
	n.on(n.reg.Account)
	n.advance(100 * time.Millisecond)
	n.h.expect(repeat(`close 1013 "memory-limit-exceeded" memory-limit`, 3)...)
	if held := budget.Held(); held > 1000 {
		t.Errorf("%d bytes are still held", held)
	}
	budget.SetBase(0)
	for _, p := range append([]*peer{alone}, together...) {
		p.SetWindow(1 << 20)
		n.net.Run()
		p.expect(`close 1013 "memory-limit-exceeded"`)
		p.quit()
	}
	n.advance(time.Second)
	reads.expect("binary 120000 bytes")
	n.finish(reads)
}

// TestBudgetShedsHalfABroadcast: L8.6, a large broadcast of which the kernel has a part goes with the socket, as in
// TestBudgetShedsOutput: it would otherwise be held for as long as the peer likes.
func TestBudgetShedsHalfABroadcast(t *testing.T) {
	n := newNode(t, withBudget(1<<20), noPings)
	p := n.connect()
	p.read()
	p.SetWindow(100)
	n.on(func() {
		if err := n.only().SendPrepared(Prepare(frame.Binary, make([]byte, 50_000))); err != nil {
			t.Error(err)
		}
	})
	n.cfg.Budget.SetBase(1 << 20)
	n.on(n.reg.Account)
	n.advance(100 * time.Millisecond)
	n.h.expect("open", `close 1006 "memory-limit" memory-limit`)
	if !p.GotReset() || n.cfg.Budget.Held() != 0 {
		t.Errorf("reset %v, %d bytes still held", p.GotReset(), n.cfg.Budget.Held())
	}
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.expectNothing()
}

// TestBudgetRefusesBegun: L8.6, from 90 % whoever has sent a part of its request is refused, and what that takes is free;
// below, it may end it. Who has sent nothing holds nothing and may wait.
func TestBudgetRefusesBegun(t *testing.T) {
	for _, base := range []int64{899, 900} {
		n := newNode(t, withBudget(1000), noPings)
		begun, silent := n.dialIn(), n.dialIn()
		begun.Send([]byte(request()[:50]))
		n.net.Run()
		n.cfg.Budget.SetBase(base)
		n.on(n.reg.Account)
		n.advance(time.Second)
		begun.read()
		if refused := strings.HasPrefix(begun.http, "HTTP/1.1 503 "); refused != (base >= 900) {
			t.Errorf("with %d of 1000 used: answer %q", base, begun.http)
		}
		n.cfg.Budget.SetBase(0)
		n.advance(time.Second)
		if base >= 900 {
			if n.reg.Held() != 0 {
				t.Error("what was refused is still held")
			}
			begun.quit()
			begun = n.connect()
		} else {
			begun.Send([]byte(request()[50:]))
			n.net.Run()
			begun.read()
		}
		silent.Send([]byte(request()))
		n.net.Run()
		silent.read()
		n.finish(begun, silent)
	}
}
