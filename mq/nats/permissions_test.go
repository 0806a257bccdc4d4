package nats

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/mq"
)

// The permissions of docs/workers.md are enough, and no answer or command of others can be read with those of a worker.
func TestPermissions(t *testing.T) {
	page, err := os.ReadFile("../../docs/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	subjectsOf := func(row string, column int) string {
		line := regexp.MustCompile(`(?m)^\| ` + row + ` \|.*$`).FindString(string(page))
		var list []string
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(line, "|")[column], -1) {
			s := strings.NewReplacer("NODE", "*", "mqgate.req.T", "mqgate.req.x.*").Replace(m[1])
			list = append(list, strconv.Quote(s))
		}
		if len(list) == 0 {
			t.Fatalf("docs/workers.md has no row %q", row)
		}
		return strings.Join(list, ", ")
	}
	worker2 := subjectsOf("your own worker", 2)
	s := with(t, "authorization { users [\n"+
		"{ user: gw, password: p, permissions: { publish: ["+subjectsOf("gateway", 2)+"], subscribe: ["+subjectsOf("gateway", 3)+"] } }\n"+
		"{ user: w, password: p, permissions: { publish: ["+worker2+"], subscribe: ["+subjectsOf("your own worker", 3)+"] } }\n"+
		"{ user: e, password: p, permissions: { publish: ["+worker2+", "+subjectsOf("the same, with ends", 2)+"], subscribe: ["+subjectsOf("your own worker", 3)+"] } }\n] }\n")
	as := func(user string) string { return strings.Replace(s.URL(), "nats://", "nats://"+user+":p@", 1) }
	far := &crowd{}
	gw := connect(t, as("gw"), unbuffered)
	g := newGate(t, gw, far)
	kinds := func(w *worker) {
		process := w.process
		w.process = func(r *mq.Request) {
			w.clients.SendEvent(r.Conn, "x.E", []byte("from "+r.Type), nil)
			process(r)
		}
	}
	plain, ends := &worker{process: echo}, newTaker()
	kinds(plain)
	kinds(&ends.worker)
	wc, ec := connect(t, as("w")), connect(t, as("e"))
	serve(t, wc, plain, func(c *ServiceConfig) { c.Types = []string{"x.A"} })
	serve(t, ec, ends, func(c *ServiceConfig) { c.Types = []string{"x.B"}; c.Disconnects = true })
	g.send(g.conn(0), "x.A", "").ok()
	g.send(g.conn(0), "x.B", "").ok()
	eventually(t, "both events are there", func() bool { return len(far.calls.all()) == 2 })
	if err := g.x.Disconnected(mq.Disconnect{Conn: g.conn(0)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is taken", func() bool { return ends.count() == 1 })
	g.x.Interest("r", true)
	eventually(t, "the room is followed", func() bool { return gw.NATS().NumSubscriptions() > 3 })
	for _, c := range []*Conn{gw, wc, ec} {
		if err := c.NATS().Flush(); err != nil {
			t.Error(err)
		}
		if n := c.Stats().Errors; n != 0 {
			t.Errorf("%s: %d errors, the last one %v", c.o.URLs, n, c.NATS().LastError())
		}
	}
	if _, err := wc.NATS().SubscribeSync("mqgate.re.>"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reading others' answers is refused", func() bool { return wc.Stats().Errors == 1 })
}
