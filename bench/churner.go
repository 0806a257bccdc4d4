package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/loop"
	"github.com/mqgate/mqgate/mq/wire"
)

// stage is where a churning connection stands. Next states in the order of the list; it may end from any.
type stage uint8

const (
	stageFree    stage = iota // no connection
	stageDial                 // connect(2) is under way
	stageRequest              // the upgrade request is out
	stageTalk                 // a message is out, its answer is awaited
	stageStall                // wayStoppedReader: nothing is read any more
	stageDelay                // waits for its time to go
	stageLeave                // the last bytes are on their way to the kernel; then exit
	stageLast                 // awaits the server's end: a Close frame where one is due, then FIN
)

// peer is a churning connection. It is no conn.Conn, which could not break the rules: it is a socket of package loop with
// a frame reader and what it is up to.
type peer struct {
	plan
	stage     stage
	upgraded  bool
	answered  bool // the Close frame that was due is in
	number    uint64
	key       [16]byte
	in        frame.Reader
	head      []byte // of the answer to the upgrade, when it came in pieces
	k         int    // messages sent
	pushed    int    // stageStall: bytes sent
	stalledAt int64  // when that began [ns]
	deadline  int64  // of the server, for everything it has to do at one stage [ns]
}

// churnCount is what one loop, or the run, has counted.
type churnCount struct {
	dialled, connected, upgraded uint64
	live                         uint64 // now
	peak                         uint64 // highest live, of one loop; summed over loops
	killed                       [ways]uint64
	sent, echoed, answered       uint64            // messages; answers of either kind
	ends                         map[string]uint64 // connections that were upgraded, by "cause/code" as the server must count them
	flooded                      uint64            // stopped readers that the server ended
	refused                      uint64            // told by the server that a limit of its keeps them out
	blind                        uint64            // of the upgraded those that did not wait for the answer
	silent, silentRequest        uint64            // that awaited the handshake timeout: without a byte, and with half a request

	failed map[string]uint64 // connections that could not be opened, by error
	lost   map[string]uint64 // ended by the server before their time, by what it was
	wrong  uint64            // answers that were none
	last   map[string]uint64 // last words of the server that were wrong or missing
	stuck  map[string]uint64 // that the server did not end in time, by way

	sides []churnSide // by server
}

func newChurnCount(places int) churnCount {
	return churnCount{sides: make([]churnSide, places), ends: map[string]uint64{}, failed: map[string]uint64{}, lost: map[string]uint64{}, last: map[string]uint64{}, stuck: map[string]uint64{}}
}

func (n *churnCount) add(o *churnCount) {
	n.dialled += o.dialled
	n.connected += o.connected
	n.upgraded += o.upgraded
	n.live += o.live
	n.peak += o.peak
	for i, v := range o.killed {
		n.killed[i] += v
	}
	n.sent += o.sent
	n.echoed += o.echoed
	n.answered += o.answered
	n.flooded += o.flooded
	n.refused += o.refused
	n.blind += o.blind
	n.silent += o.silent
	n.silentRequest += o.silentRequest
	n.wrong += o.wrong
	for k, s := range o.sides {
		n.sides[k].dialled += s.dialled
		n.sides[k].upgraded += s.upgraded
		n.sides[k].failed += s.failed
		n.sides[k].lost += s.lost
	}
	for _, m := range []struct{ to, from map[string]uint64 }{{n.ends, o.ends}, {n.failed, o.failed}, {n.lost, o.lost}, {n.last, o.last}, {n.stuck, o.stuck}} {
		for text, v := range m.from {
			m.to[text] += v
		}
	}
}

// countText counts a text in m, which holds maxTexts of them at most.
func countText(m map[string]uint64, text string) {
	if _, known := m[text]; !known && len(m) >= maxTexts {
		text = "others"
	}
	m[text]++
}

