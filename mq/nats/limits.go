package nats

import "time"

// Limits that are no options: value, unit, and what each is against.
const (
	// MaxLinks bounds the NATS connections of one process. One carries some hundred thousand messages a second; more than
	// this would only cost the server memory.
	MaxLinks = 16

	// maxQueued bounds the requests of one link that wait to be written to NATS, against a NATS that takes nothing more:
	// 65,536 requests are a second or so of what a link can carry.
	maxQueued = 1 << 16

	// maxFlightBytes bounds the payloads that the flights of a Relay keep, because they wait to be written or may have to
	// be sent again [bytes].
	maxFlightBytes = 256 << 20

	// maxClientSession bounds the session that a client says it has, to be passed on [bytes]: it may be as long as a
	// message, and would be kept with every request in flight.
	maxClientSession = 256

	// maxUnpublished bounds the ends of connections that NATS has not stored yet [entries of about 300 bytes]. Above it
	// Disconnected refuses, and the gateway keeps the end (L6.3).
	maxUnpublished = 1 << 16

	// maxTaken bounds the ends that workers have taken and not acknowledged, those that wait to be told again later
	// included: while there are more, no further one is given out.
	maxTaken = 1 << 20

	// endsBatch is how many ends are published before their acknowledgements are awaited.
	endsBatch = 256

	// maxInbox is how many messages of one link may wait for the goroutine that handles them [messages]. What comes above
	// that is lost, as everything that comes to a NATS client that does not keep up; it is counted.
	maxInbox = 1 << 16

	// maxCalls bounds the answers of gateways that Clients waits for.
	maxCalls = 1 << 20

	// checkBatch is how many bindings are asked about in one message, which is then some 40 KiB long.
	checkBatch = 500
)

// Times.
const (
	// dialTimeout bounds one attempt to connect to one server.
	dialTimeout = 5 * time.Second

	// writeTimeout is how long a write to NATS may take. After that the connection is given up and made again.
	writeTimeout = 10 * time.Second

	// pingInterval is how often an idle NATS connection is tried; after maxPings without an answer it is given up.
	pingInterval = 5 * time.Second
	maxPings     = 2

	// reconnectWait is the time between two rounds through all servers; half of it again is random, so that a thousand
	// gateways do not come back at once.
	reconnectWait = 250 * time.Millisecond

	// minLease and maxLease bound leases: JetStream knows nothing shorter than a second, and a shorter one would be over
	// whenever a server is slow; with a longer one the members of a dead gateway would stay for too long.
	minLease = 2 * time.Second
	maxLease = 10 * time.Minute

	// purgeEvery is how often flights above their deadline are looked for.
	purgeEvery = 100 * time.Millisecond

	// linkPoll is how often a lost link is looked at by who waits for it, besides when it is told.
	linkPoll = 20 * time.Millisecond

	// retryLeast and retryMost bound the time between two attempts to store something in JetStream.
	retryLeast = 100 * time.Millisecond
	retryMost  = 5 * time.Second

	// storeTimeout is how long an acknowledgement of JetStream is waited for.
	storeTimeout = 5 * time.Second

	// lateBy is by how much a request may be above its deadline when a worker comes to it, and still be handled: the clocks of gateway
	// and worker need not agree, but what has been lying about in NATS for longer was answered long ago with mq.Error "timeout".
	lateBy = 30 * time.Second

	// takeWait is how long an end that a worker has taken is left to it before another one gets it.
	takeWait = 30 * time.Second

	// endsRetry is after which time an end that the worker has not taken is told again.
	endsRetry = time.Second

	// leaseMarker is how long the bucket of leases says that one has ended, to who begins to look.
	leaseMarker = time.Minute

	// checkTimeout is how long the answer about a batch of bindings is waited for.
	checkTimeout = 5 * time.Second

	// warnEvery is the time between two log lines about errors of the same NATS connection.
	warnEvery = time.Second
)

// codeSessionGone closes a connection whose session has ended while its gateway could not be reached (RFC 6455 section
// 7.4.1 with the registry of IANA: "Service Restart"). Clients connect again after it.
const codeSessionGone = 1012

// Defaults.
const (
	DefaultHold        = 2 * time.Second
	DefaultLease       = 10 * time.Second
	DefaultMaxInFlight = 100_000
	DefaultCallTimeout = 30 * time.Second
	DefaultConcurrency = 64
	DefaultMaxWaiting  = 16_384
)
