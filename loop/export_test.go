package loop

// What the tests of package loop_test need to know.
const (
	ReadBufferSize   = readBufferSize
	MaxReadsPerEvent = maxReadsPerEvent
	FlushThreshold   = flushThreshold
	MaxRounds        = maxRounds
	SharedSample     = sharedSample
	Invariants       = invariants
)

// SharedWaiting returns the shared units that wait for sockets which have blocked, and how often each does, by looking at
// every queue: the truth for SharedBytes.
func SharedWaiting(loops ...*Loop) map[*Shared]int {
	waiting := map[*Shared]int{}
	for _, l := range loops {
		for slot := range uint32(l.Slots()) {
			for _, sh := range sharedOf(l, slot) {
				waiting[sh]++
			}
		}
	}
	return waiting
}

// SharedShare returns what SharedPart must, given what SharedWaiting returned.
func SharedShare(l *Loop, slot uint32, waiting map[*Shared]int) (n int) {
	for _, sh := range sharedOf(l, slot) {
		n += sh.Len() / waiting[sh]
	}
	return n
}

func sharedOf(l *Loop, slot uint32) (units []*Shared) {
	if s := l.at(slot); s.flags&inUse != 0 && s.flags&blocked != 0 && s.out != nil {
		for _, u := range s.out.units[s.out.head:] {
			if u.sh != nil {
				units = append(units, u.sh)
			}
		}
	}
	return units
}
