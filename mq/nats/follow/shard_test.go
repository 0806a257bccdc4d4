package follow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
)

// Records go out in order; what comes before its time waits; repeats are dropped.
func TestOrder(t *testing.T) {
	b := member(t, 10)
	b.message(rec(11, 10))
	b.message(rec(17, 15))
	b.message(rec(15, 13))
	b.message(rec(17, 15))
	plain := rec(0, 0)
	b.message(plain) // came after 17: not before it
	if g := b.s.rooms[subjectOf("a")].gap; len(g.queue) != 3 || g.bytes != b.s.queueBytes {
		t.Errorf("%d records wait, with %d bytes of %d", len(g.queue), g.bytes, b.s.queueBytes)
	}
	b.expect("e11 0a", "c11 1a")
	b.message(rec(11, 10))
	b.message(rec(13, 11)) // late: nobody has to wait for the stream
	b.expect("e13 0a", "c13 1a", "e15 0a", "c15 1a", "e17 0a", "c17 1a", "e0 0a", "c0 1a")
	b.message(plain)
	b.expect("e0 0a", "c0 1a")
	b.fetched(11, false, nil, rec(13, 11), rec(15, 13))
	b.message(rec(18, 17))
	b.expect("e18 0a", "c18 1a")
	if s := b.stats(); s.Records != 5 || s.Duplicates != 2 || s.Plain != 2 || s.Gaps != 0 || s.Filled != 0 {
		t.Errorf("%+v", s)
	}
	b.s.message(subjectOf("other"), rec(19, 18), b.now) // not followed any more
	b.expect()
}

// A gap is filled from the stream: what did not help is asked again, of the leader and later.
func TestGap(t *testing.T) {
	b := member(t, 10)
	b.message(rec(14, 13))
	b.fetched(10, false, nil, rec(11, 10))
	b.expect("e11 0a", "c11 1a")
	b.fetched(11, false, nil) // a replica that does not have it yet
	b.advance(retryMin - 1)
	if len(b.fetches) != 0 {
		t.Fatal("asked again too soon")
	}
	b.advance(1)
	b.fetched(11, true, errFake)
	b.advance(2*retryMin - 1)
	if len(b.fetches) != 0 {
		t.Fatal("asked again too soon")
	}
	b.advance(1)
	b.fetched(11, true, nil, rec(12, 11))
	b.fetched(12, false, nil, rec(13, 12))
	b.expect("e12 0a", "c12 1a", "e13 0a", "c13 1a", "e14 0a", "c14 1a")
	if s := b.stats(); s.Gaps != 1 || s.Filled != 3 || s.Failures != 1 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(b.logged.String(), "no answer") {
		t.Errorf("the log does not say that the stream did not answer: %s", b.logged.String())
	}
	b.logged.Reset()
	b.message(rec(20, 19))
	b.fetched(14, false, errAway)
	if b.logged.Len() != 0 {
		t.Errorf("logged that there is no connection: %s", b.logged.String())
	}
}

// Records that the stream does not have any more are given up, not at once, with one line and a count.
func TestLost(t *testing.T) {
	b := member(t, 10)
	b.message(rec(14, 13))
	b.message(rec(17, 16))
	b.fetched(10, false, nil)
	begun := b.now
	for n := 1; b.stats().Lost == 0; n++ {
		if n > 20 {
			t.Fatal("never given up")
		}
		b.advance(retryMax)
		b.fetched(10, true, nil)
		if b.stats().Lost != 0 && (n < lostTries || b.now-begun < int64(lostAfter)) {
			t.Fatalf("given up after %d answers and %v", n, time.Duration(b.now-begun))
		}
	}
	b.expect("e14 0a", "c14 1a")
	b.fetched(14, false, nil, rec(15, 14), rec(16, 15))
	b.expect("e15 0a", "c15 1a", "e16 0a", "c16 1a", "e17 0a", "c17 1a")
	b.advance(warnEvery)
	b.checks = nil
	b.message(rec(30, 29))
	b.fetched(17, false, nil, rec(25, 24), rec(29, 25)) // 18 to 24 were dropped by the stream
	b.expect("e25 0a", "c25 1a", "e29 0a", "c29 1a", "e30 0a", "c30 1a")
	if s := b.stats(); s.Lost != 2 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(b.logged.String(), "level=ERROR"); n != 2 || !strings.Contains(b.logged.String(), "room=a after=10") {
		t.Errorf("%d lines: %s", n, b.logged.String())
	}
}

