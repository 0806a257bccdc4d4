package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
)

// gateway is the assembled server.
type gateway struct {
	cfg     *config.Serve
	log     *slog.Logger
	rooms   *rooms.Worker // nil when another worker serves
	nats    *overNATS     // nil: without NATS
	mq      *mq.Gateway
	server  *conn.Server
	limiter *clientaddr.Limiter // per address; nil: no limits
	budget  *conn.Budget        // of memory; nil: no limit
	drainer *drainer
	lags    lags
	lost    chan error // a loop is lost (L8.5)
	addrs   []netip.AddrPort
	systemd *inherited // listeners of the service manager; nil: none

	memoryAtStart uint64 // anonymousMemory before the first connection [bytes]; 0: unknown
}

// serve runs the gateway with the built-in worker until it has drained. Its error means exit status 1.
func serve(ctx context.Context, cfg config.Serve, log *slog.Logger) error {
	systemd, err := fromSystemd()
	if err != nil {
		return err
	}
	defer systemd.close()
	if err := systemd.check(&cfg); err != nil {
		return fmt.Errorf("LISTEN_FDS: %w", err)
	}
	// Whoever reads the log may go away: then it is not written any more, but the process lives, and drains when told to.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	// What does not answer at the start is waited for, but not against a signal.
	starting, started := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	g, err := assemble(starting, &cfg, log, nil)
	started()
	if err != nil {
		return err
	}
	g.inherit(systemd)
	return g.run(ctx, signals)
}

// assemble makes everything and connects it; nothing is listened on yet. Without a worker it is the built-in one, or those
// in NATS; ctx ends the waiting for these. Who has called assemble calls run, once, which also gives everything back.
func assemble(ctx context.Context, cfg *config.Serve, log *slog.Logger, worker mq.Worker) (_ *gateway, err error) {
	g := &gateway{cfg: cfg, log: log, lost: make(chan error, 1)}
	issuer := conn.NewIssuer()
	defer func() {
		if err != nil {
			if g.server != nil {
				g.server.Stop()
			}
			g.closeWorker()
		}
	}()
	switch {
	case worker != nil:
	case cfg.NATS.On():
		if g.nats, err = joinNATS(ctx, cfg, issuer.Node(), log); err != nil {
			return nil, err
		}
		worker = g.nats.relay
	default:
		if g.rooms, err = newRooms(cfg, nil); err != nil {
			return nil, err
		}
		worker = g.rooms
	}
	g.mq, err = mq.New(mq.Config{
		Worker: worker, RequestTimeout: cfg.RequestTimeout, ServerRequestTimeout: cfg.ServerRequestTimeout,
		MaxRequests: cfg.MaxRequestsPerConnection, MetaHeaders: cfg.MetaHeaders, Log: log,
	}, cfg.Loops)
	if err != nil {
		return nil, err
	}
	g.budget = newBudget(cfg, log)
	connections, err := g.connections()
	if err != nil {
		return nil, err
	}
	connections.Issuer = issuer
	g.limiter = connections.PerAddress
	tablePerLoop := cfg.FDTables == config.FDTablesPerLoop
	if tablePerLoop {
		loop.RaiseProcs(cfg.Loops)
	}
	g.server, err = conn.NewServer(connections, conn.ServerConfig{
		Loops: cfg.Loops, TablePerLoop: tablePerLoop, Log: log, Lost: g.loopLost,
		Attach: func(_ int, r *conn.Registry) { g.mq.Attach(r) },
	})
	if err != nil {
		return nil, err
	}
	g.mq.Start(handlesOf{g.server, cfg.Path})
	g.drainer = newDrainer(cfg, log, g.server, g.listen)
	if g.nats != nil {
		return g, g.nats.start(ctx)
	}
	return g, nil
}

// newRooms makes the rooms worker, which keeps everything in an engine, or without one in memory.
func newRooms(cfg *config.Serve, engine rooms.Engine) (*rooms.Worker, error) {
	c := roomsConfig(cfg)
	c.Engine = engine
	if cfg.Auth == config.AuthJWT {
		jwt, err := rooms.NewJWT(cfg.AuthSecret)
		if err != nil {
			return nil, fmt.Errorf("--auth-secret-file %s: %w", cfg.AuthSecretFile, err)
		}
		c.Authenticator = jwt
	}
	return rooms.New(c)
}

