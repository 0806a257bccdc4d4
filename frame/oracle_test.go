package frame

import (
	"fmt"
	"unicode/utf8"

	"github.com/mqgate/mqgate/frame/deflate"
)

// This file is the slow parser that Reader is compared with. It takes the whole input at once, byte by byte, keeps
// everything, and says each rule of the RFC in the plainest words; it shares no code with the package but the names, and
// the Inflater, which has an oracle of its own.

// event is a message that must be delivered.
type event struct {
	op      OpCode
	rsv1    bool
	payload []byte
	end     int // offset in the input behind the byte that completes it
}

func (e event) String() string {
	return fmt.Sprintf("%v rsv1=%v %x ending at %d", e.op, e.rsv1, e.payload, e.end)
}

// verdict is what must become of an input.
type verdict struct {
	events  []event
	err     *Error // nil: no rule is broken
	at      int    // with err: offset of the first byte that breaks the rule
	partial bool   // without err: the input ends inside a frame or a fragmented message
}

// ranOut is the panic with which the reference parser leaves off at the end of the input.
type ranOut struct{}

type reference struct {
	cfg Config
	in  []byte
	pos int
	verdict

	open bool // a fragmented message is open
	op   OpCode
	rsv1 bool
	msg  []byte

	z      deflate.Inflater
	packed uint64 // compressed bytes of the open message
}

// judge runs the reference parser over in.
func judge(cfg Config, in []byte) (v verdict) {
	r := &reference{cfg: cfg, in: in}
	defer func() {
		if e := recover(); e != nil {
			if _, end := e.(ranOut); !end {
				panic(e)
			}
			r.partial = true
		}
		v = r.verdict
	}()
	for r.pos < len(in) && r.err == nil {
		r.frame()
	}
	if r.err == nil {
		r.partial = r.open
	}
	return
}

func (r *reference) byte() byte {
	if r.pos == len(r.in) {
		panic(ranOut{})
	}
	r.pos++
	return r.in[r.pos-1]
}

// broken notes that the byte read last breaks a rule.
func (r *reference) broken(e *Error) { r.err, r.at = e, r.pos-1 }

func (r *reference) frame() {
	first := r.byte()
	fin := first >= 128
	rsv1 := first/64%2 == 1
	rsv2 := first/32%2 == 1
	rsv3 := first/16%2 == 1
	op := OpCode(first % 16)
	data := op == 1 || op == 2
	control := op == 8 || op == 9 || op == 10

	switch {
	case rsv2 || rsv3 || rsv1 && !(r.cfg.AllowRSV1 && (data || 3 <= op && op <= 7)):
		// (RSV1 on a reserved data opcode: the opcode is what is wrong. On a reserved control opcode: the bit is.)
		r.broken(ErrReservedBits)
	case op != 0 && !data && !control:
		r.broken(ErrReservedOpCode)
	case control && !fin:
		r.broken(ErrControlFragmented)
	case op == 0 && !r.open:
		r.broken(ErrUnexpectedContinuation)
	case data && r.open:
		r.broken(ErrExpectedContinuation)
	}
	if r.err != nil {
		return
	}

	second := r.byte()
	masked := second >= 128
	length := uint64(second % 128)
	switch {
	case masked && r.cfg.Role == RoleClient:
		r.broken(ErrMaskForbidden)
	case !masked && r.cfg.Role == RoleServer:
		r.broken(ErrMaskRequired)
	case control && length > 125:
		r.broken(ErrControlTooLong)
	}
	if r.err != nil {
		return
	}
	switch length {
	case 126:
		length = 0
		for range 2 {
			length = length*256 + uint64(r.byte())
		}
		if length < 126 {
			r.broken(ErrLengthNotMinimal)
			return
		}
	case 127:
		length = 0
		for i := range 8 {
			b := r.byte()
			if i == 0 && b >= 128 {
				r.broken(ErrLengthTopBit)
				return
			}
			length = length*256 + uint64(b)
		}
		if length < 65536 {
			r.broken(ErrLengthNotMinimal)
			return
		}
	}
	if !control {
		if data {
			r.op, r.rsv1, r.msg, r.packed = op, rsv1, nil, 0
		}
		if r.rsv1 && r.cfg.Inflate {
			if r.packed += length; r.packed > uint64(r.cfg.MaxMessage)*9/8+1024 {
				r.broken(ErrTooBig)
				return
			}
		} else if length+uint64(len(r.msg)) > uint64(r.cfg.MaxMessage) {
			r.broken(ErrTooBig)
			return
		}
	}
	var key [4]byte
	if masked {
		for i := range key {
			key[i] = r.byte()
		}
	}

	inflated := !control && r.rsv1 && r.cfg.Inflate
	text := !control && r.op == Text && (!r.rsv1 || inflated)
	var payload []byte
	for i := range length {
		b := r.byte() ^ key[i%4]
		payload = append(payload, b)
		if inflated {
			if r.inflate(b, text); r.err != nil {
				return
			}
			continue
		}
		if !control {
			r.msg = append(r.msg, b)
		}
		if text && !hopeful(r.msg) {
			r.broken(ErrInvalidUTF8)
			return
		}
	}
	switch {
	case control:
		r.events = append(r.events, event{op: op, payload: payload, end: r.pos})
	case !fin:
		r.open = true
	case inflated && !r.z.End():
		r.broken(ErrDeflate)
	case text && !utf8.Valid(r.msg):
		r.broken(ErrInvalidUTF8)
	default:
		r.open = false
		r.events = append(r.events, event{op: r.op, rsv1: r.rsv1, payload: r.msg, end: r.pos})
	}
}

// inflate takes one byte of a compressed message, and looks at all that it comes to, one byte after the other.
func (r *reference) inflate(b byte, text bool) {
	src := []byte{b}
	for {
		room := make([]byte, len(r.msg), len(r.msg)+1)
		copy(room, r.msg)
		out, n, status := r.z.Inflate(room, src, nil)
		src = src[n:]
		if len(out) > r.cfg.MaxMessage {
			r.broken(ErrTooBig)
			return
		}
		if text && len(out) > len(r.msg) && !hopeful(out) {
			r.broken(ErrInvalidUTF8)
			return
		}
		r.msg = out
		switch status {
		case deflate.NeedInput:
			return
		case deflate.Corrupt:
			r.broken(ErrDeflate)
			return
		case deflate.NeedRoom:
		}
	}
}

// hopeful reports whether p is the beginning of some valid UTF-8 text: it is, if some ending makes it one. An incomplete
// code point lacks at most three bytes, and each range that the grammar of RFC 3629 has for a continuation byte
// (80-BF, A0-BF, 80-9F, 90-BF, 80-8F) has one of 80, 90, A0 in it.
func hopeful(p []byte) bool {
	for len(p) > 0 { // only the tail is open to doubt
		c, size := utf8.DecodeRune(p)
		if c == utf8.RuneError && size == 1 {
			break
		}
		p = p[size:]
	}
	for _, ending := range endings {
		if utf8.Valid(append(p[:len(p):len(p)], ending...)) {
			return true
		}
	}
	return false
}

var endings = func() []string {
	all := []string{""}
	for i, n := 0, 1; n <= 3; n++ {
		for end := len(all); i < end; i++ {
			for _, b := range []string{"\x80", "\x90", "\xa0"} {
				all = append(all, all[i]+b)
			}
		}
	}
	return all
}()
