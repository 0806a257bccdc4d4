package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq/wire"
)

const (
	notFound  = "Websocket connection not found"
	notOpened = "Websocket connection not opened"
	badCode   = "close code must be 1000-1003, 1007-1014 or 3000-4999"
	needType  = `the body needs "type": the name of the message, e.g. "chat.RoomEvent"`
)

// What the admin interface refuses, and how (L4.2, L5.2).
func TestAdminErrors(t *testing.T) {
	p := start(t, newStub(), "--max-message-bytes=4KiB", "--echo-path=/echo")
	ws := p.dial(t, "/ws")
	id := "/connections/" + p.id(t, ws).String()
	echoID := "/connections/" + p.id(t, p.dial(t, "/echo")).String()
	// An id of another process, and one of a slot that was never used.
	strange := "/connections/" + conn.NewIssuer().Make(0, 0, 0).String()
	unused := "/connections/" + p.server.Issuer().Make(0, 999, 7).String()

	const json1 = "the body must be one JSON object: "
	for _, test := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/connections/x", "", 404, notFound},
		{"GET", strange, "", 404, notFound},
		{"GET", unused, "", 404, notFound},
		{"GET", "/connections/", "", 404, "404 page not found"},
		{"GET", "/", "", 404, "404 page not found"},
		{"GET", "/nope", "", 404, "404 page not found"},

		{"POST", "/healthz", "", 405, "Method Not Allowed"},
		{"POST", "/readyz", "", 405, "Method Not Allowed"},
		{"POST", "/metrics", "", 405, "Method Not Allowed"},
		{"POST", id, "", 405, "Method Not Allowed"},
		{"GET", id + "/close", "", 405, "Method Not Allowed"},
		{"PUT", id + "/event", "", 405, "Method Not Allowed"},
		{"GET", id + "/request", "", 405, "Method Not Allowed"},
		{"GET", "/drain", "", 405, "Method Not Allowed"},

		{"POST", id + "/close", "", 400, json1 + "EOF"},
		{"POST", id + "/close", "{", 400, json1 + "unexpected EOF"},
		{"POST", id + "/close", `{"code":1000} x`, 400, json1 + "something follows the JSON object"},
		{"POST", id + "/close", `{"code":1000}{}`, 400, json1 + "something follows the JSON object"},
		{"POST", id + "/close", `{"code":1000,"extra":1}`, 400, json1 + `json: unknown field "extra"`},
		{"POST", id + "/close", `[]`, 400, json1 + "json: cannot unmarshal array into Go value of type main.closing"},
		{"POST", id + "/close", `{}`, 400, "code 0: " + badCode},
		{"POST", id + "/close", `null`, 400, "code 0: " + badCode},
		{"POST", strange + "/close", `{"code":1000}`, 200, `{"closed":false}`},
		{"POST", unused + "/close", `{"code":1000}`, 200, `{"closed":false}`},
		{"POST", "/connections/x/close", `{"code":1000}`, 200, `{"closed":false}`},

		{"POST", id + "/event", `{"type":"t","payload":"?"}`, 400, json1 + "illegal base64 data at input byte 0"},
		{"POST", id + "/event", `{"payload":"AA=="}`, 400, needType},
		{"POST", id + "/event", `{"type":"","payload":"AA=="}`, 400, needType},
		{"POST", id + "/event", `{"type":"t","code":1}`, 400, json1 + `json: unknown field "code"`},
		{"POST", "/connections/x/event", `{"type":"t"}`, 404, notFound},
		{"POST", strange + "/event", `{"type":"t"}`, 404, notFound},
		{"POST", unused + "/event", `{"type":"t"}`, 404, notFound},
		{"POST", echoID + "/event", `{"type":"t"}`, 404, notFound}, // it does not speak MQ
		{"POST", id + "/request", `{"payload":""}`, 400, needType},
		{"POST", id + "/request", `}`, 400, json1 + "invalid character '}' looking for beginning of value"},
		{"POST", "/connections/x/request", `{"type":"t"}`, 404, notFound},
		{"POST", unused + "/request", `{"type":"t"}`, 404, notFound},
		{"POST", echoID + "/request", `{"type":"t"}`, 404, notFound},
	} {
		p.ask(t, test.method, test.path, test.body).want(t, test.method+" "+test.path+" "+test.body, test.status, test.text)
	}
	// L1.7, at both ends of every range of codes.
	for _, code := range []int{-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000} {
		p.ask(t, "POST", id+"/close", fmt.Sprintf(`{"code":%d}`, code)).want(t, "close", 400, fmt.Sprintf("code %d: %s", code, badCode))
	}
	// Nothing of this has harmed the connection.
	ws.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"})
	if e := ws.read(t); e.Type != "test.NowResponse" {
		t.Errorf("%+v", e)
	}
}

