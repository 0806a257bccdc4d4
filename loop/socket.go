package loop

import (
	"net/netip"
	"syscall"

	"github.com/cloudwego/netpoll"
)

type socketFlags uint16

const (
	inUse         socketFlags = 1 << iota // the slot holds a socket; cleared by Close
	connecting                            // Dial has not ended
	dirty                                 // in Loop.dirty: has output to write at the end of the turn
	blocked                               // the kernel took only a part; waiting for writability
	sawEOF                                // the peer's FIN was read
	readPaused                            // PauseRead
	notifyDrained                         // the handler wants OnDrained
	inNotify                              // in Loop.notify
	inErrors                              // in Loop.errors: err is to be reported
	shutdownDone                          // our FIN is sent or on its way
)

// socket is one slot of the slab. Sum per socket [bytes], kept by TestSizeof:
//
//	104  op: netpoll's FDOperator; its address is what epoll hands back, its FD the descriptor. It is embedded here
//	     rather than taken from netpoll's cache (12 bytes more and a pointer), and needs no closures (16 to 24 each),
//	     since this package brings its own event handler: see epoll.go.
//	  8  out: output that waits; nil when idle
//	  4  slot
//	  4  gen
//	  2  err
//	  2  flags
//	  1  interest, and 3 to make it even
//	---
//	128, and 12 for the timer's entry in the wheel
type socket struct {
	op       netpoll.FDOperator // first field: the address of op is the address of the socket
	out      *queue
	slot     uint32
	gen      uint32
	err      uint16 // errno that ended it, until reported
	flags    socketFlags
	interest Interest
}

type chunk [chunkSlots]socket

func (l *Loop) at(slot uint32) *socket { return &l.chunks[slot/chunkSlots][slot%chunkSlots] }

// newSocket takes a free slot for fd. ok is false when the slab is full.
func (l *Loop) newSocket(fd int) (s *socket, ok bool) {
	if len(l.free) == 0 && !l.grow() {
		return nil, false
	}
	slot := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	s = l.at(slot)
	s.op.FD, s.flags, s.err, s.interest = fd, inUse, 0, WatchNone
	l.timers.Cancel(slot) // one set for the slot after its last socket was closed would hit a stranger
	l.open++
	return s, true
}

func (l *Loop) grow() bool {
	base := uint32(len(l.chunks) * chunkSlots)
	usable := min(l.maxSlots-int(base), chunkSlots) // of the last chunk maybe not all
	if usable <= 0 {
		return false
	}
	c := new(chunk)
	l.chunks = append(l.chunks, c)
	for i := usable - 1; i >= 0; i-- { // lowest slot on top
		c[i].slot = base + uint32(i)
		l.free = append(l.free, base+uint32(i))
	}
	return true
}

// Generation returns how often the slot's socket has been closed: a reference (slot, generation) is good while they
// agree and InUse says so.
func (l *Loop) Generation(slot uint32) uint32 {
	l.owner.check()
	if int(slot/chunkSlots) >= len(l.chunks) {
		return 0
	}
	return l.at(slot).gen
}

// InUse reports whether the slot holds a socket.
func (l *Loop) InUse(slot uint32) bool {
	l.owner.check()
	return int(slot/chunkSlots) < len(l.chunks) && l.at(slot).flags&inUse != 0
}

// Slots returns the number of slots that there have been so far; every socket's slot is below it.
func (l *Loop) Slots() int {
	l.owner.check()
	return len(l.chunks) * chunkSlots
}

// Open returns the number of sockets.
func (l *Loop) Open() int {
	l.owner.check()
	return l.open
}

// use checks, in the invariants build, that the caller is on the loop's goroutine and the slot holds a socket.
func (l *Loop) use(slot uint32) {
	if invariants {
		l.owner.check()
		if !l.InUse(slot) {
			panic("loop: a closed socket is used")
		}
	}
}

// watch sets what epoll reports for s according to its flags.
func (l *Loop) watch(s *socket) {
	read := s.flags&(sawEOF|readPaused|connecting) == 0
	write := s.flags&(blocked|connecting) != 0
	want := WatchNone
	switch {
	case read && write:
		want = WatchReadWrite
	case read:
		want = WatchRead
	case write:
		want = WatchWrite
	}
	if want == s.interest || s.flags&inUse == 0 {
		return
	}
	if err := l.kernel.Watch(&s.op, s.interest, want); err != nil {
		s.interest = WatchNone
		l.fail(s, errnoOf(err)) // for want of memory or watches: max_user_watches, cgroup
		return
	}
	s.interest = want
}

