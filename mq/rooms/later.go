package rooms

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
)

// later is how a call is answered when it has an engine. In memory it stays zero.
type later struct {
	to     mq.Completion
	note   mq.Note
	ready  bool  // the answer is in call.res and goes out when all else is stored as well
	err    error // the request has failed
	own    mq.Request
	buffer []byte // of own.Payload
}

func (l *later) reset() {
	l.to, l.note, l.ready, l.err, l.own = mq.Completion{}, mq.Note{}, false, nil, mq.Request{}
	if cap(l.buffer) > maxScratchBytes {
		l.buffer = nil
	}
}

// processLater handles a request on a goroutine of its own.
func (w *Worker) processLater(q request, r *mq.Request) {
	if err := w.failed.Load(); err != nil {
		r.Fail(*err)
		return
	}
	if !w.work.add() {
		r.Fail(errClosed)
		return
	}
	c := w.calls.Get().(*call)
	l := &c.later
	l.to = r.Later()
	l.buffer = append(l.buffer[:0], r.Payload...)
	l.own.Conn, l.own.Bound, l.own.SessionID = r.Conn, strings.Clone(r.Bound), strings.Clone(r.SessionID)
	l.own.Payload = l.buffer
	c.begin(q, &l.own)
	go func() {
		defer w.work.done()
		defer c.survive()
		c.process()
		c.finish()
		c.release()
	}()
}

// survive is deferred: a panic fails this request alone. The call is not used again: its state is unknown.
func (c *call) survive() {
	if p := recover(); p != nil {
		c.later.to.Fail(fmt.Errorf("rooms: panic: %v", p))
	}
}

// answer sends what is in c.res. With an engine only finish does.
func (c *call) answer() {
	if c.w.engine == nil {
		c.req.Reply(answerTypes[c.kind], c.res.Answer)
		return
	}
	c.later.ready = true
}

// fail notes that the request cannot be handled: because of the session, or because the engine has failed.
func (c *call) fail(err error) {
	if errors.Is(err, ErrNoSession) {
		c.refuse(wire.StatusUnauthorized)
		return
	}
	c.later.err = err
}

// finish answers a request that an engine has handled.
func (c *call) finish() {
	l := &c.later
	switch {
	case l.err != nil:
		l.to.Fail(l.err)
	case l.ready:
		l.to.ReplyNoted(answerTypes[c.kind], c.res.Answer, l.note)
	default:
		l.to.Fail(errNoAnswer)
	}
}

var errNoAnswer = errors.New("rooms: the engine has not said what became of the request")

// work counts what is being done, until it is closed.
type work struct {
	mu     sync.RWMutex
	closed bool
	wg     sync.WaitGroup
}

func (w *work) add() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if !w.closed {
		w.wg.Add(1)
	}
	return !w.closed
}

func (w *work) done() { w.wg.Done() }

// close lets nothing in any more and waits for what is being done.
func (w *work) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}
