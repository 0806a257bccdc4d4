package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

const (
	scenarioConnect   = "connect"
	scenarioEcho      = "echo"
	scenarioRequest   = "request"
	scenarioBroadcast = "broadcast"
	scenarioHeartbeat = "heartbeat"
	scenarioRamp      = "ramp"
	scenarioChurn     = "churn"
)

// Scenario is a kind of load.
type Scenario struct {
	Name string
	Doc  string // one sentence

	load    func(r *run, d *driver) load       // made before the loops run
	measure func(ctx context.Context, r *run)  // on the coordinator; returns early when ctx ends
	rate    func(o *Options) (opening float64) // connections opened per second; 0: as fast as possible

	// alone, if set, is all of the scenario: it has connections of its own kind.
	alone func(ctx context.Context, r *run) error
}

// noRate: connections are opened as fast as possible.
func noRate(*Options) float64 { return 0 }

var scenarios = []Scenario{
	{
		Name: scenarioConnect,
		Doc:  "Open connections, hold them while they answer pings, close them: memory per connection, who is lost.",
		load: newConnectLoad, measure: measureConnect,
		rate: func(o *Options) float64 { return float64(o.Rate) },
	},
	{
		Name: scenarioEcho,
		Doc:  "Send messages on every connection to a path that echoes, check each echo byte for byte: rate, latency, CPU.",
		load: newEchoLoad, measure: measureEcho,
		rate: noRate,
	},
	{
		Name: scenarioRequest,
		Doc:  "Send MQ requests on every connection and check their answers, in whatever order they come: lost, late, duplicate, wrong; rate, latency, CPU.",
		load: newRequestLoad, measure: measureRequest,
		rate: noRate,
	},
	{
		Name: scenarioBroadcast,
		Doc:  "Have one member of every room send chat messages that all its members must get once: deliveries, latency, time to the last member.",
		load: newBroadcastLoad, measure: measureBroadcast,
		rate: noRate,
	},
	{
		Name: scenarioHeartbeat,
		Doc:  "Hold connections that only answer pings: do pings come at the interval, spread over it, and how long is a round trip?",
		load: newHeartbeatLoad, measure: measureHeartbeat,
		rate: noRate,
	},
	{
		Name: scenarioRamp,
		Doc:  "Find the highest rate of echoes or requests at which p99 stays within --p99.",
		load: newRampLoad, measure: measureRamp,
		rate: noRate,
	},
	{
		Name:  scenarioChurn,
		Doc:   "Open connections, talk, end them in every bad way there is, and check that the server's accounts balance and nothing of them stays.",
		alone: runChurn,
	},
}

// Scenarios returns what there is.
func Scenarios() []Scenario { return scenarios }

// run is one run. It belongs to the coordinator.
type run struct {
	o        *Options
	scenario *Scenario
	clients  *conn.Server // loops in the client role
	drivers  []*driver
	places   *places
	server   servers
	progress *Progress

	base, idle, afterBurst held  // of the servers: after the warm-up connections; with all of them; after a burst
	peak                   int64 // highest RssAnon seen
	churn                  *churn
	stalled                *stalled
	ramp                   *RampReport
	rooms                  []*chatRoom // of a broadcast
	series                 *series     // nil: no charts are wanted
	self                   process
	status                 func() string // for the progress; nil: of the drivers
	burst                  bool
	kernel                 KernelTCP // when the server's memory was last read
	openTime               time.Duration

	measuredFrom, measuredTo time.Time
	serverCPU                spent // at the beginning of the measured phase, then the difference
	clientCPU                time.Duration
}

