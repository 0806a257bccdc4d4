package handshake

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Header is a further header line of a client's request.
type Header struct{ Name, Value string }

// AppendRequest appends a client's opening handshake to dst (RFC 6455 section 4.1). host has the port when it is not the
// scheme's own; path may have a query; nonce is random and used once. origin, protocol (a list of subprotocols) and
// extra may be empty; extensions are offered by an extra Sec-WebSocket-Extensions. The strings go out as they are:
// CheckRequest says, once for all requests, whether they may.
func AppendRequest(dst []byte, host, path string, nonce [16]byte, origin, protocol string, extra []Header) []byte {
	key := encodeKey(nonce)
	dst = append(dst, "GET "...)
	dst = append(dst, path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, key[:]...)
	if origin != "" {
		dst = append(dst, "\r\nOrigin: "...)
		dst = append(dst, origin...)
	}
	if protocol != "" {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: "...)
		dst = append(dst, protocol...)
	}
	for _, h := range extra {
		dst = append(dst, "\r\n"...)
		dst = append(dst, h.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, h.Value...)
	}
	return append(dst, "\r\n\r\n"...)
}

// ownHeaders are those that AppendRequest writes itself, or that a request without a body must not have.
var ownHeaders = []string{"Host", "Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Origin",
	"Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding"}

// CheckRequest reports everything that is wrong with the arguments of AppendRequest: what the server's side of this
// package would refuse, or what would add header lines of its own. It is nil when they are good.
func CheckRequest(host, path, origin, protocol string, extra []Header) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !validHost([]byte(host)) {
		fault("host %q: a name or address with an optional port was expected", host)
	}
	r := Request{Method: []byte("GET"), Target: []byte(path)}
	if path == "" || path[0] != '/' || !all(path, isTarget) || !r.parseTarget() {
		fault("path %q: a path that begins with '/', with non-ASCII characters and spaces escaped, was expected", path)
	}
	if !all(origin, isValue) {
		fault("origin %q has control characters", origin)
	}
	if protocol != "" {
		for p := range strings.SplitSeq(protocol, ",") {
			if !token(strings.Trim(p, " ")) {
				fault("subprotocol %q: a list of tokens was expected", protocol)
				break
			}
		}
	}
	for _, h := range extra {
		if !token(h.Name) {
			fault("header %q: this is not a header name", h.Name)
		}
		if !all(h.Value, isValue) {
			fault("header %s: the value %q has control characters", h.Name, h.Value)
		}
		for _, own := range ownHeaders {
			if foldEqual(h.Name, own) {
				fault("header %s: the handshake sets this one itself", own)
			}
		}
		if foldEqual(h.Name, extensionsHeader) {
			for rest, ok := []byte(h.Value), true; len(rest) > 0; {
				if _, rest, ok = cutExtension(rest); !ok {
					fault("header %s: %q is malformed", h.Name, h.Value)
				}
			}
		}
	}
	return errors.Join(faults...)
}

func encodeKey(nonce [16]byte) (key [KeyLen]byte) {
	base64.StdEncoding.Encode(key[:], nonce[:])
	return key
}

// Response is a server's answer to the opening handshake. One Response may be used for any number of them, one after
// the other. All []byte are views borrowed from the block that was parsed.
type Response struct {
	Status   int
	Protocol []byte // the subprotocol that the server chose; nil when none
	Fields
}

// ErrInterim says that the response is an interim one (100 Continue, 103 Early Hints): the caller drops the block and
// parses the next one (RFC 9110 section 15.2).
var ErrInterim = errors.New("interim response")

// StatusError is an answer other than 101.
type StatusError struct {
	Status int
	Phrase string // the reason phrase of the status line
	// RetryAfter is how long the server asks to wait. 0 when it does not say, or gives a date.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	s := "the server refused the upgrade with " + strconv.Itoa(e.Status)
	if e.Phrase != "" {
		s += " " + e.Phrase
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(", to be tried again in %v", e.RetryAfter)
	}
	return s
}

// ResponseError is an answer that is not HTTP or not a valid 101 (RFC 6455 section 4.1): the client must fail the
// connection.
type ResponseError struct{ Reason string }

func (e *ResponseError) Error() string { return "invalid answer to the upgrade: " + e.Reason }

