package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// samplesOf are the metrics of a server in this process, by the names that mqgate gives them.
func samplesOf(server *conn.Server, stats func(*loop.Loop) mq.Stats) Samples {
	s := Samples{"go_goroutines": 10, "go_memstats_heap_inuse_bytes": 1 << 20, "mqgate_server_requests_in_flight": 0, "mqgate_worker_panics_total": 0}
	server.Each(func(r *conn.Registry) {
		var m mq.Stats
		if stats != nil {
			m = stats(r.Loop())
		}
		n := r.Snapshot()
		for name, v := range map[string]int64{"connections_open": n.Conn.Open, "connections_total": int64(n.Conn.Total),
			"connections_handshaking": n.Conn.Handshake, "connections_lingering": n.Conn.Lingering, "pending_bytes": n.Pending,
			"accounting_drift": n.Drift, "accepts_total": int64(n.Loop.Accepts), "handshakes_timed_out_total": int64(n.Conn.HandshakeTO),
			"slow_consumers_total{cause=bytes}": int64(n.Conn.SlowBytes), "slow_consumers_total{cause=time}": int64(n.Conn.SlowTime),
			"requests_in_flight": m.InFlight, "requests_accepted_total": int64(m.Accepted), "clients_with_state": m.Clients,
			"disconnects_unpublished": m.Unpublished, "subscriptions{kind=room}": m.Subscriptions[0]} {
			s["mqgate_"+name] += float64(v)
		}
		for i, v := range n.Conn.Refused {
			s["mqgate_handshakes_refused_total{status="+strconv.Itoa(conn.RefusalStatus(i))+"}"] += float64(v)
		}
		for v := clientaddr.TooManyConnections; v <= clientaddr.TooManyAddresses; v++ {
			s["mqgate_handshakes_refused_address_total{reason="+v.String()+"}"] += float64(n.Conn.RefusedAddr[v])
		}
		for i := range conn.NumCauses {
			for j, v := range n.Conn.Disconnects[i] {
				if v > 0 {
					s["mqgate_disconnects_total{reason="+conn.Cause(i).Label()+",code="+conn.CodeLabel(j)+"}"] += float64(v)
				}
			}
		}
		for i := range mq.NumOutcomes {
			s["mqgate_requests_total{outcome="+mq.Outcome(i).String()+"}"] += float64(m.Requests[i])
		}
	})
	return s
}

// churnOptions returns the options of a small churn against s, whose metrics change changes.
func (s *echoServer) churnOptions(t *testing.T, change func(Samples)) Options {
	t.Helper()
	o := s.options(t, scenarioChurn)
	o.Connections, o.Total, o.Duration, o.Seed, o.MaxGrowth = 64, 1500, time.Minute, 7, MaxGrowth
	o.Metrics = func(context.Context) (Samples, error) {
		m := samplesOf(s.server, nil)
		if change != nil {
			change(m)
		}
		return m, nil
	}
	return o
}

// churnSeed returns a seed of which the first quick connections do not wait for a timeout of the server, which takes
// seconds, and among those from there to total each kind that does is there.
func churnSeed(quick, total uint64) int {
	for seed := uint64(1); ; seed++ {
		var silent, silentRequest, flood int
		late := func(n *int, number uint64) {
			if *n++; number < quick {
				*n = math.MinInt
			}
		}
		for number := range total {
			switch p := planOf(seed, number); {
			case p.way == wayNoByte && p.exit == exitWait:
				late(&silent, number)
			case p.way == wayMidHandshake && p.exit == exitWait:
				late(&silentRequest, number)
			case p.way == wayStoppedReader && p.push == pushPings:
				late(&flood, number)
			}
		}
		if least := min(silent, silentRequest, flood); least > 0 || least == 0 && quick == total {
			return int(seed)
		}
	}
}

