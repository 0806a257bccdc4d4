package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// heartbeatLoad holds connections that only answer pings, and may send pings of their own. It judges when pings come.
type heartbeatLoad struct {
	d        *driver
	from, to int64    // the measured phase [ns on the loop's clock]
	interval int64    // the server's, as told [ns]; 0: not known
	got      []uint32 // pings in the measured phase, by connection
	phases   [pingPhases]uint64
	pings    uint64
	rtt      *hdrhistogram.Histogram // [ns] of our own pings, in the measured phase

	few  []uint64 // pings missing, by server: see judge
	many uint64   // too many, over all connections
}

func newHeartbeatLoad(r *run, d *driver) load {
	return &heartbeatLoad{d: d, interval: int64(r.o.ServerPings), got: make([]uint32, len(d.clients)), rtt: newHistogram(),
		few: make([]uint64, d.places.count())}
}

// pinged notes a ping of the server on connection i.
func (l *heartbeatLoad) pinged(i uint32) {
	now := l.d.loop.Clock()
	if now < l.from || now >= l.to {
		return
	}
	l.pings++
	l.got[i]++
	if l.interval > 0 && l.got[i] == 1 {
		l.phases[(now-l.from)%l.interval*pingPhases/l.interval]++
	}
}

// ponged notes the round trip of a ping of our own.
func (l *heartbeatLoad) ponged(rtt time.Duration) {
	if now := l.d.loop.Clock(); now >= l.from && now < l.to {
		record(l.rtt, int64(rtt))
		l.d.recordRecent(int64(rtt))
	}
}

// expected returns how many pings a connection gets within a time: from at least to at most. The first comes at any phase;
// a tenth of the interval is for what a loaded server may be late.
func expected(within, interval int64) (least, most uint32) {
	if interval == 0 {
		return 0, 1<<32 - 1
	}
	return uint32(max(0, within-interval/10) / interval), uint32((within+interval/10)/interval + 1)
}

// judge compares the pings of every connection that is still open with what was expected. At the end of the measured
// phase, once.
func (l *heartbeatLoad) judge() {
	least, most := expected(l.to-l.from, l.interval)
	for i, n := range l.got {
		if l.d.clients[i].state != clientOpen {
			continue
		}
		l.few[l.d.place(uint32(i))] += uint64(max(least, n) - n)
		l.many += uint64(max(most, n) - most)
	}
}

// message implements load. What a server sends of its own accord is none of this scenario's business.
func (l *heartbeatLoad) message(*conn.Conn, uint32, frame.OpCode, []byte) {}

// count implements load.
func (l *heartbeatLoad) count(t *tally, final bool) {
	t.messages += l.pings
	for k, n := range l.few {
		t.lose(k, int(n))
	}
	t.wrong += l.many
	if final {
		for i, n := range l.got {
			t.sides[l.d.place(uint32(i))].messages += uint64(n)
		}
		t.latency.Merge(l.rtt)
	}
}

// measureHeartbeat is the heartbeat scenario on the coordinator.
func measureHeartbeat(ctx context.Context, r *run) {
	began := time.Now().Add(startDelay)
	for _, d := range r.drivers {
		l := d.load.(*heartbeatLoad)
		d.loop.Do(func() {
			l.from = d.loop.Clock() + int64(time.Until(began))
			l.to = l.from + int64(r.o.Duration)
		})
	}
	r.beginMeasuring(began)
	r.waitUntil(ctx, "answering pings", began.Add(r.o.Duration))
	r.readMemory(&r.idle)
	r.endMeasuring()
	for _, d := range r.drivers {
		l := d.load.(*heartbeatLoad)
		d.loop.Do(func() {
			l.to = min(l.to, d.loop.Clock())
			l.judge()
		})
	}
}

// HeartbeatReport is what a heartbeat run found, besides what every report has. The latencies of the report are round
// trips of our own pings.
type HeartbeatReport struct {
	IntervalSeconds       float64   `json:"interval_seconds"`        // of the server, as told; 0: not known
	ClientIntervalSeconds float64   `json:"client_interval_seconds"` // of our own pings; 0: none
	Received              uint64    `json:"received"`                // pings of the server in the measured phase
	PerConnection         [3]uint32 `json:"per_connection"`          // least, median, most, of connections that stayed
	Expected              [2]uint32 `json:"expected"`                // per connection: at least, at most
	Missing               uint64    `json:"missing"`                 // below the least, over all connections
	TooMany               uint64    `json:"too_many"`
	RoundTrips            int64     `json:"round_trips"`
	// Phases is how many connections got their first ping in each twentieth of the interval; PhasePeak is the most of
	// them over their mean: 1 is spread evenly, 20 all at one time. null without the interval, or before it is over.
	Phases    []uint64 `json:"phases"`
	PhasePeak *float64 `json:"phase_peak"`
}

func (r *run) heartbeatReport() *HeartbeatReport {
	h := &HeartbeatReport{IntervalSeconds: r.o.ServerPings.Seconds(), ClientIntervalSeconds: r.o.ClientPings.Seconds()}
	var counts []uint32
	phases := make([]uint64, pingPhases)
	total := uint64(0)
	r.each(func(d *driver) {
		l := d.load.(*heartbeatLoad)
		h.Received += l.pings
		for _, n := range l.few {
			h.Missing += n
		}
		h.TooMany += l.many
		h.RoundTrips += l.rtt.TotalCount()
		h.Expected[0], h.Expected[1] = expected(l.to-l.from, l.interval)
		for k, n := range l.phases {
			phases[k] += n
			total += n
		}
		for i, n := range l.got {
			if d.clients[i].state != clientWaiting {
				counts = append(counts, n)
			}
		}
	})
	if n := len(counts); n > 0 {
		slices.Sort(counts)
		h.PerConnection = [3]uint32{counts[0], counts[n/2], counts[n-1]}
	}
	if h.IntervalSeconds > 0 && r.o.Duration >= r.o.ServerPings && total > 0 {
		h.Phases = phases
		h.PhasePeak = number(round(float64(slices.Max(phases))*pingPhases/float64(total), 3))
	}
	return h
}

// write writes the lines of the report for people.
func (h *HeartbeatReport) write(line func(head, format string, args ...any)) {
	want := "the interval is not known"
	if h.IntervalSeconds > 0 {
		want = fmt.Sprintf("%d to %d expected at an interval of %v s, %d missing, %d too many", h.Expected[0], h.Expected[1], h.IntervalSeconds, h.Missing, h.TooMany)
	}
	line("heartbeat", "%d pings of the server; per connection %d to %d, median %d; %s", h.Received, h.PerConnection[0], h.PerConnection[2], h.PerConnection[1], want)
	if h.PhasePeak != nil {
		line("", "busiest twentieth of the interval: %.2f times the mean", *h.PhasePeak)
	}
	if h.ClientIntervalSeconds > 0 {
		line("", "%d round trips of our own pings, every %v s", h.RoundTrips, h.ClientIntervalSeconds)
	}
}
