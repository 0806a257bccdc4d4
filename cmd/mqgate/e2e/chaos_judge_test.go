package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// A judge looks at the record of a chaos when nothing happens any more, and writes down what is not as promised.
type judge struct {
	x       *chaos
	history [][]wire.ChatMessage // of each room, whole, at the end
	faults  []string
}

func (j *judge) fault(format string, args ...any) {
	j.faults = append(j.faults, fmt.Sprintf(format, args...))
}

// chaosFailedPart and chaosSilence bound, loosely, what the blows may cost: one of so many requests may fail, and for so long
// at a time may nobody be told that a message is stored.
const (
	chaosFailedPart = 4
	chaosSilence    = 40 * time.Second
)

// dueSlack is how much later than the request timeout an answer may be for reasons of the machine.
const dueSlack = 10 * time.Second

// requests: each request on a connection that lived until its answer was due was answered; none twice (that is a fault
// at once, of chaosConn.take). The status is "ok", unless the connection was told to begin anew. Most are answered with a
// status at all: mq.Error is for what was on its way at a blow.
func (j *judge) requests() (ok, failed int) {
	for _, c := range j.x.conns {
		for _, a := range c.asked {
			switch {
			case a.answers == 0:
				if due := a.at.Add(j.x.timeout + dueSlack); c.ended.IsZero() || c.ended.After(due) {
					j.fault("%v: %s %q of %s was never answered; the connection ended %s (%s)", c, a.typ, a.text, stamp(a.at), stamp(c.ended), c.end)
				}
			case a.reason != "":
				failed++
			case a.status == wire.StatusOK || a.typ == wire.TypeJoinRoom && a.status == wire.StatusAlreadyInRoom:
				ok++
			case c.code == codeSessionGone:
			default:
				j.fault("%v: %s %q of %s was answered with %s at %s, and the connection was not closed with %d; it ended: %s", c, a.typ, a.text,
					stamp(a.at), a.status, stamp(a.answered), codeSessionGone, c.end)
			}
		}
	}
	if chaosFailedPart*failed > ok+failed {
		j.fault("%d requests of %d failed, at most a %dth may", failed, ok+failed, chaosFailedPart)
	}
	return ok, failed
}

// codeSessionGone tells a client whose session has ended while its gateway was away from NATS to begin anew.
const codeSessionGone = 1012

// stored: the history has each message once that was answered with ok, no message twice, none that nobody sent; and what a
// sender was told is stored is there in the order in which it was told.
func (j *judge) stored() {
	type sent struct {
		c *chaosConn
		a *asked
	}
	for room, history := range j.history {
		said := map[string]sent{}
		for _, c := range j.x.conns {
			for _, a := range c.asked {
				if a.typ == wire.TypeSendMessageToRoom && c.room == room {
					said[a.text] = sent{c, a}
				}
			}
		}
		at, id, last := map[string]int{}, "", map[string]string{}
		for i, m := range history {
			if m.MessageID <= id {
				j.fault("room %d: the id of message %d, %q, is %s, after %s", room, i, m.Message, m.MessageID, id)
			}
			id = m.MessageID
			s, known := said[m.Message]
			if before, twice := at[m.Message]; twice {
				j.fault("room %d: message %q of %v is stored twice, as %s and %s; it was answered with %q", room, m.Message, s.c,
					history[before].MessageID, m.MessageID, s.a.outcome())
			}
			at[m.Message] = i
			if !known {
				j.fault("room %d: nobody has sent the message %q", room, m.Message)
				continue
			}
			if s.a.status != wire.StatusOK {
				continue // one that failed may be stored late
			}
			who, _, _ := strings.Cut(m.Message, "/")
			if last[who] >= m.Message {
				j.fault("room %d: %q is stored after %q", room, m.Message, last[who])
			}
			last[who] = m.Message
		}
		for text, s := range said {
			if _, there := at[text]; !there && s.a.status == wire.StatusOK {
				j.fault("room %d: message %q of %v was sent at %s, answered with ok at %s, and is not in the history", room, text, s.c, stamp(s.a.at),
					stamp(s.a.answered))
			}
		}
	}
}

// delivered: what a subscriber heard is the history from the answer that subscribed on, each message once and in order; for
// one that is there at the end, up to the last.
func (j *judge) delivered() {
	places := make([]map[string]int, len(j.history)) // by id
	for room, history := range j.history {
		places[room] = map[string]int{}
		for i, m := range history {
			places[room][m.MessageID] = i
		}
	}
	for _, c := range j.x.conns {
		if !c.subscribed {
			continue
		}
		history := j.history[c.room]
		at := 0
		for c.after != "" && at < len(history) && history[at].MessageID <= c.after {
			at++
		}
		seen := map[string]bool{}
		for _, m := range c.heard {
			if seen[m.MessageID] {
				j.fault("%v: heard %q (%s) twice", c, m.Message, m.MessageID)
				continue
			}
			seen[m.MessageID] = true
			switch next, there := places[c.room][m.MessageID]; {
			case !there:
				j.fault("%v: heard %q (%s), which the history does not have", c, m.Message, m.MessageID)
			case next < at:
				j.fault("%v: heard %q (%s) after later ones, or after it had subscribed behind it (at %q)", c, m.Message, m.MessageID, c.after)
			default:
				if next > at {
					j.fault("%v: did not hear %d messages before %q (%s), the first one %q (%s)", c, next-at, m.Message, m.MessageID,
						history[at].Message, history[at].MessageID)
				}
				at = next + 1
			}
		}
		if c.ended.IsZero() && at < len(history) {
			j.fault("%v: did not hear the last %d messages, the first one %q (%s)", c, len(history)-at, history[at].Message, history[at].MessageID)
		}
	}
}

