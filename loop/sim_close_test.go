package loop_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"

	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

// A client that sends 1 MiB and half-closes at once: everything is handed over before OnEOF, once, and the answers go out
// however slowly the peer takes them.
func TestEOFAfterEverything(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	h.data = func(slot uint32, b []byte) { h.Write(slot, b) }
	h.eof = func(slot uint32) { h.Write(slot, []byte("bye")); h.NotifyDrained(slot) }
	h.drained = func(slot uint32) { h.Close(slot) }
	sent := pattern(1 << 20)
	p.Send(sent)
	p.CloseWrite()
	p.SetWindow(1000)
	n.Run()
	if !bytes.Equal(h.got[0], sent) {
		t.Fatalf("%d bytes were handed over, expected %d", len(h.got[0]), len(sent))
	}
	for i, call := range h.calls {
		if call == "eof 0" && i != len(h.calls)-1 {
			t.Fatalf("after the end: %q", h.calls[i+1:])
		}
	}
	if last := h.calls[len(h.calls)-1]; last != "eof 0" {
		t.Fatalf("the last call is %q", last)
	}
	h.calls = nil
	var got []byte
	for turns := 0; !p.Closed(); turns++ {
		if turns > 1000 {
			t.Fatal("no end")
		}
		p.SetWindow(100_000)
		n.Run()
		got = append(got, p.Take()...)
	}
	h.expect("drained 0")
	if !bytes.Equal(got, append(sent, "bye"...)) || p.GotReset() {
		t.Errorf("%d bytes came back, reset: %v", len(got), p.GotReset())
	}
}

// After the FIN nothing is read and nothing spins, with and without output that waits.
func TestEOFIsQuiet(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	p.CloseWrite()
	n.Run()
	h.expect("accept 0 listener 0 from 192.0.2.9:1234", "eof 0")
	if n.Step() {
		t.Error("a turn with nothing to do")
	}
	p.SetWindow(0)
	on(n, func() { h.Write(0, []byte("answer")) })
	h.expect("blocked 0")
	if n.Step() {
		t.Error("a turn with nothing to do")
	}
	p.SetWindow(3)
	n.Run()
	p.SetWindow(3)
	n.Run()
	if got := string(p.Take()); got != "answer" {
		t.Errorf("got %q", got)
	}
	h.expect()
	p.Reset() // the loop is not told before it does something
	on(n, func() { h.Write(0, []byte("more")) })
	h.expect("error 0 broken pipe")
}

