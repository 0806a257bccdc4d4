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
// Any number of workers may do so at once. Any of them may die doing it: sessions that it has not come to are given up by
// the next one. One that dies before it could give back to a gateway that has come back (giveBack) leaves up to sweepBatch
// sessions lost though their clients are there: unless the gateway asks about them, they end when their grace is over.
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

// listed says that no connection of a gateway had a session in what conns had up to a sequence.
type listed struct {
	upTo uint64
	at   time.Time
}

// connsOf returns the keys of the connections of a gateway that have a session. To list them takes a consumer, which each
// of the servers has to make and to forget: so it is looked first whether there is anything new since there was none.
func (e *Engine) connsOf(ctx context.Context, node string) ([]string, error) {
	from := uint64(1)
	if l, ok := e.listed.Load(node); ok && time.Since(l.(listed).at) < listAgain {
		from = l.(listed).upTo + 1
	}
	some, err := e.conns.some(ctx, node+".", from)
	if err != nil {
		return nil, err
	}
	if !some {
		if from == 1 {
			e.listed.Delete(node)
		}
		return nil, nil
	}
	keys, upTo, err := e.conns.live(ctx, node+".")
	if err == nil && len(keys) == 0 {
		e.listed.Store(node, listed{upTo, time.Now()})
	}
	return keys, err
}

// sweepGateway gives up the sessions of a gateway.
func (e *Engine) sweepGateway(ctx context.Context, node string) error {
	keys, err := e.connsOf(ctx, node)
	if err != nil || len(keys) == 0 {
		return err
	}
	lost := 0
	defer func() {
		if lost > 0 {
			e.stats.lost.Add(int64(lost))
			e.log.Warn("the lease of a gateway is over: its sessions are treated as lost", "node", node, "sessions", lost)
		}
	}()
	given, sure := map[conn.ID]string{}, 0 // given up since the lease was looked at; without those of which it is not known
	for i, key := range keys {
		changed, err := e.giveUpKey(ctx, node, key, given)
		if changed {
			sure++
		}
		if err == nil && len(given) < sweepBatch && i < len(keys)-1 {
			continue
		}
		back, failed := e.giveBack(ctx, node, given)
		if !back {
			lost += sure
		}
		if err = errors.Join(err, failed); err != nil || back {
			return err
		}
		clear(given)
		sure = 0
	}
	return nil
}

// giveUpKey gives up the session of a connection, and notes it in given if it may have been given up.
func (e *Engine) giveUpKey(ctx context.Context, node, key string, given map[conn.ID]string) (changed bool, err error) {
	c, err := conn.ParseID(key)
	if err != nil {
		return false, nil // not one of ours
	}
	value, _, err := e.conns.get(ctx, node+"."+key)
	if err != nil || value == nil {
		return false, err
	}
	changed, err = e.giveUp(ctx, c, string(value))
	if changed || err != nil {
		given[c] = string(value)
	}
	return changed, err
}

// giveBack reports whether a gateway has come back, and gives it then what was given up. The gateway writes its lease before
// it asks whether its sessions hold (Holds); here the lease is read after they were given up. So one of the two sees the
// other, however old what the sweep began with is by now.
func (e *Engine) giveBack(ctx context.Context, node string, given map[conn.ID]string) (back bool, err error) {
	if len(given) == 0 {
		return false, nil
	}
	lease, _, err := e.gateways.get(ctx, node)
	if err != nil || lease == nil {
		return false, err
	}
	var errs []error
	for c, id := range given {
		_, err := e.Holds(ctx, c, id)
		errs = append(errs, err)
	}
	return true, errors.Join(errs...)
}

// giveUp treats a session as lost when its connection is the one that conns says.
func (e *Engine) giveUp(ctx context.Context, c conn.ID, id string) (changed bool, err error) {
	mine := of(c)
	s, _, err := e.readSession(ctx, id)
	switch {
	case err != nil:
		return false, err
	case s == nil || !mine(s):
		has, err := e.fence(ctx, c, id, false)
		if err == nil && !has { // else it has just got it: the next sweep looks again
			err = e.dropConn(ctx, c, id)
		}
		return false, err
	case !s.Connected && !s.Ended:
		return false, nil // its grace is running
	case e.cfg.ReenterGrace == 0:
		err = e.end(ctx, id, mine)
	default:
		err = e.lose(ctx, id, mine, conn.ID{})
	}
	if errors.Is(err, rooms.ErrNoSession) || errors.Is(err, nats.ErrConnectionClosed) {
		err = nil
	}
	return err == nil, err
}
