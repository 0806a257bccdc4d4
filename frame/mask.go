package frame

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// cipherFrom is the length in bytes from which Mask gives the bulk of the work to ws.Cipher: its vector code (AVX2 or
// SSE2, NEON) is about twice as fast as 64-bit words on a long payload, and slower on a short one. BenchmarkMask
// has sizes on both sides of the line.
const cipherFrom = 512

// Mask XORs p in place with the masking key; the same operation masks and unmasks (RFC 6455 section 5.3). pos is the
// offset of p[0] in the payload of its frame, at least 0. p is borrowed for the call.
func Mask(p []byte, key [4]byte, pos int) {
	// Turn the key so that it begins at p[0]. Little endian puts the key's first byte into the lowest bits, and
	// little-endian loads meet it there, whatever the order of the machine.
	turn := uint(pos&3) * 8
	k32 := binary.LittleEndian.Uint32(key[:])
	k32 = k32>>turn | k32<<(32-turn)
	if len(p) >= cipherFrom {
		// Whole blocks with a key that is already turned: Cipher's own byte-by-byte head and tail stay empty.
		var turned [4]byte
		binary.LittleEndian.PutUint32(turned[:], k32)
		whole := len(p) &^ 63
		ws.Cipher(p[:whole], turned, 0)
		p = p[whole:]
	}
	k := uint64(k32)<<32 | uint64(k32)
	for len(p) >= 64 {
		b := p[:64:64]
		binary.LittleEndian.PutUint64(b[0:], binary.LittleEndian.Uint64(b[0:])^k)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^k)
		binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])^k)
		binary.LittleEndian.PutUint64(b[24:], binary.LittleEndian.Uint64(b[24:])^k)
		binary.LittleEndian.PutUint64(b[32:], binary.LittleEndian.Uint64(b[32:])^k)
		binary.LittleEndian.PutUint64(b[40:], binary.LittleEndian.Uint64(b[40:])^k)
		binary.LittleEndian.PutUint64(b[48:], binary.LittleEndian.Uint64(b[48:])^k)
		binary.LittleEndian.PutUint64(b[56:], binary.LittleEndian.Uint64(b[56:])^k)
		p = p[64:]
	}
	if len(p) >= 32 {
		b := p[:32:32]
		binary.LittleEndian.PutUint64(b[0:], binary.LittleEndian.Uint64(b[0:])^k)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^k)
		binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])^k)
		binary.LittleEndian.PutUint64(b[24:], binary.LittleEndian.Uint64(b[24:])^k)
		p = p[32:]
	}
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^k)
		p = p[8:]
	}
	if len(p) >= 4 {
		binary.LittleEndian.PutUint32(p, binary.LittleEndian.Uint32(p)^k32)
		p = p[4:]
	}
	for i := range p {
		p[i] ^= byte(k)
		k >>= 8
	}
}
