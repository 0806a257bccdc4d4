package bench

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/wire"
	"golang.org/x/sys/unix"
)

// How much of this process's CPU a broadcast takes for each member, beside one write(2) of the same bytes to each of the
// same sockets, in the same process, by as many threads, in turns:
//
//	go test ./bench -run '^$' -bench Fanout -benchtime 30x
//
//	raw-us      write(2)
//	one-us      Publish, once
//	eight-us    Publish, eight times in a row: of one of the eight
//	writes/8    write(2) calls of the gateway for those eight, by members
//
// The figures are medians of the rounds; one/raw is the ratio of two of them. The members are in a process of their own,
// which reads.

const fanoutEnv = "MQGATE_BENCH_FANOUT" // where the members of a child process connect to, and how many they are

const fanoutRoom = "room"

// joins answers every request as if it had joined the room.
type joins struct{ clients mq.Clients }

func (w *joins) Attach(c mq.Clients) { w.clients = c }
func (w *joins) Process(r *mq.Request) {
	answer := wire.JoinRoomResponse{Status: wire.StatusOK, Room: &wire.Room{RoomID: fanoutRoom}}
	r.Reply(wire.TypeJoinRoomResponse, answer.AppendTo(nil))
}
func (w *joins) Disconnected(mq.Disconnect) error { return nil }
func (w *joins) RoundTrip(conn.ID, time.Duration) {}

// fanout is a gateway whose members are all in one room.
type fanout struct {
	b       *testing.B
	server  *conn.Server
	worker  joins
	members int
	fds     [][]int // the sockets, for as many threads as there are loops
	payload []byte
	frame   []byte // what a member gets
	in      io.WriteCloser
	out     *bufio.Scanner
	had     uint64 // bytes that the members had when they were last asked
}

func newFanout(b *testing.B, members int) *fanout {
	f := &fanout{b: b, members: members, payload: []byte(strings.Repeat("p", 128))}
	loops := runtime.GOMAXPROCS(0)
	g, err := mq.New(mq.Config{Worker: &f.worker, RequestTimeout: 15 * time.Second, ServerRequestTimeout: 15 * time.Second, MaxRequests: 256,
		Log: slog.New(slog.DiscardHandler)}, loops)
	if err != nil {
		b.Fatal(err)
	}
	cfg := &conn.Config{Role: frame.RoleServer, Endpoints: []conn.Endpoint{{Path: "/ws", Handler: g, MaxMessage: 1 << 20}},
		HandshakeTimeout: 10 * time.Second, CloseTimeout: time.Second, WriteTimeout: 10 * time.Second, Heartbeat: conn.HeartbeatOff,
		PingInterval: time.Minute, MaxPending: 4 << 20}
	if f.server, err = conn.NewServer(cfg, conn.ServerConfig{Loops: loops, Attach: func(_ int, r *conn.Registry) { g.Attach(r) }}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(f.server.Stop)
	g.Start(f.server)
	addr, err := f.server.Listen(netip.MustParseAddrPort("127.0.0.1:0"), 4096)
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", fanoutEnv, addr, members))
	child.Stderr = os.Stderr
	if f.in, err = child.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	f.out = bufio.NewScanner(out)
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = f.in.Close()
		if err := child.Wait(); err != nil {
			b.Errorf("the members: %v", err)
		}
	})
	f.had = f.ask()
	f.sockets(addr, loops)
	env := wire.Envelope{Type: wire.TypeRoomEvent, Payload: f.payload, MessageType: wire.Event}
	p := env.AppendTo(nil)
	f.frame = append([]byte{0x82, 126, byte(len(p) >> 8), byte(len(p))}, p...)
	if len(p) < 126 {
		b.Fatal("the frame is shorter than its header says")
	}
	return f
}

// ask returns how many bytes the members have had.
func (f *fanout) ask() (n uint64) {
	if _, err := io.WriteString(f.in, "\n"); err != nil {
		f.b.Fatal(err)
	}
	if !f.out.Scan() {
		f.b.Fatalf("the members have gone: %v", f.out.Err())
	}
	if _, err := fmt.Sscan(f.out.Text(), &n); err != nil {
		f.b.Fatal(err)
	}
	return n
}

// sockets finds the server's ends of the members' connections.
func (f *fanout) sockets(addr netip.AddrPort, threads int) {
	f.fds = make([][]int, threads)
	found := 0
	for fd := range 2*f.members + 1000 {
		name, err := unix.Getsockname(fd)
		local, ok := name.(*unix.SockaddrInet4)
		if err != nil || !ok || local.Port != int(addr.Port()) {
			continue
		}
		if _, err := unix.Getpeername(fd); err == nil { // not listening
			f.fds[found%threads] = append(f.fds[found%threads], fd)
			found++
		}
	}
	if found != f.members {
		f.b.Fatalf("%d sockets found, want %d", found, f.members)
	}
}