// Bodies at and above their limits. Whatever is in them is read no further.
func TestAdminBodyLimits(t *testing.T) {
	p := start(t, newStub(), "--max-message-bytes=4KiB")
	ws := p.dial(t, "/ws")
	id := "/connections/" + p.id(t, ws).String()
	ws.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"}) // from now on it speaks binary
	ws.read(t)
	padded := func(body string, size int) string { return body + strings.Repeat(" ", size-len(body)) }

	const limit = 4096*4/3 + adminEnvelope
	p.ask(t, "POST", id+"/event", padded(`{"type":"test.Event"}`, limit)).want(t, "at the limit", 200, `{"sent":true}`)
	ws.read(t)
	tooLarge := fmt.Sprintf("the body must be one JSON object: it has more than %d bytes", limit)
	p.ask(t, "POST", id+"/event", padded(`{"type":"test.Event"}`, limit+1)).want(t, "spaces above the limit", 413, tooLarge)
	p.ask(t, "POST", id+"/event", `{"type":"`+strings.Repeat("x", limit)+`"}`).want(t, "a type above the limit", 413, tooLarge)
	p.ask(t, "POST", id+"/close", padded(`{"code":1004}`, adminEnvelope)).want(t, "close at the limit", 400, "code 1004: "+badCode)
	if a := p.ask(t, "POST", id+"/close", padded(`{"code":1000}`, adminEnvelope+1)); a.status != 413 {
		t.Errorf("close above the limit: %+v", a)
	}
	// The largest payload that a client may send can also be sent to one.
	payload := make([]byte, 4096)
	p.ask(t, "POST", id+"/event", `{"type":"test.Event","payload":"`+base64.StdEncoding.EncodeToString(payload)+`"}`).
		want(t, "the largest payload", 200, `{"sent":true}`)
	if e := ws.read(t); len(e.Payload) != len(payload) {
		t.Errorf("%d bytes came", len(e.Payload))
	}
}

