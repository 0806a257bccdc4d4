package mq

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
)

// Config is the configuration of a Gateway.
type Config struct {
	Worker               Worker
	RequestTimeout       time.Duration // L3.4
	ServerRequestTimeout time.Duration // L4.3
	MaxRequests          int           // in flight per connection (L3.3)
	MetaHeaders          []string      // names of what conn.Config.MetaHeaders keeps
	Log                  *slog.Logger
}

// Gateway is the MQ protocol over the connections of one process: their conn.Handler, and the Clients of its Worker. It
// has one shard per loop; a connection's state is in the shard of its loop and touched only there.
type Gateway struct {
	cfg      Config
	server   Finder
	shards   []*shard
	interest *interest // nil: the worker does not want to know
}

// Finder finds connections by id: *conn.Server, or a stand-in in tests.
type Finder interface {
	// Do runs f on the loop of the connection, with nil when there is none. See conn.Server.Do.
	Do(id conn.ID, f func(c *conn.Conn))
}

// New validates the configuration and returns a Gateway for the given number of loops. Next: give it to the endpoints as
// their handler, Attach it to every registry, then Start.
func New(cfg Config, loops int) (*Gateway, error) {
	var errs []error
	if cfg.Worker == nil {
		errs = append(errs, errors.New("mq: a worker is needed"))
	}
	if cfg.RequestTimeout <= 0 || cfg.ServerRequestTimeout <= 0 {
		errs = append(errs, errors.New("mq: both request timeouts must be above 0"))
	}
	if cfg.MaxRequests < 1 {
		errs = append(errs, errors.New("mq: at least one request in flight must be allowed"))
	}
	if loops < 1 {
		return nil, errors.Join(append(errs, errors.New("mq: at least one loop is needed"))...)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, shards: make([]*shard, loops)}
	if w, ok := cfg.Worker.(InterestedWorker); ok {
		g.interest = newInterest(w)
	}
	return g, errors.Join(errs...)
}

// Attach makes the shard for the loop of r. Before that loop runs.
func (g *Gateway) Attach(r *conn.Registry) {
	s := &shard{g: g, registry: r, loop: r.Loop(), topics: make(map[Topic]*topic), byNumber: make(map[uint64]uint32)}
	s.request = NewRequest(s)
	s.pending.timers = s.loop.NewTimers(s.requestTimedOut)
	s.waiting.timers = s.loop.NewTimers(s.serverRequestTimer)
	s.retry = s.loop.NewTimers(func(uint32) { s.publishAgain() })
	g.shards[s.loop.Index()] = s
}

// Start gives the worker its way back to the clients. Before the first connection.
func (g *Gateway) Start(server Finder) {
	g.server = server
	g.cfg.Worker.Attach(g)
}

// Stats returns the counters of the shard of one loop. On that loop's goroutine.
func (g *Gateway) Stats(l *loop.Loop) Stats {
	s := g.shards[l.Index()]
	st := s.stats
	st.Unpublished = int64(len(s.unpublished))
	st.Clients = int64(s.clients.len())
	return st
}

// shard is the gateway on one loop. Only the loop's goroutine touches it.
type shard struct {
	g        *Gateway
	registry *conn.Registry
	loop     *loop.Loop
	stats    Stats
	warned   [drops]quiet // log lines about each kind of drop,
	failed   quiet        // requests that the worker failed,
	panics   quiet        // its panics,
	lost     quiet        // and ends of connections that did not reach it

	clients slab[client]
	topics  map[Topic]*topic

	pending requests // requests of clients that the worker answers later
	request *Request // the one that Worker.Process has at the moment
	current current  // and what the gateway knows of it
	scratch []byte   // payload of an mq.Error

	waiting  serverRequests    // requests of the server that clients have not answered
	byNumber map[uint64]uint32 // their slots by the number in the request id

	unpublished []unpublished // L6.3
	retry       *loop.Timers  // entry 0: offer them again
}

// client is the gateway's state of one connection. It exists while the connection has requests in flight or
// subscriptions; Conn.User is its number, with formBinary on top.
type client struct {
	conn     conn.Ref
	inFlight uint32 // requests of the client at the worker
	first    uint32 // the first of them in shard.pending, chained; 0: none
	waiting  uint32 // the first request to the client in shard.waiting, chained; 0: none
	topics   []subscription
}

// formBinary in Conn.User: the client speaks binary. The other 31 bits number its client state, 0: none.
const formBinary = 1 << 31

func (s *shard) clientOf(c *conn.Conn) (uint32, *client) {
	if i := c.User &^ formBinary; i != 0 {
		return i, s.clients.at(i)
	}
	return 0, nil
}

// needClient returns the client state, made if need be.
func (s *shard) needClient(c *conn.Conn) (uint32, *client) {
	if i, cl := s.clientOf(c); cl != nil {
		return i, cl
	}
	i, cl := s.clients.take()
	cl.conn = c.Ref()
	c.User = c.User&formBinary | i
	return i, cl
}

// freeIfIdle gives the client state back when nothing is in it any more.
func (s *shard) freeIfIdle(c *conn.Conn, i uint32, cl *client) {
	if cl.inFlight == 0 && cl.waiting == 0 && len(cl.topics) == 0 {
		c.User &= formBinary
		topics := cl.topics
		*cl = client{}
		if cap(topics) <= 16 {
			cl.topics = topics[:0]
		}
		s.clients.free(i)
	}
}

