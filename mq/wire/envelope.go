package wire

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// MessageType says what an envelope carries.
type MessageType uint8

const (
	Request  MessageType = 0 // the default: not written
	Response MessageType = 1
	Event    MessageType = 2
)

func (t MessageType) String() string {
	switch t {
	case Request:
		return "Request"
	case Response:
		return "Response"
	case Event:
		return "Event"
	}
	return fmt.Sprintf("MessageType(%d)", uint8(t))
}

// Envelope is mq.Message. In a decoded one every string, and Payload, is a view of the decoded bytes: see the package
// comment for how long they live.
type Envelope struct {
	SessionID string // field 1; empty when absent
	RequestID string // field 2; empty when absent (events)
	Type      string // field 3; "package.Message", never empty after Unmarshal
	Encoding  string // field 4; empty when absent; no client was seen to set it
	Payload   []byte // field 5; the message named by Type, encoded; nil or empty when absent

	// WallTime is the time that handling a request took [ms]. The field is repeated (clients add their own measurement
	// in front); the first one on the wire counts, the others are checked for form and ignored.
	WallTime    float64
	HasWallTime bool // whether field 6 was there; when it is false AppendTo does not write WallTime

	MessageType MessageType // field 7
}

// Field numbers of mq.Message.
const (
	fieldSessionID   protowire.Number = 1
	fieldRequestID   protowire.Number = 2
	fieldType        protowire.Number = 3
	fieldEncoding    protowire.Number = 4
	fieldPayload     protowire.Number = 5
	fieldWallTime    protowire.Number = 6
	fieldMessageType protowire.Number = 7
)

// Errors of decoding. Errors of this package match one of them with errors.Is; those about an envelope are these very
// values, so that refusing garbage allocates nothing.
var (
	ErrTruncated   = errors.New("wire: truncated or overlong field")
	ErrWireType    = errors.New("wire: field with a wrong wire type")
	ErrFieldNumber = errors.New("wire: field number out of range")
	ErrEnum        = errors.New("wire: unknown enum value")
	ErrUTF8        = errors.New("wire: string is not UTF-8")
	ErrRange       = errors.New("wire: number out of range")
	ErrNoType      = errors.New("wire: envelope without a type")
)

// Unmarshal decodes b into e, replacing all of it. It allocates nothing and keeps b: the strings and the payload of e
// are views of b, valid until b changes. After an error e holds whatever had been read by then and must not be used.
// Errors: ErrTruncated, ErrWireType, ErrFieldNumber, ErrEnum, ErrUTF8, ErrNoType.
func (e *Envelope) Unmarshal(b []byte) error {
	*e = Envelope{}
	for len(b) > 0 {
		num, typ, n, err := consumeTag(b)
		if err != nil {
			return err
		}
		b = b[n:]
		switch num {
		case fieldSessionID, fieldRequestID, fieldType, fieldEncoding, fieldPayload:
			if typ != protowire.BytesType {
				return ErrWireType
			}
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return ErrTruncated
			}
			b = b[n:]
			if num == fieldPayload {
				e.Payload = v
				continue
			}
			if !utf8.Valid(v) {
				return ErrUTF8
			}
			s := view(v)
			switch num {
			case fieldSessionID:
				e.SessionID = s
			case fieldRequestID:
				e.RequestID = s
			case fieldType:
				e.Type = s
			default:
				e.Encoding = s
			}
		case fieldWallTime:
			var bits uint64
			n, has := 0, true
			switch typ {
			case protowire.Fixed64Type:
				bits, n = protowire.ConsumeFixed64(b)
			case protowire.BytesType: // packed
				var v []byte
				if v, n = protowire.ConsumeBytes(b); n > 0 {
					if len(v)%8 != 0 {
						return ErrTruncated
					}
					if has = len(v) > 0; has {
						bits, _ = protowire.ConsumeFixed64(v)
					}
				}
			default:
				return ErrWireType
			}
			if n < 0 {
				return ErrTruncated
			}
			b = b[n:]
			if has && !e.HasWallTime {
				e.WallTime, e.HasWallTime = math.Float64frombits(bits), true
			}
		case fieldMessageType:
			if typ != protowire.VarintType {
				return ErrWireType
			}
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return ErrTruncated
			}
			if v > uint64(Event) {
				return ErrEnum
			}
			e.MessageType = MessageType(v)
			b = b[n:]
		default:
			n, err := skipField(num, typ, b)
			if err != nil {
				return err
			}
			b = b[n:]
		}
	}
	if e.Type == "" {
		return ErrNoType
	}
	return nil
}

