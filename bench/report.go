package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/frame/deflate"
)

// Report is what a run found. Its JSON form is for scripts and dashboards: the keys stay. What was not measured is null.
type Report struct {
	Scenario    string `json:"scenario"`
	URL         string `json:"url"`         // several: with spaces between them
	Connections int    `json:"connections"` // asked for
	Opened      uint64 `json:"opened"`
	// Lost is connections that the server or the network ended, and messages that did not come back: the sum.
	Lost          uint64       `json:"lost"`
	Wrong         uint64       `json:"wrong"`     // messages damaged, out of order, misdirected or never sent
	Duplicate     uint64       `json:"duplicate"` // messages that came back more than once
	Messages      uint64       `json:"messages"`  // that came back as they were sent, in the measured phase
	RatePerSecond float64      `json:"rate_per_second"`
	Latency       Latency      `json:"latency_ms"`
	Server        ServerReport `json:"server"`
	Client        ClientReport `json:"client"`
	Machine       Machine      `json:"machine"`
	Commit        string       `json:"commit"` // of the generator

	OK          bool `json:"ok"`          // exit status 0
	Interrupted bool `json:"interrupted"` // broken off: what follows is of the part before
	// DurationSeconds is the length of the measured phase, OpenSeconds that of opening.
	DurationSeconds float64           `json:"duration_seconds"`
	OpenSeconds     float64           `json:"open_seconds"`
	Failed          uint64            `json:"failed"` // connections that could not be opened
	Failures        map[string]uint64 `json:"failures"`
	LostConnections uint64            `json:"lost_connections"`
	LostByCode      map[string]uint64 `json:"lost_connections_by_code"`
	LostMessages    uint64            `json:"lost_messages"`
	MessagesSent    uint64            `json:"messages_sent"` // in all phases
	// MessagesUnsent is messages of an open loop that were due and had to wait until the end.
	MessagesUnsent uint64    `json:"messages_unsent"`
	PingsAnswered  uint64    `json:"pings_answered"`
	Kernel         KernelTCP `json:"kernel"` // with all connections open, of the whole machine
	Payload        int       `json:"payload_bytes"`
	Depth          int       `json:"depth"`
	Rate           int       `json:"rate"` // asked for; 0: as fast as possible
	Loops          int       `json:"loops"`
	Sources        int       `json:"sources"` // source addresses named; 0: automatic
	Expect         []Outcome `json:"expect"`

	// PayloadSizes is the distribution of sizes, when there is one; PayloadBytes is then the largest.
	PayloadSizes string `json:"payload_sizes,omitempty"`
	// Compressed is the connections that agreed on permessage-deflate, when it was offered.
	Compressed  *uint64          `json:"compressed,omitempty"`
	Late        *uint64          `json:"late,omitempty"` // of request: answers after --answer-timeout
	RequestType string           `json:"request_type,omitempty"`
	Broadcast   *BroadcastReport `json:"broadcast,omitempty"`
	Heartbeat   *HeartbeatReport `json:"heartbeat,omitempty"`
	Ramp        *RampReport      `json:"ramp,omitempty"`

	Stalled *StalledReport `json:"stalled,omitempty"` // of echo with --stalled

	Churn *ChurnReport `json:"churn,omitempty"` // of scenario churn

	Servers []URLReport `json:"servers,omitempty"` // of a run at several servers, in the order of --url

	series *series                 // for WriteHTML; nil: not collected
	hist   *hdrhistogram.Histogram // Latency whole [ns]
}

// Latency is of messages (echo) or of opening a connection (connect) [ms].
type Latency struct {
	P50  *float64 `json:"p50"`
	P90  *float64 `json:"p90"`
	P99  *float64 `json:"p99"`
	P999 *float64 `json:"p999"`
	Max  *float64 `json:"max"`
}

