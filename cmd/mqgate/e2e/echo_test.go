package e2e

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

// openEcho connects npm's ws to the echo endpoint.
func openEcho(t *testing.T, s *server, name string) *node {
	t.Helper()
	n := startNode(t, name, "plain.js")
	n.call(t, "open", map[string]any{"url": s.url("/echo")})
	n.await(t, "open", nil)
	return n
}

// echoed sends one message and waits for it to come back.
func echoed(t *testing.T, n *node, data any, binary bool) {
	t.Helper()
	n.call(t, "send", map[string]any{"data": data, "binary": binary})
	awaitMessage(t, n, data, binary)
}

func awaitMessage(t *testing.T, n *node, data any, binary bool) {
	t.Helper()
	got := n.await(t, "message", nil)
	want, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	// Both sides in the form that Go writes: Node escapes other characters.
	var value any
	if err := json.Unmarshal(got.Data, &value); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if got.Binary != binary || string(back) != string(want) {
		t.Errorf("sent %.100s, binary %t; back came %.100s, binary %t", want, binary, back, got.Binary)
	}
}

func bytesOf(data []byte) map[string]any {
	return map[string]any{"base64": base64.StdEncoding.EncodeToString(data)}
}

// TestEcho is --echo-path as npm's ws sees it.
func TestEcho(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--echo-path", "/echo")
	files := s.openFiles(t)

	n := openEcho(t, s, "messages")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	big := make([]byte, 100<<10)
	for i := range big {
		big[i] = byte(i * 7 >> 3)
	}
	echoed(t, n, "hello", false)
	echoed(t, n, "", false)
	echoed(t, n, "Grüße, 你好, 👋", false)
	echoed(t, n, bytesOf(nil), true)
	echoed(t, n, bytesOf(every), true)
	// The lengths around which the frame header changes its size.
	for _, size := range []int{125, 126, 127, 65535, 65536} {
		echoed(t, n, strings.Repeat("x", size), false)
	}
	echoed(t, n, strings.Repeat("0123456789abcdef", 100<<10/16), false)
	echoed(t, n, bytesOf(big), true)

	// Many before the first answer is read, in order.
	for range 50 {
		n.call(t, "send", map[string]any{"data": "a", "binary": false})
		n.call(t, "send", map[string]any{"data": bytesOf([]byte("b")), "binary": true})
	}
	for range 50 {
		awaitMessage(t, n, "a", false)
		awaitMessage(t, n, bytesOf([]byte("b")), true)
	}

	// A message in three fragments, a ping between them, comes back as one.
	n.call(t, "send", map[string]any{"data": "frag", "fin": false})
	n.call(t, "ping", map[string]any{"data": "in between"})
	n.call(t, "send", map[string]any{"data": "men", "fin": false})
	n.call(t, "send", map[string]any{"data": "ted"})
	if pong := n.await(t, "pong", nil); string(pong.Data) != `"in between"` {
		t.Errorf("pong %s", pong.Data)
	}
	awaitMessage(t, n, "fragmented", false)

	// Close from the client: its own code comes back.
	n.call(t, "close", map[string]any{"code": 4321, "reason": "enough"})
	n.awaitClose(t, "close", 4321, "enough")
	s.awaitQuiet(t, files)
	s.stop(t)
}

// TestEchoClosedByServer shows the close codes that the server chooses (L1.6, L5.1).
func TestEchoClosedByServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--echo-path", "/echo", "--max-message-bytes", "64KiB")
	files := s.openFiles(t)

	n := openEcho(t, s, "bad-utf8")
	n.call(t, "send", map[string]any{"data": bytesOf([]byte("ab\xff")), "binary": false})
	if got := n.await(t, "close", nil); got.Code != 1007 {
		t.Errorf("a text that is not UTF-8: close code %d, want 1007", got.Code)
	}

	n = openEcho(t, s, "too-big")
	echoed(t, n, bytesOf(make([]byte, 64<<10)), true)
	n.call(t, "send", map[string]any{"data": bytesOf(make([]byte, 64<<10+1)), "binary": true})
	if got := n.await(t, "close", nil); got.Code != 1009 {
		t.Errorf("a message too big: close code %d, want 1009", got.Code)
	}

	// An unmasked frame (RFC 6455 section 5.1): no client sends one by itself.
	c := dialRaw(t, s)
	c.upgrade(t, "/echo")
	c.write(t, "\x81\x05Hello")
	if code, _ := c.readClose(t); code != 1002 {
		t.Errorf("an unmasked frame: close code %d, want 1002", code)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	n = openEcho(t, s, "gone")
	n.call(t, "terminate", nil)
	n.await(t, "close", nil)
	s.awaitQuiet(t, files)

	n = openEcho(t, s, "drained")
	s.stop(t)
	n.awaitClose(t, "close", 3333, "drain")
}

// TestEchoPings shows that the heartbeat keeps a client that answers, and ends one that does not (L7.1, L7.2).
func TestEchoPings(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--echo-path", "/echo", "--ping-interval", "1s")
	alive := openEcho(t, s, "alive")
	dead := dialRaw(t, s)
	dead.upgrade(t, "/echo")
	for range 3 {
		alive.await(t, "ping", nil)
	}
	if code, reason := dead.readClose(t); code != 3334 || reason != "timeout" {
		t.Errorf("a client that answers no ping: closed with %d %q, want 3334 \"timeout\"", code, reason)
	}
	echoed(t, alive, "still here", false)
	s.stop(t)
}
