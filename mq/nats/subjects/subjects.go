package subjects

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// DefaultPrefix is the prefix when none is configured.
const DefaultPrefix = "mqgate"

// Names makes the names under one prefix. The zero Names is not valid: use New.
type Names struct {
	prefix string // of subjects: tokens with dots between them
	flat   string // of streams and buckets: the same with underscores
}

// New returns the names under a prefix: one or more tokens of letters, digits, "_" and "-" with dots between them.
func New(prefix string) (Names, error) {
	if len(prefix) > MaxPrefix || !validTokens(prefix) {
		return Names{}, fmt.Errorf("NATS subject prefix %q: expected up to %d bytes, tokens of letters, digits, \"_\" and \"-\" joined with dots",
			prefix, MaxPrefix)
	}
	return Names{prefix: prefix, flat: strings.ReplaceAll(prefix, ".", "_")}, nil
}

// ValidType reports whether a type of a message may become part of a subject: tokens of letters, digits, "_" and "-" with
// dots between them, at most MaxType bytes. Wildcards, empty tokens and white space are none.
func ValidType(typ string) bool { return len(typ) <= MaxType && validTokens(typ) }

func validTokens(s string) bool {
	start := true // of a token
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
			start = false
		case c == '.' && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

// Prefix returns the prefix of all subjects.
func (n Names) Prefix() string { return n.prefix }

// Request returns the subject of requests of a type, for which ValidType holds.
func (n Names) Request(typ string) string { return n.prefix + ".req." + typ }

// AllRequests returns the subject to which a worker for all types subscribes.
func (n Names) AllRequests() string { return n.prefix + ".req.>" }

// RequestType returns the type of a request from the subject that it came on.
func (n Names) RequestType(subject string) (string, bool) {
	return strings.CutPrefix(subject, n.prefix+".req.")
}

// Workers is the queue group of workers.
const Workers = "workers"

// NodeToken returns the number of a gateway as it stands in subjects and keys: eight hexadecimal digits.
func NodeToken(node uint32) string { return fmt.Sprintf("%08x", node) }

// Replies returns the beginning of the subjects to which a gateway gets its replies: what follows is one token.
func (n Names) Replies(node uint32) string { return n.prefix + ".re." + NodeToken(node) + "." }

// Command is what a worker may tell a gateway: the last token of the subject.
type Command string

// The commands of a gateway.
const (
	CommandEvent          Command = "event"
	CommandRequest        Command = "request"
	CommandClose          Command = "close"
	CommandUnsubscribe    Command = "unsubscribe"
	CommandUnsubscribeAll Command = "unsubscribe-all"
	CommandBind           Command = "bind"
)

// Gateway returns the subject of a command to a gateway.
func (n Names) Gateway(node uint32, c Command) string {
	return n.prefix + ".gw." + NodeToken(node) + "." + string(c)
}

// AllCommands returns the subject to which a gateway subscribes for its commands.
func (n Names) AllCommands(node uint32) string { return n.prefix + ".gw." + NodeToken(node) + ".*" }

// SessionCheck returns the subject on which a gateway asks whether its sessions still hold.
func (n Names) SessionCheck() string { return n.prefix + ".sess.check" }

// RoomToken returns what stands for a room in subjects and keys: the room id in base64url without padding, or, when that
// would be above MaxRoomToken bytes, "=" and the SHA-256 of the id in base64url. ("=" may stand in keys of buckets and
// never begins the other form.)
func RoomToken(room string) string {
	if n := base64.RawURLEncoding.EncodedLen(len(room)); n <= MaxRoomToken {
		return base64.RawURLEncoding.EncodeToString([]byte(room))
	}
	sum := sha256.Sum256([]byte(room))
	return "=" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Log returns the subject of a room's log in the stream Rooms. room is not empty.
func (n Names) Log(room string) string { return n.LogOf(RoomToken(room)) }

// LogOf is Log by RoomToken.
func (n Names) LogOf(token string) string { return n.prefix + ".log." + token }

// AllLogs returns the subject of all logs.
func (n Names) AllLogs() string { return n.prefix + ".log.*" }

// Room returns the subject on which gateways hear what happens in a room: records of its log, published again by the
// stream, and plain events. room is not empty.
func (n Names) Room(room string) string { return n.RoomOf(RoomToken(room)) }

// RoomOf is Room by RoomToken.
func (n Names) RoomOf(token string) string { return n.prefix + ".room." + token }

// TokenOfRoom returns the RoomToken from a subject that Room or RoomOf made.
func (n Names) TokenOfRoom(subject string) (string, bool) {
	return strings.CutPrefix(subject, n.prefix+".room.")
}

// Disconnected returns the subject to which a gateway publishes the ends of its connections.
func (n Names) Disconnected(node uint32) string { return n.prefix + ".disconnected." + NodeToken(node) }

// AllDisconnected returns the subject of all of them.
func (n Names) AllDisconnected() string { return n.prefix + ".disconnected.*" }

// RoomsStream returns the name of the stream with the logs of all rooms.
func (n Names) RoomsStream() string { return n.flat + "_rooms" }

// DisconnectedStream returns the name of the stream with the ends of connections.
func (n Names) DisconnectedStream() string { return n.flat + "_disconnected" }

// SessionsBucket returns the name of the bucket session id -> record of the session.
func (n Names) SessionsBucket() string { return n.flat + "_sessions" }

// AliasesBucket returns the name of the bucket alias -> room id.
func (n Names) AliasesBucket() string { return n.flat + "_aliases" }

// SnapshotsBucket returns the name of the bucket RoomToken -> state of the room.
func (n Names) SnapshotsBucket() string { return n.flat + "_snapshots" }

// GatewaysBucket returns the name of the bucket NodeToken -> lease of the gateway.
func (n Names) GatewaysBucket() string { return n.flat + "_gateways" }

// ConnsBucket returns the name of the bucket NodeToken.connection -> session id.
func (n Names) ConnsBucket() string { return n.flat + "_conns" }

// LeaderElected returns the subject on which the servers say that a stream has a new leader.
func LeaderElected(stream string) string { return "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED." + stream }
