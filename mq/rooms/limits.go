package rooms

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what clients can make the worker keep and do. Everything that would go above one of them is refused with
// status "capacity" and changes nothing, except that history drops its oldest messages.
//
// Worst case of memory, if every client does its worst (the defaults in parentheses):
//
//	rooms    Rooms * (HistoryBytes + RoomBytes + 1 KiB)          10,000 * (64 + 8 + 1) KiB      = 713 MiB
//	members  Sessions * RoomsPerSession * (MemberBytes + 256 B)   per session 16 * 4.25 KiB      = 68 KiB
//	sessions Sessions * 512 B                                     per session                    = 0.5 KiB
//
// A well-behaved session in one room takes about 1 KiB.
type Limits struct {
	// Sessions is the number of sessions at one time, those of lost connections that may still come back included.
	// Stops: authenticating for ever, dropping the connection each time.
	Sessions int

	// Rooms is the number of rooms at one time. Stops: creating rooms for ever.
	Rooms int

	// MembersPerRoom is the number of members of one room. Every one of them gets every event, and every joiner gets
	// the whole list: the cost of filling a room grows with its square. Stops: one room that takes all the bandwidth.
	MembersPerRoom int

	// RoomsPerSession is the number of rooms one session can be in. Stops: one client that is everywhere.
	RoomsPerSession int

	// HistoryMessages and HistoryBytes [bytes, encoded] bound the conversation that a room keeps. Beyond them the oldest
	// messages go. Stops: memory that grows with every message.
	HistoryMessages int
	HistoryBytes    int

	// HistoryAge is how long a message can be fetched. A room that nobody speaks in lets go of the memory with the next
	// message. 0: as long as the other two limits leave it. Stops: keeping what people said longer than they expect.
	HistoryAge time.Duration

	// RequestBytes is the length of a request's payload [bytes]. Stops: a small message that decodes into a large one
	// (an element of a list takes two bytes on the wire and up to 72 in memory).
	RequestBytes int

	// MessageBytes is the length of one chat message's text [bytes of UTF-8]. Stops: filling history, and everyone's
	// bandwidth, with one request.
	MessageBytes int

	// NameBytes is the length of a room's id, alias and name and of a member's screen name [bytes each].
	// Stops: long keys in every event and every log line.
	NameBytes int

	// RoomBytes and MemberBytes are the lengths of an encoded chat.Room (with description, options, pin, ...) and
	// chat.Member (with streams) [bytes]. Stops: carrying data in what every joiner gets for every member.
	RoomBytes   int
	MemberBytes int
}

// DefaultLimits suit a gateway of some ten thousand clients in rooms on a machine with a few GiB of memory.
func DefaultLimits() Limits {
	return Limits{
		Sessions:        1_000_000,
		Rooms:           10_000,
		MembersPerRoom:  5_000,
		RoomsPerSession: 16,
		HistoryMessages: 1_000,
		HistoryBytes:    64 << 10,
		HistoryAge:      24 * time.Hour,
		RequestBytes:    64 << 10,
		MessageBytes:    16 << 10,
		NameBytes:       256,
		RoomBytes:       8 << 10,
		MemberBytes:     4 << 10,
	}
}

// messageOverhead is what a kept message takes beside its text and its author's screen name [bytes]: id, timestamps,
// session id, role, tags and lengths.
const messageOverhead = 128

// maxGrace and maxTTL are the longest durations that make sense; more is taken for a slip of the unit.
const (
	maxGrace      = time.Hour
	maxTTL        = 30 * 24 * time.Hour
	maxHistoryAge = 10 * 365 * 24 * time.Hour
)

// oldest returns the id of the oldest message that may be there at the time now [both us since 1970].
func (l *Limits) oldest(nowMicros uint64) uint64 {
	age := uint64(l.HistoryAge.Microseconds())
	if age == 0 || age > nowMicros {
		return 0
	}
	return nowMicros - age
}

// barTime is how long a bar keeps late joins out [ms]. It must be longer than a store tries to do an operation, and may
// be longer by any difference of the workers' clocks.
const barTime = 60_000

// validate returns all faults, each naming the field, its value and what is allowed.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("rooms: "+format, args...)) }
	between := func(name string, v, low, high int) {
		if v < low || v > high {
			fault("%s is %d, must be between %d and %d", name, v, low, high)
		}
	}
	l := &c.Limits
	between("Limits.Sessions", l.Sessions, 1, 1<<30)
	between("Limits.Rooms", l.Rooms, 1, 1<<24)
	between("Limits.MembersPerRoom", l.MembersPerRoom, 1, 1<<20)
	between("Limits.RoomsPerSession", l.RoomsPerSession, 1, 1024)
	between("Limits.HistoryMessages", l.HistoryMessages, 1, 1<<20)
	between("Limits.HistoryBytes", l.HistoryBytes, 1, 1<<30)
	between("Limits.RequestBytes", l.RequestBytes, 256, 16<<20)
	between("Limits.MessageBytes", l.MessageBytes, 1, 16<<20)
	between("Limits.NameBytes", l.NameBytes, 1, 4096)
	between("Limits.RoomBytes", l.RoomBytes, 1, 1<<20)
	between("Limits.MemberBytes", l.MemberBytes, 1, 1<<20)
	if need := l.MessageBytes + l.NameBytes + messageOverhead; l.HistoryBytes < need {
		fault("Limits.HistoryBytes is %d, must be at least %d to hold one message (MessageBytes + NameBytes + %d)",
			l.HistoryBytes, need, messageOverhead)
	}
	for name, v := range map[string]int{"MessageBytes": l.MessageBytes, "RoomBytes": l.RoomBytes, "MemberBytes": l.MemberBytes} {
		if l.RequestBytes < v {
			fault("Limits.RequestBytes is %d, must be at least Limits.%s, which is %d", l.RequestBytes, name, v)
		}
	}
	if c.ReenterGrace < 0 || c.ReenterGrace > maxGrace {
		fault("ReenterGrace is %v, must be between 0 and %v", c.ReenterGrace, maxGrace)
	}
	if l.HistoryAge != 0 && l.HistoryAge < time.Second || l.HistoryAge > maxHistoryAge {
		fault("Limits.HistoryAge is %v, must be 0 (for ever) or between %v and %v", l.HistoryAge, time.Second, maxHistoryAge)
	}
	if c.EmptyRoomTTL < 0 || c.EmptyRoomTTL > maxTTL {
		fault("EmptyRoomTTL is %v, must be between 0 (never) and %v", c.EmptyRoomTTL, maxTTL)
	}
	if c.Authenticator == nil {
		fault("Authenticator is missing")
	}
	return errors.Join(faults...)
}
