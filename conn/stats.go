package conn

import "github.com/mqgate/mqgate/frame"

// MessageKind tells messages apart in counters.
type MessageKind uint8

const (
	KindText MessageKind = iota
	KindBinary
	KindPing
	KindPong
	KindClose
	kinds
)

// NumKinds is the number of message kinds.
const NumKinds = int(kinds)

var kindLabels = [kinds]string{"text", "binary", "ping", "pong", "close"}

// String returns the metric label.
func (k MessageKind) String() string { return kindLabels[k] }

func kindOf(op frame.OpCode) MessageKind {
	switch op {
	case frame.Text:
		return KindText
	case frame.Binary, frame.Continuation:
		return KindBinary
	case frame.Ping:
		return KindPing
	case frame.Pong:
		return KindPong
	case frame.Close:
		return KindClose
	}
	return KindBinary
}

// refusalStatuses are the HTTP statuses with which an upgrade may be refused: the metric label of refusals.
var refusalStatuses = [...]int{400, 403, 404, 405, 408, 426, 431, 503, 505}

// NumRefusals is the number of refusal statuses; RefusalStatus the i-th of them.
const NumRefusals = len(refusalStatuses)

// RefusalStatus returns the i-th HTTP status with which an upgrade may be refused.
func RefusalStatus(i int) int { return refusalStatuses[i] }

func refusalIndex(status int) int {
	for i, s := range refusalStatuses {
		if s == status {
			return i
		}
	}
	return 0
}

// RTTBuckets are the upper bounds of the round trip time histogram [us]: 0.1 ms to 10 s, about 2.5 per decade.
var RTTBuckets = [...]uint32{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000}

// Stats are the counters of one registry, plain integers written by its loop alone. L6.2: Total - Disconnected = Open =
// Entries at every moment.
type Stats struct {
	Total     uint64 // connections upgraded, ever
	Open      int64  // upgraded and not ended
	Lingering int64  // ended, socket still open (L1.8)
	Handshake int64  // sockets whose upgrade is not done

	Disconnects [NumCauses][NumCodes]uint64
	Refused     [NumRefusals]uint64 // by HTTP status
	HandshakeTO uint64              // handshakes that timed out (L2.7)
	RefusedAddr [4]uint64           // of the 503s those for their address, by clientaddr.Verdict (L2.6)

	MessagesReceived, MessagesSent [NumKinds]uint64

	PingsSkipped        uint64 // L7.3
	PongsUnsolicited    uint64 // L7.4
	SlowBytes, SlowTime uint64 // slow consumers, by cause (L8.3)
	Errors              uint64 // socket errors (L8.1)

	CompressedShared, CompressedTakeover uint64 // connections that agreed on compression, without and with takeover
	CompressedReceived, CompressedSent   uint64 // messages
	CompressionSaved                     uint64 // by those sent [bytes]

	Paused                  int64                // connections that are not read at the moment
	Throttled, PausedMemory uint64               // times that one was: too many messages, too little memory (L8.6)
	After                   [NumAfterEnds]uint64 // what came for a connection after its end, by AfterEnd (L5.4)

	RTT      [len(RTTBuckets) + 1]uint64 // counts per bucket, the last one for what is above
	RTTSumUS uint64
}

// Disconnected returns the number of connections that have ended.
func (s *Stats) Disconnected() (n uint64) {
	for _, codes := range s.Disconnects {
		for _, v := range codes {
			n += v
		}
	}
	return n
}

// Add adds the counters of o to s.
func (s *Stats) Add(o *Stats) {
	s.Total += o.Total
	s.Open += o.Open
	s.Lingering += o.Lingering
	s.Handshake += o.Handshake
	for i := range s.Disconnects {
		for j := range s.Disconnects[i] {
			s.Disconnects[i][j] += o.Disconnects[i][j]
		}
	}
	for i := range s.Refused {
		s.Refused[i] += o.Refused[i]
	}
	s.HandshakeTO += o.HandshakeTO
	for i := range s.RefusedAddr {
		s.RefusedAddr[i] += o.RefusedAddr[i]
	}
	for i := range s.MessagesReceived {
		s.MessagesReceived[i] += o.MessagesReceived[i]
		s.MessagesSent[i] += o.MessagesSent[i]
	}
	s.PingsSkipped += o.PingsSkipped
	s.PongsUnsolicited += o.PongsUnsolicited
	s.SlowBytes += o.SlowBytes
	s.SlowTime += o.SlowTime
	s.Errors += o.Errors
	s.CompressedShared += o.CompressedShared
	s.CompressedTakeover += o.CompressedTakeover
	s.CompressedReceived += o.CompressedReceived
	s.CompressedSent += o.CompressedSent
	s.CompressionSaved += o.CompressionSaved
	s.Paused += o.Paused
	s.Throttled += o.Throttled
	s.PausedMemory += o.PausedMemory
	for i := range s.After {
		s.After[i] += o.After[i]
	}
	for i := range s.RTT {
		s.RTT[i] += o.RTT[i]
	}
	s.RTTSumUS += o.RTTSumUS
}

func (s *Stats) observeRTT(us uint32) {
	i := 0
	for i < len(RTTBuckets) && us > RTTBuckets[i] {
		i++
	}
	s.RTT[i]++
	s.RTTSumUS += uint64(us)
}
