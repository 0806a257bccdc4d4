package wire

// Messages of the package pcast. Comments give field number and rule: ! required, ? optional, * repeated.

// Authenticate is pcast.Authenticate: what a client says first on a connection, and again after a reconnect with the session it had.
type Authenticate struct {
	ClientVersion       string // 1!
	DeviceID            string // 2!
	Platform            string // 3!
	PlatformVersion     string // 4!
	AuthenticationToken string // 5!
	ConnectionID        string // 6?
	SessionID           string // 7?
	ApplicationID       string // 8?
	APIVersion          uint32 // 9?, default 0: not written when 0
	ConnectionRouteKey  string // 10?
	RemoteAddress       string // 11?
	Device              string // 12?
	Manufacturer        string // 13?
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Authenticate) Unmarshal(b []byte) error {
	*m = Authenticate{}
	f := Fields{b: b, msg: "pcast.Authenticate"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.ClientVersion)
		case 2:
			f.str(&m.DeviceID)
		case 3:
			f.str(&m.Platform)
		case 4:
			f.str(&m.PlatformVersion)
		case 5:
			f.str(&m.AuthenticationToken)
		case 6:
			f.str(&m.ConnectionID)
		case 7:
			f.str(&m.SessionID)
		case 8:
			f.str(&m.ApplicationID)
		case 9:
			f.u32(&m.APIVersion)
		case 10:
			f.str(&m.ConnectionRouteKey)
		case 11:
			f.str(&m.RemoteAddress)
		case 12:
			f.str(&m.Device)
		case 13:
			f.str(&m.Manufacturer)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Authenticate) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.ClientVersion)
	dst = appendRequired(dst, 2, m.DeviceID)
	dst = appendRequired(dst, 3, m.Platform)
	dst = appendRequired(dst, 4, m.PlatformVersion)
	dst = appendRequired(dst, 5, m.AuthenticationToken)
	dst = appendOptional(dst, 6, m.ConnectionID)
	dst = appendOptional(dst, 7, m.SessionID)
	dst = appendOptional(dst, 8, m.ApplicationID)
	if m.APIVersion != 0 {
		dst = appendUint(dst, 9, uint64(m.APIVersion))
	}
	dst = appendOptional(dst, 10, m.ConnectionRouteKey)
	dst = appendOptional(dst, 11, m.RemoteAddress)
	dst = appendOptional(dst, 12, m.Device)
	dst = appendOptional(dst, 13, m.Manufacturer)
	return dst
}

// AuthenticateResponse is pcast.AuthenticateResponse.
type AuthenticateResponse struct {
	Status    string   // 1!
	SessionID string   // 2?
	Redirect  string   // 3?
	Roles     []string // 4*
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *AuthenticateResponse) Unmarshal(b []byte) error {
	*m = AuthenticateResponse{Roles: m.Roles[:0]} // keeps the memory of its lists
	f := Fields{b: b, msg: "pcast.AuthenticateResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			f.str(&m.SessionID)
		case 3:
			f.str(&m.Redirect)
		case 4:
			f.strs(&m.Roles)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *AuthenticateResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	dst = appendOptional(dst, 2, m.SessionID)
	dst = appendOptional(dst, 3, m.Redirect)
	dst = appendStrings(dst, 4, m.Roles)
	return dst
}

// Bye is pcast.Bye. It ends a session.
type Bye struct {
	SessionID string // 1!
	Reason    string // 2!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Bye) Unmarshal(b []byte) error {
	*m = Bye{}
	f := Fields{b: b, msg: "pcast.Bye"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.SessionID)
		case 2:
			f.str(&m.Reason)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Bye) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.SessionID)
	dst = appendRequired(dst, 2, m.Reason)
	return dst
}

// ByeResponse is pcast.ByeResponse.
type ByeResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *ByeResponse) Unmarshal(b []byte) error {
	*m = ByeResponse{}
	f := Fields{b: b, msg: "pcast.ByeResponse"}
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
func (m *ByeResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// ConnectionDisconnected is pcast.ConnectionDisconnected. It tells a worker that a connection has ended (L6.1).
type ConnectionDisconnected struct {
	ConnectionID string // 1!
	ReasonCode   uint32 // 2!
	Description  string // 3?
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *ConnectionDisconnected) Unmarshal(b []byte) error {
	*m = ConnectionDisconnected{}
	f := Fields{b: b, msg: "pcast.ConnectionDisconnected"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.ConnectionID)
		case 2:
			f.u32(&m.ReasonCode)
		case 3:
			f.str(&m.Description)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *ConnectionDisconnected) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.ConnectionID)
	dst = appendUint(dst, 2, uint64(m.ReasonCode))
	dst = appendOptional(dst, 3, m.Description)
	return dst
}

// ConnectionDisconnectedResponse is pcast.ConnectionDisconnectedResponse.
type ConnectionDisconnectedResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *ConnectionDisconnectedResponse) Unmarshal(b []byte) error {
	*m = ConnectionDisconnectedResponse{}
	f := Fields{b: b, msg: "pcast.ConnectionDisconnectedResponse"}
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
func (m *ConnectionDisconnectedResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// SendEventToClient is pcast.SendEventToClient. It asks a gateway to send an event to one of its connections.
type SendEventToClient struct {
	ConnectionID string // 1!
	Type         string // 2!
	Payload      []byte // 3!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendEventToClient) Unmarshal(b []byte) error {
	*m = SendEventToClient{}
	f := Fields{b: b, msg: "pcast.SendEventToClient"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.ConnectionID)
		case 2:
			f.str(&m.Type)
		case 3:
			m.Payload = f.bytes()
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *SendEventToClient) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.ConnectionID)
	dst = appendRequired(dst, 2, m.Type)
	dst = appendBytes(dst, 3, m.Payload)
	return dst
}

// SendEventToClientResponse is pcast.SendEventToClientResponse.
type SendEventToClientResponse struct {
	Status string // 1!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendEventToClientResponse) Unmarshal(b []byte) error {
	*m = SendEventToClientResponse{}
	f := Fields{b: b, msg: "pcast.SendEventToClientResponse"}
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
func (m *SendEventToClientResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	return dst
}

// SendRequestToClient is pcast.SendRequestToClient. It asks a gateway to send a request to one of its connections.
type SendRequestToClient struct {
	ConnectionID string // 1!
	Type         string // 2!
	Payload      []byte // 3!
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendRequestToClient) Unmarshal(b []byte) error {
	*m = SendRequestToClient{}
	f := Fields{b: b, msg: "pcast.SendRequestToClient"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.ConnectionID)
		case 2:
			f.str(&m.Type)
		case 3:
			m.Payload = f.bytes()
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *SendRequestToClient) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.ConnectionID)
	dst = appendRequired(dst, 2, m.Type)
	dst = appendBytes(dst, 3, m.Payload)
	return dst
}

// SendRequestToClientResponse is pcast.SendRequestToClientResponse.
type SendRequestToClientResponse struct {
	Status  string // 1!
	Type    string // 2?
	Payload []byte // 3?
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *SendRequestToClientResponse) Unmarshal(b []byte) error {
	*m = SendRequestToClientResponse{}
	f := Fields{b: b, msg: "pcast.SendRequestToClientResponse"}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Status)
		case 2:
			f.str(&m.Type)
		case 3:
			m.Payload = f.bytes()
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *SendRequestToClientResponse) AppendTo(dst []byte) []byte {
	dst = appendRequired(dst, 1, m.Status)
	dst = appendOptional(dst, 2, m.Type)
	if len(m.Payload) > 0 {
		dst = appendBytes(dst, 3, m.Payload)
	}
	return dst
}
