package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq"
)

const (
	gatePath = "/ws"
	echoPath = "/echo"

	firstPort = 1000 // client n has this port and n
	tick      = int64(loop.Tick)

	// maxJump bounds how long the process is stopped at once [ns].
	maxJump = int64(3 * time.Second)
)

// world is one run.
type world struct {
	seed uint64
	rng  *rand.Rand
	step int
	act  string // what this step is

	clock *looptest.Clock
	nets  []*looptest.Net
	regs  []*conn.Registry
	cfg   *conn.Config
	mq    mq.Config
	gate  *mq.Gateway
	wk    *worker

	dialers     *dialers // nil: none
	moved       bool     // something was sent to a loop
	weights     []int    // of the actions, by the seed
	clients     []*client
	alive       []*client   // whose socket the loop has not closed
	slots       [][]*client // by loop and slot: who has it, or had it last
	generations [2][]uint32 // by loop and slot, at the end of the last turn
	byID        map[conn.ID]*client

	requests   []*request // of clients, by serial number
	asks       []*ask     // of the server
	serial     int        // of events
	current    *request   // what Worker.Process must be given next
	maxMessage int        // the longest that was ever sent to one client [bytes]
	paused     [2]bool    // by loop: it does not read from somebody
	takeovers  int64      // the budget of takeovers [bytes]
	tally      tally      // only what the clients count
	inOpen     int64      // connections in state OPEN
	panics     uint64     // that the worker was made to have
	stalled    int64      // for how long the process has been stopped, in all [ns]
	shut       bool       // the run is ending

	broken  *violation
	tracing bool
	events  []event
}

// violation is a broken invariant.
type violation struct {
	seed      uint64
	step      int
	act       string
	client    *client // nil: of no one
	invariant string
	text      string
	events    []event
}

// event is a line of the trace.
type event struct {
	step   int
	at     int64
	client *client
	text   string
}

// deliberate is what the simulated worker panics with.
const deliberate = "the simulated worker panics"

// run is one run: nil when every invariant held.
func run(seed uint64, tracing bool) (w *world, v *violation) {
	w = &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x51713)), tracing: tracing, byID: make(map[conn.ID]*client)}
	defer func() {
		if p := recover(); p != nil && w.broken == nil {
			w.broken = &violation{invariant: "nothing panics", text: fmt.Sprintf("%v\n%s", p, debug.Stack()), step: w.step, act: w.act}
		}
		if v = w.broken; v != nil {
			v.seed, v.events = seed, w.events
		}
	}()
	w.build()
	steps := 150 + w.rng.IntN(350)
	if w.chance(0.1) {
		steps *= 3
	}
	for w.step = 1; w.step <= steps; w.step++ {
		w.one()
	}
	w.end()
	return w, nil
}

// fail says that an invariant does not hold. It does not return. A panic would be enough if the gateway did not survive
// the panics of workers, which is where some of the checks are made.
func (w *world) fail(c *client, invariant, format string, args ...any) {
	if w.broken == nil {
		w.broken = &violation{invariant: invariant, text: fmt.Sprintf(format, args...), step: w.step, act: w.act, client: c}
	}
	panic(w.broken)
}

