package mq

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// The answer comes in the form that the peer used last, and before it has sent anything in text (L3.1, L3.6).
func TestForms(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	s.w.clients.SendEvent(p.id, "hello", []byte("x"), nil)
	p.expect(`text Event hello "x"`)

	p.binary(&wire.Envelope{RequestID: "C0", Type: "echo", Payload: []byte("a")})
	p.expect(`binary Response C0 echoResponse "a" 0ms`)
	s.w.clients.SendEvent(p.id, "hello", []byte("x"), nil)
	p.expect(`binary Event hello "x"`)

	p.text(&wire.Envelope{RequestID: "C1", Type: "echo", Payload: []byte("b")})
	p.expect(`text Response C1 echoResponse "b" 0ms`)

	// A request that is answered later is answered in the form of that time.
	p.text(&wire.Envelope{RequestID: "C2", Type: "later", Payload: []byte("c")})
	p.binary(&wire.Envelope{RequestID: "C3", Type: "echo"})
	p.expect(`binary Response C3 echoResponse "" 0ms`)
	s.w.later[0].Reply("done", []byte("c"))
	p.expect(`binary Response C2 done "c" 0ms`)

	// Garbage shows no form.
	p.frame(frame.Text, []byte("EgJD")) // an envelope that is cut off
	p.expect()
	s.w.clients.SendEvent(p.id, "hello", []byte("x"), nil)
	p.expect(`binary Event hello "x"`)

	// Base64 without its padding, of all lengths.
	for i := range 6 {
		env := wire.Envelope{RequestID: "C4", Type: "echo", Payload: bytes.Repeat([]byte("z"), i)}
		p.frame(frame.Text, []byte(base64.RawStdEncoding.EncodeToString(env.AppendTo(nil))))
		p.expect(fmt.Sprintf(`text Response C4 echoResponse %q 0ms`, env.Payload))
	}
}

// The answer goes out byte for byte as a real client expects it: the golden vector of LeaveRoomResponse.
func TestAnswerIsTheGoldenVector(t *testing.T) {
	s := newSim(t, 1)
	s.w.process = func(r *Request) { s.w.later = append(s.w.later, r.Later()) }
	p := s.connect(0)
	p.frame(frame.Text, []byte("EgJDMBoOY2hhdC5MZWF2ZVJvb20qEAoDciMxEgJzMRj70JX/vDE="))
	s.advance(12500 * time.Microsecond)
	s.w.later[0].Reply("chat.LeaveRoomResponse", []byte("\x0a\x02ok"))
	s.run()
	got := p.take()
	if want := "EgJDMBoWY2hhdC5MZWF2ZVJvb21SZXNwb25zZSoECgJvazEAAAAAAAApQDgB"; len(got) != 1 || string(got[0].payload) != want {
		t.Fatalf("got %v, expected %s", got, want)
	}
}

