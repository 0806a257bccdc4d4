package sim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// tally is what many runs have reached: a simulation that never comes to the rare cases proves little.
type tally struct {
	causes  [conn.NumCauses]uint64
	refused [conn.NumRefusals]uint64
	drops   [mq.NumDrops]uint64
	client  [mq.NumOutcomes]uint64 // requests of clients
	server  [mq.NumOutcomes]uint64 // and of the server
	conns   uint64
	lost    uint64
	packed  [numPacked]uint64
}

// What there is of compression.
const (
	packedShared = iota // connections
	packedTakeover
	packedNoRoom // connections without takeover since the budget had nothing left
	packedIn     // messages
	packedOut
	packedNarrow // of those out to clients with a window below 32 KiB
	packedBad    // broken ones
	numPacked
)

var packedLabels = [numPacked]string{"shared", "takeover", "no room", "received", "sent", "narrow", "broken"}

func (t *tally) add(w *world) {
	for i, n := range w.tally.packed {
		t.packed[i] += n
	}
	for _, r := range w.regs {
		s, g := r.Stats(), w.gate.Stats(r.Loop())
		t.conns += s.Total
		for i, codes := range s.Disconnects {
			for _, n := range codes {
				t.causes[i] += n
			}
		}
		for i, n := range s.Refused {
			t.refused[i] += n
		}
		for i, n := range g.Dropped {
			t.drops[i] += n
		}
		for i := range g.Requests {
			t.client[i] += g.Requests[i]
			t.server[i] += g.ServerRequests[i]
		}
		t.lost += g.PublishLost
		t.packed[packedShared] += s.CompressedShared
		t.packed[packedTakeover] += s.CompressedTakeover
		t.packed[packedIn] += s.CompressedReceived
		t.packed[packedOut] += s.CompressedSent
	}
}

func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d connections", t.conns)
	section := func(name string, n int, label func(i int) string, count func(i int) uint64) {
		fmt.Fprintf(&b, "\n  %s:", name)
		for i := range n {
			fmt.Fprintf(&b, " %s %d", label(i), count(i))
		}
	}
	section("ended by", len(t.causes), func(i int) string { return conn.Cause(i).Label() }, func(i int) uint64 { return t.causes[i] })
	section("refused with", len(t.refused), func(i int) string { return fmt.Sprint(conn.RefusalStatus(i)) }, func(i int) uint64 { return t.refused[i] })
	section("dropped as", len(t.drops), func(i int) string { return mq.Drop(i).String() }, func(i int) uint64 { return t.drops[i] })
	section("requests", len(t.client), func(i int) string { return mq.Outcome(i).String() }, func(i int) uint64 { return t.client[i] })
	section("requests of the server", len(t.server), func(i int) string { return mq.Outcome(i).String() }, func(i int) uint64 { return t.server[i] })
	section("compression", len(t.packed), func(i int) string { return packedLabels[i] }, func(i int) uint64 { return t.packed[i] })
	fmt.Fprintf(&b, "\n  ends lost to the worker: %d", t.lost)
	return b.String()
}

// check fails for what was never reached.
func (t *tally) check(tt *testing.T) {
	for i := range conn.Cause(conn.NumCauses) {
		if t.causes[i] == 0 {
			tt.Errorf("no connection ended by %s", i.Label())
		}
	}
	for i, n := range t.refused {
		if n == 0 {
			tt.Errorf("no upgrade was refused with %d", conn.RefusalStatus(i))
		}
	}
	for i, n := range t.drops {
		if n == 0 {
			tt.Errorf("nothing was dropped as %s", mq.Drop(i))
		}
	}
	for i, n := range t.packed {
		if n == 0 {
			tt.Errorf("compression: nothing was %s", packedLabels[i])
		}
	}
	for i := range t.client {
		if t.client[i] == 0 || t.server[i] == 0 && mq.Outcome(i) != mq.OutcomeFailed { // that takes a million at once
			tt.Errorf("no request ended as %s, of clients %d, of the server %d", mq.Outcome(i), t.client[i], t.server[i])
		}
	}
}
