package bench

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

// placesOf returns so many places for o, which have sources.
func placesOf(o *Options, n int, sources ...netip.Addr) *places {
	o.Others = make([]Target, n-1)
	p := &places{period: o.dealPeriod()}
	for range n {
		p.list = append(p.list, place{sources: sources})
	}
	return p
}

// even reports whether the counts differ by one at the most.
func even(counts []int) bool { return slices.Max(counts)-slices.Min(counts) <= 1 }

// Connections are dealt out evenly at every moment: over all servers; and over them the connections of each loop, the
// members of each room, and those who send. Each server has its source addresses in turn.
func TestDeal(t *testing.T) {
	sources := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	for n := 1; n <= 6; n++ {
		for steps := 1; steps <= 13; steps++ {
			for _, o := range []Options{{Scenario: scenarioEcho, Loops: steps}, {Scenario: scenarioBroadcast, Loops: 2, Rooms: steps}} {
				p := placesOf(&o, n, sources...)
				all, each, from := make([]int, n), map[int][]int{}, make([]map[netip.Addr]int, n)
				senders := make([]int, n)
				for number := range steps * n * 4 {
					k, step := p.of(uint64(number)), number%steps
					if each[step] == nil {
						each[step] = make([]int, n)
					}
					all[k]++
					each[step][k]++
					if number < steps { // of a broadcast: the first of each room
						senders[k]++
					}
					if from[k] == nil {
						from[k] = map[netip.Addr]int{}
					}
					to, source := p.dial(uint64(number))
					from[k][source]++
					if to != &p.list[k] {
						t.Fatalf("connection %d is at another place than dialled", number)
					}
					if !even(all) || o.Scenario == scenarioBroadcast && !even(each[step]) {
						t.Fatalf("%s, %d servers, %d: after connection %d they have %v, those of its room %v", o.Scenario, n, steps, number, all, each[step])
					}
				}
				for step, counts := range each {
					if !even(counts) {
						t.Errorf("%s, %d servers: of step %d of %d they have %v", o.Scenario, n, step, steps, counts)
					}
				}
				for k, counts := range from {
					perSource := []int{counts[sources[0]], counts[sources[1]], counts[sources[2]]}
					if !even(perSource) {
						t.Errorf("%s, %d servers, %d: server %d is connected to %v from the three sources", o.Scenario, n, steps, k, perSource)
					}
				}
				if !even(senders) {
					t.Errorf("%s, %d servers, %d: senders %v", o.Scenario, n, steps, senders)
				}
				if dealt := p.dealt(uint64(steps * n * 4)); len(dealt) != n || dealt[0] != uint64(steps*4) {
					t.Errorf("dealt %v", dealt)
				}
			}
		}
	}
}

// with adds the servers at the addresses to o.
func (o Options) with(t *testing.T, addrs ...netip.AddrPort) Options {
	t.Helper()
	for _, addr := range addrs {
		target, err := ParseTarget("ws://" + addr.String() + o.Target.Path)
		if err != nil {
			t.Fatal(err)
		}
		o.Others = append(o.Others, target)
	}
	return o
}