// violated returns the checks that do not hold.
func violated(p *Report) (list []string) {
	for _, c := range p.Churn.Checks {
		if !c.Holds {
			list = append(list, c.Check+": "+c.Got+", expected "+c.Expected)
		}
	}
	return list
}

// Every way to end, against a server that echoes, and against the gateway: the accounts balance (L6.2, L3.11), and those
// whom the server has to end (L2.7, L8.3) are.
func TestChurn(t *testing.T) {
	t.Run("echo", func(t *testing.T) {
		s := &echoServer{short: true}
		s.serve(t)
		o := s.churnOptions(t, nil)
		o.Seed = churnSeed(uint64(o.Total)/churnWarm, uint64(o.Total))
		p := mustRun(t, t.Context(), o)
		checkChurn(t, p)
		if p.Churn.Echoed < 1000 || p.Churn.Answered != 0 {
			t.Errorf("%d echoed, %d answered", p.Churn.Echoed, p.Churn.Answered)
		}
		var text bytes.Buffer
		if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), "by mid-handshake") || strings.Contains(text.String(), "VIOLATED") {
			t.Errorf("%v: %s", err, text.String())
		}
	})
	t.Run("gateway", func(t *testing.T) {
		config := rooms.DefaultConfig()
		config.ReenterGrace = 0
		worker, err := rooms.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer worker.Close()
		g, err := mq.New(mq.Config{Worker: worker, RequestTimeout: time.Minute, ServerRequestTimeout: time.Minute, MaxRequests: 16}, 1)
		if err != nil {
			t.Fatal(err)
		}
		server, err := conn.NewServer(&conn.Config{
			Endpoints:        []conn.Endpoint{{Path: "/ws", Handler: g, MaxMessage: 1 << 20}},
			HandshakeTimeout: 2 * time.Second, PingInterval: time.Minute, CloseTimeout: time.Second / 2, WriteTimeout: time.Second, MaxPending: 4 << 20,
		}, conn.ServerConfig{Loops: 1, Attach: func(_ int, r *conn.Registry) { g.Attach(r) }})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Stop()
		g.Start(server)
		s := &echoServer{server: server}
		if s.addr, err = server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1024); err != nil {
			t.Fatal(err)
		}
		o := s.churnOptions(t, nil)
		if o.Target, err = ParseTarget("ws://" + s.addr.String() + "/ws"); err != nil {
			t.Fatal(err)
		}
		o.Seed = churnSeed(uint64(o.Total)/churnWarm, uint64(o.Total))
		o.Metrics = func(context.Context) (Samples, error) { return samplesOf(server, g.Stats), nil }
		p := mustRun(t, t.Context(), o)
		checkChurn(t, p)
		if p.Churn.Answered < 1000 || p.Churn.Echoed != 0 {
			t.Errorf("%d echoed, %d answered", p.Churn.Echoed, p.Churn.Answered)
		}
	})
}

func checkChurn(t *testing.T, p *Report) {
	t.Helper()
	if !p.OK || len(violated(p)) > 0 || p.Churn.Dialled != 1500 || p.Churn.Connected != 1500 {
		t.Errorf("ok %v, %d failed, %d lost, %d wrong, %+v, violated %q", p.OK, p.Failed, p.Lost, p.Wrong, *p.Churn, violated(p))
	}
	for w := range ways {
		if n := p.Churn.Killed[w.String()]; n < 60 {
			t.Errorf("%d went by %v, want about %d", n, w, 1500/int(ways))
		}
	}
	if p.Churn.Flooded == 0 || p.Churn.Upgraded < 1000 || p.Churn.PeakOpen > 64 {
		t.Errorf("%d floods, %d upgraded, at most %d open", p.Churn.Flooded, p.Churn.Upgraded, p.Churn.PeakOpen)
	}
}

