package bench

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"golang.org/x/sys/unix"
)

// echoLoad keeps messages in flight on every connection and checks their echoes.
//
// Closed loop (no rate): a connection sends the next message when an echo is in. Its latency runs from when it was sent,
// so a server that stalls is asked less, and seldom: the numbers then look better than what users would see.
//
// Open loop (a rate): message m of this loop is due at start + m*gap, on connection m modulo their number, whatever
// became of the ones before. Its latency runs from when it was due, also when it had to wait because depth messages
// of its connection were in flight. So nothing that the server delays is left out (coordinated omission).
type echoLoad struct {
	d     *driver
	v     verifier
	depth int

	start    int64   // [ns on the loop's clock]
	from, to int64   // the measured phase; nothing is sent from to on [same]
	gap      float64 // between two messages of this loop [ns]; 0: closed loop
	sentAt   []int64 // closed loop: of message seq of connection i at [i*depth + seq%depth]
	cursor   int64   // open loop: messages below this have been looked at
	starting int     // closed loop: connections below this have been started

	sent, echoed, messages uint64
	unsent                 uint64
	latency                *hdrhistogram.Histogram // [ns] of messages sent, or due, in the measured phase
}

func newEchoLoad(r *run, d *driver) load {
	o := r.o
	e := &echoLoad{d: d, depth: o.Depth, latency: newHistogram(),
		v: verifier{size: o.Payload, text: o.Text, index: d.index, loops: d.loops, trackers: make([]tracker, len(d.clients))}}
	if o.Rate > 0 {
		// All loops together send Rate: each its share of the connections', so that all connections are treated alike.
		e.gap = 1e9 / float64(o.Rate) * float64(o.Connections) / float64(len(d.clients))
	} else {
		e.sentAt = make([]int64, len(d.clients)*o.Depth)
	}
	return e
}

// begin starts the traffic; see the fields.
func (e *echoLoad) begin(start, from, to int64) {
	e.start, e.from, e.to = start, from, to
	if e.gap == 0 {
		e.startSome()
	}
}

// startSome starts the closed loop of some connections, the next ones in the next turn.
func (e *echoLoad) startSome() {
	now := e.d.loop.Clock()
	for range turnBudget {
		if e.starting == len(e.d.clients) || now >= e.to {
			return
		}
		e.pumpOne(uint32(e.starting), now)
		e.starting++
	}
	e.d.loop.PostFunc(e.startSome)
}

// tick is the pacer's look at what is due.
func (e *echoLoad) tick() {
	now := e.d.loop.Clock()
	if now >= e.to {
		return
	}
	due := e.dueBy(now)
	n := int64(len(e.d.clients))
	for m := max(e.cursor, due-n); m < due; m++ { // pumpOne sends all that is due on a connection: once each is enough
		e.pumpOne(uint32(m%n), now)
	}
	e.cursor = due
}

// dueBy returns how many messages of this loop are due at now.
func (e *echoLoad) dueBy(now int64) int64 {
	if now < e.start {
		return 0
	}
	return int64(float64(now-e.start)/e.gap) + 1
}

// dueOn returns how many messages of connection i are due at now.
func (e *echoLoad) dueOn(i uint32, now int64) int64 {
	n := int64(len(e.d.clients))
	return max(0, (e.dueBy(now)-int64(i)+n-1)/n)
}

// dueAt returns when message seq of connection i is due.
func (e *echoLoad) dueAt(i, seq uint32) int64 {
	m := int64(seq)*int64(len(e.d.clients)) + int64(i)
	return e.start + int64(math.Ceil(float64(m)*e.gap))
}

func (e *echoLoad) pumpOne(i uint32, now int64) {
	if cl := &e.d.clients[i]; cl.state == clientOpen {
		if c := e.d.reg.Get(cl.ref); c != nil {
			e.pump(c, i, now)
		}
	}
}

// pump sends what connection i may send at now.
func (e *echoLoad) pump(c *conn.Conn, i uint32, now int64) {
	t := &e.v.trackers[i]
	for now < e.to && t.inFlight() < e.depth && (e.gap == 0 || int64(t.sent) < e.dueOn(i, now)) {
		p, err := c.Reserve(e.v.op(), e.v.size)
		if err != nil {
			return // closing: OnClose counts it
		}
		if e.gap == 0 {
			e.sentAt[int(i)*e.depth+int(t.sent)%e.depth] = now
		}
		e.v.fill(i, p)
		c.Commit(p)
		e.sent++
	}
}

// message implements load.
func (e *echoLoad) message(c *conn.Conn, i uint32, op frame.OpCode, p []byte) {
	now := e.d.loop.Clock()
	if seq, ok := e.v.received(i, op, p); ok {
		e.echoed++
		var sent int64
		if e.gap > 0 {
			sent = e.dueAt(i, seq)
		} else {
			sent = e.sentAt[int(i)*e.depth+int(seq)%e.depth]
		}
		if sent >= e.from && sent < e.to {
			record(e.latency, now-sent)
		}
		if now >= e.from && now < e.to {
			e.messages++
		}
	}
	e.pump(c, i, now)
}

