package conn

import (
	"sync"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/mqgate/mqgate/loop"
)

// packer is what a loop needs for permessage-deflate (RFC 7692): one compressor for all its connections, and what
// connections with context takeover keep, beside them and only when there are such.
type packer struct {
	comp      deflate.Compressor
	plain     []byte // what Reserve has handed out for a message that Commit will compress
	packed    []byte // scratch
	op        frame.OpCode
	reserved  bool // what Reserve has handed out last is plain
	takeovers []*[chunkConns]takeover
}

// takeover is what a connection with context takeover keeps.
type takeover struct {
	ctx   *deflate.Context
	share int32 // taken of Config.Takeovers [bytes]
}

// takeover returns the connection's place.
func (r *Registry) takeover(c *Conn) *takeover {
	for len(r.packer.takeovers) < len(r.chunks) {
		r.packer.takeovers = append(r.packer.takeovers, new([chunkConns]takeover))
	}
	return &r.packer.takeovers[c.slot/chunkConns][c.slot%chunkConns]
}

// context returns what the connection keeps between compressed messages: nil without context takeover.
func (c *Conn) context() *deflate.Context {
	if c.sendBits == 0 || c.reg.cfg.Compression.Mode != deflate.Takeover {
		return nil
	}
	return c.reg.takeover(c).ctx
}

// agree chooses from the client's offers (RFC 7692 section 5.1) and appends the answer to dst, which stays as it is when
// there is no compression. Where no memory is left for context takeover it goes on without.
func (c *Conn) agree(dst []byte, req *handshake.Request) []byte {
	cfg := c.reg.cfg
	params, answer, ok := req.Deflate(dst, cfg.Compression)
	if !ok {
		return dst
	}
	share := params.Memory(true)
	if cfg.Takeovers != nil && share > 0 && !cfg.Takeovers.Take(share) {
		share = 0
		shared := cfg.Compression
		shared.Mode = deflate.Shared
		params, answer, _ = req.Deflate(dst, shared)
	}
	c.compress(params, true, share)
	return answer
}

// compress notes what was agreed on.
func (c *Conn) compress(p deflate.Params, server bool, share int) {
	r := c.reg
	c.sendBits = p.SendBits(server)
	if ctx := deflate.NewContext(p, server); ctx != nil {
		*r.takeover(c) = takeover{ctx, int32(share)}
		r.stats.CompressedTakeover++
	} else {
		r.stats.CompressedShared++
	}
}

// dropContext lets go of what is kept between messages.
func (c *Conn) dropContext() {
	if c.context() == nil {
		return
	}
	t := c.reg.takeover(c)
	if b := c.reg.cfg.Takeovers; b != nil {
		b.Give(int(t.share))
	}
	*t = takeover{}
}

// packs reports whether a message of n bytes is to be compressed.
func (c *Conn) packs(n int) bool { return c.sendBits > 0 && n >= c.reg.cfg.CompressMin }

// reserve hands out n bytes for a message that Commit will compress.
func (k *packer) reserve(op frame.OpCode, n int) []byte {
	if cap(k.plain) < n {
		k.plain = make([]byte, n)
	}
	k.op, k.reserved = op, true
	return k.plain[:n]
}

// sendPacked queues p as one compressed message, or as it is when that is not shorter. p is borrowed.
func (c *Conn) sendPacked(op frame.OpCode, p []byte) {
	r := c.reg
	k, w := &r.packer, c.context().Out()
	out, shorter := k.comp.Append(k.packed[:0], p, c.sendBits, w)
	k.packed = out[:0]
	masked := r.cfg.Role == frame.RoleClient
	var key [4]byte
	if masked {
		key = newMaskKey()
	}
	body, head := p, frame.AppendHeader
	if shorter {
		body, head = out, frame.AppendHeaderRSV1
	}
	h := frame.HeaderSize(len(body), masked)
	b := r.loop.Reserve(c.slot, h+len(body))
	head(b[:0], op, true, len(body), masked, key)
	copy(b[h:], body)
	if masked {
		frame.Mask(b[h:], key, 0)
	}
	if shorter {
		c.packedOne(w, p, len(out))
	}
	r.stats.MessagesSent[kindOf(op)]++
	k.trim()
}

// packedOne counts a message p that was sent compressed to n bytes.
func (c *Conn) packedOne(w *deflate.Window, p []byte, n int) {
	if w != nil {
		w.Add(p)
	}
	c.reg.stats.CompressedSent++
	c.reg.stats.CompressionSaved += uint64(len(p) - n)
}

// trim lets go of scratch that a large message has made large.
func (k *packer) trim() {
	if cap(k.plain) > keptPacked {
		k.plain = nil
	}
	if cap(k.packed) > keptPacked {
		k.packed = nil
	}
}

// Trim gives memory that is kept for the next burst to the collector: for times when nothing happens. On the loop's
// goroutine.
func (r *Registry) Trim() {
	r.loop.Trim()
	k := &r.packer
	k.comp, k.plain, k.packed = deflate.Compressor{}, nil, nil
}

// packedFrames are the compressed forms of a Prepared: one for each kind of window (deflate.Kind), made by the first loop
// that needs it.
type packedFrames struct {
	mu    sync.Mutex
	kinds [deflate.MaxWindowBits + 1 - deflate.MinWindowBits]packedFrame
}

// packedFrame is a message compressed for many connections.
type packedFrame struct {
	frame *loop.Shared // nil: not tried yet
	n     int          // bytes of its payload
	plain bool         // it did not become shorter: frame is the uncompressed one
}

// packed returns the form of p for a connection that is sent compressed messages, on a registry's loop.
func (p *Prepared) packed(r *Registry, bits uint8) packedFrame {
	kind := deflate.Kind(bits, len(p.payload))
	f := &p.frames.kinds[kind-deflate.MinWindowBits]
	p.frames.mu.Lock() // 20 ns, and only for connections that compress
	defer p.frames.mu.Unlock()
	if f.frame != nil {
		return *f
	}
	out, shorter := r.packer.comp.Append(nil, p.payload, kind, nil)
	if !shorter {
		*f = packedFrame{p.shared, len(p.payload), true}
		return *f
	}
	b := make([]byte, 0, frame.HeaderSize(len(out), false)+len(out))
	b = frame.AppendHeaderRSV1(b, p.op, true, len(out), false, [4]byte{})
	*f = packedFrame{loop.NewShared(append(b, out...)), len(out), false}
	return *f
}
