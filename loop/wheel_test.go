package loop

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

const wheelTick = int64(Tick)

// firedAt advances w to now and returns what fired, in order.
func firedAt(w *Wheel, now int64) []uint32 {
	var fired []uint32
	w.Advance(now, func(i uint32) {
		if w.Armed(i) {
			panic(fmt.Sprintf("entry %d is armed while it fires", i))
		}
		fired = append(fired, i)
	})
	return fired
}

// The memory per entry is part of the budget of a connection.
func TestWheelSizeof(t *testing.T) {
	if got := unsafe.Sizeof(wheelNode{}); got != 12 {
		t.Errorf("a node takes %d bytes, budget 12", got)
	}
	if got := unsafe.Sizeof(Wheel{}); got > 18<<10 {
		t.Errorf("a wheel takes %d bytes, budget 18 KiB", got)
	}
}

// An entry fires at the first Advance at or after its time rounded up to a tick: not one nanosecond before its time,
// and less than a tick late.
func TestWheelFiresNeverEarlyAndLessThanATickLate(t *testing.T) {
	starts := []int64{0, 1, wheelTick - 1, wheelTick, 12345678901, -3*wheelTick - 5,
		(wheelLevel0Slots - 1) * wheelTick, wheelLevel0Slots*wheelTick - 1, math.MaxUint32 * wheelTick}
	var delays []int64
	for _, base := range []int64{0, wheelTick, 5 * wheelTick, wheelLevel0Slots * wheelTick,
		wheelTick << wheelShift(1), wheelTick << wheelShift(2), wheelMaxTicks * wheelTick, 2 * wheelMaxTicks * wheelTick} {
		for _, off := range []int64{-wheelTick - 1, -wheelTick, -1, 0, 1, wheelTick - 1, wheelTick, wheelTick + 1} {
			delays = append(delays, base+off)
		}
	}
	for _, start := range starts {
		for _, delay := range delays {
			at := start + delay
			w := NewWheel(start)
			w.Set(7, at)
			if w.Len() != 1 || !w.Armed(7) {
				t.Fatalf("start %d delay %d: not armed", start, delay)
			}
			if delay <= 0 {
				if got := w.Next(); got > start {
					t.Errorf("start %d delay %d: Next is %d for an entry in the past", start, delay, got)
				}
				if fired := firedAt(w, start); len(fired) != 1 {
					t.Errorf("start %d delay %d: in the past, but did not fire at the next Advance", start, delay)
				}
				continue
			}
			due := w.At(7)
			if due < at || due >= at+wheelTick {
				t.Errorf("start %d delay %d: At is %d after the time set, want 0 to a tick", start, delay, due-at)
			}
			if fired := firedAt(w, at-1); len(fired) != 0 {
				t.Errorf("start %d delay %d: fired early", start, delay)
			}
			if got := w.Next(); got != due {
				t.Errorf("start %d delay %d: Next is %d just before the entry is due, want %d", start, delay, got, due)
			}
			if fired := firedAt(w, at+wheelTick-1); !slices.Equal(fired, []uint32{7}) {
				t.Errorf("start %d delay %d: fired %v a tick after its time", start, delay, fired)
			}
			if w.Len() != 0 || w.Armed(7) || w.Next() != math.MaxInt64 || w.At(7) != math.MaxInt64 {
				t.Errorf("start %d delay %d: still armed after it fired", start, delay)
			}
		}
	}
}

// Following Next alone, as a loop does with its timer, fires everything in time and wakes up in vain only to move
// entries down: at most once per level and entry.
func TestWheelNextLeadsToTheEntry(t *testing.T) {
	for _, delay := range []time.Duration{time.Millisecond, 20 * time.Second, 41 * time.Second, time.Hour, 50 * time.Hour,
		100 * 24 * time.Hour, 200 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		start := int64(987654321)
		at := start + int64(delay)
		w := NewWheel(start)
		w.Set(0, at)
		budget := 2 + wheelUpperLevels + int(int64(delay)/(wheelMaxTicks*wheelTick))
		var now int64
		wakeups := 0
		for fired := false; !fired; wakeups++ {
			next := w.Next()
			if next <= now || next >= at+wheelTick {
				t.Fatalf("%v: Next went from %d to %d, the entry is at %d", delay, now, next, at)
			}
			now = next
			w.Advance(now, func(uint32) { fired = true })
		}
		if now < at || wakeups > budget {
			t.Errorf("%v: fired %v after its time with %d wake-ups, want at most %d", delay, time.Duration(now-at), wakeups, budget)
		}
	}
}

