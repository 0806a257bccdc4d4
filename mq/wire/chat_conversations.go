package wire

// Messages of the package chat. Comments give field number and rule: ! required, ? optional, * repeated.

// SendMessageToRoom is chat.SendMessageToRoom.
type SendMessageToRoom struct {
	RoomID      string      // 1!
	ChatMessage ChatMessage // 2!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendMessageToRoom) Unmarshal(b []byte) error {
	*m = SendMessageToRoom{}
	f := Fields{b: b, msg: "chat.SendMessageToRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		case 2:
			message(&f, &m.ChatMessage)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *SendMessageToRoom) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.RoomID)
	dst = m.ChatMessage.appendField(dst, 2)
	return dst
}

// SendMessageToRoomResponse is chat.SendMessageToRoomResponse.
type SendMessageToRoomResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendMessageToRoomResponse) Unmarshal(b []byte) error {
	*m = SendMessageToRoomResponse{}
	f := Fields{b: b, msg: "chat.SendMessageToRoomResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *SendMessageToRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// FetchRoomConversation is chat.FetchRoomConversation. It asks for history, and with Subscribe for everything that comes after.
type FetchRoomConversation struct {
	SessionID       string                   // 1!
	RoomID          string                   // 2!
	AfterMessageID  string                   // 3?
	BeforeMessageID string                   // 4?
	Limit           uint32                   // 5!
	Options         []RoomConversationOption // 6*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *FetchRoomConversation) Unmarshal(b []byte) error {
	*m = FetchRoomConversation{Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.FetchRoomConversation"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.RoomID)
		case 3:
			f.str(&m.AfterMessageID)
		case 4:
			f.str(&m.BeforeMessageID)
		case 5:
			f.u32(&m.Limit)
		case 6:
			enums(&f, &m.Options, Subscribe)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *FetchRoomConversation) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.RoomID)
	dst = appendOptional(dst, 3, m.AfterMessageID)
	dst = appendOptional(dst, 4, m.BeforeMessageID)
	dst = appendUint(dst, 5, uint64(m.Limit))
	for _, v := range m.Options {
		dst = appendUint(dst, 6, uint64(v))
	}
	return dst
}

// FetchRoomConversationResponse is chat.FetchRoomConversationResponse.
type FetchRoomConversationResponse struct {
	Status       string        // 1!
	ChatMessages []ChatMessage // 2*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *FetchRoomConversationResponse) Unmarshal(b []byte) error {
	*m = FetchRoomConversationResponse{ChatMessages: m.ChatMessages[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.FetchRoomConversationResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			messages[ChatMessage](&f, &m.ChatMessages)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *FetchRoomConversationResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	for i := range m.ChatMessages {
		dst = m.ChatMessages[i].appendField(dst, 2)
	}
	return dst
}

// RoomConversationEvent is chat.RoomConversationEvent. It carries new messages to the subscribers of a conversation.
type RoomConversationEvent struct {
	SessionID    string                    // 1!
	RoomID       string                    // 2!
	EventType    RoomConversationEventType // 3!
	ChatMessages []ChatMessage             // 4*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *RoomConversationEvent) Unmarshal(b []byte) error {
	*m = RoomConversationEvent{ChatMessages: m.ChatMessages[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.RoomConversationEvent"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.RoomID)
		case 3:
			enum(&f, &m.EventType, ConversationMessage)
		case 4:
			messages[ChatMessage](&f, &m.ChatMessages)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *RoomConversationEvent) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.RoomID)
	dst = appendUint(dst, 3, uint64(m.EventType))
	for i := range m.ChatMessages {
		dst = m.ChatMessages[i].appendField(dst, 4)
	}
	return dst
}
