package mq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop/looptest"
	"github.com/mqgate/mqgate/mq/wire"
)

// TestLedger is L3.11 (and L6.1, L6.2) over random traffic: clients in both forms on a network that loses, splits and
// delays, workers that answer in every way and at any time, connections that end in every way. After every step accepted
// = ok + failed + timeout + dropped + in flight and all indexes agree; every request on a connection that stayed OPEN has
// exactly one answer; every end is told once; every callback is called once; and in the end nothing is left.
func TestLedger(t *testing.T) {
	for seed := range seeds(40) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 311))
			s := newSim(t, 1+int(seed)%2, withMaxRequests(4))
			for _, n := range s.nets {
				n.Faults = &looptest.Faults{Rand: rng, ShortRead: 0.3, ShortWrite: 0.3, Again: 0.2, Shuffle: true}
			}
			b := &bookkeeper{sim: s, rng: rng}
			s.w.process = b.process
			s.w.disconnected = func(Disconnect) error {
				switch rng.IntN(10) {
				case 0:
					panic("disconnected")
				case 1, 2, 3:
					return errWorker
				}
				return nil
			}
			for range 500 {
				b.step()
				b.check()
			}
			b.conclude()
		})
	}
}

// bookkeeper is the test's own side of the ledger.
type bookkeeper struct {
	*sim
	rng         *rand.Rand
	books       []*book
	completions []Completion
	asks        []*asked
	draining    bool
	opened      int
	steps       int
}

// book is what one client has sent and received.
type book struct {
	*peer
	sent    map[string]int // requests that can be answered, by id
	got     map[string]int // answers
	asked   []string       // ids of requests of the server
	closed  bool           // a Close frame was received, or the client has ended
	ignores bool           // does not answer our Close
}

func (b *bookkeeper) process(r *Request) {
	switch b.rng.IntN(9) {
	case 0, 1:
		r.Reply("ok", r.Payload)
	case 2, 3, 4:
		b.completions = append(b.completions, r.Later())
	case 5: // never
	case 6:
		r.Reply("ok", nil)
		r.Reply("ok", nil)
	case 7:
		r.Fail(errWorker)
	case 8:
		switch b.rng.IntN(3) {
		case 0:
			r.Reply("ok", nil)
		case 1:
			b.completions = append(b.completions, r.Later())
		}
		panic("process")
	}
}

func (b *bookkeeper) step() {
	open := slices.DeleteFunc(slices.Clone(b.books), func(k *book) bool { return k.closed })
	if len(open) < 12 && b.rng.IntN(5) == 0 && !b.draining || len(b.books) == 0 {
		b.opened++
		b.books = append(b.books, &book{peer: b.connect(b.rng.IntN(len(b.nets))), sent: map[string]int{}, got: map[string]int{}})
		return
	}
	if len(open) == 0 {
		b.draining = false
		for i, r := range b.regs {
			b.on(i, r.CancelDrain)
		}
		return
	}
	k := open[b.rng.IntN(len(open))]
	switch n := b.rng.IntN(100); {
	case n < 45:
		b.request(k)
	case n < 65 && len(b.completions) > 0:
		c := b.completions[b.rng.IntN(len(b.completions))] // also those that have been used
		if b.rng.IntN(4) == 0 {
			c.Fail(errWorker)
		} else {
			c.Reply("ok", make([]byte, b.rng.IntN(2000)))
		}
	case n < 72:
		a := &asked{}
		b.asks = append(b.asks, a)
		b.w.clients.SendRequest(k.id, "ask", nil, a.done)
	case n < 76:
		for _, id := range k.asked {
			k.text(response(id, "askResponse", "r"))
		}
	case n < 84:
		b.advance([]time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 6 * time.Second, requestTimeout}[b.rng.IntN(5)])
	case n < 86:
		k.p.SetWindow(b.rng.IntN(20_000))
	case n < 88:
		k.p.SetWindow(1 << 30)
	case n < 93:
		b.endOne(k)
	case n == 93 && !b.draining && b.rng.IntN(4) == 0:
		b.draining = true
		b.drain()
	case n == 94 && b.rng.IntN(3) == 0:
		k.p.Send([]byte{0x81}) // the first byte of a frame: what follows is no frame any more
	default:
		b.run()
	}
	if b.rng.IntN(3) > 0 {
		b.run()
	}
}

