package mq

import (
	"strings"
	"sync"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/wire"
)

// change is what a successful request does to the subscriptions of its connection (L3.8).
type change uint8

const (
	changeNone  change = iota
	changeJoin         // chat.JoinRoom: the room of the answer
	changeLeave        // chat.LeaveRoom: room and conversation of the request
	changeFetch        // chat.FetchRoomConversation with Subscribe: the conversation of the request
)

// changeOf returns what a request changes if it succeeds, and the room if the request names it. room is a view of
// payload.
func changeOf(typ string, payload []byte) (change, string) {
	switch typ {
	case wire.TypeJoinRoom:
		return changeJoin, ""
	case wire.TypeLeaveRoom:
		var m wire.LeaveRoom
		if m.Unmarshal(payload) == nil && len(m.RoomID) <= maxRoomID {
			return changeLeave, m.RoomID
		}
	case wire.TypeFetchRoomConversation:
		if room, subscribe, err := wire.PeekFetchRoomConversation(payload); err == nil && subscribe && room != "" && len(room) <= maxRoomID {
			return changeFetch, room
		}
	}
	return changeNone, ""
}

// effect returns what a successful request with the given answer does to the subscriptions of its connection: none, or a
// subscription to a topic (join) or the end of one's subscriptions to a room. The topic's room may be borrowed.
func (ch change) effect(room string, answer []byte) (t Topic, join, any bool) {
	switch ch {
	case changeNone:
	case changeJoin:
		status, room, err := wire.PeekJoinRoomResponse(answer)
		ok := err == nil && (status == wire.StatusOK || status == wire.StatusAlreadyInRoom) && room != "" && len(room) <= maxRoomID
		return Topic{TopicRoom, room}, true, ok
	case changeLeave:
		status, err := wire.PeekStatus(answer)
		return Topic{TopicRoom, room}, false, err == nil && status == wire.StatusOK
	case changeFetch:
		status, err := wire.PeekStatus(answer)
		return Topic{TopicConversation, room}, true, err == nil && status == wire.StatusOK
	}
	return Topic{}, false, false
}

// apply changes the subscriptions of c after a request of it succeeded (L3.8), and reports whether there is a new one.
func (s *shard) apply(c *conn.Conn, t Topic, join bool) (subscribed bool) {
	if join {
		return s.subscribe(c, t.Kind, t.Room)
	}
	s.unsubscribe(c, Topic{TopicRoom, t.Room})
	s.unsubscribe(c, Topic{TopicConversation, t.Room})
	return false
}

// applyInTurn is apply as a task of the loop. Publish, Unsubscribe, UnsubscribeAll and EndTopic are tasks, so a change that
// an answer inside Process causes must be one as well: then everything happens in the order in which the worker said it.
// Otherwise a client that sends Bye, Authenticate and JoinRoom in one go would join first and then lose all its
// subscriptions to the Bye, and a new member would get events from before it joined.
func (s *shard) applyInTurn(c *conn.Conn, t Topic, join bool) {
	t.Room = strings.Clone(t.Room)
	ref := c.Ref()
	s.loop.PostFunc(func() {
		if c := s.registry.Get(ref); c != nil {
			s.apply(c, t, join)
		}
	})
}

// topic is what has at least one subscriber on this loop.
type topic struct {
	name    Topic
	members []member
}

// member is a subscriber; its client's subscription in turn knows its place in members, so that each end is found from
// the other without a search.
type member struct {
	conn   conn.Ref
	client uint32
	index  uint32 // in client.topics
}

type subscription struct {
	topic *topic
	index uint32 // in topic.members
}

// subscribe adds c to a topic and reports whether it was not there before. room may be borrowed.
func (s *shard) subscribe(c *conn.Conn, kind TopicKind, room string) bool {
	t := s.topics[Topic{kind, room}]
	if t == nil {
		name := Topic{kind, strings.Clone(room)}
		t = &topic{name: name}
		s.topics[name] = t
		s.interested(name.Room, true)
	}
	number, cl := s.needClient(c)
	for _, sub := range cl.topics {
		if sub.topic == t {
			return false
		}
	}
	cl.topics = append(cl.topics, subscription{t, uint32(len(t.members))})
	t.members = append(t.members, member{cl.conn, number, uint32(len(cl.topics) - 1)})
	s.stats.Subscriptions[kind]++
	return true
}