// What is wrong with the metrics of a server makes the run fail, and the report says what.
func TestChurnFinds(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(s Samples) // of every reading but the first
		want   string
	}{
		{"drift", func(s Samples) { s["mqgate_accounting_drift"] = 1 }, "accounting_drift: 1"},
		{"a leaked file", nil, "open files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &echoServer{short: true}
			s.serve(t)
			readings := 0
			var leaked []net.Conn
			defer func() {
				for _, c := range leaked {
					c.Close()
				}
			}()
			o := s.churnOptions(t, func(m Samples) {
				if readings++; readings == 1 {
					return
				}
				if test.change != nil {
					test.change(m)
					return
				}
				// The process of the server is this one: a descriptor more after each reading. It is no connection to the server.
				a, b := net.Pipe()
				leaked = append(leaked, a, b)
				if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
					t.Cleanup(func() { l.Close() })
				}
			})
			o.Total, o.Seed = 100, churnSeed(100, 100)
			p := mustRun(t, t.Context(), o)
			if p.OK || !strings.Contains(strings.Join(violated(p), "\n"), test.want) {
				t.Errorf("ok %v, violated %q, want %q", p.OK, violated(p), test.want)
			}
			var text bytes.Buffer
			if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), "VIOLATED: "+test.want) || !strings.Contains(text.String(), "FAILED") {
				t.Errorf("%v: %s", err, text.String())
			}
		})
	}
}

// goodResult is a churn that all checks hold for.
func goodResult() *churnResult {
	before := Samples{"mqgate_rooms_sessions": 3, "mqgate_rooms_rooms": 0, "mqgate_rooms_members": 0, "go_goroutines": 10,
		"go_memstats_heap_inuse_bytes": 1 << 20, "mqgate_disconnects_total{reason=client,code=1000}": 4}
	for _, name := range quiet {
		before[name] = 0
	}
	for _, name := range []string{"accounting_drift", "accepts_total", "connections_total", "handshakes_timed_out_total", "handshakes_refused_total{status=408}",
		"handshakes_refused_total{status=503}", "slow_consumers_total{cause=bytes}", "slow_consumers_total{cause=time}", "requests_accepted_total",
		"requests_total{outcome=ok}", "requests_total{outcome=failed}", "requests_total{outcome=timeout}", "requests_total{outcome=dropped}",
		"worker_panics_total"} {
		before["mqgate_"+name] = 0
	}
	before["mqgate_connections_total"], before["mqgate_accepts_total"] = 4, 4
	after := maps.Clone(before)
	maps.Copy(after, Samples{"mqgate_accepts_total": 14, "mqgate_connections_total": 12, "mqgate_disconnects_total{reason=client,code=1000}": 6,
		"mqgate_disconnects_total{reason=protocol,code=1002}": 1, "mqgate_disconnects_total{reason=socket-error,code=1006}": 4,
		"mqgate_disconnects_total{reason=slow-consumer,code=1006}": 1, "mqgate_handshakes_timed_out_total": 2,
		"mqgate_handshakes_refused_total{status=408}": 1, "mqgate_slow_consumers_total{cause=bytes}": 1,
		"mqgate_requests_accepted_total": 9, "mqgate_requests_total{outcome=ok}": 5, "mqgate_requests_total{outcome=failed}": 2,
		"mqgate_requests_total{outcome=dropped}": 2})
	r := &churnResult{n: newChurnCount(1), servers: 1, maxGrowth: 1 << 20}
	r.before, r.after = reading{samples: before, fds: 9, memory: &memory{}}, reading{samples: after, fds: 10, memory: &memory{Anon: 2 << 20}}
	r.warm = reading{samples: before, fds: 10, memory: &memory{Anon: 1 << 20}}
	n := &r.n
	n.dialled, n.connected, n.upgraded, n.sent, n.answered, n.flooded, n.silent, n.silentRequest = 10, 10, 8, 9, 7, 1, 1, 1
	n.killed[wayStoppedReader] = 1
	n.ends = map[string]uint64{"client/1000": 2, "protocol/1002": 1, endOther: 5}
	return r
}

