package conn

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn/clientaddr"
	"github.com/mqgate/mqgate/frame"
)

// trusting trusts the proxies of these tests: the address that peers connect from, and 10.0.0.0/8 behind it.
func trusting(cfg *Config) {
	var err error
	if cfg.Trusted, err = clientaddr.ParseTrusted([]string{"192.0.2.9", "10.0.0.0/8"}); err != nil {
		panic(err)
	}
}

func withProxyProtocol(cfg *Config) { cfg.ProxyProtocol = true }

// proxyV2 is a PROXY header of version 2 for a connection from an IPv4 address; command 0 is LOCAL, 1 PROXY.
func proxyV2(command byte, from string) string {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	b = append(b, 0x20|command, 0x11, 0, 12)
	a := netip.MustParseAddrPort(from)
	ip := a.Addr().As4()
	b = append(b, ip[:]...)
	b = append(b, 192, 0, 2, 1)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	return string(binary.BigEndian.AppendUint16(b, 8080))
}

// L2.3: the remote address is the socket's, unless a trusted proxy says otherwise; never what a client can choose.
func TestRemoteAddress(t *testing.T) {
	const v1 = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n"
	for _, test := range []struct {
		name   string
		change []func(*Config)
		before string // what is sent before the request
		lines  []string
		want   string
	}{
		{"nobody is trusted", nil, "", []string{"X-Forwarded-For: 203.0.113.5"}, "192.0.2.9:1234"},
		{"a proxy that says nothing", []func(*Config){trusting}, "", nil, "192.0.2.9:1234"},
		{"the word of a proxy", []func(*Config){trusting}, "", []string{"X-Forwarded-For: 203.0.113.5"}, "203.0.113.5:0"},
		{"a chain of proxies behind a client that lies", []func(*Config){trusting}, "",
			[]string{"X-Forwarded-For: 198.51.100.1, 203.0.113.5", "X-Forwarded-For: 10.1.2.3"}, "203.0.113.5:0"},
		{"IPv6", []func(*Config){trusting}, "", []string{"X-Forwarded-For: 2001:db8::7"}, "[2001:db8::7]:0"},
		{"PROXY version 1", []func(*Config){trusting, withProxyProtocol}, v1, nil, "203.0.113.7:4711"},
		{"PROXY version 2", []func(*Config){trusting, withProxyProtocol}, proxyV2(1, "203.0.113.8:99"), nil, "203.0.113.8:99"},
		{"a client behind PROXY forges a header", []func(*Config){trusting, withProxyProtocol}, v1,
			[]string{"X-Forwarded-For: 198.51.100.1"}, "203.0.113.7:4711"},
		{"PROXY, then a trusted proxy's header", []func(*Config){trusting, withProxyProtocol},
			"PROXY TCP4 10.9.9.9 192.0.2.1 4711 8080\r\n", []string{"X-Forwarded-For: 203.0.113.5"}, "203.0.113.5:0"},
		{"the proxy's own connection", []func(*Config){trusting, withProxyProtocol}, proxyV2(0, "1.2.3.4:5"),
			[]string{"X-Forwarded-For: 203.0.113.5"}, "192.0.2.9:1234"},
	} {
		for _, size := range []int{1 << 20, 1, 50} {
			n := newNode(t, test.change...)
			p := n.dialIn()
			b := append([]byte(test.before+request(test.lines...)), p.frame(frame.Text, "hello")...)
			for ; len(b) > 0; b = b[min(size, len(b)):] {
				p.Send(b[:min(size, len(b))])
				n.net.Run()
			}
			n.h.expect("open", `text "hello"`)
			if got := n.only().Remote().String(); got != test.want {
				t.Errorf("%s, by %d: %s, expected %s", test.name, size, got, test.want)
			}
			p.read()
			p.sendClose(1000, "")
			p.quit()
			n.expectNothing()
		}
	}
}

// L2.3: with the PROXY protocol on, a connection that does not begin with its header, or whose peer may not speak for
// others, is refused.
func TestProxyHeaderRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change []func(*Config)
		send   string
	}{
		"no header":         {[]func(*Config){trusting, withProxyProtocol}, request()},
		"malformed":         {[]func(*Config){trusting, withProxyProtocol}, "PROXY TCP4 1.2.3.4\r\n"},
		"too long":          {[]func(*Config){trusting, withProxyProtocol}, "PROXY " + strings.Repeat("x", 200)},
		"from anybody":      {[]func(*Config){withProxyProtocol}, "PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n"},
		"off, but sent all": {[]func(*Config){trusting}, "PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n" + request()},
	} {
		for _, size := range []int{1 << 20, 1} {
			n := newNode(t, test.change...)
			p := n.dialIn()
			for b := []byte(test.send); len(b) > 0; b = b[min(size, len(b)):] {
				p.Send(b[:min(size, len(b))])
				n.net.Run()
			}
			p.read()
			if !strings.HasPrefix(p.http, "HTTP/1.1 400 ") {
				t.Errorf("%s, by %d: %q", name, size, p.http)
			}
			n.h.expect()
			p.CloseWrite()
			n.net.Run()
			n.expectNothing()
		}
	}
	// Half a header, or one and nothing behind it, is a handshake that is not done in time (L2.7).
	for _, sent := range []string{"PROXY TCP4 203", "PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n"} {
		n := newNode(t, trusting, withProxyProtocol)
		p := n.dialIn()
		p.Send([]byte(sent))
		n.advance(n.cfg.HandshakeTimeout + time.Second)
		if p.read(); !strings.HasPrefix(p.http, "HTTP/1.1 408 ") || n.reg.Stats().HandshakeTO != 1 {
			t.Errorf("%q: %q", sent, p.http)
		}
		p.CloseWrite()
		n.net.Run()
		n.expectNothing()
	}
}

