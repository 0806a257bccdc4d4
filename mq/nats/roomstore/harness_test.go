package roomstore_test

import (
	"context"
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
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/record"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

var prefixes atomic.Int64

const patience = 60 * time.Second

// system is some workers on one store, and the log as gateways see it.
type system struct {
	t    testing.TB
	urls []string
	// replicas of the streams. With more than one, servers may die, and what the stream publishes may be lost: the log is
	// read from the stream then.
	replicas int

	names subjects.Names
	nc    *nats.Conn
	js    jetstream.JetStream
	is    *conn.Issuer
	cfg   rooms.Config
	now   atomic.Int64 // [ns since 1970], added to the clock
	next  atomic.Uint32

	mu      sync.Mutex
	workers []*worker // those that live
	log     []entry
	bound   map[conn.ID]string
}

type entry struct {
	room string // token
	seq  uint64
	last uint64 // the one before it on its subject
	rec  record.Record
}

// worker is one process's worth of a rooms worker.
type worker struct {
	*rooms.Worker
	e  *roomstore.Engine
	nc *nats.Conn

	hold atomic.Pointer[holder] // nil: nothing is held
}

// holder is asked before what a worker does to the buckets of connections and sessions.
type holder func(subject string, do func() error) error

// held reports whether a subject is one that reads or writes a connection or a session.
func (s *system) held(subject string) bool {
	if strings.HasPrefix(subject, "$JS.API.STREAM.INFO.") {
		return false
	}
	for _, b := range []string{s.names.ConnsBucket(), s.names.SessionsBucket()} {
		if strings.HasPrefix(subject, "$KV."+b+".") || strings.HasSuffix(subject, ".KV_"+b) {
			return true
		}
	}
	return false
}

func newSystem(t testing.TB, cfg rooms.Config) *system {
	return newSystemOn(t, cfg, []string{server.URL()}, 1)
}

// newSystemOn makes a system on other servers than the one of all tests.
func newSystemOn(t testing.TB, cfg rooms.Config, urls []string, replicas int) *system {
	names, err := subjects.New("s" + strconv.FormatInt(prefixes.Add(1), 10))
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, urls: urls, replicas: replicas, names: names, is: conn.NewIssuer(), cfg: cfg, bound: map[conn.ID]string{}}
	s.nc = s.connect()
	if s.js, err = jetstream.New(s.nc); err != nil {
		t.Fatal(err)
	}
	sub, err := s.nc.Subscribe(names.Prefix()+".room.>", s.take)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = s.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *system) connect() *nats.Conn { return natstest.Connect(s.t, s.urls) }

func (s *system) take(m *nats.Msg) {
	var en entry
	var err1, err2 error
	en.seq, err1 = strconv.ParseUint(m.Header.Get(subjects.HeaderSequence), 10, 64)
	en.last, err2 = strconv.ParseUint(m.Header.Get(subjects.HeaderLastSequence), 10, 64)
	err3 := en.rec.Unmarshal(m.Data)
	if err1 != nil || err2 != nil || err3 != nil {
		s.t.Errorf("%v, %v, %v", err1, err2, err3)
	}
	en.room, _ = s.names.TokenOfRoom(m.Subject)
	s.mu.Lock()
	s.log = append(s.log, en)
	s.mu.Unlock()
}

