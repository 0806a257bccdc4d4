package frame

import "strconv"

// Close codes with which this package fails a connection (RFC 6455 section 7.4.1).
const (
	codeProtocolError uint16 = 1002
	codeInvalidData   uint16 = 1007
	codeTooBig        uint16 = 1009
)

// Error is a breach of the protocol by the peer. There is a fixed set of them, the Err variables below: compare by
// identity, never change one. As an error it is always a *Error.
type Error struct {
	Code uint16 // the status code to close with: 1002, 1007 or 1009
	Text string // what was wrong, in plain words without any of the peer's bytes: fit for a log or a close reason

	// sticky is the state in which this error leaves a Reader. It is shared by all Readers that failed with it, and
	// read-only: so a failed Reader holds no memory of its own.
	sticky *state
}

// Error implements error.
func (e *Error) Error() string {
	return "websocket: " + e.Text + " (" + strconv.Itoa(int(e.Code)) + ")"
}

func newError(code uint16, text string) *Error {
	e := &Error{Code: code, Text: text}
	e.sticky = &state{failed: e}
	return e
}

// All the errors of this package. The section of RFC 6455 is the one that is broken.
var (
	ErrReservedBits           = newError(codeProtocolError, "reserved bits set")                          // 5.2
	ErrReservedOpCode         = newError(codeProtocolError, "reserved opcode")                            // 5.2
	ErrControlFragmented      = newError(codeProtocolError, "control frame fragmented")                   // 5.5
	ErrControlTooLong         = newError(codeProtocolError, "control frame longer than 125 bytes")        // 5.5
	ErrUnexpectedContinuation = newError(codeProtocolError, "continuation without a message to continue") // 5.4
	ErrExpectedContinuation   = newError(codeProtocolError, "new message inside a fragmented one")        // 5.4
	ErrMaskRequired           = newError(codeProtocolError, "frame from a client not masked")             // 5.1
	ErrMaskForbidden          = newError(codeProtocolError, "frame from a server masked")                 // 5.1
	ErrLengthNotMinimal       = newError(codeProtocolError, "payload length not in its shortest form")    // 5.2
	ErrLengthTopBit           = newError(codeProtocolError, "top bit of a 64-bit payload length set")     // 5.2
	ErrTooBig                 = newError(codeTooBig, "message too big")                                   // 7.4.1
	ErrInvalidUTF8            = newError(codeInvalidData, "invalid UTF-8 in a text message")              // 8.1
	ErrDeflate                = newError(codeInvalidData, "invalid compressed message")                   // RFC 7692 7.2.2
	ErrCloseBodyLength        = newError(codeProtocolError, "close body of one byte")                     // 5.5.1
	ErrCloseCode              = newError(codeProtocolError, "close code that must not be sent")           // 7.4
	ErrCloseReason            = newError(codeInvalidData, "invalid UTF-8 in a close reason")              // 5.5.1, 8.1
)
