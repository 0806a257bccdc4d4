package conn

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
)

// frames handles what the peer sent after the upgrade. p is borrowed and changed in place.
func (c *Conn) frames(p []byte) {
	r := c.reg
	e := &r.cfg.Endpoints[c.endpoint]
	cfg, window := &e.frames, (*deflate.Window)(nil)
	if c.sendBits > 0 {
		cfg, window = &e.inflated, c.context().In()
	}
	for len(p) > 0 && c.state != Closed {
		limited := c.limited()
		if limited && !r.canPay(c) {
			r.unpaid(c, p)
			return
		}
		m, n, ok, err := c.in.NextWith(cfg, window, p)
		if err != nil {
			c.failFrame(err)
			break
		}
		p = p[n:]
		if !ok {
			return
		}
		if limited {
			r.pay(c)
		}
		switch m.Op {
		case frame.Text, frame.Binary:
			r.stats.MessagesReceived[kindOf(m.Op)]++
			if m.RSV1 {
				r.stats.CompressedReceived++
			}
			e.Handler.OnMessage(c, m.Op, m.Payload)
		case frame.Ping:
			r.stats.MessagesReceived[KindPing]++
			if r.cfg.OnPing != nil {
				r.cfg.OnPing(c)
			}
			c.pong(m.Payload)
		case frame.Pong:
			r.stats.MessagesReceived[KindPong]++
			c.gotPong(m.Payload)
		case frame.Close:
			r.stats.MessagesReceived[KindClose]++
			c.peerClose(m.Payload)
		case frame.Continuation:
			panic("conn: the frame reader delivered a continuation")
		}
		c.in.Release()
	}
}

// pong answers a ping (RFC 6455 section 5.5.3), unless our Close is out, after which nothing may be sent.
func (c *Conn) pong(body []byte) {
	if c.flags&closeSent != 0 {
		return
	}
	r := c.reg
	if c.full(frame.MaxHeader + len(body)) {
		c.slow() // a flood of pings by a peer that does not read
		return
	}
	r.writeControl(c, frame.Pong, body, r.cfg.Role == frame.RoleClient, true)
}

// gotPong measures the round trip (L7.4). Only the payload of the last ping counts.
func (c *Conn) gotPong(body []byte) {
	r := c.reg
	if c.flags&pinged == 0 || len(body) != 8 || int64(binary.BigEndian.Uint64(body)) != c.pingAt {
		r.stats.PongsUnsolicited++
		return
	}
	c.flags &^= pinged
	rtt := time.Duration(r.loop.Now() - c.pingAt)
	c.rtt = uint32(min(max(rtt.Microseconds(), 1), 1<<32-1))
	r.stats.observeRTT(c.rtt)
	if c.state == Open {
		c.Endpoint().Handler.OnPong(c, rtt)
	}
}

// newMaskKey returns a masking key for one frame (RFC 6455 section 5.3). math/rand/v2's source is ChaCha8, seeded by the
// operating system: unpredictable, and 5 ns.
func newMaskKey() (key [4]byte) {
	binary.NativeEndian.PutUint32(key[:], rand.Uint32())
	return key
}
