package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// A chaos is the clients of TestChaos, and a record of all that they did and saw: what was right is judged afterwards.
type chaos struct {
	gateways []*server
	rooms    []string // ids
	timeout  time.Duration
	grace    time.Duration

	quiet   chan struct{}    // closed: residents say nothing more
	leave   chan struct{}    // closed: residents go for good
	noVisit chan struct{}    // closed: no more visitors
	running sync.WaitGroup   // all but the visitors
	faults  *journal[string] // what can be judged at once

	visitors  sync.WaitGroup
	residents []*chaosResident
	okays     []atomic.Int64 // per gateway: messages that were answered with ok

	mu    sync.Mutex
	conns []*chaosConn
}

// A chaosResident is always in its room, and comes back when it lost its connection, unless it is one of those who do not.
type chaosResident struct {
	name          string
	room, gateway int  // index; the gateway where it begins
	stays         bool // away when it has lost its connection

	conn    atomic.Pointer[chaosConn] // set while it is in its room
	session string                    // of the goroutine, and of the test when that has ended
	said    int
}

// chaosConn is one connection and all that happened on it.
type chaosConn struct {
	x       *chaos
	who     string
	gateway int
	room    int
	ws      *wsClient
	opened  time.Time
	done    chan struct{} // closed when nothing more will come

	mu      sync.Mutex
	session string
	asked   []*asked // the request with id "Cn" is the one with index n
	open    int      // requests that were not answered

	fresh      bool // did not come back with a session
	joined     bool
	since      uint64            // timestamp of its own join, of which the answer told members; 0: not known, as it came back
	members    map[string]uint64 // in the answer to JoinRoom: session -> last update
	events     []roomNews
	subscribed bool
	after      string // id of the last message in the answer that subscribed; "": none
	heard      []wire.ChatMessage

	ended time.Time
	end   string // why, for people
	code  uint16 // of the server's Close frame; 0: none came
}

// asked is a request and what became of it.
type asked struct {
	typ, text, room string // text of a message; room that GetRoomInfo is about
	at, answered    time.Time
	answers         int
	status          string // in the Response
	reason          string // of mq.Error
	payload         []byte // of the Response
	done            chan struct{}
}

func (a *asked) outcome() string {
	if a.reason != "" {
		return "mq.Error " + a.reason
	}
	return a.status
}

// roomNews is a chat.RoomEvent.
type roomNews struct {
	stamp   uint64 // grows with each event of a room
	what    wire.RoomEventType
	session string
	name    string
}

func (n roomNews) String() string {
	what := [...]string{"MemberJoined", "MemberLeft", "MemberUpdated", "RoomUpdated", "RoomEnded"}[n.what]
	return fmt.Sprintf("%s of %s (%s) with timestamp %d", what, n.name, n.session, n.stamp)
}

func (c *chaosConn) String() string {
	return fmt.Sprintf("%s (gateway %d, room %d, connected at %s, session %s)", c.who, c.gateway, c.room, stamp(c.opened), c.session)
}

func stamp(t time.Time) string { return t.Format("15:04:05.000") }

func (x *chaos) fault(format string, args ...any) {
	x.faults.add(stamp(time.Now()) + " " + fmt.Sprintf(format, args...))
}

// dial opens a connection and begins to read it.
func (x *chaos) dial(who string, gateway, room int) (*chaosConn, error) {
	l := load{addr: x.gateways[gateway].addr}
	ws, err := l.connect("/ws", nil)
	if err != nil {
		return nil, err
	}
	if err := ws.SetDeadline(time.Time{}); err != nil {
		_ = ws.Close()
		return nil, err
	}
	c := &chaosConn{x: x, who: who, gateway: gateway, room: room, ws: ws, opened: time.Now(), done: make(chan struct{})}
	x.mu.Lock()
	x.conns = append(x.conns, c)
	x.mu.Unlock()
	x.running.Go(c.read)
	return c, nil
}

// read takes what comes until the connection has ended.
func (c *chaosConn) read() {
	defer close(c.done)
	defer c.ws.Close()
	for {
		op, b, err := c.ws.read()
		if err == nil && op == opClose {
			_ = c.ws.send(opClose, b[:min(2, len(b))]) // it may have gone already
			err = fmt.Errorf("closed by the server: %q", b)
			if len(b) >= 2 {
				c.mu.Lock()
				c.code = binary.BigEndian.Uint16(b)
				c.mu.Unlock()
			}
		}
		if err != nil {
			c.mu.Lock()
			c.ended = time.Now()
			if c.end == "" {
				c.end = err.Error()
			}
			c.mu.Unlock()
			return
		}
		var e wire.Envelope
		if err := e.Unmarshal(b); op != opBinary || err != nil {
			c.x.fault("%s: a message with opcode %x that cannot be read: %v", c.who, op, err)
			continue
		}
		c.mu.Lock()
		if fault := c.take(&e); fault != "" {
			c.x.fault("%v: %s", c, fault)
		}
		c.mu.Unlock()
	}
}

