package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/follow"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// RelayConfig is what a Relay is made of.
type RelayConfig struct {
	Conn *Conn  // stays the caller's, and is closed after the Relay
	Node uint32 // the gateway's number: conn.Issuer.Node

	// RequestTimeout is the gateway's (L3.4): when it has passed nobody waits for an answer any more.
	RequestTimeout time.Duration

	// Idempotent are the types of requests that may be handled twice: they are sent again when NATS was lost before their
	// answer came. nil: DefaultIdempotent.
	Idempotent []string

	// Ordered says which types are sent one after the other for each connection: a type, or the beginning of types when it
	// ends with a dot. nil: DefaultOrdered. Only the answer to an ordered request can bind a session.
	Ordered []string

	// Hold is how long requests wait when NATS is away, counted from when it went; after that they fail at once. 0:
	// DefaultHold; below 0: not at all.
	Hold time.Duration

	// MaxInFlight bounds the flights; above it requests fail at once. 0: DefaultMaxInFlight.
	MaxInFlight int

	// Lease is how long a gateway that says nothing more counts as there. 0: DefaultLease. Whole seconds.
	Lease time.Duration

	// Replicas of the streams and buckets that the Relay makes when they are not there, 1 to 5. 0: 1.
	Replicas int

	// NoRooms leaves out the events of rooms: for gateways whose workers have none. Answers that subscribe are then passed
	// on as they come.
	NoRooms bool

	// NewFollower makes what delivers the events of rooms; nil: a follow.Follower over all links of Conn.
	NewFollower func(mq.Clients) (Follower, error)

	Log *slog.Logger
}

// Follower brings the events of the rooms in which the gateway has subscribers to them, and answers that subscribe (L3.8)
// in their place among these: a follow.Follower, or a stand-in in tests.
type Follower interface {
	// Interest is mq.InterestedWorker's.
	Interest(room string, some bool)
	// Handover passes an answer on that subscribes.
	Handover(follow.Handover)
	// Close ends it. No function of a Handover is called after that.
	Close()
}

// DefaultIdempotent are the types of the rooms worker that only read.
var DefaultIdempotent = []string{"chat.GetRoomInfo", "chat.FetchRoomConversation"}

// DefaultOrdered are the types of the rooms worker: clients send several without waiting, and mean them in that order.
var DefaultOrdered = []string{"chat.", "pcast."}

func (c *RelayConfig) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("nats: "+format, args...)) }
	if c.Conn == nil {
		fault("a Conn is needed")
	}
	if c.RequestTimeout <= 0 {
		fault("request timeout: %v, expected above 0", c.RequestTimeout)
	}
	for _, t := range c.Idempotent {
		if !subjects.ValidType(t) {
			fault("idempotent type %q: expected letters, digits, \"_\", \"-\" and single dots", t)
		}
	}
	for _, t := range c.Ordered {
		if !subjects.ValidType(strings.TrimSuffix(t, ".")) {
			fault("ordered type %q: expected letters, digits, \"_\", \"-\" and single dots", t)
		}
	}
	if c.MaxInFlight < 0 {
		fault("requests in flight: %d, expected above 0", c.MaxInFlight)
	}
	if c.Lease != 0 && (c.Lease < minLease || c.Lease > maxLease || c.Lease%time.Second != 0) {
		fault("lease: %v, expected whole seconds from %v to %v", c.Lease, minLease, maxLease)
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		fault("replicas: %d, expected 1 to 5", c.Replicas)
	}
	return errors.Join(errs...)
}

// Relay is the mq.Worker of a gateway: requests go to the workers in NATS. Its lifecycle: NewRelay, mq.Gateway.Start (which
// calls Attach), Start before the first connection, Close after the last one.
type Relay struct {
	cfg        RelayConfig
	c          *Conn
	log        *slog.Logger
	names      subjects.Names
	node       string
	idempotent map[string]bool
	ordered    map[string]bool
	prefixes   []string // of ordered types
	senders    []*sender
	flights    *flights
	peers      *peers
	ends       *ends
	lease      lease
	clients    atomic.Pointer[mq.Clients]
	follower   Follower     // set by Start; nil: none
	bytes      atomic.Int64 // of payloads kept
	count      relayCounters
	failed     quiet

	once    sync.Once
	closing chan struct{}
	done    sync.WaitGroup
	subs    []*natsio.Subscription
	started bool
}

var _ mq.InterestedWorker = (*Relay)(nil)

