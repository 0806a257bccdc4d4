package sequences

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn"
)

var update = flag.Bool("update", false, "write docs/sequences.md instead of comparing with it")

const pagePath = "../../docs/sequences.md"

// A section of the page has one or more scenes.
type section struct {
	title, text string
	scenes      []scene
}

type scene struct {
	title string
	rows  string // of docs/lifecycle.md
	text  string
	set   func(settings)
	play  func(p *play)
	lossy bool // frames that are counted as sent do not reach the client
}

var sections = []section{establishment, refusals, limit, requests, responses, events, asking, heartbeat, serverClose, clientClose,
	overlap, faults, slow, pushBack, ends, drain}

// TestPage plays every sequence and compares docs/sequences.md with what is seen.
func TestPage(t *testing.T) {
	var page strings.Builder
	page.WriteString(intro)
	for _, sec := range sections {
		fmt.Fprintf(&page, "- [%s](#%s)\n", sec.title, anchor(sec.title))
	}
	missing := 0
	for _, sec := range sections {
		fmt.Fprintf(&page, "\n## %s\n", sec.title)
		if sec.text != "" {
			fmt.Fprintf(&page, "\n%s\n", prose(sec.text))
		}
		missing += len(sec.scenes)
		for _, s := range sec.scenes {
			t.Run(sec.title+"/"+s.title, func(t *testing.T) {
				p := newPlay(t, s.set)
				s.play(p)
				p.run()
				fmt.Fprintf(&page, "\n### %s\n\n%s\n\n```text\n%s```\n", s.title, prose(strings.TrimPrefix(s.rows+". "+s.text, ". ")), p.text())
				if !s.lossy {
					p.compareFrames()
				}
				p.finish()
				missing--
			})
		}
	}
	if missing > 0 || t.Failed() {
		return // a scene has failed, or -run has left some out
	}
	got := page.String()
	if *update {
		if err := os.WriteFile(pagePath, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("docs/sequences.md does not show what happens; go test ./mq/sequences -update writes it anew.\n%s",
			difference(string(want), got))
	}
}

// compareFrames compares the frames that the gateway counts as sent with those that clients got, in scenes in which
// nothing is lost: the page leaves these counters out, and says that each frame counts.
func (p *play) compareFrames() {
	var got [conn.NumKinds]uint64
	for _, c := range p.clients {
		for i, n := range c.frames {
			got[i] += n
		}
	}
	if sent := p.reg.Stats().MessagesSent; sent != got {
		p.t.Errorf("the gateway counts %v frames sent, clients got %v", sent, got)
	}
}

// TestPageNames checks that the rows and counters that the page names are those of the other pages.
func TestPageNames(t *testing.T) {
	metrics, lifecycle := read(t, "../../docs/metrics.md"), read(t, "../../docs/lifecycle.md")
	p := newPlay(t, nil)
	seen := map[string]bool{}
	for _, c := range append(p.counters(), count{name: "pending_bytes"}) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(c.name, "}"), "{")
		rows := regexp.MustCompile("(?m)^\\| `mqgate_(connections_)?"+name+"(_total)?` \\|.*$").FindAllString(metrics, -1)
		if len(rows) == 0 {
			t.Errorf("docs/metrics.md does not know %s", c.name)
		}
		for _, label := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
			if seen[name+label] {
				continue
			}
			if seen[name+label] = true; !strings.Contains(strings.Join(rows, ""), "`"+label+"`") {
				t.Errorf("docs/metrics.md: %s has no value %s", name, label)
			}
		}
	}
	named := map[string]bool{}
	for _, sec := range sections {
		for _, s := range sec.scenes {
			for _, r := range regexp.MustCompile(`L\d+\.\d+`).FindAllString(s.rows+s.text, -1) {
				named[r] = true
				if !strings.Contains(lifecycle, "\n| "+r+" |") {
					t.Errorf("%s: docs/lifecycle.md has no row %s", s.title, r)
				}
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\| (L\d+\.\d+) \|`).FindAllStringSubmatch(lifecycle, -1) {
		if _, elsewhere := notPlayed[m[1]]; !named[m[1]] && !elsewhere {
			t.Errorf("%s is in no sequence, and notPlayed does not say why", m[1])
		}
	}
}

// notPlayed are the rows that have no transcript, with the reason.
var notPlayed = map[string]string{
	"L1.2": "about the code; the client role is in conn's tests",
	"L2.3": "where an address comes from is no sequence: conn/source_test.go",
	"L6.2": "checked after every step of every sequence, by play.run",
	"L8.4": "accepting belongs to the loop: loop/nofile_test.go",
	"L8.5": "a loop's end belongs to the process: loop/group_test.go",
}

// TestDefaults checks that the times of which the page says that they are the defaults are.
func TestDefaults(t *testing.T) {
	configuration := read(t, "../../docs/configuration.md")
	p := newPlay(t, nil)
	for flag, value := range map[string]string{
		"handshake-timeout": p.cfg.HandshakeTimeout.String(), "ping-interval": p.cfg.PingInterval.String(),
		"close-timeout": p.cfg.CloseTimeout.String(), "write-timeout": p.cfg.WriteTimeout.String(),
		"request-timeout": "15s", "server-request-timeout": "15s", "max-requests-per-connection": "256",
		"max-message-bytes": "1MiB", "max-pending-bytes": "4MiB",
	} {
		if !regexp.MustCompile("(?m)^\\| `--" + flag + "` \\| `[A-Z_]+` \\| `" + value + "` \\|").MatchString(configuration) {
			t.Errorf("--%s is not %s by default", flag, value)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// anchor is how a heading is linked to.
func anchor(title string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

// difference shows where two texts differ, some lines of it: - is the page, + is what happens.
func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	heading := ""
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if i < len(a) && j < len(b) && a[i] == b[j] {
			if strings.HasPrefix(a[i], "#") {
				heading = a[i]
			}
			i, j = i+1, j+1
			continue
		}
		if len(out) > 80 {
			out = append(out, "...")
			break
		}
		out = append(out, fmt.Sprintf("docs/sequences.md:%d, under %q:", i+1, heading))
		// The nearest lines at which both go on alike.
		di, dj := resume(a[i:], b[j:])
		for ; di > 0; di-- {
			out = append(out, "- "+a[i])
			i++
		}
		for ; dj > 0; dj-- {
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return strings.Join(out, "\n")
}

// resume returns how many lines of each to skip so that two lines alike follow, or all of them.
func resume(a, b []string) (int, int) {
	for sum := 1; sum < len(a)+len(b); sum++ {
		for i := max(0, sum-len(b)+1); i <= min(sum, len(a)-1); i++ {
			if j := sum - i; a[i] == b[j] && (i+1 == len(a)) == (j+1 == len(b)) && (i+1 == len(a) || a[i+1] == b[j+1]) {
				return i, j
			}
		}
	}
	return len(a), len(b)
}

func TestDifference(t *testing.T) {
	for _, test := range []struct{ want, got, diff string }{
		{"# a\nb\nc", "# a\nb\nc", ""},
		{"# a\nb\nc\nd", "# a\nx\nc\nd", "docs/sequences.md:2, under \"# a\":\n- b\n+ x"},
		{"a\nc\nd", "a\nb\nc\nd", "docs/sequences.md:2, under \"\":\n+ b"},
		{"a\nb\nc\nd", "a\nc\nd", "docs/sequences.md:2, under \"\":\n- b"},
		{"a", "b\nc", "docs/sequences.md:1, under \"\":\n- a\n+ b\n+ c"},
	} {
		if got := difference(test.want, test.got); got != test.diff {
			t.Errorf("difference(%q, %q)\n%s\nexpected\n%s", test.want, test.got, got, test.diff)
		}
	}
}

// intro is the beginning of the page.
const intro = `# Sequences

What a client, the gateway and its worker say to each other, in order, for every sequence in the life of a connection. A test
plays each one on the real gateway over a simulated network and clock and compares this page with what it sees, so what stands
here is what happens: ` + "`go test ./mq/sequences`" + `; after a change of behaviour, the same with ` + "`-update`" + ` writes the page anew.
[lifecycle.md](lifecycle.md) has the rules (the row numbers, as L3.4) and the table of close codes, [protocol.md](protocol.md) the
messages.

How to read a transcript:

- **Time** is since the beginning of the scene. The network of the simulation takes no time; what waits, waits for a timer or for
  somebody to do something. Times and limits are the defaults of the flags where the text names no other. Except under
  [Heartbeat](#heartbeat) pings are off, because they would stand between the lines.
- **client ->** is what the client does or sends, **client <-** what arrives there: the upgrade in HTTP, then frames as opcode,
  kind of envelope, request id, type and content; FIN and RST are TCP's. **worker ->** is what the worker behind the gateway does,
  **worker <-** what it is told; **operator ->** uses the admin interface or a signal. **gateway** is what goes on inside: states,
  calls of the handler, log lines (without ids, addresses and stacks).
- Behind **|** stand the counters that changed from this line to the next, by their names in [metrics.md](metrics.md) without
  ` + "`mqgate_`, `_total`, and `connections_`" + ` in ` + "`connections_open`" + ` and its like. Every frame also counts in
  ` + "`messages_received` or `messages_sent`" + `, which is left out.
- Unless it shows how, a scene begins with a connection that is OPEN. Several clients are called A, B, C.

`
