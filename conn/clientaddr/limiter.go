package clientaddr

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// Verdict is what a Limiter says of a handshake.
type Verdict uint8

// The verdicts. All but Admitted mean 503 with Retry-After (L2.6).
const (
	Admitted           Verdict = iota // counted; for a connection, Release is due
	TooManyConnections                // the address has as many connections open as it may
	TooManyHandshakes                 // the address has used up its handshakes for now
	TooManyAddresses                  // LimiterConfig.MaxAddresses have connections open
)

// String returns a label for logs and metrics.
func (v Verdict) String() string {
	switch v {
	case Admitted:
		return "admitted"
	case TooManyConnections:
		return "connections-per-ip"
	case TooManyHandshakes:
		return "handshake-rate-per-ip"
	case TooManyAddresses:
		return "addresses"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// LimiterConfig says how much one address may have.
type LimiterConfig struct {
	// ConnectionsPerAddress is the number of connections open at once (--max-connections-per-ip); 0 is no limit.
	ConnectionsPerAddress int

	// HandshakesPerSecond is the number of handshakes (--handshake-rate-per-ip), by a bucket that holds as many as one
	// second's: so many at once, and that many a second in the long run, hence no more than twice as many in any one
	// second. 0 is no limit.
	HandshakesPerSecond int

	// MaxAddresses is the number of addresses that the Limiter keeps at once, each of which takes 160 bytes at worst. It
	// should be above the greatest number of connections that the process takes.
	MaxAddresses int
}

// Limiter counts connections and handshakes per address (L2.6): an IPv4 address, or the /64 of an IPv6 one, which is what
// one subscriber gets. All loops of a process share one; its methods are safe on any goroutine.
//
// # Bounded memory
//
// An address is kept while it has connections open, and for one second after its last handshake or its last close, by
// when its bucket is full again: then it is as if it had never been seen. At MaxAddresses the one that has been without
// connections for longest (of a part of the table) makes room; it only gets its bucket filled a little early, and an
// attacker who has that many addresses gains nothing by it, since a new one has a full bucket as well. Only when all of
// them have connections open is a new address refused. With MaxAddresses above the number of connections that the
// process takes, that does not happen: connections run out first. With no limit on connections only handshakes are
// kept, and there is always room.
//
// A nil Limiter, and one without limits, admits everybody and keeps nothing. So does any Limiter for the zero Addr, of
// which nobody knows whether it is always the same one.
type Limiter struct {
	connections int32 // 0: not counted
	rate        int64 // handshakes per second; 0: not counted
	max         int64 // addresses
	addresses   atomic.Int64
	seed        maphash.Seed // of this process: nobody outside can aim at one shard
	shards      [shardCount]shard
}

// NewLimiter makes a Limiter. The error names all faults of the configuration.
func NewLimiter(cfg LimiterConfig) (*Limiter, error) {
	var faults []error
	check := func(name string, value, low, high int) {
		if value < low || value > high {
			faults = append(faults, fmt.Errorf("%s is %d: the range is %d to %d", name, value, low, high))
		}
	}
	check("ConnectionsPerAddress", cfg.ConnectionsPerAddress, 0, MaxConnectionsPerAddress)
	check("HandshakesPerSecond", cfg.HandshakesPerSecond, 0, MaxHandshakeRate)
	check("MaxAddresses", cfg.MaxAddresses, 1, MaxLimiterAddresses)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	l := &Limiter{
		connections: int32(cfg.ConnectionsPerAddress),
		rate:        int64(cfg.HandshakesPerSecond),
		max:         int64(cfg.MaxAddresses),
		seed:        maphash.MakeSeed(),
	}
	for i := range l.shards {
		l.shards[i].init(l.rate)
	}
	return l, nil
}

// key is what addresses are told apart by: an IPv4 address in its IPv4-mapped form, or the upper half of an IPv6 address
// and 0, which is no IPv4 address.
type key struct{ hi, lo uint64 }

// nat64 is the prefix behind which all of IPv4 hides where a network translates it (RFC 6052): one /64 by its look, but
// not one subscriber.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func (l *Limiter) keyOf(addr netip.Addr) (k key, ok bool) {
	if l == nil || l.connections == 0 && l.rate == 0 || !addr.IsValid() {
		return key{}, false
	}
	b := addr.As16()
	if addr.Is6() && !addr.Is4In6() {
		if nat64.Contains(addr.WithZone("")) {
			copy(b[:], mapped[:])
		} else {
			clear(b[8:])
		}
	}
	for i := range 8 {
		k.hi, k.lo = k.hi<<8|uint64(b[i]), k.lo<<8|uint64(b[8+i])
	}
	return k, true
}

// mapped is what an IPv4-mapped IPv6 address begins with.
var mapped = [12]byte{10: 0xff, 11: 0xff}

func (l *Limiter) shardOf(k key) *shard {
	return &l.shards[maphash.Comparable(l.seed, k)%shardCount]
}

// Admit decides on a handshake from addr, at the time now [ns, monotonic; loops whose clocks differ a little may share a
// Limiter: the latest time seen counts]. Admitted: it is counted, and Release is to be called, once, with the same
// address when the connection is gone. Any other verdict changes nothing; so whoever tries twice as often as he may gets
// as much as he may.
//
// It takes a lock for well under a microsecond, and allocates only for the table to grow.
func (l *Limiter) Admit(addr netip.Addr, now int64) Verdict {
	k, ok := l.keyOf(addr)
	if !ok {
		return Admitted
	}
	s := l.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.advance(now, expiriesPerAdmit); n > 0 {
		l.addresses.Add(-int64(n))
	}
	if i, known := s.index[k]; known {
		return l.count(s, i)
	}
	if !l.room(s) {
		return TooManyAddresses
	}
	// While room looked elsewhere, s was not locked.
	if i, known := s.index[k]; known {
		l.addresses.Add(-1)
		return l.count(s, i)
	}
	return l.count(s, s.add(k))
}

// count judges a handshake of the entry i of s, and counts it.
func (l *Limiter) count(s *shard, i uint32) Verdict {
	e := &s.slab[i]
	if l.connections > 0 && e.connections >= l.connections {
		return TooManyConnections
	}
	if l.rate > 0 {
		bucket := s.bucket(e)
		if bucket < whole {
			return TooManyHandshakes
		}
		e.bucket, e.at = bucket-whole, s.now
	}
	if e.idle {
		s.unlink(i)
	}
	if l.connections > 0 {
		e.connections++
	} else {
		s.link(i)
	}
	return Admitted
}

// room makes sure that there may be one address more, and counts it. s is locked before and after, not always between.
func (l *Limiter) room(s *shard) bool {
	if l.addresses.Add(1) <= l.max {
		return true
	}
	// Full: what makes room leaves the number of addresses as it was before.
	if s.evict() {
		l.addresses.Add(-1)
		return true
	}
	// Nobody in this shard can go. Never two locks at a time: two loops could wait for each other.
	s.mu.Unlock()
	defer s.mu.Lock()
	for i := range l.shards {
		other := &l.shards[i]
		other.mu.Lock()
		gone := other.evict()
		other.mu.Unlock()
		if gone {
			l.addresses.Add(-1)
			return true
		}
	}
	l.addresses.Add(-1)
	return false
}

// Release says that a connection that was Admitted is gone. It panics when there is none: a count that drifts would
// shut an address out for good, or let it have what it wants.
func (l *Limiter) Release(addr netip.Addr) {
	k, ok := l.keyOf(addr)
	if !ok || l.connections == 0 {
		return
	}
	s := l.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.index[k]
	if !known || s.slab[i].connections == 0 {
		panic("clientaddr: Release of an address that has no connection")
	}
	e := &s.slab[i]
	if e.connections--; e.connections > 0 {
		return
	}
	if e.bucket, e.at = s.bucket(e), s.now; e.bucket == s.full() {
		s.remove(i)
		l.addresses.Add(-1)
		return
	}
	s.link(i)
}

// Sweep forgets the addresses that had neither a connection nor a handshake for a second, and gives memory back after a
// flood. Admit does the former too, a few at a time, but only for as long as somebody comes. To be called about once a
// second, by any one goroutine. now is as for Admit.
func (l *Limiter) Sweep(now int64) {
	if l == nil {
		return
	}
	for i := range l.shards {
		s := &l.shards[i]
		for more := true; more; {
			s.mu.Lock()
			n := s.advance(now, expiriesPerLock)
			l.addresses.Add(-int64(n))
			if more = n == expiriesPerLock; !more {
				s.shrink()
			}
			s.mu.Unlock()
		}
	}
}

// Addresses returns the number of addresses that are kept at present, for a metric.
func (l *Limiter) Addresses() int {
	if l == nil {
		return 0
	}
	return int(l.addresses.Load())
}
