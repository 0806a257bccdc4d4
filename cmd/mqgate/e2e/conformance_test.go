package e2e

import (
	"testing"

	"github.com/mqgate/mqgate/conn/conformance"
)

// TestConformance runs the conformance suite against the binary, with the flags that others are told to test it with, but
// for the heartbeat: the cases say what comes, frame by frame.
func TestConformance(t *testing.T) {
	s := startServer(t, "--echo-path", "/echo", "--compression", "takeover", "--heartbeat", "off", "--max-message-bytes", "32MiB", "--max-pending-bytes", "64MiB")
	files := s.openFiles(t)
	target := &conformance.Target{Addr: s.addr, Path: "/echo", Patience: patience, Inflates: true}
	for name, cases := range map[string][]conformance.Case{"protocol": conformance.Protocol(), "requests": conformance.Requests(),
		"compression": conformance.Deflate(32 << 20)} {
		left := 0
		for i := range cases {
			if cases[i].Heavy && !heavyCases {
				left++
				continue
			}
			if err := cases[i].RunClient(target); err != nil {
				t.Errorf("section %s, %s: %v", cases[i].Section, cases[i].Name, err)
			}
		}
		t.Logf("%s: %d cases, %d of them left out, seed %d", name, len(cases), left, conformance.Seed)
	}
	s.awaitQuiet(t, files)
	s.stop(t)
}
