package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

// churn is a run of the churn scenario, on the coordinator.
type churn struct {
	r        *run
	group    *loop.Group
	churners []*churner
	result   churnResult
	quietIn  time.Duration // from the end of the last connection to when the server had let go of everything
}

// runChurn is the churn scenario. The error is for what kept it from beginning.
func runChurn(ctx context.Context, r *run) error {
	o := r.o
	if o.Metrics == nil {
		return fmt.Errorf("scenario churn needs the server's metrics: flag --admin")
	}
	c := &churn{r: r}
	c.result.servers, c.result.maxGrowth, c.result.refusals = r.places.count(), int64(o.MaxGrowth)*int64(r.places.count()), o.Refusals
	before, err := c.read(ctx)
	if err != nil {
		return fmt.Errorf("flag --admin: %w", err)
	}
	c.result.before, c.result.warm, c.result.after = before, before, before
	c.group, err = loop.NewGroup(loop.GroupConfig{
		Loops: o.Loops, TablePerLoop: o.TablePerLoop,
		Handler: func(i int) loop.Handler {
			ch := &churner{index: i, loops: o.Loops, places: r.places, protocol: o.Subprotocol, header: o.Header,
				planOf: func(number uint64) plan { return planOf(uint64(o.Seed), number) }, maxDialling: max(1, maxOpening/o.Loops), n: newChurnCount(r.places.count()),
				rate: float64(o.Rate) / float64(o.Loops), refusals: o.Refusals,
				frames: frame.Config{Role: frame.RoleClient, MaxMessage: minMessageLimit}, talk: talk{seed: uint64(o.Seed)}}
			ch.maxLive = int(share(uint64(o.Connections), i, o.Loops))
			c.churners = append(c.churners, ch)
			return ch
		},
		Attach: func(i int, l *loop.Loop) {
			ch := c.churners[i]
			ch.loop, ch.timers = l, l.NewTimers(func(uint32) { ch.dialSome() })
		},
	})
	if err != nil {
		return err
	}
	defer c.group.Stop()
	r.churn = c
	r.status = func() string {
		n := c.count()
		return fmt.Sprintf("%d connections made, %d open, %d failed, %d lost", n.connected, n.live, sum(n.failed), sum(n.lost))
	}
	c.run(ctx)
	return nil
}

// share returns how many of n things loop index of loops has when they are dealt out in turn.
func share(n uint64, index, loops int) uint64 {
	return (n + uint64(loops) - 1 - uint64(index)) / uint64(loops)
}

func (c *churn) run(ctx context.Context) {
	o := c.r.o
	total := uint64(math.MaxUint64 / 2)
	if o.Total > 0 {
		total = uint64(o.Total)
	}
	c.r.beginMeasuring(time.Now())
	c.phase(ctx, "warming up", max(total/churnWarm, uint64(o.Loops)), min(o.Duration/churnWarm, churnWarmTime))
	c.rest(ctx, "letting the server settle", false)
	c.result.warm = c.result.after
	if ctx.Err() == nil {
		c.phase(ctx, "churning", total, o.Duration)
	}
	c.r.endMeasuring()
	c.rest(context.WithoutCancel(ctx), "waiting for the server to let go", true)
}

// phase opens connections until there have been so many, for that long at most, and waits until the last has gone.
func (c *churn) phase(ctx context.Context, name string, until uint64, limit time.Duration) {
	began := time.Now()
	c.each(func(ch *churner) { ch.open(share(until, ch.index, ch.loops)) })
	c.r.until(ctx, name, began.Add(limit), func() bool { return c.count().dialled >= until })
	c.each((*churner).close)
	c.r.openTime += time.Since(began)
	// Each has a deadline of its own: this ends.
	c.r.until(context.WithoutCancel(ctx), name+", the last ones", time.Now().Add(2*churnPatience), func() bool { return c.count().live == 0 })
}

// rest waits until the server has let go of the connections and, settleTime later, reads it; with judge it waits longer
// while that does not give back enough for the checks.
func (c *churn) rest(ctx context.Context, phase string, judge bool) {
	began := time.Now()
	next := began
	look := func() {
		if now, err := c.read(ctx); err == nil {
			c.result.after = now
		}
	}
	c.r.until(ctx, phase, began.Add(restGrace), func() bool {
		if time.Now().Before(next) {
			return false
		}
		look()
		next = time.Now().Add(restStep)
		return letGo(c.result.before.samples, c.result.after.samples)
	})
	c.result.n = *c.count()
	c.quietIn = time.Since(began)
	// Nothing is read meanwhile: a scrape is garbage on the server's heap.
	for range settlePatience {
		c.r.waitUntil(ctx, phase, time.Now().Add(c.r.o.Settle))
		look()
		if !judge || !slices.ContainsFunc(c.result.checks(), func(c Check) bool { return !c.Holds }) {
			break
		}
	}
}

// read reads the server.
func (c *churn) read(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	now := reading{fds: -1}
	if fds, err := c.r.server.openFiles(); err == nil { // before the scrape, which opens one
		now.fds = fds
	}
	var err error
	if now.samples, err = c.r.o.Metrics(ctx); err != nil {
		return reading{}, err
	}
	if m, err := c.r.server.memory(); err == nil {
		now.memory = &m
		c.r.peak = max(c.r.peak, m.Anon)
	}
	return now, nil
}

func (c *churn) each(f func(*churner)) {
	for _, ch := range c.churners {
		ch.loop.Do(func() { f(ch) })
	}
}

// count adds up the counters of all loops.
func (c *churn) count() *churnCount {
	n := newChurnCount(c.r.places.count())
	c.each(func(ch *churner) { n.add(&ch.n) })
	return &n
}

