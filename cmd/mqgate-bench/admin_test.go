package main

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/bench"
)

const page = `# TYPE mqgate_connections_open gauge
mqgate_connections_open 3
# TYPE mqgate_disconnects_total counter
mqgate_disconnects_total{code="1000",reason="client"} 12
mqgate_disconnects_total{code="1006",reason="socket-error"} 4e+06
# TYPE mqgate_rtt_seconds histogram
mqgate_rtt_seconds_bucket{le="+Inf"} 1
mqgate_rtt_seconds_sum 1
mqgate_rtt_seconds_count 1
`

// admin serves text with a status at /metrics.
func admin(t *testing.T, status int, text string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Counters and gauges are read with their labels, histograms are left out, and what is no such page is an error.
func TestScrape(t *testing.T) {
	for _, path := range []string{"", "/"} {
		read, err := parseAdmin(admin(t, http.StatusOK, page) + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t.Context())
		want := bench.Samples{"mqgate_connections_open": 3, "mqgate_disconnects_total{code=1000,reason=client}": 12,
			"mqgate_disconnects_total{code=1006,reason=socket-error}": 4e6}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
	}
	for _, test := range []struct{ url, want string }{
		{admin(t, http.StatusUnauthorized, ""), "401"},
		{admin(t, http.StatusOK, "<html>"), "text format"},
		{"http://127.0.0.1:1", "refused"},
	} {
		read, err := parseAdmin(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.url, err, test.want)
		}
	}
	if read, err := parseAdmin(""); read != nil || err != nil {
		t.Error("an empty --admin is none")
	}
}

// A churn whose checks do not hold, here because the metrics do not move, has exit status 1; one without metrics does not begin.
func TestChurnStatus(t *testing.T) {
	url := serve(t, &echo{})
	for _, test := range []struct{ admin, stdout, stderr string }{
		{admin(t, http.StatusOK, page), "VIOLATED: connections_total grew by the upgrades: not exported", ""},
		{admin(t, http.StatusUnauthorized, ""), "", "401"},
	} {
		var stdout, stderr bytes.Buffer
		args := strings.Fields("churn --connections 4 --total 12 --seed 2 --settle 0s --url " + url + " --admin " + test.admin)
		status := run(t.Context(), args, &stdout, &stderr, nil)
		if status != exitFailed || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("status %d, %q, %q", status, stdout.String(), stderr.String())
		}
	}
}
