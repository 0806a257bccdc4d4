package rooms_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// gateway is a gateway as a worker sees it: it keeps subscriptions from successful answers and notes what each
// connection receives, in order. It is one big lock, so that the order in which the worker hands things over is kept.
type gateway struct {
	t  testing.TB
	w  *Worker
	is *conn.Issuer
	js *overNATS // nil: the worker has everything in memory

	mu    sync.Mutex
	subs  map[mq.Topic]map[conn.ID]uint64 // the record of the room's log after which the connection hears everything
	inbox map[conn.ID][]received
	bound map[conn.ID]string
	next  uint32
	ended []mq.Topic
}

// received is an answer or an event that a connection got.
type received struct {
	typ     string
	payload []byte
}

// newGateway returns a gateway with a worker in memory.
func newGateway(t testing.TB, cfg Config) *gateway {
	g := emptyGateway(t)
	g.start(cfg)
	return g
}

func emptyGateway(t testing.TB) *gateway {
	return &gateway{t: t, is: conn.NewIssuer(), subs: map[mq.Topic]map[conn.ID]uint64{}, inbox: map[conn.ID][]received{},
		bound: map[conn.ID]string{}}
}

func (g *gateway) start(cfg Config) {
	w, err := New(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.w = w
	w.Attach(g)
}

func (g *gateway) Publish(t mq.Topic, typ string, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.js != nil {
		g.t.Errorf("%s published by the worker: the log does", typ)
	}
	for id := range g.subs[t] {
		g.inbox[id] = append(g.inbox[id], received{typ, slices.Clone(payload)})
	}
}

func (g *gateway) Unsubscribe(id conn.ID, t mq.Topic) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subs[t], id)
}

func (g *gateway) UnsubscribeAll(id conn.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.subs {
		delete(s, id)
	}
}

func (g *gateway) EndTopic(t mq.Topic) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subs, t)
	g.ended = append(g.ended, t)
}

// Bind implements mq.Binder.
func (g *gateway) Bind(id conn.ID, old, session string, done func(error)) {
	g.mu.Lock()
	if g.bound[id] == old {
		g.bound[id] = session
		for _, s := range g.subs {
			delete(s, id)
		}
	}
	g.mu.Unlock()
	done(nil)
}

func (g *gateway) SendEvent(conn.ID, string, []byte, func(error)) { panic("not expected") }
func (g *gateway) SendRequest(conn.ID, string, []byte, func(mq.Response, error)) {
	panic("not expected")
}
func (g *gateway) CloseConnection(conn.ID, uint16, string, func(bool)) { panic("not expected") }

// subscribe is called with the lock held.
func (g *gateway) subscribe(id conn.ID, t mq.Topic, seq uint64) {
	if g.subs[t] == nil {
		g.subs[t] = map[conn.ID]uint64{}
	}
	if _, ok := g.subs[t][id]; ok && (g.js == nil || t.Kind == mq.TopicConversation) {
		return // it gets everything already
	}
	// Over NATS a member that joins again may have heard already what came after the state that its answer shows: it hears
	// that once more.
	g.subs[t][id] = seq
	if g.js != nil {
		g.js.catchUp(g, id, t, seq)
	}
}

// exchange is one request and its answer.
type exchange struct {
	g      *gateway
	req    *mq.Request
	bound  string // session of the connection when the request was sent
	answer []byte
	typ    string
	failed error
	count  int
	done   chan struct{} // closed by the first answer
}

func (x *exchange) Fail(_ *mq.Request, cause error) {
	x.failed = cause
	x.finish()
}

func (x *exchange) finish() {
	if x.count++; x.count == 1 {
		close(x.done)
	}
}

func (x *exchange) Later(r *mq.Request) mq.Completion {
	if x.g.js == nil {
		panic("not expected")
	}
	x.req = &mq.Request{Conn: r.Conn, Type: strings.Clone(r.Type), Payload: slices.Clone(r.Payload)}
	return mq.NewCompletion(x, 7)
}

func (x *exchange) Meta(*mq.Request) mq.Meta { return mq.Meta{} }

// Complete implements mq.Completer.
func (x *exchange) Complete(_ uint64, typ string, _ []byte, cause error) {
	if cause == nil {
		x.g.t.Errorf("%s without a note", typ)
	}
	x.Fail(nil, cause)
}

// CompleteNoted implements mq.NotedCompleter.
func (x *exchange) CompleteNoted(_ uint64, typ string, payload []byte, note mq.Note) {
	if note.Room != "" {
		x.g.js.awaitSeq(x.g, note.RoomSeq)
	}
	x.g.mu.Lock()
	if note.Bind {
		x.g.bound[x.req.Conn] = strings.Clone(note.Session)
	}
	x.g.mu.Unlock()
	x.reply(x.req, typ, payload, note)
}

