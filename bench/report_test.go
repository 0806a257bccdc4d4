package bench

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sample is a report as it may come out of a run.
func sample() *Report {
	pid := 4711
	return &Report{
		Scenario: "echo", URL: "ws://127.0.0.1:8080/echo", Connections: 1000, Opened: 999, Lost: 5, Wrong: 6, Duplicate: 7,
		Messages: 2_000_000, RatePerSecond: 200_000.5,
		Latency: Latency{number(1.5), number(2.5), number(9.25), number(12.125), number(20.0)},
		Server: ServerReport{PID: &pid, RSSBytes: number(17880 << 10), RSSBytesPerConnection: number(336.7), CPUMicrosPerMessage: number(3.98),
			RSSAnonBytes: number(5512 << 10), RSSAnonPeakBytes: number(6000 << 10), CPUSeconds: number(7.96)},
		Client:  ClientReport{CPUMicrosPerMessage: number(4.01), CPUSeconds: 8.02},
		Machine: Machine{Cores: 2, CPU: "a processor", Kernel: "6.18.0", Go: "go1.26.8"}, Commit: "abc",
		DurationSeconds: 10, OpenSeconds: 0.25, Failed: 1, Failures: map[string]uint64{"connection refused": 1},
		LostConnections: 2, LostByCode: map[string]uint64{"1006": 2}, LostMessages: 3, MessagesSent: 2_000_100, PingsAnswered: 500,
		Kernel: KernelTCP{Sockets: 2000, MemoryBytes: 4096}, Payload: 128, Depth: 1, Loops: 2,
		Expect: []Outcome{{"p99<50ms", "9.25ms", true}, {"lost=0", "5", false}},
	}
}

// The JSON report, byte for byte: scripts rely on its keys.
func TestReportJSON(t *testing.T) {
	golden(t, "testdata/report.json", sample().WriteJSON)
}

// What was not measured is null, not zero and not missing.
func TestReportJSONUnknown(t *testing.T) {
	golden(t, "testdata/unknown.json", (&Report{Failures: map[string]uint64{}, LostByCode: map[string]uint64{}, Expect: []Outcome{}}).WriteJSON)
}

// The report for people.
func TestReportText(t *testing.T) {
	golden(t, "testdata/report.txt", sample().WriteText)
}

// golden compares what write writes with a file; with UPDATE_GOLDEN=1 it writes the file.
func golden(t *testing.T, file string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (UPDATE_GOLDEN=1 writes it): %s", file, diff)
	}
}

// A run with so few connections is judged by all of: nothing failed, lost, wrong, duplicate, not broken off, expectations.
func TestReportOK(t *testing.T) {
	for _, test := range []struct {
		name        string
		change      func(d *driver, l *connectLoad)
		interrupted bool
		ok          bool
	}{
		{"all well", func(*driver, *connectLoad) {}, false, true},
		{"interrupted", func(*driver, *connectLoad) {}, true, false},
		{"failed", func(d *driver, _ *connectLoad) { d.fail(0, "x") }, false, false},
		{"lost", func(d *driver, _ *connectLoad) { d.sides[0].lost[1006]++ }, false, false},
		{"wrong", func(_ *driver, l *connectLoad) { l.v.wrong++ }, false, false},
		{"duplicate", func(_ *driver, l *connectLoad) { l.v.duplicate++ }, false, false},
		{"missing", func(_ *driver, l *connectLoad) { l.echo, l.v.trackers = true, []tracker{{sent: 1}} }, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &run{o: &Options{Scenario: scenarioConnect, Connections: 1, Loops: 1}, scenario: &scenarios[0], progress: &Progress{},
				places: &places{list: []place{{addr: netip.MustParseAddrPort("127.0.0.1:1")}}}}
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			defer r.clients.Stop()
			r.drivers[0].loop.Do(func() { test.change(r.drivers[0], r.drivers[0].load.(*connectLoad)) })
			if p := r.report(test.interrupted); p.OK != test.ok {
				t.Errorf("ok %v, want %v", p.OK, test.ok)
			}
		})
	}
}

