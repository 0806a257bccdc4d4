package roomstore_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/mqgate/mqgate/mq/nats/embedded"
)

// server is the NATS server of all tests; each test has a prefix of its own.
var server *embedded.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = embedded.Start(embedded.Options{Listen: "127.0.0.1:0"}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ours := goleak.IgnoreCurrent() // the server's own
	code := m.Run()
	if err := server.Shutdown(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(ours); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