// What several servers cannot be, at the limit and above it.
func TestValidateURLs(t *testing.T) {
	target := func(url string) Target {
		target, err := ParseTarget(url)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	var many []Target
	for port := range uint16(MaxTargets) {
		many = append(many, Target{URL: "ws://127.0.0.1/", Name: "127.0.0.1", Port: 1000 + port, Path: "/"})
	}
	sys := System{OpenFiles: 20_000, Ports: 100}
	for _, test := range []struct {
		name, first string
		others      []Target
		change      func(o *Options)
		fault       string // "": none
	}{
		{"two", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, nil, ""},
		{"another query", "ws://127.0.0.1:1/ws?token=a", []Target{target("ws://127.0.0.1:2/ws?token=b")}, nil, ""},
		{"another path", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/echo")}, nil,
			"flag --url: ws://127.0.0.1:2/echo has the path /echo, the first one /ws: all must speak the same"},
		{"the same again", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws"), target("ws://127.0.0.1:1/ws")}, nil,
			"flag --url: ws://127.0.0.1:1/ws is given twice"},
		{"the same in other words", "ws://gate/ws", []Target{target("ws://GATE:80/ws")}, nil, "flag --url: ws://GATE:80/ws is given twice"},
		{"as many as may be", "ws://127.0.0.1:1/", many[1:], nil, ""},
		{"more", "ws://127.0.0.1:1/", many, nil, "flag --url: 65 given, at most 64 are allowed"},
		{"stalled", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) { o.Stalled = 1 },
			"flag --stalled: it is about one server, 2 --url are given"},
		{"connections as servers", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) { o.Connections, o.Loops = 2, 1 }, ""},
		{"fewer connections", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) { o.Connections, o.Loops = 1, 1 },
			"flag --connections: 1 are fewer than the 2 --url"},
		{"a process for each", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) { o.ServerPIDs = []int{1, 2} }, ""},
		{"a process for one", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) { o.ServerPIDs = []int{1} },
			"flag --server-pid: 1 given for 2 --url, expected one for each, in their order, or none"},
		{"two processes of one", "ws://127.0.0.1:1/ws", nil, func(o *Options) { o.ServerPIDs = []int{1, 2} }, "flag --server-pid: 2 given for 1 --url"},
		// A source address has its ports anew for every server.
		{"as many as ports", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) {
			o.Connections, o.Sources = 200, []netip.Addr{netip.MustParseAddr("127.0.0.9")}
		}, ""},
		{"more than ports", "ws://127.0.0.1:1/ws", []Target{target("ws://127.0.0.1:2/ws")}, func(o *Options) {
			o.Connections, o.Sources = 201, []netip.Addr{netip.MustParseAddr("127.0.0.9")}
		}, "flag --connections: 101 to one server do not fit: 1 source address(es) with 100 ports each"},
		{"one of the other IP version", "ws://127.0.0.1:1/ws", []Target{target("ws://[::1]:2/ws")}, func(o *Options) {
			o.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
		}, "of the other IP version"},
	} {
		o := Options{Scenario: scenarioEcho, Target: target(test.first), Others: test.others, Connections: 100, Duration: time.Second, Payload: 128, Depth: 1, Loops: 1}
		if test.change != nil {
			test.change(&o)
		}
		if err := o.Validate(sys); errorText(err) != test.fault && (test.fault == "" || !strings.Contains(errorText(err), test.fault)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.fault)
		}
	}
}

// Every scenario at three servers that do all right: each has its share, and the report says so.
func TestURLs(t *testing.T) {
	const each = 5
	for _, test := range []struct {
		name     string
		scenario string
		change   func(o *Options)
	}{
		{"connect", scenarioConnect, func(*Options) {}},
		{"connect with a burst", scenarioConnect, func(o *Options) { o.BurstBytes, o.BurstAfter, o.BurstEcho = 1024, 50*time.Millisecond, true }},
		{"echo", scenarioEcho, func(*Options) {}},
		{"echo at a rate", scenarioEcho, func(o *Options) { o.Rate = 600 }},
		{"ramp", scenarioRamp, func(o *Options) {
			o.RampOf, o.P99Limit, o.Payload, o.Depth, o.Rate = scenarioEcho, time.Hour, 128, 4, MaxRate
		}},
		{"heartbeat", scenarioHeartbeat, func(o *Options) { o.ServerPings, o.Duration = time.Second, 2500*time.Millisecond }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var addrs []netip.AddrPort
			var list [3]*echoServer
			for k := range list {
				list[k] = &echoServer{}
				if test.scenario == scenarioHeartbeat {
					list[k].ping = time.Second
				}
				list[k].serve(t)
				addrs = append(addrs, list[k].addr)
			}
			o := list[0].options(t, test.scenario).with(t, addrs[1:]...)
			o.Connections = each * len(list)
			test.change(&o)
			p := mustRun(t, t.Context(), o)
			if !p.OK || p.Opened != each*3 || p.URL != strings.Join([]string{o.Target.URL, o.Others[0].URL, o.Others[1].URL}, " ") || len(p.Servers) != 3 {
				t.Fatalf("the report is %+v", *p)
			}
			messages := uint64(0)
			for k, s := range p.Servers {
				if got := list[k].ended[1000].Load(); got != each || s.Connections != each || s.Opened != each || s.Failed+s.LostConnections+*s.LostMessages != 0 {
					t.Errorf("server %d closed %d connections with 1000, want %d; %+v", k, got, each, s)
				}
				if s.URL != "ws://"+addrs[k].String()+"/echo" || s.PID == nil || *s.PID != os.Getpid() || s.RSSBytes == nil || *s.RSSBytes != *p.Server.RSSBytes || s.CPUSeconds == nil {
					t.Errorf("all servers are this one process; %+v, together %+v", s, p.Server)
				}
				if *s.Messages == 0 && p.Messages > 0 {
					t.Errorf("no message from server %d", k)
				}
				messages += *s.Messages
			}
			if messages != p.Messages || (messages > 0) != (test.name != "connect") || p.Server.PID != nil {
				t.Errorf("%d messages by server, %d in all; together %+v", messages, p.Messages, p.Server)
			}
		})
	}
}

