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
	const loads = "connect, echo, request, broadcast, heartbeat, ramp or churn"
	const senders = "echo, request, broadcast and ramp do"
	for _, test := range []struct {
		args string
		want []string
	}{
		{"", []string{"no scenario, expected " + loads}},
		{"chrun", []string{`scenario "chrun": there is none of that name, expected ` + loads}},
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
		{"echo --connections 20000", []string{"flag --connections: 20000 need 20048 open files, the limit here (RLIMIT_NOFILE) is 20000, enough for 19952 connections; --fd-tables=per-loop gives every loop so many"}},
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
		{"connect --depth 4 --warmup 1s", []string{"flag --depth: scenario connect does not use it, " + senders, "flag --warmup: scenario connect does not use it, " + senders}},
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
		{"churn --total -1", []string{`flag --total: "-1" is out of range, expected 0 to 1099511627776`}},
		{"churn --settle 11m", []string{`flag --settle: "11m" is out of range, expected 0s to 10m`}},
		{"churn --max-growth 1TB", []string{`flag --max-growth: "1TB" is not a number of bytes like 1500 or 64KiB, expected 0 to 1024GiB`}},
		{"churn --depth 4", []string{"flag --depth: scenario churn does not use it, " + senders}},
		{"churn --admin 127.0.0.1:9090", []string{`flag --admin: "127.0.0.1:9090" is not like http://127.0.0.1:9090`}},
		{"churn --admin http://127.0.0.1:9090/metrics", []string{`flag --admin: "http://127.0.0.1:9090/metrics" is not like http://127.0.0.1:9090`}},
		{"connect --admin http://127.0.0.1:9090 --total 5", []string{"flag --admin: scenario connect does not use it, churn and echo do",
			"flag --total: scenario connect does not use it, churn does"}},
		{"echo --stalled 10001", []string{`flag --stalled: "10001" is out of range, expected 0 to 10000`}},
		{"echo --connections 19952 --stalled 1", []string{"flags --connections and --stalled: 19953 need 20001 open files, the limit here (RLIMIT_NOFILE) is 20000, enough for 19952 connections; --fd-tables=per-loop gives every loop so many"}},
		{"echo --stalled-pairs 2", []string{"flag --stalled-pairs: without --stalled it does nothing"}},
		{"echo --payload 64:50%", []string{`flag --payload: "64:50%" has shares that add up to 50%, expected 100%`}},
		{"echo --payload 1:50%,64:50%", []string{`flag --payload: "1:50%,64:50%" has the size "1", which is out of range, expected 24 to 16MiB`}},
		{"echo --header X", []string{`flag --header: "X" has no colon, expected NAME: VALUE`}},
		{"echo --header Host:x", []string{"flags --header and --subprotocol: header Host: the handshake sets this one itself"}},
		{"echo --rooms 3", []string{"flag --rooms: scenario echo does not use it, broadcast does"}},
		{"broadcast --connections 5", []string{"flag --connections: scenario broadcast does not use it: it opens --rooms times --members"}},
		{"broadcast --rooms 100000 --members 1000", []string{"flags --rooms and --members: 100000 times 1000 are more than 4194304 connections"}},
		{"request --request-type chat.Other", []string{"flag --request-type: chat.Other needs --request-payload"}},
		{"request --request-type Other", []string{`flag --request-type: "Other" is not like package.Message`}},
		{"request --request-payload /dev/null --payload 99", []string{"flag --payload: --request-payload says what is sent"}},
		{"request --request-payload /no/such/file", []string{`flag --request-payload: "/no/such/file" cannot be read: open /no/such/file: no such file or directory`}},
		{"ramp --token x", []string{"flag --token: without --of request it does nothing"}},
		{"ramp --of connect", []string{`flag --of: "connect" is unknown, expected echo or request`}},
		{"heartbeat --duration 10s", []string{"flag --duration: 10s is not enough to judge the interval of --server-pings (20s), 1.1 times that is"}},
		{"heartbeat --duration 30s --client-pings 1us", []string{`flag --client-pings: "1us" is out of range, expected 1ms to 1h`}},
		{"echo --html=", []string{`flag --html: "" is empty, expected the name of a file`}},
		{"echo --url ws://127.0.0.1:1/echo --url ws://127.0.0.1:2/ws", []string{"flag --url: ws://127.0.0.1:2/ws has the path /ws, the first one /echo: all must speak the same"}},
		{"echo --url ws://127.0.0.1:1/ --url http://127.0.0.1/", []string{`flag --url: "http://127.0.0.1/" does not begin with ws://`}},
		{"echo --url ws://127.0.0.1:1/ --url ws://127.0.0.1:1/ --stalled 2", []string{"flag --url: ws://127.0.0.1:1/ is given twice", "flag --stalled: it is about one server, 2 --url are given"}},
		{"compare echo --url ws://127.0.0.1:1/ --url ws://127.0.0.1:2/ --server a=ws://127.0.0.1:1/ --server b=ws://127.0.0.1:2/", []string{"flag --url: compare echo does not use it"}},
		{"churn --url ws://127.0.0.1:1/ --url ws://127.0.0.1:2/", []string{"flag --admin: 0 given for 2 --url, expected one for each"}},
		{"churn --url ws://127.0.0.1:1/ --url ws://127.0.0.1:2/ --admin http://x:1 --admin=", []string{"flag --admin: 1 given for 2 --url, expected one for each"}},
		{"churn --url ws://127.0.0.1:1/ --url ws://127.0.0.1:2/ --admin http://x:1 --admin http://x:1", []string{`flag --admin: "http://x:1" is given twice`}},
		{"churn --admin http://x:1 --admin http://x:2", []string{"flag --admin: 2 given for 1 --url"}},
		{"echo --server-pid 1 --server-pid 2", []string{"flag --server-pid: 2 given for 1 --url, expected one for each, in their order, or none"}},
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
	c, err = parse(strings.Fields("broadcast --rooms 3 --members 5 --payload 64:50%,1KiB:50% --header A:b --header C:d --subprotocol mq --token t --html x"), system)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.options; o.Connections != 15 || o.Payload != 1024 || o.Sizes.String() != "64:50%,1KiB:50%" || len(o.Header) != 2 || o.Header[1].Value != "d" ||
		o.Subprotocol != "mq" || o.Token != "t" || !o.Charts || c.html != "x" {
		t.Errorf("a broadcast: %+v", o)
	}
	c, err = parse(strings.Fields("request --request-type a.B --request-payload /dev/null"), system)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.options; o.RequestPayload == nil || len(o.RequestPayload) != 0 || o.AnswerStatus != "" || o.AnswerTimeout != 18*time.Second || o.Rooms != 0 {
		t.Errorf("a request of a kind of one's own: %+v", o)
	}
	c, err = parse(strings.Fields("churn --url ws://127.0.0.1:1/ws --url ws://[::1]:2/ws --server-pid 7 --server-pid 8 --admin http://x:1 --admin http://x:2"), system)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.options; o.Target.Port != 1 || len(o.Others) != 1 || o.Others[0].URL != "ws://[::1]:2/ws" || !slices.Equal(o.ServerPIDs, []int{7, 8}) || len(c.admins) != 2 || o.Metrics == nil {
		t.Errorf("two servers: %+v", o)
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
