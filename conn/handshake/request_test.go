package handshake

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sampleKey and sampleAccept are the example of RFC 6455 section 1.3.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// sample is the request of RFC 6455 section 1.2, without the line that says otherwise.
const sample = "GET /chat HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Key: " + sampleKey + "\r\n" +
	"Origin: http://example.com\r\n" +
	"Sec-WebSocket-Protocol: chat, superchat\r\n" +
	"Sec-WebSocket-Version: 13\r\n\r\n"

// with returns the sample with one piece replaced, which must be there.
func with(old, new string) string {
	if !strings.Contains(sample, old) {
		panic("no " + old + " in the sample")
	}
	return strings.Replace(sample, old, new, 1)
}

// plus returns the sample with further header lines.
func plus(lines string) string { return strings.TrimSuffix(sample, "\r\n") + lines + "\r\n" }

// parse does what a server does with a complete block.
func parse(t testing.TB, block string) (*Request, *Refusal) {
	t.Helper()
	p := []byte(block)
	end, refusal := Scan(p, 0, MaxRequest)
	if refusal != nil {
		return nil, refusal
	}
	if end == 0 {
		t.Fatalf("not complete: %q", block)
	}
	r := new(Request)
	return r, r.Parse(p[:end])
}

func status(r *Refusal) int {
	if r == nil {
		return 101
	}
	return r.Status
}

func check(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

// L2.1: the example of RFC 6455 sections 1.2 and 1.3.
func TestSample(t *testing.T) {
	r, refusal := parse(t, sample)
	if refusal != nil {
		t.Fatal(refusal)
	}
	check(t, "Method", r.Method, "GET")
	check(t, "Target", r.Target, "/chat")
	check(t, "Path", r.Path, "/chat")
	check(t, "Host", r.Host, "server.example.com")
	check(t, "Origin", r.Origin, "http://example.com")
	check(t, "Key", r.Key, sampleKey)
	if r.Query != nil {
		t.Errorf("Query is %q, want nil", r.Query)
	}
	var protocols []string
	for p := range r.Protocols() {
		protocols = append(protocols, string(p))
	}
	if !slices.Equal(protocols, []string{"chat", "superchat"}) {
		t.Errorf("Protocols %q", protocols)
	}
	want := "HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + sampleAccept + "\r\n" +
		"Sec-WebSocket-Protocol: chat\r\n\r\n"
	check(t, "the response", AppendResponse(nil, r.Key, []byte("chat"), nil), want)
	check(t, "the response", AppendResponse([]byte("before "), r.Key, nil, []byte("permessage-deflate")),
		"before "+strings.Replace(want, "Protocol: chat", "Extensions: permessage-deflate", 1))
	check(t, "the response", AppendResponse(nil, r.Key, nil, nil), strings.Replace(want, "Sec-WebSocket-Protocol: chat\r\n", "", 1))
}

func TestAcceptOfUncheckedKeyPanics(t *testing.T) {
	for _, key := range []string{"", sampleKey[1:], sampleKey + "="} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("key %q: no panic", key)
				}
			}()
			Accept([]byte(key))
		}()
	}
}

