package rooms

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// request is a kind of work: the requests of clients, and what the worker does to rooms by itself.
type request uint8

const (
	unknownRequest request = iota
	authenticate
	bye
	createRoom
	joinRoom
	leaveRoom
	updateRoom
	updateMember
	getRoomInfo
	sendMessage
	fetchConversation
	destroyRoom
	goneMember // a member whose connection has gone leaves; no request
	describe   // CreateRoom has found the room there already
	hasMember  // whether the session is a member; changes and tells nothing
)

// kindOf tells the request from its type.
func kindOf(typ string) request {
	switch typ {
	case wire.TypeAuthenticate:
		return authenticate
	case wire.TypeBye:
		return bye
	case wire.TypeCreateRoom:
		return createRoom
	case wire.TypeJoinRoom:
		return joinRoom
	case wire.TypeLeaveRoom:
		return leaveRoom
	case wire.TypeUpdateRoom:
		return updateRoom
	case wire.TypeUpdateMember:
		return updateMember
	case wire.TypeGetRoomInfo:
		return getRoomInfo
	case wire.TypeSendMessageToRoom:
		return sendMessage
	case wire.TypeFetchRoomConversation:
		return fetchConversation
	case wire.TypeDestroyRoom:
		return destroyRoom
	}
	return unknownRequest
}

// answerTypes are the types of the answers.
var answerTypes = [...]string{
	authenticate:      wire.TypeAuthenticateResponse,
	bye:               wire.TypeByeResponse,
	createRoom:        wire.TypeCreateRoomResponse,
	joinRoom:          wire.TypeJoinRoomResponse,
	leaveRoom:         wire.TypeLeaveRoomResponse,
	updateRoom:        wire.TypeUpdateRoomResponse,
	updateMember:      wire.TypeUpdateMemberResponse,
	getRoomInfo:       wire.TypeGetRoomInfoResponse,
	sendMessage:       wire.TypeSendMessageToRoomResponse,
	fetchConversation: wire.TypeFetchRoomConversationResponse,
	destroyRoom:       wire.TypeDestroyRoomResponse,
	describe:          wire.TypeCreateRoomResponse,
}

// call is one request being handled. It is the Op that the Store runs, and holds everything a request needs memory for,
// so that a pooled one costs nothing.
type call struct {
	w    *Worker
	kind request
	req  *mq.Request // nil for goneMember
	s    *session    // nil for authenticate
	now  time.Time

	// The decoded request: views of req.Payload, valid until process returns. Only the one of kind is set.
	auth    wire.Authenticate
	bye     wire.Bye
	create  wire.CreateRoom
	join    wire.JoinRoom
	leave   wire.LeaveRoom
	update  wire.UpdateRoom
	member  wire.UpdateMember
	info    wire.GetRoomInfo
	send    wire.SendMessageToRoom
	fetch   wire.FetchRoomConversation
	destroy wire.DestroyRoom

	roomID string // as the request names it
	found  bool   // result of hasMember
	res    Result
}

func (c *call) begin(q request, r *mq.Request) {
	c.kind, c.req, c.now = q, r, time.Now()
}

// Beyond these a call's memory is not kept for the next request: one that was large is rare.
const (
	maxScratchBytes   = 64 << 10
	maxScratchMembers = 1 << 10
	maxScratchList    = 64
)

// release gives the call back. Views of the payload in the decoded requests are never looked at again: Unmarshal
// replaces them.
func (c *call) release() {
	c.req, c.s, c.roomID = nil, nil, ""
	if cap(c.res.Answer) > maxScratchBytes || cap(c.res.Event) > maxScratchBytes || cap(c.res.members) > maxScratchMembers ||
		cap(c.join.Member.Streams) > maxScratchList || cap(c.member.Member.Streams) > maxScratchList ||
		max(cap(c.join.Options), cap(c.create.Room.Options), cap(c.update.Room.Options), cap(c.member.Options),
			cap(c.info.Options), cap(c.fetch.Options)) > maxScratchList {
		return
	}
	c.w.calls.Put(c)
}

