package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	fasthttp "github.com/fasthttp/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/handshake"
	ours "github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/frame/deflate"
)

// A peer is a connection of a client of another make, with what it can do. Its methods are called by one goroutine.
type peer interface {
	// send sends a message in one frame, or in several when pieces is true.
	send(op byte, p []byte, pieces bool) error
	// next returns the next message or pong, or the Close with code and reason.
	next() (op byte, p []byte, err error)
	ping(p string) error
	// bye starts the close handshake and returns what came back.
	bye(code int, reason string) (int, string, error)
	end()
}

// closeError is how a peer tells of a Close of the server.
type closeError struct {
	code   int
	reason string
}

func (e closeError) Error() string { return fmt.Sprintf("closed with %d %q", e.code, e.reason) }

// peers are the clients; compress has them offer permessage-deflate, takeover says that they offer context takeover then.
var peers = []struct {
	name     string
	takeover bool
	dial     func(url string, compress bool) (peer, error)
}{
	{"gorilla", false, func(url string, compress bool) (peer, error) {
		c, _, err := (&gorilla.Dialer{WriteBufferSize: 1000, EnableCompression: compress}).Dial(url, nil) //nolint:bodyclose // it has none
		return newClassic(c, err, func(err error) (e closeError, ok bool) {
			var ce *gorilla.CloseError
			if ok = errors.As(err, &ce); ok {
				e = closeError{ce.Code, ce.Text}
			}
			return e, ok
		})
	}},
	{"fasthttp", false, func(url string, compress bool) (peer, error) {
		c, _, err := (&fasthttp.Dialer{WriteBufferSize: 1000, EnableCompression: compress}).Dial(url, nil) //nolint:bodyclose // it has none
		return newClassic(c, err, func(err error) (e closeError, ok bool) {
			var ce *fasthttp.CloseError
			if ok = errors.As(err, &ce); ok {
				e = closeError{ce.Code, ce.Text}
			}
			return e, ok
		})
	}},
	{"coder", true, func(url string, compress bool) (peer, error) { return dialCoder(url, compress, true) }},
	{"coder without takeover", false, func(url string, compress bool) (peer, error) { return dialCoder(url, compress, false) }},
	{"gws", true, func(url string, compress bool) (peer, error) { return dialGws(url, compress, true) }},
	{"gws without takeover", false, func(url string, compress bool) (peer, error) { return dialGws(url, compress, false) }},
	{"gobwas", false, dialGobwas},
}

// classic is gorilla's client and its fork, whose types differ only in name.
type classic struct {
	c interface {
		WriteMessage(kind int, p []byte) error
		WriteControl(kind int, p []byte, deadline time.Time) error
		ReadMessage() (int, []byte, error)
		SetPongHandler(h func(string) error)
		Close() error
	}
	closed func(error) (closeError, bool)
	pongs  []string
}

func newClassic[C interface {
	comparable
	WriteMessage(kind int, p []byte) error
	WriteControl(kind int, p []byte, deadline time.Time) error
	ReadMessage() (int, []byte, error)
	SetPongHandler(h func(string) error)
	Close() error
}](c C, err error, closed func(error) (closeError, bool)) (peer, error) {
	if err != nil {
		return nil, err
	}
	p := &classic{c: c, closed: closed}
	c.SetPongHandler(func(s string) error {
		p.pongs = append(p.pongs, s)
		return nil
	})
	return p, nil
}

// send: what is above the write buffer of 1000 bytes goes out in fragments by itself.
func (p *classic) send(op byte, b []byte, _ bool) error { return p.c.WriteMessage(int(op), b) }

func (p *classic) ping(s string) error {
	return p.c.WriteControl(gorilla.PingMessage, []byte(s), time.Time{})
}

func (p *classic) next() (byte, []byte, error) {
	kind, b, err := p.c.ReadMessage()
	if e, ok := p.closed(err); ok {
		err = e
	}
	if err == nil && len(p.pongs) > 0 {
		b = append([]byte(p.pongs[0]+" "), b...) // pongs are handled on the way to a message
		p.pongs = nil
	}
	return byte(kind), b, err
}

