package mq

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/wire"
)

// asked notes how a server request ends.
type asked struct {
	res   []Response // copies: what the callback gets is borrowed
	err   []error
	calls int
}

func (a *asked) done(r Response, err error) {
	r.Type, r.Payload = strings.Clone(r.Type), slices.Clone(r.Payload)
	a.res, a.err, a.calls = append(a.res, r), append(a.err, err), a.calls+1
}

// is checks that the request has ended once, in that way.
func (a *asked) is(t *testing.T, err error, typ, payload string) {
	t.Helper()
	if a.calls != 1 || a.err[0] != err || a.res[0].Type != typ || string(a.res[0].Payload) != payload {
		t.Fatalf("called %d times: %v %v; expected once with %v, %s %q", a.calls, a.res, a.err, err, typ, payload)
	}
}

func response(id, typ, payload string) *wire.Envelope {
	return &wire.Envelope{RequestID: id, Type: typ, Payload: []byte(payload), WallTime: 2.5, HasWallTime: true, MessageType: wire.Response}
}

// L4.1: ids are S1, S2, ...; each answer goes to whoever asked, in whatever order they come. L3.9.
func TestServerRequest(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	var a, b, c asked
	payload := []byte("q1")
	s.w.clients.SendRequest(p.id, "ask", payload, a.done)
	copy(payload, "XX") // it was copied
	s.w.clients.SendRequest(p.id, "ask", []byte("q2"), b.done)
	p.expect(`text Request S1 ask "q1"`, `text Request S2 ask "q2"`)
	p.binary(response("S2", "askResponse", "r2"))
	p.text(response("S1", "askResponse", "r1"))
	s.run()
	a.is(t, nil, "askResponse", "r1")
	b.is(t, nil, "askResponse", "r2")
	if a.res[0].WallTime != 2.5 {
		t.Errorf("wall time %v", a.res[0].WallTime)
	}
	s.w.clients.SendRequest(p.id, "ask", []byte("q3"), c.done)
	p.expect(`text Request S3 ask "q3"`)
	s.w.clients.SendRequest(p.id, "ask", nil, nil) // an answer that nobody wants
	p.expect(`text Request S4 ask ""`)
	p.text(response("S4", "askResponse", ""))
	p.text(response("S3", "mq.Error", "\x0a\x06failed")) // how a client fails is for the caller to read
	s.run()
	c.is(t, nil, "mq.Error", "\x0a\x06failed")
	if st := s.stats(); st.ServerRequests != [NumOutcomes]uint64{OutcomeOK: 4} || st.Clients != 0 || st.ServerWaiting != 0 {
		t.Errorf("%v, %d clients, %d waiting", st.ServerRequests, st.Clients, st.ServerWaiting)
	}
}

// L3.9: a Response to nothing changes nothing. L4.1: nobody else's Response resolves a request.
func TestUnknownResponses(t *testing.T) {
	s := newSim(t, 2)
	p, same, other := s.connect(0), s.connect(0), s.connect(1)
	var a, b asked
	s.w.clients.SendRequest(p.id, "ask", nil, a.done)
	s.w.clients.SendRequest(other.id, "ask", nil, b.done)
	p.expect(`text Request S1 ask ""`)
	other.expect(`text Request S1 ask ""`) // ids are unique within a connection
	same.text(response("S1", "askResponse", "stolen"))
	ids := []string{"", "S", "S0", "S01", "S+1", "S-1", "S1 ", " S1", "s1", "C1", "1", "S2", "S1_0", "S18446744073709551616",
		"S18446744073709551617", "S" + strings.Repeat("0", 99) + "1", "S" + strings.Repeat("1", 10_000), "Sé"}
	for _, id := range ids {
		p.text(response(id, "askResponse", "wrong"))
	}
	s.run()
	if n := s.stats().Dropped[DropUnknownResponse]; n != uint64(len(ids)+1) || a.calls+b.calls != 0 {
		t.Fatalf("%d unknown, %d calls", n, a.calls+b.calls)
	}
	for _, line := range s.log.lines("message dropped") {
		if len(line) > 400 {
			t.Errorf("a line of %d characters was logged", len(line))
		}
	}
	p.text(response("S1", "askResponse", "right"))
	p.text(response("S1", "askResponse", "again"))
	s.run()
	a.is(t, nil, "askResponse", "right")
	if n := s.stats().Dropped[DropUnknownResponse]; n != uint64(len(ids)+2) || b.calls != 0 {
		t.Errorf("%d unknown, other called %d times", n, b.calls)
	}
	other.text(response("S1", "askResponse", "other"))
	s.run()
	b.is(t, nil, "askResponse", "other")
}

