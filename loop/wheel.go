package loop

import (
	"math"
	"math/bits"
	"time"
)

// Tick is the resolution of a Wheel: an entry fires at the first Advance at or after the end of the tick that its time
// falls into, so never early and less than one Tick late.
const Tick = 10 * time.Millisecond

// The levels of a wheel. A slot of level 0 is one tick, a slot of level k is wheelShift(k) ticks:
//
//	level  slots  a slot is             the level reaches
//	0      4,096  10 ms                 41 s
//	1         64  41 s                  43 min
//	2         64  44 min                46 h
//	3         64  47 h                  122 days
//
// Level 0 is this wide so that the deadlines of a gateway (heartbeat 20 s, requests 15 s, handshake, write and close
// below that) live and die in it: with the 256 slots that are usual, every heartbeat would be moved once more from
// level 1, a million of them in bursts of 128,000 at a time. The price is 16 KiB per wheel.
const (
	wheelLevel0Bits  = 12
	wheelLevel0Slots = 1 << wheelLevel0Bits
	wheelUpperBits   = 6
	wheelUpperSlots  = 1 << wheelUpperBits
	wheelUpperLevels = 3

	// wheelMaxTicks is the farthest that the levels reach from the current tick whatever its position in its slot: 63
	// slots of level 3. Entries beyond it wait in the last slot with their true tick in Wheel.far.
	wheelMaxTicks = (wheelUpperSlots - 1) << (wheelLevel0Bits + (wheelUpperLevels-1)*wheelUpperBits)

	// Buckets: the slots of level 0, those of levels 1 to 3, and two for entries that are due already.
	wheelUpperBucket = wheelLevel0Slots
	wheelPastBucket  = wheelUpperBucket + wheelUpperLevels*wheelUpperSlots
	wheelBuckets     = wheelPastBucket + 2
)

// Nodes are allocated in chunks, so that growing to a million entries copies none of them. A chunk is 12 KiB, which is
// a size class of Go's allocator: nothing is lost to rounding.
const (
	wheelChunkBits = 10
	wheelChunkLen  = 1 << wheelChunkBits
)

// WheelMaxEntries bounds the numbers of entries: Set panics for i >= WheelMaxEntries. One bit of a link tells bucket
// from node, and 0 is no link.
const WheelMaxEntries = 1<<31 - 1

// wheelNode is what an entry costs: 12 bytes without a pointer, so the collector never looks into a chunk. Links are
// entry number + 1; 0 is none.
type wheelNode struct {
	// next is the following entry of the bucket's list, 0 at its end.
	next uint32
	// prev is the preceding entry, or wheelHead|bucket for the first of a list, which is how unlinking the last entry
	// of a slot finds the occupancy bit to clear. 0: the entry is not armed.
	prev uint32
	// tick is the low half of the tick at which the entry fires. It is always within wheelMaxTicks of the current
	// tick, so the whole tick can be told from it however long the process runs.
	tick uint32
}

const wheelHead = 1 << 31 // in wheelNode.prev

// Wheel is a hierarchical timer wheel. An entry is a number that the owner chooses (the slot of a socket, the index of
// a request), so nothing has to be looked up either way; it is armed at most once at a time. Set and Cancel are O(1)
// and do not allocate, except that the first Set of a number may allocate the chunk of 1,024 nodes that it lies in: a
// wheel costs 12 bytes for each number up to the highest one ever used, armed or not, and 18 KiB besides.
//
// Times are int64 nanoseconds on the loop's monotonic clock; the wheel itself reads no clock. Entries are placed by
// their distance from the current tick, on levels of growing slots (see the constants above); when the clock reaches a
// slot of an upper level, its entries move down. The reach of the levels is 122 days. A time beyond that is kept
// exactly as well, at the cost of a map entry.
//
// Not safe for concurrent use: only the goroutine of the loop that owns the wheel may call its methods.
type Wheel struct {
	chunks []*[wheelChunkLen]wheelNode
	far    map[uint32]int64 // true ticks of entries beyond wheelMaxTicks; nil until there is one

	now   int64 // of the last Advance (or NewWheel), nanoseconds
	cur   int64 // current tick: the slots of all ticks up to it have been emptied
	armed int

	past      uint32 // the one of the two past buckets that Set uses; Advance empties it after switching to the other
	advancing bool

	// Occupancy: a bit is set exactly when the slot's list is not empty.
	upper   [wheelUpperLevels]uint64
	summary uint64 // bit n: words[n] is not 0
	words   [wheelLevel0Slots / 64]uint64

	heads [wheelBuckets]uint32 // first entry of each bucket's list + 1, 0 when empty
}

