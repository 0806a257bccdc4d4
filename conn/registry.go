package conn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/mqgate/mqgate/loop"
)

// Handler is told what happens to the connections of an endpoint. All methods are called on the goroutine of the
// connection's loop and must not block. It costs one interface call per message, 2 ns beside the microseconds of the
// read that brought it.
type Handler interface {
	// OnOpen: the connection is CONNECTED and becomes OPEN when OnOpen returns, unless OnOpen closes it. Sending works.
	OnOpen(c *Conn)
	// OnMessage: a whole message (op Text or Binary). p is borrowed until OnMessage returns and may be changed in place.
	// The state is OPEN, or CLOSING while the peer's Close is awaited (L1.3).
	OnMessage(c *Conn, op frame.OpCode, p []byte)
	// OnPong: a round trip time was measured (L7.4).
	OnPong(c *Conn, rtt time.Duration)
	// OnDrain: the process is going. The handler closes the connection with CauseDrain, now or when its requests are
	// answered (L5.5); if it does not, the connection is forced after --drain-timeout.
	OnDrain(c *Conn)
	// OnError: the socket is broken; OnClose follows at once (L8.1).
	OnError(c *Conn, err error)
	// OnClose: exactly once for every connection whose OnOpen was called (L1.6). Nothing can be sent any more: the state
	// is CLOSING or, when the socket is gone, CLOSED. The Conn is not to be used after it returns.
	OnClose(c *Conn, e End)
}

// Heartbeat is who keeps a connection alive.
type Heartbeat uint8

const (
	HeartbeatServer Heartbeat = iota // we ping (L7.1)
	HeartbeatClient                  // the peer sends something in every two intervals (L7.5)
	HeartbeatOff
)

// Endpoint is a path and who serves it. In the client role there is one, and its path is what is asked for.
type Endpoint struct {
	Path       string
	Handler    Handler
	MaxMessage int // [bytes]

	frames, inflated frame.Config // without compression, and with it
}

// Config is shared by the registries of a process and never changes while they run.
type Config struct {
	Role             frame.Role
	Endpoints        []Endpoint
	Issuer           *Issuer
	HandshakeTimeout time.Duration
	PingInterval     time.Duration
	CloseTimeout     time.Duration
	WriteTimeout     time.Duration // L8.3
	Heartbeat        Heartbeat
	MaxPending       int                   // [bytes] L8.3
	MaxMessages      int                   // messages and control frames per second and connection; 0: no limit
	Compression      handshake.Compression // permessage-deflate; the zero value: off
	CompressMin      int                   // messages shorter than that are sent as they are [bytes]
	Takeovers        *deflate.Budget       // bounds the memory of context takeover; nil: no limit
	MetaHeaders      []string
	Limits           *Limits // nil: no limit
	Budget           *Budget // L8.6; nil: no limit. Not shared with another Server

	// Where connections come from, and who may come (L2.1, L2.3, L2.6). The zero values: no proxy is trusted, any site
	// may connect, no limit per address.
	Trusted       clientaddr.Trusted // proxies whose X-Forwarded-For and PROXY header count
	ProxyProtocol bool               // every connection begins with a PROXY header, version 1 or 2
	Origins       *clientaddr.Origins
	PerAddress    *clientaddr.Limiter // its Sweep is the owner's to call, about once a second, with the time of Server.Now
	Log           *slog.Logger

	// OnPing, if set, is told of every ping of the peer, before it is answered. On the connection's loop. For load
	// generators, which judge a server's heartbeat.
	OnPing func(c *Conn)
}

