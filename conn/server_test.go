package conn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/mqgate/mqgate/frame"
)

// The tests of this file run on real sockets.

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// counting echoes, and closes on the message "close me"; it is used by several loops.
type counting struct{ opened, closed, wrong atomic.Int64 }

func (h *counting) OnOpen(c *Conn) {
	h.opened.Add(1)
	c.User = 1
}
func (h *counting) OnMessage(c *Conn, op frame.OpCode, p []byte) {
	if c.User != 1 {
		h.wrong.Add(1)
	}
	if string(p) == "close me" {
		_ = c.Close(4242, "as you wish", CauseLocal)
		return
	}
	_ = c.Send(op, p)
}
func (h *counting) OnPong(*Conn, time.Duration) {}
func (h *counting) OnDrain(c *Conn)             { _ = c.CloseFor(CauseDrain) }
func (h *counting) OnError(*Conn, error)        {}
func (h *counting) OnClose(c *Conn, _ End) {
	if c.User != 1 {
		h.wrong.Add(1)
	}
	c.User = 2
	h.closed.Add(1)
}

// serve runs a server of two loops. When the test is over everything must be gone: accounts, sockets, descriptors.
func serve(t *testing.T, change ...func(*Config)) (*Server, netip.AddrPort, *counting) {
	t.Helper()
	fds := countFDs(t)
	h := new(counting)
	cfg := testConfig(h)
	cfg.Endpoints[0].MaxMessage, cfg.MaxPending = 1<<20, 8<<20
	for _, f := range change {
		f(cfg)
	}
	s, err := NewServer(cfg, ServerConfig{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(anyPort, 128)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "all sockets gone", func() bool {
			var left int64
			for _, snap := range s.Snapshots() {
				left += snap.Sockets
				if snap.Drift != 0 {
					t.Errorf("drift %d", snap.Drift)
				}
			}
			return left == 0
		})
		var total int64
		s.Each(func(r *Registry) {
			total += int64(r.stats.Total)
			if r.Entries() != 0 || r.stats.Open != 0 || r.loop.PendingBytes() != 0 {
				t.Errorf("entries %d, open %d, pending %d", r.Entries(), r.stats.Open, r.loop.PendingBytes())
			}
		})
		if h.opened.Load() != total || h.closed.Load() != total || h.wrong.Load() != 0 {
			t.Errorf("%d OnOpen, %d OnClose for %d connections; %d calls for a stranger", h.opened.Load(), h.closed.Load(), total, h.wrong.Load())
		}
		s.StopListening()
		s.Stop()
		s.Stop()
		eventually(t, "all descriptors closed", func() bool { return countFDs(t) <= fds })
	})
	return s, addr, h
}

// messages are what the clients of other makes send, with the sizes at which the header changes, and above a read buffer.
func messages() (all [][]byte) {
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20} {
		all = append(all, bytes.Repeat([]byte("x"), size))
	}
	return append(all, []byte("äöü€\U0001F600"))
}

func TestGorillaClient(t *testing.T) {
	_, addr, _ := serve(t)
	c, _, err := gorilla.DefaultDialer.Dial("ws://"+addr.String()+testPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(deadline))
	for _, kind := range []int{gorilla.TextMessage, gorilla.BinaryMessage} {
		for _, m := range messages() {
			w, err := c.NextWriter(kind) // in fragments of 4 KiB
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(m)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got, p, err := c.ReadMessage(); err != nil || got != kind || !bytes.Equal(p, m) {
				t.Fatalf("sent %d bytes of type %d, got %d of type %d, %v", len(m), kind, len(p), got, err)
			}
		}
	}
	pongs := 0
	c.SetPongHandler(func(p string) error {
		if p == "ping" {
			pongs++
		}
		return nil
	})
	_ = c.WriteControl(gorilla.PingMessage, []byte("ping"), time.Now().Add(deadline))
	_ = c.WriteMessage(gorilla.TextMessage, []byte("behind"))
	if _, p, err := c.ReadMessage(); err != nil || string(p) != "behind" || pongs != 1 {
		t.Errorf("%q, %v, %d pongs", p, err, pongs)
	}
	_ = c.WriteMessage(gorilla.TextMessage, []byte("close me"))
	_, _, err = c.ReadMessage()
	var ce *gorilla.CloseError
	if !errors.As(err, &ce) || ce.Code != 4242 || ce.Text != "as you wish" {
		t.Errorf("%v", err)
	}

	c2, _, err := gorilla.DefaultDialer.Dial("ws://"+addr.String()+testPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	_ = c2.SetReadDeadline(time.Now().Add(deadline))
	_ = c2.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(1000, "byebye"))
	if _, _, err = c2.ReadMessage(); !errors.As(err, &ce) || ce.Code != 1000 || ce.Text != "byebye" {
		t.Errorf("%v", err)
	}
}

