package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// afterTurn checks what holds after every turn of every loop.
func (w *world) afterTurn() {
	if w.broken != nil { // by a check within the worker, whose panics the gateway survives
		panic(w.broken)
	}
	var open int64
	w.inOpen = 0
	var panics uint64
	regs, nets := w.regs, w.nets
	if k := w.dialers; k != nil {
		regs, nets = append(regs[:len(regs):len(regs)], k.reg), append(nets[:len(nets):len(nets)], k.net)
	}
	for i, r := range regs {
		s := r.Snapshot()
		if int(s.Sockets) != nets[i].Sockets() {
			w.fail(nil, "sockets are counted", "loop %d: %d, the kernel has %d", i, s.Sockets, nets[i].Sockets())
		}
		var entries int64
		if i < len(w.regs) {
			open += s.Conn.Open
			w.paused[i] = s.Conn.Paused > 0
			entries = w.checkSlots(i, s.Pending)
			panics += w.checkLedger(i)
		} else { // that are the dialers
			entries = r.Entries()
		}
		if total, gone := int64(s.Conn.Total), int64(s.Conn.Disconnected()); total-gone != s.Conn.Open || s.Conn.Open != entries || s.Drift != 0 {
			w.fail(nil, "L6.2: total - disconnected = open = entries, no drift", "loop %d: %d - %d, %d, %d, drift %d (handshake %d, lingering %d, sockets %d)",
				i, total, gone, s.Conn.Open, entries, s.Drift, s.Conn.Handshake, s.Conn.Lingering, s.Sockets)
		}
	}
	if lim := w.cfg.Limits; lim != nil && (open > lim.Hard || w.inOpen > lim.Soft || lim.Counted() != open) {
		w.fail(nil, "L2.5, L2.6: limits", "%d open, %d of them in OPEN, %d counted, at most %d and %d", open, w.inOpen, lim.Counted(), lim.Hard, lim.Soft)
	}
	if panics != w.panics {
		w.fail(nil, "L8.2: nothing panics but the worker", "%d panics counted, %d were made", panics, w.panics)
	}
}

// checkSlots looks at every slot that was ever used: it checks the memory of waiting output (L8.3: the limit, or one message
// above nothing, and what control frames and the answer to the upgrade add), notes which connections begin to close, and
// returns how many there are.
func (w *world) checkSlots(i int, pending int64) (entries int64) {
	r := w.regs[i]
	l := r.Loop()
	held := l.HeldBytes()
	w.generations[i] = w.generations[i][:0]
	for slot, k := range w.slots[i] {
		slot := uint32(slot)
		w.generations[i] = append(w.generations[i], l.Generation(slot))
		if !l.InUse(slot) {
			continue
		}
		held -= int64(l.Held(slot))
		bytes, units := l.Queued(slot)
		pending -= int64(bytes)
		if bytes > max(w.cfg.MaxPending, w.maxMessage)+1000 || units > w.cfg.MaxPending/16+8 {
			w.fail(k, "L8.3: what waits is bounded", "%d bytes in %d pieces wait, the limit is %d and the longest message %d", bytes, units, w.cfg.MaxPending, w.maxMessage)
		}
		c := r.Get(conn.Ref{Slot: slot, Generation: l.Generation(slot)})
		if c == nil {
			continue
		}
		if c.State() == conn.Open {
			w.inOpen++
		}
		if k.p != nil { // else this is the turn in which it was accepted
			deaf := !k.p.Watched()
			if k.deaf || deaf { // since the turn before, or now
				k.deafAt = w.now()
			}
			k.deaf = deaf
		}
		if entries++; c.State() == conn.Closing && k.closingAt == 0 {
			k.closingAt, k.heardAt = w.now(), max(k.p.Heard(), k.deafAt)
			w.note(k, "is CLOSING")
		}
	}
	if pending != 0 || held != 0 {
		w.fail(nil, "waiting bytes are counted", "loop %d: they differ by %d, their memory by %d", i, pending, held)
	}
	return entries
}

