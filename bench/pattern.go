package bench

import (
	"encoding/binary"
	"encoding/hex"
)

// A message says which one it is, and every further byte follows from that, so that a message can be checked byte for
// byte without being kept. Layout:
//
//	binary  byte 0..3 connection, 4..7 sequence number (big endian), then the pattern
//	text    byte 0..15 the same 8 bytes as hexadecimal digits, then the pattern in '@'..'_'
//
// The pattern is splitmix64 seeded with connection and sequence number, 8 bytes a step, little endian.

// textHeader is the size of the header of a text message [bytes]; minMessage is the least size of a message: a header and 8
// bytes of pattern, without which a damaged header would pass for that of another message.
const (
	textHeader = 16
	minMessage = textHeader + 8
)

// fill writes message seq of connection number into all of p, which has minMessage bytes at the least.
func fill(p []byte, text bool, number, seq uint32) {
	var head [8]byte
	binary.BigEndian.PutUint32(head[:4], number)
	binary.BigEndian.PutUint32(head[4:], seq)
	n := 8
	if text {
		n = hex.Encode(p, head[:])
	} else {
		copy(p, head[:])
	}
	p = p[n:]
	state := binary.BigEndian.Uint64(head[:])
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, pattern(&state, text))
		p = p[8:]
	}
	if len(p) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], pattern(&state, text))
		copy(p, last[:])
	}
}

// check reads which message p claims to be, and reports whether it is that message to the last byte. p is borrowed.
func check(p []byte, text bool) (number, seq uint32, ok bool) {
	if len(p) < minMessage {
		return 0, 0, false
	}
	var head [8]byte
	n := 8
	if text {
		n = textHeader
		if _, err := hex.Decode(head[:], p[:textHeader]); err != nil {
			return 0, 0, false
		}
		var again [textHeader]byte
		hex.Encode(again[:], head[:])
		if string(again[:]) != string(p[:textHeader]) {
			return 0, 0, false // capital digits: readable, but not what was sent
		}
	} else {
		copy(head[:], p)
	}
	p = p[n:]
	state := binary.BigEndian.Uint64(head[:])
	wrong := uint64(0)
	for len(p) >= 8 {
		wrong |= binary.LittleEndian.Uint64(p) ^ pattern(&state, text)
		p = p[8:]
	}
	if len(p) > 0 {
		var want [8]byte
		binary.LittleEndian.PutUint64(want[:], pattern(&state, text))
		for i, b := range p {
			wrong |= uint64(b ^ want[i])
		}
	}
	return binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:]), wrong == 0
}

// pattern returns the next 8 bytes of splitmix64; for text each byte is brought into '@'..'_'.
func pattern(state *uint64, text bool) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	if text {
		z = z&0x1f1f1f1f1f1f1f1f | 0x4040404040404040
	}
	return z
}
