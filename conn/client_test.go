package conn

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/mqgate/mqgate/frame"
)

// chatty is a client's handler: it sends its messages one by one, compares the echoes, closes, and reports what happened.
type chatty struct {
	send   [][]byte
	next   int
	bye    string // the last message sent; "": the client closes
	result chan string
}

func (h *chatty) OnOpen(c *Conn) { h.say(c) }

func (h *chatty) say(c *Conn) {
	if h.next < 2*len(h.send) {
		_ = c.Send([]frame.OpCode{frame.Binary, frame.Text}[h.next%2], h.send[h.next/2])
	} else if h.bye != "" {
		_ = c.Send(frame.Text, []byte(h.bye))
	} else {
		_ = c.Close(1000, "done", CauseLocal)
	}
}

func (h *chatty) OnMessage(c *Conn, op frame.OpCode, p []byte) {
	if want := h.send[h.next/2]; !bytes.Equal(p, want) || op != []frame.OpCode{frame.Binary, frame.Text}[h.next%2] {
		h.result <- fmt.Sprintf("message %d: %v of %d bytes, sent were %d", h.next, op, len(p), len(want))
	}
	h.next++
	h.say(c)
}
func (h *chatty) OnPong(*Conn, time.Duration) {}
func (h *chatty) OnDrain(*Conn)               {}
func (h *chatty) OnError(_ *Conn, err error)  { h.result <- "error: " + err.Error() }
func (h *chatty) OnClose(_ *Conn, e End) {
	h.result <- fmt.Sprintf("%d %s %s", e.Code, e.Reason, e.Cause.Label())
}

type gwsEcho struct{ gws.BuiltinEventHandler }

func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if m.Data.String() == "close me" {
		_ = c.WriteClose(4242, []byte("as you wish"))
		return
	}
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

func (gwsEcho) OnClose(c *gws.Conn, _ error) { _ = c.NetConn().Close() }

// Our client role against servers of other makes.
func TestForeignServers(t *testing.T) {
	servers := map[string]http.HandlerFunc{
		"gorilla": func(w http.ResponseWriter, r *http.Request) {
			c, err := (&gorilla.Upgrader{WriteBufferSize: 1000}).Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for {
				kind, p, err := c.ReadMessage()
				if err != nil {
					return // it has answered the Close
				}
				if string(p) == "close me" {
					_ = c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(4242, "as you wish"))
					continue // until the client's Close
				}
				out, _ := c.NextWriter(kind) // in fragments
				_, _ = out.Write(p)
				_ = out.Close()
			}
		},
		"gws": func(w http.ResponseWriter, r *http.Request) {
			c, err := gws.NewUpgrader(gwsEcho{}, &gws.ServerOption{ReadMaxPayloadSize: 2 << 20, WriteMaxPayloadSize: 2 << 20}).Upgrade(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			c.ReadLoop()
		},
	}
	for name, handler := range servers {
		for _, bye := range []string{"", "close me"} {
			t.Run(name+" "+bye, func(t *testing.T) {
				fds := countFDs(t)
				server := httptest.NewServer(handler)
				h := &chatty{send: messages(), bye: bye, result: make(chan string, 1)}
				want := "1000"
				if bye != "" {
					want = "4242 as you wish client"
				}
				cfg := testConfig(h)
				cfg.Role = frame.RoleClient
				cfg.Endpoints[0].MaxMessage, cfg.MaxPending = 2<<20, 8<<20
				s, err := NewServer(cfg, ServerConfig{Loops: 1})
				if err != nil {
					t.Fatal(err)
				}
				host := strings.TrimPrefix(server.URL, "http://")
				d := &DialConfig{Addr: netip.MustParseAddrPort(host), Host: host, Path: testPath,
					Failed: func(_ uint32, err error) { h.result <- "failed: " + err.Error() }}
				s.Each(func(r *Registry) {
					if err := r.Dial(d, netip.Addr{}, 0); err != nil {
						t.Error(err)
					}
				})
				got := <-h.result
				if bye == "" {
					got = strings.Join(strings.Fields(got)[:1], "") // the answer to a Close may have a reason of its own
				}
				if got != want {
					t.Errorf("%q, expected %q", got, want)
				}
				eventually(t, "the socket gone", func() bool { return s.Snapshots()[0].Sockets == 0 })
				if snap := s.Snapshots()[0]; snap.Drift != 0 || snap.Conn.Open != 0 || snap.Conn.Total != 1 {
					t.Errorf("drift %d, open %d, total %d", snap.Drift, snap.Conn.Open, snap.Conn.Total)
				}
				s.Stop()
				server.Close()
				eventually(t, "all descriptors closed", func() bool { return countFDs(t) <= fds })
			})
		}
	}
}

// Dialling where nobody listens, over real TCP.
func TestDialNobody(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	_ = ln.Close()
	h := &chatty{result: make(chan string, 1)}
	cfg := testConfig(h)
	cfg.Role = frame.RoleClient
	s, err := NewServer(cfg, ServerConfig{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	failed := make(chan error, 1)
	d := &DialConfig{Addr: addr, Host: "x", Path: testPath, Failed: func(_ uint32, err error) { failed <- err }}
	s.Each(func(r *Registry) {
		if err := r.Dial(d, netip.MustParseAddr("127.0.0.1"), 0); err != nil {
			failed <- err
		}
	})
	if err := <-failed; !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	if s.Snapshots()[0].Sockets != 0 {
		t.Error("the socket is left")
	}
}