// checkLedger is L3.11's sum.
func (w *world) checkLedger(i int) (panics uint64) {
	s := w.gate.Stats(w.regs[i].Loop())
	var done, answered uint64
	for _, n := range s.Requests {
		done += n
	}
	for _, n := range s.Duration {
		answered += n
	}
	if s.Accepted != done+uint64(s.InFlight) || answered != s.Requests[mq.OutcomeOK] || s.InFlight < 0 || s.ServerWaiting < 0 {
		w.fail(nil, "L3.11: accepted = ended + in flight", "loop %d: %d accepted, outcomes %v, %d in flight, %d durations", i, s.Accepted, s.Requests, s.InFlight, answered)
	}
	return s.Panics
}

// atRest checks what holds when the loops have done everything that there is to do.
func (w *world) atRest() {
	now := w.now()
	var waiting, subscribed int64
	exact := true
	for i, r := range w.regs {
		if open := r.Stats().Open; r.Entries() != open {
			w.fail(nil, "L6.2: open = entries", "loop %d: %d, %d", i, open, r.Entries())
		}
	}
	for _, c := range w.alive {
		w.checkTimes(c, now)
		if !c.open {
			continue
		}
		g := w.regs[c.loop].Find(c.id)
		if g == nil || g.Ref() != c.ref {
			w.fail(c, "an open connection is found by its id", "")
		}
		if g.State() != conn.Open {
			exact = false // the model follows those that are open
			continue
		}
		if g.Pending() == 0 && g.Endpoint().Path == gatePath {
			w.checkComplete(c, now)
		}
		w.checkReceived(c, now)
		n := w.gate.Describe(g)
		if n.Requests > w.mq.MaxRequests {
			w.fail(c, "L3.3: requests in flight are limited", "%d, at most %d", n.Requests, w.mq.MaxRequests)
		}
		for t, s := range c.topics {
			if exact = exact && s == sure; s == sure && t.Kind == mq.TopicRoom && !slices.Contains(n.Rooms, t.Room) {
				w.fail(c, "L3.8: subscriptions", "not subscribed to %s but %q", t.Room, n.Rooms)
			}
			subscribed++
		}
	}
	for _, a := range w.asks {
		if a.calls == 0 {
			waiting++
			if now >= a.at+int64(w.mq.ServerRequestTimeout)+2*tick+w.stalled-a.stalled {
				w.fail(a.client, "L4.3: server requests resolve", "number %d after %v", a.serial, d(now-a.at))
			}
		}
	}
	w.checkTakeovers()
	for _, r := range w.regs {
		s := w.gate.Stats(r.Loop())
		waiting -= s.ServerWaiting
		subscribed -= s.Subscriptions[0] + s.Subscriptions[1]
	}
	if waiting != 0 {
		w.fail(nil, "L4: server requests are counted", "%d more wait than are counted", waiting)
	}
	if exact && subscribed != 0 {
		w.fail(nil, "L3.8: subscriptions are counted", "%d more than are counted", subscribed)
	}
	if w.broken != nil {
		panic(w.broken)
	}
}

// checkReceived checks that an OPEN connection has had all that its client has sent, but for what is held back.
func (w *world) checkReceived(c *client, now int64) {
	if len(c.out) > 0 {
		return
	}
	read := !w.paused[c.loop] && c.p.Unread() == 0
	if read && c.broke != 0 {
		w.fail(c, "RFC 7692: what breaks the compression fails the connection", "it is open, expected %d", c.broke)
	}
	if len(c.unseen) == 0 || c.spoilt {
		return
	}
	q := c.unseen[0]
	if read {
		w.fail(c, "what is sent to an open connection is received", "q%d is not", q.serial)
	}
	n := w.cfg.MaxMessages
	if n == 0 || w.cfg.Budget != nil {
		return
	}
	if c.items <= n {
		w.fail(c, "as many messages as may come in a second are let through at once", "q%d is not, of %d", q.serial, c.items)
	}
	if after := now - max(c.seenAt, c.sentAt); after > int64(q.item-c.handed)*(int64(time.Second)/int64(n)+2*tick)+w.stalled-c.seenStall {
		w.fail(c, "what was held back goes on when it can be paid for", "q%d is number %d of %d, after %v", q.serial, q.item, c.handed, d(after))
	}
}

