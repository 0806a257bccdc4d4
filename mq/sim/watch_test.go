package sim

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

func d(ns int64) time.Duration { return time.Duration(ns) }

// watchedRegistry knows which client has which slot.
type watchedRegistry struct {
	*conn.Registry
	w    *world
	loop int
}

func (r watchedRegistry) OnAccept(slot uint32, listener int, remote netip.AddrPort) {
	c := r.w.clients[int(remote.Port())-firstPort-1]
	if g := r.w.generations[r.loop]; int(slot) < len(g) && g[slot] != r.Loop().Generation(slot) {
		r.w.fail(c, "a slot is not used again in the turn in which it was closed", "slot %d", slot)
	}
	if used := &r.w.slots[r.loop]; int(slot) < len(*used) {
		(*used)[slot] = c
	} else { // the lowest free slot is taken
		*used = append(*used, c)
	}
	r.Registry.OnAccept(slot, listener, remote)
}

// watch is a handler in front of another: it checks the order of the calls and knows, before the gateway does, what each
// message must lead to.
type watch struct {
	w     *world
	inner conn.Handler
	gate  bool
}

// of returns the client of a connection.
func (h *watch) of(c *conn.Conn) *client {
	return h.w.slots[c.Registry().Loop().Index()][c.Ref().Slot]
}

// check returns the client; call is what the handler is told.
func (h *watch) check(c *conn.Conn, call string, states ...conn.State) *client {
	k := h.of(c)
	h.w.note(k, "%s", call)
	if k.opened != 1 || k.ended != 0 || k.ref != c.Ref() {
		h.w.fail(k, "L1.6: one OnOpen, then messages, then one OnClose", "%s: opened %d, closed %d", call, k.opened, k.ended)
	}
	for _, s := range states {
		if c.State() == s {
			return k
		}
	}
	h.w.fail(k, "L1.1: states", "%s in state %v", call, c.State())
	return nil
}

func (h *watch) OnOpen(c *conn.Conn) {
	w, k := h.w, h.of(c)
	k.id, k.ref, k.bornAt, k.seenAt = c.ID(), c.Ref(), w.now(), w.now()
	if k.opened++; k.opened > 1 || k.echo == h.gate || w.byID[k.id] != nil {
		w.fail(k, "L1.6: one OnOpen", "number %d, at the gateway %v", k.opened, h.gate)
	}
	h.check(c, "OnOpen", conn.Connected)
	w.byID[k.id] = k
	k.open = true
	h.inner.OnOpen(c)
	if w.chance(0.03) {
		w.note(k, "is closed from within OnOpen")
		_ = c.Close(oneOf(w, 1000, 4000, 4000), "at once", conn.CauseLocal)
	} else if h.gate && w.chance(0.1) {
		k.sendEvent()
	}
}

func (h *watch) OnPong(c *conn.Conn, rtt time.Duration) {
	h.check(c, "OnPong", conn.Open)
	h.inner.OnPong(c, rtt)
}

func (h *watch) OnDrain(c *conn.Conn) {
	k := h.check(c, "OnDrain", conn.Open, conn.Connected)
	k.draining = true
	h.inner.OnDrain(c)
}

func (h *watch) OnError(c *conn.Conn, err error) {
	k := h.check(c, fmt.Sprint("OnError ", err), conn.Connected, conn.Open, conn.Closing)
	k.excuse("its socket is broken")
	h.inner.OnError(c, err)
}

