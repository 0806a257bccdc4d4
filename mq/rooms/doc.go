// Package rooms is the worker that comes with the gateway: sessions, rooms, members, conversations and their history. It
// keeps them in the memory of one process, and then answers every request at once, on the loop of the connection that
// asked; or in an Engine (mq/nats/roomstore), which several workers share, and then answers when everything is stored.
//
// # Sessions
//
// pcast.Authenticate gives a connection a session; until then every other request gets status "unauthorized". A session
// belongs to one connection at a time, and a request that names another session than that of its connection is
// "unauthorized" too. A request that names none means its own.
//
// Authenticate with the id of a session that is still known takes it over, if the token is of the same subject: the
// connection that had it loses its subscriptions and its authentication, but is not closed. With the id of a session
// that is not known (any more), or of another subject, a new session is issued; the client cannot tell which it was.
// A connection that authenticates again under another session ends the one it had. Session ids have 130 random bits.
//
// A session ends at once, and its members leave, with pcast.Bye and when its connection closes with 1000, 4000 or 4001,
// the codes after which clients do not come back. Otherwise it waits for Config.ReenterGrace. A client that takes it
// over in that time has the same time again to join its rooms anew; JoinRoom with option "reenter" keeps the membership
// without telling the others that it joined, and answers "ok" (without the option: "already-in-room"). What has not
// been joined again by then is left. Nobody hears that a member is lost while the grace runs.
//
// # Rooms
//
// Rooms are found by id or by alias; the id, when the client does not choose one, has 130 random bits. Both are fixed
// for the life of the room. CreateRoom does not join. Rooms live until DestroyRoom, or until nobody has been in them for
// Config.EmptyRoomTTL.
//
//	request                 who may                         what the others get
//	GetRoomInfo             every session                   -
//	JoinRoom                every session                   MemberJoined
//	LeaveRoom               members                         MemberLeft
//	UpdateMember            oneself; Moderators: anyone     MemberUpdated
//	UpdateRoom              members and the creator         RoomUpdated
//	DestroyRoom             members and the creator         RoomEnded, then all subscriptions end
//	SendMessageToRoom       members                         Message, on the topic of the conversation
//	FetchRoomConversation   members                         -
//
// Who may not gets "not-in-room"; for UpdateMember of someone else "unauthorized". Clients choose their role when they
// join, so roles are a convention among them and no protection from each other; rooms are protected by who is let in.
// All members are subscribed, so the one who caused an event gets it as well, after the answer to the request. The
// exception is the one who leaves. The sessionId of an event is the session that caused it.
//
// # Order and locks
//
// Answers and events of one room leave in the order of its changes: both are handed to the gateway while the room is
// locked. lastUpdate and event timestamps grow strictly within a room, so that a client which gets a snapshot and then
// an event from before it (the event was on its way) can tell, and does: clients ignore what is not newer.
//
// Locks, in the order in which they may be taken: one session, one room, one shard of the alias index, one shard of the
// room index. Shards of the session and connection indexes may be taken under a session. No two sessions and no two
// rooms are ever locked together. Request.Reply and the methods of mq.Clients are called with a session and a room
// locked: they must not call back into the Worker.
//
// # Logic and storage
//
// What the rules of a room are is in Room, which is pure; where rooms are and how changes are put in order is up to the
// Store. A Store in memory changes the Room under its lock. One that writes with compare-and-set does it in a transaction
// of the Room (Begin, Commit, Rollback), and keeps a log of the events and deltas, from which Replay makes the same Room
// again, or a snapshot (AppendSnapshot, DecodeSnapshot) to begin from.
//
// # With an engine
//
// The rules are the same; so are the tests. These things differ for clients:
//
//   - An event may arrive before the answer to the request that caused it, and the one who leaves a room may get its own
//     MemberLeft. Who joins gets nothing twice and misses nothing all the same (mq.Note).
//   - Graces and times to live are kept to some milliseconds.
//   - A connection that lost its session by the end of its grace, while it was cut off, hears of it with its next request
//     that changes the session, or from its gateway.
//   - A request whose outcome cannot be found out fails (mq.Error); what it asked for may have happened.
package rooms