// Each check can fail, and fails alone.
func TestChurnChecks(t *testing.T) {
	for _, c := range goodResult().checks() {
		if !c.Holds {
			t.Fatalf("%+v does not hold for a good churn", c)
		}
	}
	add := func(name string, by float64) func(*churnResult) {
		return func(r *churnResult) { r.after.samples["mqgate_"+name] += by }
	}
	tests := []struct {
		want   string // the one check that does not hold; several with |
		change func(r *churnResult)
	}{
		{"connections that the server did not end in time", func(r *churnResult) { r.n.stuck["no-byte"]++ }},
		{"last words of the server (Close, FIN) wrong or missing", func(r *churnResult) { r.n.last["close: FIN"]++ }},
		{"accounting_drift", add("accounting_drift", 1)},
		{"accounting_drift", func(r *churnResult) { delete(r.after.samples, "mqgate_accounting_drift") }},
		{"rooms_sessions as before", add("rooms_sessions", 1)},
		{"rooms_rooms as before", add("rooms_rooms", 1)},
		{"rooms_members as before", add("rooms_members", 1)},
		{"accepts_total grew by the connections made", add("accepts_total", 1)},
		{"connections upgraded|connections_total grew by the upgrades|disconnects_total grew by the upgrades", func(r *churnResult) { r.n.upgraded = 0 }},
		{"connections_total grew by the upgrades", add("connections_total", 1)},
		{"connections_total grew by the upgrades", add("connections_total", -1)},
		{"disconnects_total grew by the upgrades|disconnects_total grew by cause and code as the connections went",
			add("disconnects_total{reason=client,code=1000}", -1)},
		{"disconnects_total grew by cause and code as the connections went", func(r *churnResult) {
			add("disconnects_total{reason=client,code=1000}", -1)(r)
			add("disconnects_total{reason=client,code=1001}", 1)(r)
		}},
		{"disconnects_total grew by cause and code as the connections went", func(r *churnResult) {
			add("disconnects_total{reason=socket-error,code=1006}", -1)(r)
			add("disconnects_total{reason=timeout,code=1006}", 1)(r)
		}},
		{"handshakes_timed_out_total grew by those that said nothing more", add("handshakes_timed_out_total", 1)},
		{"handshakes_refused_total{408} grew by those that had begun a request|handshakes_refused_total did not grow else", add("handshakes_refused_total{status=408}", 1)},
		{"handshakes_refused_total did not grow else", add("handshakes_refused_total{status=503}", 1)},
		{"slow_consumers_total grew by the floods that were not read, or more", add("slow_consumers_total{cause=bytes}", -1)},
		{"slow_consumers_total grew by the floods that were not read, or more", add("slow_consumers_total{cause=time}", 1)},
		{"requests accepted = answered + connection gone", add("requests_total{outcome=dropped}", -1)},
		{"requests accepted = answered + connection gone", add("requests_total{outcome=timeout}", 1)},
		{"requests answered: those that came in, or more", func(r *churnResult) {
			add("requests_total{outcome=ok}", -1)(r)
			add("requests_total{outcome=dropped}", 1)(r)
		}},
		{"requests accepted: not more than were sent|requests answered: those that came in, or more", func(r *churnResult) {
			add("requests_accepted_total", 3)(r)
			add("requests_total{outcome=ok}", 3)(r)
		}},
		{"requests accepted by a path that echoes", func(r *churnResult) { r.n.echoed = 1 }},
		{"worker_panics_total", add("worker_panics_total", 1)},
		{"open files", func(r *churnResult) { r.after.fds++ }},
		{"go_goroutines", func(r *churnResult) { r.after.samples["go_goroutines"] += churnGoroutines + 1 }},
		{"go_memstats_heap_inuse_bytes", func(r *churnResult) { r.after.samples["go_memstats_heap_inuse_bytes"] += 1<<20 + 1 }},
		{"RssAnon", func(r *churnResult) { r.after.memory.Anon++ }},
	}
	for _, name := range quiet {
		name = strings.TrimPrefix(name, "mqgate_")
		tests = append(tests, struct {
			want   string
			change func(r *churnResult)
		}{name + " as before", add(name, 1)})
	}
	named := map[string]bool{}
	for _, test := range tests {
		r := goodResult()
		test.change(r)
		want := map[string]bool{}
		for name := range strings.SplitSeq(test.want, "|") {
			want[name], named[name] = true, true
		}
		for _, c := range r.checks() {
			if c.Holds == want[c.Check] {
				t.Errorf("after a change that violates %q: %+v", test.want, c)
			}
		}
	}
	for _, c := range goodResult().checks() {
		if !named[c.Check] {
			t.Errorf("nothing shows that %q can fail", c.Check)
		}
	}
}