// Every way a worker can answer, with what the client gets, the outcomes and the drops. L3.4, L3.5, L3.6, L8.2.
func TestOutcomes(t *testing.T) {
	late := []byte("late")
	tests := []struct {
		typ     string
		answer  string // at once
		later   string // after the completion, if there is one, was used
		timeout string // when the request timeout has passed
		outcome Outcome
		late    uint64 // DropLateAnswer
		panics  uint64
	}{
		{"echo", `text Response C0 echoResponse "x" 0ms`, "", "", OutcomeOK, 0, 0},
		{"later", "", `text Response C0 done "late" 1000ms`, "", OutcomeOK, 0, 0},
		{"never", "", "", `text Response C0 mq.Error {timeout} 15000ms`, OutcomeTimeout, 0, 0},
		{"twice", `text Response C0 first "x" 0ms`, "", "", OutcomeOK, 1, 0},
		{"fail", `text Response C0 mq.Error {failed} 0ms`, "", "", OutcomeFailed, 0, 0},
		{"fail-reply", `text Response C0 mq.Error {failed} 0ms`, "", "", OutcomeFailed, 1, 0},
		{"panic", `text Response C0 mq.Error {failed} 0ms`, "", "", OutcomeFailed, 0, 1},
		{"reply-panic", `text Response C0 first "x" 0ms`, "", "", OutcomeOK, 0, 1},
		{"later-panic", `text Response C0 mq.Error {failed} 0ms`, "", "", OutcomeFailed, 1, 1},
		{"later-reply", "", `text Response C0 done "late" 1000ms`, "", OutcomeOK, 1, 0},
		{"unknown", `text Response C0 mq.Error {failed} 0ms`, "", "", OutcomeFailed, 0, 0},
	}
	list := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	for _, test := range tests {
		t.Run(test.typ, func(t *testing.T) {
			s := newSim(t, 1)
			p := s.connect(0)
			p.request(test.typ, []byte("x"))
			p.expect(list(test.answer)...)
			s.advance(time.Second)
			for _, c := range s.w.later {
				c.Reply("done", late)
			}
			p.expect(list(test.later)...)
			s.advance(14*time.Second - time.Nanosecond)
			p.expect() // L3.4: not before its time
			s.advance(time.Nanosecond)
			p.expect(list(test.timeout)...)
			s.advance(time.Minute)
			p.expect()
			st := s.stats()
			if st.Accepted != 1 || st.Requests[test.outcome] != 1 || st.InFlight != 0 || st.Clients != 0 {
				t.Errorf("accepted %d, outcomes %v, in flight %d, clients %d", st.Accepted, st.Requests, st.InFlight, st.Clients)
			}
			if st.Dropped[DropLateAnswer] != test.late || st.Panics != test.panics {
				t.Errorf("late answers %d, panics %d, expected %d and %d", st.Dropped[DropLateAnswer], st.Panics, test.late, test.panics)
			}
			s.ledger()
			// L8.2: the connection and the gateway go on.
			p.request("echo", []byte("y"))
			p.expect(`text Response C1 echoResponse "y" 0ms`)
		})
	}
}

// L3.5: the cause of a failure is logged and never sent; a panic is logged with its stack (L8.2). Both at most once a
// second: a client can cause as many as it likes, with texts as long as it likes.
func TestFailuresAreLogged(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	long := strings.Repeat("x", 10_000)
	s.w.process = func(r *Request) {
		if r.Type[0] == 'p' {
			panic("secret panic")
		}
		r.Fail(errWorker)
	}
	for range 10 {
		p.request("p"+long, nil)
		p.request("f"+long, nil)
	}
	s.run()
	for _, m := range p.take() {
		if strings.Contains(string(m.env.Payload), "secret") {
			t.Errorf("sent: %v", m)
		}
	}
	records := s.log.records
	failed := s.log.lines("request failed")
	s.log.records = records
	panicked := s.log.lines("the worker panicked")
	if len(failed) != 1 || !strings.Contains(failed[0], "WARN type=f") || !strings.Contains(failed[0], "err=secret cause") || len(failed[0]) > 300 {
		t.Errorf("failures logged as %q", failed)
	}
	if len(panicked) != 1 || !strings.Contains(panicked[0], "ERROR panic=secret panic in=pxxx") || !strings.Contains(panicked[0], "requests_test.go") {
		t.Errorf("panics logged as %q", panicked)
	}
	s.advance(warnEvery)
	p.request("f", nil)
	p.request("p", nil)
	s.run()
	if failed := s.log.lines("request failed"); len(failed) != 1 || !strings.Contains(failed[0], "not_logged=9") {
		t.Errorf("after a second: %q", failed)
	}
	p.take()
}