// checkBudget checks that the budget knows what the loops hold, after each has had the chance to say it: what has changed
// by less than a step, a thousandth of the limit, may be left out (L8.6).
func (w *world) checkBudget() {
	b := w.cfg.Budget
	if b == nil {
		return
	}
	diff := b.Held()
	for _, r := range w.regs {
		diff -= r.Snapshot().Held
	}
	if most := int64(len(w.regs)) * (b.Limit()/1024 + 1); diff > most || -diff > most {
		w.fail(nil, "L8.6: the budget knows what is held", "%d bytes too many, %d may be", diff, most)
	}
}

// checkTimes checks that nothing takes longer than its timeout. A stop of the process has come on top, if there was one.
func (w *world) checkTimes(c *client, now int64) {
	late := func(since int64, allowed time.Duration) bool { return now-since > int64(allowed)+2*tick }
	if c.p.Closed() {
		return
	}
	if l := w.regs[c.loop].Loop(); c.excused == "" && !c.p.GotFIN() && !c.p.Unwatched() && l.Pending(c.ref.Slot) == 0 && c.ended > 0 {
		w.fail(c, "L1.8: our FIN follows the last words", "OnClose said %d", c.end.Code)
	}
	if c.excused == "" && c.finSent && c.p.Unread() == 0 && (c.ended > 0 || c.status > 101) && !c.p.Unwatched() && c.p.GotFIN() {
		w.fail(c, "L1.8: the socket is closed at the client's FIN", "OnClose said %d, refused with %d", c.end.Code, c.status)
	}
	if c.excused == "" && c.opened == 0 && c.status > 101 && c.answerWhole() && !c.p.GotFIN() && !c.p.Unwatched() {
		w.fail(c, "L1.8: our FIN follows the last words", "refused with %d", c.status)
	}
	ending := max(w.cfg.CloseTimeout, w.cfg.WriteTimeout)
	switch {
	case c.opened == 0:
		if late(c.arrived, w.cfg.HandshakeTimeout+w.cfg.CloseTimeout+d(w.stalled-c.stalled)) {
			w.fail(c, "L2.7: a handshake ends", "after %v", d(now-c.arrived))
		}
	case c.ended > 0:
		if late(c.endAt, ending) {
			w.fail(c, "L1.8: a socket lingers for --close-timeout at most", "after %v", d(now-c.endAt))
		}
	case c.closingAt > 0:
		if late(c.closingAt, w.cfg.CloseTimeout) {
			w.fail(c, "L5.3: closing takes --close-timeout at most", "after %v", d(now-c.closingAt))
		}
	default:
		if n := w.regs[c.loop].Loop().OldestPending(c.ref.Slot); n > int64(w.cfg.WriteTimeout)+2*tick {
			w.fail(c, "L8.3: nothing waits for longer than --write-timeout", "%v", d(n))
		}
		silence := now - max(c.p.Heard(), c.bornAt, c.deafAt) // who is not read cannot be heard
		if w.cfg.Heartbeat != conn.HeartbeatOff && silence > 3*int64(w.cfg.PingInterval)+w.stalled-c.stalled+10*tick {
			w.fail(c, "L7.2: who is silent is closed", "silent for %v", d(silence))
		}
	}
}

// checkComplete checks that an OPEN connection, to which nothing waits to be written, has got all that it must get.
func (w *world) checkComplete(c *client, now int64) {
	for _, q := range c.accepted {
		if q.want != nobody && !q.late || now >= q.start+int64(w.mq.RequestTimeout)+2*tick {
			w.fail(c, "L3.11: every accepted request is answered", "q%d is not:%s", q.serial, c.list())
		}
	}
	for _, x := range c.expected {
		if !x.maybe {
			w.fail(c, "L3.8, L4.1: what is sent to an open connection arrives", "number %d did not", x.serial)
		}
	}
}

