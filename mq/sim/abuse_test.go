package sim

import (
	"bytes"
	"slices"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// What clients send that they should not.

// wrongAnswer answers twice, late, or what nobody asked.
func (c *client) wrongAnswer() {
	if !c.speaks() || c.echo {
		return
	}
	w := c.w
	if len(c.answer1) > 0 && w.chance(0.5) {
		c.respond(c.answer1[w.rng.IntN(len(c.answer1))])
		return
	}
	id := oneOf(w, "S0", "S99999", "x", "", "S1x", "S", "S18446744073709551616", "S99999999999999999999999")
	if len(w.asks) > 0 && w.chance(0.6) { // somebody else's: numbers are the loop's, so it is not one of this client's
		if a := w.asks[w.rng.IntN(len(w.asks))]; a.client != c && a.client.loop == c.loop && a.id != "" {
			id = a.id
		}
	}
	c.envelope(&wire.Envelope{RequestID: id, Type: "sim.Wrong", MessageType: wire.Response})
}

// event sends an event, which clients cannot.
func (c *client) event() {
	if c.speaks() && !c.echo {
		c.envelope(&wire.Envelope{Type: "sim.Event", MessageType: wire.Event})
	}
}

// malformed sends a message that is no envelope.
func (c *client) malformed() {
	if !c.speaks() {
		return
	}
	op, p := opBinary, []byte{0xff, 0xff, 0x01}
	if c.w.chance(0.5) {
		op, p = opText, []byte("not base64!")
	}
	if c.echo && c.dialer == nil {
		c.unheard = append(c.unheard, p)
	}
	c.frame(op, true, c.pack(p))
}

// garbage breaks the protocol.
func (c *client) garbage() {
	if !c.speaks() || c.dialer != nil || c.w.chance(0.5) {
		return
	}
	c.spoilt, c.packing.off = true, true
	c.w.note(c, "breaks the protocol")
	switch c.w.rng.IntN(10) {
	case 0:
		c.put(frame.AppendFrame(nil, opBinary, true, []byte("not masked")))
	case 1:
		c.put([]byte{0x83, 0x80, 0, 0, 0, 0}) // reserved opcode
	case 2:
		c.frame(frame.Continuation, true, []byte("of nothing"))
	case 3:
		c.frame(opText, true, []byte{0xc3, 0x28}) // not UTF-8
	case 4:
		c.frame(opBinary, true, make([]byte, c.w.cfg.Endpoints[0].MaxMessage+1))
	case 5:
		c.put([]byte{0xc2, 0x80, 0, 0, 0, 0}) // RSV1
	case 6:
		c.put([]byte{0x09, 0x80, 0, 0, 0, 0}) // a ping in fragments
	case 7:
		c.frame(opText, false, []byte("a"))
		c.frame(opText, true, []byte("b"))
	case 8:
		c.put([]byte{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // a length beyond 2^63
	case 9:
		junk := make([]byte, 1+c.w.rng.IntN(60))
		for i := range junk {
			junk[i] = byte(c.w.rng.Uint32())
		}
		c.put(junk)
	}
}

// half sends half a frame; what follows belongs to it.
func (c *client) half() {
	if !c.speaks() || c.dialer != nil || c.w.chance(0.5) {
		return
	}
	c.spoilt, c.packing.off = true, true
	b := frame.AppendMaskedFrame(nil, opBinary, true, make([]byte, 200), [4]byte{1, 2, 3, 4})
	c.put(b[:c.w.rng.IntN(len(b))])
}

// flood has the echo endpoint send many small messages to a client that does not read: the bookkeeping is more than the
// bytes.
func (c *client) flood() {
	if c.echo && c.speaks() && c.dialer == nil {
		c.window()
		for range c.w.rng.IntN(150) {
			c.toEcho(c.w.rng.IntN(3))
		}
	}
}

// badCompression sends what is not compressed as it must be, with the code of the Close frame that must follow.
func (c *client) badCompression() {
	w, k := c.w, &c.packing
	if c.status != 101 || c.dialer != nil || c.spoilt || c.cut || len(c.closed) > 0 || w.chance(0.5) {
		return
	}
	if !k.agreed {
		c.breaks(1002, opBinary, squeeze(6, nil, []byte("RSV1 without an agreement"), 0, false))
		return
	}
	limit := w.cfg.Endpoints[0].MaxMessage
	switch w.rng.IntN(8) {
	case 0:
		c.breaks(1007, opBinary, append([]byte{7}, pattern(c.n, w.rng.IntN(30))...)) // a type of block that there is not
	case 1:
		c.breaks(1009, opText, c.deflate(make([]byte, limit+1+w.rng.IntN(limit))))
	case 2:
		c.breaks(1007, opText, c.deflate([]byte("text\xc3\x28 that is none")))
	case 3:
		c.breaks(1009, opBinary, bytes.Repeat([]byte("\x00\x00\x00\xff\xff"), (limit+limit/8+1024)/5+1)) // empty blocks
	case 4:
		c.breaks(1002, frame.Ping, nil)
	case 5:
		c.frame(opBinary, false, []byte("a message"))
		c.breaks(1002, frame.Continuation, []byte("whose second frame has RSV1"))
	case 6: // it refers to what is behind the window
		before := make([]byte, 200)
		for i := range before {
			before[i] = byte(w.rng.Uint32())
		}
		if len(k.sent) < 30_000 {
			c.breaks(1007, opBinary, squeeze(6, slices.Concat(before, k.sent), before, len(before), false))
		}
	case 7: // whatever that is
		junk := make([]byte, w.rng.IntN(60))
		for i := range junk {
			junk[i] = byte(w.rng.Uint32())
		}
		c.breaks(0, opBinary, junk)
	}
}

// breaks sends a frame with RSV1, or a message, that fails the connection with that code; 0: it may.
func (c *client) breaks(code int, op frame.OpCode, p []byte) {
	c.w.note(c, "breaks the compression, expects %d", code)
	c.w.tally.packed[packedBad]++
	c.spoilt, c.packing.off = true, true
	c.broke, c.brokeAt = code, len(c.w.requests)
	c.rsv1 = true
	if n := c.w.rng.IntN(len(p) + 1); !op.IsControl() && op != frame.Continuation && c.w.chance(0.5) {
		c.frame(op, false, p[:n])
		op, p = frame.Continuation, p[n:]
	}
	c.frame(op, true, p)
}
