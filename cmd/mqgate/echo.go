package main

import (
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
)

// echo serves --echo-path: every text and binary message goes back as it came, for conformance and load tests.
type echo struct{}

func (echo) OnOpen(*conn.Conn) {}

func (echo) OnMessage(c *conn.Conn, op frame.OpCode, p []byte) {
	_ = c.Send(op, p) // ErrNotOpen: closing; ErrSlow: being closed for it
}

func (echo) OnPong(*conn.Conn, time.Duration) {}

func (echo) OnDrain(c *conn.Conn) { _ = c.CloseFor(conn.CauseDrain) } // ErrNotOpen: closing already

func (echo) OnError(*conn.Conn, error)    {}
func (echo) OnClose(*conn.Conn, conn.End) {}
