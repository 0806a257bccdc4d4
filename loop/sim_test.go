package loop_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudwego/netpoll"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

var remote = netip.MustParseAddrPort("192.0.2.9:1234")

// scripted is a handler that writes down what it is told and then does what the test says.
type scripted struct {
	*loop.Loop
	t     *testing.T
	calls []string
	got   map[uint32][]byte // what OnData was given, by slot

	accept  func(slot uint32)
	connect func(slot uint32, errno syscall.Errno)
	data    func(slot uint32, p []byte)
	eof     func(slot uint32)
	error   func(slot uint32) // nil: closes the slot
	blocked func(slot uint32)
	drained func(slot uint32)
	timer   func(slot uint32)
}

func newSim(t *testing.T) (*looptest.Net, *scripted) {
	h := &scripted{t: t, got: make(map[uint32][]byte)}
	n := looptest.New(h, func(l *loop.Loop) { h.Loop = l })
	return n, h
}

func (h *scripted) call(format string, args ...any) {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

// expect compares the calls since the last time.
func (h *scripted) expect(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.calls, want) {
		h.t.Fatalf("calls: %q, expected %q", h.calls, want)
	}
	h.calls = nil
}

func (h *scripted) OnAccept(slot uint32, listener int, remote netip.AddrPort) {
	h.call("accept %d listener %d from %v", slot, listener, remote)
	if h.accept != nil {
		h.accept(slot)
	}
}

func (h *scripted) OnConnect(slot uint32, errno syscall.Errno) {
	h.call("connect %d %v", slot, errno)
	if h.connect != nil {
		h.connect(slot, errno)
	} else if errno != 0 {
		h.Close(slot)
	}
}

func (h *scripted) OnData(slot uint32, p []byte) {
	h.call("data %d %d", slot, len(p))
	h.got[slot] = append(h.got[slot], p...)
	if h.data != nil {
		h.data(slot, p)
	}
}

func (h *scripted) OnEOF(slot uint32) {
	h.call("eof %d", slot)
	if h.eof != nil {
		h.eof(slot)
	}
}

func (h *scripted) OnError(slot uint32, errno syscall.Errno) {
	h.call("error %d %v", slot, errno)
	if h.error != nil {
		h.error(slot)
	} else {
		h.Close(slot)
	}
}

func (h *scripted) OnBlocked(slot uint32) {
	h.call("blocked %d", slot)
	if h.blocked != nil {
		h.blocked(slot)
	}
}

func (h *scripted) OnDrained(slot uint32) {
	h.call("drained %d", slot)
	if h.drained != nil {
		h.drained(slot)
	}
}

func (h *scripted) OnTimer(slot uint32) {
	h.call("timer %d", slot)
	if h.timer != nil {
		h.timer(slot)
	}
}

// pattern returns n bytes of which no two stretches look alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// on runs f on the loop, as a task.
func on(n *looptest.Net, f func()) {
	n.Loop.PostFunc(f)
	n.Run()
}

func TestAcceptDataReply(t *testing.T) {
	n, h := newSim(t)
	h.accept = func(slot uint32) { h.Write(slot, []byte("hello ")) }
	h.data = func(slot uint32, p []byte) {
		for _, word := range bytes.Fields(p) { // three frames in one read
			h.Write(slot, word)
		}
	}
	p := n.Client(3, remote)
	h.expect("accept 0 listener 3 from 192.0.2.9:1234")
	if got := p.Take(); string(got) != "hello " || p.Writes != 1 {
		t.Fatalf("got %q in %d writes", got, p.Writes)
	}
	p.Send([]byte("one two "))
	p.Send([]byte("three"))
	if !n.Step() || n.Step() {
		t.Fatal("expected one turn")
	}
	h.expect("data 0 13")
	if got := p.Take(); string(got) != "onetwothree" || p.Writes != 2 {
		t.Fatalf("got %q, %d writes in all, expected 2", got, p.Writes)
	}
	stats := h.Stats()
	if stats.Accepts != 1 || stats.Reads != 1 || stats.Writes != 2 || stats.BytesReceived != 13 || stats.BytesSent != 17 {
		t.Errorf("%+v", stats)
	}
	if h.Open() != 1 || !h.InUse(0) || h.InUse(1) || h.InUse(1<<20) || h.Generation(1<<20) != 0 {
		t.Error("the slots are wrong")
	}
}

