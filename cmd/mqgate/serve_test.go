package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// The first line when ready: message and keys.
func TestListeningLine(t *testing.T) {
	p := start(t, nil, "--loops=2", "--max-connections=321", "--listen=127.0.0.1:0,[::1]:0")
	line := maps.Clone(p.logs.find("listening"))
	keys := slices.Sorted(maps.Keys(line))
	if want := []string{"addr", "admin", "level", "loops", "max_connections", "msg", "open_files", "pid", "time"}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
	if line["loops"] != 2.0 || line["max_connections"] != 321.0 || line["open_files"] != 20000.0 || line["pid"] != float64(os.Getpid()) {
		t.Errorf("%v", line)
	}
	addrs := strings.Split(p.addr, ",")
	if len(addrs) != 2 || !strings.HasPrefix(addrs[0], "127.0.0.1:") || !strings.HasPrefix(addrs[1], "[::1]:") {
		t.Fatalf("addr %q", p.addr)
	}
	for _, addr := range addrs {
		q := *p
		q.addr = addr
		q.dial(t, "/ws")
	}
}

// Every address of the machine, by both families.
func TestListenEverywhere(t *testing.T) {
	p := start(t, nil, "--listen=:0")
	_, port, ok := strings.Cut(p.addr, "[::]:")
	if !ok {
		t.Fatalf("addr %q", p.addr)
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		q := *p
		q.addr = host + ":" + port
		q.dial(t, "/ws")
	}
}

// A taken port: exit status 1 and a message that names flag and address and says what to do.
func TestPortTaken(t *testing.T) {
	taken := listenLocal(t, "127.0.0.1:0").Addr().String()
	for _, args := range [][]string{
		{"serve", "--listen=" + taken, "--admin="},
		{"serve", "--listen=127.0.0.1:0", "--admin=" + taken},
	} {
		var stdout, stderr bytes.Buffer
		flag := slices.IndexFunc(args, func(a string) bool { return strings.HasSuffix(a, taken) })
		status := run(args, nil, &stdout, &stderr)
		name, _, _ := strings.Cut(args[flag], "=")
		want := name + " " + taken + ": "
		if status != exitFailed || !strings.Contains(stderr.String(), want) ||
			!strings.Contains(stderr.String(), "address already in use; another process listens there") {
			t.Errorf("%q: status %d, want 1 and %q in\n%s", args, status, want, &stderr)
		}
		if stdout.Len() > 0 || strings.Contains(stderr.String(), "msg=listening") {
			t.Errorf("%q: %s%s", args, &stdout, &stderr)
		}
	}
}

// L8.5: the loss of a loop ends the process, with its reason, at once and also while it drains.
func TestLoopLost(t *testing.T) {
	for _, drain := range []bool{false, true} {
		p := start(t, nil, "--drain-delay=1h", "--drain-timeout=2h", "--loops=2")
		p.dial(t, "/ws")
		if drain {
			p.ask(t, "POST", "/drain", "")
		}
		lost := errors.New("loop 1 is lost: epoll_wait: bad file descriptor")
		p.loopLost(lost)
		if err := p.awaitEnd(t); !errors.Is(err, lost) {
			t.Errorf("drain %v: %v", drain, err)
		}
	}
}

// What a lost loop held is in no sum: a drain must not take its silence for an empty house. And a second loop that is lost
// waits for nobody.
func TestLostLoopsAreMissed(t *testing.T) {
	cfg := configure(t)
	g, err := assemble(t.Context(), cfg, cfg.Logger(new(logs)), newStub())
	if err != nil {
		t.Fatal(err)
	}
	if sum, complete := g.drainer.total(); !complete || sockets(&sum) != 0 {
		t.Errorf("%+v, complete %v", sum, complete)
	}
	g.server.Stop()
	if _, complete := g.drainer.total(); complete {
		t.Error("complete, though no loop has answered")
	}
	first := errors.New("loop 0 is lost")
	told := make(chan struct{})
	go func() {
		defer close(told)
		g.loopLost(first)
		g.loopLost(errors.New("loop 1 is lost"))
	}()
	receive(t, "both have told", told)
	if err := <-g.lost; err != first {
		t.Error(err)
	}
}

// --echo-path sends text and binary messages back as they came.
func TestEcho(t *testing.T) {
	p := start(t, nil, "--echo-path=/echo", "--max-message-bytes=64KiB")
	c := p.dial(t, "/echo")
	for _, size := range []int{0, 1, 125, 126, 65535, 65536} {
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			sent := bytes.Repeat([]byte("e"), size)
			if err := c.WriteMessage(kind, sent); err != nil {
				t.Fatal(err)
			}
			got, p, err := c.ReadMessage()
			if err != nil || got != kind || !bytes.Equal(p, sent) {
				t.Fatalf("%d bytes: kind %d instead of %d, %d bytes, %v", size, got, kind, len(p), err)
			}
		}
	}
	if err := c.WriteMessage(websocket.BinaryMessage, make([]byte, 65537)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Error(err)
	}
	// Off by default.
	q := start(t, nil)
	if _, res, err := websocket.DefaultDialer.Dial("ws://"+q.addr+"/echo", nil); err == nil || res == nil || res.StatusCode != 404 {
		t.Errorf("%v %v", res, err)
	}
}

// The worker reaches connections of its own endpoint only: the state that it has of one lies in the connection.
func TestWorkerSeesItsEndpoint(t *testing.T) {
	worker := newStub()
	p := start(t, worker, "--echo-path=/echo")
	c := p.dial(t, "/echo")
	failed := make(chan error, 1)
	worker.clients.SendRequest(p.id(t, c), "test.Ask", nil, func(_ mq.Response, err error) { failed <- err })
	if err := receive(t, "the answer", failed); !errors.Is(err, mq.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// What the flags say reaches the built-in worker.
func TestRoomsFlags(t *testing.T) {
	p := start(t, nil, "--max-sessions=1", "--max-rooms=1")
	authenticate := func() wire.AuthenticateResponse {
		c := p.dial(t, "/ws")
		hello := wire.Authenticate{ClientVersion: "1", DeviceID: "d", Platform: "p", PlatformVersion: "1", AuthenticationToken: "t"}
		c.send(t, wire.Envelope{RequestID: "C0", Type: wire.TypeAuthenticate, Payload: hello.AppendTo(nil)})
		var answer wire.AuthenticateResponse
		if err := answer.Unmarshal(c.read(t).Payload); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := authenticate(); got.Status != wire.StatusOK {
		t.Errorf("%+v", got)
	}
	if got := authenticate(); got.Status != wire.StatusCapacity {
		t.Errorf("one session too many: %+v", got)
	}
	got := p.samples(t)
	if got["mqgate_rooms_sessions"] != "1" || got[`mqgate_rooms_refusals_total{reason="capacity"}`] != "1" {
		t.Errorf("sessions %s, refusals %s", got["mqgate_rooms_sessions"], got[`mqgate_rooms_refusals_total{reason="capacity"}`])
	}
}
