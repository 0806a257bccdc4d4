package conn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/mqgate/mqgate/loop"
)

var errDraining = errors.New("the server is draining")

// Server is the connections of one process on real sockets: a registry per loop. Its methods are safe from any
// goroutine but those of the loops, except Do, which is safe from all.
type Server struct {
	cfg        *Config
	group      *loop.Group
	registries []*Registry
}

// Snapshot is what a registry and its loop count at one moment.
type Snapshot struct {
	Conn    Stats
	Loop    loop.Stats
	Sockets int64 // sockets that the loop holds
	Pending int64 // bytes that wait for the kernel
	Held    int64 // memory of partial messages and of what waits for the kernel [bytes]; only the sum over all loops is right
	// Drift must be 0 (L6.2): what total - disconnected and open, and the sockets and what they are for, differ by.
	Drift    int64
	Draining bool
}

// Snapshot returns the counters. On the loop's goroutine.
func (r *Registry) Snapshot() Snapshot {
	s := Snapshot{Conn: r.stats, Loop: r.loop.Stats(), Sockets: int64(r.loop.Open()), Pending: r.loop.PendingBytes(),
		Held: r.held(), Draining: r.drain.active}
	counted := int64(s.Conn.Total) - int64(s.Conn.Disconnected()) - s.Conn.Open
	slots := s.Sockets - s.Conn.Open - s.Conn.Handshake - s.Conn.Lingering
	s.Drift = max(counted, -counted) + max(slots, -slots)
	return s
}

// ServerConfig says on what a Server runs.
type ServerConfig struct {
	Loops    int
	MaxSlots int // sockets per loop at most; 0: as many as ids can tell apart

	// TablePerLoop gives each loop a descriptor table of its own: see loop.GroupConfig. Handlers must then use no files and
	// connections of others on the loop's goroutine.
	TablePerLoop bool

	Lost   func(err error) // a loop is lost (L8.5)
	Attach func(i int, r *Registry)
	Log    *slog.Logger
}

// NewServer validates cfg and starts the loops; nothing is listened on yet.
func NewServer(cfg *Config, sc ServerConfig) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if sc.Loops > maxLoops {
		return nil, fmt.Errorf("conn: %d loops, expected at most %d", sc.Loops, maxLoops)
	}
	s := &Server{cfg: cfg}
	var err error
	s.group, err = loop.NewGroup(loop.GroupConfig{
		Loops: sc.Loops, Log: sc.Log, MaxSlots: sc.MaxSlots, Lost: sc.Lost, TablePerLoop: sc.TablePerLoop,
		Handler: func(int) loop.Handler {
			r := NewRegistry(cfg)
			s.registries = append(s.registries, r)
			return r
		},
		Attach: func(i int, l *loop.Loop) {
			s.registries[i].Attach(l)
			if sc.Attach != nil {
				sc.Attach(i, s.registries[i])
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Listen accepts connections from addr on every loop; port 0 picks a port. It returns the real address.
func (s *Server) Listen(addr netip.AddrPort, backlog int) (netip.AddrPort, error) {
	return s.group.Listen(addr, 0, backlog)
}

// Adopt accepts connections from sockets that listen already, all on one address, which it returns: see loop.Group.Adopt.
func (s *Server) Adopt(fds []int) (netip.AddrPort, error) { return s.group.Adopt(fds, 0) }

// Listening returns duplicates of the listening sockets, which are the caller's to close: see loop.Group.Listening.
func (s *Server) Listening() ([]loop.Listening, error) { return s.group.Listening() }

// StopListening closes the listeners.
func (s *Server) StopListening() { s.group.StopListening() }

// Registries returns the registries, one per loop.
func (s *Server) Registries() []*Registry { return s.registries }

// Now returns the time of the loops' clocks [ns]. Safe from any goroutine.
func (s *Server) Now() int64 { return s.group.Now() }

// Issuer returns the maker of this process's connection ids.
func (s *Server) Issuer() *Issuer { return s.cfg.Issuer }

// Do runs f with the connection of that id on the goroutine of its loop; with nil when there is none, at once when the
// id was not made by this process. It returns without waiting. Safe from any goroutine.
func (s *Server) Do(id ID, f func(c *Conn)) {
	if id.Loop() >= len(s.registries) || !s.cfg.Issuer.Verify(id) {
		f(nil)
		return
	}
	r := s.registries[id.Loop()]
	if !r.loop.PostFunc(func() { f(r.Find(id)) }) {
		f(nil)
	}
}

// Each runs f with every registry on its loop's goroutine, one after the other, and waits.
func (s *Server) Each(f func(r *Registry)) {
	for _, r := range s.registries {
		r.loop.Do(func() { f(r) })
	}
}

// Snapshots returns the counters of all loops, each at a moment of its own.
func (s *Server) Snapshots() []Snapshot {
	snaps := make([]Snapshot, 0, len(s.registries))
	s.Each(func(r *Registry) { snaps = append(snaps, r.Snapshot()) })
	return snaps
}

// Stop ends the loops. Connections that are still open are cut off without OnClose: drain first.
func (s *Server) Stop() { s.group.Stop() }
