package loop

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fullRoom is how many connections the first loop of the child "full" has room for.
const fullRoom = 10

func init() { children["full"] = childFull }

// remotes is an echoes that knows whom it has accepted.
type remotes struct {
	echoes
	all []netip.AddrPort // belongs to the loop
}

func (r *remotes) OnAccept(slot uint32, listener int, remote netip.AddrPort) {
	r.echoes.OnAccept(slot, listener, remote)
	r.all = append(r.all, remote)
}

// fullStats is what the child "full" answers with, for each loop.
type fullStats struct {
	Addr    string
	Stats   Stats
	Now     int64 // the loop's clock
	Sockets int
	Remotes []netip.AddrPort // whom the loop has accepted so far
}

// childFull echoes on two loops with a table each, of which the first has room for fullRoom connections only, until it is
// told "free". It answers every line on its standard input.
func childFull() error {
	if err := setNoFile(tableLimit); err != nil {
		return err
	}
	var handlers [2]*remotes
	g, err := NewGroup(GroupConfig{Loops: 2, Handler: func(i int) Handler { handlers[i] = new(remotes); return handlers[i] },
		Attach: func(i int, l *Loop) { handlers[i].Loop = l }, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), TablePerLoop: true})
	if err != nil {
		return err
	}
	addr, err := g.Listen(local, 0, 4096)
	if err != nil {
		return err
	}
	var filled []int
	g.loops[0].Do(func() {
		for fd, err := unix.Dup(0); err == nil; fd, err = unix.Dup(0) {
			filled = append(filled, fd)
		}
		closeAll(filled[:fullRoom])
	})
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "free" {
			g.loops[0].Do(func() { closeAll(filled[fullRoom:]) })
		}
		var all [2]fullStats
		for i, l := range g.loops {
			l.Do(func() { all[i] = fullStats{addr.String(), l.Stats(), l.Now(), l.Open(), handlers[i].all} })
		}
		if err := out.Encode(all); err != nil {
			return err
		}
	}
	g.Stop()
	return nil
}

// L8.4, with a table for each loop: the table of one is full. Its clients are served, the clients that the kernel gives to it
// from then on wait, without a busy loop; the other loop accepts as before. With room everybody is let in.
func TestOneTableFull(t *testing.T) {
	checkLeaks(t)
	cmd := child(t, "full")
	var log strings.Builder
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v\n%s", err, &log)
		}
	}
	defer stop()
	answers := json.NewDecoder(out)
	ask := func(what string) (s [2]fullStats) {
		t.Helper()
		_, err := io.WriteString(in, what+"\n")
		if err == nil {
			err = answers.Decode(&s)
		}
		if err != nil {
			stop()
			t.Fatalf("the child: %v\n%s", err, &log)
		}
		return s
	}
	addr := netip.MustParseAddrPort(ask("")[0].Addr)

	conns := map[netip.AddrPort]net.Conn{}
	dial := func(n int) {
		for range n {
			c := dialTCP(t, addr)
			conns[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		}
	}
	serve := func(s [2]fullStats) { // everybody who is in
		t.Helper()
		for i := range s {
			for _, remote := range s[i].Remotes {
				roundTrip(t, conns[remote], "served")
			}
		}
	}
	// The kernel gives each loop its part: more than fullRoom of so many, in all but one of 10^9 cases.
	const clients, later = 80, 40
	dial(clients)
	var first [2]fullStats
	eventually(t, "the first loop pauses", func() bool { first = ask(""); return first[0].Stats.AcceptPauses > 0 })
	if first[0].Sockets != fullRoom || first[0].Stats.AcceptPaused != 1 {
		t.Errorf("the first loop holds %d sockets, %d listeners rest", first[0].Sockets, first[0].Stats.AcceptPaused)
	}
	serve(first)
	// New ones come in, at the loop that has room.
	before := ask("")[1].Stats.Accepts
	dial(later)
	eventually(t, "the other loop accepts", func() bool { return ask("")[1].Stats.Accepts > before })

	// Tries at their own pace, and nothing else turns: as in TestOutOfDescriptors.
	start := ask("")
	last := start
	asked := uint64(0)
	eventually(t, "three more tries", func() bool {
		asked++
		last = ask("")
		return last[0].Stats.AcceptPauses >= start[0].Stats.AcceptPauses+3
	})
	tries := last[0].Stats.AcceptPauses - start[0].Stats.AcceptPauses
	if turns := last[0].Stats.Turns - start[0].Stats.Turns; turns > 2*asked+3*tries {
		t.Errorf("%d turns for %d tries and %d questions: it spins", turns, tries, asked)
	}
	if least := int64(tries-1) * int64(acceptRetry); last[0].Now-start[0].Now < least {
		t.Errorf("%d tries in %d ns, expected %d at least", tries, last[0].Now-start[0].Now, least)
	}
	if s := last[1].Stats; s.AcceptPauses != 0 || s.AcceptPaused != 0 {
		t.Errorf("the loop with room paused %d times", s.AcceptPauses)
	}
	if turns := last[1].Stats.Turns - start[1].Stats.Turns; turns > 2*asked+later {
		t.Errorf("the loop with room: %d turns for %d questions", turns, asked)
	}
	if last[0].Sockets != fullRoom {
		t.Errorf("the first loop holds %d sockets, with room for %d", last[0].Sockets, fullRoom)
	}
	serve(last)

	// One goes, one comes in. Then there is room: everybody is in.
	_ = conns[last[0].Remotes[0]].Close()
	eventually(t, "one more is accepted", func() bool { return ask("")[0].Stats.Accepts == fullRoom+1 })
	ask("free")
	for remote, c := range conns {
		if remote != last[0].Remotes[0] {
			roundTrip(t, c, "let in")
		}
	}
	eventually(t, "accepting resumes", func() bool { return ask("")[0].Stats.AcceptPaused == 0 })
	if s := ask(""); s[0].Stats.Accepts+s[1].Stats.Accepts != clients+later {
		t.Errorf("%d and %d connections were accepted, expected %d", s[0].Stats.Accepts, s[1].Stats.Accepts, clients+later)
	}
	stop()
	for _, said := range []string{"accepting paused", "accepting resumed"} {
		if n := strings.Count(log.String(), said); n != 1 {
			t.Errorf("%s is logged %d times:\n%s", said, n, &log)
		}
	}
	if !strings.Contains(log.String(), `"loop":0`) {
		t.Errorf("the loop is not named:\n%s", &log)
	}
}