// The peer resets at any step of a life: one OnError, no call after it, and everything is given back.
func TestResetAtEveryStep(t *testing.T) {
	steps := []func(n *looptest.Net, h *scripted, p *looptest.Peer){
		func(n *looptest.Net, _ *scripted, p *looptest.Peer) { p.Send(pattern(10)); n.Run() },
		func(_ *looptest.Net, _ *scripted, p *looptest.Peer) { p.Send(pattern(300_000)) },
		func(n *looptest.Net, _ *scripted, _ *looptest.Peer) { n.Step() },
		func(n *looptest.Net, _ *scripted, p *looptest.Peer) { p.SetWindow(10); n.Run() },
		func(n *looptest.Net, h *scripted, _ *looptest.Peer) { on(n, func() { h.Write(0, pattern(100)) }) },
		func(n *looptest.Net, h *scripted, _ *looptest.Peer) { on(n, func() { h.WriteUrgent(0, []byte("!")) }) },
		func(n *looptest.Net, h *scripted, _ *looptest.Peer) { on(n, func() { h.NotifyDrained(0) }) },
		func(n *looptest.Net, _ *scripted, p *looptest.Peer) { p.SetWindow(5); n.Run() },
		func(n *looptest.Net, h *scripted, _ *looptest.Peer) {
			on(n, func() { h.SetTimer(0, h.Now()+1e9) })
		},
		func(n *looptest.Net, _ *scripted, p *looptest.Peer) { p.CloseWrite(); n.Run() },
		func(n *looptest.Net, h *scripted, p *looptest.Peer) { p.SetWindow(1 << 30); n.Run() },
		func(n *looptest.Net, h *scripted, _ *looptest.Peer) { on(n, func() { h.ShutdownWrite(0) }) },
	}
	for k := range len(steps) + 1 {
		for _, paused := range []bool{false, true} {
			t.Run(fmt.Sprintf("step %d paused %v", k, paused), func(t *testing.T) {
				n, h := newSim(t)
				p := n.Client(0, remote)
				gen := h.Generation(0)
				h.data = func(slot uint32, b []byte) { h.Write(slot, b) }
				for _, step := range steps[:k] {
					step(n, h, p)
				}
				if paused {
					on(n, func() { h.PauseRead(0) })
				}
				p.Reset()
				n.Run()
				if h.InUse(0) { // nobody watches: it turns out when something is written, or read again
					if k == len(steps) {
						on(n, func() { h.Close(0) }) // our FIN is out, theirs is in: there is nothing to turn out
						h.call("error")
					} else {
						on(n, func() { h.ResumeRead(0); h.Write(0, []byte("x")) })
					}
				}
				errors := 0
				for i, call := range h.calls {
					if call[:5] == "error" {
						errors++
						if i != len(h.calls)-1 {
							t.Errorf("after the error: %q", h.calls[i+1:])
						}
					}
				}
				if errors != 1 || n.Sockets() != 0 || h.Open() != 0 || h.PendingBytes() != 0 || h.Generation(0) != gen+1 {
					t.Errorf("%d errors, %d sockets, %d open, %d bytes pending: %q", errors, n.Sockets(), h.Open(), h.PendingBytes(), h.calls)
				}
				h.calls = nil
				n.Advance(10e9)
				h.expect()
			})
		}
	}
}

