package wire

import (
	"bytes"
	"encoding/base64"
	"math"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// golden are whole envelopes made with the client's own code.
var golden = []struct {
	name string
	text string
	env  Envelope
	body codec
}{
	{"request", "EgJDMBoOY2hhdC5MZWF2ZVJvb20qEAoDciMxEgJzMRj70JX/vDE=",
		Envelope{RequestID: "C0", Type: TypeLeaveRoom},
		&LeaveRoom{RoomID: "r#1", SessionID: "s1", Timestamp: 1700000000123}},
	{"response", "EgJDMBoWY2hhdC5MZWF2ZVJvb21SZXNwb25zZSoECgJvazEAAAAAAAApQDgB",
		Envelope{RequestID: "C0", Type: TypeLeaveRoomResponse, MessageType: Response, WallTime: 12.5, HasWallTime: true},
		&LeaveRoomResponse{Status: StatusOK}},
	{"event", "Gg5jaGF0LlJvb21FdmVudCoNCgJzMRIDciMxGAE4BTgC",
		Envelope{Type: TypeRoomEvent, MessageType: Event},
		&RoomEvent{SessionID: "s1", RoomID: "r#1", EventType: MemberLeft, Timestamp: 5}},
	{"client response", "EgJTMhoZcGNhc3QuU3RyZWFtRW5kZWRSZXNwb25zZSoECgJvazEAAAAAAAAAADgB",
		Envelope{RequestID: "S2", Type: "pcast.StreamEndedResponse", MessageType: Response, HasWallTime: true},
		&ByeResponse{Status: StatusOK}}, // the same bytes as a StreamEndedResponse
}

func same(a, b Envelope) bool {
	return a.SessionID == b.SessionID && a.RequestID == b.RequestID && a.Type == b.Type && a.Encoding == b.Encoding &&
		bytes.Equal(a.Payload, b.Payload) && math.Float64bits(a.WallTime) == math.Float64bits(b.WallTime) &&
		a.HasWallTime == b.HasWallTime && a.MessageType == b.MessageType
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		raw, err := base64.StdEncoding.DecodeString(g.text)
		if err != nil {
			t.Fatal(err)
		}
		env := g.env
		env.Payload = g.body.AppendTo(nil)
		if got := env.AppendTo(nil); !bytes.Equal(got, raw) {
			t.Errorf("%s:\n got %x\nwant %x", g.name, got, raw)
		}
		if got := env.AppendForm(nil, Binary); !bytes.Equal(got, raw) {
			t.Errorf("%s binary:\n got %x\nwant %x", g.name, got, raw)
		}
		if got := env.AppendForm([]byte("x"), Text); string(got) != "x"+g.text {
			t.Errorf("%s text:\n got %s\nwant x%s", g.name, got, g.text)
		}
		if env.Size() != len(raw) || env.FormSize(Text) != len(g.text) || env.FormSize(Binary) != len(raw) {
			t.Errorf("%s: sizes %d, %d for %d, %d", g.name, env.Size(), env.FormSize(Text), len(raw), len(g.text))
		}
		var dec Envelope
		if err := dec.Unmarshal(raw); err != nil || !same(dec, env) {
			t.Errorf("%s: decoded %+v, %v", g.name, dec, err)
		}
	}
}

