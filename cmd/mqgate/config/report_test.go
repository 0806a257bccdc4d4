package config

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func report(t *testing.T, s *Serve) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteReport(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReport(t *testing.T) {
	want, err := filepath.Abs("testdata/report.txt")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	writeFile(t, "secret", "a secret of more than 32 bytes, never shown")
	s := mustServe(t,
		[]string{"--listen=[::]:8080", "--listen=127.0.0.1:0", "--auth=jwt", "--auth-secret-file=secret", "--backlog=5000"},
		[]string{"MQGATE_ADMIN=", "MQGATE_META_HEADERS=", "MQGATE_DRAIN_TIMEOUT=90m"},
		"heartbeat: off\nmax-message-bytes: 65536\npath: '/a,b:c'\nloops: 2\n")
	text := report(t, s)
	if strings.Contains(text, "a secret of") {
		t.Error("the report shows the secret")
	}
	golden(t, want, []byte(text))
}

// The report is a file for --config that gives the same configuration, one line a setting whatever the values are.
func TestReportRoundTrip(t *testing.T) {
	t.Chdir(t.TempDir())
	deep := strings.Repeat("a long name/", 20)
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"null", "a: b # c", "true", "a\nb", "ü", " ", deep + "secret", "[x", "'\"", "1e3", "\u2028"} {
		writeFile(t, name, strings.Repeat("s", 32))
		for _, args := range [][]string{
			{"--auth=jwt", "--auth-secret-file=" + name},
			{"--admin=:1", "--admin-token-file=" + name},
		} {
			testRoundTrip(t, args)
		}
	}
	for _, args := range [][]string{
		nil,
		{"--listen=[fe80::1%eth0]:1,:2", "--meta-headers=A,B"},
		{"--meta-headers=" + strings.Join(strings.Fields(strings.Repeat("Some-Header-With-A-Long-Name- ", 2)), "1,")},
		{"--meta-headers=null,true,1,~,0x1F,1e3,!,|,&a,*,%,`,#", "--path=/a:b", "--echo-path=/!&*,'", "--admin="},
		{"--heartbeat=off", "--log-level=error", "--max-connections=5", "--loops=3", "--drain-timeout=1h0m1s"},
	} {
		testRoundTrip(t, args)
	}
}

func testRoundTrip(t *testing.T, args []string) {
	t.Helper()
	first := mustServe(t, args, nil, "")
	text := report(t, first)
	count := 0
	for line := range strings.Lines(text) {
		if line == "\n" || line[0] == '#' {
			continue
		}
		count++
		if !strings.Contains(line, " # ") {
			t.Errorf("%q: a line without its origin: %q", args, line)
		}
	}
	if want := len(settings) - 2; count != want { // without config and check
		t.Errorf("%q: %d settings, want %d:\n%s", args, count, want, text)
	}
	writeFile(t, "report.yaml", text)
	second := mustServe(t, []string{"--config=report.yaml"}, nil, "")
	options := cmp.Options{cmpopts.IgnoreUnexported(Serve{}), cmpopts.IgnoreFields(Serve{}, "ConfigFile"),
		cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	if diff := cmp.Diff(first, second, options); diff != "" {
		t.Errorf("%q: %s", args, diff)
	}
}

func TestLogger(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "level=INFO msg=b\nlevel=WARN msg=c\nlevel=ERROR msg=d\n"},
		{[]string{"--log-level=debug"}, "level=DEBUG msg=a\nlevel=INFO msg=b\nlevel=WARN msg=c\nlevel=ERROR msg=d\n"},
		{[]string{"--log-level=warn"}, "level=WARN msg=c\nlevel=ERROR msg=d\n"},
		{[]string{"--log-level=error"}, "level=ERROR msg=d\n"},
	} {
		var b bytes.Buffer
		log := mustServe(t, test.args, nil, "").Logger(&b)
		log.Debug("a")
		log.Info("b")
		log.Warn("c")
		log.Error("d")
		var got strings.Builder
		for line := range strings.Lines(b.String()) {
			_, rest, _ := strings.Cut(line, " ") // without the time
			got.WriteString(rest)
		}
		if got.String() != test.want {
			t.Errorf("%q: %q, want %q", test.args, got.String(), test.want)
		}
	}
	var b bytes.Buffer
	log := mustServe(t, []string{"--log-format=json"}, nil, "").Logger(&b)
	log.Info("listening", "addr", "127.0.0.1:1", "loops", 2)
	var record struct {
		Level, Msg, Addr string
		Loops            int
	}
	if err := json.Unmarshal(b.Bytes(), &record); err != nil || record.Level != "INFO" || record.Addr != "127.0.0.1:1" || record.Loops != 2 {
		t.Errorf("%s: %+v, %v", b.String(), record, err)
	}
	// Durations are for people, in both formats.
	for _, format := range []LogFormat{LogText, LogJSON} {
		var b bytes.Buffer
		log := mustServe(t, []string{"--log-format=" + string(format)}, nil, "").Logger(&b)
		log.With("delay", 15*time.Second).Info("draining", "took", 1500*time.Millisecond, slog.Group("g", "wait", time.Minute))
		want := ` delay=15s took=1.5s g.wait=1m0s` + "\n"
		if format == LogJSON {
			want = `"delay":"15s","took":"1.5s","g":{"wait":"1m0s"}}` + "\n"
		}
		if got := b.String(); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s", format, got)
		}
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug is on by default")
	}
}
