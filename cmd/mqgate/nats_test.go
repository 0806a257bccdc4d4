package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/wire"
)

// A workerRun is mqgate worker as in a process of its own, but for the process.
type workerRun struct {
	process // of which there is no gateway
}

// configureWorker parses the flags of a worker.
func configureWorker(t *testing.T, flags ...string) *config.Worker {
	t.Helper()
	args := append([]string{"worker", "--log-format=json", "--log-level=debug"}, flags...)
	if !strings.Contains(strings.Join(flags, " "), "--admin=") {
		args = append(args, "--admin=127.0.0.1:0")
	}
	command, err := config.Parse(args, nil, config.System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 2}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return command.Worker
}

// startWorkerRun runs a worker, at the end of the test at the latest until it is told to end.
func startWorkerRun(t *testing.T, flags ...string) *workerRun {
	t.Helper()
	w := &workerRun{process{logs: new(logs), signals: make(chan os.Signal, 4), done: make(chan struct{})}}
	cfg := configureWorker(t, flags...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(w.done)
		w.err = runWorker(ctx, cfg, cfg.Logger(w.logs), w.signals)
	}()
	t.Cleanup(func() {
		cancel()
		<-w.done
	})
	var line map[string]any
	eventually(t, "the worker works", func() bool {
		line = w.logs.find("working")
		return line != nil || w.ended()
	})
	if line == nil {
		t.Fatalf("the worker did not start: %v", w.err)
	}
	w.admin, _ = line["admin"].(string)
	return w
}

func startNATS(t *testing.T, listen, store string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Listen: listen, StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown() }) // tests that care call it themselves
	return s
}

// signIn sends pcast.Authenticate and returns the session.
func (c client) signIn(t *testing.T, name string) string {
	t.Helper()
	m := wire.Authenticate{ClientVersion: "1", DeviceID: name, Platform: "test", PlatformVersion: "1", AuthenticationToken: name}
	c.send(t, wire.Envelope{Type: wire.TypeAuthenticate, RequestID: "1", Payload: m.AppendTo(nil)})
	e := c.read(t)
	var a wire.AuthenticateResponse
	if err := a.Unmarshal(e.Payload); err != nil || a.Status != wire.StatusOK {
		t.Fatalf("%s: %+v %v", e.Type, a, err)
	}
	return strings.Clone(a.SessionID)
}

// A gateway with an embedded server serves alone, and others join it.
func TestEmbeddedNATS(t *testing.T) {
	store := t.TempDir()
	p := start(t, nil, "--nats=embedded", "--nats-listen=127.0.0.1:0", "--nats-store="+store, "--nats-prefix=a.b", "--nats-connections=2")
	p.dial(t, "/ws").signIn(t, "alice")
	line := p.logs.find("listening")
	url, _ := line["nats"].(string)
	if !strings.HasPrefix(url, "nats://127.0.0.1:") || line["node"] == "" || p.logs.find("NATS server started")["url"] != url {
		t.Errorf("%v", line)
	}
	q := start(t, nil, "--nats="+url, "--nats-prefix=a.b")
	q.dial(t, "/ws").signIn(t, "bob")
	if got := q.samples(t)[`mqgate_nats_requests_total{outcome="answered"}`]; got != "1" {
		t.Errorf("%s requests were answered over NATS", got)
	}
	if got := p.samples(t)["mqgate_rooms_sessions"]; got != "2" {
		t.Errorf("%s sessions", got)
	}
	if _, there := q.samples(t)["mqgate_rooms_sessions"]; there {
		t.Error("a gateway without a worker has sessions")
	}
	// Nobody takes requests below another prefix.
	r := start(t, nil, "--nats="+url, "--nats-prefix=c")
	c := r.dial(t, "/ws")
	c.send(t, wire.Envelope{Type: wire.TypeAuthenticate, RequestID: "1"})
	if e := c.read(t); e.Type != wire.TypeError {
		t.Errorf("%+v", e)
	}
	for _, g := range []*process{r, q, p} {
		g.signals <- syscall.SIGTERM
		g.signals <- syscall.SIGTERM
		if err := g.awaitEnd(t); err != nil {
			t.Error(err)
		}
	}
	if list, err := os.ReadDir(store); err != nil || len(list) == 0 {
		t.Errorf("nothing is stored: %v", err)
	}
}

