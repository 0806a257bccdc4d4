package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Clients implements mq.Clients for a worker process: what is told to a connection goes to the gateway that holds it, by
// the node number in the connection's id; events go to the gateways with subscribers. Callbacks run on a goroutine of the
// Clients and must not block. All methods are safe from any goroutine; what one goroutine tells one connection arrives in
// that order. They may wait while NATS takes nothing, for as long as a write may take.
type Clients struct {
	c       *Conn
	inbox   string // beginning of the subjects for answers
	subs    []*natsio.Subscription
	timeout time.Duration

	last    atomic.Uint64
	mu      sync.Mutex
	calls   map[uint64]*call
	oldest  *call // in the order in which they time out
	newest  *call
	closed  bool
	stopped chan struct{}
	done    sync.WaitGroup
}

// call is something for which an answer of a gateway is awaited.
type call struct {
	token      uint64
	until      int64 // [ns, Conn.now]
	via        *dialed
	done       func(*natsio.Msg, error)
	next, prev *call
}

var (
	_ mq.Clients = (*Clients)(nil)
	_ mq.Binder  = (*Clients)(nil)
)

// NewClients returns Clients on c. The caller ends it with Close. For Services, and for processes that only talk to
// clients.
func NewClients(c *Conn) (*Clients, error) {
	x := &Clients{c: c, inbox: natsio.InboxPrefix + nuid.Next() + ".", timeout: DefaultCallTimeout, calls: make(map[uint64]*call),
		stopped: make(chan struct{})}
	for i, l := range c.links {
		in := make(chan *natsio.Msg, maxInbox)
		sub, err := l.nc.ChanSubscribe(x.inbox+strconv.Itoa(i)+".*", in)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("nats: subscription for answers: %w", err), x.Close())
		}
		x.subs = append(x.subs, sub)
		x.done.Go(func() { x.receive(in) })
		l.watch(watcher{lost: x.linkLost, back: func(*link) {}})
	}
	x.done.Go(x.purge)
	return x, nil
}

// Close ends the Clients: what waits for an answer is told that there will be none.
func (x *Clients) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	close(x.stopped)
	x.mu.Unlock()
	for _, sub := range x.subs {
		_ = sub.Unsubscribe() // the connection is closed or away: then there is nothing to end
	}
	x.done.Wait()
	x.end(func(*call) bool { return true }, errClientsClosed)
	return nil
}

var (
	errClientsClosed = errors.New("nats: clients are closed")
	errNodeLost      = errors.New("nats: NATS connection lost before the gateway's answer came")
)

// tell sends a command to the gateway of a connection. done may be nil: then nobody answers.
func (x *Clients) tell(id conn.ID, command subjects.Command, h natsio.Header, payload []byte, done func(*natsio.Msg, error)) {
	l := x.c.linkOf(id)
	h[subjects.HeaderConnection] = []string{id.String()}
	m := &natsio.Msg{Subject: x.c.names.Gateway(id.Node(), command), Header: h, Data: payload}
	var c *call
	if done != nil {
		c = &call{token: x.last.Add(1), until: x.c.now() + int64(x.timeout), via: l.current.Load(), done: done}
		if err := x.add(c); err != nil {
			done(nil, err)
			return
		}
		m.Reply = x.inbox + strconv.Itoa(l.index) + "." + strconv.FormatUint(c.token, 36)
	}
	if err := l.nc.PublishMsg(m); err != nil && c != nil && x.take(c.token) != nil {
		done(nil, fmt.Errorf("nats: command to a gateway: %w", err))
	}
}

func (x *Clients) add(c *call) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed:
		return errClientsClosed
	case len(x.calls) >= maxCalls:
		return mq.ErrTooMany
	}
	x.calls[c.token] = c
	if x.newest != nil {
		c.prev, x.newest.next = x.newest, c
	} else {
		x.oldest = c
	}
	x.newest = c
	return nil
}

// take takes a call out; nil when somebody else has done so.
func (x *Clients) take(token uint64) *call {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.calls[token]
	if c != nil {
		x.remove(c)
	}
	return c
}

func (x *Clients) remove(c *call) {
	delete(x.calls, c.token)
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		x.oldest = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		x.newest = c.prev
	}
}

// end ends the calls for which which holds, from the oldest to the first one for which it does not.
func (x *Clients) end(which func(*call) bool, err error) {
	for {
		x.mu.Lock()
		c := x.oldest
		if c == nil || !which(c) {
			x.mu.Unlock()
			return
		}
		x.remove(c)
		x.mu.Unlock()
		c.done(nil, err)
	}
}

func (x *Clients) receive(in <-chan *natsio.Msg) {
	for {
		select {
		case <-x.stopped:
			return
		case m := <-in:
			token, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
			if err != nil {
				continue // not an answer to anything of ours
			}
			c := x.take(token)
			switch {
			case c == nil: // too late
			case noResponders(m):
				c.done(nil, mq.ErrNotFound) // no gateway with that number
			case header(m, subjects.HeaderError) != "":
				c.done(nil, errorOf(header(m, subjects.HeaderError)))
			default:
				c.done(m, nil)
			}
		}
	}
}

