package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/nats-io/nkeys"
)

// A cluster is two gateways and two workers, each a process, and the NATS server between them, which is in the test.
type cluster struct {
	gateways, workers []*server
	nats              *embedded.Server
}

// startCluster starts one. Of the flags, those of the built-in worker go to the workers.
func startCluster(t *testing.T, flags ...string) *cluster {
	t.Helper()
	c := &cluster{}
	var err error
	if c.nats, err = embedded.Start(embedded.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.nats.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	var gateway, worker []string
	for i := 0; i+1 < len(flags); i += 2 {
		if flags[i] == "--reenter-grace" {
			worker = append(worker, flags[i], flags[i+1])
		} else {
			gateway = append(gateway, flags[i], flags[i+1])
		}
	}
	for range 2 {
		c.workers = append(c.workers, startWorker(t, c.nats.URL(), worker...))
	}
	for range 2 {
		c.gateways = append(c.gateways, startServer(t, append(gateway, "--nats", c.nats.URL())...))
	}
	return c
}

// startWorker starts mqgate worker and returns when it works.
func startWorker(t *testing.T, url string, flags ...string) *server {
	t.Helper()
	return awaitWorking(t, launch(t, exec.Command(mqgateBinary(t), append([]string{"worker", "--nats", url, "--admin", "127.0.0.1:0", "--log-format",
		"json"}, flags...)...)))
}

func awaitWorking(t *testing.T, w *server) *server {
	t.Helper()
	w.ready = w.awaitLog(t, "working").fields
	w.admin, _ = w.ready["admin"].(string)
	return w
}

// stop ends all processes that have not ended, gateways first, and checks that they end well.
func (c *cluster) stop(t *testing.T) {
	t.Helper()
	for _, s := range slices.Concat(c.gateways, c.workers) {
		select {
		case <-s.exited:
		default:
			s.stop(t)
		}
	}
}

// eachWay tells a story twice: with one process, which is both gateways, and with two gateways and two workers over NATS.
func eachWay(t *testing.T, flags []string, story func(t *testing.T, a, b *server)) {
	t.Run("one process", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, flags...)
		story(t, s, s)
		select {
		case <-s.exited:
		default:
			s.stop(t)
		}
	})
	t.Run("two gateways and two workers", func(t *testing.T) {
		t.Parallel()
		c := startCluster(t, flags...)
		story(t, c.gateways[0], c.gateways[1])
		c.stop(t)
	})
}

