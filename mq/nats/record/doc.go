// Package record is the form of what happens in a room on its way through NATS: the records of a room's log, and plain
// events to a room's subscribers. In the words of protobuf:
//
//	message Record {
//	  message Event { TopicKind topic = 1; string type = 2; bytes payload = 3; }
//	  repeated Event events = 1; // to the subscribers, in this order
//	  bytes delta = 2;           // what the rooms worker keeps of the change; gateways pass over it
//	  bool end = 3;              // after the events both topics of the room end
//	}
//
// It is read by hand because a gateway reads every record of every room that it follows: reading copies nothing and
// allocates nothing but the list of events, which can be used again. Unknown fields are passed over, so that newer workers
// can say more; a topic that is not known is an error, because somebody would miss an event.
package record
