package loop

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"syscall"
	"time"
	"unsafe"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
)

// openPoll opens one epoll instance. netpoll exports Poll and FDOperator but no way to make a Poll of one's own, hence
// the linkname; netpoll is pinned in go.mod and TestNetpollSeam fails loudly when a version no longer fits.
//
//go:linkname openPoll github.com/cloudwego/netpoll.openPoll
func openPoll() (netpoll.Poll, error)

// epoll is the Kernel of a real loop. netpoll's Poll does the waiting (Wait) and the registering (Control); what is done
// with an event is decided here, through the exported field Handler of netpoll's poll. Its own handler was measured and
// read first and left out, because it
//
//   - detaches a socket on the peer's FIN and calls OnHup on a fresh goroutine, later, when the slot may belong to
//     somebody else; here a FIN is an event like any other and what the peer sent before it is read to the end;
//   - needs a closure or two per socket (40 bytes) that capture slot and generation; here the operator is the head of
//     the socket, so its address is enough;
//   - has no end of batch, where output for other sockets is written once.
//
// The two fields are set through reflection: Reset with its own type, Handler through a mirror of its unexported
// parameter type whose layout is checked first (seam).
type epoll struct {
	loop      *Loop
	poll      netpoll.Poll
	fd        int // of the epoll instance
	operators operators
	wop       *netpoll.FDOperator            // netpoll's own wake-up, which ends Wait after Close
	original  func(events []epollEvent) bool // netpoll's handler, for wop
	wake      netpoll.FDOperator             // eventfd: tasks were posted
	timer     netpoll.FDOperator             // timerfd: a wheel is due
	listeners []*listener
	paused    *Timers // entry i: accepting on listeners[i] resumes
	base      time.Time
	log       *slog.Logger
	events    int     // present size of netpoll's event array
	stopped   bool    // stop was called: no descriptor of ours is valid any more
	tables    *tables // nil: this thread has the process's descriptor table
}

// open opens the epoll instance. On the loop's goroutine: with a descriptor table per loop its descriptors are known to
// this thread only.
func (k *epoll) open() (err error) {
	if k.timer.FD, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("timerfd_create: %w", err)
	}
	if err := k.openPoll(); err != nil {
		return err
	}
	if err := k.Watch(&k.wake, WatchNone, WatchRead); err != nil {
		return fmt.Errorf("epoll_ctl(eventfd): %w", err)
	}
	if err := k.Watch(&k.timer, WatchNone, WatchRead); err != nil {
		return fmt.Errorf("epoll_ctl(timerfd): %w", err)
	}
	k.paused = k.loop.NewTimers(k.resumeAccept)
	return nil
}

func (k *epoll) openPoll() (err error) {
	// netpoll opens its two descriptors without CLOEXEC; a fork in between would hand them on.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if k.poll, err = openPoll(); err != nil {
		k.poll = nil // it is a typed nil
		return fmt.Errorf("epoll_create: %w", err)
	}
	return k.seam()
}

// seam puts this kernel's event handler and event array limit into netpoll's poll.
func (k *epoll) seam() error {
	v := reflect.ValueOf(k.poll).Elem()
	handler, reset, wop, fd := v.FieldByName("Handler"), v.FieldByName("Reset"), v.FieldByName("wop"), v.FieldByName("fd")
	if !handler.IsValid() || !reset.IsValid() || !wop.IsValid() || !fd.IsValid() {
		return errors.New("netpoll: the poll has no fields Handler, Reset, wop and fd: wrong version")
	}
	if wop.Type() != reflect.TypeFor[*netpoll.FDOperator]() || fd.Kind() != reflect.Int {
		return fmt.Errorf("netpoll: wop is %v and fd %v, expected *FDOperator and int", wop.Type(), fd.Type())
	}
	mirror := reflect.TypeFor[func([]epollEvent) bool]()
	if err := sameLayout(handler.Type(), mirror); err != nil {
		return fmt.Errorf("netpoll: Handler is %v: %w", handler.Type(), err)
	}
	k.wop, k.fd = (*netpoll.FDOperator)(wop.UnsafePointer()), int(fd.Int())
	k.operators.add(k.wop)
	unix.CloseOnExec(k.wop.FD)
	unix.CloseOnExec(k.fd)
	field := (*func([]epollEvent) bool)(handler.Addr().UnsafePointer())
	k.original, *field = *field, k.handle

	originalReset, ok := reset.Interface().(func(size, caps int))
	if !ok {
		return fmt.Errorf("netpoll: Reset is %v, expected func(int, int)", reset.Type())
	}
	reset.Set(reflect.ValueOf(func(size, _ int) {
		if size = min(size, maxEvents); size > k.events {
			k.events = size
			originalReset(size, 0)
		}
	}))
	return nil
}

