package rooms

import (
	"slices"
	"strings"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// Room is the state of one room and the rules of what may happen to it. Its methods are pure: they change the room and
// write down in a Result what to answer and whom to tell. They take no lock, read no clock and send nothing, so that a
// Store can run them under a lock, or on a copy that is written back with compare-and-set and tried again.
//
// A Room owns its strings; what comes in with a request is cloned when it is kept.
type Room struct {
	info    wire.Room // RoomID is set; alias and id never change
	creator string    // session id

	members []*wire.Member          // in the order of joining
	index   map[string]*wire.Member // the same by session id

	history      []kept // ascending ids
	historyBytes int

	// stamp is the last value given out as lastUpdate or as an event's timestamp [ms since 1970]. Clients ignore what
	// carries a lastUpdate that is not above the one they know, so within a room it only grows, even when the clock
	// stands still or is set back, and also over a member's leaving and coming back.
	stamp uint64
	// lastID is the id of the last message [us since 1970], growing likewise.
	lastID uint64

	// emptied is when the room was created or its last member left [ms since 1970]. Of no meaning while it has members.
	emptied uint64
	// bars keep out joins that were on their way when their session was taken out of the room. In the order of adding.
	bars []bar

	ended bool

	tx *journal // nil outside of a transaction
}

// kept is a message of the history.
type kept struct {
	id  uint64
	msg []byte // chat.ChatMessage, encoded
}

// Result is what a method of Room leaves behind. Its buffers are reused by the next method that gets it.
type Result struct {
	Status string // also the first field of Answer

	Answer []byte // payload of the answer

	// Event tells the subscribers of the topic Kind of this room; EventType is empty when there is nothing to tell.
	EventKind mq.TopicKind
	EventType string
	Event     []byte // payload

	// Delta is what has changed besides what the event tells, for a Store that keeps a log (see Room.Replay).
	Delta []byte

	// Change in the numbers of members and of messages sent.
	Members, Messages int

	members []wire.Member // scratch
}

func (res *Result) reset() {
	res.Status, res.EventType = "", ""
	res.Answer, res.Event, res.Delta = res.Answer[:0], res.Event[:0], res.Delta[:0]
	res.Members, res.Messages = 0, 0
}

// refuse answers with a status and nothing else, which is how every answer type begins.
func (res *Result) refuse(status string) {
	res.Status = status
	res.Answer = (&wire.LeaveRoomResponse{Status: status}).AppendTo(res.Answer[:0])
}

// Changed reports whether the method has changed the room.
func (res *Result) Changed() bool { return res.EventType != "" || len(res.Delta) > 0 }

// newRoom returns a room described by info, which it owns from now on, created at the time now [ms since 1970].
// info.RoomID must be set.
func newRoom(info wire.Room, creator string, now uint64) *Room {
	return &Room{info: info, creator: creator, index: map[string]*wire.Member{}, emptied: now}
}

// ID returns the room's id.
func (r *Room) ID() string { return r.info.RoomID }

// Alias returns the room's alias, or "".
func (r *Room) Alias() string { return r.info.Alias }

// Empty reports whether the room has no members.
func (r *Room) Empty() bool { return len(r.members) == 0 }

// Ended reports whether the room has been destroyed.
func (r *Room) Ended() bool { return r.ended }

// next returns the next stamp at the time now [ms since 1970].
func (r *Room) next(now uint64) uint64 {
	r.stamp = max(now, r.stamp+1)
	return r.stamp
}

// mayManage reports whether a session may update and destroy the room: its members and its creator. Roles give no
// further rights here, as clients choose their roles themselves.
func (r *Room) mayManage(session string) bool {
	return session == r.creator || r.index[session] != nil
}

// Describe answers CreateRoom: with "ok" for the new room, with "already-exists" for one that was there.
func (r *Room) Describe(status string, res *Result) {
	res.reset()
	res.Status = status
	res.Answer = (&wire.CreateRoomResponse{Status: status, Room: &r.info}).AppendTo(res.Answer)
}

// Info answers GetRoomInfo.
func (r *Room) Info(res *Result) {
	res.reset()
	res.Status = wire.StatusOK
	answer := wire.GetRoomInfoResponse{Status: res.Status, Room: &r.info, Members: r.list(res)}
	res.Answer = answer.AppendTo(res.Answer)
}

// list returns the members in scratch memory of res.
func (r *Room) list(res *Result) []wire.Member {
	res.members = res.members[:0]
	for _, m := range r.members {
		res.members = append(res.members, *m)
	}
	return res.members
}

// Join answers JoinRoom of a session. A member that joins again gets "already-in-room"; with reenter it gets "ok", and
// the others are told only if something about it has changed. in.SessionID and in.LastUpdate are ignored: they are the
// session's and the room's to say. attempt counts the joins of the session (see Bar); 0 where nobody counts.
func (r *Room) Join(session string, attempt uint64, in *wire.Member, reenter bool, now uint64, limits *Limits, res *Result) {
	res.reset()
	self := r.index[session]
	res.Status = wire.StatusOK
	switch {
	case r.barred(session, attempt):
		res.refuse(wire.StatusUnauthorized)
		return
	case len(in.ScreenName) > limits.NameBytes || memberBytes(in, len(session), res) > limits.MemberBytes,
		self == nil && len(r.members) >= limits.MembersPerRoom:
		res.refuse(wire.StatusCapacity)
		return
	case self == nil:
		self = &wire.Member{SessionID: session}
		r.setIndex(session, self)
		r.ownMembers()
		r.members = append(r.members, self)
		res.Members = 1
		r.assign(self, in, now)
		r.tell(wire.MemberJoined, session, self, res)
	case !reenter:
		res.Status = wire.StatusAlreadyInRoom
	case !sameMember(self, in):
		self = r.writable(self)
		r.assign(self, in, now)
		r.tell(wire.MemberUpdated, session, self, res)
	}
	answer := wire.JoinRoomResponse{Status: res.Status, Room: &r.info, Members: r.list(res), Self: self}
	res.Answer = answer.AppendTo(res.Answer[:0])
}

// memberBytes returns an upper bound of the encoded length of in with a session id of n bytes.
func memberBytes(in *wire.Member, n int, res *Result) int {
	res.Answer = in.AppendTo(res.Answer[:0])
	return len(res.Answer) - len(in.SessionID) + n
}

// assign makes what in says about a member its state. Streams are kept in memory of their own, never shared with a
// Member that has been given out.
func (r *Room) assign(self, in *wire.Member, now uint64) {
	self.ScreenName = strings.Clone(in.ScreenName)
	self.Role, self.State = in.Role, in.State
	self.Streams = cloneStreams(in.Streams)
	self.LastUpdate = r.next(now)
}

func cloneStreams(in []wire.Stream) []wire.Stream {
	if len(in) == 0 {
		return nil
	}
	out := make([]wire.Stream, len(in))
	for i, s := range in {
		s.URI = strings.Clone(s.URI)
		out[i] = s
	}
	return out
}

func sameMember(a, b *wire.Member) bool {
	return a.ScreenName == b.ScreenName && a.Role == b.Role && a.State == b.State && slices.Equal(a.Streams, b.Streams)
}

// Leave answers LeaveRoom, and takes out members who have gone. The member's lastUpdate grows once more: clients remove
// a member only when what they are told is not older than what they know.
func (r *Room) Leave(session string, now uint64, res *Result) {
	res.reset()
	self := r.index[session]
	if self == nil {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	self = r.writable(self)
	r.removeMember(self)
	self.LastUpdate = r.next(now)
	if len(r.members) == 0 {
		r.emptied = self.LastUpdate
	}
	res.Members = -1
	r.tell(wire.MemberLeft, session, self, res)
	res.Status = wire.StatusOK
	res.Answer = (&wire.LeaveRoomResponse{Status: res.Status}).AppendTo(res.Answer)
}

// UpdateMember answers UpdateMember. A member may change itself, a Moderator anyone. Fields that the request does not
// have stay as they are; the last writer wins, field by field. in.LastUpdate, the state that the client knew, is not
// compared: clients send only what they changed, so refusing would lose one change to keep another, unrelated one.
func (r *Room) UpdateMember(session string, in *wire.MemberUpdate, now uint64, limits *Limits, res *Result) {
	res.reset()
	actor := r.index[session]
	if actor == nil {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	target := actor
	if in.SessionID != "" && in.SessionID != session {
		if actor.Role != wire.RoleModerator {
			res.refuse(wire.StatusUnauthorized)
			return
		}
		if target = r.index[in.SessionID]; target == nil {
			res.refuse(wire.StatusNotFound)
			return
		}
	}
	changed := *target
	if in.HasScreenName {
		changed.ScreenName = in.ScreenName
	}
	if in.HasRole {
		changed.Role = in.Role
	}
	if in.HasState {
		changed.State = in.State
	}
	if in.UpdateStreams || len(in.Streams) > 0 { // old clients do not set the flag
		changed.Streams = in.Streams
	}
	if len(changed.ScreenName) > limits.NameBytes || memberBytes(&changed, len(changed.SessionID), res) > limits.MemberBytes {
		res.refuse(wire.StatusCapacity)
		return
	}
	target = r.writable(target)
	r.assign(target, &changed, now)
	r.tell(wire.MemberUpdated, session, target, res)
	res.Status = wire.StatusOK
	answer := wire.UpdateMemberResponse{Status: res.Status, LastUpdate: target.LastUpdate, HasLastUpdate: true}
	res.Answer = answer.AppendTo(res.Answer[:0])
}

// Update answers UpdateRoom. Name, description, bridge id and pin that are empty stay as they are (which is also how
// clients read the event); type and options are replaced. An alias cannot be changed or added: an alias names one room
// as long as that room exists.
func (r *Room) Update(session string, in *wire.Room, now uint64, limits *Limits, res *Result) {
	res.reset()
	if !r.mayManage(session) {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	if in.Alias != "" && in.Alias != r.info.Alias {
		res.refuse(wire.StatusFailed)
		return
	}
	changed := *in
	changed.RoomID, changed.Alias = r.info.RoomID, r.info.Alias
	keep := func(dst *string, old string) {
		if *dst == "" {
			*dst = old
		}
	}
	keep(&changed.Name, r.info.Name)
	keep(&changed.Description, r.info.Description)
	keep(&changed.BridgeID, r.info.BridgeID)
	keep(&changed.Pin, r.info.Pin)
	if !roomFits(&changed, limits, res) {
		res.refuse(wire.StatusCapacity)
		return
	}
	r.info = cloneRoom(&changed)
	event := wire.RoomEvent{SessionID: session, RoomID: r.info.RoomID, EventType: wire.RoomUpdated, Room: &r.info, Timestamp: r.next(now)}
	res.emit(mq.TopicRoom, wire.TypeRoomEvent, event.AppendTo(res.Event))
	res.Status = wire.StatusOK
	res.Answer = (&wire.UpdateRoomResponse{Status: res.Status}).AppendTo(res.Answer[:0])
}

// roomFits reports whether a room is within the limits.
func roomFits(in *wire.Room, limits *Limits, res *Result) bool {
	if len(in.RoomID) > limits.NameBytes || len(in.Alias) > limits.NameBytes || len(in.Name) > limits.NameBytes {
		return false
	}
	res.Answer = in.AppendTo(res.Answer[:0])
	return len(res.Answer) <= limits.RoomBytes
}

// cloneRoom returns a copy that shares no memory with in.
func cloneRoom(in *wire.Room) wire.Room {
	out := wire.Room{
		RoomID: strings.Clone(in.RoomID), Alias: strings.Clone(in.Alias), Name: strings.Clone(in.Name),
		Description: strings.Clone(in.Description), Type: in.Type, BridgeID: strings.Clone(in.BridgeID), Pin: strings.Clone(in.Pin),
	}
	for _, o := range in.Options {
		out.Options = append(out.Options, strings.Clone(o))
	}
	return out
}

// Destroy answers DestroyRoom. The room is ended then; its members are told by the event and by nothing else.
func (r *Room) Destroy(session string, now uint64, res *Result) {
	res.reset()
	if !r.mayManage(session) {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	res.Members = -len(r.members)
	event := wire.RoomEvent{SessionID: session, RoomID: r.info.RoomID, EventType: wire.RoomEnded, Timestamp: r.next(now)}
	res.emit(mq.TopicRoom, wire.TypeRoomEvent, event.AppendTo(res.Event))
	r.end()
	res.Status = wire.StatusOK
	res.Answer = (&wire.DestroyRoomResponse{Status: res.Status}).AppendTo(res.Answer)
}

// end lets go of everything but the description: sessions may refer to the room for a while yet.
func (r *Room) end() {
	r.ended = true
	r.members, r.index, r.history, r.historyBytes = nil, nil, nil, 0
}

// tell makes the event about one member.
func (r *Room) tell(what wire.RoomEventType, actor string, about *wire.Member, res *Result) {
	res.members = append(res.members[:0], *about)
	event := wire.RoomEvent{SessionID: actor, RoomID: r.info.RoomID, EventType: what, Members: res.members, Timestamp: about.LastUpdate}
	res.emit(mq.TopicRoom, wire.TypeRoomEvent, event.AppendTo(res.Event))
}

func (res *Result) emit(kind mq.TopicKind, typ string, payload []byte) {
	res.EventKind, res.EventType, res.Event = kind, typ, payload
}
