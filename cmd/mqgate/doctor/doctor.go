package doctor

import (
	"fmt"
	"io/fs"
	"math"
	"math/bits"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
)

// Verdict says whether a limit is enough.
type Verdict string

const (
	OK      Verdict = "ok"
	Short   Verdict = "short"
	Unknown Verdict = "unknown" // it cannot be read here
)

// A Check is one limit of the machine.
type Check struct {
	Name    string  `json:"name"`
	Present int64   `json:"present"` // meaningless if Verdict is Unknown
	Needed  int64   `json:"needed"`
	Unit    string  `json:"unit"`
	Verdict Verdict `json:"verdict"`
	// Holds is how many connections the limit allows; nil for one that makes things slow or loses attempts but stops no
	// connection, and for one that is unknown.
	Holds *int64 `json:"holds,omitempty"`
	// Note says what else to know.
	Note string `json:"note,omitempty"`
	// Commands change it; only if it is short.
	Commands []string `json:"commands,omitempty"`
}

// Report is what Examine found.
type Report struct {
	Connections int64   `json:"connections"` // asked for
	Loops       int     `json:"loops"`
	FDTables    string  `json:"fd_tables"`
	Holds       int64   `json:"holds"`      // what this machine holds by all limits that are known
	StoppedBy   string  `json:"stopped_by"` // the limit that is Holds
	Fits        bool    `json:"fits"`       // no limit that stops connections is short
	Checks      []Check `json:"checks"`     // in the order in which they are met with
}

// examination gathers the checks.
type examination struct {
	machine
	want   int64
	report Report
}

// Examine compares the machine below root with what d asks for.
func Examine(root fs.FS, d *config.Doctor) Report {
	e := &examination{machine: machine{root}, want: int64(d.Connections), report: Report{
		Connections: int64(d.Connections), Loops: d.Loops, FDTables: string(d.FDTables), Holds: math.MaxInt64}}
	e.files(d)
	e.memory(d)
	e.queues()
	e.network()
	for _, c := range e.report.Checks {
		if c.Holds != nil && *c.Holds < e.report.Holds {
			e.report.Holds, e.report.StoppedBy = *c.Holds, c.Name
		}
	}
	e.report.Fits = e.report.Holds >= e.want
	return e.report
}

// add adds a check and fills in its verdict. known says that Present was read.
func (e *examination) add(c Check, known bool, commands ...string) {
	switch {
	case !known:
		c.Verdict, c.Holds, c.Present = Unknown, nil, 0
	case c.Present < c.Needed:
		c.Verdict, c.Commands = Short, commands
	default:
		c.Verdict = OK
	}
	e.report.Checks = append(e.report.Checks, c)
}

// setting adds a check of a kernel setting of one number; holds is nil, or how many connections a value of it allows.
func (e *examination) setting(name string, needed int64, unit, note string, holds func(value int64) int64) {
	present, known := e.sysctl(name, 0)
	c := Check{Name: name, Present: present, Needed: needed, Unit: unit, Note: note}
	if holds != nil {
		c.Holds = new(holds(present))
	}
	e.add(c, known, sysctl(name, fmt.Sprint(needed))...)
}

// sysctl is how a kernel setting is changed, now and for the next boot.
func sysctl(name, value string) []string {
	return []string{
		fmt.Sprintf("sysctl -w %s=%s", name, quoted(value)),
		fmt.Sprintf("echo '%s = %s' >>/etc/sysctl.d/90-mqgate.conf", name, value),
	}
}

// powerOf2 returns the least power of two that is not below n.
func powerOf2(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) }

func quoted(value string) string {
	for _, r := range value {
		if r == ' ' {
			return "'" + value + "'"
		}
	}
	return value
}

// withSlack is how many sockets there are with n connections.
func withSlack(n int64) int64 { return n + n/slackFraction }

// withoutSlack is for how many connections, at most, sockets are enough. Above 2^55 sockets it says what it says for those.
func withoutSlack(sockets int64) int64 {
	sockets = min(max(sockets, 0), 1<<55)
	return (sockets*slackFraction + slackFraction - 1) / (slackFraction + 1)
}

func (e *examination) files(d *config.Doctor) {
	perTable := int64(d.FilesFor(d.Connections))
	note := "RLIMIT_NOFILE, for all connections together; with --fd-tables per-loop it is for each loop"
	if d.FDTables == config.FDTablesPerLoop {
		note = fmt.Sprintf("RLIMIT_NOFILE, for each of %d loops", d.Loops)
	}
	files := int64(min(d.System.OpenFiles, math.MaxInt64))
	e.add(Check{Name: "open files", Present: files, Needed: perTable, Unit: "descriptors", Note: note,
		Holds: new(int64(d.ConnectionsFor(d.System.OpenFiles)))}, true,
		fmt.Sprintf("systemd: LimitNOFILE=%d under [Service] (systemctl edit mqgate)", perTable),
		fmt.Sprintf("shell, as root: ulimit -n %d", perTable))
	e.setting("fs.nr_open", perTable, "descriptors", "the most that RLIMIT_NOFILE can be set to",
		func(n int64) int64 { return int64(d.ConnectionsFor(uint64(n))) })
	others, _ := e.sysctl("fs.file-nr", 0) // 0 where it cannot be read: then fs.file-max cannot either
	e.setting("fs.file-max", withSlack(e.want)+others, "files", "of the whole machine; open now are "+grouped(others),
		func(n int64) int64 { return withoutSlack(n - others) })
	e.setting("fs.epoll.max_user_watches", withSlack(e.want), "sockets", "in epoll, of one user", withoutSlack)
}

