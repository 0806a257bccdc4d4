package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An address that is taken is refused, however it is taken; the error says which address and why.
func TestListenTaken(t *testing.T) { bothTables(t, testListenTaken) }

func testListenTaken(t *testing.T) {
	checkLeaks(t)
	taken := map[string]func(t *testing.T) netip.AddrPort{
		"by another group of loops": func(t *testing.T) netip.AddrPort {
			_, _, addr := listenEchoes(t, 2)
			return addr
		},
		"by a group of one loop": func(t *testing.T) netip.AddrPort {
			_, _, addr := listenEchoes(t, 1)
			return addr
		},
		"by net.Listen": func(t *testing.T) netip.AddrPort {
			return listenNet(t, nil, "127.0.0.1:0")
		},
		"by one who shares its port": func(t *testing.T) netip.AddrPort {
			return listenNet(t, func(fd uintptr) error {
				return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}, "127.0.0.1:0")
		},
		"on all addresses, shared": func(t *testing.T) netip.AddrPort {
			addr := listenNet(t, func(fd uintptr) error {
				return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}, "0.0.0.0:0")
			return netip.AddrPortFrom(local.Addr(), addr.Port())
		},
	}
	for name, take := range taken {
		t.Run(name, func(t *testing.T) {
			addr := take(t)
			for _, loops := range []int{1, 3} {
				g, _ := startEchoes(t, loops, nil)
				fds := openFDs(t)
				_, err := g.Listen(addr, 0, 10)
				if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr.String()) {
					t.Errorf("%d loops: %v", loops, err)
				}
				if n := len(openFDs(t)) - len(fds); n != 0 {
					t.Errorf("%d loops: %d descriptors are left", loops, n)
				}
				if addr, err := g.Listen(local, 0, 10); err != nil { // another address is fine
					t.Errorf("%d loops: %v: %v", loops, addr, err)
				}
				g.Stop()
			}
		})
	}
}

func listenNet(t *testing.T, option func(fd uintptr) error, addr string) netip.AddrPort {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if option != nil {
			err = errors.Join(c.Control(func(fd uintptr) { err = option(fd) }), err)
		}
		return err
	}}
	ln, err := config.Listen(context.Background(), "tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// Of several that start at the same moment exactly one gets the address.
func TestListenRace(t *testing.T) { bothTables(t, testListenRace) }

func testListenRace(t *testing.T) {
	checkLeaks(t)
	const groups = 6
	all := make([]*Group, groups)
	for i := range all {
		all[i], _ = startEchoes(t, 3, nil)
	}
	for range 20 {
		addr := listenNetOnce(t)
		var won atomic.Int32
		var wait sync.WaitGroup
		start := make(chan struct{})
		for _, g := range all {
			wait.Go(func() {
				<-start
				if _, err := g.Listen(addr, 0, 10); err == nil {
					won.Add(1)
				} else if !errors.Is(err, syscall.EADDRINUSE) {
					t.Error(err)
				}
			})
		}
		close(start)
		wait.Wait()
		if won.Load() > 1 {
			t.Fatalf("%d groups listen on one address", won.Load())
		}
		listening := 0
		for _, g := range all { // a loser has no listener on any of its loops
			n := sum(g, func(l *Loop) (n int) {
				for _, ln := range g.kernels[l.index].listeners {
					if ln.op.FD >= 0 {
						n++
					}
				}
				return n
			})
			listening += n
			if n != 0 && n != 3 {
				t.Errorf("a group listens on %d of 3 loops", n)
			}
			g.StopListening()
		}
		if listening != 3*int(won.Load()) {
			t.Errorf("%d loops listen, %d groups have the address", listening, won.Load())
		}
	}
}

// listenNetOnce returns an address that was free a moment ago.
func listenNetOnce(t *testing.T) netip.AddrPort {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func TestListenPortZero(t *testing.T) { bothTables(t, testListenPortZero) }

func testListenPortZero(t *testing.T) {
	checkLeaks(t)
	for _, loops := range []int{1, 3} {
		g, handlers := startEchoes(t, loops, nil)
		seen := map[uint16]bool{}
		for number := range 3 { // several addresses, told apart by their number
			addr, err := g.Listen(local, number, 10)
			if err != nil {
				t.Fatal(err)
			}
			if addr.Port() == 0 || addr.Addr() != local.Addr() || seen[addr.Port()] {
				t.Errorf("listening on %v", addr)
			}
			seen[addr.Port()] = true
			c := dialTCP(t, addr)
			roundTrip(t, c, "hello")
			found := false
			for _, h := range handlers {
				s := h.snapshot()
				found = found || s.accepts > 0 && s.listener == number && s.remote == c.LocalAddr().(*net.TCPAddr).AddrPort()
			}
			if !found {
				t.Errorf("the connection to listener %d was taken for another", number)
			}
		}
		g.StopListening()
		eventually(t, "nobody listens", func() bool {
			for port := range seen {
				if c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(local.Addr(), port).String(), time.Second); err == nil {
					_ = c.Close()
					return false
				}
			}
			return true
		})
		if n := openSockets(g); n != 3 {
			t.Errorf("%d connections are left of 3 after the listeners were closed", n)
		}
		g.StopListening()
		g.Stop()
	}
}

// IPv6, on a machine that has it; on one that has not, an error that says so.
func TestListenIPv6(t *testing.T) { bothTables(t, testListenIPv6) }

func testListenIPv6(t *testing.T) {
	checkLeaks(t)
	loopback := netip.MustParseAddrPort("[::1]:0")
	g, handlers := startEchoes(t, 2, nil)
	addr, err := g.Listen(loopback, 6, 10)
	if b, _ := os.ReadFile("/proc/net/if_inet6"); !strings.Contains(string(b), "00000000000000000000000000000001 ") {
		t.Run("this machine has no ::1", func(t *testing.T) {
			if err == nil || !strings.Contains(err.Error(), "[::1]") {
				t.Errorf("listening on %v: %v", addr, err)
			}
		})
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	c := dialTCP(t, addr)
	roundTrip(t, c, "hello")
	for _, h := range handlers {
		if s := h.snapshot(); s.accepts > 0 && s.remote != c.LocalAddr().(*net.TCPAddr).AddrPort() {
			t.Errorf("remote address %v", s.remote)
		}
	}
	// Through a loop, from an IPv6 address.
	client, clients := startEchoes(t, 1, nil)
	client.Each(func(l *Loop) {
		if _, errno := l.Dial(addr, loopback.Addr()); errno != 0 {
			t.Error(errno)
		}
	})
	if err := <-clients[0].dialed; err != nil || clients[0].source.Addr() != loopback.Addr() {
		t.Errorf("%v, from %v", err, clients[0].source)
	}
	client.Each(func(l *Loop) {
		if _, errno := l.Dial(addr, local.Addr()); errno == 0 {
			t.Error("dialling IPv6 from an IPv4 address works")
		}
	})

	// All addresses are IPv4's as well, and an IPv4 client looks like one.
	addr, err = g.Listen(netip.AddrPortFrom(netip.IPv6Unspecified(), 0), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	before := openSockets(g)
	c = dialTCP(t, netip.AddrPortFrom(local.Addr(), addr.Port()))
	roundTrip(t, c, "hello")
	found := false
	for _, h := range handlers {
		found = found || h.snapshot().remote == c.LocalAddr().(*net.TCPAddr).AddrPort()
	}
	if !found || openSockets(g) != before+1 {
		t.Errorf("an IPv4 client of [::] is not known by its address")
	}
}