// A fast sender gets maxReadsPerEvent reads per turn, and then the others have theirs.
func TestReadBound(t *testing.T) {
	const full = loop.ReadBufferSize
	for _, test := range []struct {
		name  string
		bytes int
		turns [][]int // sizes of the reads in each turn
	}{
		{"one byte", 1, [][]int{{1}}},
		{"less than a buffer", full - 1, [][]int{{full - 1}}},
		{"a buffer", full, [][]int{{full}}},
		{"below the bound", (loop.MaxReadsPerEvent-1)*full + 1, [][]int{{full, full, full, 1}}},
		{"at the bound", loop.MaxReadsPerEvent * full, [][]int{{full, full, full, full}}},
		{"above the bound", loop.MaxReadsPerEvent*full + 1, [][]int{{full, full, full, full}, {1}}},
		{"far above", (2*loop.MaxReadsPerEvent + 1) * full, [][]int{{full, full, full, full}, {full, full, full, full}, {full}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, h := newSim(t)
			fast, slow := n.Client(0, remote), n.Client(0, remote)
			h.calls = nil
			sent := pattern(test.bytes)
			fast.Send(sent)
			slow.Send([]byte("x"))
			for i, turn := range test.turns {
				if !n.Step() {
					t.Fatalf("turn %d: nothing to do", i)
				}
				var want []string
				for _, size := range turn {
					want = append(want, fmt.Sprintf("data 0 %d", size))
				}
				if i == 0 {
					want = append(want, "data 1 1")
				}
				h.expect(want...)
			}
			if n.Step() {
				t.Errorf("another turn: %q", h.calls)
			}
			if !bytes.Equal(h.got[0], sent) {
				t.Error("the bytes are wrong")
			}
		})
	}
}

// Much output caused by one batch does not wait for the end of the turn: at the threshold and below it does.
func TestFlushThreshold(t *testing.T) {
	for _, test := range []struct{ first, wantWrites int }{
		{loop.FlushThreshold - 1, 1}, {loop.FlushThreshold, 2}, {loop.FlushThreshold + 1, 2},
	} {
		n, h := newSim(t)
		p := n.Client(0, remote)
		on(n, func() {
			h.Write(0, pattern(test.first))
			h.Write(0, []byte("end"))
		})
		if got := p.Take(); !bytes.Equal(got, append(pattern(test.first), "end"...)) || p.Writes != test.wantWrites {
			t.Errorf("%d bytes and 3: %d bytes in %d writes, expected %d", test.first, len(got), p.Writes, test.wantWrites)
		}
	}
}

func TestShortWrite(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	h.calls = nil
	want := pattern(100)
	p.SetWindow(10)
	on(n, func() { h.Write(0, want) })
	h.expect("blocked 0")
	if h.Pending(0) != 90 || h.PendingBytes() != 90 {
		t.Fatalf("%d bytes pending, %d in all, expected 90", h.Pending(0), h.PendingBytes())
	}
	p.SetWindow(50)
	n.Run()
	h.expect() // still blocked, which has been told
	if h.Pending(0) != 40 {
		t.Fatalf("%d bytes pending, expected 40", h.Pending(0))
	}
	on(n, func() { h.NotifyDrained(0) })
	h.expect()
	p.SetWindow(39)
	n.Run()
	h.expect()
	p.SetWindow(1)
	n.Run()
	h.expect("drained 0")
	if got := p.Take(); !bytes.Equal(got, want) || h.Pending(0) != 0 || h.PendingBytes() != 0 {
		t.Fatal("the bytes are wrong")
	}

	p.SetWindow(0) // blocked once more: told once more, and OnDrained not asked for is not called
	on(n, func() { h.Write(0, want) })
	h.expect("blocked 0")
	p.SetWindow(1000)
	n.Run()
	h.expect()
}

