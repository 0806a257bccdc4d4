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

var members = flag.Int("scaling.members", 10_000, "members of the room, to which a broadcast goes; filling it takes the square of that")

// BenchmarkScaling runs every setup once a round, and reports medians: -benchtime 3x.
func BenchmarkScaling(b *testing.B) {
	binaries := build(b)
	s := size{connections: 500, rate: 3000, members: *members, followed: 10_000, duration: 5 * time.Second}
	for _, part := range measurements {
		b.Run(part.name, func(b *testing.B) {
			t := newTable()
			for b.Loop() {
				part.measure(&setup{b: b, binaries: binaries}, s, t)
			}
			b.ReportMetric(0, "ns/op") // means nothing
			for _, name := range t.names {
				values := slices.Sorted(slices.Values(t.values[name]))
				b.ReportMetric(values[len(values)/2], name)
				b.Logf("%-28s %10.2f   (%.2f .. %.2f)", name, values[len(values)/2], values[0], values[len(values)-1])
			}
		})
	}
}

var measurements = []struct {
	name    string
	measure func(*setup, size, *table)
}{{"requests", requests}, {"link", link}, {"broadcasts", broadcasts}, {"rooms", rooms}}

// The benchmark runs small, so that it does not rot. What it measures then says nothing.
func TestScaling(t *testing.T) {
	got := newTable()
	binaries := build(t)
	for _, part := range measurements {
		part.measure(&setup{b: t, binaries: binaries}, size{connections: 20, rate: 200, members: 20, followed: 50, duration: 200 * time.Millisecond}, got)
	}
	for _, name := range []string{"built-in/us", "nats/us", "rooms/us", "link/rate", "links-2/rate", "built-in/delivery-us", "one/delivery-us", "two/delivery-us",
		"room/gateway-B", "room/nats-B", "room/worker-B"} {
		if values := got.values[name]; len(values) != 1 || strings.HasSuffix(name, "rate") && values[0] <= 0 { // of so little, processor times may be 0
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
// is not: the worker in the gateway; a worker over NATS that knows the answer; the rooms worker, which looks it up. Each runs twice, the
// second time at a tenth of the rate: the difference has nothing of opening, authentication and closing in it.
func requests(s *setup, z size, t *table) {
	measure := func(name string, parts map[string]*process, gateway *process) {
		var messages [2]float64
		used := map[string]*[2]float64{}
		for i, rate := range []int{z.rate, z.rate / 10} {
			before := map[string]float64{}
			for part, p := range parts {
				before[part] = p.cpu(s.b)
			}
			l := s.bench([]*process{gateway}, append(z.load(z.connections), "--rate", fmt.Sprint(rate), "request")...)
			messages[i] = l.MessagesSent
			if i == 0 {
				t.add(name+"/p50-ms", l.Latency.P50)
			}
			for part, p := range parts {
				if used[part] == nil {
					used[part] = new([2]float64)
				}
				used[part][i] = p.cpu(s.b) - before[part]
			}
		}
		sum := 0.0
		for _, part := range []string{"gateway", "nats", "worker"} {
			if u, ok := used[part]; ok {
				each := (u[0] - u[1]) * 1e6 / (messages[0] - messages[1])
				t.add(name+"/"+part+"-us", each)
				sum += each
			}
		}
		t.add(name+"/us", sum)
		t.add(name+"/requests-per-cpu-s", 1e6/max(sum, 1e-3))
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
// that with as many connections that have a session and no room. It is the lowest while messages go, but for the end of that time:
// garbage has been collected then, and nobody has left yet.
func rooms(s *setup, z size, t *table) {
	var memory [2][3]float64
	for i, scenario := range []string{"request", "broadcast"} {
		n, url := s.nats()
		parts := [3]*process{0: n, 1: s.worker(url), 2: s.joined(url)}
		args := []string{scenario, "--rate", "100", "--duration", (3 * z.duration).String()}
		if scenario == "request" {
			args = append(args, "--connections", fmt.Sprint(z.followed))
		} else {
			args = append(args, "--rooms", fmt.Sprint(z.followed), "--members", "1")
		}
		memory[i] = s.lowest(parts, 3*z.duration, func() { s.bench(parts[2:], args...) })
		s.stop()
	}
	for i, part := range []string{"nats", "worker", "gateway"} {
		t.add("room/"+part+"-B", (memory[1][i]-memory[0][i])/float64(z.followed))
	}
}

// lowest returns the least resident anonymous memory of each process [bytes] in the time that ends with run, for as long as said, without
// the last quarter.
func (s *setup) lowest(parts [3]*process, last time.Duration, run func()) (least [3]float64) {
	type reading struct {
		at    time.Time
		bytes [3]float64
	}
	var readings []reading
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		again := time.NewTicker(last / 100)
		defer again.Stop()
		for {
			r := reading{at: time.Now()}
			for i, p := range parts {
				r.bytes[i] = p.anonymous(s.b)
			}
			readings = append(readings, r)
			select {
			case <-again.C:
			case <-over:
				return
			}
		}
	}()
	func() {
		defer func() { // also when run ends the benchmark
			close(over)
			<-gone
		}()
		run()
	}()
	end := readings[len(readings)-1].at
	for _, r := range readings {
		if left := end.Sub(r.at); left > last || left < last/4 && least[0] != 0 {
			continue
		}
		for i, bytes := range r.bytes {
			if least[i] == 0 || bytes < least[i] {
				least[i] = bytes
			}
		}
	}
	return least
}