// The reach of the levels: at and below it an entry costs nothing but its node, above it a map entry; the time is kept
// in every case.
func TestWheelHorizon(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ticks int64
		far   int
	}{
		{"below", wheelMaxTicks - 1, 0}, {"at", wheelMaxTicks, 0}, {"above", wheelMaxTicks + 1, 1}, {"far above", 1 << 33, 1},
	} {
		for _, start := range []int64{0, wheelMaxTicks - 1, 1<<32 - 3} {
			w := NewWheel(start * wheelTick)
			at := (start + tc.ticks) * wheelTick
			w.Set(3, at)
			if len(w.far) != tc.far {
				t.Errorf("%s, start %d: %d far entries, want %d", tc.name, start, len(w.far), tc.far)
			}
			if got := w.At(3); got != at {
				t.Errorf("%s, start %d: At is off by %d", tc.name, start, got-at)
			}
			if fired := firedAt(w, at-1); len(fired) != 0 {
				t.Errorf("%s, start %d: fired early", tc.name, start)
			}
			if fired := firedAt(w, at); len(fired) != 1 {
				t.Errorf("%s, start %d: did not fire", tc.name, start)
			}
			if len(w.far) != 0 {
				t.Errorf("%s, start %d: the map entry was left behind", tc.name, start)
			}
		}
	}
	// A time whose tick has the same low half as the one that the entry is armed for.
	w := NewWheel(0)
	w.Set(1, 5*wheelTick)
	w.Set(1, (5+1<<32)*wheelTick)
	if fired := firedAt(w, 6*wheelTick); len(fired) != 0 {
		t.Errorf("fired %v, 497 days early", fired)
	}

	w = NewWheel(0)
	w.Set(1, math.MaxInt64) // "never" is a time like any other
	w.Set(2, math.MaxInt64)
	w.Set(3, math.MaxInt64)
	if fired := firedAt(w, 200*365*24*int64(time.Hour)); len(fired) != 0 {
		t.Errorf("fired %v ninety years early", fired)
	}
	w.Cancel(1)
	w.Set(2, 0)
	w.Set(3, w.now+wheelTick)
	if len(w.far) != 0 {
		t.Errorf("%d map entries left by Cancel and Set", len(w.far))
	}
	if fired := firedAt(w, w.now+wheelTick); !slices.Equal(fired, []uint32{2, 3}) {
		t.Errorf("fired %v, want 2 and 3", fired)
	}
}

func TestWheelOrderOfTicks(t *testing.T) {
	w := NewWheel(0)
	r := rand.New(rand.NewPCG(1, 2))
	at := make([]int64, 3000)
	for i := range at {
		at[i] = r.Int64N(3 * int64(time.Hour))
		w.Set(uint32(i), at[i])
	}
	at[5] = -1
	w.Set(5, -1)
	fired := firedAt(w, 4*int64(time.Hour))
	if len(fired) != len(at) || fired[0] != 5 {
		t.Fatalf("%d of %d fired, the first was %d, want 5", len(fired), len(at), fired[0])
	}
	if !slices.IsSortedFunc(fired, func(a, b uint32) int { return int(wheelCeil(at[a]) - wheelCeil(at[b])) }) {
		t.Error("not in order of ticks")
	}
}

