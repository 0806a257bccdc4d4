package wire

import (
	"errors"
	"slices"
)

// Form is how an envelope travels in a WebSocket message.
type Form uint8

const (
	// Text is standard padded base64 (RFC 4648 section 4) in a text message. It is the zero value on purpose: it is
	// what a peer that has not sent anything yet gets, since web clients understand nothing else.
	Text Form = iota
	// Binary is the bare protobuf in a binary message.
	Binary
)

func (f Form) String() string {
	if f == Binary {
		return "binary"
	}
	return "text"
}

// TextSize returns the length of the text form of n bytes: four characters for every three bytes, the last group padded.
func TextSize(n int) int { return (n + 2) / 3 * 4 }

// FormSize returns the number of bytes that AppendForm appends.
func (e *Envelope) FormSize(f Form) int {
	if f == Binary {
		return e.Size()
	}
	return TextSize(e.Size())
}

// AppendForm appends e to dst in the given form and returns the result. It needs no second buffer, and allocates only
// when dst has less than FormSize bytes of room. e.Payload must not overlap the room of dst.
func (e *Envelope) AppendForm(dst []byte, f Form) []byte {
	if f == Binary {
		return e.AppendTo(slices.Grow(dst, e.Size()))
	}
	// The protobuf form is written to the end of the room that the text will take and encoded from there to the front.
	// With k groups of three bytes (the last may be short) it begins at least k bytes after the text does, and writing
	// group i takes up the room until byte 4i+4 while everything before byte k+3i+3 has been read: 4i+4 <= k+3i+3 for
	// all i < k, so nothing is overwritten before it has been read.
	n := e.Size()
	size := TextSize(n)
	at := len(dst)
	dst = slices.Grow(dst, size)[:at+size]
	e.AppendTo(dst[at+size-n : at+size-n])
	encodeForward(dst[at:], dst[at+size-n:])
	return dst
}

// AppendText appends the text form of src to dst and returns the result. src must not overlap the room of dst.
func AppendText(dst, src []byte) []byte {
	at, size := len(dst), TextSize(len(src))
	dst = slices.Grow(dst, size)[:at+size]
	encodeForward(dst[at:], src)
	return dst
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// encodeForward writes the text form of src to dst, reading each group before it writes it, from front to back: unlike
// encoding/base64 it promises to work when src is the tail of dst. len(dst) must be TextSize(len(src)).
func encodeForward(dst, src []byte) {
	for len(src) >= 3 && len(dst) >= 4 {
		v := uint(src[0])<<16 | uint(src[1])<<8 | uint(src[2])
		dst[0] = alphabet[v>>18&63]
		dst[1] = alphabet[v>>12&63]
		dst[2] = alphabet[v>>6&63]
		dst[3] = alphabet[v&63]
		src, dst = src[3:], dst[4:]
	}
	switch len(src) {
	case 1:
		v := uint(src[0]) << 16
		dst[0], dst[1], dst[2], dst[3] = alphabet[v>>18&63], alphabet[v>>12&63], '=', '='
	case 2:
		v := uint(src[0])<<16 | uint(src[1])<<8
		dst[0], dst[1], dst[2], dst[3] = alphabet[v>>18&63], alphabet[v>>12&63], alphabet[v>>6&63], '='
	}
}

// ErrText is the error of DecodeText.
var ErrText = errors.New("wire: text is not standard base64")

const badDigit = 0xff

// digits maps a character to its value, or to badDigit.
var digits = func() (t [256]byte) {
	for i := range t {
		t[i] = badDigit
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// DecodeText appends the bytes whose text form is src to dst and returns the result; after ErrText the result is dst as
// it was, though its room may have been written to. It accepts standard base64, padded to a multiple of four or not
// padded at all; not base64url, no line breaks or other white space, no bits left over in the last digit, nothing after
// the padding. It allocates only when dst has less than len(src)/4*3+2 bytes of room.
//
// src is borrowed until DecodeText returns. It must not overlap the room of dst, except that decoding in place works:
// DecodeText(src[:0], src) overwrites src with the result.
func DecodeText(dst, src []byte) ([]byte, error) {
	old := dst
	if len(src)%4 == 0 && len(src) > 0 && src[len(src)-1] == '=' {
		src = src[:len(src)-1]
		if src[len(src)-1] == '=' {
			src = src[:len(src)-1]
		}
	}
	// Whatever padding is left now is wrong and no digit. One left-over digit holds no whole byte.
	if len(src)%4 == 1 {
		return old, ErrText
	}
	at, size := len(dst), len(src)/4*3
	switch len(src) % 4 {
	case 2:
		size++
	case 3:
		size += 2
	}
	dst = slices.Grow(dst, size)[:at+size]
	out := dst[at:]
	for len(src) >= 4 && len(out) >= 3 {
		a, b, c, d := digits[src[0]], digits[src[1]], digits[src[2]], digits[src[3]]
		if a|b|c|d == badDigit {
			return old, ErrText
		}
		v := uint(a)<<18 | uint(b)<<12 | uint(c)<<6 | uint(d)
		out[0], out[1], out[2] = byte(v>>16), byte(v>>8), byte(v)
		src, out = src[4:], out[3:]
	}
	switch len(src) {
	case 2:
		a, b := digits[src[0]], digits[src[1]]
		if a|b == badDigit || b&0x0f != 0 {
			return old, ErrText
		}
		out[0] = a<<2 | b>>4
	case 3:
		a, b, c := digits[src[0]], digits[src[1]], digits[src[2]]
		if a|b|c == badDigit || c&0x03 != 0 {
			return old, ErrText
		}
		out[0], out[1] = a<<2|b>>4, b<<4|c>>2
	}
	return dst, nil
}
