package main

import (
	"strconv"
	"sync"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/prometheus/client_golang/prometheus"
)

// counts is everything that the gateway counts, over all loops.
type counts struct {
	conn    conn.Stats
	mq      mq.Stats
	loop    loop.Stats
	pending int64
	drift   int64
	held    int64
}

// counts asks every loop for its counters. They are plain integers of the loops: nothing is counted on their way but by
// an increment, and a scrape costs each loop one short task.
func (g *gateway) counts() (c counts) {
	g.server.Each(func(r *conn.Registry) {
		s := r.Snapshot()
		m := g.mq.Stats(r.Loop())
		c.conn.Add(&s.Conn)
		c.mq.Add(&m)
		c.loop.Add(&s.Loop)
		c.pending += s.Pending
		c.drift += s.Drift
		c.held += s.Held
	})
	return c
}

// collector gives the counters to Prometheus. docs/metrics.md describes each; a test keeps the two in step.
type collector struct {
	g  *gateway
	mu sync.Mutex
}

// descs is every desc.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("mqgate_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

var (
	descOpen        = desc("connections_open", "Connections that have been upgraded and have not ended.")
	descTotal       = desc("connections_total", "Connections that have been upgraded.")
	descAfterEnd    = desc("disconnects_after_end_total", "What came for a connection after its end, by how it had ended; none of it is an end.", "reason")
	descHandshaking = desc("connections_handshaking", "Sockets whose upgrade is not done.")
	descLingering   = desc("connections_lingering", "Sockets that only deliver our last words: of a connection that has ended, or a refusal.")
	descDisconnects = desc("disconnects_total", "Connections that have ended, by our own cause and the close code reported.", "reason", "code")
	descDrift       = desc("accounting_drift", "What total - disconnected and open, and the sockets and what they are for, differ by. Must be 0.")
	descRefused     = desc("handshakes_refused_total", "Upgrades refused, by HTTP status.", "status")
	descRefusedAddr = desc("handshakes_refused_address_total", "Upgrades refused because of the client's address, also counted as status 503.", "reason")
	descHandshakeTO = desc("handshakes_timed_out_total", "Sockets closed because their request was not complete within --handshake-timeout.")
	descAccepts     = desc("accepts_total", "Sockets accepted.")
	descAcceptsFull = desc("accepts_refused_total", "Sockets closed as soon as they were accepted: their loop had no slot left.")
	descAcceptPause = desc("accept_pauses_total", "Times that accepting paused for want of descriptors or memory; each vain new attempt counts.")
	descAcceptRests = desc("accept_paused", "Listeners that rest at the moment for want of descriptors or memory.")

	descReceived      = desc("messages_received_total", "WebSocket messages and control frames received.", "kind")
	descSent          = desc("messages_sent_total", "WebSocket messages and control frames sent.", "kind")
	descBytesReceived = desc("bytes_received_total", "Bytes read from clients.")
	descBytesSent     = desc("bytes_sent_total", "Bytes written to clients.")
	descPending       = desc("pending_bytes", "Bytes for clients that the kernel has not taken.")
	descSlow          = desc("slow_consumers_total", "Connections closed because their peer did not read.", "cause")
	descSocketErrors  = desc("socket_errors_total", "Connections ended by an error of their socket.")
	descRTT           = desc("rtt_seconds", "Round trip times measured by pings.")
	descCompression   = desc("compression_agreed_total", "Connections that agreed on permessage-deflate.", "mode")
	descCompressed    = desc("compressed_messages_total", "Messages that came or went compressed.", "direction")
	descSaved         = desc("compression_saved_bytes_total", "Bytes by which messages were sent shorter than they are.")
	descPaused        = desc("reads_paused", "Connections that are not read at the moment.")
	descPauses        = desc("reads_paused_total", "Times that a connection was not read for a while, by the reason.", "reason")
	descHeld          = desc("buffer_bytes", "Memory of partial messages and of output that the kernel has not taken.")
	descMemoryUsed    = desc("memory_used_bytes", "Memory that counts against --memory-limit: what the last collection of the heap left, the runtime's own, and the buffers of now.")
	descMemoryLimit   = desc("memory_limit_bytes", "--memory-limit; 0: off.")
	descPingsSkipped  = desc("pings_skipped_total", "Pings not sent because the one before had not been taken by the kernel.")
	descUnsolicited   = desc("pongs_unsolicited_total", "Pongs that no ping of ours asked for.")

	descDropped       = desc("messages_dropped_total", "MQ messages that were dropped.", "reason")
	descAccepted      = desc("requests_accepted_total", "Requests of clients that were accepted; each has one outcome or is in flight.")
	descInFlight      = desc("requests_in_flight", "Requests of clients that the worker has not answered.")
	descRequests      = desc("requests_total", "Requests of clients that have ended.", "outcome")
	descDuration      = desc("request_duration_seconds", "Time from a request's arrival to its answer, of answered requests.")
	descServerReq     = desc("server_requests_total", "Requests of the server to clients that have ended.", "outcome")
	descServerWaiting = desc("server_requests_in_flight", "Requests of the server that a client has not answered.")
	descSubscriptions = desc("subscriptions", "Subscriptions of connections to rooms and conversations.", "kind")
	descDeliveries    = desc("broadcast_deliveries_total", "Events sent to subscribers.")
	descClients       = desc("clients_with_state", "Connections with requests in flight or subscriptions.")
	descUnpublished   = desc("disconnects_unpublished", "Ends of connections that the worker has not taken yet.")
	descPublishLost   = desc("disconnects_unpublished_lost_total", "Ends of connections that the worker will not hear of: too many were waiting.")
	descPanics        = desc("worker_panics_total", "Panics of the worker.")

	descLag       = desc("loop_lag_seconds", "Time that a task waited for its turn on a loop, tried once a second on each.")
	descTasks     = desc("loop_tasks_total", "Tasks run by the loops.")
	descTurns     = desc("loop_turns_total", "Batches of events handled by the loops.")
	descReads     = desc("loop_reads_total", "Reads from clients' sockets.")
	descWrites    = desc("loop_writes_total", "Writes to clients' sockets.")
	descDraining  = desc("drain_remaining", "Sockets still to be closed by the drain under way; 0 when there is none.")
	descUserBytes = desc("user_bytes_per_connection",
		"Anonymous resident memory of the process beyond what it had before the first connection, over the open connections.")
	descKernelBytes = desc("kernel_bytes_per_connection",
		"Memory of the kernel for TCP buffers over TCP sockets, both of the whole network namespace.")

	descSessions     = desc("rooms_sessions", "Sessions of the built-in worker.")
	descRooms        = desc("rooms_rooms", "Rooms of the built-in worker.")
	descMembers      = desc("rooms_members", "Members of all rooms of the built-in worker.")
	descRoomMessages = desc("rooms_messages_total", "Chat messages taken by the built-in worker.")
	descRoomRefusals = desc("rooms_refusals_total", "Requests that the built-in worker refused.", "reason")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// A sink takes the samples of one scrape.
type sink chan<- prometheus.Metric

func (s sink) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

func (s sink) gauge(d *prometheus.Desc, v int64, labels ...string) {
	s.send(d, prometheus.GaugeValue, float64(v), labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(v), labels...)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock() // one scrape at a time bothers the loops
	n := c.g.counts()
	c.mu.Unlock()
	s := sink(ch)
	s.connections(&n.conn)
	s.mq(&n.mq)
	s.loops(&n.loop, c.g.lags.get())
	s.gauge(descDrift, n.drift)
	s.gauge(descPending, n.pending)
	s.gauge(descHeld, n.held)
	s.budget(c.g.budget)
	remaining := int64(0)
	if c.g.drainer.Active() {
		remaining = sockets(&n.conn)
	}
	s.gauge(descDraining, remaining)
	s.memory(c.g.memoryAtStart, n.conn.Open)
	if c.g.rooms != nil {
		s.rooms(c.g.rooms.Counters())
	}
	if c.g.nats != nil {
		s.overNATS(c.g.nats)
	}
}

func (s sink) budget(b *conn.Budget) {
	var used, limit int64
	if b != nil {
		used, limit = b.Used(), b.Limit()
	}
	s.gauge(descMemoryUsed, used)
	s.gauge(descMemoryLimit, limit)
}

func (s sink) connections(n *conn.Stats) {
	s.gauge(descOpen, n.Open)
	s.counter(descTotal, n.Total)
	s.gauge(descHandshaking, n.Handshake)
	s.gauge(descLingering, n.Lingering)
	for i := range conn.NumCauses {
		for j, v := range n.Disconnects[i] {
			if v > 0 { // 300 series of zeros would hide the few that there are
				s.counter(descDisconnects, v, conn.Cause(i).Label(), conn.CodeLabel(j))
			}
		}
	}
	for i, v := range n.After {
		s.counter(descAfterEnd, v, conn.AfterEnd(i).String())
	}
	for i, v := range n.Refused {
		s.counter(descRefused, v, strconv.Itoa(conn.RefusalStatus(i)))
	}
	for v := clientaddr.TooManyConnections; v <= clientaddr.TooManyAddresses; v++ {
		s.counter(descRefusedAddr, n.RefusedAddr[v], v.String())
	}
	s.counter(descHandshakeTO, n.HandshakeTO)
	for i := range conn.NumKinds {
		s.counter(descReceived, n.MessagesReceived[i], conn.MessageKind(i).String())
		s.counter(descSent, n.MessagesSent[i], conn.MessageKind(i).String())
	}
	s.counter(descSlow, n.SlowBytes, "bytes")
	s.counter(descSlow, n.SlowTime, "time")
	s.counter(descSocketErrors, n.Errors)
	s <- histogram(descRTT, conn.RTTBuckets[:], n.RTT[:], n.RTTSumUS)
	s.counter(descCompression, n.CompressedShared, "shared")
	s.counter(descCompression, n.CompressedTakeover, "takeover")
	s.counter(descCompressed, n.CompressedReceived, "received")
	s.counter(descCompressed, n.CompressedSent, "sent")
	s.counter(descSaved, n.CompressionSaved)
	s.gauge(descPaused, n.Paused)
	s.counter(descPauses, n.Throttled, "rate")
	s.counter(descPauses, n.PausedMemory, "memory")
	s.counter(descPingsSkipped, n.PingsSkipped)
	s.counter(descUnsolicited, n.PongsUnsolicited)
}

func (s sink) mq(n *mq.Stats) {
	for i, v := range n.Dropped {
		s.counter(descDropped, v, mq.Drop(i).String())
	}
	s.counter(descAccepted, n.Accepted)
	s.gauge(descInFlight, n.InFlight)
	for i := range mq.NumOutcomes {
		s.counter(descRequests, n.Requests[i], mq.Outcome(i).String())
		s.counter(descServerReq, n.ServerRequests[i], mq.Outcome(i).String())
	}
	s <- histogram(descDuration, mq.DurationBuckets[:], n.Duration[:], n.DurationSumUS)
	s.gauge(descServerWaiting, n.ServerWaiting)
	s.gauge(descSubscriptions, n.Subscriptions[mq.TopicRoom], "room")
	s.gauge(descSubscriptions, n.Subscriptions[mq.TopicConversation], "conversation")
	s.counter(descDeliveries, n.Deliveries)
	s.gauge(descClients, n.Clients)
	s.gauge(descUnpublished, n.Unpublished)
	s.counter(descPublishLost, n.PublishLost)
	s.counter(descPanics, n.Panics)
}

func (s sink) loops(n *loop.Stats, lag lagCounts) {
	s.counter(descAccepts, n.Accepts)
	s.counter(descAcceptsFull, n.AcceptsRefused)
	s.counter(descAcceptPause, n.AcceptPauses)
	s.gauge(descAcceptRests, int64(n.AcceptPaused))
	s.counter(descBytesReceived, n.BytesReceived)
	s.counter(descBytesSent, n.BytesSent)
	s.counter(descTasks, n.Tasks)
	s.counter(descTurns, n.Turns)
	s.counter(descReads, n.Reads)
	s.counter(descWrites, n.Writes)
	s <- histogram(descLag, lagBuckets[:], lag.counts[:], lag.sumUS)
}

// memory leaves out what the kernel does not tell at the moment, as when the process is out of descriptors.
func (s sink) memory(atStart uint64, open int64) {
	if now, err := anonymousMemory(); err == nil && atStart > 0 {
		s.send(descUserBytes, prometheus.GaugeValue, per(float64(now)-float64(atStart), open))
	}
	if buffers, sockets, err := kernelTCPMemory(); err == nil {
		s.send(descKernelBytes, prometheus.GaugeValue, per(float64(buffers), int64(sockets)))
	}
}

// per returns amount / n, and 0 where there is nothing to divide by or the amount has fallen below its start.
func per(amount float64, n int64) float64 {
	if n <= 0 {
		return 0
	}
	return max(amount, 0) / float64(n)
}

func (s sink) rooms(n rooms.Counters) {
	if n.Sessions >= 0 { // below: it could not be found out
		s.gauge(descSessions, n.Sessions)
	}
	if n.Rooms >= 0 {
		s.gauge(descRooms, n.Rooms)
	}
	s.gauge(descMembers, n.Members)
	s.counter(descRoomMessages, uint64(n.Messages))
	s.counter(descRoomRefusals, uint64(n.Unauthorized), "unauthorized")
	s.counter(descRoomRefusals, uint64(n.Capacity), "capacity")
	s.counter(descRoomRefusals, uint64(n.Malformed), "malformed")
	s.counter(descRoomRefusals, uint64(n.Unknown), "unknown-type")
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
