package wire

import "google.golang.org/protobuf/encoding/protowire"

// NewFields returns a walk over the fields of an encoded message, which is borrowed for as long as the walk and what it
// returns are used. msg is the message's name, for errors.
//
//	f := NewFields("example.Message", b)
//	for f.Next() {
//		switch f.Num() {
//		case 1:
//			if v := f.Bytes(); f.Err() == nil { ... }
//		default:
//			f.Skip()
//		}
//	}
//	return f.Err()
func NewFields(msg string, b []byte) Fields { return Fields{b: b, msg: msg} }

// Next goes to the next field and reports whether there is one. Its value must then be consumed by exactly one of Bytes,
// Uint64, Flag and Skip. False: that was the last one, or Err says what is wrong.
func (f *Fields) Next() bool { return f.next() }

// Num returns the number of the field.
func (f *Fields) Num() protowire.Number { return f.num }

// Bytes returns the value of a field of bytes, a view of the message. Nil when it has another wire type, or is cut off: see
// Err.
func (f *Fields) Bytes() []byte { return f.bytes() }

// Uint64 returns the value of a varint. 0 when the field has another wire type, or is cut off: see Err.
func (f *Fields) Uint64() (v uint64) {
	f.u64(&v)
	return v
}

// Flag returns the value of a varint that is yes or no. False as Uint64 returns 0.
func (f *Fields) Flag() (v bool) {
	f.flag(&v)
	return v
}

// Skip passes over a field that is not known, of any wire type that there may be. Groups are an error.
func (f *Fields) Skip() { f.skip() }

// Fail ends the walk, because of the value of the field. Nil does nothing.
func (f *Fields) Fail(err error) {
	if err != nil {
		f.fail(err)
	}
}

// Err returns what is wrong with the message: an error that matches one of this package's, or that was given to Fail.
func (f *Fields) Err() error { return f.err }