// The slots of level 0 are a ring: those behind the current one, in the same word of the bitmap too, come last.
func TestWheelOrderAroundTheRing(t *testing.T) {
	for _, cur := range []int64{0, 1, 30, 63, 64, 2000, wheelLevel0Slots - 64, wheelLevel0Slots - 30, wheelLevel0Slots - 1} {
		w := NewWheel(cur * wheelTick)
		var want []uint32
		for i, ahead := range []int64{1, 2, 33, 63, 64, 65, 500, 2048, wheelLevel0Slots - 65, wheelLevel0Slots - 20, wheelLevel0Slots - 1} {
			w.Set(uint32(i), (cur+ahead)*wheelTick)
			want = append(want, uint32(i))
		}
		for i, k := range want {
			if got := w.Next(); got != w.At(k) {
				t.Fatalf("current slot %d: Next is %d, want %d", cur, got, w.At(k))
			}
			if i%2 == 0 { // take some one by one and some by firing
				w.Cancel(k)
			} else if fired := firedAt(w, w.Next()); !slices.Equal(fired, []uint32{k}) {
				t.Fatalf("current slot %d: fired %v, want %d", cur, fired, k)
			}
		}
	}
}

func TestWheelCancel(t *testing.T) {
	w := NewWheel(0)
	w.Cancel(0)
	w.Cancel(math.MaxUint32)
	w.Set(2000, wheelTick)
	w.Cancel(0) // its chunk does not exist
	w.Cancel(2001)
	if w.Armed(0) || w.Armed(2001) || w.Armed(math.MaxUint32) || w.At(math.MaxUint32) != math.MaxInt64 || w.Len() != 1 {
		t.Error("entries that were never set are armed")
	}
	w.Cancel(2000)
	w.Cancel(2000)
	if w.Len() != 0 || w.Next() != math.MaxInt64 {
		t.Errorf("Len %d, Next %d after Cancel", w.Len(), w.Next())
	}
	if fired := firedAt(w, int64(time.Hour)); len(fired) != 0 {
		t.Errorf("cancelled, but fired: %v", fired)
	}
}

func TestWheelEntryNumberLimit(t *testing.T) {
	try := func(i uint32) (panicked bool) {
		defer func() { panicked = recover() != nil }()
		w := NewWheel(0)
		w.Set(i, 1)
		w.Set(i-1, 1)
		if fired := firedAt(w, wheelTick); len(fired) != 2 {
			t.Errorf("entry %d: fired %v", i, fired)
		}
		return false
	}
	if try(WheelMaxEntries-2) || try(WheelMaxEntries-1) {
		t.Error("an entry within the limit was refused")
	}
	if !try(WheelMaxEntries) || !try(math.MaxUint32) {
		t.Error("an entry above the limit was taken")
	}
}

func TestWheelReentrancy(t *testing.T) {
	w := NewWheel(0)
	for i := range uint32(4) {
		w.Set(i, wheelTick)
	}
	var fired []uint32
	w.Advance(wheelTick, func(i uint32) {
		fired = append(fired, i)
		for j := range uint32(4) {
			w.Cancel(j) // the others are due in the same tick
		}
	})
	if len(fired) != 1 || w.Len() != 0 {
		t.Errorf("fired %v although the first cancelled the rest; %d armed", fired, w.Len())
	}

	w = NewWheel(0)
	calls := 0
	again := func(i uint32) { calls++; w.Set(i, w.now-int64(calls)); w.Set(9, w.now) }
	w.Set(0, 0)
	for n := 1; n <= 3; n++ {
		now := int64(n) * 10 * wheelTick
		w.Advance(now, again)
		if want := 2*n - 1; calls != want {
			t.Fatalf("%d calls after %d Advances of entries that set themselves to the past, want %d", calls, n, want)
		}
		if w.Next() > now {
			t.Errorf("Next is %d with entries due since %d", w.Next(), now)
		}
	}

	// Moved by fire from a later tick of the same Advance: not fired in this one, nor twice.
	w = NewWheel(0)
	w.Set(0, wheelTick)
	w.Set(1, 2*wheelTick)
	w.Set(2, 2*wheelTick)
	fired = nil
	w.Advance(5*wheelTick, func(i uint32) {
		fired = append(fired, i)
		if i == 0 {
			w.Set(1, 3*wheelTick) // past by now
			w.Set(2, 6*wheelTick)
			w.Set(0, 5*wheelTick+1)
		}
	})
	if !slices.Equal(fired, []uint32{0}) {
		t.Errorf("fired %v, want 0 only", fired)
	}
	if fired := firedAt(w, 5*wheelTick); !slices.Equal(fired, []uint32{1}) {
		t.Errorf("fired %v, want 1", fired)
	}
	if fired := firedAt(w, 6*wheelTick); len(fired) != 2 {
		t.Errorf("fired %v, want 0 and 2", fired)
	}
}

