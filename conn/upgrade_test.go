package conn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
)

const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// L2.1: the request in pieces of every kind, with frames right behind it: the answer and what the frames cause are the
// same.
func TestUpgradeInPieces(t *testing.T) {
	script := func(p *peer) []byte {
		b := []byte(request("Cookie: a=b", "X-Long: "+strings.Repeat("y", 3000)))
		b = append(b, p.frame(frame.Text, "first")...)
		b = append(b, p.part(frame.Binary, false, "sec")...)
		b = append(b, p.part(frame.Continuation, true, "ond")...)
		return append(b, p.frame(frame.Close, closeBody(1000, "bye"))...)
	}
	random := rand.New(rand.NewPCG(1, 2))
	chops := map[string]func(rest int) int{
		"whole":      func(rest int) int { return rest },
		"by one":     func(int) int { return 1 },
		"by 7":       func(int) int { return 7 },
		"by 1000":    func(int) int { return 1000 },
		"at the end": func(rest int) int { return max(1, rest-30) },
	}
	for i := range 40 {
		chops[fmt.Sprint("random ", i)] = func(rest int) int { return 1 + random.IntN(1+random.IntN(rest)) }
	}
	for name, chop := range chops {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.dialIn()
			for b := script(p); len(b) > 0; {
				k := min(chop(len(b)), len(b))
				p.Send(b[:k])
				n.net.Run()
				if len(b)%50 == 0 {
					n.check()
				}
				b = b[k:]
			}
			p.expect(`close 1000 "bye"`)
			if p.http != accepted {
				t.Errorf("answer %q", p.http)
			}
			n.h.expect("open", `text "first"`, `binary "second"`, `close 1000 "bye" client`)
			p.quit()
			n.expectNothing()
		})
	}
}

// L2.7: 8 KiB at, below and above, whole and in pieces.
func TestRequestLimit(t *testing.T) {
	base := len(request("X: "))
	for _, size := range []int{handshake.MaxRequest - 1, handshake.MaxRequest, handshake.MaxRequest + 1, 40000} {
		for _, piece := range []int{1 << 20, 1, 4096, 8191, 8192} {
			n := newNode(t)
			p := n.dialIn()
			b := []byte(request("X: " + strings.Repeat("x", size-base)))
			if len(b) != size {
				t.Fatal(len(b))
			}
			for ; len(b) > 0; b = b[min(piece, len(b)):] {
				p.Send(b[:min(piece, len(b))])
				n.net.Run()
			}
			p.read()
			want, refused := "HTTP/1.1 101 ", uint64(0)
			if size > handshake.MaxRequest {
				want, refused = "HTTP/1.1 431 Request Header Fields Too Large\r\n", 1
			}
			if !strings.HasPrefix(p.http, want) || n.reg.Stats().Refused[refusalIndex(431)] != refused {
				t.Errorf("%d bytes by %d: %q", size, piece, p.http)
			}
			if refused == 0 {
				p.sendClose(1000, "")
			} else if c := n.reg.at(0); c.hs != nil {
				t.Error("the request of a refused connection is kept while it lingers")
			}
			p.quit()
			n.expectNothing()
		}
	}
}

// L2.7: --handshake-timeout counts from the beginning: one byte at a time does not extend it. Whoever has begun a
// request is told.
func TestHandshakeTimeout(t *testing.T) {
	for _, began := range []bool{false, true} {
		t.Run(fmt.Sprint("begun: ", began), func(t *testing.T) {
			n := newNode(t)
			p := n.dialIn()
			if began {
				for i := range 99 {
					p.Send([]byte(request())[i : i+1])
					n.advance(100 * time.Millisecond)
				}
			} else {
				n.advance(9900 * time.Millisecond)
			}
			if p.Closed() || p.GotFIN() || n.reg.Stats().HandshakeTO != 0 {
				t.Fatal("too early")
			}
			n.advance(100 * time.Millisecond)
			p.read()
			if s := n.reg.Stats(); s.HandshakeTO != 1 || s.Handshake != 0 {
				t.Errorf("timeouts %d, handshake gauge %d", s.HandshakeTO, s.Handshake)
			}
			if began {
				if !strings.HasPrefix(p.http, "HTTP/1.1 408 ") || n.reg.Stats().Refused[refusalIndex(408)] != 1 {
					t.Errorf("answer %q", p.http)
				}
				p.quit()
			} else {
				p.expectGone()
			}
			n.h.expect()
			n.expectNothing()
		})
	}
}

