package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseArgs parses a command line and returns the command or its faults.
func parseArgs(t *testing.T, line string, env ...string) (*Command, []string) {
	t.Helper()
	command, err := Parse(strings.Fields(line), env, testSystem, new(bytes.Buffer))
	if wrong, ok := errors.AsType[*Faults](err); ok {
		return nil, faultLines(wrong)
	} else if err != nil {
		t.Fatal(err)
	}
	return command, nil
}

// Which values of --nats there are, and what the settings of NATS have to do with each other.
func TestNATS(t *testing.T) {
	const (
		url      = "nats://127.0.0.1:4222"
		expected = ", expected 0 to 16 URLs of NATS servers like nats://127.0.0.1:4222 without user and password, or embedded"
		at       = " --nats (nats://h, flag --nats)"
		alone    = " --nats (embedded, flag --nats)"
	)
	t.Chdir(t.TempDir())
	writeFile(t, "notpem", "nothing")
	for _, test := range []struct {
		args   string
		faults []string
	}{
		{args: "serve --nats=" + url},
		{args: "serve --nats=nats://a:1,tls://b:2 --nats=ws://c,wss://[::1]:4 --nats-prefix=a.b_c-D --nats-connections=16"},
		{args: "serve --nats=embedded --nats-store=x --nats-listen= --auth=open --max-rooms=5"},
		{args: "serve --nats=nats://h --nats-lease=3s --nats-grace=0s --nats-replicas=5 --nats-ordered= --nats-idempotent=a.B,c"},
		{args: "serve --nats=nats://h --auth=open --max-rooms=10000"}, // as they are anyway
		{args: "worker --nats=" + url},
		{args: "worker --nats=" + url + " --max-rooms=5 --reenter-grace=1s --admin= --nats-replicas=3"},

		{args: "serve --nats=embedded," + url, faults: []string{`flag --nats: "embedded,nats://127.0.0.1:4222", expected embedded alone, or URLs`}},
		{args: "serve --nats=h:4222", faults: []string{`flag --nats: "h:4222" is not the URL of a NATS server` + expected}},
		{args: "serve --nats=http://h", faults: []string{`flag --nats: "http://h" is not the URL of a NATS server` + expected}},
		{args: "serve --nats=nats://h/x", faults: []string{`flag --nats: "nats://h/x" has more than a host and a port` + expected}},
		{args: "serve --nats=nats://me:secret@h", faults: []string{
			`flag --nats: "h" comes after a user or a password (use --nats-creds or --nats-nkey)` + expected}},
		{args: "serve --nats=nats://me:se%zzcret@h", faults: []string{
			`flag --nats: "h" comes after a user or a password (use --nats-creds or --nats-nkey)` + expected}},
		{args: "serve --nats-prefix=a..b --nats=nats://h", faults: []string{
			`flag --nats-prefix: "a..b" is not a prefix, expected up to 64 letters, digits, "_" and "-", with dots between them`}},
		{args: "serve --nats=nats://h --nats-lease=2500ms", faults: []string{`flag --nats-lease: "2.5s", expected whole seconds`}},
		{args: "serve --nats=nats://h --nats-idempotent=chat. --nats-ordered=a.*", faults: []string{
			`flag --nats-idempotent: "chat." is not a type, expected 0 to 64 ` + typesExpected,
			`flag --nats-ordered: "a.*" is not a type, nor the beginning of one, expected 0 to 64 ` + typesExpected +
				`; with a dot at the end: their beginning`}},
		{args: "serve --nats-grace=5s --nats-store=x", faults: []string{
			`flag --nats-grace: "5s", which has no meaning without --nats (, default)`,
			`flag --nats-store: "x", which has no meaning without --nats (, default)`}},
		{args: "serve --nats=nats://h --auth-secret-file=notpem --max-rooms=3 --nats-listen=:1", faults: []string{
			`flag --auth-secret-file: "notpem", expected --auth=jwt, the secret has no meaning with --auth (open, default)`,
			`flag --auth-secret-file: "notpem", which holds 7 bytes, expected a file with at least 32 bytes`,
			`flag --nats-listen: ":1", which has no meaning with` + at,
			`flag --auth-secret-file: "notpem", which is for mqgate worker with` + at,
			`flag --max-rooms: "3", which is for mqgate worker with` + at}},
		{args: "serve --nats=nats://h --max-history-age=1h", faults: []string{`flag --max-history-age: "1h", which is for mqgate worker with` + at}},
		{args: "serve --nats=nats://h --max-history-age=24h"}, // as it is anyway
		{args: "serve --nats=embedded --takeover=/x --nats-ca=notpem --nats-listen=:8080", faults: []string{
			`flag --nats-ca: "notpem", which cannot be used (NATS TLS CA file notpem: no certificate in it, expected PEM), expected a file of that kind`,
			`flag --nats-ca: "notpem", which has no meaning with` + alone,
			`flag --takeover: "/x", expected none: the next process cannot have the server's store yet, with` + alone,
			`flag --nats-listen: ":8080", expected another port than that of 127.0.0.1:8080`}},
		{args: "serve --nats=nats://h --nats-creds=nowhere --nats-nkey=notpem --nats-cert=notpem", faults: []string{
			`flag --nats-nkey: "notpem", expected nothing beside --nats-creds (nowhere, flag --nats-creds)`,
			`flag --nats-cert: "notpem", expected also --nats-key (, default)`,
			`flag --nats-creds: "nowhere", which cannot be used (NATS credentials file: open nowhere: no such file or directory), expected a file of that kind`,
			`flag --nats-nkey: "notpem", which cannot be used (NATS NKey seed file notpem: nkeys: no nkey seed found), expected a file of that kind`}},
		{args: "serve --nats=nats://h --nats-key=notpem", faults: []string{
			`flag --nats-key: "notpem", expected also --nats-cert (, default)`}},
		{args: "worker", faults: []string{
			`default of --nats: "", expected 1 to 16 URLs of NATS servers like nats://127.0.0.1:4222 without user and password`}},
		{args: "worker --nats=embedded", faults: []string{
			`flag --nats: "embedded", expected 1 to 16 URLs of NATS servers like nats://127.0.0.1:4222 without user and password`}},
		{args: "worker --nats=nats://h --max-history-age=999ms", faults: []string{
			`flag --max-history-age: "999ms", expected 0s, for no limit, or at least 1s`}},
		{args: "worker --nats=nats://h --listen=:1 --nats-lease=2s", faults: []string{
			"flag --listen: unknown flag of mqgate worker", "flag --nats-lease: unknown flag of mqgate worker"}},
	} {
		if _, got := parseArgs(t, test.args); !slices.Equal(got, test.faults) {
			t.Errorf("%s: %s", test.args, cmp.Diff(test.faults, got))
		}
	}
}

