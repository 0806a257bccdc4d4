package bench

import (
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

// load is what a scenario does with the connections of one loop. All methods are called on the loop's goroutine. i is the
// number of the connection on this loop, below the count that the load was made for.
type load interface {
	// message came on connection i; p is borrowed until it returns.
	message(c *conn.Conn, i uint32, op frame.OpCode, p []byte)
	// count adds the load's counters to t; with final also those that take a look at every connection, and the latencies.
	count(t *tally, final bool)
}

// clientState is where a client stands. Next states in the order of the list, but a client may end from any.
type clientState uint8

const (
	clientWaiting clientState = iota // not dialled
	clientDialled
	clientOpen
	clientClosing // we have begun to close it
	clientEnded   // closed, lost or never opened
)

// client is one connection. 24 bytes.
type client struct {
	ref     conn.Ref
	dialled int64 // [ns on the loop's clock]
	state   clientState
}

// tally is what one loop, or the run, has counted.
type tally struct {
	sides        []sideTally       // by server; what follows is of all of them
	opened, open uint64            // ever; now
	failed       map[string]uint64 // by error text, which names the server when there are several
	lost         map[uint16]uint64 // connections not closed by us, by close code
	closed       uint64            // closed by us and in good order

	sent, messages uint64 // messages sent; those that came back in the measured phase
	echoed         uint64 // messages that came back, in any phase
	missing        uint64 // messages sent that have not come back
	wrong          uint64
	duplicate      uint64
	late           uint64 // answers after their time
	unanswered     uint64 // requests of senders, in a broadcast
	unsent         uint64 // due and not sent, because those before them were still on their way
	pings          uint64 // pings answered
	compressed     uint64 // connections that agreed on compression
	sockets        int64
	latency        *hdrhistogram.Histogram   // [ns]; of what the scenario measures
	slices         []*hdrhistogram.Histogram // latency, apart by slice: see stalled
	opening        *hdrhistogram.Histogram   // [ns] from connect(2) to the end of the upgrade
	spread         *hdrhistogram.Histogram   // [ns] of a broadcast, to its last member; nil: none
}

func newTally(places int) *tally {
	t := &tally{sides: make([]sideTally, places), failed: map[string]uint64{}, lost: map[uint16]uint64{}}
	for k := range t.sides {
		t.sides[k].lost = map[uint16]uint64{}
	}
	return t
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, maxLatency, 3) }

// record adds a latency [ns].
func record(h *hdrhistogram.Histogram, ns int64) {
	if err := h.RecordValue(min(max(ns, 0), maxLatency)); err != nil {
		panic("bench: " + err.Error()) // the value is within the histogram's range
	}
}

