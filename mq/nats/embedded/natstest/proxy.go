package natstest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy passes TCP connections on to a server until it is cut. All methods are safe from any goroutine.
type Proxy struct {
	target string
	ln     net.Listener
	done   sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// NewProxy starts a proxy before target (host:port, or a nats:// URL) and ends it with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	const scheme = "nats://"
	if len(target) > len(scheme) && target[:len(scheme)] == scheme {
		target = target[len(scheme):]
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, ln: ln, conns: make(map[net.Conn]struct{})}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.Cut()
		p.done.Wait()
	})
	return p
}

// URL returns where clients connect.
func (p *Proxy) URL() string { return "nats://" + p.ln.Addr().String() }

// Cut resets every connection and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Heal lets connections through again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		if !p.keep(c) {
			continue
		}
		up, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(up) {
			p.drop(c)
			continue
		}
		for _, pair := range [][2]net.Conn{{c, up}, {up, c}} {
			p.done.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // either end may go at any time: that is what the proxy is for
				p.drop(pair[0])
				p.drop(pair[1])
			})
		}
	}
}

// keep takes a connection in, or closes it when the proxy is cut.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = c.Close()
	delete(p.conns, c)
}
