package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/mqgate/mqgate/bench"
	"github.com/mqgate/mqgate/cmd/internal/prose"
)

// helpWidth is the width of the help in columns, whatever the terminal has.
const helpWidth = 100

const helpIntro = `mqgate-bench loads a WebSocket server with many connections from one process, checks every message that comes back byte for byte, and measures the server (memory, CPU) and itself.`

const helpEnd = `Examples:

  mqgate-bench connect --connections 10000 --duration 65s --expect 'rss_bytes_per_connection<=1KiB'
      10,000 idle connections through three heartbeats of 20 s
  mqgate-bench connect --url ws://127.0.0.1:8080/echo --connections 10000 --duration 60s \
      --burst-bytes 64KiB --burst-after 10s
      does the server give the memory of a burst back?
  mqgate-bench echo --url ws://127.0.0.1:8080/echo --connections 1000 --depth 4 --duration 30s
      as many messages as server and generator can do together
  mqgate-bench echo --url ws://127.0.0.1:8080/echo --rate 20000 --expect 'p99<5ms' --json r.json
      latency at a fixed rate, as users would see it

Durations are written as in Go: 300ms, 10s, 1m30s. Sizes are bytes, or have a unit: 65536, 64KiB, 1MiB. Flags marked with * may be repeated. SIGINT (Ctrl-C) ends a run in good order with a report of the part before; a second one ends it at once.

Exit status: 0 when every connection was opened, nothing was lost, duplicated or wrong, and every --expect holds; 1 otherwise, also when a run was broken off; 2 for wrong flags.`

// printHelp writes the help.
func printHelp(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Usage: mqgate-bench SCENARIO [flags]\n\n")
	paragraph(&b, helpIntro)
	b.WriteString("\nScenarios:\n")
	for _, s := range bench.Scenarios() {
		columns(&b, s.Name, 8, s.Doc)
	}
	widest := len("-h, --help")
	for i := range flags {
		widest = max(widest, len(head(&flags[i])))
	}
	group := ""
	for i := range flags {
		f := &flags[i]
		if f.group != group {
			group = f.group
			b.WriteString("\n" + group + ":\n")
		}
		columns(&b, head(f), widest, f.doc, foot(f))
	}
	b.WriteString("\n")
	columns(&b, "-h, --help", widest, "Show this help and exit.")
	b.WriteString("\n")
	for _, line := range strings.Split(helpEnd, "\n") {
		paragraph(&b, line)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func head(f *flag) string {
	text := "--" + f.name + "=" + f.placeholder
	if f.list {
		text += " *"
	}
	return text
}

func foot(f *flag) string {
	var parts []string
	if f.def != "" {
		parts = append(parts, "default "+f.def)
	}
	if f.ranges != "" {
		parts = append(parts, f.ranges)
	}
	if parts == nil {
		return ""
	}
	return "[" + strings.Join(parts, "; ") + "]"
}

// paragraph writes a line wrapped, or as it is when it is indented.
func paragraph(b *strings.Builder, text string) {
	if text == "" || text[0] == ' ' {
		b.WriteString(text + "\n")
		return
	}
	for _, line := range prose.Wrap(text, helpWidth) {
		b.WriteString(line + "\n")
	}
}

// columns writes left, and texts wrapped beside it.
func columns(b *strings.Builder, left string, width int, texts ...string) {
	for _, text := range texts {
		if text == "" {
			continue
		}
		for _, line := range prose.Wrap(text, helpWidth-width-4) {
			fmt.Fprintf(b, "  %-*s  %s\n", width, left, line)
			left = ""
		}
	}
}
