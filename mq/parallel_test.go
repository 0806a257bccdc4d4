package mq_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// pool is a worker that answers from goroutines of its own, in whatever order they get to run, and now and then asks
// and publishes from there.
type pool struct {
	clients mq.Clients
	jobs    chan job
	done    sync.WaitGroup

	mu       sync.Mutex
	ends     map[conn.ID]int
	interest []bool // in the room everybody
}

type job struct {
	c       mq.Completion
	id      conn.ID
	payload []byte
}

var everybody = mq.Topic{Kind: mq.TopicRoom, Room: "everybody"}

func newPool(goroutines int) *pool {
	p := &pool{jobs: make(chan job, 1<<16), ends: make(map[conn.ID]int)}
	for range goroutines {
		p.done.Go(func() {
			for j := range p.jobs {
				switch rand.IntN(20) {
				case 0:
					p.clients.Publish(everybody, "tick", nil)
				case 1:
					question := string(j.payload)
					p.clients.SendRequest(j.id, "ask", j.payload, func(r mq.Response, err error) {
						if err == nil && string(r.Payload) != question {
							panic("the answer to another question")
						}
					})
				case 2:
					j.c.Reply("first", j.payload)
				}
				j.c.Reply("done", j.payload)
				clear(j.payload) // it was copied, by the question above as well
			}
		})
	}
	return p
}

func (p *pool) Attach(c mq.Clients) { p.clients = c }

func (p *pool) Process(r *mq.Request) {
	if r.Type == wire.TypeJoinRoom {
		answer := wire.JoinRoomResponse{Status: wire.StatusOK, Room: &wire.Room{RoomID: everybody.Room}}
		r.Reply(wire.TypeJoinRoomResponse, answer.AppendTo(nil))
		return
	}
	p.jobs <- job{r.Later(), r.Conn, bytes.Clone(r.Payload)} // there is room for all that the test sends
}

func (p *pool) Disconnected(d mq.Disconnect) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends[d.Conn]++
	return nil
}

func (p *pool) RoundTrip(conn.ID, time.Duration) {}

func (p *pool) Interest(_ string, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interest = append(p.interest, some)
}

// TestParallelWorker is L3.3 and L3.11 on real sockets and loops: requests answered from many goroutines, each answered
// once, with its own answer, while broadcasts and server requests cross them.
func TestParallelWorker(t *testing.T) {
	const (
		loops, clients, rounds, depth = 4, 100, 10, 8
	)
	w := newPool(8)
	defer func() { close(w.jobs); w.done.Wait() }()
	g, err := mq.New(mq.Config{Worker: w, RequestTimeout: time.Minute, ServerRequestTimeout: time.Minute, MaxRequests: depth}, loops)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &conn.Config{
		Endpoints:        []conn.Endpoint{{Path: "/ws", Handler: g, MaxMessage: 1 << 20}},
		HandshakeTimeout: time.Minute, PingInterval: time.Minute, CloseTimeout: time.Minute, WriteTimeout: time.Minute, MaxPending: 4 << 20,
	}
	server, err := conn.NewServer(cfg, conn.ServerConfig{Loops: loops, Attach: func(_ int, r *conn.Registry) { g.Attach(r) },
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	g.Start(server)
	addr, err := server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1024)
	if err != nil {
		t.Fatal(err)
	}

	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			if err := drive(fmt.Sprintf("ws://%v/ws", addr), i, rounds, depth); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	all.Wait()

	var st mq.Stats
	ended := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.ends) == clients
	}
	for deadline := time.Now().Add(time.Minute); !ended(); {
		if time.Now().After(deadline) {
			t.Fatal("not every end was told")
		}
		server.Each(func(*conn.Registry) {}) // a turn of every loop
	}
	for id, n := range w.ends {
		if n != 1 {
			t.Errorf("the end of %v was told %d times", id, n)
		}
	}
	for i, some := range w.interest {
		if some != (i%2 == 0) {
			t.Fatalf("told of subscribers: %v, expected them to come and go in turns", w.interest)
		}
	}
	if n := len(w.interest); n == 0 || n%2 != 0 {
		t.Errorf("told %d times of subscribers, expected that the last time none was left", n)
	}
	server.Each(func(r *conn.Registry) {
		one := g.Stats(r.Loop())
		st.Add(&one)
	})
	if want := uint64(clients * (rounds*depth + 1)); st.Accepted != want || st.Requests[mq.OutcomeOK] != want {
		t.Errorf("%d accepted, %v, expected %d", st.Accepted, st.Requests, want)
	}
	if st.InFlight != 0 || st.ServerWaiting != 0 || st.Clients != 0 || st.Subscriptions != [2]int64{} || st.Panics != 0 {
		t.Errorf("left: %+v", st)
	}
}

// drive is one client: depth requests at a time, every answer checked.
func drive(url string, number, rounds, depth int) error {
	ws, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		return err
	}
	defer ws.Close()
	form, op := wire.Text, websocket.TextMessage
	if number%2 == 0 {
		form, op = wire.Binary, websocket.BinaryMessage
	}
	send := func(env *wire.Envelope) error { return ws.WriteMessage(op, env.AppendForm(nil, form)) }
	if err := send(&wire.Envelope{RequestID: "join", Type: wire.TypeJoinRoom}); err != nil {
		return err
	}
	waiting := map[string]string{"join": "\x0a\x02ok\x12"}
	next := 0
	for round := 0; round <= rounds; round++ {
		for len(waiting) > 0 {
			got, p, err := ws.ReadMessage()
			if err != nil {
				return err
			}
			if got == websocket.TextMessage {
				if p, err = wire.DecodeText(p[:0], p); err != nil {
					return err
				}
			}
			var env wire.Envelope
			if err := env.Unmarshal(p); err != nil {
				return err
			}
			switch env.MessageType {
			case wire.Request:
				if err := send(&wire.Envelope{RequestID: env.RequestID, Type: "askResponse", Payload: env.Payload, MessageType: wire.Response}); err != nil {
					return err
				}
			case wire.Response:
				want, ok := waiting[env.RequestID]
				if !ok || !bytes.HasPrefix(env.Payload, []byte(want)) || got != op {
					return fmt.Errorf("answer %s %q, expected %q; %v", env.RequestID, env.Payload, want, ok)
				}
				delete(waiting, env.RequestID)
			case wire.Event:
				if env.Type != "tick" {
					return fmt.Errorf("event %s", env.Type)
				}
			}
		}
		for i := 0; i < depth && round < rounds; i++ {
			id := fmt.Sprintf("C%d", next)
			payload := fmt.Sprintf("client %d request %d", number, next)
			next++
			waiting[id] = payload
			if err := send(&wire.Envelope{RequestID: id, Type: "work", Payload: []byte(payload)}); err != nil {
				return err
			}
		}
	}
	return ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "byebye"))
}
