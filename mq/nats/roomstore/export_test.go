package roomstore

import (
	"context"
	"time"

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

// ReadOn reads up to the end of the log, or to the record with the message id mine, and returns the last sequence.
func (r Reader) ReadOn(ctx context.Context, mine string) (found bool, seq uint64, err error) {
	last, err := r.a.e.lastSeq(ctx, r.a.subject)
	if err == nil {
		found, err = r.a.readFrom(ctx, last, mine)
	}
	return found, r.a.seq, err
}