// Validate lists all faults of the configuration and completes it.
func (cfg *Config) Validate() error {
	var errs []error
	check := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New("conn: "+text))
		}
	}
	check(len(cfg.Endpoints) > 0 && len(cfg.Endpoints) < 256, "1 to 255 endpoints expected")
	if err := cfg.Compression.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("conn: compression: %w", err))
	}
	check(cfg.CompressMin >= 0, "the smallest message to be compressed must be of 0 bytes or more")
	check(cfg.MaxMessages >= 0, "the limit of messages per second must be 0 or above")
	check(cfg.HandshakeTimeout > 0 && cfg.PingInterval > 0 && cfg.CloseTimeout > 0 && cfg.WriteTimeout > 0, "every timeout must be above 0")
	check(len(cfg.MetaHeaders) <= maxMetaHeaders, "at most 16 headers can be kept")
	check(cfg.Limits == nil || cfg.Limits.Soft > 0 && cfg.Limits.Hard >= cfg.Limits.Soft, "the soft limit must be above 0 and the hard one not below it")
	for i := range cfg.Endpoints {
		e := &cfg.Endpoints[i]
		for _, other := range cfg.Endpoints[:i] {
			check(other.Path != e.Path, "there are two endpoints with the path "+e.Path)
		}
		check(e.Handler != nil && e.MaxMessage > 0, "endpoint "+e.Path+" needs a handler and a message limit above 0")
		check(cfg.MaxPending > e.MaxMessage, "the pending limit must be above the message limit of endpoint "+e.Path)
		e.frames = frame.Config{Role: cfg.Role, MaxMessage: e.MaxMessage}
		e.inflated = frame.Config{Role: cfg.Role, MaxMessage: e.MaxMessage, AllowRSV1: true, Inflate: true}
	}
	if cfg.Issuer == nil {
		cfg.Issuer = NewIssuer()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// Limits bounds the connections of a process. Its counter is shared by the loops: one atomic operation per connection,
// none per message.
type Limits struct {
	Soft, Hard int64 // L2.5, L2.6; Hard >= Soft > 0
	TellPerSec int64 // closes with 1013 per second; above, the upgrade is refused
	open       atomic.Int64
	told       atomic.Int64 // second << 32 | closes told in it
}

// tell reports whether one more client may be told in the second of now [ns].
func (lim *Limits) tell(now int64) bool {
	for {
		old := lim.told.Load()
		sec := max(now/1e9, old>>32) // a loop that is a turn behind must not begin the last second anew
		next := sec<<32 | 1
		if old>>32 == sec {
			if old&0xffffffff >= lim.TellPerSec {
				return false
			}
			next = old + 1
		}
		if lim.TellPerSec <= 0 {
			return false
		}
		if lim.told.CompareAndSwap(old, next) {
			return true
		}
	}
}

// Registry holds the connections of one loop, in slots that are the loop's own. It is the loop's handler.
type Registry struct {
	cfg     *Config
	loop    *loop.Loop
	chunks  []*[chunkConns]Conn
	stats   Stats
	metas   metas
	maskKey [4]byte
	scratch [256]byte // control frames and their bodies
	block   [16]byte  // for the ids
	phase   uint64    // spreads first pings over the interval
	drain   drain

	pressure   pressure
	packer     packer
	allowances []*[chunkConns]allowance
	paying     bool // what is being read is what was kept of the connection (see unpaid)

	request  handshake.Request  // the one that is being read
	notFound *handshake.Refusal // names the endpoints
}

// NewRegistry returns a registry for a validated Config. Attach must be called before its loop runs.
func NewRegistry(cfg *Config) *Registry {
	var paths []string
	for _, e := range cfg.Endpoints {
		paths = append(paths, e.Path)
	}
	return &Registry{cfg: cfg, notFound: handshake.NotFound(paths...), metas: metas{none: make([]string, len(cfg.MetaHeaders))}}
}

// Attach tells the registry its loop.
func (r *Registry) Attach(l *loop.Loop) {
	r.loop = l
	r.drain.timer = l.NewTimers(func(uint32) { r.drainStep() })
	r.pressure.timer = l.NewTimers(func(uint32) { r.relieve() })
}

// Loop returns the registry's loop.
func (r *Registry) Loop() *loop.Loop { return r.loop }

// Stats returns a copy of the counters. On the loop's goroutine.
func (r *Registry) Stats() Stats { return r.stats }

// Entries counts the connections that have been upgraded and not ended by looking at every slot: the slow truth that
// Stats.Open is checked against (L6.2).
func (r *Registry) Entries() (n int64) {
	r.Each(func(*Conn) { n++ })
	return n
}

// Each calls f for every connection that has been opened and not ended. f may close them.
func (r *Registry) Each(f func(c *Conn)) {
	for slot := range uint32(len(r.chunks) * chunkConns) {
		if c := r.live(slot); c != nil {
			f(c)
		}
	}
}

// live returns the connection in slot if it has been opened and not ended.
func (r *Registry) live(slot uint32) *Conn {
	if int(slot/chunkConns) >= len(r.chunks) || !r.loop.InUse(slot) {
		return nil
	}
	c := r.at(slot)
	// CLOSED without an end is a socket that was refused the upgrade and lingers: nobody was told of it.
	if c.flags&ended != 0 || c.state < Connected || c.state == Closed {
		return nil
	}
	return c
}

// Get resolves a reference: nil when that connection has ended.
func (r *Registry) Get(ref Ref) *Conn {
	if r.loop.Generation(ref.Slot) != ref.Generation {
		return nil
	}
	return r.live(ref.Slot)
}

// Find resolves an id that was verified and is of this loop: nil when that connection has ended. Since whoever asks wants
// something of it, that is counted as coming after its end (L5.4).
func (r *Registry) Find(id ID) *Conn {
	c := r.Get(Ref{id.Slot(), id.Generation()})
	if c == nil {
		r.stats.After[r.afterEnd(id)]++
	}
	return c
}

// afterEnd says how the connection with that id has ended, as far as its slot still knows.
func (r *Registry) afterEnd(id ID) AfterEnd {
	slot := id.Slot()
	if int(slot/chunkConns) < len(r.chunks) && r.loop.Generation(slot) == id.Generation()+1 &&
		r.at(slot).cause == CauseForced {
		return AfterForced
	}
	return AlreadyDisconnected
}

func (r *Registry) at(slot uint32) *Conn { return &r.chunks[slot/chunkConns][slot%chunkConns] }

// take prepares the Conn of a slot that the loop has just taken.
func (r *Registry) take(slot uint32, remote netip.AddrPort) *Conn {
	for int(slot/chunkConns) >= len(r.chunks) {
		r.chunks = append(r.chunks, new([chunkConns]Conn))
	}
	c := r.at(slot)
	*c = Conn{reg: r, slot: slot, addr: remote.Addr().As16(), port: remote.Port()}
	if r.cfg.MaxMessages > 0 {
		*r.allowance(c) = allowance{}
	}
	return c
}

// setTimer has the connection's timer fire in d [ns].
func (r *Registry) setTimer(c *Conn, d int64) { r.loop.SetTimer(c.slot, r.loop.Now()+d) }

// uncount takes a connection off the limits that it was counted against, once.
func (r *Registry) uncount(c *Conn) {
	if c.flags&counted != 0 {
		c.flags &^= counted
		r.cfg.Limits.open.Add(-1)
	}
	if c.flags&countedAddr != 0 {
		c.flags &^= countedAddr
		r.cfg.PerAddress.Release(c.Remote().Addr())
	}
}

// writeControl queues a control frame. urgent: ahead of waiting data (pings, pongs).
func (r *Registry) writeControl(c *Conn, op frame.OpCode, body []byte, masked, urgent bool) {
	var key [4]byte
	var buf [frame.MaxHeader + frame.MaxControlPayload]byte
	b := buf[:0]
	if masked {
		key = newMaskKey()
		b = frame.AppendMaskedFrame(b, op, true, body, key)
	} else {
		b = frame.AppendFrame(b, op, true, body)
	}
	if urgent && c.flags&answering == 0 { // nothing goes ahead of the answer to the upgrade: it is no frame
		r.loop.WriteUrgent(c.slot, b)
	} else {
		r.loop.Write(c.slot, b)
	}
	r.stats.MessagesSent[kindOf(op)]++
}

// OnData implements loop.Handler.
func (r *Registry) OnData(slot uint32, p []byte) {
	c := r.at(slot)
	c.flags |= alive
	r.beginReading(c)
	switch c.state {
	case New, Connecting:
		if p = c.handshake(p); len(p) > 0 {
			c.frames(p)
		}
	case Connected, Open, Closing:
		r.handleRest(c) // which has been read before p
		c.frames(p)
	case Closed: // lingering: thrown away (L1.8)
	}
	r.endReading(c)
}

// OnEOF implements loop.Handler: the peer's FIN.
func (r *Registry) OnEOF(slot uint32) {
	c := r.at(slot)
	c.flags |= sawEOF
	r.beginReading(c)
	defer r.endReading(c)
	r.handleRest(c)
	switch c.state {
	case New, Connecting:
		c.handshakeLost(errors.New("connection closed during the handshake"))
	case Connected, Open:
		// No Close frame can come any more. What is queued still goes out, then our Close, to whoever reads on.
		c.fail1006()
	case Closing:
		c.fail1006()
	case Closed:
		if r.loop.Pending(slot) == 0 {
			c.drop(false)
		} // else: the last words are still going out
	}
}

// fail1006 ends a connection whose peer will send nothing more and has sent no Close frame.
func (c *Conn) fail1006() {
	r := c.reg
	cause := CauseSocket
	if c.state == Closing {
		cause = c.cause
	} else {
		c.transition(Closing)
		c.sendClose(codeProtocol, "FIN without a Close frame")
	}
	c.end(End{Code: codeAbnormal, Reason: []byte("connection lost"), Cause: cause})
	c.finish()
	r.setTimer(c, r.cfg.WriteTimeout.Nanoseconds())
}

// OnError implements loop.Handler.
func (r *Registry) OnError(slot uint32, errno syscall.Errno) {
	c := r.at(slot)
	r.stats.Errors++
	r.cfg.Log.Debug("socket error", "err", errno, "state", c.state, "remote", c.Remote())
	if c.state == New || c.state == Connecting {
		c.handshakeLost(errno)
		return
	}
	cause := CauseSocket
	if c.state == Closing {
		cause = c.cause
	}
	switch {
	case c.state != Closed:
		c.Endpoint().Handler.OnError(c, errno)
	case c.flags&ended != 0: // it lingers; the handler has been told of the end
		r.stats.After[AlreadyDisconnected]++
	}
	c.abort(cause, false)
}

// OnBlocked implements loop.Handler: from now on the write timeout runs (L8.3).
func (r *Registry) OnBlocked(slot uint32) {
	c := r.at(slot)
	if c.state == Open || c.state == Connected {
		r.armOpen(c)
	}
	r.Account()
}

// OnDrained implements loop.Handler.
func (r *Registry) OnDrained(slot uint32) {
	c := r.at(slot)
	c.flags &^= answering
	if c.flags&lingering != 0 {
		c.lingerDrained()
	}
}

// OnTimer implements loop.Handler. What the timer is for follows from the state.
func (r *Registry) OnTimer(slot uint32) {
	c := r.at(slot)
	switch c.state {
	case New, Connecting:
		c.handshakeTimeout()
	case Connected, Open:
		r.heartbeat(c)
	case Closing: // L5.3
		c.abort(CauseForced, true)
	case Closed:
		c.drop(r.loop.Pending(slot) > 0)
	}
}
