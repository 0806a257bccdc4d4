package main

import (
	"encoding/binary"
	"errors"

	"github.com/gobwas/ws"
)

// maxHeader is the size [bytes] of the longest header of a masked frame (RFC 6455 section 5.2).
const maxHeader = 14

// echoStream turns the bytes of a client into those that an echo sends back, whatever pieces they come in. It is what the
// floor does instead of WebSocket: see serveFloor.
type echoStream struct {
	rest    uint64 // of the present frame's payload [bytes]
	mask    [4]byte
	at      int // offset of the rest in the payload, modulo 4
	header  [maxHeader]byte
	have    int  // bytes in header: the frame's is not whole
	closing bool // the present frame is a Close
}

var errUnmasked = errors.New("a frame is not masked")

// done reports whether a Close has been turned, with all of its payload.
func (s *echoStream) done() bool { return s.closing && s.rest == 0 }

// carry puts the bytes of a header that was not whole at the end of room, in front of what is read next. It returns their
// number.
func (s *echoStream) carry(room []byte) int {
	n := s.have
	copy(room[len(room)-n:], s.header[:n])
	s.have = 0
	return n
}

// keep is for bytes that have to wait for more.
func (s *echoStream) keep(p []byte) { s.have = copy(s.header[:], p) }

// turn turns p in place and returns what is to be sent, a part of p.
func (s *echoStream) turn(p []byte) ([]byte, error) {
	w := 0
	for r := 0; r < len(p) && !s.done(); {
		if s.rest > 0 {
			n := int(min(s.rest, uint64(len(p)-r)))
			body := p[r : r+n]
			ws.Cipher(body, s.mask, s.at)
			copy(p[w:], body)
			s.rest, s.at = s.rest-uint64(n), (s.at+n)&3
			r, w = r+n, w+n
			continue
		}
		h := p[r:]
		size := 6 // in front of the payload
		if len(h) >= 2 {
			if h[1]&0x80 == 0 {
				return nil, errUnmasked
			}
			switch h[1] & 0x7f {
			case 126:
				size = 8
			case 127:
				size = maxHeader
			}
		}
		if len(h) < size {
			s.keep(h)
			break
		}
		switch size {
		case 6:
			s.rest = uint64(h[1] & 0x7f)
		case 8:
			s.rest = uint64(binary.BigEndian.Uint16(h[2:]))
		default:
			s.rest = binary.BigEndian.Uint64(h[2:])
		}
		s.mask, s.at = [4]byte(h[size-4:size]), 0
		first := h[0]
		switch ws.OpCode(first & 0x0f) {
		case ws.OpPing:
			first = first&0xf0 | byte(ws.OpPong)
		case ws.OpClose:
			s.closing = true
		}
		h[1] &= 0x7f
		copy(p[w:], h[:size-4])
		p[w] = first
		r, w = r+size, w+size-4
	}
	return p[:w], nil
}