// L2.1: an Origin that is not allowed gets 403, a request without one comes from no web page.
func TestOrigins(t *testing.T) {
	var err error
	n := newNode(t, func(cfg *Config) {
		if cfg.Origins, err = clientaddr.ParseOrigins([]string{"https://example.com"}); err != nil {
			t.Fatal(err)
		}
	})
	for line, want := range map[string]string{
		"Origin: https://example.com":  "101",
		"Origin: https://evil.example": "403",
		"X-Other: header":              "101",
	} {
		p := n.dialIn()
		p.Send([]byte(request(line)))
		n.net.Run()
		if p.read(); !strings.HasPrefix(p.http, "HTTP/1.1 "+want+" ") {
			t.Errorf("%s: %q, expected %s", line, p.http, want)
		}
		if want == "101" {
			p.sendClose(1000, "")
		}
		p.CloseWrite()
		n.net.Run()
	}
	if got := n.reg.Stats().Refused[refusalIndex(403)]; got != 1 {
		t.Errorf("%d refused with 403", got)
	}
	n.expectNothing()
}

// L2.6: connections per address, below, at and above the limit; what is refused or has ended does not count, whatever
// ended it, and other addresses are not affected.
func TestConnectionsPerAddress(t *testing.T) {
	limiter, err := clientaddr.NewLimiter(clientaddr.LimiterConfig{ConnectionsPerAddress: 2, MaxAddresses: 100})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, noPings, func(cfg *Config) {
		cfg.PerAddress = limiter
		cfg.Limits = &Limits{Soft: 3, Hard: 3, TellPerSec: 100}
	})
	from := func(addr string) *peer {
		p := &peer{Peer: n.net.Client(0, netip.MustParseAddrPort(addr)), t: t, n: n, masks: true}
		p.Send([]byte(request()))
		n.net.Run()
		p.read()
		return p
	}
	status := func(p *peer) string { return p.http[9:12] }
	a, b := from("192.0.2.9:1"), from("192.0.2.9:2")
	c := from("192.0.2.9:3")
	if status(a) != "101" || status(b) != "101" || status(c) != "503" || !strings.Contains(c.http, "Retry-After: 5\r\n") {
		t.Fatalf("three from one address: %s %s %s", status(a), status(b), c.http)
	}
	other := from("198.51.100.1:1")
	full := from("198.51.100.2:1") // above the hard limit: refused, and not counted for its address
	if status(other) != "101" || status(full) != "503" {
		t.Errorf("other addresses: %s %s", status(other), status(full))
	}
	if s := n.reg.Stats(); s.RefusedAddr[clientaddr.TooManyConnections] != 1 || s.Refused[refusalIndex(503)] != 2 {
		t.Errorf("refused for the address %v, with 503 %d", s.RefusedAddr, s.Refused[refusalIndex(503)])
	}
	a.Reset() // lost; the other closes
	n.net.Run()
	b.sendClose(1000, "")
	n.net.Run()
	d, e := from("192.0.2.9:4"), from("192.0.2.9:5") // one lingers still: its connection has ended
	if status(d) != "101" || status(e) != "101" {
		t.Errorf("after two have ended: %s %s", status(d), status(e))
	}
	for _, p := range []*peer{b, c, d, e, other, full} {
		p.CloseWrite()
	}
	n.net.Run()
	n.expectNothing()
	limiter.Sweep(n.net.Now() + int64(10*time.Second))
	if got := limiter.Addresses(); got != 0 {
		t.Errorf("%d addresses are still counted", got)
	}
}

// L2.6: handshakes per address and second.
func TestHandshakesPerAddress(t *testing.T) {
	limiter, err := clientaddr.NewLimiter(clientaddr.LimiterConfig{HandshakesPerSecond: 2, MaxAddresses: 100})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, noPings, func(cfg *Config) { cfg.PerAddress = limiter })
	statuses := ""
	try := func() {
		p := n.dialIn()
		p.Send([]byte(request()))
		n.net.Run()
		p.read()
		statuses += p.http[9:12] + " "
		p.CloseWrite()
		n.net.Run()
	}
	try()
	try()
	try()
	n.advance(500 * time.Millisecond)
	try()
	try()
	if statuses != "101 101 503 101 503 " {
		t.Errorf("statuses %s", statuses)
	}
	if s := n.reg.Stats(); s.RefusedAddr[clientaddr.TooManyHandshakes] != 2 {
		t.Errorf("refused for the address %v", s.RefusedAddr)
	}
	n.expectNothing()
}