// raw writes the frame to every socket.
func (f *fanout) raw() {
	var done sync.WaitGroup
	for _, fds := range f.fds {
		done.Go(func() {
			runtime.LockOSThread() // and the thread ends with it
			for _, fd := range fds {
				if n, err := unix.Write(fd, f.frame); n != len(f.frame) {
					panic(fmt.Sprintf("write(2) of %d bytes: %d, %v", len(f.frame), n, err))
				}
			}
		})
	}
	done.Wait()
}

// publish publishes n events, and returns when all loops have had their turn.
func (f *fanout) publish(n int) {
	for range n {
		f.worker.clients.Publish(mq.Topic{Kind: mq.TopicRoom, Room: fanoutRoom}, wire.TypeRoomEvent, f.payload)
	}
	for range 2 { // what is written at the end of a turn has been when the next one begins
		f.server.Each(func(*conn.Registry) {})
	}
}

// writes returns how often the loops have called write(2).
func (f *fanout) writes() (n uint64) {
	var sum atomic.Uint64
	f.server.Each(func(r *conn.Registry) { sum.Add(r.Loop().Stats().Writes) })
	return sum.Load()
}

// measure returns the CPU time of do by events [us]. Every member must have got every event.
func (f *fanout) measure(events int, do func()) float64 {
	before := ownCPU()
	do()
	took := ownCPU() - before
	want := f.had + uint64(events*len(f.frame))
	for deadline := time.Now().Add(20 * time.Second); f.had < want; f.had = f.ask() {
		if time.Now().After(deadline) {
			f.b.Fatalf("%d bytes have not come", want-f.had)
		}
	}
	if f.had > want {
		f.b.Fatalf("%d bytes too many", f.had-want)
	}
	return micros(took) / float64(events)
}

func BenchmarkFanout(b *testing.B) { benchmarkFanout(b, 10_000) }

func benchmarkFanout(b *testing.B, members int) {
	f := newFanout(b, members)
	var raw, one, eight []float64
	var writes uint64
	for b.Loop() {
		raw = append(raw, f.measure(members, f.raw))
		one = append(one, f.measure(members, func() { f.publish(1) }))
		before := f.writes()
		eight = append(eight, f.measure(8*members, func() { f.publish(8) }))
		writes += f.writes() - before
	}
	b.ReportMetric(0, "ns/op") // means nothing
	b.ReportMetric(median(raw), "raw-us")
	b.ReportMetric(median(one), "one-us")
	b.ReportMetric(median(one)/median(raw), "one/raw")
	b.ReportMetric(median(eight), "eight-us")
	b.ReportMetric(float64(writes)/float64(len(eight)*members), "writes/8")
}

// The benchmark runs small, so that it does not rot: it checks its result.
func TestFanout(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) { benchmarkFanout(b, 20) })
	if r.N == 0 || r.Extra["raw-us"] <= 0 || r.Extra["eight-us"] <= 0 || r.Extra["writes/8"] < 1 || r.Extra["writes/8"] > 8 {
		t.Errorf("the benchmark says %v", r)
	}
}

// runMembers is the child process: it connects, joins and reads. To each line on its standard input it answers with the
// number of bytes that have come, after the upgrades and the answers to joining.
func runMembers(where string) error {
	var addr string
	var members int
	if _, err := fmt.Sscan(where, &addr, &members); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for range members {
		fd, err := dialMember(to, buffer)
		if err != nil {
			return err
		}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	var had atomic.Uint64
	failed := make(chan error, 1)
	go func() {
		events := make([]unix.EpollEvent, 128)
		for {
			n, err := unix.EpollWait(poll, events, -1)
			if err != nil && err != unix.EINTR {
				failed <- err
				return
			}
			for _, e := range events[:max(n, 0)] {
				n, err := unix.Read(int(e.Fd), buffer)
				if err != nil || n == 0 {
					failed <- fmt.Errorf("read(2): %d, %v", n, err)
					return
				}
				had.Add(uint64(n))
			}
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		select {
		case err := <-failed:
			return err
		default:
			fmt.Println(had.Load())
		}
	}
	return nil
}

// dialMember returns a blocking socket on which the room has been joined and its answer read.
func dialMember(to netip.AddrPort, buffer []byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return 0, err
	}
	join := wire.Envelope{RequestID: "C0", Type: wire.TypeJoinRoom}
	p := join.AppendTo(nil)
	request := fmt.Appendf(nil, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", to)
	request = append(request, 0x82, 0x80|byte(len(p)), 0, 0, 0, 0) // a mask of zeros changes nothing
	if _, err := unix.Write(fd, append(request, p...)); err != nil {
		return 0, err
	}
	for have := 0; ; {
		n, err := unix.Read(fd, buffer[have:])
		if err != nil || n == 0 {
			return 0, fmt.Errorf("the upgrade: read(2): %d, %v", n, err)
		}
		have += n
		if _, answer, whole := strings.Cut(string(buffer[:have]), "\r\n\r\n"); whole && len(answer) >= 2 && len(answer) == 2+int(answer[1]) {
			return fd, nil
		}
	}
}
