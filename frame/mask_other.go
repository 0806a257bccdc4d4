//go:build !amd64 || purego

package frame

// wideFrom is the length in bytes from which maskWide is asked.
const wideFrom = cipherFrom

// maskWide masks p, at least wideFrom bytes, by vectors where ws.Cipher has code for them (NEON).
func maskWide(p []byte, k32 uint32) bool {
	maskCipher(p, k32)
	return true
}
