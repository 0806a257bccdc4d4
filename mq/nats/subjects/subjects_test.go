package subjects

import (
	"regexp"
	"strings"
	"testing"
)

func mustNew(t *testing.T, prefix string) Names {
	t.Helper()
	n, err := New(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What can be a prefix and a type, and what NATS must never see.
func TestValid(t *testing.T) {
	good := []string{"a", "mqgate", "a.b", "a.b.c", "A-b_9.0", "-", "_", strings.Repeat("x", MaxPrefix)}
	bad := []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", ">", "*", "a\tb", "a\nb", "ä", "a/b", "a$b", "a\x00"}
	for _, s := range good {
		if _, err := New(s); err != nil || !ValidType(s) {
			t.Errorf("%q: %v, as type %v", s, err, ValidType(s))
		}
	}
	for _, s := range bad {
		_, err := New(s)
		if err == nil || ValidType(s) {
			t.Errorf("%q: %v, as type %v", s, err, ValidType(s))
			continue
		}
		if !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := New(strings.Repeat("x", MaxPrefix+1)); err == nil {
		t.Error("a prefix too long")
	}
	for n, want := range map[int]bool{MaxType - 1: true, MaxType: true, MaxType + 1: false} {
		if ValidType(strings.Repeat("x", n)) != want {
			t.Errorf("a type of %d bytes: %v", n, !want)
		}
	}
}

// Every name, as other languages write them.
func TestNames(t *testing.T) {
	n := mustNew(t, "my.app")
	for _, test := range []struct{ got, want string }{
		{n.Prefix(), "my.app"},
		{n.Request("chat.JoinRoom"), "my.app.req.chat.JoinRoom"},
		{n.AllRequests(), "my.app.req.>"},
		{n.Replies(0xabc), "my.app.re.00000abc."},
		{n.Gateway(1, CommandEvent), "my.app.gw.00000001.event"},
		{n.Gateway(1, CommandRequest), "my.app.gw.00000001.request"},
		{n.Gateway(1, CommandClose), "my.app.gw.00000001.close"},
		{n.Gateway(1, CommandUnsubscribe), "my.app.gw.00000001.unsubscribe"},
		{n.Gateway(1, CommandUnsubscribeAll), "my.app.gw.00000001.unsubscribe-all"},
		{n.Gateway(0xffffffff, CommandBind), "my.app.gw.ffffffff.bind"},
		{n.AllCommands(1), "my.app.gw.00000001.*"},
		{n.SessionCheck(), "my.app.sess.check"},
		{n.Log("room"), "my.app.log.cm9vbQ"},
		{n.AllLogs(), "my.app.log.*"},
		{n.Room("room"), "my.app.room.cm9vbQ"},
		{n.Disconnected(1), "my.app.disconnected.00000001"},
		{n.AllDisconnected(), "my.app.disconnected.*"},
		{n.RoomsStream(), "my_app_rooms"},
		{n.DisconnectedStream(), "my_app_disconnected"},
		{n.SessionsBucket(), "my_app_sessions"},
		{n.AliasesBucket(), "my_app_aliases"},
		{n.SnapshotsBucket(), "my_app_snapshots"},
		{n.GatewaysBucket(), "my_app_gateways"},
		{n.ConnsBucket(), "my_app_conns"},
		{LeaderElected("s"), "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.s"},
		{n.Rooms().RePublish.Source, "my.app.log.*"},
		{n.Rooms().RePublish.Destination, "my.app.room.{{wildcard(1)}}"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, expected %q", test.got, test.want)
		}
	}
	if typ, ok := n.RequestType("my.app.req.chat.JoinRoom"); typ != "chat.JoinRoom" || !ok {
		t.Errorf("%q, %v", typ, ok)
	}
	if _, ok := n.RequestType("my.app.re.chat.JoinRoom"); ok {
		t.Error("the type of what is no request")
	}
	if token, ok := n.TokenOfRoom(n.Room("room")); token != RoomToken("room") || !ok {
		t.Errorf("%q, %v", token, ok)
	}
	if _, ok := n.TokenOfRoom(n.Log("room")); ok {
		t.Error("the room of what is no room")
	}
}

// A room id, whatever is in it, is one token that may stand in subjects and keys of buckets, and no other id has it.
func TestRoomToken(t *testing.T) {
	key := regexp.MustCompile(`^[-/_=a-zA-Z0-9]+$`) // of a bucket, without dots
	seen := map[string]string{}
	ids := []string{"a", ".", "*", ">", "\x00", "\xff\xfe\xfd", " ", strings.Repeat("x", 95), strings.Repeat("x", 96), strings.Repeat("x", 97),
		strings.Repeat("x", 98), strings.Repeat("x", 4096), strings.Repeat("\xff", 96)}
	for _, id := range ids {
		token := RoomToken(id)
		if !key.MatchString(token) || len(token) > MaxRoomToken || seen[token] != "" {
			t.Errorf("%.20q (%d bytes): %q, as for %.20q", id, len(id), token, seen[token])
		}
		seen[token] = id
		if hashed := strings.HasPrefix(token, "="); hashed != (len(id) > 96) {
			t.Errorf("%d bytes: hashed %v", len(id), hashed)
		}
	}
	if got := RoomToken(strings.Repeat("x", 97)); len(got) != 44 {
		t.Errorf("%q has not the length of a SHA-256", got)
	}
}
