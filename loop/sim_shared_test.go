package loop_test

import (
	"math/rand/v2"
	"testing"

	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
)

// TestSharedBytes: what is shared is counted from the moment when a socket does not take it until nobody waits for it,
// once however many do, over two loops; whatever becomes of the sockets. The oracle looks at every queue.
func TestSharedBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 6))
	type side struct {
		net   *looptest.Net
		h     *scripted
		peers []*looptest.Peer
	}
	var sides [2]side
	for i := range sides {
		s := &sides[i]
		s.net, s.h = newSim(t)
		s.net.Faults = &looptest.Faults{Rand: rnd, ShortWrite: 0.3, Again: 0.1}
		for range 6 {
			s.peers = append(s.peers, s.net.Client(0, remote))
		}
		s.net.Run()
	}
	check := func() (sum int) {
		t.Helper()
		truth := loop.SharedWaiting(sides[0].h.Loop, sides[1].h.Loop)
		for sh := range truth {
			sum += sh.Len()
		}
		if got := sides[0].h.SharedBytes() + sides[1].h.SharedBytes(); got != int64(sum) {
			t.Fatalf("%d bytes are counted, %d wait", got, sum)
		}
		for _, s := range sides {
			for slot := range uint32(s.h.Slots()) {
				_, units := s.h.Queued(slot)
				if got, want := s.h.SharedPart(slot), loop.SharedShare(s.h.Loop, slot, truth); got != want && units <= loop.SharedSample {
					t.Fatalf("the part of slot %d is %d, expected %d", slot, got, want)
				}
			}
		}
		return sum
	}
	most := 0
	for range 5000 {
		s := &sides[rnd.IntN(2)]
		k := rnd.IntN(len(s.peers))
		p := s.peers[k]
		slot := uint32(rnd.IntN(s.h.Slots()))
		switch op := rnd.IntN(20); {
		case op < 6: // to some on both loops, some of them twice
			sh := loop.NewShared(pattern(1 + rnd.IntN(1000)))
			for i := range sides {
				on(sides[i].net, func() {
					for slot := range uint32(sides[i].h.Slots()) {
						for range rnd.IntN(3) {
							if sides[i].h.InUse(slot) {
								sides[i].h.WriteShared(slot, sh)
							}
						}
					}
				})
			}
		case op < 13:
			p.SetWindow(rnd.IntN(3) * rnd.IntN(3000))
			s.net.Run()
		case op < 16:
			on(s.net, func() {
				if s.h.InUse(slot) {
					s.h.Write(slot, pattern(1+rnd.IntN(300)))
					s.h.WriteUrgent(slot, []byte("!"))
				}
			})
		case op < 18:
			on(s.net, func() {
				if s.h.InUse(slot) {
					s.h.DropUnsent(slot)
				}
			})
		default:
			if op == 18 {
				p.ResetBehind()
				s.net.Run()
			} else {
				on(s.net, func() {
					if s.h.InUse(slot) {
						s.h.Close(slot)
					}
				})
			}
			for i, p := range s.peers {
				if p.Closed() {
					s.peers[i] = s.net.Client(0, remote)
				}
			}
			s.net.Run()
		}
		most = max(most, check())
	}
	if most < 2000 {
		t.Errorf("at most %d bytes waited: the test proves little", most)
	}
	for _, s := range sides {
		for _, p := range s.peers {
			p.SetWindow(1 << 30)
		}
		s.net.Faults = nil
		s.net.Run()
	}
	if check() != 0 {
		t.Error("something waits for peers that read")
	}
}

// TestSharedPartOfMany: of a long queue the part is an estimate, exact when the units are alike.
func TestSharedPartOfMany(t *testing.T) {
	n, h := newSim(t)
	for range 2 {
		n.Client(0, remote).SetWindow(0)
	}
	n.Run()
	on(n, func() {
		for range 1000 {
			sh := loop.NewShared(pattern(10))
			h.WriteShared(0, sh)
			h.WriteShared(1, sh)
		}
	})
	if a, b := h.SharedPart(0), h.SharedPart(1); a != 5000 || b != 5000 || h.SharedBytes() != 10_000 {
		t.Errorf("the parts are %d and %d of %d, expected halves of 10,000", a, b, h.SharedBytes())
	}
}