// Close and Reset work inside every callback: no other call comes for that socket, what it had queued, asked for and
// timed is gone, and the slot is used again in a later turn with another generation.
func TestCloseInEveryCallback(t *testing.T) {
	const slot = 0
	for _, test := range []struct {
		name  string
		hook  func(h *scripted, f func())
		cause func(n *looptest.Net, h *scripted) *looptest.Peer
	}{
		{"OnAccept", func(h *scripted, f func()) { h.accept = func(uint32) { f() } },
			func(n *looptest.Net, _ *scripted) *looptest.Peer { return n.Client(0, remote) }},
		{"OnConnect", func(h *scripted, f func()) { h.connect = func(uint32, syscall.Errno) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				on(n, func() { h.Dial(remote, netip.Addr{}); h.Write(slot, []byte("early")) })
				return n.Dialed()[0]
			}},
		{"OnConnect, refused", func(h *scripted, f func()) { h.connect = func(uint32, syscall.Errno) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				n.Refuse = syscall.ECONNREFUSED
				on(n, func() { h.Dial(remote, netip.Addr{}) })
				return n.Dialed()[0]
			}},
		{"OnData", func(h *scripted, f func()) { h.data = func(uint32, []byte) { f() } },
			func(n *looptest.Net, _ *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.Send(pattern(3 * loop.ReadBufferSize))
				p.CloseWrite()
				return p
			}},
		{"OnEOF", func(h *scripted, f func()) { h.eof = func(uint32) { f() } },
			func(n *looptest.Net, _ *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.CloseWrite()
				return p
			}},
		{"OnError", func(h *scripted, f func()) { h.error = func(uint32) { f() } },
			func(n *looptest.Net, _ *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.Send([]byte("lost"))
				p.Reset()
				return p
			}},
		{"OnError after a write", func(h *scripted, f func()) { h.error = func(uint32) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				on(n, func() { p.Reset(); h.Write(slot, []byte("x")); h.NotifyDrained(slot) })
				return p
			}},
		{"OnBlocked", func(h *scripted, f func()) { h.blocked = func(uint32) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.SetWindow(5)
				h.PostFunc(func() { h.Write(slot, pattern(10)); h.NotifyDrained(slot) })
				return p
			}},
		{"OnDrained", func(h *scripted, f func()) { h.drained = func(uint32) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.SetWindow(5)
				on(n, func() { h.Write(slot, pattern(10)); h.NotifyDrained(slot) })
				p.SetWindow(100)
				p.Send([]byte("of the same event"))
				return p
			}},
		{"OnTimer", func(h *scripted, f func()) { h.timer = func(uint32) { f() } },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				on(n, func() { h.SetTimer(slot, h.Now()+1e9); h.Write(slot, []byte("x")) })
				n.Advance(2e9)
				return p
			}},
		{"a task", func(h *scripted, f func()) { h.PostFunc(func() { f() }) },
			func(n *looptest.Net, h *scripted) *looptest.Peer {
				p := n.Client(0, remote)
				p.Send([]byte("x"))
				return p
			}},
	} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reset %v", test.name, reset), func(t *testing.T) {
				n, h := newSim(t)
				gen := h.Generation(slot)
				closes := 0
				test.hook(h, func() {
					closes++
					h.Write(slot, []byte("lost")) // queued before, so it is lost
					h.WriteUrgent(slot, []byte("lost"))
					h.NotifyDrained(slot)
					h.SetTimer(slot, h.Now()+5e9)
					h.PauseRead(slot)
					if reset {
						h.Reset(slot)
					} else {
						h.Close(slot)
					}
					h.call("closed")
					if h.InUse(slot) || h.Generation(slot) != gen+1 || h.PendingBytes() != 0 {
						t.Errorf("in use: %v, generation %d, %d bytes pending", h.InUse(slot), h.Generation(slot), h.PendingBytes())
					}
					other, errno := h.Dial(remote, netip.Addr{}) // in the same turn
					if errno != 0 || other == slot {
						t.Errorf("the slot is used again in the turn in which it was closed: %d %v", other, errno)
					}
					h.Close(other)
				})
				p := test.cause(n, h)
				n.Run()
				if closes != 1 || !p.Closed() || reset && !p.GotReset() || n.Sockets() != 0 || h.Open() != 0 {
					t.Fatalf("%d closes, closed %v, reset %v, %d sockets: %q", closes, p.Closed(), p.GotReset(), n.Sockets(), h.calls)
				}
				if last := h.calls[len(h.calls)-1]; last != "closed" {
					t.Errorf("calls after the close: %q", h.calls)
				}
				if bytes.Contains(p.Take(), []byte("lost")) {
					t.Error("what was queued was written")
				}

				// The next owner of the slot starts clean.
				*h = scripted{Loop: h.Loop, t: t, got: make(map[uint32][]byte)}
				n.Refuse = 0
				for range 2 { // the slot dialled above is free as well; one of the two gets ours
					next := n.Client(0, remote)
					next.Send([]byte("hi"))
					n.Run()
					if len(next.Take()) != 0 {
						t.Error("the next owner of the slot sends what the last one had queued")
					}
				}
				if !h.InUse(slot) || h.Generation(slot) != gen+1 || string(h.got[slot]) != "hi" {
					t.Errorf("in use: %v, generation %d, got %q", h.InUse(slot), h.Generation(slot), h.got[slot])
				}
				h.calls = nil
				n.Advance(20e9)
				h.expect()
			})
		}
	}
}