func (h *watch) OnClose(c *conn.Conn, e conn.End) {
	w := h.w
	k := h.check(c, fmt.Sprintf("OnClose %d %q %s", e.Code, e.Reason, e.Cause.Label()), conn.Closing, conn.Closed)
	k.ended++
	k.end, k.reason, k.endAt, k.open = e, string(e.Reason), w.now(), false
	k.end.Reason, k.endStall = nil, w.stalled
	if e.NS != w.now()-k.bornAt {
		w.fail(k, "L6.1: its duration is known", "%v, expected %v", d(e.NS), d(w.now()-k.bornAt))
	}
	if w.regs[k.loop].Find(k.id) != nil {
		w.fail(k, "L6.1: it is out of the registry", "")
	}
	if e.Cause == conn.CauseForced && !k.forced && w.now()-k.closingAt < int64(w.cfg.CloseTimeout) {
		w.fail(k, "L5.3: forced after --close-timeout", "after %v", d(w.now()-k.closingAt))
	}
	if e.Cause == conn.CauseClient && !contains(k.closed, int(e.Code)) && !k.spoilt {
		w.fail(k, "L1.4: OnClose has the client's code", "%d, it sent %v", e.Code, k.closed)
	}
	failed := e.Cause == conn.CauseProtocol || e.Cause == conn.CauseTooBig || e.Cause == conn.CauseBadUTF8
	if k.broke != 0 && failed && int(e.Code) != k.broke {
		w.fail(k, "RFC 7692: what breaks the compression fails the connection", "%d, expected %d", e.Code, k.broke)
	}
	if failed && !k.spoilt && len(k.closed) == 0 {
		w.fail(k, "who keeps to the protocol is not failed", "%d %q", e.Code, e.Reason)
	}
	if err := c.Send(opText, nil); err == nil {
		w.fail(k, "nothing can be sent within OnClose", "")
	}
	h.inner.OnClose(c, e)
	clear(k.topics)
}

func contains(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// decode reads a message as the gateway should.
func decode(op frame.OpCode, p []byte) (e wire.Envelope, ok bool) {
	if op == opText {
		b, err := base64.StdEncoding.DecodeString(string(p))
		if err != nil {
			if b, err = base64.RawStdEncoding.DecodeString(string(p)); err != nil {
				return e, false
			}
		}
		p = b
	} else {
		p = append([]byte(nil), p...)
	}
	return e, e.Unmarshal(p) == nil
}

func (h *watch) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	w := h.w
	k := h.check(c, fmt.Sprintf("OnMessage, %d bytes", len(p)), conn.Open, conn.Closing)
	if len(p) > c.Endpoint().MaxMessage {
		w.fail(k, "L1.6: no message above the limit", "%d bytes", len(p))
	}
	if n := int64(w.cfg.MaxMessages); n > 0 && c.State() == conn.Open {
		if k.paid = max(k.paid, w.now()) + int64(time.Second)/n; k.paid > w.now()+int64(time.Second) {
			w.fail(k, "no more messages than --max-messages-per-second", "%v too early", d(k.paid-w.now()-int64(time.Second)))
		}
	}
	if !h.gate {
		h.inner.OnMessage(c, op, p)
		return
	}
	l := w.regs[k.loop].Loop()
	e, ok := decode(op, p)
	if ok {
		if k.form != 0 && k.form != op {
			k.forms++
		}
		k.form = op
	}
	if ok && strings.HasPrefix(e.SessionID, "q") {
		k.saw(&e)
	}
	isRequest := ok && e.MessageType == wire.Request && c.State() == conn.Open && e.RequestID != "" && len(e.RequestID) <= 128
	var q *request
	full := false
	if isRequest {
		q = k.requestOf(&e)
		q.accepted, q.start = true, w.now()
		k.accepted = append(k.accepted, q)
		full = w.gate.Describe(c).Requests >= w.mq.MaxRequests || c.Draining()
		if full {
			q.want = failed
		}
	}
	resolved := h.resolves(k, &e, ok)
	before := w.gate.Stats(l).Accepted
	w.current = q
	if full {
		w.current = nil
	}
	h.inner.OnMessage(c, op, p)
	w.current = nil
	if n := w.gate.Stats(l).Accepted - before; n > 1 || (n == 1) != isRequest {
		w.fail(k, "L3: requests are accepted or not", "%d accepted, expected %v: %+v", n, isRequest, e)
	}
	if q != nil && q.called == full {
		w.fail(k, "L3.3: the worker gets requests up to the limit", "called %v, too many %v", q.called, full)
	}
	if resolved != nil && resolved.calls != 1 {
		w.fail(k, "L3.9: a Response resolves the request", "number %d: %d calls", resolved.serial, resolved.calls)
	}
}

