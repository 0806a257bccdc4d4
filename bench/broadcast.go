package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// chatRoom is what all loops know of a room. Only its sender changes sent and at; every member counts down left.
type chatRoom struct {
	id   string
	sent atomic.Uint32
	// Of message seq, at [seq % window]: when it was sent or due [ns on the loops' clock], and how many members have not
	// had it.
	at   []atomic.Int64
	left []atomic.Int32
}

// newChatRooms makes the rooms of a run.
func newChatRooms(o *Options) []*chatRoom {
	run := rand.Text() // of no other run at the same server
	rooms := make([]*chatRoom, o.Rooms)
	for k := range rooms {
		window := max(roomWindow, o.Depth)
		rooms[k] = &chatRoom{id: fmt.Sprintf("bench-%s-%06d", run, k), at: make([]atomic.Int64, window), left: make([]atomic.Int32, window)}
	}
	return rooms
}

// broadcastLoad has one member of each room send chat messages and checks that every member, the sender included, gets
// each of them once and in order. Connection number g is in room g modulo the rooms, and the first of each room sends: so
// on every loop the senders are the first few connections. The members of a room are dealt out over all servers, and so
// are those who send (places.of): what is sent at one server must be delivered by all. A message is in flight, for --depth, until its sender has it.
//
// The latency of a delivery runs from when the message was sent, or due; the spread of a message is the time until its
// last member had it.
type broadcastLoad struct {
	flow
	envelopes
	greeter
	o       *Options
	rooms   []*chatRoom // shared by the loops
	sizes   Sizes
	heads   [][][]byte // by sender and kind of size: the encoded envelope up to the text
	text    []byte     // of the message that is being checked
	event   wire.RoomConversationEvent
	members []tracker // the events of each connection
	answers []tracker // of each sender: the answers to its requests

	out, delivered   uint64 // messages sent; deliveries of them
	wrong, duplicate uint64
	spread           *hdrhistogram.Histogram // [ns] of messages sent, or due, in the measured phase
}

func newBroadcastLoad(r *run, d *driver) load {
	o := r.o
	if r.rooms == nil {
		r.rooms = newChatRooms(o)
	}
	n := d.share(o.Rooms)
	l := &broadcastLoad{flow: newFlow(d, n, o.Depth), envelopes: newEnvelopes(o.Text), o: o, rooms: r.rooms, sizes: o.sizes(),
		members: make([]tracker, len(d.clients)), answers: make([]tracker, n), spread: newHistogram()}
	l.x, l.greeter = l, greeter{d: d, e: &l.envelopes}
	for i := range n {
		var heads [][]byte
		for _, size := range l.sizes.bytes {
			m := wire.SendMessageToRoom{RoomID: l.room(uint32(i)).id, ChatMessage: wire.ChatMessage{MessageID: "0",
				From: wire.ChatUser{ScreenName: "mqgate-bench"}, Message: strings.Repeat(" ", size)}}
			t := requestTemplate(wire.TypeSendMessageToRoom, m.AppendTo(nil))
			heads = append(heads, t[:len(t)-size])
		}
		l.heads = append(l.heads, heads)
	}
	return l
}

func (l *broadcastLoad) flowOf() *flow       { return &l.flow }
func (l *broadcastLoad) greeterOf() *greeter { return &l.greeter }

// d returns the driver.
func (l *broadcastLoad) d() *driver { return l.flow.d }

// roomNumber returns the room of connection i.
func (l *broadcastLoad) roomNumber(i uint32) uint32 { return l.d().number(i) % uint32(len(l.rooms)) }
func (l *broadcastLoad) room(i uint32) *chatRoom    { return l.rooms[l.roomNumber(i)] }

func (l *broadcastLoad) sent(i uint32) uint32 { return l.room(i).sent.Load() }

// inFlight implements exchange. A message whose place in the window is taken by one that some member has not had waits, but
// not longer than answers are waited for: that one is lost.
func (l *broadcastLoad) inFlight(i uint32) int {
	room := l.room(i)
	seq := room.sent.Load()
	place := int(seq) % len(room.left)
	if room.left[place].Load() > 0 && l.d().loop.Clock()-room.at[place].Load() < int64(answerGrace) {
		return l.depth
	}
	return int(seq - l.members[i].next)
}