// churner has the churning connections of one loop: it is the loop's handler. But for the fields above the line it belongs
// to the loop's goroutine.
type churner struct {
	index, loops int
	places       *places
	protocol     string // subprotocols that are asked for
	header       []handshake.Header
	planOf       func(number uint64) plan
	ended        func(p *peer, ns int64) // if not nil: the server ended a stopped reader, so long after it had stopped
	maxLive      int                     // connections open at one time
	maxDialling  int
	refusals     Refusals
	rate         float64      // connections per second; 0: as fast as possible
	loop         *loop.Loop   // set before it runs
	timers       *loop.Timers // entry 0: dialling
	// ---
	peers    []*peer // by slot
	frames   frame.Config
	talk     talk
	out      []byte // scratch: a message
	wire     []byte // scratch: frames
	flood    []byte // pings, many
	until    uint64 // connections are opened while fewer have been
	dialling int
	began    int64 // when until was last set [ns], and how many had been opened by then
	first    uint64
	n        churnCount
}

// open has connections opened until there have been so many, or until close.
func (c *churner) open(until uint64) {
	c.until, c.began, c.first = until, c.loop.Clock(), c.n.dialled
	c.dialSome()
}

// close opens no more connections.
func (c *churner) close() { c.until = 0 }

// dialSome opens the connections that are due, and sees to it that it is called again.
func (c *churner) dialSome() {
	now := c.loop.Clock()
	for budget := turnBudget; budget > 0 && c.n.dialled < c.until && int(c.n.live) < c.maxLive && c.dialling < c.maxDialling; budget-- {
		if c.rate > 0 && float64(c.n.dialled-c.first) > float64(now-c.began)/1e9*c.rate {
			break
		}
		number := c.n.dialled*uint64(c.loops) + uint64(c.index)
		c.n.dialled++
		c.n.sides[c.places.of(number)].dialled++
		to, source := c.places.dial(number)
		slot, errno := c.loop.Dial(to.addr, source)
		if errno != 0 {
			c.failed(number, fmt.Sprintf("connect to %v: %v", to.addr, errno))
			continue
		}
		c.dialling++
		c.n.live++
		c.n.peak = max(c.n.peak, c.n.live)
		p := c.take(slot)
		*p = peer{plan: c.planOf(number), number: number, head: p.head[:0]}
		c.await(slot, p, stageDial)
	}
	if c.n.dialled < c.until && !c.timers.Armed(0) {
		c.timers.Set(0, c.loop.Now()+dialTick)
	}
}

func (c *churner) take(slot uint32) *peer {
	for int(slot) >= len(c.peers) {
		c.peers = append(c.peers, new(peer))
	}
	return c.peers[slot]
}

// await enters a stage that the server has to end in time.
func (c *churner) await(slot uint32, p *peer, s stage) {
	p.stage, p.deadline = s, c.loop.Now()+int64(churnPatience)
	c.loop.SetTimer(slot, p.deadline)
}

// gone ends a connection that has gone its way.
func (c *churner) gone(slot uint32, p *peer, reset bool) {
	c.n.killed[p.way]++
	if p.upgraded {
		c.n.ends[p.end()]++
	}
	if p.exit == exitWait && p.way == wayNoByte {
		c.n.silent++
	}
	if p.exit == exitWait && p.way == wayMidHandshake {
		c.n.silentRequest++
	}
	c.free(slot, p, reset)
}

// free closes the socket.
func (c *churner) free(slot uint32, p *peer, reset bool) {
	if p.stage == stageDial {
		c.dialling--
	}
	p.stage = stageFree
	p.in.Reset()
	c.n.live--
	if reset {
		c.loop.Reset(slot)
	} else {
		c.loop.Close(slot)
	}
	c.dialSome()
}

// endsOther are the causes that are a matter of timing: whether the server saw first that the peer was gone, that it did not
// read, or that it could not be pinged. endOther stands for all of them.
var endsOther = []string{"socket-error", "slow-consumer", "send-error", "forced"}

const endOther = "socket-error, slow-consumer, send-error or forced"

// end returns how the server must count the end of an upgraded connection.
func (p *peer) end() string {
	switch p.way {
	case wayClose, wayDoubleClose:
		return endOf("client", p.want)
	case wayBadClose:
		if p.want == 1007 {
			return endOf("bad-utf8", p.want)
		}
		return endOf("protocol", p.want)
	case wayReset, wayFIN, wayStoppedReader, wayMidFrame, wayMidMessage, wayMidHandshake, wayNoByte, wayEarlyFIN, wayInFlight, ways:
	}
	return endOther
}

