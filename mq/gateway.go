package mq

import (
	"context"
	"errors"
	"log/slog"
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
	cfg    Config
	server Finder
	shards []*shard
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
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, shards: make([]*shard, loops)}
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
	warned   [drops]int64  // when the last warning about each kind of drop was logged [ns]
	silent   [drops]uint64 // and how many were not logged since

	clients slab[client]
	topics  map[Topic]*topic

	pending requests // requests of clients that the worker answers later
	request *Request // the one that Worker.Process has at the moment
	current current  // and what the gateway knows of it
	scratch []byte   // payload of an mq.Error

	waiting  serverRequests    // requests of the server that clients have not answered
	byNumber map[uint64]uint32 // their slots by the number in the request id

	unpublished []Disconnect // L6.3
	retry       *loop.Timers // entry 0: offer them again
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
func (g *Gateway) OnPong(c *conn.Conn, rtt time.Duration) { g.cfg.Worker.RoundTrip(c.ID(), rtt) }

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

// publish tells the worker of an end, or keeps it (L6.3).
func (s *shard) publish(d Disconnect) {
	if len(s.unpublished) == 0 {
		if err := s.disconnected(d); err == nil {
			return
		} else {
			s.g.cfg.Log.Warn("the worker did not take the end of a connection; it is kept and offered again", "err", err, "id", d.Conn)
			s.retry.Set(0, s.loop.Now()+int64(publishRetry))
		}
	}
	if len(s.unpublished) >= maxUnpublished {
		s.stats.PublishLost++
		s.g.cfg.Log.Error("the end of a connection is lost to the worker: too many are waiting to be taken", "id", d.Conn, "waiting", len(s.unpublished))
		return
	}
	s.unpublished = append(s.unpublished, d)
}

func (s *shard) disconnected(d Disconnect) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, "Disconnected")
			err = errors.New("the worker panicked")
		}
	}()
	return s.g.cfg.Worker.Disconnected(d)
}

func (s *shard) publishAgain() {
	for i, d := range s.unpublished {
		if s.disconnected(d) != nil {
			s.unpublished = s.unpublished[:copy(s.unpublished, s.unpublished[i:])]
			s.retry.Set(0, s.loop.Now()+int64(publishRetry))
			return
		}
	}
	s.unpublished = nil
}

// drop counts a dropped message and warns of it, at most once in a while per reason.
func (s *shard) drop(why Drop, c *conn.Conn, detail string) {
	s.stats.Dropped[why]++
	now := s.loop.Now()
	if s.warned[why] != 0 && now-s.warned[why] < int64(warnEvery) {
		s.silent[why]++
		return
	}
	level := slog.LevelWarn
	if why == DropAnswerNotOpen {
		level = slog.LevelDebug // L3.7
	}
	args := []any{"reason", why.String(), "detail", detail, "not_logged", s.silent[why]}
	if c != nil {
		args = append(args, "id", c.ID().String(), "remote", c.Remote().String())
	}
	s.g.cfg.Log.Log(context.Background(), level, "message dropped", args...)
	s.warned[why], s.silent[why] = now, 0
}

// opOf returns the opcode in which a form travels.
func opOf(binary bool) frame.OpCode {
	if binary {
		return frame.Binary
	}
	return frame.Text
}
