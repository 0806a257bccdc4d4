package frame

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// NoStatus is the code that stands for a Close frame without a body (RFC 6455 section 7.1.5). It never is on the wire.
const NoStatus = 1005

// ValidSendCode reports whether code may stand in a Close frame (RFC 6455 section 7.4, IANA's registry; L1.7):
//
//	1000-1003  1004 is reserved; 1005 and 1006 only describe a frame that was not there
//	1007-1014  1012-1014 by the registry; 1015 describes a failed TLS handshake
//	3000-4999  3000-3999 for libraries and frameworks, 4000-4999 for private use
//
// A code that may not be sent is a protocol error when it is received.
func ValidSendCode(code int) bool {
	return 1000 <= code && code <= 1003 || 1007 <= code && code <= 1014 || 3000 <= code && code <= 4999
}

// AppendCloseBody appends the payload of a Close frame to dst and returns the extended slice (RFC 6455 section 5.5.1).
//
// NoStatus appends nothing: the empty body is how that is said, and what a Close frame without a status is answered
// with. With any other code ValidSendCode must hold, else AppendCloseBody panics: who takes codes from outside checks
// them first (L1.7).
//
// The reason goes out as valid UTF-8 of at most MaxCloseReason bytes, for it is a courtesy and no reason to fail: every
// byte of it that is not part of valid UTF-8 becomes U+FFFD (which takes three), and it is cut before the first code
// point that does not fit.
func AppendCloseBody(dst []byte, code uint16, reason string) []byte {
	if code == NoStatus {
		return dst
	}
	if !ValidSendCode(int(code)) {
		panic(fmt.Sprintf("frame: close code %d must not be sent", code))
	}
	dst = binary.BigEndian.AppendUint16(dst, code)
	room := MaxCloseReason
	for _, c := range reason { // yields U+FFFD for each invalid byte
		n := utf8.RuneLen(c)
		if n > room {
			break
		}
		dst = utf8.AppendRune(dst, c)
		room -= n
	}
	return dst
}

// ParseCloseBody reads the payload of a Close frame that a Reader delivered. reason points into p: borrowed as long as
// p is.
//
// An empty body gives NoStatus. On error, a *Error, code is 0 and reason nil; the connection is to be failed with the
// error's code.
func ParseCloseBody(p []byte) (code uint16, reason []byte, err error) {
	switch len(p) {
	case 0:
		return NoStatus, nil, nil // 7.1.5
	case 1:
		return 0, nil, ErrCloseBodyLength // 5.5.1: if there is a body, its first two bytes MUST be the code
	}
	code = binary.BigEndian.Uint16(p)
	if !ValidSendCode(int(code)) {
		return 0, nil, ErrCloseCode // 7.4.1, 7.4.2
	}
	reason = p[2:]
	if !utf8.Valid(reason) {
		return 0, nil, ErrCloseReason // 5.5.1: UTF-8-encoded data; 8.1
	}
	return code, reason, nil
}
