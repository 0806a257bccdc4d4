package loop

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"weak"
)

// slowQueue says what a queue must do, one byte at a time: urgent output goes ahead of every unit of which no byte has been
// written, and nothing goes inside another.
type slowQueue struct {
	units     [][]byte
	ats       []uint32
	off       int
	urgent    []byte
	urgentOff int
}

func (s *slowQueue) pending() int {
	n := len(s.urgent) - s.urgentOff - s.off
	for _, u := range s.units {
		n += len(u)
	}
	return n
}

// next takes the next byte off.
func (s *slowQueue) next() byte {
	if s.urgentOff > 0 || s.off == 0 && len(s.urgent) > 0 {
		b := s.urgent[s.urgentOff]
		s.urgentOff++
		if s.urgentOff == len(s.urgent) {
			s.urgent, s.urgentOff = nil, 0
		}
		return b
	}
	b := s.units[0][s.off]
	s.off++
	if s.off == len(s.units[0]) {
		s.units, s.ats, s.off = s.units[1:], s.ats[1:], 0
	}
	return b
}

func (s *slowQueue) dropUnsent() {
	keep := 0
	if s.off > 0 {
		keep = 1
	}
	s.units, s.ats = s.units[:keep:keep], s.ats[:keep:keep]
	if s.urgentOff == 0 {
		s.urgent = nil
	}
}

// queuePair is a queue and its oracle, driven alike.
type queuePair struct {
	t     testing.TB
	qs    *queues
	q     *queue
	slow  slowQueue
	clock uint32
	fill  byte // of fresh: every unit has bytes of its own, so that a wrong order shows
	v     [maxIovecs + 2][]byte
	sent  []byte
}

func newQueuePair(t testing.TB) *queuePair {
	qs := &queues{}
	return &queuePair{t: t, qs: qs, q: qs.get()}
}

func (p *queuePair) fresh(n int) string {
	b := make([]byte, n)
	for i := range b {
		p.fill++
		b[i] = p.fill
	}
	p.fill += 7
	return string(b)
}

func (p *queuePair) own(s string) {
	p.t.Helper()
	p.clock++
	r := p.q.reserve(len(s), p.clock)
	if len(r) != len(s) || cap(r) != len(s) {
		p.t.Fatalf("reserve(%d) returned %d bytes with capacity %d", len(s), len(r), cap(r))
	}
	copy(r, s)
	p.queued(s)
}

func (p *queuePair) shared(s string) {
	p.clock++
	p.q.appendShared(NewShared([]byte(s)), p.clock)
	p.queued(s)
}

func (p *queuePair) queued(s string) {
	if len(s) > 0 {
		p.slow.units, p.slow.ats = append(p.slow.units, []byte(s)), append(p.slow.ats, p.clock)
	}
}

func (p *queuePair) urgent(s string) {
	p.q.appendUrgent([]byte(s))
	p.slow.urgent = append(p.slow.urgent[:len(p.slow.urgent):len(p.slow.urgent)], s...)
}

func (p *queuePair) drop() {
	p.q.dropUnsent()
	p.slow.dropUnsent()
}

// check compares what would be written now with the oracle and returns how many bytes one write could take.
func (p *queuePair) check() int {
	p.t.Helper()
	if p.q.bytes != p.slow.pending() {
		p.t.Fatalf("%d bytes are pending, expected %d", p.q.bytes, p.slow.pending())
	}
	if n := len(p.q.units) - p.q.head; n != len(p.slow.units) {
		p.t.Fatalf("%d units are pending, expected %d", n, len(p.slow.units))
	}
	held := len(p.slow.urgent)
	for _, u := range p.q.units[p.q.head:] {
		if held += unitSize; u.sh == nil {
			held += int(u.n)
		}
	}
	if p.q.held != held {
		p.t.Fatalf("%d bytes of memory are counted, expected %d", p.q.held, held)
	}
	if p.q.bytes == 0 {
		return 0
	}
	v := p.q.vectors(p.v[:0])
	if len(v) > maxIovecs {
		p.t.Fatalf("%d pieces, at most %d fit", len(v), maxIovecs)
	}
	total, slow := 0, p.slow // a copy; next only reslices, so the parts can be shared
	for i, b := range v {
		for j := range b {
			if want := slow.next(); b[j] != want {
				p.t.Fatalf("byte %d (piece %d, byte %d) is %d, expected %d", total+j, i, j, b[j], want)
			}
		}
		total += len(b)
	}
	if total == 0 || len(v) < maxIovecs && total != p.q.bytes {
		p.t.Fatalf("one write would take %d of %d bytes in %d pieces", total, p.q.bytes, len(v))
	}
	if len(p.slow.ats) > 0 && p.q.units[p.q.head].at != p.slow.ats[0] {
		p.t.Fatalf("the oldest unit is of %d, expected %d", p.q.units[p.q.head].at, p.slow.ats[0])
	}
	return total
}

