package loop

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
)

// What this package takes from netpoll beyond its exported API. It fails when a version of netpoll no longer fits.
func TestNetpollSeam(t *testing.T) {
	checkLeaks(t)
	poll, err := openPoll()
	if err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeOf(poll).Elem()
	field := func(name string) reflect.Type {
		f, ok := typ.FieldByName(name)
		if !ok {
			t.Fatalf("%v has no field %s", typ, name)
		}
		return f.Type
	}
	if err := sameLayout(field("Handler"), reflect.TypeFor[func([]epollEvent) bool]()); err != nil {
		t.Errorf("Handler: %v", err)
	}
	if got, want := field("Reset"), reflect.TypeFor[func(int, int)](); got != want {
		t.Errorf("Reset is %v, expected %v", got, want)
	}
	if got, want := field("wop"), reflect.TypeFor[*netpoll.FDOperator](); got != want {
		t.Errorf("wop is %v, expected %v", got, want)
	}
	if got := field("fd"); got.Kind() != reflect.Int {
		t.Errorf("fd is %v, expected int", got)
	}
	if size, want := unsafe.Sizeof(epollEvent{}), unsafe.Sizeof(unix.EpollEvent{}); size != want {
		t.Errorf("an event has %d bytes, the kernel's has %d", size, want)
	}

	// Close and Wait, with our handler in place, give both descriptors back (checkLeaks).
	k := &epoll{poll: poll, stopped: true}
	k.loop = New(Config{Kernel: k, Handler: &echoes{}})
	if err := k.seam(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{k.wop.FD, int(reflect.ValueOf(poll).Elem().FieldByName("fd").Int())} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is inherited by children: flags %#x, %v", fd, flags, err)
		}
	}
	k.wake.FD, k.timer.FD = -1, -1
	k.abandon()
}

func TestSameLayout(t *testing.T) {
	type good struct {
		A uint32
		B [8]byte
	}
	type renamed struct {
		Events uint32
		Data   [8]byte
	}
	type padded struct {
		A uint32
		_ int32
		B [8]byte
	}
	type swapped struct {
		B [8]byte
		A uint32
	}
	type otherType struct {
		A int32
		B [8]byte
	}
	type aligned struct {
		A uint32
		B uint64
	}
	type oneField struct{ A [12]byte }
	mirror := reflect.TypeFor[func([]good) bool]()
	for _, test := range []struct {
		got  reflect.Type
		want string // a part of the error; empty: none
	}{
		{mirror, ""},
		{reflect.TypeFor[func([]renamed) bool](), ""},
		{reflect.TypeFor[func([]padded) bool](), "16 bytes and 3 fields, expected 12 and 2"},
		{reflect.TypeFor[func([]oneField) bool](), "12 bytes and 1 fields, expected 12 and 2"},
		{reflect.TypeFor[func([]swapped) bool](), "field 0 of an event is [8]uint8 at 0, expected uint32 at 0"},
		{reflect.TypeFor[func([]otherType) bool](), "field 0 of an event is int32 at 0, expected uint32 at 0"},
		{reflect.TypeFor[func([]aligned) bool](), "16 bytes and 2 fields"},
		{reflect.TypeFor[func([]good)](), "expected func"},
		{reflect.TypeFor[func([]good) int](), "expected func"},
		{reflect.TypeFor[func([]good) (bool, error)](), "expected func"},
		{reflect.TypeFor[func([]good, int) bool](), "expected func"},
		{reflect.TypeFor[func(...good) bool](), "expected func"},
		{reflect.TypeFor[func([2]good) bool](), "expected func"},
		{reflect.TypeFor[func([]*good) bool](), "expected func"},
		{reflect.TypeFor[func() bool](), "expected func"},
		{reflect.TypeFor[bool](), "expected func"},
	} {
		err := sameLayout(test.got, mirror)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: %v, expected %q", test.got, err, test.want)
		}
	}
}

// wrongPoll is a netpoll.Poll with the fields that another version might have.
type wrongPoll[H, R, W, F any] struct {
	netpoll.Poll
	Handler H
	Reset   R
	wop     W
	fd      F
}

// A netpoll that does not fit is refused before anything of it is touched.
func TestSeamRefuses(t *testing.T) {
	type handler = func([]epollEvent) bool
	type reset = func(int, int)
	type wop = *netpoll.FDOperator
	for _, test := range []struct {
		poll netpoll.Poll
		want string
	}{
		{&struct{ netpoll.Poll }{}, "no fields"},
		{&wrongPoll[func(), reset, wop, int]{}, "Handler is func()"},
		{&wrongPoll[handler, reset, uintptr, int]{}, "wop is uintptr"},
		{&wrongPoll[handler, reset, wop, string]{}, "fd string"},
		{&wrongPoll[handler, func(int), wop, int]{wop: &netpoll.FDOperator{FD: -1}, fd: -1}, "Reset is func(int)"},
	} {
		k := &epoll{poll: test.poll}
		if err := k.seam(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%T: %v, expected %q", test.poll, err, test.want)
		}
	}
}