// NewWheel returns an empty wheel whose time is now.
func NewWheel(now int64) *Wheel {
	return &Wheel{now: now, cur: wheelFloor(now), past: wheelPastBucket}
}

// wheelFloor returns the last tick that has begun at time t.
func wheelFloor(t int64) int64 {
	n := t / int64(Tick)
	if t%int64(Tick) < 0 {
		n--
	}
	return n
}

// wheelCeil returns the first tick that begins at t or later.
func wheelCeil(t int64) int64 {
	n := t / int64(Tick)
	if t%int64(Tick) > 0 {
		n++
	}
	return n
}

// wheelTime returns the time at which tick n begins, at most math.MaxInt64.
func wheelTime(n int64) int64 {
	if n > math.MaxInt64/int64(Tick) {
		return math.MaxInt64
	}
	return n * int64(Tick)
}

// wheelShift returns the binary logarithm of the length in ticks of a slot of upper level k (0 is the lowest of them).
func wheelShift(k int) int { return wheelLevel0Bits + k*wheelUpperBits }

// Len returns the number of armed entries.
func (w *Wheel) Len() int { return w.armed }

// Armed reports whether entry i is armed. It is not any more when fire is called for it.
func (w *Wheel) Armed(i uint32) bool {
	n := w.lookup(i)
	return n != nil && n.prev != 0
}

// At returns the time at which entry i fires: the time it was set to, rounded up to a whole Tick, or a time not after
// the wheel's own for an entry set to the past. It is math.MaxInt64 for an entry that is not armed.
func (w *Wheel) At(i uint32) int64 {
	n := w.lookup(i)
	if n == nil || n.prev == 0 {
		return math.MaxInt64
	}
	if tick, ok := w.far[i]; ok {
		return wheelTime(tick)
	}
	return wheelTime(w.tick(n))
}

// Set arms entry i for time at, instead of the time it was armed for before, if any. A time not after the one of the
// last Advance makes it fire at the next Advance (within fire: at the next one, not at the one that is running).
func (w *Wheel) Set(i uint32, at int64) {
	n := w.lookup(i)
	if n == nil {
		n = w.grow(i)
	}
	if len(w.far) != 0 {
		delete(w.far, i)
	}
	if at <= w.now {
		if n.prev != 0 {
			w.unlink(n)
		}
		n.tick = uint32(w.cur)
		w.link(i, n, w.past)
		return
	}
	// After the current tick, and during an Advance after the last tick that it will empty: nothing set by fire fires
	// in the same Advance.
	tick := wheelCeil(at)
	if n.prev != 0 {
		if n.tick == uint32(tick) && tick-w.cur <= wheelMaxTicks {
			return // it is in the right place already: a deadline moved within its tick
		}
		w.unlink(n)
	}
	w.place(i, n, tick)
}

// Cancel disarms entry i. It is a no-op for an entry that is not armed or was never set.
func (w *Wheel) Cancel(i uint32) {
	n := w.lookup(i)
	if n == nil || n.prev == 0 {
		return
	}
	if len(w.far) != 0 {
		delete(w.far, i)
	}
	w.unlink(n)
}

