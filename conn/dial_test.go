package conn

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
)

// dialing is what a test's Dial uses; failures are written down as calls.
func (n *node) dialing() *DialConfig {
	return &DialConfig{Addr: serverAddr, Host: "gate", Path: testPath, Origin: "http://o", Protocol: "mq",
		Header: []handshake.Header{{Name: "User-Agent", Value: "test"}},
		Failed: func(user uint32, err error) { n.h.calls = append(n.h.calls, fmt.Sprintf("failed %d: %v", user, err)) }}
}

// dial starts a connection and returns the server's end of it.
func (n *node) dial(user uint32) *peer {
	n.t.Helper()
	n.on(func() {
		if err := n.reg.Dial(n.dialing(), netip.Addr{}, user); err != nil {
			n.t.Fatal(err)
		}
	})
	d := n.net.Dialed()
	if len(d) != 1 {
		n.t.Fatalf("%d sockets were dialled", len(d))
	}
	return &peer{Peer: d[0], t: n.t, n: n}
}

// answer is the server's good answer to the request that the peer has read.
func (p *peer) answer() string {
	p.t.Helper()
	p.read()
	_, rest, ok := strings.Cut(p.http, "Sec-WebSocket-Key: ")
	if !ok {
		p.t.Fatalf("request %q", p.http)
	}
	key, _, _ := strings.Cut(rest, "\r\n")
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 16 {
		p.t.Fatalf("key %q", key)
	}
	return string(handshake.AppendResponse(nil, []byte(key), nil, nil))
}

// dialed is a connection that is open.
func (n *node) dialed() *peer {
	n.t.Helper()
	p := n.dial(0)
	p.Send([]byte(p.answer()))
	n.net.Run()
	return p
}

// The client role: request, answer, frames behind it, in pieces of every size; an interim answer is passed over.
func TestDial(t *testing.T) {
	for _, piece := range []int{1 << 20, 1, 7, 100} {
		n := newNode(t, asClient, noPings)
		n.h.open = func(c *Conn) {
			if c.User != 42 || c.Remote() != serverAddr || c.Endpoint().Path != testPath || len(c.Meta()) != 0 {
				t.Errorf("user %d, remote %v", c.User, c.Remote())
			}
			_ = c.Send(frame.Text, []byte("hello"))
		}
		p := n.dial(42)
		n.check()
		answer := p.answer()
		for _, want := range []string{"GET /ws HTTP/1.1\r\nHost: gate\r\n", "\r\nOrigin: http://o\r\n", "\r\nSec-WebSocket-Protocol: mq\r\n", "\r\nUser-Agent: test\r\n"} {
			if !strings.Contains(p.http, want) {
				t.Errorf("request %q without %q", p.http, want)
			}
		}
		b := []byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer)
		b = append(b, p.frame(frame.Text, "welcome")...)
		b = append(b, p.part(frame.Binary, false, "a")...)
		b = append(b, p.frame(frame.Ping, "?")...)
		b = append(b, p.part(frame.Continuation, true, "b")...)
		for ; len(b) > 0; b = b[min(piece, len(b)):] {
			p.Send(b[:min(piece, len(b))])
			n.net.Run()
			n.check()
		}
		n.h.expect("open", `text "welcome"`, `binary "ab"`)
		got := fmt.Sprint(p.read()) // a pong goes ahead of data that waits
		if got != `[text "hello" pong "?"]` && got != `[pong "?" text "hello"]` {
			t.Errorf("sent %s", got)
		}
		p.sendClose(1000, "bye")
		p.expect(`close 1000 "bye"`)
		n.h.expect(`close 1000 "bye" client`)
		if p.Closed() || p.GotFIN() {
			t.Error("L1.8: the client waits for the server's FIN")
		}
		p.CloseWrite()
		n.net.Run()
		p.expectGone()
		n.expectNothing()
	}
}

