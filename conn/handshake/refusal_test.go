package handshake

import (
	"strings"
	"testing"
	"time"
)

// L2.1, L2.6: the refusals, byte for byte.
func TestAppendRefusal(t *testing.T) {
	_, plain := parse(t, "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n")
	_, post := parse(t, "POST /chat HTTP/1.1\r\nHost: a\r\n\r\n")
	const text = "Content-Type: text/plain; charset=utf-8\r\n"
	for _, tc := range []struct {
		refusal    *Refusal
		head, body string
	}{
		{plain, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close\r\n" +
			text + "Content-Length: 101\r\n\r\n",
			"426 Upgrade Required: this is a WebSocket endpoint; a request with 'Upgrade: websocket' was expected\n"},
		{post, "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\n" + text + "Content-Length: 64\r\n\r\n",
			"405 Method Not Allowed: only GET becomes a WebSocket connection\n"},
		{NotFound("/ws", "/echo"), "HTTP/1.1 404 Not Found\r\nConnection: close\r\n" + text + "Content-Length: 73\r\n\r\n",
			"404 Not Found: there is nothing at this path; WebSocket is at /ws, /echo\n"},
		{Unavailable("full", 5*time.Second), "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n" +
			text + "Content-Length: 30\r\n\r\n",
			"503 Service Unavailable: full\n"},
	} {
		check(t, "the answer", AppendRefusal([]byte("before "), tc.refusal), "before "+tc.head+tc.body)
		check(t, "the answer to HEAD", AppendRefusalHead(nil, tc.refusal), tc.head)
	}
	for _, tc := range []struct {
		retry time.Duration
		want  string
	}{{0, ""}, {-time.Second, ""}, {1, "Retry-After: 1\r\n"}, {time.Second, "Retry-After: 1\r\n"}, {time.Second + 1, "Retry-After: 2\r\n"}} {
		if got := Unavailable("x", tc.retry).Header; got != tc.want {
			t.Errorf("retry after %v: %q, want %q", tc.retry, got, tc.want)
		}
	}
	for _, tc := range []struct {
		r    *Refusal
		want string
	}{
		{BadRequest("x"), "400 Bad Request: x"}, {Forbidden("x"), "403 Forbidden: x"}, {TimedOut("x"), "408 Request Timeout: x"},
		{NotFound(), "404 Not Found: there is nothing at this path"}, {refuseManyLines, "431 Request Header Fields Too Large: there are more than 100 header lines"},
		{refuseHTTPVersion, "505 HTTP Version Not Supported: HTTP/1.1 was expected"}, {&Refusal{Status: 418, Reason: "x"}, "418 Refused: x"},
	} {
		if tc.r.String() != tc.want {
			t.Errorf("%q, want %q", tc.r.String(), tc.want)
		}
	}
	var r Request
	if r.ParseHead([]byte("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")) != nil || !r.IsHead() {
		t.Error("HEAD is not known for what it is")
	}
}

// All 426 answers name the version and the protocol to upgrade to (RFC 6455 section 4.4, RFC 9110 section 15.5.22).
func TestUpgradeRequiredSaysWhatToUpgradeTo(t *testing.T) {
	for _, r := range []*Refusal{refuseHTTP10, refusePlain, refuseConnection, refuseVersion} {
		if r.Status != 426 || !strings.Contains(r.Header, "Upgrade: websocket\r\n") || !strings.Contains(r.Header, "Sec-WebSocket-Version: 13\r\n") {
			t.Errorf("%v: header %q", r, r.Header)
		}
	}
}
