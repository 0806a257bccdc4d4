package bench

import (
	"context"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// echoLoad keeps messages in flight on every connection and checks their echoes.
type echoLoad struct {
	flow
	v      verifier
	sentAt []int64 // when message seq of connection i was sent or due, at [i*depth + seq%depth] [ns on the loop's clock]

	out, echoed uint64
}

func newEchoLoad(r *run, d *driver) load {
	o := r.o
	e := &echoLoad{flow: newFlow(d, len(d.clients), o.Depth), v: newVerifier(o, d), sentAt: make([]int64, len(d.clients)*o.Depth)}
	e.x = e
	e.v.trackers = make([]tracker, len(d.clients))
	if o.Stalled > 0 {
		e.slice = int64(o.Duration)
		for range 2 * o.StalledPairs {
			e.slices = append(e.slices, newHistogram())
		}
	}
	return e
}

func (e *echoLoad) flowOf() *flow { return &e.flow }

func (e *echoLoad) sent(i uint32) uint32  { return e.v.trackers[i].sent }
func (e *echoLoad) inFlight(i uint32) int { return e.v.trackers[i].inFlight() }

// send implements exchange.
func (e *echoLoad) send(c *conn.Conn, i uint32, at int64) error {
	p, err := c.Reserve(e.v.op(), e.v.next(i))
	if err != nil {
		return err
	}
	e.sentAt[int(i)*e.depth+int(e.sent(i))%e.depth] = at
	e.v.fill(i, p)
	c.Commit(p)
	e.out++
	return nil
}

// message implements load.
func (e *echoLoad) message(c *conn.Conn, i uint32, op frame.OpCode, p []byte) {
	now := e.d.loop.Clock()
	if seq, ok := e.v.received(i, op, p); ok {
		e.echoed++
		e.answered(i, e.sentAt[int(i)*e.depth+int(seq)%e.depth], now)
	}
	e.pump(c, i, now)
}

// count implements load.
func (e *echoLoad) count(t *tally, final bool) {
	e.flow.count(t, final)
	t.sent += e.out
	t.echoed += e.echoed
	t.wrong += e.v.wrong
	t.duplicate += e.v.duplicate
	if final {
		for i := range e.v.trackers {
			t.lose(e.d.place(uint32(i)), e.v.trackers[i].lost())
		}
	}
}

// measureEcho is the echo scenario on the coordinator.
func measureEcho(ctx context.Context, r *run) {
	t := r.traffic("echoing", r.o.Connections)
	if r.stalled == nil {
		t.run(ctx)
		return
	}
	t.duration *= time.Duration(2 * r.o.StalledPairs)
	t.wait = func(ctx context.Context, began time.Time) {
		for k := range 2 * r.o.StalledPairs {
			r.stalled.slice(ctx, k, began.Add(time.Duration(k+1)*r.o.Duration))
		}
	}
	t.run(ctx)
	r.stalled.last(ctx)
}
