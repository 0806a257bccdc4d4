package worker

import (
	"context"
	"errors"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats"
)

// Request is a request of a client. It is good until its Handler returns.
type Request struct {
	Conn    conn.ID    // of the client; Clients can be told something about it at any time
	Session string     // that a worker has bound to the connection, or ""
	Type    string     // e.g. "shop.Buy"
	Payload []byte     // as the client sent it
	Clients mq.Clients // what a worker may do to clients; may be kept

	r *mq.Request
}

// Meta returns what the gateway knows of the connection.
func (r *Request) Meta() mq.Meta { return r.r.Meta() }

// Handler answers a request with a payload, whose type is that of the request with "Response" behind it, or with an error:
// then the client gets mq.Error "failed", and the gateway logs the error. It may block, and it runs on many goroutines at
// once. A panic fails the request alone.
type Handler func(ctx context.Context, r *Request) (payload []byte, err error)

// Run connects to NATS and answers requests until ctx is done; then it takes no more, waits for what is being handled, and
// returns nil. Any number of processes may run the same handlers: each request goes to one of them. Options.Buffer 0 becomes
// what is right for workers.
func Run(ctx context.Context, o nats.Options, handlers map[string]Handler) (err error) {
	if len(handlers) == 0 {
		return errors.New("worker: no handlers")
	}
	if o.Buffer == 0 {
		o.Buffer = natsio.DefaultReconnectBufSize
	}
	w := &worker{handlers: handlers}
	cfg := nats.ServiceConfig{Worker: w, Log: o.Log}
	for typ, h := range handlers {
		if h == nil {
			return errors.New("worker: no handler for " + typ)
		}
		cfg.Types = append(cfg.Types, typ)
	}
	if cfg.Conn, err = nats.Connect(ctx, o); err != nil {
		return err
	}
	defer cfg.Conn.Close()
	s, err := nats.NewService(cfg)
	if err != nil {
		return err
	}
	var stop context.CancelFunc
	w.ctx, stop = context.WithCancel(context.WithoutCancel(ctx)) // what is being handled goes on until it is done
	defer stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	if o.Log != nil {
		o.Log.Info("worker is ready", "types", cfg.Types)
	}
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	return s.Drain(bounded)
}

// worker is the mq.Worker of a map of handlers.
type worker struct {
	handlers map[string]Handler
	clients  mq.Clients
	ctx      context.Context
}

func (w *worker) Attach(c mq.Clients) { w.clients = c }

func (w *worker) Process(r *mq.Request) {
	h := w.handlers[r.Type]
	payload, err := h(w.ctx, &Request{Conn: r.Conn, Session: r.Bound, Type: r.Type, Payload: r.Payload, Clients: w.clients, r: r})
	if err != nil {
		r.Fail(err)
		return
	}
	r.Reply(r.Type+"Response", payload)
}

func (w *worker) Disconnected(mq.Disconnect) error { return nil }

func (w *worker) RoundTrip(conn.ID, time.Duration) {}