// What the settings of NATS say reaches the relay, each in its place.
func TestNATSSettingsReachTheRelay(t *testing.T) {
	cfg := configure(t, "--nats=nats://a:1,nats://b:2", "--nats-prefix=p.q", "--nats-connections=3", "--nats-creds=", "--nats-idempotent=", "--nats-ordered=x.,y",
		"--nats-lease=3s", "--nats-replicas=2")
	o := cfg.NATS.Options()
	if !slices.Equal(o.URLs, []string{"nats://a:1", "nats://b:2"}) || o.Prefix != "p.q" || o.Connections != 3 || o.Credentials != "" || o.Buffer != 0 {
		t.Errorf("%+v", o)
	}
	r := relayConfig(cfg, nil, 7, slog.Default())
	if r.Node != 7 || r.RequestTimeout != cfg.RequestTimeout || r.Idempotent == nil || len(r.Idempotent) != 0 || !slices.Equal(r.Ordered, []string{"x.", "y"}) ||
		r.Lease != 3*time.Second || r.Replicas != 2 {
		t.Errorf("%+v", r)
	}
	files := config.NATS{Servers: []string{"nats://h"}, Creds: "1", NKey: "2", CA: "3", Cert: "4", Key: "5"}
	if o := files.Options(); o.Credentials != "1" || o.NKeySeed != "2" || o.TLSCA != "3" || o.TLSCert != "4" || o.TLSKey != "5" {
		t.Errorf("%+v", o)
	}
}

// Events of rooms come over all connections of a gateway, each room's over one.
func TestRoomsOverAllConnections(t *testing.T) {
	n := startNATS(t, "127.0.0.1:0", "")
	startWorkerRun(t, "--nats="+n.URL())
	const links, rooms = 3, 300
	g := start(t, nil, "--nats="+n.URL(), fmt.Sprint("--nats-connections=", links))
	before := make([]int, links)
	for i, nc := range g.nats.conn.Links() {
		before[i] = nc.NumSubscriptions()
	}
	for i := range rooms {
		g.nats.relay.Interest(fmt.Sprint("room", i), true)
	}
	eventually(t, "all rooms are followed", func() bool { return g.samples(t)["mqgate_nats_rooms_followed"] == strconv.Itoa(rooms) })
	all := 0
	for i, nc := range g.nats.conn.Links() {
		of := nc.NumSubscriptions() - before[i]
		if of < rooms/links/2 || of > 2*rooms/links { // standard deviation 8
			t.Errorf("connection %d has the events of %d rooms", i, of)
		}
		all += of
	}
	if all < rooms || all > rooms+links*10 { // and those of questions that are under way
		t.Errorf("%d subscriptions for %d rooms", all, rooms)
	}
}

// Without a server nothing starts, and what is said names it; a signal ends the waiting.
func TestNATSMissing(t *testing.T) {
	addr := listenLocal(t, "127.0.0.1:0")
	url := "nats://" + addr.Addr().String()
	_ = addr.Close() // nobody listens there now
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := configure(t, "--nats="+url)
	if _, err := assemble(ctx, cfg, cfg.Logger(new(logs)), nil); err == nil || !strings.Contains(err.Error(), url) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	w := configureWorker(t, "--nats="+url)
	if err := runWorker(t.Context(), w, w.Logger(new(logs)), signals); !errors.Is(err, errSignal) {
		t.Errorf("%v", err)
	}
}

// The port or the folder of the embedded server is taken: exit status 1, and what is wrong is said.
func TestEmbeddedNATSTaken(t *testing.T) {
	taken := listenLocal(t, "127.0.0.1:0").Addr().String()
	var stdout, stderr bytes.Buffer
	status := run([]string{"serve", "--listen=127.0.0.1:0", "--admin=", "--nats=embedded", "--nats-listen=" + taken}, nil, &stdout, &stderr)
	if status != exitFailed || !strings.Contains(stderr.String(), "--nats-listen "+taken) {
		t.Errorf("status %d\n%s", status, &stderr)
	}
	n := startNATS(t, "127.0.0.1:0", "")
	stderr.Reset()
	status = run([]string{"worker", "--nats=" + n.URL(), "--admin=" + taken}, nil, &stdout, &stderr)
	if status != exitFailed || !strings.Contains(stderr.String(), "--admin "+taken+": ") || strings.Contains(stderr.String(), "msg=working") {
		t.Errorf("status %d\n%s", status, &stderr)
	}
}

