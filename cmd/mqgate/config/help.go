package config

import (
	"io"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/mqgate/mqgate/cmd/internal/prose"
)

// HelpWidth is the width of the help in columns. It does not depend on the terminal, so that the help is the same in a
// terminal, in a pipe and in the documentation.
const HelpWidth = 100

const helpIntro = "mqgate holds a very large number of WebSocket clients and carries requests, responses and events " +
	"between them and the workers behind it."

// helpServe stands between the usage and the flags of `mqgate serve --help`. Indented lines are kept as they are.
const helpServe = `Every flag may also be set in the environment and in a YAML file. A flag beats the environment, the environment beats the file, the file beats the default. --ping-interval, for one, is

  mqgate serve --ping-interval=5s
  MQGATE_PING_INTERVAL=5s mqgate serve
  ping-interval: 5s                          in the file named by --config

Durations are written as in Go: 300ms, 10s, 1m30s, 2h. Sizes are bytes, or have a unit: 65536, 64KiB, 1MiB, 1GiB. Flags marked with * may be repeated or take a list with commas. A value out of its range is an error, as are unknown names, also among the environment variables that begin with MQGATE_; all errors are reported at once.

Examples:

  mqgate serve
      one machine, development: clients at ws://127.0.0.1:8080/ws, admin at http://127.0.0.1:9090
  mqgate serve --listen=:8080 --auth=jwt --auth-secret-file=/run/secrets/mqgate --log-format=json
      clients from everywhere, with signed tokens; the admin interface stays on loopback
  mqgate serve --nats=nats://10.0.0.1:4222
      one of several gateways, with workers elsewhere: mqgate worker
  mqgate serve --config=/etc/mqgate.yaml --check
      what would run, and where each value comes from

Exit status: 0 drained, or the check passed; 1 failed while running; 2 wrong flags or configuration.`

const helpWorker = `Any number of workers may run: they keep sessions and rooms in NATS JetStream, and any of them may die. All of them are given the same limits, and the same --auth. Every flag may also be set in the environment and in a YAML file, as with mqgate serve.

  mqgate worker --nats=nats://10.0.0.1:4222,nats://10.0.0.2:4222 --nats-replicas=3

Exit status: 0 ended by a signal, or the check passed; 1 failed; 2 wrong flags or configuration.`

const helpDoctor = `Limits of the kernel, of this process and of memory are compared with what the connections need; beside each that is short stands the command that changes it. docs/tuning.md explains them.

Exit status: 0 the connections fit; 1 they do not; 2 wrong flags.`

// printHelp writes the help of the selected command (kong.HelpPrinter).
func printHelp(_ kong.HelpOptions, ctx *kong.Context) error {
	w := &helpWriter{}
	node := ctx.Selected()
	if node == nil {
		w.line("Usage: mqgate <command> [flags]")
		w.line("")
		w.paragraphs(ctx.Model.Help)
		w.line("")
		w.line("Commands:")
		for _, command := range ctx.Model.Children {
			w.columns("mqgate "+command.Name, len("mqgate version"), command.Help)
		}
		w.line("")
		w.line(`"mqgate <command> --help" shows the flags of a command.`)
	} else {
		w.line("Usage: mqgate " + node.Name + " [flags]")
		w.line("")
		w.paragraphs(node.Help)
		if node.Detail != "" {
			w.line("")
			w.paragraphs(node.Detail)
		}
		w.flags(node)
	}
	_, err := io.WriteString(ctx.Stdout, w.text.String())
	return err
}

// helpWriter lays out text in HelpWidth columns.
type helpWriter struct{ text strings.Builder }

func (w *helpWriter) line(s string) {
	w.text.WriteString(strings.TrimRight(s, " "))
	w.text.WriteByte('\n')
}

// paragraphs writes text wrapped, but for its indented lines.
func (w *helpWriter) paragraphs(text string) {
	for _, p := range strings.Split(text, "\n") {
		if p == "" || p[0] == ' ' {
			w.line(p)
			continue
		}
		for _, line := range prose.Wrap(p, HelpWidth) {
			w.line(line)
		}
	}
}

// columns writes left, and text wrapped beside it.
func (w *helpWriter) columns(left string, leftWidth int, paragraphs ...string) {
	for _, p := range paragraphs {
		for _, line := range prose.Wrap(p, HelpWidth-leftWidth-4) {
			w.line("  " + left + strings.Repeat(" ", leftWidth-len(left)+2) + line)
			left = ""
		}
	}
}

// flags writes the flags of node by group: those of the table in its order, and --help last.
func (w *helpWriter) flags(node *kong.Node) {
	all := node.AllFlags(true)
	var groups []string
	byGroup := map[string][]*kong.Flag{}
	widest := 0
	for i := len(all) - 1; i >= 0; i-- { // those of the command before those of the program
		for _, flag := range all[i] {
			title := flag.Group.Title
			if byGroup[title] == nil {
				groups = append(groups, title)
			}
			byGroup[title] = append(byGroup[title], flag)
			widest = max(widest, len(flagHead(flag)))
		}
	}
	for _, title := range groups {
		w.line("")
		w.line(title + ":")
		for _, flag := range byGroup[title] {
			text := []string{flag.Help}
			if s := findIn(settingsOf(CommandName(node.Name)), flag.Name); s != nil && !s.flagOnly {
				text = append(text, flagFoot(s, node.Name != string(CommandDoctor)))
			}
			w.columns(flagHead(flag), widest, text...)
		}
	}
}

// flagHead returns the left column: the flag and what kind of value it takes.
func flagHead(flag *kong.Flag) string {
	head := "--" + flag.Name
	if flag.Short != 0 {
		head = "-" + string(flag.Short) + ", " + head
	}
	if flag.PlaceHolder != "" {
		head += "=" + flag.PlaceHolder
	}
	if s := findSetting(flag.Name); s != nil && s.list {
		head += " *"
	}
	return head
}

// flagFoot returns the last line about a setting: default, range, and the environment variable where one is read.
func flagFoot(s *setting, env bool) string {
	foot := "[default " + s.def
	if s.def == "" {
		foot = "[default empty"
	}
	if s.rangeDoc != "" {
		foot += "; " + s.rangeDoc
	}
	if env {
		foot += "; $" + s.env()
	}
	return foot + "]"
}