// Of many error texts the first maxTexts are kept apart.
func TestFailTexts(t *testing.T) {
	for _, texts := range []int{maxTexts - 1, maxTexts, maxTexts + 1, maxTexts + 5} {
		d := &driver{loops: 1, sides: newSides(1)}
		for i := range texts {
			d.fail(0, strings.Repeat("x", i+1))
			d.fail(0, strings.Repeat("x", i+1))
		}
		others := uint64(2 * max(0, texts-maxTexts))
		if d.sides[0].failed["other errors"] != others || sum(d.sides[0].failed) != uint64(2*texts) {
			t.Errorf("%d texts: %d others, %d in all", texts, d.sides[0].failed["other errors"], sum(d.sides[0].failed))
		}
	}
}

// The connections are dealt out in turn, and none is left over.
func TestShare(t *testing.T) {
	for loops := 1; loops <= 5; loops++ {
		for n := range 12 {
			total := 0
			for index := range loops {
				d := &driver{index: index, loops: loops}
				total += d.share(n)
				if s := d.share(n); s < n/loops || s > n/loops+1 {
					t.Errorf("%d over %d loops: loop %d has %d", n, loops, index, s)
				}
			}
			if total != n {
				t.Errorf("%d over %d loops: %d in all", n, loops, total)
			}
		}
	}
}

// The schedule of an open loop: messages of all connections follow each other evenly, and the three views of it (how many
// are due, how many on one connection, when one is) agree at every moment.
func TestSchedule(t *testing.T) {
	for _, connections := range []int{1, 2, 3, 7} {
		for _, gap := range []float64{1000, 333.3333, 1e6 / 7} {
			e := &flow{n: connections, start: 5000, gap: gap}
			for now := int64(4000); now < 5000+int64(40*gap); now += max(1, int64(gap/3)) {
				sum := int64(0)
				for i := range uint32(connections) {
					n := e.dueOn(i, now)
					sum += n
					if n > 0 && e.dueAt(i, uint32(n-1)) > now {
						t.Fatalf("%d connections, gap %v: at %d message %d of %d counts as due, but is so at %d", connections, gap, now, n-1, i, e.dueAt(i, uint32(n-1)))
					}
					if e.dueAt(i, uint32(n)) <= now-1 { // a nanosecond for rounding up
						t.Fatalf("%d connections, gap %v: at %d message %d of %d does not count as due, but is so at %d", connections, gap, now, n, i, e.dueAt(i, uint32(n)))
					}
				}
				if sum != e.dueBy(now) {
					t.Fatalf("%d connections, gap %v: at %d, %d messages are due on all connections, %d in all", connections, gap, now, sum, e.dueBy(now))
				}
			}
			if at := e.dueAt(0, 0); at != 5000 {
				t.Errorf("the first message is due at %d, want the start", at)
			}
		}
	}
}

// What an open loop could not send enters the latencies with the time that it has waited.
func TestUnsent(t *testing.T) {
	const ms = int64(time.Millisecond)
	d := &driver{clients: []client{{state: clientOpen}, {state: clientEnded}}}
	e := &echoLoad{flow: newFlow(d, 2, 1), v: verifier{trackers: []tracker{{sent: 8}, {}}}}
	e.x, e.from, e.to, e.gap, e.base = e, 10*ms, 50*ms, float64(ms), []uint32{5, 0}
	e.countUnsent()
	// On connection 0 messages 0, 1, ... 24 are due at 0, 2, ... 48 ms; three were sent. The other connection is gone.
	if e.unsent != 22 {
		t.Errorf("%d unsent, want 22", e.unsent)
	}
	if n, longest := e.latency.TotalCount(), e.latency.Max(); n != 20 || longest < 39*ms || longest > 41*ms {
		t.Errorf("%d latencies up to %d ns, want the 20 due since 10 ms, up to 40 ms", n, longest)
	}
}
