// Package mq is the MQ protocol over WebSocket connections: requests from clients to the Worker and back, requests and
// events from the server to clients, subscriptions to rooms and conversations, and the accounting of it all.
//
// A Gateway is the handler of the connections (package conn); the Worker behind it answers requests. The wire format is
// in mq/wire, the worker that comes with the gateway in mq/rooms.
package mq
