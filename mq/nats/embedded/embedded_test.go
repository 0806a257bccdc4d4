package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/mqgate/mqgate/mq/nats/embedded"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.signal_recv"))
}

// lines is a slog destination that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// stored publishes one message into a stream over nc, or reads it back.
func stored(t *testing.T, nc *nats.Conn, publish bool) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if publish {
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s.>"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx, "s.a", []byte("kept")); err != nil {
			t.Fatal(err)
		}
	}
	s, err := js.Stream(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(ctx, "s.a")
	if err != nil || string(m.Data) != "kept" {
		t.Fatalf("got %v, %v", m, err)
	}
}

func connect(t *testing.T, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// What was stored over memory is there after a restart, over a socket, and the log has what the server says.
func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by the server")
	var log lines
	o := embedded.Options{Listen: "127.0.0.1:0", StoreDir: dir,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s := start(t, o)
	nc := connect(t, "", s.InProcess())
	if nc.MaxPayload() != embedded.MaxPayload {
		t.Errorf("the largest message is %d bytes", nc.MaxPayload())
	}
	stored(t, nc, true)
	nc.Close()
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if _, err := nats.Connect("", s.InProcess()); err == nil {
		t.Error("a server that was shut down takes connections")
	}
	for _, want := range []string{`level=DEBUG msg="nats: Server is ready"`, `level=DEBUG msg="nats: Server Exiting.."`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, log.String())
		}
	}
	s = start(t, o)
	if !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") || !strings.HasPrefix(s.StoreDir(), dir) {
		t.Errorf("listens at %s, stores in %s", s.URL(), s.StoreDir())
	}
	stored(t, connect(t, s.URL()), false)
}

// A message of the largest size passes, one byte more does not.
func TestMaxPayload(t *testing.T) {
	s := start(t, embedded.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir()})
	nc := connect(t, s.URL())
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{embedded.MaxPayload - 1, embedded.MaxPayload} {
		if err := nc.Publish("x", make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		m, err := sub.NextMsgWithContext(t.Context())
		if err != nil || len(m.Data) != n {
			t.Fatalf("%v", err)
		}
	}
	if err := nc.Publish("x", make([]byte, embedded.MaxPayload+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("got %v", err)
	}
}

// Without a listen address there is only memory, without a store directory a temporary one.
func TestNothingOutside(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	s := start(t, embedded.Options{})
	if s.URL() != "" {
		t.Errorf("listens at %s", s.URL())
	}
	stored(t, connect(t, "", s.InProcess()), true)
	if !strings.HasPrefix(s.StoreDir(), tmp) {
		t.Errorf("stores in %s", s.StoreDir())
	}
	for range 2 {
		if err := s.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// The configuration file of nats-server counts, but for what the options say.
func TestConfigFile(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "nats.conf"), t.TempDir()
	config := "listen: 127.0.0.1:1\nmax_payload: 2MB\nauthorization { user: ada, password: secret }\njetstream { store_dir: \"" + dir + "\" }\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, embedded.Options{ConfigFile: file, Listen: "127.0.0.1:0"})
	if _, err := nats.Connect(s.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a password: %v", err)
	}
	nc := connect(t, s.URL(), nats.UserInfo("ada", "secret"))
	if nc.MaxPayload() != 2<<20 || !strings.HasPrefix(s.StoreDir(), dir) {
		t.Errorf("the largest message is %d bytes, store %s", nc.MaxPayload(), s.StoreDir())
	}
	stored(t, nc, true)
	other := t.TempDir()
	s = start(t, embedded.Options{ConfigFile: file, StoreDir: other})
	if !strings.HasPrefix(s.StoreDir(), other) {
		t.Errorf("stores in %s", s.StoreDir())
	}
}

// What cannot work is said.
func TestStartFails(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no_such_setting: {"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		o    embedded.Options
		want string
	}{
		{embedded.Options{Listen: "4222"}, `listen address "4222": expected host:port`},
		{embedded.Options{Listen: "127.0.0.1:65536"}, `listen address "127.0.0.1:65536": expected a port from 0 to 65535`},
		{embedded.Options{Listen: "127.0.0.1:nats"}, `listen address "127.0.0.1:nats": expected a port from 0 to 65535`},
		{embedded.Options{Listen: taken.Addr().String()}, "address already in use"},
		{embedded.Options{StoreDir: filepath.Join(file, "below")}, "not a directory"},
		{embedded.Options{ConfigFile: file}, "configuration file " + file},
		{embedded.Options{ConfigFile: file + "x"}, "no such file"},
	} {
		s, err := embedded.Start(test.o)
		if err == nil {
			_ = s.Shutdown()
			t.Errorf("%+v: no error", test.o)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "embedded NATS server: ") {
			t.Errorf("%+v: %v", test.o, err)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
