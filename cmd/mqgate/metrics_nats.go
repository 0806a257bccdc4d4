package main

import (
	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/follow"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/prometheus/client_golang/prometheus"
)

// What is collected with --nats only: of every process its connections, of a gateway the relay and the follower, of a
// worker what it has done.
var (
	descNATSLinks      = desc("nats_connections", "Connections to NATS, by whether they are there.", "state")
	descNATSAway       = desc("nats_away_seconds", "How long the connection to NATS that is away longest has been away; 0: none is.")
	descNATSReconnects = desc("nats_reconnects_total", "Times that a connection to NATS was made again.")
	descNATSErrors     = desc("nats_errors_total", "Errors of NATS that belong to no request.")
	descNATSSlow       = desc("nats_slow_consumer_total", "Times that messages of NATS were lost because this process did not keep up.")
	descNATSMessages   = desc("nats_messages_total", "Messages of all kinds from and to NATS.", "direction")
	descNATSBytes      = desc("nats_bytes_total", "Bytes of these messages.", "direction")

	descRelayInFlight  = desc("nats_requests_in_flight", "Requests of clients that no worker in NATS has answered.")
	descRelayBytes     = desc("nats_requests_bytes", "Memory of the payloads of these requests.")
	descRelayRequests  = desc("nats_requests_total", "Requests of clients to workers in NATS that have ended.", "outcome")
	descRelayResent    = desc("nats_requests_resent_total", "Requests that were sent again because NATS was lost.")
	descRelayLate      = desc("nats_answers_late_total", "Answers of workers that nobody waited for any more.")
	descRelayBadBinds  = desc("nats_answers_bad_binds_total", "Answers of workers that gave a session to a connection where none can be given.")
	descRelayDuration  = desc("nats_request_duration_seconds", "Time from a request's arrival to the answer of a worker in NATS.")
	descRelayCommands  = desc("nats_commands_total", "Commands of workers to connections of this gateway.")
	descRelayLost      = desc("nats_command_answers_lost_total", "Answers to commands that could not be sent.")
	descRelayWaiting   = desc("nats_disconnects_unpublished", "Ends of connections that NATS has not stored yet.")
	descRelayPublished = desc("nats_disconnects_published_total", "Ends of connections that NATS has stored.")
	descRelayRetried   = desc("nats_disconnects_retried_total", "Times that the end of a connection was published again.")
	descRelayLease     = desc("nats_lease_renewals_total", "Times that the gateway's lease was to be renewed.", "result")
	descRelayUnbound   = desc("nats_sessions_gone_total", "Connections that were closed because their session had ended while NATS was away.")

	descFollowRooms     = desc("nats_rooms_followed", "Rooms whose events come to this gateway.")
	descFollowRecords   = desc("nats_room_records_total", "Records of rooms that came, by what became of them.", "result")
	descFollowGaps      = desc("nats_room_gaps_total", "Holes in what came of rooms, by whether the stream could fill them.", "result")
	descFollowOverflows = desc("nats_room_overflows_total", "Times that records of rooms came faster than they could be taken.")
	descFollowHeld      = desc("nats_answers_held", "Answers that wait for the records of a room that belong before them.")
	descFollowHandovers = desc("nats_answers_subscribing_total", "Answers that made a subscription, by what became of them.", "result")
	descFollowReplayed  = desc("nats_room_records_replayed_total", "Records that went to a new subscriber with its answer.")
	descFollowChecks    = desc("nats_room_checks_total", "Questions to the stream whether records are missing.")
	descFollowFailures  = desc("nats_room_questions_failed_total", "Questions to the stream that it did not answer.")

	descServiceWaiting  = desc("nats_worker_requests_waiting", "Requests that wait for their turn in the worker.")
	descServiceInFlight = desc("nats_worker_requests_in_flight", "Requests that the worker has taken and not answered.")
	descServiceRequests = desc("nats_worker_requests_total", "Requests that the worker has answered.", "outcome")
	descServiceDuration = desc("nats_worker_request_duration_seconds", "Time from a request's arrival at the worker to its answer.")
	descServicePanics   = desc("nats_worker_panics_total", "Panics of the worker.")
	descServiceAgain    = desc("nats_worker_second_answers_total", "Answers of the worker to what had been answered.")
	descServiceLost     = desc("nats_worker_answers_lost_total", "Answers of the worker that could not be sent.")

	descStoreCommits    = desc("nats_store_commits_total", "Records of rooms that the worker has written.")
	descStoreOperations = desc("nats_store_operations_total", "Operations on rooms in these records.")
	descStoreConflicts  = desc("nats_store_conflicts_total", "Times that another worker wrote first.")
	descStoreReads      = desc("nats_store_reads_total", "Times that the worker made sure that it knows the last record of a room.")
	descStoreLoads      = desc("nats_store_loads_total", "Rooms that the worker has read from their log.")
	descStoreSnapshots  = desc("nats_store_snapshots_total", "Snapshots of rooms that the worker has written.")
	descStoreUnknown    = desc("nats_store_unknown_total", "Records of which could not be found out whether they were stored.")
	descStoreLost       = desc("nats_store_lost_sessions_total", "Sessions that were lost with their gateway.")
	descStoreTimers     = desc("nats_store_timers_total", "Graces and times to live of rooms that were over.")
	descStoreCached     = desc("nats_store_rooms_cached", "Rooms in the worker's memory.")
)

// workerCollector gives the counters of a worker process to Prometheus.
type workerCollector struct{ w *natsWorker }

