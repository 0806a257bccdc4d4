package clientaddr

import (
	"bytes"
	"net/netip"
)

// parseAddr reads an IPv4 address in dotted decimal form or an IPv6 address (RFC 4291 section 2.2) without a zone. It
// accepts what netip.ParseAddr accepts, zones excepted, and does not allocate, whatever it is given: the bytes are those
// of clients. p is borrowed for the call.
func parseAddr(p []byte) (netip.Addr, bool) {
	for _, c := range p {
		switch c {
		case '.':
			a, ok := parse4(p)
			return netip.AddrFrom4(a), ok
		case ':':
			a, ok := parse6(p)
			return netip.AddrFrom16(a), ok
		}
	}
	return netip.Addr{}, false
}

// parse4 reads four decimal numbers of at most 255, without leading zeros (some read those as octal).
func parse4(p []byte) (a [4]byte, ok bool) {
	for i := range a {
		n, v := 0, 0
		for n < len(p) && '0' <= p[n] && p[n] <= '9' {
			v = v*10 + int(p[n]-'0')
			if n++; v > 255 || n > 1 && p[0] == '0' {
				return a, false
			}
		}
		if n == 0 {
			return a, false
		}
		a[i], p = byte(v), p[n:]
		if i == len(a)-1 {
			break
		}
		if len(p) == 0 || p[0] != '.' {
			return a, false
		}
		p = p[1:]
	}
	return a, len(p) == 0
}

// parse6 reads eight groups of one to four hexadecimal digits, of which "::" may replace one or more, and dotted decimal
// the last two.
func parse6(p []byte) (a [16]byte, ok bool) {
	at, gap := 0, -1 // bytes written; where "::" stood
	if len(p) >= 2 && p[0] == ':' && p[1] == ':' {
		gap, p = 0, p[2:]
	}
	for len(p) > 0 {
		n, v := 0, 0
		for n < len(p) {
			digit, ok := hex(p[n])
			if !ok {
				break
			}
			v = v<<4 | digit
			if n++; n > 4 {
				return a, false
			}
		}
		if n == 0 || at == len(a) {
			return a, false
		}
		if n < len(p) && p[n] == '.' {
			last, ok := parse4(p)
			if !ok || at > 12 {
				return a, false
			}
			copy(a[at:], last[:])
			at += len(last)
			break
		}
		a[at], a[at+1] = byte(v>>8), byte(v)
		at, p = at+2, p[n:]
		if len(p) == 0 {
			break
		}
		if p[0] != ':' || len(p) == 1 {
			return a, false
		}
		if p = p[1:]; p[0] == ':' {
			if gap >= 0 {
				return a, false
			}
			gap, p = at, p[1:]
		}
	}
	if gap < 0 {
		return a, at == len(a)
	}
	if at == len(a) {
		return a, false // "::" stands for one group at least
	}
	moved := at - gap
	copy(a[len(a)-moved:], a[gap:at])
	clear(a[gap : len(a)-moved])
	return a, true
}

func hex(c byte) (int, bool) {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0'), true
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10, true
	}
	return 0, false
}

// parsePort reads a decimal number of at most 65535 without leading zeros.
func parsePort(p []byte) (uint16, bool) {
	if len(p) == 0 || len(p) > 5 || len(p) > 1 && p[0] == '0' {
		return 0, false
	}
	v := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return uint16(v), v <= 65535
}

// parseNode reads an element of X-Forwarded-For: an address, with or without a port, IPv6 with or without brackets
// ("::1", "[::1]", "[::1]:80"; with a port only within brackets). An IPv4-mapped IPv6 address is the IPv4 one. Anything
// else is not ok: "unknown", an identifier like "_hidden" (RFC 7239 section 6 has both), a name, a zone, quotes.
func parseNode(p []byte) (a netip.Addr, ok bool) {
	host, port := p, []byte(nil)
	switch colon := bytes.IndexByte(p, ':'); {
	case len(p) > 0 && p[0] == '[':
		end := bytes.IndexByte(p, ']')
		if end < 0 {
			return netip.Addr{}, false
		}
		host, port = p[1:end], p[end+1:]
		if a, ok = parseAddr(host); !ok || !a.Is6() {
			return netip.Addr{}, false
		}
	case colon >= 0 && bytes.IndexByte(p[colon+1:], ':') < 0: // one colon: IPv4 with a port
		host, port = p[:colon], p[colon:]
		fallthrough
	default:
		if a, ok = parseAddr(host); !ok {
			return netip.Addr{}, false
		}
	}
	if len(port) > 0 {
		if port[0] != ':' {
			return netip.Addr{}, false
		}
		if _, ok := parsePort(port[1:]); !ok {
			return netip.Addr{}, false
		}
	}
	return a.Unmap(), true
}
