package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Where Linux tells how much memory is used.
const (
	procStatus   = "/proc/self/status"
	procSockstat = "/proc/net/sockstat"
)

// anonymousMemory returns this process's resident anonymous memory [bytes]: everything that it has allocated, without
// the pages of its binary.
func anonymousMemory() (uint64, error) {
	text, err := os.ReadFile(procStatus)
	if err != nil {
		return 0, err
	}
	kib, err := numberAfter(text, "\nRssAnon:")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", procStatus, err)
	}
	return kib << 10, nil
}

// kernelTCPMemory returns the memory that the kernel holds for the buffers of TCP sockets [bytes] and the number of
// those sockets, both of the whole network namespace: there is no count per process.
func kernelTCPMemory() (buffers, sockets uint64, err error) {
	text, err := os.ReadFile(procSockstat)
	if err != nil {
		return 0, 0, err
	}
	if buffers, sockets, err = parseSockstat(text, uint64(os.Getpagesize())); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", procSockstat, err)
	}
	return buffers, sockets, nil
}

// parseSockstat reads "TCP: inuse 5 orphan 0 tw 7 alloc 6 mem 3", in which mem counts pages.
func parseSockstat(text []byte, pageSize uint64) (buffers, sockets uint64, err error) {
	_, tcp, found := bytes.Cut(text, []byte("TCP:"))
	if !found {
		return 0, 0, errors.New("no TCP line")
	}
	tcp, _, _ = bytes.Cut(tcp, []byte("\n"))
	if sockets, err = numberAfter(tcp, " alloc "); err != nil {
		return 0, 0, err
	}
	pages, err := numberAfter(tcp, " mem ")
	return pages * pageSize, sockets, err
}

// numberAfter returns the number behind the first occurrence of key.
func numberAfter(text []byte, key string) (uint64, error) {
	_, rest, found := bytes.Cut(text, []byte(key))
	fields := bytes.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("no %q", key)
	}
	return strconv.ParseUint(string(fields[0]), 10, 64)
}