func TestWheelAdvanceWithinFirePanics(t *testing.T) {
	w := NewWheel(0)
	w.Set(0, 0)
	w.Advance(0, func(uint32) {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		w.Advance(1, func(uint32) {})
	})
}

// A fire that panics loses its own entry and no other.
func TestWheelFirePanics(t *testing.T) {
	w := NewWheel(0)
	due := map[uint32]bool{}
	for i := range uint32(6) {
		w.Set(i, []int64{0, 0, 3 * wheelTick, 3 * wheelTick, 4 * wheelTick, wheelLevel0Slots * wheelTick}[i])
		due[i] = true
	}
	for advances := 0; len(due) > 0; advances++ {
		if advances == 12 {
			t.Fatalf("%v not fired after %d Advances", due, advances)
		}
		if advances > 0 && w.Next() > w.now {
			t.Errorf("Next is %d after %d, with %v due", w.Next(), w.now, due)
		}
		func() {
			defer func() { _ = recover() }()
			w.Advance(wheelLevel0Slots*wheelTick, func(i uint32) {
				if !due[i] {
					t.Errorf("%d fired twice", i)
				}
				delete(due, i)
				panic("on purpose")
			})
		}()
	}
	if w.Len() != 0 {
		t.Errorf("%d armed", w.Len())
	}

	w = NewWheel(0)
	w.Set(0, wheelTick)
	w.Set(1, wheelTick)
	func() {
		defer func() { _ = recover() }()
		w.Advance(wheelTick, func(uint32) { panic("on purpose") })
	}()
	if w.Len() != 1 || w.Next() != wheelTick {
		t.Errorf("%d armed, Next is %d, want 1 due at %d", w.Len(), w.Next(), wheelTick)
	}
}

func TestWheelTimeDoesNotGoBack(t *testing.T) {
	w := NewWheel(100 * wheelTick)
	w.Set(1, 90*wheelTick)
	w.Set(2, 101*wheelTick)
	if fired := firedAt(w, 50*wheelTick); !slices.Equal(fired, []uint32{1}) {
		t.Errorf("fired %v, want 1", fired)
	}
	w.Set(1, 99*wheelTick)
	if fired := firedAt(w, 50*wheelTick); !slices.Equal(fired, []uint32{1}) {
		t.Errorf("fired %v, want 1: the wheel's time is still 100", fired)
	}
	w.Set(1, 60*wheelTick)
	if fired := firedAt(w, 101*wheelTick); !slices.Equal(fired, []uint32{1, 2}) {
		t.Errorf("fired %v, want 1 and 2", fired)
	}
}

// An Advance over a long gap costs what there is to fire and to move, not the ticks in between: ten years of ticks
// one by one would take minutes.
func TestWheelLongGap(t *testing.T) {
	w := NewWheel(0)
	year := 365 * 24 * int64(time.Hour)
	w.Set(0, 20*int64(time.Second))
	w.Set(1, year/2)
	w.Set(2, 10*year)
	if fired := firedAt(w, 10*year); !slices.Equal(fired, []uint32{0, 1, 2}) {
		t.Errorf("fired %v", fired)
	}
	w.Set(0, 10*year+1)
	if fired := firedAt(w, 20*year); len(fired) != 1 {
		t.Errorf("fired %v", fired)
	}
	steps := 0
	w.Set(0, 25*year)
	for tick := w.nextTick(); w.Len() > 0; tick = w.nextTick() {
		w.Advance(wheelTime(tick), func(uint32) {})
		steps++
	}
	if steps > 20 {
		t.Errorf("%d steps over five years with one entry", steps)
	}
}

// naiveWheel is the oracle: a map of due ticks.
type naiveWheel struct {
	now  int64
	due  map[uint32]int64 // tick; wheelPast for the next Advance
	wait map[uint32]bool  // set to the past by the Advance that is running
}

const wheelPast = math.MinInt64

