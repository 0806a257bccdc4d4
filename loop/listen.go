package loop

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
)

// listener is a listening socket of one loop. OnRead of op is set, which no socket's is: that tells them apart when an
// event comes in.
type listener struct {
	op       netpoll.FDOperator // first field: see epoll.handle
	index    int                // in epoll.listeners
	number   int                // the caller's, for Handler.OnAccept
	interest Interest
	paused   bool           // accepting rests: counted in Stats.AcceptPaused
	shared   bool           // another loop accepts from the same socket and counts as its owner: see Group.Adopt
	addr     netip.AddrPort // what it listens on
}

func isListener(netpoll.Poll) error { return nil }

// listenMode says how a listening socket shares its address. Loops share one with SO_REUSEPORT: each has a socket of its
// own and the kernel spreads connections over them. That option alone would let a second process (of the same user) share
// it as well, unnoticed, with half of the connections. So the first socket binds and listens without it, which the kernel
// refuses when anybody else listens there, and only then lets the others in.
type listenMode uint8

const (
	listenAlone listenMode = iota // the only socket
	listenFirst                   // the first of several
	listenJoin                    // the others
)

// listen opens a listening socket on addr and returns its descriptor.
func listen(addr netip.AddrPort, backlog int, mode listenMode) (fd int, err error) {
	fd, err = unix.Socket(family(addr.Addr()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fd, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if mode == listenJoin {
		if err = sharePort(fd); err != nil {
			return fd, err
		}
	}
	if addr.Addr().Is6() {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0 // [::] listens on IPv4 as well, as with net.Listen
		}
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return fd, fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	// Accepted sockets inherit it. No SO_KEEPALIVE: the heartbeat does that work, and keepalives of a million idle
	// connections are a load of their own.
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fd, fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if err = unix.Bind(fd, sockaddr(addr)); err != nil {
		return fd, fmt.Errorf("bind: %w", err)
	}
	if err = unix.Listen(fd, backlog); err != nil {
		return fd, fmt.Errorf("listen: %w", err)
	}
	if mode == listenFirst {
		if err = sharePort(fd); err != nil {
			return fd, err
		}
	}
	return fd, nil
}

func sharePort(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("SO_REUSEPORT: %w", err)
	}
	return nil
}

// listen makes this loop accept connections from addr and returns the address with its port chosen.
func (k *epoll) listen(addr netip.AddrPort, number, backlog int, mode listenMode) (*listener, netip.AddrPort, error) {
	fd, err := listen(addr, backlog, mode)
	if err != nil {
		return nil, addr, fmt.Errorf("listen on %v: %w", addr, err)
	}
	bound := netip.AddrPortFrom(addr.Addr(), k.Local(fd).Port())
	ln, err := k.addListener(fd, bound, number, false)
	if err != nil {
		return nil, addr, fmt.Errorf("listen on %v: %w", bound, err)
	}
	return ln, bound, nil
}

// addListener has the loop accept from fd, which is its own from now on; after an error it is closed.
func (k *epoll) addListener(fd int, addr netip.AddrPort, number int, shared bool) (*listener, error) {
	ln := &listener{index: len(k.listeners), number: number, addr: addr, shared: shared}
	ln.op.FD, ln.op.OnRead = fd, isListener
	if err := k.watchListener(ln, WatchRead); err != nil {
		k.Close(fd, false)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	k.listeners = append(k.listeners, ln)
	return ln, nil
}

func (k *epoll) watchListener(ln *listener, to Interest) error {
	if ln.interest == to || ln.op.FD < 0 {
		return nil
	}
	err := k.Watch(&ln.op, ln.interest, to)
	ln.interest = to
	if err != nil {
		ln.interest = WatchNone
	}
	return err
}

func (k *epoll) closeListener(ln *listener) {
	if ln.op.FD < 0 {
		return
	}
	k.paused.Cancel(uint32(ln.index))
	if ln.paused {
		ln.paused = false
		k.loop.stats.AcceptPaused--
	}
	if err := k.watchListener(ln, WatchNone); err != nil {
		k.log.Error("epoll_ctl(DEL) failed", "fd", ln.op.FD, "err", err)
	}
	k.Close(ln.op.FD, false)
	ln.op.FD = -1
}

// accept takes connections till there are none or the turn's share is used up.
func (k *epoll) accept(ln *listener) {
	for range maxAcceptsPerEvent {
		if ln.interest == WatchNone {
			return // paused or closed
		}
		fd, remote, errno := accept4(ln.op.FD)
		switch errno {
		case 0:
			k.loop.Accept(fd, ln.number, remote)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH,
			unix.EOPNOTSUPP, unix.ENETUNREACH, unix.ENETDOWN, unix.EPERM:
			// accept(2) hands over errors of the connection; the next one may be fine.
		default: // EMFILE, ENFILE, ENOBUFS, ENOMEM: trying again at once would be a busy loop (L8.4)
			k.pauseAccept(ln, errno)
			return
		}
	}
}

// pauseAccept lets accepting rest for acceptRetry. Existing connections do not notice.
func (k *epoll) pauseAccept(ln *listener, errno syscall.Errno) {
	l := k.loop
	l.stats.AcceptPauses++
	if !ln.paused {
		ln.paused = true
		if l.stats.AcceptPaused++; l.stats.AcceptPaused == 1 {
			k.log.Error("accepting paused: out of descriptors or memory; raise the open file limit or lower --max-connections",
				"err", errno, "loop", l.index, "sockets", l.open)
		}
	}
	if err := k.watchListener(ln, WatchNone); err != nil {
		k.log.Error("epoll_ctl(DEL) failed", "fd", ln.op.FD, "err", err)
	}
	k.paused.Set(uint32(ln.index), l.now+int64(acceptRetry))
}

// resumeAccept is called when a listener has rested. It tries before it says so.
func (k *epoll) resumeAccept(i uint32) {
	ln := k.listeners[i]
	if err := k.watchListener(ln, WatchRead); err != nil {
		k.paused.Set(i, k.loop.now+int64(acceptRetry))
		return
	}
	k.accept(ln)
	if ln.interest == WatchNone { // paused again
		return
	}
	ln.paused = false
	if k.loop.stats.AcceptPaused--; k.loop.stats.AcceptPaused == 0 {
		k.log.Info("accepting resumed", "loop", k.loop.index)
	}
}

// accept4 is accept4(2) without the allocation of a Sockaddr.
func accept4(fd int) (int, netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	var remote netip.AddrPort
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		remote = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), ntohs(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&sa))
		remote = netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), ntohs(in.Port))
	}
	return int(n), remote, 0
}

// ntohs reads a port in network byte order.
func ntohs(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}