// A churn at two servers, whose accounts are added up.
func TestURLsChurn(t *testing.T) {
	var list [2]*echoServer
	var reads []Metrics
	for k := range list {
		list[k] = &echoServer{short: true}
		list[k].serve(t)
		reads = append(reads, func(context.Context) (Samples, error) { return samplesOf(list[k].server, nil), nil })
	}
	o := list[0].churnOptions(t, nil).with(t, list[1].addr)
	o.Total, o.Metrics = 400, SumMetrics(reads)
	p := mustRun(t, t.Context(), o)
	if !p.OK || len(violated(p)) > 0 || len(p.Servers) != 2 || p.Churn.Dialled != 400 {
		t.Fatalf("ok %v, violated %q, %+v", p.OK, violated(p), *p.Churn)
	}
	for k, s := range p.Servers {
		n := samplesOf(list[k].server, nil)
		if s.Connections != 200 || n["mqgate_accepts_total"] != 200 || float64(s.Opened) != n["mqgate_connections_total"] || s.Messages != nil {
			t.Errorf("server %d accepted %v, upgraded %v; %+v", k, n["mqgate_accepts_total"], n["mqgate_connections_total"], s)
		}
	}
}

// When its time ends a churn the loops have opened unequal numbers of connections; each still counts where it was made.
func TestChurnURLsDuration(t *testing.T) {
	var reads []Metrics
	var list [3]*echoServer
	for k := range list {
		list[k] = &echoServer{short: true}
		list[k].serve(t)
		reads = append(reads, func(context.Context) (Samples, error) { return samplesOf(list[k].server, nil), nil })
	}
	o := list[0].churnOptions(t, nil).with(t, list[1].addr, list[2].addr)
	// The first loop of five has two connections at a time, so it makes more than the others: the numbers have gaps.
	o.Loops, o.Connections, o.Total, o.Duration, o.Metrics = 5, 6, 0, 300*time.Millisecond, SumMetrics(reads)
	p := mustRun(t, t.Context(), o)
	made := uint64(0)
	for k, s := range p.Servers {
		if n := samplesOf(list[k].server, nil); float64(s.Connections) != n["mqgate_accepts_total"] || s.Opened > s.Connections || s.Opened == 0 {
			t.Errorf("server %d accepted %v; %+v", k, n["mqgate_accepts_total"], s)
		}
		made += s.Connections
	}
	if !p.OK || made != p.Churn.Dialled || made == 0 {
		t.Errorf("ok %v, violated %q, %d connections made, by URL %d", p.OK, violated(p), p.Churn.Dialled, made)
	}
}

