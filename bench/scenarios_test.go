package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// plainSize reads a size without a unit.
func plainSize(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, errors.New("is not a number")
	}
	return n, nil
}

func TestParseSizes(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"64:50%,1024:40%,16384:10%", ""},
		{"64:33.3%, 128:66.7%", ""},
		{"64:100%", ""},
		{"64:50%,128:40%", "has shares that add up to 90%, expected 100%"},
		{"64:50%,64:50%", "has the size 64 twice"},
		{"64:50%,", `has "", which is not like 1KiB:40%`},
		{"64:50", `has "64:50", which is not like 1KiB:40%`},
		{"64:0%,65:100%", `has "64:0%", which is not like 1KiB:40%`},
		{"64:-5%,65:105%", `has "64:-5%", which is not like 1KiB:40%`},
		{"64:NaN%", `has "64:NaN%", which is not like 1KiB:40%`},
		{"x:100%", `has the size "x", which is not a number`},
		{strings.Repeat("1:1%,", MaxSizes) + "2:84%", "has 17 sizes, expected at most 16"},
	} {
		_, err := ParseSizes(test.text, plainSize)
		if got := errorText(err); got != test.want {
			t.Errorf("%s: %q, want %q", test.text, got, test.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A distribution is kept, follows from the seed, and differs with it.
func TestSizes(t *testing.T) {
	s, err := ParseSizes("64:50%,1000:40%,4000:10%", plainSize)
	if err != nil {
		t.Fatal(err)
	}
	if s.Largest() != 4000 || s.String() != "64:50%,1000:40%,4000:10%" {
		t.Errorf("largest %d, text %s", s.Largest(), &s)
	}
	other := s
	other.seed = 1
	counts, differ := map[int]int{}, 0
	const n = 100_000
	for seq := range uint32(n) {
		counts[s.of(seq%100, seq)]++
		if s.of(seq%100, seq) != other.of(seq%100, seq) {
			differ++
		}
	}
	for size, share := range map[int]float64{64: 0.5, 1000: 0.4, 4000: 0.1} {
		if got := float64(counts[size]) / n; math.Abs(got-share) > 0.01 {
			t.Errorf("%d bytes: %v of all, want %v", size, got, share)
		}
	}
	if differ < n/3 {
		t.Errorf("with another seed only %d of %d have another size", differ, n)
	}
}

// There is a request of every size, and it is one that a worker can read.
func TestAskFor(t *testing.T) {
	for _, n := range append([]int{16383, 16384, 16385, 16386, 16403, 16404, 65536}, sequence(minMessage, 600)...) {
		p := askFor(n)
		var m wire.GetRoomInfo
		if err := m.Unmarshal(p); err != nil || len(p) != n || !strings.HasPrefix(m.RoomID, noRoom) {
			t.Fatalf("%d bytes: %d, %v, room %q", n, len(p), err, m.RoomID)
		}
	}
}

func sequence(from, to int) (list []int) {
	for n := from; n < to; n++ {
		list = append(list, n)
	}
	return list
}

// Request ids are read as they were written; the envelope around them stays one.
func TestRequestIDs(t *testing.T) {
	p := requestTemplate(wire.TypeBye, []byte{1, 2, 3})
	putID(p, 0x01020304, 0xfffefdfc)
	var e wire.Envelope
	if err := e.Unmarshal(p); err != nil || e.Type != wire.TypeBye || !bytes.Equal(e.Payload, []byte{1, 2, 3}) {
		t.Fatalf("%v, %+v", err, e)
	}
	if number, seq, ok := parseID(e.RequestID); number != 0x01020304 || seq != 0xfffefdfc || !ok {
		t.Errorf("%s was read as request %x of %x, %v", e.RequestID, seq, number, ok)
	}
	for _, bad := range []string{"", "0", strings.Repeat("0", idLen-1), strings.Repeat("0", idLen+1), strings.Repeat("g", idLen), strings.Repeat("A", idLen), strings.Repeat(" ", idLen)} {
		if _, _, ok := parseID(bad); ok {
			t.Errorf("%q passes for an id", bad)
		}
	}
}

// Answers and deliveries are judged without allocating.
func TestNoAllocations(t *testing.T) {
	for _, text := range []bool{false, true} {
		o := &Options{Scenario: scenarioRequest, Connections: 1, Depth: 4, Payload: 128, Text: text, Rooms: 1, Members: 1, RequestType: DefaultRequest,
			AnswerStatus: DefaultStatus, AnswerTimeout: time.Second}
		d := &driver{loops: 1, clients: make([]client, 1)}
		form, op := wire.Binary, frame.Binary
		if text {
			form, op = wire.Text, frame.Text
		}
		r := &run{o: o}
		l := newRequestLoad(r, d).(*requestLoad)
		status := wire.GetRoomInfoResponse{Status: DefaultStatus}
		answer := wire.Envelope{RequestID: strings.Repeat("0", idLen), Type: wire.TypeGetRoomInfoResponse, Payload: status.AppendTo(nil), MessageType: wire.Response}
		p := answer.AppendForm(nil, form)
		took := testing.AllocsPerRun(100, func() {
			l.next[0], l.open[0], l.slots[0] = 1, 1, slot{used: true}
			if !l.read(op, p) {
				t.Fatal("not read")
			}
			l.answer(0, 1)
		})
		if took != 0 || l.back == 0 || l.wrong != 0 {
			t.Errorf("text %v: %v allocations per answer; %d good, %d wrong", text, took, l.back, l.wrong)
		}
		b := newBroadcastLoad(r, d).(*broadcastLoad)
		message := make([]byte, 128)
		fill(message, true, 0, 0)
		event := wire.RoomConversationEvent{RoomID: b.rooms[0].id, ChatMessages: []wire.ChatMessage{{Message: string(message)}}}
		delivery := wire.Envelope{Type: wire.TypeRoomConversationEvent, Payload: event.AppendTo(nil), MessageType: wire.Event}
		p = delivery.AppendForm(nil, form)
		took = testing.AllocsPerRun(100, func() {
			b.members[0] = tracker{}
			b.rooms[0].sent.Store(1)
			if !b.read(op, p) {
				t.Fatal("not read")
			}
			b.deliver(0, 1)
		})
		if took != 0 || b.delivered == 0 || b.wrong != 0 {
			t.Errorf("text %v: %v allocations per delivery; %d good, %d wrong", text, took, b.delivered, b.wrong)
		}
	}
}

func TestExpectedPings(t *testing.T) {
	const s = int64(time.Second)
	for _, test := range []struct {
		within, interval int64
		least, most      uint32
	}{
		{10 * s, 0, 0, math.MaxUint32}, {65 * s, 20 * s, 3, 4}, {60 * s, 20 * s, 2, 4}, {62 * s, 20 * s, 3, 4}, {s, 20 * s, 0, 1}, {22 * s, 20 * s, 1, 2}, {0, 20 * s, 0, 1},
	} {
		if least, most := expected(test.within, test.interval); least != test.least || most != test.most {
			t.Errorf("%d within %d: %d to %d, want %d to %d", test.interval, test.within, least, most, test.least, test.most)
		}
	}
}

// Heartbeats that come, that do not, and that come too often.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		server, told  time.Duration // interval of the server, and what the run is told it is
		duration      time.Duration
		client        time.Duration
		missing, many bool
	}{
		{"on time", 1400 * time.Millisecond, 2 * time.Second, 2300 * time.Millisecond, 0, false, false},
		{"none", time.Minute, 200 * time.Millisecond, 400 * time.Millisecond, 0, true, false},
		{"too often", 500 * time.Millisecond, 2 * time.Second, 2300 * time.Millisecond, 0, false, true},
		{"not judged", time.Second, 0, 300 * time.Millisecond, 0, false, false},
		{"with pings of our own", time.Minute, 0, time.Second, 500 * time.Millisecond, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &echoServer{ping: test.server}
			s.serve(t)
			o := s.options(t, scenarioHeartbeat)
			o.Duration, o.ServerPings, o.ClientPings, o.Charts = test.duration, test.told, test.client, true
			p := mustRun(t, t.Context(), o)
			h := p.Heartbeat
			if (h.Missing > 0) != test.missing || (h.TooMany > 0) != test.many || p.OK == (test.missing || test.many) || p.Lost != h.Missing || p.Wrong != h.TooMany {
				t.Errorf("ok %v, lost %d, wrong %d, %+v", p.OK, p.Lost, p.Wrong, *h)
			}
			if (h.RoundTrips > 0) != (test.client > 0) || (p.Latency.P50 != nil) != (test.client > 0) {
				t.Errorf("%d round trips, latency %+v", h.RoundTrips, p.Latency)
			}
			if test.name == "on time" && (h.PhasePeak == nil || *h.PhasePeak < 1 || len(h.Phases) != pingPhases) {
				t.Errorf("the phases are %+v", *h)
			}
			if test.missing && h.Missing != 8 {
				t.Errorf("%d missing, want one on each of 8 connections", h.Missing)
			}
		})
	}
	o := Options{Scenario: scenarioHeartbeat, Connections: 1, Loops: 1, Duration: time.Second, ServerPings: time.Second}
	if err := o.Validate(System{OpenFiles: 1000}); err == nil || !strings.Contains(err.Error(), "1s is not enough to judge") {
		t.Errorf("a run that cannot judge: %v", err)
	}
}

