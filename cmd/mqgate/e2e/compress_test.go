package e2e

import (
	"strings"
	"testing"
)

// TestCompressionWithNpmWS is permessage-deflate with npm's ws as client, as each of its options makes it offer.
func TestCompressionWithNpmWS(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "shared", "takeover"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, "--echo-path", "/echo", "--compression", mode, "--compression-min-size", "0",
				"--max-message-bytes", "256KiB")
			files := s.openFiles(t)
			for _, tc := range []struct {
				name     string
				deflate  any
				shared   string // the extensions that the client must see with --compression shared
				takeover string // with takeover
			}{
				{"default", true,
					"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
					"permessage-deflate"},
				{"serverNoContextTakeover", map[string]any{"serverNoContextTakeover": true},
					"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
					"permessage-deflate; server_no_context_takeover"},
				{"clientMaxWindowBits", map[string]any{"clientMaxWindowBits": 10},
					"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
					"permessage-deflate; client_max_window_bits=10"},
				{"threshold", map[string]any{"threshold": 0},
					"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
					"permessage-deflate"},
				{"none offered", false, "", ""},
			} {
				want := map[string]string{"off": "", "shared": tc.shared, "takeover": tc.takeover}[mode]
				n := startNode(t, tc.name, "plain.js")
				n.call(t, "open", map[string]any{"url": s.url("/echo"), "options": map[string]any{"perMessageDeflate": tc.deflate}})
				if got := n.await(t, "open", nil).Extensions; got != want {
					t.Errorf("%s: extensions are %q, want %q", tc.name, got, want)
				}
				noise := make([]byte, 100<<10) // does not become shorter
				state := uint32(1)
				for i := range noise {
					state = state*1664525 + 1013904223
					noise[i] = byte(state >> 24)
				}
				for range 3 { // with context takeover the later ones refer to the first
					echoed(t, n, "", false)
					echoed(t, n, "x", false)
					echoed(t, n, "Grüße, 你好, 👋", false)
					echoed(t, n, strings.Repeat("the same again, ", 10_000), false)
					echoed(t, n, bytesOf(noise), true)
				}
				// The limit counts what a message inflates to (L1.6).
				n.call(t, "send", map[string]any{"data": strings.Repeat("x", 256<<10+1)})
				n.awaitClose(t, "close", 1009, "message too big")
			}
			s.awaitQuiet(t, files)
			s.stop(t)
		})
	}
}
