package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// ServiceConfig is what a Service is made of.
type ServiceConfig struct {
	Conn   *Conn // stays the caller's, and is closed after the Service
	Worker mq.Worker

	// Types are the types of requests that the worker takes; nil: all of them.
	Types []string

	// Concurrency is how many requests are in Worker.Process at a time. 0: DefaultConcurrency.
	Concurrency int

	// MaxWaiting bounds the requests that wait for that. Above it they are answered with an error at once: another worker
	// may be less busy, and in any case nobody waits for what comes too late. 0: DefaultMaxWaiting.
	MaxWaiting int

	// MaxInFlight bounds the requests that the worker has not answered yet, those that wait included. Above it they are
	// answered with an error likewise. 0: DefaultMaxInFlight.
	MaxInFlight int

	// Disconnects says whether Worker.Disconnected is told of ends of connections, each at least once and usually only
	// once. It may block. An error means that it is told again, after a second, or after the time that the error says with
	// a method RetryAfter() time.Duration.
	Disconnects bool

	// Group is who shares requests and ends: each goes to one Service of a group. Only one group may take the requests of
	// a type; each group gets all ends. Empty: subjects.Workers.
	Group string

	// CheckBindings answers gateways that ask which of their bindings still hold: it returns those that do not. It may
	// block. nil: the Service is not asked.
	CheckBindings func(ctx context.Context, list []Binding) (gone []Binding, err error)

	Replicas int // of the stream of ends, if the Service makes it. 0: 1
	Log      *slog.Logger
}

// Service drives a mq.Worker in a worker process: requests that come over NATS go into its Process, ends of connections
// into its Disconnected. Any number of Services may run side by side; each request goes to one of them. Its lifecycle:
// NewService, Start, Drain.
type Service struct {
	cfg     ServiceConfig
	c       *Conn
	log     *slog.Logger
	clients *Clients
	work    chan *served
	count   serviceCounters
	panics  quiet
	full    quiet
	late    quiet

	draining atomic.Bool
	stop     chan struct{} // closed: no more ends are taken
	stopWork chan struct{} // closed: the goroutines end
	workers  sync.WaitGroup
	takers   sync.WaitGroup
	answered chan struct{} // poked when the last request in flight is answered
	subs     []*natsio.Subscription
}

