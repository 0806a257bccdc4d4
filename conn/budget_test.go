package conn

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop/looptest"
)

// TestBudgetLevels: L8.6, below, at and above each of its limits; the log says once when it becomes worse and once when it
// is over.
func TestBudgetLevels(t *testing.T) {
	var log bytes.Buffer
	b := NewBudget(1000, slog.New(slog.NewTextHandler(&log, nil)))
	if b.Limit() != 1000 || b.step != 1 {
		t.Errorf("limit %d, step %d", b.Limit(), b.step)
	}
	if b := NewBudget(1<<40, nil); b.step != maxBudgetStep {
		t.Errorf("step %d of a large budget, expected %d", b.step, maxBudgetStep)
	}
	now := int64(1e9)
	b.SetBase(500)
	steps := []struct {
		used  int64
		level Level
		logs  string
	}{
		{500, Calm, ""}, {799, Calm, ""}, {800, Pausing, "80 %"}, {790, Calm, ""}, {800, Pausing, ""}, {899, Pausing, ""},
		{900, Refusing, "90 %"}, {850, Pausing, ""}, {900, Refusing, ""}, {949, Refusing, ""}, {950, Shedding, "95 %"},
		{5000, Shedding, ""}, {750, Calm, ""}, {749, Calm, "below the limit again"}, {749, Calm, ""}, {960, Shedding, "95 %"},
	}
	for _, s := range steps {
		now += saidFor
		log.Reset()
		if got := b.add(s.used-b.Used(), now); got != s.level || b.Level() != s.level || b.Used() != s.used || b.Held() != s.used-500 {
			t.Errorf("%d used: level %d and %d, expected %d", s.used, got, b.Level(), s.level)
		}
		if got := log.String(); s.logs == "" && got != "" || !strings.Contains(got, s.logs) || strings.Count(got, "\n") > 1 {
			t.Errorf("%d used: log %q, expected one line with %q", s.used, got, s.logs)
		}
	}
	log.Reset()
	now += saidFor - 1
	for _, base := range []int64{0, 5000, 0} {
		b.SetBase(base)
		b.add(0, now)
	}
	if b.Level() != Calm || log.Len() > 0 {
		t.Errorf("level %d, log %q: expected no word of up and down within %d ns", b.Level(), log.String(), saidFor)
	}
	now++
	b.add(0, now)
	if !strings.Contains(log.String(), "below") {
		t.Errorf("log %q: what is measured besides counts as well", log.String())
	}
}

// withBudget gives a node a budget of n bytes.
func withBudget(n int64) func(*Config) {
	return func(cfg *Config) { cfg.Budget = NewBudget(n, nil) }
}

// repeat returns s n times.
func repeat(s string, n int) []string { return slices.Repeat([]string{s}, n) }

// finish has the peers close, checks that each is answered, and that nothing is left.
func (n *node) finish(peers ...*peer) {
	n.t.Helper()
	for _, p := range peers {
		p.sendClose(1000, "")
		if got := p.read(); len(got) == 0 || got[len(got)-1].op != frame.Close {
			n.t.Fatalf("sent %v, expected a Close frame", got)
		}
		p.quit()
	}
	n.expectNothing()
}

// begin sends a part of a message of 60,000 bytes, which the server then holds.
func (p *peer) begin(n int) {
	p.Send(p.part(frame.Binary, false, strings.Repeat("x", n)))
	p.n.net.Run()
}

// TestBudgetPauses: L8.6, above 80 % those who hold most are not read, the others are; below 75 % all are read again.
func TestBudgetPauses(t *testing.T) {
	n := newNode(t, withBudget(1<<20), noPings)
	large := []*peer{n.connect(), n.connect()}
	medium := []*peer{n.connect(), n.connect(), n.connect()}
	small := n.connect()
	for _, p := range large {
		p.begin(60_000) // with their buffers of 64 KiB: 128 KiB
	}
	for _, p := range medium {
		p.begin(20_000) // 32 KiB each
	}
	base := n.cfg.Budget.part(80) - n.cfg.Budget.Held()
	n.cfg.Budget.SetBase(base - 1)
	n.on(n.reg.Account)
	n.advance(time.Second)
	if s := n.reg.Stats(); s.Paused != 0 || n.reg.pressure.running {
		t.Fatalf("%d are paused one byte below 80 %%", s.Paused)
	}
	n.cfg.Budget.SetBase(base)
	n.on(n.reg.Account)
	n.advance(time.Second)
	if s := n.reg.Stats(); s.Paused != 2 || s.PausedMemory != 2 {
		t.Fatalf("%d are paused, expected the two that hold half of all", s.Paused)
	}
	n.check()
	for _, p := range large {
		p.Send(p.part(frame.Continuation, true, "end"))
	}
	n.net.Run()
	medium[0].send(frame.Continuation, "end")
	small.send(frame.Text, "hello")
	n.h.expect(append(repeat("open", 6), "binary 20003 bytes", `text "hello"`)...)

	n.cfg.Budget.SetBase(n.cfg.Budget.part(75) - n.cfg.Budget.Held()) // not calm yet
	n.advance(time.Second)
	n.h.expect()
	n.cfg.Budget.SetBase(0)
	n.advance(200 * time.Millisecond)
	n.h.expect("binary 60003 bytes", "binary 60003 bytes")
	if n.reg.Stats().Paused != 0 || n.reg.pressure.running || n.reg.pressure.pauseAt != 0 {
		t.Error("the pressure has not ended")
	}
	n.finish(append(append(large, medium...), small)...)
}