// L3.4: a late answer is dropped and counted, and does not answer the request that has the slot of the first now.
func TestLateAnswerHitsNobody(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.request("later", nil)
	s.advance(requestTimeout)
	p.expect("text Response C0 mq.Error {timeout} 15000ms")
	p.request("later", nil) // the same slot
	s.run()
	s.w.later[0].Reply("late", []byte("for C0"))
	s.w.later[0].Fail(errWorker)
	p.expect()
	if n := s.stats().Dropped[DropLateAnswer]; n != 2 {
		t.Errorf("%d late answers counted, expected 2", n)
	}
	s.w.later[1].Reply("done", []byte("for C1"))
	s.w.later[1].Reply("done", []byte("again"))
	p.expect(`text Response C1 done "for C1" 0ms`)
	if n := s.stats().Dropped[DropLateAnswer]; n != 3 {
		t.Errorf("%d late answers counted, expected 3", n)
	}
}

// L3.7: the socket is no longer open when the answer comes: dropped, logged at debug level, counted. While CLOSING, and
// after the end.
func TestAnswerAfterClose(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.request("later", nil)
	p.request("later", nil)
	s.run()
	s.w.clients.CloseConnection(p.id, 1000, "enough", nil)
	p.expect(`close 1000 "enough"`)
	s.w.later[0].Reply("done", nil)
	p.expect()
	st := s.stats()
	if st.Requests[OutcomeDropped] != 1 || st.Dropped[DropAnswerNotOpen] != 1 || st.InFlight != 1 {
		t.Errorf("while CLOSING: %v, %v, %d in flight", st.Requests, st.Dropped, st.InFlight)
	}
	p.close(1000)
	s.run()
	s.w.later[1].Reply("done", nil)
	s.w.later[1].Reply("done", nil)
	s.run()
	st = s.stats()
	if st.Requests[OutcomeDropped] != 2 || st.Dropped[DropAnswerNotOpen] != 3 || st.Dropped[DropLateAnswer] != 0 || st.InFlight != 0 {
		t.Errorf("after the end: %v, %v, %d in flight", st.Requests, st.Dropped, st.InFlight)
	}
	for _, line := range s.log.lines("message dropped") {
		if !strings.HasPrefix(line, "DEBUG reason=answer-not-open") {
			t.Errorf("logged: %s", line)
		}
	}
}

// L3.3: many in flight, answered in any order; MaxRequests of them at most.
func TestManyInFlight(t *testing.T) {
	const limit = 8
	s := newSim(t, 1, withMaxRequests(limit))
	p := s.connect(0)
	for range limit { // below and at the limit
		p.request("later", nil)
	}
	p.expect()
	p.request("echo", nil) // above it, even one that would be answered at once
	p.request("later", nil)
	p.expect("text Response C8 mq.Error {failed} 0ms", "text Response C9 mq.Error {failed} 0ms")
	if s.w.calls != limit {
		t.Errorf("the worker was called %d times", s.w.calls)
	}
	if n := s.g.Describe(p.conn()).Requests; n != limit {
		t.Errorf("%d requests described", n)
	}
	other := s.connect(0) // the limit is one connection's
	other.request("echo", nil)
	other.expect(`text Response C0 echoResponse "" 0ms`)

	s.w.later[3].Reply("done", []byte("3"))
	p.expect(`text Response C3 done "3" 0ms`)
	p.request("later", nil) // in the room that this one made
	p.expect()
	for i, k := range []int{8, 0, 7, 1, 5, 2, 6, 4} {
		s.w.later[k].Reply("done", nil)
		if i%2 == 0 {
			s.advance(time.Millisecond)
		}
	}
	s.run()
	var order []string
	for _, m := range p.take() {
		order = append(order, m.env.RequestID)
	}
	if got := strings.Join(order, " "); got != "C10 C0 C7 C1 C5 C2 C6 C4" {
		t.Errorf("answered in the order %s", got)
	}
	st := s.stats()
	if st.Accepted != 12 || st.Requests[OutcomeFailed] != 2 || st.Requests[OutcomeOK] != 10 {
		t.Errorf("accepted %d, %v", st.Accepted, st.Requests)
	}
}

