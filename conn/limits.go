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

	// chunkConns is the number of connections per slab chunk: memory grows by this many and never moves.
	chunkConns = 256
)
