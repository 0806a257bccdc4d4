package subjects

// Headers of mqgate's own.
const (
	HeaderConnection    = "Mqgate-Connection"     // the connection id, as text
	HeaderSession       = "Mqgate-Session"        // the session bound to the connection
	HeaderClientSession = "Mqgate-Client-Session" // the session that the client says it has
	HeaderRemote        = "Mqgate-Remote"         // address:port of the client
	HeaderNode          = "Mqgate-Node"           // the gateway, as NodeToken
	HeaderDeadline      = "Mqgate-Deadline"       // until when an answer is waited for
	HeaderMeta          = "Mqgate-Meta-"          // begins the headers of the upgrade request that are passed on
	HeaderType          = "Mqgate-Type"           // type of an answer, event or request
	HeaderError         = "Mqgate-Error"          // an answer that says why there is none
	HeaderCode          = "Mqgate-Code"           // close code
	HeaderBind          = "Mqgate-Bind"           // binds the connection of a request to a session; empty: to none
	HeaderRoom          = "Mqgate-Room"           // the room that an answer subscribes to
	HeaderRoomSeq       = "Mqgate-Room-Seq"       // and the sequence of its log that the answer includes
)

// Headers of NATS that mqgate reads.
const (
	// HeaderSequence is the sequence in the stream of a record that was published again or fetched.
	HeaderSequence = "Nats-Sequence"
	// HeaderLastSequence is, in a record that was published again, the sequence before it on the same subject.
	HeaderLastSequence = "Nats-Last-Sequence"
	// HeaderExpectedLast is the compare of compare-and-set. It stays with the record: the sequence before it on the same
	// subject.
	HeaderExpectedLast = "Nats-Expected-Last-Subject-Sequence"
	// HeaderMsgID makes a second message with the same value a duplicate.
	HeaderMsgID = "Nats-Msg-Id"
)
