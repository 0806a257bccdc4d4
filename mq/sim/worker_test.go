package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// worker is the simulated worker.
type worker struct {
	w       *world
	clients mq.Clients
	moods   []int // how often it answers in which way
	later   []*request
	refuses bool // does not take ends (L6.3)
}

var errWorker = errors.New("the simulated worker fails")

// The ways of Worker.Process.
const (
	atOnce = iota
	fails
	never
	keeps
	twice
	panics
	repliesAndPanics
	keepsAndPanics
	keepsAnswersAndPanics
	keepsAndAnswers
	failsAndReplies
	repliesAndFails
	callsBack
	moods
)

// shape gives the worker its temper.
func (k *worker) shape() {
	for i := range moods {
		k.moods = append(k.moods, oneOf(k.w, 0, 1, 1, 2))
		if i == atOnce || i == keeps {
			k.moods[i] = 1 + 6*k.moods[i]
		}
	}
}

func (k *worker) mood() int {
	for {
		if i := k.w.rng.IntN(moods); k.w.rng.IntN(13) < k.moods[i] {
			return i
		}
	}
}

// Attach implements mq.Worker.
func (k *worker) Attach(c mq.Clients) { k.clients = c }

// Process implements mq.Worker.
func (k *worker) Process(r *mq.Request) {
	w := k.w
	q := w.current
	if q == nil || q.called {
		w.fail(nil, "L3.3: the worker gets each request once", "type %s session %s", r.Type, r.SessionID)
	}
	q.called = true
	if r.Conn != q.client.id || r.Type != q.typ || !bytes.Equal(r.Payload, q.body) {
		w.fail(q.client, "L3.3: the worker gets what was sent", "q%d: connection %v type %q payload %.40x", q.serial, r.Conn, r.Type, r.Payload)
	}
	if m := r.Meta(); len(m.Headers) > len(w.mq.MetaHeaders) || !m.Remote.IsValid() {
		w.fail(q.client, "L2.4: what is known of a connection", "%v", m)
	}
	mood := k.mood()
	w.note(q.client, "q%d is processed: mood %d", q.serial, mood)
	switch mood {
	case atOnce:
		k.reply(q, r.Reply)
	case twice:
		k.reply(q, r.Reply)
		r.Reply("sim.A0", []byte("twice"))
	case fails:
		q.want = failed
		r.Fail(errWorker)
	case failsAndReplies:
		q.want = failed
		r.Fail(errWorker)
		r.Reply("sim.A0", []byte("too late"))
	case repliesAndFails:
		k.reply(q, r.Reply)
		r.Fail(errWorker)
	case never:
	case keeps:
		k.keep(q, r)
	case panics:
		q.want = failed
		k.panic()
	case repliesAndPanics:
		k.reply(q, r.Reply)
		k.panic()
	case keepsAndPanics:
		k.keep(q, r)
		q.want, q.posted = failed, true
		k.panic()
	case keepsAnswersAndPanics:
		k.keep(q, r)
		q.later.Reply("sim.A0", []byte("the panic comes first"))
		q.want, q.posted = failed, true
		k.panic()
	case keepsAndAnswers:
		k.keep(q, r)
		k.finish(q)
	case callsBack:
		c := q.client
		switch w.rng.IntN(4) {
		case 0:
			c.serverClose()
		case 1:
			c.sendEvent()
		case 2:
			w.publish()
		case 3:
			c.unsubscribe()
		}
		k.reply(q, r.Reply)
	}
}

func (k *worker) panic() {
	k.w.panics++
	panic(deliberate)
}

func (k *worker) keep(q *request, r *mq.Request) {
	q.later = r.Later()
	k.later = append(k.later, q)
}

