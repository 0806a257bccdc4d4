package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// lease is the gateway's key in the bucket of leases. It says "I am here" until its time to live has passed: the server
// takes it out then, and workers treat the gateway's sessions as lost.
type lease struct {
	js  jetstream.JetStream
	now chan struct{} // capacity 1: renew at once

	failing   bool      // a log line tells that renewing fails
	written   time.Time // before the last renewal that was stored
	unchecked bool      // the lease may have been over since the last check of all bindings began
	left      []Binding // about which nobody has said yet whether they still hold
}

// prepare makes what the Relay needs in JetStream and takes the lease, again and again until ctx is done.
func (x *Relay) prepare(ctx context.Context) error {
	js, err := x.c.JetStream()
	if err != nil {
		return err
	}
	x.ends.js, x.lease.js = js, js
	for wait := retryLeast; ; wait = min(2*wait, retryMost) {
		err := x.prepareOnce(ctx)
		if err == nil {
			return nil
		}
		x.log.Warn("NATS JetStream is not ready for this gateway yet", "err", err)
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (x *Relay) prepareOnce(ctx context.Context) error {
	if err := EnsureDisconnected(ctx, x.c, x.cfg.Replicas); err != nil {
		return err
	}
	if err := EnsureGateways(ctx, x.c, x.cfg.Replicas); err != nil {
		return err
	}
	x.lease.written = time.Now()
	return x.renewOnce(ctx)
}

// EnsureDisconnected makes the stream of ends of connections if it is not there. One that is there stays as it is.
func EnsureDisconnected(ctx context.Context, c *Conn, replicas int) error {
	js, err := c.JetStream()
	if err != nil {
		return err
	}
	cfg := c.names.Disconnections()
	cfg.Replicas = max(1, replicas)
	if _, err = js.CreateStream(ctx, cfg); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("nats: stream %s: %w", cfg.Name, err)
	}
	return nil
}

// EnsureGateways makes the bucket of leases if it is not there. One that is there stays as it is.
func EnsureGateways(ctx context.Context, c *Conn, replicas int) error {
	js, err := c.JetStream()
	if err != nil {
		return err
	}
	name := c.names.GatewaysBucket()
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Description: "mqgate: gateways that are there", History: 1,
		LimitMarkerTTL: leaseMarker, Storage: jetstream.FileStorage, Replicas: max(1, replicas)})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("nats: bucket %s: %w", name, err)
	}
	return nil
}

// renewOnce writes the lease with a time to live from now on.
func (x *Relay) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	m := &natsio.Msg{Subject: "$KV." + x.names.GatewaysBucket() + "." + x.node, Data: []byte(x.node)}
	if _, err := x.lease.js.PublishMsg(ctx, m, jetstream.WithMsgTTL(x.cfg.Lease), jetstream.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("nats: lease of gateway %s: %w", x.node, err)
	}
	x.count.leaseRenewed.Add(1)
	return nil
}

// renew renews the lease each third of it, and at once when NATS is back. When NATS was away, or nothing was stored for as
// long as the lease lasts (a network that drops everything loses no connection), it asks which bindings still hold: beside
// the renewals, so that an answer that takes its time does not let the lease run out again.
func (x *Relay) renew() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	x.done.Go(func() {
		<-x.closing
		cancel()
	})
	tick := time.NewTicker(x.cfg.Lease / 3)
	defer tick.Stop()
	checked := make(chan []Binding, 1) // what is left after the check that is under way
	checking := false
	for {
		select {
		case <-x.closing:
			return
		case x.lease.left = <-checked:
			checking = false
			continue
		case <-x.lease.now:
			x.lease.unchecked = true
		case <-tick.C:
		}
		begun := time.Now()
		err := x.renewOnce(ctx)
		switch {
		case err != nil:
			x.count.leaseFailed.Add(1)
			if !x.lease.failing && ctx.Err() == nil {
				x.log.Warn("the gateway's lease is not renewed", "err", err)
			}
			x.lease.failing = true
			continue
		case x.lease.failing:
			x.log.Info("the gateway's lease is renewed again")
			x.lease.failing = false
		}
		if time.Since(x.lease.written) >= x.cfg.Lease {
			x.lease.unchecked = true
		}
		x.lease.written = begun
		if checking {
			continue
		}
		if x.lease.unchecked {
			x.lease.left, x.lease.unchecked = x.peers.bindings(), false
		}
		if left := x.lease.left; len(left) > 0 {
			checking = true
			x.done.Go(func() { checked <- x.check(ctx, left) })
		}
	}
}

// giveBack ends the lease now, so that nobody waits for its end.
func (x *Relay) giveBack(ctx context.Context) error {
	if x.lease.js == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	kv, err := x.lease.js.KeyValue(ctx, x.names.GatewaysBucket())
	if err == nil {
		err = kv.Delete(ctx, x.node)
	}
	if err != nil {
		return fmt.Errorf("nats: lease of gateway %s: %w", x.node, err)
	}
	return nil
}

// check asks the workers which of the bindings still hold: the lease may have been over while NATS was away, and the
// sessions with it. A connection whose session is gone is closed, so that its client begins anew instead of believing that
// it is in its rooms. It returns those about which nobody has answered: they are asked about again later.
func (x *Relay) check(ctx context.Context, all []Binding) (left []Binding) {
	for len(all) > 0 {
		n := min(len(all), checkBatch)
		batch := slices.DeleteFunc(slices.Clone(all[:n]), func(b Binding) bool { return x.peers.session(b.Conn) != b.Session })
		if len(batch) == 0 {
			all = all[n:]
			continue
		}
		m := &natsio.Msg{Subject: x.names.SessionCheck(), Data: appendBindings(nil, batch), Header: natsio.Header{subjects.HeaderNode: {x.node}}}
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		a, err := x.c.NATS().RequestMsgWithContext(bounded, m)
		cancel()
		if err == nil && header(a, subjects.HeaderError) != "" {
			err = errors.New(header(a, subjects.HeaderError))
		}
		if err != nil {
			if !errors.Is(err, natsio.ErrNoResponders) && ctx.Err() == nil {
				x.log.Warn("nobody says which sessions still hold; asked again later", "err", err)
			}
			return all
		}
		gone, err := parseBindings(a.Data)
		if err != nil {
			x.log.Warn("the answer about sessions that still hold cannot be read", "err", err)
			return all
		}
		for _, b := range gone {
			x.unbind(b)
		}
		all = all[n:]
	}
	return nil
}

// unbind ends what a connection had of a session that is gone.
func (x *Relay) unbind(b Binding) {
	_, changed, _ := x.peers.bind(b.Conn, "", func(old string) bool { return old == b.Session })
	c := x.clients.Load()
	if !changed || c == nil {
		return
	}
	x.count.unbound.Add(1)
	(*c).UnsubscribeAll(b.Conn)
	(*c).CloseConnection(b.Conn, codeSessionGone, "session is gone", nil)
}

// Bindings travel as lines "CONNECTION SESSION\n".

func appendBindings(b []byte, list []Binding) []byte {
	for _, e := range list {
		b = append(append(append(append(b, e.Conn.String()...), ' '), e.Session...), '\n')
	}
	return b
}

func parseBindings(b []byte) (list []Binding, err error) {
	for line := range strings.Lines(string(b)) {
		id, session, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		c, err := conn.ParseID(id)
		if err != nil || !ok || session == "" {
			return nil, fmt.Errorf("line %.100q: expected a connection id, a space and a session", line)
		}
		list = append(list, Binding{c, session})
	}
	return list, nil
}
