package conn

// Cause is our own word for what ended a connection: the metric label `reason` and the key to code and reason text of
// the Close frames that this end starts (L5.1). What a peer says never becomes a label.
type Cause uint8

const (
	CauseClient    Cause = iota // the peer's Close frame
	CauseTimeout                // heartbeat: nothing heard (L7.2)
	CauseDrain                  // the process is going (L5.5)
	CauseLimit                  // above --max-connections (L2.5)
	CauseSendError              // sending failed (L4.4, L7.6)
	CauseSlow                   // slow consumer (L8.3)
	CauseProtocol               // RFC 6455 broken by the peer
	CauseTooBig                 // message above --max-message-bytes
	CauseBadUTF8                // text or close reason that is not UTF-8
	CauseSocket                 // socket error, or FIN without a Close frame
	CauseForced                 // no Close frame from the peer in time (L5.3)
	CauseLocal                  // closed through the API: by the worker or the operator
	CauseMemory                 // memory is short, and this connection held most of it (L8.6)
	causes                      // number of causes
)

// Advice says whether a client should come back after a close.
type Advice uint8

const (
	ComeBack   Advice = iota // reconnect, with back-off
	StayAway                 // the client itself is at fault, or wanted to end: do not reconnect by itself
	ComeBackIf               // reconnect after changing what was wrong
)

type causeInfo struct {
	label  string
	code   uint16 // what the Close frame says when we start; 0: none is started with this cause
	reason string
	advice Advice
}

// causeTable is the one table of causes; docs/lifecycle.md is its page for users.
var causeTable = [causes]causeInfo{
	CauseClient:    {"client", 0, "", StayAway},
	CauseTimeout:   {"timeout", 3334, "timeout", ComeBack},
	CauseDrain:     {"drain", 3333, "drain", ComeBack},
	CauseLimit:     {"limit", 1013, "concurrency-limit-exceeded", ComeBack},
	CauseSendError: {"send-error", 3335, "unexpected-close", ComeBack},
	CauseSlow:      {"slow-consumer", 3335, "unexpected-close", ComeBack},
	CauseProtocol:  {"protocol", 1002, "", StayAway},
	CauseTooBig:    {"message-too-big", 1009, "", ComeBackIf},
	CauseBadUTF8:   {"bad-utf8", 1007, "", StayAway},
	CauseSocket:    {"socket-error", 0, "", ComeBack},
	CauseForced:    {"forced", 0, "", ComeBack},
	CauseLocal:     {"local", 0, "", ComeBack},
	CauseMemory:    {"memory-limit", 1013, "memory-limit-exceeded", ComeBack},
}

// Label returns the metric label.
func (c Cause) Label() string { return causeTable[c].label }

// Close returns the code and reason with which this end closes for this cause; code 0 when it never does.
func (c Cause) Close() (code uint16, reason string) { return causeTable[c].code, causeTable[c].reason }

// Advice says whether a client should come back.
func (c Cause) Advice() Advice { return causeTable[c].advice }

// AfterEnd is how a connection had ended for which something came afterwards: a close, an event or a question by its id, or
// an error of its lingering socket. It changes nothing and is counted (L5.4).
type AfterEnd uint8

const (
	AlreadyDisconnected AfterEnd = iota // in good order, or longer ago than its slot remembers
	AfterForced                         // by force (L5.3)
)

// NumAfterEnds is the number of kinds of AfterEnd.
const NumAfterEnds = 2

// String returns the metric label.
func (a AfterEnd) String() string {
	return [...]string{"already-disconnected", "after-forceful-close"}[a]
}

// NumCauses is the number of causes: valid ones are below it.
const NumCauses = int(causes)

// Codes that a server reports but never sends (RFC 6455 section 7.4.1).
const (
	codeNormal   = 1000
	codeProtocol = 1002
	codeNoStatus = 1005
	codeAbnormal = 1006
	codeBadData  = 1007
	codeTooBig   = 1009
)

// codeLabels are the values of the metric label `code`: a bounded set, whatever peers send.
var codeLabels = [...]string{"1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011",
	"1012", "1013", "1014", "1015", "3333", "3334", "3335", "3xxx", "4xxx"}

// NumCodes is the number of values of the metric label `code`.
const NumCodes = len(codeLabels)

// CodeLabel returns the i-th value of the metric label `code`.
func CodeLabel(i int) string { return codeLabels[i] }

func codeIndex(code uint16) int {
	switch {
	case code >= 1000 && code <= 1015:
		return int(code - 1000)
	case code >= 3333 && code <= 3335:
		return int(code-3333) + 16
	case code < 4000:
		return 19
	}
	return 20
}