// A server that breaks off, answers wrongly or not at all is found out.
func TestChurnAgainstBadServers(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve func(c net.Conn)
		seen  func(p *Report) bool
	}{
		{"FIN instead of an answer", func(c net.Conn) { _ = upgrade(c) }, func(p *Report) bool {
			return p.Churn.Lost["FIN without a Close frame"] > 0 && len(p.Churn.LastWords) > 0 && !p.OK
		}},
		{"a Close out of season, with a code that answers none", func(c net.Conn) {
			if upgrade(c) == nil {
				_, _ = c.Write(frame.AppendFrame(nil, frame.Close, true, []byte{4321 >> 8, 4321 & 0xff}))
			}
		}, func(p *Report) bool {
			return p.Churn.Lost["Close 4321"] > 0 && strings.Contains(fmt.Sprint(p.Churn.LastWords), "Close 4321 where") && !p.OK
		}},
		{"no upgrade", func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 503 Full\r\n\r\n")) },
			func(p *Report) bool { return p.Failed > 0 && p.Churn.Upgraded < 100 && !p.OK }},
		{"wrong answers", func(c net.Conn) {
			if upgrade(c) == nil {
				_, _ = c.Write(frame.AppendFrame(nil, frame.Binary, true, []byte("what?")))
				_, _ = c.Read(make([]byte, 100))
			}
		}, func(p *Report) bool { return p.Wrong > 0 && !p.OK }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					test.serve(c)
					c.Close()
				}
			}()
			defer func() { l.Close(); <-done }()
			s := &echoServer{addr: netip.MustParseAddrPort(l.Addr().String())}
			o := s.churnOptions(t, nil)
			o.Metrics = func(context.Context) (Samples, error) { return goodResult().before.samples, nil }
			o.Total, o.Connections, o.Seed = 100, 4, churnSeed(100, 100)
			if p := mustRun(t, t.Context(), o); !test.seen(p) {
				t.Errorf("ok %v, %d failed, %d wrong, %+v", p.OK, p.Failed, p.Wrong, *p.Churn)
			}
		})
	}
}

// upgrade answers an upgrade request.
func upgrade(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	var key []byte
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != ""; {
		if k, ok := strings.CutPrefix(lines.Text(), "Sec-WebSocket-Key: "); ok {
			key = []byte(k)
		}
	}
	if len(key) != handshake.KeyLen {
		return errors.New("no key")
	}
	_, err := c.Write(handshake.AppendResponse(nil, key, nil, nil))
	return err
}

// Without metrics there is no churn.
func TestChurnNeedsMetrics(t *testing.T) {
	s := &echoServer{}
	s.serve(t)
	o := s.churnOptions(t, nil)
	sys, err := ThisSystem()
	if err != nil {
		t.Fatal(err)
	}
	o.Metrics = nil
	if _, err := Run(t.Context(), o, sys, nil); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Error(err)
	}
	o.Metrics = func(context.Context) (Samples, error) { return nil, errors.New("nobody there") }
	if _, err := Run(t.Context(), o, sys, nil); err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Error(err)
	}
}

