package main

import (
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// TestCompression: the flags reach the connections: the mode, and the smallest message that is compressed.
func TestCompression(t *testing.T) {
	for _, test := range []struct{ flags, answer string }{
		{"", ""},
		{"--compression=off", ""},
		{"--compression=shared", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		// gorilla asks for no takeover, so that takeover looks the same with it
		{"--compression=takeover", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
	} {
		p := start(t, newStub(), append(strings.Fields(test.flags), "--echo-path=/echo", "--compression-min-size=500")...)
		dialer := websocket.Dialer{EnableCompression: true}
		ws, res, err := dialer.DialContext(t.Context(), "ws://"+p.addr+"/echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Sec-WebSocket-Extensions"); got != test.answer {
			t.Errorf("%q: answered %q, expected %q", test.flags, got, test.answer)
		}
		for _, size := range []int{499, 500} {
			text := strings.Repeat("0123456789", 50)[:size]
			if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := ws.ReadMessage(); err != nil || string(got) != text {
				t.Errorf("%q: echo %q, %v", test.flags, got, err)
			}
		}
		values := p.samples(t)
		received, sent := "0", "0"
		if test.answer != "" {
			received, sent = "2", "1"
		}
		if got := values[`mqgate_compressed_messages_total{direction="received"}`]; got != received {
			t.Errorf("%q: %s compressed messages were received, expected %s", test.flags, got, received)
		}
		if got := values[`mqgate_compressed_messages_total{direction="sent"}`]; got != sent {
			t.Errorf("%q: %s compressed messages were sent, expected %s", test.flags, got, sent)
		}
		if saved := values["mqgate_compression_saved_bytes_total"]; (saved == "0") != (test.answer == "") {
			t.Errorf("%q: %s bytes were saved", test.flags, saved)
		}
		_ = ws.Close()
	}
}

// TestTakeovers: all connections with takeover together may keep a quarter of --memory-limit.
func TestTakeovers(t *testing.T) {
	for flag, want := range map[string]int64{"--memory-limit=1GiB": 256 << 20, "--memory-limit=off": 1 << 30} {
		if got := takeovers(configure(t, flag)).Left(); got != want {
			t.Errorf("%s: %d bytes, expected %d", flag, got, want)
		}
	}
}