// reply answers a request, inside Process or later.
func (k *worker) reply(q *request, send func(typ string, payload []byte)) {
	w := k.w
	q.want = replied
	status := oneOf(w, wire.StatusOK, wire.StatusOK, wire.StatusOK, wire.StatusAlreadyInRoom, wire.StatusFailed)
	switch q.typ {
	case wire.TypeJoinRoom:
		q.reply = (&wire.JoinRoomResponse{Status: status, Room: &wire.Room{RoomID: q.room}}).AppendTo(nil)
	case wire.TypeLeaveRoom:
		q.reply = (&wire.LeaveRoomResponse{Status: status}).AppendTo(nil)
	case wire.TypeFetchRoomConversation:
		q.reply = (&wire.FetchRoomConversationResponse{Status: status}).AppendTo(nil)
	default:
		n := w.rng.IntN(200)
		if w.chance(0.1) {
			n = w.rng.IntN(2 * w.cfg.Endpoints[0].MaxMessage)
		}
		q.reply = pattern(q.serial, n)
	}
	w.sized(len(q.reply))
	send(fmt.Sprintf("sim.A%d", q.serial), q.reply)
	k.effect(q, status)
}

// sized notes the size of a message on its way to a client.
func (w *world) sized(payload int) { w.maxMessage = max(w.maxMessage, (payload+300)*4/3+14) }

// effect is what a successful request does to the subscriptions (L3.8). Everything that changes them is a task of the
// loop, so they change in the order in which the worker spoke.
func (k *worker) effect(q *request, status string) {
	c := q.client
	if !c.open || status != wire.StatusOK && !(q.typ == wire.TypeJoinRoom && status == wire.StatusAlreadyInRoom) {
		return
	}
	switch {
	case q.typ == wire.TypeJoinRoom:
		c.join(mq.Topic{Kind: mq.TopicRoom, Room: q.room}, q.late)
	case q.fetch:
		c.join(mq.Topic{Kind: mq.TopicConversation, Room: q.room}, q.late)
	case q.typ == wire.TypeLeaveRoom:
		for _, kind := range []mq.TopicKind{mq.TopicRoom, mq.TopicConversation} {
			c.leave(mq.Topic{Kind: kind, Room: q.room}, q.late)
		}
	}
}

// join subscribes in the model; late: maybe.
func (c *client) join(t mq.Topic, late bool) {
	if c.topics == nil {
		c.topics = make(map[mq.Topic]sureness)
	}
	if !late {
		c.topics[t] = sure
	} else if c.topics[t] == 0 {
		c.topics[t] = maybe
	}
}

func (c *client) leave(t mq.Topic, late bool) {
	if !late {
		delete(c.topics, t)
	} else if c.topics[t] == sure {
		c.topics[t] = maybe
	}
}

// complete answers one of the requests that the worker has kept, or one that is answered already.
func (w *world) complete() {
	k := w.wk
	if len(k.later) == 0 {
		return
	}
	i := w.rng.IntN(len(k.later))
	if w.chance(0.5) {
		i = len(k.later) - 1
	}
	q := k.later[i]
	if q.posted {
		if w.chance(0.5) {
			q.later.Reply("sim.A0", []byte("once more"))
		} else {
			q.later.Fail(nil)
		}
		if w.chance(0.7) {
			k.later = slices.Delete(k.later, i, i+1)
		}
		return
	}
	k.finish(q)
}

// finish answers a request that the worker has kept. In time is what is posted before the timeout: tasks come before timers.
func (k *worker) finish(q *request) {
	w := k.w
	q.posted = true
	q.late = w.now() >= q.start+int64(w.mq.RequestTimeout)
	w.note(q.client, "q%d is answered, late %v", q.serial, q.late)
	if w.chance(0.15) {
		q.want = failed
		q.later.Fail(errWorker)
		return
	}
	k.reply(q, q.later.Reply)
}

