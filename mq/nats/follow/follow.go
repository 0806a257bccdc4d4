package follow

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Clients is what a Follower does to the clients of the gateway: that part of mq.Clients.
type Clients interface {
	Publish(t mq.Topic, typ string, payload []byte)
	EndTopic(t mq.Topic)
	Unsubscribe(id conn.ID, t mq.Topic)
}

// Config is the configuration of a Follower.
type Config struct {
	Conns   []*nats.Conn // at least one; rooms are spread over them, each is on one. They are not closed here
	Names   subjects.Names
	Clients Clients

	Linger     time.Duration // how long a room without subscribers is still followed; 0: 5 s
	CheckEvery time.Duration // time between two checks of all rooms; 0: 15 s
	Shards     int           // 0: 4. Rounded up to a multiple of the connections: each has as many
	Log        *slog.Logger  // nil: none
}

// Follower follows the rooms that have subscribers at a gateway: see the package comment. Its methods are safe from any
// goroutine and wait for nothing, but for Close.
type Follower struct {
	cfg    Config
	source *source
	seed   maphash.Seed
	shards []*runner
	begun  time.Time
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// New starts a Follower. End it with Close, before its connections are closed.
func New(cfg Config) (*Follower, error) {
	var errs []error
	if len(cfg.Conns) == 0 {
		errs = append(errs, errors.New("follow: at least one NATS connection is needed"))
	}
	if cfg.Clients == nil {
		errs = append(errs, errors.New("follow: the clients of the gateway are needed"))
	}
	if cfg.Names.Prefix() == "" {
		errs = append(errs, errors.New("follow: names are needed"))
	}
	if cfg.Linger < 0 || cfg.CheckEvery < 0 || cfg.Shards < 0 {
		errs = append(errs, errors.New("follow: times and the number of shards must not be below 0"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if cfg.Linger == 0 {
		cfg.Linger = defaultLinger
	}
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = defaultCheckEvery
	}
	if cfg.Shards == 0 {
		cfg.Shards = defaultShards
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &Follower{cfg: cfg, seed: maphash.MakeSeed(), begun: time.Now(), stop: stop}
	f.source = newSource(cfg.Conns, cfg.Names)
	if err := f.source.watch(); err != nil {
		stop()
		return nil, err
	}
	links := len(f.source.links)
	for i := range (cfg.Shards + links - 1) / links * links {
		f.shards = append(f.shards, f.newRunner(f.source.links[i%links]))
	}
	for _, r := range f.shards {
		f.done.Go(func() { r.run(ctx) })
	}
	for _, l := range f.source.links {
		for range fetchers {
			f.done.Go(func() { l.work(ctx) })
		}
		f.done.Go(func() { f.watch(ctx, l) })
	}
	f.done.Go(func() { f.identify(ctx) })
	return f, nil
}

// Interest implements that method of mq.InterestedWorker.
func (f *Follower) Interest(room string, some bool) {
	r := f.runnerOf(room)
	r.post(func(now int64) { r.shard.interest(room, f.cfg.Names.Room(room), some, now) })
}

// Handover passes an answer on that subscribes, in its place among the records of the room.
func (f *Follower) Handover(h Handover) {
	r := f.runnerOf(h.Room)
	if !r.offer(func(now int64) { r.shard.handover(h, f.cfg.Names.Room(h.Room), now) }) {
		h.Fail(ErrClosed)
	}
}

// CheckAll compares all rooms with the stream, because records may be missing. The Follower does so itself from time to
// time and when the stream has a new leader, and for the rooms of a connection when that comes back.
func (f *Follower) CheckAll() {
	for _, r := range f.shards {
		r.checkAll()
	}
}

// Stats returns the counters.
func (f *Follower) Stats() (s Stats) {
	for _, r := range f.shards {
		r.shard.stats.addTo(&s)
	}
	return s
}

// Close ends the Follower: nothing is followed any more, answers that wait fail, and no function of Clients or of a
// Handover is called after it has returned.
func (f *Follower) Close() {
	f.stop()
	f.done.Wait()
	f.source.unwatch()
	for _, r := range f.shards {
		r.end()
	}
}

func (f *Follower) runnerOf(room string) *runner {
	return f.shards[maphash.String(f.seed, room)%uint64(len(f.shards))]
}

// now is the time of the shards [ns].
func (f *Follower) now() int64 { return int64(time.Since(f.begun)) + 1 }

// watch compares the rooms of a link with the stream when something has happened after which records may be missing.
func (f *Follower) watch(ctx context.Context, l *link) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.missed:
			for _, r := range f.shards {
				if r.link == l {
					r.checkAll()
				}
			}
		}
	}
}

// identify looks from time to time whether it is still the same stream.
func (f *Follower) identify(ctx context.Context) {
	var known time.Time // when the stream was made
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		made, err := f.source.created(ctx)
		if err != nil {
			next.Reset(retryMax)
			continue
		}
		next.Reset(f.cfg.CheckEvery)
		if !known.IsZero() && !made.Equal(known) {
			f.cfg.Log.Warn("the stream of rooms was replaced by a new one", "stream", f.cfg.Names.RoomsStream(), "made", made)
			for _, r := range f.shards {
				r.post(func(now int64) { r.shard.reset(now) })
			}
		}
		known = made
	}
}

