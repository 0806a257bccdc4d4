package bench

import (
	"cmp"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// said returns a command that says text, and stays until it is ended.
func said(text string) []string {
	return []string{"sh", "-c", "echo 'starting'; echo '" + text + "' >&2; exec tail -f /dev/null"}
}

// Two servers in turns, one that runs and one that is "started": its command names a server of the test.
func TestCompare(t *testing.T) {
	for _, scenario := range CompareScenarios {
		t.Run(scenario, func(t *testing.T) {
			var mu sync.Mutex
			var order strings.Builder
			seen := func(name string) func(*conn.Conn) {
				return func(*conn.Conn) {
					mu.Lock()
					defer mu.Unlock()
					if s := order.String(); !strings.HasSuffix(s, name) {
						order.WriteString(name)
					}
				}
			}
			a, b := &echoServer{onOpen: seen("a")}, &echoServer{onOpen: seen("b")}
			a.serve(t)
			b.serve(t)
			run := a.options(t, scenario)
			o := CompareOptions{Run: run, Path: "/echo", Rounds: 2, Args: []string{"mqgate-bench", "compare"}, Servers: []CompareServer{
				{Name: "a", URL: "ws://" + a.addr.String() + "/echo"},
				{Name: "b", Command: said("msg=listening addr=" + b.addr.String() + " pid=" + strconv.Itoa(os.Getpid()))},
			}}
			c := mustCompare(t, t.Context(), o)
			if !c.OK || c.Interrupted || len(c.faults()) > 0 || c.Connections != run.Connections || c.Rounds != 2 {
				t.Errorf("ok %v, interrupted %v, %d connections, %d rounds, faults %q", c.OK, c.Interrupted, c.Connections, c.Rounds, c.faults())
			}
			mu.Lock()
			got := order.String()
			mu.Unlock()
			if got != "aba" { // ab, ba: two of the same in a row are seen as one
				t.Errorf("the order of the turns was %s", got)
			}
			for i, s := range c.Servers {
				if len(s.Reports) != 2 || !s.OK {
					t.Errorf("%s: %d reports, ok %v", s.Name, len(s.Reports), s.OK)
				}
				for _, m := range comparedMetrics(scenario) {
					v, ok := s.Metrics[m.key]
					if (m.key == kernelBytes.key || m.key == userBytes.key) && !ok {
						continue // not with so few connections, and when the kernel has no room left from before
					}
					if !ok || v.Min > v.Median || v.Median > v.Max {
						t.Errorf("%s: %s is %+v", s.Name, m.key, v)
					}
					if i == 0 && (v.Ratio == nil || *v.Ratio != 1) {
						t.Errorf("%s: the ratio of %s is %v", s.Name, m.key, v.Ratio)
					}
				}
				for _, r := range s.Reports {
					if r.Server.PID == nil || *r.Server.PID != os.Getpid() {
						t.Errorf("%s: the server is %v, want %d", s.Name, r.Server.PID, os.Getpid())
					}
				}
			}
		})
	}
}

func mustCompare(t *testing.T, ctx context.Context, o CompareOptions) *Comparison {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	sys, err := ThisSystem()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Compare(ctx, o, sys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What one server loses makes the whole comparison fail, and is said.
func TestCompareLost(t *testing.T) {
	good := &echoServer{}
	bad := &echoServer{misbehave: func(_ *conn.Conn, n int, _ frame.OpCode, _ []byte) bool { return n == 2 }}
	good.serve(t)
	bad.serve(t)
	o := CompareOptions{Run: good.options(t, scenarioEcho), Rounds: 1, Servers: []CompareServer{
		{Name: "good", URL: "ws://" + good.addr.String() + "/echo"}, {Name: "bad", URL: "ws://" + bad.addr.String() + "/echo"}}}
	c := mustCompare(t, t.Context(), o)
	want := []string{"bad, run 1: 8 of 8 opened, 0 failed, 8 lost, 0 wrong, 0 duplicate, broken off: false"}
	if got := c.faults(); c.OK || !c.Servers[0].OK || c.Servers[1].OK || !slices.Equal(got, want) {
		t.Errorf("ok %v, faults %q, want %q", c.OK, got, want)
	}
}

// A comparison that is broken off has what there was.
func TestCompareBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &echoServer{onOpen: func(*conn.Conn) { cancel() }}
	s.serve(t)
	run := s.options(t, scenarioConnect)
	run.Duration = time.Hour
	url := "ws://" + s.addr.String() + "/echo"
	c := mustCompare(t, ctx, CompareOptions{Run: run, Rounds: 2, Servers: []CompareServer{{Name: "a", URL: url}, {Name: "b", URL: url}}})
	if c.OK || !c.Interrupted || len(c.Servers[0].Reports) != 1 || len(c.Servers[1].Reports) != 0 {
		t.Errorf("ok %v, interrupted %v, %d and %d reports", c.OK, c.Interrupted, len(c.Servers[0].Reports), len(c.Servers[1].Reports))
	}
}

func TestCompareValidate(t *testing.T) {
	for _, test := range []struct {
		names string
		want  string
	}{
		{"a b", ""},
		{"", "flags --server and --peer: 0 given, a comparison needs two or more"},
		{"a", "flags --server and --peer: 1 given, a comparison needs two or more"},
		{"a b a", "flags --server and --peer: two servers have the name a"},
	} {
		var o CompareOptions
		for name := range strings.FieldsSeq(test.names) {
			o.Servers = append(o.Servers, CompareServer{Name: name})
		}
		got := ""
		if err := o.Validate(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.names, got, test.want)
		}
	}
}

// A server that does not start is an error that says what it wrote. One that starts is ended.
func TestChild(t *testing.T) {
	for _, test := range []struct {
		name    string
		command []string
		want    string // the error; "" is none
	}{
		{"listens", said(`level=INFO msg=listening addr=127.0.0.1:1234 pid=99 x=1`), ""},
		{"quoted", said(`addr="127.0.0.1:1234" pid="99"`), ""},
		{"listens in pieces", []string{"sh", "-c", "printf 'addr=127.0.'; printf '0.1:1234 pid=99\\n'; exec tail -f /dev/null"}, ""},
		{"ends", []string{"sh", "-c", "echo no such flag; exit 3"}, `sh -c 'echo no such flag; exit 3': it ended (exit status 3) before it listened; it wrote: no such flag`},
		{"ends without a word", []string{"true"}, `true: it ended (exit status 0) before it listened; it wrote nothing`},
		{"no address", said("addr=here"), `"addr=here": not an ip:port`},
		{"no program", []string{"/no/such/program"}, "fork/exec /no/such/program: no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := startChild(t.Context(), test.command)
			if err == nil {
				defer p.stop()
			}
			switch {
			case err == nil && test.want != "":
				t.Errorf("it started, want %q", test.want)
			case err != nil && !strings.Contains(err.Error(), cmp.Or(test.want, "no error")):
				t.Errorf("error %q, want %q", err, test.want)
			case err == nil && (p.addr != "127.0.0.1:1234" || p.pid != 99):
				t.Errorf("address %q, process %d", p.addr, p.pid)
			}
		})
	}
}