// A request that ends just before the timeout makes a connection that lives.
func TestHandshakeTimeoutIsOver(t *testing.T) {
	n := newNode(t, noPings)
	p := n.dialIn()
	b := []byte(request())
	p.Send(b[:50])
	n.advance(9990 * time.Millisecond)
	p.Send(b[50:])
	n.advance(time.Hour)
	n.h.expect("open")
	if n.only().State() != Open {
		t.Error(n.only().State())
	}
	p.expect()
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
}

// L2.1: each refusal with its status, its headers, its counter; HEAD without a body; then closed in good order.
func TestRefusals(t *testing.T) {
	cut := func(line string) string { return strings.Replace(request(), line+"\r\n", "", 1) }
	for _, test := range []struct {
		name, request string
		status        int
		header        string
		head          bool
	}{
		{name: "not HTTP", request: "\x16\x03\x01\x02\x00", status: 400},
		{name: "garbage", request: "nonsense\r\n\r\n", status: 400},
		{name: "no key", request: cut("Sec-WebSocket-Key: " + requestKey), status: 400},
		{name: "bare LF", request: "GET /ws HTTP/1.1\nHost: a\n\n", status: 400},
		{name: "path", request: strings.Replace(request(), testPath, "/other", 1), status: 404},
		{name: "path with the endpoint as prefix", request: strings.Replace(request(), testPath, testPath+"/x", 1), status: 404},
		{name: "HEAD of no path", request: "HEAD /other HTTP/1.1\r\nHost: a\r\n\r\n", status: 404, head: true},
		{name: "HEAD", request: "HEAD /ws HTTP/1.1\r\nHost: a\r\n\r\n", status: 405, header: "Allow: GET\r\n", head: true},
		{name: "POST", request: "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", status: 405, header: "Allow: GET\r\n"},
		{name: "plain", request: "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", status: 426, header: "Upgrade: websocket\r\n"},
		{name: "version", request: strings.Replace(request(), "Version: 13", "Version: 8", 1), status: 426, header: "Sec-WebSocket-Version: 13\r\n"},
		{name: "lines", request: request(slices.Repeat([]string{"A: b"}, 200)...), status: 431},
		{name: "HTTP/2", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 505},
	} {
		for _, piece := range []int{1 << 20, 1} {
			t.Run(fmt.Sprint(test.name, " by ", piece), func(t *testing.T) {
				n := newNode(t)
				p := n.dialIn()
				for b := []byte(test.request + "trailing bytes that nobody reads"); len(b) > 0; b = b[min(piece, len(b)):] {
					p.Send(b[:min(piece, len(b))])
					n.net.Run()
				}
				p.read()
				if !strings.HasPrefix(p.http, fmt.Sprintf("HTTP/1.1 %d ", test.status)) || !strings.Contains(p.http, test.header) || (p.body == "") != test.head {
					t.Errorf("answer %q %q", p.http, p.body)
				}
				if !test.head && !strings.Contains(p.http, fmt.Sprintf("\r\nContent-Length: %d\r\n", len(p.body))) {
					t.Errorf("%d bytes of body after %q", len(p.body), p.http)
				}
				s := n.reg.Stats()
				var sum uint64
				for _, v := range s.Refused {
					sum += v
				}
				if s.Refused[refusalIndex(test.status)] != 1 || sum != 1 || s.Handshake != 0 || s.Lingering != 1 || s.Total != 0 {
					t.Errorf("refused %v, handshake %d, lingering %d", s.Refused, s.Handshake, s.Lingering)
				}
				if c := n.reg.at(0); c.hs != nil {
					t.Error("the request is kept while the socket lingers")
				}
				p.quit()
				n.h.expect()
				n.expectNothing()
			})
		}
	}
	for i := range NumRefusals {
		if refusalIndex(RefusalStatus(i)) != i {
			t.Errorf("status %d is counted as %d", RefusalStatus(i), RefusalStatus(refusalIndex(RefusalStatus(i))))
		}
	}
}

