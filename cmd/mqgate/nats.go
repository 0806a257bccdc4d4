package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/follow"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Times of NATS that are no settings.
const (
	// natsStart is how long NATS, and what is to be made in it, is waited for at the start [time]. A process manager may
	// start everything at once; after this it should know that something is wrong.
	natsStart = 30 * time.Second

	// natsEnd is how long a gateway that has no connections any more waits until the ends of its connections are stored
	// [time]. What is not stored by then comes out when its lease is over.
	natsEnd = 5 * time.Second

	// natsWatch is how often it is looked whether NATS has been away for longer than --nats-grace [time].
	natsWatch = 250 * time.Millisecond

	// workerBuffer is what a worker may send while NATS is away for a moment, to be written when it is back [bytes]: nats.go's
	// own size.
	workerBuffer = 8 << 20
)

// overNATS is the part of a gateway that brings requests to workers elsewhere.
type overNATS struct {
	cfg   *config.Serve
	log   *slog.Logger
	node  uint32
	conn  *nats.Conn
	relay *nats.Relay

	follower atomic.Pointer[follow.Follower] // nil until start

	// With --nats embedded only.
	server *embedded.Server
	worker *natsWorker
}

// joinNATS connects a gateway to NATS, having started the server and a worker if they are to be in this process. The
// gateway serves nothing before start; close gives everything back.
func joinNATS(ctx context.Context, cfg *config.Serve, node uint32, log *slog.Logger) (joined *overNATS, err error) {
	n := &overNATS{cfg: cfg, log: log, node: node}
	defer func() {
		if err != nil {
			n.close()
			joined = nil
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, natsStart)
	defer cancel()
	o := cfg.NATS.Options()
	o.Name = "mqgate gateway " + subjects.NodeToken(node)
	o.Wait, o.Log = natsStart, log
	if cfg.NATS.Embedded() {
		if n.server, err = startNATSServer(&cfg.NATS, log); err != nil {
			return nil, err
		}
		o.InProcess = n.server.InProcess()
		if n.worker, err = startWorker(ctx, cfg, o, log); err != nil {
			return nil, err
		}
	}
	if n.conn, err = nats.Connect(ctx, o); err != nil {
		return nil, err
	}
	c := relayConfig(cfg, n.conn, node, log)
	c.NewFollower = n.follow
	n.relay, err = nats.NewRelay(c)
	return n, err
}

// relayConfig is what the settings say about the relay.
func relayConfig(cfg *config.Serve, c *nats.Conn, node uint32, log *slog.Logger) nats.RelayConfig {
	return nats.RelayConfig{
		Conn: c, Node: node, RequestTimeout: cfg.RequestTimeout, Idempotent: cfg.NATS.Idempotent, Ordered: cfg.NATS.Ordered, Lease: cfg.NATS.Lease,
		Replicas: cfg.NATS.Replicas, Log: log,
	}
}

// follow makes what brings the events of rooms, over all connections.
func (n *overNATS) follow(clients mq.Clients) (nats.Follower, error) {
	f, err := follow.New(follow.Config{Conns: n.conn.Links(), Names: n.conn.Names(), Clients: clients, Log: n.log})
	if err != nil {
		return nil, err
	}
	n.follower.Store(f)
	return f, nil
}

// startNATSServer starts the server of --nats embedded.
func startNATSServer(cfg *config.NATS, log *slog.Logger) (*embedded.Server, error) {
	o := embedded.Options{StoreDir: cfg.Store, Log: log}
	if cfg.Listen != nil {
		o.Listen = cfg.Listen.String()
	}
	s, err := embedded.Start(o)
	if err != nil {
		return nil, fmt.Errorf("--nats embedded, --nats-listen %s, --nats-store %q: %w", o.Listen, cfg.Store, err)
	}
	log.Info("NATS server started", "url", s.URL(), "store", s.StoreDir())
	return s, nil
}

// start begins to take and give. The gateway has been started, and has no connections yet.
func (n *overNATS) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, natsStart)
	defer cancel()
	return n.relay.Start(ctx)
}

// close ends everything; the gateway has no connections any more.
func (n *overNATS) close() {
	ctx, cancel := context.WithTimeout(context.Background(), natsEnd)
	defer cancel()
	if n.relay != nil {
		if err := n.relay.Close(ctx); err != nil {
			n.log.Warn("not everything could be told to NATS at the end", "err", err)
		}
	}
	if n.worker != nil {
		n.worker.close(ctx)
	}
	if n.conn != nil {
		n.conn.Close()
	}
	if n.server != nil {
		if err := n.server.Shutdown(); err != nil {
			n.log.Warn("the NATS server has not ended well", "err", err)
		}
	}
}

// describe is what the first line of the log says about NATS.
func (n *overNATS) describe() []any {
	if n == nil {
		return nil
	}
	return []any{"nats", natsPlace(n.conn, n.server), "node", subjects.NodeToken(n.node)}
}

// natsPlace names the NATS server that a process is connected to.
func natsPlace(c *nats.Conn, embedded *embedded.Server) string {
	if embedded != nil {
		return embedded.URL()
	}
	return c.NATS().ConnectedUrlRedacted()
}

// away says why the gateway is not ready, or "".
func (n *overNATS) away() string { return natsAway(n.conn, n.cfg.NATS.Grace) }

// natsAway says why a process is not ready when NATS has been away for longer than grace, or "".
func natsAway(c *nats.Conn, grace time.Duration) string {
	if away := c.Away(); away > grace {
		return fmt.Sprintf("NATS has been away for %v", away.Round(time.Second))
	}
	return ""
}

// watch logs when readiness changes because of NATS, until ctx is done.
func (n *overNATS) watch(ctx context.Context) { watchAway(ctx, n.log, n.cfg.NATS.Grace, n.away) }

func watchAway(ctx context.Context, log *slog.Logger, grace time.Duration, away func() string) {
	tick := time.NewTicker(natsWatch)
	defer tick.Stop()
	ready := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch why := away(); {
		case ready && why != "":
			log.Warn("not ready: NATS is away for longer than --nats-grace", "grace", grace)
			ready = false
		case !ready && why == "":
			log.Info("ready again: NATS is back")
			ready = true
		}
	}
}

// errSignal is why a process that was told to end before it was ready failed.
var errSignal = errors.New("told to end before it was ready")

// interest is needed for rooms whose events come from elsewhere.
var _ mq.InterestedWorker = (*nats.Relay)(nil)