func (p *classic) bye(code int, reason string) (int, string, error) {
	if err := p.c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), time.Time{}); err != nil {
		return 0, "", err
	}
	_, _, err := p.next()
	var e closeError
	if !errors.As(err, &e) {
		return 0, "", err
	}
	return e.code, e.reason, nil
}

func (p *classic) end() { _ = p.c.Close() }

type coderPeer struct {
	c      *coder.Conn
	ctx    context.Context
	cancel func()
}

func dialCoder(url string, compress, takeover bool) (peer, error) {
	p := &coderPeer{}
	p.ctx, p.cancel = context.WithTimeout(context.Background(), patience)
	o := &coder.DialOptions{}
	if compress {
		o.CompressionMode, o.CompressionThreshold = coder.CompressionNoContextTakeover, 1
		if takeover {
			o.CompressionMode = coder.CompressionContextTakeover
		}
	}
	var err error
	if p.c, _, err = coder.Dial(p.ctx, url, o); err != nil { //nolint:bodyclose // it has none
		p.cancel()
		return nil, err
	}
	p.c.SetReadLimit(-1)
	return p, nil
}

func (p *coderPeer) send(op byte, b []byte, pieces bool) error {
	if !pieces {
		return p.c.Write(p.ctx, coder.MessageType(op), b)
	}
	w, err := p.c.Writer(p.ctx, coder.MessageType(op))
	if err != nil {
		return err
	}
	for ; len(b) > 0; b = b[min(1000, len(b)):] {
		if _, err := w.Write(b[:min(1000, len(b))]); err != nil {
			return err
		}
	}
	return w.Close()
}

// ping waits for the pong, which a Read has to take: one that the echo of a further message ends.
func (p *coderPeer) ping(string) error {
	read := make(chan error, 1)
	go func() {
		_, _, err := p.c.Read(p.ctx)
		read <- err
	}()
	err := p.c.Ping(p.ctx)
	return errors.Join(err, p.send(opText, []byte("behind the pong"), false), <-read)
}

func (p *coderPeer) next() (byte, []byte, error) {
	kind, b, err := p.c.Read(p.ctx)
	var e coder.CloseError
	if errors.As(err, &e) {
		err = closeError{int(e.Code), e.Reason}
	}
	return byte(kind), b, err
}

// bye: its Close checks that the code comes back.
func (p *coderPeer) bye(code int, reason string) (int, string, error) {
	return code, reason, p.c.Close(coder.StatusCode(code), reason)
}

func (p *coderPeer) end() {
	_ = p.c.CloseNow()
	p.cancel()
}

// gwsPeer tells of what comes over a channel: its reading is a loop of its own.
type gwsPeer struct {
	gws.BuiltinEventHandler
	c    *gws.Conn
	come chan gwsEvent
}

type gwsEvent struct {
	op  byte
	p   []byte
	err error
}

func dialGws(url string, compress, takeover bool) (peer, error) {
	p := &gwsPeer{come: make(chan gwsEvent, 100)}
	var err error
	p.c, _, err = gws.NewClient(p, &gws.ClientOption{Addr: url, CheckUtf8Enabled: true, PermessageDeflate: gws.PermessageDeflate{
		Enabled: compress, ServerContextTakeover: takeover, ClientContextTakeover: takeover, Threshold: 1}})
	if err != nil {
		return nil, err
	}
	go p.c.ReadLoop()
	return p, nil
}

func (p *gwsPeer) OnMessage(_ *gws.Conn, m *gws.Message) {
	p.come <- gwsEvent{op: byte(m.Opcode), p: bytes.Clone(m.Bytes())}
	_ = m.Close()
}
func (p *gwsPeer) OnPong(_ *gws.Conn, b []byte) { p.come <- gwsEvent{op: opPong, p: bytes.Clone(b)} }
func (p *gwsPeer) OnClose(_ *gws.Conn, err error) {
	var e *gws.CloseError
	if errors.As(err, &e) {
		err = closeError{int(e.Code), string(e.Reason)}
	}
	p.come <- gwsEvent{err: err}
}

func (p *gwsPeer) send(op byte, b []byte, pieces bool) error {
	if pieces {
		return p.c.WriteFile(gws.Opcode(op), bytes.NewReader(b))
	}
	return p.c.WriteMessage(gws.Opcode(op), b)
}

