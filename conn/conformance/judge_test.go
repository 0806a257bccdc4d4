package conformance

import (
	"bufio"
	"bytes"
	"compress/flate"
	"io"
	"strings"
	"testing"
)

// What an endpoint must not send is found, whatever its role.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name   string
		frames []frame
		want   string // of the error, or of the events
	}{
		{"messages", []frame{text("a"), message(opBinary, make([]byte, 70000)), text("")}, "text of 1 bytes, binary of 70000 bytes, text of 0 bytes, the end of TCP"},
		{"fragments", []frame{first(opText, []byte("\xe4")), ping("x"), middle([]byte("\xb8")), last([]byte("\x96"))}, "ping of 1 bytes, text of 3 bytes, the end of TCP"},
		{"a close", []frame{closing(1001, "bye")}, "close 1001, the end of TCP"},
		{"an empty close", []frame{closeBody(nil)}, "close of 0 bytes, the end of TCP"},
		{"a frame behind the close", []frame{closing(1001, ""), pong("")}, "a frame 8a"},
		{"wrongly masked", []frame{text("a").wrongMask()}, "masked="},
		{"reserved bits", []frame{newFrame(fin|rsv2|opText, nil)}, "reserved bits"},
		{"RSV1 without compression", []frame{newFrame(fin|rsv1|opText, nil)}, "reserved bits"},
		{"a reserved opcode", []frame{newFrame(fin|3, nil)}, "opcode 0x3"},
		{"length not minimal in 16 bits", []frame{message(opBinary, make([]byte, 125)).lengthIn(2)}, "length 125 in 16 bits"},
		{"length not minimal in 64 bits", []frame{message(opBinary, make([]byte, 65535)).lengthIn(8)}, "length 65535 in 64 bits"},
		{"length above 2^63", []frame{text("").says(1 << 63)}, "in 64 bits"},
		{"a long ping", []frame{ping(strings.Repeat("x", 126))}, "ping frame of 126 bytes"},
		{"a fragmented ping", []frame{newFrame(opPing, nil)}, "final=false"},
		{"a continuation of nothing", []frame{last(nil)}, "continuation frame while open=false"},
		{"a message inside another", []frame{first(opText, nil), text("")}, "text frame while open=true"},
		{"bad UTF-8", []frame{text("a\xff")}, "not UTF-8"},
		{"half a code point", []frame{first(opText, []byte("\xe4")), last(nil)}, "not UTF-8"},
		{"a close of one byte", []frame{closeBody([]byte{3})}, "one byte"},
		{"close code 1005", []frame{closing(1005, "")}, "close code 1005"},
		{"close code 2999", []frame{closing(2999, "")}, "close code 2999"},
		{"a bad close reason", []frame{closing(1000, "\xff")}, "not UTF-8"},
		{"the end inside a frame", []frame{text("abc").cut(1)}, "unexpected EOF"},
		{"the end inside a message", []frame{first(opText, nil)}, "inside a message"},
	} {
		for _, masked := range []bool{false, true} {
			var b []byte
			for _, f := range test.frames {
				b = f.append(b, masked, [4]byte{1, 2, 3, 4})
			}
			j := &judge{in: bufio.NewReader(bytes.NewReader(b)), masked: masked}
			var got []string
			for {
				e, err := j.next()
				if err != nil {
					got = []string{err.Error()}
					break
				}
				if got = append(got, e.String()); e.end != nil {
					break
				}
			}
			if s := strings.Join(got, ", "); !strings.Contains(s, test.want) {
				t.Errorf("%s, masked %t: %s, want %s", test.name, masked, s, test.want)
			}
		}
	}
}

// The slow inflater agrees with the standard library, over messages that share their context.
func TestInflate(t *testing.T) {
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, level)
		if err != nil {
			t.Fatal(err)
		}
		d := newInflate(15, false)
		for _, n := range []int{0, 1, 10, 5000, 100_000, 300, 300} {
			for _, p := range [][]byte{repetitive(n), content(opBinary, n), make([]byte, n)} {
				out.Reset()
				_, _ = w.Write(p)
				_ = w.Flush()
				got, err := d.message(bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff}))
				if err != nil || !bytes.Equal(got, p) {
					t.Fatalf("level %d, %d bytes: got %d, %v", level, n, len(got), err)
				}
			}
		}
	}
}

// What packer compresses is deflate to the standard library, and uses the whole window and no more.
func TestPacker(t *testing.T) {
	for bits := 8; bits <= 15; bits++ {
		k, within, below := &packer{window: 1 << bits}, newInflate(bits, false), newInflate(max(bits-1, 1), false)
		var before []byte
		tooFar := false
		for _, n := range []int{0, 1, 2, 3, 10, 300, 40_000, 300, 70_000} {
			for _, p := range [][]byte{repetitive(n), content(opBinary, n), make([]byte, n)} {
				packed := k.message(p)
				if got, err := within.message(packed); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%d bits, %d bytes: got %d, %v", bits, n, len(got), err)
				}
				if _, err := below.message(packed); err != nil {
					tooFar = true
				}
				r := flate.NewReaderDict(strings.NewReader(string(packed)+"\x00\x00\xff\xff\x01\x00\x00\xff\xff"), before)
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%d bits, %d bytes: the standard library got %d, %v", bits, n, len(got), err)
				}
				before = append(before, p...)
			}
		}
		if !tooFar {
			t.Errorf("%d bits: nothing lies in the farther half", bits)
		}
	}
}

