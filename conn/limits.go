package conn

import "time"

// Limits of a connection that are no flags: value, unit, and what each is against.
const (
	// maxMetaValue cuts a request header that is kept for the worker [bytes]. Values are interned, but a client chooses
	// them: without a cut a million connections could each pin a header block of 8 KiB.
	maxMetaValue = 256

	// maxMetaHeaders is the number of request headers that may be kept.
	maxMetaHeaders = 16

	// MaxCloseCode and MinCloseCode bound what may be asked for; frame.ValidSendCode says which of them are allowed.
	MinCloseCode = 1000
	MaxCloseCode = 4999

	// pendingUnit is what a message that waits to be written takes besides its bytes [bytes]. Against: a flood of empty
	// messages to an echo, by a peer that does not read, would hold nine times what it may.
	pendingUnit = 16

	// retryAfter is what a refused client is told to wait (L2.6).
	retryAfter = 5 * time.Second

	// maxLoops is the number of loops that connection ids can tell apart: they have one byte for it (L2.2).
	maxLoops = 256

	// maxExtensions is room for the longest answer to an offer of compression [bytes].
	maxExtensions = 160

	// keptPacked is the largest message for which a loop keeps its memory for compressing the next one [bytes].
	keptPacked = 256 << 10

	// chunkConns is the number of connections per slab chunk: memory grows by this many and never moves.
	chunkConns = 256

	// maxBudgetStep is how much a loop may hold without saying so to the budget [bytes] (L8.6).
	maxBudgetStep = 64 << 10

	// saidFor is how long the log says nothing of memory being enough again after it was said to be short [ns].
	saidFor = int64(5 * time.Second)

	// minHolder is the least that a connection must hold to be paused or closed for the sake of memory [bytes]: below it
	// there is nothing to be had by it. A partial message takes at least 600 bytes, whatever it is.
	minHolder = 4 << 10

	// pauseFirst is who is paused between the moment when memory becomes short and the first look at all connections
	// [bytes].
	pauseFirst = 64 << 10

	// relieveEvery is how often a loop looks at all its connections while memory is short [ns]. A look at half a million
	// takes some 10 ms.
	relieveEvery = int64(100 * time.Millisecond)
)
