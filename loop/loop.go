package loop

import (
	"log/slog"
	"math"
	"net/netip"
	"syscall"
)

// Handler is what a loop tells about its sockets (package conn). All methods are called on the loop's goroutine. They
// may call every method of Loop, also Close for the slot that they are called for.
type Handler interface {
	// OnAccept: a new socket; listener is the number that Listen was given.
	OnAccept(slot uint32, listener int, remote netip.AddrPort)
	// OnConnect: Dial has ended; 0 means connected. After an error the handler closes the slot before it returns.
	OnConnect(slot uint32, errno syscall.Errno)
	// OnData: bytes from the peer; p is borrowed until OnData returns and may be changed in place.
	OnData(slot uint32, p []byte)
	// OnEOF: the peer's FIN; nothing more will come. Once. Writing still works.
	OnEOF(slot uint32)
	// OnError: the socket is broken (errno), or the kernel could not watch it (ENOMEM, ENOSPC; after Dial instead of
	// OnConnect). Once; the handler closes the slot before it returns.
	OnError(slot uint32, errno syscall.Errno)
	// OnBlocked: the kernel did not take all of the output.
	OnBlocked(slot uint32)
	// OnDrained: asked for by NotifyDrained.
	OnDrained(slot uint32)
	// OnTimer: the time set with SetTimer has come.
	OnTimer(slot uint32)
}

// Stats are counters of one loop. They are written by its goroutine alone; read them by a task on the loop.
type Stats struct {
	Accepts, AcceptsRefused  uint64 // connections taken from listeners; closed at once because the slab was full
	AcceptPauses             uint64 // tries to accept that found no descriptor or memory (L8.4)
	AcceptPaused             uint64 // listeners that rest now for that reason
	Turns, Reads, Writes     uint64 // batches of events; read(2) calls; write(2) and writev(2) calls
	BytesReceived, BytesSent uint64
	Tasks                    uint64
}

// Add adds the counters of o to s.
func (s *Stats) Add(o *Stats) {
	s.Accepts += o.Accepts
	s.AcceptsRefused += o.AcceptsRefused
	s.AcceptPauses += o.AcceptPauses
	s.AcceptPaused += o.AcceptPaused
	s.Turns += o.Turns
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.BytesReceived += o.BytesReceived
	s.BytesSent += o.BytesSent
	s.Tasks += o.Tasks
}

// Loop is one reactor. All methods must be called on its goroutine, except Post, PostFunc and Index.
type Loop struct {
	owner    owner
	index    int
	kernel   Kernel
	handler  Handler
	log      *slog.Logger
	maxSlots int

	now   int64 // [ns] monotonic, read at the beginning of the turn
	rbuf  []byte
	iov   [maxIovecs + 2][]byte
	tasks tasks

	chunks []*chunk
	free   []uint32 // slots without a socket
	freed  []uint32 // slots closed in this turn: an event of the same batch may still name them
	open   int

	queues  queues
	pending int   // bytes in all queues
	held    int   // memory that they take
	shared  int   // memory of what is shared between them and waits: see SharedBytes
	dirty   []ref // sockets with output to write at the end of the turn
	errors  []ref // sockets with an error to report
	notify  []ref // sockets with OnBlocked or OnDrained to report

	timers   *Wheel // entry i belongs to the socket in slot i
	wheels   []*Timers
	timerSet int64 // what the kernel's timer is set to

	stats   Stats
	stopped chan struct{} // closed when no task will run any more
}

// Config is the configuration of a Loop.
type Config struct {
	Index    int // number of the loop, 0...
	Kernel   Kernel
	Handler  Handler
	Log      *slog.Logger
	MaxSlots int // sockets at most; 0 means MaxSlots
}

// New returns a Loop over a kernel. The goroutine that drives the kernel is the loop's goroutine.
func New(cfg Config) *Loop {
	l := &Loop{index: cfg.Index, kernel: cfg.Kernel, handler: cfg.Handler, log: cfg.Log, maxSlots: cfg.MaxSlots,
		stopped: make(chan struct{})}
	if l.maxSlots == 0 {
		l.maxSlots = MaxSlots
	}
	l.now = l.kernel.Now()
	l.rbuf = make([]byte, readBufferSize)
	l.timers = NewWheel(l.now)
	l.timerSet = math.MaxInt64
	return l
}