// With a token every path needs it; without one the host must be local.
func TestAdminAuthorization(t *testing.T) {
	const token = "abcdefghijklmnop-._~+/=="
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, newStub(), "--admin-token-file="+file)
	paths := []string{"GET /healthz", "GET /readyz", "GET /metrics", "GET /debug/pprof/", "GET /debug/pprof/heap", "GET /connections/x",
		"POST /connections/x/close", "POST /connections/x/event", "POST /connections/x/request", "POST /drain", "DELETE /drain", "GET /nope"}
	for _, path := range paths {
		method, path, _ := strings.Cut(path, " ")
		for _, headers := range [][]string{nil, {"Authorization: "}, {"Authorization: Bearer"}, {"Authorization: Bearer " + token + "x"},
			{"Authorization: Bearer " + token[1:]}, {"Authorization: Basic " + token}, {"Authorization: " + token}} {
			a := p.ask(t, method, path, "", headers...)
			a.want(t, fmt.Sprint(method, path, headers), 401, "a bearer token is required: Authorization: Bearer TOKEN")
			if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="mqgate admin"` {
				t.Errorf("WWW-Authenticate: %q", got)
			}
		}
	}
	if p.drainer.Active() {
		t.Error("it drains")
	}
	for _, header := range []string{"Authorization: Bearer " + token, "Authorization: bearer " + token} {
		p.ask(t, "GET", "/healthz", "", header, "Host: gateway.example").want(t, header, 200, "alive")
		p.ask(t, "GET", "/connections/x", "", header).want(t, header, 404, notFound)
		p.ask(t, "DELETE", "/drain", "", header).want(t, header, 200, `{"cancelled":false}`)
	}
}

func TestAdminBrowsers(t *testing.T) {
	p := start(t, newStub())
	// A page of another origin, and one that calls itself by another name for this machine.
	for _, headers := range [][]string{
		{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Origin: http://evil.example"},
		{"Host: evil.example", "Origin: http://evil.example"}, {"Host: evil.example:9090"}, {"Host: localhost.evil.example"},
	} {
		for _, request := range []string{"POST /drain", "DELETE /drain", "POST /connections/x/close"} {
			method, path, _ := strings.Cut(request, " ")
			if a := p.ask(t, method, path, `{"code":1000}`, headers...); a.status != http.StatusForbidden {
				t.Errorf("%s %v: %d %q", request, headers, a.status, a.body)
			}
		}
	}
	p.ask(t, "GET", "/metrics", "", "Host: evil.example").want(t, "metrics", 403, "without --admin-token-file the host must be an IP address or localhost")
	if p.drainer.Active() {
		t.Error("it drains")
	}
	for _, host := range []string{"localhost", "localhost:9090", "LOCALHOST", "127.0.0.1", "[::1]:9090", "[::1]", "10.1.2.3:80"} {
		p.ask(t, "GET", "/healthz", "", "Host: "+host).want(t, host, 200, "alive")
	}
	p.ask(t, "DELETE", "/drain", "", "Sec-Fetch-Site: same-origin").want(t, "same origin", 200, `{"cancelled":false}`)
}

func TestAdminPages(t *testing.T) {
	p := start(t, newStub())
	p.ask(t, "GET", "/healthz", "").want(t, "healthz", 200, "alive")
	p.ask(t, "GET", "/readyz", "").want(t, "readyz", 200, "ready")
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "cmd/mqgate.(*gateway).run",
		"/debug/pprof/heap":              "",
		"/debug/pprof/cmdline":           "",
		"/debug/pprof/symbol":            "num_symbols: 1",
		"/debug/pprof/trace?seconds=0.1": "",
		"/metrics":                       "mqgate_connections_open 0",
	} {
		if a := p.ask(t, "GET", path, ""); a.status != 200 || a.body == "" || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %.200q, want %q in it", path, a.status, a.body, want)
		}
	}
	if a := p.ask(t, "POST", "/debug/pprof/symbol", "0x1"); a.status != 200 || !strings.Contains(a.body, "num_symbols: 1") {
		t.Errorf("symbol: %+v", a)
	}
}

// L2.5, L5.5: not ready while full.
func TestReadyWhenFull(t *testing.T) {
	p := start(t, newStub(), "--max-connections=2", "--max-connections-slack=50%")
	p.dial(t, "/ws")
	p.ask(t, "GET", "/readyz", "").want(t, "one below", 200, "ready")
	second := p.dial(t, "/ws")
	p.ask(t, "GET", "/readyz", "").want(t, "full", 503, "full: 2 of 2 connections")
	p.ask(t, "GET", "/healthz", "").want(t, "full", 200, "alive")
	p.dial(t, "/ws").readClose(t, websocket.CloseTryAgainLater, "concurrency-limit-exceeded")
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "ready again", func() bool { return p.ask(t, "GET", "/readyz", "").status == 200 })
}

func TestDescribe(t *testing.T) {
	worker := newStub()
	p := start(t, worker, "--echo-path=/echo", "--ping-interval=50ms")
	ws := p.dial(t, "/ws")
	id := p.id(t, ws)
	path := "/connections/" + id.String()
	about := func() (c connection) {
		t.Helper()
		a := p.ask(t, "GET", path, "")
		if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
			t.Fatalf("%+v", a)
		}
		if err := json.Unmarshal([]byte(a.body), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	got := about()
	if got.ID != id.String() || got.State != "OPEN" || got.Remote != ws.LocalAddr().String() || got.PendingBytes != 0 ||
		got.Requests != 0 || got.Rooms == nil || len(got.Rooms) != 0 {
		t.Errorf("%+v", got)
	}
	if age := time.Since(got.Since); age < 0 || age > patience || got.Since.Location() != time.UTC {
		t.Errorf("since %v", got.Since)
	}
	ws.send(t, wire.Envelope{RequestID: "C0", Type: wire.TypeJoinRoom})
	ws.read(t)
	ws.send(t, wire.Envelope{RequestID: "C1", Type: "test.Later"})
	ws.send(t, wire.Envelope{RequestID: "C2", Type: "test.Later"})
	first, _ := receive(t, "a request", worker.later), receive(t, "a request", worker.later)
	if got := about(); got.Requests != 2 || len(got.Rooms) != 1 || got.Rooms[0] != "r#1" {
		t.Errorf("%+v", got)
	}
	first.Reply("test.LaterResponse", nil)
	ws.read(t)
	if got := about(); got.Requests != 1 {
		t.Errorf("%+v", got)
	}
	go func() { _, _, _ = ws.ReadMessage() }() // answers pings till the connection is closed
	eventually(t, "a round trip time", func() bool { return about().RTTms > 0 })

	keys := map[string]any{}
	if err := json.Unmarshal([]byte(p.ask(t, "GET", path, "").body), &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "state", "remote", "since", "rtt_ms", "pending_bytes", "requests", "rooms"} {
		if _, ok := keys[key]; !ok {
			t.Errorf("no %q in %v", key, keys)
		}
		delete(keys, key)
	}
	if len(keys) > 0 {
		t.Errorf("unexpected %v", keys)
	}

	// The other endpoint has no requests and rooms.
	echo := p.dial(t, "/echo")
	path = "/connections/" + p.id(t, echo).String()
	if got := about(); got.State != "OPEN" || got.Requests != 0 || len(got.Rooms) != 0 {
		t.Errorf("%+v", got)
	}
	p.ask(t, "POST", path+"/close", `{"code":4000,"reason":"tëst"}`).want(t, "close of an echo connection", 200, `{"closed":true}`)
	echo.readClose(t, 4000, "tëst")
	eventually(t, "it is gone", func() bool { return p.ask(t, "GET", path, "").status == 404 })
}

// L5.2: the first close closes; the client sees code and reason, cut to what a Close frame takes.
func TestAdminClose(t *testing.T) {
	p := start(t, newStub())
	ws := p.dial(t, "/ws")
	id := "/connections/" + p.id(t, ws).String()
	p.ask(t, "POST", id+"/close", `{"code":4999,"reason":"`+strings.Repeat("x", 122)+`é"}`).want(t, "close", 200, `{"closed":true}`)
	p.ask(t, "POST", id+"/close", `{"code":1000}`).want(t, "a second close", 200, `{"closed":false}`)
	// L4.2: known, but not open. The client has not answered the Close yet.
	p.ask(t, "POST", id+"/event", `{"type":"t"}`).want(t, "event", 409, notOpened)
	p.ask(t, "POST", id+"/request", `{"type":"t"}`).want(t, "request", 409, notOpened)
	if a := p.ask(t, "GET", id, ""); !strings.Contains(a.body, `"state":"CLOSING"`) {
		t.Errorf("%+v", a)
	}
	ws.readClose(t, 4999, strings.Repeat("x", 122))
	eventually(t, "it is gone", func() bool { return p.ask(t, "GET", id, "").status == 404 })
	eventually(t, "it is counted", func() bool { return p.samples(t)[`mqgate_disconnects_total{code="4xxx",reason="local"}`] == "1" })
	if p.logs.find("connection opened")["id"] != strings.TrimPrefix(id, "/connections/") {
		t.Errorf("%v", p.logs.find("connection opened"))
	}
	if line := p.logs.find("connection closed"); line["cause"] != "local" || line["code"] != 4999.0 {
		t.Errorf("%v", line)
	}
}

// L4.1: an event reaches the client in the form that it uses.
func TestAdminEvent(t *testing.T) {
	p := start(t, newStub())
	ws := p.dial(t, "/ws")
	id := "/connections/" + p.id(t, ws).String()
	for _, binary := range []bool{false, true} {
		if binary {
			ws.send(t, wire.Envelope{RequestID: "C0", Type: "test.Now"})
			ws.read(t)
		}
		p.ask(t, "POST", id+"/event", `{"type":"test.Event","payload":"/+8AAQ=="}`).want(t, "event", 200, `{"sent":true}`)
		kind, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if !binary {
			if b, err = wire.DecodeText(b[:0], b); err != nil {
				t.Fatal(err)
			}
		}
		var e wire.Envelope
		if err := e.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		if (kind == websocket.BinaryMessage) != binary || e.MessageType != wire.Event || e.Type != "test.Event" ||
			e.RequestID != "" || string(e.Payload) != "\xff\xef\x00\x01" {
			t.Errorf("binary %v: kind %d, %+v", binary, kind, e)
		}
	}
	p.ask(t, "POST", id+"/event", `{"type":"test.Event"}`).want(t, "an event without a payload", 200, `{"sent":true}`)
	if e := ws.read(t); len(e.Payload) != 0 {
		t.Errorf("%+v", e)
	}
}

// L4.1, L4.3.
func TestAdminRequest(t *testing.T) {
	p := start(t, newStub(), "--server-request-timeout=300ms")
	ws := p.dial(t, "/ws")
	id := "/connections/" + p.id(t, ws).String()
	answers := make(chan answer, 1)
	request := func(body string) { answers <- p.ask(t, "POST", id+"/request", body) }

	for _, test := range []struct {
		wallTime float64
		text     string
	}{{12.5, "12.5"}, {math.NaN(), "0"}, {math.Inf(1), "0"}} {
		go request(`{"type":"test.Ask","payload":"AQI="}`)
		e := ws.read(t)
		if e.MessageType != wire.Request || e.Type != "test.Ask" || string(e.Payload) != "\x01\x02" || !strings.HasPrefix(e.RequestID, "S") {
			t.Errorf("%+v", e)
		}
		ws.send(t, wire.Envelope{RequestID: e.RequestID, Type: "test.AskResponse", Payload: []byte{255, 0},
			WallTime: test.wallTime, HasWallTime: true, MessageType: wire.Response})
		receive(t, "the answer", answers).want(t, "answered", 200, `{"type":"test.AskResponse","payload":"/wA=","wall_time_ms":`+test.text+`}`)
	}
	go request(`{"type":"test.Ask"}`)
	e := ws.read(t)
	receive(t, "the answer", answers).want(t, "not answered", 504, "request timed out")
	// A late answer is known for what it is.
	ws.send(t, wire.Envelope{RequestID: e.RequestID, Type: "test.AskResponse", MessageType: wire.Response})
	eventually(t, "the late answer is counted", func() bool {
		return p.samples(t)[`mqgate_messages_dropped_total{reason="late-response"}`] == "1"
	})

	go request(`{"type":"test.Ask"}`)
	ws.read(t)
	if err := ws.Close(); err != nil {
		t.Error(err)
	}
	receive(t, "the answer", answers).want(t, "lost", 409, "connection closed while its answer was awaited")
	got := p.samples(t)
	for outcome, want := range map[string]string{"ok": "3", "timeout": "1", "dropped": "1", "failed": "0"} {
		if got[`mqgate_server_requests_total{outcome="`+outcome+`"}`] != want {
			t.Errorf("outcome %s: %s, want %s", outcome, got[`mqgate_server_requests_total{outcome="`+outcome+`"}`], want)
		}
	}
}

// Who asks and goes does not leave its handler waiting.
func TestAdminAskerGone(t *testing.T) {
	p := start(t, newStub(), "--server-request-timeout=1h")
	ws := p.dial(t, "/ws")
	req, err := http.NewRequestWithContext(t.Context(), "POST",
		"http://"+p.admin+"/connections/"+p.id(t, ws).String()+"/request", strings.NewReader(`{"type":"test.Ask"}`))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{}}
	go func() {
		res, err := client.Do(req)
		if err == nil {
			err = res.Body.Close()
		}
		gone <- err
	}()
	ws.read(t)
	p.signals <- os.Interrupt
	ws.readClose(t, 3333, "drain")
	receive(t, "the asker", gone)
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
}

// Without --admin there is none.
func TestAdminOff(t *testing.T) {
	p := start(t, newStub(), "--admin=")
	if p.admin != "" {
		t.Errorf("admin %q", p.admin)
	}
	p.signals <- os.Interrupt
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
}

// TestAdminLastRequest: a request that has begun when the process ends is answered, for a time.
func TestAdminLastRequest(t *testing.T) {
	p := start(t, newStub())
	c, err := net.Dial("tcp", p.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n")); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", p.admin) // and nobody is waited for for ever
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p.ask(t, "GET", "/healthz", "") // both have been accepted
	p.signals <- syscall.SIGTERM
	eventually(t, "it has drained", func() bool { return p.logs.find("drained") != nil })
	if _, err := c.Write([]byte("\r\n")); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") || !strings.HasSuffix(string(b), "alive\n") {
		t.Errorf("answer %q, %v", b, err)
	}
	if err := p.awaitEnd(t); err != nil {
		t.Error(err)
	}
}