func (s *shard) unsubscribe(c *conn.Conn, name Topic) {
	i, cl := s.clientOf(c)
	t := s.topics[name]
	if cl == nil || t == nil {
		return
	}
	for k, sub := range cl.topics {
		if sub.topic == t {
			s.remove(cl, k)
			s.freeIfIdle(c, i, cl)
			return
		}
	}
}

func (s *shard) unsubscribeAll(cl *client) {
	for n := len(cl.topics); n > 0; n = len(cl.topics) {
		s.remove(cl, n-1)
	}
}

// remove ends the k-th subscription of cl. The last one of each list moves into the gap.
func (s *shard) remove(cl *client, k int) {
	sub := cl.topics[k]
	t := sub.topic
	last := len(t.members) - 1
	if int(sub.index) != last {
		m := t.members[last]
		t.members[sub.index] = m
		s.clients.at(m.client).topics[m.index].index = sub.index
	}
	t.members = t.members[:last]
	if last == 0 {
		delete(s.topics, t.name)
		s.interested(t.name.Room, false)
	}
	end := len(cl.topics) - 1
	if k != end {
		moved := cl.topics[end]
		cl.topics[k] = moved
		moved.topic.members[moved.index].index = uint32(k)
	}
	cl.topics[end] = subscription{}
	cl.topics = cl.topics[:end]
	s.stats.Subscriptions[t.name.Kind]--
}

// broadcast is an event on its way to the subscribers on all loops: each form of it is built once, by the first loop
// that needs it.
type broadcast struct {
	topic   Topic
	env     wire.Envelope
	once    [2]sync.Once
	message [2]*conn.Prepared
}

func (b *broadcast) prepared(form wire.Form) *conn.Prepared {
	b.once[form].Do(func() {
		p := b.env.AppendForm(make([]byte, 0, b.env.FormSize(form)), form)
		b.message[form] = conn.Prepare(opOf(form == wire.Binary), p)
	})
	return b.message[form]
}

// Publish implements Clients. Safe from any goroutine.
func (g *Gateway) Publish(t Topic, typ string, payload []byte) {
	b := &broadcast{topic: Topic{t.Kind, strings.Clone(t.Room)}}
	b.env = wire.Envelope{Type: strings.Clone(typ), Payload: append([]byte(nil), payload...), MessageType: wire.Event}
	for _, s := range g.shards {
		s.loop.PostFunc(func() { s.deliver(b) })
	}
}

func (s *shard) deliver(b *broadcast) {
	t := s.topics[b.topic]
	if t == nil {
		return
	}
	for _, m := range t.members { // sending closes at worst, which does not change the members
		c := s.registry.Get(m.conn)
		if c == nil {
			panic("mq: a subscription outlived its connection")
		}
		form := wire.Text
		if c.User&formBinary != 0 {
			form = wire.Binary
		}
		switch c.SendPrepared(b.prepared(form)) {
		case nil:
			s.stats.Deliveries++
		case conn.ErrSlow:
			s.drop(DropSlow, c, b.env.Type)
		default:
			s.drop(DropAnswerNotOpen, c, b.env.Type)
		}
	}
}

// EndTopic implements Clients. Safe from any goroutine.
func (g *Gateway) EndTopic(t Topic) {
	t.Room = strings.Clone(t.Room)
	for _, s := range g.shards {
		s.loop.PostFunc(func() {
			for tp := s.topics[t]; tp != nil; tp = s.topics[t] { // gone with its last member
				m := tp.members[len(tp.members)-1]
				s.unsubscribe(s.registry.Get(m.conn), t)
			}
		})
	}
}

// Unsubscribe implements Clients. Safe from any goroutine.
func (g *Gateway) Unsubscribe(id conn.ID, t Topic) {
	t.Room = strings.Clone(t.Room)
	g.server.Do(id, func(c *conn.Conn) {
		if c != nil {
			g.shardOf(c).unsubscribe(c, t)
		}
	})
}

// UnsubscribeAll implements Clients. Safe from any goroutine.
func (g *Gateway) UnsubscribeAll(id conn.ID) {
	g.server.Do(id, func(c *conn.Conn) {
		if c == nil {
			return
		}
		s := g.shardOf(c)
		if i, cl := s.clientOf(c); cl != nil {
			s.unsubscribeAll(cl)
			s.freeIfIdle(c, i, cl)
		}
	})
}