// The search finds the highest rate that a server can do, within a twentieth, and ends.
func TestSearch(t *testing.T) {
	for _, test := range []struct{ first, most int }{{1000, 0}, {1000, 1}, {1000, 7}, {1000, 999}, {1000, 1000}, {1000, 1001}, {1000, 123_456}, {1, 50}, {1000, MaxRate}, {MaxRate, 3_000_000}} {
		var s search
		var tried []int
		for rate := s.next(test.first); rate > 0; rate = s.next(test.first) {
			tried = append(tried, rate)
			s.was(rate, rate <= test.most)
		}
		if s.good > test.most || test.most-s.good > max(1, s.bad/20) || len(tried) > maxRampSteps {
			t.Errorf("from %d, %d can be done: found %d, after %v", test.first, test.most, s.good, tried)
		}
	}
	// One hiccup is forgiven.
	var s search
	s.was(s.next(100), false)
	if again := s.next(100); again != 100 {
		t.Fatalf("after one bad time %d is tried, want 100 again", again)
	}
	s.was(100, true)
	if s.good != 100 || s.bad != 0 || s.next(100) != 200 {
		t.Errorf("then %+v", s)
	}
}

// A ramp that is met by every rate that the test has time for, one that no rate meets, one whose server loses messages.
func TestRamp(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit time.Duration
		drop  bool
		ok    bool
	}{
		{"all good", time.Hour, false, true},
		{"none good", time.Nanosecond, false, false},
		{"loses", time.Hour, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &echoServer{misbehave: func(_ *conn.Conn, n int, _ frame.OpCode, _ []byte) bool { return test.drop && n == 3 }}
			s.serve(t)
			o := s.options(t, scenarioRamp)
			o.RampOf, o.P99Limit, o.Rate, o.Payload, o.Depth, o.Duration, o.Charts = scenarioEcho, test.limit, 500, 128, 4, 100*time.Millisecond, true
			if test.ok {
				o.Rate = MaxRate // the first step is the last
				o.Connections, o.Depth = 8, 1
			} else if !test.drop {
				o.Rate = 8
			}
			p := mustRun(t, t.Context(), o)
			if p.OK != test.ok || (p.Ramp.BestRate > 0) != test.ok || len(p.Ramp.Steps) == 0 || test.ok && p.Messages == 0 {
				t.Errorf("ok %v, %d messages, %+v", p.OK, p.Messages, *p.Ramp)
			}
			if test.drop && (p.LostMessages != 8 || p.Ramp.EndedEarly == "") {
				t.Errorf("%d lost, %+v", p.LostMessages, *p.Ramp)
			}
		})
	}
}