// L2.1: what is answered to which request; 101 stands for an accepted one.
func TestStatuses(t *testing.T) {
	const hostLine, keyLine = "Host: server.example.com\r\n", "Sec-WebSocket-Key: " + sampleKey + "\r\n"
	const versionLine, upgradeLine, connectionLine = "Sec-WebSocket-Version: 13\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"
	key := func(k string) string { return with(sampleKey, k) }
	line := func(l string) string { return with("GET /chat HTTP/1.1", l) }
	for _, tc := range []struct {
		name  string
		block string
		want  int
	}{
		// RFC 9112 section 3: request line.
		{"no target", line("GET HTTP/1.1"), 400},
		{"no version (HTTP/0.9)", line("GET /chat"), 400},
		{"two spaces before the target", line("GET  /chat HTTP/1.1"), 400},
		{"two spaces after the target", line("GET /chat  HTTP/1.1"), 400},
		{"a space in the target", line("GET /ch at HTTP/1.1"), 400},
		{"a tab instead of a space", line("GET\t/chat\tHTTP/1.1"), 400},
		{"space before the method", line(" GET /chat HTTP/1.1"), 400},
		{"space after the version", line("GET /chat HTTP/1.1 "), 400},
		{"only two spaces", line("  "), 400},
		{"only one space", line(" "), 400},
		{"empty request line", line(""), 400},
		{"empty line before", "\r\n" + sample, 400},
		{"method with a colon", line("GE:T /chat HTTP/1.1"), 400},
		{"lower-case get is another method", line("get /chat HTTP/1.1"), 405},
		{"control character in the target", line("GET /ch\x01at HTTP/1.1"), 400},
		{"DEL in the target", line("GET /ch\x7fat HTTP/1.1"), 400},
		{"NUL in the target", line("GET /ch\x00at HTTP/1.1"), 400},
		{"non-ASCII in the target", line("GET /ch\xc3\xa4t HTTP/1.1"), 400},
		{"fragment in the target", line("GET /chat#x HTTP/1.1"), 400},
		{"CR in the request line", line("GET /chat\r HTTP/1.1"), 400},

		// RFC 9112 section 2.3 and RFC 9110 section 2.5: version.
		{"HTTP/1.2 counts as 1.1", line("GET /chat HTTP/1.2"), 101},
		{"HTTP/1.0", line("GET /chat HTTP/1.0"), 426},
		{"HTTP/2.0", line("GET /chat HTTP/2.0"), 505},
		{"HTTP/0.9", line("GET /chat HTTP/0.9"), 505},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n", 505},
		{"http/1.1", line("GET /chat http/1.1"), 400},
		{"HTTP/1", line("GET /chat HTTP/1"), 400},
		{"HTTP/11", line("GET /chat HTTP/11"), 400},
		{"HTTP/1,1", line("GET /chat HTTP/1,1"), 400},
		{"HTTP/1.10", line("GET /chat HTTP/1.10"), 400},
		{"HTTP/a.1", line("GET /chat HTTP/a.1"), 400},
		{"HTTP/1.a", line("GET /chat HTTP/1.a"), 400},
		{"SIP/1.1.1", line("GET /chat SIPX/1.1"), 400},

		// RFC 9112 section 3.2: target.
		{"query", line("GET /chat?x=1&y=%zz HTTP/1.1"), 101},
		{"escape", line("GET /ch%61t HTTP/1.1"), 101},
		{"bad escape", line("GET /ch%6xt HTTP/1.1"), 400},
		{"cut escape", line("GET /chat%6 HTTP/1.1"), 400},
		{"cut escape before the query", line("GET /chat%6?1 HTTP/1.1"), 400},
		{"two slashes", line("GET //chat HTTP/1.1"), 101},
		{"absolute", line("GET http://server.example.com:80/chat HTTP/1.1"), 101},
		{"absolute, upper case", line("GET HTTPS://server.example.com/chat HTTP/1.1"), 101},
		{"absolute, ws", line("GET ws://server.example.com/chat HTTP/1.1"), 101},
		{"absolute, wss", line("GET wss://[::1]:1/chat HTTP/1.1"), 101},
		{"absolute, ftp", line("GET ftp://server.example.com/chat HTTP/1.1"), 400},
		{"absolute, no host", line("GET http:///chat HTTP/1.1"), 400},
		{"absolute, user", line("GET http://me@server.example.com/chat HTTP/1.1"), 400},
		{"absolute, bad port", line("GET http://server.example.com:x/chat HTTP/1.1"), 400},
		{"absolute, one slash", line("GET http:/chat HTTP/1.1"), 400},
		{"absolute, cut", line("GET http: HTTP/1.1"), 400},
		{"relative", line("GET chat HTTP/1.1"), 400},
		{"asterisk", line("GET * HTTP/1.1"), 400},
		{"asterisk with OPTIONS", line("OPTIONS * HTTP/1.1"), 405},
		{"authority with CONNECT", line("CONNECT server.example.com:80 HTTP/1.1"), 405},

		// RFC 9112 section 5 and RFC 9110 section 5: header lines.
		{"bare LF", strings.ReplaceAll(sample, "\r\n", "\n"), 400},
		{"one bare LF", with("websocket\r\n", "websocket\n"), 400},
		{"bare LF at the end", with("13\r\n\r\n", "13\r\n\n"), 400},
		{"LF CRLF at the end", with("13\r\n\r\n", "13\n\r\n"), 400},
		{"bare CR", with("websocket\r\n", "websocket\rX: y\r\n"), 400},
		{"CR CR LF", with("websocket\r\n", "websocket\r\r\n"), 400},
		{"folding with a space", with("Upgrade: websocket", "Upgrade:\r\n websocket"), 400},
		{"folding with a tab", with("Upgrade: websocket", "Upgrade:\r\n\twebsocket"), 400},
		{"folding of the first line", with("Host:", " Host:"), 400},
		{"space before the colon", with("Host:", "Host :"), 400},
		{"tab before the colon", with("Host:", "Host\t:"), 400},
		{"no colon", with("Upgrade: websocket", "Upgrade websocket"), 400},
		{"no name", with("Upgrade: websocket", ": websocket"), 400},
		{"space in a name", plus("A B: c\r\n"), 400},
		{"non-ASCII in a name", plus("\xc3\xa4: c\r\n"), 400},
		{"NUL in a value", plus("X: a\x00b\r\n"), 400},
		{"DEL in a value", plus("X: a\x7fb\r\n"), 400},
		{"ESC in a value", plus("X: a\x1bb\r\n"), 400},
		{"tab and bytes above ASCII in a value", plus("X: a\t\xc3\xa4\xff\r\n"), 101},
		{"empty value", plus("X:\r\nY: \t \r\n"), 101},
		{"no space after the colon", strings.ReplaceAll(sample, ": ", ":"), 101},
		{"white space around values", strings.NewReplacer(": ", ": \t ", "\r\n", " \t\r\n", "1.1\r\n", "1.1\r\n", "13\r\n\r\n", "13 \r\n\r\n").Replace(sample), 101},
		{"header names in lower case", with("Sec-WebSocket-Version", "sec-websocket-version"), 101},
		{"header names in upper case", with("Sec-WebSocket-Key", "SEC-WEBSOCKET-KEY"), 101},
		{"value with an almost-letter", with("Upgrade: websocket", "Upgrade: WEBSOCKE\x14"), 400},

		// RFC 9112 section 3.2: Host.
		{"no Host", with(hostLine, ""), 400},
		{"two Hosts", plus(hostLine), 400},
		{"empty Host", with("Host: server.example.com", "Host:"), 400},
		{"Host with a port", with("server.example.com", "server.example.com:8080"), 101},
		{"Host with an empty port", with("server.example.com", "server.example.com:"), 101},
		{"Host with a bad port", with("server.example.com", "server.example.com:80a"), 400},
		{"Host with only a port", with("server.example.com", ":80"), 400},
		{"Host with two colons", with("server.example.com", "a:1:2"), 400},
		{"Host with a user", with("server.example.com", "me@server"), 400},
		{"Host with a path", with("server.example.com", "server/x"), 400},
		{"Host with a list", with("server.example.com", "a b"), 400},
		{"Host IPv4", with("server.example.com", "127.0.0.1:80"), 101},
		{"Host IPv6", with("server.example.com", "[2001:db8::1]"), 101},
		{"Host IPv6 with a port", with("server.example.com", "[::1]:80"), 101},
		{"Host IPv6 with a bad port", with("server.example.com", "[::1]x"), 400},
		{"Host IPv6 with a zone", with("server.example.com", "[fe80::1%25eth0]"), 400},
		{"Host IPv6 unclosed", with("server.example.com", "[::1"), 400},
		{"Host IPv6 malformed", with("server.example.com", "[1:2]"), 400},
		{"Host IPv4 in brackets", with("server.example.com", "[127.0.0.1]"), 400},
		{"Host absolute and missing", strings.Replace(line("GET http://a/chat HTTP/1.1"), hostLine, "", 1), 400},
		{"HTTP/1.0 without Host", "GET /chat HTTP/1.0\r\n\r\n", 426},

		// RFC 9112 section 6: no body, and no two readings of its length.
		{"Content-Length 0", plus("Content-Length: 0\r\n"), 101},
		{"Content-Length 00", plus("Content-Length: 00\r\n"), 101},
		{"Content-Length 5", plus("Content-Length: 5\r\n"), 400},
		{"Content-Length twice", plus("Content-Length: 0\r\nContent-Length: 0\r\n"), 400},
		{"Content-Length list", plus("Content-Length: 0, 0\r\n"), 400},
		{"Content-Length signed", plus("Content-Length: +0\r\n"), 400},
		{"Content-Length negative", plus("Content-Length: -1\r\n"), 400},
		{"Content-Length empty", plus("Content-Length:\r\n"), 400},
		{"Transfer-Encoding", plus("Transfer-Encoding: chunked\r\n"), 400},
		{"Transfer-Encoding identity", plus("Transfer-Encoding: identity\r\n"), 400},
		{"both", plus("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400},
		{"POST with both", "POST /chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", 400},
		{"POST with a length", "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", 405},
		{"plain GET with a body", "GET /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", 400},

		// RFC 6455 section 4.2.1, item 1: GET.
		{"POST", line("POST /chat HTTP/1.1"), 405},
		{"HEAD", line("HEAD /chat HTTP/1.1"), 405},
		{"unknown method", line("BREW /chat HTTP/1.1"), 405},

		// RFC 6455 section 4.2.1, items 3 and 4: Upgrade and Connection.
		{"plain GET", "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n", 426},
		{"no Upgrade", with(upgradeLine, ""), 426},
		{"no Connection", with(connectionLine, ""), 426},
		{"Upgrade to something else", with("Upgrade: websocket", "Upgrade: h2c"), 426},
		{"Upgrade with a version", with("Upgrade: websocket", "Upgrade: websocket/13"), 426},
		{"Upgrade is no substring", with("Upgrade: websocket", "Upgrade: xwebsocket"), 426},
		{"Upgrade in another case", with("Upgrade: websocket", "Upgrade: WebSocket"), 101},
		{"Upgrade as a list", with("Upgrade: websocket", "Upgrade: h2c, ,\twebsocket "), 101},
		{"Upgrade on two lines", with("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"), 101},
		{"Connection as browsers send it", with("Connection: Upgrade", "Connection: keep-alive, Upgrade"), 101},
		{"Connection in another case", with("Connection: Upgrade", "connection: uPGRADE"), 101},
		{"Connection on two lines", with("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"), 101},
		{"Connection without Upgrade", with("Connection: Upgrade", "Connection: close"), 426},
		{"Connection is no substring", with("Connection: Upgrade", "Connection: Upgrades, NoUpgrade"), 426},
		{"Connection without commas", with("Connection: Upgrade", "Connection: keep-alive Upgrade"), 426},

		// RFC 6455 section 4.2.1, item 6, and section 4.4: version.
		{"no version", with(versionLine, ""), 426},
		{"version 8", with("Version: 13", "Version: 8"), 426},
		{"version 14", with("Version: 13", "Version: 14"), 426},
		{"version 013", with("Version: 13", "Version: 013"), 426},
		{"version empty", with("Version: 13", "Version:"), 426},
		{"versions 13 and 8", with("Version: 13", "Version: 13, 8"), 426},
		{"version twice", plus(versionLine), 400},
		{"version comes before the key", with(versionLine, ""), 426},
		{"the wrong version and no key", strings.Replace(with("Version: 13", "Version: 0"), keyLine, "", 1), 426},

		// RFC 6455 section 4.2.1, item 5: key.
		{"no key", with(keyLine, ""), 400},
		{"two keys", plus(keyLine), 400},
		{"empty key", key(""), 400},
		{"key of 15 bytes", key("AAAAAAAAAAAAAAAAAAAA"), 400},
		{"key of 17 bytes", key("dGhlIHNhbXBsZSBub25jZXM="), 400},
		{"key of 18 bytes", key("dGhlIHNhbXBsZSBub25jZXMh"), 400},
		{"key without padding", key("dGhlIHNhbXBsZSBub25jZQ"), 400},
		{"key in base64url", key("-_hlIHNhbXBsZSBub25jZQ=="), 400},
		{"key with a space", key("dGhlIHNhbXBsZSBub25jZ =="), 400},
		{"key with stray bits", key("dGhlIHNhbXBsZSBub25jZR=="), 101},

		// RFC 6455 section 4.2.1, items 7 to 9.
		{"no Origin", with("Origin: http://example.com\r\n", ""), 101},
		{"two Origins", plus("Origin: http://evil.example\r\n"), 400},
		{"no subprotocol", with("Sec-WebSocket-Protocol: chat, superchat\r\n", ""), 101},
		{"subprotocols on two lines", plus("Sec-WebSocket-Protocol: third\r\n"), 101},
		{"a subprotocol that is no token", with("superchat", "super chat"), 400},
		{"extension", plus("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"), 101},
		{"malformed extension", plus("Sec-WebSocket-Extensions: permessage-deflate; =1\r\n"), 400},
	} {
		if _, refusal := parse(t, tc.block); status(refusal) != tc.want {
			t.Errorf("%s: %d (%v), want %d", tc.name, status(refusal), refusal, tc.want)
		}
	}
}

// L2.1: the order of the steps. The path can be judged before the method and the upgrade are.
func TestPathIsKnownBeforeTheUpgradeIsJudged(t *testing.T) {
	for _, tc := range []struct{ block, path, query, host string }{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", "", "a"},
		{"GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n", "/favicon.ico", "", "a"},
		{"POST /a?b?c=/d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "/a", "b?c=/d", "a"},
		{"GET /? HTTP/1.0\r\n\r\n", "/", "", ""},
		{"GET http://b:1 HTTP/1.1\r\nHost: a\r\n\r\n", "/", "", "b:1"},
		{"GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", "/", "x", "b"},
		{"GET http://b/%2f/.. HTTP/1.1\r\nHost: a\r\n\r\n", "/%2f/..", "", "b"},
		{"GET http://b/c?http://d HTTP/1.1\r\nHost: a\r\n\r\n", "/c", "http://d", "b"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", "", "a"},
		{"CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n", "", "", "a"},
	} {
		var r Request
		if refusal := r.ParseHead([]byte(tc.block)); refusal != nil {
			t.Errorf("%q: %v", tc.block, refusal)
			continue
		}
		check(t, "Path", r.Path, tc.path)
		check(t, "Query", r.Query, tc.query)
		check(t, "Host", r.Host, tc.host)
		if r.Key != nil {
			t.Errorf("%q: Key %q", tc.block, r.Key)
		}
		if refusal := r.CheckUpgrade(); refusal == nil {
			t.Errorf("%q was accepted", tc.block)
		}
	}
}

// One Request serves many handshakes: nothing of one is left for the next.
func TestRequestIsUsedAgain(t *testing.T) {
	var r Request
	if refusal := r.Parse([]byte(plus("Content-Length: 0\r\n"))); refusal != nil {
		t.Fatal(refusal)
	}
	for _, block := range []string{"GET /x HTTP/1.0\r\n\r\n", "no request\r\n\r\n", "GET  HTTP/1.1\r\n\r\n"} {
		refusal := r.Parse([]byte(block))
		if refusal == nil || r.Key != nil || r.Origin != nil || r.Host != nil || r.Header("Upgrade") != nil || r.hasBody {
			t.Errorf("%q: %v; left from before: %q %q %q", block, refusal, r.Key, r.Origin, r.Host)
		}
		if string(r.Path) == "/chat" {
			t.Errorf("%q: Path is the one before", block)
		}
	}
}

func TestHeaders(t *testing.T) {
	r, refusal := parse(t, plus("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for:3.3.3.3 ,,\t4.4.4.4\r\nEmpty:\r\nX-FORWARDED-FOR:\r\n"))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := r.Header("None"); got != nil {
		t.Errorf("a header that is not there: %q", got)
	}
	if got := r.Header("empty"); got == nil || len(got) != 0 {
		t.Errorf("an empty header: %v", got)
	}
	check(t, "Header", r.Header("X-Forwarded-For"), "1.1.1.1, 2.2.2.2")
	check(t, "AppendHeader", r.AppendHeader([]byte("> "), "X-Forwarded-For"), "> 1.1.1.1, 2.2.2.2, 3.3.3.3 ,,\t4.4.4.4, ")
	check(t, "AppendHeader", r.AppendHeader(nil, "None"), "")
	var values, elements, backward []string
	for v := range r.Values("X-Forwarded-For") {
		values = append(values, string(v))
	}
	for v := range r.Elements("X-Forwarded-For") {
		elements = append(elements, string(v))
	}
	for v := range r.Backward("X-Forwarded-For") {
		backward = append(backward, string(v))
	}
	if !slices.Equal(values, []string{"1.1.1.1, 2.2.2.2", "3.3.3.3 ,,\t4.4.4.4", ""}) {
		t.Errorf("Values %q", values)
	}
	if !slices.Equal(elements, []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}) {
		t.Errorf("Elements %q", elements)
	}
	slices.Reverse(elements)
	if !slices.Equal(backward, elements) {
		t.Errorf("Backward %q", backward)
	}
	lines := 0
	for name, value := range r.All() {
		if !bytes.Equal(r.name(lines), name) || !bytes.Equal(r.value(lines), value) {
			t.Errorf("line %d is %q %q", lines, name, value)
		}
		lines++
	}
	if lines != 11 {
		t.Errorf("%d lines, want 11", lines)
	}
	for range r.All() {
		break
	}
	for range r.Values("Host") {
		break
	}
	for range r.Elements("X-Forwarded-For") {
		break
	}
	for v := range r.Backward("X-Forwarded-For") {
		check(t, "the last one", v, "4.4.4.4")
		break
	}
}

func TestExtensions(t *testing.T) {
	render := func(f *Fields) string {
		var b strings.Builder
		for e := range f.Extensions() {
			fmt.Fprintf(&b, "%s", e.Name)
			for name, value := range e.Params() {
				fmt.Fprintf(&b, ";%s", name)
				if value != nil {
					fmt.Fprintf(&b, "=%s", value)
				}
			}
			b.WriteString("|")
		}
		return b.String()
	}
	for _, tc := range []struct{ value, want string }{ // want "": malformed
		{"permessage-deflate", "permessage-deflate|"},
		{"permessage-deflate; client_max_window_bits", "permessage-deflate;client_max_window_bits|"},
		{"a;b=1;c=\"2\",d", "a;b=1;c=2|d|"},
		{" a ; b = 1 ;\tc , , d ; e ", "a;b=1;c|d;e|"},
		{"a\r\nSec-WebSocket-Extensions: b;c", "a|b;c|"},
		{",", "|"}, // compared below: no element
		{"a b", ""}, {"a;", ""}, {"a;;b", ""}, {"a;b=", ""}, {"a;b=\"\"", ""}, {"a;b=\"1", ""}, {"a;b=\"1 2\"", ""},
		{"a;b=\"1\\2\"", ""}, {"a;b=1 2", ""}, {";a", ""}, {"=", ""}, {"a=1", ""}, {"a;b=\"1\"2", ""}, {"a, b c", ""}, {"(a)", ""},
	} {
		r, refusal := parse(t, plus("Sec-WebSocket-Extensions: "+tc.value+"\r\n"))
		switch {
		case tc.want == "" && refusal != refuseExtension:
			t.Errorf("%q: %v, want a refusal", tc.value, refusal)
		case tc.want != "" && refusal != nil:
			t.Errorf("%q: %v", tc.value, refusal)
		case tc.want != "" && render(&r.Fields) != strings.TrimPrefix(tc.want, "|"):
			t.Errorf("%q: %s, want %s", tc.value, render(&r.Fields), tc.want)
		}
	}
	// What stands after a malformed element is left out, by callers that look although the request was refused.
	r, _ := parse(t, plus("Sec-WebSocket-Extensions: a;b, c;, d\r\n"))
	if got := render(&r.Fields); got != "a;b|" {
		t.Errorf("got %s", got)
	}
	for e := range r.Extensions() {
		for range e.Params() {
			break
		}
		break
	}
}

// L2.7: what comes one byte at a time, or in any other pieces, is found where it ends, and what follows is left alone.
func TestScanInPieces(t *testing.T) {
	stream := []byte(sample + "\x81\x85frame\r\n\r\n")
	for step := 1; step <= len(stream); step++ {
		end, from := 0, 0
		for n := step; end == 0; n += step {
			n = min(n, len(stream))
			var refusal *Refusal
			if end, refusal = Scan(stream[:n], from, MaxRequest); refusal != nil {
				t.Fatalf("step %d: %v after %d bytes", step, refusal, n)
			}
			if end != 0 != (n >= len(sample)) {
				t.Fatalf("step %d: end %d after %d bytes", step, end, n)
			}
			from = n
		}
		if end != len(sample) {
			t.Fatalf("step %d: end %d, want %d", step, end, len(sample))
		}
	}
}

func TestEnd(t *testing.T) {
	for _, tc := range []struct {
		block string
		want  int
	}{
		{"", 0}, {"\r", 0}, {"\r\n", 0}, {"\n", 0}, {"a\r\n\r", 0}, {"a\r\n\r\n", 5}, {"a\r\n\r\nb", 5}, {"\r\n\r\n", 4},
		{"a\n\n", 3}, {"a\n\r\n", 4}, {"a\r\n\n", 4}, {"a\r\r\n", 0}, {"a\r\nb\r\n\r\n\r\n", 8}, {"a\r\n\rb\r\n", 0},
	} {
		if got := End([]byte(tc.block), 0); got != tc.want {
			t.Errorf("End(%q) is %d, want %d", tc.block, got, tc.want)
		}
		from := 0
		for n := range len(tc.block) + 1 {
			got := End([]byte(tc.block[:n]), from)
			if want := tc.want; got != want && (n >= want && want != 0 || got != 0) {
				t.Errorf("End(%q, %d) is %d, want %d", tc.block[:n], from, got, want)
			}
			if got != 0 {
				break
			}
			from = n
		}
	}
}

// L2.7, L2.1: the limit of bytes, and what is known before the end.
func TestScanLimit(t *testing.T) {
	block := func(n int) []byte {
		b := plus("X: \r\n")
		return []byte(strings.Replace(b, "X: ", "X: "+strings.Repeat("x", n-len(b)), 1))
	}
	for _, tc := range []struct {
		name  string
		p     []byte
		limit int
		end   int
		want  int
	}{
		{"below", block(MaxRequest - 1), MaxRequest, MaxRequest - 1, 101},
		{"at", block(MaxRequest), MaxRequest, MaxRequest, 101},
		{"above", block(MaxRequest + 1), MaxRequest, 0, 431},
		{"at, with frames behind", append(block(MaxRequest), make([]byte, 100)...), MaxRequest, MaxRequest, 101},
		{"incomplete, below", block(MaxRequest + 1)[:MaxRequest-1], MaxRequest, 0, 101},
		{"incomplete, at", block(MaxRequest + 1)[:MaxRequest], MaxRequest, 0, 431},
		{"at the limit of a block", block(MaxBlock), 1 << 20, MaxBlock, 101},
		{"above the limit of a block", block(MaxBlock + 1), 1 << 20, 0, 431},
		{"TLS", []byte("\x16\x03\x01"), MaxRequest, 0, 400},
		{"garbage", []byte("\x00"), MaxRequest, 0, 400},
		{"an empty line", []byte("\r\n"), MaxRequest, 0, 400},
		{"nothing", nil, MaxRequest, 0, 101},
	} {
		end, refusal := Scan(tc.p, 0, tc.limit)
		if end != tc.end || status(refusal) != tc.want {
			t.Errorf("%s: end %d and %v, want %d and %d", tc.name, end, refusal, tc.end, tc.want)
		}
		if end > 0 {
			var r Request
			if refusal := r.Parse(tc.p); refusal != nil {
				t.Errorf("%s: %v", tc.name, refusal)
			}
		}
	}
	var r Request
	if refusal := r.Parse(append(block(MaxBlock), make([]byte, 1<<20)...)); refusal != nil {
		t.Errorf("a block at the limit with frames behind: %v", refusal)
	}
	if refusal := r.Parse(block(MaxBlock + 1)); status(refusal) != 431 {
		t.Errorf("a block above the limit: %v", refusal)
	}
	if refusal := r.Parse([]byte(sample[:len(sample)-2])); refusal != refuseIncomplete {
		t.Errorf("an incomplete block: %v", refusal)
	}
	if refusal := r.Parse(nil); refusal != refuseIncomplete {
		t.Errorf("no block: %v", refusal)
	}
}

// L2.1: the limit of header lines.
func TestHeaderLineLimit(t *testing.T) {
	for _, tc := range []struct{ lines, want int }{{MaxHeaderLines - 1, 101}, {MaxHeaderLines, 101}, {MaxHeaderLines + 1, 431}} {
		own := strings.Count(sample, "\r\n") - 2
		if _, refusal := parse(t, plus(strings.Repeat("X: y\r\n", tc.lines-own))); status(refusal) != tc.want {
			t.Errorf("%d lines: %v, want %d", tc.lines, refusal, tc.want)
		}
	}
}

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

// A browser's request: what is read and answered without allocating.
const browser = "GET /ws?token=abc HTTP/1.1\r\nHost: gateway.example.com:8443\r\nConnection: keep-alive, Upgrade\r\nPragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\nOrigin: https://app.example.com\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\nCookie: a=b; c=d\r\nSec-WebSocket-Key: " + sampleKey + "\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.1\r\n\r\n"

func TestServerDoesNotAllocate(t *testing.T) {
	p, out := []byte(browser), make([]byte, 0, 1024)
	bad := []byte("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n")
	var r Request
	n := 0
	if got := testing.AllocsPerRun(1000, func() {
		end, refusal := Scan(p, 0, MaxRequest)
		if refusal == nil {
			refusal = r.Parse(p[:end])
		}
		if refusal != nil {
			t.Fatal(refusal)
		}
		for v := range r.Protocols() {
			n += len(v)
		}
		for e := range r.Extensions() {
			for name := range e.Params() {
				n += len(name)
			}
		}
		for v := range r.Backward("X-Forwarded-For") {
			n += len(v)
		}
		for v := range r.Values("Cookie") {
			n += len(v)
		}
		n += len(r.Header("User-Agent"))
		out = AppendResponse(out[:0], r.Key, nil, nil)
		out = AppendRefusal(out[:0], r.Parse(bad))
	}); got != 0 {
		t.Errorf("%v allocations per handshake, want 0", got)
	}
}

func BenchmarkServer(b *testing.B) {
	p, out := []byte(browser), make([]byte, 0, 1024)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		end, _ := Scan(p, 0, MaxRequest)
		if refusal := r.Parse(p[:end]); refusal != nil {
			b.Fatal(refusal)
		}
		out = AppendResponse(out[:0], r.Key, nil, nil)
	}
}
