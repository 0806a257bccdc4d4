package mq

import "time"

// Limits of the gateway that are no flags: value, unit, and what each is against.
const (
	// maxRequestID bounds a request id [bytes]; clients count "C0", "C1", ... It is kept for every request in flight:
	// without a bound 256 requests with ids of 1 MiB would be 256 MiB for one connection.
	maxRequestID = 128

	// maxRoomID bounds the room ids that can be subscribed to [bytes]. The room that a request names is kept while the
	// request is in flight, with the same effect as a long request id.
	maxRoomID = 4096

	// maxLogged bounds what a log line says of a text that a client has chosen, as a type or a request id [bytes]:
	// without it every line could have 1 MiB.
	maxLogged = 64

	// maxUnpublished bounds the ends of connections that the worker has not taken yet, per loop [entries of about 100
	// bytes]. What does not fit is counted and logged (L6.3).
	maxUnpublished = 1 << 16

	// maxPublishPanics is how often the worker may panic on one of them before it is given up.
	maxPublishPanics = 3

	// publishRetry is how soon they are offered again.
	publishRetry = time.Second

	// maxServerRequests bounds the requests of the server that wait for clients, per loop, against a worker that asks
	// clients which never answer.
	maxServerRequests = 1 << 20

	// maxKeptAnswer bounds what an answer on its way from a worker keeps of its buffers for the next one [bytes].
	maxKeptAnswer = 64 << 10

	// interestParts is into how many parts, with a lock each, the rooms with subscribers are divided for a worker that
	// wants to know of them: more than a machine has loops that subscribe at the same moment.
	interestParts = 64

	// warnEvery is the time between two log lines about the same kind of dropped message (L3.1), about requests that the
	// worker failed, and about its panics, per loop: a client can cause as many as it likes.
	warnEvery = time.Second
)
