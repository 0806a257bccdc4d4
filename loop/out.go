package loop

import (
	"sync/atomic"
	"unsafe"
)

// Shared is a unit of output for many sockets, built once and never copied per receiver (a broadcast). Its bytes must
// not change after NewShared. It is kept alive by the queues that still hold it and freed by the garbage collector.
//
// Only queues of sockets that have blocked are counted: receivers that take all of it at once, as nearly all do, pay no
// atomic operations. The memory of those that do not is bounded by nothing but this count (Loop.SharedBytes).
type Shared struct {
	b       []byte
	waiting atomic.Int32 // units in queues that count, over all loops
}

// NewShared takes ownership of b, which must be one or more whole frames.
func NewShared(b []byte) *Shared { return &Shared{b: b} }

// Len returns the number of bytes.
func (s *Shared) Len() int { return len(s.b) }

// unit is one piece of output that must not be torn apart by an urgent one: a frame. Its bytes are in sh, or, when sh is
// nil, the next n bytes of the queue's own buffer. 16 bytes.
type unit struct {
	sh *Shared
	n  uint32 // length [bytes]
	at uint32 // when it was queued [ms on the loop's clock, wrapping after 49 days]
}

// queue is the output of one socket that has not been handed to the kernel. It exists only while there is some.
//
// The units [head:] are pending, off bytes of the first have been written. Own bytes of pending units lie one after the
// other in buf from pos on. urgent (pings and pongs) goes out at the next boundary between units: before units[head]
// when off is 0, else right after it.
type queue struct {
	buf       []byte
	pos       int // start of units[head]'s own bytes in buf, if it has any
	units     []unit
	head      int
	off       int
	urgent    []byte
	urgentOff int // bytes of urgent already written; when > 0 urgent is being written now
	bytes     int // pending in units and urgent
	held      int // memory [bytes]: what is pending of own units and urgent, whole ones, and the units themselves

	counts bool // the socket has blocked: each of its shared units is in Shared.waiting
	shared int  // memory of shared units [bytes] of which this queue was the first to count one, less where it was the last
}

// unitSize is what a unit takes besides its bytes.
const unitSize = int(unsafe.Sizeof(unit{}))

// reserve appends a unit of n own bytes and returns them for the caller to fill before the queue is written. Nothing is
// not a unit: it would never be written, and so never be taken off.
func (q *queue) reserve(n int, at uint32) []byte {
	b := q.buf
	if n == 0 {
		return nil
	}
	if len(b)+n > cap(b) && q.pos >= len(b)-q.pos {
		// Without moving what is pending to the front, a queue that never runs empty would grow for ever. Only when at least
		// half has been written: then every byte moved is paid for by one that has left, and a long queue that is drained in
		// small pieces is not copied again for every frame.
		b = b[:copy(b, b[q.pos:])]
		q.pos = 0
	}
	start := len(b)
	if start+n <= cap(b) {
		b = b[:start+n]
	} else {
		b = append(b, make([]byte, n)...) // compiled to a grow without the temporary
	}
	q.buf = b
	q.units = append(q.units, unit{n: uint32(n), at: at})
	q.bytes += n
	q.held += n + unitSize
	return b[start : start+n : start+n]
}

// appendShared appends a unit that is not copied.
func (q *queue) appendShared(sh *Shared, at uint32) {
	if len(sh.b) == 0 {
		return
	}
	q.units = append(q.units, unit{sh: sh, n: uint32(len(sh.b)), at: at})
	q.bytes += len(sh.b)
	q.held += unitSize
	if q.counts {
		q.keep(sh)
	}
}

// count has the queue's shared units counted from now on: its socket has blocked.
func (q *queue) count() {
	if q.counts {
		return
	}
	q.counts = true
	for _, u := range q.units[q.head:] {
		if u.sh != nil {
			q.keep(u.sh)
		}
	}
}

// keep counts a shared unit as waiting here, letGo as waiting no longer.
func (q *queue) keep(sh *Shared) {
	if sh.waiting.Add(1) == 1 {
		q.shared += len(sh.b)
	}
}

func (q *queue) letGo(sh *Shared) {
	if sh.waiting.Add(-1) == 0 {
		q.shared -= len(sh.b)
	}
}

// letGoFrom lets go of the shared units from units[i] on.
func (q *queue) letGoFrom(i int) {
	if !q.counts {
		return
	}
	for _, u := range q.units[i:] {
		if u.sh != nil {
			q.letGo(u.sh)
		}
	}
}

// sharedPart returns this queue's part of the shared units that it holds, each divided by how many wait for it [bytes].
// Of a long queue it looks at the first units and takes the others to be alike.
func (q *queue) sharedPart() int {
	n := len(q.units) - q.head
	if !q.counts || n == 0 {
		return 0
	}
	looked := min(n, sharedSample)
	sum := 0
	for _, u := range q.units[q.head : q.head+looked] {
		if u.sh != nil {
			sum += len(u.sh.b) / int(max(u.sh.waiting.Load(), 1)) // another loop may let go meanwhile, not this one
		}
	}
	return sum * n / looked
}

// appendUrgent appends a copy of p to the urgent output.
func (q *queue) appendUrgent(p []byte) {
	q.urgent = append(q.urgent, p...)
	q.bytes += len(p)
	q.held += len(p)
}

