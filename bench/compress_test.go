package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame/deflate"
)

// What both ends want is agreed on and counted, and messages survive it.
func TestCompression(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		server, offered deflate.Mode
		agreed          bool
	}{
		{deflate.Off, deflate.Shared, false},
		{deflate.Off, deflate.Takeover, false},
		{deflate.Shared, deflate.Shared, true},
		{deflate.Shared, deflate.Takeover, true},
		{deflate.Takeover, deflate.Shared, true},
		{deflate.Takeover, deflate.Takeover, true},
		{deflate.Shared, deflate.Off, false},
	} {
		for _, scenario := range []string{scenarioConnect, scenarioEcho} {
			t.Run(fmt.Sprintf("%s, %v at the server, %v offered", scenario, test.server, test.offered), func(t *testing.T) {
				t.Parallel()
				s := &echoServer{compression: test.server}
				s.serve(t)
				o := s.options(t, scenario)
				o.Compression = test.offered
				if scenario == scenarioEcho {
					o.Payload, o.Text = 4096, true
				} else {
					o.BurstBytes, o.BurstAfter, o.BurstEcho = 4096, 50*time.Millisecond, true
				}
				p := mustRun(t, t.Context(), o)
				if !p.OK || p.Messages < 8 {
					t.Errorf("the report is %+v", *p)
				}
				want := uint64(0)
				if test.agreed {
					want = uint64(o.Connections)
				}
				if test.offered == deflate.Off {
					if p.Compressed != nil {
						t.Errorf("%d connections agreed without an offer", *p.Compressed)
					}
				} else if p.Compressed == nil || *p.Compressed != want {
					t.Errorf("the report counts %v connections that agreed, want %d", p.Compressed, want)
				}
				var packed uint64
				s.server.Each(func(r *conn.Registry) { packed += r.Snapshot().Conn.CompressedReceived })
				if (packed > 0) != (test.agreed && o.Text) { // the pattern of binary messages does not get any shorter
					t.Errorf("%d messages came in compressed", packed)
				}
			})
		}
	}
}
