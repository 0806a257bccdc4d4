package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame/deflate"
)

// Options say what to do. The zero values of counts and times are out of range but where noted; the command line fills
// them in.
type Options struct {
	Scenario    string
	Target      Target
	Others      []Target      // further servers, over which connections are dealt out too; see places
	Connections int           // churn: open at one time
	Rate        int           // per second: connect, churn: connections opened; echo: messages sent. 0: as fast as possible
	Duration    time.Duration // of the measured phase; churn: at most; with Stalled: of each of its slices
	Warmup      time.Duration // echo: traffic before it that is checked and not measured
	Payload     int           // echo: of each message [bytes]
	Depth       int           // echo: messages in flight per connection
	Sizes       Sizes         // a distribution of sizes instead of Payload, which then is the largest; the zero value: none
	Text        bool          // text messages instead of binary ones; of MQ: base64 in them

	Compression deflate.Mode // permessage-deflate, offered in the upgrade
	CompressMin int          // shorter messages go out as they are [bytes]

	Subprotocol string             // asked for in the upgrade, a list; empty: none
	Header      []handshake.Header // further headers of the upgrade
	Token       string             // MQ: authenticationToken
	Charts      bool               // collect what WriteHTML needs

	RequestType    string        // request: what is asked
	RequestPayload []byte        // request: its payload, encoded; nil: a chat.GetRoomInfo of Payload bytes
	AnswerStatus   string        // request: field 1 of a good answer; empty: any
	AnswerTimeout  time.Duration // request: an answer after that is late

	Rooms   int // broadcast
	Members int // broadcast: of each room; Connections is their product

	ServerPings time.Duration // heartbeat: the server's interval; 0: not known
	ClientPings time.Duration // heartbeat: of pings of our own; 0: none

	RampOf   string        // ramp: echo or request
	P99Limit time.Duration // ramp

	BurstBytes int           // connect: size of the one message that every connection sends [bytes]; 0: none
	BurstAfter time.Duration // connect: when, from the beginning of the measured phase
	BurstEcho  bool          // connect: every message comes back

	Stalled      int // echo: further connections that send and do not read; see stalled
	StalledPairs int // echo: slices without and with them

	Total     int           // churn: connections in all; 0: as many as Duration allows
	Seed      int           // churn: of what every connection does
	Settle    time.Duration // churn: what the server has to give memory back; the judgement waits up to 5 times as long
	MaxGrowth int           // churn: that the server's memory may have grown since the warm-up [bytes]
	Metrics   Metrics       // churn: required; of all servers: see SumMetrics
	Refusals  Refusals      // churn: what the limits of the server may refuse

	Sources []netip.Addr // empty: automatic
	Loops   int

	// TablePerLoop gives each loop a descriptor table of its own, and with it the limit of open files: loop.GroupConfig.
	TablePerLoop bool

	ServerPIDs []int // one for each server, in their order; empty: found by the addresses, where those are on this machine
	Expect     []Expectation
}

// sizes returns the distribution of sizes.
func (o *Options) sizes() Sizes {
	s := o.Sizes
	if s.bytes == nil {
		s = FixedSize(o.Payload)
	}
	s.seed = uint64(o.Seed)
	return s
}

// Validate returns what contradicts each other, or what this system cannot do, as one error per fault; nil when the run
// can begin. The ranges of the single options are for the caller to check.
func (o *Options) Validate(sys System) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Connections < o.Loops {
		fault("flag --loops: %d are more than the %d connections", o.Loops, o.Connections)
	}
	faults = append(faults, o.checkTargets()...)
	if err := o.checkFiles(sys.OpenFiles); err != nil {
		faults = append(faults, err)
	}
	if o.Scenario == scenarioHeartbeat && o.ServerPings > 0 {
		if least, _ := expected(int64(o.Duration), int64(o.ServerPings)); least == 0 {
			fault("flag --duration: %v is not enough to judge the interval of --server-pings (%v), 1.1 times that is", o.Duration, o.ServerPings)
		}
	}
	if err := handshake.CheckRequest("host", "/", "", o.Subprotocol, o.Header); err != nil {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			fault("flags --header and --subprotocol: %s", text)
		}
	}
	size, depth := max(o.Payload, len(o.RequestPayload)), o.Depth
	if o.Scenario == scenarioConnect {
		size, depth = o.BurstBytes, 1
		if o.BurstBytes > 0 && o.BurstAfter >= o.Duration {
			fault("flag --burst-after: %v is not before the end of --duration (%v)", o.BurstAfter, o.Duration)
		}
	}
	if n := int64(o.Connections) * int64(depth) * int64(size); n > MaxInFlight {
		fault("flag --connections: %d with %d message(s) of %d bytes each are %d bytes in flight, at most %d are allowed",
			o.Connections, depth, size, n, int64(MaxInFlight))
	}
	for _, t := range o.targets() {
		if addr, err := netip.ParseAddr(t.Name); err == nil {
			if _, err := sourcesFor(o.Sources, addr.Unmap(), o.connectionsToEach(), sys.Ports); err != nil {
				faults = append(faults, err)
				break // of the others it is the same
			}
		}
	}
	return errors.Join(faults...)
}
