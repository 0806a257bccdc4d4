package nats

import (
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/mq"
)

// DurationBuckets are the upper bounds of the histograms [us], those of mq.
var DurationBuckets = mq.DurationBuckets

// Duration is a histogram of durations: counts per bucket, the last one for what is above all of them.
type Duration struct {
	Counts [len(mq.DurationBuckets) + 1]uint64
	SumUS  uint64
}

// histogram is a Duration that any goroutine may add to.
type histogram struct {
	counts [len(mq.DurationBuckets) + 1]atomic.Uint64
	sum    atomic.Uint64
}

func (h *histogram) observe(ns int64) {
	us := max(0, ns/1000)
	i := 0
	for i < len(DurationBuckets) && us > int64(DurationBuckets[i]) {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(uint64(us))
}

func (h *histogram) read() (d Duration) {
	for i := range h.counts {
		d.Counts[i] = h.counts[i].Load()
	}
	d.SumUS = h.sum.Load()
	return d
}

// ConnStats are the state and the counters of a process's NATS connections.
type ConnStats struct {
	Links      int
	Up         int           // links that are there
	Away       time.Duration // how long the link that is away longest is, 0: none
	Reconnects uint64
	Errors     uint64 // errors that belong to no call
	Slow       uint64 // times that messages to us began to be lost because we did not keep up
	InMsgs     uint64
	InBytes    uint64
	OutMsgs    uint64
	OutBytes   uint64
}

// Stats returns the state and the counters. It may wait while a link writes.
func (c *Conn) Stats() ConnStats {
	s := ConnStats{Links: len(c.links), Away: c.Away()}
	for _, l := range c.links {
		if l.up() {
			s.Up++
		}
		s.Reconnects += l.reconnects.Load()
		s.Errors += l.asyncErrs.Load()
		s.Slow += l.slow.Load()
		n := l.nc.Stats()
		s.InMsgs += n.InMsgs
		s.InBytes += n.InBytes
		s.OutMsgs += n.OutMsgs
		s.OutBytes += n.OutBytes
	}
	return s
}

// RelayStats are the counters of a Relay. Every request that was not Refused or FailedAtOnce without a flight is counted
// once in Answered, Failed, NoResponders, Lost, Unsent or TimedOut, or in FailedAtOnce.
type RelayStats struct {
	InFlight     int64
	FlightBytes  int64  // payloads kept for them
	Answered     uint64 // a worker's answer went to the client
	Failed       uint64 // a worker answered with an error
	NoResponders uint64 // nobody subscribes to the type
	Lost         uint64 // NATS was lost before the answer came
	Unsent       uint64 // they could not be written to NATS, because it was away too long or refused them
	TimedOut     uint64 // no answer in time
	Refused      uint64 // types that cannot be part of a subject
	FailedAtOnce uint64 // NATS away, or too many in flight
	Resent       uint64 // idempotent ones that were sent again
	Late         uint64 // answers that nobody waited for any more
	BadBinds     uint64 // answers that bound a session where none can be bound
	Latency      Duration

	Commands    uint64 // of workers to connections
	AnswersLost uint64 // to commands, which could not be written

	Unpublished  int64  // ends of connections that are not stored yet
	Published    uint64 // and those that are
	PublishRetry uint64 // times that one had to be published again

	LeaseRenewed uint64
	LeaseFailed  uint64
	Unbound      uint64 // bindings that did not hold any more after NATS had been away
}

type relayCounters struct {
	histogram
	answered, failed, noResponders, lost, unsent, timedOut, refused, failedAtOnce, resent, late, badBind atomic.Uint64
	commands, answersLost, published, publishRetry, leaseRenewed, leaseFailed, unbound                   atomic.Uint64
}

// Stats returns the counters, each of its own moment.
func (x *Relay) Stats() RelayStats {
	c := &x.count
	return RelayStats{InFlight: x.flights.count.Load(), FlightBytes: x.bytes.Load(), Answered: c.answered.Load(), Failed: c.failed.Load(),
		NoResponders: c.noResponders.Load(), Lost: c.lost.Load(), Unsent: c.unsent.Load(), TimedOut: c.timedOut.Load(), Refused: c.refused.Load(),
		FailedAtOnce: c.failedAtOnce.Load(), Resent: c.resent.Load(), Late: c.late.Load(), BadBinds: c.badBind.Load(), Latency: c.read(),
		Commands: c.commands.Load(), AnswersLost: c.answersLost.Load(),
		Unpublished: x.ends.count.Load(), Published: c.published.Load(), PublishRetry: c.publishRetry.Load(),
		LeaseRenewed: c.leaseRenewed.Load(), LeaseFailed: c.leaseFailed.Load(), Unbound: c.unbound.Load()}
}

// ServiceStats are the counters of a Service.
type ServiceStats struct {
	Waiting     int64  // requests that wait for a goroutine
	InFlight    int64  // requests without an answer, those that wait included
	Requests    uint64 // taken
	Answered    uint64
	Failed      uint64 // with an error
	Busy        uint64 // refused because too many waited
	Panics      uint64 // of the worker
	SecondReply uint64 // answers to what had been answered
	AnswersLost uint64 // answers that could not be written
	Handling    Duration

	Ends       uint64 // of connections, taken by the worker
	EndsLater  uint64 // which it wanted to be told again later
	EndsAgain  uint64 // deliveries after the first
	EndsBad    uint64 // that could not be read, and were thrown away
	EndsFailed uint64 // which it did not take: they come again
}

type serviceCounters struct {
	histogram
	waiting, inFlight                                                  atomic.Int64
	requests, answered, failed, busy, panics, secondReply, answersLost atomic.Uint64
	ends, endsLater, endsAgain, endsBad, endsFailed                    atomic.Uint64
}

// Stats returns the counters, each of its own moment.
func (s *Service) Stats() ServiceStats {
	c := &s.count
	return ServiceStats{Waiting: c.waiting.Load(), InFlight: c.inFlight.Load(), Requests: c.requests.Load(), Answered: c.answered.Load(),
		Failed: c.failed.Load(), Busy: c.busy.Load(), Panics: c.panics.Load(), SecondReply: c.secondReply.Load(), AnswersLost: c.answersLost.Load(),
		Handling: c.read(), Ends: c.ends.Load(), EndsLater: c.endsLater.Load(), EndsAgain: c.endsAgain.Load(), EndsBad: c.endsBad.Load(),
		EndsFailed: c.endsFailed.Load()}
}
