package natstest

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq/nats/embedded"
)

// Deadline is how long the helpers wait for what must happen. It is never reached when all is well.
const Deadline = 60 * time.Second

// Single starts a server in this process on a port of 127.0.0.1 and ends it with the test.
func Single(t testing.TB) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir()})
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

// Connect connects to one or more URLs, notices within about a second when the other end is silent, tries for ever to
// connect again when the connection is lost, and closes with the test. Options come after those and may change them.
func Connect(t testing.TB, urls []string, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.PingInterval(500 * time.Millisecond), nats.MaxPingsOutstanding(2)}, options...)
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Eventually waits until cond holds and fails the test when it does not within Deadline.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.After(Deadline)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %v: %s", Deadline, what)
		}
	}
}
