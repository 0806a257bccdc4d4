package loop

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listeningOf returns what the group hands out; the descriptors are closed at the end of the test, or by the returned
// function.
func listeningOf(t *testing.T, g *Group) (fds []int, all []Listening, done func()) {
	t.Helper()
	all, err := g.Listening()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		fds = append(fds, l.FD)
	}
	open := true
	done = func() {
		if !open {
			return
		}
		open = false
		for _, fd := range fds {
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(done)
	return fds, all, done
}

// accepting counts the listeners of a loop.
func accepting(g *Group, i int) (n int) {
	g.loops[i].Do(func() {
		for _, ln := range g.kernels[i].listeners {
			if ln.op.FD >= 0 && ln.interest == WatchRead {
				n++
			}
		}
	})
	return n
}

// Sockets are handed on, from one group to the next, whatever the numbers of loops: each socket is handed on once, every
// loop accepts, and no connection goes to a socket that nobody accepts from.
func TestAdopt(t *testing.T) { bothTables(t, testAdopt) }

func testAdopt(t *testing.T) {
	for _, loops := range [][]int{{1, 1, 1}, {2, 2, 2}, {1, 2, 1}, {3, 1, 3}, {2, 3, 2}, {3, 2, 5}} {
		t.Run(fmt.Sprint(loops), func(t *testing.T) {
			checkLeaks(t)
			g, _, addr := listenEchoes(t, loops[0])
			var served []*net.TCPConn
			for _, n := range loops[1:] {
				fds, all, done := listeningOf(t, g)
				if len(fds) != loops[0] {
					t.Fatalf("%d sockets are handed on, expected %d", len(fds), loops[0])
				}
				for _, l := range all {
					if l.Addr != addr || l.Loop >= len(g.loops) {
						t.Errorf("handed on: %+v, expected %v", l, addr)
					}
				}
				next, handlers := startEchoes(t, n, nil)
				got, err := next.Adopt(fds, 7)
				if err != nil || got != addr {
					t.Fatalf("adopted %v, %v", got, err)
				}
				done()
				c := dialTCP(t, addr) // both accept
				roundTrip(t, c, "of either")
				g.StopListening()
				if left, _, _ := listeningOf(t, g); len(left) != 0 {
					t.Errorf("%d sockets are handed on after StopListening", len(left))
				}
				listeners := 0
				for i := range next.loops {
					on := accepting(next, i)
					if listeners += on; on == 0 {
						t.Errorf("loop %d of %d accepts from nothing", i, n)
					}
				}
				if want := max(n, loops[0]); listeners != want {
					t.Errorf("%d listeners, expected %d", listeners, want)
				}
				for range 60 { // a socket without a loop would swallow one of them with a chance of 1 - (4/5)^60
					c := dialTCP(t, addr)
					roundTrip(t, c, "of the next")
					served = append(served, c)
				}
				for _, h := range handlers {
					if s := h.snapshot(); s.accepts > 0 && s.listener != 7 {
						t.Errorf("accepted from listener %d", s.listener)
					}
				}
				roundTrip(t, c, "still there")
				g = next
			}
			for _, c := range served {
				roundTrip(t, c, "all are there")
			}
		})
	}
}

// Connections that wait in the queue when the first owner stops are accepted by the next one.
func TestAdoptQueue(t *testing.T) { bothTables(t, testAdoptQueue) }

func testAdoptQueue(t *testing.T) {
	checkLeaks(t)
	const waiting = 50
	first, _, addr := listenEchoes(t, 1)
	fds, _, _ := listeningOf(t, first)
	var conns []*net.TCPConn
	entered, dialled := make(chan struct{}), make(chan struct{})
	closed := make(chan bool)
	go func() {
		closed <- first.Each(func(*Loop) { // which accepts nothing meanwhile
			close(entered)
			<-dialled
			for _, ln := range first.kernels[0].listeners {
				first.kernels[0].closeListener(ln)
			}
		})
	}()
	<-entered
	for range waiting {
		conns = append(conns, dialTCP(t, addr))
	}
	close(dialled)
	<-closed
	second, handlers := startEchoes(t, 2, nil)
	if _, err := second.Adopt(fds, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		roundTrip(t, c, "waited")
	}
	accepts := 0
	for _, h := range handlers {
		accepts += h.snapshot().accepts
	}
	if accepts != waiting || openSockets(first) != 0 {
		t.Errorf("%d accepted by the second, %d by the first", accepts, openSockets(first))
	}
}

// What is adopted does not block, is not inherited, and has the options of our own; the one that was given is untouched.
func TestAdoptOptions(t *testing.T) { bothTables(t, testAdoptOptions) }

func testAdoptOptions(t *testing.T) {
	checkLeaks(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 10); err != nil {
		t.Fatal(err)
	}
	g, handlers := startEchoes(t, 2, nil)
	addr, err := g.Adopt([]int{fd}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range g.kernels {
		g.loops[i].Do(func() {
			if len(k.listeners) != 1 {
				t.Errorf("loop %d has %d listeners", i, len(k.listeners))
				return
			}
			own := k.listeners[0].op.FD
			if v, err := unix.FcntlInt(uintptr(own), unix.F_GETFL, 0); v&unix.O_NONBLOCK == 0 || err != nil {
				t.Errorf("loop %d: flags %#x, %v", i, v, err)
			}
			if v, err := unix.FcntlInt(uintptr(own), unix.F_GETFD, 0); v&unix.FD_CLOEXEC == 0 || err != nil {
				t.Errorf("loop %d: descriptor flags %#x, %v", i, v, err)
			}
		})
	}
	roundTrip(t, dialTCP(t, addr), "hello")
	for i, h := range handlers {
		if h.snapshot().accepts == 0 {
			continue
		}
		g.loops[i].Do(func() {
			if v, err := unix.GetsockoptInt(h.at(0).op.FD, unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
				t.Errorf("TCP_NODELAY of the accepted is %d, %v", v, err)
			}
		})
	}
	g.Stop()
	if got, err := ListeningOn(fd); err != nil || got != addr {
		t.Errorf("the descriptor that was given: %v, %v", got, err)
	}
}

// What is no listening TCP socket is refused with a word on what it is, and nothing is left of it.
func TestAdoptRefuses(t *testing.T) { bothTables(t, testAdoptRefuses) }

func testAdoptRefuses(t *testing.T) {
	checkLeaks(t)
	socket := func(domain, typ int) int {
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	pipe, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer write.Close()
	a, _, _ := listenEchoes(t, 1)
	b, _, _ := listenEchoes(t, 1)
	of := func(g *Group) int {
		fds, _, _ := listeningOf(t, g)
		return fds[0]
	}
	g, _ := startEchoes(t, 3, nil)
	for name, test := range map[string]struct {
		fds  []int
		want string
	}{
		"nothing":                {nil, "no descriptors"},
		"UDP":                    {[]int{socket(unix.AF_INET, unix.SOCK_DGRAM)}, "IP protocol 17"},
		"a unix socket":          {[]int{socket(unix.AF_UNIX, unix.SOCK_STREAM)}, "address family 1"},
		"TCP, not listening":     {[]int{socket(unix.AF_INET, unix.SOCK_STREAM)}, "does not listen"},
		"a pipe":                 {[]int{int(pipe.Fd())}, syscall.ENOTSOCK.Error()},
		"not open":               {[]int{1 << 20}, syscall.EBADF.Error()},
		"of different addresses": {[]int{of(a), of(b)}, "expected one address"},
		"the second is wrong":    {[]int{of(a), int(pipe.Fd())}, syscall.ENOTSOCK.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			before := openFDs(t)
			if addr, err := g.Adopt(test.fds, 0); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, %v; expected %q", addr, err, test.want)
			}
			if n := len(openFDs(t)) - len(before); n != 0 {
				t.Errorf("%d descriptors are left", n)
			}
		})
	}
	fd := of(a)
	g.loops[2].PostFunc(g.kernels[2].stop) // a loop that is gone: those before it let go again
	before := -1
	eventually(t, "the loop has stopped", func() bool { return !g.loops[2].Do(func() {}) })
	before = len(openFDs(t))
	if _, err := g.Adopt([]int{fd}, 0); err == nil || !strings.Contains(err.Error(), "has stopped") {
		t.Errorf("with a loop that has stopped: %v", err)
	}
	if n := len(openFDs(t)) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
	g.Stop()
	if _, err := g.Adopt([]int{fd}, 0); err == nil {
		t.Error("a group that has stopped adopts")
	}
	if all, err := g.Listening(); err == nil {
		t.Errorf("a group that has stopped hands out %v", all)
	}
}

// Each address is handed on under the name that Listen gave it.
func TestListeningAddresses(t *testing.T) { bothTables(t, testListeningAddresses) }

func testListeningAddresses(t *testing.T) {
	checkLeaks(t)
	g, _ := startEchoes(t, 2, nil)
	var want []netip.AddrPort
	for i := range 3 {
		addr, err := g.Listen(local, i, 10)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, addr)
	}
	_, all, _ := listeningOf(t, g)
	if len(all) != 6 {
		t.Fatalf("%d sockets, expected 6", len(all))
	}
	for i, l := range all {
		if l.Addr != want[i%3] || l.Loop != i/3 {
			t.Errorf("socket %d: %+v, expected %v of loop %d", i, l, want[i%3], i/3)
		}
		if addr, err := ListeningOn(l.FD); err != nil || addr != l.Addr {
			t.Errorf("socket %d listens on %v, %v", i, addr, err)
		}
	}
}
