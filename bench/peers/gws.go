package main

import (
	"net"

	"github.com/lxzan/gws"
)

// serveGWS is github.com/lxzan/gws with its own server, which takes less per connection than net/http. It
// does not check that text is UTF-8: that is its default, and gorilla and coder cannot.
func serveGWS(addr string, ready func(net.Addr)) error {
	ln, err := listen(addr, ready)
	if err != nil {
		return err
	}
	s := gws.NewServer(gwsEcho{}, &gws.ServerOption{
		ReadBufferSize: readBuffer, ReadMaxPayloadSize: maxMessage, WriteMaxPayloadSize: maxMessage,
	})
	s.OnError = func(net.Conn, error) {}
	return s.RunListener(ln)
}

type gwsEcho struct{ gws.BuiltinEventHandler }

// OnPing implements gws.Event.
func (gwsEcho) OnPing(c *gws.Conn, p []byte) { _ = c.WritePong(p) }

// OnMessage implements gws.Event.
func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // an error ends the connection: OnClose
	_ = m.Close()                           // gives the buffer back
}