// L1.8: the client that closes waits for the server's Close and then its FIN, no longer than --close-timeout each.
func TestClientCloses(t *testing.T) {
	for name, fin := range map[string]bool{"FIN": true, "no FIN": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, asClient)
			p := n.dialed()
			n.on(func() { _ = n.only().Close(1000, "byebye", CauseLocal) })
			p.expect(`close 1000 "byebye"`)
			p.sendClose(1000, "")
			n.h.expect("open", `close 1000 "" local`)
			n.advance(4900 * time.Millisecond)
			if p.GotFIN() || p.Closed() || n.reg.Stats().Lingering != 1 {
				t.Fatalf("FIN %v, closed %v", p.GotFIN(), p.Closed())
			}
			if fin {
				p.CloseWrite()
				n.net.Run()
			} else {
				n.advance(100 * time.Millisecond)
			}
			p.expectGone()
			n.expectNothing()
		})
	}
}

// Dials that fail: Failed is called once with the user value, the handler never, nothing is left.
func TestDialFails(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(n *node, p *peer)
		want string
	}{
		{"403", func(n *node, p *peer) { p.Send([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) },
			"failed 9: the server refused the upgrade with 403 Forbidden"},
		{"503", func(n *node, p *peer) { p.Send([]byte("HTTP/1.1 503 Full\r\nRetry-After: 5\r\n\r\nbody")) },
			"failed 9: the server refused the upgrade with 503 Full, to be tried again in 5s"},
		{"wrong accept", func(n *node, p *peer) {
			p.Send([]byte(strings.Replace(p.answer(), "Accept: ", "Accept: x", 1)))
		}, "failed 9: invalid answer to the upgrade: Sec-WebSocket-Accept is missing, repeated, or not the one for our key"},
		{"garbage", func(n *node, p *peer) { p.Send([]byte("\x00\x01\x02\r\n\r\n")) }, "failed 9: invalid answer to the upgrade: malformed status line"},
		{"too long", func(n *node, p *peer) { p.Send([]byte("HTTP/1.1 101 X\r\nA: " + strings.Repeat("x", 9000))) }, "failed 9: the answer to the upgrade request is longer than 8 KiB"},
		{"too long, slowly", func(n *node, p *peer) {
			for _, b := range []byte("HTTP/1.1 101 X\r\nA: " + strings.Repeat("x", 9000)) {
				p.Send([]byte{b})
				n.net.Run()
			}
		}, "failed 9: the answer to the upgrade request is longer than 8 KiB"},
		{"FIN", func(n *node, p *peer) { p.Send([]byte("HTTP/1.1 101")); n.net.Run(); p.CloseWrite() }, "failed 9: connection closed during the handshake"},
		{"RST", func(n *node, p *peer) { p.Reset() }, "failed 9: connection reset by peer"},
		{"silence", func(n *node, p *peer) { n.advance(10 * time.Second) }, "failed 9: the handshake was not done in time"},
		{"ForceAll", func(n *node, p *peer) { n.on(func() { n.reg.ForceAll() }) }, "failed 9: the server is draining"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t, asClient)
			p := n.dial(9)
			p.read()
			test.do(n, p)
			n.net.Run()
			n.h.expect(test.want)
			if !p.Closed() {
				t.Error("not closed")
			}
			n.expectNothing()
		})
	}
	n := newNode(t, asClient)
	n.net.Refuse = syscall.ECONNREFUSED
	n.dial(3)
	n.h.expect("failed 3: connect to 192.0.2.1:8080: connection refused")
	n.expectNothing()
	// Failed may dial again at once, and may be nil.
	d := n.dialing()
	again := 0
	d.Failed = func(uint32, error) {
		if again++; again < 5 {
			if err := n.reg.Dial(d, netip.Addr{}, 0); err != nil {
				t.Error(err)
			}
		}
	}
	n.on(func() { _ = n.reg.Dial(d, netip.Addr{}, 0) })
	n.net.Run()
	if again != 5 {
		t.Errorf("%d attempts", again)
	}
	d.Failed = nil
	n.on(func() { _ = n.reg.Dial(d, netip.Addr{}, 0) })
	n.expectNothing()
}

