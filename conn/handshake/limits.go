package handshake

// Limits. The caller may pass another number of bytes to Scan; the others are properties of the design.
const (
	// MaxRequest is the usual limit of request line and header lines together, with the empty line [bytes] (L2.7).
	// Browsers send 0.5 to 2 KiB, cookies included, and most servers draw the line at 8 KiB. Against: memory held by
	// clients that never finish, MaxRequest x connections in handshake at most.
	MaxRequest = 8 << 10

	// MaxResponse is the same for the server's answer, read by the client [bytes].
	MaxResponse = 8 << 10

	// MaxHeaderLines is the number of header lines of a request or response. Against: quadratic work by lookups among
	// thousands of tiny lines. It makes Fields 832 bytes, of which a loop needs one.
	MaxHeaderLines = 100

	// MaxBlock is what a header block may never exceed, whatever the caller's limit [bytes]: Fields has 16 bits for a
	// position.
	MaxBlock = 1<<16 - 1

	// KeyLen is the length of a Sec-WebSocket-Key: 16 bytes as base64 (RFC 6455 section 4.1).
	KeyLen = 24

	// AcceptLen is the length of a Sec-WebSocket-Accept: a SHA-1 as base64.
	AcceptLen = 28
)
