package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// rampLoads are what a ramp can be of.
var rampLoads = map[string]func(r *run, d *driver) load{scenarioEcho: newEchoLoad, scenarioRequest: newRequestLoad}

func newRampLoad(r *run, d *driver) load { return rampLoads[r.o.RampOf](r, d) }

// RampStep is one rate that was tried.
type RampStep struct {
	Rate          int     `json:"rate"` // messages per second asked for
	RatePerSecond float64 `json:"rate_per_second"`
	Latency       Latency `json:"latency_ms"`
	Unsent        uint64  `json:"messages_unsent"`
	Good          bool    `json:"good"`
}

// RampReport is what a ramp found. The messages, latencies, rate and CPU of the report are those of the best step.
type RampReport struct {
	Of         string     `json:"of"`
	LimitMs    float64    `json:"p99_limit_ms"`
	BestRate   int        `json:"best_rate"`   // the highest good one; 0: none
	FirstBad   int        `json:"first_bad"`   // the lowest rate found bad; 0: none
	EndedEarly string     `json:"ended_early"` // why, when before the refinement was done
	Steps      []RampStep `json:"steps"`
}

// search decides which rate is tried next: twice as much until one is bad (half as much until one is good), then the
// middle between the best and the lowest bad one, until they are within a twentieth. A rate is bad when it was so twice in a
// row: one hiccup of the machine must not hide half of what the server can do.
type search struct {
	good, bad int // 0: none
	tried     int
	again     int // was bad once, and is tried again; 0: none
}

// next returns the next rate; 0: done.
func (s *search) next(first int) int {
	switch {
	case s.tried == 0:
		return first
	case s.tried >= maxRampSteps:
		return 0
	case s.again > 0:
		return s.again
	case s.bad == 0:
		if s.good >= MaxRate {
			return 0
		}
		return min(s.good*2, MaxRate)
	case s.good == 0:
		return s.bad / 2 // 0 in the end
	case s.bad-s.good <= max(1, s.bad/20):
		return 0
	}
	return (s.good + s.bad) / 2
}

func (s *search) was(rate int, good bool) {
	s.tried++
	switch {
	case good:
		s.good, s.again = max(s.good, rate), 0
	case s.again != rate:
		s.again = rate
	default:
		s.bad, s.again = rate, 0
	}
}

// best is what is kept of the best step for the report.
type best struct {
	messages  []uint64 // by server
	latency   *hdrhistogram.Histogram
	from, to  time.Time
	serverCPU spent
	clientCPU time.Duration
}

// measureRamp is the ramp scenario on the coordinator.
func measureRamp(ctx context.Context, r *run) {
	o := r.o
	rep := &RampReport{Of: o.RampOf, LimitMs: round(float64(o.P99Limit)/1e6, 3), Steps: []RampStep{}}
	r.ramp = rep
	if o.RampOf == scenarioRequest && !r.authenticate(ctx) {
		return
	}
	first := o.Rate
	if first == 0 {
		first = defaultRampRate
	}
	var s search
	var b best
	for rate := s.next(first); rate > 0; rate = s.next(first) {
		t := r.traffic(fmt.Sprintf("%d per second", rate), o.Connections)
		t.rate = rate
		for i, d := range r.drivers {
			d.loop.Do(func() { t.flows[i].reset() })
		}
		t.run(ctx)
		now := r.count(true)
		if ctx.Err() != nil {
			rep.EndedEarly = "broken off"
			break
		}
		step := RampStep{Rate: rate, RatePerSecond: round(float64(now.messages)/o.Duration.Seconds(), 1), Latency: latencyOf(now.latency), Unsent: now.unsent}
		faults := now.missing + now.wrong + now.duplicate + now.late + sum(now.lost)
		step.Good = faults == 0 && step.Latency.P99 != nil && *step.Latency.P99 <= rep.LimitMs
		rep.Steps = append(rep.Steps, step)
		s.was(rate, step.Good)
		if step.Good && rate == s.good {
			b = best{nil, now.latency, r.measuredFrom, r.measuredTo, r.serverCPU, r.clientCPU}
			for _, s := range now.sides {
				b.messages = append(b.messages, s.messages)
			}
		}
		if faults > 0 { // whatever is found from here on is of a server that has lost count
			rep.EndedEarly = "messages or connections were lost, late, wrong or duplicate"
			break
		}
	}
	rep.BestRate, rep.FirstBad = s.good, s.bad
	if b.latency == nil {
		return
	}
	r.measuredFrom, r.measuredTo, r.serverCPU, r.clientCPU = b.from, b.to, b.serverCPU, b.clientCPU
	for i, d := range r.drivers {
		d.loop.Do(func() {
			f := d.load.(flowing).flowOf()
			f.reset()
			if i == 0 {
				f.messages, f.latency = b.messages, b.latency
			}
		})
	}
}

// reset forgets what was measured.
func (f *flow) reset() {
	f.messages, f.unsent, f.latency = make([]uint64, len(f.messages)), 0, newHistogram()
}

// ok reports whether a good rate was found.
func (p *RampReport) ok() bool { return p.BestRate > 0 && p.EndedEarly == "" }

// write writes the lines of the report for people.
func (p *RampReport) write(line func(head, format string, args ...any)) {
	line("ramp", "best rate %d per second (%s), with p99 within %v ms", p.BestRate, p.Of, p.LimitMs)
	if p.EndedEarly != "" {
		line("", "ended early: %s", p.EndedEarly)
	}
	for _, s := range p.Steps {
		verdict := "bad"
		if s.Good {
			verdict = "good"
		}
		p99 := "unknown"
		if s.Latency.P99 != nil {
			p99 = fmt.Sprintf("%.3f ms", *s.Latency.P99)
		}
		line("", "%8d: %s, p99 %s, %.1f per second came back, %d not sent", s.Rate, verdict, p99, s.RatePerSecond, s.Unsent)
	}
}