// What goroutines come and go by is for each server.
func TestChurnChecksURLs(t *testing.T) {
	for more, holds := range map[float64]bool{2 * churnGoroutines: true, 2*churnGoroutines + 1: false} {
		r := goodResult()
		r.servers = 2
		r.after.samples["go_goroutines"] += more
		for _, c := range r.checks() {
			if c.Holds != (holds || c.Check != "go_goroutines") {
				t.Errorf("%v goroutines more at two servers: %+v", more, c)
			}
		}
	}
}

// A server among several at which nobody listens, one that refuses, and one that ends in the middle: the report says
// which, and the others go on.
func TestURLFails(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := netip.MustParseAddrPort(nobody.Addr().String())
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(p *Report, s *URLReport) bool {
		return p.Failures[s.URL+": connect to "+free.String()+": connection refused"] == 4 && s.Failed == 4 && s.PID == nil && s.RSSBytes == nil &&
			p.Server.RSSBytes == nil && p.Servers[0].RSSBytes != nil
	}
	var members []conn.Ref // on the loop of the server that ends
	dying := &echoServer{onOpen: func(c *conn.Conn) { members = append(members, c.Ref()) }}
	dying.misbehave = func(c *conn.Conn, n int, _ frame.OpCode, _ []byte) bool {
		if n == 20 {
			for _, ref := range members {
				if c := c.Registry().Get(ref); c != nil {
					_ = c.CloseFor(conn.CauseDrain) // it may be closing
				}
			}
		}
		return false
	}
	dying.serve(t)
	for _, test := range []struct {
		name, scenario string
		addr           netip.AddrPort
		seen           func(p *Report, s *URLReport) bool
		text           string
	}{
		{"nobody there", scenarioEcho, free, refused, "0 of 4 opened, 4 failed, 0 lost\n"},
		{"nobody there, churn", scenarioChurn, free, func(p *Report, s *URLReport) bool {
			return p.Failures[s.URL+": connect to "+free.String()+": connection refused"] == s.Failed && s.Failed == 20 && s.Opened == 0
		}, "0 of 20 opened, 20 failed, 0 lost\n"},
		{"ends", scenarioEcho, dying.addr, func(p *Report, s *URLReport) bool {
			return s.Opened == 4 && s.LostConnections == 4 && s.LostByCode["3333"] == 4 && p.LostConnections == 4 && *s.LostMessages == p.LostMessages
		}, "4 of 4 opened, 0 failed, 4 lost, 4 with close code 3333\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &echoServer{short: true}
			s.serve(t)
			o := s.options(t, test.scenario)
			if test.scenario == scenarioChurn {
				o = s.churnOptions(t, nil)
				o.Total, o.Connections = 40, 8
			}
			o = o.with(t, test.addr)
			p := mustRun(t, t.Context(), o)
			good, bad := &p.Servers[0], &p.Servers[1]
			if p.OK || good.Failed+good.LostConnections != 0 || good.Opened == 0 || p.Messages == 0 || !test.seen(p, bad) {
				t.Errorf("ok %v, failures %v, lost %v, together %+v, the good one %+v, the bad one %+v", p.OK, p.Failures, p.LostByCode, p.Server, *good, *bad)
			}
			var text, page bytes.Buffer
			if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), bad.URL+"\n                "+test.text) {
				t.Errorf("%v: the report does not say %q of %s:\n%s", err, test.text, bad.URL, &text)
			}
			if err := p.WriteHTML(&page); err != nil || !strings.Contains(page.String(), "<tr><th>"+bad.URL+"</th>") {
				t.Errorf("%v: the page does not have %s", err, bad.URL)
			}
		})
	}
}

// Two gateways that know nothing of each other are found out before anything is measured: the rooms of one are not there
// at the other.
func TestURLsApart(t *testing.T) {
	a, _ := serveGateway(t)
	b, _ := serveGateway(t)
	o := mqOptions(t, a, "/ws", scenarioBroadcast).with(t, b)
	p := mustRun(t, t.Context(), o)
	want := wire.TypeJoinRoom + ` was answered with "not-found"`
	for _, s := range p.Servers { // of the 4 members of each of 2 rooms 2 are at either
		if p.Failures[s.URL+": "+want] != 2 || s.Failed != 2 {
			t.Errorf("%d failed at %s: %v", s.Failed, s.URL, p.Failures)
		}
	}
	if p.OK || p.MessagesSent != 0 {
		t.Errorf("ok %v, %d sent", p.OK, p.MessagesSent)
	}
	// Requests need nothing in common.
	o = mqOptions(t, a, "/ws", scenarioRequest).with(t, b)
	if p := mustRun(t, t.Context(), o); !p.OK || *p.Servers[0].Messages == 0 || *p.Servers[1].Messages == 0 {
		t.Errorf("requests: %+v", p.Servers)
	}
}

