package handshake

import (
	"bytes"
	"encoding/base64"
	"iter"
	"net/netip"
)

// Request is a client's opening handshake (RFC 6455 section 4.1). One Request may be used for any number of handshakes,
// one after the other: each ParseHead begins anew. All []byte are views borrowed from the block that was parsed.
type Request struct {
	Method []byte
	Target []byte // as sent
	Path   []byte // of the target, as sent: not unescaped, not cleaned
	Query  []byte // after the '?'; nil when there is none
	Host   []byte // of an absolute target, else the Host header; nil only for HTTP/1.0
	Origin []byte // nil when there is none
	Key    []byte // Sec-WebSocket-Key; set by CheckUpgrade

	Fields

	minor   byte // of the HTTP version
	hasBody bool
}

// Scan looks for the end of the request's header block in p, all that has been received so far, of which an earlier
// call has searched the first from bytes already. end is the index just after the block, which is then for ParseHead,
// or 0 when it is not complete. limit is the greatest length of the block [bytes], usually MaxRequest.
//
// It refuses what cannot become a request any more: 431 above the limit, 400 for a first byte that no method begins with
// (a TLS client on this port would wait for an answer for as long as we for the rest).
func Scan(p []byte, from, limit int) (end int, r *Refusal) {
	limit = min(limit, MaxBlock)
	if from == 0 && len(p) > 0 && class[p[0]]&isToken == 0 {
		return 0, refuseNotHTTP
	}
	end = End(p, from)
	if end > limit || end == 0 && len(p) >= limit {
		return 0, refuseTooLarge
	}
	return end, nil
}

// Parse is ParseHead and CheckUpgrade: nil means that p is a good request for an upgrade.
func (r *Request) Parse(p []byte) *Refusal {
	if refusal := r.ParseHead(p); refusal != nil {
		return refusal
	}
	return r.CheckUpgrade()
}

// ParseHead reads the request line and the header lines of p, which is borrowed for as long as r is used and holds at
// least the complete header block (the index from Scan or End); what follows the block is not looked at. It refuses what
// is not HTTP: 400 for syntax, 431 for more than MaxHeaderLines, 505 for a major version other than 1. When it returns
// nil, every field but Key is set, whatever is asked for.
//
// The target is a path or an absolute URI (RFC 6455 section 4.1 allows both; schemes http, https, ws, wss), whose host
// then counts instead of the Host header, which must be there nevertheless (RFC 9112 section 3.2.2). OPTIONS may have
// "*", which is then the Path, and CONNECT an authority, with an empty Path.
func (r *Request) ParseHead(p []byte) *Refusal {
	r.Method, r.Target, r.Path, r.Query, r.Host, r.Origin, r.Key = nil, nil, nil, nil, nil, nil, nil
	r.block, r.n, r.minor, r.hasBody = nil, 0, 0, false
	if len(p) > MaxBlock {
		if end := End(p, 0); end == 0 || end > MaxBlock {
			return refuseTooLarge
		}
	}
	text, next, refusal := line(p, 0)
	if refusal != nil {
		return refusal
	}
	// Exactly one space on either side of the target: RFC 9112 section 3. A further one would be in the target.
	first, last := bytes.IndexByte(text, ' '), bytes.LastIndexByte(text, ' ')
	if first < 0 || first == last {
		return refuseLine
	}
	method, target, version := text[:first], text[first+1:last], text[last+1:]
	if !token(method) || len(target) == 0 || !all(target, isTarget) {
		return refuseLine
	}
	if len(version) != len("HTTP/1.1") || string(version[:5]) != "HTTP/" || version[6] != '.' || !digits(version[5:6]) || !digits(version[7:]) {
		return refuseLine
	}
	if version[5] != '1' {
		return refuseHTTPVersion
	}
	r.minor = version[7] - '0'
	r.Method, r.Target = method, target
	if !r.parseTarget() {
		return refuseTarget
	}
	if refusal := r.parse(p, next); refusal != nil {
		return refusal
	}
	if refusal := r.checkHost(); refusal != nil {
		return refusal
	}
	var ok bool
	if r.Origin, ok = r.single("Origin"); !ok {
		return refuseOrigins
	}
	return r.checkLength()
}

// parseTarget sets Path, Query and, for an absolute target, Host (RFC 9112 section 3.2).
func (r *Request) parseTarget() bool {
	target := r.Target
	switch {
	case string(r.Method) == "CONNECT":
		return true
	case string(target) == "*":
		r.Path = target
		return string(r.Method) == "OPTIONS"
	case target[0] == '/':
		r.Path = target
	default:
		colon := bytes.IndexByte(target, ':')
		if colon < 0 || len(target) < colon+3 || target[colon+1] != '/' || target[colon+2] != '/' {
			return false
		}
		scheme, rest := target[:colon], target[colon+3:]
		if !foldEqual(scheme, "http") && !foldEqual(scheme, "https") && !foldEqual(scheme, "ws") && !foldEqual(scheme, "wss") {
			return false
		}
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if r.Host = rest[:end:end]; !validHost(r.Host) {
			return false
		}
		r.Path = rest[end:]
	}
	if query := bytes.IndexByte(r.Path, '?'); query >= 0 {
		r.Path, r.Query = r.Path[:query:query], r.Path[query+1:]
	}
	if len(r.Path) == 0 { // "http://host" means "http://host/"
		slash := bytes.IndexByte(target, '/')
		r.Path = target[slash : slash+1 : slash+1]
	}
	for rest := r.Path; ; {
		percent := bytes.IndexByte(rest, '%')
		if percent < 0 {
			return true
		}
		if len(rest) < percent+3 || !all(rest[percent+1:percent+3], isHex) {
			return false
		}
		rest = rest[percent+3:]
	}
}

