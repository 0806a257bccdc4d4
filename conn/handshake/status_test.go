package handshake

import (
	"strings"
	"testing"
)

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
		{"escape at the end", line("GET /cha%74 HTTP/1.1"), 101},
		{"bad first digit of an escape", line("GET /ch%x1t HTTP/1.1"), 400},
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
		{"absolute, no slash", line("GET http:x/chat HTTP/1.1"), 400},
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
