package rooms

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// A Store that keeps a log of a room writes, for each change, the event that tells of it and Result.Delta. Replay makes
// the same changes from them. The events say almost everything already (a member that joined, a message that was sent),
// so that little is written twice; the delta has what nobody is told.
//
//	delta   1* created   {1 creator, 2 chat.Room, 3 time [ms]}
//	        2* bar       {1 session, 2 attempt, 3 time [ms]}
//	        3? ended     bool: without an event, because nobody was there for long enough
const (
	deltaCreated protowire.Number = 1
	deltaBar     protowire.Number = 2
	deltaEnded   protowire.Number = 3
)

// Event is one event of a log record, for Replay. Its fields are borrowed.
type Event struct {
	Kind    mq.TopicKind
	Type    string
	Payload []byte
}

// AppendCreation appends the delta that makes a room of nothing.
func (r *Room) AppendCreation(dst []byte) []byte {
	var in []byte
	in = appendString(in, 1, r.creator)
	in = protowire.AppendTag(in, 2, protowire.BytesType)
	in = protowire.AppendBytes(in, r.info.AppendTo(nil))
	in = appendUint(in, 3, r.emptied)
	return appendBytes(dst, deltaCreated, in)
}

// Expire ends a room in which nobody has been since ttl before now [both ms], and reports whether it did.
func (r *Room) Expire(now, ttl uint64, res *Result) bool {
	res.reset()
	if r.ended || len(r.members) > 0 || now < r.emptied+ttl {
		return false
	}
	r.end()
	res.Delta = appendUint(res.Delta, deltaEnded, 1)
	return true
}

// EmptySince returns when the room became empty [ms since 1970]; false while somebody is in it.
func (r *Room) EmptySince() (uint64, bool) { return r.emptied, len(r.members) == 0 }

// Members returns the number of members.
func (r *Room) Members() int { return len(r.members) }

func appendBar(dst []byte, b *bar) []byte {
	var in []byte
	in = appendString(in, 1, b.session)
	in = appendUint(in, 2, b.attempt)
	in = appendUint(in, 3, b.at)
	return appendBytes(dst, deltaBar, in)
}

// Replay changes a room as a log record says. Room nil is one that does not exist; the result is the room as it is then,
// nil or one that has ended when it does not exist. The record is borrowed. After an error the room is of no use.
func Replay(room *Room, events []Event, delta []byte, limits *Limits) (*Room, error) {
	var bars []bar
	ended := false
	f := wire.NewFields("delta", delta)
	for f.Next() {
		switch f.Num() {
		case deltaCreated:
			b := f.Bytes()
			if room != nil && !room.ended {
				f.Fail(errors.New("a room is created that is there"))
			}
			if f.Err() == nil {
				var err error
				room, err = decodeCreation(b)
				f.Fail(err)
			}
		case deltaBar:
			if b := f.Bytes(); f.Err() == nil {
				bar, err := decodeBar(b)
				bars = append(bars, bar)
				f.Fail(err)
			}
		case deltaEnded:
			ended = f.Flag()
		default: // of a newer worker
			f.Skip()
		}
	}
	if err := f.Err(); err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	if room == nil || room.ended {
		if len(events) > 0 || len(bars) > 0 || ended {
			return nil, errors.New("rooms: a change of a room that is not there")
		}
		return room, nil
	}
	for i := range events {
		if err := room.replay(&events[i], limits); err != nil {
			return nil, fmt.Errorf("rooms: event %d, %s: %w", i, events[i].Type, err)
		}
	}
	for _, b := range bars {
		room.addBar(b)
	}
	if ended {
		room.end()
	}
	return room, nil
}

// Creates reports whether a delta makes a room of nothing.
func Creates(delta []byte) bool {
	creates := false
	f := wire.NewFields("delta", delta)
	for f.Next() {
		creates = creates || f.Num() == deltaCreated
		f.Skip()
	}
	return f.Err() == nil && creates
}

