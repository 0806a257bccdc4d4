package wire

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields walks over the fields of one message, of this package's or of others. Each turn of
//
//	for f.next() { switch f.num { case 1: f.str(&m.A); ... default: f.skip() } }
//
// must consume the field's value by exactly one method. After the loop f.err says whether all went well. fields.go has the
// same for other packages. It is a view of the message, allocates nothing while all is well, and is of one goroutine.
type Fields struct {
	b   []byte
	msg string // full name of the message, for errors
	num protowire.Number
	typ protowire.Type
	err error
}

func (f *Fields) next() bool {
	if f.err != nil || len(f.b) == 0 {
		return false
	}
	num, typ, n, err := consumeTag(f.b)
	if err != nil {
		f.err = fmt.Errorf("%s: %w", f.msg, err)
		return false
	}
	f.num, f.typ, f.b = num, typ, f.b[n:]
	return true
}

func (f *Fields) fail(err error) { f.err = fmt.Errorf("%s field %d: %w", f.msg, f.num, err) }

// skip passes over an unknown field.
func (f *Fields) skip() {
	n, err := skipField(f.num, f.typ, f.b)
	if err != nil {
		f.fail(err)
		return
	}
	f.b = f.b[n:]
}

// bytes returns the value of a length-delimited field, or nil after an error.
func (f *Fields) bytes() []byte {
	if f.typ != protowire.BytesType {
		f.fail(ErrWireType)
		return nil
	}
	v, n := protowire.ConsumeBytes(f.b)
	if n < 0 {
		f.fail(ErrTruncated)
		return nil
	}
	f.b = f.b[n:]
	return v
}

func (f *Fields) str(dst *string) {
	v := f.bytes()
	if !utf8.Valid(v) {
		f.fail(ErrUTF8)
		return
	}
	*dst = view(v)
}

func (f *Fields) strs(dst *[]string) {
	var s string
	if f.str(&s); f.err == nil {
		*dst = append(*dst, s)
	}
}

func (f *Fields) u64(dst *uint64) {
	if f.typ != protowire.VarintType {
		f.fail(ErrWireType)
		return
	}
	v, n := protowire.ConsumeVarint(f.b)
	if n < 0 {
		f.fail(ErrTruncated)
		return
	}
	*dst, f.b = v, f.b[n:]
}

func (f *Fields) u32(dst *uint32) {
	var v uint64
	if f.u64(&v); f.err != nil {
		return
	}
	if v > math.MaxUint32 {
		f.fail(ErrRange)
		return
	}
	*dst = uint32(v)
}

func (f *Fields) flag(dst *bool) {
	var v uint64
	if f.u64(&v); f.err == nil {
		*dst = v != 0
	}
}

// enum reads an enum whose values are 0 to last.
func enum[E ~uint8](f *Fields, dst *E, last E) {
	var v uint64
	if f.u64(&v); f.err != nil {
		return
	}
	if v > uint64(last) {
		f.fail(ErrEnum)
		return
	}
	*dst = E(v)
}

// enums reads one field of a repeated enum, packed or not.
func enums[E ~uint8](f *Fields, dst *[]E, last E) {
	if f.typ != protowire.BytesType {
		var v E
		if enum(f, &v, last); f.err == nil {
			*dst = append(*dst, v)
		}
		return
	}
	for b := f.bytes(); len(b) > 0 && f.err == nil; {
		v, n := protowire.ConsumeVarint(b)
		switch {
		case n < 0:
			f.fail(ErrTruncated)
			return
		case v > uint64(last):
			f.fail(ErrEnum)
			return
		}
		*dst, b = append(*dst, E(v)), b[n:]
	}
}

// unmarshaler is *T for a message T.
type unmarshaler[T any] interface {
	*T
	Unmarshal([]byte) error
}

// message reads an embedded message into dst. One that occurs again replaces the one before.
func message[T any, P unmarshaler[T]](f *Fields, dst P) {
	v := f.bytes()
	if f.err != nil {
		return
	}
	if err := dst.Unmarshal(v); err != nil {
		f.fail(err)
	}
}

// messages reads one element of a repeated message. It reuses the memory that elements beyond the end of *dst own.
func messages[T any, P unmarshaler[T]](f *Fields, dst *[]T) {
	s := *dst
	if len(s) < cap(s) {
		s = s[:len(s)+1]
	} else {
		var zero T
		s = append(s, zero)
	}
	*dst = s
	message[T, P](f, &s[len(s)-1])
}

// appendRequired appends a required string: also when it is empty.
func appendRequired(dst []byte, num protowire.Number, s string) []byte {
	return appendString(dst, num, s)
}

func appendStrings(dst []byte, num protowire.Number, s []string) []byte {
	for _, v := range s {
		dst = appendString(dst, num, v)
	}
	return dst
}

// appendUint appends a number: also when it is zero.
func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	dst = protowire.AppendTag(dst, num, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

func appendBytes(dst []byte, num protowire.Number, v []byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return protowire.AppendBytes(dst, v)
}

// begin starts an embedded message, end finishes it; between them its fields are appended. The length takes one byte
// in advance, which is enough for most; end moves longer ones up.
func begin(dst []byte, num protowire.Number) (out []byte, at int) {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return append(dst, 0), len(dst) + 1
}

func end(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 0x80 {
		dst[at-1] = byte(n)
		return dst
	}
	size := protowire.SizeVarint(uint64(n))
	for range size - 1 {
		dst = append(dst, 0)
	}
	copy(dst[at-1+size:], dst[at:at+n])
	protowire.AppendVarint(dst[:at-1], uint64(n))
	return dst
}