// Run runs a scenario and returns what it found; progress may be nil. When ctx ends the run is broken off in good order
// and the report says so. The error is for what kept it from beginning. Options must have passed Validate.
func Run(ctx context.Context, o Options, sys System, progress *Progress) (*Report, error) {
	r := &run{o: &o, progress: progress, self: process{os.Getpid()}}
	if progress == nil {
		r.progress = &Progress{}
	}
	defer r.progress.end()
	for i := range scenarios {
		if scenarios[i].Name == o.Scenario {
			r.scenario = &scenarios[i]
		}
	}
	if r.scenario == nil {
		return nil, fmt.Errorf("scenario %q: there is none of that name", o.Scenario)
	}
	if o.TablePerLoop {
		loop.RaiseProcs(o.Loops)
	}
	var err error
	if r.places, err = newPlaces(ctx, &o, sys); err != nil {
		return nil, err
	}
	if r.server, err = r.findServers(); err != nil {
		return nil, err
	}
	if r.scenario.alone != nil {
		if o.Charts {
			r.startSeries(time.Now())
		}
		if err := r.scenario.alone(ctx, r); err != nil {
			return nil, err
		}
		return r.report(ctx.Err() != nil), nil
	}
	if o.Stalled > 0 {
		if r.stalled, err = newStalled(r); err != nil {
			return nil, err
		}
		defer r.stalled.group.Stop()
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	defer r.clients.Stop()
	if o.Charts {
		r.startSeries(time.Now())
	}
	r.open(ctx)
	if ctx.Err() == nil {
		r.scenario.measure(ctx, r)
	}
	interrupted := ctx.Err() != nil
	r.close(context.WithoutCancel(ctx))
	return r.report(interrupted), nil
}

// findServers finds the processes of the servers. One that is not found may not exist, or belong to another user. The
// connections will tell; the report lacks the server.
func (r *run) findServers() (servers, error) {
	list := make([]process, r.places.count())
	for k := range list {
		if k < len(r.o.ServerPIDs) {
			list[k].pid = r.o.ServerPIDs[k]
			if _, err := list[k].memory(); err != nil {
				return servers{}, fmt.Errorf("flag --server-pid: %d: %w", list[k].pid, err)
			}
		} else if addr := r.places.list[k].addr; addr.Addr().IsLoopback() {
			list[k], _ = findProcess(addr)
		}
	}
	return newServers(list), nil
}

// start starts the loops and makes drivers and loads.
func (r *run) start() error {
	o := r.o
	size := max(o.Payload, o.BurstBytes)
	cfg := &conn.Config{
		Role: frame.RoleClient, Heartbeat: conn.HeartbeatOff, PingInterval: time.Minute, // none is sent
		HandshakeTimeout: handshakeTimeout, CloseTimeout: closeTimeout, WriteTimeout: writeTimeout,
		Compression: handshake.Compression{Mode: o.Compression, WindowBits: deflate.MaxWindowBits}, CompressMin: o.CompressMin,
	}
	limit := max(size, minMessageLimit, o.Members*memberBytes)
	if o.Scenario == scenarioRequest || o.Scenario == scenarioBroadcast || o.Scenario == scenarioRamp {
		size = wire.TextSize(max(size, len(o.RequestPayload)) + envelopeBytes)
		limit = max(limit, 2*size)
	}
	cfg.MaxPending = (limit+frame.MaxHeader)*2 + (size+frame.MaxHeader)*o.Depth
	if o.Scenario == scenarioHeartbeat {
		cfg.OnPing = func(c *conn.Conn) { r.drivers[c.Registry().Loop().Index()].load.(*heartbeatLoad).pinged(c.User) }
		if o.ClientPings > 0 {
			cfg.Heartbeat, cfg.PingInterval = conn.HeartbeatServer, o.ClientPings // it pings, whatever its role
		}
	}
	router := &router{}
	cfg.Endpoints = []conn.Endpoint{{Path: o.Target.Path, Handler: router, MaxMessage: limit}}
	for i := range o.Loops {
		d := &driver{index: i, loops: o.Loops, places: r.places,
			maxOpening: max(1, maxOpening/o.Loops),
			sides:      newSides(r.places.count()), opening: newHistogram()}
		d.clients = make([]client, d.share(o.Connections))
		d.dials = r.places.dials(o, d.dialFailed)
		d.load = r.scenario.load(r, d)
		r.drivers = append(r.drivers, d)
	}
	router.drivers = r.drivers
	var err error
	r.clients, err = conn.NewServer(cfg, conn.ServerConfig{Loops: o.Loops, TablePerLoop: o.TablePerLoop, Attach: func(i int, reg *conn.Registry) {
		d := r.drivers[i]
		d.reg, d.loop = reg, reg.Loop()
		d.timers = d.loop.NewTimers(func(uint32) { d.tick() })
	}})
	return err
}

// each runs f for every driver on its loop, one after the other, and waits.
func (r *run) each(f func(d *driver)) {
	for _, d := range r.drivers {
		d.loop.Do(func() { f(d) })
	}
}

// count adds up the counters of all loops.
func (r *run) count(final bool) *tally {
	t := newTally(r.places.count())
	if final {
		t.latency, t.opening = newHistogram(), newHistogram()
	}
	r.each(func(d *driver) { d.count(t, final) })
	return t
}

// open opens the connections: the warm-up ones, a pause in which the server's memory settles, then the rest.
func (r *run) open(ctx context.Context) {
	rate := r.scenario.rate(r.o)
	if warm := warmConnections * r.places.count(); r.server.known && r.o.Connections > warm {
		r.openTo(ctx, warm, rate)
		r.settle(ctx, "letting the server settle")
		r.readMemory(&r.base)
	}
	r.openTo(ctx, r.o.Connections, rate)
	if r.o.Scenario != scenarioConnect && r.o.Scenario != scenarioHeartbeat { // these read it when they have held them for a while
		if r.base.all != nil {
			r.settle(ctx, "letting the server settle")
		}
		r.readMemory(&r.idle)
	}
}

func (r *run) openTo(ctx context.Context, n int, rate float64) {
	began := time.Now()
	limit := openGrace + time.Duration(n)*time.Second/openPace
	if rate > 0 {
		limit += time.Duration(float64(n) / rate * float64(time.Second))
	}
	r.each(func(d *driver) {
		share := d.share(n)
		d.openTo(share, rate*float64(len(d.clients))/float64(r.o.Connections))
	})
	done := func() bool {
		t := r.count(false)
		return t.opened+sum(t.failed) >= uint64(n)
	}
	if !r.until(ctx, "opening", began.Add(limit), done) && ctx.Err() == nil {
		r.each((*driver).stopOpening)
		r.until(ctx, "opening", time.Now().Add(handshakeTimeout+time.Second), done)
	}
	r.openTime += time.Since(began)
}

// settle waits until the servers' memory does not change any more.
func (r *run) settle(ctx context.Context, phase string) {
	same, last := 0, int64(0)
	next := time.Now()
	r.until(ctx, phase, time.Now().Add(settleLimit), func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = next.Add(settleStep)
		m, err := r.server.memory()
		if err != nil {
			return true
		}
		if same++; max(m.Anon-last, last-m.Anon) > settleBytes {
			same, last = 0, m.Anon
		}
		return same >= settleSame
	})
}