// NewRelay returns a Relay, or everything that is wrong with cfg.
func NewRelay(cfg RelayConfig) (*Relay, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Idempotent == nil {
		cfg.Idempotent = DefaultIdempotent
	}
	if cfg.Ordered == nil {
		cfg.Ordered = DefaultOrdered
	}
	if cfg.Hold == 0 {
		cfg.Hold = DefaultHold
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	x := &Relay{cfg: cfg, c: cfg.Conn, log: cfg.Log, names: cfg.Conn.Names(), node: subjects.NodeToken(cfg.Node), idempotent: make(map[string]bool),
		ordered: make(map[string]bool), flights: newFlights(), peers: newPeers(), closing: make(chan struct{})}
	for _, t := range cfg.Idempotent {
		x.idempotent[t] = true
	}
	for _, t := range cfg.Ordered {
		if strings.HasSuffix(t, ".") {
			x.prefixes = append(x.prefixes, t)
		} else {
			x.ordered[t] = true
		}
	}
	x.ends = newEnds(x)
	x.lease.now = make(chan struct{}, 1)
	for _, l := range x.c.links {
		x.senders = append(x.senders, newSender(x, l))
	}
	return x, nil
}

// Start subscribes to what comes to this gateway, makes the stream of ends and the bucket of leases if they are not there,
// and takes the lease. It returns when all that is done, or with the error on which it failed until ctx was done.
func (x *Relay) Start(ctx context.Context) error {
	x.started = true
	if err := x.follow(); err != nil {
		return err
	}
	for _, s := range x.senders {
		in := make(chan *natsio.Msg, maxInbox)
		subjects := []string{s.replies + "*"}
		if s.link.index == 0 {
			subjects = append(subjects, x.names.AllCommands(x.cfg.Node))
		}
		for _, subject := range subjects {
			sub, err := s.link.nc.ChanSubscribe(subject, in)
			if err != nil {
				return fmt.Errorf("nats: subscription to %s: %w", subject, err)
			}
			x.subs = append(x.subs, sub)
		}
		x.done.Go(func() { x.receive(s, in) })
		x.done.Go(s.run)
		s.link.watch(watcher{lost: x.linkLost, back: x.linkBack})
	}
	x.done.Go(x.purge)
	if err := x.prepare(ctx); err != nil {
		return err
	}
	x.done.Go(x.ends.run)
	x.done.Go(x.renew)
	return nil
}

// Attach implements mq.Worker.
func (x *Relay) Attach(c mq.Clients) { x.clients.Store(&c) }

// Ready reports whether no NATS connection has been away longer than grace, and the Relay has not been closed.
func (x *Relay) Ready(grace time.Duration) bool {
	select {
	case <-x.closing:
		return false
	default:
		return x.c.Away() <= grace
	}
}

// Why requests fail before they go anywhere.
var (
	errType     = errors.New("nats: the type cannot be part of a subject: expected letters, digits, \"_\", \"-\" and single dots, at most 128 bytes")
	errAway     = errors.New("nats: no connection to NATS")
	errBusy     = errors.New("nats: too many requests in flight")
	errQueue    = errors.New("nats: too many requests wait to be written to NATS")
	errClosing  = errors.New("nats: the relay is closed")
	errNobody   = errors.New("nats: no worker for this type")
	errLinkLost = errors.New("nats: NATS connection lost before the answer came")
)

// Process implements mq.Worker. It only queues: the link's sender writes.
func (x *Relay) Process(r *mq.Request) {
	if !subjects.ValidType(r.Type) {
		x.count.refused.Add(1)
		r.Fail(errType)
		return
	}
	s := x.senders[x.c.linkOf(r.Conn).index]
	if err := x.refuse(s, len(r.Payload)); err != nil {
		x.count.failedAtOnce.Add(1)
		r.Fail(err)
		return
	}
	now, m := x.c.now(), r.Meta()
	f := &flight{link: s.link, conn: r.Conn, typ: strings.Clone(r.Type), clientSession: strings.Clone(r.SessionID), remote: m.Remote,
		begun: m.Start.UnixMilli(), headers: m.Headers, payload: append([]byte(nil), r.Payload...), start: now,
		until: now + int64(x.cfg.RequestTimeout), deadline: time.Now().Add(x.cfg.RequestTimeout).UnixMilli(), completion: r.Later(),
		ordered: x.isOrdered(r.Type), idempotent: x.idempotent[r.Type]}
	if len(f.clientSession) > maxClientSession {
		f.clientSession = ""
	}
	f.held.Store(int64(len(f.payload)))
	x.bytes.Add(int64(len(f.payload)))
	x.flights.add(f)
	if f.ordered && !x.peers.enter(f) || s.push(f) {
		return
	}
	if x.flights.take(f.token) != nil {
		x.count.failedAtOnce.Add(1)
		x.fail(f, errQueue)
	}
}

// refuse returns why a request cannot be taken in now.
func (x *Relay) refuse(s *sender, payload int) error {
	select {
	case <-x.closing:
		return errClosing
	default:
	}
	switch {
	case s.link.away() > max(0, x.cfg.Hold):
		return errAway
	case x.flights.count.Load() >= int64(x.cfg.MaxInFlight), x.bytes.Load()+int64(payload) > maxFlightBytes:
		return errBusy
	case s.full():
		return errQueue
	}
	return nil
}

func (x *Relay) isOrdered(typ string) bool {
	if x.ordered[typ] {
		return true
	}
	for _, p := range x.prefixes {
		if strings.HasPrefix(typ, p) {
			return true
		}
	}
	return false
}

// RoundTrip implements mq.Worker: the gateway keeps the histogram, and workers elsewhere have no use for it.
func (x *Relay) RoundTrip(conn.ID, time.Duration) {}

// Interest implements mq.InterestedWorker.
func (x *Relay) Interest(room string, some bool) {
	if x.follower != nil {
		x.follower.Interest(room, some)
	}
}

// follow makes the follower.
func (x *Relay) follow() (err error) {
	if x.cfg.NoRooms {
		return nil
	}
	clients := x.clients.Load()
	if clients == nil {
		return errors.New("nats: the relay is started before its gateway")
	}
	if x.cfg.NewFollower != nil {
		x.follower, err = x.cfg.NewFollower(*clients)
		return err
	}
	f, err := follow.New(follow.Config{Conns: x.c.Links(), Names: x.names, Clients: *clients, Log: x.log})
	if err != nil {
		return err
	}
	x.follower = f
	return nil
}

// Disconnected implements mq.Worker (L6.1). The end of a connection is published after the answers to its ordered
// requests, so that workers hear of everything in the order in which it was. An error says that too many wait (L6.3).
func (x *Relay) Disconnected(d mq.Disconnect) error {
	if !x.ends.reserve() {
		return errEnds
	}
	if e := x.peers.finish(d); e != nil {
		x.ends.push(e)
	}
	return nil
}

// fail finishes a flight that was taken out of the table with an error.
func (x *Relay) fail(f *flight, cause error) {
	f.completion.Fail(cause)
	x.finish(f)
}

// finish is called once for every flight that was taken out of the table, when it is answered or nobody waits any more.
func (x *Relay) finish(f *flight) {
	x.release(f)
	for f != nil && f.ordered {
		next, e := x.peers.leave(f)
		if e != nil {
			x.ends.push(e)
		}
		if next == nil || x.senders[next.link.index].push(next) {
			return
		}
		if f = x.flights.take(next.token); f == nil {
			return // somebody else finishes it
		}
		x.release(f)
		f.completion.Fail(errQueue)
	}
}

// release gives back what a flight's payload has taken.
func (x *Relay) release(f *flight) { x.bytes.Add(-f.held.Swap(0)) }

// purge takes out what is above its time: the gateway has answered it.
func (x *Relay) purge() {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.closing:
			return
		case <-tick.C:
			for _, f := range x.flights.takeExpired(x.c.now()) {
				x.count.timedOut.Add(1)
				x.finish(f)
			}
		}
	}
}

