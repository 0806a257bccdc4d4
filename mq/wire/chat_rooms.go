package wire

// Messages of the package chat. Comments give field number and rule: ! required, ? optional, * repeated.

// CreateRoom is chat.CreateRoom.
type CreateRoom struct {
	SessionID string // 1!
	Room      Room   // 2!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *CreateRoom) Unmarshal(b []byte) error {
	*m = CreateRoom{Room: m.Room} // keeps the memory of its lists
	if err := m.Room.Unmarshal(nil); err != nil {
		return err
	}
	f := Fields{b: b, msg: "chat.CreateRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			message(&f, &m.Room)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *CreateRoom) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = m.Room.appendField(dst, 2)
	return dst
}

// CreateRoomResponse is chat.CreateRoomResponse.
type CreateRoomResponse struct {
	Status string // 1!
	Room   *Room  // 2?, nil when absent
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *CreateRoomResponse) Unmarshal(b []byte) error {
	*m = CreateRoomResponse{}
	f := Fields{b: b, msg: "chat.CreateRoomResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			m.Room = new(Room)
			message(&f, m.Room)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *CreateRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	if m.Room != nil {
		dst = m.Room.appendField(dst, 2)
	}
	return dst
}

// JoinRoom is chat.JoinRoom.
type JoinRoom struct {
	RoomID    string   // 1?
	Alias     string   // 2?
	SessionID string   // 3!
	Member    Member   // 4!
	Options   []string // 5*
	Timestamp uint64   // 6!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *JoinRoom) Unmarshal(b []byte) error {
	*m = JoinRoom{Options: m.Options[:0], Member: m.Member} // keeps the memory of its lists
	if err := m.Member.Unmarshal(nil); err != nil {
		return err
	}
	f := Fields{b: b, msg: "chat.JoinRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		case 2:
			f.str(&m.Alias)
		case 3:
			f.str(&m.SessionID)
		case 4:
			message(&f, &m.Member)
		case 5:
			f.strs(&m.Options)
		case 6:
			f.u64(&m.Timestamp)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *JoinRoom) AppendTo(dst []byte) []byte {
	dst = appendOptional(dst, 1, m.RoomID)
	dst = appendOptional(dst, 2, m.Alias)
	dst = appendRequired(dst, 3, m.SessionID)
	dst = m.Member.appendField(dst, 4)
	dst = appendStrings(dst, 5, m.Options)
	dst = appendUint(dst, 6, m.Timestamp)
	return dst
}

// JoinRoomResponse is chat.JoinRoomResponse.
type JoinRoomResponse struct {
	Status  string   // 1!
	Room    *Room    // 2?, nil when absent
	Members []Member // 3*
	Options []string // 4*
	Self    *Member  // 5?, nil when absent
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *JoinRoomResponse) Unmarshal(b []byte) error {
	*m = JoinRoomResponse{Members: m.Members[:0], Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.JoinRoomResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			m.Room = new(Room)
			message(&f, m.Room)
		case 3:
			messages[Member](&f, &m.Members)
		case 4:
			f.strs(&m.Options)
		case 5:
			m.Self = new(Member)
			message(&f, m.Self)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *JoinRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	if m.Room != nil {
		dst = m.Room.appendField(dst, 2)
	}
	for i := range m.Members {
		dst = m.Members[i].appendField(dst, 3)
	}
	dst = appendStrings(dst, 4, m.Options)
	if m.Self != nil {
		dst = m.Self.appendField(dst, 5)
	}
	return dst
}

// LeaveRoom is chat.LeaveRoom.
type LeaveRoom struct {
	RoomID    string // 1!
	SessionID string // 2!
	Timestamp uint64 // 3!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *LeaveRoom) Unmarshal(b []byte) error {
	*m = LeaveRoom{}
	f := Fields{b: b, msg: "chat.LeaveRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		case 2:
			f.str(&m.SessionID)
		case 3:
			f.u64(&m.Timestamp)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *LeaveRoom) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.RoomID)
	dst = appendRequired(dst, 2, m.SessionID)
	dst = appendUint(dst, 3, m.Timestamp)
	return dst
}

// LeaveRoomResponse is chat.LeaveRoomResponse.
type LeaveRoomResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *LeaveRoomResponse) Unmarshal(b []byte) error {
	*m = LeaveRoomResponse{}
	f := Fields{b: b, msg: "chat.LeaveRoomResponse"}
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
func (m *LeaveRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// UpdateRoom is chat.UpdateRoom.
type UpdateRoom struct {
	SessionID string // 1!
	Room      Room   // 2!
	Timestamp uint64 // 3!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *UpdateRoom) Unmarshal(b []byte) error {
	*m = UpdateRoom{Room: m.Room} // keeps the memory of its lists
	if err := m.Room.Unmarshal(nil); err != nil {
		return err
	}
	f := Fields{b: b, msg: "chat.UpdateRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			message(&f, &m.Room)
		case 3:
			f.u64(&m.Timestamp)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *UpdateRoom) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = m.Room.appendField(dst, 2)
	dst = appendUint(dst, 3, m.Timestamp)
	return dst
}

// UpdateRoomResponse is chat.UpdateRoomResponse.
type UpdateRoomResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *UpdateRoomResponse) Unmarshal(b []byte) error {
	*m = UpdateRoomResponse{}
	f := Fields{b: b, msg: "chat.UpdateRoomResponse"}
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
func (m *UpdateRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// UpdateMember is chat.UpdateMember.
type UpdateMember struct {
	SessionID string       // 1!
	Member    MemberUpdate // 2!
	Options   []string     // 3*
	Timestamp uint64       // 4!
	RoomID    string       // 5?
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *UpdateMember) Unmarshal(b []byte) error {
	*m = UpdateMember{Options: m.Options[:0], Member: m.Member} // keeps the memory of its lists
	if err := m.Member.Unmarshal(nil); err != nil {
		return err
	}
	f := Fields{b: b, msg: "chat.UpdateMember"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			message(&f, &m.Member)
		case 3:
			f.strs(&m.Options)
		case 4:
			f.u64(&m.Timestamp)
		case 5:
			f.str(&m.RoomID)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *UpdateMember) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = m.Member.appendField(dst, 2)
	dst = appendStrings(dst, 3, m.Options)
	dst = appendUint(dst, 4, m.Timestamp)
	dst = appendOptional(dst, 5, m.RoomID)
	return dst
}

// UpdateMemberResponse is chat.UpdateMemberResponse.
type UpdateMemberResponse struct {
	Status        string // 1!
	LastUpdate    uint64 // 2?, there when HasLastUpdate
	HasLastUpdate bool
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *UpdateMemberResponse) Unmarshal(b []byte) error {
	*m = UpdateMemberResponse{}
	f := Fields{b: b, msg: "chat.UpdateMemberResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			f.u64(&m.LastUpdate)
			m.HasLastUpdate = true
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *UpdateMemberResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	if m.HasLastUpdate {
		dst = appendUint(dst, 2, m.LastUpdate)
	}
	return dst
}

// GetRoomInfo is chat.GetRoomInfo.
type GetRoomInfo struct {
	RoomID        string   // 1?
	Alias         string   // 2?
	SessionID     string   // 3?
	ApplicationID string   // 4?
	Secret        string   // 5?
	Options       []string // 6*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *GetRoomInfo) Unmarshal(b []byte) error {
	*m = GetRoomInfo{Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.GetRoomInfo"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		case 2:
			f.str(&m.Alias)
		case 3:
			f.str(&m.SessionID)
		case 4:
			f.str(&m.ApplicationID)
		case 5:
			f.str(&m.Secret)
		case 6:
			f.strs(&m.Options)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *GetRoomInfo) AppendTo(dst []byte) []byte {
	dst = appendOptional(dst, 1, m.RoomID)
	dst = appendOptional(dst, 2, m.Alias)
	dst = appendOptional(dst, 3, m.SessionID)
	dst = appendOptional(dst, 4, m.ApplicationID)
	dst = appendOptional(dst, 5, m.Secret)
	dst = appendStrings(dst, 6, m.Options)
	return dst
}

// GetRoomInfoResponse is chat.GetRoomInfoResponse.
type GetRoomInfoResponse struct {
	Status  string   // 1!
	Room    *Room    // 2?, nil when absent
	Members []Member // 3*
	Options []string // 4*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *GetRoomInfoResponse) Unmarshal(b []byte) error {
	*m = GetRoomInfoResponse{Members: m.Members[:0], Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.GetRoomInfoResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			m.Room = new(Room)
			message(&f, m.Room)
		case 3:
			messages[Member](&f, &m.Members)
		case 4:
			f.strs(&m.Options)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *GetRoomInfoResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	if m.Room != nil {
		dst = m.Room.appendField(dst, 2)
	}
	for i := range m.Members {
		dst = m.Members[i].appendField(dst, 3)
	}
	dst = appendStrings(dst, 4, m.Options)
	return dst
}

// RoomEvent is chat.RoomEvent. It tells the members of a room what has changed.
type RoomEvent struct {
	SessionID string        // 1!
	RoomID    string        // 2!
	EventType RoomEventType // 3!
	Members   []Member      // 4*
	Room      *Room         // 5?, nil when absent
	Options   []string      // 6*
	Timestamp uint64        // 7!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *RoomEvent) Unmarshal(b []byte) error {
	*m = RoomEvent{Members: m.Members[:0], Options: m.Options[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "chat.RoomEvent"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.RoomID)
		case 3:
			enum(&f, &m.EventType, RoomEnded)
		case 4:
			messages[Member](&f, &m.Members)
		case 5:
			m.Room = new(Room)
			message(&f, m.Room)
		case 6:
			f.strs(&m.Options)
		case 7:
			f.u64(&m.Timestamp)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *RoomEvent) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.RoomID)
	dst = appendUint(dst, 3, uint64(m.EventType))
	for i := range m.Members {
		dst = m.Members[i].appendField(dst, 4)
	}
	if m.Room != nil {
		dst = m.Room.appendField(dst, 5)
	}
	dst = appendStrings(dst, 6, m.Options)
	dst = appendUint(dst, 7, m.Timestamp)
	return dst
}

// DestroyRoom is chat.DestroyRoom.
type DestroyRoom struct {
	RoomID string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *DestroyRoom) Unmarshal(b []byte) error {
	*m = DestroyRoom{}
	f := Fields{b: b, msg: "chat.DestroyRoom"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.RoomID)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *DestroyRoom) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.RoomID)
	return dst
}

// DestroyRoomResponse is chat.DestroyRoomResponse.
type DestroyRoomResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *DestroyRoomResponse) Unmarshal(b []byte) error {
	*m = DestroyRoomResponse{}
	f := Fields{b: b, msg: "chat.DestroyRoomResponse"}
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
func (m *DestroyRoomResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}
