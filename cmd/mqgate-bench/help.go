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
  mqgate-bench echo --url ws://127.0.0.1:8080/echo --rate 5000 --duration 20s --stalled 20
      what do the others see of 20 connections that do not read?
  mqgate-bench request --connections 1000 --rate 20000 --expect 'p99<5ms' --html r.html
      MQ requests, and a page with charts
  mqgate-bench broadcast --rooms 10 --members 100 --rate 100
      100 chat messages per second, each to 100 members
  mqgate-bench broadcast --url ws://127.0.0.1:8080/ws --url ws://127.0.0.1:8081/ws
      rooms whose members are at two gateways: does each get what the other takes?
  mqgate-bench heartbeat --connections 10000 --duration 65s --client-pings 5s
      are pings on time, and spread over the interval?
  mqgate-bench ramp --url ws://127.0.0.1:8080/echo --p99 20ms --duration 2s
      the highest rate at which p99 stays within 20 ms
  mqgate-bench churn --total 1000000 --duration 10m
      a million connections that end badly: does the server account for each, and keep nothing?

  mqgate-bench compare echo --markdown comparison.md \
      --peer 'mqgate=bin/mqgate serve --listen 127.0.0.1:0 --admin= --echo-path /echo' \
      --peer 'gorilla=bin/peers gorilla'
      two servers in turns, three times each

Durations are written as in Go: 300ms, 10s, 1m30s. Sizes are bytes, or have a unit: 65536, 64KiB, 1MiB. Flags marked with * may be repeated. SIGINT (Ctrl-C) ends a run in good order with a report of the part before; a second one ends it at once.

Exit status: 0 when every connection was opened, nothing was lost, late, duplicated or wrong, ramp found a good rate, every check of churn and every --expect holds; 1 otherwise, also when a run was broken off; 2 for wrong flags.`

// printHelp writes the help.
func printHelp(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Usage: mqgate-bench SCENARIO [flags]\n\n")
	paragraph(&b, helpIntro)
	b.WriteString("\nScenarios:\n")
	for _, s := range bench.Scenarios() {
		columns(&b, s.Name, 8, s.Doc)
	}
	columns(&b, compareWord, 8, compareDoc)
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
