package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/bench"
)

var system = bench.System{OpenFiles: 20_000, Ports: 28_232, CPUs: 4}

// Each wrong command line is answered with all that is wrong with it.
func TestFaults(t *testing.T) {
	const loads = "connect or echo"
	for _, test := range []struct {
		args string
		want []string
	}{
		{"", []string{"no scenario, expected " + loads}},
		{"churn", []string{`scenario "churn": there is none of that name, expected ` + loads}},
		{"echo connect", []string{`unexpected argument "connect", expected flags only after the scenario`}},
		{"echo --bogus", []string{"flag --bogus: unknown flag"}},
		{"echo --bogus 5 --depth 0", []string{"flag --bogus: unknown flag", `flag --depth: "0" is out of range, expected 1 to 1024`}},
		{"echo --bogus=5", []string{"flag --bogus: unknown flag"}},
		{"echo -c 5", []string{"flag -c: unknown flag, did you mean --connections?"}},
		{"echo --connection 5", []string{"flag --connection: unknown flag, did you mean --connections?"}},
		{"echo --depth", []string{"flag --depth: has no value, expected --depth=K"}},
		{"echo --depth --text", []string{"flag --depth: has no value, expected --depth=K", "flag --text: unknown flag"}},
		{"echo --depth 2 --depth=2", []string{"flag --depth: given 2 times, expected once"}},
		{"echo --connections 0", []string{`flag --connections: "0" is out of range, expected 1 to 4194304`}},
		{"echo --connections 4194305", []string{`flag --connections: "4194305" is out of range, expected 1 to 4194304`}},
		{"echo --connections -1", []string{`flag --connections: "-1" is out of range, expected 1 to 4194304`}},
		{"echo --connections 99999999999999999999", []string{`flag --connections: "99999999999999999999" is out of range, expected 1 to 4194304`}},
		{"echo --connections 1e3", []string{`flag --connections: "1e3" is not a whole number, expected 1 to 4194304`}},
		{"echo --connections=", []string{`flag --connections: "" is not a whole number, expected 1 to 4194304`}},
		{"echo --connections 20000", []string{"flag --connections: 20000 need 20048 open files, the limit here (RLIMIT_NOFILE) is 20000, enough for 19952 connections"}},
		{"echo --rate -1", []string{`flag --rate: "-1" is out of range, expected 0 to 10000000`}},
		{"echo --duration 99ms", []string{`flag --duration: "99ms" is out of range, expected 100ms to 24h`}},
		{"echo --duration 24h1ns", []string{`flag --duration: "24h1ns" is out of range, expected 100ms to 24h`}},
		{"echo --duration 10", []string{`flag --duration: "10" is not a duration like 300ms, 10s or 1m30s, expected 100ms to 24h`}},
		{"echo --payload 23", []string{`flag --payload: "23" is out of range, expected 24 to 16MiB`}},
		{"echo --payload 17MiB", []string{`flag --payload: "17MiB" is out of range, expected 24 to 16MiB`}},
		{"echo --payload 0", []string{`flag --payload: "0" is out of range, expected 24 to 16MiB`}},
		{"echo --payload 1kB", []string{`flag --payload: "1kB" is not a number of bytes like 1500 or 64KiB, expected 24 to 16MiB`}},
		{"connect --burst-bytes 23", []string{`flag --burst-bytes: "23" is out of range, expected 0, or 24 to 16MiB`}},
		{"connect --burst-bytes 64KiB --burst-after 10s", []string{"flag --burst-after: 10s is not before the end of --duration (10s)"}},
		{"connect --burst-after 5s", []string{"flag --burst-after: without --burst-bytes it does nothing"}},
		{"connect --burst-bytes 64KiB --burst-reply maybe", []string{`flag --burst-reply: "maybe" is unknown, expected echo or none`}},
		{"connect --depth 4 --warmup 1s", []string{"flag --depth: scenario connect does not use it, echo does", "flag --warmup: scenario connect does not use it, echo does"}},
		{"echo --burst-bytes 64KiB", []string{"flag --burst-bytes: scenario echo does not use it, connect does"}},
		{"echo --url http://127.0.0.1/", []string{`flag --url: "http://127.0.0.1/" does not begin with ws://`}},
		{"echo --sources 127.0.0.0/33", []string{`flag --sources: "127.0.0.0/33" has "127.0.0.0/33", which is neither an address nor a prefix like 127.0.1.0/24`}},
		{"echo --sources 127.0.0.1 --sources 127.0.0.1", []string{`flag --sources: "127.0.0.1" has 127.0.0.1 a second time`}},
		{"echo --sources 127.0.0.1 --sources ::1", []string{`flag --sources: "::1" mixes IPv4 and IPv6`}},
		{"echo --expect p98<1ms", []string{`flag --expect: "p98<1ms" begins with "p98", which is none of the metrics ` + strings.Join(bench.MetricNames(), ", ")}},
		{"echo --json=", []string{`flag --json: "" is empty, expected the name of a file or -`}},
		{"echo --loops 256", []string{`flag --loops: "256" is out of range, expected 1 to 255`}},
		{"echo --loops 5 --connections 4", []string{"flag --loops: 5 are more than the 4 connections"}},
		{"echo --server-pid 0", []string{`flag --server-pid: "0" is out of range, expected 1 to 2147483647`}},
		{"echo --kind json", []string{`flag --kind: "json" is unknown, expected binary or text`}},
	} {
		_, err := parse(strings.Fields(test.args), system)
		wrong, ok := errors.AsType[*usageError](err)
		if !ok {
			t.Errorf("%s: %v, want a *usageError", test.args, err)
			continue
		}
		if !slices.Equal(wrong.faults, test.want) {
			t.Errorf("%s\n got %q\nwant %q", test.args, wrong.faults, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	c, err := parse(strings.Fields("echo --connections=16384 --payload 64KiB --depth 4 --duration=24h --rate 10000000 --loops 255 --kind text "+
		"--url ws://127.0.0.1:99/echo --sources 127.0.0.1 --sources 127.0.0.2,127.0.0.3 --expect lost=0 --expect p99<1s --json -"), system)
	if err != nil {
		t.Fatal(err)
	}
	o := c.options
	if o.Scenario != "echo" || o.Connections != 16384 || o.Payload != 64<<10 || o.Depth != 4 || o.Duration != 24*time.Hour || o.Rate != 10_000_000 ||
		o.Loops != 255 || !o.Text || o.Target.Port != 99 || len(o.Sources) != 3 || len(o.Expect) != 2 || c.json != "-" || o.Warmup != time.Second {
		t.Errorf("got %+v", *c)
	}
	c, err = parse([]string{"connect"}, system)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.options; o.Connections != 1000 || o.Loops != 4 || o.Duration != 10*time.Second || o.Target.URL != "ws://127.0.0.1:8080/ws" ||
		o.BurstBytes != 0 || !o.BurstEcho || o.Payload != 0 {
		t.Errorf("the defaults are %+v", o)
	}
	// Loops are not more than connections, unless asked for.
	if c, err = parse(strings.Fields("connect --connections 3"), system); err != nil || c.options.Loops != 3 {
		t.Errorf("%v, %+v", err, c)
	}
	// The most that the open files allow.
	if _, err = parse(strings.Fields("connect --connections 19952"), system); err != nil {
		t.Error(err)
	}
}
