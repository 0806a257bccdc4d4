package e2e

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOutOfDescriptors takes the descriptors away from a running server: it pauses accepting and says so, who is connected
// is served as before, and when there are descriptors again those who waited are let in (L8.4).
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--echo-path", "/echo", "--loops", "1", "--handshake-timeout", "10m")
	inside := dialRaw(t, s)
	inside.upgrade(t, "/echo")

	// The admin interface needs a descriptor as well, so this connection to it is kept.
	keep := &http.Client{Transport: &http.Transport{}}
	defer keep.CloseIdleConnections()
	metric := func(name string) float64 {
		t.Helper()
		resp, err := keep.Get("http://" + s.admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(body), "\nmqgate_"+name+" ")
		text, _, _ := strings.Cut(rest, "\n")
		value, err := strconv.ParseFloat(text, 64)
		if !found || err != nil {
			t.Fatalf("mqgate_%s is %q: %v", name, text, err)
		}
		return value
	}
	if paused := metric("accept_paused"); paused != 0 {
		t.Errorf("accept_paused is %v", paused)
	}

	var old unix.Rlimit
	pid := s.cmd.Process.Pid
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}, nil); err != nil { // no new one at all
		t.Fatal(err)
	}
	waiting := dialRaw(t, s) // connected by the kernel, accepted by nobody
	eventually(t, func() bool { return metric("accept_paused") == 1 }, func() string { return "accepting does not pause" })
	if metric("accept_pauses_total") < 1 {
		t.Error("the pause is not counted")
	}
	inside.write(t, maskedFrame(0x81, "still here"))
	const echo = "\x81\x0astill here"
	got := make([]byte, len(echo))
	if _, err := io.ReadFull(inside.in, got); err != nil || string(got) != echo {
		t.Errorf("%q, %v", got, err)
	}

	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	waiting.upgrade(t, "/echo")
	eventually(t, func() bool { return metric("accept_paused") == 0 }, func() string { return "accepting does not resume" })
	if open := metric("connections_open"); open != 2 {
		t.Errorf("%v connections are open", open)
	}
	for _, c := range []*rawConn{inside, waiting} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	s.stop(t)
}

// TestTablePerLoop has a server hold more connections than its limit of open files, each of its loops having that limit to
// itself: all are served, and in the end nobody is left.
func TestTablePerLoop(t *testing.T) {
	t.Parallel()
	const limit, clients = 128, 200
	s := startServer(t, "--echo-path", "/echo", "--loops", "4", "--fd-tables", "per-loop", "--max-connections", "210",
		"--heartbeat", "off")
	if got := s.ready["open_files"]; got != 4*thisLimit(t) {
		t.Errorf("open_files is %v, expected %v", got, 4*thisLimit(t))
	}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
	var all []*rawConn
	for range clients {
		c := dialRaw(t, s)
		c.upgrade(t, "/echo")
		all = append(all, c)
	}
	if n := s.metric(t, "connections_open"); n != clients {
		t.Errorf("%v connections are open, expected %d", n, clients)
	}
	const echo = "\x81\x05hello"
	for _, c := range all {
		c.write(t, maskedFrame(0x81, "hello"))
		got := make([]byte, len(echo))
		if _, err := io.ReadFull(c.in, got); err != nil || string(got) != echo {
			t.Fatalf("%q, %v", got, err)
		}
	}
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	s.awaitMetric(t, "connections_open", 0)
	if paused := s.metric(t, "accept_pauses_total"); paused != 0 {
		t.Errorf("accepting paused %v times", paused)
	}
	if drift := s.metric(t, "accounting_drift"); drift != 0 {
		t.Errorf("accounting_drift is %v", drift)
	}
	s.stop(t)
}

// thisLimit returns the limit of open files that a child of this process has, raised as far as it goes.
func thisLimit(t *testing.T) float64 {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return float64(limit.Max)
}