// What was queued before OnBlocked is written in order with what is queued while blocked.
func TestWriteWhileBlocked(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	p.SetWindow(5)
	var want []byte
	for i := range 50 {
		on(n, func() {
			b := pattern(100 + i)
			want = append(want, b...)
			if i%2 == 0 {
				h.WriteShared(0, loop.NewShared(b))
			} else {
				h.Write(0, b)
			}
		})
		p.SetWindow(7)
	}
	p.SetWindow(1 << 30)
	n.Run()
	if !bytes.Equal(p.Take(), want) {
		t.Error("the bytes are wrong")
	}
}

func TestNotifyDrainedWithNothingPending(t *testing.T) {
	n, h := newSim(t)
	n.Client(0, remote)
	h.calls = nil
	on(n, func() {
		h.NotifyDrained(0)
		h.NotifyDrained(0)
		h.call("asked")
	})
	h.expect("asked", "drained 0")

	h.drained = func(slot uint32) { h.drained = nil; h.NotifyDrained(slot) } // asked for again from within
	on(n, func() { h.NotifyDrained(0) })
	h.expect("drained 0", "drained 0")

	on(n, func() { // written in the same turn
		h.NotifyDrained(0)
		h.Write(0, []byte("x"))
	})
	h.expect("drained 0")
}

// A handler that does more whenever its output is drained, to a peer that takes everything, does not keep the loop from the
// others, and comes to its end whether the others have something to do or not.
func TestDrainedBound(t *testing.T) {
	const chunks = 100
	for _, chunk := range []string{"chunk", ""} {
		for _, busy := range []bool{true, false} {
			t.Run(fmt.Sprintf("%q busy %v", chunk, busy), func(t *testing.T) {
				n, h := newSim(t)
				p, other := n.Client(0, remote), n.Client(0, remote)
				left := chunks
				h.drained = func(slot uint32) {
					if left--; left > 0 {
						if chunk != "" {
							h.Write(slot, []byte(chunk))
						}
						h.NotifyDrained(slot)
					}
				}
				h.PostFunc(func() { h.NotifyDrained(0) })
				h.calls = nil
				for {
					send := busy && left > 0
					if send {
						other.Send([]byte("1"))
					}
					if !n.Step() {
						break
					}
					count := 0
					for _, call := range h.calls {
						if call == "drained 0" {
							count++
						}
					}
					if count > loop.MaxRounds+1 { // one more, where the event of another socket is done with
						t.Fatalf("drained %d times in a turn, expected at most %d", count, loop.MaxRounds+1)
					}
					if send && !slices.Contains(h.calls, "data 1 1") {
						t.Fatalf("the other socket was not served: %q", h.calls)
					}
					h.calls = nil
				}
				if got := strings.Count(string(p.Take()), "chunk"); left != 0 || got != strings.Count(strings.Repeat(chunk, chunks-1), "chunk") {
					t.Errorf("%d chunks arrived, %d left", got, left)
				}
			})
		}
	}
}

