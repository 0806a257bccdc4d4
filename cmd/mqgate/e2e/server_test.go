package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A server is one process of mqgate. It is killed at the end of its test if nothing else has ended it.
type server struct {
	cmd   *exec.Cmd
	addr  string // host:port of the WebSocket listener
	admin string // host:port of the admin listener
	ready map[string]any

	log    *journal[logLine]
	exited chan struct{} // closed when the process has ended and its log is complete
	err    error         // of Wait; read it after exited
	text   lockedBuffer  // all of stderr, for the report of a failed test
}

// A logLine is a line of stderr: its fields, or nil when it is not JSON.
type logLine struct {
	text   string
	fields map[string]any
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// environ is the environment without what would configure mqgate behind the test's back.
func environ() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "MQGATE_") {
			env = append(env, entry)
		}
	}
	return env
}

// startServer starts mqgate serve on free ports with further flags, and returns when it listens.
func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := launch(t, exec.Command(mqgateBinary(t), serveArgs(flags...)...))
	s.awaitReady(t)
	return s
}

// awaitReady waits until the server listens.
func (s *server) awaitReady(t *testing.T) {
	t.Helper()
	line := s.awaitLog(t, "listening")
	s.ready = line.fields
	s.addr, _ = line.fields["addr"].(string)
	s.admin, _ = line.fields["admin"].(string)
	if s.addr == "" || s.admin == "" {
		t.Fatalf("the ready line names no addresses: %s", line.text)
	}
}

// serveArgs is the command line of mqgate serve on free ports with further flags.
func serveArgs(flags ...string) []string {
	return append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"}, flags...)
}

// launch starts a process of mqgate. Its environment, when it has none, is environ.
func launch(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, log: newJournal[logLine](), exited: make(chan struct{})}
	if cmd.Env == nil {
		cmd.Env = environ()
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read(stderr)
	t.Cleanup(func() {
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-s.exited
		if t.Failed() {
			t.Logf("%s\n%s", strings.Join(cmd.Args, " "), s.text.String())
		}
	})
	return s
}

func (s *server) read(stderr io.Reader) {
	defer close(s.exited)
	lines := bufio.NewReader(io.TeeReader(stderr, &s.text))
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			line := logLine{text: strings.TrimSuffix(text, "\n")}
			if json.Unmarshal([]byte(text), &line.fields) != nil {
				line.fields = nil
			}
			s.log.add(line)
		}
		if err != nil {
			break
		}
	}
	s.err = s.cmd.Wait()
	s.log.end()
}

// awaitLog waits for a log line with this message.
func (s *server) awaitLog(t *testing.T, msg string) logLine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line, ok := s.log.take(ctx, func(l logLine) bool { return l.fields["msg"] == msg })
	if !ok {
		t.Fatalf("mqgate did not log %q", msg)
	}
	return line
}

func (s *server) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// awaitExit waits for the end of the process and checks its exit status, and that whatever it wrote were log lines: a
// panic or a report of the race detector is not one.
func (s *server) awaitExit(t *testing.T, status int) {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatal("mqgate has not ended")
	}
	if got := s.cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d (%v), want %d", got, s.err, status)
	}
	for _, line := range s.log.rest() {
		if line.fields == nil {
			t.Errorf("not a log line on stderr: %s", line.text)
		}
	}
}

// stop drains the server as its service manager would and checks that it ends well.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	s.awaitExit(t, 0)
}

func (s *server) url(path string) string { return "ws://" + s.addr + path }

// get returns the answer to a plain GET, its body read.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// metric returns the sum over all labels of one metric, by its name without the prefix mqgate_.
func (s *server) metric(t *testing.T, name string) float64 {
	t.Helper()
	resp, body := get(t, "http://"+s.admin+"/metrics")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s", resp.Status)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, "mqgate_"+name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("/metrics: %q: %v", line, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		t.Fatalf("/metrics has no mqgate_%s:\n%s", name, body)
	}
	return sum
}

// awaitMetric waits until a metric has a value.
func (s *server) awaitMetric(t *testing.T, name string, want float64) {
	t.Helper()
	var got float64
	eventually(t, func() bool {
		got = s.metric(t, name)
		return got == want
	}, func() string { return fmt.Sprintf("mqgate_%s is %v, want %v", name, got, want) })
}

// openFiles returns the number of file descriptors that the process has open.
func (s *server) openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// awaitQuiet waits until no connection is left, neither in the accounts nor as a file descriptor beyond the files that
// were open before the first, and checks that the accounts add up (L6.2).
func (s *server) awaitQuiet(t *testing.T, files int) {
	t.Helper()
	s.awaitMetric(t, "connections_open", 0)
	s.awaitMetric(t, "connections_lingering", 0)
	var got int
	eventually(t, func() bool {
		got = s.openFiles(t)
		return got <= files
	}, func() string { return fmt.Sprintf("%d files open, %d before the first connection", got, files) })
	if drift := s.metric(t, "accounting_drift"); drift != 0 {
		t.Errorf("mqgate_accounting_drift is %v", drift)
	}
}

// eventually asks again and again until met is true; otherwise the test fails with what otherwise says. It is for things
// that nobody announces, such as a metric.
func eventually(t *testing.T, met func() bool, otherwise func() string) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatal(otherwise())
		}
	}
}

// runBinary runs mqgate to its end and returns its exit status and what it wrote.
func runBinary(t *testing.T, args ...string) (status int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, mqgateBinary(t), args...)
	cmd.Env = environ()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("mqgate %s did not end:\n%s", strings.Join(args, " "), out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
