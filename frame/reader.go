package frame

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"

	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/valyala/bytebufferpool"
)

// Message is what a Reader delivers: a whole message (Op Text or Binary) or a control frame (Close, Ping, Pong), never a
// part of one.
type Message struct {
	Op OpCode

	// RSV1 is set on a Text or Binary message whose first frame had the first reserved bit: see Config.AllowRSV1.
	RSV1 bool

	// Payload is unmasked, inflated with Config.Inflate, and valid UTF-8 if Op is Text, unless RSV1 is set without
	// Config.Inflate; that of a Close frame is as it came, see ParseCloseBody. It is borrowed: it either points into the p given to Next, and lives as long as that, or into a
	// buffer of the Reader, and lives until the next call of Next, Release or Reset. It may be changed in place; its
	// capacity ends where it does, so an append copies. It may be nil when empty.
	Payload []byte
}

// Reader takes the incoming bytes of one connection apart. It is one pointer: nil while nothing is partial, else the
// state of the frame and of the fragmented message that have begun, which comes from a pool and goes back when they
// are done.
//
// The zero value is ready. A Reader is not safe for use from several goroutines, and must not be copied unless Partial
// is false and what it delivered has been released.
type Reader struct {
	s *state
}

// state is what a Reader knows while something is partial, or while something that was assembled is on loan. In a
// Reader that failed it is the error's sticky state, of which only failed is ever looked at.
//
// The invariants between two calls of Next:
//
//   - buf is nil until the first byte of a data payload has been kept; its length is the payload of the open message so far
//   - z is not nil if the open message is inflated as it comes; buf is then what it inflated to so far
//   - inFrame: frame is the current header and pos < frame.length (a frame that is complete is ended at once)
//   - not inFrame: the first headerLen bytes of scratch are the beginning of a header
//   - fragmented: op and rsv1 are of the first frame of the open message; its last frame is still to come
//   - on loan: if loan is loanData, buf is the last delivered payload and nothing is partial; if loanControl, scratch
//     holds it and only a fragmented message can be open
type state struct {
	failed *Error
	buf    *bytebufferpool.ByteBuffer
	z      *deflate.Inflater
	packed int // with z: bytes of compressed payload announced by the frames of the open message so far

	frame header // the frame whose payload is being read
	pos   int    // bytes of its payload already read, at most frame.length

	inFrame    bool
	fragmented bool
	op         OpCode
	rsv1       bool
	text       UTF8 // over the open text message
	loan       loan
	headerLen  uint8
	pooled     bool // only with invariants: the state is in the pool

	// scratch has a header while it is incomplete, or the payload of a control frame while that is incomplete or on
	// loan. The header has been taken out before the payload begins.
	scratch [MaxControlPayload]byte
}

// stateSize is what a state takes, in bytes; a test keeps it in its allocation class.
const stateSize = int(unsafe.Sizeof(state{}))

// loan says which memory of the state the payload delivered last is in.
type loan uint8

const (
	loanNone    loan = iota // in none: nothing was delivered, or it was whole in p
	loanControl             // in scratch
	loanData                // in buf
)

// Next takes bytes from p and returns the first message that they complete; n is how many it took. With ok false and no
// error it took all of p, and the message needs more. Call it again with the rest of p until then: p may hold many
// messages. Bytes that were taken are not needed again, except for a payload that points to them.
//
// p is borrowed for the call, and as long as a payload delivered from it is used. It is unmasked in place, so it is
// changed up to n at least where a message was delivered from it.
//
// err is always a *Error. It comes with the first byte that breaks a rule, also when its frame or message is not
// complete yet, and after all the messages before it. n is 0 then. An error is final: what was partial has been
// dropped, and Next returns the same error, whatever p, until Reset.
//
// cfg must be the same at every call.
func (r *Reader) Next(cfg *Config, p []byte) (m Message, n int, ok bool, err error) {
	r.Release()
	if r.s != nil {
		return r.resume(cfg, nil, p)
	}
	// The way of nearly every frame to a server: a whole message, and all of it is here. Whatever is otherwise, or wrong, is
	// left to parseHeader; the few comparisons that a good frame needs take a third of its time.
	if len(p) >= 8 && cfg.Role == RoleServer && (p[0] == bitFin|byte(Binary) || p[0] == bitFin|byte(Text)) {
		size, length := 0, 0
		if b1 := p[1]; bitMask <= b1 && b1 < bitMask|len16 {
			size, length = 2, int(b1&bitsLen)
		} else if b1 == bitMask|len16 && (p[2] > 0 || p[3] >= len16) {
			size, length = 4, int(binary.BigEndian.Uint16(p[2:]))
		}
		if n = size + 4 + length; size > 0 && n <= len(p) && length <= cfg.MaxMessage {
			payload := p[size+4 : n : n]
			maskTurned(payload, binary.LittleEndian.Uint32(p[size:]))
			if p[0] == bitFin|byte(Text) && !utf8.Valid(payload) {
				return r.fail(ErrInvalidUTF8) // 8.1
			}
			return Message{Op: OpCode(p[0] & bitsOp), Payload: payload}, n, true, nil
		}
	}
	return r.nextByHeader(cfg, p)
}

