package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for _, test := range []struct {
		text string
		want int64
		show string
	}{
		{"0", 0, "0"}, {"1", 1, "1"}, {"1500", 1500, "1500"}, {"65536", 65536, "64KiB"}, {"64KiB", 65536, "64KiB"},
		{"1024KiB", 1 << 20, "1MiB"}, {"1MiB", 1 << 20, "1MiB"}, {"1GiB", 1 << 30, "1GiB"}, {"1536MiB", 3 << 29, "1536MiB"},
		{"-1KiB", -1024, "-1KiB"},
		{"99999999999GiB", math.MaxInt64, ""}, {"-99999999999GiB", math.MinInt64, ""},
		{"99999999999999999999", math.MaxInt64, ""},
		{"8589934591GiB", 8589934591 << 30, "8589934591GiB"}, // the largest that fits
		{"8589934592GiB", math.MaxInt64, ""},
	} {
		got, err := parseSize(test.text)
		if err != nil || got != test.want {
			t.Errorf("%s: %d, %v, want %d", test.text, got, err, test.want)
		}
		if show := Size(got).String(); test.show != "" && show != test.show {
			t.Errorf("%s is shown as %s, want %s", test.text, show, test.show)
		}
	}
	for _, text := range []string{"", "KiB", "1kB", "1KB", "1MB", "1M", "1k", "1kib", "1 MiB", "1.5MiB", "0x10", "1_000", "1e6", "--1",
		"+-1", "1B", "1TiB", "MiB1"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q is %d bytes", text, n)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "20s": 20 * time.Second, "1m30s": 90 * time.Second, "1.5s": 1500 * time.Millisecond, "-5s": -5 * time.Second,
		"9999999h": math.MaxInt64, // too long for a Duration, and so for every range
	} {
		if got, err := parseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%s: %v, %v, want %v", text, time.Duration(got), err, want)
		}
	}
	for text, problem := range map[string]string{
		"": "is not a duration", "20": "has no unit (ms, s, m, h)", "-20": "has no unit (ms, s, m, h)", "s": "is not a duration",
		"20 s": "is not a duration", "1d": "is not a duration", "20S": "is not a duration", "inf": "is not a duration",
	} {
		if d, err := parseDuration(text); err == nil || !strings.HasSuffix(err.Error(), problem) {
			t.Errorf("%q: %v, %v, want %q", text, d, err, problem)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s",
		10 * time.Minute: "10m", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s",
		20 * time.Second: "20s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v is shown as %s, want %s", d, got, want)
		}
	}
}

