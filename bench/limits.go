package bench

import "time"

// Ranges of the options. What is outside is an error, never clipped.
const (
	MinConnections, MaxConnections = 1, 4 << 20
	MinRate, MaxRate               = 0, 10_000_000 // [per second]; 0: as fast as possible
	MinDuration, MaxDuration       = 100 * time.Millisecond, 24 * time.Hour
	MinWarmup, MaxWarmup           = 0, 10 * time.Minute
	MinPayload, MaxPayload         = minMessage, 16 << 20 // [bytes]
	MinCompress                    = 0                    // [bytes]
	MinDepth, MaxDepth             = 1, 1024              // messages in flight per connection
	MinLoops, MaxLoops             = 1, 255
	MaxTargets                     = 64        // servers: each has lines of its own in the report
	MaxSources                     = 4096      // addresses
	MinStalled, MaxStalled         = 0, 10_000 // connections
	MinPairs, MaxPairs             = 1, 100
	MinTotal, MaxTotal             = 0, 1 << 40
	MinSettle, MaxSettle           = 0, 10 * time.Minute
	MinGrowth, MaxGrowth           = 0, 1 << 40 // [bytes]
	MinRounds, MaxRounds           = 1, 100     // of a comparison
	MinSeed, MaxSeed               = 0, 1<<62 - 1
	MinRooms, MaxRooms             = 1, 100_000
	MinMembers, MaxMembers         = 1, 1 << 20 // of a room
	MinPatience, MaxPatience       = time.Millisecond, 10 * time.Minute
	MinPings, MaxPings             = time.Millisecond, time.Hour // intervals

	// MaxInFlight bounds connections × depth × payload [bytes]: what all messages on their way may take, here and in the
	// server, before it is the kernel's memory that is measured.
	MaxInFlight = 4 << 30
)

