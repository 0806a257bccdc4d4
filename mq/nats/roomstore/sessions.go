package roomstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
)

// session is the value of a session, as JSON.
type session struct {
	Subject   string `json:"subject,omitempty"` // whom the Authenticator saw
	Conn      string `json:"conn"`              // the connection that has it, or had it last
	Connected bool   `json:"connected"`         // false: lost
	Ended     bool   `json:"ended,omitempty"`   // it leaves its rooms and will be removed; nothing else may be done with it

	// Epoch counts takeovers and losses, so that a timer knows whether it is out of date.
	Epoch uint64 `json:"epoch"`
	// Turn counts takeovers alone. What a gateway keeps for a connection is the session with its turn: so a command that
	// takes an earlier turn away, and comes late, does not take away a later one.
	Turn uint64 `json:"turn,omitempty"`
	// Fences counts losses, and ends of other connections that meant to take the session over: see conns.go.
	Fences uint64 `json:"fences,omitempty"`
	// Attempts counts joins.
	Attempts uint64 `json:"attempts,omitempty"`
	Rooms    []room `json:"rooms,omitempty"`
}

// room is a room that a session may be a member of.
type room struct {
	Room    string `json:"room"`              // id
	Attempt uint64 `json:"attempt"`           // the last join
	Conn    string `json:"conn"`              // that asked for it; another than the session's: to be joined again, or left
	Leaving bool   `json:"leaving,omitempty"` // a timer takes the session out: nobody may join before it is done
}

func (s *session) find(id string) int {
	return slices.IndexFunc(s.Rooms, func(r room) bool { return r.Room == id })
}

// detached reports whether some room was joined by another connection than the present one.
func (s *session) detached() bool {
	return slices.ContainsFunc(s.Rooms, func(r room) bool { return r.Conn != s.Conn })
}

// errSame is returned by the function that Engine.update gets, when there is nothing to write.
var errSame = errors.New("roomstore: nothing to change")

func (e *Engine) readSession(ctx context.Context, id string) (*session, uint64, error) {
	value, rev, err := e.sessions.get(ctx, id)
	if err != nil || value == nil {
		return nil, rev, err
	}
	s := new(session)
	if err := json.Unmarshal(value, s); err != nil {
		return nil, 0, fmt.Errorf("roomstore: session: %w", err)
	}
	return s, rev, nil
}

// update changes a session with compare-and-set. f is called again with what has come in between. rooms.ErrNoSession:
// there is none.
func (e *Engine) update(ctx context.Context, id string, f func(*session) error) (*session, error) {
	turn := &e.inTurn[maphash.String(e.seed, id)%uint64(len(e.inTurn))]
	turn.Lock()
	defer turn.Unlock()
	for {
		s, rev, err := e.readSession(ctx, id)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, rooms.ErrNoSession
		}
		if err := f(s); err != nil {
			if err == errSame {
				err = nil
			}
			return s, err
		}
		value, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		if _, err = e.sessions.put(ctx, id, value, rev, 0); err != errConflict {
			return s, err
		}
	}
}

func connKey(id conn.ID) string { return subjects.NodeToken(id.Node()) + "." + id.String() }

// token is what a gateway keeps for a connection: "SESSION.TURN".
func token(id string, turn uint64) string { return id + "." + strconv.FormatUint(turn, 10) }

// sessionOf returns the session of a token.
func sessionOf(bound string) string {
	id, _, _ := strings.Cut(bound, ".")
	return id
}

// Authenticate implements rooms.Engine.
func (e *Engine) Authenticate(id conn.ID, bound, wanted, subject string) (string, string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
	defer cancel()
	if err := e.knowNode(ctx, id.Node()); err != nil {
		return "", "", err
	}
	if bound != "" {
		keep, err := e.keeps(ctx, id, sessionOf(bound), wanted, subject)
		if err != nil || keep {
			return sessionOf(bound), bound, err
		}
	}
	known := ""
	if wanted != "" && validKey(wanted) {
		wanted = strings.Clone(wanted)
		known = wanted
		turn, ok, err := e.takeOver(ctx, id, wanted, subject)
		if err != nil || ok {
			return wanted, token(wanted, turn), err
		}
	}
	fresh, err := e.createSession(ctx, id, subject, known)
	return fresh, token(fresh, 0), err
}

