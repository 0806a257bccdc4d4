package mq

import (
	"errors"
	"strconv"
	"strings"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

// serverRequest is a request of the server that a client has not answered (L4.1). After its timeout it stays as long
// again, so that a late Response is known for what it is (L4.3).
type serverRequest struct {
	conn       conn.Ref
	client     uint32
	next, prev uint32 // chain of the client's
	number     uint64 // of its request id, "S" + number
	sent       int64  // [ns]
	done       func(Response, error)
}

type serverRequests struct {
	slab[serverRequest]
	timers *loop.Timers
	last   uint64 // number of the last request id
}

// ErrTooMany: more requests wait for clients than this gateway keeps; the worker sent faster than clients answer.
var ErrTooMany = errors.New("too many requests of the server wait for their answers")

// SendEvent implements Clients (L4.1, L4.2). Safe from any goroutine.
func (g *Gateway) SendEvent(id conn.ID, typ string, payload []byte, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	typ, payload = strings.Clone(typ), append([]byte(nil), payload...)
	g.server.Do(id, func(c *conn.Conn) {
		defer g.survive(c, "a callback of SendEvent")
		if c == nil {
			done(ErrNotFound)
			return
		}
		env := wire.Envelope{Type: typ, Payload: payload, MessageType: wire.Event}
		if !g.shardOf(c).send(c, &env) {
			notOpened(c)
			done(ErrNotOpen)
			return
		}
		done(nil)
	})
}

// survive is deferred around callbacks of the worker, as shard.survive. c may be nil: then this may be any goroutine, and
// no shard's counters can be touched.
func (g *Gateway) survive(c *conn.Conn, where string) {
	if p := recover(); p == nil {
		return
	} else if c != nil {
		g.shardOf(c).panicked(p, where)
	} else {
		g.logPanic(p, where, 0)
	}
}

// notOpened is what a send to a connection that is not open leads to (L4.4). The worker hears of it by the one
// publication of L6.1.
func notOpened(c *conn.Conn) { _ = c.CloseFor(conn.CauseSendError) }

// SendRequest implements Clients (L4.1). Safe from any goroutine.
func (g *Gateway) SendRequest(id conn.ID, typ string, payload []byte, done func(Response, error)) {
	if done == nil {
		done = func(Response, error) {}
	}
	typ, payload = strings.Clone(typ), append([]byte(nil), payload...)
	g.server.Do(id, func(c *conn.Conn) {
		defer g.survive(c, "a callback of SendRequest")
		if c == nil {
			done(Response{}, ErrNotFound)
			return
		}
		g.shardOf(c).sendRequest(c, typ, payload, done)
	})
}

func (s *shard) sendRequest(c *conn.Conn, typ string, payload []byte, done func(Response, error)) {
	if s.waiting.len() >= maxServerRequests {
		s.stats.ServerRequests[OutcomeFailed]++
		done(Response{}, ErrTooMany)
		return
	}
	s.waiting.last++
	var id [1 + 20]byte
	env := wire.Envelope{RequestID: string(strconv.AppendUint(append(id[:0], 'S'), s.waiting.last, 10)), Type: typ, Payload: payload,
		MessageType: wire.Request}
	// Registered before it is sent; nothing can come in between, since both happen in one call on the loop.
	if !s.send(c, &env) {
		s.stats.ServerRequests[OutcomeDropped]++
		notOpened(c)
		done(Response{}, ErrNotOpen)
		return
	}
	i, w := s.waiting.take()
	number, cl := s.needClient(c)
	*w = serverRequest{conn: cl.conn, client: number, next: cl.waiting, number: s.waiting.last, sent: s.loop.Now(), done: done}
	if cl.waiting != 0 {
		s.waiting.at(cl.waiting).prev = i
	}
	cl.waiting = i
	s.byNumber[w.number] = i
	s.stats.ServerWaiting++
	s.waiting.timers.Set(i, w.sent+int64(s.g.cfg.ServerRequestTimeout))
}

// resolve handles a Response of a client (L3.9).
func (s *shard) resolve(c *conn.Conn, env *wire.Envelope) {
	i, ok := s.numbered(env.RequestID)
	if !ok || s.waiting.at(i).conn != c.Ref() { // nobody else's Response resolves it
		s.drop(DropUnknownResponse, c, env.RequestID)
		return
	}
	done := s.waiting.at(i).done
	s.freeServerRequest(i)
	if done == nil {
		s.drop(DropLateResponse, c, env.RequestID)
	} else {
		s.stats.ServerRequests[OutcomeOK]++
		s.stats.ServerWaiting--
		s.tell(done, Response{Type: env.Type, Payload: env.Payload, WallTime: env.WallTime}, nil)
	}
	if k, cl := s.clientOf(c); cl != nil {
		s.freeIfIdle(c, k, cl)
	}
}

// tell calls the callback of a server request.
func (s *shard) tell(done func(Response, error), r Response, err error) {
	defer s.survive("a callback of SendRequest")
	done(r, err)
}

// numbered finds the server request with that request id.
func (s *shard) numbered(id string) (uint32, bool) {
	if len(id) < 2 || len(id) > 1+20 || id[0] != 'S' || id[1] < '1' || id[1] > '9' {
		return 0, false // not one of ours, whatever it would be read as
	}
	n, err := strconv.ParseUint(id[1:], 10, 64)
	if err != nil {
		return 0, false
	}
	i, ok := s.byNumber[n]
	return i, ok
}

// serverRequestTimer is the timer of a server request: the first time it has timed out, the second time it is forgotten.
func (s *shard) serverRequestTimer(i uint32) {
	w := s.waiting.at(i)
	if done := w.done; done != nil {
		w.done = nil
		s.waiting.timers.Set(i, w.sent+2*int64(s.g.cfg.ServerRequestTimeout))
		s.stats.ServerRequests[OutcomeTimeout]++
		s.stats.ServerWaiting--
		if c := s.registry.Get(w.conn); c != nil {
			s.g.cfg.Log.Warn("a client has not answered a request of the server", "id", c.ID().String(), "request", w.number)
		}
		s.tell(done, Response{}, ErrTimeout)
		return
	}
	c := s.registry.Get(w.conn)
	s.freeServerRequest(i)
	if c != nil {
		if k, cl := s.clientOf(c); cl != nil {
			s.freeIfIdle(c, k, cl)
		}
	}
}

func (s *shard) freeServerRequest(i uint32) {
	w := s.waiting.at(i)
	cl := s.clients.at(w.client)
	if w.prev != 0 {
		s.waiting.at(w.prev).next = w.next
	} else {
		cl.waiting = w.next
	}
	if w.next != 0 {
		s.waiting.at(w.next).prev = w.prev
	}
	delete(s.byNumber, w.number)
	s.waiting.timers.Cancel(i)
	*w = serverRequest{}
	s.waiting.free(i)
}

// failServerRequests tells those who wait for a connection that has ended (L4.3).
func (s *shard) failServerRequests(cl *client) {
	for cl.waiting != 0 {
		done := s.waiting.at(cl.waiting).done
		s.freeServerRequest(cl.waiting)
		if done != nil {
			s.stats.ServerRequests[OutcomeDropped]++
			s.stats.ServerWaiting--
			s.tell(done, Response{}, ErrConnectionClosed)
		}
	}
}

// CloseConnection implements Clients (L5.2). Safe from any goroutine.
func (g *Gateway) CloseConnection(id conn.ID, code uint16, reason string, done func(bool)) {
	if done == nil {
		done = func(bool) {}
	}
	reason = strings.Clone(reason)
	g.server.Do(id, func(c *conn.Conn) {
		defer g.survive(c, "a callback of CloseConnection")
		if c == nil {
			g.cfg.Log.Warn("close: no such connection", "id", id.String())
			done(false)
			return
		}
		err := c.Close(int(code), reason, conn.CauseLocal)
		if err != nil {
			g.cfg.Log.Warn("close refused", "id", id.String(), "err", err)
		}
		done(err == nil)
	})
}

// Description is what an operator may see of a connection.
type Description struct {
	Requests int      // of the client, at the worker
	Rooms    []string // rooms it is subscribed to
}

// Describe describes a connection. On its loop's goroutine.
func (g *Gateway) Describe(c *conn.Conn) Description {
	d := Description{Rooms: []string{}}
	if _, cl := g.shardOf(c).clientOf(c); cl != nil {
		d.Requests = int(cl.inFlight)
		for _, sub := range cl.topics {
			if sub.topic.name.Kind == TopicRoom {
				d.Rooms = append(d.Rooms, sub.topic.name.Room)
			}
		}
	}
	return d
}