// ServerReport is about the server's process, or those of all servers together. All is null when one is not known.
type ServerReport struct {
	PID      *int     `json:"pid"`       // null when there are several
	RSSBytes *float64 `json:"rss_bytes"` // VmRSS with all connections open, idle
	// RSSBytesPerConnection is (RssAnon with all connections open, idle - RssAnon after 100 for each server) / connections.
	RSSBytesPerConnection *float64 `json:"rss_bytes_per_connection"`
	CPUMicrosPerMessage   *float64 `json:"cpu_us_per_message"`

	// RSSAnonBytes is RssAnon when RSSBytes was read, RSSAnonPeakBytes the highest value seen.
	RSSAnonBytes     *float64 `json:"rss_anon_bytes"`
	RSSAnonPeakBytes *float64 `json:"rss_anon_peak_bytes"`
	// RSSBytesPerConnectionAfterBurst is RSSBytesPerConnection again, at the end of a run with a burst.
	RSSBytesPerConnectionAfterBurst *float64 `json:"rss_bytes_per_connection_after_burst"`
	CPUSeconds                      *float64 `json:"cpu_seconds"` // in the measured phase
}

// ClientReport is about the generator.
type ClientReport struct {
	CPUMicrosPerMessage *float64 `json:"cpu_us_per_message"`
	CPUSeconds          float64  `json:"cpu_seconds"` // in the measured phase
}

// report makes the report. The connections have been closed.
func (r *run) report(interrupted bool) *Report {
	t := r.count(true)
	o := r.o
	p := &Report{
		Scenario: o.Scenario, URL: o.urls(), Connections: o.Connections, Opened: t.opened,
		Wrong: t.wrong, Duplicate: t.duplicate, Messages: t.messages, Latency: latencyOf(t.latency),
		Machine: thisMachine(), Commit: commit(),
		Interrupted: interrupted, OpenSeconds: round(r.openTime.Seconds(), 3),
		Failed: sum(t.failed), Failures: t.failed, LostConnections: sum(t.lost), LostByCode: map[string]uint64{},
		LostMessages: t.missing, MessagesSent: t.sent, MessagesUnsent: t.unsent, PingsAnswered: t.pings, Kernel: r.kernel,
		Rate: o.Rate, Loops: o.Loops, Sources: len(o.Sources), Payload: o.Payload, Depth: o.Depth, Expect: []Outcome{},
	}
	for code, n := range t.lost {
		p.LostByCode[strconv.Itoa(int(code))] = n
	}
	if r.churn != nil {
		r.churn.report(p)
	}
	p.series, p.hist, p.PayloadSizes = r.series, t.latency, o.Sizes.String()
	if o.Scenario == scenarioRequest || o.Scenario == scenarioRamp && o.RampOf == scenarioRequest {
		p.Late, p.RequestType = &t.late, o.RequestType
	}
	if o.Compression != deflate.Off {
		p.Compressed = &t.compressed
	}
	p.Lost = p.LostConnections + p.LostMessages
	if o.Scenario == scenarioConnect {
		p.Payload, p.Depth = o.BurstBytes, 0
		if r.openTime > 0 {
			p.RatePerSecond = round(float64(t.opened)/r.openTime.Seconds(), 1)
		}
	}
	if !r.measuredTo.IsZero() {
		took := max(0, r.measuredTo.Sub(r.measuredFrom)) // broken off before it began: 0
		p.DurationSeconds = round(took.Seconds(), 3)
		p.Client.CPUSeconds = round(r.clientCPU.Seconds(), 3)
		if o.Scenario != scenarioConnect && o.Scenario != scenarioChurn && took > 0 {
			p.RatePerSecond = round(float64(t.messages)/took.Seconds(), 1)
		}
		if o.Scenario != scenarioChurn && t.messages > 0 {
			p.Client.CPUMicrosPerMessage = number(round(micros(r.clientCPU)/float64(t.messages), 3))
		}
	}
	r.reportServer(p)
	r.reportURLs(p, t)
	if r.stalled != nil {
		r.stalled.report(p, t.slices)
	}
	switch o.Scenario {
	case scenarioBroadcast:
		p.Broadcast = r.broadcastReport(p, t)
		p.LostMessages += t.unanswered
		p.Lost += t.unanswered
	case scenarioHeartbeat:
		p.Heartbeat = r.heartbeatReport()
	}
	p.Ramp = r.ramp
	p.OK = (p.Ramp == nil || p.Ramp.ok()) && t.late == 0 && (p.Churn == nil || p.Churn.ok()) && (p.Stalled == nil || p.Stalled.ok()) && p.Failed == 0 && p.Lost == 0 && p.Wrong == 0 && p.Duplicate == 0 && !interrupted
	for _, e := range o.Expect {
		outcome := e.check(p)
		p.Expect = append(p.Expect, outcome)
		p.OK = p.OK && outcome.Holds
	}
	return p
}