func (b *bookkeeper) request(k *book) {
	id := fmt.Sprintf("C%d", b.rng.IntN(6)) // often the same
	switch b.rng.IntN(20) {
	case 0:
		id = ""
	case 1:
		id = string(make([]byte, maxRequestID+1))
	}
	env := wire.Envelope{RequestID: id, Type: "any", Payload: make([]byte, b.rng.IntN(3000))}
	op, payload := frame.Binary, env.AppendTo(nil)
	if b.rng.IntN(2) == 0 {
		op, payload = frame.Text, env.AppendForm(nil, wire.Text)
	}
	raw := frame.AppendMaskedFrame(nil, op, true, payload, [4]byte{9, 8, 7, 6})
	cut := b.rng.IntN(len(raw))
	k.p.Send(raw[:cut])
	if b.rng.IntN(4) == 0 {
		b.run()
	}
	k.p.Send(raw[cut:])
	if id != "" && len(id) <= maxRequestID {
		k.sent[id]++
	}
}

func (b *bookkeeper) endOne(k *book) {
	switch b.rng.IntN(13) / 2 {
	case 0:
		k.p.CloseWrite()
		k.closed = true
	case 1:
		k.p.Reset()
		k.closed = true
	case 2:
		k.close(1000)
		k.closed = true
	case 3:
		k.p.Send([]byte{0xff, 0xff})
		k.closed = true
	case 4:
		k.ignores = true
		b.w.clients.CloseConnection(k.id, 4000, "", nil)
	case 5:
		b.w.clients.CloseConnection(k.id, 4000, "", nil)
	case 6:
		b.on(k.loop, func() { b.regs[k.loop].ForceAll() })
	}
}

// check runs everything, takes in what the clients got and compares.
func (b *bookkeeper) check() {
	b.t.Helper()
	b.run()
	for _, k := range b.books {
		for _, m := range k.take() {
			switch {
			case m.op == frame.Close:
				if !k.closed && !k.ignores {
					k.close(1000)
				}
				k.closed = true
			case m.env.MessageType == wire.Response:
				k.got[m.env.RequestID]++
			case m.env.MessageType == wire.Request:
				k.asked = append(k.asked, m.env.RequestID)
			}
		}
		for id, n := range k.got {
			if n > k.sent[id] {
				b.t.Fatalf("%d requests %q, %d answers", k.sent[id], id, n)
			}
		}
	}
	b.run()
	b.ledger()
	if b.steps++; plainBuild || b.steps%10 == 0 { // it looks at every slot, which the checks of other builds make slow
		b.consistent()
	}
}

// conclude waits for all timeouts and closes the books.
func (b *bookkeeper) conclude() {
	b.t.Helper()
	for i, r := range b.regs {
		b.on(i, r.CancelDrain)
	}
	for _, k := range b.books {
		k.p.SetWindow(1 << 30)
	}
	b.check()
	b.advance(requestTimeout + serverRequestTimeout)
	b.check()
	stayed := 0
	for _, k := range b.books {
		c := k.conn()
		if c == nil || c.State() != conn.Open {
			continue
		}
		stayed++
		for id, n := range k.sent {
			if k.got[id] != n {
				b.t.Errorf("%d requests %q on a connection that stayed open, %d answers", n, id, k.got[id])
			}
		}
	}
	if n := b.stats().InFlight; n != 0 {
		b.t.Errorf("%d in flight after the timeout", n)
	}
	b.finish()
	for _, a := range b.asks {
		if a.calls != 1 {
			b.t.Errorf("a callback was called %d times with %v", a.calls, a.err)
		}
	}
	told := map[conn.ID]int{}
	for _, d := range b.w.ends {
		told[d.Conn]++
	}
	for id, n := range told {
		if n != 1 {
			b.t.Errorf("the end of %v was told %d times", id, n)
		}
	}
	st := b.stats()
	if len(told)+int(st.PublishLost) != b.opened {
		b.t.Errorf("%d connections, %d ends told, %d lost", b.opened, len(told), st.PublishLost)
	}
	b.t.Logf("%d connections (%d stayed), %d requests: %v, dropped %v", b.opened, stayed, st.Accepted, st.Requests, st.Dropped)
}