func (p *gwsPeer) ping(s string) error { return p.c.WritePing([]byte(s)) }

func (p *gwsPeer) next() (byte, []byte, error) {
	e := <-p.come
	return e.op, e.p, e.err
}

// bye: it ends the connection without waiting for the server's Close.
func (p *gwsPeer) bye(code int, reason string) (int, string, error) {
	return code, reason, p.c.WriteClose(uint16(code), []byte(reason))
}

func (p *gwsPeer) end() { _ = p.c.NetConn().Close() }

// gobwasPeer compresses with what the library brings for that: it is left to its users to put the parts together.
type gobwasPeer struct {
	c        net.Conn
	compress bool // agreed
}

func dialGobwas(url string, compress bool) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := ws.Dialer{}
	if compress {
		d.Extensions = append(d.Extensions, wsflate.Parameters{ServerNoContextTakeover: true, ClientNoContextTakeover: true}.Option())
	}
	c, behind, agreed, err := d.Dial(ctx, url)
	if err == nil && behind != nil {
		err = errors.New("bytes behind the answer")
	}
	return gobwasPeer{c, len(agreed.Extensions) > 0}, err
}

func (p gobwasPeer) send(op byte, b []byte, pieces bool) error {
	var rsv byte
	if p.compress {
		var err error
		if b, err = wsflate.DefaultHelper.Compress(b); err != nil {
			return err
		}
		rsv = ws.Rsv(true, false, false)
	}
	for code := ws.OpCode(op); ; code, rsv = ws.OpContinuation, 0 {
		part := b
		if pieces {
			part = b[:min(1000, len(b))]
		}
		b = b[len(part):]
		f := ws.NewFrame(code, len(b) == 0, bytes.Clone(part))
		f.Header.Rsv = rsv
		if err := ws.WriteFrame(p.c, ws.MaskFrameInPlace(f)); err != nil || len(b) == 0 {
			return err
		}
	}
}

func (p gobwasPeer) ping(s string) error {
	return wsutil.WriteClientMessage(p.c, ws.OpPing, []byte(s))
}

func (p gobwasPeer) next() (byte, []byte, error) {
	h, err := ws.ReadHeader(p.c) // our server sends a message in one frame
	if err != nil {
		return 0, nil, err
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	if _, err := io.ReadFull(p.c, f.Payload); err != nil {
		return 0, nil, err
	}
	if err := ws.CheckHeader(f.Header, ws.StateClientSide|ws.StateExtended); err != nil {
		return 0, nil, err
	}
	if compressed, err := wsflate.IsCompressed(f.Header); err != nil {
		return 0, nil, err
	} else if compressed {
		if f, err = wsflate.DecompressFrame(f); err != nil {
			return 0, nil, err
		}
	}
	if f.Header.OpCode == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(f.Payload)
		answer := ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, "")))
		_ = ws.WriteFrame(p.c, answer)
		err = closeError{int(code), reason}
	}
	return byte(f.Header.OpCode), f.Payload, err
}

func (p gobwasPeer) bye(code int, reason string) (int, string, error) {
	if err := ws.WriteFrame(p.c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))); err != nil {
		return 0, "", err
	}
	_, _, err := p.next()
	var e closeError
	if !errors.As(err, &e) {
		return 0, "", err
	}
	return e.code, e.reason, nil
}

func (p gobwasPeer) end() { _ = p.c.Close() }

// closer echoes, closes when it is told so, and reports how connections end.
type closer struct {
	echoes
	ends chan string
}

const closeMe = "close me"

func (h closer) OnMessage(c *conn.Conn, op ours.OpCode, p []byte) {
	if string(p) == closeMe {
		_ = c.Close(4242, "as you wish", conn.CauseLocal)
		return
	}
	_ = c.Send(op, p)
}

func (h closer) OnClose(_ *conn.Conn, e conn.End) {
	h.ends <- fmt.Sprintf("%d %s", e.Code, e.Cause.Label())
}

