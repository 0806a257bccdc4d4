package main

import (
	"net/http"
	"testing"

	"github.com/gorilla/websocket"
)

// The flags about where clients come from reach the connections: L2.1 (Origin), L2.3 (proxies), L2.6 (per address).
func TestSourceFlags(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []string
		try   []http.Header // one connection after the other, all kept open
		want  []int         // 101 or a refusal
	}{
		{"origins", []string{"--origins=https://example.com"},
			[]http.Header{{"Origin": {"https://example.com"}}, {"Origin": {"https://evil.example"}}, {}}, []int{101, 403, 101}},
		{"connections of an address", []string{"--max-connections-per-ip=1"}, []http.Header{{}, {}}, []int{101, 503}},
		{"behind a proxy everybody has an address", []string{"--max-connections-per-ip=1"},
			[]http.Header{{"X-Forwarded-For": {"203.0.113.1"}}, {"X-Forwarded-For": {"203.0.113.2"}}, {"X-Forwarded-For": {"203.0.113.2"}}},
			[]int{101, 101, 503}},
		{"unless the proxy is not trusted", []string{"--max-connections-per-ip=1", "--trusted-proxies=none"},
			[]http.Header{{"X-Forwarded-For": {"203.0.113.1"}}, {"X-Forwarded-For": {"203.0.113.2"}}}, []int{101, 503}},
		{"nobody is told", []string{"--max-connections=1", "--max-connections-slack=100%", "--limit-closes-per-second=0"},
			[]http.Header{{}, {}}, []int{101, 503}},
		{"a PROXY header is demanded", []string{"--proxy-protocol=on"}, []http.Header{{}}, []int{400}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, newStub(), test.flags...)
			for i, header := range test.try {
				if got := upgrade(t, p, header); got != test.want[i] {
					t.Errorf("connection %d: %d, expected %d", i+1, got, test.want[i])
				}
			}
		})
	}
	// One a second: of a hundred in a row one is refused, unless each takes a second.
	p := start(t, newStub(), "--handshake-rate-per-ip=1")
	for range 100 {
		if upgrade(t, p, nil) == http.StatusServiceUnavailable {
			return
		}
	}
	t.Error("--handshake-rate-per-ip=1: a hundred upgrades in a row were let in")
}

// upgrade asks for a connection, which stays open until the end of the test, and returns the HTTP status.
func upgrade(t *testing.T, p *process, header http.Header) int {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+p.addr+"/ws", header)
	if res == nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Cleanup(func() { _ = ws.Close() })
	}
	return res.StatusCode
}
