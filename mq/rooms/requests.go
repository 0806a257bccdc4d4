package rooms

import (
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/mqgate/mqgate/conn"
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
	hasMember  // whether the session is a member; tells nothing
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
	s    Session     // nil for authenticate and goneMember
	now  time.Time
	conn conn.ID // by whose loop it is counted

	session string // the id of s, or of the member that has gone
	attempt uint64 // of a join; up to which joins are barred by goneMember, leaveRoom and hasMember, 0: none
	later   later  // how to answer with an engine

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
	c.kind, c.req, c.now = q, r, c.w.cfg.Now()
	if r != nil {
		c.conn = r.Conn
	}
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
	c.req, c.s, c.session, c.roomID, c.attempt, c.conn = nil, nil, "", "", 0, conn.ID{}
	if c.w.engine != nil {
		c.later.reset()
	}
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
	if c.kind == authenticate {
		c.authenticate()
		return
	}
	s := c.w.begin(c.req)
	if s == nil {
		c.refuse(wire.StatusUnauthorized)
		return
	}
	defer s.Close()
	c.s, c.session = s, s.ID()
	named, err := c.decode()
	switch {
	case err != nil:
		c.w.count.add(c.req.Conn, cntMalformed, 1)
		c.refuse(wire.StatusFailed)
	case named != "" && named != c.session, c.req.SessionID != "" && c.req.SessionID != c.session:
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

// handle handles a request whose session is sure.
func (c *call) handle() {
	switch c.kind {
	case bye:
		if err := c.s.End(); err != nil {
			c.fail(err)
			return
		}
		c.later.note.Bind = true // to no session
		c.refuse(wire.StatusOK)
	case createRoom:
		c.handleCreate()
	case joinRoom:
		c.handleJoin()
	case leaveRoom:
		c.handleLeave()
	case updateRoom:
		if c.roomID == "" && !c.find(c.update.Room.Alias) {
			return
		}
		c.do()
	case getRoomInfo:
		if c.roomID == "" && !c.find(c.info.Alias) {
			return
		}
		c.do()
	case updateMember:
		c.handleUpdateMember()
	case sendMessage, fetchConversation:
		c.do()
	case destroyRoom:
		if c.do() && c.res.Status == wire.StatusOK {
			c.leftRoom()
		}
	case unknownRequest, authenticate, goneMember, describe, hasMember:
		panic("rooms: no such request")
	}
}

// find sets the room from an alias; when there is none, to "", which is no room's id. False: it could not be found out,
// and the request has failed.
func (c *call) find(alias string) bool {
	if alias == "" {
		return true
	}
	id, err := c.w.store.Find(alias)
	if err != nil {
		c.fail(err)
		return false
	}
	c.roomID = id
	return true
}

// do runs the request on its room, or answers "not-found". It reports whether there was a room.
func (c *call) do() bool {
	if c.roomID != "" {
		found, err := c.w.store.Do(c.roomID, c)
		switch {
		case err != nil:
			c.fail(err)
			return false
		case found:
			return true
		}
	}
	c.refuse(wire.StatusNotFound)
	return false
}

// authenticate gives the connection a session: the one it names, when that is there and of the same subject, else a new
// one. The session that the connection has ends when it is not the one named.
func (c *call) authenticate() {
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
	id, bind, err := c.w.authenticate(c.req, c.auth.SessionID, subject)
	switch {
	case errors.Is(err, ErrFull):
		c.later.note.Bind = true // the one it had has ended
		c.refuse(wire.StatusCapacity)
		return
	case err != nil:
		c.fail(err)
		return
	}
	c.later.note.Bind, c.later.note.Session = true, bind
	answer := wire.AuthenticateResponse{Status: wire.StatusOK, SessionID: id}
	c.res.Answer = answer.AppendTo(c.res.Answer[:0])
	c.answer()
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
	room := newRoom(cloneRoom(in), c.session, c.millis())
	// Once the room is there, others may change it: the answer is made before.
	room.Describe(wire.StatusOK, &c.res)
	for {
		result, id, err := c.w.store.Create(room)
		if err != nil {
			c.fail(err)
			return
		}
		switch result {
		case Created:
			c.answer()
			return
		case Full:
			c.refuse(wire.StatusCapacity)
			return
		case Exists:
			c.kind = describe
			found, err := c.w.store.Do(id, c)
			if err != nil {
				c.fail(err)
			}
			if found || err != nil {
				return
			}
			c.kind = createRoom
			// It has just gone: so the name is free, or taken by yet another.
			room.Describe(wire.StatusOK, &c.res)
		}
	}
}

// handleJoin joins a room. The room's answer waits for the session's list of rooms.
func (c *call) handleJoin() {
	if c.roomID == "" && !c.find(c.join.Alias) {
		return
	}
	limit := c.w.cfg.Limits.RoomsPerSession
	attempt, ok, err := c.s.Joining(c.roomID, limit)
	if err == nil && !ok {
		if err = c.forgetEnded(); err == nil {
			attempt, ok, err = c.s.Joining(c.roomID, limit)
		}
	}
	switch {
	case err != nil:
		c.fail(err)
		return
	case !ok:
		c.refuse(wire.StatusCapacity)
		return
	}
	c.attempt = attempt
	joined := c.do() && (c.res.Status == wire.StatusOK || c.res.Status == wire.StatusAlreadyInRoom)
	if c.roomID == "" || c.later.err != nil {
		return // nothing was noted, or what became of it is not known
	}
	if err := c.s.Joined(c.roomID, joined); err != nil {
		c.fail(err)
	}
}

// handleLeave leaves a room.
func (c *call) handleLeave() {
	attempt, err := c.s.Leaving(c.roomID)
	if err != nil {
		c.fail(err)
		return
	}
	c.attempt = attempt
	c.do() // a room that is not there has ended without this session's doing
	if c.later.err == nil {
		c.leftRoom()
	}
}

// leftRoom notes that the session is not in the room any more.
func (c *call) leftRoom() {
	if err := c.s.Left(c.roomID); err != nil {
		c.fail(err)
	}
}

// handleUpdateMember updates a member. The room was added to this request later: without it, it can only be the one that
// the member is in.
func (c *call) handleUpdateMember() {
	if c.roomID == "" {
		rooms, err := c.s.Rooms()
		switch {
		case err != nil:
			c.fail(err)
			return
		case len(rooms) == 0:
			c.refuse(wire.StatusNotInRoom)
			return
		case len(rooms) > 1:
			c.refuse(wire.StatusFailed)
			return
		}
		c.roomID = rooms[0].Room
	}
	c.do()
}

// forgetEnded takes the rooms that have ended out of the session's list.
func (c *call) forgetEnded() error {
	rooms, err := c.s.Rooms()
	if err != nil {
		return err
	}
	kind, room := c.kind, c.roomID
	c.kind = hasMember
	defer func() { c.kind, c.roomID, c.attempt = kind, room, 0 }()
	for _, m := range rooms {
		c.found, c.attempt = false, m.Attempt
		if _, err := c.w.store.Do(m.Room, c); err != nil {
			return err
		}
		if c.found {
			continue
		}
		if err := c.s.Forget(m); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements Op.
func (c *call) Apply(r *Room) {
	l := &c.w.cfg.Limits
	switch c.kind {
	case joinRoom:
		reenter := slices.Contains(c.join.Options, wire.OptionReenter)
		r.Join(c.session, c.attempt, &c.join.Member, reenter, c.millis(), l, &c.res)
	case leaveRoom, goneMember:
		r.Leave(c.session, c.millis(), &c.res)
		if c.attempt > 0 {
			r.Bar(c.session, c.attempt, c.millis(), &c.res)
		}
	case updateRoom:
		r.Update(c.session, &c.update.Room, c.millis(), l, &c.res)
	case updateMember:
		r.UpdateMember(c.session, &c.member.Member, c.millis(), l, &c.res)
	case getRoomInfo:
		r.Info(&c.res)
	case sendMessage:
		r.Send(c.session, c.send.ChatMessage.Message, uint64(c.now.UnixMicro()), l, &c.res)
	case fetchConversation:
		r.Fetch(c.session, &c.fetch, uint64(c.now.UnixMicro()), l, &c.res)
	case destroyRoom:
		r.Destroy(c.session, c.millis(), &c.res)
	case describe:
		r.Describe(wire.StatusAlreadyExists, &c.res)
	case hasMember:
		c.res.reset()
		c.found = r.index[c.session] != nil
		if !c.found && c.attempt > 0 {
			r.Bar(c.session, c.attempt, c.millis(), &c.res)
		}
	case unknownRequest, authenticate, bye, createRoom:
		panic("rooms: not an operation on a room")
	}
}

func (c *call) millis() uint64 { return uint64(c.now.UnixMilli()) }

// Result implements Op.
func (c *call) Result() *Result { return &c.res }

// Subscribes implements Op.
func (c *call) Subscribes() (mq.TopicKind, bool) {
	switch c.kind {
	case joinRoom:
		return mq.TopicRoom, true
	case fetchConversation:
		return mq.TopicConversation, slices.Contains(c.fetch.Options, wire.Subscribe)
	case unknownRequest, authenticate, bye, createRoom, leaveRoom, updateRoom, updateMember, getRoomInfo, sendMessage,
		destroyRoom, goneMember, describe, hasMember:
	}
	return 0, false
}

// Deliver implements Op. The answer goes first. The gateway subscribes a joiner when it sees the answer, so a joiner
// gets its own MemberJoined after it (which clients expect), and a leaver does not get its own MemberLeft; everything
// that happens to the room later reaches the joiner, and nothing that is in its answer already is missing in it. With an
// engine the note of the answer does the same.
func (c *call) Deliver(r *Room, seq uint64) {
	if c.kind == hasMember {
		return
	}
	c.tally()
	res, w := &c.res, c.w
	c.roomID = r.ID() // no view of the request any more: the session may keep it
	if w.engine != nil {
		if _, ok := c.Subscribes(); ok {
			c.later.note.Room, c.later.note.RoomSeq = c.roomID, seq
		}
		c.later.ready = true
		return
	}
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
}

// tally counts what the operation has done.
func (c *call) tally() {
	id := c.conn
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
	c.answer()
}
