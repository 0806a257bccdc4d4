// Package looptest runs a loop.Loop over a simulated network and clock: the test is every peer, decides what arrives in
// what pieces, how much the kernel takes, and what time it is. Nothing sleeps and nothing is random unless Faults says so,
// so a run can be repeated exactly.
package looptest

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/cloudwego/netpoll"
	"github.com/mqgate/mqgate/loop"
)

// Net is the simulated kernel of one loop. Its methods, like the loop's, are for one goroutine; other goroutines may post
// tasks to the loop, and the next Run or Step runs them.
type Net struct {
	Loop *loop.Loop

	// Faults makes the network nasty, decided by the seeded source; nil: reads and writes take all there is.
	Faults *Faults

	clock    *Clock
	timer    int64
	awake    atomic.Bool // Wake is called from any goroutine
	nextFD   int
	socks    map[int]*Peer // by the loop's descriptor
	dialed   []*Peer
	arriving []event
	Refuse   syscall.Errno // when not 0, how the next dials end
}

// Faults are the probabilities [0,1] with which the network misbehaves.
type Faults struct {
	Rand       *rand.Rand
	ShortRead  float64 // a read gets only a part of what is there
	ShortWrite float64 // a write takes only a part
	Again      float64 // a read or write says EAGAIN although it could
	Interrupt  float64 // a read or write says EINTR
	Spurious   float64 // a socket is reported besides those that are ready
	NoWatch    float64 // a socket cannot be watched for want of memory (ENOMEM)
	Shuffle    bool    // the sockets' events come in any order
}

// hit decides one misbehaviour. One that never happens takes nothing from the source.
func (f *Faults) hit(p float64) bool { return p > 0 && f.Rand.Float64() < p }

// Epoch is the time [ns] at which a Net's clock starts: not zero, so that "never" and "at the start" differ.
const Epoch = int64(1e9)

// New returns a Net with a clock of its own and makes its loop, number 0, with that handler. The handler gets its loop
// from attach, when that is not nil.
func New(handler loop.Handler, attach func(*loop.Loop)) *Net {
	return NewClock().New(loop.Config{Handler: handler}, attach)
}

// Peer is the other end of one of the loop's sockets, in the test's hands.
type Peer struct {
	net *Net
	fd  int

	in      []byte // on its way to the loop
	inFIN   bool
	reset   bool // the peer sent RST
	heard   int64
	refused syscall.Errno

	out    []byte // what the loop has sent and the test has not taken
	window int    // bytes that the loop may still send
	Writes int    // write calls of the loop that took something

	op       *netpoll.FDOperator
	interest loop.Interest
	edge     bool // WatchWrite: writability is to be reported once

	noWatch  bool // it could not be watched, once
	gotFIN   bool
	closed   bool
	gotReset bool
	addr     netip.AddrPort
}

// Client is a client connecting: the loop accepts it at once, as from the given listener.
func (n *Net) Client(listener int, remote netip.AddrPort) *Peer {
	p := n.newPeer(remote)
	n.turn(func() { n.Loop.Accept(p.fd, listener, remote) })
	return p
}

// Arrive is a client connecting that the loop accepts in its next turn, among the other events of it.
func (n *Net) Arrive(listener int, remote netip.AddrPort) *Peer {
	p := n.newPeer(remote)
	n.arriving = append(n.arriving, event{accept: p, listener: listener})
	return p
}

func (n *Net) newPeer(remote netip.AddrPort) *Peer {
	p := &Peer{net: n, fd: n.nextFD, window: math.MaxInt / 2, addr: remote}
	n.nextFD++
	n.socks[p.fd] = p
	return p
}

// Dialed returns the peers of the sockets that the loop has dialled since the last call.
func (n *Net) Dialed() []*Peer {
	d := n.dialed
	n.dialed = nil
	return d
}

// Send puts bytes on the way to the loop. Run delivers them.
func (p *Peer) Send(b []byte) { p.in = append(p.in, b...) }

// CloseWrite sends the peer's FIN behind what was sent.
func (p *Peer) CloseWrite() { p.inFIN = true }

// Reset sends RST. What the loop has not read is lost, the worst that a network may do (Linux keeps it).
func (p *Peer) Reset() { p.reset, p.in, p.edge = true, nil, true }

// ResetBehind sends RST behind what was sent: the loop still reads that, as on Linux, and then the error. What it writes
// from now on fails at once.
func (p *Peer) ResetBehind() { p.reset, p.edge = true, true }

