package roomstore

import "time"

// Limits: value, unit, and what each is against.
const (
	// opTimeout is how long an operation on a room or a session is tried [time]. It is shorter than the gateway's request
	// timeout (15 s), so that one that a worker begins soon is over when its client is told of a timeout and may ask again
	// (one that has lain about in NATS may be carried out later: lateBy of mq/nats), and than the time that a room keeps
	// late joins out (60 s).
	opTimeout = 10 * time.Second

	// ackTimeout is how long one message is waited for before it is sent again [time]: longer than the election of a leader
	// takes as a rule would be too long for everyone who waits behind it.
	ackTimeout = 2 * time.Second

	// retryPause is between two tries when nobody answers, as while a leader is elected [time].
	retryPause = 50 * time.Millisecond

	// maxBatch and maxRecordBytes bound what goes into one record [operations; bytes of events and delta], against records
	// above the server's max_payload of 1 MiB. One operation alone is bounded by rooms.Limits.
	maxBatch       = 1024
	maxRecordBytes = 256 << 10

	// maxQueue is how many operations may wait for one room [operations], against memory that grows without bound while
	// the stream is away. Beyond it they fail at once.
	maxQueue = 16 << 10

	// recordsPerRoom is how many records the log of a room keeps [records]. snapshotEvery is how many records there are
	// between two snapshots, for small rooms; bytesPerRecord makes it more for large ones, so that snapshots cost at most
	// that much per record [bytes], up to maxSnapshotEvery, which leaves room for several snapshots that fail.
	recordsPerRoom   = 1024
	snapshotEvery    = 64
	bytesPerRecord   = 4 << 10
	maxSnapshotEvery = recordsPerRoom / 4

	// chunkBytes is how much of a snapshot goes into one message [bytes]: half the server's default max_payload.
	chunkBytes = 512 << 10

	// endTTL is how long the last record of a room that has ended stays [time], so that gateways that were away can read it.
	endTTL = time.Hour

	// duplicates is the window in which the stream knows the id of a record again [time]: a record is sent again within
	// opTimeout.
	duplicates = 30 * time.Second

	// readBatch is how many records are read from a log at once [records].
	readBatch = 256

	// idleAfter is when a room that nobody has asked about leaves the memory [time].
	idleAfter = time.Minute

	// claimTime is how long the name of a room that is being created is held [time]: longer than its creation is tried.
	claimTime = 2 * opTimeout

	// leavingTime is how long a join waits for a timer that is taking the session out of the same room [time].
	leavingTime = 2 * time.Second

	// unbindTime is how long the gateway of a connection that lost its session to another one is waited for [time].
	unbindTime = 2 * time.Second

	// handlers is how many ends of connections, and how many timers, one worker handles at a time.
	handlers = 64

	// ackWait is when an end or a timer that a worker has taken is given to another one, because the first has died [time].
	ackWait = 30 * time.Second

	// goneTime is how long the bucket Conns says that the end of a connection was handled [time], against an Authenticate
	// that comes after it. The gateway tells of an end when it has given up its requests, but a worker with a long queue may
	// begin with one later; then it is tried for opTimeout. At 1000 ends in a second there are 300,000 such marks of some
	// 200 bytes.
	goneTime = 5 * time.Minute

	// fenceTime is how long the place of a session that must not be created any more is held [time]: longer than its
	// creation, which has begun by then, is tried. It counts as a session meanwhile.
	fenceTime = 2 * opTimeout

	// nodeTTL is how long a gateway is remembered after its last sign of life [time]; its connections are looked for that
	// long. nodeRefresh is how often that is written again.
	nodeTTL     = 24 * time.Hour
	nodeRefresh = time.Hour

	// sweepBatch is how many sessions of a gateway without a lease are given up before it is looked whether the gateway has
	// come back [sessions]: few enough that their grace is not over by then.
	sweepBatch = 64

	// listAgain is how long it is believed that a gateway has no connections with sessions but those that came after they
	// were listed [time]. Nothing makes it wrong but a bucket that was made anew and counts from 1 again.
	listAgain = 30 * time.Second

	// countAge is how long the number of rooms or sessions is believed while it is far from the limit [time].
	countAge = time.Second
)