// An event whose socket was closed by an earlier event of the batch does nothing, also not to the descriptor's next owner.
func TestStaleEvents(t *testing.T) {
	n, h := newSim(t)
	first, second, third := n.Client(0, remote), n.Client(0, remote), n.Client(0, remote)
	h.calls = nil
	for _, p := range []*looptest.Peer{first, second, third} {
		p.Send([]byte("x"))
	}
	h.data = func(slot uint32, _ []byte) {
		if slot == 0 {
			h.Close(1)
			h.PauseRead(2)
		}
	}
	n.Run()
	h.expect("data 0 1")
	if !second.Closed() || !second.GotReset() {
		t.Error("the second is not closed, or its unread input did not matter")
	}
	n.Client(0, remote)
	h.expect("accept 1 listener 0 from 192.0.2.9:1234") // its slot is free in the next turn
	on(n, func() { h.ResumeRead(2) })
	h.expect("data 2 1")

	// Events of every kind for slots without a socket.
	on(n, func() { h.Close(1) })
	h.calls = nil
	h.Begin()
	for slot := range uint32(h.Slots()) {
		if !h.InUse(slot) {
			h.SocketEvent(slot, true, true)
		}
	}
	h.SocketEvent(0, true, true) // and readiness that is not true
	h.End()
	h.expect()
}

func TestMisuse(t *testing.T) {
	n, h := newSim(t)
	n.Client(0, remote)
	on(n, func() { h.Close(0) })
	for name, f := range map[string]func(){
		"Close":       func() { h.Close(0) },
		"Reset":       func() { h.Reset(0) },
		"Write":       func() { h.Write(0, []byte("x")) },
		"Reserve":     func() { h.Reserve(0, 1) },
		"WriteShared": func() { h.WriteShared(0, loop.NewShared([]byte("x"))) },
		"WriteUrgent": func() { h.WriteUrgent(0, []byte("x")) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s after Close does not panic", name)
				}
			}()
			f()
		}()
	}
	if h.Pending(0) != 0 || h.OldestPending(0) != 0 || h.UrgentPending(0) || h.PendingBytes() != 0 {
		t.Error("a closed socket has something pending")
	}
	h.DropUnsent(0)
	h.CancelTimer(0)
	if !loop.Invariants { // that build panics: see TestUseAfterClose
		on(n, func() { h.SetTimer(0, h.Now()+1e9) })
		n.Client(0, remote)
		h.calls = nil
		n.Advance(10e9)
		h.expect() // the timer set for a closed socket does not hit the slot's next owner
	}
}

// A write error does not hide what the peer had sent before, and the end of the stream that follows it is not a FIN.
func TestWriteErrorThenRead(t *testing.T) {
	n, h := newSim(t)
	k := &cut{Net: n}
	n.Loop = loop.New(loop.Config{Kernel: k, Handler: h})
	h.Loop = n.Loop
	p := n.Client(0, remote)
	p.SetWindow(1)
	on(n, func() { h.Write(0, []byte("xx")) })
	h.calls = nil
	k.cut = true
	p.SetWindow(1)
	p.Send([]byte("last words"))
	p.CloseWrite()
	n.Step()
	h.expect("data 0 10", "error 0 connection reset by peer")

	// The same with nothing sent.
	k.cut = false
	p = n.Client(0, remote)
	p.SetWindow(1)
	on(n, func() { h.Write(0, []byte("xx")) })
	h.calls = nil
	k.cut = true
	p.SetWindow(1)
	p.CloseWrite()
	n.Step()
	h.expect("error 0 connection reset by peer")
}

// cut is a network whose connections have been reset, seen by the next write; reading then ends without an error.
type cut struct {
	*looptest.Net
	cut bool
}

func (k *cut) Write(fd int, p []byte) (int, syscall.Errno) {
	if k.cut {
		return -1, syscall.ECONNRESET
	}
	return k.Net.Write(fd, p)
}

// shutdown(2) of a connection that the peer has reset says ENOTCONN, which the next read explains; other errors are told.
func TestShutdownWrite(t *testing.T) {
	n, h := newSim(t)
	k := &shut{Net: n}
	n.Loop = loop.New(loop.Config{Kernel: k, Handler: h})
	h.Loop = n.Loop
	p := n.Client(0, remote)
	h.calls = nil
	on(n, func() { h.ShutdownWrite(0); h.ShutdownWrite(0) })
	h.expect()
	if !p.GotFIN() || p.Closed() || k.calls != 1 {
		t.Errorf("FIN %v, closed %v, %d calls", p.GotFIN(), p.Closed(), k.calls)
	}
	p.Send([]byte("still read"))
	n.Run()
	h.expect("data 0 10")

	for errno, want := range map[syscall.Errno][]string{syscall.ENOTCONN: nil, syscall.ENOBUFS: {"error 1 no buffer space available"}} {
		k.errno = errno
		n.Client(0, remote)
		h.calls = nil
		on(n, func() { h.ShutdownWrite(1) })
		h.expect(want...)
		if h.InUse(1) {
			on(n, func() { h.Close(1) })
		}
	}
}