// Two endpoints, each with its handler and its limit of a message.
func TestEndpoints(t *testing.T) {
	second := newRec(t)
	n := newNode(t, func(cfg *Config) {
		cfg.Endpoints = append(cfg.Endpoints, Endpoint{Path: "/echo", Handler: second, MaxMessage: 10})
	})
	second.open = func(c *Conn) {
		if c.Endpoint().Path != "/echo" {
			t.Error(c.Endpoint().Path)
		}
	}
	p := n.dialIn()
	p.Send([]byte(strings.Replace(request(), testPath, "/echo?x=1", 1)))
	p.send(frame.Text, "0123456789")
	p.send(frame.Text, "0123456789A")
	p.expect(`close 1009 "message too big"`)
	second.expect("open", `text "0123456789"`, `close 1009 "message too big" message-too-big`)
	p.quit()
	n.h.life = second.life // whose accounts are to agree
	n.expectNothing()
	q := n.dialIn()
	q.Send([]byte(strings.Replace(request(), testPath, "/none", 1)))
	n.net.Run()
	if q.read(); !strings.Contains(q.body, "/ws, /echo") {
		t.Errorf("the 404 %q does not name the paths", q.body)
	}
}

// L2.4: id, meta, remote address and start are set before OnOpen, and the connection is counted by then.
func TestSetBeforeOnOpen(t *testing.T) {
	n := newNode(t, func(cfg *Config) { cfg.MetaHeaders = []string{"User-Agent", "X-A"} })
	for i, remote := range []string{"192.0.2.9:1234", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1"} {
		addr := netip.MustParseAddrPort(remote)
		want := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		n.h.open = func(c *Conn) {
			s := c.Registry().Stats()
			if s.Total != uint64(i+1) || s.Open != 1 || s.Handshake != 0 || c.Registry().Entries() != 1 {
				t.Errorf("total %d, open %d, handshake %d", s.Total, s.Open, s.Handshake)
			}
			if c.Remote() != want {
				t.Errorf("remote %v, expected %v", c.Remote(), want)
			}
			if len(c.ID().String()) != IDLen || !n.cfg.Issuer.Verify(c.ID()) || c.Registry().Find(c.ID()) != c {
				t.Errorf("id %v", c.ID())
			}
			if got := c.Meta(); !slices.Equal(got, []string{"tester", ""}) {
				t.Errorf("meta %q", got)
			}
			if d := time.Since(c.Start()); d < 0 || d > time.Minute {
				t.Errorf("start %v", c.Start())
			}
			if c.User != 0 || c.RTT() != 0 || c.Draining() || c.Pending() == 0 { // the answer is pending
				t.Errorf("user %d, rtt %v, draining %v, pending %d", c.User, c.RTT(), c.Draining(), c.Pending())
			}
			c.User = 7
		}
		p := &peer{Peer: n.net.Client(0, addr), t: t, n: n, masks: true}
		p.Send([]byte(request("User-Agent: tester")))
		n.net.Run()
		n.check()
		p.sendClose(1000, "")
		p.quit()
		n.expectNothing()
	}
}

// L2.4: header values are cut, kept once however many connections sent them, and go with the last of these.
func TestMeta(t *testing.T) {
	n := newNode(t, func(cfg *Config) { cfg.MetaHeaders = []string{"User-Agent", "X-A"} })
	var got [][]string
	n.h.open = func(c *Conn) { got = append(got, c.Meta()) }
	connect := func(lines ...string) *peer {
		p := n.dialIn()
		p.Send([]byte(request(lines...)))
		n.net.Run()
		p.read()
		return p
	}
	long := strings.Repeat("v", maxMetaValue)
	peers := []*peer{
		connect(), connect("X-Other: 1"), connect("User-Agent:", "X-A: "),
		connect("User-Agent: u"), connect("user-agent:  u "), connect("X-A: a", "User-Agent: u"), connect("X-A: u"),
		connect("X-A: " + long[1:]), connect("X-A: " + long), connect("X-A: " + long + "!"),
		connect("X-A: a", "User-Agent: u"),
	}
	want := [][]string{
		{"", ""}, {"", ""}, {"", ""},
		{"u", ""}, {"u", ""}, {"u", "a"}, {"", "u"},
		{"", long[1:]}, {"", long}, {"", long},
		{"u", "a"},
	}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("connection %d: %q, expected %q", i, got[i], want[i])
		}
	}
	if len(n.reg.metas.index) != 5 {
		t.Errorf("%d sets of values are kept, expected 5", len(n.reg.metas.index))
	}
	if &got[5][0] != &got[10][0] {
		t.Error("equal values are kept twice")
	}
	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(len(peers)) {
		peers[i].sendClose(1000, "")
		peers[i].quit()
		n.check()
	}
	n.expectNothing()
	entries := len(n.reg.metas.entries)
	p := connect("User-Agent: another")
	if len(n.reg.metas.entries) != entries {
		t.Error("free entries are not used again")
	}
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
}