// fail notes that the socket is broken; Handler.OnError is called soon, outside of the handler's own calls.
func (l *Loop) fail(s *socket, errno syscall.Errno) {
	if s.flags&inErrors != 0 {
		return
	}
	s.err = uint16(errno)
	s.flags |= inErrors
	l.errors = append(l.errors, ref{s.slot, s.gen})
}

// ref names a socket beyond the present call.
type ref struct{ slot, gen uint32 }

func (l *Loop) resolve(r ref) *socket {
	if s := l.at(r.slot); s.gen == r.gen && s.flags&inUse != 0 {
		return s
	}
	return nil
}

// Reserve queues a unit of n bytes for slot and returns them: the caller fills them before it returns to the loop, and
// before its next call of Reserve, Write, WriteShared or WriteUrgent for this slot. A unit is a frame (or whole frames):
// urgent output is never put inside one. Output is written at the end of the socket's turn.
func (l *Loop) Reserve(slot uint32, n int) []byte {
	q := l.output(l.at(slot))
	held := q.held
	b := q.reserve(n, l.nowMs())
	l.pending += n
	l.held += q.held - held
	return b
}

// Write queues a copy of p as one unit; see Reserve.
func (l *Loop) Write(slot uint32, p []byte) { copy(l.Reserve(slot, len(p)), p) }

// WriteShared queues a reference to sh as one unit; see Reserve.
func (l *Loop) WriteShared(slot uint32, sh *Shared) {
	q := l.output(l.at(slot))
	held, shared := q.held, q.shared
	q.appendShared(sh, l.nowMs())
	l.pending += len(sh.b)
	l.held += q.held - held
	l.shared += q.shared - shared
}

// WriteUrgent queues a copy of p ahead of all units of which no byte has been written (pings, pongs).
func (l *Loop) WriteUrgent(slot uint32, p []byte) {
	l.output(l.at(slot)).appendUrgent(p)
	l.pending += len(p)
	l.held += len(p)
}

// output returns the socket's queue, made if need be, and sees to it that it will be written.
func (l *Loop) output(s *socket) *queue {
	l.owner.check()
	if s.flags&inUse == 0 {
		panic("loop: write to a closed socket") // the slot's next owner would send it
	}
	if s.out == nil {
		s.out = l.queues.get()
	} else if s.out.bytes >= flushThreshold && s.flags&(blocked|connecting) == 0 {
		l.flush(s)
		if s.out == nil {
			s.out = l.queues.get()
		}
	}
	if s.flags&(dirty|blocked|connecting) == 0 {
		s.flags |= dirty
		l.dirty = append(l.dirty, ref{s.slot, s.gen})
	}
	return s.out
}

// Flush offers what is queued for slot to the kernel now rather than at the end of its turn, unless the kernel has refused
// some of it already. Errors are reported to the handler later, as always.
func (l *Loop) Flush(slot uint32) {
	l.owner.check()
	if s := l.at(slot); s.flags&(blocked|connecting) == 0 {
		l.flush(s)
	}
}

// Pending returns the bytes queued for slot that the kernel has not taken.
func (l *Loop) Pending(slot uint32) int {
	bytes, _ := l.Queued(slot)
	return bytes
}

// Queued returns what Pending does, and the number of units that it is made of: each takes 16 bytes of memory besides.
func (l *Loop) Queued(slot uint32) (bytes, units int) {
	l.owner.check()
	if q := l.at(slot).out; q != nil {
		return q.bytes, len(q.units) - q.head
	}
	return 0, 0
}

// PendingBytes returns the sum of Pending over all sockets.
func (l *Loop) PendingBytes() int64 {
	l.owner.check()
	return int64(l.pending)
}

// Held returns the memory that the output queued for slot takes [bytes]: whole units until all of each is written, and
// nothing for what is shared but its place in the queue. Buffers grow by up to twice what is in them; that is not counted.
func (l *Loop) Held(slot uint32) int {
	l.owner.check()
	if q := l.at(slot).out; q != nil {
		return q.held
	}
	return 0
}