// write has n bytes written, or fewer if one write does not take as many.
func (p *queuePair) write(n int) {
	p.t.Helper()
	n = min(n, p.check())
	p.q.wrote(n)
	for range n {
		p.sent = append(p.sent, p.slow.next())
	}
}

func (p *queuePair) writeAll() {
	p.t.Helper()
	for p.q.bytes > 0 {
		p.write(1 << 30)
	}
	p.check()
}

func TestQueueOrder(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(p *queuePair)
		want string
	}{
		{"in order", func(p *queuePair) { p.own("ab"); p.shared("cd"); p.own("ef"); p.own("gh") }, "abcdefgh"},
		{"in order, byte by byte", func(p *queuePair) {
			p.own("ab")
			p.shared("cd")
			p.own("e")
			for range 5 {
				p.write(1)
			}
		}, "abcde"},
		{"urgent ahead of what waits", func(p *queuePair) { p.own("ab"); p.own("cd"); p.urgent("!!") }, "!!abcd"},
		{"urgent behind half a unit", func(p *queuePair) { p.own("ab"); p.own("cd"); p.write(1); p.urgent("!!") }, "ab!!cd"},
		{"urgent behind half a shared unit", func(p *queuePair) { p.shared("ab"); p.own("cd"); p.write(1); p.urgent("!") }, "ab!cd"},
		{"urgent behind half of the last unit", func(p *queuePair) { p.own("ab"); p.write(1); p.urgent("!") }, "ab!"},
		{"urgent at a boundary", func(p *queuePair) { p.own("ab"); p.own("cd"); p.write(2); p.urgent("!") }, "ab!cd"},
		{"half a unit and half of urgent", func(p *queuePair) {
			p.own("abc")
			p.write(1)
			p.urgent("!?")
			p.own("d")
			p.write(3)
			p.write(1)
		}, "abc!?d"},
		{"urgent keep their order", func(p *queuePair) { p.own("ab"); p.urgent("12"); p.write(1); p.urgent("3") }, "123ab"},
		{"urgent twice", func(p *queuePair) { p.own("ab"); p.urgent("1"); p.write(2); p.urgent("2"); p.own("c") }, "1ab2c"},
		{"urgent alone", func(p *queuePair) { p.urgent("!") }, "!"},
		{"drop keeps urgent that is half written", func(p *queuePair) { p.own("ab"); p.urgent("123"); p.write(1); p.drop(); p.own("c") }, "123c"},
		{"drop keeps half a unit", func(p *queuePair) {
			p.own("ab")
			p.own("c")
			p.shared("d")
			p.write(1)
			p.urgent("!")
			p.drop()
			p.own("e")
		}, "abe"},
		{"drop keeps half a shared unit", func(p *queuePair) {
			p.own("x")
			p.shared("abc")
			p.own("d")
			p.write(2)
			p.drop()
			p.own("e")
		}, "xabce"},
		{"drop everything", func(p *queuePair) { p.own("ab"); p.shared("c"); p.urgent("!"); p.drop() }, ""},
		{"drop at a boundary, then more", func(p *queuePair) {
			p.own("a")
			p.own("bc")
			p.write(1)
			p.drop()
			p.own("de")
			p.shared("f")
		}, "adef"},
		{"nothing is not a unit", func(p *queuePair) { p.own(""); p.shared(""); p.urgent(""); p.own("a") }, "a"},
		{"more nothings than pieces in one write", func(p *queuePair) {
			for range maxIovecs {
				p.shared("")
			}
			p.own("a")
		}, "a"},
		{"more pieces than one write takes", func(p *queuePair) {
			for range maxIovecs {
				p.own("a")
				p.shared("b")
			}
			p.write(1)
			p.urgent("!")
		}, "a!b" + strings.Repeat("ab", maxIovecs-1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newQueuePair(t)
			test.do(p)
			p.writeAll()
			if string(p.sent) != test.want {
				t.Errorf("sent %q, expected %q", p.sent, test.want)
			}
		})
	}
}

