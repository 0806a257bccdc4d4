package main

import (
	"strconv"
	"sync"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq"
	"github.com/prometheus/client_golang/prometheus"
)

// counts is everything that the gateway counts, over all loops.
type counts struct {
	conn    conn.Stats
	mq      mq.Stats
	loop    loop.Stats
	pending int64
	drift   int64
}

// counts asks every loop for its counters. They are plain integers of the loops: nothing is counted on their way but by
// an increment, and a scrape costs each loop one short task.
func (g *gateway) counts() (c counts) {
	g.server.Each(func(r *conn.Registry) {
		s := r.Snapshot()
		m := g.mq.Stats(r.Loop())
		c.conn.Add(&s.Conn)
		c.mq.Add(&m)
		c.loop.BytesReceived += s.Loop.BytesReceived
		c.loop.BytesSent += s.Loop.BytesSent
		c.loop.Tasks += s.Loop.Tasks
		c.loop.AcceptPauses += s.Loop.AcceptPauses
		c.loop.Reads += s.Loop.Reads
		c.loop.Writes += s.Loop.Writes
		c.loop.Turns += s.Loop.Turns
		c.pending += s.Pending
		c.drift += s.Drift
	})
	return c
}

// collector gives the counters to Prometheus. docs/metrics.md describes each; a test keeps the two in step.
type collector struct {
	g  *gateway
	mu sync.Mutex
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mqgate_"+name, help, labels, nil)
}