// A worker's life: it is ready, answers, says what it counts, ends on a signal with everything answered.
func TestWorker(t *testing.T) {
	n := startNATS(t, "127.0.0.1:0", "")
	w := startWorkerRun(t, "--nats="+n.URL(), "--max-sessions=1")
	w.ask(t, "GET", "/healthz", "").want(t, "/healthz", http.StatusOK, "alive")
	w.ask(t, "GET", "/readyz", "").want(t, "/readyz", http.StatusOK, "ready")
	if a := w.ask(t, "GET", "/connections/x", ""); a.status != http.StatusNotFound {
		t.Errorf("a worker knows connections: %d %s", a.status, a.body)
	}
	if a := w.ask(t, "GET", "/readyz", "", "Host: elsewhere.example"); a.status != http.StatusForbidden {
		t.Errorf("any name of the host: %d %s", a.status, a.body)
	}
	g := start(t, nil, "--nats="+n.URL())
	g.dial(t, "/ws").signIn(t, "alice")
	c := g.dial(t, "/ws")
	m := wire.Authenticate{ClientVersion: "1", DeviceID: "bob", Platform: "test", PlatformVersion: "1", AuthenticationToken: "bob"}
	c.send(t, wire.Envelope{Type: wire.TypeAuthenticate, RequestID: "1", Payload: m.AppendTo(nil)})
	var a wire.AuthenticateResponse
	if e := c.read(t); a.Unmarshal(e.Payload) != nil || a.Status != wire.StatusCapacity {
		t.Errorf("--max-sessions: status %q", a.Status)
	}
	eventually(t, "nothing is in flight", func() bool { return w.samples(t)["mqgate_nats_worker_requests_in_flight"] == "0" })
	values := w.samples(t)
	for name, want := range map[string]string{`mqgate_nats_worker_requests_total{outcome="answered"}`: "2", "mqgate_rooms_sessions": "1",
		"mqgate_nats_worker_requests_in_flight": "0", `mqgate_nats_connections{state="up"}`: "1"} {
		if values[name] != want {
			t.Errorf("%s is %s, want %s", name, values[name], want)
		}
	}
	w.signals <- syscall.SIGTERM
	if err := w.awaitEnd(t); err != nil {
		t.Error(err)
	}
	if line := w.logs.find("finished"); line == nil || line["requests"] != 2.0 || line["answered"] != 2.0 {
		t.Errorf("%v", line)
	}
}

// A worker that is told to end while it is busy answers everything that it has taken, and the other one goes on.
func TestWorkerDrains(t *testing.T) {
	n := startNATS(t, "127.0.0.1:0", "")
	w := startWorkerRun(t, "--nats="+n.URL())
	startWorkerRun(t, "--nats="+n.URL())
	g := start(t, nil, "--nats="+n.URL(), "--request-timeout=25s") // a slow machine takes its time; what is lost is seen all the same
	const clients, each = 30, 40
	m := wire.Authenticate{ClientVersion: "1", DeviceID: "d", Platform: "test", PlatformVersion: "1", AuthenticationToken: "t"}
	var all []client
	for range clients {
		c := g.dial(t, "/ws")
		all = append(all, c)
		for i := range each {
			c.send(t, wire.Envelope{Type: wire.TypeAuthenticate, RequestID: fmt.Sprint(i), Payload: m.AppendTo(nil)})
		}
	}
	eventually(t, "the worker is busy", func() bool {
		done, err := strconv.Atoi(w.samples(t)[`mqgate_nats_worker_requests_total{outcome="answered"}`])
		return err == nil && done > 0
	})
	w.signals <- syscall.SIGTERM
	for _, c := range all {
		for range each {
			if e := c.read(t); e.Type != wire.TypeAuthenticateResponse {
				t.Errorf("%s", e.Type)
			}
		}
	}
	if err := w.awaitEnd(t); err != nil {
		t.Error(err)
	}
	line := w.logs.find("finished")
	if line == nil || line["requests"] == 0.0 || line["requests"] == float64(clients*each) || line["requests"] != line["answered"] {
		t.Errorf("%v", line)
	}
}

