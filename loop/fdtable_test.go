package loop

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// privateTables returns, by thread, what is open in the descriptor tables that are not the process's.
func privateTables(t testing.TB) map[int]map[string]string {
	t.Helper()
	r, w, err := os.Pipe() // which only the process's table has
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	marker := fmt.Sprintf("pipe:[%d]", stat.Ino)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	private := map[int]map[string]string{}
	for _, thread := range threads {
		dir := "/proc/self/task/" + thread.Name() + "/fd"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		table := map[string]string{}
		shared := false
		for _, fd := range fds {
			if target, err := os.Readlink(dir + "/" + fd.Name()); err == nil {
				table[fd.Name()] = target
				shared = shared || target == marker
			}
		}
		if !shared && len(table) > 0 { // one without anything is about to end
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
			private[tid] = table
		}
	}
	return private
}

func noPrivateTables(t testing.TB) {
	t.Helper()
	eventually(t, "the threads with descriptor tables of their own are gone", func() bool { return len(privateTables(t)) == 0 })
	if p := privateThreads.Load(); p != nil {
		t.Errorf("%d threads are registered that have gone", len(*p))
	}
}

// ownTables starts a group whose loops have descriptor tables of their own.
func ownTables(t testing.TB, loops int) (*Group, []*echoes) {
	tablePerLoop = true
	defer func() { tablePerLoop = false }()
	return startEchoes(t, loops, nil)
}

// startRuntime has the runtime open what it opens once, so that it is no leak.
func startRuntime(t *testing.T) {
	if _, err := runtimeDescriptors(); err != nil {
		t.Fatal(err)
	}
	checkLeaks(t)
}

