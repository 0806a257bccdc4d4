package loop_test

import "testing"

// Flush offers what is queued at once, does nothing to a socket whose peer does not read, and reports errors later.
func TestFlush(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	h.calls = nil
	p.SetWindow(4)
	h.data = func(slot uint32, _ []byte) {
		h.Write(slot, []byte("abc"))
		if h.Flush(slot); h.Pending(slot) != 0 || p.Writes != 1 {
			t.Errorf("%d bytes pending after %d writes", h.Pending(slot), p.Writes)
		}
		h.Write(slot, []byte("def"))
		if h.Flush(slot); h.Pending(slot) != 2 {
			t.Errorf("%d bytes pending, the peer took 4 of 6", h.Pending(slot))
		}
		p.SetWindow(100) // the kernel would tell; until then nothing is tried
		if h.Flush(slot); h.Pending(slot) != 2 {
			t.Errorf("%d bytes pending: a blocked socket was written to", h.Pending(slot))
		}
	}
	p.Send([]byte("x"))
	n.Run()
	h.expect("data 0 1", "blocked 0")
	if got := string(p.Take()); got != "abcdef" {
		t.Errorf("got %q", got)
	}
	h.data = func(slot uint32, _ []byte) {
		p.Reset()
		h.Write(slot, []byte("ghi"))
		h.Flush(slot)
		h.Write(slot, []byte("jkl"))
		h.Flush(slot)
		h.call("flushed")
	}
	p.Send([]byte("y"))
	n.Run()
	h.expect("data 0 1", "flushed", "error 0 broken pipe")
}