// The upgrade asks for the subprotocol and has the headers.
func TestUpgrade(t *testing.T) {
	good := 0 // on the server's one loop, which has ended its connections when the run is over
	s := &echoServer{meta: []string{"Sec-WebSocket-Protocol", "X-Bench"}}
	s.onOpen = func(c *conn.Conn) {
		if slices.Equal(c.Meta(), []string{"mq", "a b"}) {
			good++
		}
	}
	s.serve(t)
	o := s.options(t, scenarioConnect)
	o.Subprotocol, o.Header = "mq", []handshake.Header{{Name: "X-Bench", Value: "a b"}}
	p := mustRun(t, t.Context(), o)
	s.server.Each(func(*conn.Registry) {
		if !p.OK || good != 8 {
			t.Errorf("%d upgrades had both, want 8: %v", good, p.Failures)
		}
	})
	for _, bad := range []string{"a b", "a\r\nX: y"} {
		o.Subprotocol = bad
		if err := o.Validate(System{OpenFiles: 1000}); err == nil {
			t.Errorf("%q passes for a subprotocol", bad)
		}
	}
}

// A long run has as many points as a short one.
func TestSeries(t *testing.T) {
	now := time.Unix(1, 0)
	r := &run{o: &Options{Scenario: scenarioEcho}}
	r.startSeries(now)
	for range 10 * maxPoints {
		now = now.Add(seriesStep)
		r.sample(now)
	}
	s := r.series
	if n := len(s.points); n < maxPoints/2 || n >= maxPoints {
		t.Fatalf("%d points", n)
	}
	for k := 1; k < len(s.points); k++ {
		if got, want := s.points[k].at-s.points[k-1].at, s.every.Seconds(); math.Abs(got-want) > 1e-6 {
			t.Fatalf("points %d and %d are %v s apart, want %v", k-1, k, got, want)
		}
	}
}

