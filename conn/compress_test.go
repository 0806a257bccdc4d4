package conn

import (
	"bytes"
	"compress/flate"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
)

// compressing gives a node compression; min is the smallest message that is compressed.
func compressing(mode deflate.Mode, min int) func(*Config) {
	return func(cfg *Config) {
		cfg.Compression = handshake.Compression{Mode: mode, WindowBits: deflate.MaxWindowBits}
		cfg.CompressMin = min
	}
}

// offering connects a client that offers compression and checks the answer: "" for none.
func (n *node) offering(offer, answer string) *peer {
	n.t.Helper()
	p := n.dialIn()
	p.Send([]byte(request("Sec-WebSocket-Extensions: " + offer)))
	n.net.Run()
	p.read()
	_, got, _ := strings.Cut(p.http, "Sec-WebSocket-Extensions: ")
	got, _, _ = strings.Cut(got, "\r\n")
	if !strings.HasPrefix(p.http, "HTTP/1.1 101 ") || got != answer {
		n.t.Fatalf("offered %q: answered %q in %q, expected %q", offer, got, p.http, answer)
	}
	if answer != "" {
		p.inflate = inflater(n.t, strings.Contains(answer, "server_no_context_takeover"))
	}
	return p
}

// inflater inflates messages by the standard library, each for itself or with what came before it.
func inflater(t testing.TB, alone bool) func([]byte) []byte {
	var window []byte
	return func(p []byte) []byte {
		tail := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff} // the end that was taken off, and a last block
		r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), bytes.NewReader(tail)), window)
		plain, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("a compressed message of %d bytes: %v", len(p), err)
		}
		if !alone {
			window = append(window, plain...)
			window = window[max(0, len(window)-1<<15):]
		}
		return plain
	}
}

// deflated returns p as a compressed message whose window is dict.
func deflated(t testing.TB, p, dict string) string {
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, []byte(dict))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(p)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// sendPacked sends a compressed message.
func (p *peer) sendPacked(op frame.OpCode, payload string) {
	b := p.frame(op, payload)
	b[0] |= 0x40
	p.Send(b)
	p.n.net.Run()
}

func (h *rec) echo() { h.message = func(c *Conn, op frame.OpCode, p []byte) { _ = c.Send(op, p) } }

// The answers of both modes, and that messages in both directions are what was sent: below, at and above the smallest
// message that is compressed, and one that does not become shorter.
func TestCompression(t *testing.T) {
	text := strings.Repeat("a message that is compressible, ", 10)
	for mode, answer := range map[deflate.Mode]string{
		deflate.Shared:   "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		deflate.Takeover: "permessage-deflate",
	} {
		n := newNode(t, compressing(mode, 200), noPings)
		n.h.echo()
		p := n.offering("permessage-deflate; client_max_window_bits", answer)
		for _, size := range []int{0, 1, 199} {
			p.send(frame.Text, text[:size])
			p.read()
			if f := p.all[len(p.all)-1]; f.packed || f.payload != text[:size] {
				t.Errorf("%v, %d bytes: %v", mode, size, f)
			}
		}
		window := ""
		for _, size := range []int{200, 201, len(text)} {
			dict := window
			if mode == deflate.Shared {
				dict = ""
			}
			p.sendPacked(frame.Text, deflated(t, text[:size], dict))
			window += text[:size]
			p.read()
			if f := p.all[len(p.all)-1]; !f.packed || f.payload != text[:size] {
				t.Errorf("%v, %d bytes: %v", mode, size, f)
			}
		}
		if mode == deflate.Shared {
			window = ""
		}
		saved := n.reg.Stats().CompressionSaved
		p.sendPacked(frame.Binary, deflated(t, text, window))
		p.expect(wire{op: frame.Binary, payload: text, packed: true}.String())
		// It is a repetition: with takeover little more than a reference to what was sent before.
		if left := len(text) - int(n.reg.Stats().CompressionSaved-saved); (left < 20) != (mode == deflate.Takeover) {
			t.Errorf("%v: a repetition takes %d bytes", mode, left)
		}
		p.send(frame.Binary, string(random(300)))
		p.read()
		if f := p.all[len(p.all)-1]; f.packed || len(f.payload) != 300 {
			t.Errorf("%v: noise: %v", mode, f)
		}
		p.send(frame.Ping, strings.Repeat("p", 125))
		p.expect("pong 125 bytes")
		s := n.reg.Stats()
		if s.CompressedReceived != 4 || s.CompressedSent != 4 || s.CompressionSaved < 100 ||
			s.CompressedShared+s.CompressedTakeover != 1 || (s.CompressedTakeover == 1) != (mode == deflate.Takeover) {
			t.Errorf("%v: counted %+v", mode, s)
		}
		n.finish(p)
	}
}

