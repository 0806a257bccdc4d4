package handshake

import "iter"

// Extension is an element of Sec-WebSocket-Extensions (RFC 6455 section 9.1). Views borrowed from the block.
type Extension struct {
	Name   []byte
	params []byte // from the first ';' on
}

// Params yields the names and values of the parameters, in order. The value is nil for a parameter without one;
// quotes are removed.
func (e Extension) Params() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for rest := e.params; len(rest) > 0; {
			var name, value []byte
			name, value, rest, _ = cutParam(rest)
			if !yield(name, value) {
				return
			}
		}
	}
}

// Extensions yields the extensions in all Sec-WebSocket-Extensions lines, in order: what a client offers, in its order
// of preference, or what a server agreed to. They have been found well-formed by CheckUpgrade or Response.Parse;
// anything after the first malformed one is left out.
func (f *Fields) Extensions() iter.Seq[Extension] {
	return func(yield func(Extension) bool) {
		for i := f.find(extensionsHeader, 0); i >= 0; i = f.find(extensionsHeader, i+1) {
			for rest := f.value(i); len(rest) > 0; {
				var e Extension
				var ok bool
				if e, rest, ok = cutExtension(rest); !ok {
					return
				}
				if e.Name != nil && !yield(e) {
					return
				}
			}
		}
	}
}

const extensionsHeader = "Sec-WebSocket-Extensions"

func (f *Fields) validExtensions() bool {
	for i := f.find(extensionsHeader, 0); i >= 0; i = f.find(extensionsHeader, i+1) {
		for rest := f.value(i); len(rest) > 0; {
			var ok bool
			if _, rest, ok = cutExtension(rest); !ok {
				return false
			}
		}
	}
	return true
}

// cutExtension cuts the first element off a list. Its Name is nil for an empty element, which a list may have.
func cutExtension(p []byte) (e Extension, rest []byte, ok bool) {
	p = skipSpace(p)
	n := tokenLen(p)
	if n > 0 {
		e.Name, p = p[:n:n], skipSpace(p[n:])
		e.params = p
		for len(p) > 0 && p[0] == ';' {
			if _, _, p, ok = cutParam(p); !ok {
				return Extension{}, nil, false
			}
		}
		e.params = e.params[: len(e.params)-len(p) : len(e.params)-len(p)]
	}
	switch {
	case len(p) == 0:
		return e, nil, true
	case p[0] == ',':
		return e, p[1:], true
	}
	return Extension{}, nil, false
}

// cutParam cuts "; name", "; name=value" or `; name="value"` off p, with the white space around it. The value is a token
// in either form; a quoted one with backslashes in it, which RFC 6455 would allow and nobody needs for a token, is
// malformed here.
func cutParam(p []byte) (name, value, rest []byte, ok bool) {
	p = skipSpace(p[1:])
	n := tokenLen(p)
	if n == 0 {
		return nil, nil, nil, false
	}
	name, p = p[:n:n], skipSpace(p[n:])
	if len(p) == 0 || p[0] != '=' {
		return name, nil, p, true
	}
	p = skipSpace(p[1:])
	quoted := len(p) > 0 && p[0] == '"'
	if quoted {
		p = p[1:]
	}
	if n = tokenLen(p); n == 0 {
		return nil, nil, nil, false
	}
	value, p = p[:n:n], p[n:]
	if quoted {
		if len(p) == 0 || p[0] != '"' {
			return nil, nil, nil, false
		}
		p = p[1:]
	}
	return name, value, skipSpace(p), true
}

func skipSpace(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	return p
}

// tokenLen returns the length of the token that p begins with.
func tokenLen(p []byte) int {
	for i, b := range p {
		if class[b]&isToken == 0 {
			return i
		}
	}
	return len(p)
}
