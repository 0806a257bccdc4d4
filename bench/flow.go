package bench

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/conn"
	"golang.org/x/sys/unix"
)

// exchange is what a flow sends and waits for, on the connections of one loop that send. All methods are called on the
// loop's goroutine.
type exchange interface {
	// sent returns how many messages connection i has sent: the number of the next one.
	sent(i uint32) uint32
	// inFlight returns how many of them have not been answered.
	inFlight(i uint32) int
	// send sends the next message. at is when it is sent, or due [ns on the loop's clock]. An error: the connection is
	// closing.
	send(c *conn.Conn, i uint32, at int64) error
	// waiting returns how many answers to open connections are still to come.
	waiting() int
}

// flow says when the connections of one loop send. It belongs to the loop's goroutine.
//
// Closed loop (no rate): a connection sends the next message when an answer is in. Its latency runs from when it was
// sent, so a server that stalls is asked less, and seldom: the numbers then look better than what users would see.
//
// Open loop (a rate): message m of this loop is due at start + m*gap, on connection m modulo their number, whatever
// became of the ones before. Its latency runs from when it was due, also when it had to wait because depth messages
// of its connection were in flight. So nothing that the server delays is left out (coordinated omission).
type flow struct {
	d     *driver
	x     exchange
	n     int // the connections 0 to n-1 of this loop send
	depth int // messages in flight on each at most

	start    int64    // [ns on the loop's clock]
	from, to int64    // the measured phase; nothing is sent from to on [same]
	gap      float64  // between two messages of this loop [ns]; 0: closed loop
	base     []uint32 // open loop: messages that each connection had sent before start
	cursor   int64    // open loop: messages below this have been looked at
	starting int      // closed loop: connections below this have been started

	messages []uint64 // answered in the measured phase, by server
	unsent   uint64
	latency  *hdrhistogram.Histogram   // [ns] of messages sent, or due, in the measured phase
	slice    int64                     // length of one, when they are kept apart [ns]
	slices   []*hdrhistogram.Histogram // latency, by slice of the measured phase
}

func newFlow(d *driver, n, depth int) flow {
	return flow{d: d, n: n, depth: depth, messages: make([]uint64, d.places.count()), latency: newHistogram(), base: make([]uint32, n)}
}

// pace sets the rate: total messages per second over all loops, of which each connection that sends, of lanes over all
// loops, has the same share. 0: a closed loop. It is called before begin.
func (f *flow) pace(total, lanes int) {
	f.gap = 0
	if total > 0 && f.n > 0 {
		f.gap = 1e9 / float64(total) * float64(lanes) / float64(f.n)
	}
}

// begin starts the traffic; see the fields.
func (f *flow) begin(start, from, to int64) {
	f.start, f.from, f.to, f.cursor, f.starting = start, from, to, 0, 0
	for i := range f.base {
		f.base[i] = f.x.sent(uint32(i))
	}
	if f.gap == 0 {
		f.startSome()
	}
}

// startSome starts the closed loop of some connections, the next ones in the next turn.
func (f *flow) startSome() {
	now := f.d.loop.Clock()
	for range turnBudget {
		if f.starting == f.n || now >= f.to {
			return
		}
		f.pumpOne(uint32(f.starting), now)
		f.starting++
	}
	f.d.loop.PostFunc(f.startSome)
}

// tick is the pacer's look at what is due.
func (f *flow) tick() {
	now := f.d.loop.Clock()
	if now >= f.to {
		return
	}
	due := f.dueBy(now)
	n := int64(f.n)
	for m := max(f.cursor, due-n); m < due; m++ { // pumpOne sends all that is due on a connection: once each is enough
		f.pumpOne(uint32(m%n), now)
	}
	f.cursor = due
}

// dueBy returns how many messages of this loop are due at now.
func (f *flow) dueBy(now int64) int64 {
	if now < f.start {
		return 0
	}
	return int64(float64(now-f.start)/f.gap) + 1
}

// dueOn returns how many messages of connection i are due at now.
func (f *flow) dueOn(i uint32, now int64) int64 {
	n := int64(f.n)
	return max(0, (f.dueBy(now)-int64(i)+n-1)/n)
}

// dueAt returns when message k since start of connection i is due.
func (f *flow) dueAt(i, k uint32) int64 {
	m := int64(k)*int64(f.n) + int64(i)
	return f.start + int64(math.Ceil(float64(m)*f.gap))
}

func (f *flow) pumpOne(i uint32, now int64) {
	if c := f.d.connOf(i); c != nil {
		f.pump(c, i, now)
	}
}

// pump sends what connection i may send at now.
func (f *flow) pump(c *conn.Conn, i uint32, now int64) {
	for now < f.to && f.x.inFlight(i) < f.depth {
		at := now
		if f.gap > 0 {
			k := f.x.sent(i) - f.base[i]
			if int64(k) >= f.dueOn(i, now) {
				return
			}
			at = f.dueAt(i, k)
		}
		if f.x.send(c, i, at) != nil {
			return // closing: OnClose counts it
		}
	}
}

// answered notes that a message, sent or due at a time [ns], has been answered at now, on connection i.
func (f *flow) answered(i uint32, at, now int64) {
	if at >= f.from && at < f.to {
		f.record(at, now-at)
	}
	if now >= f.from && now < f.to {
		f.messages[f.d.place(i)]++
	}
}

// stop ends the sending at now, if it has not ended. What is due and was only not looked at since the pacer's last round
// still goes out.
func (f *flow) stop(now int64) {
	f.to = min(f.to, now)
	if f.gap == 0 {
		return
	}
	for i := range f.n {
		f.pumpOne(uint32(i), f.to-1)
	}
	f.countUnsent()
}

