package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	ours "github.com/mqgate/mqgate/frame"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long an answer may take: as good as for ever. Only an endpoint that does not answer makes a test wait.
const patience = 20 * time.Second

const (
	echoPath  = "/echo"
	smallPath = "/small" // with a limit of smallLimit
	echoLimit = 32 << 20
	// smallLimit is the limit that most cases of the limit are run with: odd, above 64 KiB.
	smallLimit = 70_001
	// deflateLimit is the limit that the cases of compression are run with.
	deflateLimit = 2 << 20
)

// echoes sends every message back, as mqgate serve --echo-path does.
type echoes struct{}

func (echoes) OnOpen(*conn.Conn) {}
func (echoes) OnMessage(c *conn.Conn, op ours.OpCode, p []byte) {
	_ = c.Send(op, p) // ErrNotOpen: closing
}
func (echoes) OnPong(*conn.Conn, time.Duration) {}
func (echoes) OnDrain(*conn.Conn)               {}
func (echoes) OnError(*conn.Conn, error)        {}
func (echoes) OnClose(*conn.Conn, conn.End)     {}

func config(role ours.Role) *conn.Config {
	return &conn.Config{
		Role:             role,
		HandshakeTimeout: 2 * patience, PingInterval: 2 * patience, CloseTimeout: 2 * patience, WriteTimeout: 2 * patience,
		Heartbeat: conn.HeartbeatOff, MaxPending: 2 * echoLimit,
		Endpoints: []conn.Endpoint{{Path: echoPath, Handler: echoes{}, MaxMessage: echoLimit}, {Path: smallPath, Handler: echoes{}, MaxMessage: smallLimit}},
	}
}

// serve starts our server and returns the target for each of its limits.
func serve(t *testing.T) (big, small *Target) {
	t.Helper()
	_, addr := start(t, config(ours.RoleServer))
	return &Target{Addr: addr, Path: echoPath, Patience: patience}, &Target{Addr: addr, Path: smallPath, Patience: patience}
}

// start starts our server and returns it and its address. At the end of the test it must have forgotten every connection.
func start(t *testing.T, cfg *conn.Config) (*conn.Server, string) {
	t.Helper()
	s, err := conn.NewServer(cfg, conn.ServerConfig{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	addr, err := s.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 128)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // every case has gone to its end
		for _, snap := range s.Snapshots() {
			if snap.Drift != 0 || snap.Conn.Open != 0 {
				t.Errorf("the server counts %d open, drift %d", snap.Conn.Open, snap.Drift)
			}
		}
	})
	return s, addr.String()
}

// each runs every case as a test of its own; in a slow build, without the heavy ones.
func each(t *testing.T, cases []Case, run func(c *Case) error) {
	t.Helper()
	all := len(cases)
	if slow {
		cases = slices.DeleteFunc(cases, func(c Case) bool { return c.Heavy })
	}
	t.Logf("%d cases, seed %d; %d heavy ones left out", len(cases), Seed, all-len(cases))
	names := map[string]bool{}
	for i := range cases {
		c := &cases[i]
		if names[c.Name] {
			t.Errorf("two cases have the name %q", c.Name)
		}
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			if err := run(c); err != nil {
				t.Errorf("section %s: %v", c.Section, err)
			}
		})
	}
}

// Our server by the whole suite.
func TestServer(t *testing.T) {
	t.Parallel()
	big, small := serve(t)
	each(t, Protocol(), func(c *Case) error { return c.RunClient(big) })
	each(t, Requests(), func(c *Case) error { return c.RunClient(big) })
	each(t, Limit(smallLimit), func(c *Case) error { return c.RunClient(small) })
	largest := slices.DeleteFunc(Limit(echoLimit), func(c Case) bool { // of the heavy ones two are enough
		return c.Heavy && !strings.Contains(c.Name, fmt.Sprintf("binary, %d bytes", echoLimit))
	})
	each(t, largest, func(c *Case) error { return c.RunClient(big) })
	offers := slices.DeleteFunc(Deflate(deflateLimit), func(c Case) bool { return !strings.HasPrefix(c.Name, "deflate: offer") })
	each(t, offers, func(c *Case) error { return c.RunClient(big) }) // declined, or answered rightly
}

// dialer is our client role, which dials the suite once for each case.
type dialer struct {
	t        *testing.T
	server   *conn.Server
	listener *net.TCPListener // the suite's
	config   conn.DialConfig
	failed   int // dials; on the loop's goroutine
	inflates bool
}

func newDialer(t *testing.T, cfg *conn.Config) *dialer {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	s, err := conn.NewServer(cfg, conn.ServerConfig{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	t.Cleanup(func() {
		if snap := s.Snapshots()[0]; snap.Drift != 0 || snap.Conn.Open != 0 {
			t.Errorf("the client counts %d open, drift %d", snap.Conn.Open, snap.Drift)
		}
	})
	d := &dialer{t: t, server: s, listener: listener}
	addr := listener.Addr().String()
	d.config = conn.DialConfig{Addr: netip.MustParseAddrPort(addr), Host: addr, Path: echoPath, Failed: func(uint32, error) { d.failed++ }}
	return d
}

func (d *dialer) run(c *Case) error {
	d.server.Each(func(r *conn.Registry) {
		if err := r.Dial(&d.config, netip.Addr{}, 0); err != nil {
			d.t.Error(err)
		}
	})
	accepted, err := d.listener.AcceptTCP()
	if err != nil {
		return err
	}
	return c.RunServer(&Target{Patience: patience, Inflates: d.inflates}, accepted)
}

// expectFailed checks how many dials did not get through the opening handshake.
func (d *dialer) expectFailed(want int) {
	d.server.Each(func(*conn.Registry) {
		if d.failed != want {
			d.t.Errorf("%d dials failed, want %d", d.failed, want)
		}
	})
}

// Our client role by the suite with its roles swapped: the suite is the server.
func TestClient(t *testing.T) {
	t.Parallel()
	cfg := func(limit int) *conn.Config {
		cfg := config(ours.RoleClient)
		cfg.Endpoints = cfg.Endpoints[:1]
		cfg.Endpoints[0].MaxMessage = limit
		return cfg
	}
	big := newDialer(t, cfg(echoLimit))
	each(t, Protocol(), big.run)
	each(t, Answers(), big.run)
	want := 0
	for _, c := range Answers() {
		if c.gives {
			want++
		}
	}
	big.expectFailed(want)
	small := newDialer(t, cfg(smallLimit))
	each(t, Limit(smallLimit), small.run)
}
