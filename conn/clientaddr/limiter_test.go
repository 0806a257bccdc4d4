package clientaddr

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func newLimiter(t testing.TB, connections, rate, addresses int) *Limiter {
	t.Helper()
	l, err := NewLimiter(LimiterConfig{connections, rate, addresses})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// nth returns an address of its own /64 for each n.
func nth(n int) netip.Addr {
	b := [16]byte{0: 0x20, 1: 0x01}
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	b[15] = byte(n) // not looked at
	return netip.AddrFrom16(b)
}

// verify checks what must hold of the table between any two calls.
func verify(t testing.TB, l *Limiter) {
	t.Helper()
	total := 0
	for n := range l.shards {
		s := &l.shards[n]
		total += len(s.index)
		unused := 0
		for i := s.free; i != none; i = s.slab[i].newer {
			unused++
		}
		if unused+len(s.index) != len(s.slab) {
			t.Fatalf("%d entries, %d known and %d unused", len(s.slab), len(s.index), unused)
		}
		idle, last, older := 0, int64(-1<<62), none
		for i := s.oldest; i != none; i = s.slab[i].newer {
			e := &s.slab[i]
			if !e.idle || e.at < last || e.at > s.now || e.older != older {
				t.Fatalf("the list of the idle is broken at %+v, after time %d, before %d", e, last, s.now)
			}
			idle, last, older = idle+1, e.at, i
		}
		if s.newest != older {
			t.Fatalf("the newest idle is %d, not %d", s.newest, older)
		}
		for k, i := range s.index {
			e := &s.slab[i]
			if e.key != k || e.idle != (e.connections == 0) || e.bucket < 0 || e.bucket > s.full() {
				t.Fatalf("%v is %+v", k, e)
			}
			if l.connections > 0 && e.connections > l.connections {
				t.Fatalf("%d connections", e.connections)
			}
			if e.idle {
				idle--
			}
		}
		if idle != 0 {
			t.Fatalf("%d too many in the list of the idle", idle)
		}
	}
	if total != l.Addresses() || total > int(l.max) {
		t.Fatalf("%d addresses are kept, %d counted, of %d", total, l.Addresses(), l.max)
	}
}

// L2.6: --max-connections-per-ip below, at and above the limit.
func TestConnectionsPerAddress(t *testing.T) {
	for _, rate := range []int{0, 1000} {
		for _, limit := range []int{1, 2, 100} {
			l := newLimiter(t, limit, rate, 1000)
			a, b := addr("192.0.2.1"), addr("192.0.2.2")
			for i := range limit {
				if v := l.Admit(a, 0); v != Admitted {
					t.Fatalf("connection %d of %d: %v", i+1, limit, v)
				}
			}
			for range 3 {
				if v := l.Admit(a, 0); v != TooManyConnections {
					t.Fatalf("connection %d of %d: %v", limit+1, limit, v)
				}
			}
			if v := l.Admit(b, 0); v != Admitted {
				t.Fatalf("another address: %v", v)
			}
			l.Release(a)
			if v := l.Admit(a, 0); v != Admitted {
				t.Fatalf("after one of %d was released: %v", limit, v)
			}
			if v := l.Admit(a, 0); v != TooManyConnections {
				t.Fatalf("connection %d of %d again: %v", limit+1, limit, v)
			}
			for range limit {
				l.Release(a)
			}
			l.Release(b)
			verify(t, l)
			l.Sweep(second)
			if n := l.Addresses(); n != 0 {
				t.Errorf("%d addresses are kept without connections", n)
			}
		}
	}
}

// L2.6: --handshake-rate-per-ip: as many at once, then one each time that one has flowed in again, exactly.
func TestHandshakeRate(t *testing.T) {
	for _, connections := range []int{0, MaxConnectionsPerAddress} {
		for _, rate := range []int{1, 2, 3, 7, 10, 1000, 99_991} {
			l := newLimiter(t, connections, rate, 10)
			a := addr("192.0.2.1")
			const start = 12345
			for i := range rate {
				if v := l.Admit(a, start); v != Admitted {
					t.Fatalf("rate %d: handshake %d: %v", rate, i+1, v)
				}
			}
			if v := l.Admit(a, start); v != TooManyHandshakes {
				t.Fatalf("rate %d: handshake %d: %v", rate, rate+1, v)
			}
			// The n-th comes free after n/rate seconds, rounded up to a nanosecond.
			for n := 1; n <= min(rate, 50); n++ {
				at := start + (int64(n)*second+int64(rate)-1)/int64(rate)
				for range 3 { // refusals cost nothing
					if v := l.Admit(a, at-1); v != TooManyHandshakes {
						t.Fatalf("rate %d: one nanosecond before the %dth more: %v", rate, n, v)
					}
				}
				if v := l.Admit(a, at); v != Admitted {
					t.Fatalf("rate %d: the %dth more: %v", rate, n, v)
				}
				if v := l.Admit(a, at); v != TooManyHandshakes && rate < second {
					t.Fatalf("rate %d: two at the time of the %dth more: %v", rate, n, v)
				}
			}
			if v := l.Admit(addr("192.0.2.2"), start); v != Admitted {
				t.Fatalf("another address: %v", v)
			}
			// However long it was away, it has no more than a second's.
			for i := range rate + 1 {
				want := Admitted
				if i == rate {
					want = TooManyHandshakes
				}
				if v := l.Admit(a, 1000*second); v != want {
					t.Fatalf("rate %d: handshake %d after a while: %v", rate, i+1, v)
				}
			}
			verify(t, l)
		}
	}
}

// L2.6: closing a connection does not give the handshake back.
func TestRateOutlivesConnections(t *testing.T) {
	l := newLimiter(t, 1, 3, 10)
	a := addr("192.0.2.1")
	for i := range 4 {
		want := Admitted
		if i == 3 {
			want = TooManyHandshakes
		}
		v := l.Admit(a, int64(i))
		if v != want {
			t.Fatalf("handshake %d: %v", i+1, v)
		}
		if v == Admitted {
			l.Release(a)
		}
		verify(t, l)
	}
	if v := l.Admit(a, second/3+1); v != Admitted {
		t.Errorf("a third of a second later: %v", v)
	}
	if v := l.Admit(a, second/3+1); v != TooManyConnections {
		t.Errorf("both limits reached: %v; the connections come first", v)
	}
}

// L2.6: an IPv6 address counts as its /64.
func TestOneSubscriber(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.2", false},
		{"192.0.2.1", "::192.0.2.1", false},
		{"2001:db8::1", "2001:db8::1", true},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"fe80::1%eth0", "fe80::1", true},
		{"64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", false}, // translated IPv4
		{"64:ff9b::192.0.2.1", "192.0.2.1", true},
		{"64:ff9b::192.0.2.1%eth0", "192.0.2.1", true},
		{"64:ff9b:0:0:1::1", "64:ff9b:0:0:2::1", true}, // not translated
		{"::1", "::", true},
		{"::", "0.0.0.0", false},
	} {
		l := newLimiter(t, 1, 0, 10)
		want := Admitted
		if tc.same {
			want = TooManyConnections
		}
		if v := l.Admit(addr(tc.a), 0); v != Admitted {
			t.Fatalf("%s: %v", tc.a, v)
		}
		if v := l.Admit(addr(tc.b), 0); v != want {
			t.Errorf("%s after %s: %v", tc.b, tc.a, v)
		}
	}
}