// A worker takes its settings from the three places, and refuses those that only a gateway has.
func TestWorkerPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.yaml")
	if err := os.WriteFile(file, []byte("nats: nats://h\nmax-rooms: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command, faults := parseArgs(t, "worker --config="+file+" --check", "MQGATE_REENTER_GRACE=7s", "MQGATE_AUTH=open")
	if faults != nil {
		t.Fatal(faults)
	}
	w := command.Worker
	if command.Name != CommandWorker || !command.Check || w.MaxRooms != 5 || w.ReenterGrace.Seconds() != 7 || w.MaxSessions != 1_000_000 ||
		w.Admin.String() != "127.0.0.1:9091" || !slices.Equal(w.NATS.Servers, []string{"nats://h"}) || w.NATS.Embedded() || !w.NATS.On() {
		t.Errorf("%+v", w)
	}
	if len(w.Warnings) != 1 || !strings.Contains(w.Warnings[0], "anybody may be anybody") {
		t.Errorf("%q", w.Warnings)
	}
	again := report(t, w)
	if strings.Contains(again, "listen:") || !strings.Contains(again, "max-rooms:") {
		t.Error(again)
	}
	if err := os.WriteFile(file, []byte(again+"ping-interval: 5s\nmax-roms: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, faults = parseArgs(t, "worker --config="+file, "MQGATE_LISTEN=:1", "MQGATE_MAX_ROMS=3")
	lines := strings.Count(again, "\n")
	want := []string{"environment MQGATE_LISTEN: expected for mqgate serve only, not for mqgate worker",
		"environment MQGATE_MAX_ROMS: unknown variable, did you mean MQGATE_MAX_ROOMS?",
		file + ":" + strconv.Itoa(lines+1) + " key ping-interval: expected for mqgate serve only",
		file + ":" + strconv.Itoa(lines+2) + " key max-roms: unknown key, did you mean max-rooms?"}
	if !slices.Equal(faults, want) {
		t.Error(cmp.Diff(want, faults))
	}
}

// Who may do what in the NATS server of a gateway that other machines reach, the log says.
func TestNATSWarnings(t *testing.T) {
	for args, want := range map[string]string{
		"serve --nats=embedded":                     "",
		"serve --nats=embedded --nats-listen=:4222": "whoever reaches it may do everything",
		"serve --nats=embedded --listen=:8080":      "anybody may be anybody",
		"serve --nats=nats://h --listen=:8080":      "", // the worker says so
		"worker --nats=nats://h":                    "anybody may be anybody",
	} {
		command, faults := parseArgs(t, args)
		if faults != nil {
			t.Fatal(faults)
		}
		s := command.Serve
		if s == nil {
			s = command.Worker
		}
		if got := strings.Join(s.Warnings, "\n"); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
