package config

import "time"

// Bounds of what a configuration may contain, beyond the ranges of the settings themselves (settings.go).
const (
	// maxListen [addresses]: each takes one listening socket per loop.
	maxListen = 16

	// maxLoops [loops]: a connection id has 8 bits for its loop.
	maxLoops = 255

	// maxMaxConnections [connections]: with a slack of 100% still below the 2^24 slots that a connection id can name in
	// a single loop.
	maxMaxConnections = 8_000_000

	// maxTrustedProxies and maxOrigins [entries]: each is looked at for every upgrade request.
	maxTrustedProxies = 64
	maxOrigins        = 64

	// maxNATSServers [URLs]: one is enough, it tells the others of its cluster.
	maxNATSServers = 16

	// maxTypes [types] of --nats-idempotent and --nats-ordered: each beginning is looked at for every request.
	maxTypes = 64

	// minLease and maxLease bound --nats-lease, as the relay does: below, a slow server would end the leases of gateways that
	// are well; above, the members of a dead one would stay for too long.
	minLease = 2 * time.Second
	maxLease = 10 * time.Minute

	// minHistoryAge, but for 0, and maxHistoryAge (ten years) bound --max-history-age, as the rooms worker does: what is
	// outside is a slip of the unit.
	minHistoryAge = time.Second
	maxHistoryAge = 10 * 365 * 24 * time.Hour

	// maxPerSecond [per second] bounds rates; above it they limit nothing.
	maxPerSecond = 1_000_000

	// minMemoryLimit and maxMemoryLimit bound --memory-limit. An idle gateway takes some 10 MiB.
	minMemoryLimit = 32 * MiB
	maxMemoryLimit = 16 << 10 * GiB

	// autoMemory is the part of the memory there is that --memory-limit=auto takes.
	autoMemory Percent = 75

	// maxPathBytes [bytes] of --path and --echo-path: far below the 8 KiB that a whole upgrade request may take.
	maxPathBytes = 256

	// maxSocketPathBytes [bytes] of --takeover: the kernel takes 107 (unix(7)), of which 11 are for the process number
	// that stands behind it while the socket is being made.
	maxSocketPathBytes = 96

	// maxMetaHeaders [headers] and maxMetaHeaderBytes [bytes per name]: each is looked for in every upgrade request.
	maxMetaHeaders     = 16
	maxMetaHeaderBytes = 64

	// minTimeout and maxTimeout bound the timeouts. Below, a healthy peer across an ocean would be cut off by its round
	// trip and the wheel's resolution; above, a deadline protects nothing.
	minTimeout = 10 * time.Millisecond
	maxTimeout = time.Hour

	// maxConfigFileBytes [bytes]: some hundred times what all settings take; stops a wrong path from being read in.
	maxConfigFileBytes = 1 << 20

	// minKeyBytes [bytes]: RFC 7518 section 3.2 demands a key as long as the hash for HS256; a shorter one could be
	// found by trying, from a single token. minTokenBytes [bytes]: a bearer token can only be tried against the server,
	// 16 characters are out of reach that way. maxSecretBytes [bytes] stops a wrong path from being read in.
	minKeyBytes    = 32
	minTokenBytes  = 16
	maxSecretBytes = 64 << 10
)

// Descriptors that are not open connections, kept free when connections are counted against the open-file limit. Sum:
//
//	reserveProcess              standard streams, Go's own epoll and eventfd, files that are open for a moment
//	reserveAdmin                when the admin interface is on: its listener and the connections to it
//	reservePerLoop × loops      epoll, netpoll's eventfd, the eventfd of tasks, the timerfd, and as many to spare
//	1 × loops × addresses       listeners
//	1/reserveFraction of all    sockets that are no open connection yet or any more: in their handshake (L2.7), refused
//	                            (L2.6), or lingering after the close (L1.8)
//
// With --fd-tables=per-loop each loop has a table, and this sum:
//
//	reserveTable                standard streams, Go's own epoll and eventfd, the socket on which listeners are handed on,
//	                            epoll, netpoll's eventfd and the timerfd (9), and some to spare
//	1 × loops                   the eventfds of all loops: whoever posts to another writes to it
//	1 × addresses               listeners
//	1/reserveFraction of all    as above
//	spreadDeviations × √rest    the kernel spreads connections by a hash, so that a loop has not exactly its share of n but
//	                            one that varies, by a standard deviation of √n (binomial, many loops). One loop in 30,000
//	                            has 4 deviations more. Its accepting pauses then (L8.4), that of the others does not.
//
// The process's own table holds reserveProcess, reserveAdmin, and one for each loop.
//
// A burst that needs more than the last line is harmless: accepting pauses until descriptors come back (L8.4).
const (
	reserveProcess  = 32
	reserveAdmin    = 64
	reservePerLoop  = 8
	reserveFraction = 50

	reserveTable     = 16
	spreadDeviations = 4
)