// A churn that is broken off ends its connections and still checks.
func TestChurnInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	opened := 0
	s := &echoServer{short: true, onOpen: func(*conn.Conn) {
		if opened++; opened == 300 {
			cancel()
		}
	}}
	s.serve(t)
	o := s.churnOptions(t, nil)
	o.Total = 0
	if p := mustRun(t, ctx, o); !p.Interrupted || p.OK || len(violated(p)) > 0 || p.Churn.Dialled < 300 {
		t.Errorf("interrupted %v, ok %v, violated %q, %d dialled", p.Interrupted, p.OK, violated(p), p.Churn.Dialled)
	}
}

// At a rate connections come no faster, and never more than so many are open.
func TestChurnRate(t *testing.T) {
	s := &echoServer{short: true}
	s.serve(t)
	o := s.churnOptions(t, nil)
	o.Rate, o.Total, o.Connections, o.Seed = 200, 100, 10, churnSeed(100, 100)
	p := mustRun(t, t.Context(), o)
	if !p.OK || p.Churn.PeakOpen > 10 || p.RatePerSecond > 230 {
		t.Errorf("ok %v, at most %d open, %v per second: %q", p.OK, p.Churn.PeakOpen, p.RatePerSecond, violated(p))
	}
}

// Plans are equally many of each way, the same for the same seed, and within the rules that end and gone rely on.
func TestPlans(t *testing.T) {
	const n = 60_000
	var count [ways]int
	closes, pushed, exits := map[uint16]int{}, map[push]int{}, map[way]map[exit]int{}
	for i := range uint64(n) {
		p := planOf(3, i)
		if again := planOf(3, i); fmt.Sprint(again) != fmt.Sprint(p) {
			t.Fatalf("plan %d is %+v, then %+v", i, p, again)
		}
		count[p.way]++
		if exits[p.way] == nil {
			exits[p.way] = map[exit]int{}
		}
		exits[p.way][p.exit]++
		switch p.way {
		case wayClose, wayDoubleClose:
			code, _, err := frame.ParseCloseBody(p.last)
			if err != nil || code != p.want {
				t.Fatalf("%+v: %d, %v", p, code, err)
			}
			closes[code]++
		case wayBadClose:
			_, _, err := frame.ParseCloseBody(p.last)
			e, bad := err.(*frame.Error)
			if !bad || e.Code != p.want {
				t.Fatalf("%+v: %v", p, err)
			}
		case wayStoppedReader:
			pushed[p.push]++
		case wayReset, wayFIN, wayMidFrame, wayMidMessage, wayMidHandshake, wayNoByte, wayEarlyFIN, wayInFlight, ways:
		}
	}
	for w, got := range count {
		if want := float64(n) / float64(ways); math.Abs(float64(got)-want) > want/10 {
			t.Errorf("%d of %v, want about %v", got, way(w), want)
		}
	}
	for _, code := range append(goodCodes, frame.NoStatus) {
		if closes[code] == 0 {
			t.Errorf("no Close %d", code)
		}
	}
	for _, e := range []exit{exitReset, exitClose, exitShutdown} {
		for _, w := range []way{wayMidFrame, wayMidMessage, wayMidHandshake, wayNoByte, wayInFlight} {
			if exits[w][e] == 0 {
				t.Errorf("%v never ends by exit %d", w, e)
			}
		}
	}
	if exits[wayMidHandshake][exitWait] == 0 || exits[wayNoByte][exitWait] == 0 || pushed[pushPings] == 0 || pushed[pushBrief] == 0 {
		t.Errorf("exits %v, pushed %v", exits, pushed)
	}
	if fmt.Sprint(planOf(3, 1)) == fmt.Sprint(planOf(4, 1)) && fmt.Sprint(planOf(3, 2)) == fmt.Sprint(planOf(4, 2)) {
		t.Error("the seed has no influence")
	}
}

