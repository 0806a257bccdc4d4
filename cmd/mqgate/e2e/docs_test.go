package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFirstRequest runs the client of docs/first-request.md and compares what it prints with the transcript there: the
// same lines but for ids and times.
func TestFirstRequest(t *testing.T) {
	t.Parallel()
	requireNode(t)
	page, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "first-request.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```js\n")
	script, rest, found := strings.Cut(rest, "```\n")
	_, rest, shown := strings.Cut(rest, "    $ node first.js\n")
	if !found || !shown {
		t.Fatal("docs/first-request.md has no script and transcript")
	}
	var transcript []string
	for line := range strings.Lines(rest) {
		text, indented := strings.CutPrefix(line, "    ")
		if !indented {
			break
		}
		transcript = append(transcript, text)
	}

	s := startServer(t)
	const url = "ws://127.0.0.1:8080/ws"
	if !strings.Contains(script, url) {
		t.Fatalf("the script does not connect to %s", url)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "-e", strings.Replace(script, url, s.url("/ws"), 1))
	cmd.Dir = nodeDir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	changing := regexp.MustCompile(`[A-Z2-7]{26}|\d{13}`) // ids and times
	if got, want := changing.ReplaceAllString(string(out), "*"), changing.ReplaceAllString(strings.Join(transcript, ""), "*"); got != want {
		t.Errorf("the client printed\n%swhich docs/first-request.md shows as\n%s", got, want)
	}
	s.stop(t)
}
