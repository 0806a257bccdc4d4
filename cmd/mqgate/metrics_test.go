package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// documented is a row of docs/metrics.md.
type documented struct {
	kind   string
	labels map[string][]string // the possible values
}

// metricsPage reads the tables of docs/metrics.md: name, type, labels with their values, meaning, what to do.
func metricsPage(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	page := map[string]documented{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		name := code.FindStringSubmatch(cells[0])
		if len(cells) != 5 || name == nil {
			continue
		}
		if _, twice := page[name[1]]; twice {
			t.Errorf("docs/metrics.md has two rows for %s", name[1])
		}
		row := documented{strings.TrimSpace(cells[1]), map[string][]string{}}
		for part := range strings.SplitSeq(cells[2], ";") {
			words := code.FindAllStringSubmatch(part, -1)
			for _, w := range words[min(1, len(words)):] {
				row.labels[words[0][1]] = append(row.labels[words[0][1]], w[1])
			}
		}
		if strings.TrimSpace(cells[3]) == "" || strings.TrimSpace(cells[4]) == "" {
			t.Errorf("docs/metrics.md says too little about %s", name[1])
		}
		page[name[1]] = row
	}
	return page
}

// Every metric is in docs/metrics.md with its type and all values of its labels, which are bounded sets; and nothing
// else is. promlint has nothing to say.
func TestMetricsAreDocumented(t *testing.T) {
	p := start(t, nil, "--echo-path=/echo", "--nats=embedded", "--nats-listen=")
	c := p.dial(t, "/echo")
	if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c.readClose(t, 1000, "") // so that disconnects_total has a series
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(&collector{g: p.gateway}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("promlint: %s: %s", problem.Metric, problem.Text)
	}

	page := metricsPage(t)
	for _, f := range families {
		row, ok := page[f.GetName()]
		if !ok {
			t.Errorf("docs/metrics.md has no %s", f.GetName())
			continue
		}
		delete(page, f.GetName())
		if kind := strings.ToLower(f.GetType().String()); row.kind != kind {
			t.Errorf("docs/metrics.md: %s is a %s, not a %s", f.GetName(), kind, row.kind)
		}
		checkLabels(t, f, row.labels)
	}
	for name := range page {
		t.Errorf("docs/metrics.md has %s, which is not collected", name)
	}
}

// checkLabels compares the labels of a metric, and the values that they have or may have, with the page.
func checkLabels(t *testing.T, f *dto.MetricFamily, page map[string][]string) {
	t.Helper()
	values := map[string][]string{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			values[l.GetName()] = append(values[l.GetName()], l.GetValue())
		}
	}
	if f.GetName() == "mqgate_disconnects_total" { // only those that have happened are collected
		values = map[string][]string{}
		for i := range conn.NumCauses {
			values["reason"] = append(values["reason"], conn.Cause(i).Label())
		}
		for i := range conn.NumCodes {
			values["code"] = append(values["code"], conn.CodeLabel(i))
		}
	}
	for label, got := range values {
		want := slices.Clone(page[label])
		slices.Sort(want)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("docs/metrics.md: label %s of %s is one of %q, not %q", label, f.GetName(), got, want)
		}
	}
	for label := range page {
		if _, ok := values[label]; !ok {
			t.Errorf("docs/metrics.md: %s has no label %s", f.GetName(), label)
		}
	}
}