// TestBudgetPausesWhoGrows: L8.6, between two looks at everybody whoever grows to the size of those that are paused is
// paused with the read that makes it so, before the loop has gone on.
func TestBudgetPausesWhoGrows(t *testing.T) {
	n := newNode(t, withBudget(10<<20), noPings)
	n.cfg.Budget.SetBase(8500 << 10) // 83 %
	a := n.connect()
	a.begin(pauseFirst - 20_000)
	if n.reg.Stats().Paused != 1 {
		t.Fatalf("who holds all there is to have is not paused with the first look")
	}
	b := n.connect()
	b.begin(10_000)
	if c := n.reg.at(1); c.flags&overBudget != 0 {
		t.Fatal("a small one is paused")
	}
	b.Send(b.part(frame.Continuation, false, strings.Repeat("x", 50_000)))
	n.net.Step()
	if c := n.reg.at(1); c.flags&overBudget == 0 {
		t.Fatal("who grew is not paused at once")
	}
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.finish(a, b)
}

// TestBudgetRefuses: L8.6, from 90 % upgrades are answered with 503; below, not.
func TestBudgetRefuses(t *testing.T) {
	n := newNode(t, withBudget(1000), noPings)
	n.cfg.Budget.SetBase(899)
	a := n.connect()
	n.cfg.Budget.SetBase(900)
	b := n.dialIn()
	b.Send([]byte(request()))
	n.net.Run()
	if b.read(); !strings.HasPrefix(b.http, "HTTP/1.1 503 ") || !strings.Contains(b.http, "Retry-After: ") {
		t.Errorf("answer %q", b.http)
	}
	b.quit()
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.finish(a, n.connect())
}

// TestBudgetSheds: L8.6, from 95 % those who hold most are closed with 1013, until it is below 90 %, and what they held is
// free at once.
func TestBudgetSheds(t *testing.T) {
	n := newNode(t, withBudget(1<<20), noPings)
	small, a, b := n.connect(), n.connect(), n.connect()
	small.begin(8_000)
	a.begin(60_000)
	b.begin(30_000)
	budget := n.cfg.Budget
	budget.SetBase(budget.part(95) - budget.Held() - 1)
	n.on(n.reg.Account)
	n.advance(time.Second)
	if n.reg.Stats().Open != 3 {
		t.Fatal("a connection was closed one byte below 95 %")
	}
	budget.SetBase(budget.part(95) - budget.Held())
	n.advance(time.Second)
	n.h.expect("open", "open", "open", `close 1013 "memory-limit-exceeded" memory-limit`)
	a.expect(`close 1013 "memory-limit-exceeded"`)
	small.expect()
	b.expect()
	if budget.Level() >= Refusing {
		t.Errorf("%d of %d are still used", budget.Used(), budget.Limit())
	}
	a.sendClose(1013, "")
	a.quit()
	budget.SetBase(0)
	n.advance(time.Second)
	n.finish(small, b)
}