func sum[K comparable](m map[K]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// driver has the connections of one loop. The router, their conn.Handler, calls it. But for the fields above the line it belongs to the
// loop's goroutine.
type driver struct {
	index, loops int
	places       *places
	dials        []conn.DialConfig // by place
	maxOpening   int
	reg          *conn.Registry
	loop         *loop.Loop
	timers       *loop.Timers // entry 0: dialling, then closing
	// ---
	clients []client
	load    load
	next    int // the next client to dial
	want    int // dial clients below this
	pending int // being opened, or being closed
	rate    float64
	began   int64 // when the present phase of opening began [ns on the loop's clock]
	first   int   // next when it began

	closing  bool
	cursor   int   // the next client to close
	closeDue int64 // when closeSome was to be called again [ns on the loop's clock]

	sides        []side // by place
	open, closed uint64
	opening      *hdrhistogram.Histogram
	recent       *hdrhistogram.Histogram // of what the scenario measures, since the last point of the series; nil: none
}

// connOf returns connection i when it is open, else nil.
func (d *driver) connOf(i uint32) *conn.Conn {
	if d.clients[i].state != clientOpen {
		return nil
	}
	return d.reg.Get(d.clients[i].ref)
}

// number returns the number of connection i over all loops.
func (d *driver) number(i uint32) uint32 { return i*uint32(d.loops) + uint32(d.index) }

// place returns the server of connection i.
func (d *driver) place(i uint32) int { return d.places.of(uint64(d.number(i))) }

// share returns how many of n things the loop has when they are dealt out in turn.
func (d *driver) share(n int) int { return (n - d.index + d.loops - 1) / d.loops }

// openTo has the first n clients (of this loop) opened, rate of them per second; 0: as fast as possible.
func (d *driver) openTo(n int, rate float64) {
	d.want, d.rate, d.first = n, rate, d.next
	d.began = d.loop.Clock()
	d.dialSome()
}

// stopOpening gives up the clients that have not been dialled.
func (d *driver) stopOpening() {
	for ; d.next < d.want; d.next++ {
		d.clients[d.next].state = clientEnded
		d.fail(uint32(d.next), "not opened in time")
	}
}

// dialSome dials the clients that are due, and sees to it that it is called again while there are more.
func (d *driver) dialSome() {
	if d.closing {
		return
	}
	now := d.loop.Clock()
	for budget := turnBudget; budget > 0 && d.next < d.want && d.pending < d.maxOpening; budget-- {
		if d.rate > 0 && d.next-d.first > int(float64(now-d.began)/1e9*d.rate) {
			break
		}
		i := d.next
		d.next++
		cl := &d.clients[i]
		cl.dialled, cl.state = d.loop.Clock(), clientDialled
		d.pending++
		_, source := d.places.dial(uint64(d.number(uint32(i))))
		if err := d.reg.Dial(&d.dials[d.place(uint32(i))], source, uint32(i)); err != nil {
			d.notOpened(uint32(i), err)
		}
	}
	if d.next < d.want {
		d.timers.Set(0, d.loop.Now()+dialTick)
	}
}

// dialFailed is conn.DialConfig.Failed.
func (d *driver) dialFailed(i uint32, err error) {
	d.notOpened(i, err)
	d.dialSome()
}

func (d *driver) notOpened(i uint32, err error) {
	if !d.closing { // else pending counts what is being closed
		d.pending--
	}
	d.clients[i].state = clientEnded
	d.fail(i, err.Error())
}

// fail counts that connection i could not be opened, or made ready.
func (d *driver) fail(i uint32, text string) {
	failed := d.sides[d.place(i)].failed
	if _, known := failed[text]; !known && len(failed) >= maxTexts {
		text = "other errors"
	}
	failed[text]++
}

// closeAll begins to close all clients with code 1000.
func (d *driver) closeAll() {
	if d.closing {
		return
	}
	d.closing, d.pending, d.cursor = true, 0, 0
	d.want = d.next // none is dialled any more
	d.closeDue = d.loop.Clock()
	d.closeSome()
}

// tick is the timer's handler.
func (d *driver) tick() {
	if d.closing {
		d.closeSome()
	} else {
		d.dialSome()
	}
}

// closeSome begins to close the next clients, and sees to it that it is called again while there are more.
func (d *driver) closeSome() {
	now := d.loop.Clock()
	budget := closeBudget(now-d.closeDue, d.maxOpening, d.loops)
	for ; d.cursor < len(d.clients) && d.pending < d.maxOpening && budget > 0; d.cursor++ {
		cl := &d.clients[d.cursor]
		if cl.state != clientOpen {
			continue
		}
		c := d.reg.Get(cl.ref)
		if c == nil || c.Close(1000, "", conn.CauseLocal) != nil {
			continue // the server was first: OnClose is on its way
		}
		cl.state = clientClosing
		d.pending++
		budget--
	}
	if d.cursor < len(d.clients) {
		d.closeDue = now + dialTick
		d.timers.Set(0, d.loop.Now()+dialTick)
	}
}

// closeBudget returns how many clients a loop, of so many, closes when it comes to that late [ns]: as many as may be on their way, unless
// it is behind its time. Then it is only as many as keep the time that run.close has: the others have pings to answer meanwhile, and of a
// million that are closed as fast as can be the server would give up those that wait.
func closeBudget(late int64, most, loops int) int {
	if late <= closeLate {
		return most
	}
	share := float64(late+dialTick) / 1e9 * closePace / float64(loops)
	return int(min(float64(most), math.Ceil(share)))
}

// onOpen: a client is open.
func (d *driver) onOpen(c *conn.Conn) {
	cl := &d.clients[c.User]
	cl.ref, cl.state = c.Ref(), clientOpen
	d.sides[d.place(c.User)].opened++
	d.open++
	took := d.loop.Clock() - cl.dialled
	record(d.opening, took)
	if _, ok := d.load.(*connectLoad); ok {
		d.recordRecent(took)
	}
	if d.closing { // the run was broken off while this one was being opened
		_ = c.Close(1000, "", conn.CauseLocal) // it is open, and the code may be sent
		cl.state = clientClosing
		d.pending++
		return
	}
	d.pending--
	d.dialSome()
}

// onClose: a client that was open has ended.
func (d *driver) onClose(c *conn.Conn, e conn.End) {
	cl := &d.clients[c.User]
	d.open--
	if cl.state == clientClosing && e.Code == 1000 {
		d.closed++
	} else {
		d.sides[d.place(c.User)].lost[e.Code]++
	}
	if cl.state == clientClosing {
		d.pending--
	}
	cl.state = clientEnded
}

// count adds the loop's counters to t; final as for load.count.
func (d *driver) count(t *tally, final bool) {
	t.open += d.open
	t.closed += d.closed
	for k := range d.sides {
		s, all := &d.sides[k], &t.sides[k]
		t.opened += s.opened
		all.opened += s.opened
		for text, n := range s.failed {
			t.failed[d.places.named(k, text)] += n
			all.failed += n
		}
		for code, n := range s.lost {
			t.lost[code] += n
			all.lost[code] += n
		}
	}
	s := d.reg.Snapshot()
	t.pings += s.Conn.MessagesSent[conn.KindPong]
	t.sockets += s.Sockets
	t.compressed += s.Conn.CompressedShared + s.Conn.CompressedTakeover
	if final {
		t.opening.Merge(d.opening)
	}
	d.load.count(t, final)
}