// Index returns the number of the loop. Safe from any goroutine.
func (l *Loop) Index() int { return l.index }

// Now returns the monotonic time at the beginning of the turn [ns]; its zero is arbitrary.
func (l *Loop) Now() int64 {
	l.owner.check()
	return l.now
}

// Clock reads the clock: the time of this very moment on the clock of Now [ns]. 40 ns.
func (l *Loop) Clock() int64 {
	l.owner.check()
	return l.kernel.Now()
}

func (l *Loop) nowMs() uint32 { return uint32(l.now / 1e6) }

// Stats returns a copy of the counters.
func (l *Loop) Stats() Stats {
	l.owner.check()
	return l.stats
}

// Begin starts a turn. For kernels.
func (l *Loop) Begin() {
	l.owner.take()
	l.now = l.kernel.Now()
	l.stats.Turns++
}

// SocketEvent handles the readiness of one socket. The flags are hints only: what is true is what read and write say, so
// an event that is out of date (its socket closed by an earlier event of the batch) does no harm. For kernels.
func (l *Loop) SocketEvent(slot uint32, readable, writable bool) {
	l.owner.check()
	s := l.at(slot)
	gen := s.gen
	if s.flags&inUse == 0 {
		return
	}
	if s.flags&connecting != 0 {
		if writable {
			l.connected(s)
		}
	} else {
		if writable && s.flags&blocked != 0 {
			l.flush(s)
		}
		if readable && s.flags&(sawEOF|readPaused) == 0 {
			l.read(s)
		}
	}
	l.settle(s, gen)
}

func (l *Loop) connected(s *socket) {
	gen := s.gen
	errno := l.kernel.ConnectError(s.op.FD)
	s.flags &^= connecting
	if errno == 0 {
		// ADD after DEL: the edge-triggered registration for connecting becomes the level-triggered one for reading.
		l.watch(s)
		if s.out != nil {
			s.flags |= dirty
			l.dirty = append(l.dirty, ref{s.slot, s.gen})
		}
	}
	if s.gen == gen && s.flags&inErrors == 0 {
		l.handler.OnConnect(s.slot, errno)
	}
}

func (l *Loop) read(s *socket) {
	gen := s.gen
	for range maxReadsPerEvent {
		n, errno := l.kernel.Read(s.op.FD, l.rbuf)
		l.stats.Reads++
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			l.fail(s, errno)
			return
		case n == 0:
			if s.flags&inErrors != 0 {
				// Writing has just failed, which took the error from the socket; reading then ends as after a FIN, but the
				// connection was cut, and OnError says so.
				return
			}
			s.flags |= sawEOF
			l.watch(s)
			l.handler.OnEOF(s.slot)
			return
		}
		l.stats.BytesReceived += uint64(n)
		l.handler.OnData(s.slot, l.rbuf[:n])
		if invariants {
			mangle(l.rbuf[:n])
		}
		if s.gen != gen || n < len(l.rbuf) || s.flags&readPaused != 0 {
			return
		}
	}
}

// settle writes what a socket's event left to be written and reports what it caused, so that a closing socket is done
// with before the next event.
func (l *Loop) settle(s *socket, gen uint32) {
	if s.gen == gen && s.flags&dirty != 0 {
		s.flags &^= dirty // it stays in l.dirty, which is harmless
		if s.flags&blocked == 0 {
			l.flush(s)
		}
	}
	if len(l.errors)+len(l.notify) > 0 {
		l.report()
	}
}

// report tells the handler of errors and drained or blocked queues. Errors that this causes are reported as well, at
// once (there is one per socket at most); drained queues that it causes wait for the next report.
func (l *Loop) report() {
	l.reportErrors()
	n := len(l.notify)
	for i := range n {
		r := l.notify[i]
		s := l.resolve(r)
		if s == nil {
			continue
		}
		s.flags &^= inNotify
		switch {
		case s.flags&inErrors != 0:
		case s.out != nil && s.flags&blocked != 0:
			l.handler.OnBlocked(r.slot)
		case s.out == nil && s.flags&notifyDrained != 0:
			s.flags &^= notifyDrained
			l.handler.OnDrained(r.slot)
		}
	}
	l.notify = l.notify[:copy(l.notify, l.notify[n:])]
	l.reportErrors()
}

