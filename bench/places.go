package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mqgate/mqgate/conn"
)

// place is one of the servers of a run, with what it takes to connect to it.
type place struct {
	target  Target
	addr    netip.AddrPort
	sources []netip.Addr // the connections to it have them in turn
}

// places deals the connections of a run out over its servers (Options.targets). It does not change while a run goes on.
type places struct {
	list   []place
	period uint64 // see of
}

// newPlaces resolves the targets of o and finds source addresses for each: the local ports of an address can be used once
// for every server.
func newPlaces(ctx context.Context, o *Options, sys System) (*places, error) {
	targets := o.targets()
	p := &places{period: o.dealPeriod()}
	for _, t := range targets {
		addr, err := t.Resolve(ctx)
		if err != nil {
			return nil, err
		}
		most := o.connectionsToEach()
		if o.Scenario == scenarioChurn && len(o.Sources) == 0 && addr.Addr().Is4() && addr.Addr().IsLoopback() {
			most = max(most, churnSources*perSource)
		}
		sources, err := sourcesFor(o.Sources, addr.Addr(), most, sys.Ports)
		if err != nil {
			return nil, err
		}
		p.list = append(p.list, place{t, addr, sources})
	}
	return p, nil
}

// targets returns all servers.
func (o *Options) targets() []Target { return append([]Target{o.Target}, o.Others...) }

// checkTargets returns what is wrong with several servers.
func (o *Options) checkTargets() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	n := 1 + len(o.Others)
	if n > MaxTargets {
		fault("flag --url: %d given, at most %d are allowed", n, MaxTargets)
	}
	if len(o.ServerPIDs) > 0 && len(o.ServerPIDs) != n {
		fault("flag --server-pid: %d given for %d --url, expected one for each, in their order, or none", len(o.ServerPIDs), n)
	}
	if n == 1 {
		return faults
	}
	path := func(t Target) string {
		path, _, _ := strings.Cut(t.Path, "?")
		return path
	}
	type key struct {
		name, path string
		port       uint16
	}
	seen := map[key]bool{}
	for _, t := range o.targets() {
		k := key{strings.ToLower(t.Name), t.Path, t.Port}
		if seen[k] {
			fault("flag --url: %s is given twice", t.URL)
		}
		seen[k] = true
		if path(t) != path(o.Target) {
			fault("flag --url: %s has the path %s, the first one %s: all must speak the same", t.URL, path(t), path(o.Target))
		}
	}
	if o.Stalled > 0 {
		fault("flag --stalled: it is about one server, %d --url are given", n)
	}
	if o.Connections < n {
		fault("flag --connections: %d are fewer than the %d --url", o.Connections, n)
	}
	return faults
}

// connectionsToEach returns how many connections one server gets at the most.
func (o *Options) connectionsToEach() int {
	n := 1 + len(o.Others)
	return (o.Connections + n - 1) / n
}

// dealPeriod returns the period of places.of. What must not be in step with the servers is the loops, so that no loop has
// connections to one server only, and of a broadcast the rooms.
func (o *Options) dealPeriod() uint64 {
	steps, n := uint64(max(o.Loops, 1)), uint64(1+len(o.Others))
	if o.Scenario == scenarioBroadcast {
		steps = uint64(max(o.Rooms, 1))
	}
	a, b := steps, n
	for b != 0 {
		a, b = b, a%b
	}
	return steps / a * n // the least common multiple
}

// of returns the place of a connection, by its number over all loops: in turn, and one further after every period, which
// is a multiple of both the number of places and that of loops (of a broadcast: of rooms). So every place is once among so
// many connections from a multiple of their number on, and once among so many members of a room from its first on.
func (p *places) of(number uint64) int {
	if p == nil || len(p.list) < 2 {
		return 0
	}
	return int((number + number/p.period) % uint64(len(p.list)))
}

// dial returns the server of a connection and the source address to connect from.
func (p *places) dial(number uint64) (to *place, source netip.Addr) {
	to = &p.list[p.of(number)]
	return to, to.sources[number/uint64(len(p.list))%uint64(len(to.sources))] // it is this connection in turn at its server
}

// dealt returns how many of the first n connections each place has.
func (p *places) dealt(n uint64) []uint64 {
	list := make([]uint64, p.count())
	for number := range n {
		list[p.of(number)]++
	}
	return list
}

// count returns the number of places; 1 when there are none yet.
func (p *places) count() int {
	if p == nil {
		return 1
	}
	return max(1, len(p.list))
}

// named returns a text about a place, with its URL when there are several.
func (p *places) named(k int, text string) string {
	if p.count() < 2 {
		return text
	}
	return p.list[k].target.URL + ": " + text
}

// urls returns all URLs, with spaces, which no URL has.
func (o *Options) urls() string {
	text := o.Target.URL
	for _, t := range o.Others {
		text += " " + t.URL
	}
	return text
}

// dials returns what the connections of one loop are dialled with, place by place.
func (p *places) dials(o *Options, failed func(i uint32, err error)) []conn.DialConfig {
	var list []conn.DialConfig
	for _, to := range p.list {
		list = append(list, conn.DialConfig{Addr: to.addr, Host: to.target.Host, Path: to.target.Path, Protocol: o.Subprotocol, Header: o.Header,
			Failed: failed})
	}
	return list
}