func TestEnvelopeUnmarshal(t *testing.T) {
	const typ = "\x1a\x01t"
	for _, c := range []struct {
		name string
		b    string
		want Envelope
		err  error
	}{
		{name: "empty", err: ErrNoType},
		{name: "no type", b: "\x12\x01r", err: ErrNoType},
		{name: "empty type", b: "\x1a\x00", err: ErrNoType},
		{name: "type alone: empty payload, Request", b: typ, want: Envelope{Type: "t"}},
		{name: "any order", b: "\x38\x01\x2a\x01p\x22\x01e" + typ + "\x12\x01r\x0a\x01s",
			want: Envelope{SessionID: "s", RequestID: "r", Type: "t", Encoding: "e", Payload: []byte("p"), MessageType: Response}},
		{name: "last one wins", b: typ + "\x12\x01a\x2a\x01a\x38\x01\x12\x01b\x2a\x01b\x38\x02",
			want: Envelope{Type: "t", RequestID: "b", Payload: []byte("b"), MessageType: Event}},
		{name: "explicit Request", b: typ + "\x38\x00", want: Envelope{Type: "t"}},
		{name: "padded Request", b: typ + "\x38\x80\x00", want: Envelope{Type: "t"}},
		{name: "padded tag", b: typ + "\xb8\x00\x01", want: Envelope{Type: "t", MessageType: Response}},
		{name: "unknown message type", b: typ + "\x38\x03", err: ErrEnum},
		{name: "huge message type", b: typ + "\x38\x80\x80\x80\x80\x10", err: ErrEnum},
		{name: "negative message type", b: typ + "\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", err: ErrEnum},
		{name: "packed message type", b: typ + "\x3a\x01\x01", err: ErrWireType},
		{name: "wallTime", b: typ + "\x31\x00\x00\x00\x00\x00\x00\x29\x40", want: Envelope{Type: "t", WallTime: 12.5, HasWallTime: true}},
		{name: "wallTime zero", b: typ + "\x31\x00\x00\x00\x00\x00\x00\x00\x00", want: Envelope{Type: "t", HasWallTime: true}},
		{name: "wallTime twice: the first counts", b: typ + "\x31\x00\x00\x00\x00\x00\x00\x29\x40\x31\x00\x00\x00\x00\x00\x00\x00\x00",
			want: Envelope{Type: "t", WallTime: 12.5, HasWallTime: true}},
		{name: "wallTime packed", b: typ + "\x32\x10\x00\x00\x00\x00\x00\x00\x29\x40\x00\x00\x00\x00\x00\x00\x00\x00",
			want: Envelope{Type: "t", WallTime: 12.5, HasWallTime: true}},
		{name: "wallTime packed, none", b: typ + "\x32\x00", want: Envelope{Type: "t"}},
		{name: "wallTime packed, none, then one", b: typ + "\x32\x00\x31\x00\x00\x00\x00\x00\x00\x29\x40",
			want: Envelope{Type: "t", WallTime: 12.5, HasWallTime: true}},
		{name: "wallTime packed, odd", b: typ + "\x32\x04\x00\x00\x00\x00", err: ErrTruncated},
		{name: "wallTime packed, cut", b: typ + "\x32\x08\x00", err: ErrTruncated},
		{name: "wallTime cut", b: typ + "\x31\x00", err: ErrTruncated},
		{name: "wallTime as varint", b: typ + "\x30\x00", err: ErrWireType},
		{name: "wallTime as float", b: typ + "\x35\x00\x00\x00\x00", err: ErrWireType},
		{name: "unknown fields", b: "\x40\x07\x4a\x01x" + typ + "\x51........\x5d....\x82\x7d\x00", want: Envelope{Type: "t"}},
		{name: "unknown field cut", b: typ + "\x4a\x02x", err: ErrTruncated},
		{name: "unknown varint too long", b: typ + "\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", err: ErrTruncated},
		{name: "group", b: typ + "\x43\x44", err: ErrWireType},
		{name: "group in a known field", b: typ + "\x0b\x0c", err: ErrWireType},
		{name: "end of no group", b: typ + "\x44", err: ErrWireType},
		{name: "wire type 6", b: typ + "\x46", err: ErrWireType},
		{name: "wire type 7", b: typ + "\x47", err: ErrWireType},
		{name: "field 0", b: typ + "\x00\x00", err: ErrFieldNumber},
		{name: "tag cut", b: typ + "\x80", err: ErrTruncated},
		{name: "tag too long", b: typ + "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", err: ErrTruncated},
		{name: "string as number", b: "\x18\x01", err: ErrWireType},
		{name: "payload as number", b: typ + "\x28\x01", err: ErrWireType},
		{name: "length cut", b: "\x1a", err: ErrTruncated},
		{name: "length beyond the end", b: "\x1a\x02t", err: ErrTruncated},
		{name: "length beyond an int", b: "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01t", err: ErrTruncated},
		{name: "message type cut", b: typ + "\x38\x80", err: ErrTruncated},
		{name: "type not UTF-8", b: "\x1a\x01\xff", err: ErrUTF8},
		{name: "requestId not UTF-8", b: typ + "\x12\x01\xff", err: ErrUTF8},
		{name: "payload not UTF-8 is fine", b: typ + "\x2a\x01\xff", want: Envelope{Type: "t", Payload: []byte{0xff}}},
	} {
		e := Envelope{SessionID: "left", Payload: []byte("over"), WallTime: 1, HasWallTime: true, MessageType: Event}
		err := e.Unmarshal([]byte(c.b))
		if err != c.err {
			t.Errorf("%s: error %v, want %v", c.name, err, c.err)
		} else if err == nil && !same(e, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, e, c.want)
		}
	}
}

// What a decoded envelope holds are views: they change with the buffer. This is what the documentation warns of.
func TestEnvelopeBorrows(t *testing.T) {
	b := []byte("\x12\x01r\x1a\x01t\x2a\x01p")
	var e Envelope
	if err := e.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	b[2], b[8] = 'X', 'Y'
	if e.RequestID != "X" || e.Payload[0] != 'Y' {
		t.Errorf("copied: %+v", e)
	}
	if cap(e.Payload) != 1 {
		t.Errorf("appending to the payload would overwrite what follows: cap %d", cap(e.Payload))
	}
}

