package nats

import (
	"errors"
	"strconv"
	"strings"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/follow"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/wire"
)

// receive handles what comes to the gateway over one link, one message after the other: answers and commands stay in the
// order in which a worker said them.
func (x *Relay) receive(s *sender, in <-chan *natsio.Msg) {
	for {
		select {
		case <-x.closing:
			return
		case m := <-in:
			if token, ok := strings.CutPrefix(m.Subject, s.replies); ok {
				x.reply(token, m)
			} else {
				x.command(s.link, m)
			}
		}
	}
}

// noResponders reports whether m is the server's word that nobody subscribes to the subject of a request.
func noResponders(m *natsio.Msg) bool { return len(m.Data) == 0 && header(m, "Status") == "503" }

// header returns a header's value without the canonical form of http.Header, or "".
func header(m *natsio.Msg, name string) string {
	if v := m.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// reply handles the answer to a request.
func (x *Relay) reply(token string, m *natsio.Msg) {
	n, err := strconv.ParseUint(token, 36, 64)
	if err != nil {
		x.count.late.Add(1)
		return
	}
	f := x.flights.get(n)
	if f == nil {
		x.count.late.Add(1)
		return
	}
	if noResponders(m) {
		if x.flights.take(n) != nil {
			x.count.noResponders.Add(1)
			x.fail(f, errNobody)
		}
		return
	}
	if text, failed := m.Header[subjects.HeaderError]; failed && len(text) > 0 {
		if x.flights.take(n) != nil {
			x.count.failed.Add(1)
			x.fail(f, errors.New("worker: "+text[0]))
		}
		return
	}
	if room := header(m, subjects.HeaderRoom); room != "" && x.follower != nil {
		if seq, err := strconv.ParseUint(header(m, subjects.HeaderRoomSeq), 10, 64); err == nil {
			x.handOver(f, m, room, seq)
			return
		}
	}
	if x.flights.take(n) == nil {
		x.count.late.Add(1)
		return
	}
	x.bindAs(f, m)
	x.release(f)
	x.counted(f) // first: who has the answer finds it in the metrics
	f.completion.Reply(typeOf(f, m), m.Data)
	x.finish(f)
}

// handOver gives an answer that subscribes to the follower. The flight stays in the table, so that the gateway's timeout
// lets the next ordered request go, whatever the follower waits for.
func (x *Relay) handOver(f *flight, m *natsio.Msg, room string, seq uint64) {
	if !f.answering.CompareAndSwap(false, true) {
		x.count.late.Add(1)
		return
	}
	x.bindAs(f, m)
	topic := mq.TopicRoom
	if f.typ == wire.TypeFetchRoomConversation {
		topic = mq.TopicConversation
	}
	x.follower.Handover(follow.Handover{Room: room, Seq: seq, Topic: topic, Conn: f.conn,
		Deliver: func(missed []mq.Event, done func()) {
			f.completion.ReplySubscribing(typeOf(f, m), m.Data, missed, func() {
				done()
				if x.flights.take(f.token) != nil {
					x.counted(f)
					x.finish(f)
				}
			})
		},
		Fail: func(err error) {
			if x.flights.take(f.token) != nil {
				x.count.failed.Add(1)
				x.fail(f, err)
			}
		}})
}

// typeOf returns the type of an answer.
func typeOf(f *flight, m *natsio.Msg) string {
	if typ := header(m, subjects.HeaderType); typ != "" {
		return typ
	}
	return f.typ + "Response"
}

// counted counts a request that is answered.
func (x *Relay) counted(f *flight) {
	x.count.answered.Add(1)
	x.count.observe(x.c.now() - f.start)
}

// bindAs binds the connection of a request as its answer says. A connection that had a session and gets another one, or
// none, loses its subscriptions with it.
func (x *Relay) bindAs(f *flight, m *natsio.Msg) {
	session, ok := m.Header[subjects.HeaderBind]
	if !ok || len(session) == 0 {
		return
	}
	if !f.ordered {
		// Nobody could say whether the connection is still there, and requests around this one would not know its session.
		x.count.badBind.Add(1)
		if n, ok := x.failed.line(x.c.now()); ok {
			x.log.Warn("a worker binds a session in the answer to a request that is not ordered: ignored", "type", f.typ, "not_logged", n)
		}
		return
	}
	old, changed, _ := x.peers.bind(f.conn, session[0], func(string) bool { return true })
	if changed && old != "" {
		if c := x.clients.Load(); c != nil {
			(*c).UnsubscribeAll(f.conn)
		}
	}
}

// topicKinds are the topics in the header HeaderTopic.
var topicKinds = map[string]mq.TopicKind{"room": mq.TopicRoom, "conversation": mq.TopicConversation}