// nextByHeader is Next without a state, for any frame.
func (r *Reader) nextByHeader(cfg *Config, p []byte) (m Message, n int, ok bool, err error) {
	h, size, e := parseHeader(cfg, p, false, cfg.MaxMessage)
	if e != nil {
		return r.fail(e)
	}
	if size == 0 || !h.fin || h.length > len(p)-size || h.rsv1 {
		if len(p) == 0 {
			return m, 0, false, nil
		}
		r.s = getState()
		return r.resume(cfg, nil, p)
	}
	n = size + h.length
	payload := p[size:n:n]
	if h.masked {
		Mask(payload, h.key, 0)
	}
	if h.op == Text && !utf8.Valid(payload) {
		return r.fail(ErrInvalidUTF8) // 8.1
	}
	return Message{Op: h.op, Payload: payload}, n, true, nil
}

// NextWith is Next on a connection that has agreed on context takeover for what comes in (Config.Inflate): w is the window
// of that, borrowed for the call, and must be the same at every one. With nil it is Next itself. Else it takes every frame
// by way of a state, some 30 ns: Next shall not pay for w.
func (r *Reader) NextWith(cfg *Config, w *deflate.Window, p []byte) (m Message, n int, ok bool, err error) {
	if w == nil {
		return r.Next(cfg, p)
	}
	r.Release()
	if r.s == nil {
		if len(p) == 0 {
			return m, 0, false, nil
		}
		r.s = getState()
	}
	return r.resume(cfg, w, p)
}

// resume is Next with a state.
func (r *Reader) resume(cfg *Config, w *deflate.Window, p []byte) (m Message, n int, ok bool, err error) {
	s := r.s
	if s.failed != nil {
		return m, 0, false, s.failed
	}
	for n < len(p) {
		if !s.inFrame {
			used, e := s.readHeader(cfg, p[n:])
			if e != nil {
				return r.fail(e)
			}
			n += used
			if !s.inFrame {
				return m, n, false, nil
			}
		}
		part := p[n:]
		if left := s.frame.length - s.pos; len(part) > left {
			part = part[:left:left]
		}
		n += len(part)
		var e *Error
		switch {
		case s.frame.op.IsControl():
			m, ok = s.readControl(part)
		case s.z != nil:
			m, ok, e = s.inflate(cfg, w, part)
		default:
			m, ok, e = s.readData(part)
		}
		if e != nil {
			return r.fail(e)
		}
		if ok {
			if s.loan == loanNone && !s.fragmented {
				r.s = nil
				putState(s)
			}
			return m, n, true, nil
		}
	}
	return m, n, false, nil
}

// readHeader takes what p, not empty, has of a header. If that completes it, the payload is next (inFrame), else all
// of p was kept. Bytes of p behind the header are not taken.
func (s *state) readHeader(cfg *Config, p []byte) (used int, e *Error) {
	kept := int(s.headerLen)
	src := p
	if kept > 0 {
		// At most the longest header: what is too much belongs to the payload and is read again from p.
		src = s.scratch[:kept+copy(s.scratch[kept:MaxHeader], p)]
	}
	room := cfg.MaxMessage
	switch {
	case s.z != nil:
		room = cfg.maxPacked() - s.packed
	case s.buf != nil:
		room -= len(s.buf.B)
	}
	h, size, e := parseHeader(cfg, src, s.fragmented, room)
	if e != nil {
		return 0, e
	}
	if size == 0 {
		// Incomplete, so shorter than MaxHeader: p fits, and has already been copied if there was something before it.
		if kept == 0 {
			copy(s.scratch[:MaxHeader], p)
		}
		s.headerLen = uint8(kept + len(p))
		return len(p), nil
	}
	s.headerLen = 0
	s.frame, s.pos, s.inFrame = h, 0, true
	if h.op == Text || h.op == Binary {
		s.op, s.rsv1 = h.op, h.rsv1
		if h.rsv1 && cfg.Inflate {
			s.z = deflate.NewInflater()
		}
	}
	if s.z != nil && !h.op.IsControl() {
		s.packed += h.length
	}
	return size - kept, nil
}

