package conn

import (
	"net/netip"

	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
)

var (
	forbiddenOrigin  = handshake.Forbidden("this web site may not connect; the sites that may are named by --origins")
	tooManyOfAddress = handshake.Unavailable("too many connections, or too many at once, from one address; come back later", retryAfter)
)

// proxyHeader takes the PROXY header off the beginning of the stream (L2.3) and returns what follows it. Until all of it
// is there, or when it is refused, the flag proxied stays unset.
func (c *Conn) proxyHeader(p []byte) (rest []byte) {
	all, had := c.gather(p, clientaddr.MaxHeaderV2+1) // Parse decides within its limits
	h, n, err := clientaddr.Parse(all)
	if err == nil && n == 0 {
		c.keep(p)
		return nil
	}
	var remote netip.AddrPort
	var forwarded bool
	if err == nil {
		remote, forwarded, err = h.Remote(c.Remote(), c.reg.cfg.Trusted)
	}
	if err != nil {
		c.reg.cfg.Log.Debug("PROXY header refused", "err", err, "remote", c.Remote())
		c.refuse(handshake.BadRequest(err.Error()), false)
		return nil
	}
	c.dropBuffer()
	c.setRemote(remote)
	c.setFlag(proxyOnly, !forwarded)
	c.flags |= proxied
	return p[n-had:]
}

func (c *Conn) setRemote(a netip.AddrPort) { c.addr, c.port = a.Addr().As16(), a.Port() }

// admitSource finds out where an upgrade request comes from (L2.3) and whether that may connect: its web site (L2.1, 403)
// and its address (L2.6, 503). After nil the connection is counted for its address.
func (c *Conn) admitSource(req *handshake.Request) *handshake.Refusal {
	cfg := c.reg.cfg
	if peer := c.Remote().Addr(); c.flags&proxyOnly == 0 {
		if a := clientaddr.Resolve(peer, cfg.Trusted, &req.Fields); a != peer {
			c.setRemote(netip.AddrPortFrom(a, 0)) // its port is not known
		}
	}
	if cfg.Origins != nil && !cfg.Origins.Allowed(req.Origin) {
		return forbiddenOrigin
	}
	if cfg.PerAddress != nil {
		if v := cfg.PerAddress.Admit(c.Remote().Addr(), c.reg.loop.Now()); v != clientaddr.Admitted {
			c.reg.stats.RefusedAddr[v]++
			return tooManyOfAddress
		}
		c.flags |= countedAddr
	}
	return nil
}
