package config

import (
	"bytes"
	"fmt"
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
	return System{OpenFiles: files, CPUs: runtime.GOMAXPROCS(0), Somaxconn: somaxconn()}, nil
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

// reservedFiles is the number of descriptors that are not for open connections: the sum in limits.go.
func (s *Serve) reservedFiles() uint64 {
	n := reserveProcess + s.Loops*(reservePerLoop+len(s.Listen))
	if s.Admin != nil {
		n += reserveAdmin
	}
	return uint64(n) + s.OpenFiles/reserveFraction
}

// connectionsFor returns the largest MaxConnections that, with its slack, leaves reserve of the open files free: 0 when
// there are not so many, and never more than the setting allows.
func (s *Serve) connectionsFor(reserve uint64) int {
	if s.OpenFiles <= reserve {
		return 0
	}
	// Twice the highest value, because of a slack of 100%: more would not change the result, but overflow.
	usable := int(min(s.OpenFiles-reserve, 2*maxMaxConnections))
	// n × (100 + slack) / 100 <= usable, both whole: so the slack may be rounded up and still fits.
	return min(usable*100/(100+int(s.MaxConnectionsSlack)), maxMaxConnections)
}
