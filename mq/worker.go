package mq

import (
	"errors"
	"net/netip"
	"time"

	"github.com/mqgate/mqgate/conn"
)

// Worker answers the requests of clients. The gateway has exactly one; it may work in process (mq/rooms) or pass
// everything on over a network.
type Worker interface {
	// Attach is called once, before any other method, with the way back to the clients.
	Attach(Clients)

	// Process handles one request of a client (L3.3). It is called on the goroutine of the connection's loop and must
	// not block: a thousand other connections wait for it. Nor may it read or write files and connections there: with
	// --fd-tables=per-loop a descriptor is another one on that thread (loop.GroupConfig.TablePerLoop). It has three ways to answer:
	//
	//   - at once: r.Reply or r.Fail before it returns;
	//   - later: c := r.Later(), then c.Reply or c.Fail from any goroutine;
	//   - never: the client gets mq.Error "timeout" when the gateway's request timeout has passed (L3.4).
	//
	// Only the first answer counts; every further one is dropped and counted. r and everything borrowed from it (Type,
	// SessionID, Payload) is valid until Process returns. A panic fails this request alone (L8.2).
	Process(r *Request)

	// Disconnected tells that a connection has ended, exactly once per connection that was opened (L6.1). It is called
	// on the connection's loop and must not block. An error means "not taken": the gateway keeps the publication and
	// offers it again (L6.3), and so does a panic, until the third one for the same connection.
	Disconnected(d Disconnect) error

	// RoundTrip tells a round trip time measured by a ping and its pong (L7.4). Called on the connection's loop; must
	// not block.
	RoundTrip(id conn.ID, rtt time.Duration)
}

// InterestedWorker is a Worker that wants to know in which rooms connections of this gateway are subscribed: what a worker
// needs that gets the events of rooms from elsewhere.
type InterestedWorker interface {
	Worker

	// Interest tells that a connection of this gateway has subscribed to a topic of a room and none was before (some), or
	// that none is any more (not some). Both topics of a room and all loops count together. The calls for one room take
	// turns, beginning with some, and never overlap; those for different rooms may. Called on the loop, with a lock held
	// that other loops may wait for: it must be quick and must not block. room belongs to the receiver. A panic is logged
	// and harms nothing else (L8.2).
	Interest(room string, some bool)
}

// Disconnect describes the end of a connection: what goes into pcast.ConnectionDisconnected, and a little more for
// workers in the same process.
type Disconnect struct {
	Conn        conn.ID
	Code        uint16 // WebSocket close code as reported (RFC 6455 section 7.4): 1006 when no Close frame came
	Description string // the peer's reason text, or our own; owned by the receiver
	Duration    time.Duration
}

// Clients is what a worker may do to the clients. All methods are safe from any goroutine, also from inside
// Worker.Process; none blocks; typ, payload, room ids and reasons are copied before they return. A callback that panics
// is logged and harms nothing else (L8.2).
type Clients interface {
	// Publish sends an event to every connection subscribed to t at the time when it reaches the loop of that
	// connection. Events published one after the other by one goroutine arrive in that order.
	Publish(t Topic, typ string, payload []byte)

	// SendEvent sends an event to one connection (L4.1). done may be nil; it is called on the connection's loop (or at
	// once when the id is not of this gateway) with nil, ErrNotFound or ErrNotOpen.
	SendEvent(id conn.ID, typ string, payload []byte, done func(error))

	// SendRequest sends a request to one connection and calls done exactly once, on the connection's loop, with the
	// answer or with ErrNotFound (then at once, when the id is not of this gateway), ErrNotOpen, ErrTimeout (L4.3),
	// ErrConnectionClosed or ErrTooMany. The Response is borrowed until done returns. done may be nil.
	SendRequest(id conn.ID, typ string, payload []byte, done func(Response, error))

	// Unsubscribe ends the subscription of one connection to t, if there is one.
	Unsubscribe(id conn.ID, t Topic)

	// UnsubscribeAll ends all subscriptions of one connection, as after pcast.Bye or when another connection took its
	// session over.
	UnsubscribeAll(id conn.ID)

	// EndTopic ends all subscriptions to t, as when a room is destroyed. Events published to t by the same goroutine
	// before are still delivered.
	EndTopic(t Topic)

	// CloseConnection starts the close handshake of one connection (L5.2). done may be nil; it is called on the
	// connection's loop (or at once when the id is not of this gateway): false when there was nothing to close.
	CloseConnection(id conn.ID, code uint16, reason string, done func(bool))
}

