package rooms_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
)

// implementation is a way to keep sessions and rooms. What a client sees must be the same with each.
type implementation struct {
	name string
	// gateway returns a gateway with a worker of the given configuration.
	gateway func(t testing.TB, cfg Config) *gateway
	// simulated runs a test in time that passes only by gateway.pass.
	simulated func(t *testing.T, f func(t *testing.T))
	rounds    int // of tests that try the same again and again
}

var implementations = []implementation{
	{"memory", newGateway, func(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }, 300},
	{"nats", newNATSGateway, func(t *testing.T, f func(t *testing.T)) { f(t) }, 50},
}

// each runs a test with every implementation.
func each(t *testing.T, f func(t *testing.T, im implementation)) {
	for _, im := range implementations {
		t.Run(im.name, func(t *testing.T) { f(t, im) })
	}
}

const grace = 10 * time.Second

// simulated runs f in simulated time with a gateway of the default configuration, and closes the worker afterwards.
func simulated(t *testing.T, im implementation, f func(t *testing.T, g *gateway)) {
	im.simulated(t, func(t *testing.T) {
		g := im.gateway(t, DefaultConfig())
		f(t, g)
		g.w.Close()
	})
}

// pass lets simulated time pass, and what is due then happen.
func (g *gateway) pass(d time.Duration) {
	if g.js != nil {
		g.js.pass(g, d)
		return
	}
	<-time.After(d)
	synctest.Wait()
}

// authenticated returns the number of connections that have a session.
func (g *gateway) authenticated() (n int) {
	if g.js == nil {
		return g.w.Authenticated()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.bound {
		if s != "" {
			n++
		}
	}
	return n
}

// subscribed reports whether a connection hears a topic.
func (g *gateway) subscribed(id conn.ID, t mq.Topic) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.subs[t][id]
	return ok
}

// passGrace lets the grace of a client's session be over, and returns whose it was: over NATS that of all.
func (g *gateway) passGrace(c *client) (sessions []string) {
	if g.js == nil {
		if running, epoch := g.w.Grace(c.session); running {
			g.w.GraceOver(c.session, epoch)
		}
		return []string{c.session}
	}
	g.pass(grace)
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.bound {
		sessions = append(sessions, g.session(id))
	}
	return sessions
}

// session returns the session that a connection is bound to. The lock is held.
func (g *gateway) session(id conn.ID) string {
	s, _, _ := strings.Cut(g.bound[id], ".")
	return s
}

// eventually waits until cond holds: over NATS some things happen a little later.
func (g *gateway) eventually(what string, cond func() bool) {
	g.t.Helper()
	if g.js != nil {
		g.js.await(g, what, cond)
	} else if !cond() {
		g.t.Error(what)
	}
}