// note adds an event to the trace.
func (w *world) note(c *client, format string, args ...any) {
	if w.tracing {
		w.events = append(w.events, event{w.step, w.clock.Now(), c, fmt.Sprintf(format, args...)})
	}
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// one of returns one of the list.
func oneOf[T any](w *world, list ...T) T { return list[w.rng.IntN(len(list))] }

func (w *world) seconds(from, to float64) time.Duration {
	return time.Duration((from + w.rng.Float64()*(to-from)) * float64(time.Second)).Round(time.Millisecond)
}

func (w *world) now() int64 { return w.clock.Now() }

var trusted = func() clientaddr.Trusted {
	t, err := clientaddr.ParseTrusted([]string{"192.0.2.0/25"})
	if err != nil {
		panic(err)
	}
	return t
}()

// build makes the process.
func (w *world) build() {
	r := w.rng
	loops := 1 + r.IntN(2)
	w.wk = &worker{w: w}
	headers := [][]string{nil, {"User-Agent"}, {"User-Agent", "X-Second"}}[r.IntN(3)]
	log := slog.New(&logs{w: w})
	w.mq = mq.Config{Worker: w.wk, RequestTimeout: w.seconds(0.2, 6), ServerRequestTimeout: w.seconds(0.2, 6),
		MaxRequests: 1 + r.IntN(6), MetaHeaders: headers, Log: log}
	maxMessage := oneOf(w, 300, 2000, 70_000)
	w.cfg = &conn.Config{
		HandshakeTimeout: w.seconds(0.2, 5), PingInterval: w.seconds(0.3, 8), CloseTimeout: w.seconds(0.1, 4), WriteTimeout: w.seconds(0.1, 6),
		Heartbeat:  oneOf(w, conn.HeartbeatServer, conn.HeartbeatServer, conn.HeartbeatClient, conn.HeartbeatOff),
		MaxPending: maxMessage + 1 + r.IntN(3*maxMessage), MetaHeaders: headers, Log: log,
	}
	if w.chance(0.4) {
		soft := int64(1 + r.IntN(8))
		w.cfg.Limits = &conn.Limits{Soft: soft, Hard: soft + int64(r.IntN(4)), TellPerSec: int64(r.IntN(5))}
	}
	if w.chance(0.3) {
		w.cfg.Trusted = trusted
	}
	if w.cfg.ProxyProtocol = w.chance(0.15); w.cfg.ProxyProtocol && w.chance(0.8) {
		w.cfg.Trusted = trusted
	}
	if w.chance(0.15) {
		w.cfg.Origins = must(clientaddr.ParseOrigins([]string{"https://good.example"}))
	}
	if w.chance(0.2) {
		w.cfg.PerAddress = must(clientaddr.NewLimiter(clientaddr.LimiterConfig{ConnectionsPerAddress: r.IntN(4), HandshakesPerSecond: r.IntN(5), MaxAddresses: 1000}))
	}
	if w.chance(0.25) {
		w.cfg.MaxMessages = 1 + r.IntN(20)
	}
	w.buildCompression()
	w.clock = looptest.NewClock()
	if w.chance(0.25) {
		w.cfg.Budget = conn.NewBudget(oneOf(w, int64(30_000), 100_000, 500_000), log)
	}
	w.gate = must(mq.New(w.mq, loops))
	w.cfg.Endpoints = []conn.Endpoint{
		{Path: gatePath, MaxMessage: maxMessage, Handler: &watch{w: w, inner: w.gate, gate: true}},
		{Path: echoPath, MaxMessage: maxMessage, Handler: &watch{w: w, inner: &echo{w: w}}},
	}
	if err := w.cfg.Validate(); err != nil {
		panic(err)
	}
	maxSlots := 0
	if w.chance(0.1) {
		maxSlots = 2 + r.IntN(6)
	}
	for i := range loops {
		reg := conn.NewRegistry(w.cfg)
		n := w.clock.New(loop.Config{Index: i, Handler: watchedRegistry{reg, w, i}, MaxSlots: maxSlots}, reg.Attach)
		w.gate.Attach(reg)
		w.regs, w.nets, w.slots = append(w.regs, reg), append(w.nets, n), append(w.slots, nil)
		n.Faults = w.faults()
	}
	if w.chance(0.3) {
		w.buildDialers()
	}
	w.clock.AfterTurn = w.afterTurn
	w.gate.Start(w)
	w.wk.shape()
	for range actions { // each run does some things often and others never
		w.weights = append(w.weights, oneOf(w, 0, 1, 1, 2, 4))
	}
	w.note(nil, "loops %d, timeouts: handshake %v close %v write %v request %v server request %v, ping %v (heartbeat %d), message %d, pending %d, requests %d, limits %+v, proxy %v, messages a second %d, memory budget %v, compression %v from %d bytes on, takeovers %d",
		loops, w.cfg.HandshakeTimeout, w.cfg.CloseTimeout, w.cfg.WriteTimeout, w.mq.RequestTimeout, w.mq.ServerRequestTimeout,
		w.cfg.PingInterval, w.cfg.Heartbeat, maxMessage, w.cfg.MaxPending, w.mq.MaxRequests, w.cfg.Limits, w.cfg.ProxyProtocol, w.cfg.MaxMessages, w.cfg.Budget != nil,
		w.cfg.Compression, w.cfg.CompressMin, w.takeovers)
}

// faults returns what is wrong with one network.
func (w *world) faults() *looptest.Faults {
	if w.chance(0.2) {
		return nil
	}
	r := w.rng
	f := &looptest.Faults{Rand: r, ShortRead: r.Float64() * 0.5, ShortWrite: r.Float64() * 0.5, Again: r.Float64() * 0.3, Shuffle: w.chance(0.5)}
	if w.chance(0.5) {
		f.Interrupt, f.Spurious = r.Float64()*0.1, r.Float64()*0.3
	}
	if w.chance(0.2) {
		f.NoWatch = 0.02
	}
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Do implements mq.Finder as conn.Server does.
func (w *world) Do(id conn.ID, f func(*conn.Conn)) {
	if id.Loop() >= len(w.regs) || !w.cfg.Issuer.Verify(id) {
		f(nil)
		return
	}
	r := w.regs[id.Loop()]
	r.Loop().PostFunc(func() { f(r.Find(id)) })
}

// An action is something that a step may do. Those of a client are left out when there is none.
type action struct {
	name   string
	weight int
	world  func(w *world)
	client func(c *client)
}

var actions = []action{
	{"arrive", 9, (*world).arrive, nil},
	{"request", 40, nil, (*client).request},
	{"more of what was begun", 12, nil, (*client).more},
	{"answer the server", 16, nil, (*client).answer},
	{"late or wrong answer", 3, nil, (*client).wrongAnswer},
	{"ping", 2, nil, (*client).ping},
	{"pong", 2, nil, (*client).pong},
	{"not an envelope", 2, nil, (*client).malformed},
	{"event", 1, nil, (*client).event},
	{"fragments", 3, nil, (*client).fragments},
	{"not a frame", 1, nil, (*client).garbage},
	{"half a frame", 1, nil, (*client).half},
	{"bad compression", 2, nil, (*client).badCompression},
	{"echo", 4, nil, (*client).message},
	{"flood", 2, nil, (*client).flood},
	{"close", 3, nil, (*client).close},
	{"FIN", 1, nil, (*client).fin},
	{"RST", 2, nil, (*client).rst},
	{"stop reading", 3, nil, (*client).window},
	{"read again", 5, nil, (*client).unblock},
	{"worker answers", 22, (*world).complete, nil},
	{"worker closes", 3, nil, (*client).serverClose},
	{"worker sends an event", 8, nil, (*client).sendEvent},
	{"worker sends a request", 8, nil, (*client).sendRequest},
	{"worker publishes", 8, (*world).publish, nil},
	{"worker unsubscribes", 3, nil, (*client).unsubscribe},
	{"worker ends a topic", 1, (*world).endTopic, nil},
	{"worker addresses nobody", 2, (*world).nobody, nil},
	{"worker takes ends or not", 2, (*world).publishing, nil},
	{"echo to all", 2, (*world).echoAll, nil},
	{"drain", 1, (*world).drain, nil},
	{"cancel drain", 2, (*world).cancelDrain, nil},
	{"force", 1, (*world).force, nil},
	{"memory", 3, (*world).memory, nil},
	{"trim", 1, (*world).trim, nil},
	{"a moment", 12, func(w *world) { w.advance(int64(w.rng.IntN(50)) * 1e6) }, nil},
	{"some time", 8, func(w *world) { w.advance(int64(w.rng.IntN(1500)) * 1e6) }, nil},
	{"a timeout", 3, (*world).oneTimeout, nil},
	{"stall", 3, (*world).stall, nil},
	{"rest", 6, (*world).settle, nil},
}

// one does one step.
func (w *world) one() {
	c := w.someone()
	for {
		i := w.rng.IntN(len(actions))
		a := &actions[i]
		if w.rng.IntN(40*4) >= a.weight*w.weights[i] || a.client != nil && c == nil {
			continue
		}
		w.act = a.name
		if a.client != nil {
			a.client(c)
		} else {
			a.world(w)
		}
		break
	}
	for _, c := range w.alive {
		if len(c.out) > 0 && w.chance(0.2) {
			c.more()
		}
	}
	switch w.rng.IntN(4) {
	case 0: // nothing runs yet
	case 1, 2:
		w.nets[w.rng.IntN(len(w.nets))].Step()
		if w.dialers != nil {
			w.dialers.net.Step()
		}
		w.readAll()
	case 3:
		w.settle()
	}
}

// someone is a client whose socket is open, rather a recent one; nil: there is none.
func (w *world) someone() *client {
	if len(w.alive) == 0 {
		return nil
	}
	return w.alive[w.rng.IntN(len(w.alive))]
}

// settle lets the loops come to rest, and then looks at everything.
func (w *world) settle() {
	for w.moved = true; w.moved; {
		w.clock.Run()
		w.moved = false
		w.readAll()
	}
	w.atRest()
}

// readAll takes in what was sent to the clients.
func (w *world) readAll() {
	kept := w.alive[:0]
	for _, c := range w.alive {
		c.read()
		if !c.p.Closed() {
			kept = append(kept, c)
		} else {
			c.gone()
		}
	}
	clear(w.alive[len(kept):])
	w.alive = kept
}

// advance lets time pass, looking at everything on the way: no more than a second at once, or clients would have no
// chance to answer a ping.
func (w *world) advance(d int64) {
	w.settle()
	for d > 0 {
		some := min(d, 1e9)
		w.clock.Advance(some)
		for range 2 { // the first may have connections closed, by a timer at the end of its turn
			w.account()
			w.clock.Run()
		}
		w.checkBudget()
		d -= some
		w.readAll()
		w.settle()
	}
}

// oneTimeout lets just as much time pass that one of the timers fires, or just not.
func (w *world) oneTimeout() {
	d := oneOf(w, w.cfg.HandshakeTimeout, w.cfg.PingInterval, w.cfg.CloseTimeout, w.cfg.WriteTimeout, w.mq.RequestTimeout, w.mq.ServerRequestTimeout, time.Second)
	w.advance(max(0, int64(d)+(w.rng.Int64N(5)-2)*tick))
}

// stall stops the process for a while.
func (w *world) stall() {
	ns := w.rng.Int64N(maxJump)
	w.stalled += ns
	w.clock.Jump(ns)
}

// arrive is a new client.
func (w *world) arrive() {
	if len(w.alive) >= 14 {
		return
	}
	i := w.rng.IntN(len(w.nets))
	n := len(w.clients) + 1
	c := &client{w: w, n: n, loop: i, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + w.rng.IntN(60))}), uint16(firstPort+n)), arrived: w.now(), stalled: w.stalled}
	c.shape()
	w.clients = append(w.clients, c)
	w.note(c, "arrives at loop %d from %v", i, c.addr)
	if w.dialers != nil && w.chance(0.4) {
		c.dialer, c.spoilt = &dialer{}, true
		if !w.dialers.dial(c) {
			return
		}
	}
	w.alive = append(w.alive, c)
	if w.chance(0.5) {
		c.p = w.nets[i].Arrive(0, c.addr)
	} else {
		w.nets[i].Step() // the turn of Client runs no tasks, and timers may not come before tasks that were posted earlier
		c.p = w.nets[i].Client(0, c.addr)
	}
	if w.chance(0.06) || c.eager && w.chance(0.5) {
		c.window() // it does not even read the answer
	}
	if c.dialer == nil {
		c.upgrade()
	}
}

