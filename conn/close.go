package conn

import (
	"github.com/mqgate/mqgate/frame"
)

// End says how a connection ended.
type End struct {
	Code   uint16 // the peer's close code, or what stands for it: 1005, 1006, or our own when we failed the connection
	Reason []byte // the peer's reason or our own; borrowed until OnClose returns
	Cause  Cause
	NS     int64 // how long it lived [ns]
}

// Close starts the close handshake (L1.3, L5.2): the Close frame follows what was sent before, and OnClose is called
// when the peer's Close is in or, after --close-timeout, without it (L5.3). The reason is cut to 123 bytes at a rune.
// Errors: ErrCloseCode (nothing happens), ErrNotOpen (closing already, or not upgraded yet: a no-op, L1.5).
func (c *Conn) Close(code int, reason string, cause Cause) error {
	if !frame.ValidSendCode(code) {
		return ErrCloseCode
	}
	if c.state != Open && c.state != Connected {
		return ErrNotOpen
	}
	c.cause = cause
	c.transition(Closing)
	c.sendClose(uint16(code), reason)
	c.reg.setTimer(c, c.reg.cfg.CloseTimeout.Nanoseconds())
	return nil
}

// CloseFor is Close with the code and reason that belong to the cause (L5.1).
func (c *Conn) CloseFor(cause Cause) error {
	code, reason := cause.Close()
	return c.Close(int(code), reason, cause)
}

// closeFor is CloseFor where it does not matter that the connection is closing already.
func (c *Conn) closeFor(cause Cause) { _ = c.CloseFor(cause) }

// sendClose queues our Close frame. Nothing is sent after it.
func (c *Conn) sendClose(code uint16, reason string) {
	r := c.reg
	masked := r.cfg.Role == frame.RoleClient
	body := frame.AppendCloseBody(r.scratch[:0], code, reason)
	r.writeControl(c, frame.Close, body, masked, false)
	c.flags |= closeSent
}

// peerClose handles the peer's Close frame (L1.3, L1.4, L1.5).
func (c *Conn) peerClose(body []byte) {
	code, reason, err := frame.ParseCloseBody(body)
	if err != nil {
		c.failFrame(err)
		return
	}
	if c.state == Closing { // ours is out already: this is its answer
		c.end(End{Code: code, Reason: reason, Cause: c.cause})
		c.finish()
		return
	}
	c.transition(Closing)
	c.end(End{Code: code, Reason: reason, Cause: CauseClient})
	c.sendClose(code, string(reason)) // 1005 stands for the empty body, which is echoed as such
	c.finish()
}

// failFrame fails the connection because the peer broke the protocol (L1.6): err is of package frame.
func (c *Conn) failFrame(err error) {
	code, text := uint16(codeProtocol), err.Error()
	if e, ok := err.(*frame.Error); ok {
		code, text = e.Code, e.Text
	}
	cause := CauseProtocol
	switch {
	case err == error(frame.ErrDeflate): // 1007 as well, but no text
	case code == codeBadData:
		cause = CauseBadUTF8
	case code == codeTooBig:
		cause = CauseTooBig
	}
	c.fail(code, text, cause)
}

// fail ends the connection at once from our side: a Close frame, if none is out, OnClose, and no waiting for the peer's
// (RFC 6455 section 7.1.7).
func (c *Conn) fail(code uint16, text string, cause Cause) {
	if c.state != Closing {
		c.transition(Closing)
	}
	if c.flags&closeSent == 0 {
		c.sendClose(code, text)
	}
	c.end(End{Code: code, Reason: []byte(text), Cause: cause})
	c.finish()
}

// abort ends an upgraded connection without a close handshake (1006) and closes the socket now.
func (c *Conn) abort(cause Cause, reset bool) {
	if c.state != Closed {
		c.cause = cause
		c.transition(Closed) // before OnClose, within which nothing can be sent any more
		c.end(End{Code: codeAbnormal, Reason: []byte(cause.Label()), Cause: cause})
	}
	c.drop(reset)
}

// end is the one OnClose and the one decrement (L1.6, L6.1).
func (c *Conn) end(e End) {
	if c.flags&ended != 0 {
		panic("conn: a connection ended twice")
	}
	r := c.reg
	c.flags |= ended
	e.NS = r.loop.Now() - c.born
	r.stats.Open--
	r.stats.Disconnects[e.Cause][codeIndex(e.Code)]++
	r.uncount(c)
	r.cfg.Endpoints[c.endpoint].Handler.OnClose(c, e)
}

// finish lets the last words go out and closes the socket in good order (L1.8): when everything is with the kernel the
// server shuts down its side and reads on until the client's FIN, the client waits for the server's FIN, both no longer
// than --close-timeout. Closing a socket with unread input at once would send RST, and the peer might lose our Close.
func (c *Conn) finish() {
	c.transition(Closed)
	r := c.reg
	r.stats.Lingering++
	c.flags |= lingering
	c.dropKept() // nothing more is sent or read, and what is partial is of no use
	r.loop.NotifyDrained(c.slot)
	r.setTimer(c, r.cfg.CloseTimeout.Nanoseconds())
}

// lingerDrained: the last words are with the kernel.
func (c *Conn) lingerDrained() {
	r := c.reg
	switch {
	case c.flags&sawEOF != 0:
		c.drop(false)
	case r.cfg.Role == frame.RoleServer || c.flags&refused != 0:
		r.loop.ShutdownWrite(c.slot)
	}
}

// drop closes the socket and gives the slot back.
func (c *Conn) drop(reset bool) {
	r, slot := c.reg, c.slot
	if c.flags&lingering != 0 {
		r.stats.Lingering--
	}
	r.uncount(c)
	c.dropKept()
	c.dropHandshake()
	r.metas.release(c.meta)
	if reset {
		r.loop.Reset(slot)
	} else {
		r.loop.Close(slot)
	}
}
