package bench

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

// stalled are the connections of an echo run that send and do not read (Options.Stalled). The measured phase is cut into
// slices of --duration: in every second one there are stalled connections, and the latencies of the others are kept apart
// by slice, so that the two kinds stand beside each other under whatever else the machine was doing.
type stalled struct {
	r       *run
	group   *loop.Group
	churner *churner
	result  StalledReport

	gone map[push][]int64 // how long after they stopped reading the server ended them [ns]; belongs to the loop
}

// newStalled starts a loop for them.
func newStalled(r *run) (*stalled, error) {
	s := &stalled{r: r, result: StalledReport{Connections: r.o.Stalled}, gone: map[push][]int64{}}
	s.churner = &churner{loops: 1, places: r.places, protocol: r.o.Subprotocol, header: r.o.Header,
		maxLive: r.o.Stalled, maxDialling: maxOpening, n: newChurnCount(1),
		frames: frame.Config{Role: frame.RoleClient, MaxMessage: minMessageLimit},
		// In each slice every second one sends what is too much for --max-pending-bytes, the others less than that and more than the
		// kernel takes: --write-timeout ends them.
		planOf: func(number uint64) plan {
			return plan{way: wayStoppedReader, push: [...]push{pushMessages, pushSome}[(number-s.churner.first)%2]}
		}}
	s.churner.ended = func(p *peer, ns int64) { s.gone[p.push] = append(s.gone[p.push], ns) }
	var err error
	s.group, err = loop.NewGroup(loop.GroupConfig{Loops: 1, Handler: func(int) loop.Handler { return s.churner },
		Attach: func(_ int, l *loop.Loop) {
			s.churner.loop, s.churner.timers = l, l.NewTimers(func(uint32) { s.churner.dialSome() })
		}})
	return s, err
}

// slice waits until the end of slice k, with the stalled connections in it when k is odd.
func (s *stalled) slice(ctx context.Context, k int, end time.Time) {
	r := s.r
	peak := r.peak
	r.peak = 0
	if k%2 == 0 {
		r.waitUntil(ctx, "echoing", end)
	} else {
		s.stall(ctx, end)
	}
	s.result.slicePeaks = append(s.result.slicePeaks, r.peak)
	r.peak = max(peak, r.peak)
}

// stall has the stalled connections opened and waits for the end of the slice. It notes when the server had decided to
// close all of them.
func (s *stalled) stall(ctx context.Context, end time.Time) {
	r, o := s.r, s.r.o
	began := time.Now()
	before := s.slow(ctx)
	n := uint64(o.Stalled)
	s.churner.loop.Do(func() { s.churner.open(s.churner.n.dialled + n) })
	halves := [2]float64{float64((n + 1) / 2), float64(n / 2)} // by bytes, by time
	decided := [2]bool{halves[0] == 0, halves[1] == 0}
	next := began
	r.until(ctx, "echoing beside stalled connections", end, func() bool {
		now := time.Now()
		if now.Before(next) {
			return false
		}
		next = now.Add(stalledLook)
		if m, err := r.server.memory(); err == nil {
			r.peak = max(r.peak, m.Anon)
		}
		if decided[0] && decided[1] {
			return false
		}
		for i, v := range s.slow(ctx) {
			if e := [...]*StalledEnds{&s.result.ByBytes, &s.result.ByTime}[i]; !decided[i] && v-before[i] >= halves[i] {
				decided[i] = true
				e.DecidedSeconds = append(e.DecidedSeconds, round(time.Since(began).Seconds(), 2))
			}
		}
		return false
	})
}

// last waits until the server has ended the stalled connections of the last slice, or they give up.
func (s *stalled) last(ctx context.Context) {
	s.r.until(ctx, "waiting for the stalled connections", time.Now().Add(churnPatience), func() bool {
		live := uint64(0)
		s.churner.loop.Do(func() { live = s.churner.n.live })
		return live == 0
	})
}

// slow returns slow_consumers_total by bytes and by time; NaN when it is not known.
func (s *stalled) slow(ctx context.Context) [2]float64 {
	const name = "mqgate_slow_consumers_total"
	if s.r.o.Metrics != nil {
		ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
		defer cancel()
		if now, err := s.r.o.Metrics(ctx); err == nil {
			return [2]float64{now.value(name + "{cause=bytes}"), now.value(name + "{cause=time}")}
		}
	}
	return [2]float64{math.NaN(), math.NaN()}
}

