package rooms_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// server is the NATS server of all tests; each gateway has a prefix of its own.
var server *embedded.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = embedded.Start(embedded.Options{Listen: "127.0.0.1:0"}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Shutdown(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var prefixes atomic.Int64

// overNATS is the part of a gateway that brings the log of rooms to its connections, the ends of connections to the worker,
// and time to pass.
type overNATS struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	names subjects.Names

	now atomic.Int64 // [ns since 1970]

	// The rest is under gateway.mu.
	changed *sync.Cond
	seq     uint64 // last record of the stream that has come
	log     []entry
}

// entry is a record of some room that has come.
type entry struct {
	room string
	seq  uint64
	rec  record.Record
}

// patience is how long is waited for what must happen. It is never reached when all is well.
const patience = 60 * time.Second

func newNATSGateway(t testing.TB, cfg Config) *gateway {
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	names, err := subjects.New("t" + strconv.FormatInt(prefixes.Add(1), 10))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	g := emptyGateway(t)
	o := &overNATS{nc: nc, js: js, names: names, changed: sync.NewCond(&g.mu)}
	o.now.Store(time.Now().Truncate(time.Millisecond).UnixNano())
	g.js = o
	now := func() time.Time { return time.Unix(0, o.now.Load()) }
	cfg.Engine = o.engine(t, nc, now)
	cfg.Now = now
	g.start(cfg)
	t.Cleanup(g.w.Close)
	sub, err := nc.Subscribe(names.Room("x")[:len(names.Prefix())]+".room.>", func(m *nats.Msg) { o.take(g, m) })
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (o *overNATS) engine(t testing.TB, nc *nats.Conn, now func() time.Time) *roomstore.Engine {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := roomstore.New(ctx, roomstore.Options{Conn: nc, Names: o.names, Memory: true, Look: 10 * time.Millisecond, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// take takes a record that the stream has published.
func (o *overNATS) take(g *gateway, m *nats.Msg) {
	seq, err := strconv.ParseUint(m.Header.Get(subjects.HeaderSequence), 10, 64)
	if err != nil {
		g.t.Errorf("a record without a sequence: %v", err)
		return
	}
	en := entry{seq: seq}
	if err := en.rec.Unmarshal(m.Data); err != nil {
		g.t.Error(err)
	}
	token, _ := o.names.TokenOfRoom(m.Subject)
	g.mu.Lock()
	defer g.mu.Unlock()
	if seq <= o.seq {
		g.t.Errorf("record %d after %d", seq, o.seq)
	}
	o.seq = seq
	en.room = token
	o.log = append(o.log, en)
	for t, subs := range g.subs {
		if subjects.RoomToken(t.Room) != token {
			continue
		}
		for id, from := range subs {
			if seq > from {
				g.hear(id, t, &en.rec)
			}
		}
	}
	if en.rec.End {
		for _, kind := range []mq.TopicKind{mq.TopicRoom, mq.TopicConversation} {
			for t := range g.subs {
				if subjects.RoomToken(t.Room) == token && t.Kind == kind {
					delete(g.subs, t)
				}
			}
			g.ended = append(g.ended, mq.Topic{Kind: kind, Room: roomOf(g, token)})
		}
	}
	o.changed.Broadcast()
}

// roomOf decodes a token.
func roomOf(g *gateway, token string) string {
	var e wire.RoomEvent
	for _, en := range g.js.log {
		for _, ev := range en.rec.Events {
			if en.room == token && ev.Type == wire.TypeRoomEvent && e.Unmarshal(ev.Payload) == nil {
				return strings.Clone(e.RoomID)
			}
		}
	}
	return ""
}

// hear gives the events of a record to a subscriber. The one who leaves may be told of it over NATS, before the answer;
// here it is not, so that the same is expected of both implementations.
func (g *gateway) hear(id conn.ID, t mq.Topic, rec *record.Record) {
	for _, ev := range rec.Events {
		if ev.Topic != t.Kind {
			continue
		}
		var e wire.RoomEvent
		if ev.Type == wire.TypeRoomEvent && e.Unmarshal(ev.Payload) == nil && e.EventType == wire.MemberLeft && e.Members[0].SessionID == g.session(id) {
			continue
		}
		g.inbox[id] = append(g.inbox[id], received{strings.Clone(ev.Type), slices.Clone(ev.Payload)})
	}
}

// catchUp gives a new subscriber what has come after the record that its answer shows. The lock is held.
func (o *overNATS) catchUp(g *gateway, id conn.ID, t mq.Topic, seq uint64) {
	for i := range o.log {
		if en := &o.log[i]; en.seq > seq && en.room == subjects.RoomToken(t.Room) {
			g.hear(id, t, &en.rec)
			if en.rec.End {
				delete(g.subs[t], id)
			}
		}
	}
}

// awaitSeq waits until the records up to seq have come: an answer is given where they are, as the relay does.
func (o *overNATS) awaitSeq(g *gateway, seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for o.seq < seq {
		o.changed.Wait()
	}
}

// settle waits until everything that is in the log has come.
func (o *overNATS) settle(g *gateway) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := o.js.Stream(ctx, o.names.RoomsStream())
	if err != nil {
		g.t.Fatal(err)
	}
	last := s.CachedInfo().State.LastSeq
	g.mu.Lock()
	defer g.mu.Unlock()
	for o.seq < last {
		o.changed.Wait()
	}
}

// end publishes the end of a connection, as the relay does, and waits until it was taken.
func (o *overNATS) end(g *gateway, id conn.ID, code uint16) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := nats.NewMsg(o.names.Disconnected(id.Node()))
	m.Data = (&wire.ConnectionDisconnected{ConnectionID: id.String(), ReasonCode: uint32(code)}).AppendTo(nil)
	m.Header.Set(subjects.HeaderMsgID, id.String())
	g.mu.Lock()
	m.Header.Set(subjects.HeaderSession, g.bound[id])
	delete(g.bound, id)
	g.mu.Unlock()
	ack, err := o.js.PublishMsg(ctx, m)
	if err != nil {
		g.t.Fatal(err)
	}
	o.await(g, "the end of the connection is taken", func() bool {
		c, err := o.js.Consumer(ctx, o.names.DisconnectedStream(), roomstore.EndsConsumer)
		return err == nil && c.CachedInfo().AckFloor.Stream >= ack.Sequence
	})
}

// pass lets time pass and waits until every timer that is due then has gone.
func (o *overNATS) pass(g *gateway, d time.Duration) {
	// The store counts milliseconds, and stamps of one room are never the same: a nanosecond, which is a test's way to say
	// "just not yet", is some of them.
	whole := d.Round(time.Second)
	some := (d - whole) * 10 * time.Millisecond
	now := o.now.Add(int64(whole+max(some, 2*some))) / int64(time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o.await(g, "what is due has happened", func() bool {
		s, err := o.js.Stream(ctx, roomstore.TimersStream(o.names))
		if err != nil {
			g.t.Fatal(err)
		}
		st := s.CachedInfo().State
		for seq := st.FirstSeq; seq <= st.LastSeq && seq > 0; seq++ {
			m, err := s.GetMsg(ctx, seq)
			if err != nil {
				continue // gone
			}
			var t struct {
				Due int64 `json:"due"`
			}
			if err := json.Unmarshal(m.Data, &t); err != nil {
				g.t.Fatal(err)
			}
			if t.Due <= now {
				return false
			}
		}
		return true
	})
	o.settle(g)
}

// await waits until cond holds.
func (o *overNATS) await(g *gateway, what string, cond func() bool) {
	g.t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			g.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