// Advance moves the wheel to time now and calls fire once for each entry whose time has come, disarmed before the call:
// first those that were set to the past, then in order of ticks (within a tick in no particular order). It takes time
// in proportion to the entries fired or moved, not to the time that has passed. A now before that of the last Advance
// counts as the latter.
//
// fire may Set and Cancel any entry, including its own and others that are due: a cancelled one does not fire, and one
// that is set to now or before fires at the next Advance. It must not call Advance (that panics). When fire panics, the
// entries that were still to be fired stay armed and are due at the next Advance, or at the one after it.
func (w *Wheel) Advance(now int64, fire func(i uint32)) {
	if w.advancing {
		panic("loop: Wheel.Advance called by its own fire")
	}
	w.advancing = true
	defer func() { w.advancing = false }()
	if now > w.now {
		w.now = now
	}
	target := wheelFloor(w.now)

	past := w.past
	w.past ^= wheelPastBucket ^ (wheelPastBucket + 1)
	w.drain(past, fire)
	w.drain(uint32(w.cur&(wheelLevel0Slots-1)), fire) // empty, unless a fire has panicked in it

	for {
		tick := w.nextTick()
		if tick > target {
			break
		}
		w.cur = tick
		for k := wheelUpperLevels - 1; k >= 0; k-- {
			if tick&(1<<wheelShift(k)-1) == 0 {
				w.cascade(k)
			}
		}
		w.drain(uint32(tick&(wheelLevel0Slots-1)), fire)
	}
	w.cur = target
}

// Next returns the time at which Advance should be called next: never later than the first entry's time rounded up to
// a whole Tick, and earlier only when entries more than 40 s away have to move down a level by then. It is
// math.MaxInt64 when nothing is armed.
func (w *Wheel) Next() int64 {
	if w.armed == 0 {
		return math.MaxInt64
	}
	cur := w.cur & (wheelLevel0Slots - 1)
	if w.heads[wheelPastBucket]|w.heads[wheelPastBucket+1]|w.heads[cur] != 0 { // cur: left by a fire that panicked
		return w.now
	}
	return wheelTime(w.nextTick())
}

// nextTick returns the first tick after the current one at which a slot of level 0 fires or one of an upper level
// moves down; math.MaxInt64 when all slots are empty.
func (w *Wheel) nextTick() int64 {
	next := int64(math.MaxInt64)
	if w.summary != 0 {
		cur := int(w.cur & (wheelLevel0Slots - 1))
		slot := w.scan(cur + 1)
		if slot < 0 {
			slot = w.scan(0)
		}
		// The distance is 1 to 4,096; the current slot itself, 4,096 away, is occupied only after a panic of fire.
		next = w.cur + int64((slot-cur-1)&(wheelLevel0Slots-1)) + 1
	}
	for k, occupied := range w.upper {
		if occupied == 0 {
			continue
		}
		shift := wheelShift(k)
		unit := w.cur >> shift
		// Bit 0 after the rotation is the slot after the current one.
		distance := bits.TrailingZeros64(bits.RotateLeft64(occupied, -int(unit&(wheelUpperSlots-1))-1)) + 1
		next = min(next, (unit+int64(distance))<<shift)
	}
	return next
}

// scan returns the first occupied slot of level 0 from slot from on, or -1.
func (w *Wheel) scan(from int) int {
	if from >= wheelLevel0Slots {
		return -1
	}
	n := from / 64
	if rest := w.words[n] >> (from % 64); rest != 0 {
		return from + bits.TrailingZeros64(rest)
	}
	rest := w.summary &^ (1<<(n+1) - 1) // for n = 63 the shift gives 0, and the mask everything
	if rest == 0 {
		return -1
	}
	n = bits.TrailingZeros64(rest)
	return n*64 + bits.TrailingZeros64(w.words[n])
}

// drain fires the entries of a bucket. None can be added to it meanwhile: what fire sets to the past goes to the other
// past bucket, and what it sets to the future to slots less than one turn ahead.
func (w *Wheel) drain(bucket uint32, fire func(i uint32)) {
	for {
		head := w.heads[bucket]
		if head == 0 {
			return
		}
		w.unlink(w.node(head - 1))
		fire(head - 1)
	}
}

// cascade moves the entries of the slot of upper level k that begins at the current tick to lower levels (or, those
// beyond the reach of the wheel, to the last slot again).
func (w *Wheel) cascade(k int) {
	slot := uint32(w.cur>>wheelShift(k)) & (wheelUpperSlots - 1)
	head := w.heads[wheelUpperBucket+uint32(k)*wheelUpperSlots+slot]
	for head != 0 {
		i := head - 1
		n := w.node(i)
		head = n.next
		tick := w.tick(n)
		if k == wheelUpperLevels-1 && len(w.far) != 0 {
			if t, ok := w.far[i]; ok {
				delete(w.far, i)
				tick = t
			}
		}
		w.unlink(n)
		w.place(i, n, tick)
	}
}