func (l *Loop) reportErrors() {
	for i := 0; i < len(l.errors); i++ { // OnError may append
		r := l.errors[i]
		if s := l.resolve(r); s != nil {
			s.flags &^= dirty | notifyDrained // nothing more can be written
			l.handler.OnError(r.slot, syscall.Errno(s.err))
		}
	}
	l.errors = l.errors[:0]
}

// End ends a turn: due timers, pending writes, reports. For kernels.
func (l *Loop) End() {
	l.owner.check()
	if l.timers.Next() <= l.now {
		l.timers.Advance(l.now, l.fireSocket)
	}
	for _, t := range l.wheels {
		if t.Next() <= l.now {
			t.Advance(l.now, t.fire)
		}
	}
	for round := 0; len(l.dirty)+len(l.errors)+len(l.notify) > 0; round++ {
		if round == maxRounds {
			l.kernel.Wake()
			break
		}
		for i := 0; i < len(l.dirty); i++ {
			if s := l.resolve(l.dirty[i]); s != nil && s.flags&dirty != 0 {
				s.flags &^= dirty
				if s.flags&blocked == 0 {
					l.flush(s)
				}
			}
		}
		l.dirty = l.dirty[:0]
		l.report()
	}
	l.free = append(l.free, l.freed...)
	l.freed = trim(l.freed[:0])
	l.dirty, l.errors, l.notify = trim(l.dirty), trim(l.errors), trim(l.notify)
	l.armTimer()
}

// trim lets go of an empty list that a burst has made long.
func trim[T any](list []T) []T {
	if len(list) == 0 && cap(list) > keptRefs {
		return nil
	}
	return list
}

// Trim gives memory that is kept for the next burst to the collector: for times when nothing happens.
func (l *Loop) Trim() {
	l.owner.check()
	l.queues.release()
	if len(l.freed)+len(l.dirty)+len(l.errors)+len(l.notify) == 0 {
		l.freed, l.dirty, l.errors, l.notify = nil, nil, nil, nil
	}
	l.tasks.mu.Lock()
	l.tasks.spare = nil
	l.tasks.mu.Unlock()
}

func (l *Loop) fireSocket(slot uint32) {
	if l.at(slot).flags&inUse != 0 {
		l.handler.OnTimer(slot)
	}
}

// armTimer has the kernel wake the loop when the next wheel is due.
func (l *Loop) armTimer() {
	next := l.timers.Next()
	for _, t := range l.wheels {
		next = min(next, t.Next())
	}
	// A kernel timer that is set too early costs one empty turn; one that has fired must be set again.
	if next < l.timerSet || l.timerSet <= l.now && next != math.MaxInt64 {
		l.timerSet = next
		l.kernel.SetTimer(next)
	} else if l.timerSet <= l.now {
		l.timerSet = math.MaxInt64
	}
}

// SetTimer has Handler.OnTimer called for slot at the given time [ns on the clock of Now], once. Each socket has one
// timer; setting it again replaces the earlier time.
func (l *Loop) SetTimer(slot uint32, at int64) {
	l.use(slot)
	l.timers.Set(slot, at)
}

// CancelTimer undoes SetTimer.
func (l *Loop) CancelTimer(slot uint32) {
	l.owner.check()
	l.timers.Cancel(slot)
}

// Timers is a further wheel on the loop's clock, for things that are not sockets (requests).
type Timers struct {
	*Wheel
	fire func(i uint32)
}

// NewTimers returns a wheel that is advanced at the end of the loop's turns and calls fire for entries that are due.
// Before the loop runs, or on its goroutine.
func (l *Loop) NewTimers(fire func(i uint32)) *Timers {
	l.owner.check()
	t := &Timers{Wheel: NewWheel(l.now), fire: fire}
	l.wheels = append(l.wheels, t)
	return t
}

// TimersArmed returns how many timers are set, of sockets and on the wheels of NewTimers together.
func (l *Loop) TimersArmed() int {
	l.owner.check()
	n := l.timers.Len()
	for _, t := range l.wheels {
		n += t.Len()
	}
	return n
}
