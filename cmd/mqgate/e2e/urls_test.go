package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/bench"
)

// benchBinary returns the path of mqgate-bench, built once as mqgate is.
func benchBinary(t *testing.T) string {
	t.Helper()
	file, err := buildBench()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

var buildBench = sync.OnceValues(func() (string, error) {
	if err := dependOnSources(); err != nil {
		return "", err
	}
	file := filepath.Join(scratch, "mqgate-bench")
	args := []string{"build", "-o", file}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-race" || setting.Key == "-tags" {
				args = append(args, setting.Key+"="+setting.Value)
			}
		}
	}
	out, err := exec.Command("go", append(args, "../../mqgate-bench")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return file, nil
})

// A generator is a process of mqgate-bench. It is killed at the end of its test if nothing else has ended it.
type generator struct {
	cmd      *exec.Cmd
	progress *bufio.Scanner // its standard error
	lines    []string       // that were read of it
	stdout   bytes.Buffer
	html     string
}

// startBench starts mqgate-bench at the URLs, with few connections and its report as JSON.
func startBench(t *testing.T, args string, urls ...string) *generator {
	t.Helper()
	g := &generator{html: filepath.Join(t.TempDir(), "report.html")}
	words := append(strings.Fields(args), "--json", "-", "--html", g.html)
	for _, url := range urls {
		words = append(words, "--url", url)
	}
	g.cmd = exec.CommandContext(t.Context(), benchBinary(t), words...)
	g.cmd.Env, g.cmd.Stdout = environ(), &g.stdout
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.progress = bufio.NewScanner(stderr)
	return g
}

// within kills the process after so long, which ends its output, until the returned function is called.
func (g *generator) within(limit time.Duration) (stop func() bool) {
	return time.AfterFunc(limit, func() { _ = g.cmd.Process.Kill() }).Stop // it may have ended
}

// await reads the progress up to a line that has the text.
func (g *generator) await(t *testing.T, text string) {
	t.Helper()
	defer g.within(patience)()
	for g.progress.Scan() {
		g.lines = append(g.lines, g.progress.Text())
		if strings.Contains(g.progress.Text(), text) {
			return
		}
	}
	t.Fatalf("mqgate-bench did not say %q:\n%s", text, strings.Join(g.lines, "\n"))
}

// end waits for the end of the process, and returns its report, and the one for people.
func (g *generator) end(t *testing.T, status int) (report *bench.Report, text string) {
	t.Helper()
	defer g.within(2 * patience)() // no run takes that long when this begins
	for g.progress.Scan() {
		g.lines = append(g.lines, g.progress.Text())
	}
	_ = g.cmd.Wait() // its exit status says all
	text = strings.Join(g.lines, "\n")
	if got := g.cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("exit status %d, want %d\n%s", got, status, text)
	}
	if err := json.NewDecoder(&g.stdout).Decode(&report); err != nil && err != io.EOF {
		t.Fatalf("%v\n%s", err, text)
	}
	return report, text
}

// TestBenchURLs loads two gateways over the NATS server in the first of them, with one mqgate-bench: what is said at either
// comes to the members at both, once and in order. Then the second is killed, and the report says which it was.
func TestBenchURLs(t *testing.T) {
	t.Parallel()
	first := startServer(t, "--nats", "embedded", "--nats-listen", "127.0.0.1:0")
	nats, _ := first.ready["nats"].(string)
	second := startServer(t, "--nats", nats)
	gateways := []*server{first, second}
	urls := []string{first.url("/ws"), second.url("/ws")}
	for _, test := range []struct {
		args        string
		connections uint64
	}{
		{"broadcast --rooms 4 --members 5 --rate 40 --warmup 0s --duration 1s", 20},
		{"request --connections 20 --rate 100 --warmup 0s --duration 1s", 20},
	} {
		g := startBench(t, test.args, urls...)
		p, text := g.end(t, 0)
		if !p.OK || p.Opened != test.connections || p.Lost+p.Wrong+p.Duplicate != 0 || len(p.Servers) != 2 || p.URL != strings.Join(urls, " ") {
			t.Fatalf("%s\n%s", test.args, text)
		}
		rss, messages := 0.0, uint64(0)
		for k, s := range p.Servers {
			if s.URL != urls[k] || s.Connections != test.connections/2 || s.Opened != s.Connections || *s.LostMessages != 0 {
				t.Errorf("gateway %d: %+v", k, s)
			}
			if s.PID == nil || *s.PID != gateways[k].cmd.Process.Pid || s.RSSBytes == nil || s.CPUSeconds == nil {
				t.Fatalf("gateway %d is process %d: %+v", k, gateways[k].cmd.Process.Pid, s)
			}
			rss, messages = rss+*s.RSSBytes, messages+*s.Messages
		}
		if p.Server.RSSBytes == nil || *p.Server.RSSBytes != rss || p.Server.PID != nil || messages != p.Messages {
			t.Errorf("together they have %v bytes and %d messages, the report says %+v, %d", rss, messages, p.Server, p.Messages)
		}
		if b := p.Broadcast; b != nil && (b.Sent == 0 || b.Deliveries != 5*b.Sent) {
			t.Errorf("the broadcast is %+v", *b)
		}
		if page, err := os.ReadFile(g.html); err != nil || !bytes.Contains(page, []byte(urls[1])) {
			t.Errorf("%v, or the page does not have the second gateway", err)
		}
	}
	for k, s := range gateways {
		if n := s.metric(t, "connections_total"); n != 20 {
			t.Errorf("gateway %d had %v connections, want half of both runs", k, n)
		}
	}

	g := startBench(t, "request --connections 20 --rate 100 --warmup 0s --duration 1m", urls...)
	g.await(t, "asking: 20 of 20 open, 0 failed, 0 lost")
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	g.await(t, "asking: 10 of 20 open, 0 failed, 10 lost")
	if err := g.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	p, text := g.end(t, 1)
	if p.OK || p.Servers[0].LostConnections != 0 || p.Servers[1].LostConnections != 10 || p.LostConnections != 10 {
		t.Errorf("%+v", p.Servers)
	}
	if !strings.Contains(text, urls[1]+"\n                10 of 10 opened, 0 failed, 10 lost") {
		t.Errorf("the report does not say which gateway has gone:\n%s", text)
	}
	<-second.exited
	first.stop(t)
}