func (x *exchange) Reply(r *mq.Request, typ string, payload []byte) {
	x.reply(r, typ, payload, mq.Note{})
}

func (x *exchange) reply(r *mq.Request, typ string, payload []byte, note mq.Note) {
	defer x.finish()
	x.typ, x.answer = typ, slices.Clone(payload)
	g := x.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inbox[r.Conn] = append(g.inbox[r.Conn], received{typ, x.answer})
	status, err := wire.PeekStatus(payload)
	if err != nil {
		g.t.Errorf("%s: %v", typ, err)
	}
	if status != wire.StatusOK && status != wire.StatusAlreadyInRoom {
		return
	}
	switch r.Type {
	case wire.TypeJoinRoom:
		_, room, _ := wire.PeekJoinRoomResponse(payload)
		x.subscribe(r.Conn, mq.TopicRoom, strings.Clone(room), note)
	case wire.TypeLeaveRoom:
		var m wire.LeaveRoom
		_ = m.Unmarshal(r.Payload)
		delete(g.subs[mq.Topic{Kind: mq.TopicRoom, Room: m.RoomID}], r.Conn)
		delete(g.subs[mq.Topic{Kind: mq.TopicConversation, Room: m.RoomID}], r.Conn)
	case wire.TypeFetchRoomConversation:
		if room, sub, _ := wire.PeekFetchRoomConversation(r.Payload); sub {
			x.subscribe(r.Conn, mq.TopicConversation, strings.Clone(room), note)
		}
	}
}

func (x *exchange) subscribe(id conn.ID, kind mq.TopicKind, room string, note mq.Note) {
	if x.g.js != nil && note.Room != room {
		x.g.t.Errorf("%s: the note names room %q, not %q", x.typ, note.Room, room)
	}
	if x.g.js != nil && x.g.bound[id] != x.bound {
		return // it has lost its session meanwhile
	}
	x.g.subscribe(id, mq.Topic{Kind: kind, Room: room}, note.RoomSeq)
}

// raw sends a request; what the worker borrowed is destroyed afterwards.
func (g *gateway) raw(id conn.ID, session, typ string, payload []byte) *exchange {
	x := &exchange{g: g, done: make(chan struct{})}
	r := mq.NewRequest(x)
	r.Conn, r.SessionID, r.Type, r.Payload = id, session, typ, slices.Clone(payload)
	if g.js != nil {
		g.mu.Lock()
		r.Bound, x.bound = g.bound[id], g.bound[id]
		g.mu.Unlock()
	}
	g.w.Process(r)
	for i := range r.Payload {
		r.Payload[i] = 0xee
	}
	if g.js != nil {
		<-x.done
	}
	if x.count != 1 {
		g.t.Errorf("%s was answered %d times", typ, x.count)
	}
	if x.failed == nil && x.typ != typ+"Response" {
		g.t.Errorf("%s was answered with %s", typ, x.typ)
	}
	return x
}

// client is a connection with a session.
type client struct {
	g       *gateway
	id      conn.ID
	session string
}

// dial opens a connection without a session. Connections are spread over four loops.
func (g *gateway) dial() *client {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	return &client{g: g, id: g.is.Make(int(g.next%4), g.next, 0)}
}

// login opens a connection and authenticates it.
func (g *gateway) login() *client {
	c := g.dial()
	if s := c.auth("", ""); s != wire.StatusOK {
		g.t.Fatalf("authenticate: %s", s)
	}
	return c
}

type message interface{ AppendTo([]byte) []byte }

type decoder interface{ Unmarshal([]byte) error }

// ask sends a request and decodes the answer into out, or only looks at its status when out is nil.
func (c *client) ask(typ string, m message, out decoder) (status string) {
	x := c.g.raw(c.id, "", typ, m.AppendTo(nil))
	if x.failed != nil {
		return "failed: " + x.failed.Error()
	}
	if out != nil {
		if err := out.Unmarshal(x.answer); err != nil {
			c.g.t.Errorf("%s: %v", x.typ, err)
		}
	}
	status, _ = wire.PeekStatus(x.answer)
	return status
}

func (c *client) auth(session, token string) string {
	var a wire.AuthenticateResponse
	c.ask(wire.TypeAuthenticate, &wire.Authenticate{SessionID: session, AuthenticationToken: token}, &a)
	if a.Status == wire.StatusOK {
		c.session = a.SessionID
	}
	return a.Status
}