func (g *Gateway) shardOf(c *conn.Conn) *shard { return g.shards[c.Registry().Loop().Index()] }

// OnOpen implements conn.Handler. Nothing exists for a connection that has said nothing.
func (g *Gateway) OnOpen(*conn.Conn) {}

// OnPong implements conn.Handler (L7.4).
func (g *Gateway) OnPong(c *conn.Conn, rtt time.Duration) {
	defer g.shardOf(c).survive("RoundTrip")
	g.cfg.Worker.RoundTrip(c.ID(), rtt)
}

// OnError implements conn.Handler; the connection has logged it.
func (g *Gateway) OnError(*conn.Conn, error) {}

// OnDrain implements conn.Handler: requests in flight are answered first (L5.5).
func (g *Gateway) OnDrain(c *conn.Conn) {
	if _, cl := g.shardOf(c).clientOf(c); cl == nil || cl.inFlight == 0 {
		_ = c.CloseFor(conn.CauseDrain) // ErrNotOpen: it is closing, which is what is wanted
	}
}

// OnClose implements conn.Handler: everything that the connection had is given back, and the worker is told (L6.1).
func (g *Gateway) OnClose(c *conn.Conn, e conn.End) {
	s := g.shardOf(c)
	if i, cl := s.clientOf(c); cl != nil {
		s.dropRequests(cl)
		s.failServerRequests(cl)
		s.unsubscribeAll(cl)
		s.freeIfIdle(c, i, cl)
	}
	s.publish(Disconnect{Conn: c.ID(), Code: e.Code, Description: string(e.Reason), Duration: time.Duration(e.NS)})
}

// unpublished is the end of a connection that the worker has not taken yet.
type unpublished struct {
	Disconnect
	panics uint8 // of the worker, when it was offered
}

// publish tells the worker of an end, or keeps it (L6.3).
func (s *shard) publish(d Disconnect) {
	u := unpublished{Disconnect: d}
	if len(s.unpublished) == 0 { // else it has to wait its turn
		err := s.offer(&u)
		if err == nil {
			return
		}
		s.g.cfg.Log.Warn("the worker did not take the end of a connection; it is kept and offered again", "err", err, "id", d.Conn.String())
		s.retry.Set(0, s.loop.Now()+int64(publishRetry))
	}
	if len(s.unpublished) >= maxUnpublished {
		s.lose(d.Conn, "too many are waiting to be taken")
		return
	}
	s.unpublished = append(s.unpublished, u)
}

// offer offers an end to the worker. nil: there is nothing more to be done with it. An end on which the worker panics
// again and again is lost in the end, or all that wait behind it would wait for ever.
func (s *shard) offer(u *unpublished) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, "Disconnected")
			err = errPanicked
			if u.panics++; u.panics == maxPublishPanics {
				s.lose(u.Conn, "the worker panics on it")
				err = nil
			}
		}
	}()
	return s.g.cfg.Worker.Disconnected(u.Disconnect)
}

// lose counts an end that the worker will not hear of, and says so.
func (s *shard) lose(id conn.ID, why string) {
	s.stats.PublishLost++
	if n, ok := s.lost.line(s.loop.Now()); ok {
		s.g.cfg.Log.Error("the end of a connection is lost to the worker", "why", why, "id", id.String(),
			"waiting", len(s.unpublished), "not_logged", n)
	}
}

func (s *shard) publishAgain() {
	for i := range s.unpublished {
		if s.offer(&s.unpublished[i]) != nil {
			s.unpublished = s.unpublished[:copy(s.unpublished, s.unpublished[i:])]
			s.retry.Set(0, s.loop.Now()+int64(publishRetry))
			return
		}
	}
	s.unpublished = nil
}

// quiet bounds the log lines of one kind: whoever causes them may cause as many as he likes.
type quiet struct {
	last   int64  // when one was logged [ns], 0: never
	silent uint64 // how many were not logged since
}

// line reports whether a line may be logged, and how many were not since the last one.
func (q *quiet) line(now int64) (notLogged uint64, ok bool) {
	if q.last != 0 && now-q.last < int64(warnEvery) {
		q.silent++
		return 0, false
	}
	notLogged = q.silent
	q.last, q.silent = now, 0
	return notLogged, true
}

// drop counts a dropped message and warns of it, at most once in a while per reason. detail may be borrowed.
func (s *shard) drop(why Drop, c *conn.Conn, detail string) {
	s.stats.Dropped[why]++
	n, ok := s.warned[why].line(s.loop.Now())
	if !ok {
		return
	}
	level := slog.LevelWarn
	if why == DropAnswerNotOpen {
		level = slog.LevelDebug // L3.7
	}
	args := []any{"reason", why.String(), "detail", excerpt(detail), "not_logged", n}
	if c != nil {
		args = append(args, "id", c.ID().String(), "remote", c.Remote().String())
	}
	s.g.cfg.Log.Log(context.Background(), level, "message dropped", args...)
}

// excerpt returns what may be logged of a text that a client has chosen: not a view, for a log may keep what it is
// given, and not all of it.
func excerpt(text string) string {
	return strings.ToValidUTF8(strings.Clone(text[:min(len(text), maxLogged)]), "")
}

// opOf returns the opcode in which a form travels.
func opOf(binary bool) frame.OpCode {
	if binary {
		return frame.Binary
	}
	return frame.Text
}
