package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGroupEcho(t *testing.T) { bothTables(t, testGroupEcho) }

func testGroupEcho(t *testing.T) {
	checkLeaks(t)
	const loops, clients = 4, 200
	g, handlers, addr := listenEchoes(t, loops)
	var wait sync.WaitGroup
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = dialTCP(t, addr)
	}
	for i, c := range conns {
		wait.Go(func() {
			for k := range 20 {
				roundTrip(t, c, fmt.Sprintf("client %d message %d", i, k))
			}
			roundTrip(t, c, string(randomBytes(100_000)))
		})
	}
	wait.Wait()
	total := 0
	for i, h := range handlers {
		s := h.snapshot()
		total += s.accepts
		if s.accepts == 0 { // the kernel's hash spreads them: all of them missing one loop has a chance of 10^-25
			t.Errorf("loop %d has no connection", i)
		}
		if s.listener != 7 || s.remote.Addr() != local.Addr() || s.remote.Port() == 0 {
			t.Errorf("accepted from listener %d, %v", s.listener, s.remote)
		}
	}
	if total != clients || openSockets(g) != clients {
		t.Errorf("%d accepted, %d open, expected %d", total, openSockets(g), clients)
	}
	for _, c := range conns {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
			t.Fatalf("after our FIN: %q, %v", rest, err)
		}
	}
	eventually(t, "all sockets are closed", func() bool { return openSockets(g) == 0 })
	g.Stop()
}

// A burst of connections is accepted in portions, so that established ones have their turn: below, at and above one.
func TestGroupAcceptBurst(t *testing.T) {
	for _, burst := range []int{1, maxAcceptsPerEvent - 1, maxAcceptsPerEvent, maxAcceptsPerEvent + 1, 3*maxAcceptsPerEvent + 10} {
		t.Run(fmt.Sprint(burst), func(t *testing.T) {
			checkLeaks(t)
			g, handlers, addr := listenEchoes(t, 1)
			h := handlers[0]
			h.perTurn = make(map[uint64]int)
			g.Each(func(*Loop) { // the loop is held up until all of them wait
				for range burst {
					dialTCP(t, addr)
				}
			})
			eventually(t, "all are accepted", func() bool { return h.snapshot().accepts == burst })
			g.Each(func(l *Loop) {
				for turn, n := range h.perTurn {
					if n > maxAcceptsPerEvent {
						t.Errorf("%d accepted in turn %d, at most %d expected", n, turn, maxAcceptsPerEvent)
					}
				}
				if got, want := len(h.perTurn), (burst+maxAcceptsPerEvent-1)/maxAcceptsPerEvent; got != want {
					t.Errorf("accepted in %d turns, expected %d", got, want)
				}
			})
			g.Stop()
		})
	}
}

// What was accepted has TCP_NODELAY and no keepalive, does not block and is not inherited.
func TestGroupSocketOptions(t *testing.T) { bothTables(t, testGroupSocketOptions) }

func testGroupSocketOptions(t *testing.T) {
	checkLeaks(t)
	g, handlers, addr := listenEchoes(t, 1)
	dialTCP(t, addr)
	eventually(t, "accepted", func() bool { return handlers[0].snapshot().accepts == 1 })
	g.Each(func(l *Loop) {
		if _, errno := l.Dial(addr, netip.Addr{}); errno != 0 {
			t.Error(errno)
		}
	})
	if err := <-handlers[0].dialed; err != nil {
		t.Fatal(err)
	}
	g.Each(func(l *Loop) {
		for slot := range uint32(2) {
			fd := l.at(slot).op.FD
			if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
				t.Errorf("slot %d: TCP_NODELAY is %d, %v", slot, v, err)
			}
			if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); v != 0 || err != nil {
				t.Errorf("slot %d: SO_KEEPALIVE is %d, %v", slot, v, err)
			}
			if v, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); v&unix.O_NONBLOCK == 0 || err != nil {
				t.Errorf("slot %d: flags %#x, %v", slot, v, err)
			}
			if v, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); v&unix.FD_CLOEXEC == 0 || err != nil {
				t.Errorf("slot %d: descriptor flags %#x, %v", slot, v, err)
			}
		}
	})
	g.Stop()
}

// A client that sends 1 MiB and half-closes at once gets everything back, whether it reads meanwhile or only then. To be
// run with -race and without: the race build finds operators in another way.
func TestGroupHalfClose(t *testing.T) { bothTables(t, testGroupHalfClose) }

