package conn

import (
	"strings"
	"testing"
	"time"
)

func limits(soft, hard, tell int64) func(*Config) {
	return func(cfg *Config) {
		cfg.Heartbeat = HeartbeatOff
		cfg.Limits = &Limits{Soft: soft, Hard: hard, TellPerSec: tell}
	}
}

// try connects and says what became of it: "open", "told" (accepted and closed with 1013, L2.5) or "refused" (503, L2.6).
func (n *node) try() (*peer, string) {
	n.t.Helper()
	p := n.dialIn()
	p.Send([]byte(request()))
	n.net.Run()
	n.check()
	frames := p.read()
	switch {
	case strings.HasPrefix(p.http, "HTTP/1.1 503 "):
		if !strings.Contains(p.http, "\r\nRetry-After: 5\r\n") {
			n.t.Errorf("answer %q", p.http)
		}
		return p, "refused"
	case len(frames) == 1 && frames[0].String() == `close 1013 "concurrency-limit-exceeded"`:
		return p, "told"
	case len(frames) == 0 && p.http == accepted:
		return p, "open"
	}
	n.t.Fatalf("answer %q, then %v", p.http, frames)
	return nil, ""
}

// L2.5, L2.6: below and at the soft limit: open; above: accepted, counted, OnOpen, closed with 1013; above the hard
// limit: refused. All counters come back to zero.
func TestLimits(t *testing.T) {
	n := newNode(t, limits(3, 5, 100))
	var peers []*peer
	for i, want := range []string{"open", "open", "open", "told", "told", "refused", "refused"} {
		p, got := n.try()
		if got != want {
			t.Fatalf("connection %d: %s, expected %s", i+1, got, want)
		}
		peers = append(peers, p)
	}
	n.h.expect("open", "open", "open", "open", "open")
	if s := n.reg.Stats(); s.Total != 5 || s.Open != 5 || s.Refused[refusalIndex(503)] != 2 {
		t.Errorf("total %d, open %d, refused %d", s.Total, s.Open, s.Refused[refusalIndex(503)])
	}
	// A refused or told one that goes makes no room below the soft limit; an open one does.
	peers[3].sendClose(1013, "")
	peers[3].quit()
	if _, got := n.try(); got != "told" {
		t.Errorf("after a told one went: %s", got)
	}
	peers[0].sendClose(1000, "")
	peers[1].sendClose(1000, "")
	if n.cfg.Limits.open.Load() != 3 { // lingering ones count no more: 1 open, 2 told
		t.Errorf("%d are counted", n.cfg.Limits.open.Load())
	}
	peers[4].sendClose(1013, "")
	if _, got := n.try(); got != "open" {
		t.Errorf("below the limit again: %s", got)
	}
	n.advance(6 * time.Second) // those that were told and do not answer are forced
	if got := n.cfg.Limits.open.Load(); got != 2 {
		t.Errorf("%d are counted, expected 2", got)
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// A connection that does not finish its request counts against no limit.
func TestLimitsOfHandshakes(t *testing.T) {
	n := newNode(t, limits(1, 1, 100))
	for range 5 {
		n.dialIn()
	}
	if _, got := n.try(); got != "open" {
		t.Error(got)
	}
	if _, got := n.try(); got != "refused" { // soft = hard: nobody is told
		t.Error(got)
	}
	n.advance(10 * time.Second)
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// L2.5: only so many are told per second, the rest are refused; the next second has its own.
func TestTellRate(t *testing.T) {
	for _, rate := range []int64{0, 1, 3} {
		n := newNode(t, limits(1, 1000, rate))
		n.try()
		for range 3 {
			var told int64
			for i := range 6 {
				_, got := n.try()
				if want := "told"; got == want {
					told++
				} else if got != "refused" || int64(i) < rate {
					t.Fatalf("rate %d, attempt %d: %s", rate, i, got)
				}
			}
			if told != rate {
				t.Errorf("%d were told in a second, expected %d", told, rate)
			}
			n.advance(time.Second)
		}
		n.on(func() { n.reg.ForceAll() })
		n.expectNothing()
	}
}

// The loops' clocks are read at the beginning of their turns: one that is behind does not begin the second anew.
func TestTellByTwoLoops(t *testing.T) {
	lim := &Limits{Soft: 1, Hard: 1, TellPerSec: 2}
	told := 0
	for i := range 20 {
		if lim.tell(int64(5-i%2) * 1e9) { // 5, 4, 5, 4...
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d were told, expected 2", told)
	}
	if !lim.tell(6e9) || !lim.tell(6e9+999_999_999) || lim.tell(6e9) || !lim.tell(7e9) {
		t.Error("the next second has not its own share")
	}
}

// A handler that closes a connection within OnOpen although it is above the limit: its own code goes out.
func TestLimitAndCloseWithinOnOpen(t *testing.T) {
	n := newNode(t, limits(1, 9, 100))
	n.try()
	n.h.open = func(c *Conn) { _ = c.Close(1008, "", CauseLocal) }
	p := n.connect()
	_ = p.read()
	if len(p.all) != 1 || p.all[0].String() != `close 1008 ""` {
		t.Errorf("sent %v", p.all)
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// Configuration faults are all listed, and sound ones pass.
func TestValidate(t *testing.T) {
	var h rec
	for _, test := range []struct {
		name   string
		change func(*Config)
		faults []string
	}{
		{"good", func(*Config) {}, nil},
		{"soft is hard", func(c *Config) { c.Limits = &Limits{Soft: 1, Hard: 1} }, nil},
		{"no endpoint", func(c *Config) { c.Endpoints = nil }, []string{"endpoints"}},
		{"256 endpoints", func(c *Config) {
			c.Endpoints = nil
			for i := range 256 {
				c.Endpoints = append(c.Endpoints, Endpoint{Path: "/" + strings.Repeat("x", i), Handler: &h, MaxMessage: 1})
			}
		}, []string{"endpoints"}},
		{"pending at the limit", func(c *Config) { c.MaxPending = testMaxMessage }, []string{"pending"}},
		{"pending above the limit", func(c *Config) { c.MaxPending = testMaxMessage + 1 }, nil},
		{"16 headers", func(c *Config) { c.MetaHeaders = make([]string, 16) }, nil},
		{"17 headers", func(c *Config) { c.MetaHeaders = make([]string, 17) }, []string{"headers"}},
		{"soft above hard", func(c *Config) { c.Limits = &Limits{Soft: 2, Hard: 1} }, []string{"soft"}},
		{"no soft", func(c *Config) { c.Limits = &Limits{Hard: 1} }, []string{"soft"}},
		{"two of a path", func(c *Config) { c.Endpoints = append(c.Endpoints, c.Endpoints[0]) }, []string{"two endpoints"}},
		{"many", func(c *Config) { c.PingInterval, c.Endpoints[0].Handler, c.MaxPending = 0, nil, 0 }, []string{"timeout", "handler", "pending"}},
	} {
		cfg := testConfig(&h)
		test.change(cfg)
		err := cfg.Validate()
		if (err != nil) != (test.faults != nil) {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, f := range test.faults {
			if err == nil || !strings.Contains(err.Error(), f) {
				t.Errorf("%s: %v does not speak of %s", test.name, err, f)
			}
		}
		if err == nil && (cfg.Issuer == nil || cfg.Log == nil) {
			t.Errorf("%s: not completed", test.name)
		}
	}
	if _, err := NewServer(testConfig(&h), ServerConfig{Loops: maxLoops + 1}); err == nil {
		t.Error("more loops than ids can tell apart")
	}
}