func TestEnvelopeAllocs(t *testing.T) {
	env := Envelope{RequestID: "C17", Type: TypeGetRoomInfo, Payload: bytes.Repeat([]byte{0xa5}, 200), WallTime: 1, HasWallTime: true, MessageType: Response}
	raw := env.AppendTo(nil)
	text := env.AppendForm(nil, Text)
	buf := make([]byte, 0, 1024)
	var dec Envelope
	for name, f := range map[string]func(){
		"decode": func() {
			if err := dec.Unmarshal(raw); err != nil {
				t.Fatal(err)
			}
		},
		"decode garbage": func() {
			if err := dec.Unmarshal(raw[:20]); err == nil {
				t.Fatal("accepted")
			}
		},
		"decode text": func() {
			b, err := DecodeText(buf[:0], text)
			if err != nil || dec.Unmarshal(b) != nil {
				t.Fatal(err)
			}
		},
		"encode binary": func() { env.AppendForm(buf[:0], Binary) },
		"encode text":   func() { env.AppendForm(buf[:0], Text) },
		"append text":   func() { AppendText(buf[:0], raw) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// slowDecode is a second decoder, written for clarity: it first splits the whole input into fields.
func slowDecode(b []byte) (e Envelope, ok bool) {
	type field struct {
		num protowire.Number
		typ protowire.Type
		val []byte
	}
	var all []field
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > protowire.MaxValidNumber { // ConsumeTag itself takes numbers up to 2^31-1; proto.Unmarshal does not
			return e, false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 || typ == protowire.StartGroupType {
			return e, false
		}
		all = append(all, field{num, typ, b[:n]})
		b = b[n:]
	}
	str := func(f field) string {
		v, _ := protowire.ConsumeBytes(f.val)
		ok = ok && f.typ == protowire.BytesType && utf8.Valid(v)
		return string(v)
	}
	var times []float64
	ok = true
	for _, f := range all {
		switch f.num {
		case 1:
			e.SessionID = str(f)
		case 2:
			e.RequestID = str(f)
		case 3:
			e.Type = str(f)
		case 4:
			e.Encoding = str(f)
		case 5:
			ok = ok && f.typ == protowire.BytesType
			if ok {
				e.Payload, _ = protowire.ConsumeBytes(f.val)
			}
		case 6:
			v := f.val
			if f.typ == protowire.BytesType {
				v, _ = protowire.ConsumeBytes(v)
			}
			ok = ok && (f.typ == protowire.BytesType || f.typ == protowire.Fixed64Type) && len(v)%8 == 0
			for ; ok && len(v) > 0; v = v[8:] {
				bits, _ := protowire.ConsumeFixed64(v)
				times = append(times, math.Float64frombits(bits))
			}
		case 7:
			v, _ := protowire.ConsumeVarint(f.val)
			ok = ok && f.typ == protowire.VarintType && v <= 2
			e.MessageType = MessageType(v)
		}
	}
	if len(times) > 0 {
		e.WallTime, e.HasWallTime = times[0], true
	}
	return e, ok && e.Type != ""
}

func FuzzEnvelope(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.bytes(f))
	}
	for _, g := range golden {
		raw, _ := base64.StdEncoding.DecodeString(g.text)
		f.Add(raw)
	}
	for _, num := range []protowire.Number{protowire.MaxValidNumber, protowire.MaxValidNumber + 1} {
		f.Add(protowire.AppendVarint(protowire.AppendTag([]byte("\x1a\x01t"), num, protowire.VarintType), 0))
	}
	f.Add([]byte("\x1a\x01t\x32\x10\x00\x00\x00\x00\x00\x00\x29\x40\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Envelope
		err := e.Unmarshal(b)
		slow, ok := slowDecode(b)
		if (err == nil) != ok {
			t.Fatalf("error %v, reference decoder says %v", err, ok)
		}
		if err != nil {
			return
		}
		if !same(e, slow) {
			t.Fatalf("%+v\nreference decoder says %+v", e, slow)
		}
		enc := e.AppendTo(nil)
		if len(enc) != e.Size() {
			t.Fatalf("Size %d, encoded %d bytes", e.Size(), len(enc))
		}
		if err := again.Unmarshal(enc); err != nil || !same(e, again) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
		if text := e.AppendForm(nil, Text); string(text) != base64.StdEncoding.EncodeToString(enc) {
			t.Fatalf("text form %s", text)
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	env := Envelope{RequestID: "C17", Type: TypeSendMessageToRoom, Payload: bytes.Repeat([]byte{'x'}, 100), WallTime: 1, HasWallTime: true, MessageType: Response}
	raw, text := env.AppendTo(nil), env.AppendForm(nil, Text)
	buf := make([]byte, 0, 1024)
	var dec Envelope
	b.Run("Unmarshal", func(b *testing.B) {
		for b.Loop() {
			_ = dec.Unmarshal(raw)
		}
	})
	b.Run("UnmarshalText", func(b *testing.B) {
		for b.Loop() {
			v, _ := DecodeText(buf[:0], text)
			_ = dec.Unmarshal(v)
		}
	})
	b.Run("AppendBinary", func(b *testing.B) {
		for b.Loop() {
			env.AppendForm(buf[:0], Binary)
		}
	})
	b.Run("AppendText", func(b *testing.B) {
		for b.Loop() {
			env.AppendForm(buf[:0], Text)
		}
	})
}