// stop ends the sending at now, if it has not ended. What is due and was only not looked at since the pacer's last round
// still goes out.
func (e *echoLoad) stop(now int64) {
	e.to = min(e.to, now)
	if e.gap == 0 {
		return
	}
	for i := range e.d.clients {
		e.pumpOne(uint32(i), e.to-1)
	}
	e.countUnsent()
}

// countUnsent counts what was due and had to wait for others until the end. It enters the latencies with the time that
// it has been waiting: it would have been longer.
func (e *echoLoad) countUnsent() {
	for i := range e.d.clients {
		if e.d.clients[i].state != clientOpen {
			continue
		}
		t := &e.v.trackers[i]
		for seq := t.sent; int64(seq) < e.dueOn(uint32(i), e.to-1); seq++ {
			e.unsent++
			if at := e.dueAt(uint32(i), seq); at >= e.from {
				record(e.latency, e.to-at)
			}
		}
	}
}

// count implements load.
func (e *echoLoad) count(t *tally, final bool) {
	t.sent += e.sent
	t.echoed += e.echoed
	t.messages += e.messages
	t.unsent += e.unsent
	t.wrong += e.v.wrong
	t.duplicate += e.v.duplicate
	if final {
		t.missing += e.v.lost()
		t.latency.Merge(e.latency)
	}
}

// pacer has an echoLoad look at what is due, every pacePeriod or when the next message is due. It is a thread that
// sleeps in the kernel: the loops' wheel has ticks of 10 ms and Go's own timers of 1 ms.
type pacer struct {
	e      *echoLoad
	start  time.Time
	posted atomic.Bool // the task is queued
}

// Run implements loop.Task.
func (p *pacer) Run() {
	p.posted.Store(false)
	p.e.tick()
}

func (p *pacer) run(stop *atomic.Bool) {
	for !stop.Load() {
		if p.posted.CompareAndSwap(false, true) && !p.e.d.loop.Post(p) {
			return
		}
		since := float64(time.Since(p.start))
		next := (math.Floor(since/p.e.gap)+1)*p.e.gap - since
		sleep := unix.NsecToTimespec(min(max(int64(next), int64(pacePeriod)), int64(pacePeriod)*100)) // to look at stop
		_ = unix.Nanosleep(&sleep, nil)                                                               // EINTR: the rest is slept in the next round
	}
}

// measureEcho is the echo scenario on the coordinator.
func measureEcho(ctx context.Context, r *run) {
	loads := make([]*echoLoad, len(r.drivers))
	for i, d := range r.drivers {
		loads[i] = d.load.(*echoLoad)
	}
	var start int64
	began := time.Now().Add(startDelay)
	r.drivers[0].loop.Do(func() { start = r.drivers[0].loop.Clock() + int64(time.Until(began)) })
	from := start + int64(r.o.Warmup)
	to := from + int64(r.o.Duration)
	var pacers sync.WaitGroup
	var stop atomic.Bool
	for i, d := range r.drivers {
		// The loops take turns: shifted by the time between two messages of the whole run.
		shift := int64(0)
		if r.o.Rate > 0 {
			shift = int64(float64(i) * 1e9 / float64(r.o.Rate))
		}
		d.loop.Do(func() { loads[i].begin(start+shift, from, to) })
		if r.o.Rate > 0 {
			p := &pacer{e: loads[i], start: began.Add(time.Duration(shift))}
			pacers.Go(func() { p.run(&stop) })
		}
	}
	r.waitUntil(ctx, "warming up", began.Add(r.o.Warmup))
	r.beginMeasuring(began.Add(r.o.Warmup))
	r.waitUntil(ctx, "echoing", began.Add(r.o.Warmup+r.o.Duration))
	r.endMeasuring()
	if ctx.Err() == nil {
		r.measuredTo = r.measuredFrom.Add(r.o.Duration) // to here messages were counted, however late this goroutine is
	}
	stop.Store(true)
	pacers.Wait()
	for i, d := range r.drivers {
		d.loop.Do(func() { loads[i].stop(d.loop.Clock()) })
	}
	inFlight := func() (n int) {
		for i, d := range r.drivers {
			d.loop.Do(func() {
				for j := range loads[i].v.trackers {
					if d.clients[j].state == clientOpen {
						n += loads[i].v.trackers[j].inFlight()
					}
				}
			})
		}
		return n
	}
	r.until(context.WithoutCancel(ctx), "waiting for the last echoes", time.Now().Add(echoGrace), func() bool { return inFlight() == 0 })
}
