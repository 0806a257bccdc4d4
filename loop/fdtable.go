package loop

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tables is what the loops of a group share when each has a descriptor table of its own (GroupConfig.TablePerLoop).
//
// RLIMIT_NOFILE limits the descriptors of one table. A table is usually the process's, but a thread may leave it for one of
// its own (unshare(2), CLONE_FILES), and with it gets a limit of its own. So the goroutine of such a loop is locked to a
// thread for good, and the thread ends with it. A descriptor then means something in its own table only, which has
// consequences:
//
//   - Other goroutines must not inherit the table. New threads have the table of the thread that made them; the runtime lets
//     a thread that is known to be in order make them whenever the one that wants them is locked (newm in runtime/proc.go).
//   - What a loop's table does not need must not stay in it: a listener that the process closes would go on to listen. All
//     is closed but what follows.
//   - The standard streams stay, for the log, and so do the descriptors of the runtime's own poller: a goroutine that sets
//     a timer writes to them, on whatever thread it is.
//   - Posting to a loop writes to its eventfd, from any thread. So the eventfds of the group are made before the tables are,
//     and each has one number in all of them: it costs every table one descriptor per loop. A thread with a table of
//     another group has not got them; see epoll.Wake.
//   - Listening sockets go from table to table over a pair of unix sockets (SCM_RIGHTS), of which every loop keeps one end.
//
// Of the group's descriptors the process's table keeps one per loop and two.
type tables struct {
	wakes []int // the eventfd of each loop
	keep  []int // what stays open in a loop's table, ascending

	mu   sync.Mutex // held for one transfer
	pair [2]int     // for transfers: the process's end, the loops' end; -1: closed
}

// RaiseProcs sets GOMAXPROCS to what so many loops with a table each need, unless it is higher or the environment has it.
//
// Such a loop is a thread, and a thread that comes back from epoll_wait(2) needs one of Go's Ps. With fewer of them than
// loops it finds none: it goes to sleep, and whoever has a P wakes it by a futex and hands it over, while sysmon spends a
// tenth of a processor on taking Ps from those that wait. With a P for each the kernel alone schedules: 12 loops on two
// processors opened 200,000 connections in 12.7 and 15.3 s instead of 16.8 and 18.2, with a tenth less CPU time.
// Two more are for other goroutines. Call it before the group is made.
func RaiseProcs(loops int) {
	if n := loops + 2; os.Getenv("GOMAXPROCS") == "" && n > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}

// isPollDescriptor reports whether fd belongs to the runtime's own poller. The runtime offers this symbol for linking, for
// programs that close all descriptors but those (runc).
//
//go:linkname isPollDescriptor internal/poll.IsPollDescriptor
func isPollDescriptor(fd uintptr) bool

// maxPollDescriptor bounds the search for the runtime's descriptors: Linux's default fs.nr_open, the most that a table may
// hold. They are opened early, so their numbers are small; the search takes 2 ms.
const maxPollDescriptor = 1 << 20

// runtimeDescriptors returns the descriptors of the runtime's own poller, after seeing to it that it has been started: on a
// loop's thread it would open them in the loop's table, for the whole process.
var runtimeDescriptors = sync.OnceValues(func() (fds []int, err error) {
	r, w, err := os.Pipe() // which the poller watches
	if err != nil {
		return nil, err
	}
	_, _ = r.Close(), w.Close() // nothing was written
	for fd := range maxPollDescriptor {
		if isPollDescriptor(uintptr(fd)) {
			fds = append(fds, fd)
		}
	}
	if len(fds) == 0 {
		return nil, errors.New("the descriptors of Go's own poller were not found")
	}
	return fds, nil
})

