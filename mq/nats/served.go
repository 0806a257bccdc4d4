package nats

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// served is a request in a Service. It is never used again, because a worker may keep its Completion for ever.
type served struct {
	s     *Service
	l     *link
	msg   *natsio.Msg
	conn  conn.ID
	typ   string
	start int64 // [ns, Conn.now]

	processing bool // of the goroutine that runs Process
	later      bool // likewise
	answered   atomic.Bool
}

var (
	_ mq.Responder      = (*served)(nil)
	_ mq.NotedCompleter = (*served)(nil)
)

// read makes a request of a message.
func (s *Service) read(l *link, m *natsio.Msg) (*served, error) {
	typ, ok := s.c.names.RequestType(m.Subject)
	if !ok {
		return nil, errWorkerType
	}
	q := &served{s: s, l: l, msg: m, typ: typ, start: s.c.now()}
	if text := header(m, subjects.HeaderConnection); text != "" { // without it, it is a request of something else than a gateway
		var err error
		if q.conn, err = conn.ParseID(text); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// Reply implements mq.Responder.
func (q *served) Reply(_ *mq.Request, typ string, payload []byte) {
	q.check()
	q.answer(typ, payload, nil)
}

// Fail implements mq.Responder.
func (q *served) Fail(_ *mq.Request, cause error) {
	q.check()
	if cause == nil {
		cause = errors.New("worker failed without saying why")
	}
	q.fail(cause)
}

// Later implements mq.Responder.
func (q *served) Later(*mq.Request) mq.Completion {
	q.check()
	if q.later || q.answered.Load() {
		panic("mq: Later must be called once, inside Worker.Process and before any answer")
	}
	q.later = true
	return mq.NewCompletion(q, 0)
}

func (q *served) check() {
	if !q.processing {
		panic("mq: Request used after Worker.Process returned: take a Completion with Later")
	}
}

// Meta implements mq.Responder. The headers are in the order of their names.
func (q *served) Meta(*mq.Request) mq.Meta {
	var m mq.Meta
	m.Remote, _ = netip.ParseAddrPort(header(q.msg, subjects.HeaderRemote)) // what cannot be read is not known
	if ms, err := strconv.ParseInt(header(q.msg, HeaderStart), 10, 64); err == nil {
		m.Start = time.UnixMilli(ms)
	}
	for name, values := range q.msg.Header {
		meta, ok := strings.CutPrefix(name, subjects.HeaderMeta)
		if name == "traceparent" || name == "tracestate" {
			meta, ok = name, true
		}
		if ok && len(values) > 0 {
			m.Headers = append(m.Headers, mq.Header{Name: meta, Value: values[0]})
		}
	}
	slices.SortFunc(m.Headers, func(a, b mq.Header) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// Complete implements mq.Completer.
func (q *served) Complete(_ uint64, typ string, payload []byte, cause error) {
	if cause != nil {
		q.fail(cause)
		return
	}
	q.answer(typ, payload, nil)
}

// CompleteNoted implements mq.NotedCompleter.
func (q *served) CompleteNoted(_ uint64, typ string, payload []byte, note mq.Note) {
	h := make(natsio.Header, 4)
	if note.Bind {
		h[subjects.HeaderBind] = []string{note.Session}
	}
	if note.Room != "" {
		h[subjects.HeaderRoom] = []string{note.Room}
		h[subjects.HeaderRoomSeq] = []string{strconv.FormatUint(note.RoomSeq, 10)}
	}
	q.answer(typ, payload, h)
}

// first reports whether this is the first answer, and counts others.
func (q *served) first() bool {
	if q.answered.CompareAndSwap(false, true) {
		return true
	}
	q.s.count.secondReply.Add(1)
	return false
}

// answer publishes the answer; payload is copied before it returns, by nats.go.
func (q *served) answer(typ string, payload []byte, h natsio.Header) {
	if !q.first() {
		return
	}
	if typ != q.typ+"Response" {
		if h == nil {
			h = make(natsio.Header, 1)
		}
		h[subjects.HeaderType] = []string{typ}
	}
	q.s.count.answered.Add(1)
	q.s.publish(q.l, q.msg.Reply, &natsio.Msg{Header: h, Data: payload})
	q.s.done(q)
}

func (q *served) fail(cause error) {
	if !q.first() {
		return
	}
	q.s.count.failed.Add(1)
	q.s.publish(q.l, q.msg.Reply, &natsio.Msg{Header: natsio.Header{subjects.HeaderError: {cause.Error()}}})
	q.s.done(q)
}
