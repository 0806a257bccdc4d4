package deflate

import (
	"math/bits"
	"sync/atomic"
)

// Window is the end of what went one way on a connection with context takeover: what the next message may refer to
// (RFC 7692 section 7.1.1). It takes what it holds, not what it may come to hold: nothing when new.
//
// Only messages that were compressed belong to it.
type Window struct {
	b    []byte
	bits uint8
}

// Add has the window slide over p, the uncompressed payload of a message that was received or sent compressed. p is
// copied as far as it is kept.
func (w *Window) Add(p []byte) {
	size := 1 << w.bits
	if len(p) >= size {
		p = p[len(p)-size:]
	}
	keep := min(len(w.b), size-len(p))
	if total := keep + len(p); total > cap(w.b) {
		b := make([]byte, keep, max(minWindow, 1<<bits.Len(uint(total-1))))
		copy(b, w.b[len(w.b)-keep:])
		w.b = b
	} else {
		w.b = w.b[:copy(w.b[:keep], w.b[len(w.b)-keep:])]
	}
	w.b = append(w.b, p...)
}

// Memory returns what the window holds now [bytes].
func (w *Window) Memory() int { return cap(w.b) }

// Context is what a connection with context takeover keeps between messages, in either direction or both.
type Context struct {
	in, out Window
	use     uint8
}

const (
	useIn = 1 << iota
	useOut
)

// NewContext returns the Context of a connection, of which server says whether this is the server's end. It is nil when
// there is no takeover in either direction. It holds 72 bytes until a compressed message comes or goes, and never more than
// p.Memory says.
func NewContext(p Params, server bool) *Context {
	receive, send := p.direction(!server), p.direction(server)
	if receive.fresh && send.fresh {
		return nil
	}
	c := new(Context)
	if !receive.fresh {
		c.use |= useIn
		c.in.bits = receive.bits
	}
	if !send.fresh {
		c.use |= useOut
		c.out.bits = min(send.bits, dictionaryBits)
	}
	return c
}

// In returns the window of what is received: nil without takeover in that direction, or without a Context.
func (c *Context) In() *Window {
	if c == nil || c.use&useIn == 0 {
		return nil
	}
	return &c.in
}

// Out returns the window of what is sent: nil without takeover in that direction, or without a Context.
func (c *Context) Out() *Window {
	if c == nil || c.use&useOut == 0 {
		return nil
	}
	return &c.out
}

// Budget bounds the memory of the Contexts of a process: a connection takes its share for the worst case when it is
// agreed on, and is offered no takeover when there is none left. Safe from any goroutine; it costs one atomic operation per
// connection, none per message. The zero value has nothing to give.
type Budget struct {
	left atomic.Int64
}

// NewBudget returns a Budget of that many bytes.
func NewBudget(bytes int64) *Budget {
	b := new(Budget)
	b.left.Store(bytes)
	return b
}

// Take takes bytes out of the budget, or nothing when there are fewer.
func (b *Budget) Take(bytes int) bool {
	if b.left.Add(-int64(bytes)) < 0 {
		b.left.Add(int64(bytes))
		return false
	}
	return true
}

// Give gives back what Take took.
func (b *Budget) Give(bytes int) { b.left.Add(int64(bytes)) }

// Left returns what can still be taken.
func (b *Budget) Left() int64 { return max(0, b.left.Load()) }