// endOf names a cause and a close code as the labels of disconnects_total do.
func endOf(cause string, code uint16) string {
	switch {
	case code < 3000, code >= 3333 && code <= 3335:
		return fmt.Sprintf("%s/%d", cause, code)
	case code < 4000:
		return cause + "/3xxx"
	}
	return cause + "/4xxx"
}

// lose gives up a connection that the server ended before its time.
func (c *churner) lose(slot uint32, p *peer, text string) {
	if p.stage == stageDial || p.stage == stageRequest {
		c.failed(p.number, text)
	} else {
		k := c.places.of(p.number)
		c.n.sides[k].lost++
		countText(c.n.lost, c.places.named(k, text))
	}
	c.free(slot, p, true)
}

// OnConnect implements loop.Handler.
func (c *churner) OnConnect(slot uint32, errno syscall.Errno) {
	p := c.peers[slot]
	if errno != 0 {
		c.lose(slot, p, fmt.Sprintf("connect to %v: %v", c.places.list[c.places.of(p.number)].addr, errno))
		return
	}
	c.dialling--
	c.n.connected++
	p.stage = stageRequest
	binary.NativeEndian.PutUint64(p.key[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(p.key[8:], rand.Uint64())
	to := &c.places.list[c.places.of(p.number)].target
	c.out = handshake.AppendRequest(c.out[:0], to.Host, to.Path, p.key, "", c.protocol, c.header)
	switch p.way {
	case wayNoByte:
		c.delay(slot, p)
	case wayMidHandshake:
		c.loop.Write(slot, c.out[:1+p.cut*(len(c.out)-1)/1000])
		c.delay(slot, p)
	case wayEarlyFIN:
		c.loop.Write(slot, c.out)
		c.leave(slot, p)
	default:
		c.loop.Write(slot, c.out)
		c.await(slot, p, stageRequest)
	}
	c.dialSome()
}

// delay waits for the connection's time to go.
func (c *churner) delay(slot uint32, p *peer) {
	if p.exit == exitWait {
		c.await(slot, p, stageLast)
		return
	}
	p.stage = stageDelay
	c.loop.SetTimer(slot, c.loop.Now()+p.delay)
}

// leave has the connection go when the kernel has what was written.
func (c *churner) leave(slot uint32, p *peer) {
	c.await(slot, p, stageLeave)
	c.loop.NotifyDrained(slot)
}

// OnDrained implements loop.Handler.
func (c *churner) OnDrained(slot uint32) {
	p := c.peers[slot]
	switch {
	case p.stage == stageStall && p.pushed > 0:
		c.pushMore(slot, p)
	case p.stage != stageLeave:
	case p.exit == exitReset || p.exit == exitClose:
		if p.way == wayEarlyFIN && !p.upgraded {
			// The request is in the kernel in front of the FIN, so the server upgrades.
			c.upgraded(p)
			c.n.blind++
		}
		c.gone(slot, p, p.exit == exitReset)
	case p.exit == exitShutdown:
		c.loop.ShutdownWrite(slot)
		p.stage = stageLast
	default:
		p.stage = stageLast
	}
}

// OnData implements loop.Handler.
func (c *churner) OnData(slot uint32, b []byte) {
	p := c.peers[slot]
	if !p.upgraded {
		if b = c.upgrade(slot, p, b); b == nil {
			return
		}
	}
	for len(b) > 0 && p.stage != stageStall {
		m, n, ok, err := p.in.Next(&c.frames, b)
		if err != nil {
			c.lose(slot, p, "the server broke the protocol: "+err.Error())
			return
		}
		b = b[n:]
		if !ok {
			return
		}
		switch m.Op {
		case frame.Text, frame.Binary:
			c.message(slot, p, m.Op, m.Payload)
		case frame.Ping:
			if p.stage == stageTalk {
				c.loop.Write(slot, frame.AppendMaskedFrame(nil, frame.Pong, true, m.Payload, maskKey()))
			}
		case frame.Close:
			code, _, err := frame.ParseCloseBody(m.Payload)
			switch {
			case p.stage != stageLast && p.stage != stageLeave:
				c.lose(slot, p, fmt.Sprintf("Close %d", code))
				return
			case err != nil || code != p.want:
				countText(c.n.last, fmt.Sprintf("%v: Close %d where %d was due", p.way, code, p.want))
			}
			p.answered = true
		case frame.Pong, frame.Continuation:
		}
		if p.stage == stageFree {
			return
		}
		p.in.Release()
	}
}

// upgrade reads the answer to the upgrade request and returns what follows it, nil when there is nothing to do.
func (c *churner) upgrade(slot uint32, p *peer, b []byte) []byte {
	if p.way == wayMidHandshake || p.way == wayNoByte {
		return nil // the server says why it gives up
	}
	had := len(p.head)
	if had > 0 {
		p.head = append(p.head, b...)
	}
	head := b
	if had > 0 {
		head = p.head
	}
	end := handshake.End(head, had)
	if end == 0 {
		if had == 0 {
			p.head = append(p.head, b...)
		}
		return nil
	}
	var res handshake.Response
	if err := res.Parse(head[:end], p.key, "", ""); err != nil {
		if c.refused(slot, p, err) {
			return nil
		}
		if errors.Is(err, handshake.ErrInterim) {
			err = errors.New("an interim answer, which this scenario does not know")
		}
		p.stage = stageRequest
		c.lose(slot, p, err.Error())
		return nil
	}
	c.upgraded(p)
	if p.stage == stageRequest {
		c.next(slot, p)
	}
	return b[end-had:]
}

// form returns how the connection writes its messages.
func (p *peer) form() wire.Form {
	if p.text {
		return wire.Text
	}
	return wire.Binary
}

func (p *peer) op() frame.OpCode {
	if p.text {
		return frame.Text
	}
	return frame.Binary
}

// ask sends message k, in two fragments when k is odd.
func (c *churner) ask(slot uint32, p *peer) {
	env, _ := c.talk.envelope(p.number, p.k)
	c.out = env.AppendForm(c.out[:0], p.form())
	half := len(c.out)
	if p.k%2 == 1 {
		half /= 2
	}
	c.wire = frame.AppendMaskedFrame(c.wire[:0], p.op(), half == len(c.out), c.out[:half], maskKey())
	if half < len(c.out) {
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Continuation, true, c.out[half:], maskKey())
	}
	c.loop.Write(slot, c.wire)
	p.k++
	c.n.sent++
}

// next sends the next message, or begins the end when there have been enough.
func (c *churner) next(slot uint32, p *peer) {
	if p.k < p.messages {
		c.ask(slot, p)
		c.await(slot, p, stageTalk)
		return
	}
	key := maskKey()
	c.wire = c.wire[:0]
	switch p.way {
	case wayReset, wayFIN:
	case wayClose, wayBadClose:
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Close, true, p.last, key)
	case wayDoubleClose:
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Close, true, p.last, key)
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Ping, true, nil, key)
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Close, true, []byte{4999 >> 8, 4999 & 0xff}, key)
	case wayMidFrame:
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Binary, true, make([]byte, 2000), key)
		c.wire = c.wire[:1+p.cut*(len(c.wire)-1)/1000]
	case wayMidMessage:
		c.wire = frame.AppendMaskedFrame(c.wire, frame.Binary, false, make([]byte, 1+p.cut), key)
		if p.cut%2 == 0 {
			c.wire = frame.AppendMaskedFrame(c.wire, frame.Continuation, false, make([]byte, p.cut), key)
		}
	case wayInFlight:
		for range p.burst {
			c.ask(slot, p)
		}
		c.wire = c.wire[:0] // ask has sent it
	case wayStoppedReader:
		p.stage = stageStall
		c.loop.PauseRead(slot)
		p.stalledAt = c.loop.Clock()
		c.pushMore(slot, p)
		return
	case wayMidHandshake, wayNoByte, wayEarlyFIN, ways:
		panic("bench: this way ends before it talks")
	}
	if len(c.wire) > 0 {
		c.loop.Write(slot, c.wire)
	}
	c.leave(slot, p)
}