// L3.12: two in flight with the same id are two requests; one without an id cannot be answered. Ids are bounded.
func TestRequestIDs(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	for range 2 {
		p.text(&wire.Envelope{RequestID: "same", Type: "later"})
	}
	s.run()
	s.w.later[1].Reply("done", []byte("second"))
	s.w.later[0].Reply("done", []byte("first"))
	p.expect(`text Response same done "second" 0ms`, `text Response same done "first" 0ms`)

	p.text(&wire.Envelope{Type: "echo"})
	p.expect()
	if st := s.stats(); st.Dropped[DropNoRequestID] != 1 || st.Accepted != 2 {
		t.Errorf("without an id: %v, %d accepted", st.Dropped, st.Accepted)
	}
	for n := maxRequestID - 1; n <= maxRequestID+1; n++ {
		id := strings.Repeat("i", n)
		for _, typ := range []string{"echo", "later"} {
			p.text(&wire.Envelope{RequestID: id, Type: typ})
		}
		s.run()
		if n > maxRequestID {
			p.expect()
			continue
		}
		s.w.later[len(s.w.later)-1].Reply("done", nil)
		p.expect("text Response "+id+` echoResponse "" 0ms`, "text Response "+id+` done "" 0ms`)
	}
	if st := s.stats(); st.Dropped[DropRequestID] != 2 || st.Accepted != 6 {
		t.Errorf("too long: %v, %d accepted", st.Dropped, st.Accepted)
	}
}

// L3.1: what is no envelope is dropped and counted, and the connection stays. L3.10: so are events.
func TestUnreadableMessages(t *testing.T) {
	event := wire.Envelope{Type: "hello", MessageType: wire.Event}
	tests := []struct {
		name    string
		op      frame.OpCode
		payload string
		why     Drop
	}{
		{"empty text", frame.Text, "", DropMalformed},
		{"empty binary", frame.Binary, "", DropMalformed},
		{"not base64", frame.Text, "{\"type\": 1}", DropMalformed},
		{"base64url", frame.Text, "_-__", DropMalformed},
		{"base64 with line breaks", frame.Text, "EgJD\nMBo=", DropMalformed},
		{"one digit too many", frame.Text, "EgJDM", DropMalformed},
		{"base64 of garbage", frame.Text, base64.StdEncoding.EncodeToString([]byte("garbage")), DropMalformed},
		{"cut off", frame.Binary, "\x12\x05C0", DropMalformed},
		{"without a type", frame.Binary, "\x12\x02C0", DropMalformed},
		{"an unknown message type", frame.Binary, "\x12\x02C0\x1a\x04echo\x38\x03", DropMalformed},
		{"an id that is not UTF-8", frame.Binary, "\x12\x01\xff\x1a\x04echo", DropMalformed},
		{"base64 in a binary message", frame.Binary, "EgJDMBoOY2hhdC5MZWF2ZVJvb20qEAoDciMxEgJzMRj70JX/vDE=", DropMalformed},
		{"an event", frame.Binary, string(event.AppendTo(nil)), DropClientEvent},
		{"an event in text", frame.Text, base64.StdEncoding.EncodeToString(event.AppendTo(nil)), DropClientEvent},
	}
	s := newSim(t, 1)
	p := s.connect(0)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := s.stats()
			p.frame(test.op, []byte(test.payload))
			s.run()
			want := before
			want.Dropped[test.why]++
			if got := s.stats(); got != want {
				t.Errorf("counters went from\n%+v to\n%+v", before, got)
			}
			p.text(&wire.Envelope{RequestID: "C0", Type: "echo"})
			p.expect(`text Response C0 echoResponse "" 0ms`)
		})
	}
	// The warning comes once a second for each reason (L3.1).
	s.log.records = nil
	s.advance(warnEvery)
	for range 100 {
		p.frame(frame.Text, []byte("?"))
	}
	s.run()
	if lines := s.log.lines("message dropped"); len(lines) != 1 || !strings.HasPrefix(lines[0], "WARN reason=malformed") {
		t.Errorf("logged: %q", lines)
	}
	s.advance(warnEvery - 1)
	p.frame(frame.Text, []byte("?"))
	s.run()
	if lines := s.log.lines("message dropped"); len(lines) != 0 {
		t.Errorf("logged before its time: %q", lines)
	}
	s.advance(1)
	p.frame(frame.Text, []byte("?"))
	s.run()
	if lines := s.log.lines("message dropped"); len(lines) != 1 || !strings.Contains(lines[0], "not_logged=100") {
		t.Errorf("logged: %q", lines)
	}
}

