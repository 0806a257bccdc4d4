package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// TestPlainHTTP shows that whoever is no WebSocket client is told why (L2.1, L2.7).
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	files := s.openFiles(t)
	const upgrade = "Host: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	tests := []struct {
		name    string
		request string
		status  int
		header  string // "Name: value" that the answer must have
	}{
		{"no upgrade", "GET /ws HTTP/1.1\r\nHost: g\r\n\r\n", http.StatusUpgradeRequired, "Sec-WebSocket-Version: 13"},
		{"another path", "GET /nope HTTP/1.1\r\nHost: g\r\n\r\n", http.StatusNotFound, ""},
		{"upgrade on another path", "GET /nope HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Version: 13\r\n\r\n", http.StatusNotFound, ""},
		{"echo is off", "GET /echo HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Version: 13\r\n\r\n", http.StatusNotFound, ""},
		{"another method", "POST /ws HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", http.StatusMethodNotAllowed, ""},
		{"another version", "GET /ws HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Version: 8\r\n\r\n", http.StatusUpgradeRequired, "Sec-WebSocket-Version: 13"},
		{"header too large", "GET /ws HTTP/1.1\r\nHost: g\r\nCookie: " + strings.Repeat("x", 9<<10) + "\r\n\r\n",
			http.StatusRequestHeaderFieldsTooLarge, ""},
		{"no HTTP", "what is this?\r\n\r\n", http.StatusBadRequest, ""},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", http.StatusBadRequest, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dialRaw(t, s)
			c.write(t, test.request)
			resp := c.response(t)
			if resp.StatusCode != test.status {
				t.Errorf("%s, want %d", resp.Status, test.status)
			}
			if name, value, ok := strings.Cut(test.header, ": "); ok && resp.Header.Get(name) != value {
				t.Errorf("no %s in %v", test.header, resp.Header)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}

	for path, status := range map[string]int{"/ws": http.StatusUpgradeRequired, "/nope": http.StatusNotFound} {
		if resp, body := get(t, "http://"+s.addr+path); resp.StatusCode != status || body == "" {
			t.Errorf("GET %s: %s %q, want %d and a reason", path, resp.Status, body, status)
		}
	}
	s.awaitQuiet(t, files)
	s.stop(t)
}

// TestGarbage sends random bytes in every phase of a connection. Each is ended with an answer or a close code, the
// process lives on, and nothing is left of them: no connection, no file descriptor (L1.6, L6.2).
func TestGarbage(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--echo-path", "/echo", "--close-timeout", "300ms")
	files := s.openFiles(t)
	const seeds = 40
	random := rand.New(rand.NewPCG(1, 2))
	garbage := func() string {
		data := make([]byte, 1+random.IntN(300))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		return string(data)
	}

	for i := range seeds {
		c := dialRaw(t, s)
		path := []string{"/ws", "/echo"}[i%2]
		phase := []string{"first", "head", "open", "frame", "closing"}[i%5]
		data := garbage()
		switch phase {
		case "first": // instead of a request
			c.write(t, data+"\r\n\r\n")
		case "head": // in the middle of one
			c.write(t, "GET "+path+" HTTP/1.1\r\nHost: g\r\n"+data+"\r\n\r\n")
		case "open":
			c.upgrade(t, path)
			c.write(t, data)
		case "frame": // as the payload of a masked binary frame
			c.upgrade(t, path)
			c.write(t, maskedFrame(0x82, data)+maskedFrame(0x88, "\x03\xe8"))
		case "closing": // after a Close
			c.upgrade(t, path)
			c.write(t, maskedFrame(0x88, "\x03\xe8bye")+data)
		}
		// Random bytes may be the beginning of a long frame: the end of input is what ends that.
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got := c.readToEnd(t)
		if (phase == "first" || phase == "head") && !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s, %q: answer %q, want status 400", phase, data, got)
		}
		if phase == "frame" && path == "/echo" && !strings.Contains(got, data) {
			t.Errorf("%d random bytes in a frame came back as %q", len(data), got)
		}
		if (phase == "frame" || phase == "closing") && !strings.HasSuffix(got, "\x03\xe8") && !strings.HasSuffix(got, "\x03\xe8bye") {
			t.Errorf("%s: a Close with 1000 was not answered: %q", phase, got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}

	s.awaitQuiet(t, files)
	if total := s.metric(t, "connections_total"); total != seeds*3/5 {
		t.Errorf("mqgate_connections_total is %v, want %d", total, seeds*3/5)
	}
	// It is still of use.
	alice := signIn(t, s, "alice")
	alice.createRoom(t, "after the storm", "ok")
	s.stop(t)
}

// TestHalfRequests leaves connections in the middle of their request; the server ends them, and they leave nothing (L2.7).
func TestHalfRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--handshake-timeout", "200ms")
	files := s.openFiles(t)
	request := "GET /ws HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	var conns []*rawConn
	for _, size := range []int{0, 1, len(request) / 2, len(request)} {
		c := dialRaw(t, s)
		if size > 0 {
			c.write(t, request[:size])
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.readToEnd(t)
	}
	s.awaitQuiet(t, files)
	s.stop(t)
}

// maskedFrame is a frame as a client sends it, for payloads below 64 KiB. first is its first byte.
func maskedFrame(first byte, payload string) string {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	frame := []byte{first, 0x80 | byte(len(payload))}
	if len(payload) > 125 {
		frame = []byte{first, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload))}
	}
	frame = append(frame, mask[:]...)
	for i := range len(payload) {
		frame = append(frame, payload[i]^mask[i%4])
	}
	return string(frame)
}

func Example_maskedFrame() {
	// The masked text message "Hello" of RFC 6455 section 5.7.
	fmt.Printf("% x\n", maskedFrame(0x81, "Hello"))
	// Output: 81 85 37 fa 21 3d 7f 9f 4d 51 58
}