// message takes a message of the server.
func (c *churner) message(slot uint32, p *peer, op frame.OpCode, b []byte) {
	if p.stage != stageTalk {
		return // an answer to wayInFlight
	}
	answer := replyWrong
	if op == p.op() {
		answer = c.talk.check(p.number, p.k-1, p.form(), b)
	}
	switch answer {
	case replyWrong:
		c.n.wrong++
	case replyEcho:
		c.n.echoed++
	case replyAnswer:
		c.n.answered++
	}
	c.next(slot, p)
}

// pushMore has a stopped reader send more, until that is enough.
func (c *churner) pushMore(slot uint32, p *peer) {
	most := [...]int{pushBrief: stopBytes, pushPings: floodBytes, pushMessages: floodBytes, pushSome: holdBytes}[p.push]
	switch {
	case p.pushed < most:
		if p.push == pushPings {
			c.wire = append(c.wire[:0], c.pings()...)
		} else {
			env := wire.Envelope{RequestID: "unread", Type: typeChurn, Payload: make([]byte, pushBytes)}
			c.out = env.AppendForm(c.out[:0], p.form())
			c.wire = frame.AppendMaskedFrame(c.wire[:0], p.op(), true, c.out, maskKey())
			c.n.sent++
		}
		c.loop.Write(slot, c.wire)
		p.pushed += len(c.wire)
		c.await(slot, p, stageStall)
		if p.push == pushMessages {
			c.loop.SetTimer(slot, c.loop.Now()+int64(pushPause))
		} else {
			c.loop.NotifyDrained(slot)
		}
	case p.push == pushBrief:
		p.pushed = 0
		c.delay(slot, p)
	default: // enough: now the socket is written to until that fails, which is how its end shows without reading
		p.pushed = 0
		c.loop.SetTimer(slot, c.loop.Now()+int64(floodProbe))
	}
}