func (o *naiveWheel) set(i uint32, at int64, advancing bool) {
	delete(o.wait, i)
	if at <= o.now {
		o.due[i] = wheelPast
		if advancing {
			o.wait[i] = true
		}
		return
	}
	o.due[i] = wheelCeil(at)
}

func (o *naiveWheel) cancel(i uint32) { delete(o.due, i); delete(o.wait, i) }

// first returns the smallest tick that may fire now, and whether there is one.
func (o *naiveWheel) first() (int64, bool) {
	tick, ok := int64(math.MaxInt64), false
	for i, d := range o.due {
		if !o.wait[i] && (d == wheelPast || d <= wheelFloor(o.now)) && d <= tick {
			tick, ok = d, true
		}
	}
	return tick, ok
}

// Any sequence of Set, Cancel and Advance, also from within fire, does what a plain map of deadlines does.
func TestWheelAgainstOracle(t *testing.T) {
	const entries = 40
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SampledFrom([]int64{0, -1, 5, wheelLevel0Slots*wheelTick - 3, (1<<32 - 2) * wheelTick, 1 << 50}).Draw(t, "start")
		delay := rapid.OneOf(
			rapid.Int64Range(-3*wheelTick, 5*wheelTick),
			rapid.Int64Range(0, 2*wheelLevel0Slots*wheelTick),
			rapid.Int64Range(0, wheelTick<<wheelShift(1)),
			rapid.Int64Range(0, wheelTick<<wheelShift(2)),
			rapid.Int64Range(0, 3*wheelMaxTicks*wheelTick),
		)
		number := rapid.Custom(func(t *rapid.T) uint32 {
			n := rapid.Uint32Range(0, entries-1).Draw(t, "n")
			return n * 331 // several chunks
		})
		w := NewWheel(start)
		o := &naiveWheel{now: start, due: map[uint32]int64{}, wait: map[uint32]bool{}}
		change := func(advancing bool) {
			i := number.Draw(t, "entry")
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				w.Cancel(i)
				o.cancel(i)
				return
			}
			at := o.now + delay.Draw(t, "delay")
			w.Set(i, at)
			o.set(i, at, advancing)
		}
		check := func() {
			if w.Len() != len(o.due) {
				t.Fatalf("Len %d, want %d", w.Len(), len(o.due))
			}
			earliest := int64(math.MaxInt64)
			for n := range uint32(entries) {
				i := n * 331
				tick, armed := o.due[i]
				if w.Armed(i) != armed {
					t.Fatalf("Armed(%d) is %v", i, !armed)
				}
				if !armed {
					continue
				}
				if tick == wheelPast {
					earliest = min(earliest, o.now)
				} else {
					earliest = min(earliest, wheelTime(tick))
					if w.At(i) != wheelTime(tick) {
						t.Fatalf("At(%d) is %d, want %d", i, w.At(i), wheelTime(tick))
					}
				}
			}
			if next := w.Next(); next > earliest || (next == math.MaxInt64) != (len(o.due) == 0) {
				t.Fatalf("Next is %d, the first entry is due at %d", next, earliest)
			}
			checkWheel(t, w)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "step") > 0 {
				change(false)
				check()
				continue
			}
			if rapid.Bool().Draw(t, "to next") && w.Len() > 0 {
				o.now = max(o.now, w.Next())
			} else {
				o.now += max(0, delay.Draw(t, "advance"))
			}
			w.Advance(o.now, func(i uint32) {
				tick, ok := o.first()
				if got, armed := o.due[i]; !ok || !armed || got != tick || o.wait[i] {
					t.Fatalf("fired %d of tick %d (armed %v), want one of tick %d (%v)", i, got, armed, tick, ok)
				}
				o.cancel(i)
				for range rapid.IntRange(0, 2).Draw(t, "changes") {
					change(true)
				}
			})
			if tick, ok := o.first(); ok {
				t.Fatalf("an entry of tick %d did not fire", tick)
			}
			clear(o.wait)
			check()
		}
	})
}

