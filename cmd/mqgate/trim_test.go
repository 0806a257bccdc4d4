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
		name                     string
		floor, before            uint64 // of the trimmer: heap and traffic
		heap, traffic            uint64
		due                      bool
		floorAfter, trafficAfter uint64
	}{
		{"idle, nothing grown", 80 * mib, 5, 80 * mib, 5, false, 80 * mib, 5},
		{"at the limit", 80 * mib, 0, 98 * mib, 0, false, 80 * mib, 0},
		{"above the limit", 80 * mib, 0, 98*mib + 1, 0, true, 80 * mib, 0},
		{"small heaps have slack", 0, 0, 8 * mib, 0, false, 0, 0},
		{"above the slack", 0, 0, 8*mib + 1, 0, true, 0, 0},
		{"traffic just below what could be freed", 80 * mib, 100, 100 * mib, 100 + 20*mib - 1, true, 80 * mib, 100 + 20*mib - 1},
		{"traffic as much as could be freed", 80 * mib, 100, 100 * mib, 100 + 20*mib, false, 80 * mib, 100 + 20*mib},
		{"the heap has fallen by itself", 80 * mib, 0, 20 * mib, 0, false, 20 * mib, 0},
	} {
		trimmer := trimmer{floor: test.floor, traffic: test.before}
		if got := trimmer.due(test.heap, test.traffic); got != test.due {
			t.Errorf("%s: %v", test.name, got)
		}
		if trimmer.floor != test.floorAfter || trimmer.traffic != test.trafficAfter {
			t.Errorf("%s: %+v", test.name, trimmer)
		}
	}
	// After a fall the next growth is measured from there.
	trimmer := trimmer{floor: 1000 * mib}
	if trimmer.due(10*mib, 0) || !trimmer.due(20*mib, 0) {
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
	base := trim()

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
	if held := heapInUse(); held < base+clients*size*9/10 {
		t.Fatalf("the heap is %d MiB, was %d: this is no burst", held>>20, base>>20)
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
	rule := trimmer{floor: base, traffic: p.traffic()}
	if heap := heapInUse(); !rule.due(heap, p.traffic()) {
		t.Errorf("a heap of %d MiB after %d is left as it is", heap>>20, base>>20)
	}
	if after := trim(); after > base+base/8+trimSlack {
		t.Errorf("the heap is %d MiB, was %d before the burst", after>>20, base>>20)
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