// settle waits until the log has come as far as the stream is, and returns it.
func (s *system) settle() []entry {
	if s.replicas > 1 {
		return s.readStream()
	}
	st, err := s.js.Stream(s.t.Context(), s.names.RoomsStream())
	if err != nil {
		s.t.Fatal(err)
	}
	last := st.CachedInfo().State.LastSeq
	s.await("all records", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return last == 0 || len(s.log) > 0 && s.log[len(s.log)-1].seq >= last
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *system) await(what string, cond func() bool) {
	s.t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			s.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// start starts a worker on a connection of its own.
func (s *system) start() *worker { return s.startOn(s.connect()) }

func (s *system) startOn(nc *nats.Conn) *worker {
	clock := func() time.Time { return time.Now().Add(time.Duration(s.now.Load())) }
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	e, err := roomstore.New(ctx, roomstore.Options{Conn: nc, Names: s.names, Memory: s.replicas == 1, Replicas: s.replicas, Look: 20 * time.Millisecond, AckWait: time.Second, Now: clock})
	if err != nil {
		s.t.Fatal(err)
	}
	out := &worker{e: e, nc: nc}
	e.Hold(func(ctx context.Context, subject string, do func(context.Context) error) error {
		h := out.hold.Load()
		if h == nil || !s.held(subject) {
			return do(ctx)
		}
		return (*h)(subject, func() error { // however long it was held
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			return do(ctx)
		})
	})
	cfg := s.cfg
	cfg.Engine, cfg.Now = e, clock
	w, err := rooms.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	w.Attach(&clients{s: s})
	out.Worker = w
	s.t.Cleanup(w.Close)
	s.mu.Lock()
	s.workers = append(s.workers, out)
	s.mu.Unlock()
	return out
}

// kill takes a worker's connection away in the middle of whatever it does. No request is sent to it any more.
func (s *system) kill(w *worker) {
	s.mu.Lock()
	s.workers = slices.DeleteFunc(s.workers, func(o *worker) bool { return o == w })
	s.mu.Unlock()
	w.nc.Close()
}

// clients are those of no gateway.
type clients struct {
	s *system
}

func (c *clients) Publish(t mq.Topic, typ string, _ []byte)                      { c.s.t.Errorf("%s published", typ) }
func (c *clients) SendEvent(conn.ID, string, []byte, func(error))                {}
func (c *clients) SendRequest(conn.ID, string, []byte, func(mq.Response, error)) {}
func (c *clients) Unsubscribe(conn.ID, mq.Topic)                                 {}
func (c *clients) UnsubscribeAll(conn.ID)                                        {}
func (c *clients) EndTopic(mq.Topic)                                             {}
func (c *clients) CloseConnection(conn.ID, uint16, string, func(bool))           {}
func (c *clients) Bind(id conn.ID, old, session string, done func(error)) {
	c.s.mu.Lock()
	if c.s.bound[id] == old {
		c.s.bound[id] = session
	}
	c.s.mu.Unlock()
	done(nil)
}

// client is a connection.
type client struct {
	s       *system
	id      conn.ID
	session string
}

func (s *system) dial() *client { return &client{s: s, id: s.is.Make(0, s.next.Add(1), 0)} }

func (s *system) login() *client {
	c := s.dial()
	c.auth("")
	return c
}

// flight is a request and its answer.
type flight struct {
	done    chan struct{}
	payload []byte
	note    mq.Note
	err     error
}

func (f *flight) Reply(*mq.Request, string, []byte) { panic("not expected") }
func (f *flight) Meta(*mq.Request) mq.Meta          { return mq.Meta{} }
func (f *flight) Later(*mq.Request) mq.Completion   { return mq.NewCompletion(f, 1) }
func (f *flight) Fail(_ *mq.Request, err error)     { f.Complete(1, "", nil, err) }
func (f *flight) Complete(_ uint64, _ string, _ []byte, err error) {
	f.err = err
	close(f.done)
}

func (f *flight) CompleteNoted(_ uint64, _ string, payload []byte, note mq.Note) {
	f.payload, f.note = slices.Clone(payload), note
	f.note.Session, f.note.Room = strings.Clone(note.Session), strings.Clone(note.Room)
	close(f.done)
}

type message interface{ AppendTo([]byte) []byte }

// ask sends a request to some worker and returns the status of the answer, "" when it failed.
func (c *client) ask(typ string, m message) (string, *flight) {
	c.s.mu.Lock()
	w := c.s.workers[int(c.s.next.Add(1))%len(c.s.workers)]
	c.s.mu.Unlock()
	return c.askOf(w, typ, m)
}

// askOf asks one worker.
func (c *client) askOf(w *worker, typ string, m message) (string, *flight) {
	c.s.mu.Lock()
	bound := c.s.bound[c.id]
	c.s.mu.Unlock()
	f := &flight{done: make(chan struct{})}
	r := mq.NewRequest(f)
	r.Conn, r.Type, r.Payload, r.Bound = c.id, typ, m.AppendTo(nil), bound
	w.Process(r)
	<-f.done
	if f.err != nil {
		return "", f
	}
	if f.note.Bind {
		c.s.mu.Lock()
		c.s.bound[c.id] = f.note.Session
		c.s.mu.Unlock()
	}
	status, err := wire.PeekStatus(f.payload)
	if err != nil {
		c.s.t.Error(err)
	}
	return strings.Clone(status), f
}

func (c *client) auth(session string) string {
	status, f := c.ask(wire.TypeAuthenticate, &wire.Authenticate{SessionID: session})
	if status == wire.StatusOK {
		c.session, _, _ = strings.Cut(f.note.Session, ".")
	}
	return status
}

func (c *client) create(room string) string {
	status, _ := c.ask(wire.TypeCreateRoom, &wire.CreateRoom{Room: wire.Room{RoomID: room, Name: "n"}})
	return status
}

func (c *client) join(room string) string {
	status, _ := c.ask(wire.TypeJoinRoom, &wire.JoinRoom{RoomID: room, Member: wire.Member{ScreenName: "name of " + c.session}, Options: []string{wire.OptionReenter}})
	return status
}

func (c *client) leave(room string) string {
	status, _ := c.ask(wire.TypeLeaveRoom, &wire.LeaveRoom{RoomID: room})
	return status
}

func (c *client) say(room, text string) string {
	status, _ := c.ask(wire.TypeSendMessageToRoom, &wire.SendMessageToRoom{RoomID: room, ChatMessage: wire.ChatMessage{Message: text}})
	return status
}

func (c *client) bye() string {
	status, _ := c.ask(wire.TypeBye, &wire.Bye{})
	return status
}

// members returns who is in a room.
func (c *client) members(room string) (out []string, status string) {
	status, f := c.ask(wire.TypeGetRoomInfo, &wire.GetRoomInfo{RoomID: room})
	var a wire.GetRoomInfoResponse
	if status != "" {
		if err := a.Unmarshal(f.payload); err != nil {
			c.s.t.Error(err)
		}
	}
	for _, m := range a.Members {
		out = append(out, m.SessionID)
	}
	slices.Sort(out)
	return out, status
}

// lose publishes the end of the connection as a gateway does.
func (c *client) lose(code uint32) {
	m := nats.NewMsg(c.s.names.Disconnected(c.id.Node()))
	m.Data = (&wire.ConnectionDisconnected{ConnectionID: c.id.String(), ReasonCode: code}).AppendTo(nil)
	m.Header.Set(subjects.HeaderMsgID, c.id.String())
	c.s.mu.Lock()
	m.Header.Set(subjects.HeaderSession, c.s.bound[c.id])
	c.s.mu.Unlock()
	if _, err := c.s.js.PublishMsg(c.s.t.Context(), m); err != nil {
		c.s.t.Error(err)
	}
}

func (s *system) must(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: status %q, want %q", what, got, want)
	}
}
