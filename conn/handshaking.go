package conn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/valyala/bytebufferpool"
)

// handshaking is what a connection needs until its upgrade is done and only if it does not come in one piece, or in the
// client role.
type handshaking struct {
	buf  *bytebufferpool.ByteBuffer // what has come so far, without its end
	dial *DialConfig                // client role
	key  [16]byte                   // client role: the nonce
}

var (
	errHandshakeTimeout = errors.New("the handshake was not done in time")
	errTooLong          = errors.New("the answer to the upgrade request is longer than 8 KiB")
)

func (c *Conn) needHandshake() *handshaking {
	if c.hs == nil {
		c.hs = &handshaking{}
	}
	return c.hs
}

func (c *Conn) dropHandshake() {
	c.dropBuffer()
	c.hs = nil
}

func (c *Conn) dropBuffer() {
	if c.hs != nil && c.hs.buf != nil {
		bytebufferpool.Put(c.hs.buf)
		c.hs.buf = nil
	}
}

// OnAccept implements loop.Handler.
func (r *Registry) OnAccept(slot uint32, _ int, remote netip.AddrPort) {
	c := r.take(slot, remote)
	c.transition(Connecting)
	r.stats.Handshake++
	r.setTimer(c, r.cfg.HandshakeTimeout.Nanoseconds()) // never extended (L2.7)
}

// handshake takes bytes of the peer until the header block is complete, and returns what follows it: the first frames.
func (c *Conn) handshake(p []byte) []byte {
	if c.reg.cfg.ProxyProtocol && c.flags&proxied == 0 {
		if p = c.proxyHeader(p); c.flags&proxied == 0 {
			return nil
		}
	}
	for {
		block, rest, ok := c.headerBlock(p)
		if !ok {
			return nil
		}
		again := false
		if c.reg.cfg.Role == frame.RoleClient {
			again = c.clientUpgrade(block)
		} else {
			c.serverUpgrade(block)
		}
		c.dropBuffer() // block was in there
		switch {
		case again:
			p = rest
		case c.state == Closed:
			return nil
		default:
			c.hs = nil
			return rest
		}
	}
}

// gather returns what has come so far, with p at its end, and how much of it had come before p: p itself when nothing had.
// No more than most bytes are put together.
func (c *Conn) gather(p []byte, most int) (all []byte, had int) {
	if c.hs == nil || c.hs.buf == nil {
		return p, 0
	}
	buf := c.hs.buf
	had = len(buf.B)
	buf.B = append(buf.B, p[:min(len(p), most-had)]...)
	return buf.B, had
}

// keep keeps what gather returned for the next piece; p is what gather was given.
func (c *Conn) keep(p []byte) {
	if hs := c.needHandshake(); hs.buf == nil { // else gather has put it there
		hs.buf = bytebufferpool.Get()
		hs.buf.B = append(hs.buf.B, p...)
	}
}

// headerBlock collects the header block. Not ok: more is needed, or the connection was refused.
func (c *Conn) headerBlock(p []byte) (block, rest []byte, ok bool) {
	if len(p) == 0 {
		return nil, nil, false
	}
	all, had := c.gather(p, handshake.MaxRequest+1)
	end, ref := c.scan(all, had)
	switch {
	case ref != nil:
		c.refuse(ref, false)
	case end > 0:
		return all[:end], p[end-had:], true
	default:
		c.keep(p)
	}
	return nil, nil, false
}

// scan looks for the end of the header block. Both roles keep to 8 KiB (L2.7).
func (c *Conn) scan(p []byte, from int) (int, *handshake.Refusal) {
	if c.reg.cfg.Role == frame.RoleServer {
		return handshake.Scan(p, from, handshake.MaxRequest)
	}
	end := handshake.End(p, from)
	if end > handshake.MaxResponse || end == 0 && len(p) > handshake.MaxResponse {
		return 0, handshake.BadRequest(errTooLong.Error())
	}
	return end, nil
}

// serverUpgrade answers an upgrade request (RFC 6455 section 4.2, L2.1).
func (c *Conn) serverUpgrade(block []byte) {
	r := c.reg
	req := &r.request
	if ref := req.ParseHead(block); ref != nil {
		c.refuse(ref, false)
		return
	}
	i := r.endpointOf(req.Path)
	if i < 0 {
		c.refuse(r.notFound, req.IsHead())
		return
	}
	if ref := req.CheckUpgrade(); ref != nil {
		c.refuse(ref, req.IsHead())
		return
	}
	if ref := c.admitSource(req); ref != nil {
		c.refuse(ref, false)
		return
	}
	over, ok := r.admit(c)
	if !ok {
		r.uncount(c)
		c.refuse(unavailable, false)
		return
	}
	c.endpoint = uint8(i)
	if len(r.cfg.MetaHeaders) > 0 {
		r.metas.begin()
		for _, name := range r.cfg.MetaHeaders {
			r.metas.add(req.Header(name))
		}
		c.meta = r.metas.end()
	}
	var buf [maxExtensions]byte
	extensions := c.agree(buf[:0], req)
	r.loop.Write(c.slot, handshake.AppendResponse(r.scratch[:0], req.Key, nil, extensions))
	c.flags |= answering
	r.loop.NotifyDrained(c.slot)
	c.opened(over)
}

var unavailable = handshake.Unavailable("no more connections are taken at present; come back later", retryAfter)

func (r *Registry) endpointOf(path []byte) int {
	for i := range r.cfg.Endpoints {
		if r.cfg.Endpoints[i].Path == string(path) {
			return i
		}
	}
	return -1
}

