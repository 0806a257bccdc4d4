package loop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Tests of what happens when descriptors run out. The limit is the process's, so they run in children of their own: the
// same binary, told by childEnv what to do.

var children = map[string]func() error{
	"serve": childServe,
	"open":  childOpen,
}

// childLimit is the limit of open files that the serving child gives itself: a dozen are its own.
const childLimit = 40

func setNoFile(n int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	lim.Cur = uint64(n)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
}

// childStats is what the serving child answers to each line on its standard input.
type childStats struct {
	Addr    string
	Stats   Stats
	Sockets int
	Now     int64 // the loop's clock
}

// childServe echoes on one loop under a low limit of open files.
func childServe() error {
	if err := setNoFile(childLimit); err != nil {
		return err
	}
	h := &echoes{}
	g, err := NewGroup(GroupConfig{Loops: 1, Handler: func(int) Handler { return h }, Attach: func(_ int, l *Loop) { h.Loop = l },
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	addr, err := g.Listen(local, 0, 4096)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s := childStats{Addr: addr.String()}
		g.Each(func(l *Loop) { s.Stats, s.Sockets, s.Now = l.Stats(), l.Open(), l.Now() })
		if err := out.Encode(s); err != nil {
			return err
		}
	}
	g.Stop()
	return nil
}

// child starts this binary as the named child.
func child(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}

// L8.4: out of descriptors, accepting pauses and resumes by itself, existing connections are unaffected, one log line says
// so, and there is no busy loop.
func TestOutOfDescriptors(t *testing.T) {
	checkLeaks(t)
	cmd := child(t, "serve")
	var log strings.Builder
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := sync.OnceFunc(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v\n%s", err, &log)
		}
		stopped = true
	})
	defer stop()
	answers := json.NewDecoder(out)
	ask := func() (s childStats) {
		t.Helper()
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&s); err != nil {
			stop()
			t.Fatalf("the child: %v\n%s", err, &log)
		}
		return s
	}
	addr := netip.MustParseAddrPort(ask().Addr)

	// More clients than it can take: all are connected, since the kernel does that, but some wait for accept.
	const clients = 2 * childLimit
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = dialTCP(t, addr)
	}
	eventually(t, "accepting pauses", func() bool { return ask().Stats.AcceptPauses > 0 })
	first := ask()
	if first.Sockets < childLimit/2 || first.Sockets >= childLimit {
		t.Fatalf("%d sockets with %d descriptors", first.Sockets, childLimit)
	}
	served := conns[:first.Sockets]
	for _, c := range served {
		roundTrip(t, c, "existing connections are served")
	}

	// It tries again at its own pace: every try is a turn or two, every question of ours is one, and nothing else turns.
	var asked uint64
	start := ask()
	last := start
	for last.Stats.AcceptPauses < start.Stats.AcceptPauses+3 {
		eventually(t, "another try", func() bool {
			asked++
			s := ask()
			more := s.Stats.AcceptPauses > last.Stats.AcceptPauses
			if more {
				last = s
			}
			return more
		})
	}
	tries := last.Stats.AcceptPauses - start.Stats.AcceptPauses
	if turns := last.Stats.Turns - start.Stats.Turns; turns > 2*asked+3*tries {
		t.Errorf("%d turns for %d tries and %d questions: it spins", turns, tries, asked)
	}
	if least := int64(tries-1) * int64(acceptRetry); last.Now-start.Now < least {
		t.Errorf("%d tries in %d ns, expected %d at least", tries, last.Now-start.Now, least)
	}
	if last.Stats.AcceptPaused != 1 {
		t.Errorf("%d listeners are said to rest", last.Stats.AcceptPaused)
	}
	if last.Sockets != first.Sockets {
		t.Errorf("%d sockets, %d before", last.Sockets, first.Sockets)
	}

	// A few go: as many come in, and it pauses again.
	const few = 5
	for _, c := range served[:few] {
		_ = c.Close()
	}
	eventually(t, "as many are accepted", func() bool { return ask().Stats.Accepts == uint64(first.Sockets+few) })
	for _, c := range conns[few : first.Sockets+few] {
		roundTrip(t, c, "old and new are served")
	}
	// Enough go: everybody is in, and accepting goes on as usual.
	for _, c := range conns[few : first.Sockets+few] {
		_ = c.Close()
	}
	rest := conns[first.Sockets+few:]
	for len(rest) > childLimit/2 {
		roundTrip(t, rest[0], "served")
		_ = rest[0].Close()
		rest = rest[1:]
	}
	for _, c := range rest {
		roundTrip(t, c, "served")
	}
	resumed := ask().Stats
	roundTrip(t, dialTCP(t, addr), "accepting goes on")
	if now := ask().Stats; now.AcceptPauses != resumed.AcceptPauses || now.AcceptPaused != 0 {
		t.Errorf("accepting paused after it had resumed: %+v", now)
	}
	stop()
	if !stopped {
		t.Fatal("the child has not stopped")
	}
	if n := strings.Count(log.String(), "accepting paused"); n != 1 || !strings.Contains(log.String(), "too many open files") {
		t.Errorf("accepting paused is logged %d times:\n%s", n, &log)
	}
	if n := strings.Count(log.String(), "accepting resumed"); n != 1 {
		t.Errorf("accepting resumed is logged %d times:\n%s", n, &log)
	}
}