// validKey reports whether a session id that a client names may be one of ours: only those become keys.
func validKey(id string) bool {
	return len(id) <= 64 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// keeps reports whether a connection keeps the session that it has. If it does not, the session has ended.
func (e *Engine) keeps(ctx context.Context, id conn.ID, bound, wanted, subject string) (bool, error) {
	s, _, err := e.readSession(ctx, bound)
	if err != nil || s == nil || s.Conn != id.String() {
		return false, err
	}
	if bound == wanted && s.Subject == subject && !s.Ended {
		return true, nil
	}
	e.clients.UnsubscribeAll(id)
	err = e.end(ctx, bound, func(s *session) bool { return s.Conn == id.String() })
	if errors.Is(err, rooms.ErrNoSession) {
		err = nil
	}
	return false, err
}

// takeOver gives a session to a connection, and reports whether it could: it must be there, and of the same subject.
func (e *Engine) takeOver(ctx context.Context, to conn.ID, id, subject string) (turn uint64, ok bool, err error) {
	var before session
	may := func(s *session) bool { return !s.Ended && s.Subject == subject }
	s, err := e.hand(ctx, to, id, e.endBut, may, func(s *session) error {
		before = *s
		if s.Connected && s.Conn == to.String() {
			return errSame
		}
		s.Conn, s.Connected = to.String(), true
		s.Epoch++
		s.Turn++
		if s.detached() { // anew: the client has only now got the chance to join again
			return e.setGrace(ctx, id, s.Epoch)
		}
		return nil
	})
	if errors.Is(err, rooms.ErrNoSession) {
		return 0, false, nil // it gets a new one
	}
	if err != nil || before.Turn == s.Turn {
		return s.turn(), err == nil, err
	}
	old, err := conn.ParseID(before.Conn)
	if err != nil {
		return 0, false, fmt.Errorf("roomstore: session: %w", err)
	}
	if before.Connected {
		lost := token(id, before.Turn)
		e.unbind(ctx, old, lost)
		// The answer that gave it the session may be on its way yet.
		time.AfterFunc(unbindTime, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if !e.closed {
				e.work.Go(func() {
					ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
					defer cancel()
					e.unbind(ctx, old, lost)
				})
			}
		})
	}
	if old == to {
		return s.Turn, true, nil
	}
	return s.Turn, true, e.dropConn(ctx, old, id)
}

func (s *session) turn() uint64 {
	if s == nil {
		return 0
	}
	return s.Turn
}

// unbind takes a turn of a session away from a connection that may still be there, and waits for its gateway, so that what
// the new connection does is not mixed with what the old one still wants. A gateway that unbinds a connection ends its
// subscriptions.
func (e *Engine) unbind(ctx context.Context, old conn.ID, bound string) {
	b, ok := e.clients.(mq.Binder)
	if !ok {
		e.clients.UnsubscribeAll(old)
		return
	}
	done := make(chan error, 1)
	b.Bind(old, bound, "", func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, mq.ErrNotFound) {
			e.log.Warn("a connection that lost its session to another one may still use it", "conn", old.String(), "err", err)
		}
	case <-time.After(unbindTime):
		e.log.Warn("a connection that lost its session to another one may still use it: its gateway does not answer",
			"conn", old.String())
	case <-ctx.Done():
	}
}