// admit counts a connection against the limits. over: it is above the soft limit and is to be told so (L2.5); not ok: it
// is to be refused (L2.6), and uncounted.
func (r *Registry) admit(c *Conn) (over, ok bool) {
	if r.drain.active || r.cfg.Budget != nil && r.cfg.Budget.Level() >= Refusing {
		return false, false
	}
	lim := r.cfg.Limits
	if lim == nil {
		return false, true
	}
	n := lim.open.Add(1)
	c.flags |= counted
	if n > lim.Soft {
		if n > lim.Hard || !lim.tell(r.loop.Now()) {
			return false, false
		}
		return true, true
	}
	return false, true
}

// opened makes an upgraded connection known (L2.4): counted, then OnOpen, then OPEN.
func (c *Conn) opened(over bool) {
	r := c.reg
	c.transition(Connected)
	c.born = r.loop.Now()
	r.stats.Handshake--
	r.stats.Total++
	r.stats.Open++
	r.loop.CancelTimer(c.slot)
	c.Endpoint().Handler.OnOpen(c)
	if c.state != Connected {
		return // closed from within OnOpen
	}
	if over {
		c.closeFor(CauseLimit)
		return
	}
	c.transition(Open)
	r.startHeartbeat(c)
}

// refuse answers with an HTTP error and closes in good order; head: the answer to HEAD, without a body.
func (c *Conn) refuse(ref *handshake.Refusal, head bool) {
	r := c.reg
	if r.cfg.Role == frame.RoleClient {
		c.handshakeLost(errors.New(ref.Reason))
		return
	}
	r.stats.Refused[refusalIndex(ref.Status)]++
	r.stats.Handshake--
	c.flags |= refused
	var answer []byte
	if head {
		answer = handshake.AppendRefusalHead(nil, ref)
	} else {
		answer = handshake.AppendRefusal(nil, ref)
	}
	r.loop.Write(c.slot, answer)
	c.dropHandshake() // now, not when the socket has lingered
	c.finish()
}

// handshakeTimeout ends a handshake that took too long (L2.7): whoever has begun a request is told why.
func (c *Conn) handshakeTimeout() {
	c.reg.stats.HandshakeTO++
	if c.reg.cfg.Role == frame.RoleServer && (c.hs != nil || c.flags&proxied != 0) {
		c.refuse(handshake.TimedOut("the request was not complete in time"), false)
		return
	}
	c.handshakeLost(errHandshakeTimeout)
}

// handshakeLost ends a connection that was never upgraded.
func (c *Conn) handshakeLost(err error) {
	r, user := c.reg, c.User
	var failed func(uint32, error)
	if c.hs != nil && c.hs.dial != nil {
		failed = c.hs.dial.Failed
	}
	r.stats.Handshake--
	c.transition(Closed)
	c.drop(false)
	if failed != nil {
		failed(user, err)
	}
}

// DialConfig is what a client connects to. It may be shared by any number of connections and must not change.
type DialConfig struct {
	Addr     netip.AddrPort
	Host     string // of the Host header
	Path     string // with the query, if any
	Origin   string
	Protocol string
	Header   []handshake.Header
	// Failed is called on the loop's goroutine for a connection that could not be opened, with the user value given to
	// Dial. May be nil.
	Failed func(user uint32, err error)
}

// Dial opens a connection in the client role, from the given source address (the zero Addr: any). user becomes Conn.User.
// The endpoint's handler is told of the opening, or d.Failed of the failure, unless Dial itself returns an error. On the
// loop's goroutine.
func (r *Registry) Dial(d *DialConfig, source netip.Addr, user uint32) error {
	if r.cfg.Role != frame.RoleClient {
		panic("conn: Dial on a registry of the server role")
	}
	slot, errno := r.loop.Dial(d.Addr, source)
	if errno != 0 {
		return fmt.Errorf("connect to %v: %w", d.Addr, errno)
	}
	c := r.take(slot, d.Addr)
	c.User = user
	c.needHandshake().dial = d
	c.transition(Connecting)
	r.stats.Handshake++
	r.setTimer(c, r.cfg.HandshakeTimeout.Nanoseconds())
	return nil
}

// OnConnect implements loop.Handler.
func (r *Registry) OnConnect(slot uint32, errno syscall.Errno) {
	c := r.at(slot)
	if errno != 0 {
		c.handshakeLost(fmt.Errorf("connect to %v: %w", c.Remote(), errno))
		return
	}
	hs := c.hs
	binary.NativeEndian.PutUint64(hs.key[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(hs.key[8:], rand.Uint64())
	d := hs.dial
	header := d.Header
	if offer := r.cfg.Compression.Offer(); offer != "" {
		header = append(slices.Clone(header), handshake.Header{Name: "Sec-WebSocket-Extensions", Value: offer})
	}
	r.loop.Write(slot, handshake.AppendRequest(nil, d.Host, d.Path, hs.key, d.Origin, d.Protocol, header))
}

// clientUpgrade checks the server's answer (RFC 6455 section 4.1). again: it was an interim one.
func (c *Conn) clientUpgrade(block []byte) (again bool) {
	var res handshake.Response
	comp := c.reg.cfg.Compression
	err := res.Parse(block, c.hs.key, c.hs.dial.Protocol, comp.Offer())
	if err == nil {
		params, agreed, wrong := res.Deflate(comp)
		if err = wrong; agreed {
			c.compress(params, false, 0)
		}
	}
	switch {
	case err == nil:
		c.opened(false)
	case errors.Is(err, handshake.ErrInterim):
		return true
	default:
		c.handshakeLost(err)
	}
	return false
}
