package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

const (
	floorRead   = 64 << 10 // [bytes] of one read(2)
	floorEvents = 128      // of one epoll_wait(2)
	pingTick    = 10       // how often pings are looked at [ms]
	maxRequest  = 4 << 10  // [bytes] of the upgrade request
)

// serveFloor is the least that a Go process can do to echo: a thread per processor with an epoll of its own, and for every
// connection that is readable one read(2) and one write(2), without the scheduler in between. It is not a WebSocket
// server: after the upgrade it sends back what came, piece by piece as read(2) gave it, having taken the masks off and out
// of the frames' headers where the bytes lie, and turned pings into pongs. It keeps nothing but a partial header, knows no
// fragments, text, limits, timers, heartbeats or close handshake (it closes when it has sent a Close back), and counts
// nothing. What a real server takes above this is the price of being one.
//
// With an interval it does not echo: every connection gets a ping in every interval, spread over it, and what comes in is
// read and forgotten, but for a Close. That is the least that heartbeats can cost: one write(2) and one read(2) each.
func serveFloor(addr string, interval time.Duration, ready func(net.Addr)) error {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i := range runtime.GOMAXPROCS(0) {
		ln, port, err := floorListen(tcp.IP, tcp.Port)
		if err != nil {
			return err
		}
		if i == 0 {
			tcp.Port = port
		}
		go func() {
			runtime.LockOSThread()
			failed <- (&floor{ln: ln, interval: interval}).run()
		}()
	}
	ready(tcp)
	return <-failed
}

// floorListen opens one of the listening sockets that share an address, one for each thread.
func floorListen(ip net.IP, port int) (fd, bound int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("socket", err)
	}
	sa := &unix.SockaddrInet4{Port: port}
	copy(sa.Addr[:], ip.To4())
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"SO_REUSEADDR", func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }},
		{"SO_REUSEPORT", func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }},
		{"TCP_NODELAY", func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }}, // inherited
		{"bind", func() error { return unix.Bind(fd, sa) }},
		{"listen", func() error { return unix.Listen(fd, 4096) }},
	} {
		if err := step.do(); err != nil {
			return 0, 0, os.NewSyscallError(step.name, err)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockname", err)
	}
	return fd, name.(*unix.SockaddrInet4).Port, nil
}

// floor is one thread.
type floor struct {
	ln, poll int
	conns    []*floorConn // by descriptor
	buffer   []byte       // room for a header in front, then what read(2) gives

	interval time.Duration // between two pings of a connection; 0: none, messages are echoed
	began    time.Time     // of the present interval
	next     int           // in it, descriptors below this have had their ping
}

// floorConn is one connection.
type floorConn struct {
	fd      int
	stream  echoStream
	request []byte // of the upgrade, as far as it has come; nil after it
	open    bool   // the upgrade is done
	pending []byte // not taken by write(2); nothing is read meanwhile
}

func (f *floor) run() (err error) {
	if f.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := f.watch(unix.EPOLL_CTL_ADD, f.ln, unix.EPOLLIN); err != nil {
		return err
	}
	f.buffer = make([]byte, maxHeader+floorRead)
	events := make([]unix.EpollEvent, floorEvents)
	f.began = time.Now()
	timeout := -1
	if f.interval > 0 {
		timeout = pingTick
	}
	for {
		if f.interval > 0 {
			f.pings()
		}
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(f.poll), uintptr(unsafe.Pointer(&events[0])), floorEvents, 0, 0, 0)
		if errno != 0 || n == 0 { // nothing to do: now the scheduler may know that this thread waits
			m, err := unix.EpollWait(f.poll, events, timeout)
			if err != nil && err != unix.EINTR {
				return os.NewSyscallError("epoll_wait", err)
			}
			n = uintptr(max(m, 0))
		}
		for _, e := range events[:n] {
			if fd := int(e.Fd); fd == f.ln {
				f.accept()
			} else if !f.serve(f.conns[fd], e.Events) {
				f.conns[fd] = nil
				_ = unix.Close(fd)
			}
		}
	}
}

func (f *floor) watch(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(f.poll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// pings sends the pings that are due: to the descriptors below the part of them all that the interval has run.
func (f *floor) pings() {
	ran := time.Since(f.began)
	due := int(float64(len(f.conns)) * min(1, float64(ran)/float64(f.interval)))
	for ; f.next < due; f.next++ {
		if c := f.conns[f.next]; c != nil && c.open && !f.write(c, pingFrame, false) {
			f.conns[f.next] = nil
			_ = unix.Close(c.fd)
		}
	}
	if ran >= f.interval {
		f.began, f.next = f.began.Add(f.interval), 0
	}
}

// pingFrame is a ping with 8 bytes, as many as mqgate's have.
var pingFrame = append([]byte{0x80 | byte(ws.OpPing), 8}, "floor   "...)

func (f *floor) accept() {
	for {
		fd, _, err := unix.Accept4(f.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // EAGAIN, or the peer has gone; with anything else epoll tells again
		}
		for fd >= len(f.conns) {
			f.conns = append(f.conns, nil)
		}
		f.conns[fd] = &floorConn{fd: fd}
		if f.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN) != nil {
			f.conns[fd] = nil
			_ = unix.Close(fd)
		}
	}
}

// serve does what an event asks for. false: the connection has ended.
func (f *floor) serve(c *floorConn, events uint32) bool {
	if events&unix.EPOLLOUT != 0 {
		p := c.pending
		c.pending = nil
		return f.write(c, p, true)
	}
	if !c.open {
		return f.upgrade(c)
	}
	carried := c.stream.carry(f.buffer[:maxHeader])
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&f.buffer[maxHeader])), floorRead)
	if errno != 0 {
		c.stream.keep(f.buffer[maxHeader-carried : maxHeader])
		return errno == unix.EAGAIN || errno == unix.EINTR
	}
	if n == 0 {
		return false
	}
	if f.interval > 0 && ws.OpCode(f.buffer[maxHeader]&0x0f) != ws.OpClose {
		return true // a pong
	}
	out, err := c.stream.turn(f.buffer[maxHeader-carried : maxHeader+int(n)])
	return err == nil && f.write(c, out, false)
}

// write sends p, or keeps what the kernel does not take.
func (f *floor) write(c *floorConn, p []byte, waited bool) bool {
	if len(p) > 0 {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			n = 0
		case errno != 0:
			return false
		}
		if p = p[n:]; len(p) > 0 {
			c.pending = bytes.Clone(p)
			return waited || f.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLOUT) == nil
		}
	}
	if c.stream.done() {
		return false
	}
	return !waited || f.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN) == nil
}

// upgrade reads the request, and answers it when it is whole.
func (f *floor) upgrade(c *floorConn) bool {
	n, err := unix.Read(c.fd, f.buffer)
	if err != nil || n == 0 {
		return err == unix.EAGAIN || err == unix.EINTR
	}
	c.request = append(c.request, f.buffer[:n]...)
	if !bytes.HasSuffix(c.request, []byte("\r\n\r\n")) { // a client may not send frames before the answer
		return len(c.request) < maxRequest
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.request)))
	if err != nil || r.Header.Get("Sec-Websocket-Key") == "" {
		return false
	}
	c.request, c.open = nil, true
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return f.write(c, fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:])), false)
}
