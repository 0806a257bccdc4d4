package mq

import (
	"testing"

	"github.com/mqgate/mqgate/mq/wire"
)

// L3.8: what a worker does to subscriptions by its answers and by its calls takes effect in the order in which it did it,
// also when the requests come in one read.
func TestSubscriptionOrder(t *testing.T) {
	ok := func(r *Request) { r.Reply(r.Type+"Response", joinAnswer("ok", "a")) }
	before, after := "before", "after"
	tests := []struct {
		name   string
		worker map[string]func(c Clients, r *Request) // by request type; requests come in one read, in the order of send
		send   []string
		want   string   // subscriptions in the end
		events []string // payloads of the events that the client got
	}{
		{"Bye, then JoinRoom", map[string]func(Clients, *Request){
			wire.TypeBye:      func(c Clients, r *Request) { ok(r); c.UnsubscribeAll(r.Conn) },
			wire.TypeJoinRoom: func(_ Clients, r *Request) { ok(r) },
		}, []string{wire.TypeJoinRoom, wire.TypeBye, wire.TypeJoinRoom}, "Ra", nil},
		{"JoinRoom, then Bye", map[string]func(Clients, *Request){
			wire.TypeBye:      func(c Clients, r *Request) { ok(r); c.UnsubscribeAll(r.Conn) },
			wire.TypeJoinRoom: func(_ Clients, r *Request) { ok(r) },
		}, []string{wire.TypeJoinRoom, wire.TypeBye}, "", nil},
		{"a room destroyed and made again", map[string]func(Clients, *Request){
			wire.TypeDestroyRoom: func(c Clients, r *Request) { ok(r); c.EndTopic(Topic{TopicRoom, "a"}) },
			wire.TypeJoinRoom:    func(_ Clients, r *Request) { ok(r) },
		}, []string{wire.TypeJoinRoom, wire.TypeDestroyRoom, wire.TypeJoinRoom}, "Ra", nil},
		{"events from before the join are for others", map[string]func(Clients, *Request){
			wire.TypeJoinRoom: func(c Clients, r *Request) {
				c.Publish(Topic{TopicRoom, "a"}, "event", []byte(before))
				ok(r)
				c.Publish(Topic{TopicRoom, "a"}, "event", []byte(after))
			},
		}, []string{wire.TypeJoinRoom}, "Ra", []string{after}},
		{"events from after the leaving are for others", map[string]func(Clients, *Request){
			wire.TypeJoinRoom: func(_ Clients, r *Request) { ok(r) },
			wire.TypeLeaveRoom: func(c Clients, r *Request) {
				c.Publish(Topic{TopicRoom, "a"}, "event", []byte(before))
				ok(r)
				c.Publish(Topic{TopicRoom, "a"}, "event", []byte(after))
			},
		}, []string{wire.TypeJoinRoom, wire.TypeLeaveRoom}, "", []string{before}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 1)
			s.w.process = func(r *Request) { test.worker[r.Type](s.w.clients, r) }
			p := s.connect(0)
			for _, typ := range test.send {
				p.request(typ, leave("a")) // the one payload from which a room is read here
			}
			s.run()
			if got := p.subscriptions(); got != test.want {
				t.Errorf("subscribed to %q, expected %q", got, test.want)
			}
			var events []string
			for _, m := range p.take() {
				if m.env.MessageType == wire.Event {
					events = append(events, string(m.env.Payload))
				}
			}
			if len(events) != len(test.events) || len(events) == 1 && events[0] != test.events[0] {
				t.Errorf("events %q, expected %q", events, test.events)
			}
			s.finish()
		})
	}
}