// take notes a message and returns what is wrong with it. c.mu is held.
func (c *chaosConn) take(e *wire.Envelope) string {
	switch e.MessageType {
	case wire.Request:
		return "the server asked for " + e.Type
	case wire.Event:
		return c.event(e)
	case wire.Response:
	}
	n := -1
	if _, err := fmt.Sscanf(e.RequestID, "C%d", &n); err != nil || n < 0 || n >= len(c.asked) {
		return fmt.Sprintf("an answer %s to %q, which was not asked", e.Type, e.RequestID)
	}
	a := c.asked[n]
	if a.answers++; a.answers > 1 {
		return fmt.Sprintf("%s %q was answered %d times, now with %s, first with %s", a.typ, a.text, a.answers, e.Type, a.outcome())
	}
	c.open--
	a.answered = time.Now()
	defer close(a.done)
	if e.Type == wire.TypeError {
		var failed wire.Error
		if err := failed.Unmarshal(e.Payload); err != nil || failed.Reason != wire.ReasonFailed && failed.Reason != wire.ReasonTimeout {
			return fmt.Sprintf("%s was answered with mq.Error %q, %v", a.typ, failed.Reason, err)
		}
		a.reason = failed.Reason
		return ""
	}
	if e.Type != a.typ+"Response" {
		return fmt.Sprintf("%s %q was answered with %s", a.typ, a.text, e.Type)
	}
	var answer wire.LeaveRoomResponse // all begin with the status
	if err := answer.Unmarshal(e.Payload); err != nil {
		return fmt.Sprintf("answer %s: %v", e.Type, err)
	}
	a.status, a.payload = answer.Status, e.Payload
	switch a.typ {
	case wire.TypeJoinRoom:
		return c.takeJoin(a)
	case wire.TypeFetchRoomConversation:
		return c.takeFetch(a)
	case wire.TypeGetRoomInfo:
		var info wire.GetRoomInfoResponse
		if err := info.Unmarshal(a.payload); err != nil || a.status == wire.StatusOK && (info.Room == nil || info.Room.RoomID != a.room) {
			return fmt.Sprintf("asked about room %s, answered about %+v, %v", a.room, info.Room, err)
		}
	}
	return ""
}

func (c *chaosConn) takeJoin(a *asked) string {
	var in wire.JoinRoomResponse
	if err := in.Unmarshal(a.payload); err != nil {
		return err.Error()
	}
	if a.status != wire.StatusOK && a.status != wire.StatusAlreadyInRoom {
		return ""
	}
	c.joined, c.members = true, map[string]uint64{}
	for _, m := range in.Members {
		c.members[m.SessionID] = m.LastUpdate
	}
	if c.fresh && a.status == wire.StatusOK {
		c.since = c.members[c.session]
	}
	return ""
}

// takeFetch: the first answer is the one that subscribes.
func (c *chaosConn) takeFetch(a *asked) string {
	if c.subscribed || a.status != wire.StatusOK {
		return ""
	}
	var got wire.FetchRoomConversationResponse
	if err := got.Unmarshal(a.payload); err != nil {
		return err.Error()
	}
	c.subscribed = true
	if n := len(got.ChatMessages); n > 0 {
		c.after = got.ChatMessages[n-1].MessageID
	}
	return ""
}

func (c *chaosConn) event(e *wire.Envelope) string {
	switch e.Type {
	case wire.TypeRoomEvent:
		var m wire.RoomEvent
		if err := m.Unmarshal(e.Payload); err != nil || len(m.Members) != 1 || m.RoomID != c.x.rooms[c.room] || !c.joined {
			return fmt.Sprintf("event %+v, %v; joined: %v", m, err, c.joined)
		}
		c.events = append(c.events, roomNews{m.Timestamp, m.EventType, m.Members[0].SessionID, m.Members[0].ScreenName})
	case wire.TypeRoomConversationEvent:
		var m wire.RoomConversationEvent
		if err := m.Unmarshal(e.Payload); err != nil || len(m.ChatMessages) != 1 || m.RoomID != c.x.rooms[c.room] || !c.subscribed {
			return fmt.Sprintf("event %+v, %v; subscribed: %v", m, err, c.subscribed)
		}
		c.heard = append(c.heard, m.ChatMessages[0])
	default:
		return "event " + e.Type
	}
	return ""
}

