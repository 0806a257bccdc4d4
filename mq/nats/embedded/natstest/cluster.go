package natstest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Cluster is a JetStream cluster. Its nodes are processes on 127.0.0.1, numbered from 0, each with a log file in Dir.
// Its methods may be called by the goroutine of the test only.
type Cluster struct {
	Dir   string
	t     testing.TB
	nodes []*clusterNode
}

type clusterNode struct {
	name, listen, config, log string
	cmd                       *exec.Cmd // nil: not running
	stdin                     io.WriteCloser
}

// StartCluster starts n nodes, waits until streams with n replicas can be made, and ends the nodes with the test.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{Dir: t.TempDir(), t: t}
	ports := freePorts(t, 2*n)
	var routes []string
	for _, port := range ports[n:] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for i := range n {
		name := fmt.Sprintf("node%d", i)
		node := &clusterNode{name: name, listen: fmt.Sprintf("127.0.0.1:%d", ports[i]),
			config: filepath.Join(c.Dir, name+".conf"), log: filepath.Join(c.Dir, name+".log")}
		config := fmt.Sprintf(`server_name: %s
jetstream { store_dir: %q, max_mem: 256MB, max_file: 1GB }
cluster { name: natstest, listen: "127.0.0.1:%d", routes: [%s] }
`, name, filepath.Join(c.Dir, name), ports[n+i], strings.Join(routes, ", "))
		if err := os.WriteFile(node.config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, node)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.Kill(i)
		}
	})
	for i := range c.nodes {
		c.Restart(i)
	}
	c.awaitReplicas(n)
	return c
}

// URLs returns where clients connect, one per node.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, node := range c.nodes {
		urls = append(urls, "nats://"+node.listen)
	}
	return urls
}

// Kill ends a node as a power cut of its machine would, except that what it has written to files is kept. Nothing happens
// when it is not running.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	node := c.nodes[i]
	if node.cmd == nil {
		return
	}
	if err := node.cmd.Process.Kill(); err != nil {
		c.t.Errorf("kill %s: %v", node.name, err)
	}
	_ = node.cmd.Wait() // it says that it was killed
	_ = node.stdin.Close()
	node.cmd = nil
}

// Pause stops a node where it is: its connections stay, nothing answers. Resume lets it go on.
func (c *Cluster) Pause(i int) { c.signal(i, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (c *Cluster) Resume(i int) { c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	if err := c.nodes[i].cmd.Process.Signal(s); err != nil {
		c.t.Fatalf("%v to %s: %v", s, c.nodes[i].name, err)
	}
}

// Restart starts a node that is not running, with the files that it had, and returns when it accepts connections.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	node := c.nodes[i]
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	log, err := os.OpenFile(node.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+node.config, listenEnv+"="+node.listen)
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	_ = log.Close() // the node has its own
	if err != nil {
		c.t.Fatal(err)
	}
	node.cmd, node.stdin = cmd, stdin
	Eventually(c.t, node.name+" accepts connections; see "+node.log, func() bool {
		conn, err := net.Dial("tcp", node.listen)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// awaitReplicas waits until a stream with n replicas can be made: the nodes know each other and have a leader.
func (c *Cluster) awaitReplicas(n int) {
	c.t.Helper()
	nc := Connect(c.t, c.URLs())
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	const probe = "natstest_probe"
	Eventually(c.t, "streams with all replicas can be made; see "+c.Dir, func() bool {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		defer done()
		_, err := js.CreateStream(attempt, jetstream.StreamConfig{Name: probe, Replicas: n, Storage: jetstream.MemoryStorage})
		return err == nil
	})
	if err := js.DeleteStream(ctx, probe); err != nil {
		c.t.Fatal(err)
	}
}

// LeaderOf waits until a stream has a leader among the nodes that run, and returns its number.
func (c *Cluster) LeaderOf(nc *nats.Conn, stream string) int {
	c.t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	leader := -1
	Eventually(c.t, "stream "+stream+" has a leader", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return false
		}
		info := s.CachedInfo()
		for i, node := range c.nodes {
			if info.Cluster != nil && info.Cluster.Leader == node.name && node.cmd != nil {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

// freePorts returns n ports below those that the system gives out, so that a node that is started again finds its own
// free.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := 12000 + rand.IntN(20000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // taken
		}
		defer ln.Close() // so that none is found twice
		ports = append(ports, port)
	}
	t.Fatal("no free ports")
	return nil
}
