package record

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

var examples = []struct {
	name string
	r    Record
	wire string
}{
	{"nothing", Record{}, ""},
	{"an event", Record{Events: []Event{{mq.TopicRoom, "t", []byte("pay")}}}, "\x0a\x08\x12\x01t\x1a\x03pay"},
	{"of the conversation, empty", Record{Events: []Event{{mq.TopicConversation, "t", nil}}}, "\x0a\x05\x08\x01\x12\x01t"},
	{"two events, delta, end", Record{Events: []Event{{0, "a", nil}, {1, "b", []byte("x")}}, Delta: []byte("d"), End: true},
		"\x0a\x03\x12\x01a\x0a\x08\x08\x01\x12\x01b\x1a\x01x\x12\x01d\x18\x01"},
	{"end alone", Record{End: true}, "\x18\x01"},
}

// The bytes are those that doc.go promises to other languages, both ways.
func TestGolden(t *testing.T) {
	var used Record // again and again, as gateways do
	for _, e := range examples {
		if got := string(e.r.AppendTo([]byte("before"))); got != "before"+e.wire {
			t.Errorf("%s:\n got %q\nwant %q", e.name, got, "before"+e.wire)
		}
		if e.r.Size() != len(e.wire) {
			t.Errorf("%s: size %d, expected %d", e.name, e.r.Size(), len(e.wire))
		}
		if err := used.Unmarshal([]byte(e.wire)); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
		if !equal(&used, &e.r) {
			t.Errorf("%s: got %+v", e.name, used)
		}
	}
}

func equal(a, b *Record) bool {
	if len(a.Events) != len(b.Events) || !bytes.Equal(a.Delta, b.Delta) || a.End != b.End {
		return false
	}
	for i, e := range a.Events {
		if f := b.Events[i]; e.Topic != f.Topic || e.Type != f.Type || !bytes.Equal(e.Payload, f.Payload) {
			return false
		}
	}
	return true
}

// Bytes that are no record are refused, with the reason; what newer workers may add is not.
func TestUnmarshal(t *testing.T) {
	for _, test := range []struct {
		name, wire string
		want       error
		text       string
	}{
		{"an unknown varint", "\x20\x07\x18\x01", nil, ""},
		{"unknown bytes", "\x22\x01x", nil, ""},
		{"unknown fixed", "\x25xxxx\x21xxxxxxxx", nil, ""},
		{"unknown in an event", "\x0a\x05\x12\x01t\x20\x07", nil, ""},
		{"no more than a tag", "\x0a", wire.ErrTruncated, "record field 1: wire: trunc"},
		{"a tag that does not end", "\xff", wire.ErrTruncated, ""},
		{"field number 0", "\x00\x00", wire.ErrFieldNumber, ""},
		{"the largest field number", "\xf8\xff\xff\xff\x0f\x00", nil, ""},
		{"a field number too large", "\x80\x80\x80\x80\x10\x00", wire.ErrFieldNumber, ""},
		{"length beyond the end", "\x0a\x04\x12\x01t", wire.ErrTruncated, ""},
		{"length beyond the end of the event", "\x0a\x03\x12\x02t", wire.ErrTruncated, "record field 1: event field 2: wire: trunc"},
		{"a number cut off", "\x18\x80", wire.ErrTruncated, ""},
		{"fixed cut off", "\x25xxx", wire.ErrTruncated, ""},
		{"event as number", "\x08\x01", wire.ErrWireType, "record field 1: wire: field with"},
		{"delta as number", "\x10\x01", wire.ErrWireType, "record field 2: wire: field with"},
		{"end as bytes", "\x1a\x01x", wire.ErrWireType, "record field 3: wire: field with"},
		{"topic as bytes", "\x0a\x06\x12\x01t\x0a\x01x", wire.ErrWireType, "record field 1: event field 1: wire: field"},
		{"type as number", "\x0a\x02\x10\x01", wire.ErrWireType, "record field 1: event field 2: wire: field"},
		{"payload as number", "\x0a\x05\x12\x01t\x18\x01", wire.ErrWireType, "record field 1: event field 3: wire: field"},
		{"a group", "\x0b\x0c", wire.ErrWireType, ""},
		{"the end of a group", "\x0c", wire.ErrWireType, ""},
		{"a wire type that does not exist", "\x26", wire.ErrWireType, ""},
		{"the last topic", "\x0a\x05\x08\x01\x12\x01t", nil, ""},
		{"an unknown topic", "\x0a\x05\x08\x02\x12\x01t", ErrTopic, "record field 1: event field 1: unknown topic"},
		{"a topic that is one modulo 256", "\x0a\x06\x08\x80\x02\x12\x01t", ErrTopic, ""},
		{"no type", "\x0a\x03\x1a\x01x", ErrType, "record field 1: type"},
		{"an empty event", "\x0a\x00", ErrType, ""},
		{"not UTF-8", "\x0a\x03\x12\x01\xff", ErrType, ""},
	} {
		var r Record
		err := r.Unmarshal([]byte(test.wire))
		if !errors.Is(err, test.want) || err != nil && !strings.HasPrefix(err.Error(), test.text) {
			t.Errorf("%s: %v, expected %v", test.name, err, test.want)
		}
	}
}