// createSession makes a new session of a connection. known is as in claimConn.
func (e *Engine) createSession(ctx context.Context, to conn.ID, subject, known string) (string, error) {
	id := rand.Text()
	if err := e.claimConn(ctx, to, id, known, e.endBut); err != nil {
		return "", err
	}
	value, err := json.Marshal(&session{Subject: subject, Conn: to.String(), Connected: true})
	if err != nil {
		return "", err
	}
	err = e.sessions.create(ctx, id, value)
	if err == errConflict { // closed: by the end of the connection, or by another Authenticate of it
		err = errGone
	}
	if err != nil {
		return "", err
	}
	over, err := e.sessions.over(ctx, e.cfg.Limits.Sessions)
	if err != nil {
		return "", err
	}
	if over {
		if err := e.sessions.remove(ctx, id); err != nil {
			return "", err
		}
		return "", errors.Join(rooms.ErrFull, e.dropConn(ctx, to, id))
	}
	return id, nil
}

// end ends a session: it leaves its rooms and is forgotten. may says whether it is the one that is meant. Whoever comes
// second does the same again, because the first may have died on the way. rooms.ErrNoSession: there is none to end.
func (e *Engine) end(ctx context.Context, id string, may func(*session) bool) error {
	return e.endBut(ctx, id, may, conn.ID{})
}