// pair is two fakeGateways that pass each other's chat messages on.
type pair struct {
	f     [2]*fakeGateway
	loops [2]atomic.Pointer[loop.Loop]
	addrs [2]netip.AddrPort

	// relay has message n of a room, taken by gateway from, published at the other. On the loop of from; publish may be
	// called any number of times, and later.
	relay func(from, n int, payload []byte, publish func(payload []byte))
}

func (g *pair) serve(t *testing.T) {
	for k := range g.f {
		f := &fakeGateway{rooms: map[string][]*member{}, sent: map[conn.Ref]int{}}
		s := &echoServer{onOpen: func(c *conn.Conn) { g.loops[k].Store(c.Registry().Loop()) }}
		s.misbehave = func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			f.message(c, n, op, p)
			var e wire.Envelope
			if _ = e.Unmarshal(slices.Clone(p)); e.Type == wire.TypeSendMessageToRoom {
				n := f.sent[c.Ref()]
				g.relay(k, n, e.Payload, func(payload []byte) {
					g.loops[1-k].Load().PostFunc(func() { g.f[1-k].publish(n, payload) })
				})
			}
			return true
		}
		g.f[k] = f
		s.serve(t)
		g.addrs[k] = s.addr
	}
}

// Mistakes between two gateways are found and counted exactly. Each is made with messages 2, 4 and 6 of each of the 2
// rooms, one of which is sent to at either gateway, and to the 2 of the 4 members who are at the other.
func TestBroadcastMistakesAcross(t *testing.T) {
	type counts struct{ lost, duplicate, wrong uint64 }
	const each, all = 3 * 2, 2 * 3 * 2 // at either gateway, and in all
	due := func(n int) bool { return n > 0 && n%2 == 0 && n <= 6 }
	var held [2]func() // by the gateway that has taken it, on its loop
	for _, test := range []struct {
		name  string
		relay func(from, n int, payload []byte, publish func([]byte))
		want  counts
		sides [2]uint64 // lost, of those at either gateway
	}{
		{"none", func(_, _ int, payload []byte, publish func([]byte)) { publish(payload) }, counts{}, [2]uint64{}},
		{"drops", func(_, n int, payload []byte, publish func([]byte)) {
			if !due(n) {
				publish(payload)
			}
		}, counts{lost: all}, [2]uint64{each, each}},
		{"drops what the first takes", func(from, n int, payload []byte, publish func([]byte)) {
			if from != 0 || !due(n) {
				publish(payload)
			}
		}, counts{lost: each}, [2]uint64{0, each}},
		{"drops what the second takes", func(from, n int, payload []byte, publish func([]byte)) {
			if from != 1 || !due(n) {
				publish(payload)
			}
		}, counts{lost: each}, [2]uint64{each, 0}},
		{"delivers twice", func(_, n int, payload []byte, publish func([]byte)) {
			publish(payload)
			if due(n) {
				publish(payload)
			}
		}, counts{duplicate: all}, [2]uint64{}},
		{"delivers in another order", func(from, n int, payload []byte, publish func([]byte)) {
			switch {
			case due(n):
				held[from] = func() { publish(payload) }
			case due(n - 1):
				publish(payload)
				held[from]()
			default:
				publish(payload)
			}
		}, counts{wrong: all}, [2]uint64{}},
		{"changes the text", func(_, n int, payload []byte, publish func([]byte)) {
			if due(n) {
				var m wire.SendMessageToRoom
				_ = m.Unmarshal(payload)
				m.ChatMessage.Message = strings.ToUpper(m.ChatMessage.Message[:100])
				payload = m.AppendTo(nil)
			}
			publish(payload)
		}, counts{wrong: all}, [2]uint64{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := &pair{relay: test.relay}
			g.serve(t)
			o := mqOptions(t, g.addrs[0], "/echo", scenarioBroadcast).with(t, g.addrs[1])
			o.Duration = 400 * time.Millisecond // a slow machine needs the time for the mistakes
			p := mustRun(t, t.Context(), o)
			if got := (counts{p.LostMessages, p.Duplicate, p.Wrong}); got != test.want || p.OK != (test.want == counts{}) {
				t.Errorf("lost, duplicate, wrong: %v, want %v; ok %v", got, test.want, p.OK)
			}
			if got := [2]uint64{*p.Servers[0].LostMessages, *p.Servers[1].LostMessages}; got != test.sides {
				t.Errorf("lost at either gateway: %v, want %v", got, test.sides)
			}
			if got := *p.Servers[0].Messages + *p.Servers[1].Messages; got != p.Messages {
				t.Errorf("%d deliveries by gateway, %d in all", got, p.Messages)
			}
			if b := p.Broadcast; test.want == (counts{}) && (b.Deliveries != 4*b.Sent || *b.Spread.Max < *p.Latency.P50) {
				t.Errorf("the broadcast is %+v", *b)
			}
		})
	}
}

