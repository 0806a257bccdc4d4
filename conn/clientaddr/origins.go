package clientaddr

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Origins says which web sites may connect (--origins), by the Origin header that a browser sends (RFC 6454 section 7,
// RFC 6455 section 10.2). It does not change after ParseOrigins, so that any goroutine may use it. The zero value allows
// only requests without the header.
//
// A request without an Origin is allowed, unless "required" is in the list: programs that are no browsers do not send
// one. Nothing is lost by that. The check protects people who visit a malicious site with a browser, which always
// sends the header and does not let the site forge it; a program can send any Origin it likes, and none. To ask for the
// header keeps out nobody but honest programs.
type Origins struct {
	any      bool
	required bool
	null     bool
	list     []origin
}

// origin is a scheme, a host and a port (RFC 6454 section 4).
type origin struct {
	scheme []byte
	host   []byte     // for a wildcard what follows the asterisk: ".example.com"
	addr   netip.Addr // of a host in brackets: compared instead of host, since it can be written in many ways
	port   uint16     // 0: the scheme has no port, and none is given
	below  bool       // wildcard
}

// ParseOrigins reads a list of
//
//	any                             every Origin; stands alone, or with "required"
//	none                            no Origin, only requests without the header; stands alone
//	required                        beside others: a request without the header is refused
//	null                            "Origin: null": sandboxed frames, local files
//	https://example.com[:port]      a site; the scheme's usual port may be left out (80 and 443)
//	https://*.example.com[:port]    all sites below example.com, at any depth, but not itself
//
// Schemes and hosts are compared without regard to case. Schemes other than http and https are taken as well, for apps
// that are made like web pages (capacitor://localhost). The host is one as browsers send it: ASCII (xn--... for other
// letters), IPv6 in brackets. An empty list is an error, and the error names all faults, one per line.
func ParseOrigins(list []string) (*Origins, error) {
	o := &Origins{}
	var faults []error
	none := false
	for _, s := range list {
		switch s {
		case "any":
			o.any = true
		case "none":
			none = true
		case "required":
			o.required = true
		case "null":
			o.null = true
		default:
			entry, err := parseOrigin(s)
			if err != nil {
				faults = append(faults, fmt.Errorf("%q %w", s, err))
			}
			o.list = append(o.list, entry)
		}
	}
	sites := o.null || len(o.list) > 0
	switch {
	case len(list) == 0:
		faults = append(faults, errors.New(`no origins: "any" allows all, "none" allows none`))
	case none && (o.any || sites || o.required):
		faults = append(faults, errors.New(`"none" beside others: it stands alone`))
	case o.any && sites:
		faults = append(faults, errors.New(`"any" beside origins, which it allows already`))
	case o.required && !o.any && !sites:
		faults = append(faults, errors.New(`"required" alone would let nobody in: "any" and "required" ask only that there is an Origin`))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return o, nil
}

// Allowed reports whether a request with this Origin header may connect: nil is a request without one, empty one with an
// empty one, which no browser sends. origin is borrowed for the call. It does not allocate.
func (o *Origins) Allowed(origin []byte) bool {
	switch {
	case origin == nil:
		return !o.required
	case o.any:
		return true
	case string(origin) == "null":
		return o.null
	}
	got, ok := splitOrigin(origin)
	if !ok {
		return false
	}
	for i := range o.list {
		if o.list[i].matches(&got) {
			return true
		}
	}
	return false
}

// matches reports whether a request's origin is the one that was configured, or below it.
func (o *origin) matches(got *origin) bool {
	if o.port != got.port || !bytes.EqualFold(o.scheme, got.scheme) {
		return false
	}
	if o.addr.IsValid() {
		return o.addr == got.addr
	}
	host := got.host
	if o.below {
		if len(host) <= len(o.host) {
			return false
		}
		host = host[len(host)-len(o.host):]
	}
	return bytes.EqualFold(o.host, host)
}

// splitOrigin takes apart scheme "://" host [ ":" port ], without a wildcard. The results are views of p.
func splitOrigin(p []byte) (o origin, ok bool) {
	scheme, rest, ok := bytes.Cut(p, authority)
	if !ok || !isScheme(scheme) {
		return origin{}, false
	}
	o.scheme = scheme
	var port []byte
	if len(rest) > 0 && rest[0] == '[' {
		end := bytes.IndexByte(rest, ']')
		if end < 0 {
			return origin{}, false
		}
		if o.addr, ok = parseAddr(rest[1:end]); !ok || !o.addr.Is6() {
			return origin{}, false
		}
		o.host, port = rest[:end+1], rest[end+1:]
	} else {
		o.host = rest
		if colon := bytes.IndexByte(rest, ':'); colon >= 0 {
			o.host, port = rest[:colon], rest[colon:]
		}
		// Browsers send "file://" for local files in some settings; every other scheme has a host.
		if !isHost(o.host) && !(len(rest) == 0 && bytes.EqualFold(scheme, file)) {
			return origin{}, false
		}
	}
	switch {
	case bytes.EqualFold(scheme, https):
		o.port = 443
	case bytes.EqualFold(scheme, http):
		o.port = 80
	}
	if len(port) > 0 {
		o.port, ok = parsePort(port[1:])
		if port[0] != ':' || !ok || o.port == 0 {
			return origin{}, false
		}
	}
	return o, true
}

var (
	authority = []byte("://")
	file      = []byte("file")
	http      = []byte("http")
	https     = []byte("https")
)

// isScheme: RFC 3986 section 3.1.
func isScheme(p []byte) bool {
	for i, c := range p {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return len(p) > 0
}

// isHost: labels of letters, digits, hyphens and underscores, with a dot between each two. Not the trailing dot of a
// fully qualified name: a site that is visited so is another one for the browser, too.
func isHost(p []byte) bool {
	label := 0
	for _, c := range p {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}

const wildcard = "://*."

// parseOrigin reads an entry of the list. The error goes on after the text in question.
func parseOrigin(s string) (origin, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return origin{}, errors.New(`has no scheme: an origin is like https://example.com, https://*.example.com, "null", "any" or "none"`)
	case strings.EqualFold(scheme, "ws"), strings.EqualFold(scheme, "wss"):
		return origin{}, errors.New("has the scheme of the connection; an Origin has the one of the page, https or http")
	case strings.ContainsAny(rest, "/?#"):
		return origin{}, errors.New("has a path; an Origin ends with the host or port, without a /")
	case strings.Contains(rest, "@"):
		return origin{}, errors.New("has a user name, which no Origin has")
	}
	for i := range len(rest) {
		if rest[i] >= 0x80 {
			return origin{}, errors.New("has letters beyond ASCII; browsers send such names in Punycode (xn--)")
		}
	}
	below := strings.Contains(s, wildcard)
	o, ok := splitOrigin([]byte(strings.Replace(s, wildcard, "://", 1)))
	switch {
	case strings.Contains(rest, "*") && (!below || strings.Count(rest, "*") > 1):
		return origin{}, errors.New("has an asterisk other than as the whole first label: https://*.example.com")
	case !ok:
		return origin{}, errors.New("is not scheme://host or scheme://host:port")
	}
	// What ends in a number is an IPv4 address for a browser, which sends it in its usual form.
	last := o.host[bytes.LastIndexByte(o.host, '.')+1:]
	ipv4 := false
	if len(last) > 0 && len(bytes.Trim(last, "0123456789")) == 0 {
		if _, ipv4 = parseAddr(o.host); !ipv4 {
			return origin{}, errors.New("has a host that ends in a number but is no IPv4 address")
		}
	}
	if below {
		switch {
		case ipv4 || o.addr.IsValid():
			return origin{}, errors.New("has an asterisk before an address: nothing is below one")
		case bytes.IndexByte(o.host, '.') < 0 && !bytes.EqualFold(o.host, []byte("localhost")):
			return origin{}, errors.New("is every site of a top-level domain")
		}
		o.below, o.host = true, append([]byte{'.'}, o.host...)
	}
	return o, nil
}