// TopicKind tells rooms from conversations: two subscriptions that a client may have to the same room id.
type TopicKind uint8

const (
	// TopicRoom carries chat.RoomEvent; subscribed by a successful chat.JoinRoom.
	TopicRoom TopicKind = iota
	// TopicConversation carries chat.RoomConversationEvent; subscribed by chat.FetchRoomConversation with Subscribe.
	TopicConversation
)

// Topic names what clients subscribe to. Comparable.
type Topic struct {
	Kind TopicKind
	Room string // room id, 1 to 4096 bytes: nobody is subscribed to others
}

// Event is an event to a connection, as Completion.ReplySubscribing takes it.
type Event struct {
	Type    string
	Payload []byte
}

// Response is a client's answer to a request of the server. Both fields are borrowed until the callback returns.
type Response struct {
	Type     string
	Payload  []byte
	WallTime float64 // [ms] as the client says; 0 when it does not
}

// Errors of Clients. Their texts are part of the admin interface (L4.2).
var (
	//lint:ignore ST1005 clients of the admin interface compare the text
	ErrNotFound = errors.New("Websocket connection not found")
	//lint:ignore ST1005 likewise
	ErrNotOpen          = errors.New("Websocket connection not opened")
	ErrTimeout          = errors.New("request timed out")
	ErrConnectionClosed = errors.New("connection closed while its answer was awaited")
)

// Meta is what is known of a connection besides its id. Meta belongs to the receiver.
type Meta struct {
	Remote  netip.AddrPort
	Start   time.Time
	Headers []Header // the request headers named by --meta-headers, in that order
}

// Header is one request header kept for the worker.
type Header struct{ Name, Value string }

// Request is one request of a client while Worker.Process runs. See Process for how long its fields live.
type Request struct {
	Conn      conn.ID
	SessionID string // envelope field 1, as the client says: to be checked, not trusted
	Type      string // e.g. "chat.JoinRoom"
	Payload   []byte

	// Bound is the session that a worker has bound to the connection with a Note or a Binder: a transport says so, not
	// the client. A gateway in the same process has no bindings, and it stays empty.
	Bound string

	from Responder
}

// Responder is the gateway's end of a Request. Workers use the methods of Request instead.
type Responder interface {
	Reply(r *Request, typ string, payload []byte)
	Fail(r *Request, cause error)
	Later(r *Request) Completion
	Meta(r *Request) Meta
}

// NewRequest returns a Request whose answer goes to from. For gateways, and for tests of workers.
func NewRequest(from Responder) *Request { return &Request{from: from} }

// Reply answers the request with a message of type typ. payload is copied; it may be scratch memory of the worker.
// Only on the goroutine that runs Process, and only before Process returns.
func (r *Request) Reply(typ string, payload []byte) { r.from.Reply(r, typ, payload) }

// Fail answers the request with mq.Error "failed" (L3.5). cause is logged, never sent. Where and when: as Reply.
func (r *Request) Fail(cause error) { r.from.Fail(r, cause) }

// Later keeps the request open after Process has returned. It must be called before Process returns.
func (r *Request) Later() Completion { return r.from.Later(r) }

// Meta returns what is known of the connection. Only while Process runs. It allocates.
func (r *Request) Meta() Meta { return r.from.Meta(r) }

// Completion answers a request after Process has returned. It may be copied, dropped, and used from any goroutine; the
// first answer counts. Answers that come after the gateway's timeout, or after the connection has gone, are dropped and
// counted by the gateway (L3.4, L3.7).
type Completion struct {
	to Completer
	id uint64
}