// end ends the run: everything closes by one way of several, then nothing may be left.
func (w *world) end() {
	w.act = "the end"
	w.wk.refuses = false
	if w.cfg.Budget != nil {
		w.cfg.Budget.SetBase(0)
	}
	if w.chance(0.5) { // what can be answered is answered first
		for _, c := range w.alive {
			c.unblock()
		}
		w.settle()
		w.advance(int64(w.mq.RequestTimeout) + int64(w.mq.ServerRequestTimeout) + 2*tick)
	}
	ways := []string{"silence", "drain", "close", "force"}
	way := ways[w.rng.IntN(len(ways))]
	w.note(nil, "the end begins, by %s", way)
	w.act = "the end by " + way
	switch way {
	case "silence":
		for _, c := range w.alive {
			c.answers, c.polite = false, false
		}
		w.settle()
		w.advance(3*int64(w.cfg.PingInterval) + int64(w.cfg.HandshakeTimeout))
		// Dialers answer pings whatever happens, and what was held back for sending too much still comes in.
		if w.cfg.Heartbeat == conn.HeartbeatOff || w.dialers != nil || w.cfg.MaxMessages > 0 {
			w.closeAll()
		}
	case "drain":
		for i, r := range w.regs {
			w.post(i, func() { r.StartDrain(1000) })
		}
		w.settle()
		w.advance(int64(w.mq.RequestTimeout) + 1e9)
		for i, r := range w.regs { // the handler of the echo endpoint does not always do its duty
			w.post(i, func() {
				r.Each(func(c *conn.Conn) {
					if c.Endpoint().Path == gatePath && c.State() == conn.Open {
						w.fail(w.slots[i][c.Ref().Slot], "L5.5: a draining gateway closes everybody", "")
					}
				})
			})
		}
		w.settle()
		w.closeAll()
	case "close":
		w.closeAll()
	case "force":
		w.act = "force"
		w.excuseAll()
		for i, r := range w.regs {
			w.post(i, func() {
				if n := r.Entries(); int64(r.ForceAll()) != n {
					w.fail(nil, "ForceAll counts what it ends", "%d were open", n)
				}
			})
		}
		w.settle()
		w.nothingOpen("sockets", func(i int) int { return w.nets[i].Sockets() })
		for i, r := range w.regs { // before they fire: a timer that fires for nobody is not seen later
			if n := r.Loop().TimersArmed(); n > ownTimers {
				w.fail(nil, "no timer is left of a connection that is gone", "loop %d: %d timers, %d at most are its own", i, n, ownTimers)
			}
		}
	}
	w.advance(int64(w.cfg.HandshakeTimeout) + int64(w.cfg.CloseTimeout) + int64(max(w.cfg.CloseTimeout, w.cfg.WriteTimeout)) + 4*tick)
	w.nothingOpen("sockets", func(i int) int { return w.nets[i].Sockets() })
	for i, r := range w.regs {
		w.post(i, r.CancelDrain)
	}
	w.shut = true
	w.clock.Advance(2*int64(w.mq.ServerRequestTimeout) + int64(2*time.Second))
	for range 60 { // the worker still panics on ends that are offered: each offer takes a second
		if !w.unpublished() {
			break
		}
		w.clock.Advance(int64(time.Second))
	}
	if k := w.dialers; k != nil {
		k.net.Loop.PostFunc(func() { k.reg.ForceAll() })
	}
	w.settle()
	w.nothing()
}

// ownTimers is how many timers a loop may have armed when it has no connections: of what it does from time to time by itself, and of
// ends that wait to be offered again.
const ownTimers = 3

func (w *world) unpublished() bool {
	for _, r := range w.regs {
		if w.gate.Stats(r.Loop()).Unpublished > 0 {
			return true
		}
	}
	return false
}

func (w *world) closeAll() {
	w.settle() // an upgrade that is on its way would be too late for it
	for i, r := range w.regs {
		w.post(i, func() {
			r.Each(func(c *conn.Conn) { _ = c.Close(1001, "the end", conn.CauseLocal) })
		})
	}
	w.settle()
}