// What is switched off admits everybody and keeps nothing.
func TestLimiterOff(t *testing.T) {
	for name, l := range map[string]*Limiter{"nil": nil, "no limits": newLimiter(t, 0, 0, 1), "no address": newLimiter(t, 1, 1, 1)} {
		a := addr("192.0.2.1")
		if name == "no address" {
			a = netip.Addr{}
		}
		for range 1000 {
			if v := l.Admit(a, 0); v != Admitted {
				t.Fatalf("%s: %v", name, v)
			}
		}
		l.Release(a)
		l.Sweep(0)
		if n := l.Addresses(); n != 0 {
			t.Errorf("%s: %d addresses", name, n)
		}
	}
	l := newLimiter(t, 0, 5, 10) // connections not counted
	a := addr("192.0.2.1")
	l.Release(a)
	if v := l.Admit(a, 0); v != Admitted {
		t.Error(v)
	}
	l.Release(a)
	verify(t, l)
}

func TestReleasePanics(t *testing.T) {
	for name, prepare := range map[string]func(l *Limiter){
		"never seen": func(*Limiter) {},
		"other":      func(l *Limiter) { l.Admit(addr("192.0.2.2"), 0) },
		"twice":      func(l *Limiter) { l.Admit(addr("192.0.2.1"), 0); l.Release(addr("192.0.2.1")) },
	} {
		for _, rate := range []int{0, 10} {
			l := newLimiter(t, 5, rate, 10)
			prepare(l)
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s, rate %d: no panic", name, rate)
					}
				}()
				l.Release(addr("192.0.2.1"))
			}()
			l.Admit(addr("192.0.2.1"), 0) // it is not locked for good
		}
	}
}

func TestLimiterConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg    LimiterConfig
		faults []string
	}{
		{LimiterConfig{0, 0, 1}, nil},
		{LimiterConfig{MaxConnectionsPerAddress, MaxHandshakeRate, MaxLimiterAddresses}, nil},
		{LimiterConfig{-1, -1, 0}, []string{"ConnectionsPerAddress is -1", "HandshakesPerSecond is -1", "MaxAddresses is 0"}},
		{LimiterConfig{MaxConnectionsPerAddress + 1, MaxHandshakeRate + 1, MaxLimiterAddresses + 1}, []string{"ConnectionsPerAddress", "range is 0 to 1000000", "range is 1 to"}},
	} {
		l, err := NewLimiter(tc.cfg)
		faults(t, err, tc.faults)
		if (l == nil) != (err != nil) {
			t.Errorf("%v: %v, %v", tc.cfg, l, err)
		}
	}
	seen := map[string]bool{}
	for v := Admitted; v <= TooManyAddresses+1; v++ {
		if seen[v.String()] {
			t.Errorf("two verdicts %v", v)
		}
		seen[v.String()] = true
	}
}

// model is a Limiter that remembers everything.
type model struct {
	connections, rate int
	open              map[netip.Addr]int
	admitted          map[netip.Addr][]int64 // times
	last              map[netip.Addr]int64   // of a handshake or close
}

// bucket replays what flowed in and out since the beginning [billionths of a handshake].
func (m *model) bucket(a netip.Addr, now int64) int64 {
	full := int64(m.rate) * whole
	level, at := full, int64(0)
	for _, t := range append(slices.Clip(m.admitted[a]), now) {
		level = min(full, level+(t-at)*int64(m.rate)) - whole
		at = t
	}
	return level + whole
}

func (m *model) admit(a netip.Addr, now int64) Verdict {
	if m.connections > 0 && m.open[a] >= m.connections {
		return TooManyConnections
	}
	if m.rate > 0 && m.bucket(a, now) < whole {
		return TooManyHandshakes
	}
	m.open[a]++
	m.admitted[a] = append(m.admitted[a], now)
	m.last[a] = now
	return Admitted
}

// L2.6: whatever comes in whatever order, the verdicts are those of the model, and what is kept is what is needed.
func TestLimiterModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		m := &model{r.IntN(4), r.IntN(6), map[netip.Addr]int{}, map[netip.Addr][]int64{}, map[netip.Addr]int64{}}
		if m.connections == 0 && m.rate == 0 {
			continue
		}
		l := newLimiter(t, m.connections, m.rate, 1000)
		addrs := 1 + r.IntN(40)
		var open []netip.Addr
		now := int64(0)
		for step := range 1500 {
			now += []int64{0, 1, 1000, second / 20, second / 3, 3 * second}[min(r.IntN(20), 5-r.IntN(3))]
			switch n := r.IntN(10); {
			case n < 5:
				a := nth(r.IntN(addrs))
				got, want := l.Admit(a, now), m.admit(a, now)
				if got != want {
					t.Fatalf("seed %d, step %d: %v, want %v", seed, step, got, want)
				}
				if got == Admitted {
					open = append(open, a)
				}
			case n < 9 && len(open) > 0:
				i := r.IntN(len(open))
				a := open[i]
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
				m.open[a]--
				if m.connections > 0 {
					m.last[a] = now
				}
				l.Release(a)
			case n == 9:
				l.Sweep(now)
				least, most := 0, 0
				for a, last := range m.last {
					held := m.connections > 0 && m.open[a] > 0
					if held || m.rate > 0 && m.bucket(a, now) < int64(m.rate)*whole {
						least++
					}
					if held || m.rate > 0 && now-last < second {
						most++
					}
				}
				if n := l.Addresses(); n < least || n > most {
					t.Fatalf("seed %d, step %d: %d addresses are kept, %d to %d have to be", seed, step, n, least, most)
				}
			}
			verify(t, l)
		}
		for _, a := range open {
			l.Release(a)
		}
		l.Sweep(now + second)
		if n := l.Addresses(); n != 0 {
			t.Fatalf("seed %d: %d addresses are left", seed, n)
		}
	}
}