// Metrics of several servers are added up, but a drift of one does not make up for that of another.
func TestSumMetrics(t *testing.T) {
	of := func(s Samples, err error) Metrics {
		return func(context.Context) (Samples, error) { return s, err }
	}
	a := of(Samples{"mqgate_accounting_drift": -1, "mqgate_connections_open": 3, "x{a=b}": 1}, nil)
	b := of(Samples{"mqgate_accounting_drift": 1, "mqgate_connections_open": 4}, nil)
	s, err := SumMetrics([]Metrics{a, b})(t.Context())
	if err != nil || s.value("mqgate_accounting_drift") != 2 || s.value("mqgate_connections_open") != 7 || s.value("x") != 1 || !math.IsNaN(s.value("y")) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := SumMetrics([]Metrics{a, of(nil, errors.New("nobody there"))})(t.Context()); errorText(err) != "nobody there" {
		t.Error(err)
	}
}

// Processes are added up; one at two places counts once, and one that is not known leaves the sum unknown.
func TestServers(t *testing.T) {
	this := process{os.Getpid()}
	parent := process{os.Getppid()}
	mine, err := this.memory()
	if err != nil {
		t.Fatal(err)
	}
	other, err := parent.memory()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		list  []process
		known bool
		least int64 // RSS
		most  int64
	}{
		{"none", nil, false, 0, 0},
		{"one", []process{this}, true, mine.RSS / 2, mine.RSS + other.RSS/2},
		{"one twice", []process{this, this}, true, mine.RSS / 2, mine.RSS + other.RSS/2},
		{"two", []process{this, parent}, true, mine.RSS/2 + other.RSS/2, 2*mine.RSS + 2*other.RSS},
		{"one of two not known", []process{this, {}}, false, 0, 0},
	} {
		s := newServers(test.list)
		m, err := s.memory()
		if s.known != test.known || (err == nil) != test.known || test.known && (m.RSS < test.least || m.RSS > test.most) {
			t.Errorf("%s: known %v, %+v, %v", test.name, s.known, m, err)
		}
		h, c := s.held(), s.spent()
		if (h.all != nil) != test.known || (c.all != nil) != test.known || len(h.each) != len(test.list) || len(c.each) != len(test.list) {
			t.Errorf("%s: %+v, %+v", test.name, h, c)
		}
		for k, p := range test.list {
			if known := p.pid != 0; (h.at(k) != nil) != known || (c.at(k) != nil) != known {
				t.Errorf("%s: process %d: %v, %v", test.name, k, h.at(k), c.at(k))
			}
		}
	}
}
