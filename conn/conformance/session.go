package conformance

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Seed is what all random choices are made from, with the name of the case.
const Seed = 1

// A Target is an endpoint under test.
type Target struct {
	// Addr (host:port) and Path are where a server is; its echo takes messages of at least 16 MiB. Not used by RunServer.
	Addr, Path string

	// Patience is how long an answer may take [not zero]. It is reached only by an endpoint that does not answer.
	Patience time.Duration

	// Waits, if not nil, knows better than the clock when no answer will come: it reports whether the endpoint has read
	// all of sent bytes, has sent received ones and no more, and waits for input. suite is the address of the suite's end
	// of the connection. It makes the verdict on endpoints that do not answer quick and certain. Called by the goroutine
	// that runs the case, after the opening handshake and before the suite has sent its FIN.
	Waits func(suite net.Addr, sent, received int64) bool

	// ResetIsEnd takes a reset of the TCP connection for its end. A server that closes a socket with unread input resets
	// it, by chance of timing, and may so destroy its own last words; such a server fails the suite unless this is set.
	ResetIsEnd bool

	// Inflates says that the endpoint speaks permessage-deflate: Deflate has cases about it.
	Inflates bool
}

// A Case is one script and the one behaviour that passes.
type Case struct {
	Name    string // of words and numbers; unique
	Section string // of RFC 6455, or of the document that it names
	Heavy   bool   // moves megabytes

	steps func() []step

	request func(t *Target) string  // suite as the client: the opening handshake; nil: an ordinary one
	status  int                     // what it is answered with; 0: 101
	header  []string                // header lines that the answer must have, "Name: value"
	answer  func(key string) string // suite as the server: the answer to the handshake; nil: an ordinary one
	gives   bool                    // the client has to give up: it ends TCP and sends nothing
	offer   string                  // Sec-WebSocket-Extensions of the suite as the client

	// agrees makes the suite's Sec-WebSocket-Extensions as the server, in lines, from those of the client; nil: none. The
	// client has to give up when this is no answer to what it offered.
	agrees func(offer string) []string
}

// A step is a part of a case: it sends or it waits.
type step func(s *session) error

// session is one connection of a case.
type session struct {
	t       *Target
	conn    *net.TCPConn
	judge   *judge
	client  bool // the suite is the client
	rnd     *rand.Rand
	agreed  agreement
	watched bool // Target.Waits counts: the suite is the client, the handshake is done, and the suite's FIN is not sent

	deflater      *flate.Writer // of what the suite compresses: what it has last compressed with
	deflaterLevel int
	deflated      bytes.Buffer
	packer        *packer

	mu       sync.Mutex    // of queue
	queue    [][]byte      // what the writer has not taken yet
	more     chan struct{} // there is something in queue; closed when nothing more comes
	written  chan struct{} // closed when the writer has ended
	queued   int64         // bytes given to the writer
	sent     atomic.Int64  // bytes that the writer has handed to the kernel
	broken   atomic.Bool   // the kernel takes no more
	received int64
}

var (
	errWaits    = errors.New("the endpoint waits for more")
	errPatience = errors.New("no answer in time")
	errReset    = errors.New("a TCP reset")
)

// RunClient connects to the target as a client and runs the case. nil: passed.
func (c *Case) RunClient(t *Target) error {
	conn, err := net.DialTimeout("tcp", t.Addr, t.Patience)
	if err != nil {
		return err
	}
	return c.run(t, conn.(*net.TCPConn), true)
}

// RunServer runs the case as the server of a connection that it has accepted and closes it. nil: passed.
func (c *Case) RunServer(t *Target, conn *net.TCPConn) error { return c.run(t, conn, false) }

func (c *Case) run(t *Target, conn *net.TCPConn, client bool) error {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Name))
	s := &session{t: t, conn: conn, client: client, rnd: rand.New(rand.NewPCG(Seed, h.Sum64())),
		more: make(chan struct{}, 1), written: make(chan struct{})}
	s.judge = &judge{in: bufio.NewReaderSize((*patient)(s), 8<<10), masked: !client}
	go s.write()
	err := s.play(c)
	close(s.more)
	_ = conn.Close() // which also ends a writer that the endpoint does not read from
	<-s.written
	return err
}

