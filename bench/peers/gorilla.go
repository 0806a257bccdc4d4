package main

import (
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/valyala/bytebufferpool"
)

// serveGorilla is github.com/gorilla/websocket: NextReader into a pooled buffer, and one WriteMessage, for which a server
// without compression has a path with a single frame and no allocation. The write buffer is pooled.
func serveGorilla(addr string, ready func(net.Addr)) error {
	upgrader := websocket.Upgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: readBuffer, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*http.Request) bool { return true },
	}
	ln, err := listen(addr, ready)
	if err != nil {
		return err
	}
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c.SetReadLimit(maxMessage)
		go echoGorilla(c)
	}))
}

func echoGorilla(c *websocket.Conn) {
	defer c.Close()
	for {
		kind, r, err := c.NextReader() // answers pings and a Close
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