// A child that said no pid is itself the server. It goes when it is told to, and is killed when it does not.
func TestChildStops(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"goes":   "echo addr=127.0.0.1:1; exec tail -f /dev/null",
		"stays":  "trap '' TERM; echo addr=127.0.0.1:1; exec tail -f /dev/null",
		"leaves": "tail -f /dev/null --pid=$$ & echo addr=127.0.0.1:1; wait", // its output to a process of its own
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := startChild(t.Context(), []string{"sh", "-c", script})
			if err != nil {
				t.Fatal(err)
			}
			if p.pid != p.cmd.Process.Pid {
				t.Errorf("process %d, want %d", p.pid, p.cmd.Process.Pid)
			}
			p.stop()
			if p.cmd.ProcessState == nil || p.cmd.ProcessState.Success() {
				t.Errorf("it ended with %v", p.cmd.ProcessState)
			}
		})
	}
}

// A context that ends ends the waiting for a server to start.
func TestChildBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := startChild(ctx, []string{"tail", "-f", "/dev/null"}); err != context.Canceled {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{Median: 3, Min: 3, Max: 3}},
		{[]float64{9, 1, 4}, Spread{Median: 4, Min: 1, Max: 9}},
		{[]float64{9, 1, 4, 6}, Spread{Median: 5, Min: 1, Max: 9}},
	} {
		var turns []turn
		for _, v := range test.values {
			turns = append(turns, turn{kernelBytes: &v}, turn{}) // every second one was not measured
		}
		if got, ok := spreadOf(turns, kernelBytes.of); got != test.want || !ok {
			t.Errorf("%v: %+v, %v", test.values, got, ok)
		}
	}
	if _, ok := spreadOf([]turn{{}}, kernelBytes.of); ok {
		t.Error("a metric that was never measured has a spread")
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0004: "0.000", 0.0123: "0.012", 0.5: "0.500", 3.976: "3.98", 33.33: "33.3", 336.7: "337", 137802.4: "137802", -2.5: "-2.50"} {
		if got := figure(v); got != want {
			t.Errorf("%v is written %s, want %s", v, got, want)
		}
	}
}