// An answer is the message itself or the gateway's to it, and nothing else.
func TestTalk(t *testing.T) {
	w := talk{seed: 5}
	for number := range uint64(200) {
		for _, form := range []wire.Form{wire.Text, wire.Binary} {
			env, answer := w.envelope(number, 1)
			message := env.AppendForm(nil, form)
			response := wire.Envelope{RequestID: env.RequestID, Type: answer, MessageType: wire.Response}
			if answer == wire.TypeError {
				response.Payload = (&wire.Error{Reason: wire.ReasonFailed}).AppendTo(nil)
			}
			other := response
			other.RequestID += "0"
			event := response
			event.MessageType = wire.Event
			another := response
			another.Type = "bench.Other"
			for i, test := range []struct {
				p    []byte
				want reply
			}{
				{message, replyEcho}, {response.AppendForm(nil, form), replyAnswer}, {other.AppendForm(nil, form), replyWrong},
				{event.AppendForm(nil, form), replyWrong}, {another.AppendForm(nil, form), replyWrong}, {nil, replyWrong}, {[]byte("x"), replyWrong},
				{message[:len(message)-1], replyWrong},
			} {
				if got := w.check(number, 1, form, bytes.Clone(test.p)); got != test.want {
					t.Fatalf("connection %d, %v, case %d: %d, want %d", number, form, i, got, test.want)
				}
			}
			if answer == wire.TypeError {
				response.Payload = (&wire.Error{Reason: wire.ReasonTimeout}).AppendTo(nil)
				if w.check(number, 1, form, response.AppendForm(nil, form)) != replyWrong {
					t.Fatal("a timeout passes for a failure")
				}
			}
		}
	}
}

// Connections that stop reading are closed by bytes and by time (L8.3), and the others lose nothing.
func TestStalled(t *testing.T) {
	t.Parallel()
	s := &echoServer{short: true, pending: 3 << 20, write: 2 * time.Second}
	s.serve(t)
	o := s.options(t, scenarioEcho)
	o.Stalled, o.StalledPairs, o.Duration, o.Rate = 4, 1, 4*time.Second, 400
	o.Metrics = func(context.Context) (Samples, error) { return samplesOf(s.server, nil), nil }
	p := mustRun(t, t.Context(), o)
	if !p.OK || p.Lost != 0 || p.Messages < 1000 {
		t.Errorf("ok %v, %d lost, %d messages", p.OK, p.Lost, p.Messages)
	}
	r := p.Stalled
	for _, e := range []StalledEnds{r.ByBytes, r.ByTime} {
		if e.Opened != 2 || e.Closed != 2 || e.GoneMinSeconds <= 0 || e.GoneMaxSeconds < e.GoneMinSeconds {
			t.Errorf("%+v", e)
		}
	}
	// On a slow machine the time is over for those as well that send too much.
	if got := samplesOf(s.server, nil); got.value("mqgate_slow_consumers_total") != 4 || got["mqgate_slow_consumers_total{cause=time}"] < 2 {
		t.Errorf("the server counts %v, %v of them by time", got.value("mqgate_slow_consumers_total"), got["mqgate_slow_consumers_total{cause=time}"])
	}
	if len(r.With.P99) != 1 || len(r.Without.P99) != 1 || r.With.MedianP99 != r.With.P99[0] || r.With.RSSAnon[0] <= 0 {
		t.Errorf("with %+v, without %+v", r.With, r.Without)
	}
	var text bytes.Buffer
	if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), "2 of 2 below it closed by the server") {
		t.Errorf("%v: %s", err, text.String())
	}

	// A server that lets them be is found out.
	r.ByTime.Closed--
	if r.ok() {
		t.Error("a stalled connection that is not closed passes")
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(test.v); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.v, got, test.want)
		}
	}
}
