package bench

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// System is what a run depends on here.
type System struct {
	OpenFiles uint64 // RLIMIT_NOFILE
	Ports     int    // local ports per source address; 0: unknown
	CPUs      int
}

// ThisSystem reads it, after raising the open-file limit as far as it may be raised.
func ThisSystem() (System, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return System{}, fmt.Errorf("reading the open-file limit: %w", err)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return System{}, fmt.Errorf("raising the open-file limit to %d: %w", limit.Max, err)
		}
	}
	s := System{OpenFiles: limit.Cur, CPUs: runtime.GOMAXPROCS(0)}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		s.Ports = parsePortRange(string(text))
	}
	return s, nil
}

// Machine says where a run took place.
type Machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = parseCPUModel(text)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// linked is set by the linker: -ldflags "-X github.com/mqgate/mqgate/bench.linked=v1.2.3".
var linked string

// commit returns the commit that this binary was built from; when Go did not build it from a checkout what the linker was
// told, and else "unknown".
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(linked, "unknown")
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+modified"
		}
	}
	if revision == "" {
		return cmp.Or(linked, "unknown")
	}
	return revision + modified
}

// process is the server, seen from outside.
type process struct{ pid int }

// errNoServer: the server's process is not known; it runs on another machine, or as another user.
var errNoServer = errors.New("the server's process is not known")

// findProcess returns the process that listens on addr, by way of /proc/net/tcp, /proc/*/fd and /proc/*/task/*/fd. Without the right to look
// into the process it is not found.
func findProcess(addr netip.AddrPort) (process, error) {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // without IPv6 there is no tcp6
		}
		for inode := range listenInodes(string(text), addr) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return process{}, errNoServer
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return process{}, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if holds(filepath.Join("/proc", e.Name(), "fd"), inodes) {
			return process{pid}, nil
		}
	}
	// The listener may be in a table of a thread's own (mqgate serve --fd-tables=per-loop). There are many more of those.
	threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/fd")
	if err != nil {
		return process{}, err
	}
	for _, dir := range threads {
		if holds(dir, inodes) {
			pid, err := strconv.Atoi(strings.Split(dir, "/")[2])
			return process{pid}, err
		}
	}
	return process{}, errNoServer
}

// holds reports whether one of the descriptors in dir is of one of the sockets.
func holds(dir string, sockets map[string]bool) bool {
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // gone, or not ours
	}
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		link, err := os.Readlink(filepath.Join(dir, fd.Name()))
		return err == nil && sockets[link]
	})
}

func (p process) read(file string) (string, error) {
	if p.pid == 0 {
		return "", errNoServer
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), file))
	return string(text), err
}

// memory returns what the process holds in RAM.
func (p process) memory() (memory, error) {
	text, err := p.read("status")
	if err != nil {
		return memory{}, err
	}
	return parseStatus(text)
}

// openFiles returns how many files the process has open.
func (p process) openFiles() (int, error) {
	if p.pid == 0 {
		return 0, errNoServer
	}
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.pid), "fd"))
	return len(fds), err
}

// cpu returns the processor time that the process has used, to 10 ms.
func (p process) cpu() (time.Duration, error) {
	text, err := p.read("stat")
	if err != nil {
		return 0, err
	}
	return parseStat(text)
}

// ownCPU returns the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// kernelTCP returns what the kernel holds for TCP; zeros when it cannot be read.
func kernelTCP() KernelTCP {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return KernelTCP{}
	}
	k, err := parseSockstat(string(text), os.Getpagesize())
	if err != nil {
		return KernelTCP{}
	}
	return k
}
