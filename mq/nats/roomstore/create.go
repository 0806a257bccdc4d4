package roomstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
)

// alias is the value of an alias: the room that has it, or is about to be created with it.
type alias struct {
	Alias string `json:"alias"`
	Room  string `json:"room"`
	At    int64  `json:"at"` // when it was claimed [ms since 1970]
}

// Create implements rooms.Store. The names are taken first, then the room is written: who dies in between leaves an alias
// that can be taken again after claimTime.
func (e *Engine) Create(r *rooms.Room) (rooms.CreateResult, string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
	defer cancel()
	id, key := r.ID(), subjects.RoomToken(r.ID())
	if r.Alias() != "" {
		if other, err := e.claim(ctx, r.Alias(), id); err != nil || other != "" {
			return rooms.Exists, other, err
		}
	}
	result, err := e.create(ctx, r, key)
	if err == nil && result != rooms.Created && r.Alias() != "" {
		err = e.release(ctx, r.Alias(), id, result == rooms.Exists)
	}
	return result, id, err
}

func (e *Engine) create(ctx context.Context, r *rooms.Room, key string) (rooms.CreateResult, error) {
	_, err := e.index.put(ctx, key, []byte(r.ID()), 0, 0)
	switch {
	case err == errConflict: // there is one, or the place of one that has just gone
	case err != nil:
		return 0, err
	default:
		over, err := e.index.over(ctx, e.cfg.Limits.Rooms)
		if over {
			err = e.index.remove(ctx, key)
		}
		if over || err != nil {
			return rooms.Full, err
		}
	}
	exists, err := e.do(r.ID(), &waiting{create: r})
	switch {
	case err != nil:
		return 0, err
	case exists:
		return rooms.Exists, nil
	}
	return rooms.Created, nil
}

// claim takes an alias for a room. other is the room that has it.
func (e *Engine) claim(ctx context.Context, name, id string) (other string, err error) {
	key := subjects.RoomToken(name)
	for {
		value, rev, err := e.aliases.get(ctx, key)
		if err != nil {
			return "", err
		}
		if value != nil {
			var a alias
			if err := json.Unmarshal(value, &a); err != nil {
				return "", fmt.Errorf("roomstore: alias %s: %w", key, err)
			}
			var l look
			found, err := e.Do(a.Room, &l)
			switch {
			case err != nil:
				return "", err
			case found && l.alias == name:
				return a.Room, nil
			case e.now().Sub(time.UnixMilli(a.At)) < claimTime && a.Room != id: // somebody may be about to create it
				select {
				case <-ctx.Done():
					return "", errTooLate
				case <-time.After(retryPause):
				}
				continue
			}
		}
		value, err = json.Marshal(alias{name, id, e.now().UnixMilli()})
		if err != nil {
			return "", err
		}
		if _, err = e.aliases.put(ctx, key, value, rev, 0); err != errConflict {
			return "", err
		}
	}
}

// release gives an alias back, if it is that of the room. inUse: there is a room of the id, whose alias it may be.
func (e *Engine) release(ctx context.Context, name, id string, inUse bool) error {
	if inUse {
		var l look
		found, err := e.Do(id, &l)
		if err != nil || found && l.alias == name {
			return err
		}
	}
	key := subjects.RoomToken(name)
	value, _, err := e.aliases.get(ctx, key)
	if err != nil || value == nil {
		return err
	}
	var a alias
	if err := json.Unmarshal(value, &a); err != nil || a.Room != id {
		return err
	}
	return e.aliases.remove(ctx, key)
}

// Find implements rooms.Store.
func (e *Engine) Find(name string) (string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, opTimeout)
	defer cancel()
	value, _, err := e.aliases.get(ctx, subjects.RoomToken(name))
	if err != nil || value == nil {
		return "", err
	}
	var a alias
	if err := json.Unmarshal(value, &a); err != nil {
		return "", fmt.Errorf("roomstore: alias %s: %w", name, err)
	}
	return a.Room, nil
}

// cleanUp takes away what a room that has ended leaves behind. Who fails here leaves things that do no harm: an alias that
// can be taken again, a number of rooms that is one too high, a snapshot that is older than the end.
func (e *Engine) cleanUp(ctx context.Context, r *rooms.Room, token string, end uint64) {
	err := e.purge(ctx, e.names.RoomsStream(), e.names.LogOf(token), end)
	if r.Alias() != "" {
		if e := e.release(ctx, r.Alias(), r.ID(), false); err == nil {
			err = e
		}
	}
	if e := e.index.remove(ctx, token); err == nil {
		err = e
	}
	if e := e.removeSnapshot(ctx, token); err == nil {
		err = e
	}
	if err != nil {
		e.log.Warn("what a room leaves behind could not be taken away", "room", r.ID(), "err", err)
	}
}

// look is an operation that only looks.
type look struct {
	res   rooms.Result
	alias string
	since uint64
	empty bool
}

// Apply implements rooms.Op.
func (l *look) Apply(r *rooms.Room) {
	l.alias = r.Alias()
	l.since, l.empty = r.EmptySince()
}

// Result implements rooms.Op.
func (l *look) Result() *rooms.Result { return &l.res }

// Subscribes implements rooms.Op.
func (l *look) Subscribes() (mq.TopicKind, bool) { return 0, false }

// Deliver implements rooms.Op.
func (l *look) Deliver(*rooms.Room, uint64) {}

// expire is the operation that ends a room in which nobody has been for the time to live.
type expire struct {
	look
	now, ttl uint64 // [ms]
}

// Apply implements rooms.Op.
func (x *expire) Apply(r *rooms.Room) {
	x.look.Apply(r)
	r.Expire(x.now, x.ttl, &x.res)
}
