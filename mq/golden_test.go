package mq

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

var update = flag.Bool("update", false, "write the transcripts in testdata instead of comparing with them")

// transcript writes down a scene in simulated time, one line per step: what the test does (client, worker, time), what
// the client receives, what the worker is told, and which counters have changed.
type transcript struct {
	*sim
	p     *peer
	lines []string
	start int64
	last  map[string]int64
}

// TestTranscripts compares the sequences of the lifecycle with testdata/*.txt: frames, calls of the worker and counters,
// in order. L3.3-L3.7, L3.9, L3.10, L4.1-L4.4, L5.2, L5.3, L5.5, L6.1. Run with -update to write them, then read them.
func TestTranscripts(t *testing.T) {
	scenes := map[string]func(x *transcript){
		"request-ok":               sceneOK,
		"request-failed":           sceneFailed,
		"request-timeout":          sceneTimeout,
		"request-too-many":         sceneTooMany,
		"request-dropped":          sceneDropped,
		"client-response-event":    sceneUnasked,
		"event":                    sceneEvent,
		"server-request-ok":        sceneAsk,
		"server-request-timeout":   sceneAskTimeout,
		"server-request-closed":    sceneAskClosed,
		"server-request-not-found": sceneAskNotFound,
		"server-request-slow":      sceneAskSlow,
		"server-close":             sceneServerClose,
		"server-close-forced":      sceneServerCloseForced,
		"client-close":             sceneClientClose,
		"drain":                    sceneDrain,
	}
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 1, withMaxRequests(2))
			x := &transcript{sim: s, p: s.connect(0), start: s.nets[0].Now()}
			x.last = x.counters()
			s.w.disconnected = func(d Disconnect) error {
				x.line("  worker told: disconnected %d %q after %v", d.Code, d.Description, d.Duration)
				return nil
			}
			scene(x)
			got := strings.Join(x.lines, "\n") + "\n"
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s:\n%s\nexpected\n%s", file, got, want)
			}
		})
	}
	if files, err := filepath.Glob("testdata/*.txt"); err != nil || len(files) != len(scenes) {
		t.Errorf("%d transcripts for %d scenes: %v %v", len(files), len(scenes), files, err)
	}
}

func (x *transcript) line(format string, args ...any) {
	at := time.Duration(x.nets[0].Now() - x.start)
	x.lines = append(x.lines, fmt.Sprintf("%-8v %s", at, fmt.Sprintf(format, args...)))
}

// do is one step: it is written down, done, and followed by what comes of it.
func (x *transcript) do(what string, f func()) {
	x.line("%s", what)
	if f != nil {
		f()
	}
	x.see()
}

func (x *transcript) see() {
	x.run()
	for _, m := range x.p.take() {
		x.line("  client gets: %v", m)
	}
	if x.p.p.GotFIN() && x.last["fin"] == 0 {
		x.line("  client gets: %s", map[bool]string{false: "FIN", true: "RST"}[x.p.p.GotReset()])
	}
	now := x.counters()
	var changes []string
	for _, name := range counterNames {
		if d := now[name] - x.last[name]; d != 0 && name != "fin" {
			changes = append(changes, fmt.Sprintf("%s%+d", name, d))
		}
	}
	if len(changes) > 0 {
		x.line("  counters: %s", strings.Join(changes, " "))
	}
	x.last = now
}

// wait lets time pass until something happens, but not longer than d.
func (x *transcript) wait(d time.Duration) {
	for end := x.nets[0].Now() + int64(d); x.nets[0].Now() < end; {
		before := len(x.lines)
		x.advance(min(time.Duration(end-x.nets[0].Now()), 10*time.Millisecond))
		x.see()
		if len(x.lines) > before {
			return
		}
	}
}

var counterNames = func() []string {
	names := []string{"open", "accepted", "in-flight"}
	for o := range outcomes {
		names = append(names, "requests."+o.String())
	}
	for o := range outcomes {
		names = append(names, "server-requests."+o.String())
	}
	names = append(names, "waiting")
	for d := range drops {
		names = append(names, "dropped."+d.String())
	}
	return append(names, "room-subscriptions", "deliveries", "panics", "fin")
}()

func (x *transcript) counters() map[string]int64 {
	st := x.stats()
	c := map[string]int64{"accepted": int64(st.Accepted), "in-flight": st.InFlight, "waiting": st.ServerWaiting,
		"room-subscriptions": st.Subscriptions[TopicRoom], "deliveries": int64(st.Deliveries), "panics": int64(st.Panics), "open": x.regs[0].Stats().Open}
	for o := range outcomes {
		c["requests."+o.String()], c["server-requests."+o.String()] = int64(st.Requests[o]), int64(st.ServerRequests[o])
	}
	for d := range drops {
		c["dropped."+d.String()] = int64(st.Dropped[d])
	}
	if x.p.p.GotFIN() {
		c["fin"] = 1
	}
	return c
}

// request is a step of the client.
func (x *transcript) request(typ string) {
	x.do(fmt.Sprintf("client: Request C%d %s", x.p.next, typ), func() { x.p.request(typ, []byte("hi")) })
}

func (x *transcript) respond(id string) {
	x.do("client: Response "+id, func() { x.p.text(response(id, "askResponse", "yes")) })
}

func (x *transcript) clientClose(code uint16) {
	x.do(fmt.Sprintf("client: Close %d", code), func() { x.p.close(code) })
}

