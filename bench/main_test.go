package bench

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if where := os.Getenv(fanoutEnv); where != "" {
		if err := runMembers(where); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// echoServer is a server that echoes, or does what misbehave says instead. All its methods but the handler's may be
// called from the test.
type echoServer struct {
	// misbehave, if not nil, is called on the loop for message n (1, 2, ...) of a connection and reports whether it has
	// dealt with it. p is borrowed.
	misbehave func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool
	onOpen    func(c *conn.Conn)
	ping      time.Duration // 0: so seldom that no test sees one
	short     bool          // short timeouts, which a stopped reader and a silent one run into
	write     time.Duration // WriteTimeout; 0: 10 s, with short 1 s
	pending   int           // MaxPending; 0: 4 MiB
	meta      []string      // MetaHeaders
	perIP     *clientaddr.Limiter
	limits    *conn.Limits

	compression deflate.Mode

	server *conn.Server

	messages map[conn.Ref]int
	ended    [5000]atomic.Int64 // connections, by close code
	addr     netip.AddrPort
}

func (s *echoServer) OnOpen(c *conn.Conn) {
	if s.onOpen != nil {
		s.onOpen(c)
	}
}

func (s *echoServer) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	s.messages[c.Ref()]++
	if s.misbehave == nil || !s.misbehave(c, s.messages[c.Ref()], op, p) {
		_ = c.Send(op, p) // closing
	}
}

func (s *echoServer) OnPong(*conn.Conn, time.Duration) {}
func (s *echoServer) OnDrain(*conn.Conn)               {}
func (s *echoServer) OnError(*conn.Conn, error)        {}
func (s *echoServer) OnClose(_ *conn.Conn, e conn.End) { s.ended[e.Code].Add(1) }

// serve starts s with one loop, at the path /echo, until the test ends.
func (s *echoServer) serve(t *testing.T) {
	t.Helper()
	s.messages = map[conn.Ref]int{}
	s.ping = cmp.Or(s.ping, time.Minute)
	cfg := &conn.Config{
		Role: frame.RoleServer, Endpoints: []conn.Endpoint{{Path: "/echo", Handler: s, MaxMessage: 1 << 20}},
		HandshakeTimeout: 10 * time.Second, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		PingInterval: s.ping, MaxPending: cmp.Or(s.pending, 4<<20), MetaHeaders: s.meta,
		PerAddress: s.perIP, Limits: s.limits,
		Compression: handshake.Compression{Mode: s.compression, WindowBits: deflate.MaxWindowBits},
	}
	if s.short {
		cfg.HandshakeTimeout, cfg.CloseTimeout, cfg.WriteTimeout = 2*time.Second, time.Second/2, time.Second
	}
	cfg.WriteTimeout = cmp.Or(s.write, cfg.WriteTimeout)
	server, err := conn.NewServer(cfg, conn.ServerConfig{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	s.server = server
	if s.addr, err = server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1024); err != nil {
		t.Fatal(err)
	}
}

// options returns the options of a small run against s.
func (s *echoServer) options(t *testing.T, scenario string) Options {
	t.Helper()
	target, err := ParseTarget("ws://" + s.addr.String() + "/echo")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Scenario: scenario, Target: target, Connections: 8, Duration: 200 * time.Millisecond, Loops: 2}
	if scenario == scenarioEcho {
		o.Payload, o.Depth = 128, 4
	}
	return o
}

// mustRun runs o to its end.
func mustRun(t *testing.T, ctx context.Context, o Options) *Report {
	t.Helper()
	sys, err := ThisSystem()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(sys); err != nil {
		t.Fatal(err)
	}
	p, err := Run(ctx, o, sys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