// newTables opens what the given number of loops need. On a thread with the process's table, as all that follows but for
// enter and leave.
func newTables(loops int) (t *tables, err error) {
	t = &tables{pair: [2]int{-1, -1}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	poller, err := runtimeDescriptors()
	if err != nil {
		return nil, err
	}
	if t.pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		t.pair = [2]int{-1, -1}
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	for range loops {
		fd, err := newEventfd()
		if err != nil {
			return nil, err
		}
		t.wakes = append(t.wakes, fd)
	}
	t.keep = slices.Concat([]int{0, 1, 2}, poller, t.wakes, t.pair[1:])
	slices.Sort(t.keep)
	return t, nil
}

// close gives back what the process's table holds. When the loops have ended.
func (t *tables) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, fd := range append(t.wakes, t.pair[:]...) {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing waits in it that anybody wants
		}
	}
	t.wakes, t.pair = nil, [2]int{-1, -1}
}

// privateThreads are the threads that have a table of their own, and whose it is; nil: there are none. The map is replaced,
// never changed, under privateMu.
var (
	privateMu      sync.Mutex
	privateThreads atomic.Pointer[map[int]*tables]
)

func (t *tables) register(tid int, private bool) {
	privateMu.Lock()
	defer privateMu.Unlock()
	threads := map[int]*tables{}
	if old := privateThreads.Load(); old != nil {
		threads = maps.Clone(*old)
	}
	if private {
		threads[tid] = t
	} else {
		delete(threads, tid)
	}
	if len(threads) == 0 {
		privateThreads.Store(nil)
		return
	}
	privateThreads.Store(&threads)
}

var closeRange = unix.CloseRange // tests have it fail

// enter gives the calling thread a table of its own. Its goroutine is locked to it. After an error it has the process's, as
// before.
func (t *tables) enter() error {
	// The first call makes the table. Closing all above the last one that stays belongs to it, so that what the process has
	// open there is not even copied (Linux 5.9). Unlike unshare(2) it is allowed in Docker's default seccomp profile.
	last := t.keep[len(t.keep)-1]
	t.register(unix.Gettid(), true)
	if err := closeRange(uint(last+1), math.MaxUint32, unix.CLOSE_RANGE_UNSHARE); err != nil {
		t.leave()
		return fmt.Errorf("a descriptor table of its own: close_range: %w", err)
	}
	for i, fd := range t.keep[1:] {
		if from, to := t.keep[i]+1, fd-1; from <= to {
			if err := closeRange(uint(from), uint(to), 0); err != nil { // it has no cause to fail
				panic("loop: close_range: " + err.Error())
			}
		}
	}
	return nil
}

// leave says that the calling thread is about to end.
func (t *tables) leave() { t.register(unix.Gettid(), false) }

// onOwnThread runs f on a new goroutine that is locked to its thread, which ends with it. It is never the first thread of the
// process: that one does not end, and its table is what others take for the process's (/proc/PID/fd, pidfd_getfd(2)).
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		go func() { // on another one, since this one is taken
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}

// maxRights is how many descriptors one message may carry (SCM_MAX_FD).
const maxRights = 253

// send sends duplicates of fds through the socket via.
func send(via int, fds []int) error {
	for part := range slices.Chunk(fds, maxRights) {
		// The byte is there because a message without any looks like the end of the stream.
		if err := unix.Sendmsg(via, []byte{0}, unix.UnixRights(part...), nil, unix.MSG_NOSIGNAL); err != nil {
			return fmt.Errorf("sendmsg: %w", err)
		}
	}
	return nil
}

// receive takes n descriptors that wait in the socket via; after an error none is left, there or here.
func receive(via, n int) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
			for rest, failed := receiveSome(via); !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EBADF); rest, failed = receiveSome(via) {
				closeAll(rest)
			}
		}
	}()
	for len(fds) < n {
		some, err := receiveSome(via)
		fds = append(fds, some...)
		if err != nil {
			return fds, err
		}
	}
	return fds, nil
}

// receiveSome takes the descriptors of one message, some of them with an error.
func receiveSome(via int) (fds []int, err error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*maxRights))
	_, n, flags, _, err := unix.Recvmsg(via, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("recvmsg: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	if flags&unix.MSG_CTRUNC != 0 { // what the table has no room for is left out
		return fds, fmt.Errorf("recvmsg: %w", unix.EMFILE)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // a duplicate
	}
}