// TestWorkerKilled kills a worker, as kill -9 does, while clients of two gateways talk: every request is answered once, with
// a response or with mq.Error; what was answered with ok is in the history once, and everybody heard it once.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "--request-timeout", "3s")
	a, b := c.gateways[0], c.gateways[1]
	users := []*user{signIn(t, a, "alice"), signIn(t, b, "bob")}
	place := users[0].createRoom(t, "survivors", "ok")
	for _, u := range users {
		u.join(t, place.RoomID)
		u.subscribe(t, place.RoomID)
	}
	// Requests of one client go one after the other. Those behind the one that the dead worker had wait until that times out,
	// and so do they if they were sent at the same time; hence only a few of each are under way.
	const window, each, killAfter = 3, 150, 40
	type asked struct {
		from   *user
		text   string
		answer <-chan reply
	}
	var waiting []asked
	asks := 0
	begin := func(u *user) {
		text := fmt.Sprintf("%s says %d", u.name, asks)
		asks++
		waiting = append(waiting, asked{u, text, u.begin(t, "request", map[string]any{"type": "chat.SendMessageToRoom", "body": u.sayBody(place.RoomID, text)})})
	}
	for range window {
		for _, u := range users {
			begin(u)
		}
	}
	said := map[string]bool{} // text → whether it was answered with ok
	failed := 0
	for len(waiting) > 0 {
		if len(said) == killAfter {
			if err := c.workers[0].cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		q := waiting[0]
		waiting = waiting[1:]
		got := awaitReply(t, q.answer)
		var answer struct {
			Error    *string
			Response *response
		}
		if err := json.Unmarshal(got.Result, &answer); err != nil || got.Error != "" || (answer.Error == nil) == (answer.Response == nil) {
			t.Fatalf("%s: %s %s %v", q.text, got.Result, got.Error, err)
		}
		if answer.Error != nil {
			failed++
		}
		said[q.text] = answer.Response != nil && answer.Response.Status == "ok"
		if asks < len(users)*each {
			begin(q.from)
		}
	}
	t.Logf("%d requests, %d of them answered with mq.Error", len(said), failed)
	if len(said) != len(users)*each || failed > len(users)*window {
		t.Errorf("%d of %d requests failed", failed, len(said))
	}
	users[0].say(t, place.RoomID, "the end")
	history := users[1].history(t, place.RoomID, 0, "", "")
	count := func(list []string) map[string]int {
		n := map[string]int{}
		for _, text := range list {
			n[text]++
		}
		return n
	}
	stored := count(history)
	for text, ok := range said {
		if n := stored[text]; n > 1 || ok && n != 1 {
			t.Errorf("%q, answered with ok: %v, is in the history %d times", text, ok, n)
		}
	}
	for _, u := range users {
		u.awaitText(t, place.RoomID, "the end", users[0])
		var texts []string
		for _, e := range u.events.rest() {
			var m conversationEvent
			if e.Event == "chat.RoomConversationEvent" && json.Unmarshal(e.Body, &m) == nil && m.EventType == "Message" {
				texts = append(texts, m.ChatMessages[0].Message)
			}
		}
		heard := count(texts)
		for text := range said {
			if heard[text] != stored[text] {
				t.Errorf("%s heard %q %d times, the history has it %d times", u.name, text, heard[text], stored[text])
			}
		}
	}
	for _, s := range c.gateways {
		s.awaitMetric(t, "requests_in_flight", 0)
		s.awaitMetric(t, "nats_requests_in_flight", 0)
		if accepted, ended := s.metric(t, "requests_accepted_total"), s.metric(t, "requests_total"); accepted != ended {
			t.Errorf("%v requests were accepted, %v have ended", accepted, ended)
		}
		for _, name := range []string{"accounting_drift", "nats_room_records_total{result=\"malformed\"}", "nats_room_gaps_total{result=\"lost\"}"} {
			if n := s.series(t, name); n != "0" {
				t.Errorf("mqgate_%s is %s", name, n)
			}
		}
	}
	<-c.workers[0].exited
	c.stop(t)
}

