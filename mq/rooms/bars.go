package rooms

import "strings"

// AllAttempts bars all joins of a session.
const AllAttempts = ^uint64(0)

// bar keeps out the joins of a session up to some attempt. Where several workers handle the requests of one session, one
// of them may be about to join it when another takes it out, or ends it: whichever order they come in, the session must
// be out afterwards.
type bar struct {
	session string
	attempt uint64
	at      uint64 // [ms since 1970]
}

// Bar refuses joins of a session up to an attempt, for barTime from now [ms since 1970] on.
func (r *Room) Bar(session string, attempt, now uint64, res *Result) {
	r.addBar(bar{strings.Clone(session), attempt, now})
	res.Delta = appendBar(res.Delta, &r.bars[len(r.bars)-1])
}

func (r *Room) addBar(b bar) {
	old := 0
	for old < len(r.bars) && r.bars[old].at+barTime < b.at {
		old++
	}
	r.bars = append(r.bars[old:], b) // beyond the end of what a transaction may go back to
}

func (r *Room) barred(session string, attempt uint64) bool {
	for i := range r.bars {
		if r.bars[i].session == session && attempt <= r.bars[i].attempt {
			return true
		}
	}
	return false
}
