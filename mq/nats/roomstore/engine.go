package roomstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
)

// Options are what an Engine is made of.
type Options struct {
	Conn     *nats.Conn     // required; stays the caller's, who closes it after the engine
	Names    subjects.Names // required
	Replicas int            // of streams and buckets that do not exist yet; 0: 1
	Memory   bool           // streams and buckets that do not exist yet are in the servers' memory, not in files

	// Sweep is how often the leases of gateways are looked at. 0: never, which is for tests.
	Sweep time.Duration

	// Look is the longest time between two looks at a timer: an error of this worker's clock moves a timer by no more. 0:
	// a minute.
	Look time.Duration

	// AckWait is when an end of a connection or a timer that a worker has taken is given to another one, because the first
	// has died. The first engine on the streams decides. 0: half a minute.
	AckWait time.Duration

	// Now is the clock by which graces and times to live are counted; nil: time.Now.
	Now func() time.Time

	Log *slog.Logger // nil: none
}

// Engine is a rooms.Engine over JetStream. All methods are safe from any goroutine. They block, for opTimeout at most.
type Engine struct {
	o     Options
	names subjects.Names
	nc    *nats.Conn
	js    jetstream.JetStream
	ask   func(ctx context.Context, subject string, data []byte) (*nats.Msg, error) // nc's; tests hold it
	log   *slog.Logger
	now   func() time.Time

	w       *rooms.Worker
	cfg     *rooms.Config
	clients mq.Clients

	sessions, conns, aliases, index, snapshots, gateways, nodes *table

	// inTurn lets the changes of one session that come from this process wait for each other instead of losing
	// compare-and-sets to each other. By the hash of the session id; held during one change, leaves all other locks alone.
	inTurn [256]sync.Mutex
	seed   maphash.Seed

	mu     sync.Mutex
	actors map[string]*actor // by room id
	closed bool

	seen     sync.Map // node token → time.Time when it was noted
	listed   sync.Map // node token → listed
	replicas int      // of the stream of rooms
	cancel   context.CancelFunc
	ctx      context.Context // until Close
	work     sync.WaitGroup  // actors, handlers, the sweeper
	stop     []func()
	stats    stats
}

var _ rooms.Engine = (*Engine)(nil)

// stats are counted while work goes on.
type stats struct {
	commits, operations, conflicts, snapshots, loads, reads, unknown, lost, timers atomic.Int64
}

// Stats are numbers for metrics, of this worker since its start.
type Stats struct {
	Commits    int64 // records written
	Operations int64 // operations in them
	Conflicts  int64 // compare-and-sets lost to another worker
	Reads      int64 // checks that the state in memory is the last one
	Loads      int64 // rooms read from the log
	Snapshots  int64 // written
	Unknown    int64 // commits of which it could not be found out whether they were stored
	LostGates  int64 // sessions lost with the lease of their gateway
	Timers     int64 // timers that were due
	Cached     int64 // rooms in memory now
}

// Stats returns a snapshot of the numbers.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	cached := len(e.actors)
	e.mu.Unlock()
	s := &e.stats
	return Stats{Commits: s.commits.Load(), Operations: s.operations.Load(), Conflicts: s.conflicts.Load(), Reads: s.reads.Load(),
		Loads: s.loads.Load(), Snapshots: s.snapshots.Load(), Unknown: s.unknown.Load(), LostGates: s.lost.Load(),
		Timers: s.timers.Load(), Cached: int64(cached)}
}

// New returns an engine and makes the streams and buckets that are missing. Those that exist stay as they are, but must be
// able to do what is needed.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Conn == nil || o.Names == (subjects.Names{}) {
		return nil, errors.New("roomstore: a connection and names are needed")
	}
	js, err := jetstream.New(o.Conn)
	if err != nil {
		return nil, fmt.Errorf("roomstore: %w", err)
	}
	e := &Engine{o: o, names: o.Names, nc: o.Conn, js: js, log: o.Log, now: o.Now, actors: map[string]*actor{}, seed: maphash.MakeSeed()}
	e.ask = o.Conn.RequestWithContext
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.o.AckWait == 0 {
		e.o.AckWait = ackWait
	}
	if e.o.Look == 0 {
		e.o.Look = time.Minute
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := e.make(ctx); err != nil {
		e.cancel()
		return nil, fmt.Errorf("roomstore: %w", err)
	}
	return e, nil
}