// The memory per idle socket: see the comment on socket.
func TestSizeof(t *testing.T) {
	if got := unsafe.Sizeof(socket{}); got != 128 {
		t.Errorf("a socket has %d bytes, expected 128", got)
	}
	if got := unsafe.Sizeof(netpoll.FDOperator{}); got != 104 {
		t.Errorf("an operator has %d bytes, expected 104", got)
	}
	var s socket
	if got := unsafe.Sizeof(s.op) + unsafe.Sizeof(s.out) + unsafe.Sizeof(s.slot) + unsafe.Sizeof(s.gen) + unsafe.Sizeof(s.err) +
		unsafe.Sizeof(s.flags) + unsafe.Sizeof(s.interest) + 3; got != unsafe.Sizeof(s) {
		t.Errorf("the fields add up to %d bytes of %d", got, unsafe.Sizeof(s))
	}
	if unsafe.Offsetof(s.op) != 0 || unsafe.Offsetof(listener{}.op) != 0 {
		t.Error("the operator is not the first field, but its address stands for the whole")
	}
	if got := unsafe.Sizeof(unit{}); got != 16 {
		t.Errorf("a unit has %d bytes, expected 16", got)
	}
	// What the allocator makes of it: nothing may be lost to rounding.
	const chunks = 100
	var before, after runtime.MemStats
	kept := make([]*chunk, chunks)
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = new(chunk)
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	if got := (after.TotalAlloc - before.TotalAlloc) / (chunks * chunkSlots); got != 128 {
		t.Errorf("a socket takes %d bytes of the heap, expected 128", got)
	}
}

// readyCounter counts the sockets that it is called for.
type readyCounter struct {
	echoes
	seen map[uint32]int
}

func (r *readyCounter) OnData(slot uint32, _ []byte) { r.seen[slot]++ }

// When many more sockets are ready at once than the event array holds, none is lost, and the array keeps its bound.
func TestEventArrayBound(t *testing.T) {
	checkLeaks(t)
	const n = 3000
	if n < 2*maxEvents {
		t.Fatal("too few sockets")
	}
	h := &readyCounter{seen: make(map[uint32]int)}
	g, err := NewGroup(GroupConfig{Loops: 1, Handler: func(int) Handler { return h }, Attach: func(_ int, l *Loop) { h.Loop = l }})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Stop()
	var far []int
	defer func() {
		for _, fd := range far {
			_ = unix.Close(fd)
		}
	}()
	var before uint64
	g.Each(func(l *Loop) { // while the loop is in here it sees nothing: all of them become ready at once
		for range n {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			far = append(far, pair[1])
			l.Accept(pair[0], 0, netip.AddrPort{})
			if _, err := unix.Write(pair[1], []byte("x")); err != nil {
				t.Error(err)
			}
		}
		before = l.stats.Turns
	})
	eventually(t, "all sockets are served", func() bool { return sum(g, func(*Loop) int { return len(h.seen) }) == n })
	g.Each(func(l *Loop) {
		for slot, times := range h.seen {
			if times != 1 {
				t.Errorf("slot %d was served %d times", slot, times)
			}
		}
		k := g.kernels[0]
		v := reflect.ValueOf(k.poll).Elem()
		size, events := v.FieldByName("size").Int(), v.FieldByName("events")
		if size != maxEvents || events.Len() != maxEvents || events.Cap() > maxEvents*5/4 || k.events != maxEvents {
			t.Errorf("the event array has %d entries (%d, capacity %d, %d), expected %d", size, events.Len(), events.Cap(), k.events, maxEvents)
		}
		if barriers := v.FieldByName("barriers"); barriers.Index(0).FieldByName("bs").Cap() != 0 {
			t.Error("netpoll's barriers, 1.3 KB per event, are there")
		}
		// 128 + 256 + 512 + 1024 + 1024 + 56 sockets, and turns of the tasks that looked.
		if turns := l.stats.Turns - before; turns < 6 {
			t.Errorf("%d turns for %d sockets, %d at a time", turns, n, maxEvents)
		}
	})
}

