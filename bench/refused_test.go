package bench

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
)

// Limits of the server refuse many of a churn's upgrades (L2.6). That is a failure, unless the churn is told of them: then
// the accounts balance with the refusals in them.
func TestChurnRefused(t *testing.T) {
	for _, test := range []struct {
		name     string
		perIP    clientaddr.LimiterConfig
		limits   *conn.Limits
		refusals Refusals
		failures bool
		violated string // "": nothing
	}{
		{"rate, told", clientaddr.LimiterConfig{HandshakesPerSecond: 2}, nil, RefusalsAddress, false, ""},
		{"rate, told of any", clientaddr.LimiterConfig{HandshakesPerSecond: 2}, nil, RefusalsAny, false, ""},
		{"rate, not told", clientaddr.LimiterConfig{HandshakesPerSecond: 2}, nil, RefusalsNone, true, "handshakes_refused_total did not grow else"},
		{"connections per address, told", clientaddr.LimiterConfig{ConnectionsPerAddress: 1}, nil, RefusalsAddress, false, ""},
		{"connections, told", clientaddr.LimiterConfig{}, &conn.Limits{Soft: 8, Hard: 8}, RefusalsAny, false, ""},
		{"connections, told of another", clientaddr.LimiterConfig{}, &conn.Limits{Soft: 8, Hard: 8}, RefusalsAddress, false, "refused by limits"},
		{"no limit, told", clientaddr.LimiterConfig{}, nil, RefusalsAny, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.perIP.MaxAddresses = 1000
			l, err := clientaddr.NewLimiter(test.perIP)
			if err != nil {
				t.Fatal(err)
			}
			s := &echoServer{short: true, perIP: l, limits: test.limits}
			s.serve(t)
			o := s.churnOptions(t, nil)
			o.Total, o.Seed, o.Refusals = 600, churnSeed(600, 600), test.refusals
			if test.perIP.ConnectionsPerAddress > 0 {
				if o.Sources, err = ParseSources("127.0.0.1,127.0.0.2,127.0.0.3"); err != nil {
					t.Fatal(err)
				}
			}
			p := mustRun(t, t.Context(), o)
			limited := test.limits != nil || test.perIP.ConnectionsPerAddress+test.perIP.HandshakesPerSecond > 0
			got := samplesOf(s.server, nil)
			counted := uint64(got["mqgate_handshakes_refused_total{status=503}"])
			if counted > 0 != limited || counted >= 600 {
				t.Fatalf("the server has refused %d", counted)
			}
			if p.OK != (!test.failures && test.violated == "") || (p.Failed > 0) != test.failures || (test.failures || test.violated != "") == (len(violated(p)) == 0) ||
				!strings.Contains(strings.Join(violated(p), "\n"), test.violated) {
				t.Errorf("ok %v, %d failed: %v, violated %q, want %q", p.OK, p.Failed, p.Failures, violated(p), test.violated)
			}
			if test.violated != "" {
				return
			}
			if p.Churn.Refused != counted || p.Churn.Upgraded != uint64(got.value("mqgate_connections_total")) {
				t.Errorf("%d refused and %d upgraded, the server has counted %d and %v", p.Churn.Refused, p.Churn.Upgraded, counted, got.value("mqgate_connections_total"))
			}
			var text bytes.Buffer
			if err := p.WriteText(&text); err != nil || strings.Contains(text.String(), "refused by the server's limits") != limited {
				t.Errorf("%v: %s", err, text.String())
			}
		})
	}
}