func TestCoderClient(t *testing.T) {
	_, addr, _ := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	dial := func() *coder.Conn {
		c, _, err := coder.Dial(ctx, "ws://"+addr.String()+testPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(2 << 20)
		return c
	}
	c := dial()
	for _, kind := range []coder.MessageType{coder.MessageText, coder.MessageBinary} {
		for _, m := range messages() {
			if err := c.Write(ctx, kind, m); err != nil {
				t.Fatal(err)
			}
			if got, p, err := c.Read(ctx); err != nil || got != kind || !bytes.Equal(p, m) {
				t.Fatalf("sent %d bytes, got %d, %v", len(m), len(p), err)
			}
		}
	}
	_ = c.Write(ctx, coder.MessageText, []byte("close me"))
	if _, _, err := c.Read(ctx); coder.CloseStatus(err) != 4242 {
		t.Errorf("%v", err)
	}
	c = dial()
	done := make(chan error, 1)
	go func() { _, _, err := c.Read(ctx); done <- err }()
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(3001, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
	<-done
}

// gwsClient hands what it gets to the test.
type gwsClient struct {
	gws.BuiltinEventHandler
	got    chan []byte
	closed chan error
}

func (h *gwsClient) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.got <- bytes.Clone(m.Bytes())
	_ = m.Close()
}
func (h *gwsClient) OnPong(_ *gws.Conn, p []byte)   { h.got <- append([]byte("pong "), p...) }
func (h *gwsClient) OnClose(_ *gws.Conn, err error) { h.closed <- err }

func TestGwsClient(t *testing.T) {
	_, addr, _ := serve(t)
	dial := func() (*gws.Conn, *gwsClient) {
		h := &gwsClient{got: make(chan []byte, 1), closed: make(chan error, 1)}
		c, _, err := gws.NewClient(h, &gws.ClientOption{Addr: "ws://" + addr.String() + testPath, ReadMaxPayloadSize: 2 << 20, WriteMaxPayloadSize: 2 << 20})
		if err != nil {
			t.Fatal(err)
		}
		go c.ReadLoop()
		return c, h
	}
	c, h := dial()
	for _, op := range []gws.Opcode{gws.OpcodeText, gws.OpcodeBinary} {
		for _, m := range messages() {
			if err := c.WriteMessage(op, m); err != nil {
				t.Fatal(err)
			}
			if got := <-h.got; !bytes.Equal(got, m) {
				t.Fatalf("sent %d bytes, got %d", len(m), len(got))
			}
		}
	}
	_ = c.WritePing([]byte("?"))
	if got := <-h.got; string(got) != "pong ?" {
		t.Errorf("%q", got)
	}
	_ = c.WriteString("close me")
	var ce *gws.CloseError
	if err := <-h.closed; !errors.As(err, &ce) || ce.Code != 4242 || string(ce.Reason) != "as you wish" {
		t.Errorf("%v", err)
	}
	c, h = dial()
	_ = c.WriteClose(1001, []byte("away"))
	if err := <-h.closed; err == nil {
		t.Error("closed without an error")
	}
}

// Garbage in every phase, over real TCP: an answer or a close, never a crash, and everything is back at zero after it.
func TestGarbage(t *testing.T) {
	s, addr, _ := serve(t, func(cfg *Config) { cfg.HandshakeTimeout, cfg.CloseTimeout = 100*time.Millisecond, 100*time.Millisecond })
	r := rand.New(rand.NewPCG(5, 6))
	junk := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	good := frame.AppendMaskedFrame(nil, frame.Text, true, []byte("hello"), [4]byte{9, 8, 7, 6})
	phases := []func() []byte{
		func() []byte { return junk(1 + r.IntN(300)) },                              // for a request
		func() []byte { return []byte(request())[:r.IntN(100)] },                    // half a request
		func() []byte { return append([]byte(request()), junk(1+r.IntN(3000))...) }, // for frames
		func() []byte { return append(append([]byte(request()), good...), good[:r.IntN(len(good))]...) },
		func() []byte {
			b := append([]byte(request()), good...)
			b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
			return b
		},
		func() []byte {
			return append([]byte(request()), frame.AppendHeader(nil, frame.Binary, true, 1<<30, true, [4]byte{})...)
		},
		func() []byte {
			return append(append([]byte(request()), frame.AppendMaskedFrame(nil, frame.Close, true, nil, [4]byte{})...), junk(5000)...)
		},
	}
	for i := range 140 {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(phases[i%len(phases)]()) // may meet a closed socket
		switch r.IntN(3) {
		case 0:
			_ = conn.(*net.TCPConn).CloseWrite()
		case 1:
			_ = conn.(*net.TCPConn).SetLinger(0)
		case 2:
			_ = conn.SetReadDeadline(time.Now().Add(deadline))
			if i%7 == 0 || i%7 == 1 || i%7 == 5 {
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Errorf("garbage of kind %d: %v, expected an answer and FIN", i%7, err) // L1.8: no RST
				}
			}
		}
		_ = conn.Close()
	}
	// The server is as good as before.
	c, _, err := gorilla.DefaultDialer.Dial("ws://"+addr.String()+testPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.WriteMessage(gorilla.TextMessage, []byte("still there?"))
	if _, p, err := c.ReadMessage(); err != nil || string(p) != "still there?" {
		t.Errorf("%q, %v", p, err)
	}
	_ = c.Close()
	var stats Stats
	for _, snap := range s.Snapshots() {
		stats.Add(&snap.Conn)
	}
	if stats.Total == 0 || stats.Refused[refusalIndex(400)] == 0 {
		t.Errorf("total %d, refused %v: the garbage has not reached every phase", stats.Total, stats.Refused)
	}
}

// L2.2: ids over two loops lead to their connection from any goroutine; those that are not genuine or gone to nil.
func TestServerDo(t *testing.T) {
	s, addr, _ := serve(t)
	var clients []*gorilla.Conn
	for range 20 {
		c, _, err := gorilla.DefaultDialer.Dial("ws://"+addr.String()+testPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	ids := make(map[ID]bool)
	eventually(t, "all open", func() bool {
		s.Each(func(r *Registry) { r.Each(func(c *Conn) { ids[c.ID()] = true }) })
		return len(ids) == len(clients)
	})
	do := func(id ID) (found bool) {
		done := make(chan bool, 1) // Do may call at once
		s.Do(id, func(c *Conn) { done <- c != nil && c.ID() == id })
		return <-done
	}
	for id := range ids {
		if !do(id) {
			t.Errorf("%v is not found", id)
		}
		forged := id
		forged[23] ^= 1
		if do(forged) {
			t.Error("a forged id is found")
		}
		forged = id
		forged[4] = 99 // a loop that there is not
		if do(forged) || do(NewIssuer().Make(0, 0, 0)) {
			t.Error("a foreign id is found")
		}
	}
	for _, c := range clients {
		_ = c.Close()
	}
	for id := range ids {
		eventually(t, "gone", func() bool { return !do(id) })
	}
	if s.Issuer() == nil || len(s.Registries()) != 2 {
		t.Error("issuer or registries")
	}
}

// A drain over real sockets: everyone gets 3333 and is gone (L5.5).
func TestServerDrain(t *testing.T) {
	s, addr, _ := serve(t)
	codes := make(chan error, 20)
	for range cap(codes) {
		c, _, err := gorilla.DefaultDialer.Dial("ws://"+addr.String()+testPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _, err := c.ReadMessage()
			_ = c.Close()
			codes <- err
		}()
	}
	s.StopListening()
	s.Each(func(r *Registry) { r.StartDrain(1000) })
	for range cap(codes) {
		if err := <-codes; !gorilla.IsCloseError(err, 3333) {
			t.Errorf("%v", err)
		}
	}
	if _, err := net.Dial("tcp", addr.String()); err == nil {
		t.Error("still listening")
	}
	if s := fmt.Sprint(s.Snapshots()[0].Draining); s != "true" {
		t.Error("not draining")
	}
}
