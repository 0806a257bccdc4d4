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

	now    int64
	timer  int64
	awake  atomic.Bool // Wake is called from any goroutine
	nextFD int
	socks  map[int]*Peer // by the loop's descriptor
	dialed []*Peer
	Refuse syscall.Errno // when not 0, how the next dials end
}

// Faults are the probabilities [0,1] with which the network misbehaves.
type Faults struct {
	Rand       *rand.Rand
	ShortRead  float64 // a read gets only a part of what is there
	ShortWrite float64 // a write takes only a part
	Again      float64 // a read or write says EAGAIN although it could
	Shuffle    bool    // the sockets' events come in any order
}

// Epoch is the time [ns] at which a Net's clock starts: not zero, so that "never" and "at the start" differ.
const Epoch = int64(1e9)

// New returns a Net and makes its loop with the handler that newHandler returns for it. newHandler may be called before
// the Net is used; the handler gets its loop from attach, when that is not nil.
func New(handler loop.Handler, attach func(*loop.Loop)) *Net {
	n := &Net{now: Epoch, timer: math.MaxInt64, nextFD: 3, socks: make(map[int]*Peer)}
	n.Loop = loop.New(loop.Config{Kernel: n, Handler: handler})
	if attach != nil {
		attach(n.Loop)
	}
	return n
}

// Peer is the other end of one of the loop's sockets, in the test's hands.
type Peer struct {
	net *Net
	fd  int

	in      []byte // on its way to the loop
	inFIN   bool
	reset   bool // the peer sent RST
	refused syscall.Errno

	out    []byte // what the loop has sent and the test has not taken
	window int    // bytes that the loop may still send
	Writes int    // write calls of the loop that took something

	op       *netpoll.FDOperator
	interest loop.Interest
	edge     bool // WatchWrite: writability is to be reported once

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

// Sockets returns the number of sockets that the loop holds open.
func (n *Net) Sockets() int { return len(n.socks) }

func (n *Net) turn(f func()) {
	n.Loop.Begin()
	f()
	n.Loop.End()
}

// Run lets the loop do all there is to do at the present time.
func (n *Net) Run() {
	for n.Step() {
	}
}

// Step lets the loop run one turn, if there is something to do at the present time.
func (n *Net) Step() bool {
	events := n.ready()
	if len(events) == 0 && !n.awake.Load() && n.timer > n.now {
		return false
	}
	n.turn(func() {
		if n.timer <= n.now {
			n.timer = math.MaxInt64
		}
		for _, ev := range events {
			// What the event says may no longer hold, as with a real kernel: an earlier event of the batch may have closed
			// the socket or changed what it waits for.
			n.Loop.SocketEvent(ev.slot, ev.readable, ev.writable)
		}
		if n.awake.Swap(false) {
			n.Loop.RunTasks()
		}
	})
	return true
}

// event is what a kernel reports in a batch.
type event struct {
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
			events = append(events, event{fd, loop.SlotOf(p.op), r, w})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.fd - b.fd })
	if f := n.Faults; f != nil && f.Shuffle {
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

// Advance moves the clock by d [ns], stopping at every time for which the loop has set its timer.
func (n *Net) Advance(d int64) {
	end := n.now + d
	n.Run()
	for n.timer <= end {
		n.now = max(n.now, n.timer)
		n.Run()
	}
	n.now = end
	n.Run()
}

// The Kernel side.

// Now implements loop.Kernel.
func (n *Net) Now() int64 { return n.now }

// Watch implements loop.Kernel.
func (n *Net) Watch(op *netpoll.FDOperator, from, to loop.Interest) error {
	p := n.socks[op.FD]
	if p == nil {
		panic("looptest: Watch for a descriptor that is closed")
	}
	if p.interest != from {
		panic("looptest: Watch from an interest that was not set")
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
	case p.reset:
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
	p.in = p.in[k:]
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
	n.socks[fd].gotFIN = true
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
