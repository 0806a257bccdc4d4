package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// Sizes and times of TestChaos. The lease is shorter than the cut: the workers give the clients behind it up for lost. The
// grace is longer than what is left of the cut then: so they go on when it is over.
const (
	chaosRooms     = 3
	chaosPerRoom   = 9 // residents, a third at each gateway
	chaosVisitors  = 3
	chaosCut       = 10 * time.Second
	chaosLease     = 6 * time.Second
	chaosGrace     = 12 * time.Second
	chaosTimeout   = 4 * time.Second
	chaosNodes     = 3
	chaosAdvance   = 100 // messages that must be answered with ok between two blows
	chaosKeepFault = 20  // faults of one kind that are printed
)

// TestChaos: three NATS servers, three gateways and two workers, and clients that talk all the time, while a worker, a NATS
// server and a gateway are killed with SIGKILL, and another gateway is cut off from NATS for ten seconds; the third one has
// its connections to NATS reset, so that it misses what happens until it has new ones.
//
// Then all that docs/scaling.md promises must hold: every request was answered once; what was answered with ok is in the
// history once, and went to every subscriber once and in order; every disconnect was taken once, so that the members are
// those who are there; and nobody has miscounted.
func TestChaos(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	logs, err := os.MkdirTemp("", "mqgate-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	processes := map[string]*server{}
	t.Cleanup(func() { keepLogs(t, logs, processes) })

	nodes := startNodes(t, chaosNodes, logs)
	js := nodes.jetStream()
	urls := strings.Join(nodes.urls(), ",")
	worker := func(name string) *server {
		processes[name] = startWorker(t, urls, "--nats-replicas", "3", "--reenter-grace", chaosGrace.String(), "--max-history-per-room", "1000000",
			"--max-history-bytes-per-room", "256MiB")
		return processes[name]
	}
	workers := []*server{worker("worker0"), worker("worker1")}
	x := &chaos{timeout: chaosTimeout, grace: chaosGrace, quiet: make(chan struct{}), leave: make(chan struct{}), noVisit: make(chan struct{}),
		faults: newJournal[string]()}
	const severed, cut, killed = 0, 1, 2 // gateways
	ways := make([][]*blackHole, 3)      // of each gateway to each node
	for i := range ways {
		var to []string
		for _, url := range nodes.urls() {
			h := newBlackHole(t, url)
			ways[i], to = append(ways[i], h), append(to, h.url())
		}
		s := startServer(t, "--nats", strings.Join(to, ","), "--nats-replicas", "3", "--nats-lease", chaosLease.String(), "--request-timeout", chaosTimeout.String(),
			"--loops", "2")
		processes[fmt.Sprintf("gateway%d", i)] = s
		x.gateways = append(x.gateways, s)
	}
	x.okays = make([]atomic.Int64, len(x.gateways))
	t.Cleanup(func() {
		x.stop()
		if t.Failed() {
			t.Logf("what the clients found at once: %s", strings.Join(x.faults.rest(), "\n"))
		}
	})
	x.makeRooms(t)
	x.start(t)
	t.Logf("%v: all residents are in their rooms", time.Since(begun).Round(time.Millisecond))
	step := func(format string, args ...any) {
		t.Logf("%s, %v: %s", stamp(time.Now()), time.Since(begun).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}

	x.advance(t, severed, cut, killed)
	step("worker 0 is killed")
	kill(t, workers[0])
	workers[0] = worker("worker2")
	x.advance(t, severed, cut, killed)

	victim := slices.IndexFunc(ways[severed], func(h *blackHole) bool { return h.url() == x.gateways[severed].ready["nats"] })
	if victim < 0 {
		t.Fatalf("gateway %d was first connected to %v, which is none of its ways to NATS", severed, x.gateways[severed].ready["nats"])
	}
	nodes.lead(js, "mqgate_rooms", victim)
	step("NATS node %d is killed, which leads the rooms, and which gateway %d is connected to", victim, severed)
	nodes.kill(victim)
	x.advance(t, severed, cut, killed)
	nodes.start(victim)
	step("NATS node %d is there again", victim)
	x.advance(t, severed, cut, killed)

	step("gateway %d is killed", killed)
	kill(t, x.gateways[killed])
	x.settled(t, "those of the dead gateway who come back are in their rooms", killed)
	x.advance(t, severed, cut)

	step("gateway %d is cut from NATS, and does not notice", cut)
	for _, h := range ways[cut] {
		h.cut()
	}
	over := time.After(chaosCut)
	x.advance(t, severed)
	<-over
	for _, h := range ways[cut] {
		h.giveBack()
	}
	step("gateway %d has NATS back", cut)
	x.advance(t, severed, cut)
	close(x.noVisit)

	step("the connections of gateway %d to NATS are reset", severed)
	for _, h := range ways[severed] {
		h.sever()
	}
	x.advance(t, cut) // of which gateway 0 hears nothing
	for _, h := range ways[severed] {
		h.giveBack()
	}
	step("gateway %d has NATS back", severed)
	x.advance(t, severed, cut)
	x.visitors.Wait()
	members := x.members(t)
	step("the members of all rooms are those who are there")
	close(x.quiet)
	x.calm(t)
	j := &judge{x: x}
	for room := range x.rooms {
		all, err := x.someone(t, room).fetchAll(x.rooms[room])
		if err != nil {
			t.Fatal(err)
		}
		j.history = append(j.history, all)
		t.Logf("room %d: %d messages, %d members", room, len(all), len(members[room]))
	}
	x.heardAll(t, j.history)
	step("everybody has heard everything, or never will")

	x.lock()
	ok, failed := j.requests()
	j.stored()
	j.delivered()
	j.told(members)
	silence, since := j.silence()
	t.Logf("%d connections; %d requests answered, %d failed; no ok for %v from %s on", len(x.conns), ok, failed, silence.Round(time.Millisecond), stamp(since))
	x.unlock()
	report(t, j.faults)
	report(t, x.faults.rest())

	for i, s := range x.gateways[:killed] {
		x.counters(t, i, s)
	}
	close(x.leave)
	x.running.Wait()
	step("all residents have left")
	for i, s := range x.gateways[:killed] {
		s.awaitMetric(t, "connections_open", 0)
		x.counters(t, i, s)
	}
	x.noMembers(t)
	x.noSessions(t, js)
	step("no session is left")
	x.ends(t, js, x.gateways[:killed])
	for _, s := range append(workers, x.gateways[:killed]...) {
		s.stop(t)
	}
	step("done")
}

// kill does what kill -9 does.
func kill(t *testing.T, s *server) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.exited
}

// report fails the test with what is wrong.
func report(t *testing.T, faults []string) {
	t.Helper()
	for i, fault := range faults {
		if i == chaosKeepFault {
			t.Errorf("and %d more", len(faults)-i)
			return
		}
		t.Error(fault)
	}
}

// keepLogs leaves the logs of all processes in their folder when the test has failed, and says so.
func keepLogs(t *testing.T, dir string, processes map[string]*server) {
	if !t.Failed() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return
	}
	for name, s := range processes {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(s.text.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
	for i := range chaosNodes {
		t.Logf("the end of the log of NATS node %d:\n%s", i, tail(filepath.Join(dir, fmt.Sprintf("node%d.log", i))))
	}
	t.Logf("the logs of all processes are in %s", dir)
}

// makeRooms makes the rooms, by somebody who goes.
func (x *chaos) makeRooms(t *testing.T) {
	t.Helper()
	c, err := x.dial("founder", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if !c.enter("") {
		t.Fatal("the founder cannot enter")
	}
	for i := range chaosRooms {
		create := wire.CreateRoom{SessionID: c.session, Room: wire.Room{Alias: fmt.Sprint("room", i), Name: "Room", Description: "-", Type: wire.MultiPartyChat}}
		a, ok := c.call(wire.TypeCreateRoom, "", create.AppendTo(nil), wire.StatusOK)
		if !ok {
			t.Fatalf("CreateRoom: %s", a.outcome())
		}
		var in wire.CreateRoomResponse
		if err := in.Unmarshal(a.payload); err != nil || in.Room == nil {
			t.Fatal(in, err)
		}
		x.rooms = append(x.rooms, in.Room.RoomID)
	}
	c.bye()
}

// start lets residents and visitors in. When it returns all residents are in their rooms.
func (x *chaos) start(t *testing.T) {
	t.Helper()
	for i := range chaosRooms * chaosPerRoom {
		gateway, room := i%len(x.gateways), i/len(x.gateways)%chaosRooms
		// One resident per room of the gateway that will be killed does not come back.
		r := &chaosResident{name: fmt.Sprintf("r%02d", i), room: room, gateway: gateway, stays: i >= len(x.gateways)*chaosRooms || gateway != 2}
		x.residents = append(x.residents, r)
		x.running.Go(func() { x.live(r) })
	}
	x.settled(t, "all residents are in their rooms", -1)
	for i := range chaosVisitors {
		x.visitors.Go(func() { x.visit(fmt.Sprint("v", i), i) })
	}
}

// stop ends all clients, also those of a test that has failed on its way.
func (x *chaos) stop() {
	for _, c := range []chan struct{}{x.noVisit, x.quiet, x.leave} {
		if !closed(c) {
			close(c)
		}
	}
	x.mu.Lock()
	for _, c := range x.conns {
		_ = c.ws.Close() // if it has not ended
	}
	x.mu.Unlock()
	x.visitors.Wait()
	x.running.Wait()
}

// settled waits until every resident is in its room, but for those of a dead gateway who stay away, and none is connected to it.
func (x *chaos) settled(t *testing.T, what string, dead int) {
	t.Helper()
	var missing []string
	await(t, func() bool {
		missing = missing[:0]
		for _, r := range x.residents {
			c := r.conn.Load()
			if here := c != nil && c.gateway != dead; here != (r.stays || dead < 0) {
				missing = append(missing, r.name)
			}
		}
		return len(missing) == 0
	}, func() string { return fmt.Sprintf("not so: %s: %v", what, missing) })
}

// await is eventually with twice the patience: elections in NATS, leases and graces are part of what is waited for here.
func await(t *testing.T, met func() bool, otherwise func() string) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(2 * patience); !met(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatal(otherwise())
		}
	}
}

// advance waits until clients of each of these gateways were told ok some more times.
func (x *chaos) advance(t *testing.T, gateways ...int) {
	t.Helper()
	for _, g := range gateways {
		until := x.okays[g].Load() + chaosAdvance
		await(t, func() bool { return x.okays[g].Load() >= until },
			func() string {
				return fmt.Sprintf("gateway %d: the load stands still", g)
			})
	}
}

// someone returns the connection of somebody who is in a room, at gateway 0 if anybody is there, and waits for one.
func (x *chaos) someone(t *testing.T, room int) (found *chaosConn) {
	t.Helper()
	await(t, func() bool {
		for _, r := range x.residents {
			if c := r.conn.Load(); c != nil && r.room == room && (found == nil || c.gateway == 0) {
				found = c
			}
		}
		return found != nil
	}, func() string { return fmt.Sprintf("nobody is in room %d", room) })
	return found
}

// living returns session and name of the residents that are in each room.
func (x *chaos) living() (all []map[string]string) {
	for range x.rooms {
		all = append(all, map[string]string{})
	}
	for _, r := range x.residents {
		if c := r.conn.Load(); c != nil {
			all[r.room][c.session] = r.name
		}
	}
	return all
}

// listed returns session and name of the members of a room, as GetRoomInfo has them.
func (x *chaos) listed(c *chaosConn, room int) (map[string]string, error) {
	a := c.askInfo(room)
	select {
	case <-a.done:
	case <-c.done:
	}
	if a.status != wire.StatusOK {
		return nil, errors.New(a.outcome())
	}
	var in wire.GetRoomInfoResponse
	if err := in.Unmarshal(a.payload); err != nil {
		return nil, err
	}
	list := map[string]string{}
	for _, m := range in.Members {
		list[m.SessionID] = m.ScreenName
	}
	return list, nil
}

// members waits until the members of all rooms are those who are there, which takes lease and grace of those who have gone.
func (x *chaos) members(t *testing.T) []map[string]string {
	t.Helper()
	var want []map[string]string
	var wrong string
	await(t, func() bool {
		want, wrong = x.living(), ""
		for room := range x.rooms {
			got, err := x.listed(x.someone(t, room), room)
			if err != nil {
				wrong += fmt.Sprintf("room %d: %v\n", room, err)
			}
			for session, name := range got {
				if _, ok := want[room][session]; !ok {
					wrong += fmt.Sprintf("room %d: %s (%s) is a ghost\n", room, name, session)
				}
			}
			for session, name := range want[room] {
				if _, ok := got[session]; !ok {
					wrong += fmt.Sprintf("room %d: %s (%s) is not a member, but is there\n", room, name, session)
				}
			}
		}
		return wrong == ""
	}, func() string { return wrong })
	return want
}

// calm waits until no request of somebody who is there is without an answer.
func (x *chaos) calm(t *testing.T) {
	t.Helper()
	var open int
	await(t, func() bool {
		open = 0
		for _, r := range x.residents {
			if c := r.conn.Load(); c != nil {
				n, _ := c.state()
				open += n
			}
		}
		return open == 0
	}, func() string { return fmt.Sprintf("%d requests are not answered", open) })
}

// heardAll waits until everybody has heard the last message of its room; if that does not come, the judge says what is
// missing.
func (x *chaos) heardAll(t *testing.T, history [][]wire.ChatMessage) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		missing := 0
		for _, r := range x.residents {
			c := r.conn.Load()
			if c == nil || len(history[r.room]) == 0 {
				continue
			}
			last := history[r.room][len(history[r.room])-1].MessageID
			c.mu.Lock()
			if n := len(c.heard); n == 0 || c.heard[n-1].MessageID != last {
				missing++
			}
			c.mu.Unlock()
		}
		if missing == 0 {
			return
		}
		<-tick.C
	}
}

// lock keeps the record as it is.
func (x *chaos) lock() {
	x.mu.Lock()
	for _, c := range x.conns {
		c.mu.Lock()
	}
}

func (x *chaos) unlock() {
	for _, c := range x.conns {
		c.mu.Unlock()
	}
	x.mu.Unlock()
}
