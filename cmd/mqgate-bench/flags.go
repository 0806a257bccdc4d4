package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqgate/mqgate/bench"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame/deflate"
)

// command is what the command line asks for.
type command struct {
	help    bool
	options bench.Options
	pid     int             // of --server-pid, the last one
	admins  []bench.Metrics // of the servers; options.Metrics is their sum
	compare comparison
	json    string // file for the report; "-": standard output; "": none
	html    string // file for the page; "": none
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
	scenario    string // the one that uses it, or several with " and "; "": all do
	// set reads a value. The error says what is wrong with it and what was expected.
	set func(c *command, text string) error
}

const (
	groupTarget  = "Target"
	groupLoad    = "Load"
	groupConnect = "Only connect"
	groupSending = "Messages"
	groupMQ      = "Only request and broadcast, and a ramp of requests"
	groupBeats   = "Only heartbeat"
	groupRamp    = "Only ramp"
	groupEcho    = "Only echo"
	groupChurn   = "Only churn"
	groupCompare = "Only compare"
	groupReport  = "Report"
)

var flags = []flag{
	{name: "url", group: groupTarget, placeholder: "URL", def: "ws://127.0.0.1:8080/ws", list: true,
		doc: "The server and the path, ws:// only. Scenario echo needs a path that echoes, as mqgate serve --echo-path has. Given several times, with " +
			"one path: connections are dealt out evenly over all these servers, and so are the members of each room of broadcast.",
		set: func(c *command, text string) error {
			t, err := bench.ParseTarget(text)
			if err == nil && c.options.Target.URL == "" {
				c.options.Target = t
			} else if err == nil {
				c.options.Others = append(c.options.Others, t)
			}
			return err
		}},
	{name: "sources", group: groupTarget, placeholder: "LIST", list: true,
		doc: "Source addresses, as addresses and prefixes with commas: 127.0.0.1,127.0.1.0/24. Each has its own 28,000 or so ports " +
			"to connect from; beyond half of them connect(2) becomes slow. Automatic for a target on 127.0.0.0/8: 127.0.0.1 and following, 10,000 connections each.",
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
	serverPID(),

	flag{name: "admin", group: groupTarget, placeholder: "URL", def: "http://127.0.0.1:9090", list: true,
		doc: "The server's admin interface, whose metrics are read. churn needs it, and as many as there are servers; echo reads it with --stalled, and goes without when it is empty.",
		set: func(c *command, text string) error {
			read, err := parseAdmin(text)
			if read != nil {
				c.admins = append(c.admins, read)
			}
			return err
		}}.only("churn and echo"),

	{name: "subprotocol", group: groupTarget, placeholder: "LIST", doc: "WebSocket subprotocols to ask for, with commas.",
		set: func(c *command, text string) error {
			c.options.Subprotocol = text
			return nil
		}},
	{name: "header", group: groupTarget, placeholder: "NAME:VALUE", list: true, doc: "A further header of the upgrade: --header 'Authorization: Bearer x'.",
		set: func(c *command, text string) error {
			name, value, found := strings.Cut(text, ":")
			if !found {
				return fmt.Errorf("has no colon, expected NAME: VALUE")
			}
			c.options.Header = append(c.options.Header, handshake.Header{Name: name, Value: strings.TrimSpace(value)})
			return nil
		}},

	number("connections", groupLoad, "N", "1000", bench.MinConnections, bench.MaxConnections, func(c *command) *int { return &c.options.Connections },
		"Connections to open; churn: how many are open at one time at most; broadcast has --rooms times --members instead. Each takes an open file here; the limit is raised as far as it may be."),
	number("rate", groupLoad, "R", "0", bench.MinRate, bench.MaxRate, func(c *command) *int { return &c.options.Rate },
		"connect and churn: connections opened per second, 0 is as fast as possible. echo and request: messages per second over all "+
			"connections, each at its time and measured from it, however slow the server is; with 0 every answer is followed by the next "+
			"message. broadcast: chat messages per second over all rooms; 0 is one per room. ramp: the first rate that is tried; 0 is 1000."),
	duration("duration", groupLoad, "10s", bench.MinDuration, bench.MaxDuration, func(c *command) *time.Duration { return &c.options.Duration },
		"connect and heartbeat: how long all connections are held. echo, request, broadcast: how long is measured; ramp: at every rate. churn: how long connections are opened, unless --total ends it."),
	number("loops", groupLoad, "N", "", bench.MinLoops, bench.MaxLoops, func(c *command) *int { return &c.options.Loops },
		"Event loops, one thread each. The default is GOMAXPROCS, or the number of connections when that is lower."),
	flag{name: "fd-tables", group: groupLoad, placeholder: "TABLES", def: "shared", ranges: "shared or per-loop",
		doc: "Whose descriptor table connections are in. per-loop: each loop has one of its own, so that the limit of open files holds for each " +
			"loop by itself. Needs Linux 5.9.",
		set: choice([]string{"shared", "per-loop"}, func(c *command, i int) { c.options.TablePerLoop = i == 1 })},
	flag{name: "kind", group: groupLoad, placeholder: "KIND", def: "binary", ranges: "binary or text", doc: "Kind of messages; churn sends both. MQ in text messages is base64, as web clients send it.",
		set: choice([]string{"binary", "text"}, func(c *command, i int) { c.options.Text = i == 1 })}.only("connect and echo and request and broadcast and ramp"),
	flag{name: "compression", group: groupLoad, placeholder: "MODE", def: "off", ranges: "off, shared or takeover",
		doc: "Offer permessage-deflate (RFC 7692). shared: nothing is kept between messages, as mqgate serve has it with --compression shared; takeover: " +
			"both ends keep a window for each connection, which is memory of this process too. A server may decline: the report says how many connections agreed. Text messages become about a third shorter by it, binary ones not at all.",
		set: choice([]string{"off", "shared", "takeover"}, func(c *command, i int) {
			c.options.Compression = [...]deflate.Mode{deflate.Off, deflate.Shared, deflate.Takeover}[i]
		})}.only("connect and " + sending),
	size("compression-min-size", groupLoad, "256", bench.MinCompress, bench.MaxPayload, true, func(c *command) *int { return &c.options.CompressMin },
		"With --compression: shorter messages go out as they are.").only("connect and " + sending),

	size("burst-bytes", groupConnect, "0", bench.MinPayload, bench.MaxPayload, true, func(c *command) *int { return &c.options.BurstBytes },
		"Every connection sends one message of this size; 0 is none.").only("connect"),
	duration("burst-after", groupConnect, "0s", 0, bench.MaxDuration, func(c *command) *time.Duration { return &c.options.BurstAfter },
		"When, from the beginning of --duration. The server's memory per idle connection is read just before, and again at the end.").only("connect"),
	flag{name: "burst-reply", group: groupConnect, placeholder: "REPLY", def: "echo", ranges: "echo or none",
		doc: "What comes back: the message, which is then checked and otherwise lost, or nothing that matters.",
		set: choice([]string{"echo", "none"}, func(c *command, i int) { c.options.BurstEcho = i == 0 })}.only("connect"),

	payload().only(sending),
	number("depth", groupSending, "K", "1", bench.MinDepth, bench.MaxDepth, func(c *command) *int { return &c.options.Depth },
		"Messages in flight on each connection that sends; with --rate at most so many, and a message that has to wait counts its waiting as latency.").only(sending),
	duration("warmup", groupSending, "1s", bench.MinWarmup, bench.MaxWarmup, func(c *command) *time.Duration { return &c.options.Warmup },
		"Traffic before --duration that is checked and not measured; ramp: at every rate.").only(sending),
	number("seed", groupSending, "N", "1", bench.MinSeed, bench.MaxSeed, func(c *command) *int { return &c.options.Seed },
		"Which size each message has follows from it; churn: what every connection does.").only(sending + " and churn"),

	flag{name: "token", group: groupMQ, placeholder: "TEXT", doc: "What pcast.Authenticate, the first request of every connection, has as authenticationToken.",
		set: func(c *command, text string) error {
			c.options.Token = text
			return nil
		}}.only("request and broadcast and ramp"),
	flag{name: "request-type", group: groupMQ, placeholder: "TYPE", def: bench.DefaultRequest, doc: "What is asked. Other than the default, it needs --request-payload.",
		set: func(c *command, text string) error {
			if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) || !strings.Contains(text, ".") {
				return fmt.Errorf("is not like package.Message")
			}
			c.options.RequestType = text
			return nil
		}}.only("request and ramp"),
	flag{name: "request-payload", group: groupMQ, placeholder: "FILE", doc: "The payload of every request, encoded, instead of a request of --payload bytes for a room that does not exist.",
		set: func(c *command, text string) (err error) {
			c.options.RequestPayload, err = readPayload(text)
			return err
		}}.only("request and ramp"),
	flag{name: "answer-status", group: groupMQ, placeholder: "STATUS", def: bench.DefaultStatus, doc: "Field 1 of a good answer, as text; others are wrong. Empty: any answer of the right type is good.",
		set: func(c *command, text string) error {
			c.options.AnswerStatus = text
			return nil
		}}.only("request and ramp"),
	duration("answer-timeout", groupMQ, "18s", bench.MinPatience, bench.MaxPatience, func(c *command) *time.Duration { return &c.options.AnswerTimeout },
		"An answer that took longer is late. Clients give up after 18 s.").only("request and ramp"),
	number("rooms", groupMQ, "N", "10", bench.MinRooms, bench.MaxRooms, func(c *command) *int { return &c.options.Rooms },
		"Rooms, each with one member that sends.").only("broadcast"),
	number("members", groupMQ, "N", "100", bench.MinMembers, bench.MaxMembers, func(c *command) *int { return &c.options.Members },
		"Members of each room, each on a connection of its own. Filling a room takes the square of it.").only("broadcast"),

	durationOr0("server-pings", groupBeats, "20s", bench.MinPings, bench.MaxPings, func(c *command) *time.Duration { return &c.options.ServerPings },
		"The server's interval between two pings, by which they are judged; 0 is unknown: they are only counted.").only("heartbeat"),
	durationOr0("client-pings", groupBeats, "0s", bench.MinPings, bench.MaxPings, func(c *command) *time.Duration { return &c.options.ClientPings },
		"Interval between two pings of our own on each connection, by which the round trip is measured; 0 is none.").only("heartbeat"),

	flag{name: "of", group: groupRamp, placeholder: "SCENARIO", def: "echo", ranges: "echo or request", doc: "What is sent.",
		set: choice([]string{"echo", "request"}, func(c *command, i int) { c.options.RampOf = [...]string{"echo", "request"}[i] })}.only("ramp"),
	duration("p99", groupRamp, "50ms", bench.MinPatience, bench.MaxPatience, func(c *command) *time.Duration { return &c.options.P99Limit },
		"The latency that 99 of 100 messages must keep for a rate to be good.").only("ramp"),

	number("stalled", groupEcho, "N", "0", bench.MinStalled, bench.MaxStalled, func(c *command) *int { return &c.options.Stalled },
		"Further connections that send and do not read: how long until the server closes them, and what the others see of it? The run then "+
			"has slices of --duration, every second one with stalled connections; a slice should be longer than the server's "+
			"--write-timeout and --close-timeout together.").only("echo"),
	number("stalled-pairs", groupEcho, "N", "3", bench.MinPairs, bench.MaxPairs, func(c *command) *int { return &c.options.StalledPairs },
		"With --stalled: slices without and with them, in turn.").only("echo"),

	number("total", groupChurn, "N", "0", bench.MinTotal, bench.MaxTotal, func(c *command) *int { return &c.options.Total },
		"Connections in all; 0: as many as --duration allows.").only("churn"),
	duration("settle", groupChurn, "12s", bench.MinSettle, bench.MaxSettle, func(c *command) *time.Duration { return &c.options.Settle },
		"What the server is given to return memory after the warm-up. At the end it has up to five times as long.").only("churn"),
	size("max-growth", groupChurn, "8MiB", bench.MinGrowth, bench.MaxGrowth, false, func(c *command) *int { return &c.options.MaxGrowth },
		"By how much the server's heap and RssAnon may have grown from the warm-up to the end; of several servers the sums, by so many times that.").only("churn"),
	flag{name: "refusals", group: groupChurn, placeholder: "WHICH", def: "none", ranges: "none, address or any",
		doc: "Upgrades refused with 503 that are no failures but limits of the server at work, if it has counted exactly as many. address: " +
			"--max-connections-per-ip and --handshake-rate-per-ip; any: every 503, also of --memory-limit, and of --max-connections with --limit-closes-per-second 0.",
		set: choice([]string{"none", "address", "any"}, func(c *command, i int) { c.options.Refusals = bench.Refusals(i) })}.only("churn"),

	{name: "expect", group: groupReport, placeholder: "EXPR", list: true,
		doc: "A condition on the report: METRIC, <, <=, >, >= or =, VALUE: p99<50ms, rate>=10000, rss_bytes_per_connection<=1KiB. " +
			"When it does not hold, or was not measured, the exit status is 1. Metrics: " + strings.Join(bench.MetricNames(), ", ") + ".",
		set: func(c *command, text string) error {
			e, err := bench.ParseExpectation(text)
			c.options.Expect = append(c.options.Expect, e)
			return err
		}},
	{name: "html", group: groupReport, placeholder: "FILE", doc: "Write the report as one page with charts: latency, rate, memory and connections over time, latency by percentile.",
		set: func(c *command, text string) error {
			if text == "" {
				return fmt.Errorf("is empty, expected the name of a file")
			}
			c.html, c.options.Charts = text, true
			return nil
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

// usedBy reports whether a scenario uses the flag.
func (f flag) usedBy(scenario string) bool {
	return f.scenario == "" || slices.Contains(strings.Split(f.scenario, " and "), scenario)
}

func (f flag) only(scenario string) flag {
	f.scenario = scenario
	return f
}

// sending are the scenarios that send messages.
const sending = "echo and request and broadcast and ramp"

// payload is a flag for one size or a distribution of sizes.
func payload() flag {
	f := size("payload", groupSending, "128", bench.MinPayload, bench.MaxPayload, false, func(c *command) *int { return &c.options.Payload },
		"Size of each message, or a distribution: 64:50%,1KiB:40%,16KiB:10%. Of request it is the size of the request's payload, of broadcast that of the text.")
	one := f.set
	f.set = func(c *command, text string) error {
		c.options.Sizes = bench.Sizes{}
		if !strings.ContainsAny(text, ":%,") {
			return one(c, text)
		}
		sizes, err := bench.ParseSizes(text, func(text string) (int, error) {
			err := one(c, text)
			return c.options.Payload, err
		})
		if err != nil {
			return err
		}
		c.options.Sizes, c.options.Payload = sizes, sizes.Largest()
		return nil
	}
	return f
}

// durationOr0 is a flag for a duration that may be 0 besides the range.
func durationOr0(name, group, def string, low, high time.Duration, field func(*command) *time.Duration, doc string) flag {
	f := duration(name, group, def, low, high, field, doc)
	f.ranges = "0, or " + f.ranges
	set := f.set
	f.set = func(c *command, text string) error {
		if d, err := time.ParseDuration(text); err == nil && d == 0 {
			*field(c) = 0
			return nil
		}
		return set(c, text)
	}
	return f
}

// serverPID is a flag for the processes of the servers.
func serverPID() flag {
	f := number("server-pid", groupTarget, "PID", "", 1, math.MaxInt32, func(c *command) *int { return &c.pid },
		"The server's process, to measure its memory and CPU; several: one for each --url, in their order. Found by itself for a target on this machine that this user may look into.")
	f.list = true
	read := f.set
	f.set = func(c *command, text string) error {
		if err := read(c, text); err != nil {
			return err
		}
		c.options.ServerPIDs = append(c.options.ServerPIDs, c.pid)
		return nil
	}
	return f
}

// readPayload reads a file that is not longer than a message may be.
func readPayload(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer file.Close() // nothing was written
	p, err := io.ReadAll(io.LimitReader(file, bench.MaxPayload+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", err)
	case len(p) > bench.MaxPayload:
		return nil, fmt.Errorf("has more than %s", sizeText(bench.MaxPayload))
	}
	return append([]byte{}, p...), nil // not nil when it is empty
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
