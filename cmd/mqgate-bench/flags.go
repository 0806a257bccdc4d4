package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqgate/mqgate/bench"
)

// command is what the command line asks for.
type command struct {
	help    bool
	options bench.Options
	json    string // file for the report; "-": standard output; "": none
}

// flag describes one flag: all that parsing and help need.
type flag struct {
	name        string // without dashes
	group       string
	placeholder string
	def         string // as one would write it; "": none
	ranges      string // for the help
	doc         string
	list        bool   // may be given more than once
	scenario    string // the one that uses it; "": all do
	// set reads a value. The error says what is wrong with it and what was expected.
	set func(c *command, text string) error
}

const (
	groupTarget  = "Target"
	groupLoad    = "Load"
	groupConnect = "Only connect"
	groupEcho    = "Only echo"
	groupReport  = "Report"
)

var flags = []flag{
	{name: "url", group: groupTarget, placeholder: "URL", def: "ws://127.0.0.1:8080/ws",
		doc: "The server and the path, ws:// only. Scenario echo needs a path that echoes, as mqgate serve --echo-path has.",
		set: func(c *command, text string) (err error) {
			c.options.Target, err = bench.ParseTarget(text)
			return err
		}},
	{name: "sources", group: groupTarget, placeholder: "LIST", list: true,
		doc: "Source addresses, as addresses and prefixes with commas: 127.0.0.1,127.0.1.0/24. Each has its own 28,000 or so ports " +
			"to connect from. Automatic for a target on 127.0.0.0/8: 127.0.0.1 and following, 20,000 connections each.",
		set: func(c *command, text string) error {
			list, err := bench.ParseSources(text)
			for _, a := range list {
				if slices.Contains(c.options.Sources, a) {
					return fmt.Errorf("has %v a second time", a)
				}
				if len(c.options.Sources) > 0 && c.options.Sources[0].Is4() != a.Is4() {
					return fmt.Errorf("mixes IPv4 and IPv6")
				}
				c.options.Sources = append(c.options.Sources, a)
			}
			return err
		}},
	number("server-pid", groupTarget, "PID", "", 1, math.MaxInt32, func(c *command) *int { return &c.options.ServerPID },
		"The server's process, to measure its memory and CPU. Found by itself for a target on this machine that this user may look into."),

	number("connections", groupLoad, "N", "1000", bench.MinConnections, bench.MaxConnections, func(c *command) *int { return &c.options.Connections },
		"Connections to open. Each takes an open file here; the limit is raised as far as it may be."),
	number("rate", groupLoad, "R", "0", bench.MinRate, bench.MaxRate, func(c *command) *int { return &c.options.Rate },
		"connect: connections opened per second, 0 is as fast as possible. echo: messages per second over all connections, each at "+
			"its time and measured from it, however slow the server is; with 0 every echo is followed by the next message."),
	duration("duration", groupLoad, "10s", bench.MinDuration, bench.MaxDuration, func(c *command) *time.Duration { return &c.options.Duration },
		"connect: how long all connections are held. echo: how long is measured."),
	number("loops", groupLoad, "N", "", bench.MinLoops, bench.MaxLoops, func(c *command) *int { return &c.options.Loops },
		"Event loops, one thread each. The default is GOMAXPROCS, or the number of connections when that is lower."),
	{name: "kind", group: groupLoad, placeholder: "KIND", def: "binary", ranges: "binary or text", doc: "Kind of messages.",
		set: choice([]string{"binary", "text"}, func(c *command, i int) { c.options.Text = i == 1 })},

	size("burst-bytes", groupConnect, "0", bench.MinPayload, bench.MaxPayload, true, func(c *command) *int { return &c.options.BurstBytes },
		"Every connection sends one message of this size; 0 is none.").only("connect"),
	duration("burst-after", groupConnect, "0s", 0, bench.MaxDuration, func(c *command) *time.Duration { return &c.options.BurstAfter },
		"When, from the beginning of --duration. The server's memory per idle connection is read just before, and again at the end.").only("connect"),
	flag{name: "burst-reply", group: groupConnect, placeholder: "REPLY", def: "echo", ranges: "echo or none",
		doc: "What comes back: the message, which is then checked and otherwise lost, or nothing that matters.",
		set: choice([]string{"echo", "none"}, func(c *command, i int) { c.options.BurstEcho = i == 0 })}.only("connect"),

	size("payload", groupEcho, "128", bench.MinPayload, bench.MaxPayload, false, func(c *command) *int { return &c.options.Payload },
		"Size of each message.").only("echo"),
	number("depth", groupEcho, "K", "1", bench.MinDepth, bench.MaxDepth, func(c *command) *int { return &c.options.Depth },
		"Messages in flight on each connection; with --rate at most so many, and a message that has to wait counts its waiting as latency.").only("echo"),
	duration("warmup", groupEcho, "1s", bench.MinWarmup, bench.MaxWarmup, func(c *command) *time.Duration { return &c.options.Warmup },
		"Traffic before --duration that is checked and not measured.").only("echo"),

	{name: "expect", group: groupReport, placeholder: "EXPR", list: true,
		doc: "A condition on the report: METRIC, <, <=, >, >= or =, VALUE: p99<50ms, rate>=10000, rss_bytes_per_connection<=1KiB. " +
			"When it does not hold, or was not measured, the exit status is 1. Metrics: " + strings.Join(bench.MetricNames(), ", ") + ".",
		set: func(c *command, text string) error {
			e, err := bench.ParseExpectation(text)
			c.options.Expect = append(c.options.Expect, e)
			return err
		}},
	{name: "json", group: groupReport, placeholder: "FILE", doc: "Write the report as JSON; - is standard output, and the report for people goes to standard error then.",
		set: func(c *command, text string) error {
			if text == "" {
				return fmt.Errorf("is empty, expected the name of a file or -")
			}
			c.json = text
			return nil
		}},
}

