package conformance

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The bits of the first byte of a frame and the opcodes, RFC 6455 section 5.2.
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

var opNames = map[byte]string{opContinuation: "continuation", opText: "text", opBinary: "binary", opClose: "close", opPing: "ping", opPong: "pong"}

// A frame is a frame as a case wants it on the wire, right or wrong.
type frame struct {
	first    byte   // FIN, reserved bits and opcode
	payload  []byte // what is sent of the payload
	declared uint64 // the length in the header; form says how it is written
	form     int    // bytes of extended length: 0, 2 or 8
	wrong    bool   // masked where it must not be, not masked where it must be
	key      *[4]byte
}

// newFrame is a right frame.
func newFrame(first byte, payload []byte) frame {
	f := frame{first: first, payload: payload, declared: uint64(len(payload))}
	switch {
	case len(payload) > 0xffff:
		f.form = 8
	case len(payload) > 125:
		f.form = 2
	}
	return f
}

func text(s string) frame              { return newFrame(fin|opText, []byte(s)) }
func message(op byte, p []byte) frame  { return newFrame(fin|op, p) }
func first(op byte, p []byte) frame    { return newFrame(op, p) }
func middle(p []byte) frame            { return newFrame(opContinuation, p) }
func last(p []byte) frame              { return newFrame(fin|opContinuation, p) }
func ping(p string) frame              { return newFrame(fin|opPing, []byte(p)) }
func pong(p string) frame              { return newFrame(fin|opPong, []byte(p)) }
func closeBody(p []byte) frame         { return newFrame(fin|opClose, p) }
func closing(code int, r string) frame { return closeBody(closePayload(code, r)) }

func closePayload(code int, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// cut is the frame as far as n bytes of its payload: the header says that more comes.
func (f frame) cut(n int) frame {
	f.payload = f.payload[:n]
	return f
}

// lengthIn is the frame with its length in an extended field of n bytes, needed or not.
func (f frame) lengthIn(n int) frame {
	f.form = n
	return f
}

// says is the frame with another length in its header, in 64 bits.
func (f frame) says(length uint64) frame {
	f.declared, f.form = length, 8
	return f
}

func (f frame) wrongMask() frame {
	f.wrong = true
	return f
}

func (f frame) withKey(key [4]byte) frame {
	f.key = &key
	return f
}

// append encodes the frame.
func (f frame) append(dst []byte, masked bool, key [4]byte) []byte {
	if f.key != nil {
		key = *f.key
	}
	masked = masked != f.wrong
	dst = append(dst, f.first)
	var bit byte
	if masked {
		bit = 0x80
	}
	switch f.form {
	case 0:
		dst = append(dst, bit|byte(f.declared))
	case 2:
		dst = binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(f.declared))
	case 8:
		dst = binary.BigEndian.AppendUint64(append(dst, bit|127), f.declared)
	}
	if !masked {
		return append(dst, f.payload...)
	}
	dst = append(dst, key[:]...)
	for i, b := range f.payload {
		dst = append(dst, b^key[i%4])
	}
	return dst
}

// An event is what the endpoint under test sent: a whole message, a control frame, or the end of the TCP connection.
type event struct {
	op         byte // of the message or control frame
	payload    []byte
	compressed bool
	end        error // of TCP: io.EOF, or what else ended it
}

func (e event) String() string {
	switch {
	case errors.Is(e.end, errWaits):
		return "nothing: the endpoint waits for more"
	case e.end == io.EOF:
		return "the end of TCP"
	case e.end != nil:
		return e.end.Error()
	case e.op == opClose && len(e.payload) >= 2:
		return fmt.Sprintf("close %d", binary.BigEndian.Uint16(e.payload))
	}
	return fmt.Sprintf("%s of %d bytes", opNames[e.op], len(e.payload))
}

// A judge reads what an endpoint sends and fails with the first byte that RFC 6455 forbids it.
type judge struct {
	in     *bufio.Reader
	masked bool     // it is a client, whose frames are masked
	deflat *inflate // permessage-deflate was agreed
	closed bool     // it has sent its Close

	open    bool // a message is open: what of it has come
	op      byte
	rsv1    bool
	message []byte
}

