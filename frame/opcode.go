package frame

// OpCode says what a frame is (RFC 6455 section 5.2). Four bits on the wire.
type OpCode byte

// The operation codes. 0x3-0x7 and 0xB-0xF are reserved.
const (
	Continuation OpCode = 0x0
	Text         OpCode = 0x1
	Binary       OpCode = 0x2
	Close        OpCode = 0x8
	Ping         OpCode = 0x9
	Pong         OpCode = 0xA
)

// String returns the name that the RFC uses, in lower case; "reserved" for any other value.
func (op OpCode) String() string {
	switch op {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return "reserved"
}

// IsControl reports whether op is in the range of control frames, 0x8 to 0xF (RFC 6455 section 5.5).
func (op OpCode) IsControl() bool { return op&0x8 != 0 }

// isReserved reports whether op is one that no extension known here has given a meaning (RFC 6455 section 5.2).
func (op OpCode) isReserved() bool {
	const defined = 1<<Continuation | 1<<Text | 1<<Binary | 1<<Close | 1<<Ping | 1<<Pong
	return defined>>(op&0xf)&1 == 0
}