func (w *world) post(i int, f func()) { w.regs[i].Loop().PostFunc(f) }

func (w *world) drain() {
	if w.chance(0.7) {
		return
	}
	rate := oneOf(w, 1.0, 10, 1000)
	w.note(nil, "drain, %v a second", rate)
	for i, r := range w.regs {
		w.post(i, func() { r.StartDrain(rate) })
	}
}

func (w *world) cancelDrain() {
	w.note(nil, "cancel drain")
	for i, r := range w.regs {
		w.post(i, r.CancelDrain)
	}
}

func (w *world) force() {
	if w.chance(0.7) {
		return
	}
	w.note(nil, "force all")
	for i, r := range w.regs {
		w.post(i, func() {
			w.excuseAll()
			r.ForceAll()
		})
	}
}

// excuseAll: ForceAll comes, so nobody may expect last words.
func (w *world) excuseAll() {
	for _, c := range w.alive {
		c.forced = true
		c.excuse("forced")
	}
}

// memory has the rest of the process take so much of the memory budget.
func (w *world) memory() {
	if b := w.cfg.Budget; b != nil {
		percent := oneOf(w, int64(0), 0, 30, 60, 79, 85, 92, 97)
		w.note(nil, "the rest of the process takes %d %% of its memory", percent)
		b.SetBase(b.Limit() / 100 * percent)
	}
}