// Disconnected implements mq.Worker.
func (k *worker) Disconnected(d mq.Disconnect) error {
	w := k.w
	c := w.byID[d.Conn]
	if c == nil || c.ended != 1 || c.told != 0 {
		w.fail(c, "L6.1: the worker is told once of every end", "%+v", d)
	}
	if d.Code != c.end.Code || d.Description != c.reason || d.Duration != time.Duration(c.end.NS) {
		w.fail(c, "L6.1: the worker is told how it ended", "%+v, OnClose said %d %q", d, c.end.Code, c.reason)
	}
	if k.refuses && !w.shut {
		return errWorker
	}
	if w.chance(0.05) {
		c.offers++
		k.panic()
	}
	c.told++
	if w.chance(0.1) {
		w.publish()
	}
	return nil
}

// RoundTrip implements mq.Worker.
func (k *worker) RoundTrip(id conn.ID, rtt time.Duration) {
	c := k.w.byID[id]
	if c == nil || !c.open || rtt < 0 {
		k.w.fail(c, "L7.4: round trips of open connections", "%v", rtt)
	}
	if k.w.chance(0.02) {
		k.panic()
	}
}

func (w *world) publishing() {
	w.wk.refuses = w.chance(0.4)
	w.note(nil, "the worker takes ends: %v", !w.wk.refuses)
}

// publish sends an event to all subscribers of a topic.
func (w *world) publish() {
	t := mq.Topic{Kind: mq.TopicKind(w.rng.IntN(2)), Room: fmt.Sprintf("room%d", w.rng.IntN(3))}
	serial, n := w.nextSerial(), w.rng.IntN(100)
	if w.chance(0.1) {
		n = w.rng.IntN(2 * w.cfg.Endpoints[0].MaxMessage)
	}
	w.sized(n)
	w.wk.clients.Publish(t, fmt.Sprintf("sim.E%d", serial), pattern(serial, n))
	for _, c := range w.alive {
		if s := c.topics[t]; s != 0 {
			c.expect(serial, s == maybe)
		}
	}
}

func (w *world) nextSerial() int {
	w.serial++
	return w.serial
}

func (c *client) expect(serial int, maybe bool) {
	c.w.note(c, "is sent number %d, maybe %v", serial, maybe)
	c.expected = append(c.expected, expected{serial, maybe})
}

// sendEvent sends an event to one client.
func (c *client) sendEvent() {
	w := c.w
	if c.opened == 0 || c.echo {
		return
	}
	serial, n := w.nextSerial(), w.rng.IntN(100)
	w.sized(n)
	if c.open {
		c.expect(serial, false)
	}
	calls := 0
	w.wk.clients.SendEvent(c.id, fmt.Sprintf("sim.E%d", serial), pattern(serial, n), func(err error) {
		if calls++; calls > 1 {
			w.fail(c, "L4.1: callbacks are called once", "%v", err)
		}
		w.checkRefusal(c, err)
		if err != mq.ErrNotFound && w.chance(0.03) {
			w.wk.panic()
		}
	})
}

// checkRefusal checks the error of something sent to a client (L4.2).
func (w *world) checkRefusal(c *client, err error) {
	found := w.regs[c.loop].Find(c.id)
	good := false
	switch err {
	case nil:
		good = found != nil
	case mq.ErrNotOpen:
		good = found == nil || found.State() != conn.Open
	case mq.ErrNotFound, mq.ErrConnectionClosed:
		good = found == nil
	}
	if !good {
		w.fail(c, "L4.2: not found, not opened", "%v; the connection is there: %v", err, found != nil)
	}
}

