package roomstore_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

// BenchmarkSay sends chat messages of 100 bytes to one room: by one client, which waits for each answer, and by 64 at
// once, through one worker and through two, in a room of ten and of a thousand. The server is in this process and keeps
// its streams in memory.
func BenchmarkSay(b *testing.B) {
	for _, c := range []struct{ workers, senders, members int }{{1, 1, 10}, {1, 64, 64}, {2, 64, 64}, {1, 1, 1000}, {1, 64, 1000}} {
		b.Run(fmt.Sprintf("workers=%d/senders=%d/members=%d", c.workers, c.senders, c.members), func(b *testing.B) {
			s := newSystem(b, rooms.DefaultConfig())
			for range c.workers {
				s.start()
			}
			clients := make([]*client, c.members)
			for i := range clients {
				clients[i] = s.login()
				if i == 0 {
					clients[i].create("r")
				}
				if status := clients[i].join("r"); status != wire.StatusOK {
					b.Fatal(status)
				}
			}
			text := strings.Repeat("x", 100)
			var left atomic.Int64
			var mu sync.Mutex
			var took []time.Duration
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, c := range clients[:c.senders] {
				wg.Go(func() {
					var mine []time.Duration
					for left.Add(-1) >= 0 {
						start := time.Now()
						if status := c.say("r", text); status != wire.StatusOK {
							b.Error(status)
						}
						mine = append(mine, time.Since(start))
					}
					mu.Lock()
					defer mu.Unlock()
					took = append(took, mine...)
				})
			}
			wg.Wait()
			b.StopTimer()
			slices.Sort(took)
			var st [3]int64
			for _, w := range s.workers {
				x := w.e.Stats()
				st[0], st[1], st[2] = st[0]+x.Commits, st[1]+x.Operations, st[2]+x.Conflicts
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
			b.ReportMetric(float64(st[1])/float64(st[0]), "operations/commit")
			b.ReportMetric(float64(st[2])/float64(st[0]), "conflicts/commit")
		})
	}
}

// BenchmarkSnapshot writes and reads the snapshot of rooms with a full history, without a server.
func BenchmarkSnapshot(b *testing.B) {
	limits := rooms.DefaultLimits()
	limits.MembersPerRoom = 1 << 20
	for _, members := range []int{1000, 10_000} {
		var events []rooms.Event
		var who string
		for i := range members {
			who = rand.Text()
			e := wire.RoomEvent{RoomID: "r", EventType: wire.MemberJoined, Timestamp: uint64(1_700_000_000_000 + i),
				Members: []wire.Member{{SessionID: who, ScreenName: fmt.Sprint("somebody ", i), LastUpdate: uint64(1_700_000_000_000 + i)}}}
			events = append(events, rooms.Event{Type: wire.TypeRoomEvent, Payload: e.AppendTo(nil)})
		}
		r, err := rooms.Replay(nil, nil, []byte{0x0a, 7, 0x12, 3, 0x0a, 1, 'r', 0x18, 1}, &limits)
		if err == nil {
			r, err = rooms.Replay(r, events, nil, &limits)
		}
		if err != nil {
			b.Fatal(err)
		}
		snapshot := r.AppendSnapshot(nil)
		b.Run(fmt.Sprintf("write/members=%d", members), func(b *testing.B) {
			for b.Loop() {
				snapshot = r.AppendSnapshot(snapshot[:0])
			}
			b.ReportMetric(float64(len(snapshot)), "bytes")
		})
		b.Run(fmt.Sprintf("read/members=%d", members), func(b *testing.B) {
			for b.Loop() {
				if _, err := rooms.DecodeSnapshot(snapshot, &limits); err != nil {
					b.Fatal(err)
				}
			}
		})
		var res rooms.Result
		b.Run(fmt.Sprintf("message in a transaction/members=%d", members), func(b *testing.B) {
			for b.Loop() {
				r.Begin()
				r.Send(who, "text", 0, &limits, &res)
				r.Commit()
			}
		})
		b.Run(fmt.Sprintf("join and leave in a transaction/members=%d", members), func(b *testing.B) {
			for b.Loop() {
				r.Begin()
				r.Join("new", 0, &wire.Member{}, false, 0, &limits, &res)
				r.Leave("new", 0, &res)
				r.Commit()
			}
		})
	}
}