// It finds what points back too far, and data that is no deflate.
func TestInflateFinds(t *testing.T) {
	far := append(append(make([]byte, 0, 3000), content(opBinary, 1000)...), content(opBinary, 1000)...)
	near := newInflate(15, false)
	if _, err := near.message(deflated(far)); err != nil {
		t.Error(err)
	}
	if _, err := newInflate(8, false).message(deflated(far)); err == nil || !strings.Contains(err.Error(), "distance of 1000") {
		t.Errorf("a distance of 1000 in a window of 256: %v", err)
	}
	again := deflatedAfter(far)
	if got, err := near.message(again); err != nil || !bytes.Equal(got, far) {
		t.Errorf("with context: %v", err)
	}
	if _, err := newInflate(15, true).message(again); err == nil {
		t.Error("context that is not there was used")
	}
	for _, p := range []string{"\x07", "\x00\x05\x00\x05\x00Hello\x00", "\xf2\x48", "\x02\x13\x00\x00", strings.Repeat("\xff", 100)} {
		if got, err := newInflate(15, false).message([]byte(p)); err == nil {
			t.Errorf("%q is taken for %q", p, got)
		}
	}
}

// deflatedAfter is the second of two equal messages that share their context.
func deflatedAfter(p []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.DefaultCompression)
	_, _ = w.Write(p)
	_ = w.Flush()
	out.Reset()
	_, _ = w.Write(p)
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func TestAgree(t *testing.T) {
	const pd = deflateName
	for _, test := range []struct{ offer, answer, want string }{
		{pd, "", "off"}, {pd, pd, "on"}, {"", pd, "error"}, {pd, "x-other", "error"}, {pd, pd + ", " + pd, "error"},
		{pd, pd + "; server_no_context_takeover", "on"}, {pd, pd + "; client_no_context_takeover", "on"}, {pd, pd + "; server_max_window_bits=10", "on"},
		{pd, pd + "; client_max_window_bits=10", "error"}, {pd + "; client_max_window_bits", pd + "; client_max_window_bits=10", "on"}, {pd + "; client_max_window_bits=9", pd + "; client_max_window_bits=10", "error"},
		{pd + "; client_max_window_bits", pd + "; client_max_window_bits", "error"}, {pd + "; server_no_context_takeover", pd, "error"}, {pd + "; server_max_window_bits=10", pd, "error"},
		{pd + "; server_max_window_bits=10", pd + "; server_max_window_bits=11", "error"}, {pd + "; server_max_window_bits=10", pd + "; server_max_window_bits=9", "on"}, {pd + "; server_max_window_bits=10, " + pd, pd, "on"},
		{pd + "; bogus", pd, "error"}, {pd + "; server_max_window_bits=16", pd, "error"}, {pd, pd + "; bogus", "error"}, {pd, pd + "; server_max_window_bits=08", "error"},
		{pd, pd + "; server_no_context_takeover; server_no_context_takeover", "error"}, {pd, pd + "; server_no_context_takeover=1", "error"},
	} {
		var answer []string
		if test.answer != "" {
			answer = []string{test.answer}
		}
		a, err := agree(test.offer, answer)
		got := "off"
		if a.on {
			got = "on"
		}
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("offer %q, answer %q: %s (%v), want %s", test.offer, test.answer, got, err, test.want)
		}
	}
}

// What no offer allows, and that what grants makes is allowed.
func TestAgreeNever(t *testing.T) {
	for _, params := range append(deflateOffers.must, deflateOffers.may...) {
		offer := deflateOffer(params)
		for _, answer := range append(deflateOffers.not, clientWindow) {
			if _, err := agree(offer, []string{deflateOffer(answer)}); err == nil {
				t.Errorf("offer %q, answer %q: agreed", offer, answer)
			}
		}
		for _, params := range []string{"", clientFresh + "; " + serverFresh} {
			if a, err := agree(offer, grants(params)(offer)); err != nil || !a.on {
				t.Errorf("offer %q, answer %q: %v", offer, grants(params)(offer), err)
			}
		}
	}
	for _, offer := range append(deflateOffers.not, "=") {
		if answer := grants("")(deflateOffer(offer)); answer != nil {
			t.Errorf("offer %q is answered with %q", offer, answer)
		}
	}
}

// Every text of the tables is what its table says, and the first bad byte is where the grammar of RFC 3629 ends.
func TestTexts(t *testing.T) {
	for _, v := range validTexts {
		if got := firstBad([]byte(v.text)); got != len(v.text) {
			t.Errorf("%s is bad at %d", v.name, got)
		}
	}
	for _, v := range truncatedTexts {
		if got := firstBad([]byte(v.text)); got != len(v.text) {
			t.Errorf("%s is bad at %d", v.name, got)
		}
	}
	for _, v := range invalidTexts {
		if got := firstBad([]byte(v.text)); got == len(v.text) {
			t.Errorf("%s is good", v.name)
		}
	}
	for text, want := range map[string]int{"\xff": 0, "a\x80": 1, "\xc3(": 1, "\xed\xa0\x80": 1, "\xe0\x9f": 1, "\xf4\x90": 1, "\xf0\x8f": 1, "\xe2\x82\xc3": 2, "\xf0\x9f\x98a": 3, "世\xc0": 3} {
		if got := firstBad([]byte(text)); got != want {
			t.Errorf("%q is bad at %d, want %d", text, got, want)
		}
	}
}
