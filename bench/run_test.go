package bench

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// Every scenario against a server that does all right, in each of its forms.
func TestScenarios(t *testing.T) {
	for _, test := range []struct {
		name     string
		scenario string
		change   func(o *Options)
		messages uint64 // at least
	}{
		{"connect", scenarioConnect, func(*Options) {}, 0},
		{"connect with a burst", scenarioConnect, func(o *Options) {
			o.BurstBytes, o.BurstAfter, o.BurstEcho = 64<<10, 50*time.Millisecond, true
		}, 8},
		{"connect above the warm-up connections", scenarioConnect, func(o *Options) { o.Connections = 150 }, 0},
		{"connect at a rate", scenarioConnect, func(o *Options) { o.Rate = 200 }, 0},
		{"echo", scenarioEcho, func(*Options) {}, 100},
		{"echo, one connection, one loop", scenarioEcho, func(o *Options) { o.Connections, o.Loops, o.Depth = 1, 1, 1 }, 10},
		{"echo of text", scenarioEcho, func(o *Options) { o.Text = true }, 100},
		{"echo of the smallest messages", scenarioEcho, func(o *Options) { o.Payload = MinPayload }, 100},
		{"echo of large messages", scenarioEcho, func(o *Options) { o.Payload, o.Depth, o.Duration = 300_000, 1, time.Second }, 8},
		{"echo after a warm-up", scenarioEcho, func(o *Options) { o.Warmup = 50 * time.Millisecond }, 100},
		{"echo at a rate", scenarioEcho, func(o *Options) { o.Rate = 500 }, 80},
		{"echo at a low rate", scenarioEcho, func(o *Options) { o.Rate = 20 }, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &echoServer{}
			s.serve(t)
			o := s.options(t, test.scenario)
			if test.scenario == scenarioEcho {
				o.Duration = 500 * time.Millisecond // a machine with other things to do gets to the messages asked for, too
			}
			test.change(&o)
			p := mustRun(t, t.Context(), o)
			if !p.OK || p.Opened != uint64(o.Connections) || p.Messages < test.messages || p.MessagesUnsent > 100 {
				t.Errorf("the report is %+v", *p)
			}
			if got := s.ended[1000].Load(); got != int64(o.Connections) {
				t.Errorf("%d connections were closed with 1000, want %d", got, o.Connections)
			}
			if p.Server.PID == nil || *p.Server.PID != os.Getpid() || p.Server.RSSBytes == nil || *p.Server.RSSBytes < 1<<20 {
				t.Errorf("the server is this process (%d), the report says %+v", os.Getpid(), p.Server)
			}
			if known := p.Server.RSSBytesPerConnection != nil; known != (o.Connections > warmConnections) {
				t.Errorf("memory per connection known: %v, with %d connections", known, o.Connections)
			}
			if p.Latency.P50 == nil || *p.Latency.P50 <= 0 || *p.Latency.Max < *p.Latency.P50 {
				t.Errorf("latency %+v", p.Latency)
			}
		})
	}
}

// Pings are answered while connections are held.
func TestPings(t *testing.T) {
	t.Parallel()
	s := &echoServer{ping: time.Second}
	s.serve(t)
	o := s.options(t, scenarioConnect)
	o.Duration = 1200 * time.Millisecond
	if p := mustRun(t, t.Context(), o); !p.OK || p.PingsAnswered < 8 || p.PingsAnswered > 16 {
		t.Errorf("ok %v, %d pings answered, want one or two on each of 8 connections", p.OK, p.PingsAnswered)
	}
}

