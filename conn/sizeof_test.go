package conn

import (
	"testing"
	"unsafe"
)

// TestSizeof keeps the sum in Conn's comment, and the chunk within an allocation class: 256 x 80 bytes are 20 KiB, which
// Go's allocator hands out without rounding.
func TestSizeof(t *testing.T) {
	const sum = 8 + // registry
		8 + // partial message
		8 + // handshake
		8 + // start
		8 + // pingAt
		16 + 2 + // remote
		2 + // flags
		4 + // slot
		4 + // User
		4 + // rtt
		4 + // meta
		1 + // state
		1 + // cause
		1 + // endpoint
		1 // sendBits
	if size := unsafe.Sizeof(Conn{}); size != sum || sum != 80 {
		t.Errorf("a Conn has %d bytes, the sum is %d, the comment says 80", size, sum)
	}
	if size := unsafe.Sizeof([chunkConns]Conn{}); size != 20<<10 {
		t.Errorf("a chunk has %d bytes", size)
	}
}