// Limits that are properties of the generator.
const (
	// warmConnections are opened, to each server, before its memory is first read, so that what a server allocates once does
	// not count as memory per connection.
	warmConnections = 100

	// maxOpening bounds the connections of all loops that are being opened, and likewise that are being closed, at one
	// time: well below the backlog of a listener (net.core.somaxconn is 4096), where SYNs would be dropped and sent again
	// a second later.
	maxOpening = 512

	// turnBudget bounds what one turn of a loop does for many connections (dials, first messages), so that answers are
	// not kept waiting.
	turnBudget = 64

	// dialTick is how often a loop looks whether connections are due to be opened, or closed.
	dialTick = int64(10 * time.Millisecond)
	// closeLate is by how much a loop may be late for that and still close as many as maxOpening says.
	closeLate = int64(100 * time.Millisecond)

	// pacePeriod is how often messages at a fixed rate are looked at: a message goes out this much after its time at most,
	// if the machine keeps up. It counts as latency, as everything does that keeps a message waiting.
	pacePeriod = 100 * time.Microsecond

	// openGrace and openPace bound the time for opening n connections: their time at --rate, plus openGrace, plus n at
	// openPace.
	openGrace = 30 * time.Second
	openPace  = 500 // [per second]

	// startDelay is how long before their beginning the loops are told of it, so that they begin together.
	startDelay = 20 * time.Millisecond

	// answerGrace is how long answers are waited for when the last message is out.
	answerGrace = 5 * time.Second

	// roomWindow is how many messages of one room, at the least, may be on their way to some of its members; the next one
	// waits.
	roomWindow = 64

	// envelopeBytes is above what an MQ envelope takes beside its payload, and memberBytes above what a member takes in
	// the list that JoinRoom is answered with, in the text form [bytes].
	envelopeBytes = 512
	memberBytes   = 192

	// pingPhases is how finely the phases of pings are told apart: in so many parts of the interval.
	pingPhases = 20

	// A ramp begins at defaultRampRate [per second] and tries maxRampSteps rates at the most.
	defaultRampRate = 1000
	maxRampSteps    = 40

	// seriesStep is the time between two points of a chart at the beginning; with maxPoints of them every second one is
	// dropped, and the step doubled.
	seriesStep = 250 * time.Millisecond
	maxPoints  = 600

	// handshakeTimeout, closeTimeout and writeTimeout are those of each connection.
	handshakeTimeout = 10 * time.Second
	closeTimeout     = 5 * time.Second
	writeTimeout     = 30 * time.Second

	// closeGrace and closePace bound the time for closing n connections: closeGrace, plus n at closePace.
	closeGrace = 30 * time.Second
	closePace  = 1000 // [per second]

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
	// filesPerLoop an epoll, two eventfds and a timerfd. filesPerTable are those of a loop with a table of its own: standard
	// streams, the runtime's, epoll, an eventfd, a timerfd and the socket for transfers are 9; each loop adds an eventfd.
	reservedFiles = 32
	filesPerLoop  = 4
	filesPerTable = 16

	// minMessageLimit is the smallest limit [bytes] for messages from the server: above what is asked for, so that a
	// message that is too long is seen and called wrong.
	minMessageLimit = 1 << 20

	// seldom is one in how many stopped readers goes on until the server ends it, and one in how many connections waits
	// for the handshake timeout: each takes seconds, in which a thousand others come and go.
	seldom = 64

	// churnDelay is the longest that a churning connection waits before it goes, where that is its way.
	churnDelay = 20 * time.Millisecond

	// churnPatience is how long a churning connection waits for the server to do what is its turn: above every timeout of
	// a server with the default settings (handshake and write 10 s, close 5 s).
	churnPatience = 30 * time.Second

	// A stopped reader sends stopBytes, or, when it goes on until the server ends it, floodBytes [bytes]: more than the
	// default --max-pending-bytes and what the kernel takes besides (4.3 MB over loopback with Linux's default
	// net.ipv4.tcp_wmem); or holdBytes, which is more than the kernel takes and less than both together. It sends pushBytes
	// at a time, messages that the server has to echo no faster than every pushPause, so that it is their not being read
	// that the server suffers from and not their number. When all is sent it looks every floodProbe whether the
	// connection is still there.
	stopBytes  = 256 << 10
	floodBytes = 16 << 20
	holdBytes  = 6 << 20
	pushBytes  = 32 << 10
	pushPause  = 10 * time.Millisecond
	floodProbe = 100 * time.Millisecond

	// churnWarm is the part of a churn, in number and time, after which the server's memory is taken as its normal size:
	// one in so many, churnWarmTime at most.
	churnWarm     = 10
	churnWarmTime = 20 * time.Second

	// churnGoroutines is how many goroutines more are no growth: those of the scrape itself come and go.
	churnGoroutines = 2

	// restStep is how often the server is looked at while it comes to rest, restGrace how long that may take: a session of
	// the built-in worker outlives its connection by 10 s. Memory has settlePatience times the time of --settle.
	restStep       = 250 * time.Millisecond
	restGrace      = 40 * time.Second
	settlePatience = 5

	// scrapeTimeout bounds one reading of the server's metrics.
	scrapeTimeout = 10 * time.Second

	// churnSources is how many source addresses a churn on 127.0.0.0/8 uses by itself: whoever closes first keeps the port
	// for a minute (TIME_WAIT), and of a million connections half do.
	churnSources = 64

	// stalledLook is how often the server is looked at beside stalled connections.
	stalledLook = 100 * time.Millisecond

	// childStart and childStop bound the start and the end of a server that Compare starts; childKeep is how much [bytes]
	// of what it writes before it listens is kept for the message when it does not.
	childStart = 10 * time.Second
	childStop  = 5 * time.Second
	childKeep  = 4 << 10

	// slabStep is how often the kernel's memory is read while Compare runs a scenario.
	slabStep = 100 * time.Millisecond

	// quietShare is the part of the machine that other processes may take before a comparison says that it does not count.
	quietShare = 0.05

	// maxLatency [ns] is the largest value that the histogram holds; larger ones count as this.
	maxLatency = int64(200 * time.Second)
)