// A server's mistakes are found and counted exactly. Each is made a few times on each connection.
func TestMistakes(t *testing.T) {
	t.Parallel()
	type counts struct{ lost, duplicate, wrong uint64 }
	const each = 5 // mistakes per connection: messages 2, 4, ... 10
	const all = each * 8
	due := func(n int) bool { return n > 0 && n%2 == 0 && n <= 2*each }
	kept := map[conn.Ref][]byte{} // of the test that reorders; on the server's one loop
	for _, test := range []struct {
		name      string
		misbehave func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool
		want      counts
	}{
		{"none", nil, counts{}},
		{"drops", func(_ *conn.Conn, n int, _ frame.OpCode, _ []byte) bool { return due(n) }, counts{lost: all}},
		{"sends twice", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				_ = c.Send(op, p)
			}
			return false
		}, counts{duplicate: all}},
		{"changes the last byte", func(_ *conn.Conn, n int, _ frame.OpCode, p []byte) bool {
			if due(n) {
				p[len(p)-1] ^= 1
			}
			return false
		}, counts{wrong: all}},
		{"changes the first byte", func(_ *conn.Conn, n int, _ frame.OpCode, p []byte) bool {
			if due(n) {
				p[0] ^= 0x80
			}
			return false
		}, counts{wrong: all}},
		{"cuts", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				_ = c.Send(op, p[:len(p)-1])
			}
			return due(n)
		}, counts{wrong: all}},
		{"empties", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				_ = c.Send(op, nil)
			}
			return due(n)
		}, counts{wrong: all}},
		{"lengthens", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				_ = c.Send(op, append(slices.Clone(p), 0))
			}
			return due(n)
		}, counts{wrong: all}},
		{"answers in text", func(c *conn.Conn, n int, _ frame.OpCode, p []byte) bool {
			if due(n) {
				for i := range p {
					p[i] &= 0x7f
				}
				_ = c.Send(frame.Text, p)
			}
			return due(n)
		}, counts{wrong: all}},
		{"swaps two", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			switch {
			case due(n):
				kept[c.Ref()] = slices.Clone(p)
				return true
			case due(n - 1):
				_ = c.Send(op, p)
				_ = c.Send(op, kept[c.Ref()])
				return true
			}
			return false
		}, counts{wrong: all}},
		{"makes up messages", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				another := make([]byte, len(p))
				fill(another, false, 1000, 7) // intact, of a connection that does not exist
				_ = c.Send(op, another)
			}
			return false
		}, counts{wrong: all}},
		{"is ahead of its time", func(c *conn.Conn, n int, op frame.OpCode, p []byte) bool {
			if due(n) {
				number, seq, _ := check(p, false)
				another := make([]byte, len(p))
				fill(another, false, number, seq+1_000_000)
				_ = c.Send(op, another)
			}
			return false
		}, counts{wrong: all}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &echoServer{misbehave: test.misbehave}
			s.serve(t)
			o := s.options(t, scenarioEcho)
			o.Duration = 400 * time.Millisecond // a slow machine needs the time for the mistakes
			p := mustRun(t, t.Context(), o)
			if got := (counts{p.LostMessages, p.Duplicate, p.Wrong}); got != test.want {
				t.Errorf("lost, duplicate, wrong: %v, want %v", got, test.want)
			}
			if p.Lost != p.LostMessages || p.OK != (test.want == counts{}) {
				t.Errorf("lost %d, ok %v", p.Lost, p.OK)
			}
		})
	}
}

// Connections that the server closes are lost, with what was in flight on them; the rest goes on.
func TestLostConnections(t *testing.T) {
	t.Run("echo", func(t *testing.T) {
		victims := 0
		s := &echoServer{misbehave: func(c *conn.Conn, n int, _ frame.OpCode, _ []byte) bool {
			if n == 20 && victims < 3 {
				victims++
				_ = c.CloseFor(conn.CauseDrain)
			}
			return false
		}}
		s.serve(t)
		p := mustRun(t, t.Context(), s.options(t, scenarioEcho))
		if want := map[string]uint64{"3333": 3}; !maps.Equal(p.LostByCode, want) || p.LostConnections != 3 {
			t.Errorf("lost %v, want %v", p.LostByCode, want)
		}
		if p.OK || p.LostMessages < 3 || p.LostMessages > 3*4 || p.Lost != p.LostMessages+3 {
			t.Errorf("ok %v, %d messages lost, %d in all", p.OK, p.LostMessages, p.Lost)
		}
		if p.Messages < 100 {
			t.Errorf("%d messages: the other connections did not go on", p.Messages)
		}
	})
	t.Run("connect", func(t *testing.T) {
		victims := 0
		s := &echoServer{onOpen: func(c *conn.Conn) {
			if victims++; victims <= 2 {
				_ = c.Close(4321, "away", conn.CauseLocal)
			}
		}}
		s.serve(t)
		p := mustRun(t, t.Context(), s.options(t, scenarioConnect))
		if want := map[string]uint64{"4321": 2}; !maps.Equal(p.LostByCode, want) || p.Lost != 2 || p.OK || p.Opened != 8 {
			t.Errorf("lost %v, want %v; ok %v, opened %d", p.LostByCode, want, p.OK, p.Opened)
		}
	})
}

