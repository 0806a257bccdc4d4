package rooms

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// messageIDLen is the length of a message's id: the microseconds since 1970 with leading zeros, so that ids sort as
// strings the way they were given out, which clients rely on. It is enough until the year 2286.
const messageIDLen = 16

// appendMessageID appends the text form of id.
func appendMessageID(dst []byte, id uint64) []byte {
	var b [messageIDLen]byte
	for i := messageIDLen - 1; i >= 0; i-- {
		b[i] = byte('0' + id%10)
		id /= 10
	}
	return append(dst, b[:]...)
}

// parseMessageID reads the text form of an id.
func parseMessageID(s string) (id uint64, ok bool) {
	if len(s) != messageIDLen {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		id = id*10 + uint64(c-'0')
	}
	return id, true
}

// Send answers SendMessageToRoom. Only members may send. Id and timestamp are given out here, and the author is the
// member as the room knows it, whatever the client says. Messages have ascending ids.
func (r *Room) Send(session, text string, nowMicros uint64, limits *Limits, res *Result) {
	res.reset()
	self := r.index[session]
	if self == nil {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	if len(text) > limits.MessageBytes {
		res.refuse(wire.StatusCapacity)
		return
	}
	r.lastID = max(nowMicros, r.lastID+1)
	var id [messageIDLen]byte
	msg := wire.ChatMessage{
		MessageID: string(appendMessageID(id[:0], r.lastID)),
		Timestamp: r.lastID / 1000,
		From:      wire.ChatUser{SessionID: session, ScreenName: self.ScreenName, Role: self.Role, LastUpdate: self.LastUpdate},
		Message:   text,
	}
	res.Answer = msg.AppendTo(res.Answer[:0])
	encoded := slices.Clone(res.Answer)
	r.keep(kept{r.lastID, encoded}, limits)
	res.Messages = 1

	event := wire.RoomConversationEvent{SessionID: session, RoomID: r.info.RoomID, EventType: wire.ConversationMessage}
	res.emit(mq.TopicConversation, wire.TypeRoomConversationEvent, appendChatMessage(event.AppendTo(res.Event), 4, encoded))
	res.Status = wire.StatusOK
	res.Answer = (&wire.SendMessageToRoomResponse{Status: res.Status}).AppendTo(res.Answer[:0])
}

// keep adds a message to the history and drops the oldest ones beyond the limits.
func (r *Room) keep(k kept, limits *Limits) {
	r.history = append(r.history, k)
	r.historyBytes += len(k.msg)
	oldest := limits.oldest(k.id)
	drop := 0
	for len(r.history)-drop > limits.HistoryMessages || r.historyBytes > limits.HistoryBytes || r.history[drop].id < oldest {
		r.historyBytes -= len(r.history[drop].msg)
		if r.tx == nil {
			r.history[drop].msg = nil
		}
		drop++
	}
	if r.tx != nil {
		r.tx.dropped += drop
	}
	// Append moves the rest to the front of new memory once what was dropped has filled the old: amortised, a message
	// is moved once.
	r.history = r.history[drop:]
}

// appendChatMessage appends an encoded message as field num, the last field of the message around it.
func appendChatMessage(dst []byte, num protowire.Number, msg []byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return protowire.AppendBytes(dst, msg)
}

// Fetch answers FetchRoomConversation, for members only: in the order of their ids, the messages after one id and
// before another, at most limit of them. With an after those that follow it directly, else the latest. A limit of 0 is
// as many as there are. An id need not exist (any more): it is a place in the order. Whether the request subscribes is
// the gateway's business; the room has no part in it. What is too old at the time now [us since 1970] is not there.
func (r *Room) Fetch(session string, in *wire.FetchRoomConversation, nowMicros uint64, limits *Limits, res *Result) {
	res.reset()
	if r.index[session] == nil {
		res.refuse(wire.StatusNotInRoom)
		return
	}
	from, to := 0, len(r.history)
	find := func(id uint64) int {
		i, _ := slices.BinarySearchFunc(r.history, id, func(k kept, id uint64) int {
			switch {
			case k.id < id:
				return -1
			case k.id > id:
				return 1
			}
			return 0
		})
		return i
	}
	if in.AfterMessageID != "" {
		id, ok := parseMessageID(in.AfterMessageID)
		if !ok {
			res.refuse(wire.StatusFailed)
			return
		}
		from = find(id + 1)
	}
	if oldest := limits.oldest(nowMicros); oldest > 0 {
		from = max(from, find(oldest))
	}
	if in.BeforeMessageID != "" {
		id, ok := parseMessageID(in.BeforeMessageID)
		if !ok {
			res.refuse(wire.StatusFailed)
			return
		}
		to = max(find(id), from)
	}
	if limit := uint64(in.Limit); limit > 0 && uint64(to-from) > limit {
		if in.AfterMessageID != "" {
			to = from + int(limit)
		} else {
			from = to - int(limit)
		}
	}
	res.Status = wire.StatusOK
	res.Answer = (&wire.FetchRoomConversationResponse{Status: res.Status}).AppendTo(res.Answer)
	for _, k := range r.history[from:to] {
		res.Answer = appendChatMessage(res.Answer, 2, k.msg)
	}
}
