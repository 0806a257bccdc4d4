package config

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ThisSystem returns what configuration depends on here, after raising the open-file limit as far as it may be raised.
func ThisSystem() (System, error) {
	files, err := RaiseOpenFiles()
	if err != nil {
		return System{}, err
	}
	return System{OpenFiles: files, CPUs: runtime.GOMAXPROCS(0), Memory: memory(), Somaxconn: somaxconn()}, nil
}

// RaiseOpenFiles raises the soft limit of open files to the hard one and returns the limit that holds then. Go does the
// raising at the start of a program already, unless something set the limit before; this makes sure and reads back
// what the kernel granted.
func RaiseOpenFiles() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the open-file limit: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
		// syscall's, not unix's: it tells the runtime, which otherwise gives child processes the limit of before.
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			return 0, fmt.Errorf("raising the open-file limit from %d to %d: %w", limit.Cur, limit.Max, err)
		}
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return 0, fmt.Errorf("reading the open-file limit: %w", err)
		}
	}
	return limit.Cur, nil
}

// somaxconn returns the kernel's cap on the backlog of a listener, or 0 when it cannot be read.
func somaxconn() int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 0
	}
	return n
}

// maxTable is the largest number of descriptors of one table [descriptors]: what the kernel's numbers allow, whatever
// RLIMIT_NOFILE says. fs.nr_open is below it.
const maxTable = 1 << 30

// AllOpenFiles is how many descriptors the process may hold: OpenFiles, or, when each loop has a table of its own, so many
// per loop. The process's own table is not counted then, since it holds no connections.
func (s *Serve) AllOpenFiles() uint64 {
	if s.FDTables == FDTablesPerLoop {
		return uint64(s.Loops) * min(s.OpenFiles, maxTable)
	}
	return s.OpenFiles
}

// reservedFiles is the number of descriptors, of AllOpenFiles, that are not for open connections: the sums in limits.go.
func (s *Serve) reservedFiles() uint64 {
	if s.FDTables == FDTablesPerLoop {
		return s.AllOpenFiles() - uint64(s.Loops)*s.connectionsPerTable()
	}
	n := reserveProcess + s.Loops*(reservePerLoop+len(s.Listen))
	if s.Admin != nil {
		n += reserveAdmin
	}
	return uint64(n) + s.OpenFiles/reserveFraction
}

// connectionsPerTable is how many connections a table of a loop's own has room for.
func (s *Serve) connectionsPerTable() uint64 {
	files := min(s.OpenFiles, maxTable)
	reserve := uint64(reserveTable+s.Loops+len(s.Listen)) + files/reserveFraction
	if files <= reserve || files < uint64(reserveProcess+reserveAdmin+s.Loops) {
		return 0
	}
	rest := files - reserve
	return rest - min(rest, uint64(math.Ceil(spreadDeviations*math.Sqrt(float64(rest)))))
}

// connectionsFor returns the largest MaxConnections that, with its slack, leaves reserve of the open files free: 0 when
// there are not so many, and never more than the setting allows.
func (s *Serve) connectionsFor(reserve uint64) int {
	all := s.AllOpenFiles()
	if all <= reserve {
		return 0
	}
	// Twice the highest value, because of a slack of 100%: more would not change the result, but overflow.
	usable := int(min(all-reserve, 2*maxMaxConnections))
	// n × (100 + slack) / 100 <= usable, both whole: so the slack may be rounded up and still fits.
	return min(usable*100/(100+int(s.MaxConnectionsSlack)), maxMaxConnections)
}
