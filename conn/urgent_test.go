package conn

import (
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/frame"
)

// L2.1: nothing goes ahead of the answer to the upgrade, which is no frame: not the pong for a ping that came with the
// request, and not our ping when the peer is slow to take the answer (L7.1). Both go ahead of waiting messages later.
func TestNothingGoesAheadOfTheAnswer(t *testing.T) {
	n := newNode(t)
	p := n.dialIn()
	p.Send(append([]byte(request()), p.frame(frame.Ping, "early")...))
	n.net.Run()
	p.expect(`pong "early"`)
	if !strings.HasPrefix(p.http, "HTTP/1.1 101 ") {
		t.Fatalf("the answer began with %q", p.http)
	}

	slow := n.dialIn()
	slow.SetWindow(0)
	slow.Send([]byte(request()))
	n.advance(5 * time.Second)
	if slow.SetWindow(1 << 20); slow.Unread() != 0 {
		t.Fatal("the request was not read")
	}
	n.net.Run()
	slow.read()
	if !strings.HasPrefix(slow.http, "HTTP/1.1 101 ") {
		t.Fatalf("the answer began with %q", slow.http)
	}
}