// sameLayout checks that got is func([]struct{...}) bool with a struct laid out as the mirror's, so that a function of
// the mirror's type may be called through got.
func sameLayout(got, mirror reflect.Type) error {
	if got.Kind() != reflect.Func || got.NumIn() != 1 || got.NumOut() != 1 || got.IsVariadic() ||
		got.Out(0).Kind() != reflect.Bool || got.In(0).Kind() != reflect.Slice || got.In(0).Elem().Kind() != reflect.Struct {
		return fmt.Errorf("expected %v", mirror)
	}
	g, m := got.In(0).Elem(), mirror.In(0).Elem()
	if g.Size() != m.Size() || g.NumField() != m.NumField() {
		return fmt.Errorf("an event has %d bytes and %d fields, expected %d and %d", g.Size(), g.NumField(), m.Size(), m.NumField())
	}
	for i := range m.NumField() {
		if a, b := g.Field(i), m.Field(i); a.Offset != b.Offset || a.Type != b.Type {
			return fmt.Errorf("field %d of an event is %v at %d, expected %v at %d", i, a.Type, a.Offset, b.Type, b.Offset)
		}
	}
	return nil
}

// wait runs the loop until stop. An error means that the loop is lost (L8.5).
func (k *epoll) wait() error {
	if k.tables != nil {
		return k.waitLocked()
	}
	return k.poll.Wait()
}

const (
	readableEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	writableEvents = unix.EPOLLOUT | unix.EPOLLHUP | unix.EPOLLERR
)

// handle is one turn: netpoll calls it with each batch of events. true ends Wait.
func (k *epoll) handle(events []epollEvent) (closed bool) {
	l := k.loop
	l.Begin()
	woken := false
	for i := range events {
		ev := &events[i]
		switch op := k.operators.of(ev); op {
		case nil: // race builds only: closed by an earlier event of this batch
		case k.wop:
			closed = k.original(events[i:i+1]) || closed
		case &k.wake:
			k.drain(k.wake.FD)
			woken = true
		case &k.timer:
			k.drain(k.timer.FD)
			l.timerSet = math.MaxInt64 // whatever the clocks say: it has fired and must be set again
		default:
			if op.OnRead != nil {
				k.accept((*listener)(unsafe.Pointer(op))) // op is the first field of listener
				continue
			}
			s := (*socket)(unsafe.Pointer(op)) // op is the first field of socket
			l.SocketEvent(s.slot, ev.events&readableEvents != 0, ev.events&writableEvents != 0)
		}
	}
	if woken {
		l.RunTasks()
	}
	if !k.stopped {
		l.End()
	}
	return closed
}

// drain empties an eventfd or timerfd: both give 8 bytes and are empty then.
func (k *epoll) drain(fd int) {
	var b [8]byte
	_, _ = unix.Read(fd, b[:]) // EAGAIN: it has been drained, which is what is wanted
}

// Now implements Kernel.
func (k *epoll) Now() int64 { return int64(time.Since(k.base)) }

// SetTimer implements Kernel.
func (k *epoll) SetTimer(at int64) {
	d := max(at-k.Now(), 1) // zero would disarm
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(d)}
	if at == math.MaxInt64 {
		spec = unix.ItimerSpec{}
	}
	if err := unix.TimerfdSettime(k.timer.FD, 0, &spec, nil); err != nil {
		k.log.Error("timerfd_settime failed", "err", err, "ns", d)
	}
}

