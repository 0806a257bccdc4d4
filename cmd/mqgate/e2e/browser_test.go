//go:build browser

package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// chromium returns the path of the browser. A test with the build tag browser wants one.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v\nThis test needs Chromium. On Debian: apt-get install --no-install-recommends chromium", err)
	}
	return path
}

// startBrowser opens page.js, served from an origin of its own, in a new headless Chromium.
func startBrowser(t *testing.T, name string) *node {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, nodeDir+"/page.js") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if _, err := w.Write([]byte("<!doctype html><title>mqgate</title><script src=page.js></script>")); err != nil {
			t.Error(err)
		}
	})
	return openBrowser(t, name, mux)
}

// openBrowser opens the root of a site of its own in a new headless Chromium.
func openBrowser(t *testing.T, name string, pages http.Handler) *node {
	t.Helper()
	program := chromium(t)
	site := httptest.NewServer(pages)
	t.Cleanup(site.Close)
	n := startNode(t, name, "browser.js")
	t.Logf("Chromium %s", n.call(t, "start", map[string]any{"browser": program, "page": site.URL}))
	return n
}

// open opens the page's WebSocket and returns the extensions agreed on, as the page sees them.
func openInPage(t *testing.T, n *node, s *server, args map[string]any) string {
	t.Helper()
	args["url"] = s.url("/echo")
	n.call(t, "openSocket", args)
	return n.await(t, "open", nil).Extensions
}

// echoedInPage has the page send count messages at once and checks that each came back, in order, as the type expected.
func echoedInPage(t *testing.T, n *node, kind string, size, count int, want string) {
	t.Helper()
	var got struct {
		Type           string
		Right          int
		Buffered, Left int
	}
	if err := json.Unmarshal(n.call(t, "echo", map[string]any{"kind": kind, "size": size, "count": count}), &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != want || got.Right != count || got.Left != 0 {
		t.Errorf("%d messages of kind %s with %d bytes: %d came back right, as %s, want %s; %d bytes never left the page",
			count, kind, size, got.Right, got.Type, want, got.Left)
	}
	if size > 0 && got.Buffered == 0 {
		t.Errorf("%s of %d bytes: bufferedAmount was 0 right after send", kind, size)
	}
}

// TestBrowser is the gateway as a page in a real browser sees it: Chromium masks, answers pings, closes and compresses by
// its own code, and offers permessage-deflate always.
func TestBrowser(t *testing.T) {
	for _, tc := range []struct {
		compression string
		extensions  string // what the page must see: a prefix, or nothing
	}{
		{"off", ""},
		{"shared", "permessage-deflate"},
		{"takeover", "permessage-deflate"},
	} {
		t.Run(tc.compression, func(t *testing.T) {
			s := startServer(t, "--echo-path", "/echo", "--compression", tc.compression, "--compression-min-size", "0",
				"--max-message-bytes", "1MiB", "--max-pending-bytes", "16MiB", "--ping-interval", "1s")
			files := s.openFiles(t)
			n := startBrowser(t, "chromium")

			open := func(args map[string]any) {
				t.Helper()
				got := openInPage(t, n, s, args)
				if got != tc.extensions && (tc.extensions == "" || !strings.HasPrefix(got, tc.extensions)) {
					t.Errorf("extensions are %q, want %q", got, tc.extensions)
				}
			}
			open(map[string]any{})
			for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20} {
				if size < 1<<20 { // its letters above 127 are two bytes each
					echoedInPage(t, n, "text", size, 1, "string")
				}
				echoedInPage(t, n, "arraybuffer", size, 1, "ArrayBuffer")
				echoedInPage(t, n, "view", size, 1, "ArrayBuffer")
				echoedInPage(t, n, "blob", size, 1, "ArrayBuffer")
			}
			echoedInPage(t, n, "emoji", 100_000, 1, "string")
			echoedInPage(t, n, "text", 100, 5000, "string")
			echoedInPage(t, n, "arraybuffer", 1000, 2000, "ArrayBuffer")
			echoedInPage(t, n, "blob", 300, 200, "ArrayBuffer") // Chromium reads a blob before what follows it
			echoedInPage(t, n, "arraybuffer", 256<<10, 20, "ArrayBuffer")

			// Close by the page (L1.6): its own code and reason come back.
			n.call(t, "closeSocket", map[string]any{"code": 4321, "reason": "genug, 够了"})
			n.awaitClose(t, "close", 4321, "genug, 够了")

			open(map[string]any{"binaryType": "blob"})
			echoedInPage(t, n, "arraybuffer", 70_000, 3, "Blob")
			n.call(t, "closeSocket", map[string]any{}) // without a code, so the Close frame is empty
			n.awaitClose(t, "close", 1005, "")

			// Close by the server: a message too big for it (L1.6).
			open(map[string]any{})
			n.call(t, "sendText", map[string]any{"data": strings.Repeat("x", 1<<20+1)})
			n.awaitClose(t, "close", 1009, "message too big")

			// The page goes away with its socket open.
			open(map[string]any{})
			echoedInPage(t, n, "text", 5, 1, "string")
			n.call(t, "leave", nil)
			s.awaitQuiet(t, files)
			s.stop(t)
		})
	}
}

// TestBrowserStays shows that Chromium answers the heartbeat by itself (L7.1), and that a page sees the
// code of a drain (L5.1).
func TestBrowserStays(t *testing.T) {
	s := startServer(t, "--echo-path", "/echo", "--ping-interval", "1s")
	n := startBrowser(t, "chromium")
	if got := openInPage(t, n, s, map[string]any{}); got != "" {
		t.Errorf("extensions are %q", got)
	}
	eventually(t, func() bool { return s.metric(t, "rtt_seconds_count") >= 3 }, func() string { return "no three pongs" })
	echoedInPage(t, n, "text", 10, 1, "string")
	s.stop(t)
	n.awaitClose(t, "close", 3333, "drain")
}
