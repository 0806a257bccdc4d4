package conn

import (
	"log/slog"
	"sync/atomic"
)

// Budget is the memory that a process may take (L8.6). What is counted against it is what the loops hold for their peers,
// known to the byte at every moment (partial messages, and output that the kernel has not taken), and the rest of the
// process, which its owner measures from time to time (SetBase).
//
// The loops share it. Each makes known what it holds when that has changed by a step, so the hot path pays a subtraction
// per read, and what nobody knows of yet is a step per loop at most. All methods are safe from any goroutine.
type Budget struct {
	limit int64
	from  [len(levelPercent)]int64 // where each level begins [bytes]: it is looked at with every read
	step  int64
	log   *slog.Logger
	held  atomic.Int64
	base  atomic.Int64
	said  atomic.Int32 // level of which the log has told
	since atomic.Int64 // when it did [ns on the loops' clock]
}

// Level says how full a Budget is, and so what is done about it.
type Level int32

// The levels, and from where on they hold.
const (
	Calm     Level = iota
	Pausing        // from 80 %: those who hold most are not read any more
	Refusing       // from 90 %: upgrades are answered with 503
	Shedding       // from 95 %: those who hold most are closed with 1013
)

// levelPercent is where a level begins; calmPercent is where reading goes on again, below Pausing so that it is not
// switched on and off with every message.
var levelPercent = [...]int64{Calm: 0, Pausing: 80, Refusing: 90, Shedding: 95}

const calmPercent = 75

// NewBudget returns a budget of limit bytes, above 0. log may be nil.
func NewBudget(limit int64, log *slog.Logger) *Budget {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Budget{limit: limit, step: min(max(limit/1024, 1), maxBudgetStep), log: log}
	for l, percent := range levelPercent {
		b.from[l] = b.part(percent)
	}
	return b
}

// Limit returns the limit [bytes].
func (b *Budget) Limit() int64 { return b.limit }

// Held returns what the loops hold for their peers [bytes].
func (b *Budget) Held() int64 { return b.held.Load() }

// Used returns what counts against the limit [bytes].
func (b *Budget) Used() int64 { return b.base.Load() + b.held.Load() }

// SetBase says how much the process takes besides what the loops hold [bytes]. They act on it at their next Account.
func (b *Budget) SetBase(n int64) { b.base.Store(n) }

// Level returns how full the budget is.
func (b *Budget) Level() Level {
	used := b.Used()
	for l := Shedding; l > Calm; l-- {
		if used >= b.from[l] {
			return l
		}
	}
	return Calm
}

// part returns so many percent of the limit.
func (b *Budget) part(percent int64) int64 { return b.limit / 100 * percent }

// calm reports whether reading may go on again.
func (b *Budget) calm() bool { return b.Used() < b.part(calmPercent) }

// add counts what a loop holds more, or less, at a time of its clock [ns], and returns the level.
func (b *Budget) add(n, now int64) Level {
	b.held.Add(n)
	l := b.Level()
	b.tell(l, now)
	return l
}

// quiet reports whether there is nothing to do, and nothing to say.
func (b *Budget) quiet() bool { return b.said.Load() == int32(Calm) && b.Used() < b.from[Pausing] }

// tell logs once when it becomes worse, and once when it is over, but that not so soon that a budget which goes up and down
// would fill the log.
func (b *Budget) tell(l Level, now int64) {
	for {
		said := Level(b.said.Load())
		if l == said || l != Calm && l < said || l == Calm && (!b.calm() || now-b.since.Load() < saidFor) {
			return
		}
		b.since.Store(now)
		if !b.said.CompareAndSwap(int32(said), int32(l)) {
			continue // another loop was first: perhaps it has said it
		}
		what := [...]string{Calm: "memory is below the limit again; everybody is read",
			Pausing:  "memory is above 80 % of --memory-limit: those who hold most are not read until others are done",
			Refusing: "memory is above 90 % of --memory-limit: upgrades are refused with 503",
			Shedding: "memory is above 95 % of --memory-limit: those who hold most are closed with 1013"}[l]
		if l == Calm {
			b.log.Info(what, "used", b.Used(), "limit", b.limit)
		} else {
			b.log.Warn(what, "used", b.Used(), "limit", b.limit, "buffers", b.Held())
		}
		return
	}
}