func TestUrgent(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	on(n, func() { h.Write(0, []byte("data")); h.WriteUrgent(0, []byte("PING")) })
	if got := string(p.Take()); got != "PINGdata" {
		t.Errorf("got %q", got)
	}
	p.SetWindow(3)
	on(n, func() { h.Write(0, []byte("first")); h.Write(0, []byte("second")) })
	if h.UrgentPending(0) {
		t.Error("urgent output waits before there is any")
	}
	on(n, func() { h.WriteUrgent(0, []byte("PING")) }) // L7.3
	if !h.UrgentPending(0) || h.Pending(0) != 12 {
		t.Errorf("urgent waits: %v, %d bytes", h.UrgentPending(0), h.Pending(0))
	}
	p.SetWindow(4)
	n.Run()
	if !h.UrgentPending(0) {
		t.Error("half a ping is with the kernel, and nothing is said to wait")
	}
	p.SetWindow(100)
	n.Run()
	if got := string(p.Take()); got != "firstPINGsecond" || h.UrgentPending(0) {
		t.Errorf("got %q", got)
	}
}

// L8.3: what the peer has seen a part of is finished, the rest is forgotten.
func TestDropUnsent(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	p.SetWindow(3)
	on(n, func() { h.Write(0, []byte("first")); h.Write(0, []byte("second")) })
	on(n, func() { h.DropUnsent(0); h.Write(0, []byte("close")) })
	if h.Pending(0) != 7 || h.PendingBytes() != 7 {
		t.Errorf("%d and %d bytes pending, expected 7", h.Pending(0), h.PendingBytes())
	}
	p.SetWindow(100)
	n.Run()
	if got := string(p.Take()); got != "firstclose" {
		t.Errorf("got %q", got)
	}

	// Nothing is left to write: drained, whether the peer reads or not.
	p.SetWindow(5)
	on(n, func() { h.Write(0, []byte("whole")); h.Write(0, []byte("unsent")) })
	h.calls = nil
	on(n, func() { h.NotifyDrained(0); h.DropUnsent(0); h.DropUnsent(0) })
	h.expect("drained 0")
	if h.PendingBytes() != 0 {
		t.Errorf("%d bytes pending", h.PendingBytes())
	}
	p.Send([]byte("x")) // still read
	n.Run()
	h.expect("data 0 1")
	on(n, func() { h.Write(0, []byte("more")) })
	h.expect("blocked 0")
	p.SetWindow(100)
	n.Run()
	if got := string(p.Take()); got != "wholemore" {
		t.Errorf("got %q", got)
	}
}

func TestOldestPending(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	p.SetWindow(0)
	at := func(want int64) {
		t.Helper()
		n.Advance(0)
		on(n, func() {
			if got := h.OldestPending(0); got != want {
				t.Errorf("the oldest unit waits for %d ns, expected %d", got, want)
			}
		})
	}
	at(0)
	on(n, func() { h.WriteUrgent(0, []byte("!")) })
	n.Advance(5e6)
	at(0) // urgent output has its own question: UrgentPending
	on(n, func() { h.Write(0, []byte("first")) })
	n.Advance(1e9)
	on(n, func() { h.Write(0, []byte("second")) })
	n.Advance(2e9)
	at(3e9)
	p.SetWindow(2) // a part of the oldest is written: it is still the oldest
	at(3e9)
	p.SetWindow(5)
	at(2e9)
	p.SetWindow(100)
	n.Run()
	at(0)

	// The counter of milliseconds wraps after 49 days: queued just before that.
	n.Advance(1<<32*1e6 - h.Now() - 1e9)
	p.SetWindow(0)
	on(n, func() { h.Write(0, []byte("x")) })
	n.Advance(3e9)
	at(3e9)
}

// One broadcast reaches everybody with the same bytes, in one write each.
func TestBroadcast(t *testing.T) {
	n, h := newSim(t)
	var peers []*looptest.Peer
	for range 2000 {
		peers = append(peers, n.Client(0, remote))
	}
	sh := loop.NewShared(pattern(1000))
	on(n, func() {
		for slot := range uint32(h.Slots()) {
			if h.InUse(slot) {
				h.WriteShared(slot, sh)
			}
		}
		if want := int64(2000 * sh.Len()); h.PendingBytes() != want {
			t.Errorf("%d bytes pending, expected %d", h.PendingBytes(), want)
		}
	})
	for i, p := range peers {
		if !bytes.Equal(p.Take(), pattern(1000)) || p.Writes != 1 {
			t.Fatalf("peer %d got something else, in %d writes", i, p.Writes)
		}
	}
	if h.PendingBytes() != 0 {
		t.Errorf("%d bytes pending", h.PendingBytes())
	}
}