// L4.3, L3.9: timeout at its time and not before; a Response is late until two timeouts have passed, then unknown.
func TestServerRequestTimeout(t *testing.T) {
	for _, test := range []struct {
		after   time.Duration // of the Response
		err     error
		counter Drop
		clients int64 // after the Response
	}{
		{serverRequestTimeout - 1, nil, drops, 0},
		{serverRequestTimeout, ErrTimeout, DropLateResponse, 0},
		{2*serverRequestTimeout - 1, ErrTimeout, DropLateResponse, 0},
		{2 * serverRequestTimeout, ErrTimeout, DropUnknownResponse, 0},
	} {
		t.Run(test.after.String(), func(t *testing.T) {
			s := newSim(t, 1)
			p := s.connect(0)
			var a asked
			s.w.clients.SendRequest(p.id, "ask", nil, a.done)
			s.advance(test.after)
			if test.err != nil {
				a.is(t, ErrTimeout, "", "")
				if lines := s.log.lines("a client has not answered a request of the server"); len(lines) != 1 {
					t.Errorf("logged %q", lines)
				}
			} else if a.calls != 0 {
				t.Fatal("timed out before its time")
			}
			p.take()
			p.text(response("S1", "askResponse", "r"))
			s.run()
			if test.err == nil {
				a.is(t, nil, "askResponse", "r")
			} else {
				a.is(t, ErrTimeout, "", "")
			}
			st := s.stats()
			for d := range drops {
				want := uint64(0)
				if d == test.counter {
					want = 1
				}
				if st.Dropped[d] != want {
					t.Errorf("%v: %d", d, st.Dropped[d])
				}
			}
			if st.Clients != 0 || st.ServerWaiting != 0 {
				t.Errorf("%d clients, %d waiting", st.Clients, st.ServerWaiting)
			}
		})
	}
}

// L4.3: nothing leaks when the connection closes: its pending requests fail at once, timed out ones are forgotten.
func TestServerRequestsOfClosedConnection(t *testing.T) {
	s := newSim(t, 1)
	p, q := s.connect(0), s.connect(0)
	asks := make([]asked, 5)
	s.w.clients.SendRequest(p.id, "ask", nil, asks[0].done)
	s.advance(serverRequestTimeout)
	for i := 1; i < 4; i++ {
		s.w.clients.SendRequest(p.id, "ask", nil, asks[i].done)
	}
	s.w.clients.SendRequest(q.id, "ask", nil, asks[4].done)
	s.run()
	p.text(response("S3", "askResponse", "middle")) // out of the middle of the chain
	p.close(1000)
	s.run()
	asks[0].is(t, ErrTimeout, "", "")
	asks[1].is(t, ErrConnectionClosed, "", "")
	asks[2].is(t, nil, "askResponse", "middle")
	asks[3].is(t, ErrConnectionClosed, "", "")
	if asks[4].calls != 0 {
		t.Error("the other connection's request has ended")
	}
	st := s.stats()
	if st.ServerRequests != [NumOutcomes]uint64{OutcomeOK: 1, OutcomeTimeout: 1, OutcomeDropped: 2} || st.ServerWaiting != 1 || st.Clients != 1 {
		t.Errorf("%v, %d waiting, %d clients", st.ServerRequests, st.ServerWaiting, st.Clients)
	}
}