func (r *run) reportServer(p *Report) {
	if !r.server.known {
		return
	}
	s := &p.Server
	if len(r.server.each) == 1 {
		s.PID = &r.server.each[0].pid
	}
	if m := r.idle.all; m != nil {
		s.RSSBytes, s.RSSAnonBytes = number(m.RSS), number(m.Anon)
		s.RSSAnonPeakBytes = number(r.peak)
	}
	s.RSSBytesPerConnection = perConnection(r.base.all, r.idle.all, p.Opened)
	if r.burst {
		s.RSSBytesPerConnectionAfterBurst = perConnection(r.base.all, r.afterBurst.all, p.Opened)
	}
	if cpu := r.serverCPU.all; cpu != nil && !r.measuredTo.IsZero() {
		s.CPUSeconds = number(round(cpu.Seconds(), 3))
		if p.Messages > 0 && p.Churn == nil {
			s.CPUMicrosPerMessage = number(round(micros(*cpu)/float64(p.Messages), 3))
		}
	}
}

// perConnection returns by how much memory grew for each connection [bytes]; nil when it is not known.
func perConnection(from, to *memory, connections uint64) *float64 {
	if from == nil || to == nil || connections == 0 {
		return nil
	}
	return number(round(float64(to.Anon-from.Anon)/float64(connections), 1))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func latencyOf(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(percentile float64) *float64 {
		return number(round(float64(h.ValueAtPercentile(percentile))/1e6, 4))
	}
	return Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: number(round(float64(h.Max())/1e6, 4))}
}

// round rounds to so many digits after the point.
func round(v float64, digits int) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64) // what was written can be read
	return v
}

