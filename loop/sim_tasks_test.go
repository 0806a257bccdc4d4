package loop_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

func TestPauseRead(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	h.calls = nil
	h.data = func(slot uint32, _ []byte) { h.PauseRead(slot); h.PauseRead(slot) }
	sent := pattern(2*loop.ReadBufferSize + 5)
	p.Send(sent)
	p.CloseWrite()
	resume := func() { on(n, func() { h.ResumeRead(0); h.ResumeRead(0) }) }
	n.Run()
	h.expect("data 0 65536") // and no more, although the turn's share is not used up
	if n.Step() {
		t.Error("a turn with nothing to do")
	}
	on(n, func() { h.Write(0, []byte("paused")) }) // writing goes on
	if got := string(p.Take()); got != "paused" {
		t.Errorf("got %q", got)
	}
	resume()
	h.expect("data 0 65536")
	resume()
	h.expect("data 0 5")
	n.Run()
	h.expect() // the FIN waits as well
	resume()
	h.expect("eof 0")
	if !bytes.Equal(h.got[0], sent) {
		t.Error("the bytes are wrong")
	}
	resume() // after the FIN: nothing
	on(n, func() { h.PauseRead(0) })
	resume()
	h.expect()

	p = n.Client(0, remote) // pause and resume within one turn
	h.data = func(slot uint32, _ []byte) { h.PauseRead(slot); h.ResumeRead(slot) }
	h.calls = nil
	p.Send(pattern(loop.ReadBufferSize + 1))
	n.Run()
	h.expect("data 1 65536", "data 1 1")

	h.accept = func(slot uint32) { h.PauseRead(slot) } // from the beginning
	p = n.Client(0, remote)
	p.Send([]byte("x"))
	h.calls = nil
	n.Run()
	h.expect()
	on(n, func() { h.ResumeRead(2) })
	h.expect("data 2 1")
}

// Output that waits goes out while reading is paused, is resumed, is paused again: no readiness is lost in between.
func TestPauseWhileBlocked(t *testing.T) {
	n, h := newSim(t)
	p := n.Client(0, remote)
	p.SetWindow(0)
	want := pattern(1000)
	on(n, func() { h.Write(0, want); h.NotifyDrained(0) })
	var got []byte
	for i := range 10 {
		on(n, func() {
			if i%2 == 0 {
				h.PauseRead(0)
			} else {
				h.ResumeRead(0)
			}
		})
		if i%3 == 0 { // window and change of interest in either order
			p.SetWindow(100)
			n.Run()
		} else {
			p.SetWindow(100)
			on(n, func() { h.PauseRead(0); h.ResumeRead(0); h.PauseRead(0) })
		}
		got = append(got, p.Take()...)
		if len(got) != 100*(i+1) {
			t.Fatalf("step %d: %d bytes arrived", i, len(got))
		}
	}
	if !bytes.Equal(got, want) || h.calls[len(h.calls)-1] != "drained 0" {
		t.Errorf("%q", h.calls)
	}
}

func TestTimers(t *testing.T) {
	const tick = int64(loop.Tick)
	n, h := newSim(t)
	n.Client(0, remote)
	n.Client(0, remote)
	h.calls = nil
	fired := map[uint32]int64{}
	h.timer = func(slot uint32) { fired[slot] = h.Now() }
	var start int64
	on(n, func() {
		start = h.Now()
		h.SetTimer(0, start+5*tick)
		h.SetTimer(0, start+10*tick) // replaces
		h.SetTimer(1, start+20*tick)
	})
	n.Advance(10*tick - 1)
	h.expect()
	n.Advance(1)
	h.expect("timer 0")
	on(n, func() { h.CancelTimer(1) })
	n.Advance(1e9)
	h.expect()
	if fired[0] != start+10*tick {
		t.Errorf("fired at %d, expected %d", fired[0], start+10*tick)
	}

	// A time in the past fires in this turn or the next, once; set again from within it fires again, not in the same turn.
	var turns []uint64
	h.timer = func(slot uint32) {
		if turns = append(turns, h.Stats().Turns); len(turns) < 3 {
			h.SetTimer(slot, 0)
		}
	}
	on(n, func() { h.SetTimer(1, 0) })
	h.expect("timer 1", "timer 1", "timer 1")
	if turns[1] == turns[0] || turns[2] == turns[1] {
		t.Errorf("fired in turns %v", turns)
	}

	// What a timer writes goes out in its turn.
	p := n.Client(0, remote)
	h.timer = func(slot uint32) { h.Write(slot, []byte("ping")) }
	on(n, func() { h.SetTimer(2, h.Now()+1) })
	n.Advance(tick)
	if got := string(p.Take()); got != "ping" {
		t.Errorf("got %q", got)
	}
}

// Timers in any number, set and cancelled at random, on the sockets' wheel and on others, against a plain list.
func TestTimersRandom(t *testing.T) {
	const tick = int64(loop.Tick)
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		n, h := newSim(t)
		due := map[string]int64{}
		fire := func(name string) {
			at, ok := due[name]
			if !ok || h.Now() < at || h.Now() >= at+2*tick {
				t.Fatalf("seed %d: %s fires at %d, due %d (%v)", seed, name, h.Now(), at, ok)
			}
			delete(due, name)
		}
		requests := h.NewTimers(func(i uint32) { fire(fmt.Sprint("request ", i)) })
		h.timer = func(slot uint32) { fire(fmt.Sprint("socket ", slot)) }
		for range 20 {
			n.Client(0, remote)
		}
		for range 200 {
			i := uint32(r.IntN(20))
			on(n, func() {
				at := h.Now() + r.Int64N(100e9)
				switch r.IntN(5) {
				case 0, 1:
					h.SetTimer(i, at)
					due[fmt.Sprint("socket ", i)] = at
				case 2, 3:
					requests.Set(i, at)
					due[fmt.Sprint("request ", i)] = at
				case 4:
					h.CancelTimer(i)
					delete(due, fmt.Sprint("socket ", i))
				}
			})
			if r.IntN(3) == 0 {
				n.Advance(r.Int64N(10e9))
			}
		}
		n.Advance(101e9)
		if len(due) != 0 {
			t.Fatalf("seed %d: not fired: %v", seed, due)
		}
	}
}