// endBut is end, but for what conns says of one connection: the caller sees to that.
func (e *Engine) endBut(ctx context.Context, id string, may func(*session) bool, but conn.ID) error {
	s, err := e.update(ctx, id, func(s *session) error {
		switch {
		case !may(s):
			return rooms.ErrNoSession
		case s.Ended:
			return errSame
		}
		s.Ended, s.Connected = true, false // the epoch stays: a timer that ends it is still the right one to go on
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range s.Rooms {
		if _, err := e.w.Leave(id, r.Room, rooms.AllAttempts); err != nil {
			return err
		}
	}
	if c, err := conn.ParseID(s.Conn); err == nil && c != but {
		if err := e.dropConn(ctx, c, id); err != nil {
			return err
		}
	}
	return e.sessions.remove(ctx, id)
}

// Holds reports whether a connection still has a session. One that was given up for lost, because nothing was heard of
// its gateway, is the connection's again by that, if it is still there and has got no other one since.
func (e *Engine) Holds(ctx context.Context, c conn.ID, bound string) (bool, error) {
	id := sessionOf(bound)
	if !validKey(id) || id == "" {
		return false, nil
	}
	may := func(s *session) bool { return !s.Ended && s.Conn == c.String() }
	s, _, err := e.readSession(ctx, id)
	if err != nil || s == nil || !may(s) {
		return false, err
	}
	if s.Connected {
		return true, nil
	}
	_, err = e.hand(ctx, c, id, nil, may, func(s *session) error {
		if s.Connected {
			return errSame
		}
		s.Connected = true
		s.Epoch++
		return nil
	})
	if errors.Is(err, rooms.ErrNoSession) || errors.Is(err, errGone) {
		return false, nil
	}
	return err == nil, err
}

// handle is a rooms.Session.
type handle struct {
	e      *Engine
	id     string
	conn   string
	ctx    context.Context
	cancel context.CancelFunc

	attempt uint64 // of the join or leave in hand
	before  *room  // the entry as Joining found it; nil: none
}

// Session implements rooms.Engine.
func (e *Engine) Session(bound string, c conn.ID) rooms.Session {
	h := &handle{e: e, id: sessionOf(bound), conn: c.String()}
	h.ctx, h.cancel = context.WithTimeout(e.ctx, opTimeout)
	return h
}

// ID implements rooms.Session.
func (h *handle) ID() string { return h.id }

// Close implements rooms.Session.
func (h *handle) Close() { h.cancel() }

// owns returns rooms.ErrNoSession when the session is not that of the connection any more.
func (h *handle) owns(s *session) error {
	if s == nil || s.Ended || !s.Connected || s.Conn != h.conn {
		return rooms.ErrNoSession
	}
	return nil
}

func (h *handle) readOwn() (*session, error) {
	s, _, err := h.e.readSession(h.ctx, h.id)
	if err == nil {
		err = h.owns(s)
	}
	return s, err
}

// Rooms implements rooms.Session.
func (h *handle) Rooms() ([]rooms.Membership, error) {
	s, err := h.readOwn()
	if err != nil {
		return nil, err
	}
	out := make([]rooms.Membership, 0, len(s.Rooms))
	for _, r := range s.Rooms {
		out = append(out, rooms.Membership{Room: r.Room, Attempt: r.Attempt})
	}
	return out, nil
}

// Joining implements rooms.Session.
func (h *handle) Joining(id string, limit int) (attempt uint64, ok bool, err error) {
	id = strings.Clone(id)
	until := time.Now().Add(leavingTime)
	for {
		leaving := false
		s, err := h.e.update(h.ctx, h.id, func(s *session) error {
			h.before, ok, leaving = nil, false, false
			if err := h.owns(s); err != nil {
				return err
			}
			i := s.find(id)
			switch {
			case i < 0 && len(s.Rooms) >= limit:
				return errSame
			case id == "":
				ok = true
				return errSame
			case i >= 0 && s.Rooms[i].Leaving:
				leaving = true
				return errSame
			}
			ok = true
			s.Attempts++
			if i < 0 {
				s.Rooms = append(s.Rooms, room{Room: id, Attempt: s.Attempts, Conn: h.conn})
				return nil
			}
			before := s.Rooms[i]
			h.before = &before
			s.Rooms[i].Attempt, s.Rooms[i].Conn = s.Attempts, h.conn
			return nil
		})
		if err != nil {
			return 0, false, err
		}
		if !leaving {
			h.attempt = s.Attempts
			return h.attempt, ok, nil
		}
		if time.Now().After(until) {
			return 0, false, errTooLate
		}
		select {
		case <-h.ctx.Done():
			return 0, false, errTooLate
		case <-time.After(retryPause):
		}
	}
}

// Joined implements rooms.Session.
func (h *handle) Joined(id string, joined bool) error {
	if joined {
		return nil
	}
	return h.change(id, h.attempt, func(s *session, i int) {
		if h.before != nil {
			s.Rooms[i].Conn = h.before.Conn
			return
		}
		s.Rooms = slices.Delete(s.Rooms, i, i+1)
	})
}

// Leaving implements rooms.Session.
func (h *handle) Leaving(id string) (uint64, error) {
	s, err := h.readOwn()
	if err != nil {
		return 0, err
	}
	h.attempt = 0
	i := s.find(id)
	if i < 0 {
		return 0, nil
	}
	h.attempt = s.Rooms[i].Attempt
	if s.Rooms[i].Conn == h.conn {
		return 0, nil // its own joins have been answered
	}
	return h.attempt, nil
}

// Left implements rooms.Session.
func (h *handle) Left(id string) error {
	return h.Forget(rooms.Membership{Room: id, Attempt: h.attempt})
}

// Forget implements rooms.Session.
func (h *handle) Forget(m rooms.Membership) error {
	if m.Attempt == 0 {
		return nil // was not in the list
	}
	return h.change(m.Room, m.Attempt, func(s *session, i int) { s.Rooms = slices.Delete(s.Rooms, i, i+1) })
}

// change changes the entry of a room if no other join was tried meanwhile.
func (h *handle) change(id string, attempt uint64, f func(s *session, i int)) error {
	_, err := h.e.update(h.ctx, h.id, func(s *session) error {
		i := s.find(id)
		if s.Ended || i < 0 || s.Rooms[i].Attempt != attempt {
			return errSame
		}
		f(s, i)
		return nil
	})
	if errors.Is(err, rooms.ErrNoSession) {
		return nil // ended meanwhile, and with it all its rooms
	}
	return err
}

// End implements rooms.Session.
func (h *handle) End() error {
	c, err := conn.ParseID(h.conn)
	if err != nil {
		return err
	}
	h.e.clients.UnsubscribeAll(c) // first: it need not hear of its own leaving
	return h.e.end(h.ctx, h.id, func(s *session) bool { return s.Conn == h.conn })
}
