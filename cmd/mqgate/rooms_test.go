package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/mq/rooms"
)

// What --check accepts, the rooms worker must accept too: the defaults are the same, and the ranges of the flags lie
// within those of the worker.
func TestRoomsSettingsFitTheWorker(t *testing.T) {
	parse := func(flags ...string) *config.Serve {
		t.Helper()
		command, err := config.Parse(append([]string{"serve"}, flags...), nil, config.System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 1}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return command.Serve
	}
	defaults := rooms.DefaultConfig()
	if got := roomsConfig(parse()); got.Limits != defaults.Limits || got.ReenterGrace != defaults.ReenterGrace {
		t.Errorf("defaults of the flags %+v\nof the worker %+v", got, defaults)
	}
	for _, flags := range [][]string{
		{"--reenter-grace=0s", "--max-sessions=1", "--max-rooms=1", "--max-members-per-room=1", "--max-history-per-room=1",
			"--max-history-bytes-per-room=32KiB", "--max-history-age=1s"},
		{"--max-history-age=0s"},
		{"--reenter-grace=1h", "--max-sessions=16777216", "--max-rooms=16777216", "--max-members-per-room=1048576",
			"--max-history-per-room=1048576", "--max-history-bytes-per-room=1GiB", "--max-history-age=87600h"},
	} {
		if _, err := rooms.New(roomsConfig(parse(flags...))); err != nil {
			t.Errorf("%q: %v", flags, err)
		}
	}
	for text, want := range map[string]time.Duration{"0s": 0, "1s": time.Second, "36h": 36 * time.Hour} {
		if got := roomsConfig(parse("--max-history-age=" + text)).Limits.HistoryAge; got != want {
			t.Errorf("--max-history-age=%s is %v in the worker", text, got)
		}
	}
	// The shortest secret that either accepts.
	secret := filepath.Join(t.TempDir(), "secret")
	for _, n := range []int{rooms.MinSecretBytes - 1, rooms.MinSecretBytes} {
		if err := os.WriteFile(secret, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Parse([]string{"serve", "--auth=jwt", "--auth-secret-file=" + secret}, nil,
			config.System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 1}, io.Discard)
		if (err == nil) != (n == rooms.MinSecretBytes) {
			t.Errorf("a secret of %d bytes: %v", n, err)
		}
	}
}
