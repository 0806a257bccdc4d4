package mq

import (
	"encoding/base64"
	"testing"
	"unicode/utf8"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// FuzzMessage sends whatever bytes as a message, in every form, to a worker that answers requests with their own payload
// (so that the gateway looks into that as well, L3.8), sometimes later: the connection stays open (L3.1), every request is
// answered (L3.11), and the books agree.
func FuzzMessage(f *testing.F) {
	for _, env := range []wire.Envelope{
		{RequestID: "C0", Type: "echo", Payload: []byte("x")},
		{RequestID: "C0", Type: wire.TypeJoinRoom, Payload: joinAnswer("ok", "a")},
		{RequestID: "C0", Type: wire.TypeLeaveRoom, Payload: leave("a")},
		{RequestID: "C0", Type: wire.TypeFetchRoomConversation, Payload: fetch("a", wire.Subscribe)},
		{RequestID: "S1", Type: "x", MessageType: wire.Response},
		{Type: "x", MessageType: wire.Event},
	} {
		f.Add(env.AppendTo(nil))
	}
	f.Add([]byte("EgJDMBoOY2hhdC5MZWF2ZVJvb20qEAoDciMxEgJzMRj70JX/vDE="))
	var s *sim
	var p *peer
	f.Fuzz(func(t *testing.T, b []byte) {
		if s == nil {
			s = newSimUnchecked(t, 1)
			p = s.connect(0)
			s.w.process = func(r *Request) {
				if len(r.Payload)%2 == 0 {
					r.Reply(r.Type, r.Payload)
				} else {
					r.Later().Reply(r.Type, r.Payload)
				}
			}
		}
		s.t = t
		if len(b) > maxMessage/2 {
			b = b[:maxMessage/2]
		}
		before := s.stats().Accepted
		p.frame(frame.Binary, b)
		p.frame(frame.Text, []byte(base64.StdEncoding.EncodeToString(b)))
		p.frame(frame.Text, []byte(base64.RawStdEncoding.EncodeToString(b)))
		if utf8.Valid(b) {
			p.frame(frame.Text, b)
		}
		s.run()
		s.ledger()
		if c := p.conn(); c == nil || c.State() != conn.Open {
			t.Fatal("the connection did not stay open")
		}
		if n := uint64(len(p.take())); n != s.stats().Accepted-before {
			t.Fatalf("%d requests, %d answers", s.stats().Accepted-before, n)
		}
		s.g.UnsubscribeAll(p.id)
		s.run()
		if s.stats().Clients != 0 || s.g.shards[0].clients.len() != 0 || len(s.g.shards[0].topics) != 0 {
			t.Fatalf("left: %+v", s.stats())
		}
	})
}
