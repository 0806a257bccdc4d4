package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	goflag "flag"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/bench"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"go.uber.org/goleak"
)

// asMain makes the test binary be mqgate-bench, for the tests that need a process.
const asMain = "MQGATE_BENCH_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// echo answers every message with itself; with drop it keeps the tenth of each connection.
type echo struct {
	drop bool
	n    int
}

func (*echo) OnOpen(*conn.Conn)                {}
func (*echo) OnPong(*conn.Conn, time.Duration) {}
func (*echo) OnDrain(*conn.Conn)               {}
func (*echo) OnError(*conn.Conn, error)        {}
func (*echo) OnClose(*conn.Conn, conn.End)     {}
func (e *echo) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	if e.n++; !e.drop || e.n != 10 {
		_ = c.Send(op, p) // closing
	}
}

// serve starts a server for the time of the test and returns the URL.
func serve(t *testing.T, e *echo) string {
	t.Helper()
	server, err := conn.NewServer(&conn.Config{
		Role: frame.RoleServer, Endpoints: []conn.Endpoint{{Path: "/echo", Handler: e, MaxMessage: 1 << 20}},
		HandshakeTimeout: 10 * time.Second, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		PingInterval: time.Minute, MaxPending: 4 << 20,
	}, conn.ServerConfig{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	addr, err := server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1024)
	if err != nil {
		t.Fatal(err)
	}
	return "ws://" + addr.String() + "/echo"
}

// What the process prints, where, and its exit status.
func TestRun(t *testing.T) {
	good, bad := serve(t, &echo{}), serve(t, &echo{drop: true})
	file, page := filepath.Join(t.TempDir(), "report.json"), filepath.Join(t.TempDir(), "report.html")
	small := " --connections 4 --loops 1 --duration 100ms --warmup 0s --depth 4"
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr string // a part of it; "" means nothing at all
	}{
		{"--help", exitOK, "Usage: mqgate-bench SCENARIO [flags]\n", ""},
		{"echo -h", exitOK, "\nOnly echo:\n", ""},
		{"", exitUsage, "", "mqgate-bench: 1 fault (mqgate-bench --help explains):\n  no scenario, expected connect, echo, request, broadcast, heartbeat, ramp or churn\n"},
		{"bogus --depth 0", exitUsage, "", "mqgate-bench: 2 faults (mqgate-bench --help explains):\n"},
		{"echo --json /no/such/folder/x", exitUsage, "", "mqgate-bench: flag --json: open /no/such/folder/x: no such file or directory\n"},
		{"echo --url " + good + small, exitOK, "\nresult        ok\n", ""},
		{"echo --url " + good + small + " --json " + file, exitOK, "\nresult        ok\n", ""},
		{"echo --url " + good + small + " --html " + page, exitOK, "\nresult        ok\n", ""},
		{"echo --html /no/such/folder/x", exitUsage, "", "mqgate-bench: flag --html: open /no/such/folder/x: no such file or directory\n"},
		{"heartbeat --url " + good + " --connections 4 --duration 200ms --server-pings 0s", exitOK, "\nresult        ok\n", ""},
		{"ramp --url " + good + " --connections 4 --loops 1 --duration 100ms --warmup 0s --rate 10000000 --p99 1m", exitOK, "\nramp          best rate 10000000 per second (echo)", ""},
		{"echo --url " + good + small + " --json -", exitOK, "{\n  \"scenario\": \"echo\",\n", "\nresult        ok\n"},
		{"echo --url " + good + small + " --expect p50>1h", exitFailed, "p50>1h DOES NOT HOLD", ""},
		{"echo --url " + good + small + " --server-pid 2147483647", exitFailed, "", "flag --server-pid: 2147483647: "},
		{"echo --url " + bad + small, exitFailed, "1 lost, 0 duplicate, 0 wrong", ""},
		{"connect --url " + good + "x --connections 3 --duration 100ms", exitFailed, "3 failed: the server refused the upgrade with 404", ""},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr, nil)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			for _, stream := range []struct{ name, got, want string }{
				{"stdout", stdout.String(), test.stdout}, {"stderr", stderr.String(), test.stderr},
			} {
				if !strings.Contains(stream.got, stream.want) || (stream.want == "") != (stream.got == "") {
					t.Errorf("%s: %q, want %q", stream.name, stream.got, stream.want)
				}
			}
		})
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("</html>")) || !bytes.Contains(text, []byte("Latency by percentile")) {
		t.Errorf("%v, %s", err, text)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil || !report.OK || report.Messages == 0 {
		t.Errorf("%s: %v", text, err)
	}
}

// The help fits its width, and shows every flag.
func TestHelp(t *testing.T) {
	var b bytes.Buffer
	if err := printHelp(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len(strings.TrimRight(line, "\n")); n > helpWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, f := range flags {
		if !strings.Contains(b.String(), "\n  --"+f.name+"="+f.placeholder) {
			t.Errorf("--%s is missing", f.name)
		}
	}
}

var update = goflag.Bool("update", false, "write the flags into docs/bench.md")

// docs/bench.md ends with the flags as the help has them.
func TestDocumented(t *testing.T) {
	var b bytes.Buffer
	if err := printHelp(&b); err != nil {
		t.Fatal(err)
	}
	const first, heading, page = "\nTarget:\n", "\n## Flags\n\n", "../../docs/bench.md"
	_, help, found := strings.Cut(b.String(), first)
	help, _, foundEnd := strings.Cut(help, "\nExamples:")
	if !found || !foundEnd {
		t.Fatalf("the help has no Target or no Examples:\n%s", &b)
	}
	var want strings.Builder
	for line := range strings.Lines("Target:\n" + help) {
		if line != "\n" {
			want.WriteString("    ")
		}
		want.WriteString(line)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, have, found := strings.Cut(string(text), heading)
	if !found {
		t.Fatalf("%s has no section of flags", page)
	}
	if have == want.String() {
		return
	}
	if !*update {
		t.Fatalf("the flags of %s are not those of the help: go test ./cmd/mqgate-bench -update", page)
	}
	if err := os.WriteFile(page, []byte(head+heading+want.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The process itself: exit status, progress in lines when standard error is a pipe, and SIGINT, which ends the run in
// good order with a report.
func TestProcess(t *testing.T) {
	url := serve(t, &echo{})
	command := func(args string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		t.Cleanup(cancel)
		c := exec.CommandContext(ctx, os.Args[0], strings.Fields(args)...)
		c.Env = append(os.Environ(), asMain+"=1")
		return c
	}
	exitStatus := func(err error) int {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0
	}
	if status := exitStatus(command("bogus").Run()); status != exitUsage {
		t.Errorf("wrong usage: status %d, want %d", status, exitUsage)
	}
	if status := exitStatus(command("connect --connections 3 --duration 100ms --url " + url).Run()); status != exitOK {
		t.Errorf("status %d, want %d", status, exitOK)
	}

	c := command("connect --connections 5 --duration 1h --url " + url)
	var stdout bytes.Buffer
	c.Stdout = &stdout
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "holding: 5 of 5 open, 0 failed, 0 lost") {
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stderr) // to its end, which Wait waits for
	if status := exitStatus(c.Wait()); status != exitFailed {
		t.Errorf("interrupted: status %d, want %d", status, exitFailed)
	}
	if got := stdout.String(); !strings.Contains(got, "broken off") || !strings.Contains(got, "5 of 5 opened") || !strings.Contains(got, " 0 lost") {
		t.Errorf("interrupted: %s", got)
	}
}