func (e *examination) memory(d *config.Doctor) {
	kernel, measured := e.kernelBytes()
	each := kernel + userBytes
	how := "assumed, since /proc/slabinfo cannot be read"
	if measured {
		how = "by /proc/slabinfo"
	}
	present, known := e.available()
	note := fmt.Sprintf("MemAvailable; idle: %d for mqgate and %s for the kernel (%s) a connection; messages come on top", userBytes, grouped(kernel), how)
	if limit := int64(min(d.System.Memory, math.MaxInt64)); limit > 0 && (limit < present || !known) {
		present, known = limit, true
		note = "the limit of this process's cgroup" + note[len("MemAvailable"):]
	}
	e.add(Check{Name: "memory", Present: present >> 20, Needed: (baseBytes + e.want*each + 1<<20 - 1) >> 20, Unit: "MiB", Note: note,
		Holds: new(max(0, present-baseBytes) / each)}, known,
		"more memory, a higher memory limit (MemoryMax= under [Service]), or fewer connections")

	needed := e.want / busyFraction * pagesBusy
	pressure, known := e.sysctl("net.ipv4.tcp_mem", 1)
	e.add(Check{Name: "net.ipv4.tcp_mem", Present: pressure, Needed: needed, Unit: "pages",
		Note:  "the middle one, from which the kernel saves; with one connection in " + fmt.Sprint(busyFraction) + " busy",
		Holds: new(pressure / pagesBusy * busyFraction)}, known,
		sysctl("net.ipv4.tcp_mem", fmt.Sprintf("%d %d %d", needed*3/4, needed, needed*3/2))...)
}

func (e *examination) queues() {
	queue := min(e.want, backlog)
	e.setting("net.core.somaxconn", queue, "connections", "waiting for accept, per listener: caps --backlog", nil)
	e.setting("net.ipv4.tcp_max_syn_backlog", queue, "connections", "in their TCP handshake", nil)
	e.setting("net.core.netdev_max_backlog", queue, "packets", "received, waiting for a processor", nil)
}

func (e *examination) network() {
	used, loaded := e.sysctl("net.netfilter.nf_conntrack_count", 0)
	if loaded {
		note, holds := "tracked now: "+grouped(used)+"; a rule with NOTRACK for the port does without",
			func(n int64) int64 { return withoutSlack(n - used) }
		if used == 0 { // loaded, but without a rule that uses it, as in most containers
			note, holds = "loaded, but tracks nothing now", nil
		}
		e.setting("net.netfilter.nf_conntrack_max", withSlack(e.want)+used, "connections", note, holds)
	} else {
		e.report.Checks = append(e.report.Checks, Check{Name: "net.netfilter.nf_conntrack_max", Verdict: OK,
			Unit: "connections", Note: "not loaded: connections are not tracked"})
	}
	buckets, known := e.sysctl("net.ipv4.tcp_ehash_entries", 0)
	e.add(Check{Name: "net.ipv4.tcp_ehash_entries", Present: max(buckets, -buckets), // below 0: the machine's, in a network namespace without its own
		Needed: e.want, Unit: "buckets", Note: "to find a packet's connection in: fewer make every packet slower"}, known,
		fmt.Sprintf("the kernel's command line, for the next boot: thash_entries=%d", powerOf2(e.want)))
	e.setting("net.ipv4.tcp_max_tw_buckets", min(e.want, maxTimeWait), "connections", "just closed, in TIME_WAIT", nil)
	e.setting("net.ipv4.tcp_tw_reuse", 1, "",
		"matters to a proxy or load generator on this machine: 1 or 2", nil)
	low, known := e.sysctl("net.ipv4.ip_local_port_range", 0)
	high, _ := e.sysctl("net.ipv4.ip_local_port_range", 1)
	ports := max(0, high-low+1)
	note := "matters to a proxy or load generator on this machine"
	if known && ports > 0 {
		note += fmt.Sprintf(": it needs %s source addresses", grouped((e.want+ports-1)/ports))
	}
	e.add(Check{Name: "net.ipv4.ip_local_port_range", Present: ports, Needed: 28_000, Unit: "ports", Note: note}, known,
		sysctl("net.ipv4.ip_local_port_range", "1024 65535")...)
	e.report.Checks = append(e.report.Checks, Check{Name: "processors", Present: int64(e.report.Loops), Needed: 1, Unit: "loops", Verdict: OK,
		Note: fmt.Sprintf("heartbeat: %s pings a second at the default --ping-interval", grouped(e.want/pingInterval))})
}