// HeldBytes returns the sum of Held over all sockets.
func (l *Loop) HeldBytes() int64 {
	l.owner.check()
	return int64(l.held)
}

// SharedBytes returns the memory of shared output that waits for sockets which have blocked [bytes], each unit once however
// many wait for it. It is counted by the loop on which the first one came to wait, and taken off by the loop of the last
// one: one loop's figure may be below 0, the sum over all loops that share units is right.
func (l *Loop) SharedBytes() int64 {
	l.owner.check()
	return int64(l.shared)
}

// SharedPart returns the part of SharedBytes that is slot's: of each unit as much as every other that waits for it. Of many
// units it is an estimate.
func (l *Loop) SharedPart(slot uint32) int {
	l.owner.check()
	if q := l.at(slot).out; q != nil {
		return q.sharedPart()
	}
	return 0
}

// Broken reports whether the socket has failed and Handler.OnError is about to say so.
func (l *Loop) Broken(slot uint32) bool {
	l.use(slot)
	return l.at(slot).flags&inErrors != 0
}

// UrgentPending reports whether urgent output waits, L7.3: the ping before has not been handed to the kernel.
func (l *Loop) UrgentPending(slot uint32) bool {
	l.owner.check()
	q := l.at(slot).out
	return q != nil && len(q.urgent) > 0
}

// OldestPending returns for how long the oldest pending unit has been waiting [ns]; 0 when none waits (urgent output is
// not counted: see UrgentPending).
func (l *Loop) OldestPending(slot uint32) int64 {
	l.owner.check()
	q := l.at(slot).out
	if q == nil || q.head == len(q.units) {
		return 0
	}
	return int64(l.nowMs()-q.units[q.head].at) * 1e6 // unsigned difference: right across the wrap
}

// DropUnsent forgets the queued units of which no byte has been written, and urgent output likewise (L8.3).
func (l *Loop) DropUnsent(slot uint32) {
	l.owner.check()
	s := l.at(slot)
	if s.out == nil {
		return
	}
	shared := s.out.shared
	l.pending -= s.out.bytes
	l.held -= s.out.held
	s.out.dropUnsent()
	l.pending += s.out.bytes
	l.held += s.out.held
	l.shared += s.out.shared - shared
	if s.out.bytes == 0 && s.flags&connecting == 0 {
		l.flush(s) // writes nothing: the socket waits for nothing any more, whether the peer reads or not
	}
}

// flush writes as much as the kernel takes. It calls no handler: errors and drained queues are reported later.
func (l *Loop) flush(s *socket) {
	q := s.out
	if q == nil {
		return
	}
	for q.bytes > 0 {
		var n int
		var errno syscall.Errno
		if len(q.urgent) == 0 && q.head+1 == len(q.units) && q.units[q.head].sh != nil {
			n, errno = l.kernel.Write(s.op.FD, q.units[q.head].sh.b[q.off:])
		} else {
			v := q.vectors(l.iov[:0])
			if len(v) == 1 {
				n, errno = l.kernel.Write(s.op.FD, v[0])
			} else {
				n, errno = l.kernel.Writev(s.op.FD, v)
			}
			clear(v) // an idle loop must not keep a burst's buffers alive
		}
		l.stats.Writes++
		switch errno {
		case 0:
			l.stats.BytesSent += uint64(n)
			l.pending -= n
			shared := q.shared
			l.held -= q.held
			q.wrote(n)
			l.held += q.held
			l.shared += q.shared - shared
		case syscall.EINTR:
		case syscall.EAGAIN:
			if s.flags&blocked == 0 {
				s.flags |= blocked
				shared := q.shared
				q.count()
				l.shared += q.shared - shared
				l.watch(s)
				l.notifyLater(s)
			}
			return
		default:
			l.release(s)
			l.fail(s, errno)
			return
		}
	}
	l.release(s)
	if s.flags&blocked != 0 {
		s.flags &^= blocked
		l.watch(s)
	}
	if s.flags&notifyDrained != 0 {
		l.notifyLater(s)
	}
}