// A client's frames are masked, each with a key of its own; what it is sent must not be.
func TestClientMasks(t *testing.T) {
	n := newNode(t, asClient)
	p := n.dialed()
	n.on(func() {
		for range 3 {
			_ = n.only().Send(frame.Text, []byte("abcdabcd"))
		}
	})
	raw := p.Take()
	keys := make(map[string]bool)
	for i := 0; i+14 <= len(raw); i += 14 {
		keys[string(raw[i+2:i+6])] = true
	}
	if len(raw) != 42 || len(keys) != 3 {
		t.Errorf("%d bytes, %d different keys", len(raw), len(keys))
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("SendPrepared by a client does not panic")
			}
		}()
		_ = n.only().SendPrepared(Prepare(frame.Text, nil))
	}()
	p.Send(frame.AppendMaskedFrame(nil, frame.Text, true, []byte("x"), [4]byte{1}))
	n.net.Run()
	p.expect(`close 1002 "frame from a server masked"`)
	n.h.expect("open", `close 1002 "frame from a server masked" protocol`)
	p.CloseWrite()
	n.net.Run()
	n.expectNothing()
}

// Dial is for the client role.
func TestDialByServer(t *testing.T) {
	n := newNode(t)
	defer func() {
		if recover() == nil {
			t.Error("Dial by a server does not panic")
		}
	}()
	_ = n.reg.Dial(n.dialing(), netip.Addr{}, 0)
}

// pair is a client registry and a server registry, whose sockets are joined: L1.2, the same machine at both ends.
type pair struct {
	client, server *node
	links          []*link
}

type link struct {
	dialed, accepted *peer
	sent             [2][]byte // client to server, server to client: everything, for the checker
	fin              [2]bool
}

func newPair(t *testing.T, change ...func(*Config)) *pair {
	return &pair{client: newNode(t, append([]func(*Config){asClient}, change...)...), server: newNode(t, change...)}
}

func (w *pair) dial(user uint32) *link {
	c := w.client.dial(user)
	l := &link{dialed: c, accepted: &peer{Peer: w.server.net.Client(0, clientAddr), t: w.server.t, n: w.server, masks: true}}
	w.links = append(w.links, l)
	w.shuttle()
	return l
}

// shuttle carries bytes and FINs until nothing moves.
func (w *pair) shuttle() {
	for moved := true; moved; {
		moved = false
		w.client.net.Run()
		w.server.net.Run()
		for _, l := range w.links {
			for i, ends := range [][2]*peer{{l.dialed, l.accepted}, {l.accepted, l.dialed}} {
				if b := ends[0].Take(); len(b) > 0 {
					l.sent[i] = append(l.sent[i], b...)
					ends[1].Send(b)
					moved = true
				}
				if ends[0].GotFIN() && !l.fin[i] {
					l.fin[i], moved = true, true
					if ends[0].GotReset() {
						ends[1].Reset()
					} else {
						ends[1].CloseWrite()
					}
				}
			}
		}
	}
}

// advance moves both clocks together.
func (w *pair) advance(d time.Duration) {
	for ; d > 0; d -= 10 * time.Millisecond {
		w.client.advance(10 * time.Millisecond)
		w.server.advance(10 * time.Millisecond)
		w.shuttle()
		if d%time.Second == 0 {
			w.client.check()
			w.server.check()
		}
	}
}

// frames parses all that was sent one way with the strict parser: one Close frame at most, and nothing after it.
func (l *link) frames(i int) []string {
	from := []*peer{l.accepted, l.dialed}[i] // who received it
	check := &peer{Peer: from.Peer, t: from.t, masks: i == 1, rest: l.sent[i]}
	var got []string
	for _, f := range check.read() {
		got = append(got, f.String())
	}
	return got
}

func (w *pair) expectNothing() {
	w.client.expectNothing()
	w.server.expectNothing()
}

