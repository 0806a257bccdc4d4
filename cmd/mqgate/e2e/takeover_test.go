package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// takeoverPath returns a path for --takeover, which is shorter than those of t.TempDir.
func takeoverPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

// TestTakeoverUnderLoad restarts the gateway three times, with other numbers of loops, while clients connect as fast as they
// can, others talk, and the admin interface is asked all the time: nobody is refused or reset, those who were connected are
// told 3333 (L5.5) and have had their answers, and the processes end well.
func TestTakeoverUnderLoad(t *testing.T) {
	t.Parallel()
	const echoes, requesters = 15, 15
	for _, test := range []struct {
		loops  []int
		tables []string // --fd-tables
	}{
		{[]int{2, 2, 2, 2}, []string{"shared"}},
		{[]int{3, 1, 2, 1}, []string{"shared"}},
		{[]int{3, 1, 2, 1}, []string{"per-loop"}},
		{[]int{2, 2, 2, 2}, []string{"per-loop", "shared"}},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			path := takeoverPath(t)
			loops, started := test.loops, 0
			start := func(loops int) *server {
				tables := test.tables[started%len(test.tables)]
				started++
				return startServer(t, "--takeover", path, "--loops", fmt.Sprint(loops), "--fd-tables", tables, "--echo-path", "/echo",
					"--drain-spread", "200ms")
			}
			s := start(loops[0])
			l := startLoad(t, s, 3, 2, echoes, requesters)
			settle := func(told int) {
				t.Helper()
				newcomers, admins := l.newcomers.Load()+100, l.admins.Load()+30
				eventually(t, func() bool { return l.settled(int64(told), newcomers, admins) || len(l.faults.rest()) > 0 },
					func() string {
						return fmt.Sprintf("after %d takeovers: newcomers %d of %d, admin %d of %d, first resident told %d times and answered %d times",
							told, l.newcomers.Load(), newcomers, l.admins.Load(), admins, l.residents[0].told.Load(), l.residents[0].answered.Load())
					})
			}
			settle(0)
			for i, n := range loops[1:] {
				next := start(n)
				if next.addr != s.addr || next.admin != s.admin {
					t.Errorf("takeover %d: %s and %s, before it was %s and %s", i+1, next.addr, next.admin, s.addr, s.admin)
				}
				line := s.awaitLog(t, "drained")
				s.awaitExit(t, 0)
				if closed, _ := line.fields["closed"].(float64); closed < echoes+requesters ||
					line.fields["unanswered"] != 0.0 || line.fields["forced"] != 0.0 {
					t.Errorf("takeover %d: %s", i+1, line.text)
				}
				s = next
				settle(i + 1)
			}
			l.end()
			l.check(t)
			t.Logf("%d newcomers, %d admin requests", l.newcomers.Load(), l.admins.Load())
			s.awaitMetric(t, "connections_open", 0)
			if drift := s.metric(t, "accounting_drift"); drift != 0 {
				t.Errorf("accounting_drift is %v", drift)
			}
			if refused := s.metric(t, "handshakes_refused_total"); refused != 0 {
				t.Errorf("%v handshakes were refused", refused)
			}
			s.stop(t)
		})
	}
}