// readControl takes part, the next bytes of the payload of a control frame; ok means that the frame is complete. A
// fragmented message goes on around it (RFC 6455 section 5.4).
func (s *state) readControl(part []byte) (m Message, ok bool) {
	if s.frame.masked {
		Mask(part, s.frame.key, s.pos)
	}
	m.Op = s.frame.op
	if len(part) == s.frame.length { // whole in p
		s.inFrame = false
		m.Payload = part[:len(part):len(part)]
		return m, true
	}
	s.pos += copy(s.scratch[s.pos:], part)
	if s.pos < s.frame.length {
		return Message{}, false
	}
	s.inFrame = false
	s.loan = loanControl
	m.Payload = s.scratch[:s.pos:s.pos]
	return m, true
}

// readData takes part, the next bytes of the payload of a data frame; ok means that its message is complete.
func (s *state) readData(part []byte) (m Message, ok bool, e *Error) {
	if s.frame.masked {
		Mask(part, s.frame.key, s.pos)
	}
	whole := len(part) == s.frame.length && s.frame.fin && !s.fragmented
	text := s.op == Text && !s.rsv1
	if text && !s.text.Write(part) {
		return m, false, ErrInvalidUTF8 // 8.1, at the first bad byte
	}
	s.pos += len(part)
	if !whole {
		s.keep(part)
	}
	if s.pos < s.frame.length {
		return m, false, nil
	}
	s.inFrame = false
	if !s.frame.fin {
		s.fragmented = true
		return m, false, nil
	}
	s.fragmented = false
	if text && !s.text.Complete() {
		return m, false, ErrInvalidUTF8 // 8.1: the message ends inside a code point
	}
	m.Op, m.RSV1 = s.op, s.rsv1
	switch {
	case whole: // the header was cut, the payload is not
		m.Payload = part[:len(part):len(part)]
	case s.buf != nil:
		s.loan = loanData
		b := s.buf.B
		m.Payload = b[:len(b):len(b)]
	}
	return m, true, nil
}

// keep appends part to the message. The buffer grows with what has arrived, never with what was announced; see
// limits.go.
func (s *state) keep(part []byte) {
	if len(part) == 0 {
		return // a flood of empty fragments costs no memory
	}
	if s.buf == nil {
		s.grow(len(part))
	} else if len(part) > cap(s.buf.B)-len(s.buf.B) {
		s.grow(len(s.buf.B) + len(part))
	}
	s.buf.B = append(s.buf.B, part...)
}

// grow moves the message into a buffer with room for n bytes, which is more than the one it has.
func (s *state) grow(n int) {
	larger := getBuffer(n)
	if s.buf != nil {
		larger.B = append(larger.B, s.buf.B...)
		putBuffer(s.buf)
	}
	s.buf = larger
}

// fail drops everything and makes e stick.
func (r *Reader) fail(e *Error) (Message, int, bool, error) {
	r.Reset()
	r.s = e.sticky
	return Message{}, 0, false, e
}

// Release ends the loan of the payload that Next delivered last, if it was in a buffer of the Reader, and gives the
// buffer back. It costs a nil check when there is nothing to give back. Next does the same before anything else, so
// calling Release is about having the memory back while the connection is idle. What is partial stays.
func (r *Reader) Release() {
	if r.s != nil {
		r.endLoan()
	}
}

func (r *Reader) endLoan() {
	s := r.s
	switch s.loan {
	case loanNone:
		return
	case loanControl:
		if s.fragmented {
			s.loan = loanNone
			if invariants {
				mangle(s.scratch[:])
			}
			return
		}
	case loanData:
	}
	r.s = nil
	putState(s)
}

// Reset drops everything: what is partial, what is on loan, and an error. The Reader is then as new. For the end of a
// connection; it may be called between Next and the end of the use of its message, but ends the life of the payload
// at once, for the buffer may be another connection's a moment later.
func (r *Reader) Reset() {
	s := r.s
	r.s = nil
	if s != nil && s.failed == nil {
		putState(s)
	}
}

// Buffered returns how much memory the Reader holds, in bytes, all told: what limits.go adds up. It is 0 when nothing
// is partial or on loan.
func (r *Reader) Buffered() int {
	if r.s == nil || r.s.failed != nil {
		return 0
	}
	n := stateSize
	if b := r.s.buf; b != nil {
		n += int(unsafe.Sizeof(*b)) + cap(b.B)
	}
	if r.s.z != nil {
		n += deflate.InflaterMemory
	}
	return n
}

// Partial reports whether the connection is in the middle of a frame or of a fragmented message.
func (r *Reader) Partial() bool {
	s := r.s
	return s != nil && s.failed == nil && (s.inFrame || s.fragmented || s.headerLen > 0)
}
