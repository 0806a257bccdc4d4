package sequences

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/mq"
)

// Who does something, or to whom it comes: the second column.
const (
	fromClient = "client ->"
	toClient   = "client <-"
	fromWorker = "worker ->"
	toWorker   = "worker <-"
	byOperator = "operator ->"
	gateway    = "gateway"
)

// row is a line of a transcript. Lines of what after the first are continuations.
type row struct {
	at        time.Duration
	who, what string
	changes   []change // counters that changed at this row, before the next one
}

type change struct {
	name     string
	from, to int64
}

func (c change) String() string { return fmt.Sprintf("%s %d->%d", c.name, c.from, c.to) }

// record is what has been seen.
type record struct {
	play  *play
	rows  []row
	start int64
	last  []count // at the last row
	sums  sums    // from which last was made

	brief bool // only what clients, worker and operator do and get
	bytes bool // the gauge of pending bytes, too
}

// sums is what the counters are made from: comparing it is cheap, and mostly nothing has changed.
type sums struct {
	conn    conn.Stats
	mq      mq.Stats
	pending int64
}

func (p *play) account() sums {
	snap := p.reg.Snapshot()
	return sums{snap.Conn, p.gw.Stats(p.loop), snap.Pending}
}

// begin forgets what was recorded: the scene begins now.
func (r *record) begin() {
	r.rows, r.start, r.sums, r.last = nil, r.play.net.Now(), r.play.account(), r.counters()
}

// note adds a row. Counters that have changed since the last one belong to the last one.
func (r *record) note(who, what string) {
	r.sample()
	r.changed()
	r.add(who, what)
}

func (r *record) add(who, what string) {
	if r.brief && (who == gateway || strings.HasSuffix(what, "FIN")) {
		return
	}
	r.rows = append(r.rows, row{at: time.Duration(r.play.net.Now() - r.start), who: who, what: what})
}

// sample adds a row for every state that has changed since the last look; counters that changed with it belong to it.
func (r *record) sample() {
	for _, c := range r.play.clients {
		s, ok := r.play.stateOf(c)
		if !ok || s == c.state {
			continue
		}
		if s < c.state {
			r.play.t.Fatalf("L1.1: %v to %v", c.state, s)
		}
		r.add(gateway, fmt.Sprintf("%sstate %v to %v", c.tag(), c.state, s))
		c.state = s
		r.changed()
	}
}

// changed gives the last row the counters that have changed. When time has passed since, it was a timer that changed them.
func (r *record) changed() {
	sums := r.play.account()
	if sums == r.sums {
		return
	}
	now := r.counters()
	for i, c := range now {
		if r.last[i].n != c.n {
			r.change(c.name, r.last[i].n, c.n)
		}
	}
	r.last, r.sums = now, sums
}

func (r *record) change(name string, from, to int64) {
	at := time.Duration(r.play.net.Now() - r.start)
	if len(r.rows) == 0 || r.rows[len(r.rows)-1].at != at {
		r.rows = append(r.rows, row{at: at, who: gateway, what: "a timer"})
	}
	last := &r.rows[len(r.rows)-1]
	if i := slices.IndexFunc(last.changes, func(c change) bool { return c.name == name }); i >= 0 {
		if last.changes[i].to = to; last.changes[i].from == to {
			last.changes = slices.Delete(last.changes, i, i+1)
		}
		return
	}
	last.changes = append(last.changes, change{name, from, to})
}

// count is a counter with the name that docs/metrics.md gives it, without "mqgate_", "connections_" before a gauge of
// connections, and "_total".
type count struct {
	name string
	n    int64
}

