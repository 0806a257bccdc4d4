package roomstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/roomstore"
	"github.com/mqgate/mqgate/mq/nats/subjects"
	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// What may happen to the step of a player, besides that it is done.
type fault int

const (
	none fault = iota
	dies       // the worker is gone before it
	deaf       // it is done, but nobody says so
)

// player does something on a worker of its own. Each read and write of a connection or a session is a step, which waits for
// its turn.
type player struct {
	name  string
	w     *worker
	do    func() error
	again bool // another one does it if it dies

	at   chan string // the subject of the next step; closed: done
	turn chan fault
	dead bool
	err  error
}

var (
	errDead = errors.New("the worker is gone")
	errDeaf = nats.ErrTimeout
)

func (p *player) play() {
	defer close(p.at)
	hold := holder(func(subject string, do func() error) error {
		if p.dead {
			return errDead
		}
		p.at <- subject
		switch <-p.turn {
		case dies:
			p.dead = true
			return errDead
		case deaf:
			if err := do(); err != nil {
				return err
			}
			return errDeaf
		case none:
		}
		return do()
	})
	p.w.hold.Store(&hold)
	defer p.w.hold.Store(nil)
	for {
		p.err = p.do()
		if !p.dead || !p.again {
			return
		}
		p.dead = false
	}
}

// move is a choice: whose turn it is, and what happens to the step.
type move struct {
	who  int
	what fault
}

// stage plays with all orders of steps, one after the other: path is the order that it is at. An order goes from one player
// to another at most switches times while the first could go on, and has at most faults faults.
type stage struct {
	switches, faults int
	path             []int
	width            []int // of the choices at each step of the path
	script           []string
}

// play plays the order of the path, and goes on with the first choice where it ends.
func (st *stage) play(players []*player) {
	st.width, st.script = st.width[:0], st.script[:0]
	next := make([]string, len(players)) // the step that waits
	step := func(i int) { next[i] = <-players[i].at }
	for i, p := range players {
		p.at, p.turn, p.dead, p.err = make(chan string), make(chan fault), false, nil
		go p.play()
		step(i)
	}
	last, switches, faults := -1, 0, 0
	for n := 0; ; n++ {
		var moves []move
		goesOn := last >= 0 && next[last] != ""
		for i := range players {
			if next[i] == "" || goesOn && i != last && switches >= st.switches {
				continue
			}
			moves = append(moves, move{i, none})
			if faults < st.faults {
				moves = append(moves, move{i, dies})
				if strings.HasPrefix(next[i], "$KV.") {
					moves = append(moves, move{i, deaf})
				}
			}
		}
		if len(moves) == 0 {
			return
		}
		if n == len(st.path) {
			st.path = append(st.path, 0)
		}
		st.width = append(st.width, len(moves))
		m := moves[min(st.path[n], len(moves)-1)]
		if goesOn && m.who != last {
			switches++
		}
		if m.what != none {
			faults++
		}
		last = m.who
		st.script = append(st.script, fmt.Sprintf("%s %s%s", players[m.who].name, next[m.who], [...]string{"", " DIES", " DEAF"}[m.what]))
		players[m.who].turn <- m.what
		step(m.who)
	}
}

// advance goes to the next order; false: that was the last one.
func (st *stage) advance() bool {
	st.path = st.path[:len(st.width)]
	for n := len(st.path) - 1; n >= 0; n-- {
		if st.path[n]+1 < st.width[n] {
			st.path[n]++
			st.path = st.path[:n+1]
			return true
		}
	}
	return false
}

// ending is a message of the stream of ends.
type ending struct {
	jetstream.Msg
	data   []byte
	header nats.Header
}

func (m *ending) Data() []byte         { return m.data }
func (m *ending) Headers() nats.Header { return m.header }
func (m *ending) Subject() string      { return "an end" }

