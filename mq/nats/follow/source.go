package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// source is the stream of rooms and what it publishes.
type source struct {
	links []*link
	names subjects.Names

	direct, get, info string // subjects of JetStream's interface

	stopped chan struct{}
	watches sync.WaitGroup
}

// link is a connection, and a context that ends when it is lost: an answer to what was asked before will not come. It has
// its own requests to the stream, so that those of one link on which nothing answers hold up no other one.
type link struct {
	*nats.Conn
	missed chan struct{} // capacity 1: records may have been missed over it
	leader *nats.Subscription
	status chan nats.Status
	more   chan struct{} // one entry when there may be jobs

	mu   sync.Mutex
	jobs []func(ctx context.Context)
	ctx  context.Context
	lose context.CancelFunc
}

func newLink(nc *nats.Conn) *link {
	l := &link{Conn: nc, missed: make(chan struct{}, 1), more: make(chan struct{}, 1)}
	l.renew()
	return l
}

// renew begins the context of a connection that may be lost again, and ends the one before.
func (l *link) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose != nil {
		l.lose()
	}
	l.ctx, l.lose = context.WithCancel(context.Background())
}

// within returns ctx with a timeout, which also ends when the connection is lost.
func (l *link) within(ctx context.Context) (context.Context, context.CancelFunc) {
	l.mu.Lock()
	lost := l.ctx
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	stop := context.AfterFunc(lost, cancel)
	return ctx, func() { stop(); cancel() }
}

func newSource(conns []*nats.Conn, names subjects.Names) *source {
	stream := names.RoomsStream()
	links := make([]*link, len(conns))
	for i, nc := range conns {
		links[i] = newLink(nc)
	}
	return &source{links: links, names: names, stopped: make(chan struct{}),
		direct: "$JS.API.DIRECT.GET." + stream, get: "$JS.API.STREAM.MSG.GET." + stream, info: "$JS.API.STREAM.INFO." + stream}
}

// watch lets each link say in missed that records may have been missed: it is back, or the stream has a new leader. Several
// such events may be one. Every link listens to the leader for itself, so that none depends on another one.
func (n *source) watch() error {
	for i, l := range n.links {
		var err error
		if l.leader, err = l.Subscribe(subjects.LeaderElected(n.names.RoomsStream()), func(*nats.Msg) { l.miss() }); err != nil {
			for _, l := range n.links[:i] {
				_ = l.leader.Unsubscribe() // as in runner.subscribe
			}
			return fmt.Errorf("follow: subscribe to changes of the stream's leader: %w", err)
		}
	}
	for _, l := range n.links {
		l.status = l.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
		n.watches.Go(func() {
			for {
				select {
				case status, ok := <-l.status:
					if !ok {
						return // the connection is closed
					}
					if status == nats.CONNECTED {
						l.miss()
					} else {
						l.renew()
					}
				case <-n.stopped:
					return
				}
			}
		})
	}
	return nil
}

func (l *link) miss() {
	select {
	case l.missed <- struct{}{}:
	default: // it says so already
	}
}

func (n *source) unwatch() {
	close(n.stopped)
	n.watches.Wait()
	for _, l := range n.links {
		_ = l.leader.Unsubscribe() // as in runner.subscribe
		l.RemoveStatusListener(l.status)
		l.lose()
	}
}

// put has a job done by one of the goroutines in work, in its turn.
func (l *link) put(job func(ctx context.Context)) {
	l.mu.Lock()
	l.jobs = append(l.jobs, job)
	l.mu.Unlock()
	l.tellMore()
}

func (l *link) tellMore() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// work does jobs until ctx is done.
func (l *link) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.more:
		}
		l.mu.Lock()
		var job func(context.Context)
		if len(l.jobs) > 0 {
			job, l.jobs[0] = l.jobs[0], nil
			l.jobs = l.jobs[1:]
		}
		left := len(l.jobs)
		l.mu.Unlock()
		if left > 0 {
			l.tellMore()
		}
		if job != nil {
			job(ctx)
		}
	}
}

// published reads what came on the subject of a room.
func published(m *nats.Msg) Record {
	rec := Record{Data: m.Data}
	if rec.Seq = number(m.Header, subjects.HeaderSequence); rec.Seq != 0 {
		rec.Prev = rec.Seq - 1 // not known: a gap, unless they follow each other in the stream
		if m.Header[subjects.HeaderLastSequence] != nil {
			rec.Prev = min(rec.Prev, number(m.Header, subjects.HeaderLastSequence))
		}
	}
	return rec
}