// countFDs counts the open descriptors below limit without needing one.
func countFDs(limit int) (n int) {
	for fd := range limit {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

// childOpen makes groups and listeners with every number of descriptors too few, and checks that nothing is left of them.
func childOpen() error {
	const loops, perLoop, top = 3, 4, 100 // eventfd, timerfd, epoll and netpoll's eventfd
	for {                                 // the limit is on the number of a descriptor, so there must be no gap
		fd, err := unix.Dup(0)
		if err != nil {
			return err
		}
		if fd == countFDs(top)-1 {
			_ = unix.Close(fd)
			break
		}
	}
	used := countFDs(top)
	handler := func(int) Handler { return &echoes{} }
	goroutines := runtime.NumGoroutine()
	for free := range loops * perLoop {
		if err := setNoFile(used + free); err != nil {
			return err
		}
		g, err := NewGroup(GroupConfig{Loops: loops, Handler: handler})
		if !errors.Is(err, syscall.EMFILE) || g != nil {
			return fmt.Errorf("%d descriptors free: NewGroup says %v", free, err)
		}
		calls := []string{"eventfd", "timerfd_create", "epoll_create", "epoll_create"}
		if want := fmt.Sprintf("loop %d: %s: ", free/perLoop, calls[free%perLoop]); !strings.Contains(err.Error(), want) {
			return fmt.Errorf("%d descriptors free: %w, expected %q", free, err, want)
		}
		if n := countFDs(top); n != used {
			return fmt.Errorf("%d descriptors free: %d are left of the attempt", free, n-used)
		}
		for i := 0; runtime.NumGoroutine() > goroutines; i++ { // one that has said that it is done has still to end
			if i == 1_000_000 {
				return fmt.Errorf("%d descriptors free: %d goroutines are left of the attempt", free, runtime.NumGoroutine()-goroutines)
			}
			runtime.Gosched()
		}
	}
	if err := setNoFile(used + loops*perLoop); err != nil {
		return err
	}
	g, err := NewGroup(GroupConfig{Loops: loops, Handler: handler})
	if err != nil {
		return fmt.Errorf("enough descriptors: %w", err)
	}
	for free := range loops { // one listener per loop
		if err := setNoFile(used + loops*perLoop + free); err != nil {
			return err
		}
		if addr, err := g.Listen(local, 0, 10); !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("%d descriptors free: Listen says %v, %w", free, addr, err)
		}
		if n := countFDs(top); n != used+loops*perLoop {
			return fmt.Errorf("%d descriptors free: %d are left of listening", free, n-used-loops*perLoop)
		}
	}
	if err := setNoFile(used + loops*perLoop + loops); err != nil {
		return err
	}
	if _, err := g.Listen(local, 0, 10); err != nil {
		return fmt.Errorf("enough descriptors: %w", err)
	}
	var errno syscall.Errno
	g.Each(func(l *Loop) { _, errno = l.Dial(local, netip.Addr{}) })
	if errno != syscall.EMFILE {
		return fmt.Errorf("no descriptor for dialling: %w", errno)
	}
	g.Stop()
	if n := countFDs(top); n != used {
		return fmt.Errorf("%d descriptors are left after Stop", n-used)
	}
	return nil
}

// NewGroup, Listen and Dial fail cleanly for want of descriptors, however many there are.
func TestTooFewDescriptors(t *testing.T) {
	checkLeaks(t)
	if out, err := child(t, "open").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