// Completer is the gateway's end of a Completion.
type Completer interface {
	// Complete answers the pending request id: a reply when cause is nil, else mq.Error "failed". payload is copied.
	Complete(id uint64, typ string, payload []byte, cause error)
}

// SubscribingCompleter is a Completer on which Completion.ReplySubscribing can be called, as that of a Gateway.
type SubscribingCompleter interface {
	Completer
	// CompleteSubscribing answers the pending request id: see Completion.ReplySubscribing.
	CompleteSubscribing(id uint64, typ string, payload []byte, missed []Event, done func())
}

// Note is what an answer says to the transport that carries it to the gateway, beside the answer itself. It is for workers
// that keep nothing of a connection; a worker in the gateway's process has no use for it.
type Note struct {
	// Bind says that Session is from now on the session of the request's connection: it comes with each further request
	// of it (Request.Bound) and with its end. With an empty Session the connection has none any more.
	Bind    bool
	Session string

	// Room, when not empty, is the room of whose topics the answer may make the connection a subscriber (L3.8). The answer
	// shows the room after its records up to RoomSeq, so that the subscriber must get all later ones, and only those.
	Room    string
	RoomSeq uint64
}

// NotedCompleter is a Completer that can do something with a Note. Other ones lose it.
type NotedCompleter interface {
	Completer
	// CompleteNoted is Complete with a reply and a note. typ, payload and the strings of note are copied.
	CompleteNoted(id uint64, typ string, payload []byte, note Note)
}

// Binder is implemented by Clients that keep a session for each connection (Note.Bind) where the connection is.
type Binder interface {
	// Bind changes the session bound to a connection, to none when session is empty, unless it is another one than old
	// by then. done is called exactly once, from any goroutine: with nil when requests of the connection that are sent
	// from now on carry the new one (or another than old was bound), with ErrNotFound when there is no such connection,
	// with another error when that could not be found out.
	Bind(id conn.ID, old, session string, done func(error))
}

// NewCompletion returns a Completion that answers request id of to. For gateways, and for tests of workers.
func NewCompletion(to Completer, id uint64) Completion { return Completion{to: to, id: id} }

// Reply answers the request. typ and payload are copied before Reply returns.
func (c Completion) Reply(typ string, payload []byte) { c.to.Complete(c.id, typ, payload, nil) }

// ReplyNoted answers the request like Reply, and tells the transport what note says if it wants to know.
func (c Completion) ReplyNoted(typ string, payload []byte, note Note) {
	if n, ok := c.to.(NotedCompleter); ok {
		n.CompleteNoted(c.id, typ, payload, note)
		return
	}
	c.to.Complete(c.id, typ, payload, nil)
}

// ReplySubscribing is Reply for an answer that subscribes the connection to a topic (L3.8), when events of that topic are
// known which came after what the answer says and before the subscription: they follow the answer directly, before all
// that is published to the topic after this call by the same goroutine. If the answer makes no new subscription, because
// the connection is subscribed to the conversation already and has had the events, or because the answer came too late, missed
// is dropped. Who joins a room again gets it, since the answer's list of members replaces newer ones. typ and payload are copied; missed and all in it must not change until done was called.
//
// done may be nil. It is called once, on the connection's loop, when the subscription is made (and InterestedWorker knows
// of it) or will never be; only a loop that has stopped calls it no more. It must not block.
func (c Completion) ReplySubscribing(typ string, payload []byte, missed []Event, done func()) {
	to, ok := c.to.(SubscribingCompleter)
	if !ok {
		panic("mq: ReplySubscribing on a Completion that is not a gateway's")
	}
	to.CompleteSubscribing(c.id, typ, payload, missed, done)
}

// Fail answers the request with mq.Error "failed"; cause is logged, never sent. A nil cause is replaced.
func (c Completion) Fail(cause error) {
	if cause == nil {
		cause = errors.New("worker failed without saying why")
	}
	c.to.Complete(c.id, "", nil, cause)
}
