package conformance

import (
	"fmt"
	"net/http"
	"strings"
)

// Requests returns opening handshakes that a server has to accept, or to refuse with a certain status, for the suite as
// the client. They are stricter than HTTP asks where two readers of a request might differ, which is how requests are
// smuggled past a proxy: RFC 9112 section 11.2.
func Requests() []Case {
	var all []Case
	for _, cases := range [][]Case{requestLines(), requestHosts(), requestHeaders(), requestUpgrades(), requestBodies(), requestLimits(), pipelined()} {
		all = append(all, cases...)
	}
	return all
}

// ordinary is a good request; edits change it: pairs of a header name and the lines that stand for it instead, "" for none.
// The name "GET" is the request line, "+" adds lines at the end. In lines, PATH stands for the path of the target.
func ordinary(edits ...string) func(t *Target) string {
	l := []string{"GET PATH HTTP/1.1", "Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey}
	for i := 0; i < len(edits); i += 2 {
		name, instead := edits[i], edits[i+1]
		if name == "+" {
			l = append(l, instead)
			continue
		}
		for j := range l {
			if strings.HasPrefix(l[j], name) {
				l[j] = instead
			}
		}
	}
	var kept []string
	for _, line := range l {
		if line != "" {
			kept = append(kept, line)
		}
	}
	return func(t *Target) string { return strings.ReplaceAll(lines(kept...), "PATH", t.Path) }
}

func (t *table) request(name string, status int, request func(t *Target) string) *Case {
	c := t.add("request: "+name, good(echo(whole, text("hello"))...)...)
	c.request, c.status = request, status
	switch status {
	case http.StatusMethodNotAllowed:
		c.header = []string{"Allow: GET"} // RFC 9110 section 15.5.6
	case http.StatusUpgradeRequired:
		c.header = []string{"Upgrade: websocket", "Sec-WebSocket-Version: 13"} // RFC 9110 section 15.5.22, RFC 6455 section 4.4
	}
	return c
}

// edited adds a case for every line that may stand for one of the ordinary request.
func (t *table) edited(status int, name string, instead ...string) {
	for _, line := range instead {
		t.request(nameOf(name, line), status, ordinary(name, line))
	}
}

// nameOf names a case after the line that stands for the one called name.
func nameOf(name, line string) string {
	if line == "" {
		return "without " + name
	}
	if len(line) > 100 {
		line = fmt.Sprintf("%s... of %d bytes", line[:20], len(line))
	}
	return fmt.Sprintf("%q", line)
}

func requestLines() []Case {
	t := table{section: "RFC 9112 3"}
	t.request("ordinary", 101, ordinary())
	t.edited(101, "GET", "GET PATH? HTTP/1.1", "GET PATH?a=b&c=%20 HTTP/1.1", "GET PATH?a?b HTTP/1.1", "GET http://example.comPATH HTTP/1.1",
		"GET ws://example.comPATH?x HTTP/1.1", "GET HTTPS://other.example:8080PATH HTTP/1.1", "GET PATH HTTP/1.2", "GET PATH HTTP/1.9")
	t.edited(400, "GET", "GET PATH", "GETPATH HTTP/1.1", "GET  PATH HTTP/1.1", "GET PATH  HTTP/1.1", "GET PATH HTTP/1.1 ", " GET PATH HTTP/1.1", "GET\tPATH\tHTTP/1.1",
		"GET PATH HTTP/1.1 x", "GET PATH x HTTP/1.1", "GET HTTP/1.1", "GET PATH http/1.1", "GET PATH HTTP/1", "GET PATH HTTP/1.10", "GET PATH HTTP/11", "GET PATH HTTP/01.1", "GET PATH HTTP/1.x", "GET PATH HTTPS/1.1",
		"G(T PATH HTTP/1.1", "GET\x00 PATH HTTP/1.1", "GÉT PATH HTTP/1.1", "\x00GET PATH HTTP/1.1", "GET echo HTTP/1.1", "GET * HTTP/1.1", "GET PATH#fragment HTTP/1.1", "GET PATH\x00 HTTP/1.1", "GET PATH\x7f HTTP/1.1", "GET PATH\u00e9 HTTP/1.1",
		"GET PATH%zz HTTP/1.1", "GET PATH% HTTP/1.1", "GET PATH%2 HTTP/1.1", "GET ftp://example.comPATH HTTP/1.1", "GET http:PATH HTTP/1.1", "GET http:/examplePATH HTTP/1.1", "GET http://PATH HTTP/1.1", "GET http://user@example.comPATH HTTP/1.1",
		"GET http://example.com:80xPATH HTTP/1.1", "GET http://[::1PATH HTTP/1.1", "GET example.com:80 HTTP/1.1", "GET PATH HTTP/1.1\r", "GET PATH\rHTTP/1.1")
	t.edited(404, "GET", "GET / HTTP/1.1", "GET PATH/ HTTP/1.1", "GET PATHx HTTP/1.1", "GET //PATH HTTP/1.1", "GET /..PATH HTTP/1.1", "GET http://example.com HTTP/1.1", "GET http://example.com/?PATH HTTP/1.1", "POST /nowhere HTTP/1.1")
	t.edited(405, "GET", "POST PATH HTTP/1.1", "PUT PATH HTTP/1.1", "DELETE PATH HTTP/1.1", "OPTIONS PATH HTTP/1.1", "TRACE PATH HTTP/1.1", "PATCH PATH HTTP/1.1", "HEAD PATH HTTP/1.1", "get PATH HTTP/1.1", "GETT PATH HTTP/1.1", "WEBSOCKET PATH HTTP/1.1")
	t.edited(426, "GET", "GET PATH HTTP/1.0")
	t.edited(505, "GET", "GET PATH HTTP/2.0", "GET PATH HTTP/0.9", "GET PATH HTTP/3.0", "GET PATH HTTP/9.9")
	raw := func(name string, status int, request string) {
		t.request(name, status, func(*Target) string { return request })
	}
	raw("a TLS client", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	raw("the preface of HTTP/2", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	raw("another protocol", 400, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
	raw("only empty lines", 400, "\r\n\r\n")
	t.request("an empty line before it", 400, func(t *Target) string { return "\r\n" + ordinary()(t) })
	return t.cases
}

func requestHosts() []Case {
	t := table{section: "RFC 9112 3.2"}
	t.edited(101, "Host", "Host: localhost", "host: example.com:80", "HOST:127.0.0.1:8080", "Host: [::1]", "Host: [2001:db8::1]:443", "Host:\texample.com \t", "Host: xn--bcher-kva.example")
	t.edited(400, "Host", "", "Host:", "Host: ", "Host: a b", "Host: user@example.com", "Host: example.com:http", "Host: example.com/path", "Host: [::1", "Host: ::1", "Host: [::1]x", "Host: [1.2.3.4]", "Host: [fe80::1%25eth0]", "Host: :80",
		"Host: ex\"ample", "Host: example.com:80:80", "Host: http://example.com", "Host : example.com", "Host\t: example.com", "Host: example.com\r\nHost: example.com", "Host: example.com\r\nhost: other.example", "Host: \u00e9.example")
	t.request("an absolute target without Host", 400, ordinary("GET", "GET http://example.comPATH HTTP/1.1", "Host", ""))
	t.request("an absolute target with two Hosts", 400, ordinary("GET", "GET http://example.comPATH HTTP/1.1", "+", "Host: a"))
	return t.cases
}

func requestHeaders() []Case {
	t := table{section: "RFC 9112 5"}
	t.edited(101, "+", "X: y", "X:", "X:y", "X: \t y \t", "X: a:b", "X: \xe9\xff", "!#$%&'*+-.^_`|~09AZaz: all of a token", "Cookie: a=b; c=\"d\"", "Origin: http://example.com", "X: "+strings.Repeat("v", 4000), "Expect: 100-continue")
	t.edited(400, "+", "X : y", "X\t: y", "X y: z", "no colon", ": no name", ":", "X\x00: y", "X: a\x00b", "X: a\x01", "X: a\x7f", "X: a\rb", "X: a\r", "X(y): z", "X\xe9: y", "\xffX: y", "X: y\n", "\nX: y", "X: a\nY: b",
		" X: folded", "\tX: folded", "X: a\r\n b", "X: a\r\n\tb", "X:\r\n y", "X: a\r\n \r\n\tb", "Origin: http://a\r\nOrigin: http://b", "X: \vy", "X: y\f", "[X]: y", "\"X\": y")
	t.request("a folded line behind the request line", 400, ordinary("Host", " Host: example.com"))
	t.request("a folded Connection", 400, ordinary("Connection", "Connection: keep-alive,\r\n Upgrade"))
	t.request("a folded key", 400, ordinary("Sec-WebSocket-Key", "Sec-WebSocket-Key:\r\n "+sampleKey))
	t.request("LF everywhere", 400, func(t *Target) string { return strings.ReplaceAll(ordinary()(t), "\r\n", "\n") })
	t.request("LF at the last line", 400, func(t *Target) string { return strings.TrimSuffix(ordinary()(t), "\r\n") + "\n" })
	t.request("LF behind the request line", 400, func(t *Target) string { return strings.Replace(ordinary()(t), "\r\n", "\n", 1) })
	t.request("LF behind the last header", 400, func(t *Target) string { return strings.TrimSuffix(ordinary()(t), "\r\n\r\n") + "\n\r\n" })
	t.request("CR CR LF", 400, func(t *Target) string { return strings.Replace(ordinary()(t), "\r\n", "\r\r\n", 1) })
	return t.cases
}

func requestUpgrades() []Case {
	t := table{section: "4.2.1"}
	t.edited(101, "Upgrade", "upgrade: WebSocket", "UPGRADE:WEBSOCKET", "Upgrade: h2c, websocket", "Upgrade: websocket,h2c", "Upgrade: , websocket ,", "Upgrade: h2c\r\nUpgrade: websocket")
	t.edited(426, "Upgrade", "", "Upgrade:", "Upgrade: h2c", "Upgrade: websockets", "Upgrade: web socket", "Upgrade: websocket;q=1", "Upgrade: \"websocket\"", "X-Upgrade: websocket")
	t.edited(101, "Connection", "connection: upgrade", "Connection: UPGRADE", "Connection: keep-alive, Upgrade", "Connection: Upgrade,keep-alive", "Connection:\tkeep-alive\t,\tUpgrade", "Connection: , Upgrade,,", "Connection: keep-alive\r\nConnection: Upgrade", "Connection: close, Upgrade")
	t.edited(426, "Connection", "", "Connection:", "Connection: close", "Connection: keep-alive", "Connection: Upgrades", "Connection: keep-alive Upgrade", "Connection: websocket", "Connection: \"Upgrade\"")
	t.edited(101, "Sec-WebSocket-Version", "sec-websocket-version: 13", "Sec-WebSocket-Version:13", "Sec-WebSocket-Version: 13 ")
	t.edited(426, "Sec-WebSocket-Version", "", "Sec-WebSocket-Version:", "Sec-WebSocket-Version: 0", "Sec-WebSocket-Version: 7", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 12", "Sec-WebSocket-Version: 14", "Sec-WebSocket-Version: 25", "Sec-WebSocket-Version: 255", "Sec-WebSocket-Version: 130",
		"Sec-WebSocket-Version: 013", "Sec-WebSocket-Version: +13", "Sec-WebSocket-Version: 13.0", "Sec-WebSocket-Version: 0x0d", "Sec-WebSocket-Version: 13, 8", "Sec-WebSocket-Version: 8, 13", "Sec-WebSocket-Version: 13,", "Sec-WebSocket-Version: 13;", "Sec-WebSocket-Version: \"13\"", "Sec-WebSocket-Version: thirteen")
	t.edited(400, "Sec-WebSocket-Version", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8", "Sec-WebSocket-Version: 8\r\nsec-websocket-version: 13")
	t.edited(101, "Sec-WebSocket-Key", "sec-websocket-key: "+sampleKey, "SEC-WEBSOCKET-KEY:\t"+sampleKey+"\t")
	k := "Sec-WebSocket-Key: "
	t.edited(400, "Sec-WebSocket-Key", "", k, k+"dGhlIHNhbXBsZSBub25jZQ", k+"dGhlIHNhbXBsZSBub25jZQ=", k+"dGhlIHNhbXBsZSBub25jZQ===", k+"dGhlIHNhbXBsZSBub25j", k+"dGhlIHNhbXBsZSBub25jZWU=", k+"dGhlIHNhbXBsZSBub25jZWVl", k+"dGhlIHNhbXBsZSBub25jZWVlZQ==",
		k+"AA==", k+"=", k+"========================", k+"dGhlIHNhbXBsZSBub25jZQ =", k+"dGhlIHNhbXBs ZSBub25jZQ==", k+"dGhlIHNhbXBsZSBub25j!Q==", k+"dGhlIHNhbXBsZSBub25j-Q==", k+"dGhlIHNhbXBsZSBub25j_Q==", k+"dGhl\xe9HNhbXBsZSBub25jZQ==", k+"\""+sampleKey+"\"",
		k+sampleKey+","+sampleKey, k+sampleKey+"\r\n"+k+sampleKey, k+sampleKey+"\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", k+"the sample nonce")
	t.edited(101, "+", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: superchat", "Sec-WebSocket-Protocol: ,chat,")
	t.edited(400, "+", "Sec-WebSocket-Protocol: a b", "Sec-WebSocket-Protocol: a, b/c", "Sec-WebSocket-Protocol: \"a\"", "Sec-WebSocket-Protocol: a;b", "Sec-WebSocket-Protocol: \u00e9")
	t.edited(101, "+", extensions+": x-unknown", extensions+": x-unknown; a; b=c; d=\"e\"", extensions+": x-one, x-two;a", extensions+": x-one\r\n"+extensions+": x-two", extensions+":", extensions+": ,x-one,")
	t.edited(400, "+", extensions+": x y", extensions+": ;a", extensions+": x;", extensions+": x; =b", extensions+": x; a=", extensions+": x; a=\"b", extensions+": x; a=b c", extensions+": x; a=\"b c\"", extensions+": x\r\n"+extensions+": y;", extensions+": \"x\"")
	t.request("plain HTTP", 426, func(t *Target) string { return lines("GET "+t.Path+" HTTP/1.1", "Host: example.com") })
	t.request("plain HTTP/1.0", 426, func(t *Target) string { return lines("GET " + t.Path + " HTTP/1.0") })
	return t.cases
}

func requestBodies() []Case {
	t := table{section: "RFC 9112 6"}
	t.edited(101, "+", "Content-Length: 0", "content-length: 0")
	cl := "Content-Length: "
	te := "Transfer-Encoding: "
	t.edited(400, "+", cl, cl+"1", cl+"5", cl+"-1", cl+"+0", cl+"0x0", cl+"0,0", cl+"0, 0", cl+"1 0", cl+"zero", cl+"0\r\n"+cl+"0", cl+"0\r\n"+cl+"5", cl+"5\r\ncontent-length: 0", cl+"18446744073709551616", cl+"99999999999999999999999999",
		"Content-Length : 0", "Content-Length\t: 5", te+"chunked", te+"identity", te+"gzip, chunked", te+"chunked, identity", te+"xchunked", te, te+"\"chunked\"", "transfer-encoding: chunked", te+"chunked\r\n"+cl+"0", cl+"5\r\n"+te+"chunked", "Transfer-Encoding : chunked", te+"\vchunked", te+"chunked\r\n"+te+"identity")
	// What follows a refused request, as its body or as another request, gets no answer of its own.
	for _, body := range []struct{ name, header, body string }{
		{"a body", cl + "5", "hello"}, {"a request as the body", cl + "40", "GET / HTTP/1.1\r\nHost: example.com\r\n\r\nxxxx"},
		{"chunks", te + "chunked", "5\r\nhello\r\n0\r\n\r\n"}, {"a request behind chunks", cl + "5\r\n" + te + "chunked", "0\r\n\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n"},
	} {
		t.request(body.name+" behind it", 400, func(t *Target) string { return ordinary("+", body.header)(t) + body.body })
	}
	t.request("a POST and an upgrade behind it", 405, func(t *Target) string {
		return ordinary("GET", "POST PATH HTTP/1.1", "+", "Content-Length: 10")(t) + "0123456789" + ordinary()(t)
	})
	return t.cases
}

// The limits of what a request may be: 8 KiB in 100 header lines. 431: RFC 6585 section 5.
func requestLimits() []Case {
	t := table{section: "RFC 6585 5"}
	padded := func(size int) func(t *Target) string {
		return func(t *Target) string {
			short := len(ordinary("+", "X: ")(t))
			return ordinary("+", "X: "+strings.Repeat("x", size-short))(t)
		}
	}
	for _, c := range []struct{ size, status int }{{4096, 101}, {8191, 101}, {8192, 101}, {8193, 431}, {9000, 431}, {70000, 431}} {
		t.request(fmt.Sprintf("of %d bytes", c.size), c.status, padded(c.size))
	}
	t.request("the first 8192 bytes of a longer one", 431, func(t *Target) string { return padded(20000)(t)[:8192] })
	t.request("a target of 9000 bytes", 431, ordinary("GET", "GET PATH?"+strings.Repeat("x", 9000)+" HTTP/1.1"))
	t.request("a method of 9000 bytes", 431, ordinary("GET", strings.Repeat("G", 9000)+" PATH HTTP/1.1"))
	t.request("a name of 9000 bytes", 431, ordinary("+", strings.Repeat("X", 9000)+": y"))
	for _, c := range []struct{ n, status int }{{100, 101}, {101, 431}, {1000, 431}} {
		more := make([]string, c.n-5) // the ordinary request has five
		for i := range more {
			more[i] = fmt.Sprintf("X%d:", i)
		}
		t.request(fmt.Sprintf("of %d header lines", c.n), c.status, ordinary("+", strings.Join(more, "\r\n")))
	}
	t.request("8 KiB with frames behind it", 101, func(t *Target) string { return padded(8192)(t) })
	return t.cases
}

// pipelined is bytes behind the request that come before the answer: they are the first frames (section 4.1).
func pipelined() []Case {
	t := table{section: "4.1"}
	behind := func(name string, b []byte, steps ...step) {
		c := t.add("request: with "+name+" behind it", steps...)
		c.request = func(t *Target) string { return ordinary()(t) + string(b) }
	}
	encode := func(frames ...frame) (b []byte) {
		for _, f := range frames {
			b = f.append(b, true, [4]byte{1, 2, 3, 4})
		}
		return b
	}
	hello, long := text("hello"), message(opBinary, content(opBinary, 20000))
	behind("a message", encode(hello), good(want(hello))...)
	behind("a ping", encode(ping("1")), good(want(pong("1")))...)
	behind("messages and pings", encode(hello, ping("1"), long, ping("2")), good(want(hello, pong("1"), long, pong("2")))...)
	behind("a close", encode(closing(1000, "")), wantClose(1000), end)
	behind("a message and a close", encode(hello, closing(4000, "x")), want(hello), wantClose(4000), end)
	behind("half a frame", encode(long)[:30], good(sendRaw(whole, encode(long)[30:]), want(long))...)
	behind("one byte of a frame", encode(hello)[:1], good(sendRaw(octets, encode(hello)[1:]), want(hello))...)
	behind("a first fragment", encode(first(opText, []byte("a"))), good(send(whole, last([]byte("b"))), want(text("ab")))...)
	behind("a frame that is not masked", encode(hello.wrongMask()), bad(1002)...)
	behind("text that is not UTF-8", encode(text("\xff")), bad(1007)...)
	behind("another request", []byte(lines("GET / HTTP/1.1", "Host: example.com")), bad(1002)...)
	behind("an empty line", []byte("\r\n"), bad(1002)...)
	return t.cases
}
