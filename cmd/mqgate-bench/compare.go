package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mqgate/mqgate/bench"
)

// comparison is what is said on the command line for `mqgate-bench compare SCENARIO` alone.
type comparison struct {
	on      bool
	options bench.CompareOptions // without Run
	page    string               // FILE or FILE#SECTION; "": none
}

// compareWord is the first word of such a command line, and what stands in flag.scenario for its flags.
const compareWord = "compare"

const compareDoc = "Run connect or echo against several servers in turns: medians and ratios."

// notCompared are flags of connect and echo that a comparison does not take: they are about one server.
var notCompared = []string{"url", "server-pid", "admin", "expect", "stalled", "stalled-pairs", "html"}

var compareFlags = []flag{
	{name: "server", group: groupCompare, placeholder: "NAME=URL", list: true, scenario: compareWord,
		doc: "A server that runs. Ratios are to the first server of all, with whichever flag.",
		set: func(c *command, text string) error {
			name, url, err := cutName(text)
			if err != nil {
				return err
			}
			if _, err := bench.ParseTarget(url); err != nil {
				return err
			}
			c.compare.options.Servers = append(c.compare.options.Servers, bench.CompareServer{Name: name, URL: url})
			return nil
		}},
	{name: "peer", group: groupCompare, placeholder: "NAME=COMMAND", list: true, scenario: compareWord,
		doc: "A server to start for each of its turns and to end after it. The command is split at spaces, without a shell. It has to write a " +
			"line with addr=HOST:PORT when it listens, as mqgate serve does; pid=PID in that line names the process, when it is another.",
		set: func(c *command, text string) error {
			name, words, err := cutName(text)
			if err != nil {
				return err
			}
			c.compare.options.Servers = append(c.compare.options.Servers, bench.CompareServer{Name: name, Command: strings.Fields(words)})
			return nil
		}},
	{name: "path", group: groupCompare, placeholder: "PATH", def: "/echo", scenario: compareWord,
		doc: "The path at the servers of --peer.",
		set: func(c *command, text string) error {
			if _, err := bench.ParseTarget("ws://127.0.0.1" + text); err != nil || !strings.HasPrefix(text, "/") {
				return fmt.Errorf("is not a path like /echo")
			}
			c.compare.options.Path = text
			return nil
		}},
	number("rounds", groupCompare, "N", "3", bench.MinRounds, bench.MaxRounds, func(c *command) *int { return &c.compare.options.Rounds },
		"How often each server has its turn. The turns are interleaved.").only(compareWord),
	{name: "markdown", group: groupCompare, placeholder: "FILE", scenario: compareWord,
		doc: "Write the comparison as Markdown, with charts as SVG in a folder beside it. FILE#SECTION replaces what stands between the lines " +
			"<!-- begin SECTION --> and <!-- end SECTION --> of a page that exists.",
		set: func(c *command, text string) error {
			if file, section, hasSection := strings.Cut(text, "#"); file == "" || hasSection && section == "" {
				return fmt.Errorf("is not the name of a file, or FILE#SECTION")
			}
			c.compare.page = text
			return nil
		}},
}

func init() {
	i := slices.IndexFunc(flags, func(f flag) bool { return f.group == groupReport })
	flags = slices.Insert(flags, i, compareFlags...)
}

// cutName splits NAME=REST.
func cutName(text string) (name, rest string, err error) {
	name, rest, _ = strings.Cut(text, "=")
	if rest = strings.TrimSpace(rest); name == "" || rest == "" || strings.ContainsAny(name, " \t|<>") {
		return "", "", fmt.Errorf("does not begin with NAME=")
	}
	return name, rest, nil
}

// takes reports whether the command line may have the flag.
func (c *command) takes(f *flag) bool {
	if c.compare.on {
		return f.usedBy(compareWord) && !slices.Contains(notCompared, f.name) || f.scenario != "" && f.usedBy(c.options.Scenario) && !slices.Contains(notCompared, f.name)
	}
	return f.usedBy(c.options.Scenario)
}

// runCompare is run for a comparison. It returns the exit status.
func runCompare(ctx context.Context, c *command, args []string, sys bench.System, jsonTo, people, stderr io.Writer, progress *bench.Progress) int {
	fail := func(err error, status int) int {
		fmt.Fprintln(stderr, "mqgate-bench:", err)
		return status
	}
	if c.compare.page != "" {
		if err := bench.CheckPage(c.compare.page); err != nil { // before the runs
			return fail(fmt.Errorf("flag --markdown: %w", err), exitUsage)
		}
	}
	o := c.compare.options
	o.Run, o.Args = c.options, append([]string{"mqgate-bench"}, args...)
	result, err := bench.Compare(ctx, o, sys, progress)
	if err != nil {
		return fail(err, exitFailed)
	}
	if err := result.WriteText(people); err != nil {
		return fail(err, exitFailed)
	}
	if err := result.WriteJSON(jsonTo); err != nil {
		return fail(err, exitFailed)
	}
	if c.compare.page != "" && !result.Interrupted {
		if err := result.WritePage(c.compare.page); err != nil {
			return fail(err, exitFailed)
		}
	}
	if !result.OK {
		return exitFailed
	}
	return exitOK
}
