package follow

import "time"

// Limits that are no flags: value, unit, and what each is against.
const (
	// ringRecords and ringBytes bound the recent records kept of a room [records, bytes]. They serve answers that come
	// after records which they do not include, as a busy room makes them within the time of a reply: what is not here is
	// read from the stream.
	ringRecords = 64
	ringBytes   = 64 << 10

	// ringAge is how long recent records are kept after the last one: much longer than a reply can lag behind a record.
	ringAge = 10 * time.Second

	// shardRingBytes bounds them for all rooms of a shard [bytes], against thousands of rooms that are busy at once.
	shardRingBytes = 16 << 20

	// queueRecords and queueBytes bound the records of a room that wait for missing ones before them [records, bytes]: what
	// does not fit is read from the stream with them.
	queueRecords = 1024
	queueBytes   = 1 << 20

	// shardQueueBytes bounds them for all rooms of a shard [bytes]: after a cut, all rooms may wait.
	shardQueueBytes = 32 << 20

	// fetchRecords and fetchBytes bound one answer of the stream [records, bytes]; the next request asks for the rest.
	fetchRecords = 256
	fetchBytes   = 1 << 20

	// fetchTimeout is how long an answer of the stream is waited for.
	fetchTimeout = 3 * time.Second

	// retryMin and retryMax bound the time until the stream is asked again after it did not answer or did not have what
	// must be there. It doubles in between.
	retryMin = 50 * time.Millisecond
	retryMax = 2 * time.Second

	// lostTries and lostAfter are how often and how long the leader of the stream must say that it does not have a record
	// before the record is given up: a new leader may say so for a moment.
	lostTries = 3
	lostAfter = 2 * time.Second

	// holdBeforeFetch is how long an answer waits for the record that it includes before the stream is asked for it.
	// Usually the record is on its way.
	holdBeforeFetch = 50 * time.Millisecond

	// maxHold is how long an answer waits for that record in all, then it fails. Longer than a gateway's request timeout:
	// nobody waits for the answer then.
	maxHold = 60 * time.Second

	// checkRooms is how many rooms one request asks about. The servers answer for up to 1024.
	checkRooms = 512

	// messages is how many records may wait for a shard [records]. What does not fit is dropped by nats.go and read
	// from the stream later.
	messages = 8192

	// fetchers is how many requests to the stream a Follower has under way at once on each connection.
	fetchers = 4

	// warnEvery is the time between two log lines about the same kind of trouble, per shard.
	warnEvery = time.Second
)

// again is when all rooms are checked once more after a reconnect or a change of the stream's leader, and a room after it
// was followed: what was stored last may not have reached the server that answers the first time, and a subscription not
// the server that publishes.
var again = []time.Duration{300 * time.Millisecond, 2 * time.Second, 6 * time.Second}

// Defaults of Config.
const (
	defaultLinger     = 5 * time.Second
	defaultCheckEvery = 15 * time.Second
	defaultShards     = 4
)