// L3.2, L1.3: while CLOSING, requests are dropped and Responses still resolve.
func TestWhileClosing(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	var answers []string
	s.w.clients.SendRequest(p.id, "ask", nil, func(r Response, err error) {
		answers = append(answers, fmt.Sprintf("%s %q %v", r.Type, r.Payload, err))
	})
	p.expect(`text Request S1 ask ""`)
	s.w.clients.CloseConnection(p.id, 4000, "", nil)
	p.expect(`close 4000 ""`)
	p.request("echo", nil)
	p.text(&wire.Envelope{RequestID: "S1", Type: "askResponse", Payload: []byte("yes"), MessageType: wire.Response})
	p.expect()
	if st := s.stats(); st.Dropped[DropNotOpen] != 1 || st.Accepted != 0 || st.ServerRequests[OutcomeOK] != 1 {
		t.Errorf("%v, %d accepted, %v", st.Dropped, st.Accepted, st.ServerRequests)
	}
	if len(answers) != 1 || answers[0] != `askResponse "yes" <nil>` {
		t.Errorf("answers %q", answers)
	}
	p.close(4000)
	s.run()
	if len(s.w.ends) != 1 || s.w.ends[0].Code != 4000 {
		t.Errorf("ends %+v", s.w.ends)
	}
}

