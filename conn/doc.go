// Package conn is one WebSocket connection: state machine, handshake, heartbeat, close, in both roles.
//
// A Registry holds the connections of one loop in a slab of slots; a Server (the accepting role) or a Dialer (the
// client role, used by the load generator and by tests) owns one Registry per loop. Nothing here knows the MQ protocol:
// messages, openings and ends are handed to a Handler.
package conn