// process handles a request of a client.
func (c *call) process() {
	if len(c.req.Payload) > c.w.cfg.Limits.RequestBytes {
		c.refuse(wire.StatusCapacity)
		return
	}
	s := c.w.sessions.byConn(c.req.Conn)
	if c.kind == authenticate {
		c.authenticate(s)
		return
	}
	if s == nil {
		c.refuse(wire.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.connected || s.conn != c.req.Conn {
		c.refuse(wire.StatusUnauthorized) // taken over while this waited for the lock
		return
	}
	c.s = s
	named, err := c.decode()
	switch {
	case err != nil:
		c.w.count.add(c.req.Conn, cntMalformed, 1)
		c.refuse(wire.StatusFailed)
	case named != "" && named != s.id, c.req.SessionID != "" && c.req.SessionID != s.id:
		c.refuse(wire.StatusUnauthorized)
	default:
		c.handle()
	}
}

// decode decodes the payload and returns the session that the request names as its own, or "".
func (c *call) decode() (session string, err error) {
	p := c.req.Payload
	switch c.kind {
	case bye:
		err = c.bye.Unmarshal(p)
		return c.bye.SessionID, err
	case createRoom:
		err = c.create.Unmarshal(p)
		return c.create.SessionID, err
	case joinRoom:
		err = c.join.Unmarshal(p)
		c.roomID = c.join.RoomID
		return c.join.SessionID, err
	case leaveRoom:
		err = c.leave.Unmarshal(p)
		c.roomID = c.leave.RoomID
		return c.leave.SessionID, err
	case updateRoom:
		err = c.update.Unmarshal(p)
		c.roomID = c.update.Room.RoomID
		return c.update.SessionID, err
	case updateMember:
		err = c.member.Unmarshal(p)
		c.roomID = c.member.RoomID
		return c.member.SessionID, err
	case getRoomInfo:
		err = c.info.Unmarshal(p)
		c.roomID = c.info.RoomID
		return c.info.SessionID, err
	case sendMessage:
		err = c.send.Unmarshal(p)
		c.roomID = c.send.RoomID
		return c.send.ChatMessage.From.SessionID, err
	case fetchConversation:
		err = c.fetch.Unmarshal(p)
		c.roomID = c.fetch.RoomID
		return c.fetch.SessionID, err
	case destroyRoom:
		err = c.destroy.Unmarshal(p)
		c.roomID = c.destroy.RoomID
		return "", err
	case unknownRequest, authenticate, goneMember, describe, hasMember:
	}
	panic("rooms: no such request")
}

// handle handles a request whose session is sure. c.s.mu is held.
func (c *call) handle() {
	switch c.kind {
	case bye:
		c.w.sessions.dropConn(c.req.Conn)
		c.w.clients.UnsubscribeAll(c.req.Conn) // first: it need not hear of its own leaving
		c.w.end(c.s)
		c.refuse(wire.StatusOK)
	case createRoom:
		c.handleCreate()
	case joinRoom:
		c.handleJoin()
	case leaveRoom:
		if !c.do() {
			c.s.forget(c.roomID) // the room ended without this session's doing
		}
	case updateRoom:
		if c.roomID == "" {
			c.find(c.update.Room.Alias)
		}
		c.do()
	case getRoomInfo:
		if c.roomID == "" {
			c.find(c.info.Alias)
		}
		c.do()
	case updateMember:
		// The room was added to this request later: without it, it can only be the one that the member is in.
		switch {
		case c.roomID != "":
			c.do()
		case len(c.s.rooms) == 1:
			c.roomID = c.s.rooms[0].room
			c.do()
		case len(c.s.rooms) == 0:
			c.refuse(wire.StatusNotInRoom)
		default:
			c.refuse(wire.StatusFailed)
		}
	case sendMessage, fetchConversation, destroyRoom:
		c.do()
	case unknownRequest, authenticate, goneMember, describe, hasMember:
		panic("rooms: no such request")
	}
}

// find sets the room from an alias; when there is none, to "", which is no room's id.
func (c *call) find(alias string) {
	if alias != "" {
		c.roomID, _ = c.w.store.Find(alias)
	}
}

// do runs the request on its room, or answers "not-found". It reports whether there was a room.
func (c *call) do() bool {
	if c.roomID != "" && c.w.store.Do(c.roomID, c) {
		return true
	}
	c.refuse(wire.StatusNotFound)
	return false
}

// authenticate gives the connection a session: the one it names, when that is there and of the same subject, else a new
// one. old is the session that the connection has, or nil; it ends when it is not the one named.
func (c *call) authenticate(old *session) {
	if err := c.auth.Unmarshal(c.req.Payload); err != nil {
		c.w.count.add(c.req.Conn, cntMalformed, 1)
		c.refuse(wire.StatusFailed)
		return
	}
	subject, err := c.w.cfg.Authenticator.Authenticate(c.auth.AuthenticationToken)
	if err != nil {
		c.refuse(wire.StatusUnauthorized)
		return
	}
	id := c.auth.SessionID
	if old != nil && (old.id != id || old.subject != subject) {
		c.w.drop(old, c.req.Conn)
	}
	var s *session
	if id != "" {
		s = c.w.takeOver(id, subject, c.req.Conn)
	}
	if s == nil {
		s = c.w.sessions.create(c.req.Conn, subject, c.w.cfg.Limits.Sessions)
	}
	if s == nil {
		c.refuse(wire.StatusCapacity)
		return
	}
	answer := wire.AuthenticateResponse{Status: wire.StatusOK, SessionID: s.id}
	c.res.Answer = answer.AppendTo(c.res.Answer[:0])
	c.req.Reply(wire.TypeAuthenticateResponse, c.res.Answer)
}

// handleCreate creates a room. The session does not join it by that.
func (c *call) handleCreate() {
	in := &c.create.Room
	if in.RoomID == "" {
		in.RoomID = rand.Text()
	}
	if !roomFits(in, &c.w.cfg.Limits, &c.res) {
		c.refuse(wire.StatusCapacity)
		return
	}
	room := newRoom(cloneRoom(in), c.s.id)
	// Once the room is there, others may change it: the answer is made before.
	room.Describe(wire.StatusOK, &c.res)
	for {
		result, id := c.w.store.Create(room)
		switch result {
		case Created:
			c.req.Reply(wire.TypeCreateRoomResponse, c.res.Answer)
			return
		case Full:
			c.refuse(wire.StatusCapacity)
			return
		case Exists:
			c.kind = describe
			if c.w.store.Do(id, c) {
				return
			}
			// It has just gone: so the name is free, or taken by yet another.
			room.Describe(wire.StatusOK, &c.res)
		}
	}
}

// handleJoin joins a room. The session's list of rooms is changed when the room has taken the member.
func (c *call) handleJoin() {
	if c.roomID == "" {
		c.find(c.join.Alias)
	}
	if limit := c.w.cfg.Limits.RoomsPerSession; c.s.find(c.roomID) < 0 && len(c.s.rooms) >= limit {
		c.forgetEnded()
		if len(c.s.rooms) >= limit {
			c.refuse(wire.StatusCapacity)
			return
		}
	}
	c.do()
}

// forgetEnded takes the rooms that have ended out of the session's list.
func (c *call) forgetEnded() {
	kind, room := c.kind, c.roomID
	c.kind = hasMember
	c.s.rooms = slices.DeleteFunc(c.s.rooms, func(m membership) bool {
		c.found = false
		c.w.store.Do(m.room, c)
		return !c.found
	})
	c.kind, c.roomID = kind, room
}

// Apply implements Op.
func (c *call) Apply(r *Room) {
	l := &c.w.cfg.Limits
	switch c.kind {
	case joinRoom:
		reenter := slices.Contains(c.join.Options, wire.OptionReenter)
		r.Join(c.s.id, &c.join.Member, reenter, c.millis(), l, &c.res)
	case leaveRoom, goneMember:
		r.Leave(c.s.id, c.millis(), &c.res)
	case updateRoom:
		r.Update(c.s.id, &c.update.Room, c.millis(), l, &c.res)
	case updateMember:
		r.UpdateMember(c.s.id, &c.member.Member, c.millis(), l, &c.res)
	case getRoomInfo:
		r.Info(&c.res)
	case sendMessage:
		r.Send(c.s.id, c.send.ChatMessage.Message, uint64(c.now.UnixMicro()), l, &c.res)
	case fetchConversation:
		r.Fetch(c.s.id, &c.fetch, &c.res)
	case destroyRoom:
		r.Destroy(c.s.id, c.millis(), &c.res)
	case describe:
		r.Describe(wire.StatusAlreadyExists, &c.res)
	case hasMember:
		c.res.reset()
		c.found = r.index[c.s.id] != nil
	case unknownRequest, authenticate, bye, createRoom:
		panic("rooms: not an operation on a room")
	}
}

func (c *call) millis() uint64 { return uint64(c.now.UnixMilli()) }

// Deliver implements Op. The answer goes first. The gateway subscribes a joiner when it sees the answer, so a joiner
// gets its own MemberJoined after it (which clients expect), and a leaver does not get its own MemberLeft; everything
// that happens to the room later reaches the joiner, and nothing that is in its answer already is missing in it.
func (c *call) Deliver(r *Room) {
	if c.kind == hasMember {
		return
	}
	res, w := &c.res, c.w
	if c.req != nil {
		c.req.Reply(answerTypes[c.kind], res.Answer)
	}
	if res.EventType != "" {
		w.clients.Publish(mq.Topic{Kind: res.EventKind, Room: r.ID()}, res.EventType, res.Event)
	}
	if r.Ended() {
		w.clients.EndTopic(mq.Topic{Kind: mq.TopicRoom, Room: r.ID()})
		w.clients.EndTopic(mq.Topic{Kind: mq.TopicConversation, Room: r.ID()})
	}
	c.tally()
	switch {
	case c.kind == joinRoom && (res.Status == wire.StatusOK || res.Status == wire.StatusAlreadyInRoom):
		c.joined(r.ID())
	case c.kind == leaveRoom, c.kind == destroyRoom && r.Ended():
		c.s.forget(r.ID())
		c.settle()
	}
}

// joined notes that the session is in a room by its present connection.
func (c *call) joined(room string) {
	if i := c.s.find(room); i >= 0 {
		c.s.rooms[i].detached = false
	} else {
		c.s.rooms = append(c.s.rooms, membership{room: room})
	}
	c.settle()
}

// settle stops the grace when it has nothing left to end.
func (c *call) settle() {
	if c.s.grace != nil && c.s.attached() {
		c.s.stopGrace()
	}
}

// tally counts what the operation has done.
func (c *call) tally() {
	id := c.s.conn
	if c.res.Members != 0 {
		c.w.count.add(id, cntMembers, int64(c.res.Members))
	}
	if c.res.Messages != 0 {
		c.w.count.add(id, cntMessages, int64(c.res.Messages))
	}
	c.countRefusal(c.res.Status)
}

func (c *call) countRefusal(status string) {
	if c.req == nil {
		return
	}
	switch status {
	case wire.StatusUnauthorized:
		c.w.count.add(c.req.Conn, cntUnauthorized, 1)
	case wire.StatusCapacity:
		c.w.count.add(c.req.Conn, cntCapacity, 1)
	}
}

// refuse answers with a status and nothing else.
func (c *call) refuse(status string) {
	c.countRefusal(status)
	c.res.refuse(status)
	c.req.Reply(answerTypes[c.kind], c.res.Answer)
}
