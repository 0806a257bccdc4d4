package natstest

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mqgate/mqgate/mq/nats/embedded"
)

// nodeEnv holds the configuration file of the node that this process is to be, instead of a test.
const nodeEnv = "MQGATE_NATSTEST_NODE"

// A test binary that was started as a node of a cluster is one, before any test of it runs.
func init() {
	if file := os.Getenv(nodeEnv); file != "" {
		if err := node(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// node runs a server until the other end of the standard input has gone: no node outlives the test.
func node(file string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := embedded.Start(embedded.Options{Listen: os.Getenv(listenEnv), ConfigFile: file, Log: log})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Shutdown()
}

// listenEnv holds the address where a node listens for clients.
const listenEnv = "MQGATE_NATSTEST_LISTEN"
