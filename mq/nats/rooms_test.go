package nats

import (
	"errors"
	"strings"
	"sync"
	"testing"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/follow"
)

// holder is a Follower that holds every answer.
type holder struct {
	lines recorder
	mu    sync.Mutex
	held  []follow.Handover
}

func (h *holder) Interest(room string, some bool) { h.lines.add("interest %s %v", room, some) }
func (h *holder) Close()                          { h.lines.add("close") }
func (h *holder) Handover(o follow.Handover) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, o)
}

func (h *holder) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

// An answer that subscribes goes by way of the follower, and the next ordered request waits for it.
func TestHandover(t *testing.T) {
	s := natstest.Single(t)
	h := &holder{}
	serve(t, connect(t, s.URL()), &worker{process: func(r *mq.Request) {
		c, typ, room := r.Later(), r.Type, string(r.Payload)
		c.ReplyNoted(typ+"Response", []byte("answer"), mq.Note{Bind: true, Session: "S", Room: room, RoomSeq: 42})
	}}, func(c *ServiceConfig) {
		c.Types = []string{"chat.JoinRoom", "chat.FetchRoomConversation", "chat.Other"}
	})
	g := newGate(t, connect(t, s.URL(), unbuffered), nil, func(c *RelayConfig) {
		c.NewFollower = func(mq.Clients) (Follower, error) { return h, nil }
	})
	g.x.Interest("r", true)
	join, fetch := g.send(g.conn(1), "chat.JoinRoom", "the room"), g.send(g.conn(2), "chat.FetchRoomConversation", "the room")
	next := g.send(g.conn(1), "chat.Other", "")
	failing := g.send(g.conn(3), "chat.JoinRoom", "the room")
	eventually(t, "three are held", func() bool { return h.count() == 3 })
	byConn := map[uint32]follow.Handover{}
	for _, o := range h.held {
		byConn[o.Conn.Slot()] = o
		if o.Room != "the room" || o.Seq != 42 || o.Topic != map[uint32]mq.TopicKind{1: mq.TopicRoom, 2: mq.TopicConversation, 3: mq.TopicRoom}[o.Conn.Slot()] {
			t.Errorf("%+v", o)
		}
	}
	if join.answered() || fetch.answered() || next.answered() || g.x.Stats().InFlight != 4 {
		t.Error("somebody did not wait")
	}
	if g.x.peers.session(g.conn(1)) != "S" {
		t.Error("not bound while the answer is held")
	}
	done := make(chan bool, 2)
	byConn[1].Deliver(make([]mq.Event, 2), func() { done <- true })
	byConn[2].Deliver(nil, func() { done <- true })
	<-done
	<-done
	if join.ok(); join.payload != "answer missed 2" || join.typ != "chat.JoinRoomResponse" {
		t.Errorf("%q %q", join.typ, join.payload)
	}
	if fetch.ok(); fetch.payload != "answer missed 0" {
		t.Errorf("%q", fetch.payload)
	}
	next.ok()
	because := errors.New("because")
	byConn[3].Fail(because)
	if failing.wait(); failing.err != because {
		t.Errorf("%v", failing.err)
	}
	// A worker that says it twice says it once.
	c := connect(t, s.URL())
	listen(t, c, "mqgate.req.chat.Twice", "workers", func(m *natsio.Msg) {
		for range 2 {
			_ = c.NATS().PublishMsg(&natsio.Msg{Subject: m.Reply, Header: natsio.Header{"Mqgate-Room": {"r"}, "Mqgate-Room-Seq": {"1"}}})
		}
	})
	twice := g.send(g.conn(4), "chat.Twice", "")
	eventually(t, "the second one is dropped", func() bool { return h.count() == 4 && g.x.Stats().Late == 1 })
	h.held[3].Deliver(nil, func() {})
	twice.ok()
	eventually(t, "all are counted", func() bool { st := g.x.Stats(); return st.Answered == 4 && st.Failed == 1 && st.InFlight == 0 })
	if err := g.x.Close(within(t, deadline)); err != nil {
		t.Error(err)
	}
	if got := strings.Join(h.lines.all(), ", "); got != "interest r true, close" {
		t.Errorf("%s", got)
	}
}