// A loop's table has what the loop needs and nothing else; nothing of the process's is held open by it. Its thread is
// never the first one.
func TestTableContents(t *testing.T) {
	startRuntime(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // something that must not be in it
	if err != nil {
		t.Fatal(err)
	}
	const loops = 3
	g, _ := ownTables(t, loops)
	for range 2 {
		if _, err := g.Listen(local, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	private := privateTables(t)
	if len(private) != loops || private[os.Getpid()] != nil {
		t.Fatalf("%d tables of their own, expected %d: %v", len(private), loops, private)
	}
	var tids []int
	for i, l := range g.loops {
		l.Do(func() {
			tid := unix.Gettid()
			tids = append(tids, tid)
			if private[tid] == nil {
				t.Errorf("loop %d runs on thread %d, which has the process's table", i, tid)
			}
		})
	}
	slices.Sort(tids)
	if got := slices.Sorted(maps.Keys(private)); !slices.Equal(got, tids) {
		t.Errorf("threads with their own tables are %v, the loops run on %v", got, tids)
	}
	poller, err := runtimeDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	// Eventfds: one of every loop, netpoll's, and one of the runtime's. Epolls: ours and the runtime's. Sockets: the one for
	// transfers, listeners.
	want := map[string]int{"eventfd": loops + 2, "eventpoll": 2, "timerfd": 1, "socket": 3, "std": 3}
	for tid, table := range private {
		got := map[string]int{}
		for fd, target := range table {
			n, err := strconv.Atoi(fd)
			switch {
			case err != nil:
				t.Fatal(err)
			case n <= 2:
				got["std"]++
			default:
				kind := strings.TrimPrefix(strings.TrimPrefix(target, "anon_inode:"), "[")
				got[strings.TrimRight(kind[:len(kind)-len(strings.TrimLeft(kind, "abcdefghijklmnopqrstuvwxyz"))], ":")]++
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("thread %d holds %v, expected %v: %v", tid, got, want, table)
		}
		for _, fd := range poller {
			name := strconv.Itoa(fd)
			own, err := os.Readlink("/proc/self/fd/" + name)
			if err != nil || table[name] != own {
				t.Errorf("thread %d: the runtime's descriptor %d is %q, expected %q, %v", tid, fd, table[name], own, err)
			}
		}
	}
	// What the process closes is closed.
	addr := ln.Addr().String()
	_ = ln.Close()
	if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed listener: %v, %v", c, err)
	}
}

// Threads that the runtime makes while loops run, for whatever a loop starts, have the process's table.
func TestTableNotInherited(t *testing.T) {
	startRuntime(t)
	const loops, blocking = 3, 40
	g, _ := ownTables(t, loops)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	before, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	var wrong atomic.Int32
	var blocked atomic.Int32
	for _, l := range g.loops {
		l.Do(func() {
			for range blocking {
				wait.Go(func() { // each takes a thread of its own
					if _, err := unix.FcntlInt(w.Fd(), unix.F_GETFD, 0); err != nil {
						wrong.Add(1)
					}
					blocked.Add(1)
					var b [1]byte
					_, _ = unix.Read(int(r.Fd()), b[:]) // in the kernel, until the end of w: Fd made it blocking
				})
			}
			runtime.Gosched()
			// The loop's goroutine itself waits, which makes the runtime look for a thread in its place.
			tick := time.NewTicker(time.Millisecond)
			for range 20 {
				<-tick.C
			}
			tick.Stop()
		})
	}
	eventually(t, "all are blocked", func() bool { return blocked.Load() == loops*blocking })
	after, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(after) < loops*blocking {
		t.Errorf("%d threads, %d before: none was made", len(after), len(before))
	}
	if n := len(privateTables(t)); n != loops || wrong.Load() != 0 {
		t.Errorf("%d threads have tables of their own, expected %d; %d goroutines met a strange one", n, loops, wrong.Load())
	}
	_ = w.Close()
	wait.Wait()
}

// Timers that a loop's goroutine sets wake the runtime's poller, which is in no table of a loop by itself; and a goroutine
// that reads from a connection is still woken.
func TestTableTimers(t *testing.T) {
	startRuntime(t)
	g, _ := ownTables(t, 2)
	for i := range 300 {
		fired := make(chan struct{})
		g.loops[i%2].Do(func() { time.AfterFunc(time.Microsecond, func() { close(fired) }) })
		<-fired
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		g.loops[0].Do(func() {})
		_, _ = w.Write([]byte("x"))
		_ = w.Close()
	}()
	if n, err := r.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// Loops post to each other, within a group and from group to group, whatever tables they have, and no byte of it gets into a
// socket.
func TestTableWake(t *testing.T) {
	startRuntime(t)
	shared, _ := startEchoes(t, 2, nil)
	first, _ := ownTables(t, 2)
	addr, err := first.Listen(local, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*net.TCPConn
	for range 100 { // so that the numbers of the next group's eventfds are sockets' in the tables of this one
		c := dialTCP(t, addr)
		roundTrip(t, c, "hello")
		conns = append(conns, c)
	}
	second, _ := ownTables(t, 2)
	all := slices.Concat(shared.loops, first.loops, second.loops)
	for _, from := range all {
		for _, to := range all {
			for range 5 {
				done := make(chan struct{})
				from.Do(func() { to.PostFunc(func() { close(done) }) })
				select {
				case <-done:
				case <-time.After(deadline):
					t.Fatal("a task did not run")
				}
			}
		}
	}
	for _, c := range conns {
		roundTrip(t, c, "nothing else")
	}
	// Posting to a group that is being stopped, from elsewhere.
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, from := range slices.Concat(shared.loops, first.loops) {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					from.Do(func() { second.loops[0].PostFunc(func() {}) })
				}
			}
		})
	}
	second.Stop()
	close(stop)
	wait.Wait()
}

// A locked thread is never the first one of the process, and ends with its goroutine.
func TestOnOwnThread(t *testing.T) {
	startRuntime(t)
	const n = 100
	var first atomic.Int32
	var done, started sync.WaitGroup
	hold := make(chan struct{})
	done.Add(n)
	started.Add(n)
	for range n { // more than there are, so that the first one has its turn
		onOwnThread(func() {
			defer done.Done()
			if unix.Gettid() == unix.Getpid() {
				first.Add(1)
			}
			started.Done()
			<-hold
		})
	}
	started.Wait()
	close(hold)
	done.Wait()
	if first.Load() != 0 {
		t.Error("the first thread was taken")
	}
}

// On a kernel without close_range, or where a filter forbids it, there is no group, and nothing is left of it.
func TestTablesRefused(t *testing.T) {
	startRuntime(t)
	defer func() { closeRange = unix.CloseRange }()
	var calls atomic.Int32
	closeRange = func(first, last, flags uint) error {
		if flags&unix.CLOSE_RANGE_UNSHARE != 0 && calls.Add(1) == 2 {
			return syscall.ENOSYS
		}
		return unix.CloseRange(first, last, flags)
	}
	g, err := NewGroup(GroupConfig{Loops: 3, Handler: func(int) Handler { return &echoes{} }, TablePerLoop: true})
	if !errors.Is(err, syscall.ENOSYS) || g != nil || !strings.Contains(err.Error(), "loop 1: a descriptor table of its own") {
		t.Errorf("%v", err)
	}
}

// More descriptors than one message carries go from table to table, to the last one.
func TestTransferMany(t *testing.T) {
	startRuntime(t)
	g, _ := ownTables(t, 1)
	addr, err := g.Listen(local, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2*maxRights + 7
	fds, err := g.bring(0, func() (fds []int) {
		for range n {
			fds = append(fds, g.kernels[0].listeners[0].op.FD)
		}
		return fds
	})
	if err != nil || len(fds) != n {
		t.Fatalf("%d descriptors of %d, %v", len(fds), n, err)
	}
	for _, fd := range fds {
		if a, err := ListeningOn(fd); err != nil || a != addr {
			t.Fatalf("listens on %v, %v", a, err)
		}
	}
	closeAll(fds)
	fds, err = g.bring(0, func() []int { return []int{g.kernels[0].listeners[0].op.FD, 1 << 20} })
	if !errors.Is(err, syscall.EBADF) || len(fds) != 0 {
		t.Errorf("a descriptor that is not open: %v, %v", fds, err)
	}
	if fds, err = g.bring(0, func() []int { return nil }); err != nil || len(fds) != 0 {
		t.Errorf("none: %v, %v", fds, err)
	}
	if _, err := g.Adopt(nil, 0); err == nil {
		t.Error("nothing is adopted")
	}
}

// The children: one process with 2 loops and a low limit, each loop with a table or both with one.

// tableLimit is the limit of open files that a child gives itself.
const tableLimit = 200

func init() {
	children["tables"] = func() error { return childTables(true) }
	children["table"] = func() error { return childTables(false) }
	children["handover"] = childHandover
}

// childTables has two loops dial a listener of a third one till nothing more goes. With own tables the loops hold what they
// have at the same time, one full loop does not keep the other from accepting, and dialling says EMFILE.
func childTables(own bool) error {
	server := &echoes{}
	sg, err := NewGroup(GroupConfig{Loops: 1, Handler: func(int) Handler { return server }, Attach: func(_ int, l *Loop) { server.Loop = l }, TablePerLoop: own})
	if err != nil {
		return err
	}
	defer sg.Stop()
	var handlers [2]*echoes
	g, err := NewGroup(GroupConfig{Loops: 2, Handler: func(i int) Handler { handlers[i] = &echoes{dialed: make(chan error, 1000)}; return handlers[i] },
		Attach: func(i int, l *Loop) { handlers[i].Loop = l }, TablePerLoop: own})
	if err != nil {
		return err
	}
	defer g.Stop()
	if err := setNoFile(tableLimit); err != nil {
		return err
	}
	// A socket that is bound and listens and from which nobody accepts: the kernel connects all the same.
	fd, err := listen(local, 4096, listenAlone)
	if err != nil {
		return err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	var sockets [2]int
	for i, l := range g.loops {
		l.Do(func() {
			for {
				if _, errno := l.Dial(addrPort(sa), netip.Addr{}); errno != 0 {
					if err = nil; errno != syscall.EMFILE {
						err = errno
					}
					sockets[i] = l.Open()
					return
				}
			}
		})
		if err != nil {
			return err
		}
	}
	for i, n := range sockets {
		least := tableLimit - 20
		if !own && i == 1 {
			least = 0
		}
		if n < least || n > tableLimit || !own && i == 1 && n > 0 {
			return fmt.Errorf("loop %d holds %d sockets, own tables %v", i, n, own)
		}
	}
	// The server's loop has its own table, or that which is full now.
	addr, err := sg.Listen(local, 0, 10)
	if own != (err == nil) {
		return fmt.Errorf("another loop listens with %w, own tables %v", err, own)
	}
	if !own {
		return nil
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("the process's table: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("a loop with room: %w", err)
	}
	return nil
}

// childHandover: a descriptor for which there is no room in the loop's table, or in the process's, is refused; later, with
// room, all is as if nothing had been.
func childHandover() error {
	h := &echoes{dialed: make(chan error, 1000)}
	g, err := NewGroup(GroupConfig{Loops: 1, Handler: func(int) Handler { return h }, Attach: func(_ int, l *Loop) { h.Loop = l }, TablePerLoop: true})
	if err != nil {
		return err
	}
	defer g.Stop()
	if err := setNoFile(tableLimit); err != nil {
		return err
	}
	fd, err := listen(local, 4096, listenAlone)
	if err != nil {
		return err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if _, err := g.Listen(local, 0, 10); err != nil {
		return err
	}
	l := g.loops[0]
	l.Do(func() {
		for errno := syscall.Errno(0); errno == 0; {
			_, errno = l.Dial(addrPort(sa), netip.Addr{})
		}
	})
	if _, err := g.Adopt([]int{fd}, 0); !errors.Is(err, syscall.EMFILE) {
		return fmt.Errorf("adopting into a full table: %w", err)
	}
	l.Do(func() { l.Close(0) })
	if _, err := g.Adopt([]int{fd}, 0); err != nil {
		return fmt.Errorf("adopting with room for one: %w", err)
	}
	var filled []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			break
		}
		filled = append(filled, fd)
	}
	if all, err := g.Listening(); !errors.Is(err, syscall.EMFILE) || len(all) != 0 {
		return fmt.Errorf("handing on into a full table: %v, %w", all, err)
	}
	_ = unix.Close(filled[0])
	if all, err := g.Listening(); !errors.Is(err, syscall.EMFILE) || len(all) != 0 {
		return fmt.Errorf("handing on two with room for one: %v, %w", all, err)
	}
	closeAll(filled[1:3])
	all, err := g.Listening()
	if err != nil || len(all) != 2 {
		return fmt.Errorf("handing on with room: %v, %w", all, err)
	}
	return nil
}

// Two loops with tables of their own hold twice what one table holds, and each is limited by itself.
func TestTableLimits(t *testing.T) {
	for _, name := range []string{"tables", "table", "handover"} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			if out, err := child(t, name).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Loops with a table each have a P each, and two are left; what is higher, or was asked for, stays.
func TestRaiseProcs(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for _, test := range []struct {
		env              string
		had, loops, want int
	}{
		{"", 2, 1, 3}, {"", 2, 60, 62}, {"", 62, 60, 62}, {"", 63, 60, 63}, {"", 61, 60, 62}, {"2", 2, 60, 2},
	} {
		t.Setenv("GOMAXPROCS", test.env)
		runtime.GOMAXPROCS(test.had)
		RaiseProcs(test.loops)
		if got := runtime.GOMAXPROCS(0); got != test.want {
			t.Errorf("%+v: GOMAXPROCS is %d", test, got)
		}
	}
}
