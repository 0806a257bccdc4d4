package loop

import (
	"net/netip"
	"runtime"
	"testing"
	"weak"
)

// An idle loop does not keep the buffers of its last write alive.
func TestLetsGoOfWritten(t *testing.T) {
	_, l := newFake()
	var gone []weak.Pointer[byte]
	l.Begin()
	for range 3 {
		sh := NewShared(make([]byte, 1000))
		l.WriteShared(0, sh)
		gone = append(gone, weak.Make(&sh.b[0]))
	}
	l.End()
	runtime.GC()
	for i, w := range gone {
		if w.Value() != nil {
			t.Errorf("shared unit %d is kept after it was written", i)
		}
	}
	runtime.KeepAlive(l)
}

// The lists of sockets with something to do give a burst's memory back: at the limit and above it.
func TestListsOfABurst(t *testing.T) {
	for _, c := range []int{keptRefs, keptRefs + 1} {
		if got, want := trim(make([]ref, 0, c)) == nil, c > keptRefs; got != want {
			t.Errorf("a list of %d: let go %v, expected %v", c, got, want)
		}
		if trim(make([]ref, 1, c)) == nil {
			t.Errorf("a list of %d that is not empty is let go", c)
		}
	}
	_, l := newFake()
	l.Begin()
	for range keptRefs {
		l.Accept(3, 0, netip.AddrPort{})
	}
	l.End()
	l.Begin()
	for slot := range uint32(keptRefs + 1) {
		l.WriteUrgent(slot, fakeMessage)
		l.NotifyDrained(slot)
	}
	l.End()
	l.Begin()
	for slot := range uint32(keptRefs + 1) {
		l.fail(l.at(slot), 1)
		l.Close(slot)
	}
	l.End()
	if n := max(cap(l.dirty), cap(l.notify), cap(l.errors), cap(l.freed)); n > keptRefs {
		t.Errorf("a list keeps room for %d sockets of a burst", n)
	}
	if l.Open() != 0 || len(l.free) != l.Slots() {
		t.Errorf("%d sockets are open, %d slots of %d are free", l.Open(), len(l.free), l.Slots())
	}
}

// A kernel timer that fires before its time by the loop's clock is set again.
func TestTimerFiresEarly(t *testing.T) {
	checkLeaks(t)
	g, _ := startEchoes(t, 1, nil)
	fired := make(chan int64, 1)
	var at int64
	g.Each(func(l *Loop) {
		timers := l.NewTimers(func(uint32) { fired <- l.Now() })
		at = l.Now() + 100e6
		timers.Set(0, at)
	})
	g.Each(func(l *Loop) { g.kernels[0].SetTimer(l.Now()) }) // as if it had been set for now
	if got := <-fired; got < at {
		t.Errorf("fired %d ns early", at-got)
	}
}
