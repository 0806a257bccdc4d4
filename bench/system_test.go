package bench

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sampleStatus = `Name:	mqgate
Umask:	0022
VmPeak:	 1300000 kB
VmRSS:	   17880 kB
RssAnon:	    5512 kB
RssFile:	   12368 kB
`

func TestParseStatus(t *testing.T) {
	got, err := parseStatus(sampleStatus)
	if want := (memory{RSS: 17880 << 10, Anon: 5512 << 10}); got != want || err != nil {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "VmRSS:	 1 kB\n", "VmRSS:	 1 kB\nRssAnon:	 2 MB\n", "VmRSS:	 x kB\nRssAnon:	 2 kB\n"} {
		if _, err := parseStatus(text); err == nil {
			t.Errorf("%q was read without an error", text)
		}
	}
}

func TestParseStat(t *testing.T) {
	// The name of a process may look like fields.
	const sample = "23600 (a) S (b 1) S 1 23600 23600 0 -1 4194560 2521 0 3 0 254 123 7 8 20 0 9 0 91234 1331437568 4470 18446744073709551615\n"
	got, err := parseStat(sample)
	if want := 3770 * time.Millisecond; got != want || err != nil {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, text := range []string{"", "1 name S", "1 (name) S 1 1", strings.Replace(sample, " 254 ", " x ", 1), strings.Replace(sample, " 123 ", " -1 ", 1)} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q was read without an error", text)
		}
	}
}

const sampleTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0000000000000000 100 0 0 10 0
   1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1002 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D5BE 01 00000000:00000000 00:00000000 00000000     0        0 1003 1 0000000000000000 20 4 30 10 -1
   3: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1004 1 0000000000000000 100 0 0 10 0
   4: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1005 1 0000000000000000 100 0 0 10 0
   5: bad
`

const sampleTCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2001 1 0 100 0 0 10 0
   1: 00000000000000000000000000000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2002 1 0 100 0 0 10 0
`

func TestListenInodes(t *testing.T) {
	for _, test := range []struct {
		text, addr string
		want       []string
	}{
		{sampleTCP, "127.0.0.1:8080", []string{"1001", "1005"}}, // two listeners that share the port
		{sampleTCP, "127.0.0.2:8080", []string{"1004"}},
		{sampleTCP, "127.0.0.3:8080", nil},
		{sampleTCP, "127.0.0.3:8081", []string{"1002"}}, // listens on every address
		{sampleTCP, "[::1]:8081", nil},                  // but not on IPv6 ones
		{sampleTCP, "127.0.0.1:8082", nil},
		{sampleTCP6, "[::1]:8080", []string{"2001"}},
		{sampleTCP6, "127.0.0.1:8080", nil},
		{sampleTCP6, "127.0.0.1:8082", []string{"2002"}}, // [::] takes IPv4 as well
		{sampleTCP6, "[::1]:8082", []string{"2002"}},
	} {
		want := map[string]bool{}
		for _, inode := range test.want {
			want[inode] = true
		}
		if diff := cmp.Diff(want, listenInodes(test.text, netip.MustParseAddrPort(test.addr))); diff != "" {
			t.Errorf("%s: %s", test.addr, diff)
		}
	}
}

func TestFindProcess(t *testing.T) {
	for _, on := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		ln, err := net.Listen("tcp", on)
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().(*net.TCPAddr).AddrPort()
		if addr.Addr().IsUnspecified() {
			addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
		}
		p, err := findProcess(addr)
		if p.pid != os.Getpid() || err != nil {
			t.Errorf("%s: found %d, %v; this is %d", on, p.pid, err, os.Getpid())
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		if p, err := findProcess(addr); err == nil {
			t.Errorf("%s: found %d after the listener was closed", on, p.pid)
		}
	}
}

func TestParseSockstat(t *testing.T) {
	const sample = "sockets: used 16\nTCP: inuse 20165 orphan 0 tw 98 alloc 20166 mem 58\nUDP: inuse 0 mem 0\n"
	got, err := parseSockstat(sample, 4096)
	if want := (KernelTCP{Sockets: 20165, MemoryBytes: 58 * 4096}); got != want || err != nil {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "UDP: inuse 0 mem 0\n", "TCP: inuse x\n"} {
		if _, err := parseSockstat(text, 4096); err == nil {
			t.Errorf("%q was read without an error", text)
		}
	}
}

