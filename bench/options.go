package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Options say what to do. The zero values of counts and times are out of range but where noted; the command line fills
// them in.
type Options struct {
	Scenario    string
	Target      Target
	Connections int
	Rate        int           // per second: connect: connections opened; echo: messages sent. 0: as fast as possible
	Duration    time.Duration // of the measured phase
	Warmup      time.Duration // echo: traffic before it that is checked and not measured
	Payload     int           // echo: of each message [bytes]
	Depth       int           // echo: messages in flight per connection
	Text        bool          // text messages instead of binary ones

	BurstBytes int           // connect: size of the one message that every connection sends [bytes]; 0: none
	BurstAfter time.Duration // connect: when, from the beginning of the measured phase
	BurstEcho  bool          // connect: every message comes back

	Sources   []netip.Addr // empty: automatic
	Loops     int
	ServerPID int // 0: found by the address, when that is on this machine
	Expect    []Expectation
}

// Validate returns what contradicts each other, or what this system cannot do, as one error per fault; nil when the run
// can begin. The ranges of the single options are for the caller to check.
func (o *Options) Validate(sys System) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Connections < o.Loops {
		fault("flag --loops: %d are more than the %d connections", o.Loops, o.Connections)
	}
	reserve := uint64(reservedFiles + o.Loops*filesPerLoop)
	if need := uint64(o.Connections) + reserve; need > sys.OpenFiles {
		allowed := uint64(0)
		if sys.OpenFiles > reserve {
			allowed = sys.OpenFiles - reserve
		}
		fault("flag --connections: %d need %d open files, the limit here (RLIMIT_NOFILE) is %d, enough for %d connections",
			o.Connections, need, sys.OpenFiles, allowed)
	}
	size, depth := o.Payload, o.Depth
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
	if addr, err := netip.ParseAddr(o.Target.Name); err == nil {
		if _, err := sourcesFor(o.Sources, addr.Unmap(), o.Connections, sys.Ports); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