func (f flag) only(scenario string) flag {
	f.scenario = scenario
	return f
}

func number(name, group, placeholder, def string, low, high int, field func(*command) *int, doc string) flag {
	ranges := fmt.Sprintf("%d to %d", low, high)
	return flag{name: name, group: group, placeholder: placeholder, def: def, ranges: ranges, doc: doc, set: func(c *command, text string) error {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil && strings.Trim(strings.TrimPrefix(text, "-"), "0123456789") != "" || text == "" || text == "-":
			return fmt.Errorf("is not a whole number, expected %s", ranges)
		case err != nil || n < low || n > high:
			return fmt.Errorf("is out of range, expected %s", ranges)
		}
		*field(c) = n
		return nil
	}}
}

func duration(name, group, def string, low, high time.Duration, field func(*command) *time.Duration, doc string) flag {
	ranges := fmt.Sprintf("%s to %s", durationText(low), durationText(high))
	return flag{name: name, group: group, placeholder: "TIME", def: def, ranges: ranges, doc: doc, set: func(c *command, text string) error {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return fmt.Errorf("is not a duration like 300ms, 10s or 1m30s, expected %s", ranges)
		case d < low || d > high:
			return fmt.Errorf("is out of range, expected %s", ranges)
		}
		*field(c) = d
		return nil
	}}
}

// durationText writes whole units without zeros: "10m", not "10m0s".
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var sizeUnits = []struct {
	suffix string
	bytes  int
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

func sizeText(n int) string {
	for _, u := range slices.Backward(sizeUnits) {
		if n > 0 && n%u.bytes == 0 {
			return strconv.Itoa(n/u.bytes) + u.suffix
		}
	}
	return strconv.Itoa(n)
}

// size is a flag for a number of bytes; zero says that 0 is allowed besides the range.
func size(name, group, def string, low, high int, zero bool, field func(*command) *int, doc string) flag {
	ranges := fmt.Sprintf("%s to %s", sizeText(low), sizeText(high))
	if zero {
		ranges = "0, or " + ranges
	}
	return flag{name: name, group: group, placeholder: "BYTES", def: def, ranges: ranges, doc: doc, set: func(c *command, text string) error {
		digits, unit := text, 1
		for _, u := range sizeUnits {
			if before, ok := strings.CutSuffix(text, u.suffix); ok {
				digits, unit = before, u.bytes
			}
		}
		n, err := strconv.Atoi(digits)
		switch {
		case err != nil && strings.Trim(strings.TrimPrefix(digits, "-"), "0123456789") != "" || digits == "" || digits == "-":
			return fmt.Errorf("is not a number of bytes like 1500 or 64KiB, expected %s", ranges)
		case err != nil || n > high/unit || (n*unit < low && !(zero && n == 0)):
			return fmt.Errorf("is out of range, expected %s", ranges)
		}
		*field(c) = n * unit
		return nil
	}}
}

// choice is the set function of a flag with a few values; chosen gets the index.
func choice(values []string, chosen func(c *command, i int)) func(*command, string) error {
	return func(c *command, text string) error {
		i := slices.Index(values, text)
		if i < 0 {
			return fmt.Errorf("is unknown, expected %s", strings.Join(values, " or "))
		}
		chosen(c, i)
		return nil
	}
}

func findFlag(name string) *flag {
	i := slices.IndexFunc(flags, func(f flag) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return &flags[i]
}
