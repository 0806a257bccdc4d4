package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Comparison is what Compare found. Its JSON form is for scripts: the keys stay. What was not measured is null.
type Comparison struct {
	Scenario    string    `json:"scenario"` // that was compared
	Command     []string  `json:"command"`  // mqgate-bench and its arguments
	Began       time.Time `json:"began"`
	Rounds      int       `json:"rounds"`
	Connections int       `json:"connections"`
	Payload     int       `json:"payload_bytes"`
	Depth       int       `json:"depth"`
	Machine     Machine   `json:"machine"`
	Commit      string    `json:"commit"` // of the generator
	// OtherCPUShare is the part of all processors that processes other than server and generator took during the runs.
	// Above 0.05 the figures say little.
	OtherCPUShare float64     `json:"other_cpu_share"`
	OK            bool        `json:"ok"` // every run was
	Interrupted   bool        `json:"interrupted"`
	Servers       []*Compared `json:"servers"`
}

// Compared is one server of a comparison.
type Compared struct {
	Name    string            `json:"name"`
	Server  string            `json:"server"` // URL or command
	OK      bool              `json:"ok"`
	Metrics map[string]Spread `json:"metrics"` // by the key of a metric; those that were measured
	Reports []*Report         `json:"reports"` // of the rounds

	turns []turn
}

// Spread is a metric over all rounds.
type Spread struct {
	Median float64  `json:"median"`
	Min    float64  `json:"min"`
	Max    float64  `json:"max"`
	Ratio  *float64 `json:"ratio"` // of the median to that of the first server
}

// comparedMetric is something that is compared.
type comparedMetric struct {
	key   string
	head  string // with the unit
	chart bool   // worth a picture
	of    func(*turn) *float64
}

var userBytes = comparedMetric{"user_bytes_per_connection", "user bytes per idle connection", true,
	func(t *turn) *float64 { return t.report.Server.RSSBytesPerConnection }}

var residentMiB = comparedMetric{"rss_mib", "RSS of the server, all connections idle [MiB]", false,
	func(t *turn) *float64 { return mebibytes(t.report.Server.RSSBytes) }}

var kernelBytes = comparedMetric{"kernel_bytes_per_connection", "kernel bytes per connection, both ends", false,
	func(t *turn) *float64 { return t.kernelBytes }}

func mebibytes(bytes *float64) *float64 {
	if bytes == nil {
		return nil
	}
	return number(round(*bytes/(1<<20), 2))
}

// comparedMetrics returns what is compared, by scenario.
func comparedMetrics(scenario string) []comparedMetric {
	if scenario == scenarioConnect {
		return []comparedMetric{
			userBytes,
			residentMiB,
			kernelBytes,
			{"server_cpu_us_per_connection", "server CPU per connection: open, hold, close [us]", true, func(t *turn) *float64 { return t.cpuPerConn }},
			{"rate_per_second", "connections opened per second", false, func(t *turn) *float64 { return number(t.report.RatePerSecond) }},
			{"p50_ms", "opening, p50 [ms]", false, func(t *turn) *float64 { return t.report.Latency.P50 }},
			{"p99_ms", "opening, p99 [ms]", false, func(t *turn) *float64 { return t.report.Latency.P99 }},
		}
	}
	return []comparedMetric{
		{"server_cpu_us_per_message", "server CPU per message [us]", true, func(t *turn) *float64 { return t.report.Server.CPUMicrosPerMessage }},
		{"rate_per_second", "messages per second", true, func(t *turn) *float64 { return number(t.report.RatePerSecond) }},
		{"p50_ms", "p50 [ms]", false, func(t *turn) *float64 { return t.report.Latency.P50 }},
		{"p99_ms", "p99 [ms]", false, func(t *turn) *float64 { return t.report.Latency.P99 }},
		{"client_cpu_us_per_message", "generator CPU per message [us]", false, func(t *turn) *float64 { return t.report.Client.CPUMicrosPerMessage }},
		userBytes,
		residentMiB,
		{"rss_anon_peak_mib", "highest RssAnon of the server [MiB]", false, func(t *turn) *float64 { return mebibytes(t.report.Server.RSSAnonPeakBytes) }},
		kernelBytes,
	}
}

// metrics returns what was measured of at least one server.
func (c *Comparison) metrics() []comparedMetric {
	return slices.DeleteFunc(comparedMetrics(c.Scenario), func(m comparedMetric) bool {
		return !slices.ContainsFunc(c.Servers, func(s *Compared) bool { _, ok := s.Metrics[m.key]; return ok })
	})
}

func newComparison(o *CompareOptions) *Comparison {
	c := &Comparison{Scenario: o.Run.Scenario, Command: o.Args, Began: time.Now().UTC().Truncate(time.Second), Rounds: o.Rounds,
		Connections: o.Run.Connections, Payload: o.Run.Payload, Depth: o.Run.Depth, Machine: thisMachine(), Commit: commit()}
	for _, s := range o.Servers {
		c.Servers = append(c.Servers, &Compared{Name: s.Name, Server: s.what(), Reports: []*Report{}})
	}
	return c
}

