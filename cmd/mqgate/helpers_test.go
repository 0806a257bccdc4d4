package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what must happen. Nothing waits longer than what it waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually asks again and again until met is true. It is for what nobody announces.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// receive takes one value from ch.
func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	panic("not reached")
}

// logs keeps what was logged as JSON. It is the writer of a logger.
type logs struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logs) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(p), nil
}

// find returns the first line with that message, or nil.
func (l *logs) find(msg string) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["msg"] == msg {
			return line
		}
	}
	return nil
}

// A process is a gateway that runs as in a process of its own, but for the process.
type process struct {
	*gateway
	logs    *logs
	addr    string
	admin   string
	signals chan os.Signal
	done    chan struct{} // closed when run has returned
	err     error         // of run
}

// configure parses flags, with free ports unless they say otherwise.
func configure(t *testing.T, flags ...string) *config.Serve {
	t.Helper()
	args := append([]string{"serve", "--log-format=json"}, flags...)
	for name, value := range map[string]string{"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", "--log-level": "debug"} {
		if !strings.Contains(strings.Join(flags, " "), name+"=") {
			args = append(args, name+"="+value)
		}
	}
	command, err := config.Parse(args, nil, config.System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 2}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return command.Serve
}

// start runs a gateway that listens. At the end of the test it is cut off, unless it has ended by itself.
func start(t *testing.T, worker mq.Worker, flags ...string) *process {
	t.Helper()
	return startWith(t, worker, nil, flags...)
}

// startWith is start with sockets of a service manager.
func startWith(t *testing.T, worker mq.Worker, in *inherited, flags ...string) *process {
	t.Helper()
	p := &process{logs: new(logs), signals: make(chan os.Signal, 4), done: make(chan struct{})}
	cfg := configure(t, flags...)
	var err error
	if p.gateway, err = assemble(t.Context(), cfg, cfg.Logger(p.logs), worker); err != nil {
		t.Fatal(err)
	}
	p.inherit(in)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(p.done)
		p.err = p.run(ctx, p.signals)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	var line map[string]any
	eventually(t, "the gateway listens", func() bool {
		line = p.logs.find("listening")
		return line != nil || p.ended()
	})
	if line == nil {
		t.Fatalf("the gateway did not start: %v", p.err)
	}
	p.addr, _ = line["addr"].(string)
	p.admin, _ = line["admin"].(string)
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// awaitEnd waits for run to return.
func (p *process) awaitEnd(t *testing.T) error {
	t.Helper()
	receive(t, "the gateway ends", p.done)
	return p.err
}

// answer is an answer of the admin interface; the body without the line break at its end.
type answer struct {
	status int
	body   string
	header http.Header
}

var plainHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask asks the admin interface. Headers are "Name: value"; "Host: name" asks for that host.
func (p *process) ask(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	res, err := plainHTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, strings.TrimSuffix(string(text), "\n"), res.Header}
}

// want checks status and body of an answer.
func (a answer) want(t *testing.T, what string, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("%s: %d %q, want %d %q", what, a.status, a.body, status, body)
	}
}

// A client is a WebSocket client, gorilla's.
type client struct{ *websocket.Conn }

// dial opens a connection to path and waits until the gateway counts it as open.
func (p *process) dial(t *testing.T, path string) client {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+p.addr+path, nil)
	if err != nil {
		t.Fatalf("%s: %v %+v", path, err, res)
	}
	t.Cleanup(func() { _ = ws.Close() }) // it may have been closed before
	return client{ws}
}

// id returns the connection id that the gateway has for c.
func (p *process) id(t *testing.T, c client) conn.ID {
	t.Helper()
	want := netip.MustParseAddrPort(c.LocalAddr().String())
	var found []conn.ID
	p.server.Each(func(r *conn.Registry) {
		r.Each(func(c *conn.Conn) {
			if c.Remote() == want {
				found = append(found, c.ID())
			}
		})
	})
	if len(found) != 1 {
		t.Fatalf("%d connections of %v", len(found), want)
	}
	return found[0]
}

// send sends an envelope in a binary message.
func (c client) send(t *testing.T, e wire.Envelope) {
	t.Helper()
	if err := c.WriteMessage(websocket.BinaryMessage, e.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
}

// read reads the next envelope.
func (c client) read(t *testing.T) (e wire.Envelope) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	kind, b, err := c.ReadMessage()
	if err == nil && kind == websocket.TextMessage {
		b, err = wire.DecodeText(b[:0], b)
	}
	if err == nil {
		err = e.Unmarshal(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// readClose reads until the Close frame comes, which gorilla answers.
func (c client) readClose(t *testing.T, code int, reason string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	kind, p, err := c.ReadMessage()
	closed, ok := errors.AsType[*websocket.CloseError](err)
	if !ok || closed.Code != code || closed.Text != reason {
		t.Fatalf("read %d %q, %v; want a Close with %d %q", kind, p, err, code, reason)
	}
	_ = c.Close() // our end: the gateway waits for it
}

// stub is a worker whose answers a test gives.
//
//	test.Now       is answered at once with its own payload
//	test.Later     is answered by the test, which takes it from later
//	test.Never     is not answered
//	chat.JoinRoom  lets everybody into room "r#1"
type stub struct {
	clients mq.Clients
	later   chan mq.Completion
}

func newStub() *stub { return &stub{later: make(chan mq.Completion, 100)} }

func (s *stub) Attach(c mq.Clients) { s.clients = c }

func (s *stub) Process(r *mq.Request) {
	switch r.Type {
	case "test.Now":
		r.Reply("test.NowResponse", r.Payload)
	case "test.Later":
		s.later <- r.Later()
	case "test.Never":
	case wire.TypeJoinRoom:
		answer := wire.JoinRoomResponse{Status: wire.StatusOK, Room: &wire.Room{RoomID: "r#1"}}
		r.Reply(wire.TypeJoinRoomResponse, answer.AppendTo(nil))
	default:
		r.Fail(errors.New("unknown type"))
	}
}

func (s *stub) Disconnected(mq.Disconnect) error { return nil }
func (s *stub) RoundTrip(conn.ID, time.Duration) {}

// samples reads the metrics and returns their values by name and labels, as they stand on the page.
func (p *process) samples(t *testing.T) map[string]string {
	t.Helper()
	a := p.ask(t, "GET", "/metrics", "")
	if a.status != http.StatusOK {
		t.Fatalf("/metrics: %d %s", a.status, a.body)
	}
	values := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader([]byte(a.body)))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && name != "#" {
			values[name] = value
		}
	}
	return values
}

// listenLocal takes an address away from whoever wants it next.
func listenLocal(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test may have closed it
	return l
}
