package nats

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"
)

// link is one NATS connection, and the sockets that it has one after the other.
type link struct {
	index int
	conn  *Conn
	nc    *natsio.Conn

	current    atomic.Pointer[dialed] // the socket dialed last
	server     atomic.Value           // string: URL of the server it had last, without password
	downSince  atomic.Int64           // [ns on the clock of Conn.now], 0: up
	reconnects atomic.Uint64
	asyncErrs  atomic.Uint64
	slow       atomic.Uint64 // messages to us were lost because we did not keep up

	lost chan struct{} // capacity 1: a socket was closed
	back chan struct{} // capacity 1: the link is up again

	mu       sync.Mutex
	watchers []watcher

	warned quiet
}

// watcher is told about a link. The functions are called on the link's goroutine.
type watcher struct {
	// lost: sockets were closed; what was written to one of them (dialed.isClosed) may be lost.
	lost func(*link)
	// back: the link is up again.
	back func(*link)
}

// dialed is a socket to a NATS server. nats.go closes it when it has given the connection up, before it does anything
// else; so a request that went out through it knows that no answer can come any more, which the callbacks of nats.go do
// not tell: they come later, perhaps after the next connection is there.
type dialed struct {
	net.Conn
	l      *link
	closed atomic.Bool
}

func (d *dialed) isClosed() bool { return d.closed.Load() }

// Close implements net.Conn. Called with locks of nats.go held.
func (d *dialed) Close() error {
	if d.closed.CompareAndSwap(false, true) && d.l.current.Load() == d {
		d.l.down()
	}
	return d.Conn.Close()
}

// dialer makes the sockets of a link, from servers on the network or in this process.
type dialer struct {
	l       *link
	process natsio.InProcessConnProvider
}

// Dial implements natsio.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	nd := net.Dialer{Timeout: dialTimeout}
	c, err := nd.Dial(network, address)
	return d.keep(c, err)
}

// InProcessConn implements natsio.InProcessConnProvider.
func (d *dialer) InProcessConn() (net.Conn, error) {
	c, err := d.process.InProcessConn()
	return d.keep(c, err)
}

func (d *dialer) keep(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	s := &dialed{Conn: c, l: d.l}
	d.l.current.Store(s)
	return s, nil
}

// up reports whether the link can be written to.
func (l *link) up() bool { return l.downSince.Load() == 0 }

// away returns how long the link has been away, 0 when it is up.
func (l *link) away() time.Duration {
	since := l.downSince.Load()
	if since == 0 {
		return 0
	}
	return max(1, time.Duration(l.conn.now()-since))
}

func (l *link) down() {
	l.downSince.CompareAndSwap(0, max(1, l.conn.now()))
	poke(l.lost)
}

// connected is nats.go's callback for a connection that is there, for the first time or again.
func (l *link) connected(*natsio.Conn) { poke(l.back) }

// disconnected is nats.go's callback for a connection that was lost.
func (l *link) disconnected(_ *natsio.Conn, err error) {
	select {
	case <-l.conn.closed:
		return // by ourselves
	default:
	}
	url, _ := l.server.Load().(string)
	l.conn.log.Warn("NATS connection lost", "link", l.index, "server", url, "err", err)
	l.conn.tell(State{Link: l.index, URL: url, Err: err})
}

// failed is nats.go's callback for errors that belong to no call.
func (l *link) failed(_ *natsio.Conn, sub *natsio.Subscription, err error) {
	l.asyncErrs.Add(1)
	if err == natsio.ErrSlowConsumer {
		l.slow.Add(1)
	}
	n, ok := l.warned.line(l.conn.now())
	if !ok {
		return
	}
	args := []any{"link", l.index, "err", err, "not_logged", n}
	if sub != nil {
		args = append(args, "subject", sub.Subject)
	}
	l.conn.log.Warn("NATS error", args...)
}

// mind tells the watchers, until the Conn is closed.
func (l *link) mind() {
	for {
		select {
		case <-l.conn.closed:
			return
		case <-l.lost:
			for _, w := range l.all() {
				w.lost(l)
			}
		case <-l.back:
			away := l.away()
			l.downSince.Store(0)
			if !l.nc.IsConnected() { // lost again in the meantime; another callback will come
				l.down()
				continue
			}
			l.reconnects.Add(1)
			url := l.nc.ConnectedUrlRedacted()
			l.server.Store(url)
			l.conn.log.Info("NATS connection is back", "link", l.index, "server", url, "away", away.Round(time.Millisecond))
			l.conn.tell(State{Link: l.index, Up: true, URL: url, Away: away})
			for _, w := range l.all() {
				w.back(l)
			}
		}
	}
}

// watch registers w and returns how to take it back. After that w may still be called once.
func (l *link) watch(w watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers = append(l.watchers, w)
}

func (l *link) all() []watcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watchers[:len(l.watchers):len(l.watchers)]
}

// poke leaves a word in a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is one already
	}
}

// quiet bounds log lines of one kind to one per warnEvery. Safe from any goroutine.
type quiet struct {
	mu     sync.Mutex
	last   int64
	silent uint64
}

// line reports whether a line may be logged, and how many were not since the last one.
func (q *quiet) line(now int64) (notLogged uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last != 0 && now-q.last < int64(warnEvery) {
		q.silent++
		return 0, false
	}
	notLogged = q.silent
	q.last, q.silent = now, 0
	return notLogged, true
}