// Connections that cannot be opened are counted with the reason.
func TestFailures(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	s := &echoServer{}
	s.serve(t)
	for _, test := range []struct{ url, reason string }{
		{"ws://" + free + "/", "connection refused"},
		{"ws://" + s.addr.String() + "/nowhere", "the server refused the upgrade with 404"},
	} {
		o := s.options(t, scenarioConnect)
		if o.Target, err = ParseTarget(test.url); err != nil {
			t.Fatal(err)
		}
		p := mustRun(t, t.Context(), o)
		reasons := slices.Collect(maps.Keys(p.Failures))
		if p.Failed != 8 || p.Opened != 0 || p.OK || len(reasons) != 1 || !strings.Contains(reasons[0], test.reason) {
			t.Errorf("%s: %d failed, %d opened, ok %v: %q, want %q", test.url, p.Failed, p.Opened, p.OK, reasons, test.reason)
		}
	}
}

// A run that is broken off closes its connections with 1000 and reports on the part before.
func TestInterrupted(t *testing.T) {
	for _, scenario := range []string{scenarioConnect, scenarioEcho} {
		t.Run(scenario, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			opened := 0
			var enough sync.Once
			s := &echoServer{onOpen: func(*conn.Conn) {
				if opened++; opened == 8 && scenario == scenarioConnect {
					cancel()
				}
			}, misbehave: func(_ *conn.Conn, n int, _ frame.OpCode, _ []byte) bool {
				if n == 100 {
					enough.Do(cancel)
				}
				return false
			}}
			s.serve(t)
			o := s.options(t, scenario)
			o.Duration = time.Hour
			p := mustRun(t, ctx, o)
			if !p.Interrupted || p.OK || p.Opened != 8 || p.Lost != 0 || p.Wrong != 0 {
				t.Errorf("the report is %+v", *p)
			}
			if got := s.ended[1000].Load(); got != 8 {
				t.Errorf("%d connections were closed with 1000, want 8", got)
			}
			if scenario == scenarioEcho && p.MessagesSent < 100 {
				t.Errorf("%d messages, want those before the end", p.MessagesSent)
			}
		})
	}
}

// In an open loop a stall of the server shows in every message that was due meanwhile (coordinated omission): 150 ms in
// a run of 300 ms are about half of all messages. In a closed loop it is one message in thousands.
func TestStallCounts(t *testing.T) {
	const stall = 150 * time.Millisecond
	for _, test := range []struct {
		name string
		rate int
		seen func(l Latency) bool // the stall at the 90th percentile
	}{
		{"open loop", 1000, func(l Latency) bool { return *l.P90 > 50 }},
		{"closed loop", 0, func(l Latency) bool { return *l.P90 < 50 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var first time.Time
			stalled := false
			s := &echoServer{misbehave: func(_ *conn.Conn, n int, _ frame.OpCode, _ []byte) bool {
				if n == 1 {
					first = time.Now()
				}
				if !stalled && time.Since(first) > stall/2 {
					stalled = true
					<-time.NewTimer(stall).C // holds up the server's loop
				}
				return false
			}}
			s.serve(t)
			o := s.options(t, scenarioEcho)
			o.Connections, o.Loops, o.Depth, o.Rate, o.Duration = 1, 1, 1, test.rate, 2*stall
			p := mustRun(t, t.Context(), o)
			if *p.Latency.Max < 140 || !test.seen(p.Latency) || p.Lost != 0 {
				t.Errorf("p50 %v, p90 %v, max %v, %d lost, of %d messages", *p.Latency.P50, *p.Latency.P90, *p.Latency.Max, p.Lost, p.Messages)
			}
		})
	}
}

// What does not hold makes the run fail, and so does what was not measured.
func TestExpectations(t *testing.T) {
	s := &echoServer{}
	s.serve(t)
	o := s.options(t, scenarioEcho)
	for _, text := range []string{"p50<10s", "lost=0", "rate>0"} {
		e, err := ParseExpectation(text)
		if err != nil {
			t.Fatal(text, err)
		}
		o.Expect = append(o.Expect, e)
	}
	if p := mustRun(t, t.Context(), o); !p.OK || len(p.Expect) != 3 {
		t.Errorf("ok %v, %v", p.OK, p.Expect)
	}
	for _, text := range []string{"p50>10s", "rss_bytes_per_connection<1GiB"} {
		e, err := ParseExpectation(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Expect = []Expectation{e}
		if p := mustRun(t, t.Context(), o); p.OK || p.Expect[0].Holds {
			t.Errorf("%s: ok %v, %v", text, p.OK, p.Expect)
		}
	}
}