func TestParsePortRange(t *testing.T) {
	for text, want := range map[string]int{"32768\t60999\n": 28232, "1 1": 1, "": 0, "5": 0, "9 8": 0, "0 5": 0, "a b": 0} {
		if got := parsePortRange(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestParseCPUModel(t *testing.T) {
	const sample = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R) Processor\nmodel name\t: another\n"
	if got := parseCPUModel([]byte(sample)); got != "Intel(R) Xeon(R) Processor" {
		t.Errorf("got %q", got)
	}
	if got := parseCPUModel([]byte("Processor : ARM\n")); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestParseSources(t *testing.T) {
	for _, test := range []struct {
		text string
		want string // addresses with spaces, or what the error says after "error: "
	}{
		{"127.0.0.1", "127.0.0.1"},
		{"127.0.0.1, 127.0.0.9", "127.0.0.1 127.0.0.9"},
		{"127.0.1.0/30", "127.0.1.1 127.0.1.2"},
		{"127.0.1.2/31", "127.0.1.2 127.0.1.3"},
		{"127.0.1.2/32", "127.0.1.2"},
		{"127.0.2.1,127.0.1.0/31", "127.0.2.1 127.0.1.0 127.0.1.1"},
		{"::1", "::1"},
		{"fd00::/126", "fd00::1 fd00::2 fd00::3"},
		{"fd00::/127", "fd00:: fd00::1"},
		{"::ffff:127.0.0.1", "127.0.0.1"},
		{"", `error: has "", which is neither`},
		{"127.0.0.1,", `error: has "", which is neither`},
		{"localhost", `error: has "localhost", which is neither`},
		{"127.0.1.1/24", "error: has 127.0.1.1/24, whose address has bits beyond the prefix: 127.0.1.0/24?"},
		{"127.0.0.1,127.0.0.0/30", "error: has 127.0.0.1 twice"},
		{"127.0.0.1,::1", "error: mixes IPv4 and IPv6"},
		{"127.0.0.0/8", "error: has more than 4096 addresses"},
	} {
		list, err := ParseSources(test.text)
		var texts []string
		for _, a := range list {
			texts = append(texts, a.String())
		}
		got := strings.Join(texts, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if fault := strings.HasPrefix(test.want, "error"); got != test.want && !(fault && strings.HasPrefix(got, test.want)) {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
	for bits, want := range map[string]int{"127.0.0.0/24": 254, "127.0.0.0/20": 4094} {
		if list, err := ParseSources(bits); len(list) != want || err != nil {
			t.Errorf("%s: %d addresses, %v; want %d", bits, len(list), err, want)
		}
	}
}

func TestSourcesFor(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, test := range []struct {
		given       string
		addr        netip.Addr
		connections int
		ports       int
		want        int // addresses; -1: an error
		last        string
	}{
		{"", loopback, 1, 28232, 1, "127.0.0.1"},
		{"", loopback, perSource, 28232, 1, "127.0.0.1"},
		{"", loopback, perSource + 1, 28232, 2, "127.0.0.2"},
		{"", loopback, 1_000_000, 28232, 100, "127.0.0.100"},
		{"", netip.MustParseAddr("127.0.0.77"), 4 << 20, 28232, 420, "127.0.1.164"},
		{"", loopback, 10_000, 9_999, -1, ""}, // a narrow range of ports
		{"", netip.MustParseAddr("192.0.2.1"), 28232, 28232, 1, "invalid IP"},
		{"", netip.MustParseAddr("192.0.2.1"), 28233, 28232, -1, ""},
		{"", netip.MustParseAddr("::1"), 28232, 28232, 1, "invalid IP"},
		{"", netip.MustParseAddr("::1"), 28233, 28232, -1, ""},
		{"", netip.MustParseAddr("::1"), 1_000_000, 0, 1, "invalid IP"}, // unknown: nothing can be said
		{"127.0.0.5,127.0.0.6", loopback, 56464, 28232, 2, "127.0.0.6"},
		{"127.0.0.5,127.0.0.6", loopback, 56465, 28232, -1, ""},
		{"::1", loopback, 1, 28232, -1, ""},
	} {
		var given []netip.Addr
		if test.given != "" {
			var err error
			if given, err = ParseSources(test.given); err != nil {
				t.Fatal(err)
			}
		}
		list, err := sourcesFor(given, test.addr, test.connections, test.ports)
		switch {
		case test.want < 0:
			if err == nil {
				t.Errorf("%+v: got %d addresses, want an error", test, len(list))
			}
		case err != nil || len(list) != test.want || list[len(list)-1].String() != test.last:
			t.Errorf("%+v: got %v, %v", test, list, err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, test := range []struct {
		url  string
		want Target
	}{
		{"ws://127.0.0.1:8080/echo", Target{Host: "127.0.0.1:8080", Name: "127.0.0.1", Port: 8080, Path: "/echo"}},
		{"ws://gateway.example", Target{Host: "gateway.example", Name: "gateway.example", Port: 80, Path: "/"}},
		{"ws://[::1]:9/a?b=c", Target{Host: "[::1]:9", Name: "::1", Port: 9, Path: "/a?b=c"}},
	} {
		test.want.URL = test.url
		got, err := ParseTarget(test.url)
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", test.url, err, diff)
		}
	}
	for url, fault := range map[string]string{
		"":                     "does not begin with ws://",
		"127.0.0.1:8080":       "is not a URL",
		"http://127.0.0.1/":    "does not begin with ws://",
		"wss://127.0.0.1/":     "has the scheme wss",
		"ws:///echo":           "has no host",
		"ws://u@127.0.0.1/":    "has a user name",
		"ws://127.0.0.1/#a":    "has a fragment",
		"ws://127.0.0.1:0/":    "has the port 0",
		"ws://127.0.0.1:99999": "has the port 99999",
	} {
		if _, err := ParseTarget(url); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: %v, want %s", url, err, fault)
		}
	}
}

// What this system cannot do, or what contradicts itself: at the limit and above it.
func TestValidate(t *testing.T) {
	sys := System{OpenFiles: 1000, Ports: 28232}
	good := Options{Scenario: scenarioEcho, Target: Target{Name: "127.0.0.1"}, Connections: 960, Duration: time.Second, Payload: 128, Depth: 1, Loops: 2}
	for _, test := range []struct {
		name   string
		change func(o *Options)
		fault  string // "": none
	}{
		{"as many as files allow", func(*Options) {}, ""},
		{"one more", func(o *Options) { o.Connections++ },
			"flag --connections: 961 need 1001 open files, the limit here (RLIMIT_NOFILE) is 1000, enough for 960 connections"},
		{"a loop more", func(o *Options) { o.Loops++ }, "flag --connections: 960 need 1004 open files"},
		{"as many as tables allow", func(o *Options) { o.TablePerLoop, o.Connections, o.Loops = true, 979*5, 5 }, ""},
		{"one more than tables allow", func(o *Options) { o.TablePerLoop, o.Connections, o.Loops = true, 979*5+1, 5 },
			"flag --connections: 4896 on 5 loops are 980 on one, the limit of a loop's open files (RLIMIT_NOFILE) is 1000, enough for 979 connections: add --loops"},
		{"stalled beside tables", func(o *Options) { o.TablePerLoop, o.Connections, o.Loops, o.Stalled = true, 979*5, 5, 947 }, ""},
		{"one more beside tables", func(o *Options) { o.TablePerLoop, o.Connections, o.Loops, o.Stalled = true, 979*5, 5, 948 },
			"flag --stalled: 948 need 1001 open files"},
		{"tables for hundreds of loops", func(o *Options) { o.TablePerLoop, o.Connections, o.Loops = true, 2550, 255 }, ""},
		{"loops as connections", func(o *Options) { o.Connections, o.Loops = 3, 3 }, ""},
		{"more loops than connections", func(o *Options) { o.Connections, o.Loops = 2, 3 }, "flag --loops: 3 are more than the 2 connections"},
		{"as much in flight as may be", func(o *Options) { o.Connections, o.Depth, o.Payload = 256, 1, MaxPayload }, ""},
		{"more in flight", func(o *Options) { o.Connections, o.Depth, o.Payload = 257, 1, MaxPayload }, "bytes in flight, at most 4294967296"},
		{"a burst before the end", func(o *Options) { o.Scenario, o.BurstBytes, o.BurstAfter = scenarioConnect, 16, time.Second-1 }, ""},
		{"a burst at the end", func(o *Options) { o.Scenario, o.BurstBytes, o.BurstAfter = scenarioConnect, 16, time.Second },
			"flag --burst-after: 1s is not before the end of --duration (1s)"},
		{"ports", func(o *Options) { o.Sources = []netip.Addr{netip.MustParseAddr("::1")} }, "is of the other IP version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := good
			test.change(&o)
			err := o.Validate(sys)
			if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("got %v, want %q", err, test.fault)
			}
		})
	}
}
