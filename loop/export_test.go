package loop

// What the tests of package loop_test need to know.
const (
	ReadBufferSize   = readBufferSize
	MaxReadsPerEvent = maxReadsPerEvent
	FlushThreshold   = flushThreshold
	MaxRounds        = maxRounds
	Invariants       = invariants
)