// Describe implements prometheus.Collector.
func (c *workerCollector) Describe(ch chan<- *prometheus.Desc) { (*collector)(nil).Describe(ch) }

// Collect implements prometheus.Collector.
func (c *workerCollector) Collect(ch chan<- prometheus.Metric) {
	s := sink(ch)
	s.natsConn(c.w.conn.Stats())
	s.natsWorker(c.w)
}

// overNATS is what a gateway counts of NATS.
func (s sink) overNATS(n *overNATS) {
	s.natsConn(n.conn.Stats())
	s.relay(n.relay.Stats())
	if f := n.follower.Load(); f != nil {
		s.follower(f.Stats())
	}
	if n.worker != nil {
		s.natsWorker(n.worker)
	}
}

func (s sink) natsConn(n nats.ConnStats) {
	s.gauge(descNATSLinks, int64(n.Up), "up")
	s.gauge(descNATSLinks, int64(n.Links-n.Up), "away")
	s.send(descNATSAway, prometheus.GaugeValue, n.Away.Seconds())
	s.counter(descNATSReconnects, n.Reconnects)
	s.counter(descNATSErrors, n.Errors)
	s.counter(descNATSSlow, n.Slow)
	s.counter(descNATSMessages, n.InMsgs, "received")
	s.counter(descNATSMessages, n.OutMsgs, "sent")
	s.counter(descNATSBytes, n.InBytes, "received")
	s.counter(descNATSBytes, n.OutBytes, "sent")
}

func (s sink) relay(n nats.RelayStats) {
	s.gauge(descRelayInFlight, n.InFlight)
	s.gauge(descRelayBytes, n.FlightBytes)
	for _, o := range []struct {
		outcome string
		n       uint64
	}{
		{"answered", n.Answered}, {"failed", n.Failed}, {"no-worker", n.NoResponders}, {"lost", n.Lost}, {"unsent", n.Unsent},
		{"timeout", n.TimedOut}, {"wrong-type", n.Refused}, {"refused", n.FailedAtOnce},
	} {
		s.counter(descRelayRequests, o.n, o.outcome)
	}
	s.counter(descRelayResent, n.Resent)
	s.counter(descRelayLate, n.Late)
	s.counter(descRelayBadBinds, n.BadBinds)
	s <- histogram(descRelayDuration, nats.DurationBuckets[:], n.Latency.Counts[:], n.Latency.SumUS)
	s.counter(descRelayCommands, n.Commands)
	s.counter(descRelayLost, n.AnswersLost)
	s.gauge(descRelayWaiting, n.Unpublished)
	s.counter(descRelayPublished, n.Published)
	s.counter(descRelayRetried, n.PublishRetry)
	s.counter(descRelayLease, n.LeaseRenewed, "ok")
	s.counter(descRelayLease, n.LeaseFailed, "failed")
	s.counter(descRelayUnbound, n.Unbound)
}

func (s sink) follower(n follow.Stats) {
	s.gauge(descFollowRooms, n.Rooms)
	s.counter(descFollowRecords, n.Records, "delivered")
	s.counter(descFollowRecords, n.Plain, "plain")
	s.counter(descFollowRecords, n.Filled, "filled")
	s.counter(descFollowRecords, n.Duplicates, "duplicate")
	s.counter(descFollowRecords, n.Malformed, "malformed")
	s.counter(descFollowGaps, n.Gaps, "filled")
	s.counter(descFollowGaps, n.Lost, "lost")
	s.counter(descFollowOverflows, n.Overflows)
	s.gauge(descFollowHeld, n.Held)
	s.counter(descFollowHandovers, n.Handovers, "passed-on")
	s.counter(descFollowHandovers, n.Expired, "expired")
	s.counter(descFollowReplayed, n.Replayed)
	s.counter(descFollowChecks, n.Checks)
	s.counter(descFollowFailures, n.Failures)
}

// natsWorker is what a worker counts. How many rooms and sessions there are is left out while NATS is away: it would have
// to be waited for.
func (s sink) natsWorker(w *natsWorker) {
	n := w.service.Stats()
	s.gauge(descServiceWaiting, n.Waiting)
	s.gauge(descServiceInFlight, n.InFlight)
	s.counter(descServiceRequests, n.Answered, "answered")
	s.counter(descServiceRequests, n.Failed-min(n.Failed, n.Busy), "failed") // busy ones are among them
	s.counter(descServiceRequests, n.Busy, "busy")
	s <- histogram(descServiceDuration, nats.DurationBuckets[:], n.Handling.Counts[:], n.Handling.SumUS)
	s.counter(descServicePanics, n.Panics)
	s.counter(descServiceAgain, n.SecondReply)
	s.counter(descServiceLost, n.AnswersLost)
	s.roomstore(w.engine.Stats())
	if w.conn.Away() == 0 {
		s.rooms(w.rooms.Counters())
	}
}

func (s sink) roomstore(n roomstore.Stats) {
	for _, c := range []struct {
		d *prometheus.Desc
		n int64
	}{
		{descStoreCommits, n.Commits}, {descStoreOperations, n.Operations}, {descStoreConflicts, n.Conflicts}, {descStoreReads, n.Reads},
		{descStoreLoads, n.Loads}, {descStoreSnapshots, n.Snapshots}, {descStoreUnknown, n.Unknown}, {descStoreLost, n.LostGates},
		{descStoreTimers, n.Timers},
	} {
		s.counter(c.d, uint64(c.n))
	}
	s.gauge(descStoreCached, n.Cached)
}