// Clients of other makes against our server, with compression in all modes of both: messages of both kinds and all sizes, in
// fragments, pings, and a close from either side.
func TestPeers(t *testing.T) {
	t.Parallel()
	modes := append([]handshake.Compression{{Mode: deflate.Off}}, compressions(t)...)
	for _, client := range peers {
		for _, mode := range modes {
			for _, compress := range []bool{false, true} {
				if !compress && mode.Mode == deflate.Shared {
					continue // as in the others
				}
				t.Run(fmt.Sprintf("%s compress=%t server %v %d", client.name, compress, mode.Mode, mode.WindowBits), func(t *testing.T) {
					h := closer{ends: make(chan string, 1)}
					cfg := compressing(ours.RoleServer, mode)
					cfg.Endpoints[0].Handler = h
					server, addr := start(t, cfg)
					for _, byServer := range []bool{false, true} {
						p, err := client.dial("ws://"+addr+echoPath, compress)
						if err != nil {
							t.Fatal(err)
						}
						talk(t, p)
						part(t, p, h, byServer)
						p.end()
					}
					agreed := compress && mode.Mode != deflate.Off
					takeover := agreed && mode.Mode == deflate.Takeover && client.takeover
					var sum conn.Stats
					for _, snap := range server.Snapshots() {
						sum.Add(&snap.Conn)
					}
					if with := sum.CompressedTakeover; with > 0 != takeover || with+sum.CompressedShared > 0 != agreed {
						t.Errorf("%d connections were with takeover, %d without", with, sum.CompressedShared)
					}
					if sum.CompressedReceived > 100 != agreed || sum.CompressedSent > 100 != agreed {
						t.Errorf("%d messages came compressed, %d were sent so", sum.CompressedReceived, sum.CompressedSent)
					}
				})
			}
		}
	}
}

// part ends the connection.
func part(t *testing.T, p peer, h closer, byServer bool) {
	t.Helper()
	if !byServer {
		if code, reason, err := p.bye(4321, "enough"); err != nil || code != 4321 || reason != "enough" {
			t.Errorf("closed by the client: %d %q, %v", code, reason, err)
		}
		if got := <-h.ends; got != "4321 client" {
			t.Errorf("the server's end: %s", got)
		}
		return
	}
	if err := p.send(opText, []byte(closeMe), false); err != nil {
		t.Error(err)
	}
	_, _, err := p.next()
	if e := (closeError{}); !errors.As(err, &e) || e != (closeError{4242, "as you wish"}) {
		t.Errorf("closed by the server: %v", err)
	}
	if got := <-h.ends; got != "4242 local" {
		t.Errorf("the server's end: %s", got)
	}
}

// echoed sends a message and waits for it to come back.
func echoed(t *testing.T, p peer, op byte, b []byte, pieces bool) {
	t.Helper()
	if err := p.send(op, b, pieces); err != nil {
		t.Fatal(err)
	}
	got, back, err := p.next()
	if err != nil || got != op || !bytes.Equal(back, b) {
		t.Fatalf("%d bytes of %s, in pieces %t: got opcode %d, %d bytes, %v", len(b), opNames[op], pieces, got, len(back), err)
	}
}

func talk(t *testing.T, p peer) {
	t.Helper()
	sizes := []int{0, 1, 125, 126, 999, 1001, 65535, 65536, 1 << 20}
	if slow {
		sizes = sizes[:len(sizes)-1]
		t.Log("left out: messages of 1 MiB")
	}
	for _, n := range sizes {
		for _, d := range dataOps {
			for _, pieces := range []bool{false, true} {
				echoed(t, p, d.op, content(d.op, n), pieces)
			}
		}
	}
	for i := range 60 { // windows slide, and what is repeated goes out of them
		echoed(t, p, dataOps[i%2].op, repetitive(2000 + i*97)[i*31:], i%3 == 0)
	}
	if err := p.ping("are you there"); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.(*coderPeer); ok {
		return // it has seen the pong
	}
	if _, ok := p.(*classic); ok {
		if err := p.send(opText, []byte("and here"), false); err != nil {
			t.Fatal(err)
		}
		if _, got, err := p.next(); err != nil || string(got) != "are you there and here" {
			t.Errorf("pong and message: %q, %v", got, err)
		}
		return
	}
	if op, got, err := p.next(); err != nil || op != opPong || string(got) != "are you there" {
		t.Errorf("pong: opcode %d, %q, %v", op, got, err)
	}
}
