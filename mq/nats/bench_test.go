package nats

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// cpu returns the processor time of this process so far.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counter is the gateway's end of requests that are only counted.
type counter struct {
	room   chan struct{} // requests that may be in flight
	ok     atomic.Int64
	failed atomic.Int64
}

func (c *counter) Complete(_ uint64, _ string, _ []byte, cause error) {
	if cause != nil {
		c.failed.Add(1)
	} else {
		c.ok.Add(1)
	}
	<-c.room
}

func (c *counter) Reply(_ *mq.Request, typ string, payload []byte) { c.Complete(0, typ, payload, nil) }
func (c *counter) Fail(_ *mq.Request, cause error)                 { c.Complete(0, "", nil, cause) }
func (c *counter) Later(*mq.Request) mq.Completion                 { return mq.NewCompletion(c, 0) }
func (c *counter) Meta(*mq.Request) mq.Meta                        { return (&loopEnd{}).Meta(nil) }

// drive gives n requests to a worker, at most 1000 at a time, and waits for the answers.
func drive(w mq.Worker, is *conn.Issuer, n int) *counter {
	c := &counter{room: make(chan struct{}, 1000)}
	r := mq.NewRequest(c)
	r.Type, r.Payload = "x.Y", make([]byte, 128)
	ids := make([]conn.ID, 1000)
	for i := range ids {
		ids[i] = is.Make(i%4, uint32(i), 1)
	}
	for i := range n {
		c.room <- struct{}{}
		r.Conn = ids[i%len(ids)]
		w.Process(r)
	}
	for range cap(c.room) {
		c.room <- struct{}{}
	}
	return c
}

// BenchmarkRequests is what a request of 128 bytes and its answer cost, in requests per second of processor time, with
// the worker in the same process and over NATS: there gateway, server and worker are counted together, as they are one
// process here.
func BenchmarkRequests(b *testing.B) {
	is := conn.NewIssuer()
	measure := func(b *testing.B, w mq.Worker) {
		runtime.GC()
		b.ReportAllocs()
		b.ResetTimer()
		begun := cpu(b)
		c := drive(w, is, b.N)
		spent := cpu(b) - begun
		b.StopTimer()
		if c.ok.Load() != int64(b.N) || c.failed.Load() != 0 {
			b.Fatalf("%d of %d answered, %d failed", c.ok.Load(), b.N, c.failed.Load())
		}
		b.ReportMetric(float64(b.N)/spent.Seconds(), "requests/cpu-s")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	}
	b.Run("in process", func(b *testing.B) {
		measure(b, &worker{process: echo})
	})
	for name, links := range map[string]int{"over NATS": 1, "over NATS, two connections": 2} {
		b.Run(name, func(b *testing.B) {
			s := natstest.Single(b)
			many := func(o *Options) { o.Connections = links }
			serve(b, connect(b, s.URL(), many), &worker{process: echo})
			x, err := NewRelay(RelayConfig{Conn: connect(b, s.URL(), unbuffered, many), Node: is.Node(), RequestTimeout: requestTimeout, NoRooms: true})
			if err != nil {
				b.Fatal(err)
			}
			x.Attach(&nobody{})
			if err := x.Start(within(b, deadline)); err != nil {
				b.Fatal(err)
			}
			measure(b, x)
			if err := x.Close(within(b, deadline)); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// Benchmarks run small, so that they do not rot.
func TestBenchmark(t *testing.T) {
	s := natstest.Single(t)
	is := conn.NewIssuer()
	serve(t, connect(t, s.URL()), &worker{process: echo})
	x, err := NewRelay(RelayConfig{Conn: connect(t, s.URL(), unbuffered), Node: is.Node(), RequestTimeout: requestTimeout, NoRooms: true})
	if err != nil {
		t.Fatal(err)
	}
	x.Attach(&nobody{})
	if err := x.Start(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 { // loops
		all.Go(func() {
			if c := drive(x, is, 3000); c.ok.Load() != 3000 || c.failed.Load() != 0 {
				t.Errorf("%d answered, %d failed", c.ok.Load(), c.failed.Load())
			}
		})
	}
	all.Wait()
	if err := x.Close(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
	if st := x.Stats(); st.Answered != 12000 || st.InFlight != 0 || st.FlightBytes != 0 {
		t.Errorf("%+v", st)
	}
}
