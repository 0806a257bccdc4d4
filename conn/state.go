package conn

import "fmt"

// State is where a connection stands in its life (L1.1). The sub-states (close frame sent, close frame received, ended)
// are flags of their own.
type State uint8

const (
	// New: a slot taken, nothing happened yet. Next: Connecting.
	New State = iota
	// Connecting: a TCP connection whose upgrade is not done (RFC 6455 section 4). Next: Connected, Closed.
	Connecting
	// Connected: upgraded, OnOpen has not returned yet. Next: Open, Closing, Closed.
	Connected
	// Open: OnOpen has returned without closing. Next: Closing, Closed.
	Open
	// Closing: a Close frame has been sent or received (section 7.1.3). Next: Closed.
	Closing
	// Closed: the handler has been told (if it had been told of the opening); the socket may linger to deliver our last
	// words (L1.8). No next.
	Closed
)

// successors has a bit for every state that may follow.
var successors = [...]uint8{
	New:        1 << Connecting,
	Connecting: 1<<Connected | 1<<Closed,
	Connected:  1<<Open | 1<<Closing | 1<<Closed,
	Open:       1<<Closing | 1<<Closed,
	Closing:    1 << Closed,
	Closed:     0,
}

// String returns the name in capitals, as in RFC 6455.
func (s State) String() string {
	switch s {
	case New:
		return "NEW"
	case Connecting:
		return "CONNECTING"
	case Connected:
		return "CONNECTED"
	case Open:
		return "OPEN"
	case Closing:
		return "CLOSING"
	case Closed:
		return "CLOSED"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// transition is the only place where a connection's state changes after the slot was taken. A transition that L1.1 does
// not know is a bug here, never something a peer can cause, and panics.
func (c *Conn) transition(to State) {
	if successors[c.state]>>to&1 == 0 {
		panic(fmt.Sprintf("conn: transition %v to %v", c.state, to))
	}
	c.state = to
	if wasThrottled := c.flags&throttled != 0; to >= Closing && c.flags&pauses != 0 {
		c.resume(pauses) // or the peer's Close would never be seen
		if to == Closing && wasThrottled {
			c.reg.restAtClosing(c)
		}
	}
}
