package mq

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/wire"
)

// consistent checks every index of every shard against the others: subscriptions from both ends, the chains of requests,
// the numbers of server requests, and that a client state exists for those connections that need one and no others.
func (s *sim) consistent() {
	s.t.Helper()
	fail := func(format string, args ...any) {
		s.t.Helper()
		s.t.Fatalf(format, args...)
	}
	for _, sh := range s.g.shards {
		clients, subs, pending, waiting := 0, 0, 0, 0
		var kinds [2]int64
		sh.registry.Each(func(c *conn.Conn) {
			i, cl := sh.clientOf(c)
			if cl == nil {
				return
			}
			clients++
			if cl.conn != c.Ref() {
				fail("client %d belongs to %v, not %v", i, cl.conn, c.Ref())
			}
			if cl.inFlight == 0 && cl.waiting == 0 && len(cl.topics) == 0 {
				fail("client %d is kept for nothing", i)
			}
			for k, sub := range cl.topics {
				subs++
				if sh.topics[sub.topic.name] != sub.topic {
					fail("client %d is subscribed to %v, which is not in the map", i, sub.topic.name)
				}
				if m := sub.topic.members[sub.index]; m != (member{c.Ref(), i, uint32(k)}) {
					fail("client %d, subscription %d: its place holds %+v", i, k, m)
				}
			}
			n, last := uint32(0), uint32(0)
			for at := cl.first; at != 0; at = sh.pending.at(at).next {
				p := sh.pending.at(at)
				if p.prev != last || p.client != i || p.conn != c.Ref() || !sh.pending.timers.Armed(at) {
					fail("client %d: pending request %d is %+v", i, at, *p)
				}
				n, last = n+1, at
			}
			if n != cl.inFlight {
				fail("client %d: %d in flight, %d in the chain", i, cl.inFlight, n)
			}
			pending += int(n)
			last = 0
			for at := cl.waiting; at != 0; at = sh.waiting.at(at).next {
				w := sh.waiting.at(at)
				if w.prev != last || w.client != i || w.conn != c.Ref() || sh.byNumber[w.number] != at || !sh.waiting.timers.Armed(at) {
					fail("client %d: server request %d is %+v", i, at, *w)
				}
				waiting++
				last = at
			}
		})
		members := 0
		for name, t := range sh.topics {
			if t.name != name || len(t.members) == 0 {
				fail("topic %v is called %v and has %d members", name, t.name, len(t.members))
			}
			members += len(t.members)
			kinds[name.Kind] += int64(len(t.members))
		}
		if members != subs || kinds != sh.stats.Subscriptions {
			fail("%d members, %d subscriptions, counted %v", members, subs, sh.stats.Subscriptions)
		}
		if clients != sh.clients.len() || pending != sh.pending.len() || waiting != sh.waiting.len() || waiting != len(sh.byNumber) {
			fail("clients %d of %d, pending %d of %d, waiting %d of %d, numbers %d", clients, sh.clients.len(), pending, sh.pending.len(),
				waiting, sh.waiting.len(), len(sh.byNumber))
		}
		if pending != sh.pending.timers.Len() || waiting != sh.waiting.timers.Len() || int64(pending) != sh.stats.InFlight {
			fail("%d pending with %d timers, %d counted; %d waiting with %d timers", pending, sh.pending.timers.Len(), sh.stats.InFlight,
				waiting, sh.waiting.timers.Len())
		}
	}
}

// TestSubscriptionsModel compares subscriptions and deliveries with a map of sets, over random sequences of everything
// that changes them. L3.8, L6.1.
func TestSubscriptionsModel(t *testing.T) {
	for seed := range seeds(30) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 8))
			var w *interestedScript
			s := newSim(t, 1+int(seed)%3, withInterest(t, &w))
			m := &model{sim: s, interest: w, rng: rng, sets: map[Topic]map[*peer]bool{}, expected: map[*peer][]string{}, closing: map[*peer]bool{}}
			s.w.process = m.process
			for range 400 {
				m.step()
			}
			m.settle()
		})
	}
}

// model is the naive truth.
type model struct {
	*sim
	interest *interestedScript
	rng      *rand.Rand
	peers    []*peer
	sets     map[Topic]map[*peer]bool
	expected map[*peer][]string // event types since the last settle
	closing  map[*peer]bool
	events   int
	settled  int
	answer   []byte
	later    bool
}

func (m *model) process(r *Request) {
	if m.later {
		m.w.later = append(m.w.later, r.Later())
		return
	}
	r.Reply("answer", m.answer)
}

func (m *model) topic() Topic {
	return Topic{TopicKind(m.rng.IntN(2)), string(rune('a' + m.rng.IntN(5)))}
}