// bring runs f on loop i and returns duplicates, in the caller's table, of the descriptors that f returns.
func (g *Group) bring(i int, f func() []int) (fds []int, err error) {
	stopped := fmt.Errorf("loop %d has stopped", i)
	t := g.tables
	if t == nil {
		if !g.loops[i].Do(func() { fds, err = duplicateAll(f()) }) {
			return nil, stopped
		}
		return fds, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	if !g.loops[i].Do(func() { own := f(); n, err = len(own), send(t.pair[1], own) }) {
		return nil, stopped
	}
	if err != nil {
		_, _ = receive(t.pair[0], n) // what has been sent
		return nil, err
	}
	return receive(t.pair[0], n)
}

// take runs f on loop i with a duplicate of fd, of the caller's table, in the loop's; it belongs to f. The error is f's, or
// why f has not run.
func (g *Group) take(i, fd int, f func(own int) error) (err error) {
	stopped := errors.New("the loop has stopped")
	t := g.tables
	if t == nil {
		ran := g.loops[i].Do(func() {
			var own int
			if own, err = Duplicate(fd); err == nil {
				err = f(own)
			}
		})
		if !ran {
			return stopped
		}
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair[0] < 0 {
		return stopped
	}
	if err := send(t.pair[0], []int{fd}); err != nil {
		return err
	}
	ran := g.loops[i].Do(func() {
		var own []int
		if own, err = receive(t.pair[1], 1); err == nil {
			err = f(own[0])
		}
	})
	if !ran {
		fds, _ := receive(t.pair[1], 1)
		closeAll(fds)
		return stopped
	}
	return err
}

func duplicateAll(fds []int) (all []int, err error) {
	for _, fd := range fds {
		own, err := Duplicate(fd)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, own)
	}
	return all, nil
}

// newEpoll makes the part of loop i's kernel that other goroutines need: the eventfd. open makes the rest, on the loop's
// goroutine.
func newEpoll(base time.Time, log *slog.Logger, t *tables, i int) (k *epoll, err error) {
	k = &epoll{base: base, log: log, tables: t}
	k.timer.FD = -1
	if t != nil {
		k.wake.FD = t.wakes[i]
		return k, nil
	}
	k.wake.FD, err = newEventfd()
	return k, err
}

func newEventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	return fd, nil
}

// waitLocked is wait on a thread that the goroutine is locked to. netpoll's Wait calls runtime.Gosched before it blocks,
// which for a locked goroutine means to wake another thread, sleep, and be woken by it: four switches per turn.
func (k *epoll) waitLocked() error {
	events := make([]epollEvent, 128)
	for {
		n, err := unix.EpollWait(k.fd, unsafe.Slice((*unix.EpollEvent)(unsafe.Pointer(&events[0])), len(events)), -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 && k.handle(events[:n]) {
			return nil
		}
		if n == len(events) && n < maxEvents {
			events = make([]epollEvent, min(2*n, maxEvents))
		}
	}
}

// inReach reports whether the calling thread's table has the loop's eventfd.
func (k *epoll) inReach() bool {
	private := privateThreads.Load()
	if private == nil {
		return true
	}
	t, own := (*private)[unix.Gettid()]
	return !own || t == k.tables
}

// Wake implements Kernel.
func (k *epoll) Wake() {
	if k.inReach() {
		k.signal()
		return
	}
	// The number may be a client's socket here. A new goroutine is not locked, so its thread has the process's table, and the
	// lock keeps the descriptor from being closed.
	go func() {
		t := &k.loop.tasks
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.closed {
			k.signal()
		}
	}()
}

// signal has the loop run a turn.
func (k *epoll) signal() {
	one := [8]byte{1} // any nonzero number does
	for {
		if _, err := unix.Write(k.wake.FD, one[:]); err != syscall.EINTR {
			return // EAGAIN: the counter is full, so the loop is about to wake anyway
		}
	}
}