// Heard returns when the loop last read bytes of this peer [ns]; 0: never.
func (p *Peer) Heard() int64 { return p.heard }

// Unread returns the number of bytes on their way that the loop has not read.
func (p *Peer) Unread() int { return len(p.in) }

// SetWindow sets how many bytes more the loop can send before the peer stops taking them.
func (p *Peer) SetWindow(n int) {
	if p.window <= 0 && n > 0 {
		p.edge = true
	}
	p.window = n
}

// Take returns what the loop has sent since the last call.
func (p *Peer) Take() []byte {
	b := p.out
	p.out = nil
	return b
}

// GotFIN reports whether the loop has shut down its side or closed the socket in good order.
func (p *Peer) GotFIN() bool { return p.gotFIN }

// Closed reports whether the loop has closed the socket, and GotReset whether it did so with RST or with unread input,
// which makes a kernel send RST.
func (p *Peer) Closed() bool   { return p.closed }
func (p *Peer) GotReset() bool { return p.gotReset }

// Unwatched reports whether the kernel has refused to watch the socket (Faults.NoWatch).
func (p *Peer) Unwatched() bool { return p.noWatch }

// Watched reports whether the loop waits for bytes of this peer: not while it has paused reading, nor after the peer's FIN.
func (p *Peer) Watched() bool {
	return p.interest == loop.WatchRead || p.interest == loop.WatchReadWrite
}

// Sockets returns the number of sockets that the loop holds open.
func (n *Net) Sockets() int { return len(n.socks) - len(n.arriving) }

func (n *Net) turn(f func()) {
	n.Loop.Begin()
	f()
	n.Loop.End()
	if n.clock.AfterTurn != nil {
		n.clock.AfterTurn()
	}
}

// Run lets the loop do all there is to do at the present time.
func (n *Net) Run() {
	for n.Step() {
	}
}

// Step lets the loop run one turn, if there is something to do at the present time.
func (n *Net) Step() bool {
	events := n.ready()
	if len(events) == 0 && !n.awake.Load() && n.timer > n.clock.now {
		return false
	}
	n.turn(func() {
		if n.timer <= n.clock.now {
			n.timer = math.MaxInt64
		}
		for _, ev := range events {
			// What the event says may no longer hold, as with a real kernel: an earlier event of the batch may have closed
			// the socket or changed what it waits for.
			if ev.accept != nil {
				n.Loop.Accept(ev.accept.fd, ev.listener, ev.accept.addr)
			} else {
				n.Loop.SocketEvent(ev.slot, ev.readable, ev.writable)
			}
		}
		if n.awake.Swap(false) {
			n.Loop.RunTasks()
		}
	})
	return true
}

// event is what a kernel reports in a batch.
type event struct {
	accept             *Peer // a connection to accept from listener, and not what follows
	listener           int
	fd                 int
	slot               uint32
	readable, writable bool
}

// ready returns a batch of events. The loop knows sockets by slot, the kernel by the address of its operator.
func (n *Net) ready() []event {
	var events []event
	for fd, p := range n.socks {
		if r, w := p.readiness(); r || w {
			p.edge = false
			events = append(events, event{fd: fd, slot: loop.SlotOf(p.op), readable: r, writable: w})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.fd - b.fd })
	events = append(events, n.arriving...)
	n.arriving = nil
	f := n.Faults
	if len(events) > 0 && f != nil && n.Loop.Slots() > 0 && f.hit(f.Spurious) {
		events = append(events, event{slot: uint32(f.Rand.IntN(n.Loop.Slots())), readable: true, writable: true})
	}
	if f != nil && f.Shuffle {
		f.Rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	}
	return events
}

func (p *Peer) readiness() (readable, writable bool) {
	switch p.interest {
	case loop.WatchRead, loop.WatchReadWrite:
		readable = len(p.in) > 0 || p.inFIN || p.reset
		writable = p.interest == loop.WatchReadWrite && (p.window > 0 || p.reset)
	case loop.WatchWrite:
		writable = p.edge && (p.window > 0 || p.reset || p.refused != 0)
	}
	return readable, writable
}

// Advance moves the clock by d [ns], stopping at every time for which a loop on it has set its timer.
func (n *Net) Advance(d int64) { n.clock.Advance(d) }

// The Kernel side.

// Now implements loop.Kernel.
func (n *Net) Now() int64 { return n.clock.now }

