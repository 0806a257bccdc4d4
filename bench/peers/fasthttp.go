package main

import (
	"net"
	"sync"

	"github.com/fasthttp/websocket"
	"github.com/valyala/bytebufferpool"
	"github.com/valyala/fasthttp"
)

// serveFastHTTP is github.com/fasthttp/websocket, gorilla's code on fasthttp, used as gorilla is.
func serveFastHTTP(addr string, ready func(net.Addr)) error {
	upgrader := websocket.FastHTTPUpgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: readBuffer, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*fasthttp.RequestCtx) bool { return true },
	}
	ln, err := listen(addr, ready)
	if err != nil {
		return err
	}
	s := fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		_ = upgrader.Upgrade(ctx, echoFastHTTP) // it has answered with the error
	}}
	return s.Serve(ln)
}

func echoFastHTTP(c *websocket.Conn) {
	defer c.Close()
	c.SetReadLimit(maxMessage)
	for {
		kind, r, err := c.NextReader()
		if err != nil {
			return
		}
		b := bytebufferpool.Get()
		if _, err = b.ReadFrom(r); err == nil {
			err = c.WriteMessage(kind, b.B)
		}
		bytebufferpool.Put(b)
		if err != nil {
			return
		}
	}
}
