package deflate

import "unsafe"

const (
	// MinWindowBits and MaxWindowBits bound the base-2 logarithm of a window's size in bytes (RFC 7692 section 7.1.2).
	MinWindowBits = 8
	MaxWindowBits = 15

	// dictionaryBits is the largest window that is kept of what was sent, in bits: 4 KiB. A larger one is not worth it: to
	// index 32 KiB for each message takes 43 us and makes a message of 128 bytes 31 bytes long, 4 KiB take 9 us for 40
	// bytes, and no dictionary at all gives 109 (BenchmarkDeflate). The peer must keep 32 KiB all the same, if it
	// did not ask for less; it is allowed not to be referred to (RFC 7692 section 7.2.1).
	dictionaryBits = 12

	// minWindow is the smallest memory of a Window that has anything in it [bytes].
	minWindow = 256

	// InflaterMemory is what one Inflater takes [bytes]: as long as a message is partial, and its tables even then only
	// inside a block that has codes of its own. Against: a peer that sends a byte of a compressed message, and no more, on
	// each of many connections; the readers of the libraries take 36 and 40 KB there.
	InflaterMemory = int(unsafe.Sizeof(Inflater{}) + unsafe.Sizeof(tables{}))
)
