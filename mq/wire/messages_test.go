package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// codec is what all messages have in common.
type codec interface {
	Unmarshal([]byte) error
	AppendTo([]byte) []byte
}

var newMessage = map[string]func() codec{
	"mq.Message":                      func() codec { return new(Envelope) },
	TypeError:                         func() codec { return new(Error) },
	TypeAuthenticate:                  func() codec { return new(Authenticate) },
	TypeAuthenticateResponse:          func() codec { return new(AuthenticateResponse) },
	TypeBye:                           func() codec { return new(Bye) },
	TypeByeResponse:                   func() codec { return new(ByeResponse) },
	TypeConnectionDisconnected:        func() codec { return new(ConnectionDisconnected) },
	TypeSendEventToClient:             func() codec { return new(SendEventToClient) },
	TypeSendEventToClientResponse:     func() codec { return new(SendEventToClientResponse) },
	TypeSendRequestToClient:           func() codec { return new(SendRequestToClient) },
	TypeSendRequestToClientResponse:   func() codec { return new(SendRequestToClientResponse) },
	"chat.Room":                       func() codec { return new(Room) },
	"chat.Stream":                     func() codec { return new(Stream) },
	"chat.Member":                     func() codec { return new(Member) },
	"chat.MemberUpdate":               func() codec { return new(MemberUpdate) },
	"chat.ChatUser":                   func() codec { return new(ChatUser) },
	"chat.ChatMessage":                func() codec { return new(ChatMessage) },
	TypeCreateRoom:                    func() codec { return new(CreateRoom) },
	TypeCreateRoomResponse:            func() codec { return new(CreateRoomResponse) },
	TypeJoinRoom:                      func() codec { return new(JoinRoom) },
	TypeJoinRoomResponse:              func() codec { return new(JoinRoomResponse) },
	TypeLeaveRoom:                     func() codec { return new(LeaveRoom) },
	TypeLeaveRoomResponse:             func() codec { return new(LeaveRoomResponse) },
	TypeUpdateRoom:                    func() codec { return new(UpdateRoom) },
	TypeUpdateRoomResponse:            func() codec { return new(UpdateRoomResponse) },
	TypeUpdateMember:                  func() codec { return new(UpdateMember) },
	TypeUpdateMemberResponse:          func() codec { return new(UpdateMemberResponse) },
	TypeGetRoomInfo:                   func() codec { return new(GetRoomInfo) },
	TypeGetRoomInfoResponse:           func() codec { return new(GetRoomInfoResponse) },
	TypeRoomEvent:                     func() codec { return new(RoomEvent) },
	TypeSendMessageToRoom:             func() codec { return new(SendMessageToRoom) },
	TypeSendMessageToRoomResponse:     func() codec { return new(SendMessageToRoomResponse) },
	TypeFetchRoomConversation:         func() codec { return new(FetchRoomConversation) },
	TypeFetchRoomConversationResponse: func() codec { return new(FetchRoomConversationResponse) },
	TypeRoomConversationEvent:         func() codec { return new(RoomConversationEvent) },
	TypeDestroyRoom:                   func() codec { return new(DestroyRoom) },
	TypeDestroyRoomResponse:           func() codec { return new(DestroyRoomResponse) },

	TypeConnectionDisconnectedResponse: func() codec { return new(ConnectionDisconnectedResponse) },
}

// vector is one message as the client's own code encodes it; testdata/vectors.js makes them.
type vector struct {
	Type   string
	Base64 string
	Value  json.RawMessage
}