// countUnsent counts what was due and had to wait for others until the end. It enters the latencies with the time that
// it has been waiting: it would have been longer.
func (f *flow) countUnsent() {
	for i := range f.n {
		if f.d.clients[i].state != clientOpen {
			continue
		}
		for k := f.x.sent(uint32(i)) - f.base[i]; int64(k) < f.dueOn(uint32(i), f.to-1); k++ {
			f.unsent++
			if at := f.dueAt(uint32(i), k); at >= f.from {
				f.record(at, f.to-at)
			}
		}
	}
}

// record notes the latency of a message sent, or due, at a time of the measured phase [ns].
func (f *flow) record(at, ns int64) {
	record(f.latency, ns)
	f.d.recordRecent(ns)
	if f.slices != nil {
		record(f.slices[min(int((at-f.from)/f.slice), len(f.slices)-1)], ns)
	}
}

// waiting returns how many messages of open connections are in flight.
func (f *flow) waiting() (n int) {
	for i := range f.n {
		if f.d.clients[i].state == clientOpen {
			n += f.x.inFlight(uint32(i))
		}
	}
	return n
}

// count adds the flow's counters to t.
func (f *flow) count(t *tally, final bool) {
	for k, n := range f.messages {
		t.messages += n
		t.sides[k].messages += n
	}
	t.unsent += f.unsent
	if final {
		t.latency.Merge(f.latency)
		for k, h := range f.slices {
			if k == len(t.slices) {
				t.slices = append(t.slices, newHistogram())
			}
			t.slices[k].Merge(h)
		}
	}
}

// pacer has a flow look at what is due, every pacePeriod or when the next message is due. It is a thread that sleeps in
// the kernel: the loops' wheel has ticks of 10 ms and Go's own timers of 1 ms.
type pacer struct {
	f      *flow
	gap    float64
	start  time.Time
	posted atomic.Bool // the task is queued
}

// Run implements loop.Task.
func (p *pacer) Run() {
	p.posted.Store(false)
	p.f.tick()
}

func (p *pacer) run(stop *atomic.Bool) {
	for !stop.Load() {
		if p.posted.CompareAndSwap(false, true) && !p.f.d.loop.Post(p) {
			return
		}
		since := float64(time.Since(p.start))
		next := (math.Floor(since/p.gap)+1)*p.gap - since
		sleep := unix.NsecToTimespec(min(max(int64(next), int64(pacePeriod)), int64(pacePeriod)*100)) // to look at stop
		_ = unix.Nanosleep(&sleep, nil)                                                               // EINTR: the rest is slept in the next round
	}
}

// flowing is a load with a flow.
type flowing interface {
	load
	flowOf() *flow
}

// traffic is one stretch of traffic over all loops, on the coordinator.
type traffic struct {
	r        *run
	flows    []*flow
	rate     int // messages per second over all loops; 0: closed loop
	lanes    int // connections that send
	warmup   time.Duration
	duration time.Duration
	phase    string
	wait     func(ctx context.Context, began time.Time) // of the measured phase; nil: until its end
}

// traffic makes a stretch of traffic from the options.
func (r *run) traffic(phase string, lanes int) *traffic {
	t := &traffic{r: r, rate: r.o.Rate, lanes: lanes, warmup: r.o.Warmup, duration: r.o.Duration, phase: phase}
	for _, d := range r.drivers {
		t.flows = append(t.flows, d.load.(flowing).flowOf())
	}
	return t
}

// run runs it and waits for the last answers, for answerGrace at most.
func (t *traffic) run(ctx context.Context) {
	r := t.r
	var start int64
	began := time.Now().Add(startDelay)
	r.drivers[0].loop.Do(func() { start = r.drivers[0].loop.Clock() + int64(time.Until(began)) })
	from := start + int64(t.warmup)
	to := from + int64(t.duration)
	var pacers sync.WaitGroup
	var stop atomic.Bool
	for i, d := range r.drivers {
		f := t.flows[i]
		if f.n == 0 { // nobody sends here, but what the others send may arrive here
			d.loop.Do(func() { f.from, f.to = from, to })
			continue
		}
		// The loops take turns: shifted by the time between two messages of the whole run.
		shift := int64(0)
		if t.rate > 0 {
			shift = int64(float64(i) * 1e9 / float64(t.rate))
		}
		p := &pacer{f: f, start: began.Add(time.Duration(shift))}
		d.loop.Do(func() {
			f.pace(t.rate, t.lanes)
			p.gap = f.gap
			f.begin(start+shift, from, to)
		})
		if t.rate > 0 {
			pacers.Go(func() { p.run(&stop) })
		}
	}
	r.waitUntil(ctx, "warming up", began.Add(t.warmup))
	r.beginMeasuring(began.Add(t.warmup))
	if t.wait != nil {
		t.wait(ctx, began.Add(t.warmup))
	} else {
		r.waitUntil(ctx, t.phase, began.Add(t.warmup+t.duration))
	}
	r.endMeasuring()
	if ctx.Err() == nil {
		r.measuredTo = r.measuredFrom.Add(t.duration) // to here messages were counted, however late this goroutine is
	}
	stop.Store(true)
	pacers.Wait()
	for i, d := range r.drivers {
		d.loop.Do(func() { t.flows[i].stop(d.loop.Clock()) })
	}
	r.until(context.WithoutCancel(ctx), "waiting for the last answers", time.Now().Add(answerGrace), func() bool {
		n := 0
		for i, d := range r.drivers {
			d.loop.Do(func() { n += t.flows[i].x.waiting() })
		}
		return n == 0
	})
}
