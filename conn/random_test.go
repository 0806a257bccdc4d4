package conn

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop/looptest"
)

var (
	seedFlag  = flag.Uint64("conn.seed", 0, "run the randomised tests with this seed alone; 0: with all")
	seedsFlag = flag.Int("conn.seeds", allSeeds/slowdown, "number of seeds of the randomised tests")
)

// allSeeds is how many seeds reach every way to end.
const allSeeds = 300

// metropolis is a node with many peers that do whatever the seed says.
type metropolis struct {
	*node
	rand  *rand.Rand
	peers []*peer
	step  int
}

func (m *metropolis) chance(p float64) bool { return m.rand.Float64() < p }

// act is one step: one of all the things that can happen.
func (m *metropolis) act() {
	r := m.rand
	var p *peer
	if len(m.peers) > 0 {
		p = m.peers[r.IntN(len(m.peers))]
	}
	switch k := r.IntN(100); {
	case k < 8 || p == nil:
		m.arrive()
	case k < 12: // more of the request, or bytes at random
		p.Send([]byte(request("User-Agent: " + strings.Repeat("u", r.IntN(3)))))
	case k < 32:
		p.Send(p.frame([]frame.OpCode{frame.Text, frame.Binary}[r.IntN(2)], strings.Repeat("m", r.IntN(200))))
	case k < 36:
		b := p.frame(frame.Binary, strings.Repeat("m", r.IntN(70000)))
		p.Send(b[:r.IntN(len(b)+1)])
	case k < 40:
		p.Send(p.part([]frame.OpCode{frame.Text, frame.Continuation}[r.IntN(2)], m.chance(0.5), "part"))
	case k < 43:
		p.Send(p.frame(frame.Ping, strings.Repeat("p", r.IntN(126))))
	case k < 50: // an honest answer to the pings, or a lie
		for _, f := range p.read() {
			if f.op == frame.Ping {
				p.Send(p.frame(frame.Pong, f.payload))
			}
		}
		if m.chance(0.1) {
			p.Send(p.frame(frame.Pong, "12345678"))
		}
	case k < 54:
		p.Send(p.frame(frame.Close, closeBody(uint16([]int{0, 1000, 1001, 3000, 4999, 1006, 5000}[r.IntN(7)]), "x")))
	case k < 56:
		junk := make([]byte, r.IntN(50))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
		p.Send(junk)
	case k < 59:
		p.CloseWrite()
	case k < 61:
		p.Reset()
	case k < 66:
		p.SetWindow(r.IntN(3000) * r.IntN(2))
	case k < 70:
		p.SetWindow(1 << 30)
	case k < 76:
		m.someConn(func(c *Conn) {
			_ = c.Close([]int{1000, 4000, 1006, 0, -1}[r.IntN(5)], "local", CauseLocal)
		})
	case k < 82:
		size := r.IntN(2000)
		if m.chance(0.2) {
			size = r.IntN(testMaxPending)
		}
		m.someConn(func(c *Conn) { _ = c.Send(frame.Binary, make([]byte, size)) })
	case k < 84 && m.cfg.Role == frame.RoleServer:
		msg := Prepare(frame.Text, []byte("to all"))
		m.net.Loop.PostFunc(func() { m.reg.Each(func(c *Conn) { _ = c.SendPrepared(msg) }) })
	case k < 86:
		m.someConn(func(c *Conn) { _ = c.CloseFor(Cause(r.IntN(NumCauses))) })
	case k < 87 && m.chance(0.2):
		m.net.Loop.PostFunc(func() { m.reg.StartDrain(float64(r.IntN(2000))) })
	case k < 88:
		m.net.Loop.PostFunc(func() { m.reg.CancelDrain() })
	case k < 89 && m.chance(0.1):
		m.net.Loop.PostFunc(func() { m.reg.ForceAll() })
	case k < 97:
		m.clock(time.Duration(r.IntN(300)) * time.Millisecond)
	case k < 98:
		m.clock(time.Duration(r.IntN(8000)) * time.Millisecond)
	default:
		p.read()
	}
}

// clock moves the time, looking at the accounts at every step of it.
func (m *metropolis) clock(d time.Duration) {
	for ; d > 0; d -= time.Second {
		m.advance(min(d, time.Second))
		m.check()
	}
}

func (m *metropolis) someConn(f func(c *Conn)) {
	k := m.rand.IntN(1 + len(m.peers))
	m.net.Loop.PostFunc(func() {
		m.reg.Each(func(c *Conn) {
			if k--; k == 0 {
				f(c)
			}
		})
	})
}

