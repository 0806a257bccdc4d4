//go:build !race && !invariants

package loop

import (
	"net/netip"
	"testing"
)

// Nothing is allocated on the way of a message, nor for a task whose object is used again. (The invariants build allocates
// to find out its goroutine, the race build at random.)
func TestAllocations(t *testing.T) {
	k, l := newFake()
	turn := func() {
		l.Begin()
		l.SocketEvent(0, true, false)
		l.End()
	}
	check := func(name string, f func()) {
		t.Helper()
		for range 100 {
			f()
		}
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check("echo of a small message", turn)
	if k.written == 0 {
		t.Error("nothing was written")
	}

	k.short = 3
	check("echo with short writes", func() {
		turn()
		for l.Pending(0) > 0 {
			l.Begin()
			l.SocketEvent(0, false, true)
			l.End()
		}
	})
	k.short = 0

	sh := NewShared(make([]byte, 100))
	task := &task{func() {
		l.WriteUrgent(0, fakeMessage)
		l.Write(0, fakeMessage)
		l.WriteShared(0, sh)
		l.SetTimer(0, l.Now()+1e9)
		l.CancelTimer(0)
		l.NotifyDrained(0)
	}}
	check("Post of a task that is used again, with urgent, shared and own output", func() {
		if !l.Post(task) {
			t.Fatal("refused")
		}
		l.Begin()
		l.RunTasks()
		l.End()
	})

	l.Begin()
	for range 10_000 {
		l.Accept(3, 0, netip.AddrPort{})
	}
	l.End()
	check("broadcast to 10,000 sockets", func() {
		l.Begin()
		for slot := range uint32(10_000) {
			l.WriteShared(slot, sh)
		}
		l.End()
	})

	q := (&queues{}).get()
	check("a queue that never runs empty", func() {
		for range 10 {
			copy(q.reserve(len(fakeMessage), 0), fakeMessage)
			q.appendShared(sh, 0)
		}
		q.appendUrgent(fakeMessage)
		for q.bytes > 500 {
			q.wrote(min(77, len(q.vectors(l.iov[:0])[0])))
		}
	})
}