// random returns n bytes that cannot be compressed.
func random(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// Without an offer, with one that is declined, or with compression off, nothing is compressed, and RSV1 is a broken
// protocol.
func TestNoCompression(t *testing.T) {
	for _, c := range []struct {
		mode  deflate.Mode
		offer string
	}{{deflate.Off, "permessage-deflate"}, {deflate.Shared, "x-other"}, {deflate.Takeover, "permessage-deflate; server_max_window_bits=7"}} {
		n := newNode(t, compressing(c.mode, 0), noPings)
		n.h.echo()
		p := n.offering(c.offer, "")
		p.send(frame.Text, strings.Repeat("x", 1000))
		p.expect("text 1000 bytes")
		p.sendPacked(frame.Text, deflated(t, "hello", ""))
		if got := p.read(); len(got) != 1 || got[0].op != frame.Close || !strings.HasPrefix(got[0].payload, "\x03\xea") {
			t.Errorf("%+v: RSV1 led to %v", c, got)
		}
		if n.reg.packer.takeovers != nil {
			t.Error("memory was taken for takeover")
		}
		p.quit()
		n.expectNothing()
	}
}

// What breaks DEFLATE closes with 1007, and is a broken protocol in the counters, not a text that is no UTF-8, which it
// may be as well.
func TestBrokenCompression(t *testing.T) {
	for what, c := range map[string]struct {
		payload string
		cause   Cause
		code    uint16
	}{
		"broken": {"\xff\xff\xff", CauseProtocol, 1007}, "no text": {deflated(t, "abc\xff", ""), CauseBadUTF8, 1007},
		"a bomb": {deflated(t, strings.Repeat("\x00", testMaxMessage+1), ""), CauseTooBig, 1009},
	} {
		n := newNode(t, compressing(deflate.Shared, 0), noPings)
		p := n.offering("permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
		p.sendPacked(frame.Text, c.payload)
		if n.reg.Stats().Disconnects[c.cause][codeIndex(c.code)] != 1 {
			t.Errorf("%s: %v", what, n.h.calls)
		}
		p.quit()
		n.expectNothing()
	}
}

// A broadcast is compressed once for all who can read it alike, and each reads it, whatever was agreed on; what comes
// next on connections with takeover refers to it.
func TestPreparedCompressed(t *testing.T) {
	n := newNode(t, compressing(deflate.Takeover, 10), noPings)
	peers := []*peer{
		n.connect(),
		n.offering("permessage-deflate", "permessage-deflate"),
		n.offering("permessage-deflate", "permessage-deflate"),
		n.offering("permessage-deflate; server_no_context_takeover; client_no_context_takeover",
			"permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
		n.offering("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
	}
	text := strings.Repeat("to everybody, ", 200)
	small, noise := Prepare(frame.Text, []byte("hi")), Prepare(frame.Binary, random(2000))
	big := Prepare(frame.Text, []byte(text))
	for _, p := range []*Prepared{big, small, noise} {
		n.on(func() {
			n.reg.Each(func(c *Conn) {
				if err := c.SendPrepared(p); err != nil {
					t.Error(err)
				}
			})
		})
	}
	n.on(func() {
		n.reg.Each(func(c *Conn) { _ = c.Send(frame.Text, []byte(text)) })
	})
	for i, p := range peers {
		got := p.read()
		if len(got) != 4 || got[0].payload != text || got[1].payload != "hi" || got[2].payload != string(random(2000)) ||
			got[3].payload != text {
			t.Fatalf("peer %d got %v", i, got)
		}
		if got[0].packed != (i > 0) || got[1].packed || got[2].packed || got[3].packed != (i > 0) {
			t.Errorf("peer %d: %v", i, got)
		}
	}
	if s := n.reg.Stats(); s.CompressedSent != 8 { // of 20: two on each of the four connections that compress
		t.Errorf("%d messages are counted as compressed", s.CompressedSent)
	}
	if made := countForms(big); made != 2 { // one for all with a window as long as the message, one for that of 512 bytes
		t.Errorf("%d compressed forms", made)
	}
	n.finish(peers...)
}

func countForms(p *Prepared) (n int) {
	for _, f := range p.frames.kinds {
		if f.frame != nil {
			n++
		}
	}
	return n
}

// The memory of takeover is bounded: whoever comes when nothing is left goes on without, and the share comes back with
// whatever ends the connection.
func TestTakeoverBudget(t *testing.T) {
	share := deflate.Params{ServerMaxWindowBits: 15, ClientMaxWindowBits: 15}.Memory(true)
	n := newNode(t, compressing(deflate.Takeover, 10), noPings, func(cfg *Config) { cfg.Takeovers = deflate.NewBudget(int64(2*share + share - 1)) })
	n.h.echo()
	const with, without = "permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	a, b := n.offering(with, with), n.offering(with, with)
	c := n.offering(with, without)
	if s := n.reg.Stats(); s.CompressedTakeover != 2 || s.CompressedShared != 1 {
		t.Errorf("with takeover %d, without %d", s.CompressedTakeover, s.CompressedShared)
	}
	for _, p := range []*peer{a, b, c} {
		p.sendPacked(frame.Text, deflated(t, strings.Repeat("x", 100), ""))
		p.expect("packed text 100 bytes")
	}
	a.Reset()
	n.net.Run()
	d := n.offering(with, with) // a's share, in a's slot
	if d.sendPacked(frame.Text, deflated(t, strings.Repeat("y", 100), "")); n.reg.Stats().Open != 3 {
		t.Error("the next connection of the slot has a window already")
	}
	d.expect("packed text 100 bytes")
	n.on(func() { n.reg.at(1).closeFor(CauseDrain) })
	n.advance(6 * time.Second) // b is forced
	e := n.offering(with, with)
	if left := n.cfg.Takeovers.Left(); left != int64(share-1) {
		t.Errorf("%d bytes are left, expected %d", left, share-1)
	}
	e.sendClose(1000, "")
	if left := n.cfg.Takeovers.Left(); left != int64(2*share-1) {
		t.Errorf("%d bytes are left while a socket lingers, expected %d", left, 2*share-1)
	}
	e.quit()
	n.finish(c, d)
	if left := n.cfg.Takeovers.Left(); left != int64(3*share-1) {
		t.Errorf("%d bytes are left in the end, expected %d", left, 3*share-1)
	}
}

// Both roles of ours agree with each other, in each mode, with messages that fit into the kernel in small pieces.
func TestCompressedClient(t *testing.T) {
	for _, mode := range []deflate.Mode{deflate.Off, deflate.Shared, deflate.Takeover} {
		server := newNode(t, compressing(deflate.Takeover, 20), noPings)
		server.h.echo()
		client := newNode(t, asClient, compressing(mode, 20), noPings)
		text := strings.Repeat("as client, ", 50)
		sent := 0
		client.h.open = func(c *Conn) { _ = c.Send(frame.Text, []byte(text)) }
		client.h.message = func(c *Conn, op frame.OpCode, p []byte) {
			if string(p) != text {
				t.Errorf("%v: the echo is %q", mode, p)
			}
			if sent++; sent < 10 {
				b, err := c.Reserve(op, len(text))
				if err != nil {
					t.Fatal(err)
				}
				copy(b, text)
				c.Commit(b)
			} else {
				_ = c.Close(1000, "", CauseLocal)
			}
		}
		far, near := client.dial(0).Peer, server.net.Client(0, clientAddr)
		for range 200 {
			near.Send(far.Take())
			server.net.Run()
			far.Send(near.Take())
			client.net.Run()
		}
		if sent != 10 || client.reg.Stats().Open != 0 || server.reg.Stats().Open != 0 {
			t.Errorf("%v: %d echoes, open %d and %d", mode, sent, client.reg.Stats().Open, server.reg.Stats().Open)
		}
		packed := uint64(10)
		if mode == deflate.Off {
			packed = 0
		}
		for _, s := range []Stats{client.reg.Stats(), server.reg.Stats()} {
			if s.CompressedSent != packed || s.CompressedReceived != packed || (s.CompressedTakeover == 1) != (mode == deflate.Takeover) {
				t.Errorf("%v: sent %d, received %d compressed, takeover %d", mode, s.CompressedSent, s.CompressedReceived, s.CompressedTakeover)
			}
		}
		near.CloseWrite()
		server.advance(time.Minute)
		far.CloseWrite()
		client.advance(time.Minute)
		server.expectNothing()
		client.expectNothing()
	}
}

// A server that answers what was not offered, or more than that, is not spoken to.
func TestCompressionNotOffered(t *testing.T) {
	for mode, answer := range map[deflate.Mode]string{deflate.Off: "permessage-deflate", deflate.Shared: "permessage-deflate",
		deflate.Takeover: "permessage-deflate; client_max_window_bits"} {
		n := newNode(t, asClient, compressing(mode, 0))
		p := n.dial(7)
		extension := "\r\nSec-WebSocket-Extensions: " + answer + "\r\n\r\n"
		p.Send([]byte(strings.TrimSuffix(p.answer(), "\r\n\r\n") + extension))
		n.net.Run()
		if len(n.h.calls) != 1 || !strings.HasPrefix(n.h.calls[0], "failed 7: ") || n.reg.Stats().Total != 0 {
			t.Errorf("%v: %v", mode, n.h.calls)
		}
		n.expectNothing()
	}
}

// The rest of the scratch memory goes with Trim, and what comes next is compressed as before.
func TestTrimCompression(t *testing.T) {
	n := newNode(t, compressing(deflate.Shared, 0), noPings)
	n.h.echo()
	p := n.offering("permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
	for range 2 {
		p.sendPacked(frame.Text, deflated(t, strings.Repeat("x", 1000), ""))
		p.expect("packed text 1000 bytes")
		if cap(n.reg.packer.plain) == 0 {
			t.Error("nothing is kept for the next message")
		}
		n.on(n.reg.Trim)
		if k := &n.reg.packer; k.plain != nil || k.packed != nil || !reflect.ValueOf(&k.comp).Elem().IsZero() {
			t.Error("something is kept after Trim")
		}
	}
	n.finish(p)
}

// A message that was begun and given up changes nothing for the next one, of whatever connection.
func TestReservedAndGivenUp(t *testing.T) {
	n := newNode(t, compressing(deflate.Shared, 10), noPings)
	packs := n.offering("permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
	plain := n.connect()
	n.on(func() {
		if _, err := n.reg.at(0).Reserve(frame.Binary, 1000); err != nil {
			t.Fatal(err)
		}
		b, err := n.reg.at(1).Reserve(frame.Text, 5)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, "plain")
		n.reg.at(1).Commit(b)
	})
	plain.expect(`text "plain"`)
	packs.expect()
	n.finish(plain, packs)
}