// L4.2: the typed errors, and their texts.
func TestSendErrors(t *testing.T) {
	s := newSim(t, 1)
	if ErrNotFound.Error() != "Websocket connection not found" || ErrNotOpen.Error() != "Websocket connection not opened" {
		t.Errorf("texts %q, %q", ErrNotFound, ErrNotOpen)
	}
	var errs []error
	event := func(err error) { errs = append(errs, err) }
	try := func(id conn.ID, want error) {
		t.Helper()
		var a asked
		errs = nil
		s.w.clients.SendRequest(id, "ask", nil, a.done)
		s.w.clients.SendEvent(id, "hello", nil, event)
		s.w.clients.SendEvent(id, "hello", nil, nil)
		s.run()
		a.is(t, want, "", "")
		if len(errs) != 1 || errs[0] != want {
			t.Errorf("SendEvent: %v, expected %v", errs, want)
		}
	}
	try(conn.ID{}, ErrNotFound)
	p := s.connect(0)
	forged := p.id
	forged[23]++
	try(forged, ErrNotFound)

	s.w.clients.CloseConnection(p.id, 1000, "", nil)
	s.run()
	try(p.id, ErrNotOpen) // CLOSING
	p.close(1000)
	s.run()
	try(p.id, ErrNotFound)

	p.p.CloseWrite() // the slot is used again: the id of the one before finds nobody
	s.advance(closeTimeout)
	q := s.connect(0)
	if q.id.Slot() != p.id.Slot() {
		t.Fatalf("slots %d and %d", p.id.Slot(), q.id.Slot())
	}
	try(p.id, ErrNotFound)
	q.expect()
}

// L4.4: sending fails: close 3335, the caller is told ErrNotOpen, the worker hears of the end once.
func TestSendErrorCloses(t *testing.T) {
	for _, kind := range []string{"event", "request"} {
		t.Run(kind, func(t *testing.T) {
			s := newSim(t, 1)
			p := s.connect(0)
			p.p.SetWindow(0)
			fill := bytes.Repeat([]byte("x"), 40<<10)
			var errs []error
			event := func(err error) { errs = append(errs, err) }
			s.w.clients.SendEvent(p.id, "fill", fill[:30<<10], event)
			s.run()
			if kind == "event" {
				s.w.clients.SendEvent(p.id, "more", fill, event)
			} else {
				s.w.clients.SendRequest(p.id, "more", fill, func(_ Response, err error) { errs = append(errs, err) })
			}
			s.run()
			if len(errs) != 2 || errs[0] != nil || errs[1] != ErrNotOpen {
				t.Fatalf("errors %v", errs)
			}
			p.p.SetWindow(1 << 20)
			s.run()
			if got := show(p.take()); len(got) == 0 || got[len(got)-1] != `close 3335 "unexpected-close"` {
				t.Errorf("the client got %d messages, the last %.50q", len(got), got)
			}
			p.close(3335)
			s.run()
			if len(s.w.ends) != 1 || s.w.ends[0].Code != 3335 {
				t.Errorf("ends %+v", s.w.ends)
			}
		})
	}
}

// The number of requests of the server that wait is bounded: below, at and above the limit.
func TestServerRequestLimit(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	w := &s.g.shards[0].waiting
	w.taken += maxServerRequests - 2 // as if so many were waiting already
	asks := make([]asked, 3)
	for i := range asks {
		s.w.clients.SendRequest(p.id, "ask", nil, asks[i].done)
	}
	p.expect(`text Request S1 ask ""`, `text Request S2 ask ""`)
	w.taken -= maxServerRequests - 2
	asks[2].is(t, ErrTooMany, "", "")
	if asks[0].calls+asks[1].calls != 0 || s.stats().ServerRequests[OutcomeFailed] != 1 {
		t.Errorf("%d, %d calls; %v", asks[0].calls, asks[1].calls, s.stats().ServerRequests)
	}
}

