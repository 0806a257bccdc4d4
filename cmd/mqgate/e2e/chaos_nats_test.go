package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// natsNodes is a JetStream cluster of nats-server itself, as its module builds it: one process per node, numbered from 0.
// Its methods are the test goroutine's.
type natsNodes struct {
	t      *testing.T
	dir    string // log files nodeN.log are in it
	binary string
	nodes  []*natsNode
}

type natsNode struct {
	name, listen, config string
	cmd                  *exec.Cmd // nil: not running
}

// buildNATS builds nats-server, once.
var buildNATS = sync.OnceValues(func() (string, error) {
	file := filepath.Join(scratch, "nats-server")
	out, err := exec.Command("go", "build", "-o", file, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building nats-server: %w\n%s", err, out)
	}
	return file, nil
})

// startNodes starts n nodes, with their logs in dir, and returns when streams with n replicas can be made. They end with
// the test.
func startNodes(t *testing.T, n int, dir string) *natsNodes {
	t.Helper()
	binary, err := buildNATS()
	if err != nil {
		t.Fatal(err)
	}
	c := &natsNodes{t: t, dir: dir, binary: binary}
	ports := fixedPorts(t, 2*n)
	var routes []string
	for _, port := range ports[n:] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	store := t.TempDir()
	for i := range n {
		node := &natsNode{name: fmt.Sprintf("node%d", i), listen: fmt.Sprintf("127.0.0.1:%d", ports[i])}
		node.config = filepath.Join(dir, node.name+".conf")
		// no_advertise: a gateway behind a proxy must not learn of ways around it.
		config := fmt.Sprintf(`server_name: %s
listen: %q
max_payload: 8MB
jetstream { store_dir: %q, max_mem: 256MB, max_file: 1GB }
cluster { name: chaos, listen: "127.0.0.1:%d", no_advertise: true, routes: [%s] }
`, node.name, node.listen, filepath.Join(store, node.name), ports[n+i], strings.Join(routes, ", "))
		if err := os.WriteFile(node.config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, node)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.kill(i)
		}
	})
	for i := range c.nodes {
		c.start(i)
	}
	js := c.jetStream()
	const probe = "chaos_probe"
	natstest.Eventually(t, "streams with all replicas can be made; see "+dir, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: probe, Replicas: n, Storage: jetstream.MemoryStorage})
		return err == nil
	})
	if err := js.DeleteStream(t.Context(), probe); err != nil {
		t.Fatal(err)
	}
	return c
}

// fixedPorts returns ports below those that the system gives out, so that a node that is started again finds its own free.
func fixedPorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		port := 12000 + rand.IntN(20000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // taken
		}
		defer ln.Close() // so that none is found twice
		ports = append(ports, port)
	}
	return ports
}

// start starts a node that is not running, with the files that it had, and returns when it accepts connections.
func (c *natsNodes) start(i int) {
	c.t.Helper()
	node := c.nodes[i]
	log, err := os.OpenFile(filepath.Join(c.dir, node.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(c.binary, "-c", node.config)
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close() // the node has its own
	if err != nil {
		c.t.Fatal(err)
	}
	node.cmd = cmd
	natstest.Eventually(c.t, node.name+" accepts connections; see "+c.dir, func() bool {
		conn, err := net.Dial("tcp", node.listen)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// kill does to a node what kill -9 does. Nothing happens when it is not running.
func (c *natsNodes) kill(i int) {
	node := c.nodes[i]
	if node.cmd == nil {
		return
	}
	if err := node.cmd.Process.Kill(); err != nil {
		c.t.Errorf("kill %s: %v", node.name, err)
	}
	_ = node.cmd.Wait() // it says that it was killed
	node.cmd = nil
}

func (c *natsNodes) urls() (urls []string) {
	for _, node := range c.nodes {
		urls = append(urls, "nats://"+node.listen)
	}
	return urls
}

// jetStream returns a connection of the test's own.
func (c *natsNodes) jetStream() jetstream.JetStream {
	c.t.Helper()
	js, err := jetstream.New(natstest.Connect(c.t, c.urls()))
	if err != nil {
		c.t.Fatal(err)
	}
	return js
}

// lead makes a node the leader of a stream, so that its death is felt.
func (c *natsNodes) lead(js jetstream.JetStream, stream string, i int) {
	c.t.Helper()
	want := c.nodes[i].name
	natstest.Eventually(c.t, want+" leads "+stream, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return false
		}
		if info := s.CachedInfo().Cluster; info != nil && info.Leader == want {
			return true
		}
		ask, err := json.Marshal(map[string]any{"placement": map[string]any{"preferred": want}})
		if err != nil {
			c.t.Fatal(err)
		}
		_, _ = js.Conn().RequestMsgWithContext(ctx, &nats.Msg{Subject: "$JS.API.STREAM.LEADER.STEPDOWN." + stream, Data: ask}) // asked again until it leads
		return false
	})
}

// A blackHole passes TCP connections on to a server. While it is cut it takes what comes and passes nothing on, and nobody is
// told: so does a network that drops everything. What was on its way goes on when it is given back, as TCP would see to.
// While it is severed it resets and refuses connections.
type blackHole struct {
	target string
	ln     net.Listener
	done   sync.WaitGroup

	mu      sync.Mutex
	open    chan struct{} // closed while bytes pass
	severed bool
	conns   map[net.Conn]struct{}
}

// newBlackHole starts one that passes everything on, and ends it with the test.
func newBlackHole(t *testing.T, target string) *blackHole {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &blackHole{target: strings.TrimPrefix(target, "nats://"), ln: ln, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(h.open)
	h.done.Go(h.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		h.giveBack()
		h.sever()
		h.done.Wait()
	})
	return h
}

func (h *blackHole) url() string { return "nats://" + h.ln.Addr().String() }

func (h *blackHole) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = make(chan struct{})
}

func (h *blackHole) sever() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.severed = true
	for c := range h.conns {
		_ = c.Close()
	}
}

func (h *blackHole) giveBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.severed = false
	select {
	case <-h.open:
	default:
		close(h.open)
	}
}

// keep takes a connection in, or closes it while it is severed.
func (h *blackHole) keep(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.severed {
		_ = c.Close()
		return false
	}
	h.conns[c] = struct{}{}
	return true
}

func (h *blackHole) drop(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = c.Close()
	delete(h.conns, c)
}

func (h *blackHole) accept() {
	for {
		c, err := h.ln.Accept()
		if err != nil {
			return
		}
		if !h.keep(c) {
			continue
		}
		up, err := net.Dial("tcp", h.target)
		if err != nil || !h.keep(up) {
			h.drop(c)
			continue
		}
		h.done.Go(func() { h.pass(c, up) })
		h.done.Go(func() { h.pass(up, c) })
	}
}

// pass carries bytes until either end has gone.
func (h *blackHole) pass(to, from net.Conn) {
	defer h.drop(to)
	defer h.drop(from)
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		h.mu.Lock()
		open := h.open
		h.mu.Unlock()
		<-open // also the end of a connection is not told while nothing passes
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// tail returns the end of a log file.
func tail(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 4 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
