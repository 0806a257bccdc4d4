package bench

import (
	"strings"
	"testing"
)

func TestExpectation(t *testing.T) {
	r := &Report{Opened: 1000, Messages: 5, RatePerSecond: 1234.5,
		Latency: Latency{P99: number(50.0)}, Server: ServerReport{RSSBytesPerConnection: number(1024.0)}}
	for _, test := range []struct {
		text  string
		holds bool
		got   string
	}{
		{"p99<50.001ms", true, "50ms"},
		{"p99<50ms", false, "50ms"},
		{"p99<=50ms", true, "50ms"},
		{"p99=0.05s", true, "50ms"},
		{"p99>=50ms", true, "50ms"},
		{"p99>50ms", false, "50ms"},
		{"p99>49999us", true, "50ms"},
		{" p99 < 1m ", true, "50ms"},
		{"opened=1000", true, "1000"},
		{"rate>1234.4", true, "1234.5"},
		{"rate>1234.5", false, "1234.5"},
		{"lost=0", true, "0"},
		{"rss_bytes_per_connection<=1KiB", true, "1024"},
		{"rss_bytes_per_connection<1024", false, "1024"},
		{"rss_bytes_per_connection<0.001MiB", true, "1024"},
		{"p50<1h", false, "not measured"},
		{"rss_bytes>0", false, "not measured"},
		{"server_cpu_us_per_message<100", false, "not measured"},
	} {
		e, err := ParseExpectation(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		want := Outcome{strings.ReplaceAll(test.text, " ", ""), test.got, test.holds}
		if got := e.check(r); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestExpectationFaults(t *testing.T) {
	for _, test := range []struct{ text, fault string }{
		{"", "has no comparison"},
		{"p99", "has no comparison"},
		{"p98<50ms", `begins with "p98", which is none of the metrics p50, p90,`},
		{"<50ms", `begins with "", which is none`},
		{"p99<50", `compares p99 with "50", expected a duration like 50ms`},
		{"p99<", `compares p99 with "", expected a duration`},
		{"p99<-1ms", `compares p99 with "-1ms"`},
		{"p99==1ms", `compares p99 with "=1ms"`},
		{"p99<>1ms", `compares p99 with ">1ms"`},
		{"rate>1e3", `compares rate with "1e3", expected a number`},
		{"rate>Inf", `compares rate with "Inf"`},
		{"rate>-1", `compares rate with "-1"`},
		{"rate>", `compares rate with ""`},
		{"rate>1.2.3", `compares rate with "1.2.3"`},
		{"rss_bytes<1MB", `compares rss_bytes with "1MB", expected a size like 1024 or 64KiB`},
		{"rss_bytes<KiB", `compares rss_bytes with "KiB"`},
	} {
		if _, err := ParseExpectation(test.text); err == nil || !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %s", test.text, err, test.fault)
		}
	}
}
