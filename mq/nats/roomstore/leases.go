package roomstore

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
)

// knowNode notes that a gateway has connections with sessions, before its first session is written: so whoever sweeps
// looks for them there.
func (e *Engine) knowNode(ctx context.Context, node uint32) error {
	token := subjects.NodeToken(node)
	if at, ok := e.seen.Load(token); ok && time.Since(at.(time.Time)) < nodeRefresh {
		return nil
	}
	if err := e.nodes.set(ctx, token, []byte(token), nodeTTL); err != nil {
		return err
	}
	e.seen.Store(token, time.Now())
	return nil
}

// SweepGateways looks at the leases of all gateways that are known and treats the sessions of those without one as lost.
// Any number of workers may do so at once, and any of them may die doing it: what it has begun the next one goes on with.
func (e *Engine) SweepGateways(ctx context.Context) error {
	nodes, err := e.nodes.keys(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range nodes {
		lease, _, err := e.gateways.get(ctx, node)
		if err == nil && lease == nil {
			err = e.sweepGateway(ctx, node)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sweepGateway gives up the sessions of a gateway.
func (e *Engine) sweepGateway(ctx context.Context, node string) error {
	keys, err := e.conns.keys(ctx, node+".")
	if err != nil || len(keys) == 0 {
		return err
	}
	lost := 0
	for _, key := range keys {
		c, err := conn.ParseID(key)
		if err != nil {
			continue // not one of ours
		}
		value, _, err := e.conns.get(ctx, node+"."+key)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		changed, err := e.giveUp(ctx, c, string(value))
		if err != nil {
			return err
		}
		if changed {
			lost++
		}
	}
	if lost > 0 {
		e.stats.lost.Add(int64(lost))
		e.log.Warn("the lease of a gateway is over: its sessions are treated as lost", "node", node, "sessions", lost)
	}
	return nil
}

// giveUp treats a session as lost when its connection is the one that conns says.
func (e *Engine) giveUp(ctx context.Context, c conn.ID, id string) (changed bool, err error) {
	mine := func(s *session) bool { return s.Conn == c.String() }
	s, _, err := e.readSession(ctx, id)
	switch {
	case err != nil:
		return false, err
	case s == nil || !mine(s):
		return false, e.dropConn(ctx, c, id)
	case !s.Connected && !s.Ended:
		return false, nil // its grace is running
	case e.cfg.ReenterGrace == 0:
		err = e.end(ctx, id, mine)
	default:
		err = e.lose(ctx, id, mine)
	}
	if errors.Is(err, rooms.ErrNoSession) || errors.Is(err, nats.ErrConnectionClosed) {
		err = nil
	}
	return err == nil, err
}