var (
	descOpen          = desc("connections_open", "Connections that have been upgraded and have not ended.")
	descTotal         = desc("connections_total", "Connections that have been upgraded.")
	descLingering     = desc("connections_lingering", "Connections that have ended and whose socket still delivers our last words.")
	descHandshaking   = desc("connections_handshaking", "Sockets whose upgrade is not done.")
	descDisconnects   = desc("disconnects_total", "Connections that have ended, by our own cause and the close code reported.", "reason", "code")
	descDrift         = desc("accounting_drift", "What total - disconnected and open, and the sockets and what they are for, differ by. Must be 0.")
	descRefused       = desc("handshakes_refused_total", "Upgrades refused, by HTTP status.", "status")
	descHandshakeTO   = desc("handshakes_timed_out_total", "Sockets closed because their request was not complete within --handshake-timeout.")
	descReceived      = desc("messages_received_total", "WebSocket messages and control frames received.", "kind")
	descSent          = desc("messages_sent_total", "WebSocket messages and control frames sent.", "kind")
	descBytesReceived = desc("bytes_received_total", "Bytes read from clients.")
	descBytesSent     = desc("bytes_sent_total", "Bytes written to clients.")
	descDropped       = desc("messages_dropped_total", "MQ messages that were dropped.", "reason")
	descRequests      = desc("requests_total", "Requests of clients that have ended.", "outcome")
	descAccepted      = desc("requests_accepted_total", "Requests of clients that were accepted; each has one outcome in requests_total or is in flight.")
	descInFlight      = desc("requests_in_flight", "Requests of clients that the worker has not answered.")
	descDuration      = desc("request_duration_seconds", "Time from a request's arrival to its answer, of answered requests.")
	descServerReq     = desc("server_requests_total", "Requests of the server to clients that have ended.", "outcome")
	descRTT           = desc("rtt_seconds", "Round trip times measured by pings.")
	descPingsSkipped  = desc("pings_skipped_total", "Pings not sent because the one before had not been taken by the kernel.")
	descSubscriptions = desc("subscriptions", "Subscriptions of connections to rooms and conversations.", "kind")
	descDeliveries    = desc("broadcast_deliveries_total", "Events sent to subscribers.")
	descSlow          = desc("slow_consumers_total", "Connections closed because their peer did not read.", "cause")
	descPending       = desc("pending_bytes", "Bytes for clients that the kernel has not taken.")
	descTasks         = desc("loop_tasks_total", "Tasks run by the loops.")
	descTurns         = desc("loop_turns_total", "Batches of events handled by the loops.")
	descReads         = desc("loop_reads_total", "read(2) calls for clients' sockets.")
	descWrites        = desc("loop_writes_total", "write(2) and sendmsg(2) calls for clients' sockets.")
	descAcceptPauses  = desc("accept_pauses_total", "Times that accepting paused for want of descriptors or memory.")
	descDraining      = desc("drain_remaining", "Sockets still to be closed by the drain under way; 0 when there is none.")
	descUnpublished   = desc("disconnects_unpublished", "Ends of connections that the worker has not taken yet.")
	descPublishLost   = desc("disconnects_unpublished_lost_total", "Ends of connections that the worker will not hear of: too many were waiting.")
	descPanics        = desc("worker_panics_total", "Panics of the worker.")
	descSessions      = desc("rooms_sessions", "Sessions of the built-in worker.")
	descRooms         = desc("rooms_rooms", "Rooms of the built-in worker.")
	descMembers       = desc("rooms_members", "Members of all rooms of the built-in worker.")
	descRoomMessages  = desc("rooms_messages_total", "Chat messages taken by the built-in worker.")
	descRoomRefusals  = desc("rooms_refusals_total", "Requests that the built-in worker refused.", "reason")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock() // one scrape at a time bothers the loops
	n := c.g.counts()
	c.mu.Unlock()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		send(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descOpen, n.conn.Open)
	counter(descTotal, n.conn.Total)
	gauge(descLingering, n.conn.Lingering)
	gauge(descHandshaking, n.conn.Handshake)
	for i := range conn.NumCauses {
		for j, v := range n.conn.Disconnects[i] {
			if v > 0 { // 300 series of zeros would hide the few that there are
				counter(descDisconnects, v, conn.Cause(i).Label(), conn.CodeLabel(j))
			}
		}
	}
	gauge(descDrift, n.drift)
	for i, v := range n.conn.Refused {
		counter(descRefused, v, strconv.Itoa(conn.RefusalStatus(i)))
	}
	counter(descHandshakeTO, n.conn.HandshakeTO)
	for i := range conn.NumKinds {
		counter(descReceived, n.conn.MessagesReceived[i], conn.MessageKind(i).String())
		counter(descSent, n.conn.MessagesSent[i], conn.MessageKind(i).String())
	}
	counter(descBytesReceived, n.loop.BytesReceived)
	counter(descBytesSent, n.loop.BytesSent)
	for i, v := range n.mq.Dropped {
		counter(descDropped, v, mq.Drop(i).String())
	}
	counter(descAccepted, n.mq.Accepted)
	gauge(descInFlight, n.mq.InFlight)
	for i := range mq.NumOutcomes {
		counter(descRequests, n.mq.Requests[i], mq.Outcome(i).String())
		counter(descServerReq, n.mq.ServerRequests[i], mq.Outcome(i).String())
	}
	ch <- histogram(descDuration, mq.DurationBuckets[:], n.mq.Duration[:], n.mq.DurationSumUS)
	ch <- histogram(descRTT, conn.RTTBuckets[:], n.conn.RTT[:], n.conn.RTTSumUS)
	counter(descPingsSkipped, n.conn.PingsSkipped)
	gauge(descSubscriptions, n.mq.Subscriptions[mq.TopicRoom], "room")
	gauge(descSubscriptions, n.mq.Subscriptions[mq.TopicConversation], "conversation")
	counter(descDeliveries, n.mq.Deliveries)
	counter(descSlow, n.conn.SlowBytes, "bytes")
	counter(descSlow, n.conn.SlowTime, "time")
	gauge(descPending, n.pending)
	counter(descTasks, n.loop.Tasks)
	counter(descTurns, n.loop.Turns)
	counter(descReads, n.loop.Reads)
	counter(descWrites, n.loop.Writes)
	counter(descAcceptPauses, n.loop.AcceptPauses)
	gauge(descDraining, c.g.drainer.Remaining())
	gauge(descUnpublished, n.mq.Unpublished)
	counter(descPublishLost, n.mq.PublishLost)
	counter(descPanics, n.mq.Panics)
	w := c.g.worker.Counters()
	gauge(descSessions, w.Sessions)
	gauge(descRooms, w.Rooms)
	gauge(descMembers, w.Members)
	counter(descRoomMessages, uint64(w.Messages))
	counter(descRoomRefusals, uint64(w.Unauthorized), "unauthorized")
	counter(descRoomRefusals, uint64(w.Capacity), "capacity")
	counter(descRoomRefusals, uint64(w.Malformed), "malformed")
	counter(descRoomRefusals, uint64(w.Unknown), "unknown-type")
}

// histogram makes a Prometheus histogram, whose buckets are cumulative and in seconds, of counts per bucket whose upper
// bounds are in microseconds.
func histogram(d *prometheus.Desc, boundsUS []uint32, counts []uint64, sumUS uint64) prometheus.Metric {
	buckets := make(map[float64]uint64, len(boundsUS))
	total := uint64(0)
	for i, b := range boundsUS {
		total += counts[i]
		buckets[float64(b)/1e6] = total
	}
	total += counts[len(boundsUS)]
	return prometheus.MustNewConstHistogram(d, total, float64(sumUS)/1e6, buckets)
}
