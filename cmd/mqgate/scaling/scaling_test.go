package scaling

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A size says how much of each the benchmark does.
type size struct {
	connections, rate int           // of the scenario request
	members           int           // of the room
	followed          int           // rooms, for the memory of one
	duration          time.Duration // measured, of every run
}

var members = flag.Int("scaling.members", 2000, "members of the room, to which a broadcast goes; filling it takes the square of that")

// BenchmarkScaling runs every setup once a round, and reports medians: -benchtime 3x.
func BenchmarkScaling(b *testing.B) {
	binaries, t := build(b), newTable()
	for b.Loop() {
		round(b, binaries, size{connections: 500, rate: 3000, members: *members, followed: 10_000, duration: 8 * time.Second}, t)
	}
	b.ReportMetric(0, "ns/op") // means nothing
	for _, name := range t.names {
		values := slices.Sorted(slices.Values(t.values[name]))
		b.ReportMetric(values[len(values)/2], name)
		b.Logf("%-28s %10.2f   (%.2f .. %.2f)", name, values[len(values)/2], values[0], values[len(values)-1])
	}
}

// The benchmark runs small, so that it does not rot. What it measures then says nothing.
func TestScaling(t *testing.T) {
	got := newTable()
	round(t, build(t), size{connections: 20, rate: 200, members: 20, followed: 50, duration: 200 * time.Millisecond}, got)
	for _, name := range []string{"built-in/us", "nats/us", "rooms/us", "link/rate", "built-in/delivery-us", "one/delivery-us", "two/delivery-us"} {
		if values := got.values[name]; len(values) != 1 || values[0] <= 0 {
			t.Errorf("%s is %v, of %v", name, values, got.values)
		}
	}
}

// build builds the programs, and returns their folder.
func build(b testing.TB) string {
	folder := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", folder, "../", "../../mqgate-bench").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return folder
}

func round(b testing.TB, binaries string, s size, t *table) {
	for _, measure := range []func(*setup, size, *table){requests, link, broadcasts, rooms} {
		measure(&setup{b: b, binaries: binaries}, s, t)
	}
}

// A table collects figures by name, in the order in which they came first.
type table struct {
	names  []string
	values map[string][]float64
}

func newTable() *table { return &table{values: map[string][]float64{}} }

func (t *table) add(name string, value float64) {
	if _, ok := t.values[name]; !ok {
		t.names = append(t.names, name)
	}
	t.values[name] = append(t.values[name], value)
}

// A setup starts and ends processes.
type setup struct {
	b         testing.TB
	binaries  string
	processes []*process
}

func (s *setup) start(env []string, name string, args ...string) *process {
	p := start(s.b, env, name, args...)
	s.processes = append(s.processes, p)
	return p
}

