package wire

import "google.golang.org/protobuf/encoding/protowire"

// Messages of the package chat. Comments give field number and rule: ! required, ? optional, * repeated.

// Room is chat.Room. It describes a room.
type Room struct {
	RoomID      string   // 1?
	Alias       string   // 2?
	Name        string   // 3!
	Description string   // 4!
	Type        RoomType // 5!
	Options     []string // 6*
	BridgeID    string   // 7?
	Pin         string   // 8?
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Room) Unmarshal(b []byte) error {
	*m = Room{Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.Room"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		case 2:
			f.str(&m.Alias)
		case 3:
			f.str(&m.Name)
		case 4:
			f.str(&m.Description)
		case 5:
			enum(&f, &m.Type, Channel)
		case 6:
			f.strs(&m.Options)
		case 7:
			f.str(&m.BridgeID)
		case 8:
			f.str(&m.Pin)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Room) AppendTo(dst []byte) []byte {
	dst = appendOptional(dst, 1, m.RoomID)
	dst = appendOptional(dst, 2, m.Alias)
	dst = appendRequired(dst, 3, m.Name)
	dst = appendRequired(dst, 4, m.Description)
	dst = appendUint(dst, 5, uint64(m.Type))
	dst = appendStrings(dst, 6, m.Options)
	dst = appendOptional(dst, 7, m.BridgeID)
	dst = appendOptional(dst, 8, m.Pin)
	return dst
}

func (m *Room) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}

// Stream is chat.Stream. It is one stream that a member publishes.
type Stream struct {
	Type       StreamType // 1!
	URI        string     // 2!
	AudioState TrackState // 3!
	VideoState TrackState // 4!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Stream) Unmarshal(b []byte) error {
	*m = Stream{}
	f := Fields{b: b, msg: "chat.Stream"}
	for f.next() {
		switch f.num {
		case 1:
			enum(&f, &m.Type, StreamAudio)
		case 2:
			f.str(&m.URI)
		case 3:
			enum(&f, &m.AudioState, TrackEnded)
		case 4:
			enum(&f, &m.VideoState, TrackEnded)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Stream) AppendTo(dst []byte) []byte {
	dst = appendUint(dst, 1, uint64(m.Type))
	dst = appendRequired(dst, 2, m.URI)
	dst = appendUint(dst, 3, uint64(m.AudioState))
	dst = appendUint(dst, 4, uint64(m.VideoState))
	return dst
}

func (m *Stream) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}

// Member is chat.Member. It is a member of a room as everyone sees it.
type Member struct {
	SessionID  string      // 1!
	ScreenName string      // 2!
	Role       MemberRole  // 3!
	Streams    []Stream    // 4*
	State      MemberState // 5!
	LastUpdate uint64      // 6!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Member) Unmarshal(b []byte) error {
	*m = Member{Streams: m.Streams[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.Member"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.ScreenName)
		case 3:
			enum(&f, &m.Role, RoleAudience)
		case 4:
			messages[Stream](&f, &m.Streams)
		case 5:
			enum(&f, &m.State, StateOffline)
		case 6:
			f.u64(&m.LastUpdate)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Member) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.ScreenName)
	dst = appendUint(dst, 3, uint64(m.Role))
	for i := range m.Streams {
		dst = m.Streams[i].appendField(dst, 4)
	}
	dst = appendUint(dst, 5, uint64(m.State))
	dst = appendUint(dst, 6, m.LastUpdate)
	return dst
}

func (m *Member) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}

// MemberUpdate is chat.MemberUpdate. It is the part of a Member that changes.
type MemberUpdate struct {
	SessionID     string // 1!
	ScreenName    string // 2?, there when HasScreenName
	HasScreenName bool
	Role          MemberRole // 3?, there when HasRole
	HasRole       bool
	Streams       []Stream    // 4*
	State         MemberState // 5?, there when HasState
	HasState      bool
	LastUpdate    uint64 // 6!
	UpdateStreams bool   // 7!, default false: not written when false
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *MemberUpdate) Unmarshal(b []byte) error {
	*m = MemberUpdate{Streams: m.Streams[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.MemberUpdate"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.ScreenName)
			m.HasScreenName = true
		case 3:
			enum(&f, &m.Role, RoleAudience)
			m.HasRole = true
		case 4:
			messages[Stream](&f, &m.Streams)
		case 5:
			enum(&f, &m.State, StateOffline)
			m.HasState = true
		case 6:
			f.u64(&m.LastUpdate)
		case 7:
			f.flag(&m.UpdateStreams)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *MemberUpdate) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	if m.HasScreenName {
		dst = appendRequired(dst, 2, m.ScreenName)
	}
	if m.HasRole {
		dst = appendUint(dst, 3, uint64(m.Role))
	}
	for i := range m.Streams {
		dst = m.Streams[i].appendField(dst, 4)
	}
	if m.HasState {
		dst = appendUint(dst, 5, uint64(m.State))
	}
	dst = appendUint(dst, 6, m.LastUpdate)
	if m.UpdateStreams {
		dst = appendUint(dst, 7, 1)
	}
	return dst
}

func (m *MemberUpdate) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}

// ChatUser is chat.ChatUser. It is the author of a message.
type ChatUser struct {
	SessionID  string     // 1?
	ScreenName string     // 2!
	Role       MemberRole // 3!
	LastUpdate uint64     // 4!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *ChatUser) Unmarshal(b []byte) error {
	*m = ChatUser{}
	f := Fields{b: b, msg: "chat.ChatUser"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.ScreenName)
		case 3:
			enum(&f, &m.Role, RoleAudience)
		case 4:
			f.u64(&m.LastUpdate)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *ChatUser) AppendTo(dst []byte) []byte {
	dst = appendOptional(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.ScreenName)
	dst = appendUint(dst, 3, uint64(m.Role))
	dst = appendUint(dst, 4, m.LastUpdate)
	return dst
}

func (m *ChatUser) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}

// ChatMessage is chat.ChatMessage. It is one message of a conversation.
type ChatMessage struct {
	MessageID string   // 1!
	Timestamp uint64   // 2!
	From      ChatUser // 3!
	Message   string   // 4!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *ChatMessage) Unmarshal(b []byte) error {
	*m = ChatMessage{}
	f := Fields{b: b, msg: "chat.ChatMessage"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.MessageID)
		case 2:
			f.u64(&m.Timestamp)
		case 3:
			message(&f, &m.From)
		case 4:
			f.str(&m.Message)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *ChatMessage) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.MessageID)
	dst = appendUint(dst, 2, m.Timestamp)
	dst = m.From.appendField(dst, 3)
	dst = appendRequired(dst, 4, m.Message)
	return dst
}

func (m *ChatMessage) appendField(dst []byte, num protowire.Number) []byte {
	dst, at := begin(dst, num)
	return end(m.AppendTo(dst), at)
}