// ask sends a request. Its answer is there when done is closed.
func (c *chaosConn) ask(typ, text, room string, payload []byte) *asked {
	a := &asked{typ: typ, text: text, room: room, at: time.Now(), done: make(chan struct{})}
	c.mu.Lock()
	id := fmt.Sprintf("C%d", len(c.asked))
	c.asked = append(c.asked, a)
	c.open++
	c.mu.Unlock()
	e := wire.Envelope{RequestID: id, Type: typ, Payload: payload}
	if err := c.ws.send(opBinary, e.AppendTo(nil)); err != nil {
		c.drop("cannot send: " + err.Error())
	}
	return a
}

// call is ask, and waits for the answer. False: the connection has ended, or the answer is none that helps.
func (c *chaosConn) call(typ, room string, payload []byte, good ...string) (*asked, bool) {
	a := c.ask(typ, "", room, payload)
	select {
	case <-a.done:
		return a, slices.Contains(good, a.status)
	case <-c.done:
	case <-time.After(c.x.timeout + patience): // it is for the judge to say so
	}
	return a, false
}

// drop ends the connection as a crash of the client's machine would, as far as TCP tells.
func (c *chaosConn) drop(why string) {
	c.mu.Lock()
	if c.end == "" {
		c.end = why
	}
	c.mu.Unlock()
	if tcp, ok := c.ws.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.ws.Close()
	<-c.done
}

// bye ends the connection in good order, for good.
func (c *chaosConn) bye() {
	c.mu.Lock()
	c.end = "the client closed with 1000"
	c.mu.Unlock()
	if c.ws.send(opClose, []byte{0x03, 0xe8}) != nil {
		_ = c.ws.Close()
	}
	select {
	case <-c.done:
	case <-time.After(patience):
		c.x.fault("%v: the server does not end the connection", c)
		_ = c.ws.Close()
	}
}

func (c *chaosConn) state() (open int, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, !c.ended.IsZero()
}

// closeCode returns the code of the server's Close frame; 0: none came.
func (c *chaosConn) closeCode() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code
}

// enter authenticates, with a session from before if there is one, joins the room and subscribes to its conversation.
func (c *chaosConn) enter(session string) bool {
	auth := wire.Authenticate{ClientVersion: "1", DeviceID: c.who, Platform: "go", PlatformVersion: "1", AuthenticationToken: "any", SessionID: session}
	a, ok := c.call(wire.TypeAuthenticate, "", auth.AppendTo(nil), wire.StatusOK)
	if !ok {
		return false
	}
	var in wire.AuthenticateResponse
	if err := in.Unmarshal(a.payload); err != nil || in.SessionID == "" {
		c.x.fault("%v: AuthenticateResponse %+v, %v", c, in, err)
		return false
	}
	c.mu.Lock()
	c.session, c.fresh = in.SessionID, session == ""
	c.mu.Unlock()
	if c.room < 0 {
		return true
	}
	room := c.x.rooms[c.room]
	join := wire.JoinRoom{RoomID: room, SessionID: in.SessionID, Timestamp: uint64(time.Now().UnixMilli()),
		Member: wire.Member{SessionID: in.SessionID, ScreenName: c.who}}
	if session != "" {
		join.Options = []string{wire.OptionReenter}
	}
	if _, ok := c.call(wire.TypeJoinRoom, room, join.AppendTo(nil), wire.StatusOK, wire.StatusAlreadyInRoom); !ok {
		return false
	}
	fetch := wire.FetchRoomConversation{SessionID: in.SessionID, RoomID: room, Limit: 1, Options: []wire.RoomConversationOption{wire.Subscribe}}
	_, ok = c.call(wire.TypeFetchRoomConversation, room, fetch.AppendTo(nil), wire.StatusOK)
	return ok
}

// say sends a chat message.
func (c *chaosConn) say(text string) *asked {
	m := wire.SendMessageToRoom{RoomID: c.x.rooms[c.room], ChatMessage: wire.ChatMessage{MessageID: "-", Message: text,
		From: wire.ChatUser{SessionID: c.session, ScreenName: c.who}}}
	return c.ask(wire.TypeSendMessageToRoom, text, m.RoomID, m.AppendTo(nil))
}