func (s *session) play(c *Case) error {
	open := s.openServer
	if s.client {
		open = s.openClient
	}
	opened, err := open(c)
	if err != nil || !opened {
		return err
	}
	for i, step := range c.steps() {
		if err := step(s); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// write hands the queued pieces to the kernel, one call each. An endpoint that has ended its connection makes it fail; what
// that means, the reader says.
func (s *session) write() {
	defer close(s.written)
	for more := true; more; {
		_, more = <-s.more
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, p := range queue {
			if s.broken.Load() {
				break
			}
			_ = s.conn.SetWriteDeadline(time.Now().Add(s.t.Patience))
			n, err := s.conn.Write(p)
			s.sent.Add(int64(n))
			s.broken.Store(err != nil)
		}
	}
}

// enqueue never blocks: the suite must come to read what the endpoint sends.
func (s *session) enqueue(p []byte) {
	s.queued += int64(len(p))
	s.mu.Lock()
	s.queue = append(s.queue, p)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default: // it is told already
	}
}

// flushed waits until everything is with the kernel, or can never be.
func (s *session) flushed() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(s.t.Patience)
	for s.sent.Load() != s.queued && !s.broken.Load() {
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// patient is the session as the reader of its connection.
type patient session

// Read implements io.Reader. It fails with errWaits or errPatience when no answer comes.
func (p *patient) Read(b []byte) (int, error) {
	end := time.Now().Add(p.t.Patience)
	for {
		until := end
		if p.t.Waits != nil {
			until = time.Now().Add(2 * time.Millisecond)
		}
		_ = p.conn.SetReadDeadline(until)
		n, err := p.conn.Read(b)
		p.received += int64(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if p.t.Waits != nil && p.watched && p.sent.Load() == p.queued && p.t.Waits(p.conn.LocalAddr(), p.queued, p.received) {
				return 0, errWaits
			}
			if time.Now().After(end) {
				return 0, errPatience
			}
		case errors.Is(err, syscall.ECONNRESET):
			if p.t.ResetIsEnd {
				return n, io.EOF
			}
			return n, errReset
		default:
			return n, err
		}
	}
}

// A chop says in which pieces bytes are handed to the kernel.
type chop struct {
	size   int // of each piece [bytes]; 0: all at once
	random int // if above 0: sizes up to this, at random
}

var (
	whole  = chop{}
	octets = chop{size: 1}
)

func pieces(n int) chop   { return chop{size: n} }
func randomly(n int) chop { return chop{random: n} }

// batchAfter is where "byte by byte" ends and goes on in batches [bytes]: the rest of a big message tells nothing more.
const (
	batchAfter = 1024
	batch      = 997
)

// send sends frames.
func send(how chop, frames ...frame) step {
	return func(s *session) error {
		var b []byte
		for _, f := range frames {
			var key [4]byte
			for i := range key {
				key[i] = byte(s.rnd.Uint32())
			}
			b = f.append(b, s.client, key)
		}
		s.sendBytes(how, b)
		return nil
	}
}

// sendRaw sends bytes as they are.
func sendRaw(how chop, b []byte) step {
	return func(s *session) error {
		s.sendBytes(how, b)
		return nil
	}
}

func (s *session) sendBytes(how chop, b []byte) {
	for done := 0; done < len(b); {
		n := how.size
		switch {
		case how.random > 0:
			n = 1 + s.rnd.IntN(how.random)
		case n == 0:
			n = len(b)
		case n == 1 && done >= batchAfter:
			n = batch
		}
		n = min(n, len(b)-done)
		s.enqueue(b[done : done+n])
		done += n
	}
}

// want waits for these messages and control frames. Messages come in their order and pongs in theirs; a pong may overtake
// a message, and the other way round (RFC 6455 section 5.5.3).
func want(frames ...frame) step {
	return func(s *session) error {
		frames := frames // a case may be run again
		for len(frames) > 0 {
			got, err := s.next()
			if err != nil {
				return err
			}
			i := 0
			for i < len(frames) && (got.end != nil || (frames[i].first&0xf == opPong) != (got.op == opPong)) {
				i++
			}
			if i == len(frames) {
				return fmt.Errorf("want %v, got %v", event{op: frames[0].first & 0xf, payload: frames[0].payload}, got)
			}
			f := frames[i]
			if f.first&0xf != got.op || !bytes.Equal(f.payload, got.payload) {
				what := ""
				if len(f.payload) == len(got.payload) {
					what = " with other content"
				}
				return fmt.Errorf("want %v, got %v%s", event{op: f.first & 0xf, payload: f.payload}, got, what)
			}
			frames = append(frames[:i:i], frames[i+1:]...)
		}
		return nil
	}
}

func (s *session) next() (event, error) {
	e, err := s.judge.next()
	if err != nil {
		return e, fmt.Errorf("the endpoint sent %w", err)
	}
	return e, nil
}

// wantClose waits for a Close with the code, 0 for an empty one.
func wantClose(code int) step {
	want := closeBody(nil)
	if code > 0 {
		want = closing(code, "")
	}
	return func(s *session) error {
		got, err := s.next()
		if err != nil {
			return err
		}
		if got.end != nil || got.op != opClose || !bytes.Equal(got.payload[:min(2, len(got.payload))], want.payload) {
			return fmt.Errorf("want %v, got %v", event{op: opClose, payload: want.payload}, got)
		}
		return nil
	}
}

// end waits for the end of TCP, with nothing before it. A server ends it first (RFC 6455 section 7.1.1), so the suite does
// when it is the server.
func end(s *session) error {
	if !s.client {
		s.closeWrite()
	}
	got, err := s.next()
	if err != nil {
		return err
	}
	if got.end != io.EOF {
		return fmt.Errorf("want the end of TCP, got %v", got)
	}
	return nil
}

// closeWrite sends the suite's FIN, behind all else. Whether the endpoint has seen it, Target.Waits does not know.
func (s *session) closeWrite() {
	s.flushed()
	s.watched = false
	_ = s.conn.CloseWrite()
}

// halfClose ends the suite's direction of TCP without a Close frame, and waits for the end of the other, before which a
// Close frame may come.
func halfClose(s *session) error {
	s.closeWrite()
	got, err := s.next()
	if err == nil && got.end == nil && got.op == opClose {
		got, err = s.next()
	}
	if err != nil {
		return err
	}
	if got.end != io.EOF {
		return fmt.Errorf("want the end of TCP, got %v", got)
	}
	return nil
}

// good is a script after which the connection must still be in order: it ends with a close handshake.
func good(steps ...step) []step {
	return append(steps, send(whole, closing(1000, "")), wantClose(1000), end)
}

// bad is a script that the endpoint must fail with this code, at once and without waiting for the suite's Close (RFC 6455
// section 7.1.7).
func bad(code int, steps ...step) []step { return append(steps, wantClose(code), end) }