func (m *model) step() {
	if len(m.peers) == 0 || len(m.peers) < 25 && m.rng.IntN(8) == 0 {
		m.settle()
		p := m.connect(m.rng.IntN(len(m.nets)))
		m.peers = append(m.peers, p)
		return
	}
	p := m.peers[m.rng.IntN(len(m.peers))]
	topic := m.topic()
	switch n := m.rng.IntN(100); {
	case n < 35:
		m.change(p, topic)
	case n < 60: // several may be on their way at the same time
		m.events++
		typ := fmt.Sprint("e", m.events)
		m.w.clients.Publish(topic, typ, nil)
		for q := range m.sets[topic] {
			if !m.closing[q] {
				m.expected[q] = append(m.expected[q], typ)
			}
		}
	case n < 70:
		m.w.clients.Unsubscribe(p.id, topic)
		delete(m.sets[topic], p)
	case n < 74:
		m.w.clients.UnsubscribeAll(p.id)
		m.forget(p)
	case n < 78:
		m.w.clients.EndTopic(topic)
		delete(m.sets, topic)
	case n < 82:
		m.w.clients.CloseConnection(p.id, 1000, "", nil)
		m.closing[p] = true
	case n < 90:
		m.end(p)
	default:
		m.settle()
	}
}

// change subscribes or unsubscribes by a request, answered inline or later.
func (m *model) change(p *peer, topic Topic) {
	m.settle()
	m.later = m.rng.IntN(2) == 0
	m.w.later = nil
	join := m.rng.IntN(3) > 0
	typ, payload := wire.TypeLeaveRoom, leave(topic.Room)
	m.answer = statusAnswer("ok")
	switch {
	case join && topic.Kind == TopicRoom:
		typ, payload, m.answer = wire.TypeJoinRoom, nil, joinAnswer("ok", topic.Room)
	case join:
		typ, payload = wire.TypeFetchRoomConversation, fetch(topic.Room, wire.Subscribe)
	}
	env := wire.Envelope{RequestID: "C0", Type: typ, Payload: payload}
	if p.id[20]&1 == 0 {
		p.text(&env)
	} else {
		p.binary(&env)
	}
	m.run()
	for _, c := range m.w.later {
		c.Reply("answer", m.answer)
	}
	m.run()
	if m.closing[p] {
		return
	}
	m.expected[p] = append(m.expected[p], "answer")
	if join {
		if m.sets[topic] == nil {
			m.sets[topic] = map[*peer]bool{}
		}
		m.sets[topic][p] = true
	} else {
		delete(m.sets[Topic{TopicRoom, topic.Room}], p)
		delete(m.sets[Topic{TopicConversation, topic.Room}], p)
	}
}

func (m *model) forget(p *peer) {
	for _, set := range m.sets {
		delete(set, p)
	}
}

// end ends a connection from the client's side.
func (m *model) end(p *peer) {
	m.settle()
	switch m.rng.IntN(3) {
	case 0:
		p.close(1000)
	case 1:
		p.p.CloseWrite()
	case 2:
		p.p.Reset()
	}
	m.run()
	m.forget(p)
	m.peers = slices.DeleteFunc(m.peers, func(q *peer) bool { return q == p })
	delete(m.closing, p)
	if p.conn() != nil {
		m.t.Fatal("the connection has not ended")
	}
}

// settle lets everything arrive and compares.
func (m *model) settle() {
	m.t.Helper()
	m.run()
	for _, p := range m.peers {
		var got []string
		for _, msg := range p.take() {
			if msg.env.Type != "" {
				got = append(got, msg.env.Type)
			}
		}
		if !slices.Equal(got, m.expected[p]) {
			m.t.Fatalf("a client got %q, expected %q", got, m.expected[p])
		}
		delete(m.expected, p)
	}
	if m.settled++; plainBuild || m.settled%10 == 0 { // it looks at every slot, which the checks of other builds make slow
		m.consistent()
	}
	var kinds [2]int64
	rooms := map[string]bool{}
	for topic, set := range m.sets {
		kinds[topic.Kind] += int64(len(set))
		if len(set) > 0 {
			rooms[topic.Room] = true
		}
	}
	if !maps.Equal(rooms, m.interest.rooms) {
		m.t.Fatalf("the worker was told of subscribers in %v, expected %v", m.interest.rooms, rooms)
	}
	if got := m.stats().Subscriptions; got != kinds {
		m.t.Fatalf("%v subscriptions, expected %v", got, kinds)
	}
	if m.rng.IntN(4) == 0 {
		m.advance(10 * time.Millisecond)
	}
}