// TestTakeoverKilled kills the new process when it accepts from all listeners and the old one does not know yet.
func TestTakeoverKilled(t *testing.T) {
	t.Parallel()
	path := takeoverPath(t)
	old := startServer(t, "--takeover", path, "--echo-path", "/echo")
	resident := dialRaw(t, old)
	resident.upgrade(t, "/echo")

	// The new process talks to us, we to the old one, and its confirmation goes no further.
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path + "2", Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	next := launch(t, exec.Command(mqgateBinary(t), serveArgs("--takeover", path+"2", "--echo-path", "/echo")...))
	toNext, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer toNext.Close()
	toOld, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer toOld.Close()
	pass(t, toNext, toOld, `"take"`)
	pass(t, toOld, toNext, `"listeners"`)
	pass(t, toNext, nil, `"confirm"`)
	if err := next.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-next.exited
	if err := toOld.Close(); err != nil {
		t.Fatal(err)
	}
	old.awaitLog(t, "a takeover has failed; nothing has changed")

	resident.write(t, "\x81\x85\x00\x00\x00\x00hello")
	b := make([]byte, 7)
	if _, err := resident.in.Read(b); err != nil || string(b) != "\x81\x05hello" {
		t.Errorf("%q, %v", b, err)
	}
	for range 50 { // each loop has its listener to itself again
		c := dialRaw(t, old)
		c.upgrade(t, "/echo")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if resp, body := get(t, "http://"+old.admin+"/readyz"); resp.StatusCode != 200 {
		t.Errorf("/readyz: %s %s", resp.Status, body)
	}
	last := startServer(t, "--takeover", path)
	if last.addr != old.addr {
		t.Errorf("the next takeover gives %s, not %s", last.addr, old.addr)
	}
	if code, _ := resident.readClose(t); code != 3333 {
		t.Errorf("closed with %d", code)
	}
	if err := resident.Close(); err != nil {
		t.Error(err)
	}
	old.awaitExit(t, 0)
	last.stop(t)
}

// pass reads one packet, which must contain the text, and sends it on with its descriptors; to nobody when to is nil.
func pass(t *testing.T, from, to *net.UnixConn, text string) {
	t.Helper()
	if err := from.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, rights := make([]byte, 1<<16), make([]byte, 4096)
	n, rn, _, _, err := from.ReadMsgUnix(b, rights)
	if err != nil || !strings.Contains(string(b[:n]), text) {
		t.Fatalf("%q, %v; expected %s", b[:n], err, text)
	}
	if to != nil {
		if _, _, err := to.WriteMsgUnix(b[:n], rights[:rn], nil); err != nil {
			t.Fatal(err)
		}
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			_ = unix.Close(fd) // a duplicate
		}
	}
}

// TestTakeoverMismatch shows that a process that cannot take over ends with a clear error.
func TestTakeoverMismatch(t *testing.T) {
	t.Parallel()
	path := takeoverPath(t)
	s := startServer(t, "--takeover", path)
	status, output := runBinary(t, "serve", "--takeover", path, "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:0")
	if status != 1 || !strings.Contains(output, "the running process listens on "+s.addr+", --listen is 127.0.0.1:1") {
		t.Errorf("exit status %d\n%s", status, output)
	}
	c := dialRaw(t, s)
	c.upgrade(t, "/ws")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.stop(t)
}

// asSystemd starts mqgate serve with files as a service manager would pass them.
func asSystemd(t *testing.T, names string, files []*os.File, flags ...string) *server {
	t.Helper()
	args := append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, mqgateBinary(t), "serve", "--log-format", "json"}, flags...)
	cmd := exec.Command("sh", args...)
	cmd.ExtraFiles = files
	cmd.Env = append(environ(), fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+names)
	return launch(t, cmd)
}

// listenFile opens a listening socket as a file, and its address.
func listenFile(t *testing.T) (*os.File, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, ln.Addr().String()
}

// TestSocketActivation shows two processes that share the sockets of their service manager: the first is stopped while
// clients connect, and nobody is refused. Whoever's table the descriptors are in.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	for _, tables := range []string{"shared", "per-loop"} {
		t.Run(tables, func(t *testing.T) {
			t.Parallel()
			testSocketActivation(t, tables)
		})
	}
}