// send implements exchange.
func (l *broadcastLoad) send(c *conn.Conn, i uint32, at int64) error {
	room, number := l.room(i), l.roomNumber(i)
	seq := room.sent.Load()
	k := l.sizes.kind(number, seq)
	head, size := l.heads[i][k], l.sizes.bytes[k]
	p, err := l.envelopes.begin(c, len(head)+size)
	if err != nil {
		return err
	}
	copy(p, head)
	putID(p, l.d().number(i), seq)
	fill(p[len(head):], true, number, seq)
	if err := l.envelopes.send(c, p); err != nil {
		return err
	}
	place := int(seq) % len(room.at)
	room.at[place].Store(at)
	room.left[place].Store(int32(l.o.Members))
	room.sent.Store(seq + 1) // before the message leaves this loop: the turn's end
	l.answers[i].sent++
	l.out++
	return nil
}

// message implements load.
func (l *broadcastLoad) message(c *conn.Conn, i uint32, op frame.OpCode, p []byte) {
	now := l.d().loop.Clock()
	switch {
	case !l.read(op, p):
		l.wrong++
		l.members[i].sent = l.sent(i)
		l.members[i].skip()
	case l.took(i):
	case l.env.MessageType == wire.Response:
		l.answer(i)
	case l.env.MessageType == wire.Event && l.env.Type == wire.TypeRoomConversationEvent:
		l.deliver(i, now)
	}
	if int(i) < l.n {
		l.pump(c, i, now)
	}
}

// answer judges the answer to a chat message, in l.env.
func (l *broadcastLoad) answer(i uint32) {
	number, seq, ok := parseID(l.env.RequestID)
	if !ok || number != l.d().number(i) || int(i) >= l.n {
		l.wrong++
		return
	}
	switch l.answers[i].received(seq) {
	case fresh, late: // MQ promises no order
		status, err := wire.PeekStatus(l.env.Payload)
		if err != nil || status != wire.StatusOK || l.env.Type != wire.TypeSendMessageToRoomResponse {
			l.wrong++
		}
	case repeated:
		l.duplicate++
	case unsent:
		l.wrong++
	}
}

// deliver judges an event of a conversation, in l.env.
func (l *broadcastLoad) deliver(i uint32, now int64) {
	room, t := l.room(i), &l.members[i]
	t.sent = room.sent.Load()
	if l.event.Unmarshal(l.env.Payload) != nil || len(l.event.ChatMessages) == 0 {
		l.wrong++
		t.skip()
		return
	}
	if l.event.RoomID != room.id {
		l.wrong++ // another room's: one too many here
		return
	}
	for k := range l.event.ChatMessages {
		l.text = append(l.text[:0], l.event.ChatMessages[k].Message...)
		number, seq, intact := check(l.text, true)
		if !intact || number != l.roomNumber(i) || len(l.text) != l.sizes.of(number, seq) {
			l.wrong++
			t.skip()
			continue
		}
		switch t.received(seq) {
		case fresh:
			l.delivered++
			place := int(seq) % len(room.at)
			at := room.at[place].Load()
			l.answered(i, at, now)
			if room.left[place].Add(-1) == 0 && at >= l.from && at < l.to {
				record(l.spread, now-at)
			}
		case late, unsent:
			l.wrong++
		case repeated:
			l.duplicate++
		}
	}
}

// waiting returns how many deliveries to open connections, and answers to senders, are still to come.
func (l *broadcastLoad) waiting() (n int) {
	for i := range l.members {
		if l.d().clients[i].state != clientOpen {
			continue
		}
		l.members[i].sent = l.sent(uint32(i))
		n += l.members[i].inFlight()
		if i < l.n {
			n += l.answers[i].inFlight()
		}
	}
	return n
}

// count implements load.
func (l *broadcastLoad) count(t *tally, final bool) {
	l.flow.count(t, final)
	t.sent += l.out
	t.echoed += l.delivered
	t.wrong += l.wrong
	t.duplicate += l.duplicate
	if final {
		for i := range l.members {
			t.lose(l.d().place(uint32(i)), l.members[i].lost())
		}
		for i := range l.answers {
			n := uint64(l.answers[i].lost())
			t.unanswered += n
			t.sides[l.d().place(uint32(i))].missing += n
		}
		if t.spread == nil {
			t.spread = newHistogram()
		}
		t.spread.Merge(l.spread)
	}
}

