//go:build invariants

package loop

import (
	"bytes"
	"runtime"
	"strconv"
	"sync/atomic"
)

// owner knows the goroutine that a loop belongs to and has its methods panic on any other. That is a bug that the race
// detector finds only when both goroutines happen to meet.
type owner struct{ id atomic.Uint64 } // 0: the loop does not run, so it may be prepared or looked at from anywhere

// take makes the calling goroutine the owner.
func (o *owner) take() { o.id.Store(goroutineID()) }

// release says that the loop has ended.
func (o *owner) release() { o.id.Store(0) }

// check panics on a goroutine that is not the owner.
func (o *owner) check() {
	if id := o.id.Load(); id != 0 && id != goroutineID() {
		panic("loop: a method that is for the loop's goroutine was called on another")
	}
}

// goroutineID reads the number of the calling goroutine from the first line of its stack, "goroutine 18 [running]:".
// There is no other way to it; it takes a microsecond, which is why this is not in the ordinary build.
func goroutineID() uint64 {
	var buf [40]byte
	fields := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	id, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		panic(err)
	}
	return id
}
