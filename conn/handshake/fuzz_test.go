package handshake

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// within reports whether view lies in block.
func within(view, block []byte) bool {
	if view == nil || len(block) == 0 {
		return view == nil
	}
	start, end := uintptr(unsafe.Pointer(&block[0])), uintptr(unsafe.Pointer(&block[0]))+uintptr(len(block))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(view)))
	return at >= start && at+uintptr(len(view)) <= end
}

func seeds(f *testing.F) {
	for _, s := range []string{sample, browser, sampleAnswer, "PRI * HTTP/2.0\r\n\r\n", "\r\n\r\n", "\n\n", "GET / HTTP/1.0\n\r\n",
		plus("Sec-WebSocket-Extensions: a;b=\"c\", d\r\n"), plus("Content-Length: 0\r\n"), plus("Transfer-Encoding: chunked\r\n"),
		with("/chat", "http://[::1]:80/%41?b"), with("GET /chat", "CONNECT a:1"), with("GET /chat", "OPTIONS *"), with("/chat", "http://a"),
		"GET /%7f?% HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", plus("Pragma: no-cache\r\nConnection: close\r\nTrailer: x\r\nExpect: 100-continue\r\n"),
		sample + "\x81\x85frame"} {
		f.Add([]byte(s))
	}
}

// FuzzParse: no input panics, all views lie in the header block, the block ends where a naive search finds its end, and
// what ParseHead accepts, net/http accepts too, with the same method, target, host and headers.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		end, refusal := Scan(p, 0, MaxRequest)
		if refusal != nil || end == 0 {
			if refusal != nil && end != 0 {
				t.Fatalf("refused %v with end %d", refusal, end)
			}
			end = len(p) // what no server would do, but must not panic
		} else if want := naiveEnd(p); end != want {
			t.Fatalf("end %d, want %d", end, want)
		}
		for n := range end + 1 { // one byte at a time
			got := End(p[:n], max(0, n-1))
			if got != naiveEnd(p[:n]) {
				t.Fatalf("End of %d bytes is %d", n, got)
			}
			if got != 0 {
				break
			}
		}
		block := slices.Clone(p[:end])
		r := new(Request)
		head := r.ParseHead(block)
		upgrade := head
		if head == nil {
			upgrade = r.CheckUpgrade()
		}
		for _, view := range [][]byte{r.Method, r.Target, r.Path, r.Query, r.Host, r.Origin, r.Key} {
			if !within(view, block) {
				t.Fatalf("%q is not in the block", view)
			}
		}
		for name, value := range r.All() {
			if !within(name, block) || !within(value, block) || !bytes.Equal(trim(value), value) {
				t.Fatalf("%q: %q is not a value of the block", name, value)
			}
		}
		for e := range r.Extensions() {
			for name, value := range e.Params() {
				if !within(e.Name, block) || !within(name, block) || !within(value, block) || !token(name) {
					t.Fatalf("extension %q with %q=%q", e.Name, name, value)
				}
			}
		}
		for v := range r.Backward("Connection") {
			if !within(v, block) || len(v) == 0 {
				t.Fatalf("element %q", v)
			}
		}
		if !bytes.Equal(block, p[:end]) {
			t.Fatal("the input was changed")
		}
		if upgrade == nil {
			var answer Response
			key, out := [KeyLen]byte(r.Key), AppendResponse(nil, r.Key, nil, nil)
			if err := answer.Parse(out, [16]byte{}, "", ""); err != errAccept && string(key[:]) != "AAAAAAAAAAAAAAAAAAAAAA==" {
				t.Fatalf("our answer is not understood: %v", err)
			}
		} else if out := AppendRefusal(nil, upgrade); !readable(out) {
			t.Fatalf("our refusal is not understood: %q", out)
		}
		if head == nil {
			agree(t, r, block)
		}
	})
}

func naiveEnd(p []byte) int {
	at := -1
	for _, end := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(p, []byte(end)); i >= 0 && (at < 0 || i+len(end) < at) {
			at = i + len(end)
		}
	}
	return max(0, at)
}

func readable(answer []byte) bool {
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	return err == nil && response.Close
}

// agree compares with net/http. It takes less than we do only where it has to read the body, which we never do.
func agree(t *testing.T, r *Request, block []byte) {
	want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(block)))
	if err != nil {
		if r.hasBody || string(r.Method) == "CONNECT" || string(r.Method) == "PRI" {
			return // length out of range, unknown transfer encoding, or an authority we do not look at
		}
		t.Fatalf("net/http refuses: %v", err)
	}
	if want.Method != string(r.Method) || want.RequestURI != string(r.Target) {
		t.Fatalf("net/http reads %s %s", want.Method, want.RequestURI)
	}
	if want.Method == "CONNECT" || want.Method == "PRI" {
		return
	}
	if host := want.Host; host != string(r.Host) {
		t.Fatalf("net/http reads host %q, we %q", host, r.Host)
	}
	if path := want.URL.EscapedPath(); path != string(r.Path) && !strings.Contains(path, "%") && (path != "" || string(r.Path) != "/") {
		t.Fatalf("net/http reads path %q, we %q", path, r.Path)
	}
	if want.URL.RawQuery != string(r.Query) {
		t.Fatalf("net/http reads query %q, we %q", want.URL.RawQuery, r.Query)
	}
	got := http.Header{}
	for name, value := range r.All() {
		key := textproto.CanonicalMIMEHeaderKey(string(name))
		got[key] = append(got[key], string(value))
	}
	// What net/http takes out or puts in itself.
	for _, name := range []string{"Host", "Transfer-Encoding", "Content-Length", "Trailer", "Cache-Control"} {
		got.Del(name)
		want.Header.Del(name)
	}
	if len(got) != len(want.Header) {
		t.Fatalf("net/http reads %q, we %q", want.Header, got)
	}
	for name, values := range got {
		if !slices.Equal(values, want.Header[name]) {
			t.Fatalf("net/http reads %s as %q, we %q", name, want.Header[name], values)
		}
	}
}

// FuzzParseResponse: no answer panics, and what is accepted has all that RFC 6455 section 4.1 asks for.
func FuzzParseResponse(f *testing.F) {
	seeds(f)
	for _, s := range []string{"HTTP/1.1 503 x\r\nRetry-After: 3\r\n\r\n", "HTTP/1.1 103\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var r Response
		err := r.Parse(p, sampleNonce, "chat", "permessage-deflate")
		if !within(r.Protocol, p) {
			t.Fatalf("%q is not in the block", r.Protocol)
		}
		if err != nil {
			_ = err.Error()
			return
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(p)), nil)
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		if want.StatusCode != 101 || want.Header.Get("Sec-WebSocket-Accept") != sampleAccept || !strings.EqualFold(want.Header.Get("Upgrade"), "websocket") ||
			r.Protocol != nil && string(r.Protocol) != "chat" {
			t.Fatalf("accepted %q", p)
		}
	})
}