// WriteJSON writes the report as one indented JSON object.
func (p *Report) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// WriteText writes the report for people.
func (p *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", head, fmt.Sprintf(format, args...))
	}
	line("scenario", "%s at %s", p.Scenario, p.URL)
	if p.Interrupted {
		line("", "broken off: what follows is of the part before")
	}
	if p.Churn != nil {
		p.Churn.write(line, p.OpenSeconds, p.RatePerSecond)
	} else {
		line("connections", "%d of %d opened in %.1f s, %d failed, %d lost", p.Opened, p.Connections, p.OpenSeconds, p.Failed, p.LostConnections)
	}
	if p.Compressed != nil {
		line("compression", "agreed with %d of %d connections", *p.Compressed, p.Opened)
	}
	for _, text := range byCount(p.Failures) {
		line("", "  %d failed: %s", p.Failures[text], text)
	}
	for _, code := range byCount(p.LostByCode) {
		line("", "  %d lost with close code %s", p.LostByCode[code], code)
	}
	if p.PingsAnswered > 0 {
		line("pings", "%d answered, %.2f per connection", p.PingsAnswered, float64(p.PingsAnswered)/float64(max(p.Opened, 1)))
	}
	if p.MessagesSent > 0 && p.Churn == nil {
		rate := ""
		if p.Scenario != scenarioConnect {
			rate = fmt.Sprintf(" in %.1f s: %.0f per second", p.DurationSeconds, p.RatePerSecond)
		}
		size := cmp.Or(p.PayloadSizes, strconv.Itoa(p.Payload))
		line("messages", "%d of %s bytes%s", p.Messages, size, rate)
		late := ""
		if p.Late != nil {
			late = fmt.Sprintf("%d late, ", *p.Late)
		}
		line("", "%d lost, %s%d duplicate, %d wrong (of %d sent in all phases)", p.LostMessages, late, p.Duplicate, p.Wrong, p.MessagesSent)
		if p.MessagesUnsent > 0 {
			line("", "%d were due and not sent: the server did not keep up with the rate", p.MessagesUnsent)
		}
	}
	if l := p.Latency; l.P50 != nil {
		of := "latency"
		if p.Scenario == scenarioConnect {
			of = "opening took"
		}
		line(of, "p50 %.3f ms, p90 %.3f, p99 %.3f, p99.9 %.3f, max %.3f", *l.P50, *l.P90, *l.P99, *l.P999, *l.Max)
	}
	if p.Broadcast != nil {
		p.Broadcast.write(line)
	}
	if p.Heartbeat != nil {
		p.Heartbeat.write(line)
	}
	if p.Ramp != nil {
		p.Ramp.write(line)
	}
	if p.Stalled != nil {
		p.Stalled.write(line)
	}
	p.writeURLs(line)
	p.writeServer(line)
	if p.Client.CPUMicrosPerMessage != nil {
		line("client", "CPU %.2f us per message", *p.Client.CPUMicrosPerMessage)
	} else {
		line("client", "CPU %.2f s", p.Client.CPUSeconds)
	}
	if p.Kernel.Sockets > 0 {
		line("kernel", "%d TCP sockets in use, %s in their buffers (whole machine)", p.Kernel.Sockets, bytesText(float64(p.Kernel.MemoryBytes)))
	}
	line("machine", "%d cores, %s, Linux %s, %s", p.Machine.Cores, cmp.Or(p.Machine.CPU, "unknown CPU"), p.Machine.Kernel, p.Machine.Go)
	line("commit", "%s", p.Commit)
	for _, e := range p.Expect {
		holds := "holds"
		if !e.Holds {
			holds = "DOES NOT HOLD"
		}
		line("expected", "%s %s: %s", e.Expect, holds, e.Got)
	}
	if p.OK {
		line("result", "ok")
	} else {
		line("result", "FAILED")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Report) writeServer(line func(head, format string, args ...any)) {
	s := p.Server
	var parts []string
	part := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case s.PID != nil:
		part("pid %d", *s.PID)
	case p.Servers == nil:
		line("server", "process not known: neither memory nor CPU was measured")
		return
	case s.RSSBytes == nil && s.CPUSeconds == nil:
		line("servers", "not all processes known: neither memory nor CPU of all was measured")
		return
	default:
		part("all %d together", len(p.Servers))
	}
	if s.CPUMicrosPerMessage != nil {
		part("CPU %.2f us per message", *s.CPUMicrosPerMessage)
	} else if s.CPUSeconds != nil {
		part("CPU %.2f s", *s.CPUSeconds)
	}
	if s.RSSBytes != nil {
		part("RSS %s with all connections idle", bytesText(*s.RSSBytes))
	}
	line("server", "%s", strings.Join(parts, ", "))
	if s.RSSBytesPerConnection != nil {
		line("", "%.0f bytes of RssAnon per idle connection", *s.RSSBytesPerConnection)
	}
	if s.RSSBytesPerConnectionAfterBurst != nil {
		line("", "%.0f bytes per connection at the end, after the burst (highest RssAnon seen: %s)",
			*s.RSSBytesPerConnectionAfterBurst, bytesText(*s.RSSAnonPeakBytes))
	}
}

// byCount returns the keys, the one with the highest count first.
func byCount(m map[string]uint64) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
}

// bytesText writes a size with a unit.
func bytesText(v float64) string {
	for _, u := range []string{"bytes", "KiB", "MiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.4g %s", v, u)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.4g GiB", v)
}
