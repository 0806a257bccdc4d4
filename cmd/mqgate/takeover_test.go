package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
	"golang.org/x/sys/unix"
)

// socketPath returns a path for --takeover, which is shorter than those of t.TempDir.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mqgate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "socket")
}

// failToStart runs a gateway that does not come to listen, and returns why.
func failToStart(t *testing.T, flags ...string) error {
	t.Helper()
	cfg := configure(t, flags...)
	g, err := assemble(t.Context(), cfg, cfg.Logger(new(logs)), newStub())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = g.run(ctx, nil)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the gateway ran, and ended with %v", err)
	}
	return err
}

// dialTakeover connects to the socket of a running gateway as the next process would.
func dialTakeover(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// tell sends one packet as it stands.
func tell(t *testing.T, c *net.UnixConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// The listeners go from one gateway to the next: whoever connects afterwards is served by that one, the handshakes and
// requests that the first one had begun are finished by it before anybody is told to go (L5.5), and it ends well.
func TestTakeover(t *testing.T) {
	path := socketPath(t)
	worker := newStub()
	first := start(t, worker, "--takeover="+path, "--loops=2", "--drain-delay=1h", "--drain-timeout=2h")
	busy, idle := first.dial(t, "/ws"), first.dial(t, "/ws")
	busy.send(t, wire.Envelope{RequestID: "C1", Type: "test.Later"})
	later := receive(t, "the request", worker.later)
	half := beginHandshake(t, first.addr)
	eventually(t, "the first gateway has accepted", func() bool { s, _ := first.drainer.total(); return s.Handshake == 1 })

	second := start(t, newStub(), "--takeover="+path, "--loops=1")
	if second.addr != first.addr || second.admin != first.admin {
		t.Errorf("the second listens on %s and %s, the first on %s and %s", second.addr, second.admin, first.addr, first.admin)
	}
	fresh := second.dial(t, "/ws")
	second.id(t, fresh)
	fresh.send(t, wire.Envelope{RequestID: "C1", Type: "test.Now"})
	fresh.read(t)
	second.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")

	eventually(t, "the first gateway drains", first.drainer.Active)
	if _, err := first.drainer.Cancel(); !errors.Is(err, errHandedOver) {
		t.Errorf("the drain was cancelled: %v", err)
	}
	cancel := newRecorder()
	(&admin{g: first.gateway}).cancelDrain(cancel, nil)
	if cancel.status != http.StatusConflict || !strings.Contains(cancel.body.String(), "taken the listeners over") {
		t.Errorf("DELETE /drain: %d %s", cancel.status, cancel.body.String())
	}
	// The one in its handshake holds up the drain of all others: had it begun, idle would have been told.
	idle.send(t, wire.Envelope{RequestID: "C2", Type: "test.Now"})
	if e := idle.read(t); e.RequestID != "C2" {
		t.Errorf("read %+v", e)
	}
	if _, err := io.WriteString(half, "Host: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := io.ReadFull(half, answer); err != nil || string(answer) != "HTTP/1.1 101" {
		t.Errorf("the handshake under way: %q, %v", answer, err)
	}
	idle.readClose(t, 3333, "drain")
	later.Reply("test.LaterResponse", []byte("done"))
	if e := busy.read(t); e.RequestID != "C1" || string(e.Payload) != "done" {
		t.Errorf("read %+v", e)
	}
	busy.readClose(t, 3333, "drain")
	_ = half.Close()
	if err := first.awaitEnd(t); err != nil {
		t.Error(err)
	}

	// The end of the first has taken nothing away from the second.
	third := start(t, newStub(), "--takeover="+path, "--loops=3")
	if third.addr != first.addr {
		t.Errorf("the third listens on %s", third.addr)
	}
	fresh.readClose(t, 3333, "drain")
	if err := second.awaitEnd(t); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs600 {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the socket there are %v, %v", left, err)
	}
}

const fs600 = os.ModeSocket | 0o600

// recorder keeps an answer; it is what httptest has, without its own default status.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func newRecorder() *recorder                          { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header               { return r.header }
func (r *recorder) WriteHeader(status int)            { r.status = status }
func (r *recorder) Write(p []byte) (n int, err error) { return r.body.Write(p) }

// A request to the admin interface that is being answered when the listeners go is answered.
func TestTakeoverAdminInProgress(t *testing.T) {
	path := socketPath(t)
	first := start(t, newStub(), "--takeover="+path, "--drain-delay=1h", "--drain-timeout=2h")
	c := first.dial(t, "/ws")
	id := first.id(t, c)
	answers := make(chan answer, 1)
	go func() { answers <- first.ask(t, "POST", "/connections/"+id.String()+"/request", `{"type":"test.Ask"}`) }()
	e := c.read(t) // the admin's request is on its way
	second := start(t, newStub(), "--takeover="+path)
	c.send(t, wire.Envelope{MessageType: wire.Response, RequestID: e.RequestID, Type: "test.AskResponse"})
	got := receive(t, "the answer", answers)
	if got.status != 200 || !strings.Contains(got.body, "test.AskResponse") {
		t.Errorf("the request in progress: %d %s", got.status, got.body)
	}
	second.ask(t, "GET", "/connections/"+id.String(), "").want(t, "the id at the second", 404, "Websocket connection not found")
	c.readClose(t, 3333, "drain")
	if err := first.awaitEnd(t); err != nil {
		t.Error(err)
	}
}

// A process that goes away, says nonsense or gives up before it confirms leaves the running one as it was.
func TestTakeoverBroken(t *testing.T) {
	path := socketPath(t)
	p := start(t, newStub(), "--takeover="+path)
	c := p.dial(t, "/ws")
	const take = `{"version":1,"message":"take","pid":1}`
	for name, test := range map[string]struct {
		send []string
		want string // answer to the last; "": the listeners
	}{
		"gone at once":           {nil, "-"},
		"gone after it has them": {[]string{take}, ""},
		"gives up":               {[]string{take, `{"version":1,"message":"refuse","reason":"no"}`}, "-"},
		"no confirmation":        {[]string{take, `{"version":1,"message":"done"}`}, "-"},
		"another version":        {[]string{`{"version":2,"message":"take"}`}, `speaks version 2`},
		"not JSON":               {[]string{`take`}, `not JSON`},
		"the wrong message":      {[]string{`{"version":1,"message":"confirm"}`}, `expected \"take\"`},
	} {
		t.Run(name, func(t *testing.T) {
			next := dialTakeover(t, path)
			for i, text := range test.send {
				tell(t, next, text)
				if i < len(test.send)-1 || test.want == "" {
					m, fds, err := receiveTakeover(next, takeoverListeners)
					if err != nil || len(fds) != len(p.server.Registries())+1 || m.PID != os.Getpid() {
						t.Errorf("%+v with %d descriptors, %v", m, len(fds), err)
					}
					closeFDs(fds)
				} else if test.want != "-" {
					b := make([]byte, takeoverMaxBytes)
					if n, err := next.Read(b); err != nil || !strings.Contains(string(b[:n]), test.want) ||
						!strings.Contains(string(b[:n]), `"refuse"`) {
						t.Errorf("answer %q, %v; expected %q", b[:n], err, test.want)
					}
				}
			}
			_ = next.Close()
			eventually(t, "that is logged", func() bool { return p.logs.take("a takeover has failed; nothing has changed") })
			if p.drainer.Active() {
				t.Error("it drains")
			}
			p.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
			c.send(t, wire.Envelope{RequestID: "C1", Type: "test.Now"})
			c.read(t)
			_ = p.dial(t, "/ws").Close()
		})
	}
	next := start(t, newStub(), "--takeover="+path) // and it can still be taken over from
	c.readClose(t, 3333, "drain")
	if err := p.awaitEnd(t); err != nil || next.addr != p.addr {
		t.Errorf("%s, %v", next.addr, err)
	}
}

// What a running process says wrongly, or that it refuses, ends the new one with a word on it; once it has confirmed it goes
// on in any case.
func TestTakeoverFromStrange(t *testing.T) {
	list := func(kind, addr string) string {
		return fmt.Sprintf(`{"version":1,"message":"listeners","pid":1,"listeners":[{"kind":%q,"index":0,"address":%q}]}`, kind, addr)
	}
	for name, test := range map[string]struct {
		answer string
		want   string // error of the new process; "": it goes on
	}{
		"refuses":               {`{"version":1,"message":"refuse","reason":"because"}`, "refuses: because"},
		"another version":       {`{"version":3,"message":"listeners"}`, "version 3"},
		"the wrong port":        {list("client", "127.0.0.1:1"), "it listens on"},
		"the wrong port, admin": {list("admin", "127.0.0.1:1"), "it listens on"},
		"ends when confirmed":   {list("client", "OWN"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket := listenLocal(t, "127.0.0.1:0").(*net.TCPListener)
			addr := socket.Addr().String()
			path := socketPath(t)
			ln, err := listenTakeover(path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			old := make(chan error, 1)
			go func() {
				c, err := ln.AcceptUnix()
				if err != nil {
					old <- err
					return
				}
				defer c.Close()
				if _, _, err := receiveTakeover(c, takeoverTake); err != nil {
					old <- err
					return
				}
				var rights []byte
				if strings.Contains(test.answer, "address") {
					fd, _, err := (&admin{listener: socket}).duplicate()
					if err != nil {
						old <- err
						return
					}
					defer closeFDs([]int{fd})
					rights = unix.UnixRights(fd)
				}
				_, _, err = c.WriteMsgUnix([]byte(strings.Replace(test.answer, "OWN", addr, 1)), rights, nil)
				if test.want == "" && err == nil {
					_, _, err = receiveTakeover(c, takeoverConfirm)
				} else if err == nil {
					_, _ = c.Read(make([]byte, takeoverMaxBytes)) // its refusal, or its end
				}
				old <- err
			}()
			if test.want != "" {
				if err := failToStart(t, "--takeover="+path, "--listen=127.0.0.1:0"); !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, expected %q", err, test.want)
				}
			} else {
				p := start(t, newStub(), "--takeover="+path)
				if p.addr != addr || p.logs.find("took the listeners over, but the process before gave no sign; if it still runs, end it with SIGTERM") == nil {
					t.Errorf("it listens on %s, expected %s and a warning", p.addr, addr)
				}
				_ = socket.Close() // or it would take some
				_ = p.dial(t, "/ws").Close()
			}
			if err := receive(t, "the old one is through", old); err != nil {
				t.Error(err)
			}
			if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// With nobody connected a drain is over at once; the new process is told that it is alone all the same.
func TestTakeoverIdle(t *testing.T) {
	path := socketPath(t)
	p := start(t, newStub(), "--takeover="+path)
	for range 30 {
		next := start(t, newStub(), "--takeover="+path)
		if err := p.awaitEnd(t); err != nil {
			t.Error(err)
		}
		if next.logs.find("took the listeners over") == nil {
			t.Fatal("it was not told")
		}
		p = next
	}
}

// A process of another user is not answered, even if it gets at the socket. Only root can play that other user.
func TestTakeoverOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		return // TestTakeoverManyListeners checks the check itself
	}
	path := socketPath(t)
	p := start(t, newStub(), "--takeover="+path)
	if err := errors.Join(os.Chmod(path, 0o666), os.Chmod(filepath.Dir(path), 0o711)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	runtime.LockOSThread() // the user is the thread's: connect(2) keeps it for SO_PEERCRED
	as := func(euid uintptr) syscall.Errno {
		_, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), euid, ^uintptr(0))
		return errno
	}
	errno := as(65534)
	connected := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if back := as(0); back != 0 || errno != 0 || connected != nil {
		t.Fatalf("to the other user %v, connect %v, back %v", errno, connected, back) // with its thread, if not back
	}
	runtime.UnlockOSThread()
	if n, err := unix.Read(fd, make([]byte, 100)); n != 0 || err != nil {
		t.Errorf("it is told %d bytes, %v", n, err)
	}
	eventually(t, "that is logged", func() bool {
		line := p.logs.find("a takeover has failed; nothing has changed")
		return line != nil && strings.Contains(fmt.Sprint(line["err"]), "runs as user 65534")
	})
}

// take forgets the first line with that message; false: there is none.
func (l *logs) take(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, line := range l.lines {
		if line["msg"] == msg {
			l.lines = append(l.lines[:i:i], l.lines[i+1:]...)
			return true
		}
	}
	return false
}

// A process whose configuration does not fit says so and ends; the running one is not disturbed, and logs it too.
func TestTakeoverMismatch(t *testing.T) {
	path := socketPath(t)
	p := start(t, newStub(), "--takeover="+path)
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"another port":       {[]string{"--listen=127.0.0.1:1"}, "listens on " + p.addr + ", --listen is 127.0.0.1:1"},
		"another host":       {[]string{"--listen=127.0.0.2:0"}, "listens on " + p.addr + ", --listen is 127.0.0.2:0"},
		"more addresses":     {[]string{"--listen=127.0.0.1:0", "--listen=127.0.0.1:0"}, "listens on 1 addresses, --listen names 2"},
		"another admin":      {[]string{"--admin=127.0.0.1:1"}, "admin interface on " + p.admin + ", --admin is 127.0.0.1:1"},
		"no admin":           {[]string{"--admin="}, "admin interface on " + p.admin + ", --admin is off"},
		"the socket's place": {[]string{"--takeover=" + filepath.Dir(path)}, "not a socket"},
	} {
		t.Run(name, func(t *testing.T) {
			flags := test.flags
			if name != "the socket's place" {
				flags = append(flags, "--takeover="+path)
			}
			err := failToStart(t, flags...)
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, expected %q", err, test.want)
			}
			if name != "the socket's place" {
				eventually(t, "the running one has logged it", func() bool { return p.logs.take("a takeover has failed; nothing has changed") })
			}
			_ = p.dial(t, "/ws").Close()
			p.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
		})
	}
}

// A file that is no socket is not replaced; a socket that nobody answers on is.
// A running process that ends in the middle of the conversation, killed perhaps, does not keep the new one from starting: on
// the same port, as soon as that is free.
func TestTakeoverFromKilled(t *testing.T) {
	socket := listenLocal(t, "127.0.0.1:0").(*net.TCPListener)
	path := socketPath(t)
	ln, err := listenTakeover(path)
	if err != nil {
		t.Fatal(err)
	}
	old := make(chan error, 1)
	go func() {
		c, err := ln.AcceptUnix()
		if err == nil {
			_, _, err = receiveTakeover(c, takeoverTake)
			err = errors.Join(err, c.Close(), ln.Close(), socket.Close())
		}
		old <- err
	}()
	p := start(t, newStub(), "--takeover="+path, "--listen="+socket.Addr().String())
	if err := receive(t, "the old one is through", old); err != nil {
		t.Error(err)
	}
	if p.addr != socket.Addr().String() {
		t.Errorf("it listens on %s", p.addr)
	}
	_ = p.dial(t, "/ws").Close()
	next := start(t, newStub(), "--takeover="+path) // and can be taken over from
	if next.addr != p.addr {
		t.Errorf("the next one listens on %s", next.addr)
	}
}

// whenFree tries again while the port is taken, and only then, and stops with its context.
func TestWhenFree(t *testing.T) {
	taken := fmt.Errorf("listen: %w", syscall.EADDRINUSE)
	other := errors.New("other")
	for _, want := range []error{nil, other} {
		tries := 0
		err := whenFree(t.Context(), func() error {
			if tries++; tries < 3 {
				return taken
			}
			return want
		})
		if !errors.Is(err, want) || tries != 3 {
			t.Errorf("%v after %d tries", err, tries)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := whenFree(ctx, func() error { return taken }); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
}

func TestTakeoverStale(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := failToStart(t, "--takeover="+path); !strings.Contains(err.Error(), "not a socket") {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ln, err := listenTakeover(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	p := start(t, newStub(), "--takeover="+path)
	_ = p.dial(t, "/ws").Close()
	if err := failToStart(t, "--takeover="+filepath.Join(path, "nowhere")); !strings.Contains(err.Error(), "--takeover") {
		t.Error(err)
	}
	// Of another type: some other program's.
	other, err := net.Listen("unix", path+"2")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := failToStart(t, "--takeover="+path+"2"); !errors.Is(err, syscall.EPROTOTYPE) {
		t.Error(err)
	}
}

// From a process that drains and has closed its listeners, the next one gets the admin listener, and opens the others itself.
// From one whose drain waits for --drain-delay it gets all, and there is nothing to wait for any more.
func TestTakeoverFromDraining(t *testing.T) {
	for _, delay := range []string{"0s", "1h"} {
		t.Run(delay, func(t *testing.T) {
			path := socketPath(t)
			first := start(t, newStub(), "--takeover="+path, "--close-timeout=1h", "--drain-delay="+delay, "--drain-timeout=2h")
			c := first.dial(t, "/ws")
			first.drainer.Start()
			if delay == "0s" {
				eventually(t, "the listeners are closed", func() bool { return refused(first.addr) })
			}
			second := start(t, newStub(), "--takeover="+path, "--listen="+first.addr)
			if second.admin != first.admin {
				t.Errorf("admin interface on %s, that of the first was on %s", second.admin, first.admin)
			}
			_ = second.dial(t, "/ws").Close()
			second.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
			if cancelled, err := first.drainer.Cancel(); cancelled || !errors.Is(err, errHandedOver) {
				t.Errorf("cancelled %t, %v", cancelled, err)
			}
			c.readClose(t, 3333, "drain")
			if err := first.awaitEnd(t); err != nil {
				t.Error(err)
			}
			_ = second.dial(t, "/ws").Close()
		})
	}
}

// A drain that was cancelled before can be asked for by a takeover, and a gateway that took over can listen again after a
// cancelled drain of its own.
func TestTakeoverAndCancel(t *testing.T) {
	path := socketPath(t)
	first := start(t, newStub(), "--takeover="+path, "--loops=3")
	second := start(t, newStub(), "--takeover="+path, "--loops=2", "--close-timeout=1h", "--drain-timeout=2h")
	if err := first.awaitEnd(t); err != nil {
		t.Error(err)
	}
	c := second.dial(t, "/ws")
	second.ask(t, "POST", "/drain", "").want(t, "drain", 202, `{"draining":true}`)
	eventually(t, "the listeners are closed", func() bool { return refused(second.addr) })
	second.ask(t, "DELETE", "/drain", "").want(t, "cancel", 200, `{"cancelled":true}`)
	_ = second.dial(t, "/ws").Close()
	third := start(t, newStub(), "--takeover="+path)
	if third.addr != first.addr {
		t.Errorf("the third listens on %s, not %s", third.addr, first.addr)
	}
	c.readClose(t, 3333, "drain")
	if err := second.awaitEnd(t); err != nil {
		t.Error(err)
	}
}

// beginHandshake opens a connection that is in the middle of its handshake.
func beginHandshake(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	if _, err := fmt.Fprint(c, "GET /ws HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}
