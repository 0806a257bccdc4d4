package bench

import "time"

// Ranges of the options. What is outside is an error, never clipped.
const (
	MinConnections, MaxConnections = 1, 4 << 20
	MinRate, MaxRate               = 0, 10_000_000 // [per second]; 0: as fast as possible
	MinDuration, MaxDuration       = 100 * time.Millisecond, 24 * time.Hour
	MinWarmup, MaxWarmup           = 0, 10 * time.Minute
	MinPayload, MaxPayload         = minMessage, 16 << 20 // [bytes]
	MinDepth, MaxDepth             = 1, 1024              // messages in flight per connection
	MinLoops, MaxLoops             = 1, 255
	MaxSources                     = 4096 // addresses

	// MaxInFlight bounds connections × depth × payload [bytes]: what all messages on their way may take, here and in the
	// server, before it is the kernel's memory that is measured.
	MaxInFlight = 4 << 30
)

// Limits that are properties of the generator.
const (
	// warmConnections are opened before the memory of the server is first read, so that what a server allocates once does
	// not count as memory per connection.
	warmConnections = 100

	// maxOpening bounds the connections of all loops that are being opened, and likewise that are being closed, at one
	// time: well below the backlog of a listener (net.core.somaxconn is 4096), where SYNs would be dropped and sent again
	// a second later.
	maxOpening = 512

	// turnBudget bounds what one turn of a loop does for many connections (dials, first messages), so that answers are
	// not kept waiting.
	turnBudget = 64

	// dialTick is how often a loop looks whether connections are due.
	dialTick = int64(10 * time.Millisecond)

	// pacePeriod is how often messages at a fixed rate are looked at: a message goes out this much after its time at most,
	// if the machine keeps up. It counts as latency, as everything does that keeps a message waiting.
	pacePeriod = 100 * time.Microsecond

	// openGrace and openPace bound the time for opening n connections: their time at --rate, plus openGrace, plus n at
	// openPace.
	openGrace = 30 * time.Second
	openPace  = 500 // [per second]

	// startDelay is how long before their beginning the loops are told of it, so that they begin together.
	startDelay = 20 * time.Millisecond

	// echoGrace is how long echoes are waited for when the last message is out.
	echoGrace = 5 * time.Second

	// handshakeTimeout, closeTimeout and writeTimeout are those of each connection.
	handshakeTimeout = 10 * time.Second
	closeTimeout     = 5 * time.Second
	writeTimeout     = 30 * time.Second

	// closeGrace bounds closing all connections.
	closeGrace = 30 * time.Second

	// settleStep, settleSame and settleLimit: the server's memory has settled when it has not changed by more than
	// settleBytes over settleSame readings, settleStep apart; settleLimit ends the waiting.
	settleStep  = 200 * time.Millisecond
	settleSame  = 5
	settleBytes = 64 << 10
	settleLimit = 5 * time.Second

	// maxTexts bounds the different error texts that are counted apart.
	maxTexts = 16

	// maxMissing bounds the overtaken messages that are remembered per connection.
	maxMissing = 1024

	// reservedFiles are descriptors that are not for connections: standard streams, the runtime's, files of /proc;
	// filesPerLoop an epoll, two eventfds and a timerfd.
	reservedFiles = 32
	filesPerLoop  = 4

	// minMessageLimit is the smallest limit [bytes] for messages from the server: above what is asked for, so that a
	// message that is too long is seen and called wrong.
	minMessageLimit = 1 << 20

	// maxLatency [ns] is the largest value that the histogram holds; larger ones count as this.
	maxLatency = int64(200 * time.Second)
)
