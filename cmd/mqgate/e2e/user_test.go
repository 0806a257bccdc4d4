package e2e

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// A user drives one unchanged phenix-web-proto client through what the web SDK does with it.
type user struct {
	*node
	session string
}

// The parts of the messages that the tests look at. Enums are names, as the client gives them.
type (
	room struct {
		RoomID      string `json:"roomId"`
		Alias       string
		Name        string
		Description string
		Type        string
	}
	member struct {
		SessionID  string `json:"sessionId"`
		ScreenName string `json:"screenName"`
		Role       string
		State      string
		LastUpdate int64 `json:"lastUpdate"`
	}
	chatMessage struct {
		MessageID string `json:"messageId"`
		Timestamp int64
		From      member
		Message   string
	}
	response struct {
		Status       string
		SessionID    string `json:"sessionId"`
		Room         *room
		Members      []member
		Self         *member
		ChatMessages []chatMessage `json:"chatMessages"`
		LastUpdate   int64         `json:"lastUpdate"`
	}
	roomEvent struct {
		SessionID string `json:"sessionId"`
		RoomID    string `json:"roomId"`
		EventType string `json:"eventType"`
		Members   []member
		Room      *room
	}
	conversationEvent struct {
		SessionID    string `json:"sessionId"`
		RoomID       string `json:"roomId"`
		EventType    string `json:"eventType"`
		ChatMessages []chatMessage
	}
)

// newUser starts a client that is connected and has sent nothing yet.
func newUser(t *testing.T, s *server, name string) *user {
	t.Helper()
	u := &user{node: startNode(t, name, "client.js")}
	u.call(t, "connect", map[string]any{"url": s.url("/ws")})
	u.await(t, "connected", nil)
	return u
}

// signIn starts a client that is connected and authenticated.
func signIn(t *testing.T, s *server, name string) *user {
	t.Helper()
	u := newUser(t, s, name)
	u.authenticate(t)
	return u
}