func TestPercent(t *testing.T) {
	for _, test := range []struct {
		p       Percent
		n, want int
	}{{0, 1000, 0}, {10, 1000, 100}, {10, 1, 1}, {10, 11, 2}, {100, 8_000_000, 8_000_000}, {1, 100, 1}, {1, 101, 2}} {
		if got := test.p.of(test.n); got != test.want {
			t.Errorf("%v of %d: %d, want %d", test.p, test.n, got, test.want)
		}
	}
	for text, problem := range map[string]string{
		"10": "has no percent sign", "%": "is not a whole number of percent", "1.5%": "is not a whole number of percent",
		"10 %": "is not a whole number of percent", "": "is not a whole number of percent",
	} {
		if n, err := parsePercent(text); err == nil || !strings.HasSuffix(err.Error(), problem) {
			t.Errorf("%q: %d, %v, want %q", text, n, err, problem)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for _, test := range []struct {
		text, want string
		loopback   bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true}, {"127.9.9.9:0", "127.9.9.9:0", true}, {"[::1]:65535", "[::1]:65535", true},
		{":8080", ":8080", false}, {"0.0.0.0:1", "0.0.0.0:1", false}, {"[::]:1", "[::]:1", false}, {"10.0.0.1:080", "10.0.0.1:80", false},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1:1", true}, {"[fe80::1%eth0]:1", "[fe80::1%eth0]:1", false},
	} {
		a, err := parseAddress(test.text)
		if err != nil || a.String() != test.want || a.IsLoopback() != test.loopback {
			t.Errorf("%s: %v, loopback %v, %v", test.text, a, a.IsLoopback(), err)
		}
	}
	for text, problem := range map[string]string{
		"": "is not host:port", "8080": "is not host:port", "127.0.0.1": "is not host:port", "::1:80": "is not host:port",
		"127.0.0.1:": "has no number for a port", ":http": "has no number for a port", ":-1": "has no number for a port",
		":+1": "has no number for a port", ":65536": "has a port above 65535", ":99999999999999999999": "has a port above 65535",
		"localhost:80":   "has a host that is not an IP address (write 127.0.0.1 or [::1])",
		"example.org:80": "has a host that is not an IP address", "127.1:80": "has a host that is not an IP address",
	} {
		if a, err := parseAddress(text); err == nil || !strings.HasSuffix(err.Error(), problem) {
			t.Errorf("%q: %v, %v, want %q", text, a, err, problem)
		}
	}
}

func TestAddressesOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true}, {"127.0.0.1:1", "127.0.0.1:2", false}, {"127.0.0.1:1", "127.0.0.2:1", false},
		{"127.0.0.1:0", "127.0.0.1:0", false}, {":0", ":0", false}, {":1", "127.0.0.1:1", true}, {":1", "[::1]:1", true},
		{"0.0.0.0:1", "127.0.0.1:1", true}, {"0.0.0.0:1", "[::1]:1", false}, {"[::]:1", "127.0.0.1:1", true},
		{"[::]:1", "0.0.0.0:1", true}, {"[::1]:1", "127.0.0.1:1", false},
	} {
		a, errA := parseAddress(test.a)
		b, errB := parseAddress(test.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.overlaps(b) != test.want || b.overlaps(a) != test.want {
			t.Errorf("%v and %v: %v, %v, want %v", a, b, a.overlaps(b), b.overlaps(a), test.want)
		}
	}
}

func TestParsePath(t *testing.T) {
	for _, text := range []string{"/", "/ws", "/a/b/", "/a-b._~!$&'()*+,;=:@9/Z", "/...", "/" + strings.Repeat("x", 254),
		"/" + strings.Repeat("x", 255)} {
		if got, err := parsePath(text); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, problem := range map[string]string{
		"": `does not start with "/"`, "ws": `does not start with "/"`, "/ws?x": "contains a query", "/ws#x": "contains a fragment",
		"/w%73": "contains '%'", "/w s": "contains ' '", "/wß": "contains 'Ã'", "/a//b": "contains the segment", "//": "contains the segment",
		"/a/../b": "contains the segment", "/.": "contains the segment", "/a/..": "contains the segment",
		"/" + strings.Repeat("x", 256): "is longer than 256 bytes",
	} {
		if got, err := parsePath(text); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, problem)
		}
	}
}

func TestParseHeaderName(t *testing.T) {
	for _, text := range []string{"User-Agent", "x", "!#$%&'*+-.^_`|~09AZaz", strings.Repeat("x", 63), strings.Repeat("x", 64)} {
		if got, err := parseHeaderName(text); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "X Y", "X:", "é", "(x)", "x\n", strings.Repeat("x", 65)} {
		if got, err := parseHeaderName(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// A secret is not shown, however it is printed.
func TestSecretIsNotShown(t *testing.T) {
	secret := Secret("0123456789abcdef")
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "serve", Serve{AuthSecret: secret})
	asJSON, err := json.Marshal(Serve{AuthSecret: secret, AdminToken: secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		log.WriteString(fmt.Sprintf(verb, secret) + fmt.Sprintf(verb, &Serve{AuthSecret: secret}))
	}
	all := log.String() + string(asJSON)
	for _, leak := range []string{"0123456789", "30313233", "48 49 50", "MDEyMzQ1Njc4OWFiY2RlZg"} {
		if strings.Contains(all, leak) {
			t.Errorf("%q in %s", leak, all)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"listen", "loops", "path", "ping-interval", "auth"}
	for got, want := range map[string]string{
		"lissten": "listen", "loop": "loops", "pingg-intervall": "ping-interval", "x": "", "": "", "bad": "", "author": "",
		"PATH": "",
	} {
		if near := nearest(got, names); near != want {
			t.Errorf("%s: %q, want %q", got, near, want)
		}
	}
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "xbc", 1}, {"kitten", "sitting", 3}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("%s to %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
