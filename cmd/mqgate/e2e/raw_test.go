package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A rawConn is a TCP connection that sends whatever a test wants. Everything on it fails after patience.
type rawConn struct {
	*net.TCPConn
	in *bufio.Reader
}

func dialRaw(t *testing.T, s *server) *rawConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &rawConn{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c)}
}

// upgrade makes a WebSocket of the connection.
func (c *rawConn) upgrade(t *testing.T, path string) {
	t.Helper()
	c.write(t, "GET "+path+" HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp := c.response(t)
	// The answer to this key is an example of RFC 6455 section 1.3.
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("upgrade: %s %v", resp.Status, resp.Header)
	}
}

func (c *rawConn) write(t *testing.T, data string) {
	t.Helper()
	if _, err := c.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
}

// response reads the head of an HTTP answer, and its body when it has one.
func (c *rawConn) response(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return resp
}

// readClose reads frames of the server until its Close and returns code and reason of that.
func (c *rawConn) readClose(t *testing.T) (code uint16, reason string) {
	t.Helper()
	for {
		var head [2]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			t.Fatalf("no Close frame came: %v", err)
		}
		size := int(head[1])
		if size > 125 {
			t.Fatalf("frame with head %x before the Close", head)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(c.in, body); err != nil {
			t.Fatal(err)
		}
		if head[0] == 0x88 {
			if size < 2 {
				return 0, ""
			}
			return binary.BigEndian.Uint16(body), string(body[2:])
		}
	}
}

// readToEnd reads until the server ends the connection and returns what came. A reset is an end too: the kernel sends one
// when input that the server did not read was still on its way.
func (c *rawConn) readToEnd(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if _, err := io.Copy(&b, c.in); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the server does not end the connection: %v", err)
	}
	return b.String()
}