// TestBudgetShedsOutput: output that waits counts as well. Its unsent messages go; one of which the kernel has a part goes
// with the socket, since no Close frame could come before its end.
func TestBudgetShedsOutput(t *testing.T) {
	for _, part := range []bool{false, true} {
		n := newNode(t, withBudget(1<<20), noPings)
		p := n.connect()
		p.read()
		p.SetWindow(0)
		if part {
			p.SetWindow(100)
		}
		n.on(func() {
			c := n.only()
			for range 3 {
				if err := c.Send(frame.Binary, make([]byte, 50_000)); err != nil {
					t.Error(err)
				}
			}
		})
		if held := n.cfg.Budget.Held(); held < 150_000 || held > 151_000 {
			t.Errorf("%d bytes are known to be held", held)
		}
		n.cfg.Budget.SetBase(1 << 20)
		n.on(n.reg.Account)
		n.advance(100 * time.Millisecond)
		n.h.expect("open", map[bool]string{false: `close 1013 "memory-limit-exceeded" memory-limit`, true: `close 1006 "memory-limit" memory-limit`}[part])
		if part {
			if !p.GotReset() {
				t.Error("the socket was not reset")
			}
		} else {
			p.SetWindow(1000)
			n.net.Run()
			p.expect(`close 1013 "memory-limit-exceeded"`)
			p.quit()
		}
		n.cfg.Budget.SetBase(0)
		n.advance(time.Second)
		n.expectNothing()
	}
}

// TestBudgetPauseEnds: who has been paused for --write-timeout is closed, or it would hold what it holds for ever, for a
// message whose rest is not read is never complete.
func TestBudgetPauseEnds(t *testing.T) {
	n := newNode(t, withBudget(1<<20))
	p := n.connect()
	p.begin(60_000)
	n.cfg.Budget.SetBase(850 << 10)
	n.on(n.reg.Account)
	n.advance(n.cfg.WriteTimeout - time.Second)
	if n.reg.Stats().Paused != 1 {
		t.Fatal("not paused, or closed too early")
	}
	n.advance(1500 * time.Millisecond)
	n.h.expect("open", `close 1013 "memory-limit-exceeded" memory-limit`)
	n.cfg.Budget.SetBase(0)
	n.advance(10 * time.Second)
	n.expectNothing()
}

// TestBudgetPausedIsNotDead: L7.2, a connection that is not read cannot be heard; it is not closed for that. Closing, it is
// read again, or the peer's Close would not be seen.
func TestBudgetPausedIsNotDead(t *testing.T) {
	n := newNode(t, withBudget(1<<20), func(cfg *Config) { cfg.WriteTimeout = time.Hour })
	p := n.connect()
	p.begin(60_000)
	n.cfg.Budget.SetBase(850 << 10)
	n.on(n.reg.Account)
	n.advance(2 * time.Minute)
	n.h.expect("open")
	n.on(func() {
		if err := n.only().Close(4000, "enough", CauseLocal); err != nil {
			t.Error(err)
		}
	})
	p.sendClose(4000, "")
	n.h.expect(`close 4000 "" local`)
	p.quit()
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.expectNothing()
}

// TestBudgetOff: without a budget nothing is paused, whatever is held.
func TestBudgetOff(t *testing.T) {
	n := newNode(t, noPings)
	p := n.connect()
	p.begin(60_000)
	n.on(n.reg.Account)
	n.advance(time.Minute)
	if n.reg.Stats().Paused != 0 {
		t.Error("paused")
	}
	n.finish(p)
}

// TestBudgetFollows: a flood from everybody, in random pieces to peers that read or do not, keeps the budget's figure at
// what is really held, and what is held within the budget and what a read may bring.
func TestBudgetFollows(t *testing.T) {
	n := newNode(t, withBudget(256<<10), noPings, func(cfg *Config) { cfg.WriteTimeout = time.Minute })
	rnd := rand.New(rand.NewPCG(8, 6))
	n.net.Faults = &looptest.Faults{Rand: rnd, ShortRead: 0.3, ShortWrite: 0.3, Again: 0.1, Shuffle: true}
	n.h.message = func(c *Conn, op frame.OpCode, p []byte) { _ = c.Send(op, p) }
	var peers []*peer
	for range 60 {
		peers = append(peers, n.connect())
	}
	most := int64(0)
	for range 3000 {
		p := peers[rnd.IntN(len(peers))]
		switch {
		case p.Closed():
		case rnd.IntN(3) > 0:
			p.Send(p.part(frame.Binary, false, strings.Repeat("x", rnd.IntN(20_000))))
			p.Send(p.part(frame.Continuation, rnd.IntN(2) == 0, "x"))
			if rnd.IntN(2) == 0 {
				p.SetWindow(rnd.IntN(10_000))
			}
		default:
			n.advance(time.Duration(rnd.IntN(30)) * time.Millisecond)
		}
		n.advance(10 * time.Millisecond) // a tick of the loop's timers: what may come unlooked at
		n.check()
		n.on(n.reg.Account) // what went out is not told by itself
		b := n.cfg.Budget
		if known, held := b.Held(), n.reg.pressure.partial+n.net.Loop.HeldBytes(); known-held > b.step || held-known > b.step {
			t.Fatalf("%d bytes are held, the budget knows of %d", held, known)
		}
		most = max(most, b.Held())
	}
	s := n.reg.Stats()
	if s.PausedMemory == 0 || most < 200<<10 || most > 256<<10+64<<10 {
		t.Errorf("%d paused, %d closed, %d bytes at most of %d", s.PausedMemory, s.Disconnects[CauseMemory][codeIndex(1013)], most, 256<<10)
	}
	n.reg.ForceAll()
	n.advance(time.Second)
	n.expectNothing()
	if n.cfg.Budget.Held() != 0 {
		t.Errorf("the budget still counts %d bytes", n.cfg.Budget.Held())
	}
}