// unwatchable is a kernel that cannot watch a socket from some call on: max_user_watches is used up.
type unwatchable struct {
	*looptest.Net
	left int // calls of Watch that still work
}

func (k *unwatchable) Watch(op *netpoll.FDOperator, from, to loop.Interest) error {
	if to != loop.WatchNone {
		if k.left--; k.left < 0 {
			if err := k.Net.Watch(op, from, loop.WatchNone); err != nil {
				return err
			}
			return syscall.ENOSPC
		}
	}
	return k.Net.Watch(op, from, to)
}

// A socket that the kernel cannot watch is reported and closed, in whatever step that turns out.
func TestWatchFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		works int
		do    func(n *looptest.Net, h *scripted)
		want  []string
	}{
		{"accepting", 0, func(n *looptest.Net, h *scripted) { n.Client(0, remote) },
			[]string{"accept 0 listener 0 from 192.0.2.9:1234", "error 0 no space left on device"}},
		{"blocked", 1, func(n *looptest.Net, h *scripted) {
			n.Client(0, remote).SetWindow(1)
			h.calls = nil
			on(n, func() { h.Write(0, []byte("xx")) })
		}, []string{"error 0 no space left on device"}},
		{"resuming", 1, func(n *looptest.Net, h *scripted) {
			n.Client(0, remote)
			on(n, func() { h.PauseRead(0) })
			h.calls = nil
			on(n, func() { h.ResumeRead(0); h.call("resumed") })
		}, []string{"resumed", "error 0 no space left on device"}},
		{"dialling", 0, func(n *looptest.Net, h *scripted) { on(n, func() { h.Dial(remote, netip.Addr{}) }) },
			[]string{"error 0 no space left on device"}},
		{"connected", 1, func(n *looptest.Net, h *scripted) { on(n, func() { h.Dial(remote, netip.Addr{}) }) },
			[]string{"error 0 no space left on device"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, h := newSim(t)
			n.Loop = loop.New(loop.Config{Kernel: &unwatchable{n, test.works}, Handler: h})
			h.Loop = n.Loop
			test.do(n, h)
			h.expect(test.want...)
			if n.Sockets() != 0 || h.Open() != 0 || h.PendingBytes() != 0 {
				t.Errorf("%d sockets are left", n.Sockets())
			}
		})
	}
}

// MaxSlots bounds the sockets of a loop to the number, also where it is not a multiple of a chunk; what is above is reset.
func TestMaxSlots(t *testing.T) {
	for _, limit := range []int{1, 3, 1023, 1024, 1025} {
		n, h := newSim(t)
		n.Loop = loop.New(loop.Config{Kernel: n, Handler: h, MaxSlots: limit})
		h.Loop = n.Loop
		for range limit {
			n.Client(0, remote)
		}
		if h.Open() != limit {
			t.Fatalf("limit %d: %d sockets", limit, h.Open())
		}
		h.calls = nil
		p := n.Client(0, remote)
		if !p.GotReset() || h.Stats().AcceptsRefused != 1 || h.Open() != limit {
			t.Errorf("limit %d: one more was accepted", limit)
		}
		var errno error
		on(n, func() { _, e := h.Dial(remote, netip.Addr{}); errno = e })
		if !errors.Is(errno, syscall.ENFILE) || n.Sockets() != limit {
			t.Errorf("limit %d: dialling one more: %v", limit, errno)
		}
		h.expect()
		on(n, func() { h.Close(0) })
		n.Client(0, remote)
		h.expect("accept 0 listener 0 from 192.0.2.9:1234")
	}
}
