package bench

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// A request id of the generator is idLen hexadecimal digits: the number of the connection and that of the request, 8 bytes
// big endian. So an answer that went astray is known as such. The requests of a setup step have the number setupID.
const (
	idLen   = 16
	idAt    = 2 // in the encoded envelope of a request without a session id: after the field's tag and its length
	setupID = 1<<32 - 1
)

// noID is in the place of the id in a template.
const noID = "................"

// envelopes sends and reads MQ messages in one of the two forms. It belongs to a loop's goroutine and allocates nothing in
// steady state.
type envelopes struct {
	form    wire.Form
	op      frame.OpCode
	scratch []byte // of the message that is being built or read
	env     wire.Envelope
}

func newEnvelopes(text bool) envelopes {
	if text {
		return envelopes{form: wire.Text, op: frame.Text}
	}
	return envelopes{form: wire.Binary, op: frame.Binary}
}

// requestTemplate returns the encoded envelope of a request, with room for an id.
func requestTemplate(typ string, payload []byte) []byte {
	e := wire.Envelope{RequestID: noID, Type: typ, Payload: payload}
	return e.AppendTo(nil)
}

// putID writes an id into an encoded envelope.
func putID(envelope []byte, number, seq uint32) {
	var id [idLen / 2]byte
	binary.BigEndian.PutUint32(id[:4], number)
	binary.BigEndian.PutUint32(id[4:], seq)
	hex.Encode(envelope[idAt:idAt+idLen], id[:])
}

// parseID reads an id.
func parseID(text string) (number, seq uint32, ok bool) {
	if len(text) != idLen {
		return 0, 0, false
	}
	v := uint64(0)
	for i := range len(text) {
		c := text[i]
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, 0, false
		}
	}
	return uint32(v >> 32), uint32(v), true
}

// begin returns a place of n bytes to build an encoded envelope in, for send: in the outgoing buffer itself when it goes
// out as it is.
func (e *envelopes) begin(c *conn.Conn, n int) ([]byte, error) {
	if e.form == wire.Binary {
		return c.Reserve(e.op, n)
	}
	if cap(e.scratch) < n {
		e.scratch = make([]byte, n)
	}
	return e.scratch[:n], nil
}

// send sends what was built in the place that begin returned.
func (e *envelopes) send(c *conn.Conn, p []byte) error {
	if e.form == wire.Binary {
		c.Commit(p)
		return nil
	}
	b, err := c.Reserve(e.op, wire.TextSize(len(p)))
	if err != nil {
		return err
	}
	wire.AppendText(b[:0], p)
	c.Commit(b)
	return nil
}

// read reads a message into e.env, whose strings and payload are views of p, or of memory that the next read uses again.
// false: it is no envelope, or not in the form that was asked for, and e.env is empty.
func (e *envelopes) read(op frame.OpCode, p []byte) bool {
	ok := op == e.op
	if ok && e.form == wire.Text {
		var err error
		e.scratch, err = wire.DecodeText(e.scratch[:0], p)
		p, ok = e.scratch, err == nil
	}
	if !ok || e.env.Unmarshal(p) != nil {
		e.env = wire.Envelope{} // else it would be the one before, or half of one
		return false
	}
	return true
}
