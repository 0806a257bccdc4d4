package frame

import (
	"errors"
	"fmt"
)

// Limits that the protocol sets. Lengths in bytes.
const (
	// MaxHeader is the longest frame header: 2 + 8 (64-bit length) + 4 (masking key), RFC 6455 section 5.2.
	MaxHeader = 14

	// MaxControlPayload is the longest payload of a control frame, RFC 6455 section 5.5. It is also all that a partial
	// control frame can make a Reader keep.
	MaxControlPayload = 125

	// MaxCloseReason is the longest reason of a Close frame: its payload less the two bytes of the code, section 5.5.1.
	MaxCloseReason = MaxControlPayload - 2
)

// Limits of memory, chosen here. The attack in mind: a million connections that each announce a message of the largest
// size and then send next to nothing. Memory must follow the bytes that arrived, not the bytes that were announced.
//
// The most that one connection can hold in a Reader, bytes of payload of the partial message received so far = b:
//
//	192                       the state (stateSize), from the first byte of a partial frame on
//	 24                       the header of the buffer, from the first kept byte of a data payload on
//	max(256, 2*b - 1)         the buffer: minBuffer, or the power of two that holds b
//	0 while no frame is partial and no fragmented message is open, and after an error
//
// b is at most Config.MaxMessage. While a buffer grows, the old one (half as large) exists beside the new one for the
// time of a copy.
//
// Of a message that is inflated as it comes (Config.Inflate), b is what its bytes so far inflated to, which is up to 1032
// times as much as came, or at first inflateGuess times what came with the first of it; and 3.7 KiB more
// (deflate.InflaterMemory) until it is complete. So such an attacker pays a thousandth, and MaxMessage is what holds.
const (
	// minBuffer is the smallest buffer, in bytes. Small, since it is what the attacker above gets for one byte; not
	// smaller, since a quarter of a kilobyte holds most requests that happen to be cut by the end of a read.
	minBuffer = 1 << minBufferBits
	// maxPooledBuffer is the largest buffer that is kept for reuse, in bytes; larger ones are left to the garbage
	// collector. It is where the statistics of bytebufferpool end (64 bytes << 19).
	maxPooledBuffer = 1 << maxPooledBits

	minBufferBits = 8
	maxPooledBits = 25

	// inflateGuess is how many times as long as its compressed bytes a message is taken to be when its buffer is chosen:
	// about what chat in JSON comes to. A guess too low costs copies, one too high memory.
	inflateGuess = 4

	// packedSlack is by how many bytes, together with an eighth of MaxMessage, a compressed message may be longer than
	// what it may inflate to: DEFLATE makes noise longer by some bytes in 64 KiB, and a sender that flushes often by five
	// each time. Against: a message without end, that inflates to nothing.
	packedSlack = 1 << 10
)

// Role says which end of the connection we are (RFC 6455 section 5.1).
type Role uint8

const (
	// RoleServer: frames from the peer must be masked, ours are not. The zero value.
	RoleServer Role = iota
	// RoleClient: frames from the peer must not be masked, ours are.
	RoleClient
)

// Config is what a Reader must know. There is one per endpoint, shared by all its connections, from any goroutine; it
// must not change while one of them lives.
type Config struct {
	// Role is our end of the connection.
	Role Role

	// AllowRSV1 lets the first reserved bit pass on the first frame of a message, for permessage-deflate (RFC 7692
	// section 6); Message.RSV1 reports it. A message with the bit is delivered as it came, its UTF-8 unchecked, unless
	// Inflate is set.
	AllowRSV1 bool

	// Inflate has messages with the first reserved bit inflated as they arrive: their UTF-8 and their size are checked
	// with each byte. For connections that have agreed on permessage-deflate; it needs AllowRSV1.
	Inflate bool

	// MaxMessage is the longest message accepted, in bytes of payload over all its frames: after inflating with Inflate,
	// else as it came. More than 0. Control frames have their own limit and are not measured by it.
	MaxMessage int
}

// maxPacked is the longest compressed payload that a message to be inflated may have, over all its frames [bytes]; below 0,
// which lets not even an empty frame through, with a limit that is not valid.
func (c *Config) maxPacked() int {
	if c.MaxMessage <= 0 {
		return -1
	}
	return c.MaxMessage + c.MaxMessage/8 + packedSlack
}

// Validate reports everything that is wrong with c, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	if c.Role > RoleClient {
		errs = append(errs, fmt.Errorf("frame: Role is %d, must be RoleServer (0) or RoleClient (1)", c.Role))
	}
	if c.MaxMessage <= 0 {
		errs = append(errs, fmt.Errorf("frame: MaxMessage is %d bytes, must be at least 1", c.MaxMessage))
	}
	if c.Inflate && !c.AllowRSV1 {
		errs = append(errs, errors.New("frame: Inflate needs AllowRSV1"))
	}
	return errors.Join(errs...)
}