// resolves returns the request of the server that a message must resolve, nil when it must not resolve one.
func (h *watch) resolves(k *client, e *wire.Envelope, ok bool) *ask {
	if !ok || e.MessageType != wire.Response || !strings.HasPrefix(e.Type, "sim.R") {
		return nil
	}
	n, err := strconv.Atoi(e.Type[len("sim.R"):])
	if err != nil {
		return nil
	}
	for _, a := range h.w.asks {
		if a.serial == n && a.client == k && a.id == e.RequestID && a.calls == 0 {
			return a
		}
	}
	return nil
}

// saw checks that requests arrive in the order in which they were sent, and none is left out but what got mixed up with
// something broken.
func (k *client) saw(e *wire.Envelope) {
	is := func(q *request) bool { return e.SessionID == fmt.Sprintf("q%d", q.serial) }
	for k.spoilt && len(k.unseen) > 0 && !is(k.unseen[0]) {
		k.unseen = k.unseen[1:]
	}
	if len(k.unseen) == 0 || !is(k.unseen[0]) {
		k.w.fail(k, "messages arrive once and in order", "%s, %d are on their way", e.SessionID, len(k.unseen))
	}
	q := k.unseen[0]
	if k.broke != 0 && q.serial >= k.brokeAt {
		k.w.fail(k, "nothing is read behind what fails the connection", "%s", e.SessionID)
	}
	k.handed, k.seenAt, k.seenStall = q.item, k.w.now(), k.w.stalled
	k.unseen = k.unseen[1:]
}

// requestOf finds the request that a message is by what stands in its session id.
func (k *client) requestOf(e *wire.Envelope) *request {
	w := k.w
	if n, err := strconv.Atoi(strings.TrimPrefix(e.SessionID, "q")); err == nil && n < len(w.requests) {
		if q := w.requests[n]; q.client == k && !q.accepted && q.id == e.RequestID {
			return q
		}
		w.fail(k, "each request arrives once", "%q", e.SessionID)
	}
	q := k.newRequest() // not of request(): fragments and the like
	q.id, q.typ, q.body = strings.Clone(e.RequestID), strings.Clone(e.Type), append([]byte(nil), e.Payload...)
	return q
}

// echo is the handler of the other endpoint.
type echo struct{ w *world }

func (h *echo) of(c *conn.Conn) *client {
	return h.w.slots[c.Registry().Loop().Index()][c.Ref().Slot]
}

func (h *echo) OnOpen(c *conn.Conn) {
	if h.w.chance(0.3) {
		h.send(c, opText, []byte("welcome"))
	}
}

func (h *echo) send(c *conn.Conn, op frame.OpCode, p []byte) {
	k := h.of(c)
	h.w.maxMessage = max(h.w.maxMessage, len(p)+14)
	state := c.State()
	switch err := c.Send(op, p); {
	case err == nil:
		k.echoes = append(k.echoes, append([]byte(nil), p...))
	case err == conn.ErrNotOpen && (state == conn.Open || state == conn.Connected):
		h.w.fail(k, "what is open can be sent to", "%v in state %v", err, state)
	}
}

func (h *echo) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	k := h.of(c)
	for k.spoilt && len(k.unheard) > 0 && !bytes.Equal(k.unheard[0], p) {
		k.unheard = k.unheard[1:]
	}
	if !k.spoilt {
		if len(k.unheard) == 0 || !bytes.Equal(k.unheard[0], p) {
			h.w.fail(k, "messages arrive once and in order", "%d bytes, %d messages are on their way", len(p), len(k.unheard))
		}
		k.unheard = k.unheard[1:]
	}
	h.send(c, op, p)
}

func (h *echo) OnPong(*conn.Conn, time.Duration) {}
func (h *echo) OnError(*conn.Conn, error)        {}

func (h *echo) OnDrain(c *conn.Conn) {
	if h.w.chance(0.8) {
		_ = c.CloseFor(conn.CauseDrain)
	}
}

func (h *echo) OnClose(c *conn.Conn, _ conn.End) { h.of(c).told++ }