// A write takes maxIovecs pieces at most: below, at and above it. Neighbours with own bytes are one piece.
func TestQueuePieces(t *testing.T) {
	for _, test := range []struct{ shared, want int }{{maxIovecs - 1, maxIovecs - 1}, {maxIovecs, maxIovecs}, {maxIovecs + 1, maxIovecs}} {
		p := newQueuePair(t)
		for range test.shared {
			p.shared("x")
		}
		if got := len(p.q.vectors(nil)); got != test.want {
			t.Errorf("%d shared units: %d pieces, expected %d", test.shared, got, test.want)
		}
		p.writeAll()
	}
	p := newQueuePair(t)
	for range 1000 {
		p.own("abc")
	}
	p.write(1)
	p.urgent("!")
	if got := len(p.q.vectors(nil)); got != 3 {
		t.Errorf("half a unit, urgent, and 999 units: %d pieces, expected 3", got)
	}
	p.writeAll()
}

// runScript does what the bytes of a script say: three per step.
func (p *queuePair) runScript(script []byte) {
	for i := 0; i+2 < len(script); i += 3 {
		n := int(script[i+1]) | int(script[i+2])<<8
		switch script[i] % 12 {
		case 0, 1:
			p.own(p.fresh(n % 300))
		case 2:
			p.own(p.fresh(n % 5_000))
		case 3:
			p.shared(p.fresh(n % 300))
		case 4:
			for range n % 100 { // also more pieces than one write takes
				p.own(p.fresh(1))
				p.shared(p.fresh(1))
			}
		case 5:
			p.urgent(p.fresh(n % 130))
		case 6, 7:
			p.write(n % 10)
		case 8, 9:
			p.write(n)
		case 10:
			p.writeAll()
		case 11:
			if n%4 == 0 {
				p.drop()
			} else { // the socket closes, and another gets the queue
				p.qs.put(p.q)
				p.q, p.slow = p.qs.get(), slowQueue{}
			}
		}
		p.check()
		p.sent = p.sent[:0]
	}
	p.writeAll()
}

func TestQueueRandom(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 3*r.IntN(200))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		if !t.Run("", func(t *testing.T) { newQueuePair(t).runScript(script) }) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 10, 0, 6, 3, 0, 5, 4, 0, 10, 0, 0})
	f.Add([]byte{3, 9, 0, 0, 9, 0, 8, 10, 0, 11, 0, 0, 0, 4, 0, 10, 0, 0})
	f.Add([]byte{4, 99, 0, 6, 3, 0, 5, 4, 0, 7, 2, 0, 10, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		newQueuePair(t).runScript(script[:min(len(script), 600)]) // the oracle looks at every byte at each step
	})
}

// A queue that never runs empty keeps to the memory that its longest backlog needs, and what it moves to get there is paid
// for by what has been written.
func TestQueueBounded(t *testing.T) {
	for _, backlog := range []int{1, 100, 10_000, 1 << 20} {
		p := newQueuePair(t)
		q := p.q
		moved, written := 0, 0
		for q.bytes < backlog {
			q.reserve(100, 0)
		}
		for range 200_000 {
			pos, pending := q.pos, q.bytes
			q.reserve(100, 0)
			if q.pos < pos {
				moved += pending
			}
			q.wrote(100)
			written += 100
		}
		if moved > 2*(written+backlog) {
			t.Errorf("backlog %d: %d bytes were moved for %d written", backlog, moved, written)
		}
		if limit := 4*(backlog+100) + 4096; cap(q.buf) > limit {
			t.Errorf("backlog %d: the buffer has grown to %d, expected at most %d", backlog, cap(q.buf), limit)
		}
		if limit := 4*(backlog/100+2) + 256; cap(q.units) > limit {
			t.Errorf("backlog %d: room for %d units, expected at most %d", backlog, cap(q.units), limit)
		}
	}
}

