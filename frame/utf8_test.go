package frame

import (
	"testing"
	"unicode/utf8"
	"unsafe"
)

// firstBad returns the offset of the first byte of p that no continuation can make valid, or -1: found with the naive
// question of the reference parser, prefix by prefix.
func firstBad(p []byte) int {
	for i := range p {
		if !hopeful(p[:i+1]) {
			return i
		}
	}
	return -1
}

// checkUTF8 feeds p byte by byte, whole, and in two at every place.
func checkUTF8(t testing.TB, p []byte) {
	t.Helper()
	want := firstBad(p)
	var u UTF8
	for i := range p {
		if ok := u.Write(p[i : i+1]); ok != (want < 0 || i < want) {
			t.Fatalf("% x: byte %d: %v, first bad byte is %d", p, i, ok, want)
		} else if !ok {
			break
		}
		if complete := utf8.Valid(p[:i+1]); u.Complete() != complete {
			t.Fatalf("% x: after %d bytes Complete is %v", p, i+1, u.Complete())
		}
	}
	for cut := range len(p) + 1 {
		u = UTF8{}
		if ok := u.Write(p[:cut]); ok != (want < 0 || cut <= want) {
			t.Fatalf("% x: first %d bytes: %v, first bad byte is %d", p, cut, ok, want)
		} else if !ok {
			continue
		}
		if u.Complete() != utf8.Valid(p[:cut]) {
			t.Fatalf("% x: after %d bytes Complete is %v", p, cut, u.Complete())
		}
		if ok := u.Write(p[cut:]); ok != (want < 0) {
			t.Fatalf("% x: the rest after %d bytes: %v, first bad byte is %d", p, cut, ok, want)
		} else if ok && u.Complete() != utf8.Valid(p) {
			t.Fatalf("% x: at the end Complete is %v", p, u.Complete())
		}
	}
}

func TestUTF8(t *testing.T) {
	if n := unsafe.Sizeof(UTF8{}); n != 3 {
		t.Errorf("UTF8 takes %d bytes, its comment says 3", n)
	}
	// RFC 3629 section 3 and 4, and Markus Kuhn's stress test: where each range begins and ends.
	for _, s := range []string{
		"", "a", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "\U0010ffff",
		"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x7f", "\xc2\xc2", "\xdf\xc0", "\xe0\x9f\xbf", "\xe0\xa0", "\xe0\xa0\x7f",
		"\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xee\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80\x80", "\xf0\x90\x80", "\xf0\x90\x80\xc0",
		"\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf7\xbf\xbf\xbf", "\xf8\x88\x80\x80\x80", "\xfc", "\xfe", "\xff",
		"abc\x80", "\x80\x80\x80\x80", "é\x80\x80\x80", "😀\x80\x80\x80", "a\xf0\x9f\x98\x80\xf0\x9f\x98", "κόσμε", "日本語日本語日本語",
	} {
		checkUTF8(t, []byte(s))
	}
	// Every sequence of two bytes, and every lead with every second and the ends of the ranges of third and fourth.
	for a := range 256 {
		for b := range 256 {
			checkUTF8(t, []byte{byte(a), byte(b)})
			if a < 0xe0 || b < 0x80 || b > 0xbf {
				continue
			}
			for _, c := range []byte{0x7f, 0x80, 0xbf, 0xc0} {
				for _, d := range []byte{0x7f, 0x80, 0xbf, 0xc0} {
					checkUTF8(t, []byte{byte(a), byte(b), c, d})
				}
			}
		}
	}
}

func TestUTF8EveryCodePoint(t *testing.T) {
	var buf [utf8.UTFMax]byte
	for c := rune(0); c <= utf8.MaxRune; c++ {
		if 0xd800 <= c && c <= 0xdfff {
			continue
		}
		var u UTF8
		p := utf8.AppendRune(buf[:0], c)
		for i := range p {
			if !u.Write(p[i:i+1]) || u.Complete() != (i == len(p)-1) {
				t.Fatalf("%U fails at byte %d", c, i)
			}
		}
	}
}

func FuzzUTF8(f *testing.F) {
	for _, s := range []string{"hello", "κόσμε", "😀", "\xf0\x9f\x98", "\xed\xa0\x80", "\xf4\x90", "\xc0\xaf", "a\x80", "日本語日本語\xe6"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) <= 64 {
			checkUTF8(t, p)
		}
	})
}