// measureBroadcast is the broadcast scenario on the coordinator.
func measureBroadcast(ctx context.Context, r *run) {
	senders := func(name, status string, request func(room string) []byte) bool {
		return r.greet(ctx, func(d *driver) *step {
			l := d.load.(*broadcastLoad)
			return &step{name: name, n: l.n, status: []string{status}, request: func(i uint32) []byte { return requestTemplate(name, request(l.room(i).id)) }}
		})
	}
	members := func(name string, request func(room string) []byte) bool {
		return r.greet(ctx, func(d *driver) *step {
			l := d.load.(*broadcastLoad)
			return &step{name: name, n: len(l.members), status: []string{wire.StatusOK},
				request: func(i uint32) []byte { return requestTemplate(name, request(l.room(i).id)) }}
		})
	}
	ready := r.authenticate(ctx) &&
		senders(wire.TypeCreateRoom, wire.StatusOK, func(room string) []byte {
			m := wire.CreateRoom{Room: wire.Room{RoomID: room, Name: room, Type: wire.MultiPartyChat}}
			return m.AppendTo(nil)
		}) &&
		members(wire.TypeJoinRoom, func(room string) []byte {
			m := wire.JoinRoom{RoomID: room, Member: wire.Member{ScreenName: "mqgate-bench"}}
			return m.AppendTo(nil)
		}) &&
		members(wire.TypeFetchRoomConversation, func(room string) []byte {
			m := wire.FetchRoomConversation{RoomID: room, Limit: 1, Options: []wire.RoomConversationOption{wire.Subscribe}}
			return m.AppendTo(nil)
		})
	if !ready {
		return
	}
	t := r.traffic("broadcasting", r.o.Rooms)
	if t.rate == 0 {
		t.rate = r.o.Rooms
	}
	t.run(ctx)
	// A room that is there no more tells nobody of those who leave, which all do when their connections close.
	ctx = context.WithoutCancel(ctx)
	senders(wire.TypeDestroyRoom, wire.StatusOK, func(room string) []byte {
		m := wire.DestroyRoom{RoomID: room}
		return m.AppendTo(nil)
	})
}

// BroadcastReport is what a broadcast found, besides what every report has. The latencies of the report are those of
// deliveries, and its messages, lost, duplicate and wrong too.
type BroadcastReport struct {
	Rooms           int     `json:"rooms"`
	Members         int     `json:"members"` // of each room
	Sent            uint64  `json:"sent"`    // chat messages, in all phases
	Deliveries      uint64  `json:"deliveries"`
	LostDeliveries  uint64  `json:"lost_deliveries"`
	LostAnswers     uint64  `json:"lost_answers"` // of senders
	Spread          Latency `json:"spread_ms"`    // from sending, or being due, to the last member
	SendsPerSecond  float64 `json:"sends_per_second"`
	DeliveryPerSend float64 `json:"deliveries_per_send"`
}

func (r *run) broadcastReport(p *Report, t *tally) *BroadcastReport {
	b := &BroadcastReport{Rooms: r.o.Rooms, Members: r.o.Members, Sent: t.sent, Deliveries: t.echoed,
		LostDeliveries: t.missing, LostAnswers: t.unanswered, SendsPerSecond: round(p.RatePerSecond/float64(r.o.Members), 1)}
	if t.spread != nil {
		b.Spread = latencyOf(t.spread)
	}
	if t.sent > 0 {
		b.DeliveryPerSend = round(float64(t.echoed)/float64(t.sent), 3)
	}
	return b
}

// write writes the lines of the report for people.
func (b *BroadcastReport) write(line func(head, format string, args ...any)) {
	line("broadcast", "%d messages in %d rooms of %d: %d deliveries, %.1f sends per second", b.Sent, b.Rooms, b.Members, b.Deliveries, b.SendsPerSecond)
	line("", "%d deliveries and %d answers lost", b.LostDeliveries, b.LostAnswers)
	if s := b.Spread; s.P50 != nil {
		line("spread", "to the last member: p50 %.3f ms, p90 %.3f, p99 %.3f, p99.9 %.3f, max %.3f", *s.P50, *s.P90, *s.P99, *s.P999, *s.Max)
	}
}
