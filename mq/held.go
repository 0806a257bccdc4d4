package mq

import "github.com/mqgate/mqgate/loop"

// Held counts what the gateway keeps on one loop for connections, requests both ways, subscriptions and ends that the
// worker has not taken: places in use, indexes of them, and timers. It must be 0 when everything is over and every timeout
// has passed. For tests. On that loop's goroutine.
func (g *Gateway) Held(l *loop.Loop) int {
	s := g.shards[l.Index()]
	return s.clients.len() + s.pending.len() + s.waiting.len() + len(s.byNumber) + len(s.topics) + len(s.unpublished) +
		s.pending.timers.Len() + s.waiting.timers.Len() + s.retry.Len()
}
