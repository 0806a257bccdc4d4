package rooms

import (
	"slices"

	"github.com/mqgate/mqgate/mq/wire"
)

// journal is what Rollback needs. A room that is written back with compare-and-set is not copied for each try: what a
// part of it was is kept when that part is changed for the first time, so that a chat message costs the same in a room of
// ten and of ten thousand.
type journal struct {
	before  Room // lists as they were: what they refer to does not change but for the index
	undo    []undo
	members bool // the list of members is a copy already
	dropped int  // messages that have left the history
}

// undo is what the index said before a change.
type undo struct {
	session string
	member  *wire.Member // nil: nothing
}

// Begin starts a transaction: what is done to the room from now on is kept by Commit, or undone by Rollback, without any
// trace. There are no transactions in transactions.
func (r *Room) Begin() {
	if r.tx != nil {
		panic("rooms: transaction in a transaction")
	}
	r.tx = &journal{before: *r}
}

// Commit ends the transaction and keeps what was done.
func (r *Room) Commit() {
	old := r.tx.before.history
	clear(old[:min(r.tx.dropped, len(old))]) // lets go of the messages; their place goes with the memory of the list
	r.tx = nil
}

// Rollback ends the transaction and undoes what was done.
func (r *Room) Rollback() {
	tx := r.tx
	*r = tx.before
	r.tx = nil
	for _, u := range slices.Backward(tx.undo) {
		if u.member == nil {
			delete(r.index, u.session)
		} else {
			r.index[u.session] = u.member
		}
	}
}

// setIndex makes m what the index says of a session, nothing when m is nil.
func (r *Room) setIndex(session string, m *wire.Member) {
	if r.tx != nil {
		r.tx.undo = append(r.tx.undo, undo{session, r.index[session]})
	}
	if m == nil {
		delete(r.index, session)
		return
	}
	r.index[session] = m
}

// ownMembers makes the list of members one that may be changed.
func (r *Room) ownMembers() {
	if r.tx != nil && !r.tx.members {
		r.members = slices.Clone(r.members)
		r.tx.members = true
	}
}

// writable returns a member that may be changed: m itself, or in a transaction a copy in its place.
func (r *Room) writable(m *wire.Member) *wire.Member {
	if r.tx == nil {
		return m
	}
	r.ownMembers()
	i := slices.Index(r.members, m)
	own := *m
	r.members[i] = &own
	r.setIndex(m.SessionID, &own)
	return &own
}

// removeMember takes a member out of the lists.
func (r *Room) removeMember(m *wire.Member) {
	r.setIndex(m.SessionID, nil)
	r.ownMembers()
	r.members = slices.DeleteFunc(r.members, func(o *wire.Member) bool { return o == m })
}
