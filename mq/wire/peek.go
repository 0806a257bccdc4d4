package wire

import "google.golang.org/protobuf/encoding/protowire"

// The functions here read the few fields that a gateway needs from messages that are not its own. They allocate nothing
// when the message is sound. The strings they return are views of the payload: a room's id that is kept, as the key of a
// subscription is, must be cloned first.

// PeekStatus returns field 1 of an answer: the status, in every "...Response" of pcast and chat.
func PeekStatus(payload []byte) (status string, err error) {
	f := Fields{b: payload, msg: "Response"}
	for f.next() {
		if f.num == 1 {
			f.str(&status)
		} else {
			f.skip()
		}
	}
	return status, f.err
}

// PeekJoinRoomResponse returns the status and the room's id of an encoded chat.JoinRoomResponse.
func PeekJoinRoomResponse(payload []byte) (status, roomID string, err error) {
	f := Fields{b: payload, msg: TypeJoinRoomResponse}
	for f.next() {
		switch f.num {
		case 1:
			f.str(&status)
		case 2:
			roomID = ""
			room := Fields{b: f.bytes(), msg: "chat.Room"}
			for room.next() {
				if room.num == 1 {
					room.str(&roomID)
				} else {
					room.skip()
				}
			}
			if f.err == nil {
				f.err = room.err
			}
		default:
			f.skip()
		}
	}
	return status, roomID, f.err
}

// PeekFetchRoomConversation returns the room's id of an encoded chat.FetchRoomConversation and whether it subscribes. The
// worker has accepted the request by then, so that its lists need no second check.
func PeekFetchRoomConversation(payload []byte) (roomID string, subscribe bool, err error) {
	f := Fields{b: payload, msg: TypeFetchRoomConversation}
	for f.next() {
		switch {
		case f.num == 2:
			f.str(&roomID)
		case f.num == 6 && f.typ == protowire.VarintType:
			var o RoomConversationOption
			enum(&f, &o, Subscribe)
			subscribe = true // there is no other option
		case f.num == 6: // packed
			subscribe = len(f.bytes()) > 0 || subscribe
		default:
			f.skip()
		}
	}
	return roomID, subscribe, f.err
}
