package roomstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
)

// The bucket Conns says which session a connection has, or is about to have: it is written before the session is. So whoever
// handles the end of a connection, in whatever process, finds the session, and what is under way to it:
//
//   - A session is given to a connection only by who has written it into conns before (claimConn), with compare-and-set.
//   - Who writes another session there, or closes the place because the connection has ended (closeConn), sees first to
//     it that the connection does not have the one that stood there, and will not get it by what is under way: it ends the
//     session, or loses it, or closes the place where it is about to be created, or counts up its Fences.
//   - Who gives a session that is there reads its Fences, then writes conns, then the session, if Fences is still the
//     same; else it begins anew.
//
// Each of the two may come first at each of the places, and each step is a compare-and-set: so one of them always sees the
// other. Nobody needs to come back and look, and anybody may die on the way.

// errGone means that a connection does not get a session any more.
var errGone = fmt.Errorf("roomstore: the connection has ended, or has got another session meanwhile: %w", mq.ErrNotFound)

// errFenced means that a session may have been denied to the connection that is about to get it.
var errFenced = errors.New("roomstore: fenced")

// of returns whether a session is that of a connection, or was it last.
func of(c conn.ID) func(*session) bool {
	return func(s *session) bool { return s.Conn == c.String() }
}

// claimConn writes the session that a connection is about to get into conns. One that stood there ends: the connection does
// not know of it, because whoever made it has died before it could say so, or is too slow. known is the session that the
// client has named, which was there therefore, or "". away is how the one that stood there ends; nil: it stays, and the
// claim fails. errGone: the connection has ended, or the one that stood there stays.
func (e *Engine) claimConn(ctx context.Context, c conn.ID, id, known string, away separate) error {
	for {
		named, rev, gone, err := e.conns.look(ctx, connKey(c))
		switch {
		case err != nil:
			return err
		case gone:
			return errGone
		}
		if other := string(named); other != "" && other != id {
			if away == nil {
				return errGone
			}
			if err := e.part(ctx, c, other, other == known, away); err != nil {
				return err
			}
		}
		if _, err := e.conns.put(ctx, connKey(c), []byte(id), rev, 0); err != errConflict {
			return err
		}
	}
}

// dropConn forgets that a connection has a session.
func (e *Engine) dropConn(ctx context.Context, c conn.ID, id string) error {
	named, rev, err := e.conns.get(ctx, connKey(c))
	if err != nil || string(named) != id {
		return err // another session by now
	}
	return e.conns.removeAt(ctx, connKey(c), rev)
}

// separate is how a session that is its connection's is taken away from it: endBut or lose.
type separate func(ctx context.Context, id string, mine func(*session) bool, but conn.ID) error

// closeConn takes away from a connection whatever session it has, and sees to it that it gets none for goneTime. done is
// the session that conns had for it.
func (e *Engine) closeConn(ctx context.Context, c conn.ID, away separate) (done string, err error) {
	for {
		named, rev, gone, err := e.conns.look(ctx, connKey(c))
		if err != nil || gone {
			return done, err
		}
		if named != nil {
			done = string(named)
			if err := e.part(ctx, c, done, false, away); err != nil {
				return done, err
			}
		}
		if err := e.conns.close(ctx, connKey(c), rev, goneTime); err != errConflict {
			return done, err
		}
	}
}

// part sees to it that a connection does not have a session that conns has for it, and does not get it by what is under
// way. was: the session is known to have been there: when it is not any more, nobody will create it.
func (e *Engine) part(ctx context.Context, c conn.ID, id string, was bool, away separate) error {
	for {
		if err := away(ctx, id, of(c), c); !errors.Is(err, rooms.ErrNoSession) {
			return err
		}
		if has, err := e.fence(ctx, c, id, was); err != nil || !has {
			return err
		}
	}
}

// fence sees to it that a connection does not get a session by what is under way. was is as in part. has: it has it.
func (e *Engine) fence(ctx context.Context, c conn.ID, id string, was bool) (has bool, err error) {
	s, err := e.update(ctx, id, func(s *session) error {
		if of(c)(s) || s.Ended {
			return errSame
		}
		s.Fences++
		return nil
	})
	switch {
	case err == nil:
		return of(c)(s), nil
	case !errors.Is(err, rooms.ErrNoSession):
		return false, err
	case was:
		return false, nil
	}
	err = e.sessions.close(ctx, id, 0, fenceTime)
	if err == errConflict { // it is there by now, or its place was closed before
		s, _, err := e.readSession(ctx, id)
		return s != nil && of(c)(s), err
	}
	return false, err
}

// hand gives a session to a connection: f changes it. may says whether it may be given; rooms.ErrNoSession when not. away
// is as in claimConn.
func (e *Engine) hand(ctx context.Context, to conn.ID, id string, away separate, may func(*session) bool, f func(*session) error) (*session, error) {
	for {
		seen, _, err := e.readSession(ctx, id)
		if err != nil {
			return nil, err
		}
		if seen == nil || !may(seen) {
			return nil, rooms.ErrNoSession
		}
		if err := e.claimConn(ctx, to, id, "", away); err != nil {
			return nil, err
		}
		s, err := e.update(ctx, id, func(s *session) error {
			switch {
			case !may(s):
				return rooms.ErrNoSession
			case s.Fences != seen.Fences:
				return errFenced
			}
			return f(s)
		})
		if err != errFenced {
			return s, err
		}
	}
}
