package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/loop"
)

func TestParseTakeover(t *testing.T) {
	const good = `{"version":1,"message":"listeners","pid":7,"listeners":[{"kind":"admin","index":0,"address":"127.0.0.1:1"}],"more":true}`
	m, err := parseTakeover([]byte(good), takeoverListeners, 1)
	if err != nil || !m.More || m.PID != 7 || m.Listeners[0] != (takeoverListener{Kind: "admin", Address: "127.0.0.1:1"}) {
		t.Errorf("%+v, %v", m, err)
	}
	for text, want := range map[string]string{
		good[:len(good)-2]:                 "not JSON",
		`[]`:                               "not JSON",
		`{}`:                               "version 0",
		`{"version":2,"message":"refuse"}`: "version 2",
		`{"version":1,"message":"done"}`:   `message "done"`,
		`{"version":1,"message":"refuse","reason":"because"}`: "because",
		`{"version":1,"message":"listeners"}`:                 "0 listeners with 1 descriptors",
	} {
		_, err := parseTakeover([]byte(text), takeoverListeners, 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
		if _, refused := errors.AsType[*refusal](err); refused != (want == "because") {
			t.Errorf("%s: %T", text, err)
		}
	}
}

// More descriptors than one packet carries arrive in order, each what it says; others' order is refused.
func TestTakeoverManyListeners(t *testing.T) {
	dir := socketPath(t)
	ln, err := listenTakeover(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client := dialTakeover(t, dir)
	server, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	const addresses, each = 3, takeoverMaxFDs/2 + 17
	var list []takeoverListener
	var fds []int
	for i := range addresses {
		socket := listenLocal(t, "127.0.0.1:0").(*net.TCPListener)
		a := &admin{listener: socket}
		for k := range each {
			fd, addr, err := a.duplicate()
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
			list = append(list, takeoverListener{Kind: takeoverClient, Index: i, Address: addr, Loop: k})
		}
	}
	defer closeFDs(fds)
	sent := make(chan error, 1)
	go func() { sent <- sendListeners(server, list, fds) }()
	p := &predecessor{conn: client}
	defer p.close(nil)
	if err := p.take(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "all are sent", sent); err != nil {
		t.Fatal(err)
	}
	if len(p.listeners.clients) != addresses || p.listeners.admin != nil {
		t.Fatalf("%d addresses", len(p.listeners.clients))
	}
	for i, l := range p.listeners.clients {
		if len(l.fds) != each || l.addr.String() != list[i*each].Address {
			t.Errorf("address %d: %d sockets on %v", i, len(l.fds), l.addr)
		}
		for _, fd := range l.fds {
			if addr, err := loop.ListeningOn(fd); err != nil || addr != l.addr {
				t.Fatalf("address %d: a socket on %v, %v", i, addr, err)
			}
		}
	}
	if err := checkPeer(client, os.Getuid()); err != nil {
		t.Error(err)
	}
	if err := checkPeer(client, os.Getuid()+1); err == nil || !strings.Contains(err.Error(), "runs as user") {
		t.Errorf("another user: %v", err)
	}
}

func TestInheritedFill(t *testing.T) {
	client := func(index int, addr string) takeoverListener {
		return takeoverListener{Kind: takeoverClient, Index: index, Address: addr}
	}
	adm := takeoverListener{Kind: takeoverAdmin, Address: "127.0.0.1:9090"}
	for name, list := range map[string][]takeoverListener{
		"an index left out":      {client(1, "127.0.0.1:1")},
		"no --listen":            {client(-1, "127.0.0.1:1")},
		"back again":             {client(0, "127.0.0.1:1"), client(1, "127.0.0.1:2"), client(0, "127.0.0.1:1")},
		"two addresses of index": {client(0, "127.0.0.1:1"), client(0, "127.0.0.1:2")},
		"two admins":             {adm, adm},
		"no address":             {client(0, "localhost")},
		"a kind unknown":         {{Kind: "other", Address: "127.0.0.1:1"}},
	} {
		var in inherited
		fds := make([]int, len(list))
		for i := range fds {
			fds[i] = -1
		}
		if err := in.fill(list, fds); err == nil {
			t.Errorf("%s: taken as %+v", name, in)
		}
	}
}

func TestInheritedMatches(t *testing.T) {
	addr := netip.MustParseAddrPort
	one := func(a string) listeners { return listeners{addr: addr(a)} }
	for _, test := range []struct {
		flags   []string
		clients []listeners
		admin   string
		want    string // "": fine
	}{
		{[]string{"--listen=127.0.0.1:0"}, []listeners{one("127.0.0.1:5")}, "127.0.0.1:6", ""},
		{[]string{"--listen=127.0.0.1:5", "--admin=127.0.0.1:6"}, []listeners{one("127.0.0.1:5")}, "127.0.0.1:6", ""},
		{[]string{"--listen=:0"}, []listeners{one("[::]:5")}, "", ""},
		{[]string{"--listen=:5"}, []listeners{one("0.0.0.0:5")}, "", ""},
		{[]string{"--listen=:5"}, []listeners{one("127.0.0.1:5")}, "", "--listen is :5"},
		{[]string{"--listen=127.0.0.1:5"}, []listeners{one("0.0.0.0:5")}, "", "--listen is 127.0.0.1:5"},
		{[]string{"--listen=127.0.0.1:5", "--listen=127.0.0.1:6"}, []listeners{one("127.0.0.1:6"), one("127.0.0.1:5")}, "", "listens on 127.0.0.1:6"},
		{[]string{"--listen=127.0.0.1:5"}, []listeners{one("127.0.0.1:5"), one("127.0.0.1:6")}, "", "on 2 addresses"},
		{[]string{"--listen=127.0.0.1:5", "--listen=127.0.0.1:6"}, nil, "", ""}, // all closed
		{[]string{"--listen=127.0.0.1:5", "--admin="}, []listeners{one("127.0.0.1:5")}, "", ""},
		{[]string{"--listen=127.0.0.1:5", "--admin="}, nil, "127.0.0.1:6", "--admin is off"},
		{[]string{"--listen=127.0.0.1:5", "--admin=127.0.0.1:7"}, nil, "127.0.0.1:6", "--admin is 127.0.0.1:7"},
		{[]string{"--listen=127.0.0.1:5", "--admin=127.0.0.2:0"}, nil, "127.0.0.1:6", "--admin is 127.0.0.2:0"},
	} {
		in := inherited{clients: test.clients}
		if test.admin != "" {
			in.admin = &listeners{addr: addr(test.admin)}
		}
		err := in.matches(configure(t, test.flags...))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v with %v, %q: %v, expected %q", test.flags, test.clients, test.admin, err, test.want)
		}
	}
}
