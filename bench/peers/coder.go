package main

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
	"github.com/valyala/bytebufferpool"
)

// serveCoder is github.com/coder/websocket: Reader into a pooled buffer, and one Write. Its buffers are those of net/http,
// 4 KiB for each direction, and cannot be set.
func serveCoder(addr string, ready func(net.Addr)) error {
	ln, err := listen(addr, ready)
	if err != nil {
		return err
	}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return
		}
		c.SetReadLimit(maxMessage)
		go echoCoder(c)
	}))
}

func echoCoder(c *websocket.Conn) {
	defer c.CloseNow()
	ctx := context.Background()
	for {
		kind, r, err := c.Reader(ctx) // answers pings and a Close
		if err != nil {
			return
		}
		b := bytebufferpool.Get()
		if _, err = b.ReadFrom(r); err == nil {
			err = c.Write(ctx, kind, b.B)
		}
		bytebufferpool.Put(b)
		if err != nil {
			return
		}
	}
}