// Size returns the number of bytes that AppendTo appends.
func (e *Envelope) Size() int {
	n := sizeOptional(e.SessionID) + sizeOptional(e.RequestID) + sizeOptional(e.Encoding)
	n += 1 + protowire.SizeBytes(len(e.Type)) + 1 + protowire.SizeBytes(len(e.Payload))
	if e.HasWallTime {
		n += 1 + 8
	}
	if e.MessageType != Request {
		n += 1 + protowire.SizeVarint(uint64(e.MessageType))
	}
	return n
}

// sizeOptional is the size of an optional string field with a number below 16.
func sizeOptional(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

// AppendTo appends the protobuf form of e to dst and returns the result; it allocates only when dst has less than Size
// bytes of room. Empty SessionID, RequestID and Encoding are left out, and so is MessageType Request; Type and Payload
// are always written; WallTime when HasWallTime is set, zero included. e.Payload must not overlap the room of dst.
func (e *Envelope) AppendTo(dst []byte) []byte {
	dst = appendOptional(dst, fieldSessionID, e.SessionID)
	dst = appendOptional(dst, fieldRequestID, e.RequestID)
	dst = appendString(dst, fieldType, e.Type)
	dst = appendOptional(dst, fieldEncoding, e.Encoding)
	dst = protowire.AppendTag(dst, fieldPayload, protowire.BytesType)
	dst = protowire.AppendBytes(dst, e.Payload)
	if e.HasWallTime {
		dst = protowire.AppendTag(dst, fieldWallTime, protowire.Fixed64Type)
		dst = protowire.AppendFixed64(dst, math.Float64bits(e.WallTime))
	}
	if e.MessageType != Request {
		dst = protowire.AppendTag(dst, fieldMessageType, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(e.MessageType))
	}
	return dst
}

// consumeTag reads a field's tag. Group markers are an error.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int, error) {
	v, n := uint64(b[0]), 1 // b is not empty; most tags have one byte
	if v >= 0x80 {
		if v, n = protowire.ConsumeVarint(b); n < 0 {
			return 0, 0, 0, ErrTruncated
		}
	}
	if v>>3 < uint64(protowire.MinValidNumber) || v>>3 > uint64(protowire.MaxValidNumber) {
		return 0, 0, 0, ErrFieldNumber
	}
	typ := protowire.Type(v & 7)
	switch typ {
	case protowire.VarintType, protowire.Fixed64Type, protowire.BytesType, protowire.Fixed32Type:
		return protowire.Number(v >> 3), typ, n, nil
	}
	return 0, 0, 0, ErrWireType
}

// skipField returns the length of an unknown field's value.
func skipField(num protowire.Number, typ protowire.Type, b []byte) (int, error) {
	n := protowire.ConsumeFieldValue(num, typ, b)
	if n < 0 {
		return 0, ErrTruncated
	}
	return n, nil
}

// view returns the bytes of v as a string without copying: it changes when v does.
func view(v []byte) string {
	return unsafe.String(unsafe.SliceData(v), len(v))
}

// appendString appends a string field, also when it is empty.
func appendString(dst []byte, num protowire.Number, s string) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return protowire.AppendString(dst, s)
}

// appendOptional appends a string field unless it is empty.
func appendOptional(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(dst, num, s)
}
