package record

import (
	"errors"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// Event is an event to the subscribers of one topic of the room.
type Event struct {
	Topic   mq.TopicKind
	Type    string // e.g. "chat.RoomEvent"; not empty
	Payload []byte
}

// Record is one change of a room.
type Record struct {
	Events []Event
	Delta  []byte
	End    bool
}

// Why bytes are no record, besides wire.ErrTruncated, wire.ErrFieldNumber and wire.ErrWireType. Unmarshal wraps them with the
// place.
var (
	ErrTopic = errors.New("unknown topic")
	ErrType  = errors.New("type of the event is empty or not UTF-8")
)

const (
	fieldEvent, fieldDelta, fieldEnd           = 1, 2, 3
	fieldTopic, fieldEventType, fieldEventData = 1, 2, 3
)

func (e *Event) size() int {
	n := 0
	if e.Topic != 0 {
		n += 1 + protowire.SizeVarint(uint64(e.Topic))
	}
	n += 1 + protowire.SizeBytes(len(e.Type))
	if len(e.Payload) > 0 {
		n += 1 + protowire.SizeBytes(len(e.Payload))
	}
	return n
}

// Size returns how many bytes AppendTo appends.
func (r *Record) Size() int {
	n := 0
	for i := range r.Events {
		n += 1 + protowire.SizeBytes(r.Events[i].size())
	}
	if len(r.Delta) > 0 {
		n += 1 + protowire.SizeBytes(len(r.Delta))
	}
	if r.End {
		n += 2
	}
	return n
}

// AppendTo appends the record to b, which it returns. It keeps nothing. The types of the events must be UTF-8 and not
// empty: Unmarshal refuses others.
func (r *Record) AppendTo(b []byte) []byte {
	for i := range r.Events {
		e := &r.Events[i]
		b = protowire.AppendTag(b, fieldEvent, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(e.size()))
		if e.Topic != 0 {
			b = protowire.AppendTag(b, fieldTopic, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(e.Topic))
		}
		b = protowire.AppendTag(b, fieldEventType, protowire.BytesType)
		b = protowire.AppendString(b, e.Type)
		if len(e.Payload) > 0 {
			b = protowire.AppendTag(b, fieldEventData, protowire.BytesType)
			b = protowire.AppendBytes(b, e.Payload)
		}
	}
	if len(r.Delta) > 0 {
		b = protowire.AppendTag(b, fieldDelta, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Delta)
	}
	if r.End {
		b = protowire.AppendTag(b, fieldEnd, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

// Unmarshal reads a record. Everything in r is a view of b: good until b changes. The memory of r.Events is used again.
// After an error r holds nothing that means anything.
func (r *Record) Unmarshal(b []byte) error {
	*r = Record{Events: r.Events[:0]}
	f := wire.NewFields("record", b)
	for f.Next() {
		switch f.Num() {
		case fieldEvent:
			var e Event
			if b := f.Bytes(); f.Err() == nil {
				f.Fail(e.unmarshal(b))
			}
			r.Events = append(r.Events, e)
		case fieldDelta:
			r.Delta = f.Bytes()
		case fieldEnd:
			r.End = f.Flag()
		default: // of a newer worker
			f.Skip()
		}
	}
	return f.Err()
}

func (e *Event) unmarshal(b []byte) error {
	f := wire.NewFields("event", b)
	for f.Next() {
		switch f.Num() {
		case fieldTopic:
			v := f.Uint64()
			if v > uint64(mq.TopicConversation) {
				f.Fail(ErrTopic)
			}
			e.Topic = mq.TopicKind(v)
		case fieldEventType:
			b := f.Bytes()
			e.Type = unsafe.String(unsafe.SliceData(b), len(b))
		case fieldEventData:
			e.Payload = f.Bytes()
		default: // of a newer worker
			f.Skip()
		}
	}
	if f.Err() == nil && (e.Type == "" || !utf8.ValidString(e.Type)) {
		return ErrType
	}
	return f.Err()
}
