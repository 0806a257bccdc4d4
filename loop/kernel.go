package loop

import (
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/cloudwego/netpoll"
)

// Interest says which readiness of a socket the kernel shall report.
type Interest uint8

const (
	// WatchNone: nothing; the socket is not registered.
	WatchNone Interest = iota
	// WatchRead: readable, level-triggered.
	WatchRead
	// WatchReadWrite: readable and writable, level-triggered. While output waits.
	WatchReadWrite
	// WatchWrite: writable only, edge-triggered. While connecting, while reading is paused with output waiting, and after
	// the peer's FIN, which would be reported level-triggered for ever.
	WatchWrite
)

// Kernel is what a Loop asks of the operating system: nonblocking sockets and their readiness. There is one
// implementation over netpoll and one simulated (package looptest). All methods are called on the loop's goroutine.
//
// It is called once per system call, not per frame: an interface call of 2 ns stands beside a system call of 300 ns
// at the least.
type Kernel interface {
	// Now returns the monotonic time [ns].
	Now() int64
	// Watch changes what is reported for op.FD from one interest to another. After an error nothing is reported any more.
	Watch(op *netpoll.FDOperator, from, to Interest) error
	// Read reads into p. 0 without an error is the peer's FIN. p is borrowed.
	Read(fd int, p []byte) (int, syscall.Errno)
	// Write writes p, possibly a part of it. p is borrowed.
	Write(fd int, p []byte) (int, syscall.Errno)
	// Writev writes v, possibly a part of it. v and what it refers to are borrowed.
	Writev(fd int, v [][]byte) (int, syscall.Errno)
	// ShutdownWrite sends our FIN after everything written.
	ShutdownWrite(fd int) syscall.Errno
	// Close closes fd. With reset, what the peer has not read yet is thrown away and it gets RST.
	Close(fd int, reset bool)
	// Connect starts a connection from source (the zero Addr: any) to addr and returns its descriptor. The result is
	// there when the socket becomes writable: ConnectError.
	Connect(addr netip.AddrPort, source netip.Addr) (int, syscall.Errno)
	// ConnectError returns how a connection attempt ended: 0 when it is established.
	ConnectError(fd int) syscall.Errno
	// Local returns the local address of fd.
	Local(fd int) netip.AddrPort
	// Wake makes the loop run RunTasks soon. The one method that is called from any goroutine.
	Wake()
	// SetTimer makes the loop run a turn at the given time [ns on the clock of Now].
	SetTimer(at int64)
}

// SlotOf returns the slot of the socket that op, handed to Kernel.Watch, belongs to. For kernels.
func SlotOf(op *netpoll.FDOperator) uint32 { return (*socket)(unsafe.Pointer(op)).slot }
