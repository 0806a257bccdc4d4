package wire

// TypeError is the type of mq.Error, which answers a request that got no other answer.
const TypeError = "mq.Error"

// Reasons in mq.Error.
const (
	ReasonFailed  = "failed"  // the worker failed, or there was none (L3.5)
	ReasonTimeout = "timeout" // no answer within the request timeout (L3.4)
)

// Error is mq.Error.
type Error struct {
	Reason string // 1, required
}

// Unmarshal decodes b into m, replacing all of it. The strings of m are views of b.
func (m *Error) Unmarshal(b []byte) error {
	*m = Error{}
	f := Fields{b: b, msg: TypeError}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&m.Reason)
		default:
			f.skip()
		}
	}
	return f.err
}

// AppendTo appends the encoded m to dst and returns the result.
func (m *Error) AppendTo(dst []byte) []byte { return appendRequired(dst, 1, m.Reason) }
