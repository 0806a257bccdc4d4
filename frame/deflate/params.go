package deflate

import (
	"fmt"
	"unsafe"
)

// Name is that of the extension, in Sec-WebSocket-Extensions (RFC 7692 section 7).
const Name = "permessage-deflate"

// Mode says what is agreed to.
type Mode uint8

const (
	Off Mode = iota
	// Shared: no context takeover in either direction. A connection keeps nothing between messages.
	Shared
	// Takeover: context takeover in both directions, unless the peer asks for none.
	Takeover
)

// ParseMode returns the mode of that name: off, shared or takeover.
func ParseMode(name string) (Mode, error) {
	for m := Off; m <= Takeover; m++ {
		if m.String() == name {
			return m, nil
		}
	}
	return Off, fmt.Errorf("compression %q: must be off, shared or takeover", name)
}

// String returns the name.
func (m Mode) String() string {
	switch m {
	case Off:
		return "off"
	case Shared:
		return "shared"
	case Takeover:
		return "takeover"
	}
	return "unknown"
}

// Params is what two ends have agreed on (RFC 7692 section 7.1). The bits are the base-2 logarithm of the largest window,
// in bytes, that the sender refers to: MinWindowBits to MaxWindowBits, and MaxWindowBits where nothing was said.
type Params struct {
	ServerNoContextTakeover bool
	ClientNoContextTakeover bool
	ServerMaxWindowBits     uint8
	ClientMaxWindowBits     uint8
}

type direction struct {
	bits  uint8
	fresh bool // no context takeover
}

// direction returns what was agreed on for what the server, or the client, sends.
func (p Params) direction(server bool) direction {
	if server {
		return direction{p.ServerMaxWindowBits, p.ServerNoContextTakeover}
	}
	return direction{p.ClientMaxWindowBits, p.ClientNoContextTakeover}
}

// SendBits returns the window bits of what this end sends; server says whether it is the server's.
func (p Params) SendBits(server bool) uint8 { return p.direction(server).bits }

// Memory returns the most that the Context of such a connection holds [bytes]; 0 without takeover. server says whether it
// is the server's end: the two ends keep different windows of what is sent.
func (p Params) Memory(server bool) int {
	n := 0
	if in := p.direction(!server); !in.fresh {
		n += 1 << in.bits
	}
	if out := p.direction(server); !out.fresh {
		n += 1 << min(out.bits, dictionaryBits)
	}
	if n > 0 {
		n += int(unsafe.Sizeof(Context{}))
	}
	return n
}