// TestBudgetPausesAtOnce: L8.6, between the moment when memory becomes short and the first look at everybody, who is at
// the first measure is paused with the very read that brings it there.
func TestBudgetPausesAtOnce(t *testing.T) {
	n := newNode(t, withBudget(10<<20), noPings)
	p := n.connect()
	n.cfg.Budget.SetBase(8500 << 10) // 83 %
	n.net.Loop.Begin()               // not End, which runs the timers
	n.reg.OnData(0, p.part(frame.Binary, false, strings.Repeat("x", 60_000)))
	if n.only().flags&overBudget == 0 {
		t.Error("not paused at once")
	}
	n.net.Loop.End()
	n.reg.ForceAll()
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.expectNothing()
}

// TestBudgetPausesAll: L8.6, from 90 % everybody is paused who holds something worth having, also later, with the read that
// brings it there; but not who holds less.
func TestBudgetPausesAll(t *testing.T) {
	n := newNode(t, withBudget(10<<20), noPings)
	large, medium, small := n.connect(), n.connect(), n.connect()
	large.begin(60_000)
	medium.begin(5_000)
	small.begin(100)
	n.cfg.Budget.SetBase(9400 << 10) // 92 %
	n.on(n.reg.Account)
	n.advance(200 * time.Millisecond)
	paused := func(slot uint32) bool { return n.reg.at(slot).flags&overBudget != 0 }
	if !paused(0) || !paused(1) || paused(2) {
		t.Errorf("paused: %v %v %v, expected all but the small one", paused(0), paused(1), paused(2))
	}
	small.Send(small.part(frame.Continuation, false, strings.Repeat("x", 3000)))
	n.net.Step()
	if got := n.reg.at(2).holds(); !paused(2) == (got >= minHolder) {
		t.Errorf("holds %d, paused %v", got, paused(2))
	}
	small.Send(small.part(frame.Continuation, false, strings.Repeat("x", 3000)))
	n.net.Step()
	if !paused(2) {
		t.Error("who grew to be worth it is not paused")
	}
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.finish(large, medium, small)
}

// TestBudgetPausedThenClosed: a paused connection that is being closed waits for the peer's Close as every other, also
// when it would have been paused for too long.
func TestBudgetPausedThenClosed(t *testing.T) {
	n := newNode(t, withBudget(1<<20), noPings, func(cfg *Config) { cfg.CloseTimeout, cfg.WriteTimeout = 8*time.Second, 4*time.Second })
	p := n.connect()
	p.begin(60_000)
	n.cfg.Budget.SetBase(850 << 10)
	n.on(n.reg.Account)
	n.advance(time.Second)
	n.on(func() { n.only().closeFor(CauseDrain) })
	n.advance(6 * time.Second)
	p.expect(`close 3333 "drain"`)
	p.sendClose(3333, "")
	n.h.expect("open", `close 3333 "" drain`)
	p.quit()
	n.cfg.Budget.SetBase(0)
	n.advance(time.Second)
	n.expectNothing()
}

// TestTwoPauses: who is paused for two reasons is read when both are gone.
func TestTwoPauses(t *testing.T) {
	for _, first := range []connFlags{throttled, overBudget} {
		n := newNode(t, noPings)
		p := n.connect()
		n.on(func() {
			c := n.only()
			c.pause(throttled)
			c.pause(overBudget)
			c.resume(first)
			c.resume(first)
		})
		p.send(frame.Text, "x")
		n.h.expect("open")
		n.check()
		n.on(func() { n.only().resume(pauses &^ first) })
		n.h.expect(`text "x"`)
		n.finish(p)
	}
}
