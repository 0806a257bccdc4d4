package roomstore

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// ForgetIdle lets go of the rooms that nobody has asked about since a time.
func (e *Engine) ForgetIdle(since time.Time) { e.forgetIdle(since) }

// Reader is a room as a worker has it in memory.
type Reader struct{ a *actor }

// Read reads a room.
func (e *Engine) Read(ctx context.Context, room string) (Reader, error) {
	token := subjects.RoomToken(room)
	a := &actor{e: e, id: room, token: token, subject: e.names.LogOf(token)}
	return Reader{a}, a.load(ctx)
}

// Members returns how many members the room has.
func (r Reader) Members() int {
	if !r.a.there() {
		return 0
	}
	return r.a.room.Members()
}

// ReadOn reads up to the end of the log, or to the record with the message id mine, and returns the last sequence.
func (r Reader) ReadOn(ctx context.Context, mine string) (found bool, seq uint64, err error) {
	last, err := r.a.e.lastSeq(ctx, r.a.subject)
	if err == nil {
		found, err = r.a.readFrom(ctx, last, mine)
	}
	return found, r.a.seq, err
}

// Hold lets a test hold what an engine asks of JetStream and writes: hold is called with the subject, and then whether it is
// done, how often, and with which error, is up to it. Before the engine is started.
func (e *Engine) Hold(hold func(ctx context.Context, subject string, do func(context.Context) error) error) {
	e.js = held{e.js, e, hold}
	ask := e.ask
	e.ask = func(ctx context.Context, subject string, data []byte) (m *nats.Msg, err error) {
		err = hold(ctx, subject, func(ctx context.Context) error {
			m, err = ask(ctx, subject, data)
			return err
		})
		return m, err
	}
}

type held struct {
	jetstream.JetStream
	e    *Engine
	hold func(context.Context, string, func(context.Context) error) error
}

func (h held) PublishMsg(ctx context.Context, m *nats.Msg, o ...jetstream.PublishOpt) (ack *jetstream.PubAck, err error) {
	err = h.hold(ctx, m.Subject, func(ctx context.Context) error {
		ack, err = h.JetStream.PublishMsg(ctx, m, o...)
		return err
	})
	return ack, err
}

func (h held) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (c jetstream.Consumer, err error) {
	err = h.hold(ctx, "$JS.API.CONSUMER.CREATE."+stream, func(ctx context.Context) error {
		c, err = h.JetStream.CreateConsumer(ctx, stream, cfg)
		return err
	})
	if f, ok := fetched.Load(h.e); ok && err == nil {
		c = fetching{c, f.(func([]jetstream.Msg) []jetstream.Msg)}
	}
	return c, err
}

// HandleEnd handles a message of the stream of ends.
func (e *Engine) HandleEnd(ctx context.Context, m jetstream.Msg) error { return e.handleEnd(ctx, m) }

// State is what is stored of a session.
type State = session

// All returns all sessions by their ids.
func (e *Engine) All(ctx context.Context) (map[string]*State, error) {
	keys, err := e.sessions.keys(ctx, "")
	out := map[string]*State{}
	for _, key := range keys {
		s, _, err := e.readSession(ctx, key)
		if err != nil {
			return nil, err
		}
		if s != nil {
			out[key] = s
		}
	}
	return out, err
}

// HasConn reports whether conns has a session for a connection.
func (e *Engine) HasConn(ctx context.Context, c conn.ID) (bool, error) {
	value, _, err := e.conns.get(ctx, connKey(c))
	return value != nil, err
}