// vectors appends the pending output in the order in which it has to go out, at most maxIovecs pieces, to v. Adjacent
// units with own bytes become one piece.
func (q *queue) vectors(v [][]byte) [][]byte {
	i, pos, off := q.head, q.pos, q.off
	if len(q.urgent) > 0 && (q.urgentOff > 0 || off == 0) {
		v = append(v, q.urgent[q.urgentOff:])
	} else if len(q.urgent) > 0 { // behind the unit that is half written
		u := q.units[i]
		if u.sh != nil {
			v = append(v, u.sh.b[off:])
		} else {
			v = append(v, q.buf[pos+off:pos+int(u.n)])
			pos += int(u.n)
		}
		v = append(v, q.urgent)
		i, off = i+1, 0
	}
	for i < len(q.units) && len(v) < maxIovecs {
		if u := q.units[i]; u.sh != nil {
			v = append(v, u.sh.b[off:])
			i++
		} else {
			n := 0
			for i < len(q.units) && q.units[i].sh == nil {
				n += int(q.units[i].n)
				i++
			}
			v = append(v, q.buf[pos+off:pos+n])
			pos += n
		}
		off = 0
	}
	return v
}

// wrote takes n written bytes, counted along vectors, off the queue.
func (q *queue) wrote(n int) {
	q.bytes -= n
	if len(q.urgent) > 0 && (q.urgentOff > 0 || q.off == 0) {
		n = q.wroteUrgent(n)
	} else if len(q.urgent) > 0 {
		if rest := int(q.units[q.head].n) - q.off; n >= rest {
			q.pop()
			n = q.wroteUrgent(n - rest)
		}
	}
	for n > 0 {
		rest := int(q.units[q.head].n) - q.off
		if n < rest {
			q.off += n
			return
		}
		n -= rest
		q.pop()
	}
}

// wroteUrgent takes up to n written bytes off the urgent output and returns how many of n are left.
func (q *queue) wroteUrgent(n int) int {
	rest := len(q.urgent) - q.urgentOff
	if n < rest {
		q.urgentOff += n
		return 0
	}
	q.held -= len(q.urgent)
	q.urgent, q.urgentOff = q.urgent[:0], 0
	return n - rest
}

// pop takes units[head] off the queue: all of it has been written.
func (q *queue) pop() {
	u := &q.units[q.head]
	q.held -= unitSize
	if u.sh == nil {
		q.pos += int(u.n)
		q.held -= int(u.n)
	} else if q.counts {
		q.letGo(u.sh)
	}
	u.sh = nil // let go of the shared bytes
	q.head, q.off = q.head+1, 0
	if q.head == len(q.units) {
		q.head, q.units = 0, q.units[:0]
		q.pos, q.buf = 0, q.buf[:0]
	} else if q.head > 64 && q.head > len(q.units)/2 {
		n := copy(q.units, q.units[q.head:])
		clear(q.units[n:]) // or the moved units' shared bytes would stay reachable from where they were
		q.units, q.head = q.units[:n], 0
	}
}

// dropUnsent forgets every unit of which no byte has been written (L8.3: a slow consumer gets our Close frame next), and
// urgent output likewise.
func (q *queue) dropUnsent() {
	keep := q.head
	if q.off > 0 {
		keep++
	}
	own := q.pos
	q.bytes, q.held = 0, 0
	if q.off > 0 {
		u := q.units[q.head]
		q.bytes, q.held = int(u.n)-q.off, unitSize
		if u.sh == nil {
			own += int(u.n)
			q.held += int(u.n)
		}
	}
	q.letGoFrom(keep)
	clear(q.units[keep:])
	q.units = q.units[:keep]
	q.buf = q.buf[:own]
	if q.urgentOff > 0 {
		q.bytes += len(q.urgent) - q.urgentOff
		q.held += len(q.urgent)
	} else {
		q.urgent = q.urgent[:0]
	}
}

// queues is a loop's stock of free queues: last in, first out, so that the common case (one reply per read) uses the
// same warm buffer again and again. A buffer begins empty and grows to what is written: bytebufferpool's was left out here,
// since after a burst of large replies its calibration makes every new buffer large, also for the ten bytes that ten
// thousand blocked sockets have to keep each.
type queues struct {
	free []*queue
	kept int // what they take [bytes]
}

// size returns the memory that an empty queue takes [bytes], with its place in the stock.
func (q *queue) size() int {
	const fixed = int(unsafe.Sizeof(queue{}) + unsafe.Sizeof(uintptr(0)))
	return fixed + cap(q.buf) + cap(q.urgent) + cap(q.units)*unitSize
}

func (qs *queues) get() *queue {
	if n := len(qs.free); n > 0 {
		q := qs.free[n-1]
		qs.free[n-1] = nil
		qs.free = qs.free[:n-1]
		qs.kept -= q.size()
		return q
	}
	return &queue{}
}

func (qs *queues) put(q *queue) {
	size := q.size()
	if cap(q.buf) <= keptQueueBytes && cap(q.urgent) <= keptQueueUrgent && cap(q.units) <= keptQueueUnits &&
		qs.kept+size <= keptQueuesBytes {
		clear(q.units)
		*q = queue{buf: q.buf[:0], units: q.units[:0], urgent: q.urgent[:0]}
		qs.free = append(qs.free, q)
		qs.kept += size
	}
}

// release gives the whole stock to the collector.
func (qs *queues) release() { *qs = queues{} }