// readMemory reads the servers' memory.
func (r *run) readMemory(h *held) {
	*h = r.server.held()
	if h.all != nil {
		r.peak = max(r.peak, h.all.Anon)
		r.kernel = kernelTCP()
	}
}

// beginMeasuring reads the processor times; from is when the measured phase was to begin, which is what messages are
// counted from.
func (r *run) beginMeasuring(from time.Time) {
	r.measuredFrom = from
	r.clientCPU = ownCPU()
	r.serverCPU = r.server.spent()
}

func (r *run) endMeasuring() {
	r.measuredTo = time.Now()
	r.lastSample(r.measuredTo)
	r.clientCPU = ownCPU() - r.clientCPU
	r.serverCPU = r.server.spent().since(r.serverCPU)
}

// close closes all connections and waits for the servers' last words, in bounded time.
func (r *run) close(ctx context.Context) {
	r.each((*driver).closeAll)
	gone := func() bool { return r.count(false).sockets == 0 }
	if !r.until(ctx, "closing", time.Now().Add(closeGrace+time.Duration(r.o.Connections)*time.Second/closePace), gone) {
		r.each(func(d *driver) { d.reg.ForceAll() })
	}
}

// pollEvery is how often the coordinator looks whether what it waits for has come.
const pollEvery = 20 * time.Millisecond

// until waits for done, and shows the progress. false: ctx or the deadline ended it.
func (r *run) until(ctx context.Context, phase string, deadline time.Time, done func() bool) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		now := time.Now()
		if !now.Before(deadline) {
			return false
		}
		r.show(now, phase)
		r.sample(now)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// waitUntil waits for a time.
func (r *run) waitUntil(ctx context.Context, phase string, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	tick := time.NewTicker(time.Second / 5)
	defer tick.Stop()
	for {
		now := time.Now()
		r.show(now, phase)
		r.sample(now)
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			if m, err := r.server.memory(); err == nil {
				r.peak = max(r.peak, m.Anon)
			}
		}
	}
}

func (r *run) show(now time.Time, phase string) {
	if !r.progress.due(now) {
		return
	}
	if r.status != nil {
		r.progress.show(now, phase+": "+r.status())
		return
	}
	t := r.count(false)
	text := fmt.Sprintf("%s: %d of %d open, %d failed, %d lost", phase, t.open, r.o.Connections, sum(t.failed), sum(t.lost))
	if t.sent > 0 {
		text += fmt.Sprintf(", %d messages sent, %d back, %d wrong", t.sent, t.echoed, t.wrong+t.duplicate)
	}
	if t.pings > 0 {
		text += fmt.Sprintf(", %d pings answered", t.pings)
	}
	r.progress.show(now, text)
}

// router is the handler of all loops: the configuration of package conn has one for all.
type router struct{ drivers []*driver }

func (h *router) of(c *conn.Conn) *driver { return h.drivers[c.Registry().Loop().Index()] }

func (h *router) OnOpen(c *conn.Conn) { h.of(c).onOpen(c) }
func (h *router) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	h.of(c).load.message(c, c.User, op, p)
}
func (h *router) OnPong(c *conn.Conn, rtt time.Duration) {
	if l, ok := h.of(c).load.(*heartbeatLoad); ok {
		l.ponged(rtt)
	}
}
func (h *router) OnDrain(*conn.Conn)               {}
func (h *router) OnError(*conn.Conn, error)        {}
func (h *router) OnClose(c *conn.Conn, e conn.End) { h.of(c).onClose(c, e) }