// roomsConfig is what the flags say about the built-in worker, but for who may use it.
func roomsConfig(cfg *config.Serve) rooms.Config {
	c := rooms.DefaultConfig()
	c.ReenterGrace = cfg.ReenterGrace
	c.Limits.Sessions = cfg.MaxSessions
	c.Limits.Rooms = cfg.MaxRooms
	c.Limits.MembersPerRoom = cfg.MaxMembersPerRoom
	c.Limits.HistoryMessages = cfg.MaxHistoryPerRoom
	c.Limits.HistoryBytes = int(cfg.MaxHistoryBytesPerRoom)
	c.Limits.HistoryAge = cfg.MaxHistoryAge
	return c
}

// connections is what the flags say about connections.
func (g *gateway) connections() (*conn.Config, error) {
	cfg := g.cfg
	heartbeats := map[config.Heartbeat]conn.Heartbeat{config.HeartbeatServer: conn.HeartbeatServer,
		config.HeartbeatClient: conn.HeartbeatClient, config.HeartbeatOff: conn.HeartbeatOff}
	endpoint := func(path string, h conn.Handler) conn.Endpoint {
		return conn.Endpoint{Path: path, Handler: withDebugLog(h, g.log), MaxMessage: int(cfg.MaxMessageBytes)}
	}
	compression := map[config.Compression]deflate.Mode{config.CompressionOff: deflate.Off, config.CompressionShared: deflate.Shared,
		config.CompressionTakeover: deflate.Takeover}
	c := &conn.Config{
		Role:             frame.RoleServer,
		Endpoints:        []conn.Endpoint{endpoint(cfg.Path, g.mq)},
		HandshakeTimeout: cfg.HandshakeTimeout, PingInterval: cfg.PingInterval, CloseTimeout: cfg.CloseTimeout,
		WriteTimeout: cfg.WriteTimeout, Heartbeat: heartbeats[cfg.Heartbeat], MaxPending: int(cfg.MaxPendingBytes),
		Compression: handshake.Compression{Mode: compression[cfg.Compression], WindowBits: deflate.MaxWindowBits},
		CompressMin: int(cfg.CompressionMinSize), Takeovers: takeovers(cfg),
		MaxMessages: cfg.MaxMessagesPerSecond, MetaHeaders: cfg.MetaHeaders, Log: g.log, Budget: g.budget,
		Limits: &conn.Limits{Soft: int64(cfg.MaxConnections), Hard: int64(cfg.HardConnections()), TellPerSec: int64(cfg.LimitClosesPerSecond)},
	}
	if cfg.EchoPath != "" {
		c.Endpoints = append(c.Endpoints, endpoint(cfg.EchoPath, echo{}))
	}
	return c, g.sources(c)
}

// sources is what the flags say about where clients come from.
func (g *gateway) sources(c *conn.Config) (err error) {
	cfg := g.cfg
	c.ProxyProtocol = cfg.ProxyProtocol == config.ProxyProtocolOn
	if c.Trusted, err = clientaddr.ParseTrusted(cfg.TrustedProxies); err != nil {
		return fmt.Errorf("--trusted-proxies: %w", err)
	}
	if c.Origins, err = clientaddr.ParseOrigins(cfg.Origins); err != nil {
		return fmt.Errorf("--origins: %w", err)
	}
	if cfg.MaxConnectionsPerIP > 0 || cfg.HandshakeRatePerIP > 0 {
		c.PerAddress, err = clientaddr.NewLimiter(clientaddr.LimiterConfig{
			ConnectionsPerAddress: cfg.MaxConnectionsPerIP, HandshakesPerSecond: cfg.HandshakeRatePerIP,
			MaxAddresses: 2*cfg.HardConnections() + 1024, // all that are connected, and as many that were just refused
		})
		if err != nil {
			return fmt.Errorf("--max-connections-per-ip, --handshake-rate-per-ip: %w", err)
		}
	}
	return nil
}

