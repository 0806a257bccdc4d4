package conn

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// pings reads what was sent and returns the payloads of the pings; anything else fails.
func (p *peer) pings() (payloads []string) {
	p.t.Helper()
	for _, f := range p.read() {
		if f.op != frame.Ping || len(f.payload) != 8 {
			p.t.Fatalf("sent %v, expected pings of 8 bytes", f)
		}
		payloads = append(payloads, f.payload)
	}
	return payloads
}

// toPing moves the clock to the next ping and returns its payload.
func (p *peer) toPing() string {
	p.t.Helper()
	for range 2100 { // 21 s
		if got := p.pings(); len(got) == 1 {
			return got[0]
		} else if len(got) > 1 {
			p.t.Fatal("two pings at once")
		}
		p.n.advance(10 * time.Millisecond)
	}
	p.t.Fatal("no ping within 21 s")
	return ""
}

// L7.1: 10,000 connections opened at one moment are pinged evenly over the interval, each once per interval.
func TestHeartbeatPhases(t *testing.T) {
	const conns, interval, bucket = 10000 / slowdown, 20 * time.Second, slowdown * 100 * time.Millisecond // 200 buckets, or 10
	n := newNode(t, func(cfg *Config) { cfg.PingInterval = interval })
	peers := make([]*peer, conns)
	for i := range peers {
		peers[i] = n.dialIn()
		peers[i].Send([]byte(request()))
	}
	n.net.Run()
	pinged := func() uint64 { return n.reg.Stats().MessagesSent[KindPing] }
	const mean = float64(conns) / float64(interval/bucket) // 50
	for round := range 3 {
		for i := range int(interval / bucket) {
			before := pinged()
			n.advance(bucket)
			// The golden ratio keeps every stretch within a few of its share.
			if got := float64(pinged() - before); got < mean-5 || got > mean+5 {
				t.Fatalf("round %d: %v pings between %v and %v, expected %v", round, got, time.Duration(i)*bucket, time.Duration(i+1)*bucket, mean)
			}
		}
		if got := pinged(); got != uint64(conns*(round+1)) {
			t.Fatalf("%d pings in %d intervals for %d connections", got, round+1, conns)
		}
		for _, p := range peers { // everybody lives
			for _, payload := range p.pings() {
				p.Send(p.frame(frame.Pong, payload))
			}
		}
		n.net.Run()
	}
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// L7.4: the round trip time is the time between the ping and its pong, to the microsecond; the handler is told.
func TestRTT(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	n.h.expect("open")
	for i, rtt := range []time.Duration{0, time.Microsecond, 1500 * time.Microsecond, 7 * time.Second, 19 * time.Second} {
		payload := p.toPing()
		before := n.reg.Stats()
		n.advance(rtt)
		p.send(frame.Pong, payload)
		want := max(rtt, time.Microsecond)
		// The clock of the test moves in steps of 10 ms, which is also the tick: the ping went out at this very step.
		n.h.expect(fmt.Sprintf("pong %v", rtt))
		if got := n.only().RTT(); got != want {
			t.Errorf("%d: RTT %v, expected %v", i, got, want)
		}
		s := n.reg.Stats()
		bucket := 0
		for bucket < len(RTTBuckets) && want.Microseconds() > int64(RTTBuckets[bucket]) {
			bucket++
		}
		if s.RTT[bucket] != before.RTT[bucket]+1 || s.RTTSumUS-before.RTTSumUS != uint64(want.Microseconds()) {
			t.Errorf("%v: histogram %v, sum %d", rtt, s.RTT, s.RTTSumUS-before.RTTSumUS)
		}
		n.advance((10*time.Millisecond - rtt%(10*time.Millisecond)) % (10 * time.Millisecond)) // back to whole steps
		if i == 4 {
			continue // a pong just before the next ping
		}
		p.send(frame.Pong, payload) // again: unsolicited
		n.h.expect()
		if n.reg.Stats().PongsUnsolicited != before.PongsUnsolicited+1 {
			t.Error("the second pong is not counted as unsolicited")
		}
	}
}

// L7.4: pongs that answer nothing are ignored and counted; as any byte they count as life.
func TestUnsolicitedPongs(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	send := func(payload string) {
		t.Helper()
		before := n.reg.Stats().PongsUnsolicited
		p.send(frame.Pong, payload)
		if n.reg.Stats().PongsUnsolicited != before+1 {
			t.Errorf("pong %q is not counted as unsolicited", payload)
		}
	}
	send("")
	send("\x00\x00\x00\x00\x00\x00\x00\x00")
	var pingAt [8]byte
	binary.BigEndian.PutUint64(pingAt[:], uint64(n.only().pingAt)) // before the first ping: of no ping
	send(string(pingAt[:]))
	first := p.toPing()
	send(first[:7])
	send(first + "x")
	send("\xff" + first[1:])
	second := p.toPing() // the pongs above were life, though no answer
	send(first)          // stale
	p.send(frame.Pong, second)
	n.h.expect("open", "pong 0s")
	send(second)
	p.toPing()
	n.h.expect()
	p.sendClose(1000, "")
	p.quit()
}

// L7.2: no sign of life for a whole interval after a ping: close 3334, and without an answer forced at --close-timeout
// with one OnClose and one decrement (L5.3).
func TestHeartbeatTimeout(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.toPing()
	n.advance(20*time.Second - 10*time.Millisecond)
	p.expect()
	n.h.expect("open")
	n.advance(10 * time.Millisecond)
	p.expect(`close 3334 "timeout"`)
	n.h.expect()
	n.advance(4990 * time.Millisecond)
	if n.reg.Stats().Open != 1 {
		t.Fatal("ended before --close-timeout")
	}
	n.advance(10 * time.Millisecond)
	n.h.expect(`close 1006 "forced" forced`)
	if s := n.reg.Stats(); s.Open != 0 || s.Disconnects[CauseForced][codeIndex(1006)] != 1 || s.Disconnected() != 1 {
		t.Errorf("open %d, disconnected %d", s.Open, s.Disconnected())
	}
	if !p.GotReset() {
		t.Error("the socket was not cut")
	}
	n.expectNothing()
}

// L7.2: any byte counts as life: a slow upload of one byte per interval is not a dead peer.
func TestSlowUploadLives(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	upload := p.frame(frame.Binary, strings.Repeat("x", 60))
	for i := range upload {
		p.toPing()
		n.advance(19 * time.Second)
		p.Send(upload[i : i+1])
		n.net.Run()
	}
	n.h.expect("open", "binary 60 bytes")
	p.toPing()
	n.advance(20 * time.Second)
	p.expect(`close 3334 "timeout"`)
	p.sendClose(3334, "")
	p.quit()
	n.expectNothing()
}

// L7.3: a ping is due and the one before is not with the kernel: skipped and counted; next time it is L7.2.
func TestPingSkipped(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	payload := p.toPing()
	p.send(frame.Pong, payload)
	p.SetWindow(0)
	n.advance(20 * time.Second) // a ping that is not taken
	if s := n.reg.Stats(); s.PingsSkipped != 0 || s.MessagesSent[KindPing] != 2 {
		t.Fatalf("skipped %d, sent %d", s.PingsSkipped, s.MessagesSent[KindPing])
	}
	n.advance(20 * time.Second)
	if s := n.reg.Stats(); s.PingsSkipped != 1 || s.MessagesSent[KindPing] != 2 || n.only().State() != Open {
		t.Fatalf("skipped %d, sent %d, state %v", s.PingsSkipped, s.MessagesSent[KindPing], n.only().State())
	}
	n.advance(20 * time.Second)
	if n.only().State() != Closing {
		t.Fatalf("state %v", n.only().State())
	}
	p.SetWindow(1000)
	n.net.Run()
	got := p.read()
	if len(got) != 2 || got[0].op != frame.Ping || got[1].String() != `close 3334 "timeout"` {
		t.Fatalf("sent %v", got)
	}
	p.sendClose(3334, "")
	n.h.expect("open", "pong 0s", `close 3334 "" timeout`)
	p.quit()
	n.expectNothing()
}

// L7.3, L7.2: a peer that sends but does not read is alive; pings are skipped as long as it says something, and go out
// again when it reads.
func TestPingSkippedButAlive(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.send(frame.Pong, p.toPing())
	p.SetWindow(0)
	for range 6 {
		n.advance(20 * time.Second)
		p.send(frame.Text, "hi")
	}
	if s := n.reg.Stats(); s.PingsSkipped != 5 || n.only().State() != Open {
		t.Fatalf("skipped %d, state %v", s.PingsSkipped, n.only().State())
	}
	p.SetWindow(1 << 20)
	n.net.Run()
	if stale := p.pings(); len(stale) != 1 {
		t.Fatalf("%d pings", len(stale))
	} else {
		before := n.reg.Stats().PongsUnsolicited
		p.send(frame.Pong, stale[0]) // answered when it is no longer the last thing that was due
		if n.reg.Stats().PongsUnsolicited != before+1 {
			t.Error("a stale pong made a round trip time")
		}
	}
	p.send(frame.Pong, p.toPing())
	if got := n.h.calls[len(n.h.calls)-1]; got != "pong 0s" {
		t.Errorf("last call %s", got)
	}
	p.SetWindow(0) // once more: what was skipped before is forgotten
	n.advance(40 * time.Second)
	if s := n.reg.Stats(); s.PingsSkipped != 6 || n.only().State() != Open {
		t.Fatalf("skipped %d, state %v", s.PingsSkipped, n.only().State())
	}
	p.SetWindow(1 << 20)
	n.net.Run()
	p.pings()
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
}

// L7.5: --heartbeat=client: no pings; nothing received for two intervals and the connection is given up, never before.
func TestHeartbeatClient(t *testing.T) {
	n := newNode(t, func(cfg *Config) { cfg.Heartbeat = HeartbeatClient })
	p := n.connect()
	for range 20 { // silent for just below two intervals
		n.advance(2*20*time.Second - 10*time.Millisecond)
		p.expect()
		p.Send(p.frame(frame.Text, "")[:1]) // half a header, then the other half
		n.advance(2*20*time.Second - 10*time.Millisecond)
		p.expect()
		p.Send(p.frame(frame.Text, "")[1:])
	}
	n.net.Run()
	if s := n.reg.Stats(); s.MessagesSent[KindPing] != 0 {
		t.Errorf("%d pings", s.MessagesSent[KindPing])
	}
	n.advance(3*20*time.Second + 10*time.Millisecond)
	p.expect(`close 3334 "timeout"`)
	n.on(func() { n.reg.ForceAll() })
	n.expectNothing()
}

// --heartbeat=off: nothing is sent and nothing is expected, for ever.
func TestHeartbeatOff(t *testing.T) {
	n := newNode(t, noPings)
	p := n.connect()
	n.advance(1000 * time.Hour)
	p.expect()
	n.h.expect("open")
	if timersArmed(n.reg.loop) != 0 {
		t.Error("an idle connection has a timer armed")
	}
	p.send(frame.Pong, "12345678")
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
}

// Pings of the peer are answered with their payload, ahead of data that waits, and in CLOSING no more.
func TestPongs(t *testing.T) {
	n := newNode(t, noPings)
	p := n.connect()
	for _, size := range []int{0, 1, 125} {
		payload := strings.Repeat("p", size)
		p.send(frame.Ping, payload)
		p.expect(wire{op: frame.Pong, payload: payload}.String())
	}
	p.SetWindow(5)
	n.on(func() {
		_ = n.only().Send(frame.Text, []byte("half of this"))
		_ = n.only().Send(frame.Text, []byte("waits"))
	})
	p.send(frame.Ping, "now")
	p.SetWindow(1000)
	n.net.Run()
	p.expect(`text "half of this"`, `pong "now"`, `text "waits"`)
	p.Send(p.part(frame.Text, false, "a"))
	p.send(frame.Ping, "between")
	p.Send(p.part(frame.Continuation, true, "b"))
	n.net.Run()
	p.expect(`pong "between"`)
	n.h.expect("open", `text "ab"`)
	p.sendClose(1000, "")
	p.quit()
	n.expectNothing()
}

// L7.6, L8.1: a ping that fails with anything but EAGAIN. The Close frame with 3335 is tried, but cannot go
// out over a socket that is broken: OnError, OnClose(1006) for that cause, at once and once.
func TestPingFails(t *testing.T) {
	n := newNode(t)
	p := n.connect()
	p.toPing()
	p.send(frame.Text, "alive")
	n.advance(19980 * time.Millisecond)
	n.on(func() {
		p.Reset() // and at this very moment the next ping is due
		n.reg.beat(n.only(), n.net.Loop.Now()+int64(20*time.Millisecond))
	})
	n.h.expect("open", `text "alive"`, "error broken pipe", `close 1006 "send-error" send-error`)
	if s := n.reg.Stats(); s.Errors != 1 || s.Disconnects[CauseSendError][codeIndex(1006)] != 1 {
		t.Errorf("errors %d, disconnects %d", s.Errors, s.Disconnected())
	}
	n.expectNothing()
}