// Loops' clocks differ a little: the latest time counts, and nothing flows in twice.
func TestClocksDiffer(t *testing.T) {
	l := newLimiter(t, 0, 2, 10)
	a := addr("192.0.2.1")
	for i, tc := range []struct {
		now  int64
		want Verdict
	}{
		{100, Admitted}, {50, Admitted}, {99, TooManyHandshakes}, {100 + second/2 - 1, TooManyHandshakes}, {100 + second/2, Admitted},
		{60, TooManyHandshakes}, {100 + second/2, TooManyHandshakes}, {100 + second, Admitted}, {0, TooManyHandshakes}, {100 + second, TooManyHandshakes},
	} {
		if v := l.Admit(a, tc.now); v != tc.want {
			t.Errorf("step %d, at %d: %v, want %v", i, tc.now, v, tc.want)
		}
		verify(t, l)
	}
}

// L2.6: an attacker with more addresses than the table holds. Those without connections make room for each other.
func TestFloodOfHandshakes(t *testing.T) {
	for _, connections := range []int{0, 5} {
		const most = 1000
		l := newLimiter(t, connections, 1, most)
		victim := addr("192.0.2.1") // has a connection, and keeps it
		l.Admit(victim, 0)
		for i := range 50 * most {
			a := nth(i)
			if v := l.Admit(a, 1); v != Admitted {
				t.Fatalf("address %d: %v", i, v)
			}
			if n := l.Addresses(); n > most {
				t.Fatalf("%d addresses are kept, at most %d may", n, most)
			}
			l.Release(a)
		}
		verify(t, l)
		if n := l.Addresses(); n != most {
			t.Errorf("%d addresses are kept, of %d", n, most)
		}
		if connections > 0 {
			l.Release(victim) // which would panic if it had been forgotten
		}
		l.Sweep(1 + second)
		if n := l.Addresses(); n != 0 {
			t.Errorf("%d addresses a second later", n)
		}
	}
}

// L2.6: the bound on addresses that have connections: below, at, above.
func TestFloodOfConnections(t *testing.T) {
	for _, rate := range []int{0, 5} {
		const most = 300
		l := newLimiter(t, 5, rate, most)
		for i := range most {
			if v := l.Admit(nth(i), 0); v != Admitted {
				t.Fatalf("address %d: %v", i+1, v)
			}
		}
		for i := range 1000 {
			if v := l.Admit(nth(most+i), 0); v != TooManyAddresses {
				t.Fatalf("address %d: %v", most+1+i, v)
			}
		}
		if v := l.Admit(nth(0), 0); v != Admitted {
			t.Fatalf("an address that is known: %v", v)
		}
		l.Release(nth(0))
		for i := range most { // one makes room for one, whatever shards they are in
			l.Release(nth(i))
			if v := l.Admit(nth(most+i), 0); v != Admitted {
				t.Fatalf("after address %d was released: %v", i, v)
			}
			if v := l.Admit(nth(3*most), 0); v != TooManyAddresses {
				t.Fatalf("after address %d was released, a second one: %v", i, v)
			}
			verify(t, l)
		}
		for i := range most {
			l.Release(nth(most + i))
		}
		l.Sweep(second)
		verify(t, l)
		if n := l.Addresses(); n != 0 {
			t.Errorf("%d addresses are left", n)
		}
	}
}
