package bench

import (
	"context"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// connectLoad holds connections; on request each sends one message.
type connectLoad struct {
	d    *driver
	v    verifier
	echo bool // messages come back

	cursor int // the next connection to send its message
	sent   uint64
	echoed []uint64 // by server
}

func newConnectLoad(r *run, d *driver) load {
	l := &connectLoad{d: d, echo: r.o.BurstEcho, echoed: make([]uint64, d.places.count()),
		v: verifier{sizes: FixedSize(r.o.BurstBytes), text: r.o.Text, index: d.index, loops: d.loops}}
	if r.o.BurstBytes > 0 {
		l.v.trackers = make([]tracker, len(d.clients))
	}
	return l
}

// burst has the connections send their message, as fast as the loop can; the next ones in the next turn.
func (l *connectLoad) burst() {
	for range turnBudget {
		if l.cursor == len(l.d.clients) {
			return
		}
		i := uint32(l.cursor)
		l.cursor++
		cl := &l.d.clients[i]
		if cl.state != clientOpen {
			continue
		}
		c := l.d.reg.Get(cl.ref)
		if c == nil {
			continue
		}
		p, err := c.Reserve(l.v.op(), l.v.next(i))
		if err != nil {
			continue // closing: OnClose counts it
		}
		l.v.fill(i, p)
		c.Commit(p)
		l.sent++
	}
	l.d.loop.PostFunc(l.burst)
}

// message implements load. What a server sends of its own accord is none of this scenario's business.
func (l *connectLoad) message(_ *conn.Conn, i uint32, op frame.OpCode, p []byte) {
	if l.v.trackers == nil || !l.echo {
		return
	}
	if _, ok := l.v.received(i, op, p); ok {
		l.echoed[l.d.place(i)]++
	}
}

// count implements load.
func (l *connectLoad) count(t *tally, final bool) {
	t.sent += l.sent
	for k, n := range l.echoed {
		t.echoed += n
		t.messages += n
		t.sides[k].messages += n
	}
	t.wrong += l.v.wrong
	t.duplicate += l.v.duplicate
	if final {
		if l.echo {
			for i := range l.v.trackers {
				t.lose(l.d.place(uint32(i)), l.v.trackers[i].lost())
			}
		}
		t.latency.Merge(l.d.opening)
	}
}

// measureConnect is the connect scenario on the coordinator.
func measureConnect(ctx context.Context, r *run) {
	began := time.Now()
	end := began.Add(r.o.Duration)
	r.beginMeasuring(began)
	if r.o.BurstBytes > 0 {
		r.waitUntil(ctx, "holding", began.Add(r.o.BurstAfter))
		if ctx.Err() == nil {
			r.readMemory(&r.idle)
			for _, d := range r.drivers {
				d.loop.PostFunc(d.load.(*connectLoad).burst)
			}
			r.burst = true
		}
		r.waitUntil(ctx, "holding after the burst", end)
		r.readMemory(&r.afterBurst)
	} else {
		r.waitUntil(ctx, "holding", end)
		r.readMemory(&r.idle)
	}
	r.endMeasuring()
}
