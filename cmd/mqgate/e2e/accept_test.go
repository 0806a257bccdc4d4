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