// What is unmarshalled is a view, and neither way allocates once the list of events is there.
func TestNoCopies(t *testing.T) {
	wire := examples[3].r.AppendTo(nil)
	var r Record
	if err := r.Unmarshal(wire); err != nil {
		t.Fatal(err)
	}
	room := make([]byte, 0, r.Size())
	if n := testing.AllocsPerRun(100, func() { _ = r.Unmarshal(wire); r.AppendTo(room) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i := range wire {
		wire[i] = 'z'
	}
	if r.Events[1].Type != "z" || string(r.Events[1].Payload) != "z" || string(r.Delta) != "z" {
		t.Errorf("a copy: %+v", r)
	}
}

// slow reads a record as the description of protobuf says, with nothing shared with the code that it checks.
func slow(b []byte) (r Record, ok bool) {
	top, ok := slowFields(b)
	for _, f := range top {
		switch f.num {
		case 1:
			inner, good := slowFields(f.bytes)
			e := Event{}
			for _, g := range inner {
				switch g.num {
				case 1:
					good = good && g.wire == 0 && g.varint <= 1
					e.Topic = mq.TopicKind(g.varint)
				case 2:
					good = good && g.wire == 2
					e.Type = string(g.bytes)
				case 3:
					good = good && g.wire == 2
					e.Payload = g.bytes
				}
			}
			ok = ok && f.wire == 2 && good && e.Type != "" && utf8.ValidString(e.Type)
			r.Events = append(r.Events, e)
		case 2:
			ok = ok && f.wire == 2
			r.Delta = f.bytes
		case 3:
			ok = ok && f.wire == 0
			r.End = f.varint != 0
		}
	}
	return r, ok
}

type slowField struct {
	num, wire, varint uint64
	bytes             []byte
}

func slowFields(b []byte) (fs []slowField, ok bool) {
	for at := 0; at < len(b); {
		tag, ok := slowVarint(b, &at)
		f := slowField{num: tag / 8, wire: tag % 8}
		if !ok || f.num == 0 || f.num > 1<<29-1 {
			return fs, false
		}
		n := uint64(0)
		switch f.wire {
		case 0:
			if f.varint, ok = slowVarint(b, &at); !ok {
				return fs, false
			}
		case 1:
			n = 8
		case 2:
			if n, ok = slowVarint(b, &at); !ok {
				return fs, false
			}
		case 5:
			n = 4
		default:
			return fs, false
		}
		if n > uint64(len(b)-at) {
			return fs, false
		}
		f.bytes = b[at : at+int(n)]
		at += int(n)
		fs = append(fs, f)
	}
	return fs, true
}

// slowVarint reads groups of seven bits, the lowest first, and refuses what is above 64 bits.
func slowVarint(b []byte, at *int) (uint64, bool) {
	v, unit := 0.0, 1.0 // exact up to 2^53, which is enough to tell what is too large
	var exact uint64
	for shift := 0; *at < len(b) && shift < 70; shift += 7 {
		c := b[*at]
		*at++
		v += float64(c&0x7f) * unit
		unit *= 128
		exact |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return exact, v < math.Exp2(64) || shift < 63
		}
	}
	return 0, false
}

func FuzzUnmarshal(f *testing.F) {
	for _, e := range examples {
		f.Add([]byte(e.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Record
		err := got.Unmarshal(b)
		want, ok := slow(b)
		if ok != (err == nil) {
			t.Fatalf("%x: %v, but the oracle says %v", b, err, ok)
		}
		if !ok {
			return
		}
		if !equal(&got, &want) {
			t.Fatalf("%x:\n got %+v\nwant %+v", b, got, want)
		}
		again := got.AppendTo(nil)
		var second Record
		if err := second.Unmarshal(again); err != nil || !equal(&second, &want) || got.Size() != len(again) {
			t.Fatalf("%x: written again as %x: %+v, %v", b, again, second, err)
		}
		if third := second.AppendTo(nil); !bytes.Equal(third, again) {
			t.Fatalf("%x: written in two ways: %x, %x", b, again, third)
		}
	})
}