// next returns the next message, control frame or end. The error is a violation.
func (j *judge) next() (event, error) {
	for {
		e, done, err := j.frame()
		if err != nil || done {
			return e, err
		}
	}
}

func (j *judge) frame() (e event, done bool, err error) {
	var head [2]byte
	if n, err := io.ReadFull(j.in, head[:]); err != nil {
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			return e, false, errors.New("TCP ended inside a frame header")
		}
		if j.open && err == io.EOF && !j.closed {
			return e, false, errors.New("TCP ended inside a message")
		}
		return event{end: err}, true, nil
	}
	if j.closed {
		return e, false, fmt.Errorf("a frame %x after its Close", head)
	}
	op, final := head[0]&0xf, head[0]&fin != 0
	name, known := opNames[op]
	if !known {
		return e, false, fmt.Errorf("opcode %#x", op)
	}
	control := op >= 8
	if head[0]&(rsv2|rsv3) != 0 || head[0]&rsv1 != 0 && (j.deflat == nil || control || op == opContinuation) {
		return e, false, fmt.Errorf("reserved bits %#x on a %s frame", head[0]>>4&7, name)
	}
	if got := head[1]&0x80 != 0; got != j.masked {
		return e, false, fmt.Errorf("a frame with masked=%t", got)
	}
	length := uint64(head[1] & 0x7f)
	switch length {
	case 126:
		var ext [2]byte
		if _, err := io.ReadFull(j.in, ext[:]); err != nil {
			return e, false, err
		}
		if length = uint64(binary.BigEndian.Uint16(ext[:])); length < 126 {
			return e, false, fmt.Errorf("length %d in 16 bits", length)
		}
	case 127:
		var ext [8]byte
		if _, err := io.ReadFull(j.in, ext[:]); err != nil {
			return e, false, err
		}
		if length = binary.BigEndian.Uint64(ext[:]); length < 1<<16 || length >= 1<<63 {
			return e, false, fmt.Errorf("length %d in 64 bits", length)
		}
	}
	if length > maxFrame {
		return e, false, fmt.Errorf("a frame of %d bytes, which no case asks for", length)
	}
	if control && (length > 125 || !final) {
		return e, false, fmt.Errorf("a %s frame of %d bytes, final=%t", name, length, final)
	}
	var key [4]byte
	if j.masked {
		if _, err := io.ReadFull(j.in, key[:]); err != nil {
			return e, false, err
		}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(j.in, payload); err != nil {
		return e, false, err
	}
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	if control {
		if op == opClose {
			j.closed = true
			if err := checkClose(payload); err != nil {
				return e, false, err
			}
		}
		return event{op: op, payload: payload}, true, nil
	}
	if j.open != (op == opContinuation) {
		return e, false, fmt.Errorf("a %s frame while open=%t", name, j.open)
	}
	if !j.open {
		j.op, j.rsv1, j.message = op, head[0]&rsv1 != 0, nil
	}
	j.open = !final
	j.message = append(j.message, payload...)
	if !final {
		return e, false, nil
	}
	e = event{op: j.op, payload: j.message, compressed: j.rsv1}
	j.message = nil
	if e.compressed {
		if e.payload, err = j.deflat.message(e.payload); err != nil {
			return e, false, err
		}
	}
	if e.op == opText && !utf8.Valid(e.payload) {
		return e, false, errors.New("a text message that is not UTF-8")
	}
	return e, true, nil
}

// maxFrame is what the suite reads at most [bytes]: more than any case has echoed.
const maxFrame = 64 << 20

// checkClose judges the body of a Close frame: RFC 6455 sections 5.5.1 and 7.4.
func checkClose(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) == 1 {
		return errors.New("a close body of one byte")
	}
	if code := int(binary.BigEndian.Uint16(p)); !validCode(code) {
		return fmt.Errorf("close code %d", code)
	}
	if !utf8.Valid(p[2:]) {
		return errors.New("a close reason that is not UTF-8")
	}
	return nil
}

// validCode reports whether a Close frame may have this code: RFC 6455 section 7.4 and the registry of IANA that it opens
// (1012 to 1014 came later).
func validCode(code int) bool {
	switch code {
	case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}