// What happens when epoll_ctl fails: nothing is registered afterwards, whatever the step was.
func TestWatchErrors(t *testing.T) {
	checkLeaks(t)
	g, _ := startEchoes(t, 1, nil)
	defer g.Stop()
	g.Each(func(*Loop) {
		k := g.kernels[0]
		op := &netpoll.FDOperator{FD: -1}
		for from := WatchNone; from <= WatchWrite; from++ {
			for to := WatchNone; to <= WatchWrite; to++ {
				if from == to {
					continue
				}
				if err := k.Watch(op, from, to); err == nil {
					t.Errorf("watching a descriptor that is none, from %d to %d, gives no error", from, to)
				}
			}
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		op.FD = pair[0]
		registered := func() bool { // epoll_ctl(ADD) says so
			fd := int(reflect.ValueOf(k.poll).Elem().FieldByName("fd").Int())
			err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, op.FD, &unix.EpollEvent{})
			if err == nil {
				_ = unix.EpollCtl(fd, unix.EPOLL_CTL_DEL, op.FD, nil)
			}
			return err == unix.EEXIST
		}
		at := WatchNone // every change there is
		for _, to := range []Interest{WatchRead, WatchReadWrite, WatchRead, WatchWrite, WatchRead, WatchNone, WatchReadWrite, WatchWrite,
			WatchReadWrite, WatchNone, WatchWrite, WatchNone} {
			if err := k.Watch(op, at, to); err != nil {
				t.Errorf("from %d to %d: %v", at, to, err)
			}
			if got, want := registered(), to != WatchNone; got != want {
				t.Errorf("from %d to %d: registered %v", at, to, got)
			}
			at = to
		}
		// It is registered already, so this ADD fails; what is there goes.
		if err := k.Watch(op, WatchNone, WatchRead); err != nil {
			t.Error(err)
		}
		if err := k.Watch(op, WatchNone, WatchRead); err == nil || registered() {
			t.Errorf("a second ADD: %v, registered %v", err, registered())
		}
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
	})
}

// An open that fails late gives everything back.
func TestAbandon(t *testing.T) {
	checkLeaks(t)
	k, err := newEpoll(base, discard, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	k.loop = New(Config{Kernel: k, Handler: &echoes{}, Log: discard})
	k.loop.PostFunc(func() { t.Error("a task runs") })
	_ = unix.Close(k.wake.FD)
	k.wake.FD = -1 // epoll_ctl fails with EBADF, after the poll has been opened
	err = k.open()
	if err == nil || !strings.Contains(err.Error(), "epoll_ctl(eventfd): bad file descriptor") {
		t.Errorf("%v", err)
	}
	k.loop.closeTasks()
	k.abandon()
}

func TestKernelCalls(t *testing.T) {
	checkLeaks(t)
	k := &epoll{log: discard}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair[0], pair[1]
	buf := make([]byte, 100)
	if n, errno := k.Read(a, buf); n != -1 || errno != syscall.EAGAIN {
		t.Errorf("read with nothing there: %d %v", n, errno)
	}
	v := [][]byte{[]byte("one"), nil, []byte("two")}
	for len(v) < maxIovecs {
		v = append(v, []byte{byte(len(v))})
	}
	want := bytes.Join(v, nil)
	if n, errno := k.Writev(b, v); n != len(want) || errno != 0 {
		t.Errorf("writev: %d %v", n, errno)
	}
	if n, errno := k.Read(a, buf); n != len(want) || errno != 0 || !bytes.Equal(buf[:n], want) {
		t.Errorf("read: %d %v %q", n, errno, buf[:max(n, 0)])
	}
	if n, errno := k.Write(b, []byte("x")); n != 1 || errno != 0 {
		t.Errorf("write: %d %v", n, errno)
	}
	if errno := k.ShutdownWrite(b); errno != 0 {
		t.Errorf("shutdown: %v", errno)
	}
	for want := 1; want >= 0; want-- {
		if n, errno := k.Read(a, buf); n != want || errno != 0 {
			t.Errorf("read: %d %v, expected %d", n, errno, want)
		}
	}
	k.Close(b, false)
	for range 2 { // an error, not SIGPIPE
		if n, errno := k.Write(a, []byte("x")); n != -1 || errno != syscall.EPIPE {
			t.Errorf("write to nobody: %d %v", n, errno)
		}
		if n, errno := k.Writev(a, [][]byte{[]byte("x"), []byte("y")}); n != -1 || errno != syscall.EPIPE {
			t.Errorf("writev to nobody: %d %v", n, errno)
		}
	}
	k.Close(a, false)
	if errno := errnoOf(fmt.Errorf("wrapped: %w", os.ErrClosed)); errno != syscall.EIO {
		t.Errorf("%v", errno)
	}
	if errno := errnoOf(fmt.Errorf("wrapped: %w", unix.EMFILE)); errno != unix.EMFILE {
		t.Errorf("%v", errno)
	}
	if got := k.Local(-1); got.IsValid() {
		t.Errorf("the address of no socket is %v", got)
	}
}
