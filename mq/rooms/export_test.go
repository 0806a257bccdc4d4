package rooms

import "github.com/mqgate/mqgate/conn"

// What the tests of both implementations see of the package beside what everyone sees, and how the tests of the one in
// memory look into it.

const (
	MaxTTL          = maxTTL
	MaxHistoryAge   = maxHistoryAge
	MessageOverhead = messageOverhead
	MessageIDLen    = messageIDLen
)

var (
	ErrUnknownType = errUnknownType
	ErrClosed      = errClosed
	SameMember     = sameMember
	CloneStreams   = cloneStreams
)

func (w *Worker) CreateSession(id conn.ID, limit int) bool {
	return w.sessions.create(w, id, "", limit) != nil
}

// Authenticated returns the number of connections that have a session.
func (w *Worker) Authenticated() (n int) {
	for i := range w.sessions.conns {
		n += len(w.sessions.conns[i].m)
	}
	return n
}

// SetConn makes the index say what it said before a takeover.
func (w *Worker) SetConn(id conn.ID, session string) {
	w.sessions.setConn(id, w.sessions.byID(session))
}

// Grace returns whether the grace of a session is running, and its epoch.
func (w *Worker) Grace(session string) (running bool, epoch uint64) {
	s := w.sessions.byID(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grace != nil, s.epoch
}

// Handle is a session, also after its end.
type Handle struct{ s *session }

func (w *Worker) Handle(session string) Handle { return Handle{w.sessions.byID(session)} }

func (h Handle) GraceRunning() bool { return h.s.grace != nil }

func (w *Worker) GraceOver(session string, epoch uint64) {
	w.graceOver(w.sessions.byID(session), epoch)
}

// RunningTimers stops the timers of rooms and returns the rooms whose timer was running.
func (w *Worker) RunningTimers() (out []string) {
	st := w.store.(*memStore)
	for i := range st.rooms {
		for id, e := range st.rooms[i].m {
			if e.timer != nil && e.timer.Stop() {
				out = append(out, id)
			}
		}
	}
	return out
}

// Entry is a room in the store, also after its end.
type Entry struct{ e *memRoom }

func (w *Worker) Entry(room string) Entry { return Entry{w.store.(*memStore).shard(room).m[room]} }

func (w *Worker) PutBack(room string, e Entry) { w.store.(*memStore).shard(room).m[room] = e.e }

func (w *Worker) Expire(e Entry) { w.store.(*memStore).expire(e.e) }
