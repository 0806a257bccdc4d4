package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/mqgate/mqgate/cmd/mqgate/config"
)

var update = flag.Bool("update", false, "write the golden files")

// files of a machine of 24 GiB.
var files = map[string]string{
	"proc/meminfo":                              "MemTotal:       24683612 kB\nMemFree:  100 kB\nMemAvailable:   23168768 kB\n",
	"proc/sys/fs/nr_open":                       "1048576\n",
	"proc/sys/fs/file-nr":                       "3744\t0\t2466170\n",
	"proc/sys/fs/file-max":                      "2466170\n",
	"proc/sys/fs/epoll/max_user_watches":        "5491511\n",
	"proc/sys/net/ipv4/tcp_ehash_entries":       "262144\n",
	"proc/sys/net/ipv4/tcp_mem":                 "287898\t383867\t575796\n",
	"proc/sys/net/core/somaxconn":               "4096\n",
	"proc/sys/net/core/netdev_max_backlog":      "1000\n",
	"proc/sys/net/ipv4/tcp_max_syn_backlog":     "2048\n",
	"proc/sys/net/ipv4/tcp_max_tw_buckets":      "131072\n",
	"proc/sys/net/ipv4/tcp_tw_reuse":            "2\n",
	"proc/sys/net/ipv4/ip_local_port_range":     "32768\t60999\n",
	"proc/sys/net/netfilter/nf_conntrack_max":   "262144\n",
	"proc/sys/net/netfilter/nf_conntrack_count": "17\n",
	"proc/slabinfo": `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
TCPv6                 26     26   2496   13    8 : tunables    0    0    0
TCP                   71    117   2368   13    8 : tunables    0    0    0
eventpoll_epi       3558  10848    128   32    1 : tunables    0    0    0
sock_inode_cache     200    361    832   19    4 : tunables    0    0    0
filp                2192   3402    192   21    1 : tunables    0    0    0
dentry            121578 124257    192   21    1 : tunables    0    0    0
`,
}