// linkLost fails the flights that had gone out through a lost socket, but for those that are sent again. On the link's
// goroutine.
func (x *Relay) linkLost(l *link) {
	for _, f := range x.flights.all(func(f *flight) bool {
		via := f.via.Load()
		return f.link == l && via != nil && via.isClosed()
	}) {
		if f.idempotent {
			f.via.Store(nil)
			if x.senders[l.index].push(f) {
				x.count.resent.Add(1)
				continue
			}
		}
		if f = x.flights.take(f.token); f != nil {
			x.count.lost.Add(1)
			x.fail(f, errLinkLost)
		}
	}
}

func (x *Relay) linkBack(l *link) {
	poke(x.senders[l.index].wake)
	if l.index == 0 {
		poke(x.ends.wake)
		poke(x.lease.now)
	}
}

// Close ends the Relay: it waits until the ends of connections are stored or ctx is done, gives the lease back, and fails
// what is in flight. The gateway has no connections any more. The error tells how many ends were not stored.
func (x *Relay) Close(ctx context.Context) error {
	var err error
	x.once.Do(func() {
		if x.started {
			err = x.ends.drain(ctx)
			err = errors.Join(err, x.giveBack(ctx))
		}
		close(x.closing)
		for _, sub := range x.subs {
			_ = sub.Unsubscribe() // fails when the connection is closed or away: then there is nothing to end
		}
		x.done.Wait()
		if x.follower != nil {
			x.follower.Close()
		}
		for _, f := range x.flights.all(func(*flight) bool { return true }) {
			if f = x.flights.take(f.token); f != nil {
				x.fail(f, errClosing)
			}
		}
	})
	return err
}
