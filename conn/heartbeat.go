package conn

import (
	"encoding/binary"

	"github.com/mqgate/mqgate/frame"
)

// startHeartbeat gives a new connection its phase (L7.1): first pings are spread evenly over the interval by the
// golden ratio, so that connections opened in one burst are not pinged in one.
func (r *Registry) startHeartbeat(c *Conn) {
	r.phase += 0x9e3779b97f4a7c15 // 2^64 / golden ratio: successive values leave no gaps
	interval := uint64(r.cfg.PingInterval)
	first := int64((r.phase >> 32) * (interval >> 16) >> 16) // phase/2^64 * interval, without overflow up to 78 hours
	c.pingAt = r.loop.Now() + first - int64(interval)
	r.armOpen(c)
}

// armOpen sets the timer of an open connection: the earliest of the next ping, the write timeout, and the end of a pause
// for too many messages.
func (r *Registry) armOpen(c *Conn) {
	at, set := int64(0), false
	if r.cfg.Heartbeat != HeartbeatOff {
		at, set = c.pingAt+int64(r.cfg.PingInterval), true
	}
	if r.loop.Pending(c.slot) > 0 {
		if w := r.loop.Now() - r.loop.OldestPending(c.slot) + int64(r.cfg.WriteTimeout); !set || w < at {
			at, set = w, true
		}
	}
	if c.flags&throttled != 0 {
		if t := r.throttledUntil(c); !set || t < at {
			at, set = t, true
		}
	}
	if set {
		r.loop.SetTimer(c.slot, at)
	} else {
		r.loop.CancelTimer(c.slot)
	}
}

// heartbeat is the timer of an open connection.
func (r *Registry) heartbeat(c *Conn) {
	now := r.loop.Now()
	if r.loop.OldestPending(c.slot) >= int64(r.cfg.WriteTimeout) { // L8.3
		r.stats.SlowTime++
		c.dropUnsent()
		c.closeFor(CauseSlow)
		return
	}
	if c.flags&throttled != 0 && now >= r.throttledUntil(c) {
		if r.payOn(c); c.state >= Closing {
			return
		}
	}
	if r.cfg.Heartbeat != HeartbeatOff && now >= c.pingAt+int64(r.cfg.PingInterval) {
		if !r.beat(c, now) {
			return
		}
	}
	r.armOpen(c)
}

// beat is one heartbeat. It returns false when the connection was given up.
func (r *Registry) beat(c *Conn, now int64) bool {
	heard := c.flags&(alive|pauses) != 0 // who is not read cannot be heard
	c.flags &^= alive
	if r.cfg.Heartbeat == HeartbeatClient { // L7.5
		if !heard && c.flags&pingSkipped != 0 {
			c.closeFor(CauseTimeout)
			return false
		}
		c.setFlag(pingSkipped, !heard)
		c.pingAt = now
		return true
	}
	waits := r.loop.UrgentPending(c.slot)
	switch {
	case waits && !heard && c.flags&pingSkipped != 0, !waits && !heard && c.flags&pinged != 0: // L7.2
		c.closeFor(CauseTimeout)
		return false
	case waits: // L7.3: the last ping is not even with the kernel
		r.stats.PingsSkipped++
		r.cfg.Log.Debug("ping skipped: the previous one is not yet sent", "id", c.ID())
		c.flags |= pingSkipped
		c.pingAt = now
		return true
	}
	c.flags &^= pingSkipped
	c.flags |= pinged
	c.pingAt = now
	var body [8]byte
	binary.BigEndian.PutUint64(body[:], uint64(now))
	r.writeControl(c, frame.Ping, body[:], r.cfg.Role == frame.RoleClient, true)
	if r.loop.Flush(c.slot); r.loop.Broken(c.slot) { // L7.6
		c.closeFor(CauseSendError) // which cannot go out: OnError follows and ends it
		return false
	}
	return true
}

func (c *Conn) setFlag(f connFlags, on bool) {
	if on {
		c.flags |= f
	} else {
		c.flags &^= f
	}
}
