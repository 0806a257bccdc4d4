package mq

import (
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
)

// L5.5: a draining connection answers its requests in flight before its Close; new requests on it fail at once.
func TestDrain(t *testing.T) {
	s := newSim(t, 1)
	idle, busy := s.connect(0), s.connect(0)
	never, asks, member := s.connect(0), s.connect(0), s.connect(0)
	busy.request("later", nil)
	busy.request("later", nil)
	never.request("never", nil)
	var a asked
	s.w.clients.SendRequest(asks.id, "ask", nil, a.done)
	s.run()
	asks.take()
	s.g.shards[0].subscribe(member.conn(), TopicRoom, "r")

	s.drain()
	idle.expect(`close 3333 "drain"`)
	asks.expect(`close 3333 "drain"`) // what the server asked is not waited for,
	asks.text(response("S1", "askResponse", "yes"))
	s.run()
	a.is(t, nil, "askResponse", "yes") // but still resolves (L1.3)
	member.expect(`close 3333 "drain"`)

	busy.expect()
	busy.request("echo", nil)
	busy.request("later", nil)
	busy.expect("text Response C2 mq.Error {failed} 0ms", "text Response C3 mq.Error {failed} 0ms")
	s.w.later[1].Reply("done", nil)
	busy.expect(`text Response C1 done "" 0ms`)
	s.w.later[0].Reply("done", nil)
	busy.expect(`text Response C0 done "" 0ms`, `close 3333 "drain"`)

	s.advance(requestTimeout)
	never.expect("text Response C0 mq.Error {timeout} 15000ms", `close 3333 "drain"`)
	if st := s.stats(); st.Accepted != 5 || st.Requests != [NumOutcomes]uint64{OutcomeOK: 2, OutcomeFailed: 2, OutcomeTimeout: 1} {
		t.Errorf("%d accepted, %v", st.Accepted, st.Requests)
	}
	s.regs[0].CancelDrain()
}

// A failed request lets the connection go as well, and so does a panic.
func TestDrainAfterFailure(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.request("later", nil)
	s.run()
	s.drain()
	s.w.later[0].Fail(errWorker)
	p.expect("text Response C0 mq.Error {failed} 0ms", `close 3333 "drain"`)
	s.regs[0].CancelDrain()
}

// A drain that is cancelled leaves the connections that were told to go and still had requests.
func TestDrainCancelled(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.request("later", nil)
	s.run()
	s.drain()
	p.expect()
	s.regs[0].CancelDrain()
	s.w.later[0].Reply("done", nil)
	p.expect(`text Response C0 done "" 0ms`)
	p.request("echo", nil)
	p.expect(`text Response C1 echoResponse "" 0ms`)
	if c := p.conn(); c.State() != conn.Open {
		t.Errorf("state %v", c.State())
	}
	s.advance(time.Minute)
}
