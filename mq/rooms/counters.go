package rooms

import (
	"sync/atomic"

	"github.com/mqgate/mqgate/conn"
)

// Counters are numbers for metrics.
type Counters struct {
	Sessions int64 // now, those of lost connections included
	Rooms    int64 // now
	Members  int64 // now, over all rooms

	Messages     int64 // chat messages taken, since the start
	Unauthorized int64 // requests refused with "unauthorized"
	Capacity     int64 // requests refused with "capacity"
	Malformed    int64 // requests whose payload did not decode
	Unknown      int64 // requests of a type that this worker does not know
}

type counter int

const (
	cntMembers counter = iota
	cntMessages
	cntUnauthorized
	cntCapacity
	cntMalformed
	cntUnknown
	numCounters
)

// counters are kept in stripes, by the loop that counts, so that loops do not fight for one cache line.
type counters struct {
	stripes [16]struct {
		n [numCounters]atomic.Int64
		_ [128 - numCounters*8]byte
	}
}

func (c *counters) add(id conn.ID, which counter, n int64) {
	c.stripes[id.Loop()%len(c.stripes)].n[which].Add(n)
}

func (c *counters) sum(which counter) (n int64) {
	for i := range c.stripes {
		n += c.stripes[i].n[which].Load()
	}
	return n
}

// Counters returns a snapshot. The numbers are read one after the other while work goes on. From any goroutine. With an
// engine it may block; Sessions and Rooms are those of all workers, or -1 when that cannot be found out, and Members is
// by how many this worker has changed their number: the sum over all workers, those that have ended included, is right.
func (w *Worker) Counters() Counters {
	rooms, err := w.store.Len()
	if err != nil {
		rooms = -1
	}
	var sessions int64
	if w.engine == nil {
		sessions = w.sessions.count.Load()
	} else if n, err := w.engine.Sessions(); err == nil {
		sessions = int64(n)
	} else {
		sessions = -1
	}
	return Counters{
		Sessions:     sessions,
		Rooms:        int64(rooms),
		Members:      w.count.sum(cntMembers),
		Messages:     w.count.sum(cntMessages),
		Unauthorized: w.count.sum(cntUnauthorized),
		Capacity:     w.count.sum(cntCapacity),
		Malformed:    w.count.sum(cntMalformed),
		Unknown:      w.count.sum(cntUnknown),
	}
}