// request sends a request and returns the client's answer to it; mq.Error, or no answer, fails the test.
func (u *user) request(t *testing.T, typ string, body map[string]any) response {
	t.Helper()
	raw := u.call(t, "request", map[string]any{"type": typ, "body": body})
	var answer struct {
		Error    *string
		Response json.RawMessage
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	if answer.Error != nil {
		t.Fatalf("client %s: %s %v: mq.Error %q", u.name, typ, body, *answer.Error)
	}
	var r response
	if err := json.Unmarshal(answer.Response, &r); err != nil {
		t.Fatalf("%s: %v", answer.Response, err)
	}
	return r
}

// requestStatus sends a request and checks the status of its answer.
func (u *user) requestStatus(t *testing.T, typ string, body map[string]any, status string) response {
	t.Helper()
	r := u.request(t, typ, body)
	if r.Status != status {
		t.Fatalf("client %s: %s %v: status %q, want %q", u.name, typ, body, r.Status, status)
	}
	return r
}

// authenticate authenticates, with the session of before when there was one, as the SDK does after a reconnect.
func (u *user) authenticate(t *testing.T) {
	t.Helper()
	body := map[string]any{
		"apiVersion": 5, "clientVersion": "2020.0.3", "deviceId": "device-of-" + u.name, "platform": "Node",
		"platformVersion": "20", "authenticationToken": "token-of-" + u.name,
	}
	if u.session != "" {
		body["sessionId"] = u.session
	}
	r := u.requestStatus(t, "pcast.Authenticate", body, "ok")
	if r.SessionID == "" || u.session != "" && r.SessionID != u.session {
		t.Fatalf("client %s: session %q after %q", u.name, r.SessionID, u.session)
	}
	u.session = r.SessionID
}

// createRoom creates a room of which only name, alias, description and type are said.
func (u *user) createRoom(t *testing.T, alias, status string) room {
	t.Helper()
	r := u.requestStatus(t, "chat.CreateRoom", map[string]any{"sessionId": u.session, "room": map[string]any{
		"name": "Room " + alias, "alias": alias, "description": "where " + alias + " meet", "type": "MultiPartyChat",
	}}, status)
	if r.Room == nil || r.Room.RoomID == "" {
		t.Fatalf("client %s: CreateRoom: no room in the answer", u.name)
	}
	want := room{r.Room.RoomID, alias, "Room " + alias, "where " + alias + " meet", "MultiPartyChat"}
	if *r.Room != want {
		t.Errorf("client %s: CreateRoom: %+v, want %+v", u.name, *r.Room, want)
	}
	return *r.Room
}

// member is what the user says of itself.
func (u *user) member() map[string]any {
	return map[string]any{"sessionId": u.session, "screenName": "I am " + u.name, "role": "Participant",
		"streams": []any{}, "state": "Active", "lastUpdate": time.Now().UnixMilli()}
}

func (u *user) joinBody(roomID string, options ...string) map[string]any {
	if options == nil {
		options = []string{}
	}
	return map[string]any{"roomId": roomID, "sessionId": u.session, "member": u.member(), "options": options,
		"timestamp": time.Now().UnixMilli()}
}

// join joins a room by id, and checks that the answer tells of the room, of the user, and of all the others.
func (u *user) join(t *testing.T, roomID string, others ...*user) response {
	t.Helper()
	r := u.requestStatus(t, "chat.JoinRoom", u.joinBody(roomID), "ok")
	u.checkJoined(t, r, roomID, others...)
	return r
}

func (u *user) checkJoined(t *testing.T, r response, roomID string, others ...*user) {
	t.Helper()
	if r.Room == nil || r.Room.RoomID != roomID {
		t.Errorf("client %s: JoinRoom: room %+v, want %s", u.name, r.Room, roomID)
	}
	if r.Self == nil || r.Self.SessionID != u.session || r.Self.ScreenName != "I am "+u.name {
		t.Errorf("client %s: JoinRoom: self %+v, want session %s", u.name, r.Self, u.session)
	}
	for _, other := range others {
		i := slices.IndexFunc(r.Members, func(m member) bool { return m.SessionID == other.session })
		switch {
		case i < 0:
			t.Errorf("client %s: JoinRoom: %s (%s) is not among the members %+v", u.name, other.name, other.session, r.Members)
		case r.Members[i].ScreenName != "I am "+other.name || r.Members[i].Role != "Participant" || r.Members[i].State != "Active":
			t.Errorf("client %s: JoinRoom: %s is %+v", u.name, other.name, r.Members[i])
		}
	}
}

func (u *user) leave(t *testing.T, roomID, status string) {
	t.Helper()
	u.requestStatus(t, "chat.LeaveRoom", map[string]any{"roomId": roomID, "sessionId": u.session,
		"timestamp": time.Now().UnixMilli()}, status)
}

// subscribe subscribes to the conversation of a room and returns the texts said there before.
func (u *user) subscribe(t *testing.T, roomID string) []string {
	t.Helper()
	r := u.requestStatus(t, "chat.FetchRoomConversation", map[string]any{"sessionId": u.session, "roomId": roomID,
		"limit": 100, "options": []string{"Subscribe"}}, "ok")
	return texts(r.ChatMessages)
}

// history fetches part of a conversation: at most limit messages (0: no limit), after and before the messages with these
// ids, when they are not empty.
func (u *user) history(t *testing.T, roomID string, limit int, after, before string) []string {
	t.Helper()
	body := map[string]any{"sessionId": u.session, "roomId": roomID, "limit": limit, "options": []string{}}
	if after != "" {
		body["afterMessageId"] = after
	}
	if before != "" {
		body["beforeMessageId"] = before
	}
	return texts(u.requestStatus(t, "chat.FetchRoomConversation", body, "ok").ChatMessages)
}

func texts(messages []chatMessage) []string {
	list := []string{}
	for _, m := range messages {
		list = append(list, m.Message)
	}
	return list
}

// sayBody is a message as the SDK sends it: its id and its time are for the server to give.
func (u *user) sayBody(roomID, text string) map[string]any {
	return map[string]any{"roomId": roomID, "chatMessage": map[string]any{
		"messageId": "", "timestamp": 0, "message": text,
		"from": map[string]any{"sessionId": u.session, "screenName": "I am " + u.name, "role": "Participant",
			"lastUpdate": time.Now().UnixMilli()},
	}}
}

func (u *user) say(t *testing.T, roomID, text string) {
	t.Helper()
	u.requestStatus(t, "chat.SendMessageToRoom", u.sayBody(roomID, text), "ok")
}

// awaitText waits for a message of a room's conversation and checks who said it.
func (u *user) awaitText(t *testing.T, roomID, text string, from *user) chatMessage {
	t.Helper()
	var got chatMessage
	u.await(t, "chat.RoomConversationEvent", func(e event) bool {
		var c conversationEvent
		if err := json.Unmarshal(e.Body, &c); err != nil {
			t.Fatalf("%s: %v", e.Body, err)
		}
		if c.RoomID != roomID || c.EventType != "Message" || len(c.ChatMessages) != 1 || c.ChatMessages[0].Message != text {
			return false
		}
		got = c.ChatMessages[0]
		return true
	})
	if got.MessageID == "" || got.Timestamp == 0 || got.From.SessionID != from.session || got.From.ScreenName != "I am "+from.name {
		t.Errorf("client %s: message %q: %+v, want it from %s (%s)", u.name, text, got, from.name, from.session)
	}
	return got
}

// roomEventOf tells whether e is a room event of this type about this session.
func roomEventOf(t *testing.T, e event, roomID, eventType, session string) bool {
	t.Helper()
	if e.Event != "chat.RoomEvent" {
		return false
	}
	var r roomEvent
	if err := json.Unmarshal(e.Body, &r); err != nil {
		t.Fatalf("%s: %v", e.Body, err)
	}
	return r.RoomID == roomID && r.EventType == eventType &&
		slices.ContainsFunc(r.Members, func(m member) bool { return m.SessionID == session })
}

// awaitMember waits to be told that another member joined, left or changed.
func (u *user) awaitMember(t *testing.T, roomID, eventType string, about *user) roomEvent {
	t.Helper()
	e := u.await(t, "chat.RoomEvent", func(e event) bool { return roomEventOf(t, e, roomID, eventType, about.session) })
	var r roomEvent
	if err := json.Unmarshal(e.Body, &r); err != nil {
		t.Fatalf("%s: %v", e.Body, err)
	}
	return r
}

// awaitRoom waits for an event about the room itself.
func (u *user) awaitRoom(t *testing.T, roomID, eventType string) roomEvent {
	t.Helper()
	var r roomEvent
	u.await(t, "chat.RoomEvent", func(e event) bool {
		if err := json.Unmarshal(e.Body, &r); err != nil {
			t.Fatalf("%s: %v", e.Body, err)
		}
		return r.RoomID == roomID && r.EventType == eventType
	})
	return r
}

// neverTold checks that no event of this type about the other has come so far.
func (u *user) neverTold(t *testing.T, roomID, eventType string, about *user) {
	t.Helper()
	for _, e := range u.events.rest() {
		if roomEventOf(t, e, roomID, eventType, about.session) {
			t.Errorf("client %s was told %s of %s: %s", u.name, eventType, about.name, e)
		}
	}
}