func testGroupHalfClose(t *testing.T) {
	for _, meanwhile := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads meanwhile %v", meanwhile), func(t *testing.T) {
			checkLeaks(t)
			g, handlers, addr := listenEchoes(t, 2)
			sent := randomBytes(1 << 20)
			for range 10 {
				c := dialTCP(t, addr)
				got := make(chan []byte, 1)
				read := func() {
					b, err := io.ReadAll(c)
					if err != nil {
						t.Error(err)
					}
					got <- b
				}
				if meanwhile {
					go read()
				}
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if !meanwhile {
					go read()
				}
				if b := <-got; !bytes.Equal(b, sent) {
					t.Fatalf("%d bytes came back of %d", len(b), len(sent))
				}
			}
			eventually(t, "all sockets are closed", func() bool { return openSockets(g) == 0 })
			for _, h := range handlers {
				if s := h.snapshot(); s.errors != 0 || s.eofs != s.accepts {
					t.Errorf("%+v", s)
				}
			}
			g.Stop()
		})
	}
}

// L8.1: clients that reset in the middle leave nothing behind and harm nobody.
func TestGroupReset(t *testing.T) { bothTables(t, testGroupReset) }

func testGroupReset(t *testing.T) {
	checkLeaks(t)
	g, handlers, addr := listenEchoes(t, 1)
	bystander := dialTCP(t, addr)
	roundTrip(t, bystander, "before")
	for i := range 20 {
		c := dialTCP(t, addr)
		roundTrip(t, c, "hello")
		if i%2 == 0 { // much is under way in both directions
			go func() { _, _ = c.Write(randomBytes(8 << 20)) }()
			eventually(t, "output waits", func() bool { return sum(g, func(l *Loop) int { return int(l.PendingBytes()) }) > 0 })
		}
		if err := c.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		eventually(t, "only the bystander is left", func() bool { return openSockets(g) == 1 })
	}
	s := handlers[0].snapshot()
	if s.errors != 20 || s.eofs != 0 || s.errno != syscall.ECONNRESET && s.errno != syscall.EPIPE {
		t.Errorf("%+v", s)
	}
	if n := sum(g, func(l *Loop) int { return int(l.PendingBytes()) }); n != 0 {
		t.Errorf("%d bytes are pending", n)
	}
	roundTrip(t, bystander, "after")
	g.Stop()
}

// L8.3: what a slow reader does not take waits, is written when it reads, and others are not held up.
func TestGroupSlowReader(t *testing.T) { bothTables(t, testGroupSlowReader) }

func testGroupSlowReader(t *testing.T) {
	checkLeaks(t)
	g, handlers, addr := listenEchoes(t, 1)
	h := handlers[0]
	c := dialTCP(t, addr)
	if err := c.SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	sent := randomBytes(16 << 20)
	go func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	pending := func() int { return sum(g, func(l *Loop) int { return l.Pending(0) }) }
	eventually(t, "the loop has read everything", func() bool { return h.snapshot().eofs == 1 })
	if n := pending(); n < 4<<20 {
		t.Fatalf("%d bytes are pending, expected more of %d", n, len(sent))
	}
	other := dialTCP(t, addr)
	roundTrip(t, other, "not held up")
	turns := func() (n uint64) { g.Each(func(l *Loop) { n = l.stats.Turns }); return n }
	before := turns()
	for range 100 {
		roundTrip(t, other, "x")
	}
	if n := turns() - before; n > 400 { // one per message and a few of other causes; a loop that spins has thousands
		t.Errorf("%d turns for 100 messages", n)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	eventually(t, "its socket is closed", func() bool { return openSockets(g) == 1 })
	if s := h.snapshot(); s.blocked == 0 || s.drained != 1 || s.errors != 0 {
		t.Errorf("%+v", s)
	}
	g.Stop()
}

// Close ends a connection in good order, Reset does not, whatever was sent before.
func TestGroupCloseAndReset(t *testing.T) { bothTables(t, testGroupCloseAndReset) }

func testGroupCloseAndReset(t *testing.T) {
	checkLeaks(t)
	g, _, addr := listenEchoes(t, 1)
	for _, reset := range []bool{false, true} {
		c := dialTCP(t, addr)
		roundTrip(t, c, "hello")
		g.Each(func(l *Loop) {
			if reset {
				l.Reset(0)
			} else {
				l.Close(0)
			}
		})
		_, err := c.Read(make([]byte, 1))
		if reset && !errors.Is(err, syscall.ECONNRESET) || !reset && err != io.EOF {
			t.Errorf("reset %v: the peer reads %v", reset, err)
		}
	}
}

func TestGroupDial(t *testing.T) { bothTables(t, testGroupDial) }

func testGroupDial(t *testing.T) {
	checkLeaks(t)
	_, servers, addr := listenEchoes(t, 1)
	g, handlers := startEchoes(t, 1, nil)
	h := handlers[0]
	dial := func(addr netip.AddrPort, source netip.Addr) error {
		var errno syscall.Errno
		g.Each(func(l *Loop) { _, errno = l.Dial(addr, source) })
		if errno != 0 {
			return errno
		}
		return <-h.dialed
	}
	for _, source := range []netip.Addr{{}, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::ffff:127.0.0.3")} {
		if err := dial(addr, source); err != nil {
			t.Fatalf("from %v: %v", source, err)
		}
		want := source.Unmap()
		if !source.IsValid() {
			want = local.Addr()
		}
		eventually(t, "accepted", func() bool { return servers[0].snapshot().remote == *h.source })
		if h.source.Addr() != want || h.source.Port() == 0 {
			t.Errorf("from %v: local address %v", source, h.source)
		}
	}
	if err := dial(netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), addr.Port()), netip.Addr{}); err != nil {
		t.Errorf("an IPv4 address in IPv6 clothes: %v", err)
	}

	// A port that is bound, so that nobody else gets it, and not listened on.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	before := openSockets(g)
	if err := dial(addrPort(sa), netip.Addr{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	if err := dial(addr, netip.MustParseAddr("192.0.2.1")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address that is not ours: %v", err)
	}
	if n := openSockets(g); n != before {
		t.Errorf("%d sockets are left of attempts that failed", n-before)
	}
	g.Stop()
}

// Stopping with listeners, connections, waiting output and timers gives everything back, and clients are told.
func TestGroupStop(t *testing.T) { bothTables(t, testGroupStop) }

func testGroupStop(t *testing.T) {
	checkLeaks(t)
	g, _, addr := listenEchoes(t, 3)
	if _, err := g.Listen(local, 8, 10); err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.TCPConn, 50)
	for i := range conns {
		conns[i] = dialTCP(t, addr)
		roundTrip(t, conns[i], "hello")
	}
	g.Each(func(l *Loop) {
		for slot := range uint32(l.Slots()) {
			if l.InUse(slot) {
				l.SetTimer(slot, l.Now()+1e9)
				l.Write(slot, randomBytes(1<<20))
			}
		}
	})
	var wait sync.WaitGroup
	for range 3 { // from several goroutines, more than once
		wait.Go(g.Stop)
	}
	wait.Wait()
	g.Stop()
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		_ = c.Close()
	}
	for _, l := range g.Loops() {
		if n := l.Open(); n != 0 {
			t.Errorf("loop %d: %d sockets are open", l.Index(), n)
		}
		if n := l.timers.Len(); n != 0 {
			t.Errorf("loop %d: %d timers of closed sockets are set", l.Index(), n)
		}
		if l.Post(Func(func() { t.Error("a task runs") })) || l.Do(func() { t.Error("a task runs") }) {
			t.Error("a loop that has stopped takes tasks")
		}
	}
	if g.Each(func(*Loop) { t.Error("a task runs") }) {
		t.Error("Each says that loops run")
	}
	if _, err := g.Listen(local, 0, 1); err == nil {
		t.Error("Listen on loops that have stopped gives no error")
	}
	g.StopListening()
	if c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr)); err == nil {
		_ = c.Close()
		t.Error("somebody listens")
	}
}