// The page has a chart for everything that was measured, is well-formed, and asks nobody for anything.
func TestHTML(t *testing.T) {
	s := &echoServer{}
	s.serve(t)
	o := s.options(t, scenarioEcho)
	o.Charts, o.Duration = true, 3*seriesStep
	p := mustRun(t, t.Context(), o)
	p.URL += "?<script>"
	p.Ramp = &RampReport{Of: "echo", LimitMs: 5, Steps: []RampStep{{Rate: 10, Good: true, Latency: p.Latency}, {Rate: 20, Latency: p.Latency}}}
	p.Heartbeat = &HeartbeatReport{IntervalSeconds: 1, Phases: make([]uint64, pingPhases)}
	p.Heartbeat.Phases[3] = 5
	var b bytes.Buffer
	if err := p.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, title := range []string{"Latency over time", "Latency by percentile", "Rate over time", "Memory over time", "Connections over time", "Ping phases", "Rates tried",
		axisTime, axisLatency, "per second [1/s]", "RssAnon [MiB]", "99.9%"} {
		if !strings.Contains(text, title) {
			t.Errorf("the page lacks %q", title)
		}
	}
	for _, asks := range []string{"<script", "<link", "src=", "@import", "url("} {
		if strings.Contains(text, asks) {
			t.Errorf("the page has %q", asks)
		}
	}
	charts := 0
	for rest := text; ; charts++ {
		at := strings.Index(rest, "<svg")
		if at < 0 {
			break
		}
		end := strings.Index(rest[at:], "</svg>") + at + len("</svg>")
		for d := xml.NewDecoder(strings.NewReader(rest[at:end])); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("chart %d: %v", charts, err)
			}
		}
		rest = rest[end:]
	}
	if charts != 7 {
		t.Errorf("%d charts, want 7", charts)
	}
}

// Reports of all kinds have a page and a text, also when nothing was measured.
func TestEmptyReports(t *testing.T) {
	for _, p := range []*Report{{Scenario: scenarioBroadcast, Broadcast: &BroadcastReport{}}, {Scenario: scenarioHeartbeat, Heartbeat: &HeartbeatReport{}},
		{Scenario: scenarioRamp, Ramp: &RampReport{EndedEarly: "x"}}, {Scenario: scenarioConnect}} {
		if err := p.WriteHTML(io.Discard); err != nil {
			t.Errorf("%s: %v", p.Scenario, err)
		}
	}
	if !slices.Contains(MetricNames(), "spread_p99") {
		t.Error("the spread cannot be expected")
	}
	for _, text := range []string{"late=0", "spread_p99<1s", "phase_peak<3", "best_rate>1"} {
		e, err := ParseExpectation(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.check(&Report{}); got.Holds {
			t.Errorf("%s holds where nothing was measured", text)
		}
		late := uint64(0)
		full := &Report{Late: &late, Broadcast: &BroadcastReport{Spread: Latency{P99: number(5)}}, Heartbeat: &HeartbeatReport{PhasePeak: number(1.5)}, Ramp: &RampReport{BestRate: 7}}
		if got := e.check(full); !got.Holds {
			t.Errorf("%s: %+v", text, got)
		}
	}
}
