package bench

import (
	"context"
	"strings"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// DefaultRequest is the type of request that is sent by default, and DefaultStatus its answer's status: it asks for a room
// that does not exist. A worker has to know the session, decode the request and look the room up, and keeps nothing of it.
const (
	DefaultRequest = wire.TypeGetRoomInfo
	DefaultStatus  = wire.StatusNotFound
)

// noRoom is the id of a room that does not exist.
const noRoom = "mqgate-bench"

// slot is a request in flight.
type slot struct {
	seq  uint32
	used bool
	at   int64 // when it was sent, or due [ns on the loop's clock]
}

// requestLoad keeps MQ requests in flight on every connection and checks their answers, which may come in any order.
type requestLoad struct {
	flow
	envelopes
	greeter
	sizes     Sizes
	templates [][]byte // encoded envelopes, by kind of size
	typ       string   // of a good answer
	status    string   // of a good answer; "": any

	next  []uint32 // of each connection: the number of the next request
	open  []uint16 // of each connection: requests in flight
	slots []slot   // those of connection i from i*depth on

	out, back, wrong, duplicate, late uint64
	patience                          int64 // an answer after that is late [ns]
}

func newRequestLoad(r *run, d *driver) load {
	o := r.o
	l := &requestLoad{flow: newFlow(d, len(d.clients), o.Depth), envelopes: newEnvelopes(o.Text), sizes: o.sizes(),
		typ: o.RequestType + "Response", status: o.AnswerStatus, next: make([]uint32, len(d.clients)),
		open: make([]uint16, len(d.clients)), slots: make([]slot, len(d.clients)*o.Depth), patience: int64(o.AnswerTimeout)}
	l.x, l.greeter = l, greeter{d: d, e: &l.envelopes}
	if o.RequestPayload != nil {
		l.sizes = FixedSize(len(o.RequestPayload))
		l.templates = [][]byte{requestTemplate(o.RequestType, o.RequestPayload)}
		return l
	}
	for _, n := range l.sizes.bytes {
		l.templates = append(l.templates, requestTemplate(o.RequestType, askFor(n)))
	}
	return l
}

// askFor returns a chat.GetRoomInfo for no room, of n bytes, which are minMessage at the least.
func askFor(n int) []byte {
	for _, room := range []string{noRoom, noRoom + "-"} { // where the length of the padding takes a byte more, n is jumped over
		m := wire.GetRoomInfo{RoomID: room}
		for pad := max(1, n-len(m.AppendTo(nil))-5); ; pad++ {
			m.Secret = strings.Repeat("x", pad)
			if p := m.AppendTo(nil); len(p) == n {
				return p
			} else if len(p) > n {
				break
			}
		}
	}
	panic("bench: no request of that size")
}

func (l *requestLoad) flowOf() *flow       { return &l.flow }
func (l *requestLoad) greeterOf() *greeter { return &l.greeter }

func (l *requestLoad) sent(i uint32) uint32  { return l.next[i] }
func (l *requestLoad) inFlight(i uint32) int { return int(l.open[i]) }

// send implements exchange.
func (l *requestLoad) send(c *conn.Conn, i uint32, at int64) error {
	seq, number := l.next[i], l.d().number(i)
	t := l.templates[l.sizes.kind(number, seq)]
	p, err := l.envelopes.begin(c, len(t))
	if err != nil {
		return err
	}
	copy(p, t)
	putID(p, number, seq)
	if err := l.envelopes.send(c, p); err != nil {
		return err
	}
	*l.free(i, seq) = slot{seq: seq, used: true, at: at}
	l.next[i]++
	l.open[i]++
	l.out++
	return nil
}

// d returns the driver.
func (l *requestLoad) d() *driver { return l.flow.d }

// free returns a free slot of connection i: that of its number, as long as answers come in order.
func (l *requestLoad) free(i, seq uint32) *slot {
	slots := l.slots[int(i)*l.depth:][:l.depth]
	for k := range slots {
		if s := &slots[(int(seq)+k)%l.depth]; !s.used {
			return s
		}
	}
	panic("bench: more requests in flight than slots")
}

// find returns the slot of request seq of connection i, or nil.
func (l *requestLoad) find(i, seq uint32) *slot {
	slots := l.slots[int(i)*l.depth:][:l.depth]
	for k := range slots {
		if s := &slots[(int(seq)+k)%l.depth]; s.used && s.seq == seq {
			return s
		}
	}
	return nil
}

// give ends a request that was in flight.
func (l *requestLoad) give(i uint32, s *slot) {
	s.used = false
	l.open[i]--
}

// skip ends the oldest request of a connection: what came cannot be told to belong to any, and stands for this one.
func (l *requestLoad) skip(i uint32) {
	var oldest *slot
	slots := l.slots[int(i)*l.depth:][:l.depth]
	for k := range slots {
		if s := &slots[k]; s.used && (oldest == nil || int32(s.seq-oldest.seq) < 0) {
			oldest = s
		}
	}
	if oldest != nil {
		l.give(i, oldest)
	}
}

// message implements load.
func (l *requestLoad) message(c *conn.Conn, i uint32, op frame.OpCode, p []byte) {
	now := l.d().loop.Clock()
	if l.read(op, p) && l.env.MessageType != wire.Response || l.took(i) {
		return // events and requests of the server are none of this scenario's business
	}
	l.answer(i, now)
	l.pump(c, i, now)
}

// answer judges what l.env holds, whose type is empty when it could not be read.
func (l *requestLoad) answer(i uint32, now int64) {
	number, seq, ok := parseID(l.env.RequestID)
	switch {
	case l.env.Type == "" || !ok:
		l.wrong++
		l.skip(i)
		return
	case number != l.d().number(i), int32(seq-l.next[i]) >= 0: // another connection's, or never sent: one too many here
		l.wrong++
		return
	}
	s := l.find(i, seq)
	if s == nil {
		l.duplicate++
		return
	}
	l.give(i, s)
	if l.env.Type != l.typ || !l.good() {
		l.wrong++
		return
	}
	l.back++
	if now-s.at > l.patience {
		l.late++
	}
	l.answered(i, s.at, now)
}

// good reports whether the answer has the status that it should have.
func (l *requestLoad) good() bool {
	if l.status == "" {
		return true
	}
	status, err := wire.PeekStatus(l.env.Payload)
	return err == nil && status == l.status
}

// count implements load.
func (l *requestLoad) count(t *tally, final bool) {
	l.flow.count(t, final)
	t.sent += l.out
	t.echoed += l.back
	t.wrong += l.wrong
	t.duplicate += l.duplicate
	t.late += l.late
	if final {
		for i, n := range l.open {
			t.lose(l.d().place(uint32(i)), int(n))
		}
	}
}

// measureRequest is the request scenario on the coordinator.
func measureRequest(ctx context.Context, r *run) {
	if r.authenticate(ctx) {
		r.traffic("asking", r.o.Connections).run(ctx)
	}
}
