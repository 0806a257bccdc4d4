package mq

// Drop is why a message was dropped: the label of messages_dropped_total.
type Drop uint8

const (
	DropMalformed       Drop = iota // not base64, or not an envelope (L3.1)
	DropNotOpen                     // the connection was not OPEN (L3.2)
	DropNoRequestID                 // a Request that cannot be answered (L3.12)
	DropRequestID                   // a request id above 128 bytes
	DropClientEvent                 // clients cannot send events (L3.10)
	DropUnknownResponse             // a Response to nothing (L3.9)
	DropLateResponse                // a Response after its request had timed out (L3.9)
	DropLateAnswer                  // the worker's answer after the timeout, or a second one (L3.4)
	DropAnswerNotOpen               // the worker's answer when the connection was no longer OPEN (L3.7)
	DropSlow                        // an answer or event for a peer that does not read (L8.3)
	drops
)

// NumDrops is the number of reasons for a dropped message.
const NumDrops = int(drops)

var dropLabels = [drops]string{"malformed", "not-open", "no-request-id", "request-id-too-long", "client-event",
	"unknown-response", "late-response", "late-answer", "answer-not-open", "slow-consumer"}

// String returns the metric label.
func (d Drop) String() string { return dropLabels[d] }

// Outcome is how a request ended: the label of requests_total and server_requests_total.
type Outcome uint8

const (
	OutcomeOK      Outcome = iota // answered
	OutcomeFailed                 // mq.Error "failed" went out (L3.3, L3.5)
	OutcomeTimeout                // nobody answered in time (L3.4, L4.3)
	OutcomeDropped                // the connection left OPEN before the answer
	outcomes
)

// NumOutcomes is the number of outcomes.
const NumOutcomes = int(outcomes)

var outcomeLabels = [outcomes]string{"ok", "failed", "timeout", "dropped"}

// String returns the metric label.
func (o Outcome) String() string { return outcomeLabels[o] }

// DurationBuckets are the upper bounds of the request duration histogram [us]: 0.1 ms to 15 s.
var DurationBuckets = [...]uint32{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 15000000}

// Stats are the counters of the gateway on one loop: plain integers written by that loop alone.
type Stats struct {
	Accepted       uint64 // requests given to the worker, or refused for too many in flight: each has one outcome (L3.11)
	Requests       [NumOutcomes]uint64
	InFlight       int64
	Duration       [len(DurationBuckets) + 1]uint64 // of answered requests, counts per bucket, the last one for what is above
	DurationSumUS  uint64
	ServerRequests [NumOutcomes]uint64
	ServerWaiting  int64 // requests of the server that wait for a client
	Dropped        [NumDrops]uint64
	Subscriptions  [2]int64 // by TopicKind
	Deliveries     uint64   // events sent to subscribers
	Clients        int64    // connections with state here
	Unpublished    int64    // ends of connections that wait for the worker to take them (L6.3)
	PublishLost    uint64   // and those for which there was no room
	Panics         uint64   // of the worker (L8.2)
}

// Add adds the counters of o to s.
func (s *Stats) Add(o *Stats) {
	s.Accepted += o.Accepted
	for i := range s.Requests {
		s.Requests[i] += o.Requests[i]
		s.ServerRequests[i] += o.ServerRequests[i]
	}
	s.InFlight += o.InFlight
	for i := range s.Duration {
		s.Duration[i] += o.Duration[i]
	}
	s.DurationSumUS += o.DurationSumUS
	s.ServerWaiting += o.ServerWaiting
	for i := range s.Dropped {
		s.Dropped[i] += o.Dropped[i]
	}
	for i := range s.Subscriptions {
		s.Subscriptions[i] += o.Subscriptions[i]
	}
	s.Deliveries += o.Deliveries
	s.Clients += o.Clients
	s.Unpublished += o.Unpublished
	s.PublishLost += o.PublishLost
	s.Panics += o.Panics
}

func (s *Stats) observe(us int64) {
	i := 0
	for i < len(DurationBuckets) && us > int64(DurationBuckets[i]) {
		i++
	}
	s.Duration[i]++
	s.DurationSumUS += uint64(us)
}
