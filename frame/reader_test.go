package frame

import (
	"bytes"
	"strings"
	"testing"
)

var (
	server = Config{Role: RoleServer, MaxMessage: 1 << 20}
	client = Config{Role: RoleClient, MaxMessage: 1 << 20}
)

func with(cfg Config, maxMessage int) Config { cfg.MaxMessage = maxMessage; return cfg }

func rsv1(cfg Config) Config { cfg.AllowRSV1 = true; return cfg }

// masked is a frame with a fixed key, for tests about what comes behind the header.
func masked(op OpCode, fin bool, payload string) []byte {
	return AppendMaskedFrame(nil, op, fin, []byte(payload), [4]byte{0x37, 0xfa, 0x21, 0x3d})
}

func msg(op OpCode, payload string, end int) event { return event{op, false, []byte(payload), end} }

// TestReader is the RFC, section by section. Each input is fed whole, byte by byte, and cut in two at every place;
// the reference parser must agree with the table as well.
func TestReader(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	for _, tc := range []struct {
		name string
		cfg  Config
		in   []byte
		want verdict
	}{
		// 5.1 Masking by role
		{"5.1 server: not masked", server, wire(`81 05 ; text, MASK clear`), verdict{err: ErrMaskRequired, at: 1}},
		{"5.1 client: masked", client, wire(`81 85 ; text, MASK set`), verdict{err: ErrMaskForbidden, at: 1}},
		{"5.1 server: ping not masked", server, wire(`89 00`), verdict{err: ErrMaskRequired, at: 1}},
		{"5.1 server: empty, not masked", server, wire(`82 00`), verdict{err: ErrMaskRequired, at: 1}},
		{"5.1 client: empty, masked", client, wire(`82 80`), verdict{err: ErrMaskForbidden, at: 1}},

		// 5.2 Base framing: reserved bits
		{"5.2 RSV1", server, wire(`c1 ; FIN RSV1 text`), verdict{err: ErrReservedBits}},
		{"5.2 RSV2", server, wire(`a1 ; FIN RSV2 text`), verdict{err: ErrReservedBits}},
		{"5.2 RSV3", server, wire(`91 ; FIN RSV3 text`), verdict{err: ErrReservedBits}},
		{"5.2 RSV1 on a ping", server, wire(`c9`), verdict{err: ErrReservedBits}},
		{"5.2 RSV1 on a continuation", server, join(masked(Binary, false, "a"), wire(`c0`)), verdict{err: ErrReservedBits, at: 7}},
		{"7692 6 RSV1 allowed", rsv1(client), wire(`c2 01 aa`), verdict{events: []event{{Binary, true, []byte{0xaa}, 3}}}},
		{"7692 6 RSV1 allowed, not set", rsv1(client), wire(`82 01 aa`), verdict{events: []event{msg(Binary, "\xaa", 3)}}},
		{"7692 6 RSV1 allowed, bytes of a text are not checked", rsv1(client), wire(`
			41 01 ff ; text, RSV1, no FIN
			80 01 c0 ; continuation without RSV1, FIN
			81 01 c0 ; text without it: checked again`),
			verdict{events: []event{{Text, true, []byte{0xff, 0xc0}, 6}}, err: ErrInvalidUTF8, at: 8}},
		{"7692 6 RSV1 allowed, on a continuation", rsv1(client), wire(`42 01 ff c0`), verdict{err: ErrReservedBits, at: 3}},
		{"7692 6 RSV1 allowed, on a ping", rsv1(client), wire(`c9`), verdict{err: ErrReservedBits}},
		{"7692 6 RSV1 allowed, RSV2 is not", rsv1(client), wire(`a2`), verdict{err: ErrReservedBits}},
		{"7692 6 RSV1 allowed, with RSV3", rsv1(client), wire(`d2`), verdict{err: ErrReservedBits}},

		// 5.2 opcodes
		{"5.2 opcode 3", server, wire(`83`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 4", server, wire(`84`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 5", server, wire(`85`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 6", server, wire(`86`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 7", server, wire(`87`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 11", server, wire(`8b`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 12", server, wire(`8c`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 13", server, wire(`8d`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 14", server, wire(`8e`), verdict{err: ErrReservedOpCode}},
		{"5.2 opcode 15", server, wire(`8f`), verdict{err: ErrReservedOpCode}},

		// 5.2 lengths: at, below and above where each form begins
		{"5.2 length 0", client, wire(`82 00`), verdict{events: []event{msg(Binary, "", 2)}}},
		{"5.2 length 0, masked", server, wire(`82 80 11 22 33 44`), verdict{events: []event{msg(Binary, "", 6)}}},
		{"5.2 length 0, masked text", server, wire(`81 80 11 22 33 44`), verdict{events: []event{msg(Text, "", 6)}}},
		{"5.2 length 125", client, join(wire(`82 7d`), zeros(125)), verdict{events: []event{msg(Binary, string(zeros(125)), 127)}}},
		{"5.2 length 125 in 16 bits", client, wire(`82 7e 00 7d`), verdict{err: ErrLengthNotMinimal, at: 3}},
		{"5.2 length 0 in 16 bits", client, wire(`82 7e 00 00`), verdict{err: ErrLengthNotMinimal, at: 3}},
		{"5.2 length 126", client, join(wire(`82 7e 00 7e`), zeros(126)), verdict{events: []event{msg(Binary, string(zeros(126)), 130)}}},
		{"5.2 length 65535", client, join(wire(`82 7e ff ff`), zeros(65535)), verdict{events: []event{msg(Binary, string(zeros(65535)), 65539)}}},
		{"5.2 length 65535 in 64 bits", client, wire(`82 7f 00 00 00 00 00 00 ff ff`), verdict{err: ErrLengthNotMinimal, at: 9}},
		{"5.2 length 0 in 64 bits", client, wire(`82 7f 00 00 00 00 00 00 00 00`), verdict{err: ErrLengthNotMinimal, at: 9}},
		{"5.2 length 65536", client, join(wire(`82 7f 00 00 00 00 00 01 00 00`), zeros(65536)),
			verdict{events: []event{msg(Binary, string(zeros(65536)), 65546)}}},
		{"5.2 top bit of a 64-bit length", client, wire(`82 7f 80`), verdict{err: ErrLengthTopBit, at: 2}},
		{"5.2 largest 64-bit length", client, wire(`82 7f 7f ff ff ff ff ff ff ff`), verdict{err: ErrTooBig, at: 9}},

		// 5.3 Masking
		{"5.3 a key in use", server, wire(`
			81 85          ; FIN text, masked, 5
			37 fa 21 3d    ; key
			7f 9f 4d 51 58 ; "Hello"`), verdict{events: []event{msg(Text, "Hello", 11)}}},
		{"5.3 a key of zeros", server, wire(`82 83 00 00 00 00 01 02 03`), verdict{events: []event{msg(Binary, "\x01\x02\x03", 9)}}},
		{"5.3 the key begins anew with each frame", server, wire(`
			02 83 01 02 03 04  00 00 00
			80 83 10 20 30 40  00 00 00`), verdict{events: []event{msg(Binary, "\x01\x02\x03\x10\x20\x30", 18)}}},

		// 5.4 Fragmentation
		{"5.4 continuation of nothing", server, wire(`80`), verdict{err: ErrUnexpectedContinuation}},
		{"5.4 continuation of nothing, not final", server, wire(`00`), verdict{err: ErrUnexpectedContinuation}},
		{"5.4 continuation after the final one", server, join(masked(Text, false, "a"), masked(Continuation, true, "b"), wire(`80`)),
			verdict{events: []event{msg(Text, "ab", 14)}, err: ErrUnexpectedContinuation, at: 14}},
		{"5.4 text inside a message", server, join(masked(Text, false, "a"), wire(`81`)), verdict{err: ErrExpectedContinuation, at: 7}},
		{"5.4 binary inside a message", server, join(masked(Text, false, "a"), wire(`02`)), verdict{err: ErrExpectedContinuation, at: 7}},
		{"5.4 three fragments", server, join(masked(Binary, false, "one "), masked(Continuation, false, "two "), masked(Continuation, true, "three")),
			verdict{events: []event{msg(Binary, "one two three", 31)}}},
		{"5.4 empty fragments", server, join(masked(Text, false, ""), masked(Continuation, false, ""), masked(Continuation, true, "")),
			verdict{events: []event{msg(Text, "", 18)}}},
		{"5.4 empty fragments around bytes", server, join(masked(Text, false, ""), masked(Continuation, false, "xy"), masked(Continuation, true, "")),
			verdict{events: []event{msg(Text, "xy", 20)}}},
		{"5.4 control frames between fragments", server, join(
			masked(Text, false, "a"), masked(Ping, true, "1"), masked(Pong, true, ""), masked(Continuation, true, "b"), masked(Text, true, "c")),
			verdict{events: []event{msg(Ping, "1", 14), msg(Pong, "", 20), msg(Text, "ab", 27), msg(Text, "c", 34)}}},
		{"5.4 close between fragments", server, join(masked(Text, false, "a"), masked(Close, true, "\x03\xe8")),
			verdict{events: []event{msg(Close, "\x03\xe8", 15)}, partial: true}},
		{"5.4 unfinished message", server, masked(Text, false, "a"), verdict{partial: true}},
		{"5.4 unfinished frame", server, masked(Text, true, "abc")[:8], verdict{partial: true}},
		{"5.4 unfinished header", server, masked(Text, true, "abc")[:1], verdict{partial: true}},

		// 5.5 Control frames
		{"5.5 close without FIN", server, wire(`08`), verdict{err: ErrControlFragmented}},
		{"5.5 ping without FIN", server, wire(`09`), verdict{err: ErrControlFragmented}},
		{"5.5 pong without FIN", server, wire(`0a`), verdict{err: ErrControlFragmented}},
		{"5.5 ping of 0", server, masked(Ping, true, ""), verdict{events: []event{msg(Ping, "", 6)}}},
		{"5.5 ping of 124", server, masked(Ping, true, strings.Repeat("p", 124)), verdict{events: []event{msg(Ping, strings.Repeat("p", 124), 130)}}},
		{"5.5 ping of 125", server, masked(Ping, true, strings.Repeat("p", 125)), verdict{events: []event{msg(Ping, strings.Repeat("p", 125), 131)}}},
		{"5.5 close of 125", client, join(wire(`88 7d`), zeros(125)), verdict{events: []event{msg(Close, string(zeros(125)), 127)}}},
		{"5.5 ping of 126", server, wire(`89 fe`), verdict{err: ErrControlTooLong, at: 1}},
		{"5.5 pong of 65536", server, wire(`8a ff`), verdict{err: ErrControlTooLong, at: 1}},
		{"5.5 close of 126", server, wire(`88 fe`), verdict{err: ErrControlTooLong, at: 1}},
		{"5.5.1 frames behind a close are still taken apart", client, wire(`88 00 82 01 aa`), // to ignore them is the caller's part
			verdict{events: []event{msg(Close, "", 2), msg(Binary, "\xaa", 5)}}},
		{"5.5.3 control frames are not text", client, wire(`89 02 ff fe 8a 01 c0`), verdict{events: []event{msg(Ping, "\xff\xfe", 4), msg(Pong, "\xc0", 7)}}},

		// 5.7 The RFC's own examples
		{"5.7 unmasked text", client, wire(`81 05 48 65 6c 6c 6f`), verdict{events: []event{msg(Text, "Hello", 7)}}},
		{"5.7 masked text", server, wire(`81 85 37 fa 21 3d 7f 9f 4d 51 58`), verdict{events: []event{msg(Text, "Hello", 11)}}},
		{"5.7 fragmented text", client, wire(`01 03 48 65 6c  80 02 6c 6f`), verdict{events: []event{msg(Text, "Hello", 9)}}},
		{"5.7 unmasked ping, masked pong's body", client, wire(`89 05 48 65 6c 6c 6f`), verdict{events: []event{msg(Ping, "Hello", 7)}}},
		{"5.7 masked pong", server, wire(`8a 85 37 fa 21 3d 7f 9f 4d 51 58`), verdict{events: []event{msg(Pong, "Hello", 11)}}},
		{"5.7 256 bytes", client, join(wire(`82 7e 01 00`), zeros(256)), verdict{events: []event{msg(Binary, string(zeros(256)), 260)}}},

		// 7.4.1, 10.4 Size: below, at and above the limit, as soon as the length is there
		{"10.4 one below", with(client, 10), join(wire(`82 09`), zeros(9)), verdict{events: []event{msg(Binary, string(zeros(9)), 11)}}},
		{"10.4 at the limit", with(client, 10), join(wire(`82 0a`), zeros(10)), verdict{events: []event{msg(Binary, string(zeros(10)), 12)}}},
		{"10.4 one above", with(client, 10), wire(`82 0b`), verdict{err: ErrTooBig, at: 1}},
		{"10.4 one above, before the key", with(server, 10), wire(`82 8b`), verdict{err: ErrTooBig, at: 1}},
		{"10.4 at the limit, 16 bits", with(client, 1000), join(wire(`82 7e 03 e8`), zeros(1000)), verdict{events: []event{msg(Binary, string(zeros(1000)), 1004)}}},
		{"10.4 one above, 16 bits", with(client, 1000), wire(`82 7e 03 e9`), verdict{err: ErrTooBig, at: 3}},
		{"10.4 at the limit in fragments", with(client, 10), wire(`02 04 01 02 03 04  00 00  80 06 05 06 07 08 09 0a`),
			verdict{events: []event{msg(Binary, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a", 16)}}},
		{"10.4 one above in fragments", with(client, 10), wire(`02 04 01 02 03 04  80 07`), verdict{err: ErrTooBig, at: 7}},
		{"10.4 one above in fragments, not final", with(client, 10), wire(`02 04 01 02 03 04  00 07`), verdict{err: ErrTooBig, at: 7}},
		{"10.4 the next message starts at zero", with(client, 3), wire(`82 03 01 02 03  82 03 04 05 06`),
			verdict{events: []event{msg(Binary, "\x01\x02\x03", 5), msg(Binary, "\x04\x05\x06", 10)}}},
		{"10.4 control frames are not measured", with(client, 2), wire(`02 02 01 02  89 03 01 02 03  80 00`),
			verdict{events: []event{msg(Ping, "\x01\x02\x03", 9), msg(Binary, "\x01\x02", 11)}}},

		// 8.1 UTF-8: the first bad byte, wherever the rest is
		{"8.1 valid", client, wire(`81 0b ce ba e1 bd b9 cf 83 ce bc ce b5`), verdict{events: []event{msg(Text, "\u03ba\u1f79\u03c3\u03bc\u03b5", 13)}}},
		{"8.1 a code point over two frames", client, wire(`01 02 61 f0  00 01 9f  00 01 98  80 01 80`), verdict{events: []event{msg(Text, "a😀", 13)}}},
		{"8.1 a code point over two frames, ping between", client, wire(`01 01 c3  89 01 ff  80 01 a9`),
			verdict{events: []event{msg(Ping, "\xff", 6), msg(Text, "é", 9)}}},
		{"8.1 truncated at the end", client, wire(`81 02 61 c3`), verdict{err: ErrInvalidUTF8, at: 3}},
		{"8.1 truncated at the end of the last fragment", client, wire(`01 01 e2  00 01 82  80 00`), verdict{err: ErrInvalidUTF8, at: 7}},
		{"8.1 first byte, long before the end", client, wire(`81 7e 01 00 80`), verdict{err: ErrInvalidUTF8, at: 4}},
		{"8.1 in a frame that is not final", client, wire(`01 7d 61 62 ff`), verdict{err: ErrInvalidUTF8, at: 4}},
		{"8.1 in a continuation", client, wire(`01 01 61  00 05 62 c0`), verdict{err: ErrInvalidUTF8, at: 6}},
		{"8.1 broken across frames", client, wire(`01 01 c3  80 01 28`), verdict{err: ErrInvalidUTF8, at: 5}},
		{"8.1 overlong in two", client, wire(`81 02 c0`), verdict{err: ErrInvalidUTF8, at: 2}},
		{"8.1 overlong in three", client, wire(`81 03 e0 9f`), verdict{err: ErrInvalidUTF8, at: 3}},
		{"8.1 overlong in four", client, wire(`81 04 f0 8f`), verdict{err: ErrInvalidUTF8, at: 3}},
		{"8.1 surrogate", client, wire(`81 03 ed a0`), verdict{err: ErrInvalidUTF8, at: 3}},
		{"8.1 last before the surrogates", client, wire(`81 03 ed 9f bf`), verdict{events: []event{msg(Text, "\ud7ff", 5)}}},
		{"8.1 last of all", client, wire(`81 04 f4 8f bf bf`), verdict{events: []event{msg(Text, "\U0010ffff", 6)}}},
		{"8.1 above the last", client, wire(`81 04 f4 90`), verdict{err: ErrInvalidUTF8, at: 3}},
		{"8.1 F5", client, wire(`81 04 f5`), verdict{err: ErrInvalidUTF8, at: 2}},
		{"8.1 masked", server, wire(`81 83 ff 00 00 00  00`), verdict{err: ErrInvalidUTF8, at: 6}},
		{"8.1 messages before it count", client, wire(`81 01 61  81 01 ff`), verdict{events: []event{msg(Text, "a", 3)}, err: ErrInvalidUTF8, at: 5}},
		{"8.1 binary is not text", client, wire(`02 01 ff  80 01 c0`), verdict{events: []event{msg(Binary, "\xff\xc0", 6)}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			feedEveryWay(t, tc.cfg, tc.in, tc.want)
			compare(t, judge(tc.cfg, tc.in), tc.want, tc.want.at+1)
		})
	}
}

// What is whole in p is not copied; what is not, is.
func TestReaderBorrows(t *testing.T) {
	ping, text, binary := masked(Ping, true, "ping"), masked(Text, true, "text"), masked(Binary, true, "binary")
	in := join(ping, text, binary)
	var r Reader
	for p := in; len(p) > 0; {
		m, n, ok, err := r.Next(&server, p)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if &m.Payload[0] != &p[6] {
			t.Errorf("%v: the payload is a copy", m.Op)
		}
		if r != (Reader{}) {
			t.Errorf("%v: something is held", m.Op)
		}
		p = p[n:]
	}
	// The header cut off, the payload whole: still no copy, also in a ping between fragments.
	for _, before := range [][]byte{nil, masked(Text, false, "a")} {
		p := join(before, masked(Ping, true, "ping"))
		head, tail := p[:len(before)+3], p[len(before)+3:]
		if _, n, ok, err := r.Next(&server, head); n != len(head) || ok || err != nil {
			t.Fatal(n, ok, err)
		}
		m, _, ok, err := r.Next(&server, tail)
		if !ok || err != nil || &m.Payload[0] != &tail[3] {
			t.Errorf("%v %v %v: a copy, or no message", m, ok, err)
		}
		r.Reset()
	}
}

func TestReaderEmptyInput(t *testing.T) {
	var r Reader
	for range 2 {
		if m, n, ok, err := r.Next(&server, nil); m.Payload != nil || n != 0 || ok || err != nil || r != (Reader{}) {
			t.Fatal(m, n, ok, err, r)
		}
	}
}

// The life of an assembled payload, and of what is held for it.
func TestReaderLoan(t *testing.T) {
	cut := func(r *Reader, in []byte) Message {
		t.Helper()
		if _, n, ok, err := r.Next(&server, in[:7]); n != 7 || ok || err != nil || !r.Partial() {
			t.Fatal(n, ok, err, r.Partial())
		}
		m, n, ok, err := r.Next(&server, in[7:])
		if n != len(in)-7 || !ok || err != nil {
			t.Fatal(n, ok, err)
		}
		return m
	}
	var r Reader
	for _, op := range []OpCode{Ping, Text, Binary} {
		m := cut(&r, masked(op, true, "payload"))
		if string(m.Payload) != "payload" || r.Partial() || r.Buffered() == 0 {
			t.Errorf("%v: %q, Partial %v, Buffered %d", op, m.Payload, r.Partial(), r.Buffered())
		}
		r.Release()
		if r != (Reader{}) {
			t.Errorf("%v: something is held after Release", op)
		}
		r.Release()

		cut(&r, masked(op, true, "payload"))
		if _, _, ok, err := r.Next(&server, nil); ok || err != nil || r != (Reader{}) {
			t.Errorf("%v: something is held after Next", op)
		}

		cut(&r, masked(op, true, "payload"))
		r.Reset() // as from within the callback of the message: everything after it is a no-op
		r.Release()
		r.Reset()
		if r != (Reader{}) || r.Buffered() != 0 {
			t.Errorf("%v: something is held after Reset", op)
		}
	}

	// A control frame between fragments: Release ends its loan and keeps the fragments.
	r.Next(&server, masked(Text, false, "a"))
	cut(&r, masked(Ping, true, "payload"))
	r.Release()
	if !r.Partial() {
		t.Fatal("Release dropped a fragmented message")
	}
	m, _, ok, err := r.Next(&server, masked(Continuation, true, "b"))
	if !ok || err != nil || string(m.Payload) != "ab" {
		t.Fatal(m, ok, err)
	}
	r.Reset()
}

// A Reader that failed can be used again after Reset, and two that failed alike do not touch each other.
func TestReaderAfterError(t *testing.T) {
	var a, b Reader
	for range 2 {
		for _, r := range []*Reader{&a, &b} {
			r.Next(&server, masked(Text, false, "abc"))
			if _, _, _, err := r.Next(&server, wire(`81`)); err != ErrExpectedContinuation {
				t.Fatal(err)
			}
		}
		a.Reset()
		if _, _, _, err := b.Next(&server, nil); err != ErrExpectedContinuation {
			t.Fatal(err)
		}
		if m, _, ok, err := a.Next(&server, masked(Text, true, "abc")); !ok || err != nil || string(m.Payload) != "abc" {
			t.Fatal(m, ok, err)
		}
		b.Reset()
	}
}

// Everything that a sender of this package writes, a Reader of the other role reads.
func TestRoundTrip(t *testing.T) {
	key := [4]byte{0xa1, 0xb2, 0xc3, 0xd4}
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 124, 125, 126, 127, 128, 511, 512, 513, 4095, 65535, 65536, 65537, 1 << 20} {
		payload := bytes.Repeat([]byte("0123456789abcdef-"), n/17+1)[:n]
		original := bytes.Clone(payload)
		for _, op := range []OpCode{Text, Binary, Ping, Pong, Close} {
			if op.IsControl() && n > MaxControlPayload {
				continue
			}
			for _, cfg := range []Config{server, client} {
				var in []byte
				if cfg.Role == RoleServer {
					in = AppendMaskedFrame([]byte("x"), op, true, payload, key)[1:]
				} else {
					in = AppendFrame([]byte("x"), op, true, payload)[1:]
				}
				if !bytes.Equal(payload, original) {
					t.Fatalf("%v of %d bytes: the sender's payload was changed", op, n)
				}
				if len(in) != HeaderSize(n, cfg.Role == RoleServer)+n {
					t.Fatalf("%v of %d bytes: %d bytes on the wire", op, n, len(in))
				}
				for _, size := range []int{len(in), 1000, 17} {
					got := deliver(t, cfg, in, true, func() int { return size })
					compare(t, got, verdict{events: []event{{op, false, original, len(in)}}}, size)
				}
			}
		}
	}
}