func (r *Room) replay(in *Event, limits *Limits) error {
	switch in.Type {
	case wire.TypeRoomEvent:
		var e wire.RoomEvent
		if err := e.Unmarshal(in.Payload); err != nil {
			return err
		}
		return r.replayRoomEvent(&e)
	case wire.TypeRoomConversationEvent:
		var e wire.RoomConversationEvent
		if err := e.Unmarshal(in.Payload); err != nil {
			return err
		}
		if len(e.ChatMessages) != 1 {
			return fmt.Errorf("%d messages, want 1", len(e.ChatMessages))
		}
		id, ok := parseMessageID(e.ChatMessages[0].MessageID)
		if !ok {
			return fmt.Errorf("message id %q", e.ChatMessages[0].MessageID)
		}
		r.lastID = id
		r.keep(kept{id, e.ChatMessages[0].AppendTo(nil)}, limits)
		return nil
	}
	return errors.New("not an event of a room")
}

func (r *Room) replayRoomEvent(e *wire.RoomEvent) error {
	if e.Timestamp <= r.stamp {
		return fmt.Errorf("timestamp %d after %d", e.Timestamp, r.stamp)
	}
	r.stamp = e.Timestamp
	switch e.EventType {
	case wire.RoomUpdated:
		if e.Room == nil {
			return errors.New("an update of the room without the room")
		}
		r.info = cloneRoom(e.Room)
		return nil
	case wire.RoomEnded:
		r.end()
		return nil
	case wire.MemberJoined, wire.MemberLeft, wire.MemberUpdated:
	}
	if len(e.Members) != 1 {
		return fmt.Errorf("%d members, want 1", len(e.Members))
	}
	m := cloneMember(&e.Members[0])
	old := r.index[m.SessionID]
	if (old == nil) != (e.EventType == wire.MemberJoined) {
		return fmt.Errorf("event %d about a member that is there: %v", e.EventType, old != nil)
	}
	switch e.EventType {
	case wire.MemberJoined:
		r.index[m.SessionID] = m
		r.members = append(r.members, m)
	case wire.MemberUpdated:
		*old = *m
	case wire.MemberLeft:
		r.removeMember(old)
		if len(r.members) == 0 {
			r.emptied = r.stamp
		}
	case wire.RoomUpdated, wire.RoomEnded:
	}
	return nil
}

func cloneMember(in *wire.Member) *wire.Member {
	out := *in
	out.SessionID, out.ScreenName = strings.Clone(in.SessionID), strings.Clone(in.ScreenName)
	out.Streams = cloneStreams(in.Streams)
	return &out
}

// A snapshot is a whole room.
//
//	1 chat.Room   2 creator   3* chat.Member in the order of joining   4* chat.ChatMessage, ascending
//	5 stamp   6 last message id   7 emptied   8* bar
const (
	snapRoom    protowire.Number = 1
	snapCreator protowire.Number = 2
	snapMember  protowire.Number = 3
	snapMessage protowire.Number = 4
	snapStamp   protowire.Number = 5
	snapLastID  protowire.Number = 6
	snapEmptied protowire.Number = 7
	snapBar     protowire.Number = 8
)

// AppendSnapshot appends a snapshot of the room, which must not have ended.
func (r *Room) AppendSnapshot(dst []byte) []byte {
	dst = appendBytes(dst, snapRoom, r.info.AppendTo(nil))
	dst = appendString(dst, snapCreator, r.creator)
	var scratch []byte
	for _, m := range r.members {
		scratch = m.AppendTo(scratch[:0])
		dst = appendBytes(dst, snapMember, scratch)
	}
	for _, k := range r.history {
		dst = appendBytes(dst, snapMessage, k.msg)
	}
	dst = appendUint(dst, snapStamp, r.stamp)
	dst = appendUint(dst, snapLastID, r.lastID)
	dst = appendUint(dst, snapEmptied, r.emptied)
	for i := range r.bars {
		b := &r.bars[i]
		scratch = appendString(scratch[:0], 1, b.session)
		scratch = appendUint(scratch, 2, b.attempt)
		scratch = appendUint(scratch, 3, b.at)
		dst = appendBytes(dst, snapBar, scratch)
	}
	return dst
}