// place links the unlinked entry i into the slot for tick, which is not before the current one.
func (w *Wheel) place(i uint32, n *wheelNode, tick int64) {
	if tick-w.cur > wheelMaxTicks {
		if w.far == nil {
			w.far = make(map[uint32]int64)
		}
		w.far[i] = tick
		tick = w.cur + wheelMaxTicks
	}
	n.tick = uint32(tick)
	if tick-w.cur < wheelLevel0Slots {
		w.link(i, n, uint32(tick&(wheelLevel0Slots-1)))
		return
	}
	for k := range wheelUpperLevels {
		shift := wheelShift(k)
		// At least 1, because the distance is more than a slot of this level: the level below did not reach.
		if tick>>shift-w.cur>>shift < wheelUpperSlots {
			slot := uint32(tick>>shift) & (wheelUpperSlots - 1)
			w.link(i, n, wheelUpperBucket+uint32(k)*wheelUpperSlots+slot)
			return
		}
	}
	panic("loop: Wheel.place: out of reach") // wheelMaxTicks is what the last level reaches
}

// tick returns the whole tick of an armed entry.
func (w *Wheel) tick(n *wheelNode) int64 {
	return w.cur + int64(int32(n.tick-uint32(w.cur)))
}

// link puts the unlinked entry i at the front of a bucket's list.
func (w *Wheel) link(i uint32, n *wheelNode, bucket uint32) {
	head := w.heads[bucket]
	n.next = head
	n.prev = wheelHead | bucket
	w.heads[bucket] = i + 1
	w.armed++
	if head != 0 {
		w.node(head - 1).prev = i + 1
		return
	}
	switch {
	case bucket < wheelLevel0Slots:
		w.words[bucket/64] |= 1 << (bucket % 64)
		w.summary |= 1 << (bucket / 64)
	case bucket < wheelPastBucket:
		slot := bucket - wheelUpperBucket
		w.upper[slot/wheelUpperSlots] |= 1 << (slot % wheelUpperSlots)
	}
}

// unlink takes an armed entry out of its bucket's list and disarms it.
func (w *Wheel) unlink(n *wheelNode) {
	prev, next := n.prev, n.next
	n.prev, n.next = 0, 0
	w.armed--
	if next != 0 {
		w.node(next - 1).prev = prev
	}
	if prev&wheelHead == 0 {
		w.node(prev - 1).next = next
		return
	}
	bucket := prev &^ wheelHead
	w.heads[bucket] = next
	if next != 0 {
		return
	}
	switch {
	case bucket < wheelLevel0Slots:
		w.words[bucket/64] &^= 1 << (bucket % 64)
		if w.words[bucket/64] == 0 {
			w.summary &^= 1 << (bucket / 64)
		}
	case bucket < wheelPastBucket:
		slot := bucket - wheelUpperBucket
		w.upper[slot/wheelUpperSlots] &^= 1 << (slot % wheelUpperSlots)
	}
}

// node returns the node of an entry that has been set before.
func (w *Wheel) node(i uint32) *wheelNode {
	return &w.chunks[i>>wheelChunkBits][i&(wheelChunkLen-1)]
}

// lookup returns the node of entry i, or nil when its chunk has never been needed.
func (w *Wheel) lookup(i uint32) *wheelNode {
	c := int(i >> wheelChunkBits)
	if c >= len(w.chunks) || w.chunks[c] == nil {
		return nil
	}
	return &w.chunks[c][i&(wheelChunkLen-1)]
}

// grow allocates the chunk of entry i and returns its node. Only the directory of chunks, 8 bytes for 1,024 entries, is
// ever copied.
func (w *Wheel) grow(i uint32) *wheelNode {
	if i >= WheelMaxEntries {
		panic("loop: Wheel.Set: entry number out of range")
	}
	c := int(i >> wheelChunkBits)
	if c >= len(w.chunks) {
		w.chunks = append(w.chunks, make([]*[wheelChunkLen]wheelNode, c+1-len(w.chunks))...)
	}
	w.chunks[c] = new([wheelChunkLen]wheelNode)
	return &w.chunks[c][i&(wheelChunkLen-1)]
}
