package handshake

import (
	"slices"
	"strings"
	"testing"
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

// L2.1: the answer names what is wrong, not only that something is.
func TestReasons(t *testing.T) {
	for _, tc := range []struct {
		block string
		want  *Refusal
	}{
		{with("websocket\r\n", "websocket\n"), refuseBareLF},
		{"\n\n", refuseNotHTTP},
		{with("Upgrade: websocket", "Upgrade:\r\n websocket"), refuseFolding},
		{with("Upgrade: websocket", "Upgrade:\r\n\twebsocket: x"), refuseFolding},
		{with("Upgrade: websocket", "Upgrade websocket"), refuseNoColon},
		{with("Host:", "Host :"), refuseName},
		{plus("X: \x00\r\n"), refuseValue},
		{with("Connection: Upgrade", "Connection: close"), refuseConnection},
		{with("Upgrade: websocket", "Upgrade: h2c"), refusePlain},
		{with("Version: 13", "Version: 8"), refuseVersion},
		{with("HTTP/1.1", "HTTP/1.0"), refuseHTTP10},
	} {
		if _, refusal := parse(t, tc.block); refusal != tc.want {
			t.Errorf("%q: %v, want %v", tc.block, refusal, tc.want)
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
