package handshake

// Classes of characters.
const (
	isToken  = 1 << iota // tchar, RFC 9110 section 5.6.2
	isValue              // field-content: VCHAR, SP, HTAB and obs-text, RFC 9110 section 5.5
	isTarget             // what a request target may consist of
	isHost               // unreserved and sub-delims, RFC 3986 section 3.2.2
	isHex
)

var class = func() (c [256]uint8) {
	for b := range c {
		ch := byte(b)
		alphanumeric := '0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z'
		in := func(set string) bool {
			for i := range len(set) {
				if set[i] == ch {
					return true
				}
			}
			return false
		}
		if alphanumeric || in("!#$%&'*+-.^_`|~") {
			c[b] |= isToken
		}
		if ch >= 0x20 && ch != 0x7f || ch == '\t' {
			c[b] |= isValue
		}
		// More than RFC 3986 allows: clients send | or { as they are. A '#' would begin a fragment, which a target
		// must not have (RFC 6455 section 3).
		if ch > 0x20 && ch < 0x7f && ch != '#' {
			c[b] |= isTarget
		}
		if alphanumeric || in("-._~!$&'()*+,;=") {
			c[b] |= isHost
		}
		if '0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'f' || 'A' <= ch && ch <= 'F' {
			c[b] |= isHex
		}
	}
	return c
}()

// all reports whether every byte of p is of the given class. It is true for an empty p.
func all[T []byte | string](p T, mask uint8) bool {
	for i := range len(p) {
		if class[p[i]]&mask == 0 {
			return false
		}
	}
	return true
}

// token reports whether p is a token, which has at least one character.
func token[T []byte | string](p T) bool { return len(p) > 0 && all(p, isToken) }

// foldEqual reports whether p and s differ at most in the case of ASCII letters.
func foldEqual[S, T []byte | string](p S, s T) bool {
	if len(p) != len(s) {
		return false
	}
	for i := range len(p) {
		a, b := p[i], s[i]
		if a == b {
			continue
		}
		if a|0x20 != b|0x20 || a|0x20 < 'a' || a|0x20 > 'z' {
			return false
		}
	}
	return true
}

// trim returns p without spaces and tabs at both ends.
func trim(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	for n := len(p); n > 0 && (p[n-1] == ' ' || p[n-1] == '\t'); n-- {
		p = p[:n-1]
	}
	return p
}
