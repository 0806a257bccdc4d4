package main

import (
	"context"
	"io"
	"net"

	"github.com/cloudwego/netpoll"
	"github.com/gobwas/ws"
)

func init() {
	// Has to be said here: netpoll reads it when main begins. The number of pollers is left to netpoll, as it advises.
	if err := netpoll.Configure(netpoll.Config{BufferSize: readBuffer}); err != nil {
		panic(err)
	}
}

// serveNetpoll is github.com/cloudwego/netpoll with its own Connection, as its documentation has it: OnRequest on a pooled
// goroutine when there is something to read, zero-copy Next and Malloc, one Flush for all messages that were there. The
// frames are gobwas'.
func serveNetpoll(addr string, ready func(net.Addr)) error {
	ln, err := netpoll.CreateListener("tcp", addr)
	if err != nil {
		return err
	}
	events, err := netpoll.NewEventLoop(onNetpollRequest, netpoll.WithOnPrepare(func(netpoll.Connection) context.Context {
		return context.WithValue(context.Background(), upgradedKey{}, new(bool))
	}))
	if err != nil {
		return err
	}
	ready(ln.Addr())
	return events.Serve(ln)
}

// upgradedKey is the key under which a connection's context holds a *bool: the upgrade is done.
type upgradedKey struct{}

func onNetpollRequest(ctx context.Context, c netpoll.Connection) error {
	upgraded := ctx.Value(upgradedKey{}).(*bool)
	if !*upgraded {
		if _, err := ws.Upgrade(c); err != nil {
			return c.Close()
		}
		*upgraded = true
	}
	for c.Reader().Len() > 0 {
		goOn, err := echoNetpoll(c)
		if err != nil {
			return c.Close()
		}
		if !goOn {
			_ = c.Writer().Flush()
			return c.Close()
		}
	}
	return c.Writer().Flush()
}

// echoNetpoll puts the answer to the next frame into the writer's buffer. goOn is false after a Close.
func echoNetpoll(c netpoll.Connection) (goOn bool, err error) {
	h, err := ws.ReadHeader(c)
	if err != nil {
		return false, err
	}
	if !h.Masked || h.Length > maxMessage {
		return false, io.ErrUnexpectedEOF
	}
	payload, err := c.Reader().Next(int(h.Length)) // waits for it
	if err != nil {
		return false, err
	}
	answer := h
	answer.Masked = false
	if h.OpCode == ws.OpPing {
		answer.OpCode = ws.OpPong
	}
	room, err := c.Writer().Malloc(ws.HeaderSize(answer) + len(payload))
	if err != nil {
		return false, err
	}
	if err := ws.WriteHeader(&fill{room}, answer); err != nil {
		return false, err
	}
	body := room[len(room)-len(payload):]
	copy(body, payload)
	ws.Cipher(body, h.Mask, 0)
	return h.OpCode != ws.OpClose, c.Reader().Release()
}

// fill is an io.Writer into a slice that is large enough.
type fill struct{ p []byte }

// Write implements io.Writer.
func (f *fill) Write(p []byte) (int, error) {
	n := copy(f.p, p)
	f.p = f.p[n:]
	return n, nil
}
