package looptest

import (
	"log/slog"
	"math"

	"github.com/mqgate/mqgate/loop"
)

// Clock is the time of one Net or of several. Those that share one are the loops of one process: their timers are due in
// one order, and a task that one loop posts to another is run at the time at which it was posted.
type Clock struct {
	// AfterTurn, when not nil, is called after every turn of a loop on this clock: the place to look at invariants.
	AfterTurn func()

	now  int64
	nets []*Net
}

// maxTurns bounds the turns at one moment: loops that have not come to rest by then never will.
const maxTurns = 1 << 17

// NewClock returns a clock that stands at Epoch.
func NewClock() *Clock { return &Clock{now: Epoch} }

// New returns a Net on this clock, and makes its loop of cfg: Kernel is the Net, and a nil Log says nothing. The handler
// gets its loop from attach, when that is not nil.
func (c *Clock) New(cfg loop.Config, attach func(*loop.Loop)) *Net {
	n := &Net{clock: c, timer: math.MaxInt64, nextFD: 3, socks: make(map[int]*Peer)}
	c.nets = append(c.nets, n)
	cfg.Kernel = n
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n.Loop = loop.New(cfg)
	if attach != nil {
		attach(n.Loop)
	}
	return n
}

// Now returns the time [ns].
func (c *Clock) Now() int64 { return c.now }

// Run lets every loop do all there is to do at the present time, and what that causes on the others. It panics when the
// loops do not come to rest: an event that nobody takes keeps a processor busy for ever.
func (c *Clock) Run() {
	turns := 0
	for again := true; again; {
		again = false
		for _, n := range c.nets {
			for n.Step() {
				again = true
				if turns++; turns == maxTurns {
					panic("looptest: the loops do not come to rest")
				}
			}
		}
	}
}

// Advance moves the clock by d [ns], stopping at every time for which a loop has set its timer.
func (c *Clock) Advance(d int64) {
	end := c.now + d
	c.Run()
	for at := c.due(); at <= end; at = c.due() {
		c.now = max(c.now, at)
		c.Run()
	}
	c.now = end
	c.Run()
}

// due returns the earliest time for which a loop has set its timer.
func (c *Clock) due() int64 {
	at := int64(math.MaxInt64)
	for _, n := range c.nets {
		at = min(at, n.timer)
	}
	return at
}

// Jump moves the clock by d [ns] and lets nobody run: the process was stopped, or a loop was busy for so long. Whatever
// has become due meets whatever has arrived, in the turns after it.
func (c *Clock) Jump(d int64) { c.now += d }
