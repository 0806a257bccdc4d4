package follow

import "sync/atomic"

// Stats are the counters of a Follower. Those without another word only grow.
type Stats struct {
	Rooms      int64  // followed now, with or without subscribers
	Records    uint64 // of logs that were delivered
	Plain      uint64 // events that are of no log
	Duplicates uint64 // records that came once more and were dropped
	Gaps       uint64 // holes in logs that were filled from the stream
	Filled     uint64 // records with which they were filled
	Lost       uint64 // holes that stay, because the stream does not have the records any more
	Malformed  uint64 // records that are none
	Overflows  uint64 // records for which there was no room here at first
	Held       int64  // answers that wait for their record now
	Expired    uint64 // answers that waited too long and failed
	Handovers  uint64 // answers that were passed on
	Replayed   uint64 // records that went out with them
	Checks     uint64 // requests for the last records of rooms
	Failures   uint64 // requests to the stream that it did not answer
}

// counters are the Stats of a shard: written by its goroutine, read by any.
type counters struct {
	rooms, held                                                                   atomic.Int64
	records, plain, duplicates, gaps, filled, lost, malformed, overflows, expired atomic.Uint64
	handovers, replayed, checks, failures                                         atomic.Uint64
}

func (c *counters) addTo(s *Stats) {
	s.Rooms += c.rooms.Load()
	s.Records += c.records.Load()
	s.Plain += c.plain.Load()
	s.Duplicates += c.duplicates.Load()
	s.Gaps += c.gaps.Load()
	s.Filled += c.filled.Load()
	s.Lost += c.lost.Load()
	s.Malformed += c.malformed.Load()
	s.Overflows += c.overflows.Load()
	s.Held += c.held.Load()
	s.Expired += c.expired.Load()
	s.Handovers += c.handovers.Load()
	s.Replayed += c.replayed.Load()
	s.Checks += c.checks.Load()
	s.Failures += c.failures.Load()
}
