package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/mqgate/mqgate/frame"
)

func TestTrimDue(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		name   string
		before trimmer
		now    memory
		due    bool
		floor  uint64 // afterwards
	}{
		{"idle, nothing grown", trimmer{80 * mib, 3, 5}, memory{80 * mib, 3, 5}, false, 80 * mib},
		{"growth at the limit", trimmer{80 * mib, 3, 0}, memory{82*mib + mib/2 + trimSlack, 3, 0}, false, 80 * mib},
		{"growth above the limit", trimmer{80 * mib, 3, 0}, memory{82*mib + mib/2 + trimSlack + 1, 3, 0}, true, 80 * mib},
		{"the runtime has collected", trimmer{80 * mib, 3, 0}, memory{80 * mib, 4, 0}, true, 80 * mib},
		{"traffic just below an eighth of the heap", trimmer{80 * mib, 3, 100}, memory{80 * mib, 4, 100 + 10*mib - 1}, true, 80 * mib},
		{"traffic of an eighth of the heap", trimmer{80 * mib, 3, 100}, memory{80 * mib, 4, 100 + 10*mib}, false, 80 * mib},
		{"grown, but busy", trimmer{80 * mib, 3, 100}, memory{800 * mib, 3, 100 + 100*mib}, false, 80 * mib},
		{"the heap has fallen by itself", trimmer{80 * mib, 3, 0}, memory{20 * mib, 3, 0}, false, 20 * mib},
	} {
		trimmer := test.before
		if got := trimmer.due(test.now); got != test.due {
			t.Errorf("%s: %v", test.name, got)
		}
		if trimmer.floor != test.floor || trimmer.traffic != test.now.traffic {
			t.Errorf("%s: %+v", test.name, trimmer)
		}
	}
	// After a trim nothing is due until something happens, also when the trim has freed nothing.
	trimmer, now := trimmer{}, memory{heap: 100 * mib, collections: 7}
	if !trimmer.due(now) {
		t.Error("the first look at a heap that has been collected")
	}
	now.collections += 2
	trimmer.trimmed(now)
	if trimmer.due(now) {
		t.Error("due again at once")
	}
	// After a fall the next growth is measured from there.
	now.heap = 10 * mib
	if trimmer.due(now) {
		t.Error("due for having fallen")
	}
	if now.heap = 20 * mib; !trimmer.due(now) {
		t.Error("the floor has not followed the heap down")
	}
}

// After every client has sent 64 KiB, the memory goes back.
func TestMemoryGoesBackAfterABurst(t *testing.T) {
	const clients, size = 2000, 64 << 10
	p := start(t, newStub(), "--echo-path=/echo", "--log-level=info", "--heartbeat=off")
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = dialEcho(t, p.addr)
	}
	trim()
	base := readMemory()

	// A masking key of zeros: all share one frame.
	burst := frame.AppendMaskedFrame(nil, frame.Binary, true, make([]byte, size), [4]byte{})
	before := p.traffic()
	for _, c := range conns {
		if _, err := c.Write(burst[:len(burst)-1]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all but the last bytes are with the gateway", func() bool {
		return p.traffic()-before == clients*uint64(len(burst)-1)
	})
	if held := readMemory().heap; held < base.heap+clients*size*9/10 {
		t.Fatalf("the heap is %d MiB, was %d: this is no burst", held>>20, base.heap>>20)
	}
	echoed := make([]byte, frame.HeaderSize(size, false)+size)
	for _, c := range conns {
		if _, err := c.Write(burst[len(burst)-1:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, echoed); err != nil {
			t.Fatal(err)
		}
	}
	rule := trimmer{floor: base.heap, collections: base.collections, traffic: p.traffic()}
	now := readMemory()
	if now.traffic = p.traffic(); !rule.due(now) {
		t.Errorf("a heap of %d MiB after %d is left as it is", now.heap>>20, base.heap>>20)
	}
	trim()
	// The heap of this test holds the clients too, and a collector's leftovers: 4 MiB of 128.
	if after := readMemory().heap; after > base.heap+4<<20 {
		t.Errorf("the heap is %d KiB, was %d before the burst", after>>10, base.heap>>10)
	}
	if got := p.samples(t)["mqgate_connections_open"]; got != fmt.Sprint(clients) {
		t.Errorf("%s connections are open", got)
	}
}

// dialEcho opens a connection to /echo that has no memory of its own.
func dialEcho(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	return c
}