// What does not fit into the queue is read from the stream: at the limit it is kept, above it is not.
func TestQueueLimits(t *testing.T) {
	for _, test := range []struct {
		name string
		n    int // records of size bytes that fit
		size int
	}{{"records", queueRecords, 0}, {"bytes", 4, queueBytes / 4}} {
		t.Run(test.name, func(t *testing.T) {
			b := member(t, 10)
			big := func(seq uint64) Record {
				return Record{Seq: seq, Prev: seq - 1, Data: sized(test.size)}
			}
			for i := range test.n {
				b.message(big(uint64(12 + i)))
			}
			if s := b.stats(); s.Overflows != 0 {
				t.Fatalf("%+v", s)
			}
			last := uint64(12 + test.n)
			b.message(big(last))
			if s := b.stats(); s.Overflows != 1 {
				t.Fatalf("%+v", s)
			}
			b.fetched(10, false, nil, rec(11, 10))
			b.fetched(last-1, false, nil, big(last))
			if r := b.s.rooms[subjectOf("a")]; r.last != last || r.gap != nil || b.s.queueBytes != 0 {
				t.Errorf("at %d, expected %d; gap %+v, %d bytes", r.last, last, r.gap, b.s.queueBytes)
			}
		})
	}
	t.Run("bytes of all rooms", func(t *testing.T) {
		b := member(t, 10)
		b.s.queueBytes = shardQueueBytes - len(rec(12, 11).Data)
		b.message(rec(12, 11))
		if s := b.stats(); s.Overflows != 0 {
			t.Fatalf("%+v", s)
		}
		b.message(rec(13, 12))
		if s := b.stats(); s.Overflows != 1 {
			t.Fatalf("%+v", s)
		}
	})
}