// ChurnReport is what a churn found, besides what every report has.
type ChurnReport struct {
	Total     int    `json:"total"` // asked for; 0: as many as --duration allows
	Seed      int    `json:"seed"`
	Dialled   uint64 `json:"dialled"`
	Connected uint64 `json:"connected"` // by TCP
	Upgraded  uint64 `json:"upgraded"`
	Refused   uint64 `json:"refused"`   // by limits of the server, as far as Options.Refusals takes them for no failure
	PeakOpen  uint64 `json:"peak_open"` // at one time, at most

	Killed   map[string]uint64 `json:"killed"`   // connections by the way they went
	Echoed   uint64            `json:"echoed"`   // answers that were the message itself
	Answered uint64            `json:"answered"` // answers of the MQ gateway
	Flooded  uint64            `json:"flooded"`  // stopped readers that went on until the server ended them
	Ends     map[string]uint64 `json:"ends"`     // of upgraded connections, by cause and code as the server must count them

	Lost      map[string]uint64 `json:"lost"`       // connections that the server ended before their time
	LastWords map[string]uint64 `json:"last_words"` // of the server that were wrong or missing
	Stuck     map[string]uint64 `json:"stuck"`      // connections that the server did not end in time

	QuietSeconds float64     `json:"quiet_seconds"` // from the last connection's end to when the server had let go of all
	Server       ChurnServer `json:"server"`
	Checks       []Check     `json:"checks"`
}

// ChurnServer is what the server held, before anything, after the warm-up and at the end. null: not known.
type ChurnServer struct {
	OpenFiles  [3]*float64 `json:"open_files"`
	Goroutines [3]*float64 `json:"goroutines"`
	HeapBytes  [3]*float64 `json:"heap_inuse_bytes"`
	RSSAnon    [3]*float64 `json:"rss_anon_bytes"`
}

// report completes p.
func (c *churn) report(p *Report) {
	n := &c.result.n
	p.Opened, p.Failures, p.Failed = c.result.upgraded(), n.failed, sum(n.failed)
	p.Wrong, p.Messages, p.MessagesSent, p.LostConnections = n.wrong, n.echoed+n.answered, n.sent, sum(n.lost)
	if c.r.openTime > 0 {
		p.RatePerSecond = round(float64(n.dialled)/c.r.openTime.Seconds(), 1)
	}
	killed := map[string]uint64{}
	for w := range ways {
		killed[w.String()] = n.killed[w]
	}
	s := ChurnServer{}
	for i, now := range []reading{c.result.before, c.result.warm, c.result.after} {
		known := func(v float64) *float64 {
			if math.IsNaN(v) || v < 0 {
				return nil
			}
			return &v
		}
		s.OpenFiles[i] = known(float64(now.fds))
		s.Goroutines[i] = known(now.samples.value("go_goroutines"))
		s.HeapBytes[i] = known(now.samples.value("go_memstats_heap_inuse_bytes"))
		if now.memory != nil {
			s.RSSAnon[i] = number(now.memory.Anon)
		}
	}
	p.Churn = &ChurnReport{Total: c.r.o.Total, Seed: c.r.o.Seed, Dialled: n.dialled, Connected: n.connected, Upgraded: p.Opened, Refused: n.refused + n.upgraded - p.Opened, PeakOpen: n.peak,
		Killed: killed, Echoed: n.echoed, Answered: n.answered, Flooded: n.flooded, Ends: n.ends, Lost: n.lost, LastWords: n.last, Stuck: n.stuck,
		QuietSeconds: round(c.quietIn.Seconds(), 3), Server: s, Checks: c.result.checks()}
}

// ok reports whether every check holds.
func (p *ChurnReport) ok() bool {
	return !slices.ContainsFunc(p.Checks, func(c Check) bool { return !c.Holds })
}

// write writes the lines of the report for people.
func (p *ChurnReport) write(line func(head, format string, args ...any), seconds, rate float64) {
	line("connections", "%d in %.1f s: %.0f per second; %d connected, %d upgraded, at most %d at a time", p.Dialled, seconds, rate, p.Connected, p.Upgraded, p.PeakOpen)
	if p.Refused > 0 {
		line("", "  %d refused by the server's limits", p.Refused)
	}
	for _, text := range byCount(p.Lost) {
		line("", "  %d lost: %s", p.Lost[text], text)
	}
	for w := range ways {
		head := ""
		if w == 0 {
			head = "went"
		}
		line(head, "%d by %v", p.Killed[w.String()], w)
	}
	line("messages", "%d echoed, %d answered; %d floods that were not read were ended by the server", p.Echoed, p.Answered, p.Flooded)
	for _, text := range byCount(p.LastWords) {
		line("", "  %d last words: %s", p.LastWords[text], text)
	}
	for _, text := range byCount(p.Stuck) {
		line("", "  %d not ended in time: %s", p.Stuck[text], text)
	}
	held := func(what string, v [3]*float64, text func(float64) string) {
		if v[0] != nil && v[1] != nil && v[2] != nil {
			line("", "%s: %s before, %s after the warm-up, %s at the end", what, text(*v[0]), text(*v[1]), text(*v[2]))
		}
	}
	line("let go", "%.1f s after the last connection", p.QuietSeconds)
	held("open files", p.Server.OpenFiles, count)
	held("goroutines", p.Server.Goroutines, count)
	held("heap", p.Server.HeapBytes, bytesText)
	held("RssAnon", p.Server.RSSAnon, bytesText)
	for i, c := range p.Checks {
		head := ""
		if i == 0 {
			head = "checks"
		}
		if c.Holds {
			line(head, "ok: %s: %s", c.Check, c.Got)
		} else {
			line(head, "VIOLATED: %s: %s, expected %s", c.Check, c.Got, c.Expected)
		}
	}
}
