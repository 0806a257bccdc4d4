package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/mqgate/mqgate/mq/wire"
)

// What a service manager passes is sorted by address and name, and checked.
func TestInheritedAdd(t *testing.T) {
	sockets := map[string]*net.TCPListener{}
	for _, name := range []string{"a", "b", "admin"} {
		sockets[name] = listenLocal(t, "127.0.0.1:0").(*net.TCPListener)
	}
	fd := func(name string) int {
		fd, _, err := (&admin{listener: sockets[name]}).duplicate()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeFDs([]int{fd}) })
		return fd
	}
	var in inherited
	defer in.close()
	for _, pass := range [][2]string{{"a", "a.socket"}, {"b", "connections"}, {"admin", "admin"}, {"a", "LISTEN_FD_6"}} {
		if err := in.add(fd(pass[0]), pass[1]); err != nil {
			t.Errorf("%v: %v", pass, err)
		}
	}
	if len(in.clients) != 2 || len(in.clients[0].fds) != 2 || len(in.clients[1].fds) != 1 || in.admin == nil ||
		in.clients[1].addr.String() != sockets["b"].Addr().String() || in.admin.addr.String() != sockets["admin"].Addr().String() {
		t.Errorf("%+v", in)
	}
	if err := in.add(fd("b"), "admin"); err == nil || !strings.Contains(err.Error(), "another of that name") {
		t.Errorf("a second admin: %v", err)
	}
	if err := in.add(0, "stdin"); err == nil {
		t.Error("standard input is a listener")
	}
	for flags, want := range map[string]string{
		"--takeover=/run/x": "use one of the two",
		"--admin=":          "--admin is off",
		"--loops=1":         "",
	} {
		if err := in.check(configure(t, flags)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", flags, err, want)
		}
	}
	public := inherited{admin: &listeners{addr: netip.MustParseAddrPort("0.0.0.0:9090")}}
	if err := public.check(configure(t, "--loops=1")); err == nil || !strings.Contains(err.Error(), "bearer token") {
		t.Errorf("an admin socket for everybody without a token: %v", err)
	}
	if err := (*inherited)(nil).check(configure(t, "--takeover=/run/x")); err != nil {
		t.Error(err)
	}
}

// With sockets of a service manager a cancelled drain takes the same sockets again, in which clients waited meanwhile.
func TestInheritedDrainCancelled(t *testing.T) {
	for _, tables := range []string{"shared", "per-loop"} {
		t.Run(tables, func(t *testing.T) { testInheritedDrainCancelled(t, tables) })
	}
}

func testInheritedDrainCancelled(t *testing.T, tables string) {
	socket := listenLocal(t, "127.0.0.1:0").(*net.TCPListener)
	fd, _, err := (&admin{listener: socket}).duplicate()
	if err != nil {
		t.Fatal(err)
	}
	in := new(inherited)
	defer in.close()
	err = in.add(fd, "clients")
	closeFDs([]int{fd})
	_ = socket.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := startWith(t, newStub(), in, "--close-timeout=1h", "--drain-timeout=2h", "--loops=2", "--fd-tables="+tables)
	if p.addr != in.clients[0].addr.String() {
		t.Errorf("it listens on %s, not %v", p.addr, in.clients[0].addr)
	}
	stays := p.dial(t, "/ws") // which does not answer the Close: the drain goes on
	half := beginHandshake(t, p.addr)
	eventually(t, "it was accepted", func() bool { s, _ := p.drainer.total(); return s.Handshake == 1 })
	p.drainer.Start()
	waiting := func() bool { // nobody accepts any more
		all, err := p.server.Listening()
		for _, l := range all {
			closeFDs([]int{l.FD})
		}
		return err == nil && len(all) == 0
	}
	eventually(t, "it has stopped listening", waiting)
	upgraded := make(chan error, 1)
	go func() {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+p.addr+"/ws", nil)
		if err == nil {
			_ = ws.Close()
		}
		upgraded <- err
	}()
	if cancelled, err := p.drainer.Cancel(); !cancelled || err != nil {
		t.Fatalf("cancelled %t, %v", cancelled, err)
	}
	if err := receive(t, "who waited is served", upgraded); err != nil {
		t.Error(err)
	}
	stays.send(t, wire.Envelope{RequestID: "C1", Type: "test.Now"})
	stays.read(t)
	_ = half.Close()
}
