package conn

import "time"

// reasons for which a connection is not read.
const pauses = throttled | overBudget

// pause stops reading from the peer, for the given reason; TCP then pushes back. While it is paused, silence is no sign of
// death (L7.2).
func (c *Conn) pause(reason connFlags) {
	if c.flags&pauses == 0 {
		c.reg.loop.PauseRead(c.slot)
		c.reg.stats.Paused++
	}
	c.flags |= reason
}

// resume takes a reason back; when there is no other, the peer is read again.
func (c *Conn) resume(reason connFlags) {
	if c.flags&reason == 0 {
		return
	}
	if c.flags &^= reason; c.flags&pauses == 0 {
		c.reg.loop.ResumeRead(c.slot)
		c.reg.stats.Paused--
		c.flags |= alive // silence begins now: what it has sent meanwhile is not read yet
	}
}

// allowance is what Config.MaxMessages leaves a connection. It is kept beside the connections, and only when there is a
// limit: without one it costs no memory.
type allowance struct {
	// paid is the time up to which the connection's messages are paid for [ns]: each is worth its share of a second, and
	// a connection may be a second ahead of the clock. So as many messages as it may send in a second are let through at
	// once, and over a long time no more than that every second.
	paid int64
	rest []byte // what was read behind the last message that it could pay for
	size int    // memory of which rest is the end [bytes]
}

// allowance returns the connection's allowance; only when there is a limit.
func (r *Registry) allowance(c *Conn) *allowance {
	for len(r.allowances) < len(r.chunks) {
		r.allowances = append(r.allowances, new([chunkConns]allowance))
	}
	return &r.allowances[c.slot/chunkConns][c.slot%chunkConns]
}

// limited reports whether the connection's messages are counted: a limit is set, and it is open.
func (c *Conn) limited() bool {
	return c.reg.cfg.MaxMessages > 0 && (c.state == Open || c.state == Connected)
}

// price is what a message costs [ns].
func (r *Registry) price() int64 { return int64(time.Second) / int64(r.cfg.MaxMessages) }

// canPay reports whether the connection can pay for one message more.
func (r *Registry) canPay(c *Conn) bool {
	now := r.loop.Now()
	return max(r.allowance(c).paid, now)+r.price()-now <= int64(time.Second)
}

// pay pays for a message that has come. (Not for the pieces of one: a flood of small fragments is bounded by its bytes.)
func (r *Registry) pay(c *Conn) {
	a := r.allowance(c)
	a.paid = max(a.paid, r.loop.Now()) + r.price()
}

// unpaid is called for a connection that could not pay if p had a message: p is kept, and nothing more is read until it
// can.
func (r *Registry) unpaid(c *Conn, p []byte) {
	a := r.allowance(c)
	if r.paying { // it is the end of what was kept already
		a.rest = p
	} else {
		a.rest = append([]byte(nil), p...)
		a.size = cap(a.rest)
	}
	if c.flags&throttled == 0 {
		c.pause(throttled)
		r.stats.Throttled++
		r.armOpen(c)
	}
}

// throttledUntil returns when a throttled connection can pay for its next message [ns].
func (r *Registry) throttledUntil(c *Conn) int64 {
	return r.allowance(c).paid + r.price() - int64(time.Second)
}

// payOn goes on with what was kept. When all of it is done the peer is read again.
func (r *Registry) payOn(c *Conn) {
	r.beginReading(c)
	r.handleRest(c)
	if c.state < Closing && len(r.allowance(c).rest) == 0 {
		c.resume(throttled)
	}
	r.endReading(c)
}

// handleRest handles what was kept, as far as the connection can pay, and all of it when it is closing: the peer's Close
// may be in there. Between beginReading and endReading.
func (r *Registry) handleRest(c *Conn) {
	if r.cfg.MaxMessages == 0 {
		return
	}
	a := r.allowance(c)
	if p := a.rest; len(p) > 0 {
		a.rest = nil
		r.paying = true
		c.frames(p)
		r.paying = false
	}
}

// restAtClosing has what was kept of a connection that is now closing handled soon: nothing else may come that would
// lead to it.
func (r *Registry) restAtClosing(c *Conn) {
	if len(r.allowance(c).rest) == 0 {
		return
	}
	ref := c.Ref()
	r.loop.PostFunc(func() {
		if c := r.Get(ref); c != nil {
			r.beginReading(c)
			r.handleRest(c)
			r.endReading(c)
		}
	})
}

// restBytes returns the memory of what was kept [bytes].
func (c *Conn) restBytes() int {
	if c.flags&throttled == 0 && c.state < Closing || c.reg.cfg.MaxMessages == 0 {
		return 0
	}
	if a := c.reg.allowance(c); a.rest != nil {
		return a.size
	}
	return 0
}

func (c *Conn) dropRest() {
	if c.reg.cfg.MaxMessages > 0 {
		c.reg.allowance(c).rest = nil
	}
}
