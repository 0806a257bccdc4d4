package handshake

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cws "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// serveOne answers one handshake on c as a server would, with pieces as they come, and reports what it refused.
func serveOne(c net.Conn) {
	buf := make([]byte, 0, MaxRequest)
	var r Request
	for from := 0; ; from = len(buf) {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return
		}
		end, refusal := Scan(buf, from, MaxRequest)
		if end == 0 && refusal == nil {
			continue
		}
		if refusal == nil {
			refusal = r.ParseHead(buf[:end])
		}
		if refusal == nil && string(r.Path) != "/ws" {
			refusal = NotFound("/ws")
		}
		if refusal == nil {
			refusal = r.CheckUpgrade()
		}
		if refusal != nil {
			_, _ = c.Write(AppendRefusal(nil, refusal))
			_ = c.Close()
			return
		}
		var protocol []byte
		for p := range r.Protocols() {
			protocol = p
		}
		_, _ = c.Write(AppendResponse(nil, r.Key, protocol, nil))
		return
	}
}

// L2.1: clients that others wrote open a connection here, and understand a refusal.
func TestOtherClients(t *testing.T) {
	pipe := func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go serveOne(server)
		return client, nil
	}
	ctx := t.Context()
	dialers := map[string]func(url string) (protocol string, status int, err error){
		"gorilla": func(url string) (string, int, error) {
			d := gorilla.Dialer{NetDialContext: pipe, Subprotocols: []string{"p", "q"}, EnableCompression: true}
			c, response, err := d.DialContext(ctx, url, http.Header{"Origin": {"http://o"}})
			if err != nil {
				return "", response.StatusCode, err
			}
			defer c.Close()
			return c.Subprotocol(), response.StatusCode, nil
		},
		"coder": func(url string) (string, int, error) {
			client := &http.Client{Transport: &http.Transport{DialContext: pipe, DisableKeepAlives: true}}
			c, response, err := cws.Dial(ctx, url, &cws.DialOptions{HTTPClient: client, Subprotocols: []string{"p", "q"}, CompressionMode: cws.CompressionContextTakeover})
			if err != nil {
				return "", response.StatusCode, err
			}
			defer func() { _ = c.CloseNow() }()
			return c.Subprotocol(), response.StatusCode, nil
		},
	}
	for name, dial := range dialers {
		if protocol, status, err := dial("ws://example.com/ws?x=y"); err != nil || status != 101 || protocol != "q" {
			t.Errorf("%s: %d %q %v", name, status, protocol, err)
		}
		if _, status, err := dial("ws://example.com/other"); err == nil || status != 404 {
			t.Errorf("%s: %d %v, want 404", name, status, err)
		}
	}
}

// L1.2: servers that others wrote open a connection for our client, and their refusals are understood.
func TestOtherServers(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"gorilla": func(w http.ResponseWriter, r *http.Request) {
			u := gorilla.Upgrader{Subprotocols: []string{"q"}}
			if c, err := u.Upgrade(w, r, nil); err == nil {
				_ = c.Close()
			}
		},
		"coder": func(w http.ResponseWriter, r *http.Request) {
			if c, err := cws.Accept(w, r, &cws.AcceptOptions{Subprotocols: []string{"q"}}); err == nil {
				_ = c.CloseNow()
			}
		},
	}
	for name, handler := range handlers {
		mux := http.NewServeMux()
		mux.HandleFunc("/ws", handler)
		server := httptest.NewServer(mux)
		defer server.Close()
		host := strings.TrimPrefix(server.URL, "http://")
		ask := func(path, origin string) (*Response, error) {
			c, err := net.DialTimeout("tcp", host, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(AppendRequest(nil, host, path, sampleNonce, origin, "p, q", nil)); err != nil {
				t.Fatal(err)
			}
			in, p := bufio.NewReader(c), []byte(nil)
			for from := 0; End(p, from) == 0; from = len(p) - 1 {
				b, err := in.ReadByte()
				if err != nil {
					t.Fatalf("%s: %v after %q", name, err, p)
				}
				p = append(p, b)
			}
			r := new(Response)
			return r, r.Parse(p, sampleNonce, "p, q", "")
		}
		if r, err := ask("/ws", server.URL); err != nil || string(r.Protocol) != "q" {
			t.Errorf("%s: %q %v", name, r.Protocol, err)
		}
		for path, want := range map[string]int{"/other": 404, "/ws": 403} {
			_, err := ask(path, "http://evil.example")
			if refused, ok := err.(*StatusError); !ok || refused.Status != want {
				t.Errorf("%s: %v, want %d", name, err, want)
			}
		}
	}
}

// L2.1: net/http's client understands every refusal, body included.
func TestRefusalIsHTTP(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		c, server := net.Pipe()
		go serveOne(server)
		return c, nil
	}}}
	response, err := client.Get("http://example.com/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 426 || response.Header.Get("Sec-WebSocket-Version") != "13" || response.Header.Get("Upgrade") != "websocket" || !strings.HasPrefix(string(body), "426 Upgrade Required: ") {
		t.Errorf("%v %v %q", response, err, body)
	}
}
