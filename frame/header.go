package frame

import (
	"encoding/binary"
	"fmt"
)

// The bits of a frame's first two bytes, RFC 6455 section 5.2:
//
//	 0               1
//	 0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7
//	+-+-+-+-+-------+-+-------------+---------------------+------------+
//	|F|R|R|R| opcode|M| length      | 0, 2 or 8 bytes of  | 0 or 4     |
//	|I|S|S|S|  (4)  |A|     (7)     | extended length     | bytes of   |
//	|N|V|V|V|       |S|             | if length is 126 or | masking    |
//	| |1|2|3|       |K|             | 127, big endian     | key        |
//	+-+-+-+-+-------+-+-------------+---------------------+------------+
const (
	bitFin    = 0x80
	bitRSV1   = 0x40
	bitsRSV23 = 0x30
	bitsOp    = 0x0f

	bitMask = 0x80
	bitsLen = 0x7f

	len16 = 126 // marker: a 16-bit length follows
	len64 = 127 // marker: a 64-bit length follows
)

// header is a frame header that passed every check.
type header struct {
	length int // bytes of payload, at most Config.MaxMessage
	key    [4]byte
	op     OpCode
	fin    bool
	rsv1   bool
	masked bool
}

// parseHeader reads the header at the start of p. size is its length in bytes, or 0 when p ends inside it. Every rule is
// applied as soon as the bytes for it are there, and in the order of the bytes: so the same input fails in the same
// way at the same byte however it was cut, and a peer that breaks a rule is not waited for.
//
// fragmented says that a fragmented message is open, and room how many bytes a further data frame may have (MaxMessage
// less what the open message has; what counts for the first frame of a message to be inflated is known here).
func parseHeader(cfg *Config, p []byte, fragmented bool, room int) (h header, size int, e *Error) {
	if len(p) == 0 {
		return h, 0, nil
	}
	b0 := p[0]
	h.op = OpCode(b0 & bitsOp)
	h.fin = b0&bitFin != 0
	if b0&(bitRSV1|bitsRSV23) != 0 {
		// 5.2: MUST be 0 unless an extension is negotiated that defines meanings for non-zero values.
		// RFC 7692 section 6: RSV1 only on the first fragment of a data message, never on a control frame.
		if b0&bitsRSV23 != 0 || !cfg.AllowRSV1 || h.op.IsControl() || h.op == Continuation {
			return h, 0, ErrReservedBits
		}
		h.rsv1 = true
		if cfg.Inflate {
			room = cfg.maxPacked()
		}
	}
	if h.op.isReserved() { // 5.2: if an unknown opcode is received, the endpoint MUST fail the connection
		return h, 0, ErrReservedOpCode
	}
	control := h.op.IsControl()
	switch {
	case control:
		if !h.fin { // 5.5: control frames MUST NOT be fragmented
			return h, 0, ErrControlFragmented
		}
	case h.op == Continuation:
		if !fragmented { // 5.4: a continuation follows a data frame with FIN clear
			return h, 0, ErrUnexpectedContinuation
		}
	case fragmented: // 5.4: the fragments of one message MUST NOT be interleaved with those of another
		return h, 0, ErrExpectedContinuation
	}
	if len(p) < 2 {
		return h, 0, nil
	}
	b1 := p[1]
	h.masked = b1&bitMask != 0
	if h.masked != (cfg.Role == RoleServer) {
		if h.masked { // 5.1: a client MUST close a connection if it detects a masked frame
			return h, 0, ErrMaskForbidden
		}
		return h, 0, ErrMaskRequired // 5.1: the server MUST close upon receiving a frame that is not masked
	}
	length := uint64(b1 & bitsLen)
	size = 2
	if length >= len16 {
		if control { // 5.5: control frames MUST have a payload length of 125 bytes or less
			return h, 0, ErrControlTooLong
		}
		if length == len16 {
			if len(p) < 4 {
				return h, 0, nil
			}
			length = uint64(binary.BigEndian.Uint16(p[2:]))
			size = 4
			if length < len16 { // 5.2: the minimal number of bytes MUST be used to encode the length
				return h, 0, ErrLengthNotMinimal
			}
		} else {
			if len(p) < 3 {
				return h, 0, nil
			}
			if p[2]&0x80 != 0 { // 5.2: the most significant bit MUST be 0
				return h, 0, ErrLengthTopBit
			}
			if len(p) < 10 {
				return h, 0, nil
			}
			length = binary.BigEndian.Uint64(p[2:])
			size = 10
			if length <= 0xffff { // 5.2: minimal, as above
				return h, 0, ErrLengthNotMinimal
			}
		}
	}
	// 7.4.1 (1009), 10.4: refused when it is announced, before anything of it is kept. room is at least 0 unless the
	// limit is not valid.
	if !control && (room < 0 || length > uint64(room)) {
		return h, 0, ErrTooBig
	}
	h.length = int(length)
	if h.masked {
		if len(p) < size+4 {
			return h, 0, nil
		}
		h.key = [4]byte(p[size : size+4])
		size += 4
	}
	return h, size, nil
}

