package loop

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Listening is one listening socket of a group, for a process that is to accept from it too.
type Listening struct {
	FD   int            // a duplicate, not inherited by children: it belongs to who asked, who closes it
	Addr netip.AddrPort // as Listen or Adopt returned it
	Loop int            // who accepts from it here; the first when several do
}

// Listening returns the sockets that the loops accept from, each once, loop by loop in the order of Listen and Adopt. A socket lives as long as any duplicate of its descriptor, in whatever process, and with it the connections that
// wait in it: StopListening does not reset those of a socket that was handed on. None after StopListening. After an error
// nothing is left open.
func (g *Group) Listening() (all []Listening, err error) {
	for i, k := range g.kernels {
		var own []Listening
		fds, err := g.bring(i, func() (fds []int) {
			for _, ln := range k.listeners {
				if ln.op.FD >= 0 && !ln.shared {
					fds = append(fds, ln.op.FD)
					own = append(own, Listening{Addr: ln.addr, Loop: i})
				}
			}
			return fds
		})
		if err != nil {
			for _, l := range all {
				_ = unix.Close(l.FD)
			}
			return nil, err
		}
		for j, fd := range fds {
			own[j].FD = fd
		}
		all = append(all, own...)
	}
	return all, nil
}

// Adopt has the loops accept connections from sockets that listen already, all on the same address, and returns that:
// sockets that another process, or a service manager, has opened. number is handed to Handler.OnAccept. The descriptors
// stay the caller's: the loops take duplicates.
//
// No socket is left without a loop, since the kernel goes on to give it its share of the connections. With more sockets
// than loops a loop has several; with fewer, several loops accept from one, and whoever comes first takes a connection.
// More sockets of the same address are not opened for the loops that have none of their own: should this process end
// before the other one lets go, what waits in them would be reset.
//
// Nothing is changed after an error.
func (g *Group) Adopt(fds []int, number int) (addr netip.AddrPort, err error) {
	for i, fd := range fds {
		a, err := ListeningOn(fd)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		if i > 0 && a != addr {
			return netip.AddrPort{}, fmt.Errorf("descriptors %d and %d listen on %v and %v, expected one address", fds[0], fd, addr, a)
		}
		addr = a
	}
	if len(fds) == 0 {
		return addr, fmt.Errorf("no descriptors")
	}
	type adopted struct {
		loop int
		ln   *listener
	}
	var done []adopted
	for i := range max(len(fds), len(g.loops)) {
		at := i % len(g.loops)
		var ln *listener
		err = g.take(at, fds[i%len(fds)], func(own int) (err error) {
			ln, err = g.kernels[at].adopt(own, addr, number, i >= len(fds))
			return err
		})
		if err != nil {
			for _, a := range slices.Backward(done) {
				g.loops[a.loop].Do(func() { g.kernels[a.loop].closeListener(a.ln) })
			}
			return addr, fmt.Errorf("listen on %v: %w", addr, err)
		}
		done = append(done, adopted{at, ln})
	}
	return addr, nil
}

// adopt makes this loop accept connections from own, which is its own from now on; after an error it is closed.
func (k *epoll) adopt(own int, addr netip.AddrPort, number int, shared bool) (*listener, error) {
	err := unix.SetNonblock(own, true)
	if err == nil {
		err = unix.SetsockoptInt(own, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // as in listen
	}
	if err != nil {
		k.Close(own, false)
		return nil, err
	}
	return k.addListener(own, addr, number, shared)
}

// Duplicate returns a duplicate of fd in the table of the calling thread; it is the caller's, and children do not inherit it.
func Duplicate(fd int) (int, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("fcntl(F_DUPFD_CLOEXEC): %w", err)
	}
	return own, nil
}

// ListeningOn returns the address that fd, a listening TCP socket, listens on; the error says what it is instead. Safe from
// any goroutine.
func ListeningOn(fd int) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return none, fmt.Errorf("expected a listening TCP socket: %w", err)
	}
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return none, fmt.Errorf("it is a socket of address family %d, expected a listening TCP socket", domain)
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return none, err
	}
	if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_MPTCP { // Go's net.Listen gives the latter; it is used alike
		return none, fmt.Errorf("it is a socket of IP protocol %d, expected a listening TCP socket", protocol)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return none, err
	}
	if listening == 0 {
		return none, fmt.Errorf("it is a TCP socket that does not listen")
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return none, fmt.Errorf("getsockname: %w", err)
	}
	return addrPort(sa), nil
}