func vectors(t testing.TB) []vector {
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(data, &vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

func (v vector) bytes(t testing.TB) []byte {
	b, err := base64.StdEncoding.DecodeString(v.Base64)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the client encodes we decode to the same values, and encode to the same bytes: so it can decode what we encode.
func TestClientVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		seen[v.Type] = true
		raw := v.bytes(t)
		want := newMessage[v.Type]()
		if err := json.Unmarshal(v.Value, want); err != nil {
			t.Fatalf("%s: %v", v.Type, err)
		}
		got := newMessage[v.Type]()
		if err := got.Unmarshal(raw); err != nil {
			t.Errorf("%s: %v", v.Type, err)
			continue
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s decoded differently (-want +got):\n%s", v.Type, d)
		}
		if enc := want.AppendTo([]byte("before")); string(enc) != "before"+string(raw) {
			t.Errorf("%s encoded\n got %x\nwant %x", v.Type, enc[6:], raw)
		}
	}
	for typ := range newMessage {
		if !seen[typ] {
			t.Errorf("no vector for %s", typ)
		}
	}
}

// Each message is replaced as a whole by Unmarshal, whatever it held before, and so are the lists that it keeps the
// memory of.
func TestUnmarshalReplaces(t *testing.T) {
	vs := vectors(t)
	for typ, make := range newMessage {
		reused := make()
		for _, v := range append(vs, vs...) {
			if v.Type != typ {
				continue
			}
			fresh := make()
			raw := v.bytes(t)
			if err := errors.Join(fresh.Unmarshal(raw), reused.Unmarshal(raw)); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(fresh, reused, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s: left over from before:\n%s", typ, d)
			}
		}
		if typ == "mq.Message" {
			continue // does not decode without a type
		}
		if err := reused.Unmarshal(nil); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(make(), reused, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: left over after an empty message:\n%s", typ, d)
		}
	}
}

// Every strict prefix of a message either ends between two fields or is an error; nothing panics.
func TestTruncated(t *testing.T) {
	for _, v := range vectors(t) {
		raw := v.bytes(t)
		for n := range raw {
			m := newMessage[v.Type]()
			if err := m.Unmarshal(raw[:n:n]); err != nil && !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNoType) {
				t.Errorf("%s cut at %d: %v", v.Type, n, err)
			}
		}
	}
}

func TestMessageErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		m    codec
		b    string
		want error
	}{
		{"string as varint", new(LeaveRoom), "\x08\x01", ErrWireType},
		{"number as string", new(LeaveRoom), "\x1a\x01x", ErrWireType},
		{"group", new(LeaveRoom), "\x0b\x0c", ErrWireType},
		{"unknown group", new(LeaveRoom), "\x7b\x7c", ErrWireType},
		{"end group", new(LeaveRoom), "\x0c", ErrWireType},
		{"wire type 7", new(LeaveRoom), "\x0f", ErrWireType},
		{"field 0", new(LeaveRoom), "\x02\x00", ErrFieldNumber},
		{"field 2^29", new(LeaveRoom), "\x82\x80\x80\x80\x10\x00", ErrFieldNumber},
		{"varint of 11 bytes", new(LeaveRoom), "\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", ErrTruncated},
		{"varint of 65 bits", new(LeaveRoom), "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", ErrTruncated},
		{"not UTF-8", new(LeaveRoom), "\x0a\x02\xc3\x28", ErrUTF8},
		{"half a surrogate pair", new(LeaveRoom), "\x0a\x03\xed\xa0\xbd", ErrUTF8},
		{"enum at its end", new(Room), "\x28\x04", nil},
		{"enum above", new(Room), "\x28\x05", ErrEnum},
		{"enum negative", new(Room), "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ErrEnum},
		{"enum embedded", new(CreateRoom), "\x12\x02\x28\x05", ErrEnum},
		{"enum in a list", new(JoinRoomResponse), "\x1a\x02\x18\x04", ErrEnum},
		{"enum packed", new(FetchRoomConversation), "\x32\x02\x00\x01", ErrEnum},
		{"enum packed and cut", new(FetchRoomConversation), "\x32\x01\x80", ErrTruncated},
		{"enum unpacked", new(FetchRoomConversation), "\x30\x01", ErrEnum},
		{"u32 at its end", new(Authenticate), "\x48\xff\xff\xff\xff\x0f", nil},
		{"u32 above", new(Authenticate), "\x48\x80\x80\x80\x80\x10", ErrRange},
		{"list element cut", new(JoinRoomResponse), "\x1a\x03\x0a\x05x", ErrTruncated},
		{"list with a wrong type", new(JoinRoomResponse), "\x18\x00", ErrWireType},
		{"padded varint", new(LeaveRoom), "\x18\x85\x80\x00", nil},
		{"unknown fields", new(LeaveRoom), "\x20\x01\x2a\x01x\x31........\x3d....", nil},
	} {
		if err := c.m.Unmarshal([]byte(c.b)); !errors.Is(err, c.want) || (err != nil) != (c.want != nil) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

// Both forms of a repeated enum are read; the clients' encoder writes them one by one.
func TestRepeatedEnum(t *testing.T) {
	var m FetchRoomConversation
	if err := m.Unmarshal([]byte("\x32\x02\x00\x00\x30\x00\x32\x00")); err != nil || len(m.Options) != 3 {
		t.Errorf("%v, %v", m.Options, err)
	}
	if got := string((&FetchRoomConversation{Options: m.Options[:2]}).AppendTo(nil)); !strings.HasSuffix(got, "\x28\x00\x30\x00\x30\x00") {
		t.Errorf("%x", got)
	}
}

func TestLastOneWins(t *testing.T) {
	var m CreateRoom
	b := (&CreateRoom{SessionID: "a", Room: Room{Name: "n", Pin: "p", Options: []string{"o"}}}).AppendTo(nil)
	b = (&CreateRoom{SessionID: "b", Room: Room{Description: "d"}}).AppendTo(b)
	if err := m.Unmarshal(b); err != nil || m.SessionID != "b" || !reflect.DeepEqual(m.Room, Room{Description: "d", Options: []string{}}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestPeek(t *testing.T) {
	join := (&JoinRoomResponse{Status: "ok", Room: &Room{RoomID: "r", Name: "n"}, Members: []Member{{SessionID: "s"}}}).AppendTo(nil)
	if s, id, err := PeekJoinRoomResponse(join); s != "ok" || id != "r" || err != nil {
		t.Error(s, id, err)
	}
	if s, id, err := PeekJoinRoomResponse([]byte("\x0a\x01x\x12\x03\x0a\x05r")); err == nil {
		t.Error("cut room accepted", s, id)
	}
	if _, _, err := PeekJoinRoomResponse([]byte("\x10\x01")); !errors.Is(err, ErrWireType) {
		t.Error(err)
	}
	if s, err := PeekStatus(join); s != "ok" || err != nil {
		t.Error(s, err)
	}
	if _, err := PeekStatus([]byte("\x08\x01")); !errors.Is(err, ErrWireType) {
		t.Error(err)
	}
	fetch := func(o ...RoomConversationOption) []byte {
		return (&FetchRoomConversation{RoomID: "r", Options: o}).AppendTo(nil)
	}
	if id, sub, err := PeekFetchRoomConversation(fetch()); id != "r" || sub || err != nil {
		t.Error(id, sub, err)
	}
	subscribe := fetch(Subscribe)
	if id, sub, err := PeekFetchRoomConversation(subscribe); id != "r" || !sub || err != nil {
		t.Error(id, sub, err)
	}
	if n := testing.AllocsPerRun(100, func() {
		PeekJoinRoomResponse(join)
		PeekStatus(join)
		PeekFetchRoomConversation(subscribe)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A message that has been decoded before decodes again without allocating.
func TestMessageAllocs(t *testing.T) {
	join := (&JoinRoom{RoomID: "r", SessionID: "s", Member: Member{SessionID: "s", Streams: []Stream{{URI: "u"}}},
		Options: []string{"reenter"}}).AppendTo(nil)
	var m JoinRoom
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		if err := m.Unmarshal(join); err != nil {
			t.Fatal(err)
		}
		buf = m.AppendTo(buf[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever decodes at all encodes to something that decodes to the same.
func FuzzMessages(f *testing.F) {
	types := []string{}
	for _, v := range vectors(f) {
		if v.Type != "mq.Message" {
			f.Add(uint8(len(types)), v.bytes(f))
			types = append(types, v.Type)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		typ := types[int(i)%len(types)]
		m, again := newMessage[typ](), newMessage[typ]()
		if m.Unmarshal(b) != nil {
			return
		}
		enc := m.AppendTo(nil)
		if err := again.Unmarshal(enc); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		if d := cmp.Diff(m, again, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s:\n%s", typ, d)
		}
	})
}
