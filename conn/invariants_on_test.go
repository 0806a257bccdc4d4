//go:build invariants

package conn

import (
	"strings"
	"testing"

	"github.com/mqgate/mqgate/frame"
)

// A handler that keeps its payload beyond OnMessage finds it overwritten, whether it lay in the loop's read buffer or in
// a buffer of the connection.
func TestKeptPayloadIsMangled(t *testing.T) {
	for name, pieces := range map[string]int{"in the read buffer": 1, "assembled": 2, "byte by byte": 1000} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			var kept []byte
			n.h.message = func(_ *Conn, _ frame.OpCode, p []byte) {
				if string(p) != strings.Repeat("k", 500) {
					t.Errorf("got %q", p)
				}
				kept = p
			}
			p := n.connect()
			b := p.frame(frame.Binary, strings.Repeat("k", 500))
			for size := max(1, len(b)/pieces); len(b) > 0; b = b[min(size, len(b)):] {
				p.Send(b[:min(size, len(b))])
				n.net.Run()
			}
			if len(kept) != 500 {
				t.Fatalf("kept %d bytes", len(kept))
			}
			for i, k := range kept {
				if k == 'k' {
					t.Fatalf("byte %d of the kept payload is still what it was", i)
				}
			}
			p.sendClose(1000, "")
			p.quit()
		})
	}
}

// The same for the reason handed to OnClose.
func TestKeptReasonIsMangled(t *testing.T) {
	n := newNode(t)
	var kept []byte
	n.h.close = func(_ *Conn, e End) { kept = e.Reason }
	p := n.connect()
	p.sendClose(1000, "kept")
	if len(kept) != 4 || string(kept) == "kept" {
		t.Errorf("kept %q", kept)
	}
	p.quit()
}
