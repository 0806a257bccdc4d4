package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	readBuffer = 1 << 10  // [bytes] see doc.go
	maxMessage = 16 << 20 // [bytes] the largest that mqgate-bench sends
)

// A peer is one server. serve listens on addr, calls ready when connections are accepted, and returns only with an error.
type peer struct {
	name  string
	serve func(addr string, ready func(net.Addr)) error
}

// pingInterval is for the floor.
var pingInterval = new(time.Duration)

var peers = []peer{
	{"floor", func(addr string, ready func(net.Addr)) error { return serveFloor(addr, *pingInterval, ready) }},
	{"gorilla", serveGorilla},
	{"coder", serveCoder},
	{"gws", serveGWS},
	{"fasthttp", serveFastHTTP},
	{"gobwas", serveGobwas},
	{"netpoll", serveNetpoll},
}

func main() {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	usage := func(fault string) {
		fmt.Fprintf(os.Stderr, "peers: %s\nusage: peers %s [--listen HOST:PORT]; floor: [--ping-interval TIME]\n", fault, strings.Join(names, "|"))
		os.Exit(2)
	}
	if len(os.Args) < 2 {
		usage("no name of a peer")
	}
	i := slices.Index(names, os.Args[1])
	if i < 0 {
		usage(fmt.Sprintf("there is no peer %q", os.Args[1]))
	}
	flags := flag.NewFlagSet("peers "+names[i], flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on; port 0 picks one")
	if names[i] == "floor" {
		flags.DurationVar(pingInterval, "ping-interval", 0, "send pings instead of echoes, to every connection at this interval")
	}
	_ = flags.Parse(os.Args[2:]) // ExitOnError
	if *pingInterval < 0 {
		usage(fmt.Sprintf("--ping-interval: %v is negative", *pingInterval))
	}
	if flags.NArg() > 0 {
		usage(fmt.Sprintf("unexpected argument %q", flags.Arg(0)))
	}
	err := peers[i].serve(*listen, func(addr net.Addr) {
		fmt.Printf("msg=listening peer=%s addr=%s pid=%d gomaxprocs=%d\n", names[i], addr, os.Getpid(), runtime.GOMAXPROCS(0))
	})
	fmt.Fprintf(os.Stderr, "peers: %s: %v\n", names[i], err)
	os.Exit(1)
}

// listen opens a listening socket of package net, which sets TCP_NODELAY on what it accepts, and no keepalive: none of the
// servers compared sends any.
func listen(addr string, ready func(net.Addr)) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if t, ok := ln.(*net.TCPListener); ok {
		ln = quiet{t}
	}
	ready(ln.Addr())
	return ln, nil
}

type quiet struct{ *net.TCPListener }

func (q quiet) Accept() (net.Conn, error) {
	c, err := q.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, c.SetKeepAlive(false)
}
