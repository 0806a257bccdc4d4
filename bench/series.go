package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// point is the run at one moment, for the charts. Latencies and rate are of the time since the point before.
type point struct {
	at            float64 // since the beginning of the run [s]
	open          uint64
	rate          float64     // messages, or connections opened or made, per second
	latency       *[3]float64 // p50, p99, max [ms]; nil: nothing was measured
	rssAnon       int64       // of the server [bytes]; 0: not known
	clientRSSAnon int64
}

// series collects points. It belongs to the coordinator.
type series struct {
	began, last time.Time
	every       time.Duration
	count       uint64
	points      []point
	spare       []*hdrhistogram.Histogram // one per loop, empty
	sum         *hdrhistogram.Histogram
}

// startSeries begins to collect points; the drivers then record into a second histogram, which is taken every time.
func (r *run) startSeries(now time.Time) {
	s := &series{began: now, last: now, every: seriesStep, sum: newHistogram()}
	for _, d := range r.drivers {
		d.loop.Do(func() { d.recent = newHistogram() })
		s.spare = append(s.spare, newHistogram())
	}
	r.series = s
}

// recordRecent notes a latency [ns] for the series. On the driver's loop.
func (d *driver) recordRecent(ns int64) {
	if d.recent != nil {
		record(d.recent, ns)
	}
}

// sample adds a point when it is time for one.
func (r *run) sample(now time.Time) {
	if s := r.series; s != nil && now.Sub(s.last) >= s.every {
		r.addPoint(now)
	}
}

// lastSample adds a point for the end of the measured phase, unless there was one just before.
func (r *run) lastSample(now time.Time) {
	if s := r.series; s != nil && now.Sub(s.last) >= s.every/4 {
		r.addPoint(now)
	}
}

func (r *run) addPoint(now time.Time) {
	s := r.series
	p := point{at: now.Sub(s.began).Seconds()}
	count := uint64(0)
	if r.churn != nil {
		n := r.churn.count()
		p.open, count = n.live, n.dialled
	} else {
		t := r.count(false)
		p.open, count = t.open, t.echoed
		if r.o.Scenario == scenarioConnect && r.o.BurstBytes == 0 {
			count = t.opened
		} else if r.o.Scenario == scenarioHeartbeat {
			count = t.messages
		}
		for i, d := range r.drivers {
			d.loop.Do(func() { d.recent, s.spare[i] = s.spare[i], d.recent })
			s.sum.Merge(s.spare[i])
			s.spare[i].Reset()
		}
		if s.sum.TotalCount() > 0 {
			p.latency = &[3]float64{float64(s.sum.ValueAtPercentile(50)) / 1e6, float64(s.sum.ValueAtPercentile(99)) / 1e6, float64(s.sum.Max()) / 1e6}
			s.sum.Reset()
		}
	}
	p.rate = float64(count-s.count) / now.Sub(s.last).Seconds()
	if m, err := r.server.memory(); err == nil {
		p.rssAnon = m.Anon
		r.peak = max(r.peak, m.Anon)
	}
	if m, err := r.self.memory(); err == nil {
		p.clientRSSAnon = m.Anon
	}
	s.last, s.count = now, count
	s.points = append(s.points, p)
	if len(s.points) < maxPoints {
		return
	}
	// Every second one goes: a long run has as many points as a short one, further apart.
	for k := range s.points {
		if k%2 == 1 {
			s.points[k/2] = s.points[k]
		}
	}
	s.points = s.points[:len(s.points)/2]
	s.every *= 2
}
