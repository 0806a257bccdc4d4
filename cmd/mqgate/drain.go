package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
)

// drainPoll is how often a drain looks whether everybody has gone.
const drainPoll = 20 * time.Millisecond

// drainLog is how often it logs its progress.
const drainLog = 5 * time.Second

// drainer ends the process in good order (L5.5): readiness first, then the listeners, then the connections at an even
// pace, at last force. Its methods are safe from any goroutine but those of the loops.
type drainer struct {
	cfg    *config.Serve
	log    *slog.Logger
	server *conn.Server
	listen func() error // opens the listeners again after a cancelled drain

	// others: the listening sockets are not this process's alone, so somebody else accepts from them when it has stopped.
	// Set before run.
	others bool

	mu      sync.Mutex
	current *drain        // nil: none is under way. It stays when it is over: the process ends then
	asked   chan *drain   // current, until run takes it
	handed  chan struct{} // closed: another process has taken the listeners over
}

// Why a drain cannot be taken back.
var (
	errHandedOver = errors.New("the drain goes on: another process has taken the listeners over")
	errSignalled  = errors.New("the drain goes on: SIGTERM or SIGINT has asked for it, so that the process ends")
)

// drain is one drain.
type drain struct {
	force     chan struct{}   // closed: end everything now
	forced    bool            // force is closed
	signalled bool            // a signal has asked for it
	cancel    chan chan error // whoever takes it back sends where the answer goes
	over      chan struct{}   // closed: it cannot be taken back any more
}

func newDrainer(cfg *config.Serve, log *slog.Logger, server *conn.Server, listen func() error) *drainer {
	return &drainer{cfg: cfg, log: log, server: server, listen: listen, asked: make(chan *drain, 1), handed: make(chan struct{})}
}

// Start asks for a drain; a second call while one is under way changes nothing. When it returns, Active is true.
func (d *drainer) Start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started()
}

func (d *drainer) started() *drain {
	if d.current == nil {
		d.current = &drain{force: make(chan struct{}), cancel: make(chan chan error), over: make(chan struct{})}
		d.asked <- d.current // has room: run took the one before when it ended it
	}
	return d.current
}

// Signal is SIGTERM or SIGINT: the first one drains, the second one ends everything at once and is reported as forced. One
// that comes while a drain asked for by the admin interface is under way counts as the first: a service manager runs its
// stop command, then sends the signal, and means no haste by it.
func (d *drainer) Signal() (forced bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.started()
	if !c.signalled {
		c.signalled = true
		return false
	}
	if !c.forced {
		c.forced = true
		close(c.force)
	}
	return true
}

// HandedOver asks for a drain because another process has taken the listeners over: it cannot be taken back, and whoever
// is in the middle of the handshake is let in before anybody is told to go. Call it once.
func (d *drainer) HandedOver() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.handed)
	d.started()
}

// handedOver reports whether HandedOver was called.
func (d *drainer) handedOver() bool {
	select {
	case <-d.handed:
		return true
	default:
		return false
	}
}

// Cancel takes a drain back and waits until the gateway listens again. false: there was none that could be taken back;
// the error says why it goes on.
func (d *drainer) Cancel() (bool, error) {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c == nil {
		return false, nil
	}
	answer := make(chan error, 1)
	select {
	case c.cancel <- answer:
		err := <-answer
		return err == nil, err
	case <-c.over:
		return false, nil
	}
}

// Active reports whether a drain is under way or has ended everything.
func (d *drainer) Active() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current != nil
}