// L8.2: the worker's callbacks may panic; that harms nothing else, in whatever state the gateway calls them.
func TestPanickingCallbacks(t *testing.T) {
	s := newSim(t, 1)
	s.w.roundTrip = func(conn.ID, time.Duration) { panic("round trip") }
	p := s.connect(0)
	boom := func(Response, error) { panic("callback") }
	s.w.clients.SendRequest(conn.ID{}, "ask", nil, boom) // at once
	s.w.clients.SendEvent(conn.ID{}, "hello", nil, func(error) { panic("callback") })
	s.w.clients.CloseConnection(conn.ID{}, 1000, "", func(bool) { panic("callback") })
	s.w.clients.SendEvent(p.id, "hello", nil, func(error) { panic("callback") })
	s.w.clients.SendRequest(p.id, "ask", nil, boom)
	s.w.clients.SendRequest(p.id, "ask", nil, boom)
	s.run()
	p.text(response("S1", "askResponse", ""))
	s.advance(serverRequestTimeout) // S2
	s.w.clients.SendRequest(p.id, "ask", nil, boom)
	var after asked
	s.w.clients.SendRequest(p.id, "ask", nil, after.done)
	s.run()
	s.g.OnPong(p.conn(), time.Millisecond)
	s.w.clients.CloseConnection(p.id, 1000, "", func(bool) { panic("callback") })
	s.run()
	p.close(1000) // S3
	s.run()
	after.is(t, ErrConnectionClosed, "", "")
	if n := s.stats().Panics; n != 6 {
		t.Errorf("%d panics counted, expected 6", n)
	}
}