// A server that is full all the time refuses every upgrade. It may, but a churn that nobody got into has shown nothing.
func TestChurnRefusedAll(t *testing.T) {
	s := &echoServer{short: true, limits: &conn.Limits{Soft: 1, Hard: 1}}
	s.serve(t)
	only, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	if err := only.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := only.Write(handshake.AppendRequest(nil, s.addr.String(), "/echo", [16]byte{}, "", "", nil)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(only).ReadString('\n'); err != nil || !strings.Contains(line, " 101 ") {
		t.Fatalf("%q, %v", line, err)
	}
	o := s.churnOptions(t, nil)
	o.Total, o.Seed, o.Refusals = 200, churnSeed(200, 200), RefusalsAny
	p := mustRun(t, t.Context(), o)
	if got := violated(p); p.OK || len(got) != 1 || got[0] != "connections upgraded: 0, expected at least 1" || p.Failed > 0 || p.Churn.Refused == 0 || p.Messages > 0 {
		t.Errorf("ok %v, violated %q, %d failed, %d refused, %d messages", p.OK, got, p.Failed, p.Churn.Refused, p.Messages)
	}
}

// Each of the checks can fail with refusals in the account.
func TestRefusedChecks(t *testing.T) {
	good := func(which Refusals) *churnResult {
		r := goodResult()
		r.refusals, r.n.refused, r.n.blind = which, 2, 2 // one of the blind was refused as well
		r.before.samples["mqgate_handshakes_refused_address_total{reason=connections-per-ip}"] = 5
		r.after.samples["mqgate_handshakes_refused_address_total{reason=connections-per-ip}"] = 8
		for name, by := range map[string]float64{"handshakes_refused_total{status=503}": 3, "connections_total": -1, "disconnects_total{reason=socket-error,code=1006}": -1} {
			r.after.samples["mqgate_"+name] += by
		}
		return r
	}
	for _, which := range []Refusals{RefusalsAddress, RefusalsAny} {
		for _, test := range []struct {
			name   string
			change func(r *churnResult)
			want   string // beginnings of the checks that do not hold, with |
		}{
			{"good", func(*churnResult) {}, ""},
			{"one was told that the server has not counted", func(r *churnResult) { r.n.refused += 2 }, "connections_total grew by|disconnects_total grew by the|disconnects_total grew by cause|refused by limits"},
			{"nobody was blind", func(r *churnResult) { r.n.blind = 0 }, "disconnects_total grew by cause|refused by limits"},
			{"an upgrade is missing", func(r *churnResult) { r.after.samples["mqgate_connections_total"]-- }, "connections_total grew by"},
			{"refused for something else", func(r *churnResult) { r.after.samples["mqgate_handshakes_refused_total{status=403}"] = 1 }, "handshakes_refused_total did not"},
		} {
			r := good(which)
			test.change(r)
			for _, c := range r.checks() {
				wrong := false
				for begin := range strings.SplitSeq(test.want, "|") {
					wrong = wrong || begin != "" && strings.HasPrefix(c.Check, begin)
				}
				if c.Holds == wrong {
					t.Errorf("%d, %s: %+v", which, test.name, c)
				}
			}
		}
	}
	r := good(RefusalsAddress)
	r.after.samples["mqgate_handshakes_refused_total{status=503}"]++ // by no limit of an address
	for _, c := range r.checks() {
		if c.Holds == (c.Check == "handshakes_refused_total did not grow else") {
			t.Errorf("a refusal that no address explains: %+v", c)
		}
	}
}

// With an odd number of stalled connections every slice begins with one above --max-pending-bytes: the reports and the
// server tell the same kinds apart.
func TestStalledOdd(t *testing.T) {
	t.Parallel()
	s := &echoServer{short: true, pending: 3 << 19, write: time.Minute}
	s.serve(t)
	o := s.options(t, scenarioEcho)
	o.Stalled, o.StalledPairs, o.Duration, o.Rate = 1, 2, 500*time.Millisecond, 400
	asked := 0
	o.Metrics = func(context.Context) (Samples, error) { asked++; return samplesOf(s.server, nil), nil }
	p := mustRun(t, t.Context(), o)
	r := p.Stalled
	if !p.OK || r.ByBytes.Opened != 2 || r.ByBytes.Closed != 2 || r.ByTime.Opened != 0 || r.ByTime.Closed != 0 || len(r.ByTime.DecidedSeconds) > 0 || asked == 0 {
		t.Errorf("ok %v, by bytes %+v, by time %+v", p.OK, r.ByBytes, r.ByTime)
	}
	if got := samplesOf(s.server, nil); got["mqgate_slow_consumers_total{cause=bytes}"] != 2 || got["mqgate_slow_consumers_total{cause=time}"] != 0 {
		t.Errorf("the server counts %v by bytes, %v by time", got["mqgate_slow_consumers_total{cause=bytes}"], got["mqgate_slow_consumers_total{cause=time}"])
	}
	var text bytes.Buffer
	if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), "2 of 2 above --max-pending-bytes closed") || strings.Contains(text.String(), "below it") {
		t.Errorf("%v: %s", err, text.String())
	}
}
