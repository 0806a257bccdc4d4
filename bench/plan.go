package bench

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq/wire"
)

// way is how a churning connection ends.
type way uint8

const (
	wayReset         way = iota // talks, then RST
	wayFIN                      // talks, then FIN without a Close frame
	wayClose                    // talks, then Close with a code that is allowed, or none
	wayBadClose                 // talks, then a Close frame that is forbidden
	wayStoppedReader            // talks, then sends and reads no more
	wayMidFrame                 // talks, then goes within a frame
	wayMidMessage               // talks, then goes between two fragments
	wayMidHandshake             // goes within the upgrade request
	wayNoByte                   // goes before the first byte
	wayEarlyFIN                 // FIN right behind the upgrade request
	wayInFlight                 // talks, then sends requests and goes before their answers
	wayDoubleClose              // talks, then Close, and more behind it
	ways                        // their number
)

var wayNames = [ways]string{"reset", "fin", "close", "bad-close", "stopped-reader", "mid-frame", "mid-message", "mid-handshake",
	"no-byte", "early-fin", "in-flight", "double-close"}

// String returns the name in reports.
func (w way) String() string { return wayNames[w] }

// exit is what a connection does in the end.
type exit uint8

const (
	exitReset    exit = iota // RST
	exitClose                // close(2): FIN, and RST to whatever still comes
	exitShutdown             // FIN; reads until the server's
	exitWait                 // nothing: the server has to end it
)

// push is what a stopped reader sends.
type push uint8

const (
	pushBrief    push = iota // some messages; then it goes
	pushPings                // pings, until the server ends it: each is answered, whatever the path speaks
	pushMessages             // messages, until the server ends it: for a path that echoes
	pushSome                 // as much as may be pending; then it waits until the server ends it
)

// plan is all that a churning connection will do: a pure function of the seed and its number, so that a run can be repeated.
type plan struct {
	way      way
	exit     exit
	text     bool
	messages int    // that it sends, and waits for the answer of, before its end
	burst    int    // wayInFlight: messages that it sends at the end
	cut      int    // wayMidFrame, wayMidHandshake: how much of the frame or request goes out [1/1000, below 1000]
	delay    int64  // wayNoByte, wayStoppedReader: before the exit [ns]
	push     push   // wayStoppedReader
	last     []byte // wayClose, wayBadClose, wayDoubleClose: body of the Close frame
	want     uint16 // close code that the server must answer with; 0: none
}

// dice is splitmix64.
type dice uint64

// below returns a number from 0 on below n, which is above 0.
func (d *dice) below(n int) int { return int(pattern((*uint64)(d), false) % uint64(n)) }

// The codes that a client may send and samples of those that it may not (L1.7).
var (
	goodCodes = []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3333, 3334, 3335, 3336, 3999, 4000, 4999}
	badCodes  = []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535}
)

// planOf returns the plan of connection number.
func planOf(seed, number uint64) plan {
	d := dice(seed*0x9e3779b97f4a7c15 ^ number)
	d.below(1) // neighbours differ in a bit: mixed once before use
	p := plan{way: way(d.below(int(ways))), text: d.below(2) == 0, messages: d.below(4), cut: d.below(1000)}
	switch p.way {
	case wayReset:
		p.exit = exitReset
	case wayFIN, wayMidFrame, wayMidMessage, wayInFlight:
		p.exit, p.burst = exit(d.below(3)), 1+d.below(8)
		if p.way == wayFIN && p.exit == exitReset {
			p.exit = exitShutdown
		}
		if p.exit == exitShutdown {
			p.want = 1002
		}
	case wayEarlyFIN:
		p.exit = exitClose
		if d.below(2) == 0 {
			p.exit, p.want = exitShutdown, 1002
		}
	case wayMidHandshake, wayNoByte:
		p.exit, p.delay = exit(d.below(3)), int64(d.below(int(churnDelay)))
		if d.below(seldom) == 0 {
			p.exit = exitWait
		}
	case wayStoppedReader:
		p.exit, p.delay = exit(d.below(2)), int64(d.below(int(churnDelay)))
		if d.below(seldom) == 0 {
			p.push = pushPings
		}
	case wayClose, wayDoubleClose:
		p.exit = exitWait
		switch d.below(4) {
		case 0:
			p.want = frame.NoStatus
		case 1:
			p.want = uint16(3000 + d.below(2000))
		default:
			p.want = goodCodes[d.below(len(goodCodes))]
		}
		p.last = frame.AppendCloseBody(nil, p.want, "")
		if p.want != frame.NoStatus && d.below(2) == 0 {
			p.last = append(p.last, "over"...)
		}
	case wayBadClose:
		p.exit, p.want = exitWait, 1002
		switch d.below(4) {
		case 0:
			p.last = []byte{3} // half a code
		case 1:
			p.last, p.want = []byte{1000 >> 8, 1000 & 0xff, 'x', 0xff}, 1007 // a reason that is not UTF-8
		default:
			p.last = binary.BigEndian.AppendUint16(nil, badCodes[d.below(len(badCodes))])
		}
	case ways:
	}
	return p
}