// tree is the machine with some files changed; "" takes one away.
func tree(changes map[string]string) fs.FS {
	all := maps.Clone(files)
	maps.Copy(all, changes)
	root := fstest.MapFS{}
	for name, text := range all {
		if text != "" {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return root
}

func ask(connections int, tables config.FDTables, openFiles uint64) *config.Doctor {
	return &config.Doctor{Connections: connections, Loops: 2, FDTables: tables,
		System: config.System{OpenFiles: openFiles, CPUs: 2, Memory: 1 << 40}}
}

var cases = []struct {
	name    string
	root    fs.FS
	ask     *config.Doctor
	holds   int64
	stopped string
	fits    bool
}{
	{"million", tree(nil), ask(1_000_000, config.FDTablesShared, 20_000), 17_714, "open files", false},
	{"per-loop", tree(nil), ask(30_000, config.FDTablesPerLoop, 20_000), 34_583, "open files", true},
	{"tuned", tree(map[string]string{
		"proc/sys/fs/nr_open":                     "2000000",
		"proc/sys/net/ipv4/tcp_ehash_entries":     "-1048576", // in a network namespace
		"proc/sys/net/netfilter/nf_conntrack_max": "1200000",
		"proc/sys/net/core/netdev_max_backlog":    "4096",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":   "4096",
		"proc/sys/net/ipv4/tcp_max_tw_buckets":    "262144",
		"proc/sys/fs/file-max":                    "9223372036854775808", // beyond int64, as some systems have it
	}), ask(1_000_000, config.FDTablesShared, 1_200_000), 1_068_987, "open files", true},
	{"conntrack", tree(nil), ask(250_000, config.FDTablesShared, 1_000_000), 238_298, "net.netfilter.nf_conntrack_max", false},
	{"no-conntrack", tree(map[string]string{
		"proc/sys/net/netfilter/nf_conntrack_max": "", "proc/sys/net/netfilter/nf_conntrack_count": "",
	}), ask(250_000, config.FDTablesShared, 1_000_000), 890_805, "open files", true},
	{"idle-conntrack", tree(map[string]string{"proc/sys/net/netfilter/nf_conntrack_count": "0"}),
		ask(250_000, config.FDTablesShared, 1_000_000), 890_805, "open files", true},
	{"small-memory", tree(map[string]string{"proc/meminfo": "MemAvailable: 524288 kB\n", "proc/slabinfo": ""}),
		ask(100_000, config.FDTablesShared, 1_000_000), 60_787, "memory", false},
	{"bare", fstest.MapFS{}, ask(1000, config.FDTablesShared, 20_000), 17_714, "open files", true},
}

// The golden files are what people and programs read.
func TestReports(t *testing.T) {
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			report := Examine(test.root, test.ask)
			if report.Holds != test.holds || report.StoppedBy != test.stopped || report.Fits != test.fits {
				t.Errorf("holds %d, stopped by %s, fits %t; want %d, %s, %t",
					report.Holds, report.StoppedBy, report.Fits, test.holds, test.stopped, test.fits)
			}
			if report.Fits != (report.Holds >= report.Connections) {
				t.Errorf("fits %t, with %d of %d connections", report.Fits, report.Holds, report.Connections)
			}
			var table, object bytes.Buffer
			if err := report.WriteTable(&table); err != nil {
				t.Fatal(err)
			}
			if err := report.WriteJSON(&object); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+test.name+".txt", table.Bytes())
			golden(t, "testdata/"+test.name+".json", object.Bytes())
			for line := range strings.Lines(table.String()) {
				for _, r := range line {
					if r > '~' || r < ' ' && r != '\n' {
						t.Errorf("not plain ASCII: %q", line)
						break
					}
				}
				if strings.HasSuffix(line, " \n") {
					t.Errorf("spaces at the end: %q", line)
				}
			}
			var back Report
			if err := json.Unmarshal(object.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(report, back); diff != "" {
				t.Errorf("the JSON says something else:\n%s", diff)
			}
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date (-update writes it):\n%s", path, diff)
	}
}

// What a short limit is said to need is enough, and one less is not: for each that stops connections, one after the other.
func TestNeedsAreExact(t *testing.T) {
	const want = 1_000_003
	for _, name := range []string{"fs.nr_open", "fs.file-max", "fs.epoll.max_user_watches", "net.netfilter.nf_conntrack_max"} {
		needed := check(t, tree(nil), want, name).Needed
		for _, test := range []struct {
			value int64
			holds bool
		}{{needed, true}, {needed - 1, false}} {
			file := "proc/sys/" + strings.ReplaceAll(name, ".", "/")
			c := check(t, tree(map[string]string{file: grouplessly(test.value)}), want, name)
			if got := *c.Holds >= want; got != test.holds || (c.Verdict == OK) != test.holds {
				t.Errorf("%s = %d: holds %d, %s; needed are %d for %d", name, test.value, *c.Holds, c.Verdict, needed, want)
			}
			if hints := strings.Join(c.Commands, "\n"); !test.holds && !strings.Contains(hints, "sysctl -w "+name+"="+grouplessly(needed)+"\n") {
				t.Errorf("%s: the commands are\n%s", name, hints)
			}
		}
	}
}

func grouplessly(n int64) string { return strings.ReplaceAll(grouped(n), ",", "") }

func check(t *testing.T, root fs.FS, connections int, name string) Check {
	t.Helper()
	for _, c := range Examine(root, ask(connections, config.FDTablesShared, 2_000_000)).Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check of %s", name)
	return Check{}
}

// Files that say something else than they should are unknown, not 0.
func TestUnreadable(t *testing.T) {
	for _, text := range []string{"many\n", "\n", "12 x\n", "1.5\n"} {
		c := check(t, tree(map[string]string{"proc/sys/fs/file-max": text}), 1000, "fs.file-max")
		if c.Verdict != Unknown || c.Holds != nil || c.Commands != nil {
			t.Errorf("%q: %+v", text, c)
		}
	}
	if kernel, measured := (machine{tree(map[string]string{"proc/slabinfo": "TCP 1 1 2368\n"})}).kernelBytes(); kernel != kernelBytes || measured {
		t.Errorf("slabinfo without most of its lines: %d, measured %t", kernel, measured)
	}
	if kernel, measured := (machine{tree(nil)}).kernelBytes(); kernel != 2368+832+192+192+128 || !measured {
		t.Errorf("slabinfo: %d, measured %t", kernel, measured)
	}
}

func TestSlack(t *testing.T) {
	for n := range int64(5000) {
		if sockets := withSlack(n); withoutSlack(sockets) != n || n > 0 && withoutSlack(sockets-1) >= n {
			t.Fatalf("%d connections: %d sockets, enough for %d; one less for %d", n, sockets, withoutSlack(sockets), withoutSlack(sockets-1))
		}
	}
}
