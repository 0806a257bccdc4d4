package frame

import "unicode/utf8"

// UTF8 checks a stream of bytes that comes in pieces cut anywhere, also inside a code point. It fails at the first byte
// that no continuation can make valid (RFC 6455 section 8.1, RFC 3629 section 4): a stray continuation byte, a byte
// that never occurs (C0, C1, F5-FF), a missing continuation byte, and the second byte of an overlong form, of a
// surrogate or of a code point above U+10FFFF.
//
// The zero value is ready, at the start of a text. Three bytes; not safe for use from several goroutines.
type UTF8 struct {
	need   uint8 // continuation bytes that the code point begun still lacks
	lo, hi uint8 // the range of the next one; meaningful while need > 0
}

// Write takes the next piece of the stream and reports whether everything so far can still become valid. p is
// borrowed for the call. After false the stream is lost: set the UTF8 to its zero value before using it again.
func (u *UTF8) Write(p []byte) bool {
	i := 0
	for i < len(p) && u.need > 0 {
		if !u.step(p[i]) {
			return false
		}
		i++
	}
	p = p[i:]
	// The library is fast on whole code points, so cut off the one that may be incomplete at the end: it begins in one
	// of the last three bytes, with the last byte that is not a continuation byte. (With a lead byte further back than
	// that, or none, the tail is complete or broken: both are for the library to say.)
	cut := len(p)
	for back := 1; back <= utf8.UTFMax-1 && back <= len(p); back++ {
		if utf8.RuneStart(p[len(p)-back]) {
			cut = len(p) - back
			break
		}
	}
	if !utf8.Valid(p[:cut]) {
		return false
	}
	for _, b := range p[cut:] {
		if !u.step(b) {
			return false
		}
	}
	return true
}

// Complete reports whether the stream may end here: no code point is incomplete. It says nothing after a Write that
// returned false.
func (u *UTF8) Complete() bool { return u.need == 0 }

// step takes one byte. The ranges are table 3-7 of the Unicode standard, the same as the grammar of RFC 3629 section 4.
func (u *UTF8) step(b byte) bool {
	if u.need > 0 {
		if b < u.lo || b > u.hi {
			return false
		}
		u.need--
		u.lo, u.hi = 0x80, 0xbf
		return true
	}
	switch {
	case b < 0x80:
		return true
	case b < 0xc2: // a continuation byte without a lead, or the lead of an overlong form of ASCII
		return false
	case b < 0xe0:
		u.need, u.lo, u.hi = 1, 0x80, 0xbf
	case b < 0xf0:
		u.need, u.lo, u.hi = 2, 0x80, 0xbf
		if b == 0xe0 { // below A0: overlong
			u.lo = 0xa0
		} else if b == 0xed { // above 9F: a surrogate, U+D800-U+DFFF
			u.hi = 0x9f
		}
	case b < 0xf5:
		u.need, u.lo, u.hi = 3, 0x80, 0xbf
		if b == 0xf0 { // below 90: overlong
			u.lo = 0x90
		} else if b == 0xf4 { // above 8F: beyond U+10FFFF
			u.hi = 0x8f
		}
	default: // beyond U+10FFFF
		return false
	}
	return true
}
