package bench

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Readers of files under /proc. They take the text, so that they can be tested; what the files mean is in proc(5).

// memory is what a process holds in RAM [bytes].
type memory struct {
	RSS  int64 // VmRSS: with mapped files
	Anon int64 // RssAnon: what the process has written to: heap, stacks
}

// parseStatus reads /proc/PID/status.
func parseStatus(text string) (memory, error) {
	var m memory
	var err error
	if m.RSS, err = kilobytes(text, "VmRSS:"); err != nil {
		return memory{}, err
	}
	m.Anon, err = kilobytes(text, "RssAnon:")
	return m, err
}

// kilobytes returns the value of a line like "VmRSS:	  1234 kB" [bytes].
func kilobytes(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			f := strings.Fields(rest)
			if len(f) != 2 || f[1] != "kB" {
				return 0, fmt.Errorf("%s has %q, expected kB", key, strings.TrimSpace(rest))
			}
			n, err := strconv.ParseInt(f[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no line %s", key)
}

// clockTick is USER_HZ, the unit of times in /proc/PID/stat: 100 a second on every architecture that Go runs on.
const clockTick = time.Second / 100

// parseStat returns the processor time of a process, user and system, from /proc/PID/stat. The name in the second field
// may contain anything, also spaces and parentheses.
func parseStat(text string) (time.Duration, error) {
	i := strings.LastIndexByte(text, ')')
	if i < 0 {
		return 0, fmt.Errorf("no command name")
	}
	f := strings.Fields(text[i+1:]) // f[0] is field 3, state
	if len(f) < 13 {
		return 0, fmt.Errorf("%d fields after the name, expected 13 or more", len(f))
	}
	user, err := strconv.ParseUint(f[11], 10, 63)
	if err != nil {
		return 0, fmt.Errorf("utime: %w", err)
	}
	system, err := strconv.ParseUint(f[12], 10, 63)
	if err != nil {
		return 0, fmt.Errorf("stime: %w", err)
	}
	return time.Duration(user+system) * clockTick, nil
}

// parseBusy returns the processor time of all processors in which some process ran, from the first line of /proc/stat: all
// but idle, iowait, interrupts and what another virtual machine had.
func parseBusy(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line) // cpu user nice system idle ...
	if len(f) < 5 || f[0] != "cpu" {
		return 0, fmt.Errorf("the first line is %q", line)
	}
	var ticks uint64
	for _, field := range f[1:4] {
		n, err := strconv.ParseUint(field, 10, 56)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// tcpListen is the state of a listening socket in /proc/net/tcp (TCP_LISTEN).
const tcpListen = "0A"

// listenInodes returns the inodes of the sockets in the text of /proc/net/tcp or tcp6 that accept connections to addr:
// those that listen on it, or on its port on every address.
func listenInodes(text string, addr netip.AddrPort) map[string]bool {
	inodes := map[string]bool{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != tcpListen {
			continue
		}
		local, ok := parseTCPAddr(f[1])
		if !ok || local.Port() != addr.Port() {
			continue
		}
		if a := local.Addr().Unmap(); a == addr.Addr() || a.IsUnspecified() && (a.Is6() || addr.Addr().Is4()) {
			inodes[f[9]] = true
		}
	}
	return inodes
}

// parseTCPAddr reads an address like 0100007F:1F90: 32 bit words in the order of this machine (little endian wherever
// this runs), and the port.
func parseTCPAddr(text string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	if !ok || err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), true
}

// KernelTCP is what the kernel holds for TCP, of the whole machine (its network namespace): both ends of a connection
// over loopback.
type KernelTCP struct {
	Sockets     int64 `json:"tcp_sockets"`      // in use
	MemoryBytes int64 `json:"tcp_memory_bytes"` // socket buffers
}

// parseSockstat reads /proc/net/sockstat.
func parseSockstat(text string, pageSize int) (KernelTCP, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TCP:" {
			continue
		}
		var k KernelTCP
		for i := 1; i+1 < len(f); i += 2 {
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil {
				return KernelTCP{}, fmt.Errorf("TCP %s: %w", f[i], err)
			}
			switch f[i] {
			case "inuse":
				k.Sockets = n
			case "mem":
				k.MemoryBytes = n * int64(pageSize)
			}
		}
		return k, nil
	}
	return KernelTCP{}, fmt.Errorf("no line that begins with TCP")
}

// parsePortRange returns the number of ports in /proc/sys/net/ipv4/ip_local_port_range; 0 when it cannot be read.
func parsePortRange(text string) int {
	var low, high int
	if _, err := fmt.Sscan(text, &low, &high); err != nil || low < 1 || high < low {
		return 0
	}
	return high - low + 1
}

// parseCPUModel returns the first model name in /proc/cpuinfo, "" when there is none.
func parseCPUModel(text []byte) string {
	for line := range bytes.Lines(text) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(key)) == "model name" {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}
