package handshake

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sampleNonce is what sampleKey is the base64 of.
var sampleNonce = [16]byte([]byte("the sample nonce"))

// L1.2: the client's request, byte for byte, and that our server takes it.
func TestAppendRequest(t *testing.T) {
	check(t, "the request", AppendRequest(nil, "server.example.com", "/chat", sampleNonce, "", "", nil),
		"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+sampleKey+"\r\n\r\n")
	extra := []Header{{"User-Agent", "bench"}, {"Sec-WebSocket-Extensions", "permessage-deflate"}}
	got := AppendRequest([]byte("before "), "a:1", "/b?c", sampleNonce, "http://o", "p, q", extra)
	check(t, "the request", got, "before GET /b?c HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+sampleKey+"\r\nOrigin: http://o\r\nSec-WebSocket-Protocol: p, q\r\n"+
		"User-Agent: bench\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	if err := CheckRequest("a:1", "/b?c", "http://o", "p, q", extra); err != nil {
		t.Error(err)
	}
	r, refusal := parse(t, strings.TrimPrefix(string(got), "before "))
	if refusal != nil {
		t.Fatal(refusal)
	}
	check(t, "Key", r.Key, sampleKey)
	check(t, "Query", r.Query, "c")
	check(t, "Origin", r.Origin, "http://o")
}

func TestCheckRequest(t *testing.T) {
	for _, tc := range []struct {
		host, path, origin, protocol string
		extra                        []Header
		faults                       int
	}{
		{"a", "/", "", "", nil, 0},
		{"[::1]:80", "/a%20b?c=%zz", "null", "p", []Header{{"X", ""}, {"Y", "\xc3\xa4"}}, 0},
		{"", "/", "", "", nil, 1},
		{"a\r\nX: y", "/", "", "", nil, 1},
		{"a", "", "", "", nil, 1},
		{"a", "b", "", "", nil, 1},
		{"a", "*", "", "", nil, 1},
		{"a", "http://b/", "", "", nil, 1},
		{"a", "/b c", "", "", nil, 1},
		{"a", "/b#c", "", "", nil, 1},
		{"a", "/b%2", "", "", nil, 1},
		{"a", "/b\r\nX: y", "", "", nil, 1},
		{"a", "/\xc3\xa4", "", "", nil, 1},
		{"a", "/", "o\r\nX: y", "", nil, 1},
		{"a", "/", "", "p q", nil, 1},
		{"a", "/", "", "p,", nil, 1},
		{"a", "/", "", "p\r\nX: y", nil, 1},
		{"a", "/", "", "", []Header{{"X Y", "z"}}, 1},
		{"a", "/", "", "", []Header{{"", "z"}}, 1},
		{"a", "/", "", "", []Header{{"X", "y\r\nZ: z"}}, 1},
		{"a", "/", "", "", []Header{{"host", "b"}, {"CONTENT-LENGTH", "1"}}, 2},
		{"a", "/", "", "", []Header{{"Sec-WebSocket-Extensions", "a b"}}, 1},
		{"", "", "\n", ";", []Header{{":", "\n"}}, 6},
	} {
		err := CheckRequest(tc.host, tc.path, tc.origin, tc.protocol, tc.extra)
		faults := 0
		if err != nil {
			faults = strings.Count(err.Error(), "\n") + 1
		}
		if faults != tc.faults {
			t.Errorf("%+v: %d faults, want %d: %v", tc, faults, tc.faults, err)
		}
		if _, refusal := tryRequest(tc.host, tc.path, tc.origin, tc.protocol, tc.extra); err == nil && refusal != nil {
			t.Errorf("%+v: no fault, but the server refuses: %v", tc, refusal)
		}
	}
}

func tryRequest(host, path, origin, protocol string, extra []Header) (*Request, *Refusal) {
	r := new(Request)
	return r, r.Parse(AppendRequest(nil, host, path, sampleNonce, origin, protocol, extra))
}

const sampleAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + sampleAccept + "\r\n\r\n"

// RFC 6455 section 4.1: when the client must fail the connection.
func TestParseResponse(t *testing.T) {
	with := func(old, new string) string {
		if !strings.Contains(sampleAnswer, old) {
			panic(old)
		}
		return strings.Replace(sampleAnswer, old, new, 1)
	}
	plus := func(lines string) string { return strings.TrimSuffix(sampleAnswer, "\r\n") + lines + "\r\n" }
	refused := func(status int, phrase string, after time.Duration) error {
		return &StatusError{status, phrase, after}
	}
	bad := func(r *Refusal) error { return &ResponseError{r.Reason} }
	for _, tc := range []struct {
		name, answer         string
		protocol, extensions string // offered
		want                 error
	}{
		{"sample", sampleAnswer, "", "", nil},
		{"frames behind", sampleAnswer + "\x81\x01a\r\n\r\n", "", "", nil},
		{"no phrase", with(" Switching Protocols", ""), "", "", nil},
		{"empty phrase", with("Switching Protocols", ""), "", "", nil},
		{"HTTP/1.2", with("1.1", "1.2"), "", "", nil},
		{"names and words in another case", with("Upgrade: websocket\r\nConnection: Upgrade", "UPGRADE: WebSocket\r\nconnection: keep-alive, upgrade"), "", "", nil},

		// Status line.
		{"empty", "\r\n\r\n", "", "", errStatusLine},
		{"incomplete", sampleAnswer[:len(sampleAnswer)-2], "", "", bad(refuseIncomplete)},
		{"nothing", "", "", "", bad(refuseIncomplete)},
		{"bare LF", strings.ReplaceAll(sampleAnswer, "\r\n", "\n"), "", "", bad(refuseBareLF)},
		{"HTTP/1.0", with("1.1", "1.0"), "", "", errStatusLine},
		{"HTTP/2.0", with("1.1", "2.0"), "", "", errStatusLine},
		{"no number", with("101", "abc"), "", "", errStatusLine},
		{"two digits and no more", "HTTP/1.1 10\r\n\r\n", "", "", errStatusLine},
		{"no digit in the version", with("1.1", "1.x"), "", "", errStatusLine},
		{"another protocol", with("HTTP", "ICAP"), "", "", errStatusLine},
		{"no space before the status", with(" 101", "-101"), "", "", errStatusLine},
		{"no space behind the status", with("101 ", "101-"), "", "", errStatusLine},
		{"two digits", with("101", "10"), "", "", errStatusLine},
		{"four digits", with("101", "1010"), "", "", errStatusLine},
		{"status 099", with("101", "099"), "", "", errStatusLine},
		{"status 600", with("101", "600"), "", "", errStatusLine},
		{"control character in the phrase", with("Switching", "\x1b[1m"), "", "", errStatusLine},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n\r\n", "", "", errStatusLine},
		{"malformed header", plus("a b: c\r\n"), "", "", bad(refuseName)},
		{"too many header lines", plus(strings.Repeat("X: y\r\n", MaxHeaderLines)), "", "", bad(refuseManyLines)},

		// Other statuses.
		{"200", with("101 Switching Protocols", "200 OK"), "", "", refused(200, "OK", 0)},
		{"404 without a phrase", "HTTP/1.1 404\r\n\r\n", "", "", refused(404, "", 0)},
		{"302 by HTTP/1.0", "HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "", "", refused(302, "Found", 0)},
		{"503", "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\r\nfull", "", "", refused(503, "Service Unavailable", 7*time.Second)},
		{"503 with a date", "HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n", "", "", refused(503, "x", 0)},
		{"503 with nine digits", "HTTP/1.1 503 x\r\nRetry-After: 999999999\r\n\r\n", "", "", refused(503, "x", 999999999*time.Second)},
		{"503 with ten digits", "HTTP/1.1 503 x\r\nRetry-After: 9999999999\r\n\r\n", "", "", refused(503, "x", 0)},
		{"503 with nothing", "HTTP/1.1 503 x\r\nRetry-After:\r\n\r\n", "", "", refused(503, "x", 0)},
		{"103", "HTTP/1.1 103 Early Hints\r\n\r\n" + sampleAnswer, "", "", ErrInterim},
		{"100", "HTTP/1.1 100 Continue\r\n\r\n", "", "", ErrInterim},

		// Items 2 to 4.
		{"no Upgrade", with("Upgrade: websocket\r\n", ""), "", "", errUpgrade},
		{"Upgrade to two", with("websocket", "websocket, h2c"), "", "", errUpgrade},
		{"Upgrade twice", plus("Upgrade: websocket\r\n"), "", "", errUpgrade},
		{"no Connection", with("Connection: Upgrade\r\n", ""), "", "", errConnection},
		{"Connection without Upgrade", with("Connection: Upgrade", "Connection: close"), "", "", errConnection},
		{"no accept", with("Sec-WebSocket-Accept: "+sampleAccept+"\r\n", ""), "", "", errAccept},
		{"another accept", with(sampleAccept, "S3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "", "", errAccept},
		{"accept twice", plus("Sec-WebSocket-Accept: " + sampleAccept + "\r\n"), "", "", errAccept},

		// Item 5: extensions.
		{"extension", plus("Sec-WebSocket-Extensions: a;b=1\r\n"), "", "x;y, a ; c", nil},
		{"extension not offered", plus("Sec-WebSocket-Extensions: b\r\n"), "", "a;b", errExtension},
		{"extension when none was offered", plus("Sec-WebSocket-Extensions: a\r\n"), "", "", errExtension},
		{"second extension not offered", plus("Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: c\r\n"), "", "a, b", errExtension},
		{"malformed extension", plus("Sec-WebSocket-Extensions: a;\r\n"), "", "a", errExtension},

		// Item 6: subprotocol.
		{"subprotocol", plus("Sec-WebSocket-Protocol: q\r\n"), "p,\tq", "", nil},
		{"no subprotocol chosen", sampleAnswer, "p, q", "", nil},
		{"subprotocol not offered", plus("Sec-WebSocket-Protocol: r\r\n"), "p, q", "", errProtocol},
		{"subprotocol in another case", plus("Sec-WebSocket-Protocol: P\r\n"), "p, q", "", errProtocol},
		{"subprotocol when none was offered", plus("Sec-WebSocket-Protocol: p\r\n"), "", "", errProtocol},
		{"empty subprotocol", plus("Sec-WebSocket-Protocol:\r\n"), "p,", "", errProtocol},
		{"two subprotocols", plus("Sec-WebSocket-Protocol: p\r\nSec-WebSocket-Protocol: q\r\n"), "p, q", "", errProtocol},
		{"two in one line", plus("Sec-WebSocket-Protocol: p, q\r\n"), "p, q", "", errProtocol},
	} {
		r := Response{Protocol: []byte("left")}
		err := r.Parse([]byte(tc.answer), sampleNonce, tc.protocol, tc.extensions)
		if !reflect.DeepEqual(err, tc.want) {
			t.Errorf("%s: %#v, want %#v", tc.name, err, tc.want)
		}
		if err == nil && r.Status != 101 {
			t.Errorf("%s: Status %d", tc.name, r.Status)
		}
		want := ""
		if tc.name == "subprotocol" {
			want = "q"
		}
		check(t, tc.name+": Protocol", r.Protocol, want)
		if tc.name == "extension" {
			for e := range r.Extensions() {
				check(t, "Name", e.Name, "a")
			}
		}
	}
	var r Response
	if err := r.Parse([]byte(sampleAnswer), [16]byte{}, "", ""); err != errAccept {
		t.Errorf("the answer to another key: %v", err)
	}
}

// What the caller sees of a refusal (L2.6): status and how long to wait.
func TestRefusalReachesTheClient(t *testing.T) {
	var r Response
	err := r.Parse(AppendRefusal(nil, Unavailable("full", 1500*time.Millisecond)), sampleNonce, "", "")
	var refused *StatusError
	if !errors.As(err, &refused) || refused.Status != 503 || refused.RetryAfter != 2*time.Second {
		t.Fatalf("%v", err)
	}
	if got, want := refused.Error(), "the server refused the upgrade with 503 Service Unavailable, to be tried again in 2s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := (&StatusError{Status: 404}).Error(), "the server refused the upgrade with 404"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := errAccept.Error(); !strings.HasPrefix(got, "invalid answer to the upgrade: ") {
		t.Error(got)
	}
	for _, tc := range []struct {
		n    int
		want error
	}{{MaxBlock - 1, nil}, {MaxBlock, nil}, {MaxBlock + 1, errTooLarge}} {
		answer := strings.TrimSuffix(sampleAnswer, "\r\n") + "X: "
		answer += strings.Repeat("x", tc.n-len(answer)-4) + "\r\n\r\n"
		if err := r.Parse(append([]byte(answer), make([]byte, 100)...), sampleNonce, "", ""); err != tc.want {
			t.Errorf("a block of %d bytes: %v, want %v", len(answer), err, tc.want)
		}
	}
}

func TestClientDoesNotAllocate(t *testing.T) {
	out := make([]byte, 0, 1024)
	var q Request
	var r Response
	n := 0
	if got := testing.AllocsPerRun(1000, func() {
		out = AppendRequest(out[:0], "a:1", "/ws", sampleNonce, "http://o", "p, q", nil)
		if refusal := q.Parse(out); refusal != nil {
			t.Fatal(refusal)
		}
		at := len(out)
		out = AppendResponse(out, q.Key, []byte("q"), []byte("permessage-deflate; server_no_context_takeover"))
		if err := r.Parse(out[at:], sampleNonce, "p, q", "permessage-deflate"); err != nil {
			t.Fatal(err)
		}
		for e := range r.Extensions() {
			n += len(e.Name)
		}
	}); got != 0 {
		t.Errorf("%v allocations per handshake, want 0", got)
	}
}