// checkWheel walks all lists: every link has its counterpart, the occupancy bits are exact, every entry is where its
// tick belongs.
func checkWheel(t interface{ Fatalf(string, ...any) }, w *Wheel) {
	armed := 0
	for b := range uint32(wheelBuckets) {
		head := w.heads[b]
		switch {
		case b < wheelLevel0Slots:
			if got := w.words[b/64]>>(b%64)&1 == 1; got != (head != 0) || w.summary>>(b/64)&1 == 0 != (w.words[b/64] == 0) {
				t.Fatalf("slot %d: occupancy bit %v, head %d", b, got, head)
			}
		case b < wheelPastBucket:
			s := b - wheelUpperBucket
			if got := w.upper[s/wheelUpperSlots]>>(s%wheelUpperSlots)&1 == 1; got != (head != 0) {
				t.Fatalf("bucket %d: occupancy bit %v, head %d", b, got, head)
			}
		}
		prev := wheelHead | b
		for head != 0 {
			n := w.node(head - 1)
			if n.prev != prev {
				t.Fatalf("bucket %d entry %d: prev %#x, want %#x", b, head-1, n.prev, prev)
			}
			if d := w.tick(n) - w.cur; b < wheelPastBucket && (d <= 0 || d > wheelMaxTicks) {
				t.Fatalf("bucket %d entry %d: %d ticks ahead", b, head-1, d)
			}
			prev, head = head, n.next
			armed++
		}
	}
	if armed != w.armed {
		t.Fatalf("%d entries in the lists, Len %d", armed, w.armed)
	}
}

func TestWheelDoesNotAllocate(t *testing.T) {
	w := NewWheel(0)
	now := int64(0)
	for i := range uint32(5000) {
		w.Set(i, now+int64(i)*wheelTick)
	}
	fire := func(i uint32) { w.Set(i, now+int64(50*time.Second)) }
	n := uint32(0)
	if got := testing.AllocsPerRun(10000, func() {
		n = (n + 7) % 5000
		w.Set(n, now+int64(20*time.Second))
		w.Cancel((n + 1) % 5000)
		w.Set((n+1)%5000, now+int64(time.Hour))
		now += wheelTick * 3
		w.Advance(now, fire)
		w.Next()
	}); got != 0 {
		t.Errorf("%v allocations per round, want 0", got)
	}
}

// A million entries grow chunk by chunk: nothing that was allocated before is copied.
func TestWheelGrowsWithoutCopying(t *testing.T) {
	w := NewWheel(0)
	w.Set(0, 1)
	first := w.node(0)
	const n = 100_000
	for i := range uint32(n) {
		w.Set(i, int64(i))
	}
	if w.node(0) != first {
		t.Error("the first node has moved")
	}
	if got, want := len(w.chunks), (n+wheelChunkLen-1)/wheelChunkLen; got != want {
		t.Errorf("%d chunks, want %d", got, want)
	}
	if fired := firedAt(w, wheelTick); len(fired) != n {
		t.Errorf("%d fired", len(fired))
	}
}

func benchmarkWheel(armed int) (*Wheel, int64) {
	w := NewWheel(0)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range uint32(armed) {
		w.Set(i, r.Int64N(int64(20*time.Second)))
	}
	return w, 0
}

func BenchmarkWheelSetCancel(b *testing.B) {
	const armed = 1_000_000
	w, now := benchmarkWheel(armed)
	r := rand.New(rand.NewPCG(3, 4))
	order := make([]uint32, 1<<16)
	for i := range order {
		order[i] = r.Uint32N(armed)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		i := order[n&(len(order)-1)]
		w.Cancel(i)
		w.Set(i, now+int64(n&0x3fff)*1e6)
		n++
	}
}

// A million heartbeats of 20 s, each set again when it fires: one operation is one tick, about 500 entries.
func BenchmarkWheelAdvance1M(b *testing.B) {
	w, now := benchmarkWheel(1_000_000)
	fired := 0
	fire := func(i uint32) { fired++; w.Set(i, now+int64(20*time.Second)) }
	b.ReportAllocs()
	for b.Loop() {
		now += wheelTick
		w.Advance(now, fire)
	}
	b.ReportMetric(float64(fired)/float64(b.N), "fired/op")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(fired), "ns/entry")
}
