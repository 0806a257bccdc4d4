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
	"syscall"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
)

// limitClosesPerSecond is how many clients above the limit are told so by a close handshake each second; the others are
// refused with 503. A client that is accepted and closed comes back at once, so telling everybody would feed the storm.
const limitClosesPerSecond = 100

// gateway is the assembled server.
type gateway struct {
	cfg     *config.Serve
	log     *slog.Logger
	worker  *rooms.Worker
	mq      *mq.Gateway
	server  *conn.Server
	drainer *drainer
	lost    chan error // a loop is lost (L8.5)
	addrs   []netip.AddrPort
}

// serve runs the gateway until it has drained. Its error means exit status 1.
func serve(ctx context.Context, cfg config.Serve, log *slog.Logger) error {
	g, err := assemble(&cfg, log)
	if err != nil {
		return err
	}
	defer g.worker.Close()
	defer g.server.Stop()
	if err := g.listen(); err != nil {
		return err
	}
	adm, err := g.serveAdmin()
	if err != nil {
		return err
	}
	defer adm.close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	log.Info("listening", "addr", joinAddrs(g.addrs), "admin", adm.addr(), "loops", cfg.Loops, "max_connections", cfg.MaxConnections,
		"open_files", cfg.OpenFiles, "pid", os.Getpid())

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go trimMemory(ctx, log, g.traffic)
	drained := make(chan error, 1)
	go func() {
		for {
			err := g.drainer.run(ctx)
			if !errors.Is(err, errDrainCancelled) {
				drained <- err
				return
			}
		}
	}()
	for {
		select {
		case sig := <-signals:
			if g.drainer.Active() {
				log.Warn("second signal: ending everything now", "signal", sig.String())
				g.drainer.Force()
			} else {
				log.Info("signal: draining; a second one ends everything at once", "signal", sig.String())
				g.drainer.Start()
			}
		case err := <-drained:
			return err
		case err := <-g.lost:
			return err
		}
	}
}

// assemble makes everything and connects it; nothing is listened on yet.
func assemble(cfg *config.Serve, log *slog.Logger) (*gateway, error) {
	g := &gateway{cfg: cfg, log: log, lost: make(chan error, 1)}
	roomsConfig := rooms.DefaultConfig()
	roomsConfig.ReenterGrace = cfg.ReenterGrace
	roomsConfig.Limits.Sessions = cfg.MaxSessions
	roomsConfig.Limits.Rooms = cfg.MaxRooms
	roomsConfig.Limits.MembersPerRoom = cfg.MaxMembersPerRoom
	roomsConfig.Limits.HistoryMessages = cfg.MaxHistoryPerRoom
	roomsConfig.Limits.HistoryBytes = int(cfg.MaxHistoryBytesPerRoom)
	if cfg.Auth == config.AuthJWT {
		jwt, err := rooms.NewJWT(cfg.AuthSecret)
		if err != nil {
			return nil, fmt.Errorf("--auth-secret-file %s: %w", cfg.AuthSecretFile, err)
		}
		roomsConfig.Authenticator = jwt
	}
	var err error
	if g.worker, err = rooms.New(roomsConfig); err != nil {
		return nil, err
	}
	g.mq, err = mq.New(mq.Config{
		Worker: g.worker, RequestTimeout: cfg.RequestTimeout, ServerRequestTimeout: cfg.ServerRequestTimeout,
		MaxRequests: cfg.MaxRequestsPerConnection, MetaHeaders: cfg.MetaHeaders, Log: log,
	}, cfg.Loops)
	if err != nil {
		return nil, err
	}
	heartbeats := map[config.Heartbeat]conn.Heartbeat{config.HeartbeatServer: conn.HeartbeatServer,
		config.HeartbeatClient: conn.HeartbeatClient, config.HeartbeatOff: conn.HeartbeatOff}
	cc := &conn.Config{
		Role:             frame.RoleServer,
		Endpoints:        []conn.Endpoint{{Path: cfg.Path, Handler: g.mq, MaxMessage: int(cfg.MaxMessageBytes)}},
		HandshakeTimeout: cfg.HandshakeTimeout, PingInterval: cfg.PingInterval, CloseTimeout: cfg.CloseTimeout,
		WriteTimeout: cfg.WriteTimeout, Heartbeat: heartbeats[cfg.Heartbeat], MaxPending: int(cfg.MaxPendingBytes),
		MetaHeaders: cfg.MetaHeaders, Log: log,
		Limits: &conn.Limits{Soft: int64(cfg.MaxConnections), Hard: int64(cfg.HardConnections()), TellPerSec: limitClosesPerSecond},
	}
	if cfg.EchoPath != "" {
		cc.Endpoints = append(cc.Endpoints, conn.Endpoint{Path: cfg.EchoPath, Handler: echo{}, MaxMessage: int(cfg.MaxMessageBytes)})
	}
	g.server, err = conn.NewServer(cc, conn.ServerConfig{
		Loops: cfg.Loops, Log: log,
		Lost:   func(err error) { g.lost <- err },
		Attach: func(_ int, r *conn.Registry) { g.mq.Attach(r) },
	})
	if err != nil {
		g.worker.Close()
		return nil, err
	}
	g.mq.Start(g.server)
	g.drainer = newDrainer(cfg, log, g.server, g.listen)
	return g, nil
}

// listen opens the listeners: at the start, and again, on the same ports, after a cancelled drain.
func (g *gateway) listen() error {
	for i, a := range g.cfg.Listen {
		addr := netip.AddrPortFrom(a.Host, a.Port)
		if !a.Host.IsValid() {
			addr = netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port)
		}
		if i < len(g.addrs) {
			addr = g.addrs[i]
		}
		real, err := g.server.Listen(addr, g.cfg.Backlog)
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

// traffic returns the bytes received and sent so far.
func (g *gateway) traffic() (n uint64) {
	for _, s := range g.server.Snapshots() {
		n += s.Loop.BytesReceived + s.Loop.BytesSent
	}
	return n
}
