package e2e

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGoldenVectorsOfTheClient shows that the client, with the schemas of this test, writes and reads exactly the bytes
// that mqgate is built for.
func TestGoldenVectorsOfTheClient(t *testing.T) {
	t.Parallel()
	requireNode(t)
	cmd := exec.Command("node", "golden.js")
	cmd.Dir = nodeDir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestStoryMeetChatAndPart is the story of the README: two people meet, talk, look up what was said, part and come back,
// and at last the gateway is drained (L3.6, L3.8, L5.5, L6.1, L6.2).
func TestStoryMeetChatAndPart(t *testing.T) {
	t.Parallel()
	eachWay(t, []string{"--reenter-grace", "10m"}, meetChatAndPart) // whoever is gone here is not gone by the grace running out
}

func meetChatAndPart(t *testing.T, a, b *server) {
	t.Helper()
	for _, s := range []*server{a, b} {
		if open := s.metric(t, "connections_open"); open != 0 {
			t.Errorf("mqgate_connections_open is %v before the first connection", open)
		}
	}

	alice := signIn(t, a, "alice")
	place := alice.createRoom(t, "friends", "ok")
	alice.join(t, place.RoomID)
	if said := alice.subscribe(t, place.RoomID); len(said) != 0 {
		t.Errorf("a new room has a history: %q", said)
	}

	bob := signIn(t, b, "bob")
	bob.join(t, place.RoomID, alice)
	alice.awaitMember(t, place.RoomID, "MemberJoined", bob)
	bob.subscribe(t, place.RoomID)

	var ids []string
	for i, turn := range []struct {
		from, to *user
		text     string
	}{
		{alice, bob, "Hello Bob"},
		{bob, alice, "Hello Alice"},
		{alice, bob, "Grüße, 你好, 👋"},
	} {
		turn.from.say(t, place.RoomID, turn.text)
		said := turn.to.awaitText(t, place.RoomID, turn.text, turn.from)
		// The SDK shows what its own user says only when it comes back as an event.
		if own := turn.from.awaitText(t, place.RoomID, turn.text, turn.from); own != said {
			t.Errorf("two views of one message: %+v and %+v", own, said)
		}
		// It sorts messages by comparing their ids as strings, and drops what sorts before the first.
		if i > 0 && said.MessageID <= ids[i-1] {
			t.Errorf("message id %q does not sort after %q", said.MessageID, ids[i-1])
		}
		ids = append(ids, said.MessageID)
	}

	first, second, third := "Hello Bob", "Hello Alice", "Grüße, 你好, 👋"
	for _, query := range []struct {
		limit         int
		after, before string
		want          []string
	}{
		{100, "", "", []string{first, second, third}},
		{2, "", "", []string{second, third}}, // the newest two, oldest first
		{100, ids[0], "", []string{second, third}},
		{100, "", ids[2], []string{first, second}},
		{1, "", ids[2], []string{second}}, // the one nearest before
		{0, ids[0], ids[2], []string{second}},
		{100, ids[2], "", []string{}},
	} {
		got := bob.history(t, place.RoomID, query.limit, query.after, query.before)
		if !slices.Equal(got, query.want) {
			t.Errorf("history, limit %d after %q before %q: %q, want %q", query.limit, query.after, query.before, got, query.want)
		}
	}

	bob.leave(t, place.RoomID, "ok")
	alice.awaitMember(t, place.RoomID, "MemberLeft", bob)

	bob.join(t, place.RoomID, alice)
	alice.awaitMember(t, place.RoomID, "MemberJoined", bob)
	if said := bob.subscribe(t, place.RoomID); !slices.Equal(said, []string{first, second, third}) {
		t.Errorf("history after coming back: %q", said)
	}

	// A clean stop, Close 1000, leaves the room at once.
	bob.call(t, "disconnect", nil)
	bob.awaitClose(t, "disconnected", 1000, "byebye")
	alice.awaitMember(t, place.RoomID, "MemberLeft", bob)

	a.awaitMetric(t, "connections_open", 1)
	want := 2.0
	if a != b {
		b.awaitMetric(t, "connections_open", 0)
		want = 1
	}
	for _, s := range []*server{a, b} {
		if total := s.metric(t, "connections_total"); total != want {
			t.Errorf("mqgate_connections_total is %v, want %v", total, want)
		}
		if drift := s.metric(t, "accounting_drift"); drift != 0 {
			t.Errorf("mqgate_accounting_drift is %v", drift)
		}
	}

	a.stop(t)
	alice.awaitClose(t, "socket-close", 3333, "drain")
	alice.await(t, "reconnecting", nil)
}

// TestStoryBye shows that a member who says Bye leaves its rooms at once, and is nobody from then on.
func TestStoryBye(t *testing.T) {
	t.Parallel()
	eachWay(t, []string{"--reenter-grace", "10m"}, sayBye)
}

func sayBye(t *testing.T, a, b *server) {
	t.Helper()
	alice, bob := signIn(t, a, "alice"), signIn(t, b, "bob")
	place := alice.createRoom(t, "farewell", "ok")
	alice.join(t, place.RoomID)
	bob.join(t, place.RoomID, alice)
	alice.awaitMember(t, place.RoomID, "MemberJoined", bob)

	bob.requestStatus(t, "pcast.Bye", map[string]any{"sessionId": bob.session, "reason": "app-background"}, "ok")
	alice.awaitMember(t, place.RoomID, "MemberLeft", bob)
	bob.requestStatus(t, "chat.JoinRoom", bob.joinBody(place.RoomID), "unauthorized")
}

// TestStoryLostMemberLeaves shows that the others are told of a member whose connection was lost, once it has not come
// back for --reenter-grace (L1.6, L6.1).
func TestStoryLostMemberLeaves(t *testing.T) {
	t.Parallel()
	eachWay(t, []string{"--reenter-grace", lostGrace.String()}, loseMembers)
}

const lostGrace = 300 * time.Millisecond

func loseMembers(t *testing.T, a, b *server) {
	t.Helper()
	alice := signIn(t, a, "alice")
	place := alice.createRoom(t, "losses", "ok")
	alice.join(t, place.RoomID)

	for name, lose := range map[string]func(*user){
		"killed":  func(u *user) { u.kill(t) },
		"dropped": func(u *user) { u.call(t, "drop", map[string]any{"how": "fin"}) },
		"reset":   func(u *user) { u.call(t, "drop", map[string]any{"how": "rst"}) },
	} {
		bob := signIn(t, b, "bob-"+name)
		bob.join(t, place.RoomID, alice)
		alice.awaitMember(t, place.RoomID, "MemberJoined", bob)
		lost := time.Now()
		lose(bob)
		alice.awaitMember(t, place.RoomID, "MemberLeft", bob)
		if after := time.Since(lost); after < lostGrace {
			t.Errorf("%s left after %v, before its time of %v was over", bob.name, after, lostGrace)
		}
	}
}

// TestStoryReenterInTime shows that nobody is told of a member who lost its connection and came back with "reenter" in
// time, and that it hears the conversation again.
func TestStoryReenterInTime(t *testing.T) {
	t.Parallel()
	eachWay(t, []string{"--reenter-grace", "3s"}, reenterInTime)
}

func reenterInTime(t *testing.T, a, b *server) {
	t.Helper()
	alice, bob, carol := signIn(t, a, "alice"), signIn(t, b, "bob"), signIn(t, a, "carol")
	place := alice.createRoom(t, "tunnels", "ok")
	for _, u := range []*user{alice, bob, carol} {
		u.join(t, place.RoomID)
		u.subscribe(t, place.RoomID)
	}
	alice.awaitMember(t, place.RoomID, "MemberJoined", bob)

	// The client connects again by itself; then comes what the SDK does.
	bob.call(t, "drop", map[string]any{"how": "rst"})
	bob.await(t, "reconnected", nil)
	bob.authenticate(t)
	back := bob.request(t, "chat.JoinRoom", bob.joinBody(place.RoomID, "reenter"))
	if back.Status != "ok" && back.Status != "already-in-room" {
		t.Fatalf("reenter: status %q", back.Status)
	}
	bob.checkJoined(t, back, place.RoomID, alice, carol)
	bob.subscribe(t, place.RoomID)

	// Carol was lost after Bob and did not come back. When her time is over, so would his have been.
	carol.kill(t)
	alice.awaitMember(t, place.RoomID, "MemberLeft", carol)
	alice.neverTold(t, place.RoomID, "MemberLeft", bob)

	alice.say(t, place.RoomID, "still there?")
	bob.awaitText(t, place.RoomID, "still there?", alice)
	bob.say(t, place.RoomID, "yes")
	alice.awaitText(t, place.RoomID, "yes", bob)
}

// TestStoryStatuses goes through the statuses that client code compares with.
func TestStoryStatuses(t *testing.T) {
	t.Parallel()
	eachWay(t, nil, compareStatuses)
}

func compareStatuses(t *testing.T, a, b *server) {
	t.Helper()
	alice, bob := signIn(t, a, "alice"), signIn(t, b, "bob")
	place := alice.createRoom(t, "statuses", "ok")

	if again := bob.createRoom(t, "statuses", "already-exists"); again.RoomID != place.RoomID {
		t.Errorf("the room that already exists is %q, want %q", again.RoomID, place.RoomID)
	}
	bob.requestStatus(t, "chat.JoinRoom", bob.joinBody("no-such-room"), "not-found")
	bob.leave(t, place.RoomID, "not-in-room")
	bob.requestStatus(t, "chat.GetRoomInfo", map[string]any{"alias": "no-such-alias", "sessionId": bob.session}, "not-found")
	bob.requestStatus(t, "chat.SendMessageToRoom", bob.sayBody("no-such-room", "anyone?"), "not-found")

	alice.join(t, place.RoomID)
	byAlias := bob.joinBody("")
	delete(byAlias, "roomId")
	byAlias["alias"] = "statuses"
	bob.checkJoined(t, bob.requestStatus(t, "chat.JoinRoom", byAlias, "ok"), place.RoomID, alice)
	bob.checkJoined(t, bob.requestStatus(t, "chat.JoinRoom", bob.joinBody(place.RoomID), "already-in-room"), place.RoomID, alice)

	// A session belongs to the connection that got it.
	bob.requestStatus(t, "chat.CreateRoom", map[string]any{"sessionId": alice.session, "room": map[string]any{
		"name": "n", "alias": "stolen", "description": "d", "type": "Channel"}}, "unauthorized")

	eve := newUser(t, b, "eve")
	eve.session = "made-up"
	eve.requestStatus(t, "chat.JoinRoom", eve.joinBody(place.RoomID), "unauthorized")
	eve.requestStatus(t, "chat.FetchRoomConversation", map[string]any{"sessionId": alice.session, "roomId": place.RoomID,
		"limit": 1, "options": []string{"Subscribe"}}, "unauthorized")
	alice.neverTold(t, place.RoomID, "MemberJoined", eve)
}

// TestStoryUpdates shows the events that are not about coming and going.
func TestStoryUpdates(t *testing.T) {
	t.Parallel()
	eachWay(t, nil, hearOfUpdates)
}

func hearOfUpdates(t *testing.T, a, b *server) {
	t.Helper()
	alice, bob := signIn(t, a, "alice"), signIn(t, b, "bob")
	place := alice.createRoom(t, "changes", "ok")
	alice.join(t, place.RoomID)
	bob.join(t, place.RoomID, alice)

	bob.requestStatus(t, "chat.UpdateMember", map[string]any{"sessionId": bob.session, "roomId": place.RoomID,
		"timestamp": time.Now().UnixMilli(), "member": map[string]any{"sessionId": bob.session, "state": "HandRaised",
			"lastUpdate": time.Now().UnixMilli(), "updateStreams": false}}, "ok")
	updated := alice.awaitMember(t, place.RoomID, "MemberUpdated", bob)
	if m := updated.Members[0]; m.State != "HandRaised" || m.ScreenName != "I am bob" {
		t.Errorf("updated member %+v", m)
	}

	alice.requestStatus(t, "chat.UpdateRoom", map[string]any{"sessionId": alice.session, "timestamp": time.Now().UnixMilli(),
		"room": map[string]any{"roomId": place.RoomID, "alias": "changes", "name": "New name", "description": "as ever",
			"type": "MultiPartyChat"}}, "ok")
	if e := bob.awaitRoom(t, place.RoomID, "RoomUpdated"); e.Room == nil || e.Room.Name != "New name" {
		t.Errorf("updated room %+v", e.Room)
	}
	info := bob.requestStatus(t, "chat.GetRoomInfo", map[string]any{"roomId": place.RoomID, "sessionId": bob.session}, "ok")
	if info.Room == nil || info.Room.Name != "New name" || len(info.Members) != 2 {
		t.Errorf("room info %+v", info)
	}

	alice.requestStatus(t, "chat.DestroyRoom", map[string]any{"roomId": place.RoomID}, "ok")
	bob.awaitRoom(t, place.RoomID, "RoomEnded")
	bob.requestStatus(t, "chat.JoinRoom", bob.joinBody(place.RoomID), "not-found")
}

// TestStoryManyRequestsAtOnce sends many requests before it waits for any answer: each gets its own (L3.3, L3.11).
func TestStoryManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	eachWay(t, nil, askManyAtOnce)
}

func askManyAtOnce(t *testing.T, _, b *server) {
	t.Helper()
	alice := signIn(t, b, "alice")
	place := alice.createRoom(t, "crowd", "ok")
	const requests = 200 // below --max-requests-per-connection
	var answers []<-chan reply
	for i := range requests {
		alias := "crowd"
		if i%2 == 1 {
			alias = "no-such-alias"
		}
		answers = append(answers, alice.begin(t, "request", map[string]any{"type": "chat.GetRoomInfo",
			"body": map[string]any{"alias": alias, "sessionId": alice.session}}))
	}
	for i, answer := range answers {
		want := `"roomId":"` + place.RoomID + `"`
		if i%2 == 1 {
			want = `"status":"not-found"`
		}
		select {
		case got := <-answer:
			if !strings.Contains(string(got.Result), want) {
				t.Fatalf("answer %d: %s %s, want %s in it", i, got.Result, got.Error, want)
			}
		case <-time.After(patience):
			t.Fatalf("no answer to request %d", i)
		}
	}
}
