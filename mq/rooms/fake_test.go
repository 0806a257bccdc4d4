package rooms

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// gateway is a gateway as a worker sees it: it keeps subscriptions from successful answers and notes what each
// connection receives, in order. It is one big lock, so that the order in which the worker hands things over is kept.
type gateway struct {
	t  testing.TB
	w  *Worker
	is *conn.Issuer

	mu    sync.Mutex
	subs  map[mq.Topic]map[conn.ID]bool
	inbox map[conn.ID][]received
	next  uint32
	ended []mq.Topic
}

// received is an answer or an event that a connection got.
type received struct {
	typ     string
	payload []byte
}

func newGateway(t testing.TB, cfg Config) *gateway {
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, w: w, is: conn.NewIssuer(), subs: map[mq.Topic]map[conn.ID]bool{}, inbox: map[conn.ID][]received{}}
	w.Attach(g)
	return g
}

func (g *gateway) Publish(t mq.Topic, typ string, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
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

func (g *gateway) SendEvent(conn.ID, string, []byte, func(error)) { panic("not expected") }
func (g *gateway) SendRequest(conn.ID, string, []byte, func(mq.Response, error)) {
	panic("not expected")
}
func (g *gateway) CloseConnection(conn.ID, uint16, string, func(bool)) { panic("not expected") }

func (g *gateway) subscribe(id conn.ID, t mq.Topic) {
	if g.subs[t] == nil {
		g.subs[t] = map[conn.ID]bool{}
	}
	g.subs[t][id] = true
}

// exchange is one request and its answer.
type exchange struct {
	g      *gateway
	answer []byte
	typ    string
	failed error
	count  int
}

func (x *exchange) Fail(_ *mq.Request, cause error) { x.failed = cause; x.count++ }
func (x *exchange) Later(*mq.Request) mq.Completion { panic("not expected") }
func (x *exchange) Meta(*mq.Request) mq.Meta        { return mq.Meta{} }
func (x *exchange) Reply(r *mq.Request, typ string, payload []byte) {
	x.count++
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
		g.subscribe(r.Conn, mq.Topic{Kind: mq.TopicRoom, Room: strings.Clone(room)})
	case wire.TypeLeaveRoom:
		var m wire.LeaveRoom
		_ = m.Unmarshal(r.Payload)
		delete(g.subs[mq.Topic{Kind: mq.TopicRoom, Room: m.RoomID}], r.Conn)
		delete(g.subs[mq.Topic{Kind: mq.TopicConversation, Room: m.RoomID}], r.Conn)
	case wire.TypeFetchRoomConversation:
		if room, sub, _ := wire.PeekFetchRoomConversation(r.Payload); sub {
			g.subscribe(r.Conn, mq.Topic{Kind: mq.TopicConversation, Room: strings.Clone(room)})
		}
	}
}

// raw sends a request; what the worker borrowed is destroyed afterwards.
func (g *gateway) raw(id conn.ID, session, typ string, payload []byte) *exchange {
	x := &exchange{g: g}
	r := mq.NewRequest(x)
	r.Conn, r.SessionID, r.Type, r.Payload = id, session, typ, slices.Clone(payload)
	g.w.Process(r)
	for i := range r.Payload {
		r.Payload[i] = 0xee
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
	if err := c.g.w.Disconnected(mq.Disconnect{Conn: c.id, Code: code}); err != nil {
		c.g.t.Error(err)
	}
}

// take returns what the connection has received and forgets it.
func (c *client) take() []received {
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