// Tasks that were posted before the one that stops the loop run, those behind it do not, whoever waits for them is told,
// and no socket is opened on a loop that is gone.
func TestGroupStopAmongTasks(t *testing.T) { bothTables(t, testGroupStopAmongTasks) }

func testGroupStopAmongTasks(t *testing.T) {
	checkLeaks(t)
	g, _ := startEchoes(t, 1, nil)
	l := g.Loops()[0]
	waiting := func() int {
		l.tasks.mu.Lock()
		defer l.tasks.mu.Unlock()
		return len(l.tasks.queue)
	}
	entered, hold := make(chan struct{}), make(chan struct{})
	l.PostFunc(func() { close(entered); <-hold })
	<-entered
	before := false
	l.PostFunc(func() { before = true })
	stopped := make(chan struct{})
	go func() { g.Stop(); close(stopped) }()
	eventually(t, "Stop has posted its task", func() bool { return waiting() == 2 })
	l.PostFunc(func() { t.Error("a task runs on a loop that has stopped") })
	answer := make(chan bool)
	go func() { answer <- l.Do(func() { t.Error("a task runs on a loop that has stopped") }) }()
	eventually(t, "Do has posted its task", func() bool { return waiting() == 4 })
	close(hold)
	if <-answer {
		t.Error("Do says that its function ran")
	}
	<-stopped
	if !before {
		t.Error("a task posted before Stop did not run")
	}
}

// Groups that come and go leave nothing.
func TestGroupsInSequence(t *testing.T) { bothTables(t, testGroupsInSequence) }

func testGroupsInSequence(t *testing.T) {
	checkLeaks(t)
	for i := range 50 {
		g, _, addr := listenEchoes(t, 1+i%4)
		c := dialTCP(t, addr)
		roundTrip(t, c, "hello")
		if i%2 == 0 {
			_ = c.Close()
		}
		if i%3 == 0 {
			g.StopListening()
		}
		g.Stop()
		_ = c.Close()
	}
}

func TestNewGroupRefuses(t *testing.T) {
	for _, n := range []int{0, -1} {
		if _, err := NewGroup(GroupConfig{Loops: n}); err == nil {
			t.Errorf("%d loops are accepted", n)
		}
	}
}
