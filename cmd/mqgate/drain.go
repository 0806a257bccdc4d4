package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
)

// drainPoll is how often a drain looks whether everybody has gone.
const drainPoll = 20 * time.Millisecond

// drainLog is how often it logs its progress.
const drainLog = 5 * time.Second

// errDrainCancelled ends a drain that an operator took back.
var errDrainCancelled = errors.New("drain cancelled")

// drainer ends the process in good order (L5.5): readiness first, then the listeners, then the connections at an even
// pace, at last force. It may be taken back until it is over.
type drainer struct {
	cfg    *config.Serve
	log    *slog.Logger
	server *conn.Server
	listen func() error // opens the listeners again after a cancelled drain

	active    atomic.Bool
	remaining atomic.Int64 // connections and lingering sockets, while active

	mu     sync.Mutex
	cancel context.CancelCauseFunc // not nil while a drain is under way
	start  chan struct{}           // asks for a drain
	force  chan struct{}           // closed: force at once
	forced sync.Once
}

func newDrainer(cfg *config.Serve, log *slog.Logger, server *conn.Server, listen func() error) *drainer {
	return &drainer{cfg: cfg, log: log, server: server, listen: listen, start: make(chan struct{}, 1), force: make(chan struct{})}
}

// Start asks for a drain; a second call while one is under way changes nothing.
func (d *drainer) Start() {
	select {
	case d.start <- struct{}{}:
	default:
	}
}

// Force ends a drain at once (the second SIGTERM).
func (d *drainer) Force() { d.forced.Do(func() { close(d.force) }) }

// Cancel takes a drain back. false: none is under way.
func (d *drainer) Cancel() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel == nil {
		return false
	}
	d.cancel(errDrainCancelled)
	return true
}

// Active reports whether a drain is under way.
func (d *drainer) Active() bool { return d.active.Load() }

// run waits for Start and drains. It returns when everybody is gone; errDrainCancelled when the drain was taken back and
// the gateway listens again.
func (d *drainer) run(ctx context.Context) error {
	select {
	case <-d.start:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.mu.Lock()
	d.cancel = cancel
	d.mu.Unlock()
	d.active.Store(true)
	began := time.Now()
	deadline := time.NewTimer(d.cfg.DrainTimeout)
	defer deadline.Stop()
	before := d.total()
	d.remaining.Store(before.Open + before.Lingering + before.Handshake)
	d.log.Info("draining", "connections", before.Open, "delay", d.cfg.DrainDelay, "spread", d.cfg.DrainSpread, "timeout", d.cfg.DrainTimeout)

	forced, err := d.drain(ctx, deadline.C)
	d.mu.Lock()
	d.cancel = nil
	d.mu.Unlock()
	d.active.Store(false)
	select {
	case <-d.start: // asked for while under way
	default:
	}
	if errors.Is(err, errDrainCancelled) {
		d.log.Info("drain cancelled; listening again", "connections", d.total().Open)
	}
	if err != nil {
		return err
	}
	after := d.total()
	sum := func(s *conn.Stats, c conn.Cause) (n uint64) {
		for _, v := range s.Disconnects[c] {
			n += v
		}
		return n
	}
	told := sum(&after, conn.CauseDrain) - sum(&before, conn.CauseDrain)
	ended := after.Disconnected() - before.Disconnected()
	unanswered := sum(&after, conn.CauseForced) - sum(&before, conn.CauseForced)
	d.log.Info("drained", "closed", told, "forced", unanswered, "ended_otherwise", ended-told-unanswered, "cut_off_at_timeout", forced,
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (d *drainer) drain(ctx context.Context, deadline <-chan time.Time) (forced int, err error) {
	if !d.wait(ctx, deadline, d.cfg.DrainDelay) {
		return 0, context.Cause(ctx)
	}
	d.server.StopListening()
	rate := conn.Pace(d.total().Open, d.cfg.DrainSpread) / float64(len(d.server.Registries()))
	d.server.Each(func(r *conn.Registry) { r.StartDrain(rate) })
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	logged := time.Now()
	for {
		t := d.total()
		left := t.Open + t.Lingering + t.Handshake
		d.remaining.Store(left)
		if left == 0 {
			return 0, nil
		}
		if time.Since(logged) >= drainLog {
			logged = time.Now()
			d.log.Info("draining", "open", t.Open, "lingering", t.Lingering)
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			d.server.Each(func(r *conn.Registry) { r.CancelDrain() })
			if err := d.listen(); err != nil {
				return 0, fmt.Errorf("the drain was cancelled, but listening again failed: %w", err)
			}
			return 0, context.Cause(ctx)
		case <-deadline:
		case <-d.force:
		}
		d.server.Each(func(r *conn.Registry) { forced += r.ForceAll() })
		d.remaining.Store(0)
		return forced, nil
	}
}

// wait waits for pause; it is cut short by the deadline and by force. false: the drain was cancelled.
func (d *drainer) wait(ctx context.Context, deadline <-chan time.Time, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-deadline:
	case <-d.force:
	case <-ctx.Done():
		return false
	}
	return true
}

func (d *drainer) total() (sum conn.Stats) {
	for _, s := range d.server.Snapshots() {
		sum.Add(&s.Conn)
	}
	return sum
}

// Remaining returns the sockets that the drain under way has still to close; 0 when there is none.
func (d *drainer) Remaining() int64 {
	if !d.Active() {
		return 0
	}
	return d.remaining.Load()
}
