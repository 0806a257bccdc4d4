package main

import (
	"context"
	"log/slog"

	"github.com/mqgate/mqgate/conn"
)

// debugLog logs the beginning and the end of every connection of an endpoint. It stands before the endpoint's handler
// only when debug records are logged; without it nothing is paid.
type debugLog struct {
	conn.Handler
	log *slog.Logger
}

func withDebugLog(h conn.Handler, log *slog.Logger) conn.Handler {
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return h
	}
	return debugLog{h, log}
}

// OnOpen implements conn.Handler.
func (d debugLog) OnOpen(c *conn.Conn) {
	d.log.Debug("connection opened", "id", c.ID().String(), "remote", c.Remote().String(), "endpoint", c.Endpoint().Path)
	d.Handler.OnOpen(c)
}

// OnClose implements conn.Handler.
func (d debugLog) OnClose(c *conn.Conn, e conn.End) {
	d.log.Debug("connection closed", "id", c.ID().String(), "code", e.Code, "reason", string(e.Reason), "cause", e.Cause.Label(),
		"ms", e.NS/1e6)
	d.Handler.OnClose(c, e)
}

// handlesOf limits a finder of connections to those of one endpoint: to the others they do not exist. The gateway of
// package mq keeps its own state in Conn.User and must not meet a connection that another handler serves.
type handlesOf struct {
	server *conn.Server
	path   string
}

// Do implements mq.Finder.
func (h handlesOf) Do(id conn.ID, f func(c *conn.Conn)) {
	h.server.Do(id, func(c *conn.Conn) {
		if c != nil && c.Endpoint().Path != h.path {
			c = nil
		}
		f(c)
	})
}
