package bench

import (
	"errors"
	"math"
	"net/http"

	"github.com/mqgate/mqgate/conn/handshake"
)

// Refusals says which refused upgrades a churn takes for a limit of the server that does its work, and not for a failure.
type Refusals uint8

const (
	RefusalsNone    Refusals = iota // none
	RefusalsAddress                 // 503 by a limit per address: handshakes_refused_address_total
	RefusalsAny                     // any 503: handshakes_refused_total{status="503"}
)

// refused deals with an upgrade that was refused, if such ones are no failures.
func (c *churner) refused(slot uint32, p *peer, err error) bool {
	status, ok := errors.AsType[*handshake.StatusError](err)
	if c.refusals == RefusalsNone || !ok || status.Status != http.StatusServiceUnavailable {
		return false
	}
	c.n.refused++
	c.free(slot, p, false)
	return true
}

// byLimits returns how many upgrades the server has refused by the limits that a churn was told of; NaN: it does not say.
func (r *churnResult) byLimits() float64 {
	name := ""
	switch r.refusals {
	case RefusalsNone:
		return 0
	case RefusalsAddress:
		name = "mqgate_handshakes_refused_address_total"
	case RefusalsAny:
		name = "mqgate_handshakes_refused_total{status=503}"
	}
	return r.after.samples.value(name) - r.before.samples.value(name)
}

// unseen returns how many of those did not read that they were refused, and count as upgraded in n: some of n.blind.
func (r *churnResult) unseen() float64 { return r.byLimits() - float64(r.n.refused) }

// upgrades returns how many connections the server must have upgraded.
func (r *churnResult) upgrades() float64 { return float64(r.n.upgraded) - r.unseen() }

// upgraded is upgrades for a report: where the server's count cannot be, the clients'.
func (r *churnResult) upgraded() uint64 {
	if n := r.unseen(); !math.IsNaN(n) && n >= 0 && n <= float64(r.n.blind) {
		return r.n.upgraded - uint64(n)
	}
	return r.n.upgraded
}