// end handles the end of a connection.
func (s *system) end(w *worker, c conn.ID, code uint32, bound string) error {
	m := &ending{data: (&wire.ConnectionDisconnected{ConnectionID: c.String(), ReasonCode: code}).AppendTo(nil), header: nats.Header{}}
	if bound != "" {
		m.header.Set(subjects.HeaderSession, bound)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return w.e.HandleEnd(ctx, m)
}

// clear empties streams, so that each order begins with nothing.
func (s *system) clear(streams ...string) {
	for _, name := range streams {
		st, err := s.js.Stream(s.t.Context(), name)
		if err == nil {
			err = st.Purge(s.t.Context())
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// orphans returns what is wrong about what is left when the ends of connections were handled.
func (s *system) orphans(w *worker, code uint32, gone ...conn.ID) (out []string) {
	all, err := w.e.All(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	isGone := map[string]bool{}
	for _, c := range gone {
		isGone[c.String()] = true
	}
	for id, v := range all {
		switch {
		case !isGone[v.Conn]:
		case v.Connected:
			out = append(out, "a session is that of a connection that has gone")
		case code == 1000:
			out = append(out, "a session waits for a client that has ended it")
		default: // lost, or ended after that by someone who has died on the way
			var timer struct{ Epoch uint64 }
			st, err := s.js.Stream(s.t.Context(), roomstore.TimersStream(s.names))
			if err != nil {
				s.t.Fatal(err)
			}
			m, err := st.GetLastMsgForSubject(s.t.Context(), s.names.Prefix()+".timer.grace."+id)
			if err == nil {
				err = json.Unmarshal(m.Data, &timer)
			}
			if err != nil || timer.Epoch != v.Epoch {
				out = append(out, fmt.Sprintf("no timer ends a lost session of epoch %d: %d, %v", v.Epoch, timer.Epoch, err))
			}
		}
	}
	for _, c := range gone {
		has, err := w.e.HasConn(s.t.Context(), c)
		if err != nil {
			s.t.Fatal(err)
		}
		if has {
			out = append(out, "conns has a session for a connection that has gone")
		}
	}
	return out
}

// Whatever else is under way when the end of a connection is handled, in whatever order the steps of the two come, and
// whoever dies on the way or does not hear that a step was done: no session is left to the connection, and no member. That
// the end is handled again changes nothing.
func TestEndMeetsRequest(t *testing.T) {
	const room = "r"
	type scene struct {
		c, old *client // the connection that ends, and one that had the session before
		bound  string  // what the gateway says of c
		others []*player
	}
	type scenario struct {
		name  string
		three bool // players
		codes []uint32
		set   func(s *system, ws []*worker, sc *scene) // the other players, with ws[1] and ws[2]; the last one is nobody's
	}
	auth := func(w *worker, c *client, wanted string) *player {
		return &player{name: "authenticate", w: w, do: func() error {
			_, _, err := w.e.Authenticate(c.id, "", wanted, "")
			return err
		}}
	}
	has := func(s *system, free *worker) *client { // a connection with a session
		c := s.dial()
		var bound string
		var err error
		if c.session, bound, err = free.e.Authenticate(c.id, "", "", ""); err != nil {
			s.t.Fatal(err)
		}
		s.mu.Lock()
		s.bound[c.id] = bound
		s.mu.Unlock()
		return c
	}
	for _, sn := range []scenario{
		{"a new session", false, []uint32{1000, 1006}, func(s *system, ws []*worker, sc *scene) {
			sc.others = []*player{auth(ws[1], sc.c, "")}
		}},
		{"two new sessions", true, []uint32{1000, 1006}, func(s *system, ws []*worker, sc *scene) {
			sc.others = []*player{auth(ws[1], sc.c, ""), auth(ws[2], sc.c, "")}
		}},
		{"a takeover", false, []uint32{1000, 1006}, func(s *system, ws []*worker, sc *scene) {
			sc.old = has(s, ws[3])
			sc.others = []*player{auth(ws[1], sc.c, sc.old.session)}
		}},
		{"its session is taken over", false, []uint32{1000, 1006}, func(s *system, ws []*worker, sc *scene) {
			sc.c = has(s, ws[3])
			sc.others = []*player{auth(ws[1], s.dial(), sc.c.session)}
		}},
		{"it gets its own again", false, []uint32{1006}, func(s *system, ws []*worker, sc *scene) {
			sc.c = has(s, ws[3])
			if err := ws[3].e.SweepGateways(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
			sc.others = []*player{auth(ws[1], sc.c, sc.c.session)}
		}},
		{"the gateway is back", false, []uint32{1000, 1006}, func(s *system, ws []*worker, sc *scene) {
			sc.c = has(s, ws[3])
			if err := ws[3].e.SweepGateways(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
			sc.bound = s.bound[sc.c.id]
			sc.others = []*player{{name: "holds", w: ws[1], do: func() error {
				_, err := ws[1].e.Holds(s.t.Context(), sc.c.id, sc.bound)
				return err
			}}}
		}},
		{"a new session and a sweep", true, []uint32{1000}, func(s *system, ws []*worker, sc *scene) {
			sc.others = []*player{auth(ws[1], sc.c, ""), {name: "sweep", w: ws[2], do: func() error {
				return ws[2].e.SweepGateways(s.t.Context())
			}}}
		}},
		{"a new session that joins", false, []uint32{1000}, func(s *system, ws []*worker, sc *scene) {
			sc.others = []*player{{name: "join", w: ws[1], do: func() error {
				if status, f := sc.c.askOf(ws[1], wire.TypeAuthenticate, &wire.Authenticate{}); status != wire.StatusOK {
					return fmt.Errorf("%s: %w", status, f.err)
				}
				sc.c.askOf(ws[1], wire.TypeJoinRoom, &wire.JoinRoom{RoomID: room, Member: wire.Member{ScreenName: "n"}})
				return nil
			}}}
		}},
	} {
		for _, code := range sn.codes {
			t.Run(fmt.Sprintf("%s/%d", sn.name, code), func(t *testing.T) {
				t.Parallel()
				cfg := rooms.DefaultConfig()
				cfg.EmptyRoomTTL = 0
				s := newSystem(t, cfg)
				var ws []*worker
				for range 4 {
					ws = append(ws, s.start())
				}
				free := ws[3]
				s.must("create", has(s, free).create(room), wire.StatusOK)
				orders, good := 0, 0
				stages := []*stage{{switches: 3}, {switches: 1, faults: 1}}
				if sn.three { // there would be very many
					stages = []*stage{{switches: 2}, {switches: 0, faults: 1}}
				}
				for _, st := range stages {
					for more := true; more; more = st.advance() {
						s.clear("KV_"+s.names.ConnsBucket(), "KV_"+s.names.SessionsBucket(), roomstore.TimersStream(s.names))
						sc := &scene{c: s.dial()}
						sn.set(s, ws, sc)
						ender := &player{name: "end", w: ws[0], again: true, do: func() error { return s.end(ws[0], sc.c.id, code, sc.bound) }}
						st.play(append([]*player{ender}, sc.others...))
						orders++
						if sc.others[0].err == nil {
							good++
						}
						wrong := s.orphans(free, code, sc.c.id)
						if ender.err != nil {
							wrong = append(wrong, "the end: "+ender.err.Error())
						}
						if _, _, err := free.e.Authenticate(sc.c.id, "", "", ""); !errors.Is(err, mq.ErrNotFound) {
							wrong = append(wrong, fmt.Sprintf("it could get a session now: %v", err))
						}
						gone := []conn.ID{sc.c.id}
						if sc.old != nil {
							gone = append(gone, sc.old.id)
							if err := s.end(free, sc.old.id, code, ""); err != nil {
								t.Error(err)
							}
						}
						if err := s.end(free, sc.c.id, code, sc.bound); err != nil {
							t.Error(err)
						}
						wrong = append(wrong, s.orphans(free, code, gone...)...)
						if strings.HasSuffix(sn.name, "joins") {
							r, err := free.e.Read(t.Context(), room)
							if err != nil || r.Members() != 0 {
								wrong = append(wrong, fmt.Sprintf("%d members, %v", r.Members(), err))
							}
						}
						if len(wrong) > 0 {
							t.Fatalf("%s\nafter\n  %s", strings.Join(wrong, "\n"), strings.Join(st.script, "\n  "))
						}
					}
				}
				t.Logf("%d orders, in %d of them it was in time", orders, good)
				if good == 0 || good == orders {
					t.Errorf("in time in %d of %d orders", good, orders)
				}
			})
		}
	}
}

// What the end of a connection leaves behind goes by itself, and is no session meanwhile.
func TestClosedPlace(t *testing.T) {
	s := newSystem(t, rooms.DefaultConfig())
	w := s.start()
	c := s.login()
	if err := s.end(w, c.id, 1000, ""); err != nil {
		t.Fatal(err)
	}
	if n, err := w.e.Sessions(); n != 0 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
	st, err := s.js.Stream(t.Context(), "KV_"+s.names.ConnsBucket())
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetLastMsgForSubject(t.Context(), "$KV."+s.names.ConnsBucket()+"."+subjects.NodeToken(c.id.Node())+"."+c.id.String())
	if err != nil || m.Header.Get("Nats-TTL") != "5m0s" {
		t.Errorf("%+v, %v", m, err)
	}
	kv, err := s.js.KeyValue(t.Context(), s.names.ConnsBucket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Get(t.Context(), subjects.NodeToken(c.id.Node())+"."+c.id.String()); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("to other clients of the bucket: %v", err)
	}
	if _, _, err := w.e.Authenticate(c.id, "", "", ""); err == nil {
		t.Error("a connection that has ended gets a session")
	}
	if err := s.end(w, c.id, 1000, ""); err != nil {
		t.Errorf("again: %v", err)
	}
	if n := st.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages in conns", n)
	}
}