func (m *metropolis) arrive() {
	var p *peer
	if m.cfg.Role == frame.RoleClient {
		if m.chance(0.1) {
			m.net.Refuse = 111 // ECONNREFUSED
		}
		m.net.Loop.PostFunc(func() { _ = m.reg.Dial(m.dialing(), netip.Addr{}, 1) })
		m.net.Step()
		m.net.Refuse = 0
		d := m.net.Dialed()
		if len(d) != 1 {
			return
		}
		p = &peer{Peer: d[0], t: m.t, n: m.node}
		m.peers = append(m.peers, p)
		for range 10 {
			m.net.Step()
		}
		if m.chance(0.9) {
			if p.read(); p.http != "" {
				p.Send([]byte(p.answer()))
			}
		}
		return
	}
	p = m.dialIn()
	m.peers = append(m.peers, p)
	switch {
	case m.chance(0.8):
		p.Send([]byte(request("User-Agent: " + strings.Repeat("u", m.rand.IntN(4)))))
	case m.chance(0.5):
		b := request()
		p.Send([]byte(b[:m.rand.IntN(len(b))]))
	}
}

// L6.2, L1.6: at every moment total - disconnected = open = entries, and after everything has closed nothing is left; one
// OnOpen before one OnClose for every connection, whatever network, peers and handler do. A failure names its seed:
// go test -run TestRandomised -conn.seed=N.
func TestRandomised(t *testing.T) {
	first, last := uint64(1), uint64(*seedsFlag)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	var total, open uint64
	causes := make(map[Cause]uint64)
	for seed := first; seed <= last; seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := randomRun(t, seed)
			total += s.Total
			open += uint64(s.Open)
			for c, codes := range s.Disconnects {
				for _, v := range codes {
					causes[Cause(c)] += v
				}
			}
		})
		if !ok {
			t.Fatalf("replay with -conn.seed=%d", seed)
		}
	}
	if *seedFlag != 0 || *seedsFlag < allSeeds {
		return
	}
	for c := CauseClient; c <= CauseLocal; c++ { // the test must reach every end there is
		if causes[c] == 0 {
			t.Errorf("no connection of %d ended by %s", total, c.Label())
		}
	}
}

func randomRun(t *testing.T, seed uint64) Stats {
	r := rand.New(rand.NewPCG(seed, 77))
	n := newNode(t, func(cfg *Config) {
		cfg.MetaHeaders = []string{"User-Agent"}
		cfg.Heartbeat = []Heartbeat{HeartbeatServer, HeartbeatServer, HeartbeatClient, HeartbeatOff}[r.IntN(4)]
		cfg.PingInterval = time.Duration(1+r.IntN(4)) * time.Second
		cfg.WriteTimeout = time.Duration(1+r.IntN(4)) * time.Second
		cfg.CloseTimeout = time.Duration(1+r.IntN(3)) * time.Second
		cfg.HandshakeTimeout = time.Duration(1+r.IntN(4)) * time.Second
		if r.IntN(3) == 0 {
			cfg.Role = frame.RoleClient
		} else if r.IntN(2) == 0 {
			soft := int64(1 + r.IntN(8))
			cfg.Limits = &Limits{Soft: soft, Hard: soft + int64(r.IntN(4)), TellPerSec: int64(r.IntN(10))}
		}
	})
	m := &metropolis{node: n, rand: r}
	n.net.Faults = &looptest.Faults{Rand: r, ShortRead: r.Float64() * 0.5, ShortWrite: r.Float64() * 0.5, Again: r.Float64() * 0.3, Shuffle: true}
	n.h.open = func(c *Conn) {
		if m.chance(0.05) {
			_ = c.Close(4000, "unwanted", CauseLocal)
		} else if m.chance(0.1) {
			_ = c.Send(frame.Text, []byte("welcome"))
		}
	}
	n.h.message = func(c *Conn, op frame.OpCode, p []byte) {
		if m.chance(0.7) {
			_ = c.Send(op, p)
		}
		if m.chance(0.03) {
			_ = c.Close(4001, "enough", CauseLocal)
		}
	}
	n.h.drain = func(c *Conn) {
		if m.chance(0.7) {
			_ = c.CloseFor(CauseDrain)
		}
	}
	n.h.close = func(c *Conn, _ End) {
		if c.Send(frame.Text, nil) == nil || c.Close(1000, "", CauseLocal) == nil {
			t.Error("OnClose can still send or close")
		}
	}
	for m.step = range 600 {
		m.act()
		m.net.Step()
		if m.step%slowdown == 0 {
			m.check()
		}
		m.h.calls = m.h.calls[:0]
		if m.chance(0.02) { // forget those that are gone
			kept := m.peers[:0]
			for _, p := range m.peers {
				if p.read(); !p.Closed() {
					kept = append(kept, p)
				}
			}
			m.peers = kept
		}
	}
	// Everything ends: by the clock alone, or at once.
	if m.chance(0.5) {
		m.on(func() { m.reg.Each(func(c *Conn) { _ = c.Close(1001, "the end", CauseLocal) }) })
		m.clock(30 * time.Second)
	} else {
		m.on(func() { m.reg.ForceAll() })
	}
	n.expectNothing()
	for _, p := range m.peers {
		p.read() // nothing came after a Close frame
	}
	return n.reg.Stats()
}
