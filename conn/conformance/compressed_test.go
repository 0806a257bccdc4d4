package conformance

import (
	"fmt"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/handshake"
	ours "github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
)

// compressions are the modes of our ends, and a window of their own. Slow builds have the one in which
// windows end soonest.
func compressions(t *testing.T) []handshake.Compression {
	t.Helper()
	all := []handshake.Compression{
		{Mode: deflate.Takeover, WindowBits: 10},
		{Mode: deflate.Shared},
		{Mode: deflate.Takeover, WindowBits: deflate.MaxWindowBits},
	}
	if slow {
		t.Logf("left out: %+v", all[1:])
		return all[:1]
	}
	return all
}

// compressing is our configuration with compression.
func compressing(role ours.Role, comp handshake.Compression) *conn.Config {
	cfg := config(role)
	cfg.Compression = comp
	cfg.Endpoints = []conn.Endpoint{{Path: echoPath, Handler: echoes{}, MaxMessage: deflateLimit}}
	return cfg
}

// Our server with compression, in each mode.
func TestCompressed(t *testing.T) {
	t.Parallel()
	for _, comp := range compressions(t) {
		t.Run(fmt.Sprintf("%v %d", comp.Mode, comp.WindowBits), func(t *testing.T) {
			_, addr := start(t, compressing(ours.RoleServer, comp))
			target := &Target{Addr: addr, Path: echoPath, Patience: patience, Inflates: true}
			each(t, Deflate(deflateLimit), func(c *Case) error { return c.RunClient(target) })
		})
	}
}

// Our client role with compression: the suite is the server.
func TestCompressedClient(t *testing.T) {
	t.Parallel()
	for _, comp := range compressions(t) {
		t.Run(fmt.Sprintf("%v %d", comp.Mode, comp.WindowBits), func(t *testing.T) {
			d := newDialer(t, compressing(ours.RoleClient, comp))
			d.inflates = true
			each(t, DeflateAnswers(deflateLimit), d.run)
			// What is allowed differs with what is offered: as many of the answers as agree finds bad must have been given up.
			want := 0
			for _, c := range DeflateAnswers(deflateLimit) {
				if c.agrees != nil {
					if _, err := agree(comp.Offer(), c.agrees(comp.Offer())); err != nil {
						want++
					}
				}
			}
			d.expectFailed(want)
			s := d.server.Snapshots()[0].Conn
			if s.CompressedSent < 1000 || s.CompressedReceived < 1000 {
				t.Errorf("%d messages were sent compressed, %d received", s.CompressedSent, s.CompressedReceived)
			}
			if takeover := comp.Mode == deflate.Takeover; (s.CompressedTakeover > 100) != takeover || s.CompressedShared == 0 {
				t.Errorf("%d connections were with takeover, %d without", s.CompressedTakeover, s.CompressedShared)
			}
		})
	}
}
