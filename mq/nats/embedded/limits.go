package embedded

import "time"

// Limits of the server that are no flags: value, unit, and what each is against.
const (
	// MaxPayload bounds a message [bytes]. The largest request of a client (--max-message-bytes) and the largest record
	// of a room must fit with their headers; nats-server's own 1 MiB would refuse a message of 1 MiB.
	MaxPayload = 8 << 20

	// readyTimeout is how long the server may take until it accepts connections [time]. It reads its store before that.
	readyTimeout = 60 * time.Second

	// writeDeadline is how long a client of the server may leave what is sent to it unread before it is cut off.
	writeDeadline = 10 * time.Second
)