// number returns a header that is a number, or 0.
func number(h nats.Header, name string) uint64 {
	if v := h[name]; len(v) > 0 {
		if n, err := strconv.ParseUint(v[0], 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// getRequest is a request for messages of a stream, in the words of JetStream's interface.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// logOf returns the subject of the log of a room from the subject of the room.
func (n *source) logOf(subject string) (string, error) {
	token, ok := n.names.TokenOfRoom(subject)
	if !ok {
		return "", fmt.Errorf("%q is not the subject of a room", subject)
	}
	return n.names.LogOf(token), nil
}

// fetch does a fetchJob. Records that came before an error are an answer.
func (n *source) fetch(ctx context.Context, l *link, j *fetchJob) {
	log, err := n.logOf(j.room.subject)
	if err != nil {
		j.err = err
		return
	}
	req := getRequest{Seq: j.after + 1, NextFor: log}
	if j.truth {
		j.recs, j.err = n.ask(ctx, l, req)
		return
	}
	req.Batch, req.MaxBytes = fetchRecords, fetchBytes
	_, j.err = n.many(ctx, l, req, func(m *nats.Msg) {
		j.recs = append(j.recs, Record{Seq: number(m.Header, subjects.HeaderSequence),
			Prev: number(m.Header, subjects.HeaderExpectedLast), Data: m.Data})
	})
	if len(j.recs) > 0 {
		j.err = nil
	}
}

// check does a checkJob.
func (n *source) check(ctx context.Context, l *link, j *checkJob) {
	req := getRequest{Seq: j.after + 1, MaxBytes: fetchBytes}
	for _, subject := range j.subjects {
		log, err := n.logOf(subject)
		if err != nil {
			j.err = err
			return
		}
		req.MultiLast = append(req.MultiLast, log)
	}
	for {
		end, err := n.many(ctx, l, req, func(m *nats.Msg) {
			token, ok := strings.CutPrefix(m.Header.Get(headerSubject), n.names.LogOf(""))
			rec := Record{Subject: n.names.RoomOf(token), Seq: number(m.Header, subjects.HeaderSequence), Data: m.Data}
			if !ok || rec.Seq == 0 {
				return
			}
			rec.Prev = rec.Seq - 1
			if m.Header[subjects.HeaderExpectedLast] != nil {
				rec.Prev = min(rec.Prev, number(m.Header, subjects.HeaderExpectedLast))
			}
			j.recs = append(j.recs, rec)
			req.Seq = rec.Seq + 1
		})
		if err != nil {
			j.err = err
			return
		}
		if end == nil { // the stream has nothing of these rooms
			return
		}
		if number(end, headerPending) == 0 {
			j.upTo = number(end, headerUpTo)
			return
		}
	}
}

// Headers of answers that only this file reads.
const (
	headerSubject = "Nats-Subject"
	headerPending = "Nats-Num-Pending"
	headerUpTo    = "Nats-UpTo-Sequence"
	headerStatus  = "Status"
	headerWhy     = "Description"
)

var errAway = errors.New("not connected to NATS")

// lostIs returns errAway for the end of a context that came with the end of a connection.
func lostIs(err error) error {
	if errors.Is(err, context.Canceled) {
		return errAway
	}
	return err
}

// many sends a request for several messages and calls each with every one. It returns the header of the end, nil when
// there is no such message.
func (n *source) many(ctx context.Context, nc *link, req getRequest, each func(m *nats.Msg)) (nats.Header, error) {
	if !nc.IsConnected() { // else it would be sent when nobody waits any more
		return nil, errAway
	}
	ctx, cancel := nc.within(ctx)
	defer cancel()
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // as in runner.subscribe
	if err := nc.PublishRequest(n.direct, inbox, body); err != nil {
		return nil, err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, lostIs(err)
		}
		switch status := m.Header.Get(headerStatus); status {
		case "":
			each(m)
		case "204": // the end
			return m.Header, nil
		case "404": // nothing
			return nil, nil
		default:
			return nil, fmt.Errorf("stream %s: %s %s", n.names.RoomsStream(), status, m.Header.Get(headerWhy))
		}
	}
}

// apiError is an error in the words of JetStream's interface.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// errCodeNoMessage is what JetStream says when it has no such message. (No such stream is another one.)
const errCodeNoMessage = 10037

// ask asks the leader of the stream for one message, and returns none when the leader has none.
func (n *source) ask(ctx context.Context, nc *link, req getRequest) ([]Record, error) {
	var answer struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := n.api(ctx, nc, n.get, req, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrCode == errCodeNoMessage:
		return nil, nil
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, fmt.Errorf("stream %s: an answer without a message", n.names.RoomsStream())
	}
	rec := Record{Seq: answer.Message.Seq, Data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(slices.Clip(answer.Message.Header))
		if err != nil {
			return nil, err
		}
		rec.Prev = number(h, subjects.HeaderExpectedLast)
	}
	return []Record{rec}, nil
}

// created returns when the stream was made. The first link that is connected asks.
func (n *source) created(ctx context.Context) (time.Time, error) {
	var answer struct {
		Error   *apiError `json:"error"`
		Created time.Time `json:"created"`
	}
	l := n.links[0]
	for _, other := range n.links {
		if other.IsConnected() {
			l = other
			break
		}
	}
	err := n.api(ctx, l, n.info, struct{}{}, &answer)
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	return answer.Created, err
}

// api sends a request of JetStream's interface and reads its answer.
func (n *source) api(ctx context.Context, nc *link, subject string, req, answer any) error {
	if !nc.IsConnected() {
		return errAway
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	ctx, cancel := nc.within(ctx)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return lostIs(err)
	}
	return json.Unmarshal(m.Data, answer)
}
