package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/rooms"
)

// Limits of a worker that are no settings.
const (
	// workerDrain is how long a worker that was told to end finishes what it has taken [time]: longer than any operation
	// on a room is tried.
	workerDrain = 20 * time.Second

	// workerSweep is how often a worker looks for gateways whose lease is over [time]: a part of the shortest lease that
	// makes sense for many gateways.
	workerSweep = 2 * time.Second

	// bindingChecks is how many sessions of a gateway that was away are looked at side by side: each takes a question to
	// NATS, and the gateway waits for five seconds.
	bindingChecks = 16
)

// natsWorker is the rooms worker over NATS: in a process of its own, or beside the gateway with --nats embedded.
type natsWorker struct {
	log     *slog.Logger
	conn    *nats.Conn
	engine  *watchedEngine
	rooms   *rooms.Worker
	service *nats.Service
}

// watchedEngine keeps the error with which an engine did not start: the rooms worker tells it to each request.
type watchedEngine struct {
	*roomstore.Engine
	err error
}

// Start implements rooms.Engine.
func (e *watchedEngine) Start(w *rooms.Worker, clients mq.Clients) error {
	e.err = e.Engine.Start(w, clients)
	return e.err
}

// startWorker connects a worker and begins to take requests. Who has got it ends it with close.
func startWorker(ctx context.Context, cfg *config.Worker, o nats.Options, log *slog.Logger) (started *natsWorker, err error) {
	w := &natsWorker{log: log}
	defer func() {
		if err != nil {
			w.close(ctx)
			started = nil
		}
	}()
	o.Name, o.Buffer, o.Wait, o.Log = fmt.Sprintf("mqgate worker %d", os.Getpid()), workerBuffer, natsStart, log
	if w.conn, err = nats.Connect(ctx, o); err != nil {
		return nil, err
	}
	engine, err := roomstore.New(ctx, roomstore.Options{Conn: w.conn.NATS(), Names: w.conn.Names(), Replicas: cfg.NATS.Replicas, Sweep: workerSweep,
		Log: log})
	if err != nil {
		return nil, err
	}
	w.engine = &watchedEngine{Engine: engine}
	if w.rooms, err = newRooms(cfg, w.engine); err != nil {
		engine.Close()
		return nil, err
	}
	w.service, err = nats.NewService(nats.ServiceConfig{Conn: w.conn, Worker: w.rooms, CheckBindings: w.gone, Replicas: cfg.NATS.Replicas, Log: log})
	if err == nil {
		err = w.service.Start(ctx)
	}
	return w, errors.Join(err, w.engine.err)
}

// close takes nothing more, finishes what it has taken until ctx is done, and ends the worker.
func (w *natsWorker) close(ctx context.Context) {
	if w.service != nil {
		if err := w.service.Drain(ctx); err != nil {
			w.log.Warn("the worker has not finished everything", "err", err)
		}
	}
	if w.rooms != nil {
		w.rooms.Close() // and the engine
	}
	if w.conn != nil {
		w.conn.Close()
	}
}

// gone returns those bindings that do not hold any more, for a gateway that was away.
func (w *natsWorker) gone(ctx context.Context, list []nats.Binding) (gone []nats.Binding, err error) {
	var mu sync.Mutex
	var next atomic.Int64
	var done sync.WaitGroup
	for range min(bindingChecks, len(list)) {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				holds, failed := w.engine.Holds(ctx, list[i].Conn, list[i].Session)
				mu.Lock()
				err = errors.Join(err, failed)
				if failed == nil && !holds {
					gone = append(gone, list[i])
				}
				stop := err != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	done.Wait()
	return gone, err
}

// workerProcess is mqgate worker.
type workerProcess struct {
	cfg    *config.Worker
	log    *slog.Logger
	worker *natsWorker
	ending atomic.Bool
}

// work runs the rooms worker until a signal ends it. Its error means exit status 1.
func work(ctx context.Context, cfg *config.Worker, log *slog.Logger) error {
	signal.Ignore(syscall.SIGPIPE) // as in serve
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	return runWorker(ctx, cfg, log, signals)
}

// runWorker is work with the signals of the caller.
func runWorker(ctx context.Context, cfg *config.Worker, log *slog.Logger, signals <-chan os.Signal) error {
	p := &workerProcess{cfg: cfg, log: log}
	if err := p.start(ctx, signals); err != nil {
		return err
	}
	adm, err := p.listenAdmin()
	if err != nil {
		p.finish(ctx, signals)
		return err
	}
	defer adm.close()
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	background.Go(func() { watchAway(ctx, log, cfg.NATS.Grace, p.away) })
	log.Info("working", "admin", adm.addr(), "nats", natsPlace(p.worker.conn, nil), "prefix", cfg.NATS.Prefix, "pid", os.Getpid())
	notify(log, daemon.SdNotifyReady)
	select {
	case sig := <-signals:
		log.Info("signal: finishing what was taken; a second one ends everything at once", "signal", sig.String())
		notify(log, daemon.SdNotifyStopping)
	case <-ctx.Done():
	}
	p.finish(context.WithoutCancel(ctx), signals)
	return ctx.Err()
}

// start starts the worker, unless a signal comes before it has.
func (p *workerProcess) start(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, natsStart)
	defer cancel()
	type result struct {
		w   *natsWorker
		err error
	}
	started := make(chan result, 1)
	go func() {
		w, err := startWorker(ctx, p.cfg, p.cfg.NATS.Options(), p.log)
		started <- result{w, err}
	}()
	select {
	case r := <-started:
		p.worker = r.w
		return r.err
	case <-signals:
		cancel()
	}
	if r := <-started; r.err == nil {
		p.worker = r.w
		p.finish(context.Background(), signals)
	}
	return errSignal
}

// finish ends the worker: everything that was taken is answered, or workerDrain is over, or there is one more signal.
func (p *workerProcess) finish(ctx context.Context, signals <-chan os.Signal) {
	p.ending.Store(true)
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, workerDrain)
	defer cancel()
	over := make(chan struct{})
	var listener sync.WaitGroup
	listener.Go(func() {
		select {
		case sig := <-signals:
			p.log.Warn("second signal: ending everything now", "signal", sig.String())
			cancel()
		case <-over:
		}
	})
	p.worker.close(ctx)
	close(over)
	listener.Wait()
	n := p.worker.service.Stats()
	p.log.Info("finished", "requests", n.Requests, "answered", n.Answered, "failed", n.Failed, "took", time.Since(began).Round(time.Millisecond))
}

func (p *workerProcess) away() string { return natsAway(p.worker.conn, p.cfg.NATS.Grace) }

// listenAdmin starts the admin interface of a worker.
func (p *workerProcess) listenAdmin() (*admin, error) {
	var ln net.Listener
	if p.cfg.Admin != nil {
		var err error
		if ln, err = net.Listen("tcp", p.cfg.Admin.String()); err != nil {
			return nil, fmt.Errorf("--admin %v: %w", p.cfg.Admin, explainListen(err))
		}
	}
	mux := adminMux(p.ready, &workerCollector{p.worker})
	return newAdmin(ln, guarded(p.cfg.AdminToken, mux), p.log, 0), nil
}

// ready tells whether the worker takes requests.
func (p *workerProcess) ready(w http.ResponseWriter, _ *http.Request) {
	why := p.away()
	if p.ending.Load() {
		why = "finishing"
	}
	if why != "" {
		answerText(w, http.StatusServiceUnavailable, why)
		return
	}
	answerText(w, http.StatusOK, "ready")
}