func TestParseBusy(t *testing.T) {
	const sample = "cpu  100 20 30 9999 888 77 66 55 44 33\ncpu0 1 2 3 4\n"
	if got, err := parseBusy(sample); got != 1500*time.Millisecond || err != nil {
		t.Errorf("got %v, %v; want 1.5s", got, err)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4\n", "cpu 1 2 3\n", "cpu x 2 3 4\n", "cpu 1 -2 3 4\n"} {
		if _, err := parseBusy(text); err == nil {
			t.Errorf("%q was read without an error", text)
		}
	}
}

// compareSample is a comparison as it may come out, with one server that is not measured and one that failed.
func compareSample() *Comparison {
	o := CompareOptions{Run: Options{Scenario: scenarioEcho, Connections: 1000, Payload: 128, Depth: 1}, Rounds: 2,
		Args:    []string{"mqgate-bench", "compare", "echo", "--peer", "mine=bin/mqgate serve --echo-path /echo", "--server", "far=ws://192.0.2.1/echo"},
		Servers: []CompareServer{{Name: "mine", Command: []string{"bin/mqgate", "serve"}}, {Name: "<far>", URL: "ws://192.0.2.1/echo"}}}
	c := newComparison(&o)
	c.Began, c.Machine, c.Commit = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), sample().Machine, "abc"
	for i := range 2 {
		near, far := sample(), sample()
		near.Server.CPUMicrosPerMessage, near.OK = number(3+float64(i)), true
		far.Server, far.RatePerSecond, far.OK = ServerReport{}, 100_000, i == 1
		c.Servers[0].turns = append(c.Servers[0].turns, turn{report: near, kernelBytes: number(5000.0), machine: time.Second, others: 100 * time.Millisecond})
		c.Servers[1].turns = append(c.Servers[1].turns, turn{report: far, machine: time.Second})
	}
	c.finish(false)
	return c
}

func TestCompareText(t *testing.T) { golden(t, "testdata/compare.txt", compareSample().WriteText) }

// The keys of the JSON form: scripts rely on them. The reports in it have their own test.
func TestCompareJSON(t *testing.T) {
	c := compareSample()
	for _, s := range c.Servers {
		s.Reports = []*Report{}
	}
	golden(t, "testdata/compare.json", c.WriteJSON)
}

// The page: written by hand but for a section, and the charts beside it.
func TestComparePage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	const head, tail = "# By hand\n\n<!-- begin echo -->\n", "<!-- end echo -->\n\nThe end.\n"
	if err := os.WriteFile(file, []byte(head+"old\n"+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	c := compareSample()
	for range 2 { // the second time replaces the first
		if err := c.WritePage(file + "#echo"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	body, ok := strings.CutPrefix(string(text), head)
	body, ok2 := strings.CutSuffix(body, tail)
	if !ok || !ok2 {
		t.Errorf("what was written by hand is not there: %s", text)
	}
	golden(t, "testdata/compare.md", func(w io.Writer) error { _, err := io.WriteString(w, body); return err })
	charts, err := filepath.Glob(filepath.Join(filepath.Dir(file), "page", "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range charts {
		charts[i] = filepath.Base(charts[i])
	}
	if diff := gocmp.Diff([]string{"echo-rate_per_second.svg", "echo-server_cpu_us_per_message.svg", "echo-user_bytes_per_connection.svg"}, charts); diff != "" {
		t.Error(diff)
	}
	golden(t, "testdata/compare.svg", func(w io.Writer) error {
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(file), "page", "echo-server_cpu_us_per_message.svg"))
		if err == nil {
			_, err = w.Write(svg)
		}
		return err
	})

	// Without a section the whole file is the comparison's.
	if err := c.WritePage(file); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.ReplaceAll(string(text), "(page/", "(page/echo-") != body {
		t.Errorf("%v: %s", err, text)
	}
	open := filepath.Join(filepath.Dir(file), "open.md")
	if err := os.WriteFile(open, []byte(head+"no end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{
		open + "#echo":               "open.md: it has no lines <!-- begin echo --> and <!-- end echo -->",
		file:                         "",
		file + "#none":               "page.md: it has no lines <!-- begin none --> and <!-- end none -->",
		file + "x#echo":              "page.mdx: there is no such file: with #echo it must be there",
		filepath.Dir(file) + "#echo": "is a directory",
	} {
		err := CheckPage(place)
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", place, err, want)
		}
	}
}
