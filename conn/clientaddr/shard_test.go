package clientaddr

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// The memory of a flood is within what limits.go says, and comes back.
func TestLimiterMemory(t *testing.T) {
	if got := unsafe.Sizeof(entry{}); got != 48 {
		t.Errorf("an entry takes %d bytes; the comment says 48", got)
	}
	if got := unsafe.Sizeof(shard{}); got != 128 {
		t.Errorf("a shard takes %d bytes; the comment says 128", got)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, addresses := range []int{60_000, 100_000, 150_000} {
		l := newLimiter(t, 10, 10, addresses)
		before := heap()
		for i := range 2 * addresses {
			if v := l.Admit(nth(i), 0); v != Admitted {
				t.Fatal(v)
			}
			l.Release(nth(i))
		}
		flood := heap() - before
		t.Logf("%d addresses: %d bytes each", addresses, flood/int64(addresses))
		if flood > int64(addresses)*bytesPerAddress {
			t.Errorf("%d addresses take %d bytes, %d each; the bound is %d", addresses, flood, flood/int64(addresses), bytesPerAddress)
		}
		kept := addr("192.0.2.1")
		l.Admit(kept, second/2)
		l.Sweep(second)
		verify(t, l)
		if left := heap() - before; l.Addresses() != 1 || left > 400_000 { // smallSlab entries in each shard stay
			t.Errorf("a second later %d addresses and %d bytes are left", l.Addresses(), left)
		}
		l.Release(kept)
		runtime.KeepAlive(l)
	}
}

// shrink moves entries; nothing of them is lost.
func TestShrink(t *testing.T) {
	l := newLimiter(t, 3, 4, 100_000)
	const many = 64 * 300
	for i := range many {
		l.Admit(nth(i), 0)
	}
	for i := range many {
		if i%100 != 0 {
			l.Release(nth(i))
		}
	}
	for i := range 64 * 20 { // idle ones, that are to stay
		l.Admit(nth(many+i), second-1-int64(64*20)+int64(i))
		l.Release(nth(many + i))
	}
	slabs := func() (n int) {
		for i := range l.shards {
			n += cap(l.shards[i].slab)
		}
		return n
	}
	before := slabs()
	l.Sweep(second)
	verify(t, l)
	if n := slabs(); n > before/4 {
		t.Errorf("room for %d entries, %d before", n, before)
	}
	if n, want := l.Addresses(), many/100+64*20; n != want {
		t.Errorf("%d addresses, want %d", n, want)
	}
	for i := range 64 * 20 { // a handshake was used
		for n, want := range []Verdict{Admitted, Admitted, Admitted, TooManyConnections} {
			if v := l.Admit(nth(many+i), second); v != want {
				t.Fatalf("idle address %d, handshake %d: %v", i, n+2, v)
			}
		}
		for range 3 {
			l.Release(nth(many + i))
		}
		if v := l.Admit(nth(many+i), second); v != TooManyHandshakes {
			t.Fatalf("idle address %d, handshake 5: %v", i, v)
		}
	}
	for i := 0; i < many; i += 100 { // a connection is open
		for n, want := range []Verdict{Admitted, Admitted, TooManyConnections} {
			if v := l.Admit(nth(i), second); v != want {
				t.Fatalf("address %d, connection %d: %v", i, n+2, v)
			}
		}
		for range 3 {
			l.Release(nth(i))
		}
	}
	l.Sweep(2 * second)
	verify(t, l)
	if n := l.Addresses(); n != 0 {
		t.Errorf("%d addresses are left", n)
	}
}

// Many loops, few addresses and a table that is too small: never more connections than allowed, nothing is left over,
// nobody waits for ever.
func TestLimiterRace(t *testing.T) {
	for _, rate := range []int{0, 1000} {
		t.Run(fmt.Sprint("rate ", rate), func(t *testing.T) {
			const loops, addresses, limit, most = 8, 40, 3, 30
			l := newLimiter(t, limit, rate, most)
			var open [addresses]atomic.Int32
			var clock, admitted atomic.Int64
			var verdicts [TooManyAddresses + 1]atomic.Int64
			var wg sync.WaitGroup
			for loop := range loops {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(uint64(loop), 1))
					var mine []int
					release := func(i int) {
						n := mine[i]
						mine[i] = mine[len(mine)-1]
						mine = mine[:len(mine)-1]
						open[n].Add(-1)
						l.Release(nth(n))
					}
					for range 4000 {
						switch r.IntN(8) {
						case 0, 1, 2, 3:
							n := r.IntN(addresses)
							v := l.Admit(nth(n), clock.Add(second/1000))
							verdicts[v].Add(1)
							if v != Admitted {
								break
							}
							admitted.Add(1)
							if now := open[n].Add(1); now > limit {
								t.Errorf("address %d has %d connections", n, now)
							}
							mine = append(mine, n)
						case 4:
							l.Sweep(clock.Load())
						default:
							if len(mine) > 0 {
								release(r.IntN(len(mine)))
							}
						}
					}
					for len(mine) > 0 {
						release(0)
					}
				})
			}
			wg.Wait()
			verify(t, l)
			l.Sweep(clock.Load() + second)
			if n := l.Addresses(); n != 0 {
				t.Errorf("%d addresses are left", n)
			}
			if verdicts[Admitted].Load() == 0 || verdicts[TooManyConnections].Load() == 0 || verdicts[TooManyAddresses].Load() == 0 {
				t.Errorf("not all verdicts were met: %v", &verdicts)
			}
		})
	}
}

