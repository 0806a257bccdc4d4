package handshake

import (
	"fmt"
	"strconv"

	"github.com/mqgate/mqgate/frame/deflate"
)

// Compression says what this end agrees to (RFC 7692), in either role.
type Compression struct {
	Mode deflate.Mode

	// WindowBits bounds, with context takeover, the window that this end keeps of what the peer sends: 1<<WindowBits bytes
	// per connection. deflate.MinWindowBits to deflate.MaxWindowBits. A peer that does not let itself be bounded is asked
	// for no context takeover. It means nothing without takeover.
	WindowBits uint8
}

// Validate reports what is wrong with c, or nil.
func (c Compression) Validate() error {
	if c.Mode == deflate.Takeover && (c.WindowBits < deflate.MinWindowBits || c.WindowBits > deflate.MaxWindowBits) {
		return fmt.Errorf("window bits %d: must be %d to %d", c.WindowBits, deflate.MinWindowBits, deflate.MaxWindowBits)
	}
	return nil
}

// The parameters of permessage-deflate (RFC 7692 section 7.1).
const (
	serverNoTakeover = "server_no_context_takeover"
	clientNoTakeover = "client_no_context_takeover"
	serverWindow     = "server_max_window_bits"
	clientWindow     = "client_max_window_bits"
)

// terms are the parameters of one element, an offer or an answer.
type terms struct {
	serverNoTakeover, clientNoTakeover bool
	serverWindow, clientWindow         uint8 // 0: not there
	clientWindowAny                    bool  // there, without a value
}

// parseTerms reads the parameters of an extension named permessage-deflate. Not ok: an unknown parameter, a repeated one, a
// value where none may be, or one that is missing or out of range (section 7.1: to be declined by a server, to be failed
// by a client).
func parseTerms(e Extension) (t terms, ok bool) {
	for name, value := range e.Params() {
		switch string(name) {
		case serverNoTakeover:
			if ok = value == nil && !t.serverNoTakeover; !ok {
				return t, false
			}
			t.serverNoTakeover = true
		case clientNoTakeover:
			if ok = value == nil && !t.clientNoTakeover; !ok {
				return t, false
			}
			t.clientNoTakeover = true
		case serverWindow:
			if ok = t.serverWindow == 0; !ok {
				return t, false
			}
			if t.serverWindow, ok = windowBits(value); !ok {
				return t, false
			}
		case clientWindow:
			if ok = t.clientWindow == 0 && !t.clientWindowAny; !ok {
				return t, false
			}
			if value == nil {
				t.clientWindowAny = true
			} else if t.clientWindow, ok = windowBits(value); !ok {
				return t, false
			}
		default:
			return t, false
		}
	}
	return t, true
}

// windowBits reads a decimal integer from 8 to 15 without leading zeros (section 7.1.2).
func windowBits(value []byte) (uint8, bool) {
	switch {
	case len(value) == 1 && (value[0] == '8' || value[0] == '9'):
		return value[0] - '0', true
	case len(value) == 2 && value[0] == '1' && '0' <= value[1] && value[1] <= '5':
		return 10 + value[1] - '0', true
	}
	return 0, false
}

// Deflate chooses the first of the client's offers of permessage-deflate that can be accepted to the letter (RFC 7692
// section 5.1), and appends the answer, a value for Sec-WebSocket-Extensions, to dst. ok is false when there is none, or c's
// mode is deflate.Off: dst is returned as it was, and the connection goes without. CheckUpgrade must have returned nil.
//
// Every window that a client may ask for is honoured, so that an offer is declined for being malformed only. Other
// extensions are passed over.
func (r *Request) Deflate(dst []byte, c Compression) (p deflate.Params, answer []byte, ok bool) {
	if c.Mode == deflate.Off {
		return p, dst, false
	}
	for e := range r.Extensions() {
		if string(e.Name) != deflate.Name {
			continue
		}
		if offer, ok := parseTerms(e); ok {
			p, answer = c.accept(dst, offer)
			return p, answer, true
		}
	}
	return p, dst, false
}