// series returns the value of one series as it stands on the page, by its name and labels without the prefix mqgate_.
func (s *server) series(t *testing.T, name string) string {
	t.Helper()
	_, body := get(t, "http://"+s.admin+"/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "mqgate_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("/metrics has no mqgate_%s", name)
	return ""
}

// TestWorkerDrain: a worker that is told to end finishes what it has, and the others go on: nobody notices.
func TestWorkerDrain(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	u := signIn(t, c.gateways[0], "alice")
	place := u.createRoom(t, "shifts", "ok")
	u.join(t, place.RoomID)
	var answers []<-chan reply
	for i := range 100 {
		answers = append(answers, u.begin(t, "request", map[string]any{"type": "chat.SendMessageToRoom", "body": u.sayBody(place.RoomID, fmt.Sprint(i))}))
	}
	for i, answer := range answers {
		if i == 30 {
			c.workers[0].signal(t, syscall.SIGTERM)
		}
		if got := awaitReply(t, answer); !strings.Contains(string(got.Result), `"status":"ok"`) {
			t.Errorf("message %d: %s %s", i, got.Result, got.Error)
		}
	}
	c.workers[0].awaitExit(t, 0)
	if resp, body := get(t, "http://"+c.workers[1].admin+"/readyz"); resp.StatusCode != 200 {
		t.Errorf("the other worker: %s %s", resp.Status, body)
	}
	c.stop(t)
}

// TestReadyWithNATS: without NATS neither a gateway nor a worker is ready, after --nats-grace; both are again when it is
// back, with what it had stored.
func TestReadyWithNATS(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	start := func(listen string) *embedded.Server {
		s, err := embedded.Start(embedded.Options{Listen: listen, StoreDir: store})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	n := start("127.0.0.1:0")
	url := n.URL()
	w, g := startWorker(t, url, "--nats-grace", "100ms"), startServer(t, "--nats", url, "--nats-grace", "100ms")
	u := signIn(t, g, "alice")
	place := u.createRoom(t, "outages", "ok")
	u.join(t, place.RoomID)
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	ready := func(s *server, status int) {
		t.Helper()
		var got string
		eventually(t, func() bool {
			resp, body := get(t, "http://"+s.admin+"/readyz")
			got = resp.Status + " " + body
			return resp.StatusCode == status
		}, func() string { return fmt.Sprintf("/readyz: %s, want %d", got, status) })
	}
	ready(g, 503)
	ready(w, 503)
	n = start(strings.TrimPrefix(url, "nats://"))
	ready(g, 200)
	ready(w, 200)
	u.say(t, place.RoomID, "back again")
	for _, s := range []*server{g, w} {
		s.awaitLog(t, "not ready: NATS is away for longer than --nats-grace")
		s.awaitLog(t, "ready again: NATS is back")
		s.stop(t)
	}
	if err := n.Shutdown(); err != nil {
		t.Error(err)
	}
}

// awaitReply waits for the answer to a command that was begun.
func awaitReply(t *testing.T, answer <-chan reply) reply {
	t.Helper()
	select {
	case got := <-answer:
		return got
	case <-time.After(patience):
	}
	t.Fatal("a request was not answered")
	return reply{}
}

// TestScalingPage runs the commands of docs/scaling.md, with other ports, and the client there, and compares what it prints
// with the transcript, but for ids.
func TestScalingPage(t *testing.T) {
	t.Parallel()
	requireNode(t)
	page, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	var commands [][]string
	for line := range strings.Lines(string(page)) {
		if args, ok := strings.CutPrefix(line, "    bin/mqgate "); ok {
			commands = append(commands, strings.Fields(strings.TrimSuffix(strings.TrimSpace(args), "&")))
		}
	}
	if len(commands) != 3 || commands[0][0] != "serve" || commands[1][0] != "serve" || commands[2][0] != "worker" {
		t.Fatalf("commands %q, want a gateway with NATS, a second gateway, a worker", commands)
	}
	port := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	url := "nats://127.0.0.1:4222"
	run := func(args, more []string) *server {
		var changed []string
		for _, arg := range args {
			if arg == "nats://127.0.0.1:4222" {
				changed = append(changed, url)
			} else {
				changed = append(changed, port.ReplaceAllString(arg, "127.0.0.1:0"))
			}
		}
		return launch(t, exec.Command(mqgateBinary(t), append(append(changed, "--log-format", "json"), more...)...))
	}
	first := run(commands[0], []string{"--nats-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"})
	first.awaitReady(t)
	url, _ = first.ready["nats"].(string)
	second := run(commands[1], nil)
	second.awaitReady(t)
	worker := awaitWorking(t, run(commands[2], []string{"--admin", "127.0.0.1:0"}))

	_, rest, _ := strings.Cut(string(page), "```js\n")
	script, rest, found := strings.Cut(rest, "```\n")
	_, rest, shown := strings.Cut(rest, "    $ node shared.js\n")
	if !found || !shown {
		t.Fatal("docs/scaling.md has no script and transcript")
	}
	var transcript strings.Builder
	for line := range strings.Lines(rest) {
		text, indented := strings.CutPrefix(line, "    ")
		if !indented {
			break
		}
		transcript.WriteString(text)
	}
	for _, gateway := range []struct {
		there string
		s     *server
	}{{"ws://127.0.0.1:8080/ws", first}, {"ws://127.0.0.1:8081/ws", second}} {
		if !strings.Contains(script, gateway.there) {
			t.Fatalf("the script does not connect to %s", gateway.there)
		}
		script = strings.Replace(script, gateway.there, gateway.s.url("/ws"), 1)
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", script)
	cmd.Dir = nodeDir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := string(out), transcript.String(); got != want {
		t.Errorf("the client printed\n%swhich docs/scaling.md shows as\n%s", got, want)
	}
	worker.stop(t) // the first gateway has one as well
	second.stop(t)
	first.stop(t)
}

// permissions returns what docs/scaling.md lets a role do, as a configuration of nats-server.
func permissions(t *testing.T, page, role, what string) string {
	t.Helper()
	for line := range strings.Lines(page) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == role && words[1] == what {
			return fmt.Sprintf("%s: [\"%s\"]", what, strings.Join(words[2:], `", "`))
		}
	}
	t.Fatalf("docs/scaling.md does not say what %s %s", role, what)
	return ""
}

// TestNATSPermissions shows that the permissions that docs/scaling.md gives are enough, and that keys let in.
func TestNATSPermissions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var users []string
	seeds := map[string]string{}
	for _, role := range []string{"gateways", "workers"} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		seeds[role] = filepath.Join(dir, role)
		if err := os.WriteFile(seeds[role], seed, 0o600); err != nil {
			t.Fatal(err)
		}
		users = append(users, fmt.Sprintf("{nkey: %s, permissions: {%s, %s}}", public, permissions(t, string(page), role, "publish"),
			permissions(t, string(page), role, "subscribe")))
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte("authorization: {users: ["+strings.Join(users, ", ")+"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0", ConfigFile: file, StoreDir: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	if status, output := runBinary(t, "worker", "--nats", n.URL(), "--admin", "127.0.0.1:0"); status != 1 || !strings.Contains(output, "Authorization Violation") {
		t.Errorf("without a key: exit status %d\n%s", status, output)
	}
	w := startWorker(t, n.URL(), "--nats-nkey", seeds["workers"], "--reenter-grace", "100ms")
	a := startServer(t, "--nats", n.URL(), "--nats-nkey", seeds["gateways"])
	b := startServer(t, "--nats", n.URL(), "--nats-nkey", seeds["gateways"])
	alice, bob := signIn(t, a, "alice"), signIn(t, b, "bob")
	place := alice.createRoom(t, "locked", "ok")
	for _, u := range []*user{alice, bob} {
		u.join(t, place.RoomID)
		u.subscribe(t, place.RoomID)
	}
	alice.say(t, place.RoomID, "psst")
	bob.awaitText(t, place.RoomID, "psst", alice)
	bob.call(t, "drop", map[string]any{"how": "rst"})
	alice.awaitMember(t, place.RoomID, "MemberLeft", bob)
	for _, s := range []*server{a, b, w} {
		if n := s.metric(t, "nats_errors_total"); n != 0 {
			t.Errorf("%v errors of NATS", n)
		}
		s.stop(t)
	}
}

// TestGatewayLost: the members of a gateway that was killed, or that NATS hears nothing of, leave when its lease is over. When
// it comes back, their connections are closed: their sessions are gone.
func TestGatewayLost(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "--nats-lease", "2s", "--reenter-grace", "100ms")
	proxy := natstest.NewProxy(t, c.nats.URL())
	cut := startServer(t, "--nats", proxy.URL(), "--nats-lease", "2s", "--nats-grace", "1s")
	c.gateways = append(c.gateways, cut)
	alice, bob, carol := signIn(t, c.gateways[0], "alice"), signIn(t, c.gateways[1], "bob"), signIn(t, cut, "carol")
	place := alice.createRoom(t, "ghosts", "ok")
	for _, u := range []*user{alice, bob, carol} {
		u.join(t, place.RoomID)
	}
	if err := c.gateways[1].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	alice.awaitMember(t, place.RoomID, "MemberLeft", bob)
	alice.awaitMember(t, place.RoomID, "MemberLeft", carol)
	proxy.Heal()
	carol.awaitClose(t, "socket-close", 1012, "session is gone")
	cut.awaitLog(t, "ready again: NATS is back")
	<-c.gateways[1].exited
	c.stop(t)
}
