package handshake

import (
	"strconv"
	"strings"
	"time"
)

// Refusal is the HTTP answer to a request that does not become a WebSocket connection. It is immutable and may be
// shared; a nil *Refusal is no refusal. (It is deliberately no error: a nil *Refusal in an error would not be nil.)
type Refusal struct {
	Status int
	// Reason is for people: a sentence without a full stop that says what was wrong and what was expected.
	Reason string
	// Header is further header lines, each with its CRLF.
	Header string
}

// String returns the status and the reason, for logs.
func (r *Refusal) String() string {
	return strconv.Itoa(r.Status) + " " + statusText(r.Status) + ": " + r.Reason
}

const (
	allowGET       = "Allow: GET\r\n"                                      // RFC 9110 section 15.5.6
	upgradeHeaders = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" // RFC 9110 section 15.5.22, RFC 6455 section 4.4
)

// The refusals of this package.
var (
	refuseNotHTTP    = &Refusal{Status: 400, Reason: "this is not HTTP; a WebSocket handshake over plain text was expected"}
	refuseIncomplete = &Refusal{Status: 400, Reason: "the header block is not complete"}
	refuseBareLF     = &Refusal{Status: 400, Reason: "a line ends with LF alone; CRLF was expected"}
	refuseLine       = &Refusal{Status: 400, Reason: "the request line is malformed; 'GET /path HTTP/1.1' was expected"}
	refuseTarget     = &Refusal{Status: 400, Reason: "the request target is malformed; a path or an absolute http URI without user and fragment was expected"}
	refuseFolding    = &Refusal{Status: 400, Reason: "a header line begins with white space (obsolete line folding)"}
	refuseNoColon    = &Refusal{Status: 400, Reason: "a header line has no colon"}
	refuseName       = &Refusal{Status: 400, Reason: "a header name is empty or has characters that are not allowed, such as white space before the colon"}
	refuseValue      = &Refusal{Status: 400, Reason: "a header value has control characters"}
	refuseNoHost     = &Refusal{Status: 400, Reason: "there is no Host header"}
	refuseHosts      = &Refusal{Status: 400, Reason: "there is more than one Host header"}
	refuseHost       = &Refusal{Status: 400, Reason: "the host is empty or malformed; a name or address with an optional port was expected"}
	refuseLength     = &Refusal{Status: 400, Reason: "Content-Length is malformed, repeated, or beside Transfer-Encoding"}
	refuseBody       = &Refusal{Status: 400, Reason: "a request for an upgrade must not have a body"}
	refuseNoKey      = &Refusal{Status: 400, Reason: "there is no Sec-WebSocket-Key header"}
	refuseKeys       = &Refusal{Status: 400, Reason: "there is more than one Sec-WebSocket-Key header"}
	refuseKey        = &Refusal{Status: 400, Reason: "Sec-WebSocket-Key is malformed; 16 bytes as base64 were expected"}
	refuseVersions   = &Refusal{Status: 400, Reason: "there is more than one Sec-WebSocket-Version header", Header: "Sec-WebSocket-Version: 13\r\n"}
	refuseOrigins    = &Refusal{Status: 400, Reason: "there is more than one Origin header"}
	refuseProtocol   = &Refusal{Status: 400, Reason: "Sec-WebSocket-Protocol is malformed; a list of tokens was expected"}
	refuseExtension  = &Refusal{Status: 400, Reason: "Sec-WebSocket-Extensions is malformed; RFC 6455 section 9.1 has its grammar"}

	refuseMethod = &Refusal{Status: 405, Reason: "only GET becomes a WebSocket connection", Header: allowGET}

	refuseHTTP10     = &Refusal{Status: 426, Reason: "a WebSocket connection begins with HTTP/1.1; this was HTTP/1.0", Header: upgradeHeaders}
	refusePlain      = &Refusal{Status: 426, Reason: "this is a WebSocket endpoint; a request with 'Upgrade: websocket' was expected", Header: upgradeHeaders}
	refuseConnection = &Refusal{Status: 426, Reason: "there is 'Upgrade: websocket' but Connection does not list Upgrade; a proxy in between may have removed it", Header: upgradeHeaders}
	refuseVersion    = &Refusal{Status: 426, Reason: "Sec-WebSocket-Version is not 13, which is the only version spoken here", Header: upgradeHeaders}

	refuseManyLines = &Refusal{Status: 431, Reason: "there are more than " + strconv.Itoa(MaxHeaderLines) + " header lines"}
	refuseTooLarge  = &Refusal{Status: 431, Reason: "request line and headers are too large"}

	refuseHTTPVersion = &Refusal{Status: 505, Reason: "HTTP/1.1 was expected"}
)

// BadRequest returns a refusal with 400.
func BadRequest(reason string) *Refusal { return &Refusal{Status: 400, Reason: reason} }

// Forbidden returns a refusal with 403, for an origin that is not allowed (RFC 6455 section 4.2.2).
func Forbidden(reason string) *Refusal { return &Refusal{Status: 403, Reason: reason} }

// NotFound returns a refusal with 404 that names the paths there are.
func NotFound(paths ...string) *Refusal {
	if len(paths) == 0 {
		return &Refusal{Status: 404, Reason: "there is nothing at this path"}
	}
	return &Refusal{Status: 404, Reason: "there is nothing at this path; WebSocket is at " + strings.Join(paths, ", ")}
}

// TimedOut returns a refusal with 408, for a peer whose request did not come in time (L2.7; RFC 9110 section 15.5.9).
func TimedOut(reason string) *Refusal { return &Refusal{Status: 408, Reason: reason} }

// Unavailable returns a refusal with 503 (L2.6). A retryAfter above zero is sent as Retry-After, in whole seconds
// rounded up.
func Unavailable(reason string, retryAfter time.Duration) *Refusal {
	r := &Refusal{Status: 503, Reason: reason}
	if retryAfter > 0 {
		seconds := int64(retryAfter / time.Second)
		if retryAfter%time.Second > 0 {
			seconds++
		}
		r.Header = "Retry-After: " + strconv.FormatInt(seconds, 10) + "\r\n"
	}
	return r
}

// AppendRefusal appends the whole HTTP answer to dst. The body is a line of plain text with status and reason; the
// connection ends with it (Connection: close). There is no Date, which needs a clock (RFC 9110 section 6.6.1).
func AppendRefusal(dst []byte, r *Refusal) []byte { return appendRefusal(dst, r, true) }

// AppendRefusalHead appends the same without the body, which is the answer to a HEAD request (Request.IsHead).
func AppendRefusalHead(dst []byte, r *Refusal) []byte { return appendRefusal(dst, r, false) }

func appendRefusal(dst []byte, r *Refusal, body bool) []byte {
	text := statusText(r.Status)
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, text...)
	dst = append(dst, "\r\n"...)
	dst = append(dst, r.Header...)
	if r.Status == 426 {
		dst = append(dst, "Connection: Upgrade, close\r\n"...) // a message with Upgrade must list it there: RFC 9110 section 7.8
	} else {
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len("426 ")+len(text)+len(": ")+len(r.Reason)+len("\n")), 10)
	dst = append(dst, "\r\n\r\n"...)
	if !body {
		return dst
	}
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, text...)
	dst = append(dst, ": "...)
	dst = append(dst, r.Reason...)
	return append(dst, '\n')
}

// statusText returns the reason phrase of a status. (net/http has it too; but then every user of this package would
// link all of net/http.)
func statusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 426:
		return "Upgrade Required"
	case 431:
		return "Request Header Fields Too Large"
	case 503:
		return "Service Unavailable"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Refused"
}