// StalledReport is what became of the connections that did not read, and of the others meanwhile.
type StalledReport struct {
	Connections int           `json:"connections"` // in each slice that has some
	ByBytes     StalledEnds   `json:"by_bytes"`    // those that sent more than --max-pending-bytes
	ByTime      StalledEnds   `json:"by_time"`     // those that sent less, for --write-timeout
	Without     StalledSlices `json:"without"`     // the slices without stalled connections
	With        StalledSlices `json:"with"`

	slicePeaks []int64
}

// StalledEnds are the ends of stalled connections of one kind, of all slices.
type StalledEnds struct {
	Opened int `json:"opened"`
	Closed int `json:"closed"` // by the server
	// DecidedSeconds is, for each slice, when slow_consumers_total had counted all of them; empty without --admin.
	DecidedSeconds []float64 `json:"decided_seconds"`
	// Gone is when their sockets were gone: the server first gives the Close frame its --close-timeout.
	GoneMinSeconds float64 `json:"gone_min_seconds"`
	GoneMaxSeconds float64 `json:"gone_max_seconds"`
}

// StalledSlices are the latencies of the connections that read [ms], slice by slice, and the medians over the slices.
type StalledSlices struct {
	P50       []float64 `json:"p50_ms"`
	P99       []float64 `json:"p99_ms"`
	RSSAnon   []int64   `json:"rss_anon_peak_bytes"`
	MedianP50 float64   `json:"median_p50_ms"`
	MedianP99 float64   `json:"median_p99_ms"`
}

// report completes p. The connections have been closed.
func (s *stalled) report(p *Report, latencies []*hdrhistogram.Histogram) {
	res := &s.result
	for k, h := range latencies {
		of := &res.Without
		if k%2 == 1 {
			of = &res.With
		}
		if l := latencyOf(h); l.P50 != nil {
			of.P50, of.P99 = append(of.P50, *l.P50), append(of.P99, *l.P99)
		}
		if k < len(res.slicePeaks) {
			of.RSSAnon = append(of.RSSAnon, res.slicePeaks[k])
		}
	}
	for _, of := range []*StalledSlices{&res.Without, &res.With} {
		of.MedianP50, of.MedianP99 = median(of.P50), median(of.P99)
	}
	rounds := len(res.slicePeaks) / 2
	s.churner.loop.Do(func() {
		res.ByBytes.finish(rounds*((res.Connections+1)/2), s.gone[pushMessages])
		res.ByTime.finish(rounds*(res.Connections/2), s.gone[pushSome])
	})
	p.Stalled = res
}

func (e *StalledEnds) finish(opened int, gone []int64) {
	e.Opened, e.Closed = opened, len(gone)
	if len(gone) > 0 {
		e.GoneMinSeconds = round(float64(slices.Min(gone))/1e9, 2)
		e.GoneMaxSeconds = round(float64(slices.Max(gone))/1e9, 2)
	}
}

// ok reports whether the server closed every stalled connection.
func (p *StalledReport) ok() bool {
	return p.ByBytes.Closed == p.ByBytes.Opened && p.ByTime.Closed == p.ByTime.Opened && p.ByBytes.Opened > 0
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return round((v[(len(v)-1)/2]+v[len(v)/2])/2, 4)
}

// write writes the lines of the report for people.
func (p *StalledReport) write(line func(head, format string, args ...any)) {
	head := "stalled"
	for _, e := range []struct {
		what string
		ends *StalledEnds
	}{{"above --max-pending-bytes", &p.ByBytes}, {"below it", &p.ByTime}} {
		if e.ends.Opened == 0 {
			continue
		}
		line(head, "%d of %d %s closed by the server, gone after %.2f to %.2f s; slow_consumers_total had all after %v s",
			e.ends.Closed, e.ends.Opened, e.what, e.ends.GoneMinSeconds, e.ends.GoneMaxSeconds, e.ends.DecidedSeconds)
		head = ""
	}
	for _, s := range []struct {
		what   string
		slices *StalledSlices
	}{{"without them", &p.Without}, {"beside them", &p.With}} {
		peak := "unknown"
		if v := s.slices.RSSAnon; len(v) > 0 && slices.Max(v) > 0 {
			peak = bytesText(float64(slices.Max(v)))
		}
		line("", "%-12s  p50 %v ms, p99 %v ms (medians %.3f, %.3f), server's RssAnon up to %s", s.what, s.slices.P50, s.slices.P99,
			s.slices.MedianP50, s.slices.MedianP99, peak)
	}
}
