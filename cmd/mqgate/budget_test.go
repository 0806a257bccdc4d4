package main

import (
	"encoding/binary"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/conn"
)

// keepMemoryLimit undoes at the end of the test what --memory-limit tells the Go runtime.
func keepMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

// TestMemoryLimit: L8.6 with real sockets. Clients that begin messages of 900 KB and do not end them could make the gateway
// hold three times what it may. It does not; others are served meanwhile; and when they are gone everything is as before.
func TestMemoryLimit(t *testing.T) {
	keepMemoryLimit(t)
	const limit, message, floods = 64 << 20, 900_000, 200
	p := start(t, newStub(), "--echo-path=/echo", "--memory-limit=64MiB", "--write-timeout=1s", "--ping-interval=1h")
	good := p.dial(t, "/echo")
	header := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, message)
	begun := append(append(header, 0, 0, 0, 0), make([]byte, message-1)...) // masked with zeros, one byte short

	var clients []client
	for range floods {
		clients = append(clients, p.dial(t, "/echo"))
	}
	shed := make(chan error, floods)
	for _, c := range clients {
		go func() {
			if _, err := c.NetConn().Write(begun); err != nil {
				shed <- nil // reset: it was closed before all of it was sent
				return
			}
			_, _, err := c.ReadMessage()
			shed <- err
		}()
	}
	most, told := int64(0), 0
	for done := 0; done < floods; {
		select {
		case err := <-shed:
			done++
			if closed, ok := err.(*websocket.CloseError); ok && closed.Code == 1013 && closed.Text == "memory-limit-exceeded" {
				told++
			}
		default:
			if err := good.WriteMessage(websocket.TextMessage, []byte("others are served")); err != nil {
				t.Fatal(err)
			}
			if _, b, err := good.ReadMessage(); err != nil || string(b) != "others are served" {
				t.Fatalf("read %q, %v", b, err)
			}
			most = max(most, p.budget.Held())
		}
		if done > 0 && p.budget.Held() < limit/2 { // the others will never be done
			break
		}
	}
	if most < limit/2 || most > limit {
		t.Errorf("at most %d bytes were held, with a limit of %d", most, limit)
	}
	values := p.samples(t)
	closed, _ := strconv.Atoi(values[`mqgate_disconnects_total{code="1013",reason="memory-limit"}`])
	aborted, _ := strconv.Atoi(values[`mqgate_disconnects_total{code="1006",reason="memory-limit"}`])
	if told == 0 || closed+aborted == 0 || values[`mqgate_reads_paused_total{reason="memory"}`] == "0" || values["mqgate_memory_limit_bytes"] != "6.7108864e+07" {
		t.Errorf("%d were told, %d closed, %d aborted; %v", told, closed, aborted, values)
	}
	if p.logs.find("memory is above 95 % of --memory-limit: those who hold most are closed with 1013") == nil &&
		p.logs.find("memory is above 80 % of --memory-limit: those who hold most are not read until others are done") == nil {
		t.Error("the log says nothing")
	}
}

// TestReadyWithoutMemory: from 90 % on /readyz says 503, as upgrades are answered.
func TestReadyWithoutMemory(t *testing.T) {
	keepMemoryLimit(t)
	p := start(t, newStub(), "--memory-limit=1GiB")
	p.ask(t, "GET", "/readyz", "").want(t, "with memory", http.StatusOK, "ready")
	p.budget.SetBase(p.budget.Limit()) // until the next collection
	a := p.ask(t, "GET", "/readyz", "")
	if a.status != http.StatusServiceUnavailable || !strings.HasPrefix(a.body, "full: ") || !strings.HasSuffix(a.body, " of 1073741824 bytes of memory") {
		t.Errorf("%d %q", a.status, a.body)
	}
	_, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+p.addr+"/ws", nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("an upgrade without memory: %v, %+v", err, res)
	}
	runtime.GC()
	eventually(t, "the budget is measured anew", func() bool { return p.budget.Level() == conn.Calm })
	p.dial(t, "/ws")
}

// TestNoMemoryLimit: off means off, for the runtime too.
func TestNoMemoryLimit(t *testing.T) {
	keepMemoryLimit(t)
	debug.SetMemoryLimit(1 << 50)
	p := start(t, newStub(), "--memory-limit=off")
	p.dial(t, "/ws")
	if values := p.samples(t); p.budget != nil || values["mqgate_memory_limit_bytes"] != "0" || values["mqgate_memory_used_bytes"] != "0" {
		t.Errorf("budget %v, limit %s", p.budget, values["mqgate_memory_limit_bytes"])
	}
	if got := debug.SetMemoryLimit(-1); got != 1<<50 {
		t.Errorf("the runtime's limit is %d", got)
	}
}

// TestMemoryLimitOfRuntime: the runtime is told, unless GOMEMLIMIT is set.
func TestMemoryLimitOfRuntime(t *testing.T) {
	keepMemoryLimit(t)
	debug.SetMemoryLimit(1 << 50)
	cfg := configure(t, "--memory-limit=2GiB")
	t.Setenv("GOMEMLIMIT", "3GiB")
	newBudget(cfg, nil)
	if got := debug.SetMemoryLimit(-1); got != 1<<50 {
		t.Errorf("with GOMEMLIMIT set the limit became %d", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	newBudget(cfg, nil)
	if got := debug.SetMemoryLimit(-1); got != 2<<30 {
		t.Errorf("without it the limit became %d", got)
	}
}

// TestBaseMemory: what the loops hold is not counted twice, and what is allocated besides is found by the next collection.
func TestBaseMemory(t *testing.T) {
	for _, c := range []struct {
		m    base
		held int64
		want int64
	}{{base{100, 10}, 0, 110}, {base{100, 10}, 60, 50}, {base{100, 10}, 100, 10}, {base{100, 10}, 500, 10}} {
		if got := baseMemory(c.m, c.held); got != c.want {
			t.Errorf("%+v with %d held: %d, expected %d", c.m, c.held, got, c.want)
		}
	}
	keepMemoryLimit(t)
	p := start(t, newStub(), "--memory-limit=4GiB")
	runtime.GC()
	const size = 256 << 20
	eventually(t, "the first measurement", func() bool { return p.budget.Used() > 0 && p.budget.Used() < size })
	ballast := slices.Repeat([]byte{1}, size)
	runtime.GC()
	eventually(t, "the ballast is counted", func() bool { return p.budget.Used() > size })
	runtime.KeepAlive(ballast)
	runtime.GC()
	eventually(t, "the ballast is gone", func() bool { return p.budget.Used() < size })
}

// TestMaxMessagesPerSecond: the flag reaches the connections, and the metric says so.
func TestMaxMessagesPerSecond(t *testing.T) {
	p := start(t, newStub(), "--echo-path=/echo", "--max-messages-per-second=5")
	c := p.dial(t, "/echo")
	began := time.Now()
	for range 8 {
		if err := c.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		if _, _, err := c.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond { // 3 of 8 are 200 ms apart
		t.Errorf("8 messages took %v at 5 a second", took)
	}
	if v := p.samples(t)[`mqgate_reads_paused_total{reason="rate"}`]; v == "0" || v == "" {
		t.Errorf("mqgate_reads_paused_total: %q", v)
	}
}
