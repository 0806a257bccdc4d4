package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Conn is a process's connections to one NATS system. All methods are safe from any goroutine.
type Conn struct {
	o     Options
	log   *slog.Logger
	names subjects.Names
	links []*link
	base  time.Time // of now

	once   sync.Once
	closed chan struct{}
	done   sync.WaitGroup // the links' goroutines
}

// Connect connects every link. It returns an error when the options are wrong, when a server refuses them, or when none
// answers within Options.Wait or before ctx is done. What is refused is final, however long Options.Wait is: credentials or
// an NKey that the server does not accept, a certificate that either side does not accept, TLS that only one side wants.
// From then on lost connections are made again without end. The caller ends it with Close.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	opts, err := o.nats()
	if err != nil {
		return nil, err
	}
	names, err := subjects.New(o.prefix())
	if err != nil {
		return nil, err
	}
	c := &Conn{o: o, log: o.Log, names: names, base: time.Now(), closed: make(chan struct{})}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var process natsio.Options
	if o.InProcess != nil {
		if err := o.InProcess(&process); err != nil {
			return nil, fmt.Errorf("NATS server in this process: %w", err)
		}
	}
	end := time.Now().Add(o.Wait)
	for i := range max(1, o.Connections) {
		l := &link{index: i, conn: c, lost: make(chan struct{}, 1), back: make(chan struct{}, 1)}
		d := &dialer{l: l, process: process.InProcessServer}
		all := append(opts[:len(opts):len(opts)], natsio.DisconnectErrHandler(l.disconnected), natsio.ReconnectHandler(l.connected),
			natsio.ErrorHandler(l.failed), natsio.SetCustomDialer(d))
		if d.process != nil {
			all = append(all, natsio.InProcessServer(d))
		}
		if l.nc, err = c.connect(ctx, end, all); err != nil {
			c.Close()
			return nil, err
		}
		l.server.Store(l.nc.ConnectedUrlRedacted())
		l.downSince.Store(0) // servers that did not answer before this one did
		c.links = append(c.links, l)
		c.done.Go(l.mind)
	}
	c.log.Info("NATS connected", "server", c.links[0].nc.ConnectedUrlRedacted(), "links", len(c.links), "prefix", names.Prefix())
	return c, nil
}

// connect tries until it is connected, is refused, or the time is over.
func (c *Conn) connect(ctx context.Context, end time.Time, opts []natsio.Option) (*natsio.Conn, error) {
	said := false
	for {
		nc, err := natsio.Connect(strings.Join(c.o.URLs, ","), opts...)
		if err == nil {
			return nc, nil
		}
		if expected := refusal(err); expected != "" {
			return nil, fmt.Errorf("NATS connection to %s%s: %w, %s", c.where(), c.o.identity(), err, expected)
		}
		err = fmt.Errorf("NATS connection to %s: %w", c.where(), err)
		if time.Now().After(end) {
			return nil, err
		}
		if !said {
			c.log.Warn("NATS does not answer yet", "err", err, "trying_for", time.Until(end).Round(time.Second))
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(reconnectWait):
		}
	}
}

// where names the servers without passwords.
func (c *Conn) where() string {
	if c.o.InProcess != nil {
		return "the server in this process"
	}
	var hosts []string
	for _, u := range c.o.URLs {
		hosts = append(hosts, redact(u))
	}
	return strings.Join(hosts, ",")
}

// redact takes user and password out of a URL.
func redact(u string) string {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		return u
	}
	return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
}

// now is the clock of the package: nanoseconds, never set back.
func (c *Conn) now() int64 { return int64(time.Since(c.base)) }

func (c *Conn) tell(s State) {
	if c.o.OnState != nil {
		c.o.OnState(s)
	}
}

// Names returns the names of subjects, streams and buckets under the prefix.
func (c *Conn) Names() subjects.Names { return c.names }

// Links returns the connections of all links, in their order. They must not be closed, nor their handlers be changed.
func (c *Conn) Links() (list []*natsio.Conn) {
	for _, l := range c.links {
		list = append(list, l.nc)
	}
	return list
}

// NATS returns the first link's connection. It must not be closed, nor its handlers be changed.
func (c *Conn) NATS() *natsio.Conn { return c.links[0].nc }

// JetStream returns JetStream on the first link.
func (c *Conn) JetStream() (jetstream.JetStream, error) {
	js, err := jetstream.New(c.NATS(), jetstream.WithPublishAsyncTimeout(storeTimeout), jetstream.WithDefaultTimeout(storeTimeout))
	if err != nil {
		return nil, fmt.Errorf("NATS JetStream: %w", err)
	}
	return js, nil
}

// Away returns how long the link that has been away longest is away, 0 when all are there.
func (c *Conn) Away() time.Duration {
	var longest time.Duration
	for _, l := range c.links {
		longest = max(longest, l.away())
	}
	return longest
}

// linkOf returns the link for a connection's requests.
func (c *Conn) linkOf(id conn.ID) *link {
	if len(c.links) == 1 {
		return c.links[0]
	}
	return c.links[int(id.Slot())%len(c.links)]
}

// Close closes all links. What waits to be written is tried once more, for as long as one write may take. Relays, Services
// and Clients on it are closed first.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.closed)
		for _, l := range c.links {
			l.nc.Close()
		}
		c.done.Wait()
	})
}
