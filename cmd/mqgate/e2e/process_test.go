package e2e

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestReadyLine shows that the first line of the log tells where the server listens and what it may hold.
func TestReadyLine(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--loops", "2", "--max-connections", "500")
	for _, addr := range []string{s.addr, s.admin} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("listens on %q (%v)", addr, err)
		}
	}
	for key, want := range map[string]any{
		"loops": 2.0, "max_connections": 500.0, "pid": float64(s.cmd.Process.Pid),
	} {
		if got := s.ready[key]; got != want {
			t.Errorf("ready line: %s is %v, want %v", key, got, want)
		}
	}
	if files, _ := s.ready["open_files"].(float64); files < 500 {
		t.Errorf("ready line: open_files is %v", s.ready["open_files"])
	}
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/connections/nobody": 404} {
		if resp, body := get(t, "http://"+s.admin+path); resp.StatusCode != status {
			t.Errorf("admin %s: %s, want %d\n%s", path, resp.Status, status, body)
		}
	}
	s.stop(t)
}

// TestAddressTaken shows that a second gateway on the same address is refused, though SO_REUSEPORT would let it in and
// give it half of the connections.
func TestAddressTaken(t *testing.T) {
	t.Parallel()
	first := startServer(t)
	for name, args := range map[string][]string{
		"the WebSocket address": {"serve", "--listen", first.addr, "--admin", "127.0.0.1:0"},
		"the admin address":     {"serve", "--listen", "127.0.0.1:0", "--admin", first.admin},
	} {
		status, output := runBinary(t, args...)
		if status != 1 && status != 2 {
			t.Errorf("%s is taken: exit status %d, want 1 or 2\n%s", name, status, output)
		}
		taken := args[2]
		if name == "the admin address" {
			taken = args[4]
		}
		if !strings.Contains(output, taken) || !strings.Contains(output, "in use") {
			t.Errorf("%s is taken: the message does not say that %s is in use:\n%s", name, taken, output)
		}
	}
	alice := signIn(t, first, "alice")
	alice.createRoom(t, "undisturbed", "ok")
	first.stop(t)
}

// TestDrain shows a drain that a silent client holds up: not ready, but alive, until a second signal ends it at once
// (L5.5).
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, "--close-timeout", "10m", "--drain-timeout", "20m")
			silent := dialRaw(t, s)
			silent.upgrade(t, "/ws")
			s.awaitMetric(t, "connections_open", 1)
			s.signal(t, signal)
			if code, reason := silent.readClose(t); code != 3333 || reason != "drain" {
				t.Errorf("closed with %d %q, want 3333 \"drain\"", code, reason)
			}
			if resp, _ := get(t, "http://"+s.admin+"/readyz"); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("/readyz while draining: %s", resp.Status)
			}
			if resp, _ := get(t, "http://"+s.admin+"/healthz"); resp.StatusCode != http.StatusOK {
				t.Errorf("/healthz while draining: %s", resp.Status)
			}
			s.signal(t, signal)
			s.awaitExit(t, 0)
		})
	}
}

// TestDrainForced shows that --drain-timeout ends what does not end by itself (L5.5, L5.3).
func TestDrainForced(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--close-timeout", "10m", "--drain-timeout", "500ms", "--drain-spread", "100ms")
	silent := dialRaw(t, s)
	silent.upgrade(t, "/ws")
	s.awaitMetric(t, "connections_open", 1)
	s.signal(t, syscall.SIGTERM)
	if code, _ := silent.readClose(t); code != 3333 {
		t.Errorf("close code %d, want 3333", code)
	}
	s.awaitExit(t, 0)
}

// TestDrainPace: with nobody connected a drain is over at once, whatever its spread.
func TestDrainPace(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--drain-spread", "10m", "--drain-timeout", "20m")
	s.stop(t)
}

// TestWrongFlags shows that a wrong configuration is refused with a message that names flag and value.
func TestWrongFlags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want []string
	}{
		{[]string{"serve", "--no-such-flag"}, []string{"--no-such-flag"}},
		{[]string{"serve", "--ping-interval", "-5s"}, []string{"ping-interval", "-5s"}},
		{[]string{"serve", "--ping-interval", "soon"}, []string{"ping-interval", "soon"}},
		{[]string{"serve", "--heartbeat", "sometimes"}, []string{"heartbeat", "sometimes"}},
		{[]string{"serve", "--listen", "nowhere"}, []string{"listen", "nowhere"}},
		// Both faults at once.
		{[]string{"serve", "--check", "--loops", "-1", "--close-timeout", "-1s"}, []string{"loops", "close-timeout"}},
		{[]string{"no-such-command"}, []string{"no-such-command"}},
	}
	for _, test := range tests {
		status, output := runBinary(t, test.args...)
		if status != 2 {
			t.Errorf("mqgate %s: exit status %d, want 2", strings.Join(test.args, " "), status)
		}
		for _, want := range test.want {
			if !strings.Contains(output, want) {
				t.Errorf("mqgate %s: the message does not name %s:\n%s", strings.Join(test.args, " "), want, output)
			}
		}
	}

	if status, output := runBinary(t, "serve", "--check"); status != 0 {
		t.Errorf("serve --check: exit status %d\n%s", status, output)
	}
	status, output := runBinary(t, "serve", "--help")
	if status != 0 {
		t.Errorf("serve --help: exit status %d", status)
	}
	for _, flag := range []string{"--listen", "--admin", "--path", "--echo-path", "--max-connections", "--ping-interval",
		"--drain-spread", "--max-message-bytes", "--reenter-grace", "--auth", "--log-format", "--check"} {
		if !strings.Contains(output, flag) {
			t.Errorf("serve --help does not mention %s", flag)
		}
	}
	if status, output := runBinary(t, "version"); status != 0 || strings.TrimSpace(output) == "" {
		t.Errorf("version: exit status %d, %q", status, output)
	}
}

// Whoever reads the log may go away: the process lives, and drains when it is told to (L5.5).
func TestLogReaderGoes(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(mqgateBinary(t), "serve", "--listen", "127.0.0.1:0", "--admin", "", "--log-format", "json")
	cmd.Env, cmd.Stderr = environ(), write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || !strings.Contains(line, `"listening"`) {
		t.Errorf("%q, %v", line, err)
	}
	_ = read.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // which it logs
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM with a closed log: %v", err)
	}
}