// Types of the requests of churning connections. An echo sends each back; the MQ gateway with its built-in worker answers
// the first with mq.Error, and the others with their Response, whatever is in it.
const typeChurn = "bench.Churn"

var churnTypes = [...]struct{ request, answer string }{
	{typeChurn, wire.TypeError},
	{wire.TypeGetRoomInfo, wire.TypeGetRoomInfoResponse},
	{wire.TypeAuthenticate, wire.TypeAuthenticateResponse},
}

// A talk makes the messages of churning connections and checks the answers. Message k of a connection follows from the
// seed and both numbers: it is made a second time to be compared.
type talk struct {
	seed    uint64
	payload []byte // scratch
	again   []byte // scratch
}

// envelope returns message k of connection number, and the type of its answer. The payload is borrowed until the next call.
func (t *talk) envelope(number uint64, k int) (env wire.Envelope, answer string) {
	d := dice(t.seed ^ number<<20 ^ uint64(k)<<8)
	d.below(1)
	kind := churnTypes[d.below(len(churnTypes))]
	t.payload = t.payload[:0]
	switch kind.request {
	case wire.TypeGetRoomInfo:
		t.payload = (&wire.GetRoomInfo{RoomID: "no such room"}).AppendTo(t.payload)
	case wire.TypeAuthenticate:
		t.payload = (&wire.Authenticate{ClientVersion: "1", DeviceID: fmt.Sprintf("churn-%d", number), Platform: "mqgate-bench",
			PlatformVersion: "1"}).AppendTo(t.payload)
	default:
		size := minMessage + d.below(512)
		if d.below(32) == 0 {
			size += 20_000 // does not come in one segment
		}
		t.payload = slices.Grow(t.payload, size)[:size]
		fill(t.payload, false, uint32(number), uint32(k))
	}
	return wire.Envelope{RequestID: fmt.Sprintf("%d-%d", number, k), Type: kind.request, Payload: t.payload}, kind.answer
}

// reply is what an answer was.
type reply uint8

const (
	replyWrong  reply = iota
	replyEcho         // the message itself
	replyAnswer       // the answer of the MQ gateway
)

// check says what p, which came in the given form, is to message k of connection number. p is borrowed and changed.
func (t *talk) check(number uint64, k int, form wire.Form, p []byte) reply {
	env, answer := t.envelope(number, k)
	t.again = env.AppendForm(slices.Grow(t.again[:0], env.FormSize(form)), form)
	if string(t.again) == string(p) {
		return replyEcho
	}
	if form == wire.Text {
		var err error
		if p, err = wire.DecodeText(p[:0], p); err != nil {
			return replyWrong
		}
	}
	var got wire.Envelope
	if got.Unmarshal(p) != nil || got.MessageType != wire.Response || got.RequestID != env.RequestID || got.Type != answer {
		return replyWrong
	}
	if got.Type == wire.TypeError {
		var e wire.Error
		if e.Unmarshal(got.Payload) != nil || e.Reason != wire.ReasonFailed {
			return replyWrong
		}
	}
	return replyAnswer
}