// run listens and serves until a drain has ended (nil), the gateway fails, or ctx ends (its error: nobody is told).
func (g *gateway) run(ctx context.Context, signals <-chan os.Signal) error {
	defer g.closeWorker()
	defer g.server.Stop()
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()

	var err error
	if g.memoryAtStart, err = anonymousMemory(); err != nil {
		g.log.Warn("memory per connection will not be known", "err", err)
	}
	adm, next, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer adm.close()
	g.log.Info("listening", append([]any{"addr", joinAddrs(g.addrs), "admin", adm.addr(), "loops", g.cfg.Loops,
		"max_connections", g.cfg.MaxConnections, "open_files", g.cfg.AllOpenFiles(), "pid", os.Getpid()}, g.nats.describe()...)...)
	notify(g.log, daemon.SdNotifyReady)
	if next != nil {
		background.Go(func() { g.offer(ctx, next, adm) })
	}

	background.Go(func() { trimMemory(ctx, g.log, g.traffic, g.release) })
	background.Go(func() { g.watchLoops(ctx) })
	if g.nats != nil {
		background.Go(func() { g.nats.watch(ctx) })
	}
	if g.budget != nil {
		background.Go(func() { watchBudget(ctx, g.budget) })
	}
	drained := make(chan error, 1)
	background.Go(func() { drained <- g.drainer.run(ctx) })
	for {
		select {
		case sig := <-signals:
			if g.drainer.Signal() {
				g.log.Warn("second signal: ending everything now", "signal", sig.String())
			} else {
				g.log.Info("signal: draining; a second one ends everything at once", "signal", sig.String())
				notify(g.log, daemon.SdNotifyStopping)
			}
		case err := <-drained:
			return err
		case err := <-g.lost:
			return err
		}
	}
}

// loopLost is called on the goroutine of a loop that is lost (L8.5), which holds a part of the connections and cannot be
// replaced: the process ends. The first one says why.
func (g *gateway) loopLost(err error) {
	select {
	case g.lost <- err:
	default:
	}
}

func (g *gateway) closeWorker() {
	if g.rooms != nil {
		g.rooms.Close()
	}
	if g.nats != nil {
		g.nats.close()
	}
}

// listen opens the listeners, or takes the service manager's: at the start, and again, on the same ports, after a cancelled
// drain.
func (g *gateway) listen() error {
	if g.systemd != nil && len(g.systemd.clients) > 0 {
		return g.adopt(g.systemd.clients)
	}
	for i, a := range g.cfg.Listen {
		addr := netip.AddrPortFrom(a.Host, a.Port)
		if !a.Host.IsValid() {
			addr = netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port)
		}
		if i < len(g.addrs) {
			addr = g.addrs[i]
		}
		real, err := g.server.Listen(addr, g.cfg.Backlog)
		if !a.Host.IsValid() && errors.Is(err, syscall.EAFNOSUPPORT) { // a machine without IPv6
			real, err = g.server.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()), g.cfg.Backlog)
		}
		if err != nil {
			return fmt.Errorf("--listen %v: %w", a, explainListen(err))
		}
		if i == len(g.addrs) {
			g.addrs = append(g.addrs, real)
		}
	}
	return nil
}

// explainListen says what to do about the commonest failures.
func explainListen(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; another process listens there, perhaps another mqgate: choose another port or stop that one", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; ports below 1024 need CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; the address is none of this machine's", err)
	}
	return err
}

func joinAddrs(addrs []netip.AddrPort) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

// release has every loop let go of the memory that it keeps for the next burst.
func (g *gateway) release() {
	g.server.Each((*conn.Registry).Trim)
}

// traffic returns the bytes received and sent so far. It is asked all the time, so it leaves no snapshots behind.
func (g *gateway) traffic() (n uint64) {
	g.server.Each(func(r *conn.Registry) {
		s := r.Loop().Stats()
		n += s.BytesReceived + s.BytesSent
	})
	return n
}