// The bytes of a broadcast can be collected once nobody waits for them, although the queues live on.
func TestQueueLetsGoOfShared(t *testing.T) {
	p := newQueuePair(t)
	gone := make([]weak.Pointer[Shared], 0, 300)
	add := func() {
		sh := NewShared(make([]byte, 10))
		gone = append(gone, weak.Make(sh))
		p.q.appendShared(sh, 0)
	}
	for range 300 {
		add()
	}
	collected := func() (n int) {
		runtime.GC()
		for _, w := range gone {
			if w.Value() == nil {
				n++
			}
		}
		return n
	}
	p.q.wrote(2995) // all but the last, which is half written: the list of units has been moved up on the way
	if n := collected(); n != 299 {
		t.Errorf("%d of 299 written units are collected", n)
	}
	p.q.dropUnsent()
	p.q.wrote(5)
	if n := collected(); n != 300 {
		t.Errorf("%d of 300 written units are collected", n)
	}
	for range 100 {
		add()
	}
	p.q.dropUnsent()
	if n := collected(); n != 400 {
		t.Errorf("%d of 400 written or dropped units are collected", n)
	}
	for range 100 {
		add()
	}
	p.qs.put(p.q)
	if n := collected(); n != 500 {
		t.Errorf("%d of 500 units are collected after the queue has been put back", n)
	}
	runtime.KeepAlive(p)
}

// What free queues keep is bounded, each at the limit and above it.
func TestQueuesKeep(t *testing.T) {
	for _, test := range []struct {
		name string
		grow func(q *queue, over int)
	}{
		{"buffer", func(q *queue, over int) { q.buf = make([]byte, 0, keptQueueBytes+over) }},
		{"urgent", func(q *queue, over int) { q.urgent = make([]byte, 0, keptQueueUrgent+over) }},
		{"units", func(q *queue, over int) { q.units = make([]unit, 0, keptQueueUnits+over) }},
	} {
		for over, want := range []int{1, 0} {
			qs := &queues{}
			q := qs.get()
			test.grow(q, over)
			qs.put(q)
			if len(qs.free) != want {
				t.Errorf("%s, %d above the limit: %d queues kept, expected %d", test.name, over, len(qs.free), want)
			}
		}
	}
	// All together: at the limit, and one more.
	qs := &queues{}
	sized := func(buffer int) *queue {
		return &queue{buf: make([]byte, 0, buffer)}
	}
	empty := sized(0).size()
	for qs.kept+empty+keptQueueBytes <= keptQueuesBytes-empty {
		qs.put(sized(keptQueueBytes))
	}
	qs.put(sized(keptQueuesBytes - qs.kept - empty))
	n := len(qs.free)
	if qs.kept != keptQueuesBytes || n < keptQueuesBytes/keptQueueBytes-1 {
		t.Fatalf("%d queues of %d bytes kept, expected %d bytes", n, qs.kept, keptQueuesBytes)
	}
	qs.put(sized(0))
	if len(qs.free) != n {
		t.Errorf("%d queues of %d bytes kept, more than %d bytes", len(qs.free), qs.kept, keptQueuesBytes)
	}
	for range n {
		if q := qs.get(); q.bytes != 0 || len(q.units) != 0 || len(q.buf) != 0 || len(q.urgent) != 0 || q.head|q.off|q.pos|q.urgentOff != 0 {
			t.Fatalf("a queue comes with something in it: %+v", q)
		}
	}
	if qs.kept != 0 || len(qs.free) != 0 {
		t.Errorf("an empty stock takes %d bytes", qs.kept)
	}
}
