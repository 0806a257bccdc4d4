package frame

import "testing"

// L1.6: protocol error → 1002, bad UTF-8 → 1007, too big → 1009.
func TestErrors(t *testing.T) {
	seen := map[string]bool{}
	for e, code := range map[*Error]uint16{
		ErrReservedBits: 1002, ErrReservedOpCode: 1002, ErrControlFragmented: 1002, ErrControlTooLong: 1002, ErrUnexpectedContinuation: 1002,
		ErrExpectedContinuation: 1002, ErrMaskRequired: 1002, ErrMaskForbidden: 1002, ErrLengthNotMinimal: 1002, ErrLengthTopBit: 1002,
		ErrTooBig: 1009, ErrInvalidUTF8: 1007, ErrCloseBodyLength: 1002, ErrCloseCode: 1002, ErrCloseReason: 1007,
	} {
		if e.Code != code || !ValidSendCode(int(e.Code)) {
			t.Errorf("%v: code %d, expected %d", e, e.Code, code)
		}
		if e.Text == "" || len(e.Text) > MaxCloseReason || seen[e.Text] {
			t.Errorf("%v: text %q does not serve as a close reason of its own", e, e.Text)
		}
		seen[e.Text] = true
		if e.sticky == nil || e.sticky.failed != e {
			t.Errorf("%v does not stick", e)
		}
	}
	if got, want := ErrTooBig.Error(), "websocket: message too big (1009)"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}
