package conn

import (
	"time"

	"github.com/mqgate/mqgate/loop"
)

// drainTick is how often a draining loop closes some more connections.
const drainTick = int64(loop.Tick)

// drain is the state of L5.5 in one registry: connections are told to go in the order of their slots, at an even pace.
type drain struct {
	timer  *loop.Timers // entry 0
	active bool
	cursor uint32  // next slot to look at
	start  int64   // [ns]
	rate   float64 // connections per second
	told   int64
}

// StartDrain begins to close this registry's connections, rate of them per second; upgrades are refused from now on.
func (r *Registry) StartDrain(rate float64) {
	r.drain.active, r.drain.cursor, r.drain.told = true, 0, 0
	r.drain.start, r.drain.rate = r.loop.Now(), rate
	r.drainStep()
}

// CancelDrain ends the draining: connections that were told to go and have not been closed stay.
func (r *Registry) CancelDrain() {
	r.drain.active = false
	r.drain.timer.Cancel(0)
	r.Each(func(c *Conn) { c.flags &^= draining })
}

// Draining reports whether StartDrain is under way.
func (r *Registry) Draining() bool { return r.drain.active }

func (r *Registry) drainStep() {
	d := &r.drain
	if !d.active {
		return
	}
	due := int64(float64(r.loop.Now()-d.start+drainTick) / 1e9 * d.rate)
	end := uint32(len(r.chunks) * chunkConns)
	for ; d.active && d.cursor < end && d.told < due; d.cursor++ { // OnDrain may cancel
		if c := r.live(d.cursor); c != nil && c.state != Closing {
			d.told++
			c.flags |= draining
			c.Endpoint().Handler.OnDrain(c)
		}
	}
	if d.active && d.cursor < end {
		d.timer.Set(0, r.loop.Now()+drainTick)
	}
}

// ForceAll ends everything that is left, now (the end of L5.5), and returns how many open connections that were. Not
// from within a method of a Handler.
func (r *Registry) ForceAll() (n int) {
	for slot := range uint32(len(r.chunks) * chunkConns) {
		if !r.loop.InUse(slot) {
			continue
		}
		c := r.at(slot)
		switch c.state {
		case New, Connecting:
			c.handshakeLost(errDraining)
		case Connected, Open, Closing:
			n++
			c.abort(CauseForced, true)
		case Closed:
			c.drop(false)
		}
	}
	return n
}

// Pace returns the rate [connections per second] at which open connections end evenly over spread, at least 1,000 a
// second so that a small server is gone at once (L5.5).
func Pace(open int64, spread time.Duration) float64 {
	rate := 1000.0
	if spread > 0 {
		rate = max(rate, float64(open)/spread.Seconds())
	} else {
		rate = max(rate, float64(open)*1000) // at once
	}
	return rate
}