// L5.2: CloseConnection tells whether there was something to close.
func TestCloseConnection(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	var got []string
	closed := func(id conn.ID, code uint16, reason string) {
		s.w.clients.CloseConnection(id, code, reason, func(ok bool) { got = append(got, fmt.Sprint(code, ok)) })
		s.run()
	}
	closed(conn.ID{}, 1000, "")
	closed(p.id, 1005, "") // L1.7: must not be sent
	closed(p.id, 4001, "bye")
	closed(p.id, 4002, "bye") // closing already
	p.expect(`close 4001 "bye"`)
	p.close(4001)
	s.run()
	closed(p.id, 4003, "")
	if want := []string{"1000 false", "1005 false", "4001 true", "4002 false", "4003 false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
	if n := len(s.log.lines("close: no such connection")); n != 2 {
		t.Errorf("%d warnings", n)
	}
}

// L6.1: the end of every connection is told once, with what ended it.
func TestDisconnected(t *testing.T) {
	s := newSim(t, 1)
	peers := make([]*peer, 5)
	for i := range peers {
		peers[i] = s.connect(0)
	}
	s.advance(3 * time.Second)
	peers[0].p.Send([]byte{0x88, 0x85, 0, 0, 0, 0, 3, 0xe8, 'b', 'y', 'e'}) // Close 1000 "bye"
	peers[1].p.Send([]byte{0x88, 0x80, 0, 0, 0, 0})                         // Close without a status
	peers[2].p.CloseWrite()
	peers[3].p.Reset()
	peers[4].p.Send([]byte{0x81, 0x00}) // not masked
	s.advance(time.Minute)
	var got []string
	for _, p := range peers {
		for _, d := range s.w.ends {
			if d.Conn == p.id {
				got = append(got, fmt.Sprintf("%d %q %v", d.Code, d.Description, d.Duration))
			}
		}
	}
	if len(s.w.ends) != 5 || len(got) != 5 || got[0] != `1000 "bye" 3s` || got[1] != `1005 "" 3s` ||
		got[2] != `1006 "connection lost" 3s` || got[3] != `1006 "socket-error" 3s` || !strings.HasPrefix(got[4], "1002 ") {
		t.Errorf("ends %q", got)
	}
}

// L6.3: an end that the worker does not take is kept and offered again, in order; what does not fit is counted.
func TestUnpublished(t *testing.T) {
	s := newSim(t, 1)
	down, offers := true, 0
	s.w.disconnected = func(Disconnect) error {
		offers++
		if down {
			return errors.New("not now")
		}
		return nil
	}
	var want []conn.ID
	for range 3 {
		p := s.connect(0)
		p.close(1000)
		s.run()
		want = append(want, p.id)
	}
	if st := s.stats(); st.Unpublished != 3 || offers != 1 {
		t.Fatalf("%d unpublished after %d offers", st.Unpublished, offers)
	}
	s.advance(publishRetry)
	if offers != 2 || len(s.w.ends) != 0 {
		t.Fatalf("%d offers, %d taken", offers, len(s.w.ends))
	}
	down = false
	p := s.connect(0)
	p.close(1000)
	s.run() // behind those that wait
	want = append(want, p.id)
	s.advance(publishRetry)
	var got []conn.ID
	for _, d := range s.w.ends {
		got = append(got, d.Conn)
	}
	if st := s.stats(); !slices.Equal(got, want) || st.Unpublished != 0 || st.PublishLost != 0 {
		t.Errorf("got %v, expected %v; %d unpublished, %d lost", got, want, st.Unpublished, st.PublishLost)
	}

	// The queue is bounded: below, at and above.
	down = true
	sh := s.g.shards[0]
	sh.unpublished = make([]unpublished, maxUnpublished-2)
	for range 4 {
		p := s.connect(0)
		p.close(1000)
		s.run()
	}
	if st := s.stats(); st.Unpublished != maxUnpublished || st.PublishLost != 2 {
		t.Errorf("%d unpublished, %d lost", st.Unpublished, st.PublishLost)
	}
	if lines := s.log.lines("the end of a connection is lost to the worker"); len(lines) != 1 {
		t.Errorf("logged %q", lines)
	}
	sh.unpublished = nil
}

// L6.3, L8.2: a worker that panics gets the end again, and those behind it are not held up for ever.
func TestDisconnectedPanics(t *testing.T) {
	s := newSim(t, 1)
	p, q := s.connect(0), s.connect(0)
	offers := 0
	s.w.disconnected = func(d Disconnect) error {
		if d.Conn == p.id {
			offers++
			panic("not this one")
		}
		return nil
	}
	p.close(1000)
	s.run()
	q.close(1000)
	s.advance(maxPublishPanics * publishRetry)
	st := s.stats()
	if offers != maxPublishPanics || st.Panics != maxPublishPanics || st.PublishLost != 1 || st.Unpublished != 0 {
		t.Errorf("%d offers, %d panics, %d lost, %d unpublished", offers, st.Panics, st.PublishLost, st.Unpublished)
	}
	if len(s.w.ends) != 1 || s.w.ends[0].Conn != q.id {
		t.Errorf("ends %+v", s.w.ends)
	}
}

// L7.4: the round trip time reaches the worker.
func TestRoundTrip(t *testing.T) {
	s := newSim(t, 1, func(_ *Config, c *conn.Config) { c.Heartbeat = conn.HeartbeatServer })
	p := s.connect(0)
	var got []string
	s.w.roundTrip = func(id conn.ID, rtt time.Duration) {
		got = append(got, fmt.Sprint(id == p.id, rtt))
	}
	s.advance(s.cfg.PingInterval)
	pings := p.take()
	if len(pings) != 1 {
		t.Fatalf("received %v", pings)
	}
	sent := int64(bytesToUint64(pings[0].payload))
	p.frame(0xa, []byte("unsolicited"))
	s.advance(30 * time.Millisecond)
	want := fmt.Sprint(true, time.Duration(s.nets[0].Now()-sent))
	p.frame(0xa, pings[0].payload)
	s.run()
	if len(got) != 1 || got[0] != want {
		t.Errorf("round trips %q, expected %q", got, want)
	}
}

func bytesToUint64(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}