type shut struct {
	*looptest.Net
	calls int
	errno syscall.Errno
}

func (k *shut) ShutdownWrite(fd int) syscall.Errno {
	k.calls++
	if k.errno != 0 {
		return k.errno
	}
	return k.Net.ShutdownWrite(fd)
}

// With short reads, short writes, EAGAIN out of the blue and events in any order, an echo returns exactly what was sent,
// and when everybody has gone nothing is left.
func TestEchoWithFaults(t *testing.T) {
	for seed := range uint64(1000) {
		if !t.Run("", func(t *testing.T) { echoWithFaults(t, rand.New(rand.NewPCG(seed, 2))) }) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func echoWithFaults(t *testing.T, r *rand.Rand) {
	n, h := newSim(t)
	n.Faults = &looptest.Faults{Rand: r, ShortRead: r.Float64(), ShortWrite: r.Float64(), Again: r.Float64() * 0.7, Shuffle: true}
	h.data = func(slot uint32, p []byte) {
		for len(p) > 0 { // in frames, every now and then shared
			k := 1 + r.IntN(len(p))
			if r.IntN(4) == 0 {
				h.WriteShared(slot, loop.NewShared(bytes.Clone(p[:k])))
			} else {
				copy(h.Reserve(slot, k), p[:k])
			}
			p = p[k:]
		}
		if r.IntN(8) == 0 {
			h.PauseRead(slot)
			h.SetTimer(slot, h.Now()+1+r.Int64N(50e6))
		}
		clear(h.calls)
		h.calls = h.calls[:0]
	}
	h.timer = func(slot uint32) { h.ResumeRead(slot) }
	h.eof = func(slot uint32) { h.NotifyDrained(slot) }
	h.drained = func(slot uint32) { h.Close(slot) }
	peers := make([]*looptest.Peer, 1+r.IntN(5))
	sent, got := make([][]byte, len(peers)), make([][]byte, len(peers))
	for i := range peers {
		peers[i] = n.Client(0, remote)
	}
	for range r.IntN(40) {
		i := r.IntN(len(peers))
		switch r.IntN(5) {
		case 0, 1:
			b := make([]byte, r.IntN(2000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			peers[i].Send(b)
			sent[i] = append(sent[i], b...)
		case 2:
			peers[i].SetWindow(r.IntN(1000))
		case 3:
			n.Step()
		case 4:
			n.Advance(r.Int64N(100e6))
		}
		got[i] = append(got[i], peers[i].Take()...)
	}
	for i, p := range peers {
		p.CloseWrite()
		p.SetWindow(math.MaxInt / 2)
		n.Advance(r.Int64N(100e6))
		got[i] = append(got[i], p.Take()...)
	}
	n.Advance(10e9)
	for i, p := range peers {
		got[i] = append(got[i], p.Take()...)
		if !bytes.Equal(got[i], sent[i]) {
			t.Errorf("peer %d: %d bytes came back, %d were sent", i, len(got[i]), len(sent[i]))
		}
		if !p.Closed() || p.GotReset() {
			t.Errorf("peer %d: closed %v, reset %v", i, p.Closed(), p.GotReset())
		}
	}
	if n.Sockets() != 0 || h.Open() != 0 || h.PendingBytes() != 0 {
		t.Errorf("%d sockets, %d open, %d bytes pending are left", n.Sockets(), h.Open(), h.PendingBytes())
	}
}
