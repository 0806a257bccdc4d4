package record

import (
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mqgate/mqgate/mq"
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

// Why bytes are no record. Unmarshal wraps them with the place.
var (
	ErrTruncated = errors.New("cut off, a length beyond the end, or no field number")
	ErrWireType  = errors.New("wrong wire type")
	ErrTopic     = errors.New("unknown topic")
	ErrType      = errors.New("type of the event is empty or not UTF-8")
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
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		b = rest
		switch f.num {
		case fieldEvent:
			var e Event
			if err = f.is(protowire.BytesType); err == nil {
				err = e.unmarshal(f.bytes)
			}
			r.Events = append(r.Events, e)
		case fieldDelta:
			err = f.is(protowire.BytesType)
			r.Delta = f.bytes
		case fieldEnd:
			err = f.is(protowire.VarintType)
			r.End = f.varint != 0
		default: // of a newer worker
		}
		if err != nil {
			return fmt.Errorf("record field %d: %w", f.num, err)
		}
	}
	return nil
}

func (e *Event) unmarshal(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.num {
		case fieldTopic:
			if err = f.is(protowire.VarintType); err == nil && f.varint > uint64(mq.TopicConversation) {
				err = ErrTopic
			}
			e.Topic = mq.TopicKind(f.varint)
		case fieldEventType:
			err = f.is(protowire.BytesType)
			e.Type = unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes))
		case fieldEventData:
			err = f.is(protowire.BytesType)
			e.Payload = f.bytes
		default: // of a newer worker
		}
		if err != nil {
			return fmt.Errorf("field %d: %w", f.num, err)
		}
	}
	if e.Type == "" || !utf8.ValidString(e.Type) {
		return ErrType
	}
	return nil
}

// field is one field of a message: its value is in varint or bytes, by its wire type, or passed over.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	varint uint64
	bytes  []byte
}

func (f *field) is(typ protowire.Type) error {
	if f.typ != typ {
		return ErrWireType
	}
	return nil
}

// next reads the first field of b and returns what follows it.
func next(b []byte) (f field, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num > protowire.MaxValidNumber {
		return f, nil, ErrTruncated
	}
	f.num, f.typ, b = num, typ, b[n:]
	switch typ {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	case protowire.Fixed32Type, protowire.Fixed64Type:
		n = protowire.ConsumeFieldValue(num, typ, b)
	case protowire.StartGroupType, protowire.EndGroupType: // no message of ours has groups, and they nest without bound
		return f, nil, ErrWireType
	default: // 6 and 7 do not exist
		return f, nil, ErrWireType
	}
	if n < 0 {
		return f, nil, ErrTruncated
	}
	return f, b[n:], nil
}
