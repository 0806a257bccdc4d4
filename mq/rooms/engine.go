package rooms

import (
	"errors"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
)

// Engine keeps sessions and rooms outside of the worker's memory, so that several workers share them and none has a state
// of its own. Its methods may block: a worker with an engine handles each request on a goroutine of its own, and answers
// when everything that the answer says is stored.
//
// The transport between the gateways and such workers keeps the session of each connection (mq.Request.Bound), and the
// engine brings the events of rooms to the gateways, from the log that it keeps.
type Engine interface {
	Store

	// Start is called once, when the worker is attached to the gateways, before any other method.
	Start(w *Worker, clients mq.Clients) error

	// Session returns the session of a connection while a request of it is handled; bound is what Authenticate returned.
	// Whether the session is still there, and still that of the connection, shows when it is changed: ErrNoSession.
	Session(bound string, conn conn.ID) Session

	// Authenticate gives a connection a session: that of id, if it is there and of the same subject, else a new one.
	// bound is what the transport keeps for the connection, or ""; the session that it stands for ends when it is not the
	// same. bind is what the transport must keep from now on: it tells apart the times that the connection had the session.
	// ErrFull: there are as many as may be.
	Authenticate(conn conn.ID, bound, id, subject string) (session, bind string, err error)

	// Sessions returns the number of sessions.
	Sessions() (int, error)
}

// Session is the session of a request, while the request is handled, on one goroutine. What a session is in must be
// known to whoever ends it, even when the one who handles the request dies on the way: so a room is noted before it is
// joined, and forgotten after it was left.
type Session interface {
	// ID returns the session's id.
	ID() string

	// Rooms returns the rooms that the session may be in.
	Rooms() ([]Membership, error)

	// Joining notes that the session is about to join a room by its present connection. False: it is in limit rooms
	// already and this is none of them. attempt goes into Room.Join. An empty room id stands for none: nothing is noted.
	Joining(room string, limit int) (attempt uint64, ok bool, err error)

	// Joined says what became of it. joined means that the session is a member, by whatever attempt.
	Joined(room string, joined bool) error

	// Leaving is called before a room is left, and Left after. attempt is not 0 when joins up to it must be barred.
	Leaving(room string) (attempt uint64, err error)
	Left(room string) error

	// Forget forgets a room that the session is not in, unless it has tried to join it again since Rooms said m.
	Forget(m Membership) error

	// End ends the session of the connection.
	End() error

	// Close is called once the request was handled.
	Close()
}

// Membership is a room that a session may be in.
type Membership struct {
	Room    string // id
	Attempt uint64 // of the last join; 0 where nobody counts them
}

var (
	// ErrNoSession means that a session is not there any more, or has been taken over by another connection.
	ErrNoSession = errors.New("rooms: the session is not that of the connection any more")
	// ErrFull means that there are as many of something as there may be.
	ErrFull = errors.New("rooms: limit reached")
)

// Leave takes a session out of a room without a request, and bars joins of it up to an attempt unless that is 0. False:
// there is no such room. For engines, from any goroutine.
func (w *Worker) Leave(session, room string, bar uint64) (bool, error) {
	return w.takeOut(session, room, bar, conn.ID{})
}

func (w *Worker) takeOut(session, room string, bar uint64, countedBy conn.ID) (bool, error) {
	c := w.calls.Get().(*call)
	c.begin(goneMember, nil)
	c.session, c.attempt, c.conn = session, bar, countedBy
	found, err := w.store.Do(room, c)
	c.release()
	return found, err
}

// Config returns what the worker was made of.
func (w *Worker) Config() *Config { return &w.cfg }