// NewService returns a Service, or everything that is wrong with cfg.
func NewService(cfg ServiceConfig) (*Service, error) {
	var errs []error
	if cfg.Conn == nil || cfg.Worker == nil {
		errs = append(errs, errors.New("nats: a service needs a Conn and a Worker"))
	}
	if cfg.Concurrency < 0 || cfg.MaxWaiting < 0 || cfg.MaxInFlight < 0 {
		errs = append(errs, errors.New("nats: concurrency, waiting requests and requests in flight: expected above 0"))
	}
	if cfg.Group != "" && (strings.ContainsRune(cfg.Group, '.') || !subjects.ValidType(cfg.Group)) {
		errs = append(errs, fmt.Errorf("nats: group %q: expected letters, digits, \"_\" and \"-\"", cfg.Group))
	}
	for _, t := range cfg.Types {
		if !subjects.ValidType(t) {
			errs = append(errs, fmt.Errorf("nats: type %q: expected letters, digits, \"_\", \"-\" and single dots", t))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if cfg.Group == "" {
		cfg.Group = subjects.Workers
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = DefaultMaxWaiting
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, c: cfg.Conn, log: cfg.Log, work: make(chan *served, cfg.MaxWaiting), stop: make(chan struct{}),
		stopWork: make(chan struct{}), answered: make(chan struct{}, 1)}, nil
}

// Clients returns what the worker was attached to; after Start.
func (s *Service) Clients() *Clients { return s.clients }

// Start attaches the worker and begins to take requests, and ends of connections. With an error nothing has begun.
func (s *Service) Start(ctx context.Context) error {
	clients, err := NewClients(s.c)
	if err != nil {
		return err
	}
	s.clients = clients
	s.cfg.Worker.Attach(clients)
	if s.cfg.Disconnects {
		if err := s.takeEnds(ctx); err != nil {
			return errors.Join(err, clients.Close())
		}
	}
	for range s.cfg.Concurrency {
		s.workers.Go(s.serve)
	}
	list := []string{s.c.names.AllRequests()}
	if s.cfg.Types != nil {
		list = nil
		for _, t := range s.cfg.Types {
			list = append(list, s.c.names.Request(t))
		}
	}
	for _, l := range s.c.links {
		for _, subject := range list {
			if err := s.subscribe(l, subject, func(m *natsio.Msg) { s.take(l, m) }); err != nil {
				return errors.Join(err, s.Drain(ctx))
			}
		}
	}
	if s.cfg.CheckBindings != nil {
		if err := s.subscribe(s.c.links[0], s.c.names.SessionCheck(), s.checkBindings); err != nil {
			return errors.Join(err, s.Drain(ctx))
		}
	}
	// What the server does not know yet does not count as subscribed.
	for _, l := range s.c.links {
		if err := flush(ctx, l); err != nil {
			return errors.Join(err, s.Drain(ctx))
		}
	}
	return nil
}

func (s *Service) subscribe(l *link, subject string, f natsio.MsgHandler) error {
	sub, err := l.nc.QueueSubscribe(subject, s.cfg.Group, f)
	if err != nil {
		return fmt.Errorf("nats: subscription to %s: %w", subject, err)
	}
	s.subs = append(s.subs, sub)
	return nil
}

var (
	errWorkerBusy = errors.New("too many requests wait for this worker")
	errWorkerType = errors.New("subject is not that of a request")
	errPanicked   = errors.New("the worker panicked")
	errTooLate    = errors.New("the request came long after its deadline")
)

// take takes a request in, on the goroutine of its subscription: it only queues, so that the subscription never falls
// behind.
func (s *Service) take(l *link, m *natsio.Msg) {
	q, err := s.read(l, m)
	if err != nil {
		s.publish(l, m.Reply, &natsio.Msg{Header: natsio.Header{subjects.HeaderError: {err.Error()}}})
		return
	}
	s.count.requests.Add(1)
	if s.count.inFlight.Add(1) <= int64(s.cfg.MaxInFlight) {
		s.count.waiting.Add(1)
		select {
		case s.work <- q:
			return
		default:
			s.count.waiting.Add(-1)
		}
	}
	s.count.busy.Add(1)
	if n, ok := s.full.line(s.c.now()); ok {
		s.log.Warn("requests are refused because too many wait for this worker", "not_logged", n)
	}
	q.fail(errWorkerBusy)
}

// serve handles requests until the Service has drained.
func (s *Service) serve() {
	for {
		select {
		case q := <-s.work:
			s.count.waiting.Add(-1)
			s.process(q)
		case <-s.stopWork:
			return
		}
	}
}

// process calls the worker and survives its panic (L8.2).
func (s *Service) process(q *served) {
	defer func() {
		q.processing = false
		if p := recover(); p != nil {
			s.panicked(p, q.typ)
			q.fail(errPanicked)
		}
	}()
	if late := lateness(header(q.msg, subjects.HeaderDeadline), time.Now()); late > lateBy {
		if n, ok := s.late.line(s.c.now()); ok {
			s.log.Warn("requests are refused because they came long after their deadline: NATS kept them, or the clocks of gateway and worker disagree",
				"late", late.Round(time.Millisecond), "not_logged", n)
		}
		q.fail(errTooLate)
		return
	}
	q.processing = true
	r := mq.NewRequest(q)
	r.Conn, r.SessionID, r.Bound, r.Type, r.Payload = q.conn, header(q.msg, subjects.HeaderClientSession), header(q.msg, subjects.HeaderSession),
		q.typ, q.msg.Data
	s.cfg.Worker.Process(r)
}

// lateness returns for how long nobody waits for the answer to a request any more, by its deadline [ms since 1970, as text]. Without
// one, as something else than a gateway may send it, it is never late.
func lateness(deadline string, now time.Time) time.Duration {
	ms, err := strconv.ParseInt(deadline, 10, 64)
	if err != nil {
		return 0
	}
	return max(0, now.Sub(time.UnixMilli(ms)))
}

func (s *Service) panicked(p any, where string) {
	s.count.panics.Add(1)
	if n, ok := s.panics.line(s.c.now()); ok {
		s.log.Error("the worker panicked", "panic", fmt.Sprint(p), "in", strings.ToValidUTF8(where, ""), "stack", string(debug.Stack()), "not_logged", n)
	}
}

// publish publishes an answer. Unless the Conn has a buffer it is lost while NATS is away.
func (s *Service) publish(l *link, to string, m *natsio.Msg) {
	if to == "" {
		return
	}
	m.Subject = to
	if err := l.nc.PublishMsg(m); err != nil {
		s.count.answersLost.Add(1)
		if n, ok := l.warned.line(s.c.now()); ok {
			s.log.Warn("an answer is lost", "err", err, "not_logged", n)
		}
	}
}

func (s *Service) done(q *served) {
	s.count.observe(s.c.now() - q.start)
	if s.count.inFlight.Add(-1) == 0 {
		poke(s.answered)
	}
}

// checkBindings answers a gateway that asks which of its bindings still hold.
func (s *Service) checkBindings(m *natsio.Msg) {
	list, err := parseBindings(m.Data)
	a := &natsio.Msg{}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		defer cancel()
		var gone []Binding
		gone, err = s.cfg.CheckBindings(ctx, list)
		a.Data = appendBindings(nil, gone)
	}
	if err != nil {
		a.Data, a.Header = nil, natsio.Header{subjects.HeaderError: {err.Error()}}
	}
	s.publish(s.c.links[0], m.Reply, a)
}

// Drain takes nothing more, waits until everything taken is answered and written to NATS, and ends the Service. When ctx
// is done before, what is not answered is left, and the error says how much that is. The worker's commands to clients
// (Clients) work until it returns. Not from the worker's own methods.
func (s *Service) Drain(ctx context.Context) error {
	if !s.draining.CompareAndSwap(false, true) {
		return nil
	}
	close(s.stop)
	var errs []error
	gone := make(chan struct{}, len(s.subs))
	left := 0
	for _, sub := range s.subs {
		sub.SetClosedHandler(func(string) { gone <- struct{}{} })
		if err := sub.Drain(); err != nil { // the connection is closed
			errs = append(errs, fmt.Errorf("nats: drain of %s: %w", sub.Subject, err))
			continue
		}
		left++
	}
	for ; left > 0 && ctx.Err() == nil; left-- {
		select {
		case <-gone: // all that the server had sent is in s.work or refused
		case <-ctx.Done():
		}
	}
	if !waitFor(ctx, &s.takers) {
		errs = append(errs, fmt.Errorf("nats: an end of a connection is still with the worker: %w", ctx.Err()))
	}
	for s.count.inFlight.Load() > 0 && ctx.Err() == nil {
		select {
		case <-s.answered:
		case <-ctx.Done():
		}
	}
	if n := s.count.inFlight.Load(); n > 0 {
		errs = append(errs, fmt.Errorf("nats: %d requests are not answered: %w", n, ctx.Err()))
	}
	close(s.stopWork)
	waitFor(ctx, &s.workers) // those that do not end have a request, which the error has counted
	if s.clients != nil {
		errs = append(errs, s.clients.Close())
	}
	for _, l := range s.c.links {
		if err := flush(ctx, l); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// waitFor waits until everything in g has ended; false when ctx was done before.
func waitFor(ctx context.Context, g *sync.WaitGroup) bool {
	ended := make(chan struct{})
	go func() {
		g.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// flush waits until the server has everything that was published.
func flush(ctx context.Context, l *link) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, writeTimeout)
		defer cancel()
	}
	if err := l.nc.FlushWithContext(ctx); err != nil && !errors.Is(err, natsio.ErrConnectionClosed) {
		return fmt.Errorf("nats: the server has not confirmed what was sent to it: %w", err)
	}
	return nil
}