func (c *client) create(room wire.Room) (wire.Room, string) {
	var a wire.CreateRoomResponse
	status := c.ask(wire.TypeCreateRoom, &wire.CreateRoom{SessionID: c.session, Room: room}, &a)
	if a.Room == nil {
		return wire.Room{}, status
	}
	return *a.Room, status
}

func (c *client) join(room string, options ...string) (wire.JoinRoomResponse, string) {
	return c.joinAs(room, wire.Member{ScreenName: "name of " + c.session, LastUpdate: 1}, options...)
}

func (c *client) joinAs(room string, m wire.Member, options ...string) (wire.JoinRoomResponse, string) {
	var a wire.JoinRoomResponse
	m.SessionID = c.session
	status := c.ask(wire.TypeJoinRoom, &wire.JoinRoom{RoomID: room, SessionID: c.session, Member: m, Options: options}, &a)
	return a, status
}

func (c *client) leave(room string) string {
	return c.ask(wire.TypeLeaveRoom, &wire.LeaveRoom{RoomID: room, SessionID: c.session}, nil)
}

func (c *client) roomInfo(room string) (wire.GetRoomInfoResponse, string) {
	var a wire.GetRoomInfoResponse
	status := c.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: room, SessionID: c.session}, &a)
	return a, status
}

func (c *client) say(room, text string) string {
	return c.ask(wire.TypeSendMessageToRoom, &wire.SendMessageToRoom{RoomID: room,
		ChatMessage: wire.ChatMessage{From: wire.ChatUser{SessionID: c.session, ScreenName: "forged"}, Message: text}}, nil)
}

func (c *client) fetch(room, after, before string, limit uint32, options ...wire.RoomConversationOption) ([]wire.ChatMessage, string) {
	var a wire.FetchRoomConversationResponse
	status := c.ask(wire.TypeFetchRoomConversation, &wire.FetchRoomConversation{SessionID: c.session, RoomID: room,
		AfterMessageID: after, BeforeMessageID: before, Limit: limit, Options: options}, &a)
	return a.ChatMessages, status
}

func (c *client) bye() string {
	return c.ask(wire.TypeBye, &wire.Bye{SessionID: c.session, Reason: "test"}, nil)
}

// lose ends the connection; the gateway drops its subscriptions first.
func (c *client) lose(code uint16) {
	c.g.UnsubscribeAll(c.id)
	if c.g.js != nil {
		c.g.js.end(c.g, c.id, code)
		return
	}
	if err := c.g.w.Disconnected(mq.Disconnect{Conn: c.id, Code: code}); err != nil {
		c.g.t.Error(err)
	}
}

// take returns what the connection has received and forgets it.
func (c *client) take() []received {
	if c.g.js != nil {
		c.g.js.settle(c.g)
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	in := c.g.inbox[c.id]
	delete(c.g.inbox, c.id)
	return in
}

// log returns what the connection has received as short lines, answers left out.
func (c *client) log() []string {
	out := []string{}
	for _, r := range c.take() {
		switch r.typ {
		case wire.TypeRoomEvent:
			var e wire.RoomEvent
			if err := e.Unmarshal(r.payload); err != nil {
				c.g.t.Error(err)
			}
			line := fmt.Sprint([]string{"joined", "left", "updated", "room", "ended"}[e.EventType])
			for _, m := range e.Members {
				line += " " + m.SessionID
			}
			out = append(out, line)
		case wire.TypeRoomConversationEvent:
			var e wire.RoomConversationEvent
			if err := e.Unmarshal(r.payload); err != nil {
				c.g.t.Error(err)
			}
			for _, m := range e.ChatMessages {
				out = append(out, "said "+m.Message)
			}
		}
	}
	return out
}

func (c *client) expect(lines ...string) {
	c.g.t.Helper()
	if got := c.log(); !slices.Equal(got, lines) {
		c.g.t.Errorf("received %q, want %q", got, lines)
	}
}

func (g *gateway) must(what, got, want string) {
	g.t.Helper()
	if got != want {
		g.t.Errorf("%s: status %q, want %q", what, got, want)
	}
}

// room creates a room and returns its id.
func (c *client) room() string {
	r, status := c.create(wire.Room{Name: "n", Type: wire.MultiPartyChat})
	if status != wire.StatusOK || r.RoomID == "" {
		c.g.t.Fatalf("create: %s", status)
	}
	return r.RoomID
}

// members returns the session ids that GetRoomInfo shows.
func (c *client) members(room string) []string {
	a, _ := c.roomInfo(room)
	out := []string{}
	for _, m := range a.Members {
		out = append(out, m.SessionID)
	}
	return out
}