// pings returns many pings.
func (c *churner) pings() []byte {
	if c.flood == nil {
		ping := frame.AppendMaskedFrame(nil, frame.Ping, true, make([]byte, frame.MaxControlPayload), maskKey())
		for len(c.flood) < pushBytes {
			c.flood = append(c.flood, ping...)
		}
	}
	return c.flood
}

// OnTimer implements loop.Handler.
func (c *churner) OnTimer(slot uint32) {
	p := c.peers[slot]
	switch {
	case p.stage == stageDelay:
		c.leave(slot, p)
	case p.stage == stageStall && p.push == pushMessages && p.pushed > 0:
		c.pushMore(slot, p)
	case p.stage == stageStall && c.loop.Now() < p.deadline:
		if c.loop.Pending(slot) == 0 { // a pong that nothing asked for: no answer comes
			c.loop.Write(slot, frame.AppendMaskedFrame(nil, frame.Pong, true, nil, maskKey()))
		}
		c.loop.SetTimer(slot, c.loop.Now()+int64(floodProbe))
	default:
		c.n.stuck[p.way.String()]++
		c.free(slot, p, true)
	}
}

// OnEOF implements loop.Handler.
func (c *churner) OnEOF(slot uint32) {
	p := c.peers[slot]
	if p.stage != stageLast && p.stage != stageLeave {
		c.lose(slot, p, "FIN without a Close frame")
		return
	}
	if p.want != 0 && !p.answered {
		countText(c.n.last, fmt.Sprintf("%v: FIN without the Close %d that was due", p.way, p.want))
	}
	c.gone(slot, p, false)
}

// OnError implements loop.Handler.
func (c *churner) OnError(slot uint32, errno syscall.Errno) {
	p := c.peers[slot]
	switch {
	case p.stage == stageStall && p.push != pushBrief:
		c.n.flooded++
		if c.ended != nil {
			c.ended(p, c.loop.Clock()-p.stalledAt)
		}
		c.gone(slot, p, false)
	case p.stage == stageLeave && (p.exit == exitReset || p.exit == exitClose):
		c.gone(slot, p, false)
	case p.stage == stageLeave, p.stage == stageLast:
		countText(c.n.last, fmt.Sprintf("%v: %v instead of FIN", p.way, errno))
		c.gone(slot, p, false)
	default:
		c.lose(slot, p, errno.Error())
	}
}

// OnAccept implements loop.Handler. There is no listener.
func (c *churner) OnAccept(uint32, int, netip.AddrPort) {}

// OnBlocked implements loop.Handler. OnDrained comes when it is over.
func (c *churner) OnBlocked(uint32) {}

// maskKey returns a masking key for a frame.
func maskKey() (key [4]byte) {
	binary.NativeEndian.PutUint32(key[:], rand.Uint32())
	return key
}
