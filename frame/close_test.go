package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// L1.7: every code there is, against the list of those that may be sent.
func TestValidSendCode(t *testing.T) {
	valid := map[int]bool{}
	for _, c := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014} {
		valid[c] = true
	}
	for c := 3000; c < 5000; c++ {
		valid[c] = true
	}
	for c := -70_000; c <= 140_000; c++ {
		if ValidSendCode(c) != valid[c] {
			t.Errorf("%d: %v", c, ValidSendCode(c))
		}
	}
}

// L1.7: what is received with any of 65,536 codes; RFC 6455 section 5.5.1.
func TestParseCloseBody(t *testing.T) {
	for c := range 1 << 16 {
		body := append(binary.BigEndian.AppendUint16(nil, uint16(c)), "bye"...)
		code, reason, err := ParseCloseBody(body)
		if ValidSendCode(c) {
			if int(code) != c || string(reason) != "bye" || err != nil {
				t.Errorf("%d: %d %q %v", c, code, reason, err)
			}
		} else if code != 0 || reason != nil || err != ErrCloseCode {
			t.Errorf("%d: %d %q %v", c, code, reason, err)
		}
	}
	for _, tc := range []struct {
		name   string
		in     []byte
		code   uint16
		reason string
		err    *Error
	}{
		{"7.1.5 empty", nil, 1005, "", nil},
		{"5.5.1 one byte", wire(`03`), 0, "", ErrCloseBodyLength},
		{"5.5.1 code alone", wire(`03 e8 ; 1000`), 1000, "", nil},
		{"5.5.1 code and reason", wire(`0d 05 ; 3333
			64 72 61 69 6e`), 3333, "drain", nil},
		{"5.5.1 longest", append(wire(`03 e8`), strings.Repeat("r", 123)...), 1000, strings.Repeat("r", 123), nil},
		{"8.1 reason broken", wire(`03 e8 61 ff`), 0, "", ErrCloseReason},
		{"8.1 reason cut inside a code point", wire(`03 e8 61 e2 82`), 0, "", ErrCloseReason},
		{"7.4 the code is looked at before the reason", wire(`03 ed ff`), 0, "", ErrCloseCode},
	} {
		code, reason, err := ParseCloseBody(tc.in)
		var e *Error
		errors.As(err, &e)
		if code != tc.code || string(reason) != tc.reason || e != tc.err {
			t.Errorf("%s: %d %q %v", tc.name, code, reason, err)
		}
	}
	for e, code := range map[*Error]uint16{ErrCloseBodyLength: 1002, ErrCloseCode: 1002, ErrCloseReason: 1007} {
		if e.Code != code {
			t.Errorf("%v has code %d, expected %d", e, e.Code, code)
		}
	}
}

// L1.7: the reason on the wire is valid UTF-8 of at most 123 bytes, cut at a code point.
func TestAppendCloseBody(t *testing.T) {
	r := strings.Repeat
	for _, tc := range []struct{ name, reason, want string }{
		{"empty", "", ""},
		{"short", "drain", "drain"},
		{"below", r("r", 122), r("r", 122)},
		{"at the limit", r("r", 123), r("r", 123)},
		{"above", r("r", 124), r("r", 123)},
		{"far above", r("r", 5000), r("r", 123)},
		{"two bytes do not fit", r("r", 122) + "é", r("r", 122)},
		{"two bytes fit", r("r", 121) + "éx", r("r", 121) + "é"},
		{"three do not fit", r("r", 121) + "€", r("r", 121)},
		{"three fit", r("r", 120) + "€", r("r", 120) + "€"},
		{"four do not fit", r("r", 120) + "😀", r("r", 120)},
		{"four fit", r("r", 119) + "😀", r("r", 119) + "😀"},
		{"nothing behind what does not fit", r("r", 122) + "€x", r("r", 122)},
		{"replaced", "a\xffb", "a\ufffdb"},
		{"each byte replaced", "\xf0\x9f\x98", "\ufffd\ufffd\ufffd"},
		{"surrogate replaced", "\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
		{"a replacement that does not fit", r("r", 121) + "\xff", r("r", 121)},
	} {
		got := AppendCloseBody([]byte("before"), 3333, tc.reason)
		if want := "before\x0d\x05" + tc.want; string(got) != want {
			t.Errorf("%s: %q, expected %q", tc.name, got, want)
		}
	}
	if got := AppendCloseBody([]byte("before"), NoStatus, "not sent"); string(got) != "before" {
		t.Errorf("no status: %q", got)
	}
}

// L1.7: a code that may not be sent never reaches the wire.
func TestAppendCloseBodyPanics(t *testing.T) {
	for c := range 1 << 16 {
		func() {
			defer func() {
				if panicked := recover() != nil; panicked == (ValidSendCode(c) || c == NoStatus) {
					t.Errorf("code %d: panicked %v", c, panicked)
				}
			}()
			AppendCloseBody(nil, uint16(c), "")
		}()
	}
}

func FuzzCloseBody(f *testing.F) {
	f.Add([]byte{}, uint16(1000), "")
	f.Add(wire(`03 e8 62 79 65`), uint16(1013), "concurrency-limit-exceeded")
	f.Add(wire(`03 ed`), uint16(4999), "€€€\xff")
	f.Add(wire(`03`), uint16(999), strings.Repeat("é", 70))
	f.Add(wire(`13 88 ff`), uint16(5000), "\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, body []byte, code uint16, reason string) {
		// What is parsed.
		c, r, err := ParseCloseBody(body)
		var want error
		switch {
		case len(body) == 0:
		case len(body) == 1:
			want = ErrCloseBodyLength
		case !ValidSendCode(int(body[0])*256 + int(body[1])):
			want = ErrCloseCode
		case !utf8.Valid(body[2:]):
			want = ErrCloseReason
		}
		if err != want {
			t.Fatalf("% x: %v, expected %v", body, err, want)
		}
		if err == nil && len(body) > 0 {
			if !bytes.Equal(append(binary.BigEndian.AppendUint16(nil, c), r...), body) {
				t.Fatalf("% x: %d %q", body, c, r)
			}
			if again := AppendCloseBody(nil, c, string(r)); len(body) <= MaxControlPayload && !bytes.Equal(again, body) {
				t.Fatalf("% x is sent again as % x", body, again)
			}
		}
		// What is written can be parsed, fits, and begins as the reason does.
		if !ValidSendCode(int(code)) {
			return
		}
		sent := AppendCloseBody(nil, code, reason)
		c, r, err = ParseCloseBody(sent)
		if err != nil || c != code || len(sent) > MaxControlPayload {
			t.Fatalf("%d %q is sent as % x: %d %q %v", code, reason, sent, c, r, err)
		}
		valid := strings.ToValidUTF8(reason, "")
		if valid == reason && !strings.HasPrefix(reason, string(r)) || valid == reason && len(reason) <= MaxCloseReason && reason != string(r) {
			t.Fatalf("%q is sent as %q", reason, r)
		}
		if len(reason) > MaxCloseReason && len(r) < MaxCloseReason-3 {
			t.Fatalf("%q is cut to %d bytes", reason, len(r))
		}
	})
}