// DecodeSnapshot makes a room of a snapshot, which is borrowed. Limits are those of the worker that takes it over: a
// history that is longer is cut.
func DecodeSnapshot(b []byte, limits *Limits) (*Room, error) {
	r := newRoom(wire.Room{}, "", 0)
	var last uint64 // message id
	f := wire.NewFields("snapshot", b)
	for f.Next() {
		switch f.Num() {
		case snapRoom:
			if b := f.Bytes(); f.Err() == nil {
				var info wire.Room
				f.Fail(info.Unmarshal(b))
				r.info = cloneRoom(&info)
			}
		case snapCreator:
			r.creator = string(f.Bytes())
		case snapMember:
			if b := f.Bytes(); f.Err() == nil {
				f.Fail(r.restoreMember(b))
			}
		case snapMessage:
			if b := f.Bytes(); f.Err() == nil {
				id, err := messageID(b)
				if err == nil && id <= last {
					err = fmt.Errorf("message id %d after %d", id, last)
				}
				if f.Fail(err); err == nil {
					last = id
					r.keep(kept{id, slices.Clone(b)}, limits)
				}
			}
		case snapStamp:
			r.stamp = f.Uint64()
		case snapLastID:
			r.lastID = f.Uint64()
		case snapEmptied:
			r.emptied = f.Uint64()
		case snapBar:
			if b := f.Bytes(); f.Err() == nil {
				bar, err := decodeBar(b)
				r.bars = append(r.bars, bar)
				f.Fail(err)
			}
		default: // of a newer worker
			f.Skip()
		}
	}
	err := f.Err()
	if err == nil && r.info.RoomID == "" {
		err = errors.New("snapshot: no room id")
	}
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	return r, nil
}

// restoreMember adds a member of a snapshot.
func (r *Room) restoreMember(b []byte) error {
	var m wire.Member
	if err := m.Unmarshal(b); err != nil {
		return err
	}
	if r.index[m.SessionID] != nil {
		return errors.New("a member twice")
	}
	own := cloneMember(&m)
	r.members = append(r.members, own)
	r.index[own.SessionID] = own
	return nil
}

// messageID returns the id of an encoded chat.ChatMessage.
func messageID(b []byte) (uint64, error) {
	var m wire.ChatMessage
	if err := m.Unmarshal(b); err != nil {
		return 0, err
	}
	id, ok := parseMessageID(m.MessageID)
	if !ok {
		return 0, fmt.Errorf("message id %q", m.MessageID)
	}
	return id, nil
}

func decodeCreation(b []byte) (*Room, error) {
	var creator string
	var info wire.Room
	var at uint64
	f := wire.NewFields("creation", b)
	for f.Next() {
		switch f.Num() {
		case 1:
			creator = string(f.Bytes())
		case 2:
			if b := f.Bytes(); f.Err() == nil {
				f.Fail(info.Unmarshal(b))
			}
		case 3:
			at = f.Uint64()
		default: // of a newer worker
			f.Skip()
		}
	}
	if f.Err() != nil {
		return nil, f.Err()
	}
	if info.RoomID == "" {
		return nil, errors.New("a room without an id is created")
	}
	return newRoom(cloneRoom(&info), creator, at), nil
}

func decodeBar(b []byte) (out bar, err error) {
	f := wire.NewFields("bar", b)
	for f.Next() {
		switch f.Num() {
		case 1:
			out.session = string(f.Bytes())
		case 2:
			out.attempt = f.Uint64()
		case 3:
			out.at = f.Uint64()
		default: // of a newer worker
			f.Skip()
		}
	}
	return out, f.Err()
}

func appendBytes(dst []byte, num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), b)
}

func appendString(dst []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}