// finish makes the sums when all turns are there.
func (c *Comparison) finish(interrupted bool) {
	c.Interrupted, c.OK = interrupted, !interrupted
	var machine, others time.Duration
	for _, s := range c.Servers {
		s.OK = len(s.turns) > 0
		for _, t := range s.turns {
			s.Reports = append(s.Reports, t.report)
			s.OK = s.OK && t.report.OK
			machine, others = machine+t.machine, others+t.others
		}
		c.OK = c.OK && s.OK
		s.Metrics = map[string]Spread{}
		for _, m := range comparedMetrics(c.Scenario) {
			spread, ok := spreadOf(s.turns, m.of)
			if !ok {
				continue
			}
			if first, ok := c.Servers[0].Metrics[m.key]; s == c.Servers[0] {
				spread.Ratio = number(1.0)
			} else if ok && first.Median > 0 {
				spread.Ratio = number(round(spread.Median/first.Median, 3))
			}
			s.Metrics[m.key] = spread
		}
	}
	if machine > 0 {
		c.OtherCPUShare = round(float64(others)/float64(machine), 3)
	}
}

// spreadOf returns median and extremes of the rounds in which the metric was measured. Of an even number the median is
// the mean of the two in the middle.
func spreadOf(turns []turn, of func(*turn) *float64) (Spread, bool) {
	var values []float64
	for i := range turns {
		if v := of(&turns[i]); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return Spread{}, false
	}
	slices.Sort(values)
	n := len(values)
	return Spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Min: values[0], Max: values[n-1]}, true
}

// faults says what went wrong, a line per server and kind.
func (c *Comparison) faults() []string {
	var faults []string
	for _, s := range c.Servers {
		if len(s.Reports) < c.Rounds {
			faults = append(faults, fmt.Sprintf("%s: %d of %d rounds", s.Name, len(s.Reports), c.Rounds))
		}
		for i, r := range s.Reports {
			if !r.OK {
				faults = append(faults, fmt.Sprintf("%s, run %d: %d of %d opened, %d failed, %d lost, %d wrong, %d duplicate, broken off: %v",
					s.Name, i+1, r.Opened, r.Connections, r.Failed, r.Lost, r.Wrong, r.Duplicate, r.Interrupted))
			}
		}
	}
	return faults
}

// busyRemark says that the machine was not quiet; "" when it was.
func (c *Comparison) busyRemark() string {
	if c.OtherCPUShare <= quietShare {
		return ""
	}
	return fmt.Sprintf("The machine was busy: other processes took %.0f %% of it during these runs. The figures do not count.", c.OtherCPUShare*100)
}

// load says what was done, in words.
func (c *Comparison) load() string {
	if c.Scenario == scenarioConnect {
		return fmt.Sprintf("connect: %d connections", c.Connections)
	}
	return fmt.Sprintf("echo: %d bytes on %d connections, %d in flight on each", c.Payload, c.Connections, c.Depth)
}

// WriteJSON writes the comparison as one indented JSON object.
func (c *Comparison) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// WriteText writes the comparison for people: a table per metric.
func (c *Comparison) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, rounds: %d; median (min .. max) and ratio to %s\n", c.load(), c.Rounds, c.Servers[0].Name)
	widest := 0
	for _, s := range c.Servers {
		widest = max(widest, len(s.Name))
	}
	for _, m := range c.metrics() {
		fmt.Fprintf(&b, "\n%s\n", m.head)
		for _, s := range c.Servers {
			v, ok := s.Metrics[m.key]
			if !ok {
				fmt.Fprintf(&b, "  %-*s  %10s\n", widest, s.Name, "-")
				continue
			}
			fmt.Fprintf(&b, "  %-*s  %10s  %24s  %s\n", widest, s.Name, figure(v.Median), "("+figure(v.Min)+" .. "+figure(v.Max)+")", ratioText(v.Ratio))
		}
	}
	fmt.Fprintf(&b, "\nmachine  %s\ncommit   %s\n", c.machineText(), c.Commit)
	if remark := c.busyRemark(); remark != "" {
		fmt.Fprintf(&b, "\n%s\n", remark)
	}
	for _, fault := range c.faults() {
		fmt.Fprintf(&b, "FAILED   %s\n", fault)
	}
	result := "ok"
	if !c.OK {
		result = "FAILED"
	}
	fmt.Fprintf(&b, "result   %s\n", result)
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Comparison) machineText() string {
	cpu := c.Machine.CPU
	if cpu == "" {
		cpu = "unknown CPU"
	}
	return fmt.Sprintf("%d cores, %s, Linux %s, %s", c.Machine.Cores, cpu, c.Machine.Kernel, c.Machine.Go)
}

// figure writes three significant digits, or all before the point.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', min(max(digits, 0), 3), 64)
}

func ratioText(ratio *float64) string {
	if ratio == nil {
		return "-"
	}
	return strconv.FormatFloat(*ratio, 'f', 2, 64) + "x"
}