func (w *world) nothingOpen(what string, count func(i int) int) {
	for i := range w.regs {
		if n := count(i); n != 0 {
			w.fail(nil, "in the end nothing is left", "loop %d: %d %s", i, n, what)
		}
	}
}

// nothing checks that nothing is left of anybody.
func (w *world) nothing() {
	var lost, missed uint64
	var held int64 // broadcasts are counted by one loop and may be taken off by another: only the sum is 0
	for i, r := range w.regs {
		l := r.Loop()
		s, g := r.Snapshot(), w.gate.Stats(l)
		left := fmt.Sprintf("loop %d: sockets %d, open %d, handshake %d, lingering %d, pending %d, in flight %d, server requests %d, clients %d, subscriptions %v, unpublished %d, held %d and %d, timers %d",
			i, s.Sockets, s.Conn.Open, s.Conn.Handshake, s.Conn.Lingering, s.Pending, g.InFlight, g.ServerWaiting, g.Clients, g.Subscriptions, g.Unpublished,
			r.Held(), w.gate.Held(l), l.TimersArmed())
		w.note(nil, "%s", left)
		if s.Sockets != 0 || s.Conn.Open != 0 || s.Conn.Handshake != 0 || s.Conn.Lingering != 0 || s.Pending != 0 || s.Conn.Paused != 0 ||
			g.InFlight != 0 || g.ServerWaiting != 0 || g.Clients != 0 || g.Subscriptions != [2]int64{} || g.Unpublished != 0 ||
			r.Held() != 0 || w.gate.Held(l) != 0 || l.TimersArmed() != 0 {
			w.fail(nil, "in the end nothing is left", "%s", left)
		}
		lost += g.PublishLost
		held += s.Held
	}
	if held != 0 {
		w.fail(nil, "in the end nothing is left", "%d bytes of output and partial messages are counted", held)
	}
	if k := w.dialers; k != nil {
		s, l := k.reg.Snapshot(), k.net.Loop
		if s.Sockets != 0 || s.Conn.Open != 0 || s.Conn.Handshake != 0 || s.Conn.Lingering != 0 || s.Pending != 0 || k.reg.Held() != 0 || l.TimersArmed() != 0 {
			w.fail(nil, "in the end nothing is left", "dialers: sockets %d, open %d, handshake %d, lingering %d, pending %d, held %d, timers %d",
				s.Sockets, s.Conn.Open, s.Conn.Handshake, s.Conn.Lingering, s.Pending, k.reg.Held(), l.TimersArmed())
		}
	}
	if b := w.cfg.Takeovers; b != nil && b.Left() != w.takeovers {
		w.fail(nil, "in the end nothing is left", "%d bytes of the budget of takeovers, of %d", b.Left(), w.takeovers)
	}
	if p := w.cfg.PerAddress; p != nil {
		for range 5 {
			w.clock.Advance(int64(time.Second))
			p.Sweep(w.now())
		}
		if n := p.Addresses(); n != 0 {
			w.fail(nil, "in the end nothing is left", "%d addresses are counted", n)
		}
	}
	for _, c := range w.clients {
		if k := c.dialer; k != nil && k.peer != nil && (k.opened != k.ended || k.opened+k.failed != 1) {
			w.fail(c, "a dialled connection opens or fails, once", "opened %d, closed %d, failed %d", k.opened, k.ended, k.failed)
		}
		if c.opened != c.ended || c.opened > 1 {
			w.fail(c, "L1.6: one OnClose for every OnOpen", "%d OnOpen, %d OnClose", c.opened, c.ended)
		}
		switch {
		case c.opened == 0 || c.told == 1:
		case c.told == 0 && c.offers == 3:
			missed++
		default:
			w.fail(c, "L6.1: the worker is told once of every end", "%d times; it panicked %d times", c.told, c.offers)
		}
	}
	if missed != lost {
		w.fail(nil, "L6.3: what is lost is counted", "%d ends did not reach the worker, %d are counted", missed, lost)
	}
	for _, a := range w.asks {
		if a.calls != 1 {
			w.fail(a.client, "L4.1: server requests resolve once", "number %d: %d times", a.serial, a.calls)
		}
	}
}