func (s *setup) gateway(flags ...string) *process {
	return s.start(nil, filepath.Join(s.binaries, "mqgate"), append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--max-members-per-room", "20000", "--max-rooms", "20000"}, flags...)...)
}

// joined is a gateway over NATS, whose workers have the limits of rooms.
func (s *setup) joined(nats string, flags ...string) *process {
	return s.start(nil, filepath.Join(s.binaries, "mqgate"), append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--nats", nats}, flags...)...)
}

func (s *setup) worker(nats string) *process {
	return s.start(nil, filepath.Join(s.binaries, "mqgate"), "worker", "--nats", nats, "--admin", "", "--max-members-per-room", "20000", "--max-rooms", "20000")
}

// nats starts a NATS server and returns it with its URL.
func (s *setup) nats() (*process, string) {
	p := s.start([]string{roleEnv + "=nats " + s.b.TempDir()}, os.Args[0])
	return p, p.field(s.b, "url")
}

// stop ends all processes, the last one first.
func (s *setup) stop() {
	for _, p := range slices.Backward(s.processes) {
		p.stop(s.b)
	}
	s.processes = nil
}

// A load is what mqgate-bench says of one run, with the fields that are used here.
type load struct {
	MessagesSent  float64 `json:"messages_sent"`
	RatePerSecond float64 `json:"rate_per_second"`
	Latency       struct {
		P50, P99 float64
	} `json:"latency_ms"`
	Server struct {
		CPUMicrosPerMessage float64 `json:"cpu_us_per_message"` // of all gateways
		RSSAnonBytes        float64 `json:"rss_anon_bytes"`
	} `json:"server"`
}

// bench runs the load generator against gateways. Everything must come back as it should.
func (s *setup) bench(gateways []*process, args ...string) (l load) {
	s.b.Helper()
	file := filepath.Join(s.b.TempDir(), "report.json")
	args = append(args, "--json", file)
	for _, g := range gateways {
		args = append(args, "--url", "ws://"+g.field(s.b, "addr")+"/ws")
	}
	cmd := exec.Command(filepath.Join(s.binaries, "mqgate-bench"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.b.Fatalf("mqgate-bench %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		s.b.Fatal(err)
	}
	if err := json.Unmarshal(text, &l); err != nil {
		s.b.Fatalf("%v: %s", err, text)
	}
	return l
}

func (z size) load(connections int) []string {
	return []string{"--connections", fmt.Sprint(connections), "--duration", z.duration.String(), "--warmup", (z.duration / 4).String()}
}

// requests measures the processor time of one request, process by process. All answer the same request for a room that there
// is not: the worker in the gateway; a worker over NATS that knows the answer; the rooms worker, which looks it up.
func requests(s *setup, z size, t *table) {
	measure := func(name string, parts map[string]*process, gateway *process) {
		before := map[string]float64{}
		for part, p := range parts {
			before[part] = p.cpu(s.b)
		}
		l := s.bench([]*process{gateway}, append(z.load(z.connections), "--rate", fmt.Sprint(z.rate), "request")...)
		sum := 0.0
		for _, part := range []string{"gateway", "nats", "worker"} {
			if p, ok := parts[part]; ok {
				each := (p.cpu(s.b) - before[part]) * 1e6 / l.MessagesSent
				t.add(name+"/"+part+"-us", each)
				sum += each
			}
		}
		t.add(name+"/us", sum)
		t.add(name+"/requests-per-cpu-s", 1e6/max(sum, 1e-3))
		t.add(name+"/p50-ms", l.Latency.P50)
		s.stop()
	}
	g := s.gateway()
	measure("built-in", map[string]*process{"gateway": g}, g)

	n, url := s.nats()
	w := s.start([]string{roleEnv + "=worker " + url}, os.Args[0])
	g = s.joined(url)
	measure("nats", map[string]*process{"gateway": g, "nats": n, "worker": w}, g)

	n, url = s.nats()
	w = s.worker(url)
	g = s.joined(url)
	measure("rooms", map[string]*process{"gateway": g, "nats": n, "worker": w}, g)
}

// link measures what one connection to NATS carries: requests as fast as they are answered, one in flight on each client.
func link(s *setup, z size, t *table) {
	for _, links := range []string{"1", "2"} {
		_, url := s.nats()
		s.start([]string{roleEnv + "=worker " + url}, os.Args[0])
		g := s.joined(url, "--nats-connections", links)
		l := s.bench([]*process{g}, append(z.load(z.connections), "request")...)
		name := "link"
		if links != "1" {
			name = "links-" + links
		}
		t.add(name+"/rate", l.RatePerSecond)
		t.add(name+"/p50-ms", l.Latency.P50)
		t.add(name+"/p99-ms", l.Latency.P99)
		s.stop()
	}
}

// broadcasts measures the processor time of the gateways for one delivery of a chat message to a room of many.
func broadcasts(s *setup, z size, t *table) {
	measure := func(name string, gateways ...*process) {
		l := s.bench(gateways, "--rooms", "1", "--members", fmt.Sprint(z.members), "--rate", "10",
			"--duration", max(z.duration, time.Second).String(), "--warmup", "500ms", "broadcast")
		t.add(name+"/delivery-us", l.Server.CPUMicrosPerMessage)
		t.add(name+"/delivery-p50-ms", l.Latency.P50)
		s.stop()
	}
	measure("built-in", s.gateway())
	_, url := s.nats()
	s.worker(url)
	measure("one", s.joined(url))
	_, url = s.nats()
	s.worker(url)
	measure("two", s.joined(url), s.joined(url))
}

// rooms measures the memory of a room that one client of the gateway follows: that with such a room for each connection, less
// that with as many connections and no rooms. Of the gateway it is read with all connections open, of the others it is the highest.
func rooms(s *setup, z size, t *table) {
	anonymous := map[string]float64{}
	for _, kind := range []string{"idle", "followed"} {
		n, url := s.nats()
		w := s.worker(url)
		g := s.joined(url)
		args := append(z.load(z.followed), "--rate", "100", "request")
		if kind == "followed" {
			args = []string{"--rooms", fmt.Sprint(z.followed), "--members", "1", "--rate", "100", "--duration", z.duration.String(), "broadcast"}
		}
		over, highest := make(chan struct{}), make(chan [2]float64)
		go func() {
			again := time.NewTicker(100 * time.Millisecond)
			defer again.Stop()
			for high := [2]float64{}; ; {
				high = [2]float64{max(high[0], n.anonymous(s.b)), max(high[1], w.anonymous(s.b))}
				select {
				case <-again.C:
				case <-over:
					highest <- high
					return
				}
			}
		}()
		l := s.bench([]*process{g}, args...)
		close(over)
		high := <-highest
		anonymous[kind+"gateway"], anonymous[kind+"nats"], anonymous[kind+"worker"] = l.Server.RSSAnonBytes, high[0], high[1]
		s.stop()
	}
	for _, part := range []string{"gateway", "nats", "worker"} {
		t.add("room/"+part+"-B", (anonymous["followed"+part]-anonymous["idle"+part])/float64(z.followed))
	}
}
