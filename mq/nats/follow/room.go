package follow

import (
	"slices"

	"github.com/mqgate/mqgate/mq"
)

// Record is a record of a room's log, or a plain event, as it came.
type Record struct {
	Subject string // of the room, as subjects.Names.Room makes it; set by Source.Check, otherwise known
	Seq     uint64 // its sequence in the stream; 0: a plain event, of no log

	// Prev is the sequence of the record before it in the same log, as far as is known. For one that the stream published:
	// Seq-1 if it is not known, which makes a gap of it. For one that was read from the log in order: 0.
	Prev uint64

	Data []byte // in the form of package record; not changed by anyone
}

// room is a followed room. Only its shard's goroutine touches it.
type room struct {
	id, subject string
	unsubscribe func() // nil: it could not be subscribed to yet

	last     uint64 // sequence of the last record that went to the subscribers
	checked  uint64 // every record up to here was seen or is being fetched, as the stream said; at least last
	ringFrom uint64 // ring has all records from here (exclusive) to last
	ring     []Record
	gap      *gap    // nil: nothing is missing
	waiting  []*held // answers that include records after last, by sequence
	behind   []*held // answers that include less than ring knows

	ringBytes int32
	passing   int32 // answers passed on and not dealt with by the gateway
	confirms  uint8 // how often it was checked after it was followed
	known     bool  // last is: else the first record tells
	interest  bool  // the gateway has subscribers
	suspect   bool  // in the shard's list of rooms to be checked
	gone      bool  // not followed any more

	due         int64 // when wake is called next; 0: never
	lingerUntil int64
	confirmAt   int64 // 0: never
	ringUntil   int64
	subscribeAt int64 // the next attempt when unsubscribe is nil
}

// gap is what a room has while records are missing.
type gap struct {
	want     uint64   // a record with this sequence or one after last up to it exists
	queue    []Record // that came after the gap, in order; plain events stay where they came
	bytes    int
	fetching *fetchJob // nil: none is under way
	retry
	filled bool // something was fetched
}

// retry is the state of something that is asked for again and again.
type retry struct {
	at     int64 // not before
	since  int64 // the first answer of the leader that it does not have it; 0: none
	misses int   // answers without anything new
	truths int   // those of the leader
	wait   int64 // until the next one [ns]
}

// later sets the time of the next attempt.
func (t *retry) later(now int64) {
	t.wait = min(max(2*t.wait, int64(retryMin)), int64(retryMax))
	t.at = now + t.wait
}

// fruitless notes an answer without anything new and reports whether the record must be given up.
func (t *retry) fruitless(now int64, truth bool) bool {
	t.misses++
	if truth {
		if t.truths++; t.since == 0 {
			t.since = now
		}
	}
	t.later(now)
	return t.truths >= lostTries && now-t.since >= int64(lostAfter)
}

// held is an answer that cannot be passed on yet.
type held struct {
	Handover
	fetchAt int64 // when the stream is asked for the record that it waits for
	until   int64

	missed   []Record // in behind: those after Seq, read from the stream, without a hole
	fetching bool
	retry
}

// have returns up to which sequence the missed records are there.
func (h *held) have() uint64 {
	if n := len(h.missed); n > 0 {
		return h.missed[n-1].Seq
	}
	return h.Seq
}

// listened reports whether what is published may reach anybody.
func (r *room) listened() bool { return r.interest || r.passing > 0 }

// idle reports whether nobody needs the room.
func (r *room) idle() bool { return !r.listened() && len(r.waiting) == 0 && len(r.behind) == 0 }

// after returns the recent records after a sequence. Only if that is at least r.ringFrom they are all.
func (r *room) after(seq uint64) []Record {
	i, _ := slices.BinarySearchFunc(r.ring, seq+1, func(rec Record, seq uint64) int {
		if rec.Seq < seq {
			return -1
		}
		return 1
	})
	return r.ring[i:]
}

// insert puts a record behind those of the queue that come before it and reports false when it is there already. Plain
// events stay behind what they came after.
func (g *gap) insert(rec Record) bool {
	at := len(g.queue)
scan:
	for i := at - 1; i >= 0 && rec.Seq != 0; i-- {
		switch q := &g.queue[i]; {
		case q.Seq == rec.Seq:
			return false
		case q.Seq > rec.Seq:
			at = i
		case q.Seq != 0:
			break scan
		}
	}
	g.queue = slices.Insert(g.queue, at, rec)
	g.bytes += len(rec.Data)
	return true
}

// topics are both topics of a room.
func (r *room) topics() [2]mq.Topic {
	return [2]mq.Topic{{Kind: mq.TopicRoom, Room: r.id}, {Kind: mq.TopicConversation, Room: r.id}}
}
