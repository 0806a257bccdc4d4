package loop

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudwego/netpoll"
)

// GroupConfig is the configuration of a Group.
type GroupConfig struct {
	Loops    int                  // number of loops, 1 or more
	Handler  func(i int) Handler  // makes the handler of loop i; called before the loop runs
	Log      *slog.Logger         // nil: nothing is logged
	MaxSlots int                  // sockets per loop at most; 0 means MaxSlots
	Attach   func(i int, l *Loop) // tells the handler its loop; called before the loop runs
	Lost     func(err error)      // a loop is lost (L8.5); called on its goroutine. nil: panic

	// TablePerLoop gives each loop a thread and a descriptor table of its own, so that RLIMIT_NOFILE limits every loop by
	// itself and not all of them together (Linux 5.9). A descriptor of the process, standard streams apart, is then another
	// one or none on a loop's goroutine: what is called there (Handler, tasks) must not use files and connections that were
	// opened elsewhere, nor hand out its own.
	TablePerLoop bool
}

// Group is a number of loops on real sockets, each on a goroutine of its own.
type Group struct {
	loops   []*Loop
	kernels []*epoll
	log     *slog.Logger
	done    sync.WaitGroup
	base    time.Time
	stop    sync.Once
	tables  *tables // nil: the loops use the process's descriptor table
}

// silenceNetpoll turns netpoll's own logger off: it logs what is handled here. Once: it writes a global.
var silenceNetpoll = sync.OnceFunc(func() { netpoll.SetLoggerOutput(io.Discard) })

// NewGroup opens the loops and starts them. All methods of Group are safe from any goroutine but those of the loops,
// also of another group's with tables of their own.
func NewGroup(cfg GroupConfig) (*Group, error) {
	if cfg.Loops < 1 {
		return nil, fmt.Errorf("loop: %d loops, expected 1 or more", cfg.Loops)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Lost == nil {
		cfg.Lost = func(err error) { panic(err) }
	}
	silenceNetpoll()
	g := &Group{log: cfg.Log, base: time.Now()}
	if cfg.TablePerLoop {
		t, err := newTables(cfg.Loops)
		if err != nil {
			return nil, fmt.Errorf("loop: %w", err)
		}
		g.tables = t
	}
	opened := make(chan error, cfg.Loops)
	for i := range cfg.Loops {
		k, err := newEpoll(g.base, cfg.Log, g.tables, i)
		if err != nil {
			g.Stop()
			return nil, fmt.Errorf("loop %d: %w", i, err)
		}
		l := New(Config{Index: i, Kernel: k, Handler: cfg.Handler(i), Log: cfg.Log, MaxSlots: cfg.MaxSlots})
		k.loop = l
		if cfg.Attach != nil {
			cfg.Attach(i, l)
		}
		run := func() { g.run(k, opened, cfg.Lost) }
		if g.tables != nil {
			g.done.Add(1)
			onOwnThread(func() { defer g.done.Done(); run() })
		} else {
			g.done.Go(run)
		}
		if err := <-opened; err != nil {
			g.Stop()
			return nil, fmt.Errorf("loop %d: %w", i, err)
		}
		g.loops, g.kernels = append(g.loops, l), append(g.kernels, k)
	}
	return g, nil
}

func (g *Group) run(k *epoll, opened chan<- error, lost func(error)) {
	if k.tables != nil {
		if err := k.tables.enter(); err != nil {
			k.loop.closeTasks()
			opened <- err
			return
		}
		defer k.tables.leave()
	}
	if err := k.open(); err != nil {
		k.loop.closeTasks()
		k.abandon()
		opened <- err
		return
	}
	k.loop.Begin()
	k.loop.End()
	opened <- nil
	err := k.wait()
	k.loop.closeTasks()
	k.loop.owner.release()
	if err != nil {
		lost(fmt.Errorf("loop %d is lost: epoll_wait: %w", k.loop.index, err))
	}
}

// abandon closes what a failed open left open.
func (k *epoll) abandon() {
	if k.poll != nil {
		k.stopped = true
		if err := k.poll.Close(); err == nil {
			_ = k.poll.Wait() // returns at once and closes the poll's descriptors
		}
	}
	for _, fd := range []int{k.wake.FD, k.timer.FD} {
		if fd >= 0 {
			k.Close(fd, false)
		}
	}
}

// Now returns the time of the loops' clocks at this moment [ns].
func (g *Group) Now() int64 { return int64(time.Since(g.base)) }

// Loops returns the loops.
func (g *Group) Loops() []*Loop { return g.loops }

// Each runs f on every loop's goroutine, one after the other, and waits for each. Not from a loop's goroutine. It
// returns false when a loop had stopped.
func (g *Group) Each(f func(l *Loop)) bool {
	for _, l := range g.loops {
		if !l.Do(func() { f(l) }) {
			return false
		}
	}
	return true
}

// Do runs f on the loop's goroutine and waits for it; false when the loop has stopped before. Not from a loop's
// goroutine, which would wait for itself.
func (l *Loop) Do(f func()) bool {
	done := make(chan struct{})
	if !l.PostFunc(func() { f(); close(done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-l.stopped:
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// Listen has every loop accept connections from addr; port 0 picks one. number is handed to Handler.OnAccept. backlog is
// the length of each loop's queue of connections not yet accepted (the kernel caps it at net.core.somaxconn). An address
// that is taken, also by another process that shares its ports, is refused. After an error no loop listens.
func (g *Group) Listen(addr netip.AddrPort, number, backlog int) (netip.AddrPort, error) {
	var err error
	listeners := make([]*listener, len(g.kernels))
	for i, k := range g.kernels {
		mode := listenJoin
		switch {
		case len(g.kernels) == 1:
			mode = listenAlone
		case i == 0:
			mode = listenFirst
		}
		if !g.loops[i].Do(func() { listeners[i], addr, err = k.listen(addr, number, backlog, mode) }) {
			err = fmt.Errorf("listen on %v: the loop has stopped", addr)
		}
		if err != nil {
			for j, ln := range listeners[:i] {
				g.loops[j].Do(func() { g.kernels[j].closeListener(ln) })
			}
			return addr, err
		}
	}
	return addr, nil
}

// StopListening ends accepting and closes all listeners. Connections that the kernel has accepted and this process has not
// are reset, but for those in sockets of which another process, or somebody in this one, has a duplicate: see Listening.
func (g *Group) StopListening() {
	for i, k := range g.kernels {
		g.loops[i].Do(func() {
			for _, ln := range k.listeners {
				k.closeListener(ln)
			}
		})
	}
}

// Stop closes what is still open, listeners and sockets, without telling the handlers, ends the loops and waits for
// their goroutines. It may be called more than once.
func (g *Group) Stop() {
	g.stop.Do(func() {
		for i, k := range g.kernels {
			l := g.loops[i]
			l.PostFunc(func() {
				for slot := range uint32(l.Slots()) {
					if l.InUse(slot) {
						l.Close(slot)
					}
				}
				l.closeTasks() // before the eventfd is closed: see Post
				k.stop()
			})
		}
	})
	g.done.Wait()
	if g.tables != nil {
		g.tables.close()
	}
}
