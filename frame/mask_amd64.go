//go:build !purego

package frame

import "golang.org/x/sys/cpu"

// wideFrom is the length in bytes from which maskWide is asked. BenchmarkMask has sizes on both sides of it.
const wideFrom = 64

var haveAVX2 = cpu.X86.HasAVX2

// maskWide masks p, at least wideFrom bytes, by vectors. False: it is better done by words, and nothing has been done.
//
// ws.Cipher has AVX2 too, but stores to addresses that are not aligned, as payloads behind a header are, and handles the
// ends byte by byte: it takes 1.5 times as long, at 1 KiB as at 64 KiB.
func maskWide(p []byte, k32 uint32) bool {
	if haveAVX2 {
		maskAVX2(&p[0], len(p), k32)
		return true
	}
	if len(p) >= cipherFrom {
		maskCipher(p, k32)
		return true
	}
	return false
}

// maskAVX2 is maskTurned for n bytes at p. n is at least 32: it reads and writes 32 bytes at both ends, whatever n is.
//
//go:noescape
func maskAVX2(p *byte, n int, k32 uint32)
