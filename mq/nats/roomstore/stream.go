package roomstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stored is a message of a stream.
type stored struct {
	seq    uint64
	header nats.Header
	data   []byte
}

// apiError is the error in an answer of the JetStream API.
type apiError struct {
	Error *jetstream.APIError `json:"error"`
}

// Error codes of JetStream.
const (
	codeNoMessage  jetstream.ErrorCode = 10037
	codeWrongLast  jetstream.ErrorCode = 10071
	codeWrongLast2 jetstream.ErrorCode = 10164 // the same, while one is under way
)

// again calls f until it succeeds, or fails for good, or the time is up. What may be asked again: what nobody answered,
// and what a server says that has no leader or no room in its queue for now.
func again(ctx context.Context, f func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, ackTimeout)
		err := f(try)
		cancel()
		if err == nil || !temporary(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

func temporary(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == 503 || api.Code == 500 && api.ErrorCode != codeWrongLast
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrDisconnected)
}

// publish stores a message, if its headers allow it: else errConflict.
func (e *Engine) publish(ctx context.Context, m *nats.Msg) (*jetstream.PubAck, error) {
	var ack *jetstream.PubAck
	err := again(ctx, func(ctx context.Context) (err error) {
		ack, err = e.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		return err
	})
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == codeWrongLast || api.ErrorCode == codeWrongLast2) {
		return nil, errConflict
	}
	return ack, err
}

// api asks the JetStream API.
func (e *Engine) api(ctx context.Context, what, question string, answer any, failed *apiError) error {
	return again(ctx, func(ctx context.Context) error {
		m, err := e.ask(ctx, "$JS.API."+what, []byte(question))
		if err != nil {
			return err
		}
		failed.Error = nil
		if err := json.Unmarshal(m.Data, answer); err != nil {
			return fmt.Errorf("answer of the JetStream API to %s: %w", what, err)
		}
		if failed.Error != nil {
			return failed.Error
		}
		return nil
	})
}

// getMsg returns a message of a stream from its leader, or nil.
func (e *Engine) getMsg(ctx context.Context, stream, question string) (*stored, error) {
	var r struct {
		apiError
		Message *struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	err := e.api(ctx, "STREAM.MSG.GET."+stream, question, &r, &r.apiError)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeNoMessage {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r.Message == nil {
		return nil, errors.New("roomstore: an answer of the JetStream API without a message")
	}
	out := &stored{seq: r.Message.Seq, data: r.Message.Data}
	if len(r.Message.Header) > 0 {
		out.header, err = nats.DecodeHeadersMsg(r.Message.Header)
	}
	return out, err
}

// purge removes the messages of a subject, those before seq only unless it is 0.
func (e *Engine) purge(ctx context.Context, stream, subject string, seq uint64) error {
	var r apiError
	q := `{"filter":` + quote(subject) + `}`
	if seq > 0 {
		q = fmt.Sprintf(`{"filter":%s,"seq":%d}`, quote(subject), seq)
	}
	return e.api(ctx, "STREAM.PURGE."+stream, q, &r, &r)
}

// lastSeq returns the last sequence of a subject of the stream of rooms, 0 when there is none.
func (e *Engine) lastSeq(ctx context.Context, subject string) (uint64, error) {
	e.stats.reads.Add(1)
	if e.replicas == 1 {
		return e.lastDirect(ctx, subject)
	}
	m, err := e.getMsg(ctx, e.names.RoomsStream(), `{"last_by_subj":`+quote(subject)+`}`)
	if err != nil || m == nil {
		return 0, err
	}
	return m.seq, nil
}

// lastDirect is lastSeq when there is only one replica, which answers faster when it is asked directly. More replicas may
// answer with what was the last one before.
func (e *Engine) lastDirect(ctx context.Context, subject string) (seq uint64, err error) {
	err = again(ctx, func(ctx context.Context) error {
		m, err := e.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+e.names.RoomsStream()+"."+subject, nil)
		if err != nil {
			return err
		}
		switch m.Header.Get("Status") {
		case "":
			seq, err = strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
			return err
		case "404":
			seq = 0
			return nil
		}
		return fmt.Errorf("roomstore: the last record of %s: %s", subject, m.Header.Get("Description"))
	})
	return seq, err
}

// readLog calls f with the records of a subject from a sequence on, in order, until one at or above to was read. Whoever
// answers may be behind: it is asked again, and in the end the leader.
func (e *Engine) readLog(ctx context.Context, subject string, from, to uint64, f func(*stored) error) error {
	for tries := 0; from <= to; tries++ {
		var last uint64
		var failed error
		read := func(m *stored) error {
			last = m.seq
			failed = f(m)
			return failed
		}
		var err error
		if tries < 3 {
			err = e.readBatch(ctx, subject, from, read)
		} else {
			var m *stored
			m, err = e.getMsg(ctx, e.names.RoomsStream(), fmt.Sprintf(`{"seq":%d,"next_by_subj":%s}`, from, quote(subject)))
			if err == nil && m == nil {
				return nil // removed meanwhile
			}
			if err == nil {
				err = read(m)
			}
		}
		if failed != nil || err != nil && !temporary(err) {
			return err
		}
		if last > 0 {
			from, tries = last+1, 0
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// readBatch reads some records from any replica.
func (e *Engine) readBatch(ctx context.Context, subject string, from uint64, f func(*stored) error) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	inbox := e.nc.NewInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only with the connection
	q := fmt.Sprintf(`{"seq":%d,"next_by_subj":%s,"batch":%d}`, from, quote(subject), readBatch)
	if err := e.nc.PublishRequest("$JS.API.DIRECT.GET."+e.names.RoomsStream(), inbox, []byte(q)); err != nil {
		return err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // that was all
			return nil
		default:
			return fmt.Errorf("roomstore: reading the log: %s %s", status, m.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return fmt.Errorf("roomstore: reading the log: %w", err)
		}
		if err := f(&stored{seq: seq, header: m.Header, data: m.Data}); err != nil {
			return err
		}
	}
}

// headerUint returns a number from a header, 0 when there is none.
func headerUint(h nats.Header, name string) uint64 {
	n, err := strconv.ParseUint(h.Get(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