// An answer passes when the record that it includes has gone out, with what came after that for its own topic; from the
// ring, or from the stream when the ring does not reach back so far.
func TestHandover(t *testing.T) {
	b := member(t, 10)
	b.hand(2, 12)
	b.hand(3, 11)
	b.hand(4, 12)
	b.expect()
	b.message(rec(11, 10))
	b.message(rec(12, 11))
	b.message(rec(13, 12))
	b.expect("e11 0a", "c11 1a", "answer 3", "e12 0a", "c12 1a", "answer 2", "answer 4", "e13 0a", "c13 1a")
	b.hand(5, 13)
	b.hand(6, 12)
	b.hand(7, 10)
	b.expect("answer 5", "answer 6 e13", "answer 7 e11 e12 e13")
	b.hand(8, 8)
	b.expect()
	b.fetched(8, false, nil)
	b.message(rec(14, 13))
	b.advance(retryMin)
	b.fetched(8, true, nil, rec(9, 8))
	b.expect("e14 0a", "c14 1a")
	b.fetched(9, false, nil, rec(10, 9)) // from here on the ring has them
	b.expect("answer 8 e9 e10 e11 e12 e13 e14")
	b.hand(9, 9)
	b.fetched(9, false, nil, rec(10, 9), rec(11, 10), rec(12, 11), rec(13, 12), rec(14, 13), rec(15, 14)) // 15 will come to all
	b.expect("answer 9 e10 e11 e12 e13 e14")
	if s := b.stats(); s.Handovers != 9 || s.Replayed != 1+3+6+5 || s.Held != 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

// The record that an answer includes does not come: the stream is asked after a while, and in the end the answer fails.
func TestHold(t *testing.T) {
	b := member(t, 10)
	b.hand(2, 12)
	b.advance(holdBeforeFetch - 1)
	if len(b.fetches) != 0 || b.stats().Held != 1 {
		t.Fatalf("%d fetches, %+v", len(b.fetches), b.stats())
	}
	b.advance(1)
	b.fetched(10, false, nil, rec(12, 10))
	b.expect("e12 0a", "c12 1a", "answer 2")

	b.hand(3, 20)
	b.hand(4, 11) // the ring reaches back to 10
	b.hand(5, 9)  // and not to 9
	b.expect("answer 4 e12")
	b.advance(holdBeforeFetch)
	b.fetches = nil // no answer ever
	b.advance(maxHold - holdBeforeFetch - 1)
	b.expect()
	b.advance(1)
	b.expect("fail 3: "+ErrHeld.Error(), "fail 5: "+ErrHeld.Error())
	if s := b.stats(); s.Expired != 2 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
}

// What an answer has missed is gone from the stream: it passes with what there is, and that is counted.
func TestHandoverLost(t *testing.T) {
	b := member(t, 10)
	b.message(rec(11, 10))
	b.expect("e11 0a", "c11 1a")
	b.hand(2, 5)
	for n := 0; b.stats().Lost == 0; n++ {
		if n > 20 {
			t.Fatal("never given up")
		}
		b.fetched(5, n > 0, nil)
		b.advance(retryMax)
		b.checks = nil
	}
	b.expect("answer 2 e11")
	b.hand(3, 5)
	b.fetched(5, false, nil, rec(8, 7))
	if s := b.stats(); s.Lost != 2 {
		t.Errorf("%+v", s)
	}
	b.fetched(8, false, errFake)
	b.advance(retryMin)
	b.fetched(8, false, nil, rec(10, 8))
	b.expect("answer 3 e8 e10 e11")
}

// The ring keeps so many records, so many bytes, for so long.
func TestRing(t *testing.T) {
	fill := func(n, size int) *stand {
		b := member(t, 10)
		for i := range n {
			r := rec(uint64(11+i), uint64(10+i))
			r.Data = sized(size)
			b.message(r)
		}
		return b
	}
	for _, test := range []struct {
		n, size int
		all     bool
	}{{ringRecords, 0, true}, {ringRecords + 1, 0, false}, {4, ringBytes / 4, true}, {5, ringBytes / 4, false}, {1, ringBytes, true}, {1, ringBytes + 1, false}} {
		b := fill(test.n, test.size)
		b.hand(2, 10)
		if all := len(b.fetches) == 0; all != test.all {
			t.Errorf("%d records of %d bytes: all kept %v, expected %v", test.n, test.size, all, test.all)
		}
	}
	b := fill(2, 0)
	b.advance(ringAge - 1)
	b.hand(2, 10)
	b.expect("answer 2")
	b.advance(1)
	if b.hand(3, 10); len(b.fetches) != 1 || b.s.ringBytes != 0 {
		t.Errorf("%d fetches, %d bytes: the ring is older than it may be", len(b.fetches), b.s.ringBytes)
	}
	b = member(t, 10)
	b.s.ringBytes = shardRingBytes - len(rec(11, 10).Data)
	b.message(rec(11, 10))
	if r := b.s.rooms[subjectOf("a")]; len(r.ring) != 1 {
		t.Error("at the limit of all rooms the record is not kept")
	}
	b.message(rec(12, 11))
	if r := b.s.rooms[subjectOf("a")]; len(r.ring) != 1 || r.ringFrom != 11 {
		t.Errorf("above the limit of all rooms %d records are kept", len(r.ring))
	}
}

// sized returns a record of so many bytes, or the shortest there is.
func sized(size int) []byte {
	r := record.Record{Delta: make([]byte, size+1)}
	for r.Size() > size && len(r.Delta) > 0 {
		r.Delta = r.Delta[1:]
	}
	return r.AppendTo(nil)
}

// The end of a room ends both topics after its events; an answer to which it is news is passed on, and unsubscribed.
func TestEnd(t *testing.T) {
	b := member(t, 10)
	last := rec(11, 10)
	last.Data = append(last.Data, (&record.Record{End: true}).AppendTo(nil)...)
	b.message(last)
	b.expect("e11 0a", "c11 1a", "end 0a", "end 1a")
	b.message(rec(12, 11)) // of another room with the same id
	b.hand(2, 10)
	b.expect("e12 0a", "c12 1a", "answer 2 e11", "unsubscribe 2 0a", "unsubscribe 2 1a")
	b.hand(3, 11)
	b.expect("answer 3 e12")
}

// A record that is none is passed over, with a line and a count, and what comes next is not.
func TestMalformed(t *testing.T) {
	b := member(t, 10)
	bad := rec(11, 10)
	bad.Data = []byte{0xff}
	b.message(bad)
	b.message(rec(12, 11))
	b.hand(2, 10)
	b.expect("e12 0a", "c12 1a", "answer 2 e12")
	if s := b.stats(); s.Malformed != 2 || !strings.Contains(b.logged.String(), "malformed") {
		t.Errorf("%+v, %s", s, b.logged.String())
	}
}

// A room without subscribers stays for a while; back in time, it is as it was. An answer on its way keeps it.
func TestLinger(t *testing.T) {
	b := member(t, 10)
	b.interest(false)
	b.advance(defaultLinger - 1)
	b.message(rec(11, 10))
	b.expect() // to nobody
	b.interest(true)
	b.advance(time.Minute)
	b.message(rec(12, 11))
	b.expect("e12 0a", "c12 1a")
	b.interest(false)
	b.advance(defaultLinger)
	if want := []string{subjectOf("a"), "-" + subjectOf("a")}; !slices.Equal(b.subs, want) || len(b.s.rooms) != 0 {
		t.Errorf("%q, expected %q, %d rooms", b.subs, want, len(b.s.rooms))
	}
	b.interest(false) // of a room that is not followed: nothing
	b.hand(2, 20)
	b.expect("answer 2")
	b.advance(defaultLinger - 1)
	if len(b.s.rooms) != 1 {
		t.Error("an answer that did not subscribe keeps the room no while")
	}
	b.advance(1)
	if len(b.s.rooms) != 0 {
		t.Error("an answer that did not subscribe keeps the room")
	}
	var done func()
	b.s.handover(Handover{Room: "a", Seq: 30, Deliver: func(_ []mq.Event, d func()) { done = d }}, subjectOf("a"), b.now)
	b.advance(time.Minute)
	b.message(rec(31, 30))
	b.expect("e31 0a", "c31 1a") // the loop may have subscribed it
	done()
	b.tick()
	b.advance(defaultLinger - 1)
	if len(b.s.rooms) != 1 {
		t.Error("no linger after the answer was dealt with")
	}
	b.advance(1)
	if len(b.s.rooms) != 0 {
		t.Error("the answer was dealt with, but keeps the room")
	}
	done() // late, of a room that is gone
	b.tick()
}

// A room of which nobody said where it stands begins with the first record, or with an answer that says it.
func TestUnknownStart(t *testing.T) {
	b := newStand(t)
	b.interest(true)
	b.message(rec(0, 0))
	b.message(rec(21, 18))
	b.message(rec(20, 18))
	b.expect("e0 0a", "c0 1a", "e21 0a", "c21 1a")
	b.hand(2, 18)
	b.expect("answer 2 e21")
	b = newStand(t)
	b.interest(true)
	b.hand(2, 5)
	b.message(rec(7, 6))
	b.expect("answer 2")
	b.fetched(5, false, nil, rec(6, 5))
	b.expect("e6 0a", "c6 1a", "e7 0a", "c7 1a")
}

// When rooms are asked about: after they are followed, again a little later, periodically, on demand; and what is found.
func TestChecks(t *testing.T) {
	b := newStand(t)
	b.hand(1, 10)
	b.interest(true)
	b.expect("answer 1")
	b.checked(1, 12, nil, rec(11, 10)) // published before the subscription was there: it is what is missing
	b.expect("e11 0a", "c11 1a")
	for i, at := range again {
		if i > 0 {
			at -= again[i-1]
		}
		b.advance(at - 1)
		if len(b.checks) != 0 {
			t.Fatalf("check %d is too soon", i)
		}
		b.advance(1)
		if i == 0 && b.checks[0].after != 12 {
			t.Errorf("asked for records after %d, expected 12", b.checks[0].after)
		}
		b.checked(1, uint64(13+i), nil)
	}
	b.advance(time.Duration(b.s.rounds[0]-b.now) - 1)
	if len(b.checks) != 0 {
		t.Fatal("the periodic check is too soon")
	}
	b.advance(1)
	b.checked(1, 20, nil, rec(18, 15)) // two are missing
	b.fetched(11, false, nil, rec(15, 11))
	b.expect("e15 0a", "c15 1a", "e18 0a", "c18 1a")
	b.advance(defaultCheckEvery)
	b.checked(1, 20, nil, rec(18, 15))
	b.expect()
	b.advance(defaultCheckEvery)
	b.checked(1, 0, errFake)
	b.advance(time.Second)
	b.checked(1, 20, nil)
	if s := b.stats(); s.Duplicates != 0 || s.Checks != 8 || s.Gaps != 2 || s.Filled != 2 {
		t.Errorf("%+v", s)
	}
	b.s.checkAll(b.now)
	b.s.checkAll(b.now) // one at a time
	b.checked(1, 0, errFake)
	b.advance(time.Second - 1)
	if len(b.checks) != 0 {
		t.Fatal("asked again too soon")
	}
	b.advance(1)
	b.checked(1, 20, nil)
	b.advance(again[1] - time.Second)
	b.checked(1, 20, nil)
	b.advance(again[2] - again[1])
	b.checked(1, 20, nil)
	b.advance(defaultCheckEvery - again[2])
	b.checked(1, 20, nil)
	b.advance(defaultCheckEvery)
	b.checked(1, 20, nil)
}

// A room that is not followed any more when its turn comes is not asked about.
func TestCheckGone(t *testing.T) {
	b := newStand(t)
	b.hand(1, 10)
	b.advance(defaultLinger) // in which it is to be checked again, but the answer to the first check is not there
	b.checked(1, 10, nil)
	if len(b.checks) != 0 || len(b.s.rooms) != 0 {
		t.Errorf("%d checks, %d rooms", len(b.checks), len(b.s.rooms))
	}
}

// One request asks about so many rooms, and the next one when it was answered.
func TestCheckRooms(t *testing.T) {
	for _, n := range []int{checkRooms - 1, checkRooms, checkRooms + 1} {
		b := newStand(t)
		for i := range n {
			room := fmt.Sprint("room", i)
			b.s.handover(Handover{Room: room, Seq: uint64(100 + i), Deliver: func(_ []mq.Event, done func()) {}}, subjectOf(room), b.now)
		}
		b.tick()
		if b.checks[0].after != 100 {
			t.Errorf("asked for records after %d, expected 100", b.checks[0].after)
		}
		b.checked(min(n, checkRooms), 1000, nil)
		if n > checkRooms {
			b.checked(n-checkRooms, 1000, nil)
		}
		if len(b.checks) != 0 || b.s.suspects != nil {
			t.Errorf("%d rooms: %d checks more, %d rooms left", n, len(b.checks), len(b.s.suspects))
		}
	}
}

// A room that cannot be subscribed to is tried again, and checked then.
func TestSubscribeAgain(t *testing.T) {
	b := newStand(t)
	b.refuse = errors.New("too many")
	b.hand(1, 10)
	b.interest(true)
	b.checked(1, 10, nil)
	b.refuse = nil
	b.advance(retryMax - 1)
	if len(b.subs) != 0 || !strings.Contains(b.logged.String(), "too many") {
		t.Errorf("%q, %s", b.subs, b.logged.String())
	}
	b.advance(1)
	if len(b.subs) != 1 {
		t.Errorf("%q", b.subs)
	}
	b.advance(again[0])
	b.checked(1, 11, nil, rec(11, 10))
	b.expect("answer 1", "e11 0a", "c11 1a")
}

// A new stream with numbers of its own: what waits fails, what it has is delivered, answers of the old one are nothing.
func TestReset(t *testing.T) {
	b := member(t, 10)
	b.message(rec(11, 10))
	b.message(rec(14, 13))
	b.hand(2, 20)
	b.hand(3, 5)
	b.expect("e11 0a", "c11 1a")
	b.s.checkAll(b.now)
	old, oldCheck := b.fetches, b.checks[0]
	b.fetches, b.checks = nil, nil
	b.s.reset(b.now)
	b.expect("fail 2: "+ErrHeld.Error(), "fail 3: "+ErrHeld.Error())
	for _, j := range old {
		j.recs = []Record{rec(12, 11), rec(13, 12)}
		b.s.fetched(j, b.now)
	}
	oldCheck.upTo = 3 // and nothing after 11
	b.s.checkedRooms(oldCheck, b.now)
	b.expect()
	b.checked(1, 0, errFake)
	b.advance(time.Second)
	if b.checks[0].after != 0 {
		t.Errorf("asked for records after %d, expected all", b.checks[0].after)
	}
	b.checked(1, 3, nil, rec(3, 2))
	b.fetched(0, false, nil, rec(1, 0), rec(2, 1))
	b.expect("e1 0a", "c1 1a", "e2 0a", "c2 1a", "e3 0a", "c3 1a")
	if s := b.stats(); s.Lost != 0 || s.Held != 0 || b.s.queueBytes != 0 {
		t.Errorf("%+v", s)
	}
}

// At the end answers that wait fail, and nothing is subscribed.
func TestShardClose(t *testing.T) {
	b := member(t, 10)
	b.hand(2, 20)
	b.hand(3, 5)
	b.message(rec(14, 13))
	b.s.close()
	b.expect("fail 2: "+ErrClosed.Error(), "fail 3: "+ErrClosed.Error())
	if len(b.subs) != 2 || b.stats().Rooms != 0 || b.stats().Held != 0 || b.s.queueBytes != 0 || b.s.ringBytes != 0 {
		t.Errorf("%q, %+v", b.subs, b.stats())
	}
	for _, j := range b.fetches {
		b.s.fetched(j, b.now)
	}
	b.expect()
}