// runner is a shard with its goroutine, and the outside of it: one link, over which everything of its rooms comes.
type runner struct {
	f        *Follower
	link     *link
	shard    *shard
	messages chan *nats.Msg
	dropped  bool // there was no room in messages

	mu     sync.Mutex
	posted []func(now int64)
	closed bool
	wake   chan struct{}
}

func (f *Follower) newRunner(l *link) *runner {
	r := &runner{f: f, link: l, messages: make(chan *nats.Msg, messages), wake: make(chan struct{}, 1)}
	r.shard = newShard(r, f.cfg.Clients, f.cfg.Log, f.cfg.Linger, f.cfg.CheckEvery, f.now())
	return r
}

// offer runs p on the shard's goroutine, unless that has ended.
func (r *runner) offer(p func(now int64)) bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	r.posted = append(r.posted, p)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
	return true
}

// post implements outside.
func (r *runner) post(p func(now int64)) { r.offer(p) }

func (r *runner) checkAll() { r.post(func(now int64) { r.shard.checkAll(now) }) }

// subscribe implements outside.
func (r *runner) subscribe(subject string) (func(), error) {
	sub, err := r.link.ChanSubscribe(subject, r.messages)
	if err != nil {
		return nil, err
	}
	return func() {
		_ = sub.Unsubscribe() // it can only fail when the connection is closed, and the subscription gone with it
	}, nil
}

// fetch implements outside.
func (r *runner) fetch(j *fetchJob) {
	r.link.put(func(ctx context.Context) {
		r.f.source.fetch(ctx, r.link, j)
		r.post(func(now int64) { r.shard.fetched(j, now) })
	})
}

// check implements outside.
func (r *runner) check(j *checkJob) {
	r.link.put(func(ctx context.Context) {
		r.f.source.check(ctx, r.link, j)
		r.post(func(now int64) { r.shard.checkedRooms(j, now) })
	})
}

func (r *runner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var spare []func(int64)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-r.messages:
			now := r.f.now()
			r.message(m, now)
			for range len(r.messages) { // what is there now; what comes meanwhile waits for what was posted
				r.message(<-r.messages, now)
			}
			if r.dropped && len(r.messages) < messages/2 {
				r.dropped = false
				r.shard.stats.overflows.Add(1)
				r.shard.checkAll(now)
			}
		case <-r.wake:
		case <-timer.C:
		}
		r.mu.Lock()
		posted := r.posted
		r.posted = spare
		r.mu.Unlock()
		now := r.f.now()
		for i, p := range posted {
			p(now)
			posted[i] = nil
		}
		if cap(posted) <= messages {
			spare = posted[:0]
		} else {
			spare = nil
		}
		if r.shard.next() <= now {
			r.shard.tick(now)
		}
		timer.Reset(time.Duration(max(r.shard.next()-now, int64(time.Millisecond))))
	}
}

func (r *runner) message(m *nats.Msg, now int64) {
	if len(r.messages) >= messages-1 {
		r.dropped = true // it was full: others may not have found room
	}
	r.shard.message(m.Subject, published(m), now)
}

// end lets go what the shard holds, after its goroutine has ended.
func (r *runner) end() {
	r.mu.Lock()
	r.closed = true
	posted := r.posted
	r.mu.Unlock()
	now := r.f.now()
	for _, p := range posted { // answers among them must fail as well
		p(now)
	}
	r.shard.close()
}