// Two loops see the same new address while the table is full, and one of them must look for room in other shards, with
// its own unlocked: the address is known when it comes back.
func TestKnownMeanwhile(t *testing.T) {
	l := newLimiter(t, 5, 5, 2)
	inShard := func(not ...*shard) (netip.Addr, key, *shard) {
		for n := 0; ; n++ {
			k, _ := l.keyOf(nth(n))
			if s := l.shardOf(k); !slices.Contains(not, s) {
				return nth(n), k, s
			}
		}
	}
	x, xKey, xShard := inShard()
	y, _, yShard := inShard(xShard)
	z, zKey, zShard := inShard(xShard, yShard)
	l.Admit(y, 0)
	l.Release(y) // may go
	l.Admit(z, 0)

	yShard.mu.Lock() // where the other one will get to
	verdict := make(chan Verdict)
	go func() { verdict <- l.Admit(x, 0) }()
	for l.Addresses() != 3 { // it found the table full, with xShard locked
		runtime.Gosched()
	}
	xShard.mu.Lock() // so it has unlocked that
	zShard.mu.Lock()
	zShard.remove(zShard.index[zKey]) // as if z had made room for x
	zShard.mu.Unlock()
	l.count(xShard, xShard.add(xKey))
	xShard.mu.Unlock()
	yShard.mu.Unlock()
	if v := <-verdict; v != Admitted {
		t.Error(v)
	}
	verify(t, l)
	l.Release(x)
	l.Release(x) // of both
	l.Sweep(second)
	verify(t, l)
	if n := l.Addresses(); n != 0 {
		t.Errorf("%d addresses are left", n)
	}
}

func TestLimiterAllocs(t *testing.T) {
	for _, rate := range []int{0, 1000} {
		l := newLimiter(t, 10, rate, 1000)
		now := int64(0)
		noAllocs(t, "an address that comes and goes", func() {
			now += second / 10
			if l.Admit(nth(0), now) != Admitted {
				t.Fatal("not admitted")
			}
			l.Release(nth(0))
		})
		n := 0
		pass := func() {
			n++
			now += second / 10
			if l.Admit(nth(n), now) != Admitted {
				t.Fatal("not admitted")
			}
			l.Release(nth(n))
			l.Sweep(now)
		}
		for range 2000 { // every shard has been used
			pass()
		}
		noAllocs(t, "new addresses, the old ones going", pass)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := newLimiter(b, 10, 1_000_000, 1<<17)
	b.ReportAllocs()
	for i := range b.N {
		a := nth(i % 50_000)
		if l.Admit(a, int64(i)*1000) != Admitted {
			b.Fatal("not admitted")
		}
		l.Release(a)
	}
}