// What a little traffic counts.
func TestMetricsCount(t *testing.T) {
	worker := newStub()
	p := start(t, worker, "--echo-path=/echo", "--request-timeout=50ms", "--ping-interval=20ms")
	echo := p.dial(t, "/echo")
	for range 3 {
		if err := echo.WriteMessage(websocket.TextMessage, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := echo.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _, _ = echo.ReadMessage() }() // answers pings till the connection is closed
	ws := p.dial(t, "/ws")
	for i, typ := range []string{"test.Now", "test.Fails", "test.Never", wire.TypeJoinRoom} {
		ws.send(t, wire.Envelope{RequestID: "C" + string(rune('0'+i)), Type: typ})
		ws.read(t)
	}
	ws.send(t, wire.Envelope{Type: "test.Now"}) // no request id
	worker.clients.Publish(mq.Topic{Kind: mq.TopicRoom, Room: "r#1"}, "chat.RoomEvent", []byte("x"))
	ws.read(t)
	if _, res, err := websocket.DefaultDialer.Dial("ws://"+p.addr+"/nope", nil); err == nil || res.StatusCode != 404 {
		t.Fatal(err)
	}
	p.measureLags()
	want := map[string]string{
		"mqgate_connections_open": "2", "mqgate_connections_total": "2", "mqgate_accounting_drift": "0", "mqgate_connections_handshaking": "0",
		`mqgate_handshakes_refused_total{status="404"}`:         "1",
		`mqgate_handshakes_refused_total{status="503"}`:         "0",
		`mqgate_messages_received_total{kind="text"}`:           "3",
		`mqgate_messages_sent_total{kind="text"}`:               "3",
		`mqgate_messages_received_total{kind="binary"}`:         "5",
		`mqgate_messages_sent_total{kind="binary"}`:             "5",
		`mqgate_requests_total{outcome="ok"}`:                   "2",
		`mqgate_requests_total{outcome="failed"}`:               "1",
		`mqgate_requests_total{outcome="timeout"}`:              "1",
		"mqgate_requests_accepted_total":                        "4",
		"mqgate_requests_in_flight":                             "0",
		`mqgate_request_duration_seconds_count`:                 "2",
		`mqgate_messages_dropped_total{reason="no-request-id"}`: "1",
		`mqgate_subscriptions{kind="room"}`:                     "1",
		`mqgate_subscriptions{kind="conversation"}`:             "0",
		"mqgate_broadcast_deliveries_total":                     "1",
		"mqgate_clients_with_state":                             "1",
		"mqgate_pending_bytes":                                  "0",
		"mqgate_accept_paused":                                  "0",
		"mqgate_accepts_total":                                  "3",
		"mqgate_drain_remaining":                                "0",
	}
	got := p.samples(t)
	for name, want := range want {
		if got[name] != want {
			t.Errorf("%s is %q, want %s", name, got[name], want)
		}
	}
	eventually(t, "round trips are measured", func() bool { return p.samples(t)["mqgate_rtt_seconds_count"] > "0" })
	for _, name := range []string{"mqgate_bytes_received_total", "mqgate_bytes_sent_total", "mqgate_loop_tasks_total",
		"mqgate_loop_turns_total", "mqgate_loop_reads_total", "mqgate_loop_writes_total", "mqgate_loop_lag_seconds_count",
		`mqgate_messages_received_total{kind="pong"}`, `mqgate_messages_sent_total{kind="ping"}`} {
		if got := p.samples(t)[name]; got == "" || got == "0" {
			t.Errorf("%s is %q", name, got)
		}
	}
	for _, name := range []string{"mqgate_user_bytes_per_connection", "mqgate_kernel_bytes_per_connection"} {
		if got[name] == "" || strings.HasPrefix(got[name], "-") {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	if _, ok := got["mqgate_rooms_rooms"]; ok {
		t.Error("metrics of the built-in worker, though another one serves")
	}
}

func TestHistogram(t *testing.T) {
	var m dto.Metric
	if err := histogram(descLag, []uint32{100, 1000000}, []uint64{3, 4, 5}, 2500000).Write(&m); err != nil {
		t.Fatal(err)
	}
	h := m.GetHistogram()
	if h.GetSampleCount() != 12 || h.GetSampleSum() != 2.5 || len(h.GetBucket()) != 2 {
		t.Fatalf("%v", h)
	}
	for i, want := range []struct {
		le float64
		n  uint64
	}{{0.0001, 3}, {1, 7}} {
		if b := h.GetBucket()[i]; b.GetUpperBound() != want.le || b.GetCumulativeCount() != want.n {
			t.Errorf("bucket %v, want %v", b, want)
		}
	}
}

func TestLags(t *testing.T) {
	var l lags
	for _, lag := range []time.Duration{-1, 100 * time.Microsecond, 101 * time.Microsecond, time.Second, time.Second + time.Microsecond} {
		l.observe(lag)
	}
	got := l.get()
	if got.counts[0] != 2 || got.counts[1] != 1 || got.counts[len(lagBuckets)-1] != 1 || got.counts[len(lagBuckets)] != 1 || got.sumUS != 2000202 {
		t.Errorf("%+v", got)
	}
}

func TestMemory(t *testing.T) {
	if n, err := anonymousMemory(); err != nil || n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes, %v", n, err)
	}
	l := listenLocal(t, "127.0.0.1:0") // at least this one
	if _, n, err := kernelTCPMemory(); err != nil || n < 1 {
		t.Errorf("%v: %d sockets, %v", l.Addr(), n, err)
	}
	const before = "sockets: used 15\n"
	for text, want := range map[string][2]uint64{
		before + "TCP: inuse 1 orphan 0 tw 1253 alloc 2 mem 305\nUDP: inuse 0 mem 7\n": {305 * 4096, 2},
		"TCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0":                                     {0, 0},
	} {
		if buffers, sockets, err := parseSockstat([]byte(text), 4096); err != nil || [2]uint64{buffers, sockets} != want {
			t.Errorf("%q: %d %d %v", text, buffers, sockets, err)
		}
	}
	for _, text := range []string{"", before, "TCP: inuse 1\n alloc 3 mem 4", "TCP: inuse 1 alloc 2", "TCP: inuse 1 alloc x mem 2", "TCP: alloc 1 mem "} {
		if _, _, err := parseSockstat([]byte(text), 4096); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	for _, test := range []struct {
		amount float64
		n      int64
		want   float64
	}{{10, 4, 2.5}, {10, 0, 0}, {-10, 4, 0}, {0, 0, 0}} {
		if got := per(test.amount, test.n); got != test.want {
			t.Errorf("%v: %v", test, got)
		}
	}
}
