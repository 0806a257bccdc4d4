package conformance

import (
	"fmt"
	"net/http"
	"strings"
)

// Answers returns answers to the opening handshake of a client that offers neither a subprotocol nor an extension, for the
// suite as the server: which it has to accept, and with which it has to give up (RFC 6455 section 4.1).
func Answers() []Case {
	t := table{section: "4.1"}
	takes := func(name string, answer func(key string) string, steps ...step) {
		if steps == nil {
			steps = good(echo(whole, text("hello"))...)
		}
		t.add("answer: "+name, steps...).answer = answer
	}
	gives := func(name string, answer func(key string) string) {
		c := t.add("answer: " + name)
		c.answer, c.gives = answer, true
	}
	edited := func(name, instead string) func(key string) string {
		return func(key string) string {
			l := []string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: {accept}"}
			var kept []string
			for _, line := range append(l, "+") {
				if strings.HasPrefix(line, name) {
					line = instead
				}
				if line != "" && line != "+" {
					kept = append(kept, line)
				}
			}
			return strings.ReplaceAll(lines(kept...), "{accept}", acceptFor(key))
		}
	}
	each := func(add func(string, func(string) string), name string, instead ...string) {
		for _, line := range instead {
			add(nameOf(name, line), edited(name, line))
		}
	}
	accept := func(name string, answer func(string) string) { takes(name, answer) }
	accept("ordinary", ordinaryAnswer)
	each(accept, "HTTP", "HTTP/1.1 101 ", "HTTP/1.1 101", "HTTP/1.1 101 Web Socket Protocol Handshake", "HTTP/1.1 101 \xe9")
	each(accept, "Upgrade", "upgrade: WebSocket", "UPGRADE:WEBSOCKET", "Upgrade: \twebsocket ")
	each(accept, "Connection", "connection: upgrade", "Connection: keep-alive, Upgrade", "Connection: Upgrade,keep-alive", "Connection: keep-alive\r\nConnection: Upgrade")
	each(accept, "Sec-WebSocket-Accept", "sec-websocket-accept:{accept}", "SEC-WEBSOCKET-ACCEPT: {accept}\t")
	each(accept, "+", "Server: x", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "X:", "Set-Cookie: a=b\r\nSet-Cookie: c=d", "X: "+strings.Repeat("x", 7000))

	each(gives, "HTTP", "HTTP/1.0 101 Switching Protocols", "HTTP/2.0 101 Switching Protocols", "HTTP/1.1 1010 x", "HTTP/1.1 10 x", "HTTP/1.1 1O1 x", "HTTP/1.1  101 x", "HTTP/1.1\t101 x", "http/1.1 101 x", "HTTP 101 x", "ICY 101 x",
		"HTTP/1.1 101x", " HTTP/1.1 101 x", "HTTP/1.1 101 a\x00b", "HTTP/1.1 101 a\rb", "", "SSH-2.0-x", "GET / HTTP/1.1")
	for _, status := range []int{200, 201, 204, 205, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 407, 408, 426, 429, 431, 499, 500, 501, 502, 503, 505, 599} {
		line := fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status))
		gives(fmt.Sprintf("status %d", status), func(string) string {
			return lines(line, "Connection: close", "Location: http://127.0.0.1:1/", "Content-Length: 0")
		})
		gives(fmt.Sprintf("status %d with all else of a 101", status), edited("HTTP", line))
	}
	each(gives, "HTTP", "HTTP/1.1 000 x", "HTTP/1.1 099 x", "HTTP/1.1 600 x", "HTTP/1.1 999 x")
	each(gives, "Upgrade", "", "Upgrade:", "Upgrade: h2c", "Upgrade: websockets", "Upgrade: websocket, h2c", "Upgrade: websocket\r\nUpgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c", "Upgrade : websocket", "X-Upgrade: websocket")
	each(gives, "Connection", "", "Connection:", "Connection: close", "Connection: keep-alive", "Connection: Upgrades", "Connection: keep-alive Upgrade", "Connection : Upgrade")
	each(gives, "Sec-WebSocket-Accept", "", "Sec-WebSocket-Accept:", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-WebSocket-Accept: {accept}=", "Sec-WebSocket-Accept: x{accept}", "Sec-WebSocket-Accept: {accept}, {accept}", "Sec-WebSocket-Accept: \"{accept}\"",
		"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: {accept}", "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: AAAA", "Sec-WebSocket-Accept:\r\n {accept}", "Sec-WebSocket-Key: {accept}", "Sec-WebSocket-Accept : {accept}")
	gives("the key itself", func(key string) string {
		return strings.ReplaceAll(ordinaryAnswer(key), acceptFor(key), key)
	})
	gives("the accept in capitals", func(key string) string {
		return strings.ReplaceAll(ordinaryAnswer(key), acceptFor(key), strings.ToUpper(acceptFor(key)))
	})
	each(gives, "+", extensions+": permessage-deflate", extensions+": x-unknown", extensions+": permessage-deflate; server_no_context_takeover", extensions+": ;", "sec-websocket-extensions:x", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Protocol: ",
		"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b", "no colon", ": no name", "X : y", "X: a\x00b", "X: a\r\n folded", " X: folded", "X: a\nY: b", "X: "+strings.Repeat("x", 9000), strings.Repeat("X:\r\n", 200)+"X:")
	gives("LF everywhere", func(key string) string { return strings.ReplaceAll(ordinaryAnswer(key), "\r\n", "\n") })
	gives("an empty line first", func(key string) string { return "\r\n" + ordinaryAnswer(key) })
	gives("8 KiB without an end", func(string) string { return "HTTP/1.1 101 x\r\nX: " + strings.Repeat("x", 9000) })
	gives("a Close frame instead", func(string) string { return "\x88\x02\x03\xe8\r\n\r\n" })

	// Interim answers are passed over (RFC 9110 section 15.2), and bytes behind the 101 are the first frames.
	interim := lines("HTTP/1.1 100 Continue")
	hints := lines("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload")
	before := func(s string) func(string) string { return func(key string) string { return s + ordinaryAnswer(key) } }
	accept("100 before it", before(interim))
	accept("103 before it", before(hints))
	accept("102, 100, 103, 199 before it", before(lines("HTTP/1.1 102 Processing")+interim+hints+lines("HTTP/1.1 199 x")))
	accept("100 ten times before it", before(strings.Repeat(interim, 10)))
	gives("100 and then 200", func(string) string { return interim + lines("HTTP/1.1 200 OK", "Content-Length: 0") })
	gives("100 and then rubbish", func(string) string { return interim + "rubbish\r\n\r\n" })

	encode := func(frames ...frame) (b []byte) {
		for _, f := range frames {
			b = f.append(b, false, [4]byte{})
		}
		return b
	}
	behind := func(name string, b []byte, steps ...step) {
		takes("with "+name+" behind it", func(key string) string { return ordinaryAnswer(key) + string(b) }, steps...)
	}
	hello, long := text("hello"), message(opBinary, content(opBinary, 20000))
	behind("a message", encode(hello), good(want(hello))...)
	behind("a ping", encode(ping("1")), good(want(pong("1")))...)
	behind("messages and pings", encode(hello, ping("1"), long, ping("2")), good(want(hello, pong("1"), long, pong("2")))...)
	behind("a close", encode(closing(1000, "")), wantClose(1000), end)
	behind("half a frame", encode(long)[:30], good(sendRaw(whole, encode(long)[30:]), want(long))...)
	behind("one byte of a frame", encode(hello)[:1], good(sendRaw(octets, encode(hello)[1:]), want(hello))...)
	behind("a masked frame", encode(hello.wrongMask()), bad(1002)...)
	behind("text that is not UTF-8", encode(text("\xff")), bad(1007)...)
	behind("an empty line", []byte("\r\n"), bad(1002)...)
	takes("100 before it and a message behind it", func(key string) string { return interim + ordinaryAnswer(key) + string(encode(hello)) }, good(want(hello))...)
	return t.cases
}
