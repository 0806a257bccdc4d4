package frame

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// cipherFrom is the length in bytes from which ws.Cipher, with vector code for SSE2 and NEON, beats 64-bit words where
// maskAVX2 cannot run.
const cipherFrom = 512

// Mask XORs p in place with the masking key; the same operation masks and unmasks (RFC 6455 section 5.3). pos is the
// offset of p[0] in the payload of its frame, at least 0. p is borrowed for the call.
func Mask(p []byte, key [4]byte, pos int) {
	// Turn the key so that it begins at p[0]. Little endian puts the key's first byte into the lowest bits, and
	// little-endian loads meet it there, whatever the order of the machine.
	turn := uint(pos&3) * 8
	k := binary.LittleEndian.Uint32(key[:])
	maskTurned(p, k>>turn|k<<(32-turn))
}

// maskTurned is Mask with the key as a little-endian word that begins at p[0].
func maskTurned(p []byte, k32 uint32) {
	if len(p) >= wideFrom && maskWide(p, k32) {
		return
	}
	maskWords(p, k32)
}

// maskCipher masks with ws.Cipher: whole blocks of 64 bytes with a key that is turned already, so that Cipher's own
// byte-by-byte head and tail stay empty.
func maskCipher(p []byte, k32 uint32) {
	var turned [4]byte
	binary.LittleEndian.PutUint32(turned[:], k32)
	whole := len(p) &^ 63
	ws.Cipher(p[:whole], turned, 0)
	maskWords(p[whole:], k32)
}

// maskWords masks by 64-bit words, on any machine.
func maskWords(p []byte, k32 uint32) {
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