func TestTasks(t *testing.T) {
	n, h := newSim(t)
	var order []int
	turn := func() uint64 { return h.Stats().Turns }
	for i := range 10 {
		if !h.PostFunc(func() {
			order = append(order, i)
			before := turn()
			h.PostFunc(func() { // runs in a later turn, behind all that were posted before
				order = append(order, 100+i)
				if turn() == before {
					t.Errorf("task %d runs in the turn in which it was posted", i)
				}
			})
		}) {
			t.Fatal("Post refuses")
		}
	}
	if len(order) != 0 {
		t.Fatal("a task runs inside Post")
	}
	n.Run()
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109}; !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
	if n.Step() {
		t.Error("a turn with nothing to do")
	}
	if got := h.Stats().Tasks; got != 20 {
		t.Errorf("%d tasks counted", got)
	}
	// More than is kept for the next time.
	sum := 0
	for i := range 10_000 {
		h.PostFunc(func() { sum += i })
	}
	n.Run()
	if sum != 10_000*9_999/2 {
		t.Errorf("sum %d", sum)
	}
}

// Tasks from several goroutines: each one's own are in order, and none is lost.
func TestTasksFromManyGoroutines(t *testing.T) {
	n, h := newSim(t)
	const producers, each = 8, 1000
	last := make([]int, producers)
	var wait sync.WaitGroup
	for p := range producers {
		wait.Go(func() {
			for i := range each {
				h.PostFunc(func() {
					if last[p] != i {
						t.Errorf("producer %d: task %d after %d", p, i, last[p])
					}
					last[p]++
				})
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	for running := true; running; n.Run() {
		select {
		case <-done:
			running = false
		default:
		}
	}
	n.Run()
	if slices.Max(last) != each || slices.Min(last) != each {
		t.Errorf("%v", last)
	}
}

func TestDial(t *testing.T) {
	n, h := newSim(t)
	var slot uint32
	dial := func(early string) *looptest.Peer {
		on(n, func() {
			var errno syscall.Errno
			if slot, errno = h.Dial(remote, netip.Addr{}); errno != 0 {
				t.Fatal(errno)
			}
			if early != "" {
				h.Write(slot, []byte(early))
				h.NotifyDrained(slot)
			}
			h.call("dialled")
		})
		return n.Dialed()[0]
	}
	p := dial("")
	h.expect("dialled", "connect 0 errno 0")
	p.Send([]byte("x"))
	n.Run()
	h.expect("data 0 1")

	h.connect = func(slot uint32, _ syscall.Errno) { h.Write(slot, []byte("late")) }
	p = dial("early") // what is queued before goes out once connected, ahead of what OnConnect writes
	h.expect("dialled", "connect 1 errno 0", "drained 1")
	if got := string(p.Take()); got != "earlylate" || p.Writes != 1 {
		t.Errorf("got %q in %d writes", got, p.Writes)
	}
	h.connect = nil

	n.Refuse = syscall.ECONNREFUSED
	p = dial("early")
	h.expect("dialled", "connect 2 connection refused")
	if !p.Closed() || len(p.Take()) != 0 || h.Open() != 2 || h.PendingBytes() != 0 {
		t.Error("the refused connection has left something")
	}
	n.Refuse = 0

	// Reset before the loop looks: a refused connection as well.
	n.Loop.PostFunc(func() { slot, _ = h.Dial(remote, netip.Addr{}) })
	n.Step()
	n.Dialed()[0].Reset()
	n.Run()
	h.expect("connect 2 connection reset by peer")

	// Closed, dropped or paused while connecting.
	n.Loop.PostFunc(func() { slot, _ = h.Dial(remote, netip.Addr{}); h.Write(slot, []byte("x")); h.Close(slot) })
	n.Run()
	h.expect()
	n.Dialed()
	n.Loop.PostFunc(func() {
		slot, _ = h.Dial(remote, netip.Addr{})
		h.Write(slot, pattern(loop.FlushThreshold)) // not written out by the threshold either
		h.Write(slot, []byte("x"))
		h.NotifyDrained(slot)
		h.DropUnsent(slot)
		h.PauseRead(slot)
	})
	n.Run()
	h.expect(fmt.Sprintf("connect %d errno 0", slot), fmt.Sprintf("drained %d", slot))
	p = n.Dialed()[0]
	p.Send([]byte("y"))
	n.Run()
	h.expect()
	on(n, func() { h.ResumeRead(slot) })
	h.expect(fmt.Sprintf("data %d 1", slot))
	if len(p.Take()) != 0 {
		t.Error("dropped output was sent")
	}
	on(n, func() {
		if got := h.LocalAddr(slot); got != netip.MustParseAddrPort("192.0.2.1:8080") {
			t.Errorf("local address %v", got)
		}
	})
}