// errorOf returns the error with a text that a gateway has sent.
func errorOf(text string) error {
	for _, err := range []error{mq.ErrNotFound, mq.ErrNotOpen, mq.ErrTimeout, mq.ErrConnectionClosed, mq.ErrTooMany} {
		if err.Error() == text {
			return err
		}
	}
	return errors.New("gateway: " + text)
}

func (x *Clients) purge() {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.stopped:
			return
		case <-tick.C:
			now := x.c.now()
			x.end(func(c *call) bool { return c.until <= now }, mq.ErrTimeout)
		}
	}
}

// linkLost ends the calls whose answers cannot come any more.
func (x *Clients) linkLost(*link) {
	x.mu.Lock()
	var lost []*call
	for c := x.oldest; c != nil; c = c.next {
		if c.via != nil && c.via.isClosed() {
			lost = append(lost, c)
		}
	}
	x.mu.Unlock()
	for _, c := range lost {
		if x.take(c.token) != nil {
			c.done(nil, errNodeLost)
		}
	}
}

// justError makes a callback of one that only wants the error.
func justError(done func(error)) func(*natsio.Msg, error) {
	if done == nil {
		return nil
	}
	return func(_ *natsio.Msg, err error) { done(err) }
}

// SendEvent implements mq.Clients.
func (x *Clients) SendEvent(id conn.ID, typ string, payload []byte, done func(error)) {
	x.tell(id, subjects.CommandEvent, natsio.Header{subjects.HeaderType: {typ}}, payload, justError(done))
}

// SendRequest implements mq.Clients.
func (x *Clients) SendRequest(id conn.ID, typ string, payload []byte, done func(mq.Response, error)) {
	if done == nil {
		done = func(mq.Response, error) {}
	}
	x.tell(id, subjects.CommandRequest, natsio.Header{subjects.HeaderType: {typ}}, payload, func(m *natsio.Msg, err error) {
		if err != nil {
			done(mq.Response{}, err)
			return
		}
		ms, err := strconv.ParseFloat(header(m, HeaderWallTime), 64)
		if err != nil {
			ms = 0 // not known
		}
		done(mq.Response{Type: header(m, subjects.HeaderType), Payload: m.Data, WallTime: ms}, nil)
	})
}

// Unsubscribe implements mq.Clients.
func (x *Clients) Unsubscribe(id conn.ID, t mq.Topic) {
	for name, kind := range topicKinds {
		if kind == t.Kind {
			x.tell(id, subjects.CommandUnsubscribe, natsio.Header{HeaderTopic: {name}}, []byte(t.Room), nil)
		}
	}
}

// UnsubscribeAll implements mq.Clients.
func (x *Clients) UnsubscribeAll(id conn.ID) {
	x.tell(id, subjects.CommandUnsubscribeAll, natsio.Header{}, nil, nil)
}

// CloseConnection implements mq.Clients. done also gets false when the gateway could not be asked.
func (x *Clients) CloseConnection(id conn.ID, code uint16, reason string, done func(bool)) {
	var answer func(*natsio.Msg, error)
	if done != nil {
		answer = func(_ *natsio.Msg, err error) { done(err == nil) }
	}
	x.tell(id, subjects.CommandClose, natsio.Header{subjects.HeaderCode: {strconv.Itoa(int(code))}}, []byte(reason), answer)
}

// Bind implements mq.Binder. When the session changes, the connection loses its subscriptions.
func (x *Clients) Bind(id conn.ID, old, session string, done func(error)) {
	x.tell(id, subjects.CommandBind, natsio.Header{subjects.HeaderBind: {session}, HeaderBound: {old}}, nil, justError(done))
}

// Publish implements mq.Clients. The event is in no log: who follows the room at that moment gets it.
func (x *Clients) Publish(t mq.Topic, typ string, payload []byte) {
	x.record(t.Room, &record.Record{Events: []record.Event{{Topic: t.Kind, Type: typ, Payload: payload}}})
}

// EndTopic implements mq.Clients, but for both topics of the room at once: the topic of the room itself ends both, that of
// its conversation alone none.
func (x *Clients) EndTopic(t mq.Topic) {
	if t.Kind == mq.TopicRoom {
		x.record(t.Room, &record.Record{End: true})
	}
}

func (x *Clients) record(room string, r *record.Record) {
	if room == "" {
		return // nobody is subscribed to that
	}
	// Lost when NATS takes it not: so is what is published where nobody is subscribed.
	_ = x.c.links[0].nc.Publish(x.c.names.Room(room), r.AppendTo(make([]byte, 0, r.Size())))
}

// Flush waits until the server has everything that was told before.
func (x *Clients) Flush(ctx context.Context) error {
	for _, l := range x.c.links {
		if err := flush(ctx, l); err != nil {
			return err
		}
	}
	return nil
}
