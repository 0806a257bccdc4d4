package frame

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// RFC 6455 section 5.2, written: at, below and above where each form of the length begins.
func TestAppendHeader(t *testing.T) {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	for _, tc := range []struct {
		name   string
		op     OpCode
		fin    bool
		n      int
		masked bool
		want   []byte
	}{
		{"empty text", Text, true, 0, false, wire(`81 00`)},
		{"first fragment", Text, false, 3, false, wire(`01 03`)},
		{"last fragment", Continuation, true, 2, false, wire(`80 02`)},
		{"fragment between", Continuation, false, 2, true, wire(`00 82 37 fa 21 3d`)},
		{"ping", Ping, true, 5, false, wire(`89 05`)},
		{"pong, masked", Pong, true, 5, true, wire(`8a 85 37 fa 21 3d`)},
		{"close, longest", Close, true, 125, false, wire(`88 7d`)},
		{"below 16 bits", Binary, true, 125, true, wire(`82 fd 37 fa 21 3d`)},
		{"16 bits", Binary, true, 126, false, wire(`82 7e 00 7e`)},
		{"16 bits, masked", Binary, true, 127, true, wire(`82 fe 00 7f 37 fa 21 3d`)},
		{"longest of 16 bits", Binary, true, 65535, false, wire(`82 7e ff ff`)},
		{"64 bits", Binary, true, 65536, false, wire(`82 7f 00 00 00 00 00 01 00 00`)},
		{"64 bits, masked", Binary, true, 1 << 40, true, wire(`82 ff 00 00 01 00 00 00 00 00 37 fa 21 3d`)},
	} {
		got := AppendHeader([]byte("before"), tc.op, tc.fin, tc.n, tc.masked, key)
		if want := append([]byte("before"), tc.want...); !bytes.Equal(got, want) {
			t.Errorf("%s: % x, expected % x", tc.name, got, want)
		}
		if n := HeaderSize(tc.n, tc.masked); n != len(tc.want) || n > MaxHeader {
			t.Errorf("%s: HeaderSize is %d, expected %d", tc.name, n, len(tc.want))
		}
		// A second opinion.
		h, err := ws.ReadHeader(bytes.NewReader(tc.want))
		if err != nil || h.Fin != tc.fin || byte(h.OpCode) != byte(tc.op) || h.Length != int64(tc.n) || h.Masked != tc.masked || h.Rsv != 0 {
			t.Errorf("%s: gobwas/ws reads %+v, %v", tc.name, h, err)
		}
		if tc.op == Text || tc.op == Binary {
			tc.want[0] |= 0x40
			if got := AppendHeaderRSV1(nil, tc.op, tc.fin, tc.n, tc.masked, key); !bytes.Equal(got, tc.want) {
				t.Errorf("%s with RSV1: % x, expected % x", tc.name, got, tc.want)
			}
		}
	}
}

func TestAppendHeaderPanics(t *testing.T) {
	panics := func(f func()) (panicked bool) {
		defer func() { panicked = recover() != nil }()
		f()
		return
	}
	for op := range OpCode(255) {
		defined := op <= 2 || 8 <= op && op <= 10
		for _, fin := range []bool{false, true} {
			for _, n := range []int{-1, 0, 125, 126} {
				want := !defined || n < 0 || op >= 8 && (!fin || n > 125)
				if got := panics(func() { AppendHeader(nil, op, fin, n, false, [4]byte{}) }); got != want {
					t.Errorf("opcode %#x, fin %v, %d bytes: panics %v", byte(op), fin, n, got)
				}
				want = want || op != Text && op != Binary
				if got := panics(func() { AppendHeaderRSV1(nil, op, fin, n, false, [4]byte{}) }); got != want {
					t.Errorf("opcode %#x, fin %v, %d bytes, RSV1: panics %v", byte(op), fin, n, got)
				}
			}
		}
	}
	if !panics(func() { AppendFrame(nil, Ping, true, make([]byte, 126)) }) {
		t.Error("a ping of 126 bytes is sent")
	}
	if !panics(func() { AppendMaskedFrame(nil, Close, false, nil, [4]byte{}) }) {
		t.Error("a close frame without FIN is sent")
	}
}

func TestAppendFrameCopies(t *testing.T) {
	payload := []byte("Hello")
	masked := AppendMaskedFrame(nil, Text, true, payload, [4]byte{0x37, 0xfa, 0x21, 0x3d})
	if want := wire(`81 85 37 fa 21 3d 7f 9f 4d 51 58`); !bytes.Equal(masked, want) { // 5.7
		t.Errorf("% x, expected % x", masked, want)
	}
	plain := AppendFrame(nil, Text, true, payload)
	if want := wire(`81 05 48 65 6c 6c 6f`); !bytes.Equal(plain, want) { // 5.7
		t.Errorf("% x, expected % x", plain, want)
	}
	masked[10], plain[6] = 0, 0
	if string(payload) != "Hello" {
		t.Errorf("the payload became %q", payload)
	}
}

func TestOpCode(t *testing.T) {
	names := map[OpCode]string{0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
	for op := range OpCode(16) {
		name, defined := names[op]
		if !defined {
			name = "reserved"
		}
		if op.String() != name || op.isReserved() == defined || op.IsControl() != (op >= 8) {
			t.Errorf("%#x: %v, reserved %v, control %v", byte(op), op, op.isReserved(), op.IsControl())
		}
	}
}