// HeaderSize returns the length in bytes of the header of a frame with payloadLen (at least 0) bytes of payload.
func HeaderSize(payloadLen int, masked bool) int {
	n := 2
	switch {
	case payloadLen > 0xffff:
		n = 10
	case payloadLen >= len16:
		n = 4
	}
	if masked {
		n += 4
	}
	return n
}

// AppendHeader appends the header of a frame to dst and returns the extended slice. payloadLen is in bytes. key is
// written only if masked.
//
// What the protocol forbids is a bug in the caller and panics: a reserved op, a control frame (RFC 6455 section 5.5)
// that is not fin or longer than MaxControlPayload, a negative length.
func AppendHeader(dst []byte, op OpCode, fin bool, payloadLen int, masked bool, key [4]byte) []byte {
	return appendHeader(dst, 0, op, fin, payloadLen, masked, key)
}

// AppendHeaderRSV1 is AppendHeader with the first reserved bit set: the payload that follows begins a message compressed
// by permessage-deflate (RFC 7692 section 6). It panics unless op is Text or Binary.
func AppendHeaderRSV1(dst []byte, op OpCode, fin bool, payloadLen int, masked bool, key [4]byte) []byte {
	if op != Text && op != Binary {
		panic(fmt.Sprintf("frame: RSV1 on a %v frame", op))
	}
	return appendHeader(dst, bitRSV1, op, fin, payloadLen, masked, key)
}

func appendHeader(dst []byte, bits byte, op OpCode, fin bool, payloadLen int, masked bool, key [4]byte) []byte {
	if op > bitsOp || op.isReserved() || payloadLen < 0 || op.IsControl() && (!fin || payloadLen > MaxControlPayload) {
		panic(fmt.Sprintf("frame: header of a frame that must not be sent: opcode %#x, fin %v, %d bytes", byte(op), fin, payloadLen))
	}
	b0 := bits | byte(op)
	if fin {
		b0 |= bitFin
	}
	var b1 byte
	if masked {
		b1 = bitMask
	}
	switch {
	case payloadLen < len16:
		dst = append(dst, b0, b1|byte(payloadLen))
	case payloadLen <= 0xffff:
		dst = append(dst, b0, b1|len16, byte(payloadLen>>8), byte(payloadLen))
	default:
		dst = append(dst, b0, b1|len64)
		dst = binary.BigEndian.AppendUint64(dst, uint64(payloadLen))
	}
	if masked {
		dst = append(dst, key[:]...)
	}
	return dst
}

// AppendFrame appends an unmasked frame, as a server sends it, to dst and returns the extended slice. payload is
// copied. It panics where AppendHeader does.
func AppendFrame(dst []byte, op OpCode, fin bool, payload []byte) []byte {
	dst = AppendHeader(dst, op, fin, len(payload), false, [4]byte{})
	return append(dst, payload...)
}

// AppendMaskedFrame appends a frame masked with key, as a client sends it, to dst and returns the extended slice. payload
// is copied and the copy masked; payload itself is only read. The key must be unpredictable (RFC 6455 section 5.3): a
// fresh one from a strong source for every frame. It panics where AppendHeader does.
func AppendMaskedFrame(dst []byte, op OpCode, fin bool, payload []byte, key [4]byte) []byte {
	dst = AppendHeader(dst, op, fin, len(payload), true, key)
	start := len(dst)
	dst = append(dst, payload...)
	Mask(dst[start:], key, 0)
	return dst
}