// accept answers an offer. What was asked of the server is granted by saying so (7.1.1.1, 7.1.2.1); the client may be told
// to begin every message anew in any case (7.1.1.2), but to keep to a window only if it said that it can (7.1.2.2).
func (c Compression) accept(dst []byte, offer terms) (p deflate.Params, answer []byte) {
	p = deflate.Params{
		ServerNoContextTakeover: c.Mode == deflate.Shared || offer.serverNoTakeover,
		ClientNoContextTakeover: c.Mode == deflate.Shared || offer.clientNoTakeover,
		ServerMaxWindowBits:     deflate.MaxWindowBits,
		ClientMaxWindowBits:     deflate.MaxWindowBits,
	}
	if offer.serverWindow > 0 {
		p.ServerMaxWindowBits = offer.serverWindow
	}
	// The client's window is of interest only where it is kept.
	if !p.ClientNoContextTakeover {
		switch {
		case offer.clientWindow > 0:
			p.ClientMaxWindowBits = min(offer.clientWindow, c.WindowBits)
		case offer.clientWindowAny:
			p.ClientMaxWindowBits = c.WindowBits
		case c.WindowBits < deflate.MaxWindowBits:
			p.ClientNoContextTakeover = true
		}
	}
	answer = append(dst, deflate.Name...)
	if p.ServerNoContextTakeover {
		answer = append(answer, "; "+serverNoTakeover...)
	}
	if p.ClientNoContextTakeover {
		answer = append(answer, "; "+clientNoTakeover...)
	}
	if offer.serverWindow > 0 {
		answer = append(answer, "; "+serverWindow+"="...)
		answer = strconv.AppendUint(answer, uint64(p.ServerMaxWindowBits), 10)
	}
	if p.ClientMaxWindowBits < deflate.MaxWindowBits {
		answer = append(answer, "; "+clientWindow+"="...)
		answer = strconv.AppendUint(answer, uint64(p.ClientMaxWindowBits), 10)
	}
	return p, answer
}

// Offer returns what a client offers, a value for Sec-WebSocket-Extensions: empty with deflate.Off.
func (c Compression) Offer() string {
	switch c.Mode {
	case deflate.Shared:
		return deflate.Name + "; " + serverNoTakeover + "; " + clientNoTakeover + "; " + clientWindow
	case deflate.Takeover:
		if c.WindowBits < deflate.MaxWindowBits {
			return deflate.Name + "; " + serverWindow + "=" + strconv.Itoa(int(c.WindowBits)) + "; " + clientWindow
		}
		return deflate.Name + "; " + clientWindow
	case deflate.Off:
	}
	return ""
}

// errDeflate: section 7.1, the client must fail the connection.
var errDeflate = &ResponseError{"permessage-deflate was not agreed to as it was offered"}

// Deflate reads what the server answered to c.Offer, in a response for which Parse returned nil. ok is false when it goes
// without compression. err, a *ResponseError, is an answer that the offer does not allow: the connection must be failed
// (RFC 7692 sections 5.1 and 7.1).
func (r *Response) Deflate(c Compression) (p deflate.Params, ok bool, err error) {
	for e := range r.Extensions() {
		if string(e.Name) != deflate.Name {
			continue
		}
		t, wellFormed := parseTerms(e)
		switch {
		case ok, !wellFormed, c.Mode == deflate.Off, // a second one; what is no parameter; not offered
			t.clientWindowAny, // 7.1.2.2: in an answer it has a value
			c.Mode == deflate.Shared && !t.serverNoTakeover,         // 7.1.1.1: granted by saying so
			c.Mode == deflate.Takeover && c.exceeds(t.serverWindow): // 7.1.2.1: the same value or a smaller one
			return deflate.Params{}, false, errDeflate
		}
		ok = true
		p = deflate.Params{
			ServerNoContextTakeover: t.serverNoTakeover,
			ClientNoContextTakeover: t.clientNoTakeover || c.Mode == deflate.Shared,
			ServerMaxWindowBits:     deflate.MaxWindowBits,
			ClientMaxWindowBits:     deflate.MaxWindowBits,
		}
		if t.serverWindow > 0 {
			p.ServerMaxWindowBits = t.serverWindow
		}
		if t.clientWindow > 0 {
			p.ClientMaxWindowBits = t.clientWindow
		}
	}
	return p, ok, nil
}

// exceeds reports whether an answered window, 0 for none, is larger than the one that was asked for.
func (c Compression) exceeds(answered uint8) bool {
	return c.WindowBits < deflate.MaxWindowBits && (answered == 0 || answered > c.WindowBits)
}