// counters returns all of them in a fixed order. Left out are those that every frame counts in (messages, bytes), that are
// only sums of what is there (durations), and pending_bytes, which changes with everything, unless the scene is about it.
func (r *record) counters() (all []count) {
	add := func(n int64, name string, label ...string) {
		if len(label) > 0 {
			name += "{" + strings.Join(label, ",") + "}"
		}
		all = append(all, count{name, n})
	}
	now := r.play.account()
	c, m := &now.conn, &now.mq
	if !r.brief {
		add(c.Handshake, "handshaking")
	}
	add(c.Open, "open")
	add(int64(c.Total), "total")
	if !r.brief {
		add(c.Lingering, "lingering")
	}
	for cause := range conn.NumCauses {
		for code := range conn.NumCodes {
			add(int64(c.Disconnects[cause][code]), "disconnects", conn.Cause(cause).Label(), conn.CodeLabel(code))
		}
	}
	for i := range conn.NumAfterEnds {
		add(int64(c.After[i]), "disconnects_after_end", conn.AfterEnd(i).String())
	}
	for i := range conn.NumRefusals {
		add(int64(c.Refused[i]), "handshakes_refused", fmt.Sprint(conn.RefusalStatus(i)))
	}
	for i := 1; i < len(c.RefusedAddr); i++ {
		add(int64(c.RefusedAddr[i]), "handshakes_refused_address", clientaddr.Verdict(i).String())
	}
	add(int64(c.HandshakeTO), "handshakes_timed_out")
	add(c.Paused, "reads_paused")
	add(int64(c.Throttled), "reads_paused", "rate")
	add(int64(c.PausedMemory), "reads_paused", "memory")
	add(int64(c.PingsSkipped), "pings_skipped")
	add(int64(c.PongsUnsolicited), "pongs_unsolicited")
	add(int64(c.SlowBytes), "slow_consumers", "bytes")
	add(int64(c.SlowTime), "slow_consumers", "time")
	add(int64(c.Errors), "socket_errors")
	add(int64(m.Accepted), "requests_accepted")
	add(m.InFlight, "requests_in_flight")
	for o := range mq.NumOutcomes {
		add(int64(m.Requests[o]), "requests", mq.Outcome(o).String())
	}
	for o := range mq.NumOutcomes {
		add(int64(m.ServerRequests[o]), "server_requests", mq.Outcome(o).String())
	}
	add(m.ServerWaiting, "server_requests_in_flight")
	for d := range mq.NumDrops {
		add(int64(m.Dropped[d]), "messages_dropped", mq.Drop(d).String())
	}
	add(m.Subscriptions[mq.TopicRoom], "subscriptions", "room")
	add(m.Subscriptions[mq.TopicConversation], "subscriptions", "conversation")
	add(int64(m.Deliveries), "broadcast_deliveries")
	add(m.Unpublished, "disconnects_unpublished")
	add(int64(m.PublishLost), "disconnects_unpublished_lost")
	add(int64(m.Panics), "worker_panics")
	if r.bytes {
		add(now.pending, "pending_bytes")
	}
	return all
}

// of returns the client of a connection, byID the one with that id: nil when there is none.
func (p *play) of(c *conn.Conn) *client {
	i := slices.IndexFunc(p.clients, func(cl *client) bool { return cl.addr == c.Remote() })
	return p.clients[i]
}

func (p *play) byID(id conn.ID) *client {
	for _, c := range p.clients {
		if c.id == id {
			return c
		}
	}
	return nil
}

// logged writes down log lines, without what differs from run to run or only names the connection.
type logged struct{ p *play }

func (logged) Enabled(context.Context, slog.Level) bool { return true }
func (l logged) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l logged) WithGroup(string) slog.Handler          { return l }

func (l logged) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("log %v %q", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key == "id", a.Key == "remote", a.Key == "stack", a.Key == "used", a.Key == "limit", a.Key == "buffers",
			a.Key == "not_logged" && a.Value.Uint64() == 0:
			// used, limit and buffers [bytes] depend on pools.
		default:
			value := a.Value.String()
			if strings.ContainsAny(value, " :\"") {
				value = fmt.Sprintf("%q", value)
			}
			line += " " + a.Key + "=" + value
		}
		return true
	})
	l.p.note(gateway, line)
	return nil
}

// Widths [columns] of the transcripts.
const (
	whatWidth  = 56  // of the third column, when counters follow
	lineWidth  = 128 // of a line, where the counters have the choice
	proseWidth = 120
)

// text lays the record out.
func (r *record) text() string {
	r.changed()
	timeWidth, width := 0, 0
	for _, row := range r.rows {
		timeWidth = max(timeWidth, len(row.at.String()))
		for _, line := range strings.Split(row.what, "\n") {
			if n := utf8.RuneCountInString(line); len(row.changes) > 0 && n <= whatWidth {
				width = max(width, n)
			}
		}
	}
	var b strings.Builder
	for _, row := range r.rows {
		lines := strings.Split(row.what, "\n")
		var changes []string
		for _, c := range row.changes {
			changes = append(changes, c.String())
		}
		counters := wrap(changes, ", ", lineWidth-timeWidth-len("  client ->    ")-width-len("  | "))
		at, who := row.at.String(), row.who
		for len(lines)+len(counters) > 0 {
			line := fmt.Sprintf("%-*s  %-11s  ", timeWidth, at, who)
			what := ""
			if len(lines) > 0 {
				what, lines = lines[0], lines[1:]
				if at == "" {
					what = "  " + what
				}
			}
			line += fmt.Sprintf("%-*s", width, what)
			if len(counters) > 0 && utf8.RuneCountInString(what) <= width {
				line += "  | " + counters[0]
				counters = counters[1:]
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			at, who = "", ""
		}
	}
	return b.String()
}

// wrap puts words on lines of at most width columns, where they fit.
func wrap(words []string, between string, width int) (lines []string) {
	for _, w := range words {
		if n := len(lines) - 1; n >= 0 && len(lines[n])+len(between)+len(w) <= width {
			lines[n] += between + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}

// prose lays a paragraph out.
func prose(text string) string {
	return strings.Join(wrap(strings.Fields(text), " ", proseWidth), "\n")
}