// told: who is in a room hears each event of it once and in order, and those events lead from the members that it was told
// of when it joined to those that are there at the end. Returned are all events of each room.
func (j *judge) told(living []map[string]string) {
	for room := range j.x.rooms {
		all := map[uint64]roomNews{}
		for _, c := range j.x.conns {
			if c.room != room {
				continue
			}
			for _, n := range c.events {
				if other, there := all[n.stamp]; there && other != n {
					j.fault("%v: heard %v, others %v", c, n, other)
				}
				all[n.stamp] = n
			}
		}
		order := slices.Sorted(maps.Keys(all))
		for _, c := range j.x.conns {
			if c.room == room && c.joined {
				j.follow(c, all, order, living[room])
			}
		}
		j.once(room, all, order, living[room])
	}
}

// follow checks the events of one connection.
func (j *judge) follow(c *chaosConn, all map[uint64]roomNews, order []uint64, living map[string]string) {
	there := maps.Clone(c.members)
	last := uint64(0)
	for i, n := range c.events {
		if n.stamp <= last {
			j.fault("%v: heard %v twice or late, after timestamp %d", c, n, last)
			continue
		}
		after := last
		if i == 0 {
			after = c.since
		}
		if after > 0 && n.stamp > after { // else it is of the record with its own join, or where it begins is not known
			if k, _ := slices.BinarySearch(order, after+1); order[k] != n.stamp {
				j.fault("%v: did not hear %v before %v", c, all[order[k]], n)
			}
		}
		last = n.stamp
		known, in := there[n.session]
		switch {
		case n.what == wire.MemberJoined && in && n.stamp <= known: // of the record with its own join; clients ignore it
		case n.what == wire.MemberJoined && in:
			j.fault("%v: heard %v, but it was there", c, n)
		case n.what == wire.MemberJoined:
			there[n.session] = n.stamp
		case n.what == wire.MemberLeft && !in:
			j.fault("%v: heard %v, but it was not there", c, n)
		case n.what == wire.MemberLeft:
			delete(there, n.session)
		default:
			j.fault("%v: heard %v, which nobody caused", c, n)
		}
	}
	if !c.ended.IsZero() {
		return
	}
	if last = max(last, c.since); last > 0 && len(order) > 0 && last < order[len(order)-1] {
		j.fault("%v: did not hear %v at the end", c, all[order[len(order)-1]])
	}
	for session := range there {
		if _, ok := living[session]; !ok {
			j.fault("%v: believes that %s is in the room, who is not", c, session)
		}
	}
	for session, name := range living {
		if _, ok := there[session]; !ok {
			j.fault("%v: does not know that %s (%s) is in the room", c, name, session)
		}
	}
}

// once: each session that was in the room and is not any more left it exactly once, and one that is there did not.
func (j *judge) once(room int, all map[uint64]roomNews, order []uint64, living map[string]string) {
	joined, left := map[string]int{}, map[string]int{}
	for _, at := range order {
		switch n := all[at]; n.what {
		case wire.MemberJoined:
			joined[n.session]++
		case wire.MemberLeft:
			left[n.session]++
		case wire.MemberUpdated, wire.RoomUpdated, wire.RoomEnded:
		}
	}
	for _, c := range j.x.conns {
		if c.room != room || !c.joined {
			continue
		}
		want := 1
		if _, lives := living[c.session]; lives {
			want = 0
		}
		// The first ones joined before anybody could hear it.
		if in, out := joined[c.session], left[c.session]; in > 1 || out != want {
			j.fault("%v: the others heard %d times that it has joined and %d times that it has left, want %d; it ended: %s", c, in, out, want, c.end)
		}
	}
}

// silence returns the longest time in which nobody was told that a message is stored, and when it began.
func (j *judge) silence() (longest time.Duration, since time.Time) {
	var told []time.Time
	for _, c := range j.x.conns {
		for _, a := range c.asked {
			if a.typ == wire.TypeSendMessageToRoom && a.status == wire.StatusOK {
				told = append(told, a.answered)
			}
		}
	}
	slices.SortFunc(told, time.Time.Compare)
	for i := 1; i < len(told); i++ {
		if d := told[i].Sub(told[i-1]); d > longest {
			longest, since = d, told[i-1]
		}
	}
	if longest > chaosSilence {
		j.fault("nobody was told that a message is stored for %v from %s on, at most %v are allowed", longest, stamp(since), chaosSilence)
	}
	return longest, since
}

// A tally is what clients know about one gateway.
type tally struct {
	asked, answered int
}

func (x *chaos) tally(gateway int) (n tally) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		if c.gateway != gateway {
			continue
		}
		c.mu.Lock()
		for _, a := range c.asked {
			n.asked++
			n.answered += min(1, a.answers)
		}
		c.mu.Unlock()
	}
	return n
}