// The ways in which an answer with 101 can be wrong.
var (
	errStatusLine = &ResponseError{"malformed status line"}
	errTooLarge   = &ResponseError{"the header block is too large"}
	errUpgrade    = &ResponseError{"no 'Upgrade: websocket'"}
	errConnection = &ResponseError{"Connection does not list Upgrade"}
	errAccept     = &ResponseError{"Sec-WebSocket-Accept is missing, repeated, or not the one for our key"}
	errProtocol   = &ResponseError{"a subprotocol that was not offered, or more than one"}
	errExtension  = &ResponseError{"an extension that was not offered, or a malformed one"}
)

// Parse reads the answer in p, which is borrowed for as long as r is used and holds at least the complete header block
// (the index from End; the caller keeps it to MaxResponse); what follows is not looked at. nonce, protocol and extensions
// are what the request offered: the nonce, its list of subprotocols, and the value of its Sec-WebSocket-Extensions, empty
// for none. nil means that the connection is open; then Protocol and Extensions tell what was agreed. Other results:
// ErrInterim, *StatusError, *ResponseError.
func (r *Response) Parse(p []byte, nonce [16]byte, protocol, extensions string) error {
	r.Status, r.Protocol, r.block, r.n = 0, nil, nil, 0
	if len(p) > MaxBlock {
		if end := End(p, 0); end == 0 || end > MaxBlock {
			return errTooLarge
		}
	}
	text, next, refusal := line(p, 0)
	if refusal != nil {
		return &ResponseError{refusal.Reason}
	}
	// "HTTP/1.1 101 Switching Protocols"; the phrase and the space before it may be missing.
	if len(text) < 12 || string(text[:7]) != "HTTP/1." || !digits(text[7:8]) || text[8] != ' ' || !digits(text[9:12]) ||
		text[9] < '1' || text[9] > '5' || len(text) > 12 && text[12] != ' ' || !all(text, isValue) {
		return errStatusLine
	}
	status := int(text[9]-'0')*100 + int(text[10]-'0')*10 + int(text[11]-'0')
	if refusal := r.parse(p, next); refusal != nil {
		return &ResponseError{refusal.Reason}
	}
	r.Status = status
	switch {
	case status == 101 && text[7] == '0':
		return errStatusLine // HTTP/1.0 has no upgrade
	case status == 101:
		return r.check(nonce, protocol, extensions)
	case status < 200:
		return ErrInterim
	}
	e := &StatusError{Status: status, Phrase: string(trim(text[12:]))}
	if after := r.Header("Retry-After"); len(after) > 0 && len(after) < 10 && digits(after) {
		seconds, _ := strconv.Atoi(string(after)) // at most nine digits
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// check does what RFC 6455 section 4.1 asks of a client that got 101, items 2 to 6.
func (r *Response) check(nonce [16]byte, protocol, extensions string) error {
	upgrade, ok := r.single("Upgrade")
	if !ok || !foldEqual(upgrade, "websocket") {
		return errUpgrade
	}
	if !r.lists("Connection", "Upgrade") {
		return errConnection
	}
	key := encodeKey(nonce)
	want := Accept(key[:])
	if accept, ok := r.single("Sec-WebSocket-Accept"); !ok || string(accept) != string(want[:]) {
		return errAccept
	}
	if !r.validExtensions() {
		return errExtension
	}
	for e := range r.Extensions() {
		if !offered(extensions, e.Name) {
			return errExtension
		}
	}
	chosen, ok := r.single("Sec-WebSocket-Protocol")
	if !ok || chosen != nil && !listed(protocol, chosen) {
		return errProtocol
	}
	r.Protocol = chosen
	return nil
}

// listed reports whether word is an element of a comma-separated list. Subprotocols are compared with regard to case.
func listed(list string, word []byte) bool {
	for element := range strings.SplitSeq(list, ",") {
		if element = strings.Trim(element, " \t"); element != "" && element == string(word) {
			return true
		}
	}
	return false
}

// offered reports whether an extension of that name is in the value of a Sec-WebSocket-Extensions header. Parameter
// values are tokens, quoted or not, so no comma or semicolon is ever within quotes.
func offered(list string, name []byte) bool {
	for element := range strings.SplitSeq(list, ",") {
		element, _, _ = strings.Cut(element, ";")
		if element = strings.Trim(element, " \t"); element != "" && element == string(name) {
			return true
		}
	}
	return false
}
