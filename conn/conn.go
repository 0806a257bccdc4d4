package conn

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

type connFlags uint16

const (
	closeSent   connFlags = 1 << iota // our Close frame is queued or sent: nothing may follow it
	ended                             // OnClose was called and the end was counted
	pinged                            // a ping is out
	alive                             // a byte came since the last ping (L7.2)
	pingSkipped                       // the last ping was skipped (L7.3); heartbeat=client: one silent interval
	sawEOF                            // the peer's FIN is in
	draining                          // told to go by Drain; the handler closes it when its requests are answered
	refused                           // answered with an HTTP error: only the answer is left to be sent
	answering                         // the answer to the upgrade is not yet with the kernel: the queue must not be dropped
	counted                           // counted against the limit of connections
	countedAddr                       // counted against the limits per address
	proxied                           // the PROXY header is read
	proxyOnly                         // it came from the proxy itself: X-Forwarded-For must not be read
	throttled                         // not read: it has sent more messages than it may
	overBudget                        // not read: memory is short (L8.6)
	lingering                         // the last words are going out, or the peer's FIN is awaited (L1.8)
)

// Conn is one connection. It lives in a slab: the pointer is good until OnClose has returned and must not be kept longer
// (keep the ID, or Ref). All fields and methods belong to the goroutine of the connection's loop.
//
// Sum per connection [bytes], kept by TestSizeof: 8 registry, 8 partial message, 8 handshake, 8 start, 8 pingAt, 18
// remote, 4 slot, 4 User, 4 rtt, 4 meta, 2 flags, 1 state, 1 cause, 1 endpoint, 1 sendBits = 80. With the socket (128)
// and its timer (12) that is 220 for an idle connection, and nothing else exists for it.
type Conn struct {
	reg  *Registry
	in   frame.Reader // partial message; 8 bytes, nil when idle
	hs   *handshaking // until the upgrade is done, when it did not come in one piece
	born int64        // time of the upgrade [ns on the loop's clock]

	// pingAt is the time of the last ping, or when a ping that was skipped was due [ns on the loop's clock]. It is the
	// ping's payload, which is how a pong is told to belong to it. Before the first ping it lies one interval before the
	// time at which that one is due.
	pingAt int64

	addr [16]byte // remote address, IPv4 mapped
	port uint16

	flags    connFlags
	slot     uint32
	User     uint32 // the handler's: an index into its own state; 0 when the connection is new
	rtt      uint32 // last round trip time [us]; 0: none measured
	meta     uint32 // index into Registry.metas; 0: none
	state    State
	cause    Cause // why this end started to close
	endpoint uint8
	sendBits uint8 // permessage-deflate: log2 of the window for what is sent; 0: no compression was agreed on
}

// Errors of sending and closing.
var (
	// ErrNotOpen: the connection is not OPEN (or inside OnOpen).
	ErrNotOpen = errors.New("connection not open")
	// ErrSlow: more is pending than allowed; the connection is being closed (L8.3).
	ErrSlow = errors.New("peer too slow: too many bytes pending")
	// ErrCloseCode: a code that must not be sent (L1.7).
	ErrCloseCode = errors.New("close code must be 1000-1003, 1007-1014 or 3000-4999")
)

// Ref names a connection beyond the call that it was handed to, on its own loop. 8 bytes, comparable.
type Ref struct{ Slot, Generation uint32 }

// Ref returns a reference that Registry.Get resolves while the connection lives.
func (c *Conn) Ref() Ref { return Ref{c.slot, c.reg.loop.Generation(c.slot)} }

// ID returns the connection's id (L2.2). It is computed: about 50 ns.
func (c *Conn) ID() ID {
	r := c.reg
	return r.cfg.Issuer.make(&r.block, r.loop.Index(), c.slot, r.loop.Generation(c.slot))
}

// State returns the state (L1.1).
func (c *Conn) State() State { return c.state }

// Registry returns the registry that holds the connection.
func (c *Conn) Registry() *Registry { return c.reg }

// Remote returns the peer's address (L2.3).
func (c *Conn) Remote() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(c.addr).Unmap(), c.port)
}

// Start returns when the upgrade was done (L2.4).
func (c *Conn) Start() time.Time {
	return time.Now().Add(-time.Duration(c.reg.loop.Now() - c.born))
}

// RTT returns the last round trip time; 0 when none has been measured.
func (c *Conn) RTT() time.Duration { return time.Duration(c.rtt) * time.Microsecond }

// Meta returns the values of the request headers named by Config.MetaHeaders, in that order, "" for one that was not
// sent (L2.4). The slice is shared between connections: read only.
func (c *Conn) Meta() []string { return c.reg.metas.values(c.meta) }

// Pending returns the bytes sent but not yet taken by the kernel.
func (c *Conn) Pending() int { return c.reg.loop.Pending(c.slot) }

// Draining reports whether Drain wants this connection to go (L5.5).
func (c *Conn) Draining() bool { return c.flags&draining != 0 }