// Watch implements Kernel.
func (k *epoll) Watch(op *netpoll.FDOperator, from, to Interest) error {
	err := k.rewatch(op, from, to)
	switch {
	case err != nil: // what is left of a registration must go: the caller takes it that there is none
		k.operators.remove(op)
		_ = k.poll.Control(op, netpoll.PollDetach)
	case to == WatchNone:
		k.operators.remove(op)
	default:
		k.operators.add(op)
	}
	return err
}

func (k *epoll) rewatch(op *netpoll.FDOperator, from, to Interest) error {
	switch {
	case from == WatchRead && to == WatchReadWrite:
		return k.poll.Control(op, netpoll.PollR2RW)
	case from == WatchReadWrite && to == WatchRead:
		return k.poll.Control(op, netpoll.PollRW2R)
	}
	if from != WatchNone {
		if err := k.poll.Control(op, netpoll.PollDetach); err != nil {
			return err
		}
	}
	switch to {
	case WatchNone:
	case WatchRead:
		return k.poll.Control(op, netpoll.PollReadable)
	case WatchReadWrite:
		if err := k.poll.Control(op, netpoll.PollReadable); err != nil {
			return err
		}
		return k.poll.Control(op, netpoll.PollR2RW)
	case WatchWrite:
		return k.poll.Control(op, netpoll.PollWritable)
	}
	return nil
}

// Read implements Kernel.
func (k *epoll) Read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

// Write implements Kernel. sendto rather than write, for MSG_NOSIGNAL: EPIPE is an error here, not a signal.
func (k *epoll) Write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// Writev implements Kernel.
func (k *epoll) Writev(fd int, v [][]byte) (int, syscall.Errno) {
	var iov [maxIovecs + 2]unix.Iovec
	for i, b := range v {
		iov[i].Base = unsafe.SliceData(b)
		iov[i].SetLen(len(b))
	}
	msg := unix.Msghdr{Iov: &iov[0]}
	msg.SetIovlen(len(v))
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL)
	return int(n), errno
}

// ShutdownWrite implements Kernel.
func (k *epoll) ShutdownWrite(fd int) syscall.Errno { return errnoOf(unix.Shutdown(fd, unix.SHUT_WR)) }

// Close implements Kernel.
func (k *epoll) Close(fd int, reset bool) {
	if reset {
		// Linger with time 0 is how RST is asked for; when it fails the FIN that goes out instead does no harm.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		k.log.Error("close failed", "fd", fd, "err", err)
	}
}

// Connect implements Kernel.
func (k *epoll) Connect(addr netip.AddrPort, source netip.Addr) (int, syscall.Errno) {
	addr, source = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), source.Unmap()
	fd, err := unix.Socket(family(addr.Addr()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, errnoOf(err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil && source.IsValid() {
		// Let connect choose the port, so that ports are used per (source, destination) and not run out early.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0)))
	}
	if err == nil {
		if err = unix.Connect(fd, sockaddr(addr)); err == unix.EINPROGRESS {
			err = nil
		}
	}
	if err != nil {
		k.Close(fd, false)
		return -1, errnoOf(err)
	}
	return fd, 0
}

// ConnectError implements Kernel.
func (k *epoll) ConnectError(fd int) syscall.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return errnoOf(err)
	}
	return syscall.Errno(n)
}

// Local implements Kernel.
func (k *epoll) Local(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

// stop ends wait after this turn and closes what open opened. On the loop's goroutine.
func (k *epoll) stop() {
	k.stopped = true
	for _, ln := range k.listeners {
		k.closeListener(ln)
	}
	for _, op := range []*netpoll.FDOperator{&k.wake, &k.timer} {
		if err := k.Watch(op, WatchRead, WatchNone); err != nil {
			k.log.Error("epoll_ctl(DEL) failed", "fd", op.FD, "err", err)
		}
		k.Close(op.FD, false)
	}
	if err := k.poll.Close(); err != nil { // ends Wait, which closes the epoll instance
		k.log.Error("closing the poll failed", "err", err)
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
