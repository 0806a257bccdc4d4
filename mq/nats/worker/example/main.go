// A worker: it answers requests of the type "example.Echo" with what they say, backwards. First argument: the URL of NATS.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := worker.Run(ctx, nats.Options{URLs: os.Args[1:], Log: slog.Default()}, map[string]worker.Handler{
		"example.Echo": func(_ context.Context, r *worker.Request) ([]byte, error) {
			slices.Reverse(r.Payload)
			return r.Payload, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}
