package conn

import (
	"strings"
	"testing"

	"github.com/mqgate/mqgate/frame"
)

// L1.1: all pairs of states; what is not allowed panics and changes nothing.
func TestTransitions(t *testing.T) {
	allowed := map[[2]State]bool{
		{New, Connecting}: true,

		{Connecting, Connected}: true,
		{Connecting, Closed}:    true,

		{Connected, Open}:    true,
		{Connected, Closing}: true, // closed from within OnOpen
		{Connected, Closed}:  true,

		{Open, Closing}: true,
		{Open, Closed}:  true,

		{Closing, Closed}: true,
	}
	for from := New; from <= Closed; from++ {
		for to := New; to <= Closed+3; to++ {
			c := Conn{state: from}
			panicked := func() (p any) {
				defer func() { p = recover() }()
				c.transition(to)
				return nil
			}()
			want, ok := to, allowed[[2]State{from, to}]
			if !ok {
				want = from
			}
			if (panicked == nil) != ok || c.state != want {
				t.Errorf("%v to %v: panic %v, now %v; allowed: %v", from, to, panicked, c.state, ok)
			}
			if text, _ := panicked.(string); !ok && !strings.Contains(text, from.String()) {
				t.Errorf("the panic %q does not name %v", text, from)
			}
		}
	}
}

func TestStateNames(t *testing.T) {
	want := []string{"NEW", "CONNECTING", "CONNECTED", "OPEN", "CLOSING", "CLOSED", "State(6)"}
	for s, name := range want {
		if got := State(s).String(); got != name {
			t.Errorf("state %d is %q, expected %q", s, got, name)
		}
	}
}

// L5.1: the one table. Codes that are sent may be sent, reasons fit, labels are the bounded set of the metric.
func TestCauseTable(t *testing.T) {
	want := map[Cause]struct {
		label  string
		code   uint16
		reason string
	}{
		CauseTimeout:   {"timeout", 3334, "timeout"},
		CauseDrain:     {"drain", 3333, "drain"},
		CauseLimit:     {"limit", 1013, "concurrency-limit-exceeded"},
		CauseSendError: {"send-error", 3335, "unexpected-close"},
		CauseSlow:      {"slow-consumer", 3335, "unexpected-close"},
		CauseClient:    {"client", 0, ""},
		CauseSocket:    {"socket-error", 0, ""},
		CauseForced:    {"forced", 0, ""},
		CauseProtocol:  {"protocol", 1002, ""},
		CauseTooBig:    {"message-too-big", 1009, ""},
		CauseBadUTF8:   {"bad-utf8", 1007, ""},
		CauseLocal:     {"local", 0, ""},
		CauseMemory:    {"memory-limit", 1013, "memory-limit-exceeded"},
	}
	if len(want) != NumCauses {
		t.Fatalf("%d causes, the test knows %d", NumCauses, len(want))
	}
	for c, w := range want {
		code, reason := c.Close()
		if c.Label() != w.label || code != w.code || reason != w.reason {
			t.Errorf("cause %d: %q %d %q, expected %+v", c, c.Label(), code, reason, w)
		}
		if code != 0 && !frame.ValidSendCode(int(code)) {
			t.Errorf("%s closes with %d, which must not be sent", c.Label(), code)
		}
		if a := c.Advice(); a > ComeBackIf {
			t.Errorf("%s has advice %d", c.Label(), a)
		}
	}
}

// The label of every code that can be reported is the right one, and the set is bounded.
func TestCodeLabels(t *testing.T) {
	for code, want := range map[uint16]string{1000: "1000", 1001: "1001", 1005: "1005", 1006: "1006", 1015: "1015",
		3000: "3xxx", 3332: "3xxx", 3333: "3333", 3334: "3334", 3335: "3335", 3336: "3xxx", 3999: "3xxx", 4000: "4xxx", 4999: "4xxx"} {
		if got := CodeLabel(codeIndex(code)); got != want {
			t.Errorf("code %d has label %q, expected %q", code, got, want)
		}
	}
	for code := range 1 << 16 {
		if i := codeIndex(uint16(code)); i < 0 || i >= NumCodes {
			t.Fatalf("code %d has index %d", code, i)
		}
	}
}