// ask is a request of the server.
func (x *transcript) ask(id conn.ID, payload ...byte) {
	if payload == nil {
		payload = []byte("who?")
	}
	x.do(fmt.Sprintf("worker: SendRequest ask, %d bytes", len(payload)), func() {
		x.w.clients.SendRequest(id, "ask", payload, func(r Response, err error) {
			if err != nil {
				x.line("  worker told: %v", err)
			} else {
				x.line("  worker told: %s %q %gms", r.Type, r.Payload, r.WallTime)
			}
		})
	})
}

func (x *transcript) close(code uint16, reason string) {
	x.do(fmt.Sprintf("worker: CloseConnection %d %q", code, reason), func() {
		x.w.clients.CloseConnection(x.p.id, code, reason, func(ok bool) { x.line("  worker told: %v", ok) })
	})
}

func (x *transcript) reply(i int) {
	x.do(fmt.Sprintf("worker: Reply to the %d. request", i+1), func() { x.w.later[i].Reply("laterResponse", []byte("there")) })
}

func sceneOK(x *transcript) {
	x.request("echo")
	x.do("client: Request C1 echo, binary", func() { x.p.binary(&wire.Envelope{RequestID: "C1", Type: "echo"}) })
	x.p.next++
	x.request("later")
	x.wait(20 * time.Millisecond)
	x.reply(0)
	x.do("worker: a second Reply", func() { x.w.later[0].Reply("laterResponse", nil) })
}

func sceneFailed(x *transcript) {
	x.request("fail")
	x.request("panic")
	x.request("later")
	x.do("worker: Fail", func() { x.w.later[0].Fail(errWorker) })
}

func sceneTimeout(x *transcript) {
	x.request("later")
	x.wait(time.Minute)
	x.reply(0)
}

func sceneTooMany(x *transcript) {
	x.request("later")
	x.request("later")
	x.request("later")
	x.reply(1)
	x.request("later")
	x.reply(0)
	x.reply(2)
}

func sceneDropped(x *transcript) {
	x.request("later")
	x.request("later")
	x.close(1000, "enough")
	x.reply(0)
	x.request("echo")
	x.clientClose(1000)
	x.reply(1)
}

func sceneUnasked(x *transcript) {
	x.respond("S1")
	x.do("client: Event hello", func() { x.p.text(&wire.Envelope{Type: "hello", MessageType: wire.Event}) })
	x.do("client: Request without an id", func() { x.p.text(&wire.Envelope{Type: "echo"}) })
	x.do("client: garbage", func() { x.p.frame(frame.Text, []byte("{}")) })
	x.request("echo")
}

func sceneEvent(x *transcript) {
	x.do("worker: SendEvent hello", func() {
		x.w.clients.SendEvent(x.p.id, "hello", []byte("you"), func(err error) { x.line("  worker told: %v", err) })
	})
	x.do("subscribed to room a", func() { x.subscribe(x.p, Topic{TopicRoom, "a"}) })
	x.do("worker: Publish to room a", func() { x.w.clients.Publish(Topic{TopicRoom, "a"}, "chat.RoomEvent", []byte("all")) })
	x.do("worker: Publish to room b", func() { x.w.clients.Publish(Topic{TopicRoom, "b"}, "chat.RoomEvent", []byte("all")) })
	x.do("worker: EndTopic room a", func() { x.w.clients.EndTopic(Topic{TopicRoom, "a"}) })
	x.do("worker: Publish to room a", func() { x.w.clients.Publish(Topic{TopicRoom, "a"}, "chat.RoomEvent", []byte("all")) })
}

func sceneAsk(x *transcript) {
	x.ask(x.p.id)
	x.wait(20 * time.Millisecond)
	x.respond("S1")
	x.respond("S1")
}

func sceneAskTimeout(x *transcript) {
	x.ask(x.p.id)
	x.ask(x.p.id)
	x.wait(time.Minute)
	x.respond("S1")
	x.wait(2 * serverRequestTimeout)
	x.respond("S2")
}

func sceneAskClosed(x *transcript) {
	x.ask(x.p.id)
	x.clientClose(1001)
	x.ask(x.p.id)
}

func sceneAskNotFound(x *transcript) {
	x.ask(conn.ID{})
	x.close(1000, "")
	x.ask(x.p.id)
}

func sceneAskSlow(x *transcript) {
	x.do("client: reads no more", func() { x.p.p.SetWindow(0) })
	x.do("worker: SendEvent of 47 KiB, 63 KiB as text", func() { x.w.clients.SendEvent(x.p.id, "big", make([]byte, 47<<10), nil) })
	x.ask(x.p.id, make([]byte, 1<<10)...) // 64 KiB may be pending
	x.ask(x.p.id)
	x.do("client: reads again", func() { x.p.p.SetWindow(1 << 30) })
	x.clientClose(3335)
}

func sceneServerClose(x *transcript) {
	x.close(4001, "no more")
	x.close(4002, "again")
	x.clientClose(4001)
	x.do("client: FIN", x.p.p.CloseWrite)
}

func sceneServerCloseForced(x *transcript) {
	x.ask(x.p.id)
	x.request("later")
	x.close(4001, "no more")
	x.wait(time.Minute)
}

func sceneClientClose(x *transcript) {
	x.request("later")
	x.ask(x.p.id)
	x.clientClose(1000)
	x.do("client: FIN", x.p.p.CloseWrite)
	x.reply(0)
}

func sceneDrain(x *transcript) {
	x.request("later")
	x.do("drain", x.drain)
	x.request("echo")
	x.reply(0)
	x.clientClose(3333)
	x.regs[0].CancelDrain()
}
