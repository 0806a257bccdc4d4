package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unit says how a metric's value is written.
type unit uint8

const (
	unitCount    unit = iota // a number
	unitDuration             // a duration; kept in seconds
	unitBytes                // bytes, or KiB, MiB, GiB
)

var unitTexts = [...]string{
	unitCount:    "a number like 1000 or 0.5",
	unitDuration: "a duration like 50ms or 1.5s",
	unitBytes:    "a size like 1024 or 64KiB",
}

// metric is something that can be expected of a report.
type metric struct {
	name  string
	unit  unit
	value func(*Report) *float64 // nil: not measured
}

func seconds(ms *float64) *float64 {
	if ms == nil {
		return nil
	}
	s := *ms / 1000
	return &s
}

func number[N int | int64 | uint64 | float64](n N) *float64 {
	f := float64(n)
	return &f
}

var metrics = []metric{
	{"p50", unitDuration, func(r *Report) *float64 { return seconds(r.Latency.P50) }},
	{"p90", unitDuration, func(r *Report) *float64 { return seconds(r.Latency.P90) }},
	{"p99", unitDuration, func(r *Report) *float64 { return seconds(r.Latency.P99) }},
	{"p999", unitDuration, func(r *Report) *float64 { return seconds(r.Latency.P999) }},
	{"max", unitDuration, func(r *Report) *float64 { return seconds(r.Latency.Max) }},
	{"opened", unitCount, func(r *Report) *float64 { return number(r.Opened) }},
	{"compressed", unitCount, func(r *Report) *float64 {
		if r.Compressed == nil {
			return nil
		}
		return number(*r.Compressed)
	}},
	{"failed", unitCount, func(r *Report) *float64 { return number(r.Failed) }},
	{"lost", unitCount, func(r *Report) *float64 { return number(r.Lost) }},
	{"wrong", unitCount, func(r *Report) *float64 { return number(r.Wrong) }},
	{"duplicate", unitCount, func(r *Report) *float64 { return number(r.Duplicate) }},
	{"messages", unitCount, func(r *Report) *float64 { return number(r.Messages) }},
	{"rate", unitCount, func(r *Report) *float64 { return number(r.RatePerSecond) }},
	{"late", unitCount, func(r *Report) *float64 {
		if r.Late == nil {
			return nil
		}
		return number(*r.Late)
	}},
	{"spread_p50", unitDuration, func(r *Report) *float64 { return seconds(r.spread().P50) }},
	{"spread_p99", unitDuration, func(r *Report) *float64 { return seconds(r.spread().P99) }},
	{"spread_max", unitDuration, func(r *Report) *float64 { return seconds(r.spread().Max) }},
	{"phase_peak", unitCount, func(r *Report) *float64 {
		if r.Heartbeat == nil {
			return nil
		}
		return r.Heartbeat.PhasePeak
	}},
	{"best_rate", unitCount, func(r *Report) *float64 {
		if r.Ramp == nil {
			return nil
		}
		return number(r.Ramp.BestRate)
	}},
	{"pings", unitCount, func(r *Report) *float64 { return number(r.PingsAnswered) }},
	{"rss_bytes", unitBytes, func(r *Report) *float64 { return r.Server.RSSBytes }},
	{"rss_bytes_per_connection", unitBytes, func(r *Report) *float64 { return r.Server.RSSBytesPerConnection }},
	{"rss_bytes_per_connection_after_burst", unitBytes, func(r *Report) *float64 { return r.Server.RSSBytesPerConnectionAfterBurst }},
	{"server_cpu_us_per_message", unitCount, func(r *Report) *float64 { return r.Server.CPUMicrosPerMessage }},
	{"client_cpu_us_per_message", unitCount, func(r *Report) *float64 { return r.Client.CPUMicrosPerMessage }},
}

// spread returns the times to the last member of a broadcast, empty when there are none.
func (p *Report) spread() Latency {
	if p.Broadcast == nil {
		return Latency{}
	}
	return p.Broadcast.Spread
}

// MetricNames returns the names that an expectation may begin with.
func MetricNames() []string {
	names := make([]string, len(metrics))
	for i, m := range metrics {
		names[i] = m.name
	}
	return names
}

// Expectation is a condition on a report, such as p99<50ms.
type Expectation struct {
	text   string
	metric *metric
	op     string
	value  float64 // durations: seconds
}

// String returns the expectation as it was given, without spaces.
func (e Expectation) String() string { return e.text }

// ParseExpectation reads METRIC OP VALUE, with OP one of <, <=, >, >=, =. The error says what is wrong, without
// repeating all of it.
func ParseExpectation(text string) (Expectation, error) {
	text = strings.Join(strings.Fields(text), "")
	at := strings.IndexAny(text, "<>=")
	if at < 0 {
		return Expectation{}, fmt.Errorf("has no comparison: METRIC, then <, <=, >, >= or =, then a value, as in p99<50ms")
	}
	name, op, value := text[:at], text[at:at+1], text[at+1:]
	if op != "=" && strings.HasPrefix(value, "=") {
		op, value = op+"=", value[1:]
	}
	i := slices.IndexFunc(metrics, func(m metric) bool { return m.name == name })
	if i < 0 {
		return Expectation{}, fmt.Errorf("begins with %q, which is none of the metrics %s", name, strings.Join(MetricNames(), ", "))
	}
	e := Expectation{text: text, metric: &metrics[i], op: op}
	var ok bool
	if e.value, ok = metrics[i].unit.parse(value); !ok {
		return Expectation{}, fmt.Errorf("compares %s with %q, expected %s", name, value, unitTexts[metrics[i].unit])
	}
	return e, nil
}

// parse reads a value of the unit; negative ones are refused: no metric is.
func (u unit) parse(text string) (float64, bool) {
	switch u {
	case unitDuration:
		d, err := time.ParseDuration(text)
		return d.Seconds(), err == nil && d >= 0
	case unitBytes:
		factor := 1.0
		for _, s := range []struct {
			suffix string
			factor float64
		}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
			if before, found := strings.CutSuffix(text, s.suffix); found {
				text, factor = before, s.factor
			}
		}
		n, ok := unitCount.parse(text)
		return n * factor, ok
	case unitCount:
	}
	if strings.Trim(text, "0123456789.") != "" {
		return 0, false // no signs, exponents, infinities
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsInf(n, 0)
}

// format writes a value of the unit.
func (u unit) format(v float64) string {
	if u == unitDuration {
		return time.Duration(v * 1e9).Round(time.Microsecond).String()
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// Outcome is an expectation and what became of it.
type Outcome struct {
	Expect string `json:"expect"`
	Got    string `json:"got"` // "not measured" when it is not known; the expectation does not hold then
	Holds  bool   `json:"holds"`
}

// check compares the expectation with a report.
func (e Expectation) check(r *Report) Outcome {
	got := e.metric.value(r)
	if got == nil {
		return Outcome{e.text, "not measured", false}
	}
	holds := false
	switch e.op {
	case "<":
		holds = *got < e.value
	case "<=":
		holds = *got <= e.value
	case ">":
		holds = *got > e.value
	case ">=":
		holds = *got >= e.value
	case "=":
		holds = *got == e.value
	}
	return Outcome{e.text, e.metric.unit.format(*got), holds}
}