func (c *chaosConn) askInfo(room int) *asked {
	id := c.x.rooms[room]
	return c.ask(wire.TypeGetRoomInfo, "", id, (&wire.GetRoomInfo{RoomID: id}).AppendTo(nil))
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Pace of the load.
const (
	sayEvery   = 125 * time.Millisecond // per resident
	visitEvery = 700 * time.Millisecond // per visitor
	inFlight   = 3                      // requests of one resident that wait for their answers
	askInfoAll = 16                     // one of so many requests is GetRoomInfo
)

// live is the life of a resident.
func (x *chaos) live(r *chaosResident) {
	again := time.NewTicker(100 * time.Millisecond) // between two attempts to come back
	defer again.Stop()
	var lost time.Time
	gone := false // told that its session has ended
	for at := r.gateway; !closed(x.leave); {
		c, err := x.dial(r.name, at, r.room)
		if err == nil && c.enter(r.session) {
			if r.session != "" && c.session != r.session && !gone && time.Since(lost) < x.grace {
				x.fault("%v: session %s was lost after %v, within the grace", c, r.session, time.Since(lost))
			}
			r.session = c.session
			r.conn.Store(c)
			x.stay(r, c)
			r.conn.Store(nil)
			lost, gone = time.Now(), c.closeCode() == codeSessionGone
			if !r.stays {
				return
			}
		} else if err == nil {
			c.drop("could not enter")
			gone = gone || c.closeCode() == codeSessionGone
		}
		at = (at + 1) % len(x.gateways)
		select {
		case <-again.C:
		case <-x.leave:
		}
	}
}

// stay says things until the connection has ended, or everybody leaves.
func (x *chaos) stay(r *chaosResident, c *chaosConn) {
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-c.done:
			return
		case <-x.leave:
			c.bye()
			return
		case <-tick.C:
		}
		if open, _ := c.state(); open >= inFlight || closed(x.quiet) {
			continue
		}
		if i%askInfoAll == askInfoAll-1 {
			c.askInfo((r.room + i/askInfoAll) % len(x.rooms))
			continue
		}
		r.said++
		a := c.say(fmt.Sprintf("%s/%06d", r.name, r.said))
		go x.count(c, a)
	}
}

// count counts a message for advance.
func (x *chaos) count(c *chaosConn, a *asked) {
	select {
	case <-a.done:
		if a.status == wire.StatusOK {
			x.okays[c.gateway].Add(1)
		}
	case <-c.done:
	}
}

// visit is the life of a visitor: it comes, says something, and goes in one of three ways.
func (x *chaos) visit(name string, at int) {
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-x.noVisit:
			return
		case <-tick.C:
		}
		at = (at + 1) % len(x.gateways)
		who := fmt.Sprintf("%s.%d", name, i)
		c, err := x.dial(who, at, i%len(x.rooms))
		if err != nil {
			continue // its gateway is dead
		}
		if !c.enter("") {
			c.drop("could not enter")
			continue
		}
		select {
		case <-c.say(who + "/hello").done:
		case <-c.done:
		case <-time.After(x.timeout + patience):
		}
		switch i % 3 {
		case 0:
			c.bye()
		case 1:
			c.drop("the client resets")
		default:
			leave := wire.LeaveRoom{RoomID: x.rooms[c.room], SessionID: c.session, Timestamp: uint64(time.Now().UnixMilli())}
			c.call(wire.TypeLeaveRoom, leave.RoomID, leave.AppendTo(nil), wire.StatusOK)
			c.drop("the client has left the room, and resets")
		}
	}
}

// fetchAll returns the whole history of a room as one of its members gets it.
func (c *chaosConn) fetchAll(room string) (all []wire.ChatMessage, err error) {
	const page = 200
	for after := strings.Repeat("0", 16); ; after = all[len(all)-1].MessageID {
		fetch := wire.FetchRoomConversation{SessionID: c.session, RoomID: room, AfterMessageID: after, Limit: page}
		a, ok := c.call(wire.TypeFetchRoomConversation, room, fetch.AppendTo(nil), wire.StatusOK)
		if !ok {
			return nil, errors.New("FetchRoomConversation: " + a.outcome())
		}
		var got wire.FetchRoomConversationResponse
		if err := got.Unmarshal(a.payload); err != nil {
			return nil, err
		}
		all = append(all, got.ChatMessages...)
		if len(got.ChatMessages) < page {
			return all, nil
		}
	}
}
