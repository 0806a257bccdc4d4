package conn

import (
	"slices"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

// pressure is one loop's part in keeping to the Budget (L8.6).
type pressure struct {
	timer     *loop.Timers // entry 0; runs while memory is short or somebody is paused
	running   bool
	published int64 // what the budget knows that this loop holds [bytes]
	partial   int64 // memory of all partial messages, but for that of the connection being read [bytes]
	reading   *Conn // the connection being read: its partial message changes all the time and is counted when it is done
	pauseAt   int   // who holds as much, and sends more, is paused at once [bytes]; 0: nobody
	paused    []pausedConn
	holders   []holder // scratch of relieve
}

// pausedConn is a connection that is not read for the sake of memory.
type pausedConn struct {
	ref   Ref
	since int64 // [ns]
}

// holder is a connection that holds memory worth having.
type holder struct {
	slot uint32
	held int // [bytes]
}

// holds returns the memory that waits for this peer: for the rest of its message, and for it to read [bytes].
func (c *Conn) holds() int { return c.partial() + c.unread() }

// unread returns the memory that waits for this peer to read [bytes]; of what waits for others too, its part.
func (c *Conn) unread() int { return c.reg.loop.Held(c.slot) + c.reg.loop.SharedPart(c.slot) }

// held returns what this loop adds to what all of them hold [bytes].
func (r *Registry) held() int64 {
	return r.pressure.partial + r.loop.HeldBytes() + r.loop.SharedBytes()
}

// partial returns the memory of the partial message, and of what it has sent too early [bytes].
func (c *Conn) partial() int { return c.in.Buffered() + c.restBytes() }

// dropKept lets go of all that is kept for messages to come: the partial one, and what those before it left behind.
func (c *Conn) dropKept() {
	c.dropContext()
	if p := &c.reg.pressure; p.reading != c {
		p.partial -= int64(c.partial())
	}
	c.in.Reset()
	c.dropRest()
}

// beginReading and endReading stand around all that the bytes of one read lead to. Between them the partial message of
// the connection is not in the sum, so that it may come, go and be dropped without a count at each place.
func (r *Registry) beginReading(c *Conn) {
	r.pressure.reading = c
	r.pressure.partial -= int64(c.partial())
}

func (r *Registry) endReading(c *Conn) {
	r.pressure.reading = nil
	r.pressure.partial += int64(c.partial())
	if r.Account(); r.pressure.pauseAt > 0 && (c.state == Open || c.state == Connected) && c.flags&overBudget == 0 &&
		c.holds() >= r.pressure.pauseAt {
		r.pauseForMemory(c)
	}
}

// Account makes known to the budget what this loop holds, when that has changed by a step, and has the loop act when
// memory is short. It is called with every read, by OnBlocked, and by the owner about once a second, for a loop whose
// output went away without a word, or that does not know yet what others hold. On the loop's goroutine.
func (r *Registry) Account() {
	b, p := r.cfg.Budget, &r.pressure
	if b == nil {
		return
	}
	held := r.held()
	d := held - p.published
	if d < b.step && d > -b.step && b.quiet() {
		return
	}
	p.published = held
	if b.add(d, r.loop.Now()) >= Pausing && !p.running {
		p.running = true
		p.pauseAt = pauseFirst
		p.timer.Set(0, r.loop.Now()) // at the end of this turn, outside of everybody's calls
	}
}

// relieve looks at all connections of the loop while memory is short: who holds most is not read, or closed.
func (r *Registry) relieve() {
	p, b := &r.pressure, r.cfg.Budget
	held := r.held()
	level := b.add(held-p.published, r.loop.Now())
	p.published = held
	r.endLongPauses()
	if level == Calm {
		p.pauseAt = 0
		if b.calm() {
			r.resumePaused()
			p.running = false
			return
		}
	} else {
		p.holders = p.holders[:0]
		sum := r.findHolders()
		slices.SortFunc(p.holders, func(a, b holder) int { return b.held - a.held })
		rest := p.holders
		if level >= Shedding {
			// This loop's share of what is too much.
			excess := b.Used() - b.from[Refusing]
			share := int64(float64(excess) * float64(sum) / float64(max(b.Held(), sum, 1)))
			rest = r.shed(share)
		}
		r.pauseMost(rest, level)
		if level >= Refusing {
			r.refuseBegun()
		}
	}
	p.timer.Set(0, r.loop.Now()+relieveEvery)
}

// findHolders lists who holds something worth having, and returns how much they hold together.
func (r *Registry) findHolders() (sum int64) {
	r.Each(func(c *Conn) {
		if n := c.holds(); n >= minHolder {
			r.pressure.holders = append(r.pressure.holders, holder{c.slot, n})
			sum += int64(n)
		}
	})
	return sum
}

// shed closes the largest holders with 1013 until n bytes are free, and returns the others.
func (r *Registry) shed(n int64) (rest []holder) {
	rest = r.pressure.holders
	for ; len(rest) > 0 && n > 0; rest = rest[1:] {
		c := r.live(rest[0].slot)
		if c == nil {
			continue // a handler that was told of another's end has closed it
		}
		n -= int64(rest[0].held)
		r.shedOne(c)
	}
	return rest
}

// shedOne closes a connection for the sake of memory: what is unsent goes, and there is no waiting for the peer's Close
// during which more could come. What is left is a message of which the kernel has a part; when that is large it goes too,
// and the socket with it, since a Close frame could only follow it.
func (r *Registry) shedOne(c *Conn) {
	c.dropUnsent()
	if c.unread() >= minHolder {
		c.abort(CauseMemory, true)
		return
	}
	code, reason := CauseMemory.Close()
	c.fail(code, reason, CauseMemory)
}

// refuseBegun refuses whoever has sent a part of its request and holds memory by that. What a request takes is not in the
// sum; who never ends one could otherwise hold 8 KiB per socket until --handshake-timeout.
func (r *Registry) refuseBegun() {
	for slot := range uint32(len(r.chunks) * chunkConns) {
		if !r.loop.InUse(slot) {
			continue
		}
		if c := r.at(slot); c.state == Connecting && c.hs != nil && c.hs.buf != nil && r.cfg.Role == frame.RoleServer {
			c.refuse(unavailable, false)
		}
	}
}

// pauseMost stops reading from those who hold most: the ones that have half of all, or, when upgrades are refused already,
// everybody who holds something worth having.
func (r *Registry) pauseMost(holders []holder, level Level) {
	p := &r.pressure
	var all, sum int64
	for _, h := range holders {
		all += int64(h.held)
	}
	p.pauseAt = pauseFirst
	for _, h := range holders {
		if level < Refusing && sum*2 >= all {
			break
		}
		sum += int64(h.held)
		p.pauseAt = min(p.pauseAt, h.held)
		if c := r.live(h.slot); c != nil && c.state != Closing && c.flags&overBudget == 0 {
			r.pauseForMemory(c)
		}
	}
	if level >= Refusing {
		p.pauseAt = minHolder
	}
}

func (r *Registry) pauseForMemory(c *Conn) {
	c.pause(overBudget)
	r.stats.PausedMemory++
	r.pressure.paused = append(r.pressure.paused, pausedConn{c.Ref(), r.loop.Now()})
}

// endLongPauses closes connections that have been paused for longer than --write-timeout: what they hold would otherwise
// be held for ever, since a message whose rest is not read is never complete.
func (r *Registry) endLongPauses() {
	p, now := &r.pressure, r.loop.Now()
	gone := 0 // the list is in the order of time
	for _, pc := range p.paused {
		if now-pc.since < int64(r.cfg.WriteTimeout) {
			break
		}
		gone++
		if c := r.Get(pc.ref); c != nil && c.flags&overBudget != 0 {
			r.shedOne(c)
		}
	}
	p.paused = p.paused[:copy(p.paused, p.paused[gone:])]
}

func (r *Registry) resumePaused() {
	p := &r.pressure
	for _, pc := range p.paused {
		if c := r.Get(pc.ref); c != nil {
			c.resume(overBudget)
		}
	}
	p.paused, p.holders = nil, nil
}