func testSocketActivation(t *testing.T, tables string) {
	clients, addr := listenFile(t)
	adm, admin := listenFile(t)
	flags := []string{"--listen", "192.0.2.1:1", "--admin", "127.0.0.1:0", "--loops", "3", "--echo-path", "/echo", "--fd-tables", tables} // not bound
	first := asSystemd(t, "mqgate.socket:admin", []*os.File{clients, adm}, flags...)
	first.awaitReady(t)
	if first.addr != addr || first.admin != admin {
		t.Errorf("listens on %s and %s, expected %s and %s", first.addr, first.admin, addr, admin)
	}
	if line := first.awaitLog(t, "listeners come from the service manager"); line.fields["addr"] != addr || line.fields["admin"] != admin {
		t.Errorf("%s", line.text)
	}
	resident := dialRaw(t, first)
	resident.upgrade(t, "/echo")
	second := asSystemd(t, "mqgate.socket", []*os.File{clients}, flags...) // its admin interface is its own
	second.awaitReady(t)
	if second.addr != addr || second.admin == admin {
		t.Errorf("listens on %s and %s", second.addr, second.admin)
	}
	l := startLoad(t, second, 2, 0, 0, 0)
	progress := func() {
		t.Helper()
		want := l.newcomers.Load() + 100
		eventually(t, func() bool { return l.newcomers.Load() >= want || len(l.faults.rest()) > 0 },
			func() string { return fmt.Sprintf("%d newcomers of %d", l.newcomers.Load(), want) })
	}
	progress()
	first.signal(t, syscall.SIGTERM)
	if code, _ := resident.readClose(t); code != 3333 {
		t.Errorf("closed with %d", code)
	}
	if err := resident.Close(); err != nil {
		t.Error(err)
	}
	first.awaitExit(t, 0)
	progress()
	second.stop(t)

	// The socket is still there: who connects now waits for the next process.
	waiting, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = waiting.Close()
	third := asSystemd(t, "", []*os.File{clients}, flags...)
	third.awaitReady(t)
	progress()
	l.end()
	l.check(t)
	third.stop(t)
}

// TestSocketActivationRefused shows what a wrong descriptor, or a wrong combination, is answered with.
func TestSocketActivationRefused(t *testing.T) {
	t.Parallel()
	clients, _ := listenFile(t)
	adm, _ := listenFile(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, test := range map[string]struct {
		names string
		files []*os.File
		flags []string
		want  string
	}{
		"no socket":       {"mqgate.socket", []*os.File{null}, nil, `the descriptor named \"mqgate.socket\": expected a listening TCP socket`},
		"with --takeover": {"x", []*os.File{clients}, []string{"--takeover", takeoverPath(t)}, "use one of the two"},
		"admin is off":    {"x:admin", []*os.File{clients, adm}, []string{"--admin", ""}, "--admin is off"},
		"two admins":      {"admin:admin", []*os.File{clients, adm}, nil, "another of that name"},
	} {
		t.Run(name, func(t *testing.T) {
			s := asSystemd(t, test.names, test.files, test.flags...)
			line := s.awaitLog(t, "failed")
			s.awaitExit(t, 1)
			if !strings.Contains(line.text, test.want) {
				t.Errorf("%s; expected %s", line.text, test.want)
			}
		})
	}
}

// TestNotify shows what a service manager is told, and when.
func TestNotify(t *testing.T) {
	t.Parallel()
	path := takeoverPath(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := manager.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		b := make([]byte, 100)
		if n, err := manager.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("told %q, %v; expected %q", b[:n], err, want)
		}
	}
	socket := takeoverPath(t)
	start := func() *server {
		cmd := exec.Command(mqgateBinary(t), serveArgs("--takeover", socket)...)
		cmd.Env = append(environ(), "NOTIFY_SOCKET="+path)
		s := launch(t, cmd)
		told("READY=1")
		s.awaitReady(t) // it is in the log already
		return s
	}
	s := start()
	s.stop(t)
	told("STOPPING=1")

	s = start()
	next := startServer(t, "--takeover", socket) // whom no service manager has started
	told("STOPPING=1")
	s.awaitExit(t, 0)
	next.stop(t)
}
