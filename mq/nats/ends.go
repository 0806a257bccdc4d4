package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/wire"
)

// ends publishes the ends of connections to their stream and keeps each until it is stored (L6.3). The connection's id is
// the message's id, so that one which is published twice is stored once.
type ends struct {
	x     *Relay
	count atomic.Int64 // reserved: in the queue, or behind ordered requests
	wake  chan struct{}
	empty chan struct{} // poked when count has come to 0

	mu    sync.Mutex
	queue []*end

	js   jetstream.JetStream // set by Relay.Start
	said bool                // of the goroutine: a log line tells that storing fails
}

var errEnds = errors.New("nats: too many ends of connections wait to be stored")

func newEnds(x *Relay) *ends {
	return &ends{x: x, wake: make(chan struct{}, 1), empty: make(chan struct{}, 1)}
}

// reserve makes room for one; false when there is none.
func (e *ends) reserve() bool {
	if e.count.Add(1) > maxUnpublished {
		e.count.Add(-1)
		return false
	}
	return true
}

// push queues one for which there is room. From any goroutine.
func (e *ends) push(d *end) {
	e.mu.Lock()
	e.queue = append(e.queue, d)
	e.mu.Unlock()
	poke(e.wake)
}

// run publishes until the Relay is closed.
func (e *ends) run() {
	wait := time.Duration(0)
	for {
		if wait == 0 {
			select {
			case <-e.x.closing:
				return
			case <-e.wake:
			}
		} else {
			select {
			case <-e.x.closing:
				return
			case <-time.After(wait):
			}
		}
		for {
			err := e.publish()
			if err == nil {
				wait = 0
				if e.said {
					e.said = false
					e.x.log.Info("ends of connections are stored again", "waiting", e.count.Load())
				}
				if e.len() > 0 {
					continue
				}
				break
			}
			if !e.said {
				e.said = true
				e.x.log.Warn("ends of connections are not stored; they are kept and published again", "waiting", e.count.Load(), "err", err)
			}
			wait = min(max(2*wait, retryLeast), retryMost)
			break
		}
	}
}

func (e *ends) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue)
}

// publish publishes the first ones in the queue and waits until they are stored. Those that are not stay first.
func (e *ends) publish() error {
	e.mu.Lock()
	batch := append([]*end(nil), e.queue[:min(len(e.queue), endsBatch)]...)
	e.mu.Unlock()
	var err error
	futures := make([]jetstream.PubAckFuture, len(batch))
	for i, d := range batch {
		if futures[i], err = e.js.PublishMsgAsync(e.message(d), jetstream.WithMsgID(d.Conn.String()), jetstream.WithRetryAttempts(0)); err != nil {
			break
		}
	}
	kept := batch[:0]
	for i, f := range futures {
		if f == nil {
			kept = append(kept, batch[i])
			continue
		}
		select {
		case <-f.Ok():
			e.x.count.published.Add(1)
		case failed := <-f.Err():
			err = failed
			kept = append(kept, batch[i])
		}
	}
	stored := len(futures) - len(kept)
	e.x.count.publishRetry.Add(uint64(len(kept)))
	e.mu.Lock()
	copy(e.queue[stored:], kept)
	clear(e.queue[:stored])
	e.queue = e.queue[stored:]
	e.mu.Unlock()
	if e.count.Add(-int64(stored)) == 0 {
		poke(e.empty)
	}
	return err
}

func (e *ends) message(d *end) *natsio.Msg {
	id := d.Conn.String()
	m := &natsio.Msg{Subject: e.x.names.Disconnected(e.x.cfg.Node), Header: natsio.Header{subjects.HeaderConnection: {id},
		subjects.HeaderNode: {e.x.node}, HeaderDuration: {strconv.FormatInt(d.Duration.Milliseconds(), 10)}}}
	if d.session != "" {
		m.Header[subjects.HeaderSession] = []string{d.session}
	}
	m.Data = (&wire.ConnectionDisconnected{ConnectionID: id, ReasonCode: uint32(d.Code), Description: d.Description}).AppendTo(nil)
	return m
}

// drain waits until everything is stored.
func (e *ends) drain(ctx context.Context) error {
	for e.count.Load() > 0 {
		select {
		case <-e.empty:
		case <-ctx.Done():
			return fmt.Errorf("nats: %d ends of connections are not stored: %w", e.count.Load(), ctx.Err())
		}
	}
	return nil
}