// run drains when it is asked to. It returns nil when everybody is gone, or the error of ctx.
func (d *drainer) run(ctx context.Context) error {
	for {
		select {
		case c := <-d.asked:
			if cancelled, err := d.drain(ctx, c); !cancelled {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *drainer) drain(ctx context.Context, c *drain) (cancelled bool, err error) {
	defer close(c.over)
	began, logged := time.Now(), time.Now()
	deadline, stop := context.WithTimeout(ctx, d.cfg.DrainTimeout)
	defer stop()
	before, _ := d.total()
	d.log.Info("draining", "connections", before.Open, "delay", d.cfg.DrainDelay, "spread", d.cfg.DrainSpread, "timeout", d.cfg.DrainTimeout)

	delay := time.NewTimer(d.cfg.DrainDelay)
	defer delay.Stop()
	for waiting := true; waiting; {
		select {
		case <-delay.C:
			waiting = false
		case <-d.handed: // load balancers need notice nothing
			waiting = false
		case <-deadline.Done():
			waiting = false
		case <-c.force:
			waiting = false
		case answer := <-c.cancel:
			if err := d.end(); err != nil {
				answer <- err
				continue
			}
			d.log.Info("drain cancelled before anything was closed", "connections", before.Open)
			answer <- nil
			return true, nil
		}
	}
	d.server.StopListening()

	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for told := false; ; {
		t, complete := d.total()
		if complete && sockets(&t) == 0 {
			d.summary(&before, 0, began)
			return false, nil
		}
		// When others accept, nobody is to be refused: this process finishes the handshakes that it has begun. That takes
		// no longer than --handshake-timeout, after which there are none.
		if !told && (t.Handshake == 0 || !d.others && !d.handedOver()) {
			d.tell()
			told = true
		}
		if time.Since(logged) >= drainLog {
			logged = time.Now()
			d.log.Info("still draining", "open", t.Open, "lingering", t.Lingering, "handshaking", t.Handshake)
		}
		select {
		case <-tick.C:
			continue
		case answer := <-c.cancel:
			if err := d.final(); err != nil {
				answer <- err
				continue
			}
			if err := d.resume(); err != nil {
				d.log.Error("the drain goes on: it was to be cancelled, but listening again failed", "err", err)
				answer <- fmt.Errorf("the drain goes on, listening again failed: %w", err)
				continue
			}
			t, _ = d.total()
			if err := d.end(); err != nil { // final since then: what is held of it now was opened again for nothing
				d.server.StopListening()
				told = false
				answer <- err
				continue
			}
			d.log.Info("drain cancelled; listening again", "connections", t.Open)
			answer <- nil
			return true, nil
		case <-deadline.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
		case <-c.force:
		}
		forced := 0
		d.server.Each(func(r *conn.Registry) { forced += r.ForceAll() })
		d.summary(&before, forced, began)
		return false, nil
	}
}

// tell has every loop close its connections, each at the rate that makes all loops end at the same time.
func (d *drainer) tell() {
	open := make([]int64, len(d.server.Registries()))
	var total int64
	d.server.Each(func(r *conn.Registry) {
		n := r.Stats().Open
		open[r.Loop().Index()] = n
		total += n
	})
	pace := conn.Pace(total, d.cfg.DrainSpread)
	d.server.Each(func(r *conn.Registry) {
		// At least one, for a connection whose handshake ends between the two looks.
		r.StartDrain(pace * float64(max(open[r.Loop().Index()], 1)) / float64(max(total, 1)))
	})
}

// resume listens again and lets the connections that are still open stay. After an error nothing has changed.
func (d *drainer) resume() error {
	if err := d.listen(); err != nil {
		d.server.StopListening() // those that did open
		return err
	}
	d.server.Each(func(r *conn.Registry) { r.CancelDrain() })
	return nil
}

// final returns why the drain under way cannot be taken back; nil: it can.
func (d *drainer) final() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why()
}

// why is final for those who hold mu.
func (d *drainer) why() error {
	switch {
	case d.handedOver():
		return errHandedOver
	case d.current.signalled: // whoever sent it, a service manager most likely, would cut off a process that stays
		return errSignalled
	}
	return nil
}

// end forgets the drain under way, unless it is final.
func (d *drainer) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.why()
	if err == nil {
		d.current = nil
	}
	return err
}

// summary logs how many connections ended how since before; the four kinds add up to connections.
func (d *drainer) summary(before *conn.Stats, forced int, began time.Time) {
	after, _ := d.total()
	of := func(c conn.Cause) (n int64) {
		for i, v := range after.Disconnects[c] {
			n += int64(v - before.Disconnects[c][i])
		}
		return n
	}
	ended := int64(after.Disconnected() - before.Disconnected())
	closed, unanswered := of(conn.CauseDrain), of(conn.CauseForced)-int64(forced)
	d.log.Info("drained", "connections", ended,
		"closed", closed, // by the close handshake with 3333
		"unanswered", unanswered, // no Close frame of theirs within --close-timeout
		"forced", forced, // cut off by --drain-timeout or a second signal
		"otherwise", ended-closed-unanswered-int64(forced), // by themselves, errors, timeouts
		"took", time.Since(began).Round(time.Millisecond))
}

// total returns the counters of all loops. Not complete: a loop is lost, and what it held is not in the sum.
func (d *drainer) total() (sum conn.Stats, complete bool) {
	snaps := d.server.Snapshots()
	for _, s := range snaps {
		sum.Add(&s.Conn)
	}
	return sum, len(snaps) == len(d.server.Registries())
}

// sockets is what a drain waits for: the connections, and the sockets before and after that.
func sockets(s *conn.Stats) int64 { return s.Open + s.Lingering + s.Handshake }