// checkHost sets Host unless the target had one (RFC 9112 section 3.2). An empty one is refused: it is allowed by the
// grammar for URIs without a host, which http URIs are not.
func (r *Request) checkHost() *Refusal {
	host, ok := r.single("Host")
	if !ok {
		return refuseHosts
	}
	if host == nil {
		if r.minor == 0 {
			return nil // the header came with HTTP/1.1
		}
		return refuseNoHost
	}
	if !validHost(host) {
		return refuseHost
	}
	if r.Host == nil {
		r.Host = host
	}
	return nil
}

// checkLength finds out whether a body follows and refuses headers that two readers may understand differently, which
// is how requests are smuggled past a proxy (RFC 9112 section 6.3).
func (r *Request) checkLength() *Refusal {
	length, ok := r.single("Content-Length")
	chunked := r.find("Transfer-Encoding", 0) >= 0
	if !ok || length != nil && (chunked || len(length) == 0 || !digits(length)) {
		return refuseLength
	}
	r.hasBody = chunked || len(bytes.TrimLeft(length, "0")) > 0
	return nil
}

// CheckUpgrade checks that the request, for which ParseHead returned nil, asks for a WebSocket connection (RFC 6455
// sections 4.1 and 4.2.1), and sets Key. It refuses, in this order: methods other than GET 405; a body 400; a request for
// no upgrade, or one by HTTP/1.0 (which has none, RFC 9110 section 7.8), or to another version of the protocol 426;
// a missing, repeated or malformed Sec-WebSocket-Key, and malformed lists of subprotocols or extensions 400.
func (r *Request) CheckUpgrade() *Refusal {
	if string(r.Method) != "GET" {
		return refuseMethod
	}
	if r.hasBody {
		return refuseBody
	}
	if !r.lists("Upgrade", "websocket") {
		return refusePlain
	}
	if r.minor == 0 {
		return refuseHTTP10
	}
	if !r.lists("Connection", "Upgrade") {
		return refuseConnection
	}
	version, ok := r.single("Sec-WebSocket-Version")
	if !ok {
		return refuseVersions
	}
	if string(version) != "13" {
		return refuseVersion
	}
	key, ok := r.single("Sec-WebSocket-Key")
	if !ok {
		return refuseKeys
	}
	if key == nil {
		return refuseNoKey
	}
	if !validKey(key) {
		return refuseKey
	}
	for protocol := range r.Protocols() {
		if !token(protocol) {
			return refuseProtocol
		}
	}
	if !r.validExtensions() {
		return refuseExtension
	}
	r.Key = key
	return nil
}

// IsHead reports whether this is a HEAD request, whose answer has no body.
func (r *Request) IsHead() bool { return string(r.Method) == "HEAD" }

// Protocols yields the subprotocols that the client offers, in its order of preference (RFC 6455 section 4.1, item 10).
func (r *Request) Protocols() iter.Seq[[]byte] { return r.Elements("Sec-WebSocket-Protocol") }

// validKey reports whether key is 16 bytes as base64 (RFC 6455 section 4.2.1, item 5).
func validKey(key []byte) bool {
	if len(key) != KeyLen {
		return false
	}
	var decoded [KeyLen / 4 * 3]byte
	n, err := base64.StdEncoding.Decode(decoded[:], key)
	return err == nil && n == 16
}

// validHost reports whether p is a host with an optional port (RFC 3986 section 3.2), without a user, an escape or an
// IPv6 zone.
func validHost(p []byte) bool {
	if len(p) > 0 && p[0] == '[' {
		end := bytes.IndexByte(p, ']')
		if end < 0 || bytes.IndexByte(p[:end], '%') >= 0 {
			return false
		}
		if a, err := netip.ParseAddr(string(p[1:end])); err != nil || !a.Is6() {
			return false
		}
		return len(p) == end+1 || p[end+1] == ':' && digits(p[end+2:])
	}
	name := p
	if colon := bytes.IndexByte(p, ':'); colon >= 0 {
		if name = p[:colon]; !digits(p[colon+1:]) {
			return false
		}
	}
	return len(name) > 0 && all(name, isHost)
}

// digits reports whether every byte of p is a decimal digit.
func digits(p []byte) bool {
	for _, b := range p {
		if b < '0' || b > '9' {
			return false
		}
	}
	return true
}
