package loop

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv names what a test binary that was started by a test does instead of testing: for limits that hold for a whole
// process.
const childEnv = "MQGATE_LOOP_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The runtime's own poller opens its descriptors once and keeps them; the tests compare descriptors.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	_ = ln.Close()
	goleak.VerifyTestMain(m)
}

var local = netip.MustParseAddrPort("127.0.0.1:0")

// deadline is how long a test waits for what must happen; it is never reached when all is well.
const deadline = 60 * time.Second

// eventually waits until cond holds. It gives the processor away in between, which is all that the loops need.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.After(deadline)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %v: %s", deadline, what)
		}
	}
}

// openFDs returns what every open descriptor of this process is.
func openFDs(t testing.TB) map[string]string {
	t.Helper()
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprint(dir.Fd())
	_ = dir.Close()
	fds := make(map[string]string)
	for _, name := range names {
		if name == own {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + name); err == nil {
			fds[name] = target
		}
	}
	return fds
}

// checkLeaks fails the test if, at its end, a descriptor, a goroutine or a thread with a descriptor table of its own is left
// that was not there when it was called.
func checkLeaks(t *testing.T) {
	t.Helper()
	if tablePerLoop { // the descriptors of its poller come with the first group
		if _, err := runtimeDescriptors(); err != nil {
			t.Fatal(err)
		}
	}
	before, goroutines := openFDs(t), goleak.IgnoreCurrent()
	t.Cleanup(func() {
		noPrivateTables(t)
		for fd, target := range openFDs(t) {
			if before[fd] != target {
				t.Errorf("descriptor %s (%s) is left", fd, target)
			}
		}
		goleak.VerifyNone(t, goroutines)
	})
}

// echoes is the handler of one loop that returns what it gets and closes when the peer has half-closed and has got
// everything.
type echoes struct {
	*Loop
	mu sync.Mutex
	counts
	perTurn map[uint64]int // accepts by turn

	dialed chan error      // OnConnect
	source *netip.AddrPort // the local address after OnConnect
}

type counts struct {
	accepts, eofs, errors, blocked, drained int
	listener                                int
	remote                                  netip.AddrPort
	errno                                   syscall.Errno
}

func (e *echoes) snapshot() counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts
}

func (e *echoes) count(f func(c *counts)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.counts)
}

func (e *echoes) OnAccept(_ uint32, listener int, remote netip.AddrPort) {
	e.count(func(c *counts) { c.accepts++; c.listener = listener; c.remote = remote })
	if e.perTurn != nil {
		e.perTurn[e.stats.Turns]++
	}
}

func (e *echoes) OnConnect(slot uint32, errno syscall.Errno) {
	if errno != 0 {
		e.dialed <- errno
		e.Close(slot)
		return
	}
	a := e.LocalAddr(slot)
	e.source = &a
	e.dialed <- nil
}

func (e *echoes) OnData(slot uint32, p []byte) { e.Write(slot, p) }

func (e *echoes) OnEOF(slot uint32) {
	e.count(func(c *counts) { c.eofs++ })
	e.NotifyDrained(slot)
}

func (e *echoes) OnError(slot uint32, errno syscall.Errno) {
	e.count(func(c *counts) { c.errors++; c.errno = errno })
	e.Close(slot)
}

func (e *echoes) OnBlocked(uint32) { e.count(func(c *counts) { c.blocked++ }) }

func (e *echoes) OnDrained(slot uint32) {
	e.count(func(c *counts) { c.drained++ })
	e.Close(slot)
}

func (e *echoes) OnTimer(uint32) {}

// tablePerLoop is what startEchoes gives its group. Set by bothTables; the tests of this package do not run in parallel.
var tablePerLoop bool

// bothTables runs test twice: with the descriptors of the loops in the process's table, and in one of each loop's own.
func bothTables(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for name, own := range map[string]bool{"shared": false, "per loop": true} {
		t.Run(name, func(t *testing.T) {
			tablePerLoop = own
			defer func() { tablePerLoop = false }()
			test(t)
		})
	}
}

// startEchoes starts a group of loops that echo, and stops it at the end of the test.
func startEchoes(t testing.TB, loops int, log *slog.Logger) (*Group, []*echoes) {
	t.Helper()
	handlers := make([]*echoes, loops)
	g, err := NewGroup(GroupConfig{
		Loops:   loops,
		Handler: func(i int) Handler { handlers[i] = &echoes{dialed: make(chan error, 1)}; return handlers[i] },
		Attach:  func(i int, l *Loop) { handlers[i].Loop = l },
		Log:     log,
		Lost:    func(err error) { t.Error(err) },

		TablePerLoop: tablePerLoop,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g, handlers
}

// listenEchoes is startEchoes on a port.
func listenEchoes(t testing.TB, loops int) (*Group, []*echoes, netip.AddrPort) {
	t.Helper()
	g, handlers := startEchoes(t, loops, nil)
	addr, err := g.Listen(local, 7, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return g, handlers, addr
}

// sum adds up what the loops say, each asked on its goroutine.
func sum(g *Group, f func(l *Loop) int) (n int) {
	g.Each(func(l *Loop) { n += f(l) })
	return n
}

func openSockets(g *Group) int { return sum(g, func(l *Loop) int { return l.Open() }) }

func dialTCP(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

// roundTrip sends s and reads as much back.
func roundTrip(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(s))
	for n := 0; n < len(b); {
		k, err := c.Read(b[n:])
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", n, len(b), err)
		}
		n += k
	}
	if string(b) != s {
		t.Fatal("other bytes came back")
	}
}

func randomBytes(n int) []byte { return []byte(strings.Repeat("0123456789abcde\n", n/16+1)[:n]) }