// A worker that was told to end is not ready while it finishes.
func TestWorkerFinishing(t *testing.T) {
	n := startNATS(t, "127.0.0.1:0", "")
	w := configureWorker(t, "--nats="+n.URL())
	worker, err := startWorker(t.Context(), w, w.NATS.Options(), w.Logger(new(logs)))
	if err != nil {
		t.Fatal(err)
	}
	defer worker.close(t.Context())
	p := &workerProcess{cfg: w, worker: worker}
	for _, want := range []string{"200 ready\n", "503 finishing\n"} {
		r := httptest.NewRecorder()
		p.ready(r, nil)
		if got := fmt.Sprint(r.Code, " ", r.Body); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		p.ending.Store(true)
	}
}

// A bearer token guards the admin interface of a worker as it does that of a gateway.
func TestWorkerAdminToken(t *testing.T) {
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNATS(t, "127.0.0.1:0", "")
	w := startWorkerRun(t, "--nats="+n.URL(), "--admin-token-file="+file)
	if a := w.ask(t, "GET", "/metrics", ""); a.status != http.StatusUnauthorized {
		t.Errorf("%d", a.status)
	}
	w.ask(t, "GET", "/readyz", "", "Authorization: Bearer 0123456789abcdef").want(t, "/readyz", http.StatusOK, "ready")
}

// When NATS has been away for longer than the grace, gateway and worker are not ready, and say so once; until then they are.
func TestNATSAway(t *testing.T) {
	store := t.TempDir()
	n := startNATS(t, "127.0.0.1:0", store)
	url := n.URL()
	w, g := startWorkerRun(t, "--nats="+url, "--nats-grace=50ms"), start(t, nil, "--nats="+url, "--nats-grace=50ms")
	patient := start(t, nil, "--nats="+url, "--nats-grace=1h")
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{&w.process, g} {
		eventually(t, "not ready", func() bool {
			a := p.ask(t, "GET", "/readyz", "")
			return a.status == http.StatusServiceUnavailable && strings.HasPrefix(a.body, "NATS has been away for ")
		})
		eventually(t, "it is logged", func() bool { return p.logs.find("not ready: NATS is away for longer than --nats-grace") != nil })
		p.ask(t, "GET", "/healthz", "").want(t, "/healthz", http.StatusOK, "alive")
		if v := p.samples(t); v["mqgate_nats_away_seconds"] == "0" || v[`mqgate_nats_connections{state="away"}`] != "1" {
			t.Errorf("%s seconds away, %s connections", v["mqgate_nats_away_seconds"], v[`mqgate_nats_connections{state="away"}`])
		}
	}
	patient.ask(t, "GET", "/readyz", "").want(t, "within the grace", http.StatusOK, "ready")
	startNATS(t, strings.TrimPrefix(url, "nats://"), store)
	for _, p := range []*process{&w.process, g} {
		eventually(t, "ready again", func() bool { return p.ask(t, "GET", "/readyz", "").status == http.StatusOK })
		eventually(t, "it is logged", func() bool { return p.logs.find("ready again: NATS is back") != nil })
	}
	g.dial(t, "/ws").signIn(t, "alice")
}

// Which bindings do not hold any more is asked of the store for all of them.
func TestGoneBindings(t *testing.T) {
	n := startNATS(t, "127.0.0.1:0", "")
	w := configureWorker(t, "--nats="+n.URL())
	worker, err := startWorker(t.Context(), w, w.NATS.Options(), w.Logger(new(logs)))
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, nil, "--nats="+n.URL())
	c := g.dial(t, "/ws")
	session := c.signIn(t, "alice")
	list := []nats.Binding{{Conn: g.id(t, c), Session: session + ".1"}}
	for i := range 40 {
		list = append(list, nats.Binding{Conn: g.id(t, c), Session: fmt.Sprintf("NOBODYSSESSION%d.1", i)})
	}
	gone, err := worker.gone(t.Context(), list)
	if err != nil || len(gone) != 40 || slices.Contains(gone, list[0]) {
		t.Errorf("%d of %d are gone, %v", len(gone), len(list), err)
	}
	if gone, err := worker.gone(t.Context(), nil); err != nil || gone != nil {
		t.Errorf("%v, %v", gone, err)
	}
	worker.close(t.Context())
	if _, err := worker.gone(t.Context(), list); err == nil {
		t.Error("no error from a worker that has ended")
	}
}
