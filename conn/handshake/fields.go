package handshake

import (
	"bytes"
	"iter"
)

// End finds the end of a header block: it returns the index just after the first empty line of p, or 0 when p has none
// yet. from is the number of bytes that an earlier call has searched already, so that a block which comes one byte at
// a time is not searched over and over.
//
// A line that ends with a bare LF counts too, although it is not accepted: its sender shall get an answer that says
// so, rather than wait for a timeout.
func End(p []byte, from int) int {
	i := max(0, from-2) // what an end may have begun with: "\n\r"
	for {
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		if i < len(p) && p[i] == '\n' {
			return i + 1
		}
		if i+1 < len(p) && p[i] == '\r' && p[i+1] == '\n' {
			return i + 2
		}
	}
}

// Fields are the header lines of a request or a response. All []byte results are views borrowed from the block that
// was parsed. Names are compared without regard to case.
type Fields struct {
	block []byte
	n     int
	at    [MaxHeaderLines]field
}

// field is where a header line's name and value are in the block.
type field struct{ name, nameEnd, value, valueEnd uint16 }

// line returns the line of p that begins at index at, without its CRLF, and where the next one begins.
func line(p []byte, at int) (text []byte, next int, r *Refusal) {
	n := bytes.IndexByte(p[at:], '\n')
	if n < 0 {
		return nil, 0, refuseIncomplete
	}
	if n == 0 || p[at+n-1] != '\r' {
		return nil, 0, refuseBareLF
	}
	return p[at : at+n-1], at + n + 1, nil
}

// parse reads header lines from index at of the block p to the empty line (RFC 9112 section 5).
func (f *Fields) parse(p []byte, at int) *Refusal {
	f.block, f.n = p, 0
	for {
		text, next, r := line(p, at)
		if r != nil {
			return r
		}
		if len(text) == 0 {
			return nil
		}
		if text[0] == ' ' || text[0] == '\t' {
			return refuseFolding
		}
		colon := bytes.IndexByte(text, ':')
		if colon < 0 {
			return refuseNoColon
		}
		if !token(text[:colon]) {
			return refuseName
		}
		if !all(text[colon+1:], isValue) {
			return refuseValue
		}
		if f.n == MaxHeaderLines {
			return refuseManyLines
		}
		value, end := at+colon+1, at+len(text)
		for value < end && (p[value] == ' ' || p[value] == '\t') {
			value++
		}
		for value < end && (p[end-1] == ' ' || p[end-1] == '\t') {
			end--
		}
		f.at[f.n] = field{uint16(at), uint16(at + colon), uint16(value), uint16(end)}
		f.n++
		at = next
	}
}

func (f *Fields) name(i int) []byte  { return f.block[f.at[i].name:f.at[i].nameEnd:f.at[i].nameEnd] }
func (f *Fields) value(i int) []byte { return f.block[f.at[i].value:f.at[i].valueEnd:f.at[i].valueEnd] }

// find returns the first header line of that name, from line i on, or -1.
func (f *Fields) find(name string, i int) int {
	for ; i < f.n; i++ {
		if foldEqual(f.name(i), name) {
			return i
		}
	}
	return -1
}

// single returns the value of a header that may be there once: nil when it is not, ok false when there are several.
func (f *Fields) single(name string) (value []byte, ok bool) {
	i := f.find(name, 0)
	if i < 0 {
		return nil, true
	}
	return f.value(i), f.find(name, i+1) < 0
}

// Header returns the value of the first header line of that name, without the white space around it. It is nil when
// there is none, and empty but not nil when its value is empty.
func (f *Fields) Header(name string) []byte {
	if i := f.find(name, 0); i >= 0 {
		return f.value(i)
	}
	return nil
}

// Values yields the value of every header line of that name, in order.
func (f *Fields) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := f.find(name, 0); i >= 0; i = f.find(name, i+1) {
			if !yield(f.value(i)) {
				return
			}
		}
	}
}

// All yields the names and values of all header lines, in order.
func (f *Fields) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range f.n {
			if !yield(f.name(i), f.value(i)) {
				return
			}
		}
	}
}

// AppendHeader appends the values of all header lines of that name to dst, joined with ", ", which is what several
// lines of a name mean (RFC 9110 section 5.3). Nothing is appended when there is none.
func (f *Fields) AppendHeader(dst []byte, name string) []byte {
	for i, first := f.find(name, 0), true; i >= 0; i, first = f.find(name, i+1), false {
		if !first {
			dst = append(dst, ", "...)
		}
		dst = append(dst, f.value(i)...)
	}
	return dst
}

// Elements yields the comma-separated elements of all header lines of that name, in order, trimmed, without empty ones
// (RFC 9110 section 5.6.1). Commas within quotes separate as well.
func (f *Fields) Elements(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := f.find(name, 0); i >= 0; i = f.find(name, i+1) {
			for rest, more := f.value(i), true; more; {
				var element []byte
				element, rest, more = bytes.Cut(rest, comma)
				if element = trim(element); len(element) > 0 && !yield(element) {
					return
				}
			}
		}
	}
}

// Backward yields the comma-separated elements of all header lines of that name from the last to the first, trimmed,
// without empty ones: the order in which X-Forwarded-For must be read, since only its end was written by one's own
// proxies (L2.3).
func (f *Fields) Backward(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := f.n - 1; i >= 0; i-- {
			if !foldEqual(f.name(i), name) {
				continue
			}
			for rest, more := f.value(i), true; more; {
				comma := bytes.LastIndexByte(rest, ',')
				element := trim(rest[comma+1:])
				if more = comma >= 0; more {
					rest = rest[:comma]
				}
				if len(element) > 0 && !yield(element) {
					return
				}
			}
		}
	}
}

// lists reports whether word, in any case, is an element of the header lines of that name.
func (f *Fields) lists(name, word string) bool {
	for element := range f.Elements(name) {
		if foldEqual(element, word) {
			return true
		}
	}
	return false
}

var comma = []byte{','}
