package roomstore

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// SweepGateway is what SweepGateways does with a gateway that had no lease when it looked.
func (e *Engine) SweepGateway(ctx context.Context, node string) error {
	return e.sweepGateway(ctx, node)
}

// fetched has what tests make of the batches that an engine fetches.
var fetched sync.Map // *Engine → func([]jetstream.Msg) []jetstream.Msg

// Fetched lets a test say which messages of each batch that the engine fetches from now on come to it; nil: all.
func (e *Engine) Fetched(f func([]jetstream.Msg) []jetstream.Msg) {
	if f == nil {
		fetched.Delete(e)
		return
	}
	fetched.Store(e, f)
}

type fetching struct {
	jetstream.Consumer
	f func([]jetstream.Msg) []jetstream.Msg
}

func (c fetching) FetchNoWait(n int) (jetstream.MessageBatch, error) {
	b, err := c.Consumer.FetchNoWait(n)
	if err != nil {
		return nil, err
	}
	var all []jetstream.Msg
	for m := range b.Messages() {
		all = append(all, m)
	}
	all = c.f(all)
	out := make(chan jetstream.Msg, len(all))
	for _, m := range all {
		out <- m
	}
	close(out)
	return batch{b, out}, nil
}

type batch struct {
	jetstream.MessageBatch
	messages chan jetstream.Msg
}

func (b batch) Messages() <-chan jetstream.Msg { return b.messages }