func (l *Loop) release(s *socket) {
	if s.out != nil {
		shared := s.out.shared
		s.out.letGoFrom(s.out.head)
		l.shared += s.out.shared - shared
		l.pending -= s.out.bytes
		l.held -= s.out.held
		l.queues.put(s.out)
		s.out = nil
	}
}

func (l *Loop) notifyLater(s *socket) {
	if s.flags&inNotify == 0 {
		s.flags |= inNotify
		l.notify = append(l.notify, ref{s.slot, s.gen})
	}
}

// NotifyDrained asks for one call of Handler.OnDrained when everything queued for slot is with the kernel; soon, when it
// is already.
func (l *Loop) NotifyDrained(slot uint32) {
	l.use(slot)
	s := l.at(slot)
	s.flags |= notifyDrained
	if s.out == nil {
		l.notifyLater(s)
	}
}

// PauseRead stops reading from slot; the peer is then pushed back by TCP. ResumeRead ends that.
func (l *Loop) PauseRead(slot uint32) {
	l.use(slot)
	s := l.at(slot)
	s.flags |= readPaused
	l.watch(s)
}

// ResumeRead ends PauseRead.
func (l *Loop) ResumeRead(slot uint32) {
	l.use(slot)
	s := l.at(slot)
	s.flags &^= readPaused
	l.watch(s)
}

// ShutdownWrite sends our FIN: call it when nothing is pending. The socket is still read.
func (l *Loop) ShutdownWrite(slot uint32) {
	l.use(slot)
	s := l.at(slot)
	if s.flags&shutdownDone == 0 {
		s.flags |= shutdownDone
		if errno := l.kernel.ShutdownWrite(s.op.FD); errno != 0 && errno != syscall.ENOTCONN {
			l.fail(s, errno)
		}
	}
}

// Close closes the socket now; what is queued is lost. No handler method is called for it any more. The slot is free
// for another socket after the end of this turn.
func (l *Loop) Close(slot uint32) { l.close(slot, false) }

// Reset is Close with RST: the peer loses also what it has not read yet.
func (l *Loop) Reset(slot uint32) { l.close(slot, true) }

func (l *Loop) close(slot uint32, reset bool) {
	l.owner.check()
	s := l.at(slot)
	if s.flags&inUse == 0 {
		panic("loop: socket closed twice")
	}
	if s.interest != WatchNone { // before close(2), or the number may be somebody else's
		if err := l.kernel.Watch(&s.op, s.interest, WatchNone); err != nil {
			l.log.Error("epoll_ctl(DEL) failed", "fd", s.op.FD, "err", err)
		}
		s.interest = WatchNone
	}
	l.kernel.Close(s.op.FD, reset)
	l.release(s)
	l.timers.Cancel(slot)
	s.flags = 0
	s.op.FD = -1
	s.gen++
	l.open--
	l.freed = append(l.freed, slot)
}

// Dial starts a connection from source (the zero Addr: any) to addr. Handler.OnConnect tells the result, unless the
// socket is closed before. The errno says why not even an attempt could be made.
func (l *Loop) Dial(addr netip.AddrPort, source netip.Addr) (slot uint32, errno syscall.Errno) {
	l.owner.check()
	fd, errno := l.kernel.Connect(addr, source)
	if errno != 0 {
		return 0, errno
	}
	s, ok := l.newSocket(fd)
	if !ok {
		l.kernel.Close(fd, false)
		return 0, syscall.ENFILE
	}
	s.flags |= connecting
	l.watch(s)
	return s.slot, 0
}

// Accept takes over fd, a connected nonblocking socket, and calls Handler.OnAccept. For kernels.
func (l *Loop) Accept(fd int, listener int, remote netip.AddrPort) {
	l.owner.check()
	s, ok := l.newSocket(fd)
	if !ok {
		l.stats.AcceptsRefused++
		l.kernel.Close(fd, true)
		return
	}
	l.stats.Accepts++
	gen := s.gen
	l.handler.OnAccept(s.slot, listener, remote)
	if s.gen == gen {
		l.watch(s)
	}
	l.settle(s, gen)
}

// LocalAddr returns the local address of the socket. It is a system call.
func (l *Loop) LocalAddr(slot uint32) netip.AddrPort {
	l.use(slot)
	return l.kernel.Local(l.at(slot).op.FD)
}