// What Process is given, and that it is no longer than it (invariants build: the bytes are overwritten).
func TestRequestFields(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	var kept *Request
	s.w.process = func(r *Request) {
		if r.Conn != p.id || r.SessionID != "s1" || r.Type != "typ" || string(r.Payload) != "payload" {
			t.Errorf("got %+v", r)
		}
		m := r.Meta()
		if m.Remote != p.addr || len(m.Headers) != 1 || m.Headers[0] != (Header{"User-Agent", "sim"}) || time.Since(m.Start).Abs() > time.Hour {
			t.Errorf("meta %+v", m)
		}
		kept = r
		r.Reply("ok", nil)
	}
	p.text(&wire.Envelope{RequestID: "C0", SessionID: "s1", Type: "typ", Payload: []byte("payload")})
	p.expect(`text Response C0 ok "" 0ms`)
	if kept.Type != "" || kept.SessionID != "" || kept.Payload != nil {
		t.Errorf("after Process: %+v", kept)
	}
	for name, use := range map[string]func(){
		"Reply": func() { kept.Reply("", nil) }, "Fail": func() { kept.Fail(nil) },
		"Later": func() { kept.Later() }, "Meta": func() { kept.Meta() },
	} {
		if !panics(use) {
			t.Errorf("%s after Process did not panic", name)
		}
	}
	s.w.process = func(r *Request) {
		r.Reply("ok", nil)
		if !panics(func() { r.Later() }) {
			t.Error("Later after Reply did not panic")
		}
	}
	p.request("x", nil)
	p.expect(`text Response C0 ok "" 0ms`)
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// A pending request keeps its id by copy: the buffer that it came in is used again meanwhile (L3.6).
func TestPendingRequestKeepsItsID(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.text(&wire.Envelope{RequestID: "first-id", Type: "later"})
	s.run()
	for range 3 {
		p.text(&wire.Envelope{RequestID: "other-id", Type: "echo", Payload: bytes.Repeat([]byte{0xff}, 100)})
		s.run()
	}
	p.take()
	s.w.later[0].Reply("done", nil)
	p.expect(`text Response first-id done "" 0ms`)
}

// A peer that does not read: the answer that does not fit closes the connection (L8.3), and counts as dropped.
func TestAnswerToSlowPeer(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.p.SetWindow(0)
	big := bytes.Repeat([]byte("x"), maxPending/8)
	for range 12 {
		p.binary(&wire.Envelope{RequestID: "C0", Type: "echo", Payload: big})
	}
	s.run()
	st := s.stats()
	if st.Requests[OutcomeOK] != 7 || st.Requests[OutcomeDropped] != 1 || st.Dropped[DropSlow] != 1 || st.Dropped[DropNotOpen] != 4 {
		t.Errorf("%v %v", st.Requests, st.Dropped)
	}
	s.ledger()
	if c := p.conn(); c.State() != conn.Closing {
		t.Errorf("state %v", c.State())
	}
}

// What a burst has needed is given back, and answers that come for it after that hit nobody (L3.4).
func TestMemoryAfterBurst(t *testing.T) {
	const each, clients = 200, 10
	s := newSim(t, 1, withMaxRequests(each))
	peers := make([]*peer, clients)
	for i := range peers {
		peers[i] = s.connect(0)
		for range each {
			peers[i].request("later", nil)
		}
		s.run()
	}
	sh := s.g.shards[0]
	if n := len(sh.pending.chunks); n < 2*slabKept {
		t.Fatalf("a burst of %d chunks only", n)
	}
	s.advance(requestTimeout)
	for _, p := range peers {
		if n := len(p.take()); n != each {
			t.Fatalf("%d answers", n)
		}
	}
	if n := len(sh.pending.chunks) + len(sh.pending.unused); n != 0 {
		t.Errorf("%d chunks and free numbers kept", n)
	}
	old := s.w.later
	s.w.later = nil
	for range each {
		peers[0].request("later", nil)
	}
	s.run()
	for _, c := range old {
		c.Reply("late", nil)
	}
	peers[0].expect()
	if n := s.stats().Dropped[DropLateAnswer]; n != each*clients {
		t.Errorf("%d late answers", n)
	}
	for _, c := range s.w.later {
		c.Reply("done", nil)
	}
	s.run()
	if n := len(peers[0].take()); n != each {
		t.Errorf("%d answers", n)
	}
}

// An answer of any length goes out whole; the memory of a large one is not kept for the next.
func TestLargeAnswers(t *testing.T) {
	s := newSim(t, 1, func(_ *Config, c *conn.Config) { c.MaxPending = 1 << 20 })
	p := s.connect(0)
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, maxKeptAnswer + 1, 300 << 10, 10} {
		p.request("later", nil)
		s.run()
		payload := bytes.Repeat([]byte{byte(n)}, n)
		s.w.later[len(s.w.later)-1].Reply("done", payload)
		s.run()
		if got := p.take(); len(got) != 1 || !bytes.Equal(got[0].env.Payload, payload) || got[0].env.Type != "done" {
			t.Errorf("answer of %d bytes: got %d messages", n, len(got))
		}
	}
	p.request("later", nil)
	s.run()
	s.w.later[len(s.w.later)-1].Fail(nil) // without saying why
	p.expect("text Response C9 mq.Error {failed} 0ms")
}

// What is logged of a message is a copy of it, and not all of it: a log may keep what it is given, and a client may send
// a megabyte.
func TestLogsTakeCopies(t *testing.T) {
	s := newSim(t, 1)
	p := s.connect(0)
	p.binary(response("first-"+strings.Repeat("é", 1000), "x", ""))
	s.run()
	for range 3 {
		p.binary(&wire.Envelope{RequestID: strings.Repeat("C", 100), Type: strings.Repeat("overwritten", 500)})
		s.run()
	}
	p.take()
	lines := s.log.lines("message dropped")
	want := "detail=first-" + strings.Repeat("é", (maxLogged-6)/2) + " "
	if len(lines) != 1 || !strings.Contains(lines[0], want) {
		t.Errorf("logged %q, expected %q", lines, want)
	}
}