// sendRequest sends a request to one client.
func (c *client) sendRequest() {
	w := c.w
	if c.opened == 0 || c.echo {
		return
	}
	a := &ask{serial: w.nextSerial(), client: c, at: w.now(), stalled: w.stalled}
	w.asks = append(w.asks, a)
	n := w.rng.IntN(100)
	w.sized(n)
	if c.open {
		c.expect(a.serial, false)
	}
	w.wk.clients.SendRequest(c.id, fmt.Sprintf("sim.Q%d", a.serial), pattern(a.serial, n), func(r mq.Response, err error) {
		w.note(c, "request %d of the server is over: %v", a.serial, err)
		if a.calls++; a.calls > 1 {
			w.fail(c, "L4.1: server requests resolve once", "number %d: %v", a.serial, err)
		}
		switch err {
		case nil:
			if !a.sent || r.Type != fmt.Sprintf("sim.R%d", a.serial) || !bytes.Equal(r.Payload, pattern(a.serial, len(r.Payload))) {
				w.fail(c, "L4.1: resolved by that client's Response only", "number %d: type %s payload %x, answered %v", a.serial, r.Type, r.Payload, a.sent)
			}
		case mq.ErrTimeout:
			if w.now() < a.at+int64(w.mq.ServerRequestTimeout) {
				w.fail(c, "L4.3: timeouts are never early", "number %d after %v", a.serial, d(w.now()-a.at))
			}
		default:
			w.checkRefusal(c, err)
		}
		if err != mq.ErrNotFound && w.chance(0.03) {
			w.wk.panic()
		}
	})
}

// serverClose has the worker close a connection, sometimes with a code that cannot be sent.
func (c *client) serverClose() {
	w := c.w
	if c.opened == 0 {
		return
	}
	code := oneOf(w, uint16(1000), 1001, 4000, 4999, 3000, 0, 1004, 1005, 1006, 1015, 5000)
	w.note(c, "is closed by the worker with %d", code)
	calls := 0
	w.wk.clients.CloseConnection(c.id, code, oneOf(w, "", "the worker says so", string(bytes.Repeat([]byte("\u20ac"), 60))), func(ok bool) {
		found := w.regs[c.loop].Find(c.id)
		if calls++; calls > 1 || ok != (found != nil && found.State() == conn.Closing && c.closingAt == 0) && c.closingAt == 0 && ok {
			w.fail(c, "L5.2: closed or not", "%v, call %d", ok, calls)
		}
		if ok && w.chance(0.05) {
			w.wk.panic()
		}
	})
}

// unsubscribe ends one subscription of a client, or all.
func (c *client) unsubscribe() {
	w := c.w
	if c.opened == 0 || c.echo {
		return
	}
	if w.chance(0.3) {
		w.wk.clients.UnsubscribeAll(c.id)
		clear(c.topics)
		return
	}
	t := mq.Topic{Kind: mq.TopicKind(w.rng.IntN(2)), Room: c.anyRoom()}
	w.wk.clients.Unsubscribe(c.id, t)
	delete(c.topics, t)
}

func (w *world) endTopic() {
	t := mq.Topic{Kind: mq.TopicKind(w.rng.IntN(2)), Room: fmt.Sprintf("room%d", w.rng.IntN(3))}
	w.wk.clients.EndTopic(t)
	for _, c := range w.alive {
		delete(c.topics, t)
	}
}

// nobody addresses connections that are gone or never were.
func (w *world) nobody() {
	id := conn.ID{1, 2, 3}
	for _, c := range w.clients {
		if c.ended > 0 && w.chance(0.3) {
			id = c.id
		}
	}
	if w.chance(0.2) {
		id[20] ^= 1 // forged
	}
	calls := 0
	check := func(ok bool) {
		if calls++; calls > 1 || !ok {
			w.fail(w.byID[id], "L4.2: not found", "%v, call %d", ok, calls)
		}
	}
	cl := w.wk.clients
	switch w.rng.IntN(4) {
	case 0:
		cl.SendEvent(id, "sim.E0", nil, func(err error) { check(err == mq.ErrNotFound) })
		cl.SendEvent(id, "sim.E0", nil, nil)
	case 1:
		cl.SendRequest(id, "sim.Q0", nil, func(_ mq.Response, err error) { check(err == mq.ErrNotFound) })
		cl.SendRequest(id, "sim.Q0", nil, func(mq.Response, error) { panic(deliberate) }) // counted for no loop
	case 2:
		cl.CloseConnection(id, 1000, "", func(ok bool) { check(!ok) })
		cl.CloseConnection(id, 1000, "", nil)
	case 3:
		cl.UnsubscribeAll(id)
		cl.Unsubscribe(id, mq.Topic{Room: "room0"})
	}
}