// L1.2, L1.3, L1.4, L1.5: the sequences of the close handshake with our own machine at both ends.
func TestBothEnds(t *testing.T) {
	closeAll := func(n *node, code int, reason string) {
		n.net.Loop.PostFunc(func() { n.reg.Each(func(c *Conn) { _ = c.Close(code, reason, CauseLocal) }) })
	}
	for _, test := range []struct {
		name             string
		do               func(w *pair)
		client, server   []string
		toServer, toPeer string
	}{
		{"client closes", func(w *pair) { closeAll(w.client, 1000, "c") },
			[]string{"open", `close 1000 "c" local`}, []string{"open", `close 1000 "c" client`}, `[close 1000 "c"]`, `[close 1000 "c"]`},
		{"server closes", func(w *pair) { closeAll(w.server, 4001, "s") },
			[]string{"open", `close 4001 "s" client`}, []string{"open", `close 4001 "s" local`}, `[close 4001 "s"]`, `[close 4001 "s"]`},
		{"both close", func(w *pair) { closeAll(w.server, 4001, "s"); closeAll(w.client, 1000, "c") },
			[]string{"open", `close 4001 "s" local`}, []string{"open", `close 1000 "c" local`}, `[close 1000 "c"]`, `[close 4001 "s"]`},
		{"messages, then close", func(w *pair) {
			w.client.net.Loop.PostFunc(func() {
				w.client.reg.Each(func(c *Conn) {
					_ = c.Send(frame.Text, []byte("one"))
					_ = c.Send(frame.Binary, []byte("two"))
					_ = c.Close(1000, "", CauseLocal)
				})
			})
		}, []string{"open", `close 1000 "" local`}, []string{"open", `text "one"`, `binary "two"`, `close 1000 "" client`},
			`[text "one" binary "two" close 1000 ""]`, `[close 1000 ""]`},
		{"server dies", func(w *pair) { w.server.on(func() { w.server.reg.ForceAll() }) },
			[]string{"open", "error connection reset by peer", `close 1006 "socket-error" socket-error`}, []string{"open", `close 1006 "forced" forced`}, `[]`, `[]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newPair(t)
			l := w.dial(1)
			test.do(w)
			w.shuttle()
			w.client.h.expect(test.client...)
			w.server.h.expect(test.server...)
			if a, b := fmt.Sprint(l.frames(0)), fmt.Sprint(l.frames(1)); a != test.toServer || b != test.toPeer {
				t.Errorf("sent %s and %s, expected %s and %s", a, b, test.toServer, test.toPeer)
			}
			w.expectNothing() // without waiting: FIN by the server, then by the client (L1.4, L1.8)
		})
	}
}

// L1.2, L7.1: both ends ping each other and live; when one falls silent the other ends.
func TestBothEndsHeartbeat(t *testing.T) {
	w := newPair(t)
	for i := range 10 {
		w.dial(uint32(i))
	}
	w.advance(3 * time.Minute)
	for _, n := range []*node{w.client, w.server} {
		s := n.reg.Stats()
		if s.Open != 10 || s.MessagesSent[KindPing] < 80 || s.PongsUnsolicited != 0 || s.MessagesReceived[KindPong] != s.MessagesSent[KindPing] {
			t.Errorf("open %d, pings %d, pongs %d, unsolicited %d", s.Open, s.MessagesSent[KindPing], s.MessagesReceived[KindPong], s.PongsUnsolicited)
		}
	}
	w.server.on(func() { w.server.reg.StartDrain(1000) })
	w.server.h.drain = func(c *Conn) { _ = c.CloseFor(CauseDrain) }
	w.server.on(func() { w.server.reg.StartDrain(1000) })
	w.advance(100 * time.Millisecond)
	w.expectNothing()
	if s := w.server.reg.Stats(); s.Disconnects[CauseDrain][codeIndex(3333)] != 10 {
		t.Errorf("%d by drain", s.Disconnects[CauseDrain][codeIndex(3333)])
	}
	// A server that drains refuses the upgrade, and the client is told so.
	w.client.h.calls = nil
	w.dial(5)
	if len(w.client.h.calls) != 1 || !strings.HasPrefix(w.client.h.calls[0], "failed 5: the server refused the upgrade with 503") {
		t.Errorf("calls %q", w.client.h.calls)
	}
	w.expectNothing()
}

// A StatusError can be told from others by its type.
func TestDialErrorTypes(t *testing.T) {
	n := newNode(t, asClient)
	d := n.dialing()
	var got error
	d.Failed = func(_ uint32, err error) { got = err }
	n.on(func() { _ = n.reg.Dial(d, netip.Addr{}, 0) })
	n.net.Dialed()[0].Send([]byte("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n"))
	n.net.Run()
	var status *handshake.StatusError
	if !errors.As(got, &status) || status.Status != 503 || status.RetryAfter != 7*time.Second {
		t.Errorf("%v", got)
	}
	n.net.Refuse = syscall.ENETUNREACH
	n.on(func() { _ = n.reg.Dial(d, netip.Addr{}, 0) })
	if !errors.Is(got, syscall.ENETUNREACH) {
		t.Errorf("%v", got)
	}
	n.expectNothing()
}
