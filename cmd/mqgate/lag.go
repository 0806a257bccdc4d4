package main

import (
	"context"
	"sync"
	"time"

	"github.com/mqgate/mqgate/conn"
)

// watchEvery is how often the lag of the loops is measured.
const watchEvery = time.Second

// lagBuckets are the upper bounds of the loop lag histogram [us]: 0.1 ms to 1 s.
var lagBuckets = [...]uint32{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000}

// lags is a histogram of how long a task waits for its turn on a loop. It is filled once a second, not per scrape, which
// would miss most of what happens in between. Safe from any goroutine.
type lags struct {
	mu sync.Mutex
	lagCounts
}

type lagCounts struct {
	counts [len(lagBuckets) + 1]uint64 // per bucket, the last one for what is above
	sumUS  uint64
}

func (l *lags) observe(lag time.Duration) {
	us := uint64(max(lag, 0).Microseconds())
	i := 0
	for i < len(lagBuckets) && us > uint64(lagBuckets[i]) {
		i++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[i]++
	l.sumUS += us
}

func (l *lags) get() lagCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lagCounts
}

// measureLags measures every loop once.
func (g *gateway) measureLags() {
	for _, r := range g.server.Registries() {
		var lag time.Duration
		posted := time.Now()
		if r.Loop().Do(func() { lag = time.Since(posted) }) {
			g.lags.observe(lag)
		}
	}
}

// watchLoops measures the loops until ctx ends.
func (g *gateway) watchLoops(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.measureLags()
			g.server.Each((*conn.Registry).Account)
			if g.limiter != nil {
				g.limiter.Sweep(g.server.Now())
			}
		case <-ctx.Done():
			return
		}
	}
}