func (e *Engine) flat() string { return strings.ReplaceAll(e.names.Prefix(), ".", "_") }

// TimersStream returns the name of the stream of timers.
func TimersStream(n subjects.Names) string {
	return strings.ReplaceAll(n.Prefix(), ".", "_") + "_timers"
}

// Consumers of the streams of ends and of timers, shared by all workers.
const (
	EndsConsumer   = "rooms"
	TimersConsumer = "rooms"
)

// make makes streams and buckets.
func (e *Engine) make(ctx context.Context) error {
	storage, replicas := jetstream.FileStorage, max(e.o.Replicas, 1)
	if e.o.Memory {
		storage = jetstream.MemoryStorage
	}
	log := e.names.Rooms()
	log.MaxMsgsPerSubject, log.Duplicates, log.AllowMsgTTL = recordsPerRoom, duplicates, true
	timers := jetstream.StreamConfig{
		Name: TimersStream(e.names), Description: "mqgate: graces of sessions and empty rooms",
		Subjects: []string{e.names.Prefix() + ".timer.>"}, Retention: jetstream.WorkQueuePolicy, MaxMsgsPerSubject: 1,
		Discard: jetstream.DiscardOld,
	}
	for _, c := range []jetstream.StreamConfig{log, e.names.Disconnections(), timers} {
		c.Storage, c.Replicas = storage, replicas
		s, err := e.js.CreateStream(ctx, c)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			s, err = e.js.Stream(ctx, c.Name)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", c.Name, err)
		}
		if c.Name == log.Name {
			e.replicas = s.CachedInfo().Config.Replicas
		}
	}
	for _, b := range []struct {
		t    **table
		name string
	}{
		{&e.sessions, e.names.SessionsBucket()}, {&e.conns, e.names.ConnsBucket()}, {&e.aliases, e.names.AliasesBucket()},
		{&e.index, e.flat() + "_index"}, {&e.snapshots, e.names.SnapshotsBucket()}, {&e.gateways, e.names.GatewaysBucket()},
		{&e.nodes, e.flat() + "_nodes"},
	} {
		t, err := e.bucket(ctx, b.name, storage, replicas)
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.name, err)
		}
		*b.t = t
	}
	return nil
}

// Start implements rooms.Engine: from now on ends of connections and timers are taken.
func (e *Engine) Start(w *rooms.Worker, clients mq.Clients) error {
	e.w, e.cfg, e.clients = w, w.Config(), clients
	ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
	defer cancel()
	if err := e.consume(ctx, e.names.DisconnectedStream(), EndsConsumer, e.handleEnd); err != nil {
		return err
	}
	if err := e.consume(ctx, TimersStream(e.names), TimersConsumer, e.handleTimer); err != nil {
		return err
	}
	e.work.Go(e.tidy)
	return nil
}

// Close implements rooms.Store: no timer and no end of a connection is taken any more. It waits for what is being done.
func (e *Engine) Close() {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return
	}
	for _, stop := range e.stop {
		stop()
	}
	e.cancel()
	e.work.Wait()
}

// tidy lets go of rooms that nobody asks about, and looks after the leases of gateways.
func (e *Engine) tidy() {
	idle := time.NewTicker(idleAfter / 2)
	defer idle.Stop()
	var sweep <-chan time.Time
	if e.o.Sweep > 0 {
		t := time.NewTicker(e.o.Sweep)
		defer t.Stop()
		sweep = t.C
	}
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-idle.C:
			e.forgetIdle(time.Now().Add(-idleAfter))
		case <-sweep:
			if err := e.SweepGateways(e.ctx); err != nil && e.ctx.Err() == nil {
				e.log.Warn("leases of gateways could not be looked at", "err", err)
			}
		}
	}
}

// Sessions implements rooms.Engine.
func (e *Engine) Sessions() (int, error) { return e.sessions.count() }

// Len implements rooms.Store.
func (e *Engine) Len() (int, error) { return e.index.count() }

func (e *Engine) millis() uint64 { return uint64(e.now().UnixMilli()) }