// Watch implements loop.Kernel.
func (n *Net) Watch(op *netpoll.FDOperator, from, to loop.Interest) error {
	p := n.socks[op.FD]
	if p == nil {
		panic("looptest: Watch for a descriptor that is closed")
	}
	if p.interest != from {
		panic("looptest: Watch from an interest that was not set")
	}
	if f := n.Faults; f != nil && to != loop.WatchNone && f.hit(f.NoWatch) {
		p.op, p.interest, p.noWatch = op, loop.WatchNone, true
		return syscall.ENOMEM
	}
	p.op, p.interest, p.edge = op, to, to == loop.WatchWrite
	return nil
}

// Read implements loop.Kernel.
func (n *Net) Read(fd int, b []byte) (int, syscall.Errno) {
	p := n.socks[fd]
	if p == nil {
		panic("looptest: read from a descriptor that is closed")
	}
	f := n.Faults
	switch {
	case f != nil && f.hit(f.Interrupt):
		return -1, syscall.EINTR
	case len(p.in) == 0 && p.reset:
		return -1, syscall.ECONNRESET
	case len(p.in) == 0 && p.inFIN:
		return 0, 0
	case len(p.in) == 0 || f != nil && f.Rand.Float64() < f.Again:
		return -1, syscall.EAGAIN
	}
	if f != nil && len(p.in) > 1 && f.Rand.Float64() < f.ShortRead {
		b = b[:min(len(b), 1+f.Rand.IntN(len(p.in)-1))]
	}
	k := copy(b, p.in)
	p.in, p.heard = p.in[k:], n.clock.now
	return k, 0
}

// Write implements loop.Kernel.
func (n *Net) Write(fd int, b []byte) (int, syscall.Errno) {
	p := n.socks[fd]
	if p == nil {
		panic("looptest: write to a descriptor that is closed")
	}
	if p.gotFIN {
		panic("looptest: write after shutdown")
	}
	f := n.Faults
	switch {
	case f != nil && f.hit(f.Interrupt):
		return -1, syscall.EINTR
	case p.reset:
		return -1, syscall.EPIPE
	case p.window <= 0 || f != nil && f.Rand.Float64() < f.Again:
		p.edge = p.edge || p.window > 0 // a spurious EAGAIN is followed by a new edge
		return -1, syscall.EAGAIN
	}
	k := min(len(b), p.window)
	if f != nil && k > 1 && f.Rand.Float64() < f.ShortWrite {
		k = 1 + f.Rand.IntN(k-1)
	}
	p.out = append(p.out, b[:k]...)
	p.window -= k
	p.Writes++
	return k, 0
}

// Writev implements loop.Kernel.
func (n *Net) Writev(fd int, v [][]byte) (int, syscall.Errno) {
	return n.Write(fd, slices.Concat(v...))
}

// ShutdownWrite implements loop.Kernel.
func (n *Net) ShutdownWrite(fd int) syscall.Errno {
	p := n.socks[fd]
	if p.reset {
		return syscall.ENOTCONN
	}
	p.gotFIN = true
	return 0
}

// Close implements loop.Kernel.
func (n *Net) Close(fd int, reset bool) {
	p := n.socks[fd]
	if p == nil {
		panic("looptest: close of a descriptor that is closed")
	}
	if p.interest != loop.WatchNone {
		panic("looptest: close before detach")
	}
	p.closed, p.gotFIN = true, true
	p.gotReset = reset || len(p.in) > 0
	delete(n.socks, fd)
}

// Connect implements loop.Kernel.
func (n *Net) Connect(addr netip.AddrPort, _ netip.Addr) (int, syscall.Errno) {
	p := n.newPeer(addr)
	p.refused = n.Refuse
	n.dialed = append(n.dialed, p)
	return p.fd, 0
}

// ConnectError implements loop.Kernel.
func (n *Net) ConnectError(fd int) syscall.Errno {
	p := n.socks[fd]
	if p.reset {
		return syscall.ECONNRESET
	}
	return p.refused
}

// Local implements loop.Kernel.
func (n *Net) Local(int) netip.AddrPort { return netip.MustParseAddrPort("192.0.2.1:8080") }

// Wake implements loop.Kernel.
func (n *Net) Wake() { n.awake.Store(true) }

// SetTimer implements loop.Kernel.
func (n *Net) SetTimer(at int64) { n.timer = at }