// account is what the owner of a registry does about once a second.
func (w *world) account() {
	for i, r := range w.regs {
		w.post(i, r.Account)
	}
}

func (w *world) trim() {
	i := w.rng.IntN(len(w.regs))
	w.post(i, w.regs[i].Loop().Trim)
	if w.cfg.PerAddress != nil {
		w.cfg.PerAddress.Sweep(w.now())
	}
}

// echoAll sends a prepared message to every connection of the echo endpoint of one loop.
func (w *world) echoAll() {
	i := w.rng.IntN(len(w.regs))
	p := pattern(w.rng.IntN(1000), w.rng.IntN(300))
	m := conn.Prepare(opBinary, p)
	w.maxMessage = max(w.maxMessage, len(p)+14)
	w.post(i, func() {
		w.regs[i].Each(func(c *conn.Conn) {
			if k := w.slots[i][c.Ref().Slot]; c.Endpoint().Path == echoPath && c.SendPrepared(m) == nil {
				k.echoes = append(k.echoes, p)
			}
		})
	})
}

// logs is what the run logs to: it looks for panics that nobody wanted.
type logs struct{ w *world }

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) WithGroup(string) slog.Handler            { return l }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "the worker panicked" {
		return nil
	}
	var what, stack string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "panic":
			what = a.Value.String()
		case "stack":
			stack = a.Value.String()
		}
		return true
	})
	if what != deliberate && l.w.broken == nil {
		l.w.broken = &violation{invariant: "nothing panics but the worker", text: what + "\n" + stack, step: l.w.step, act: l.w.act}
	}
	return nil
}