// Endpoint returns the endpoint that the client asked for.
func (c *Conn) Endpoint() *Endpoint { return &c.reg.cfg.Endpoints[c.endpoint] }

// Reserve begins a message of n bytes and returns the payload's place in the outgoing buffer: the caller fills all of it
// and then calls Commit with it, before anything else is sent on this connection or reserved on another of the registry
// (the masking key of the client role is kept once). It is how a message is built where it goes out, without a copy.
// Errors: ErrNotOpen, ErrSlow.
func (c *Conn) Reserve(op frame.OpCode, n int) ([]byte, error) {
	if c.state != Open && c.state != Connected {
		return nil, ErrNotOpen
	}
	r := c.reg
	masked := r.cfg.Role == frame.RoleClient
	h := frame.HeaderSize(n, masked)
	if c.full(h + n) {
		c.slow()
		return nil, ErrSlow
	}
	if c.packs(n) {
		return r.packer.reserve(op, n), nil
	}
	r.packer.reserved = false
	b := r.loop.Reserve(c.slot, h+n)
	if masked {
		binary.NativeEndian.PutUint32(r.maskKey[:], rand.Uint32())
	}
	frame.AppendHeader(b[:0], op, true, n, masked, r.maskKey)
	r.stats.MessagesSent[kindOf(op)]++
	return b[h:], nil
}

// Commit ends what Reserve began; p is what Reserve returned.
func (c *Conn) Commit(p []byte) {
	if k := &c.reg.packer; k.reserved {
		c.sendPacked(k.op, p)
		return
	}
	if c.reg.cfg.Role == frame.RoleClient {
		frame.Mask(p, c.reg.maskKey, 0)
	}
}

// Send sends a message (op Text or Binary). p is copied. Errors: ErrNotOpen, ErrSlow.
func (c *Conn) Send(op frame.OpCode, p []byte) error {
	b, err := c.Reserve(op, len(p))
	if err != nil {
		return err
	}
	copy(b, p)
	c.Commit(b)
	return nil
}

// Prepared is a message in a frame of its own, built once for many connections of the server role. It is immutable and
// may be used from any goroutine and loop.
type Prepared struct {
	shared  *loop.Shared
	payload []byte // in there
	op      frame.OpCode
	frames  packedFrames
}

// Prepare builds a Prepared. p is copied.
func Prepare(op frame.OpCode, p []byte) *Prepared {
	h := frame.HeaderSize(len(p), false)
	b := frame.AppendFrame(make([]byte, 0, h+len(p)), op, true, p)
	return &Prepared{shared: loop.NewShared(b), payload: b[h:], op: op}
}

// SendPrepared sends a prepared message; its bytes are shared, not copied. Server role only. Errors: ErrNotOpen, ErrSlow.
func (c *Conn) SendPrepared(p *Prepared) error {
	if c.state != Open && c.state != Connected {
		return ErrNotOpen
	}
	if c.reg.cfg.Role != frame.RoleServer {
		panic("conn: SendPrepared by a client, whose frames are masked each with a key of its own")
	}
	f := packedFrame{frame: p.shared, plain: true}
	if c.packs(len(p.payload)) {
		f = p.packed(c.reg, c.sendBits)
	}
	if c.full(f.frame.Len()) {
		c.slow()
		return ErrSlow
	}
	c.reg.loop.WriteShared(c.slot, f.frame)
	c.reg.stats.MessagesSent[kindOf(p.op)]++
	if !f.plain {
		c.packedOne(c.context().Out(), p.payload, f.n)
	}
	return nil
}

// full reports whether n bytes more are too many for this connection (L8.3). Only what the kernel did not take counts
// against the peer, so what has not been offered to it yet is offered first. To a peer that has taken everything a message
// of any size may be sent: the worker bounds it, and a limit below the size of an answer would close those who read.
//
// Of small messages the bookkeeping is larger than the bytes: no more may wait than have as much bookkeeping as the limit.
func (c *Conn) full(n int) bool {
	l, most := c.reg.loop, c.reg.cfg.MaxPending
	if bytes, units := l.Queued(c.slot); bytes+n <= most && units < most/pendingUnit {
		return false
	}
	l.Flush(c.slot)
	bytes, units := l.Queued(c.slot)
	return bytes > 0 && (bytes+n > most || units >= most/pendingUnit)
}

// slow closes a connection whose peer does not take what it is sent (L8.3): what is unsent is dropped, whole frames of
// it, so that memory is bounded and the Close frame comes next.
func (c *Conn) slow() {
	c.reg.stats.SlowBytes++
	c.dropUnsent()
	c.closeFor(CauseSlow)
}

// dropUnsent drops what is unsent, except while the answer to the upgrade may be among it: a Close frame in its place
// would be no HTTP. What is pending then is within the limit.
func (c *Conn) dropUnsent() {
	if c.flags&answering == 0 {
		c.reg.loop.DropUnsent(c.slot)
	}
}
