package loop

import "testing"

// Trim lets go of the stock for the next burst, and everything works afterwards.
func TestTrim(t *testing.T) {
	k, l := newFake()
	for range 3 {
		before := k.written
		l.Begin()
		l.SocketEvent(0, true, false)
		l.End()
		if k.written == before || l.queues.kept == 0 || len(l.queues.free) != 1 {
			t.Fatalf("%d bytes written, %d kept in %d queues", k.written-before, l.queues.kept, len(l.queues.free))
		}
		l.Begin()
		l.Trim()
		l.End()
		if l.queues.kept != 0 || l.queues.free != nil || l.dirty != nil || l.freed != nil || l.errors != nil || l.notify != nil {
			t.Fatalf("%d bytes kept in %d queues, or lists", l.queues.kept, cap(l.queues.free))
		}
	}
	l.Begin()
	l.Write(0, []byte("x"))
	l.Trim() // a list that is in use stays
	before := k.written
	l.End()
	if k.written != before+1 {
		t.Error("what was to be written was forgotten")
	}
}
