package wire

// Types of messages as they stand in field 3 of an envelope. The answer to T has the type T + "Response".
const (
	TypeAuthenticate                   = "pcast.Authenticate"
	TypeAuthenticateResponse           = "pcast.AuthenticateResponse"
	TypeBye                            = "pcast.Bye"
	TypeByeResponse                    = "pcast.ByeResponse"
	TypeConnectionDisconnected         = "pcast.ConnectionDisconnected"
	TypeConnectionDisconnectedResponse = "pcast.ConnectionDisconnectedResponse"
	TypeSendEventToClient              = "pcast.SendEventToClient"
	TypeSendEventToClientResponse      = "pcast.SendEventToClientResponse"
	TypeSendRequestToClient            = "pcast.SendRequestToClient"
	TypeSendRequestToClientResponse    = "pcast.SendRequestToClientResponse"

	TypeCreateRoom                    = "chat.CreateRoom"
	TypeCreateRoomResponse            = "chat.CreateRoomResponse"
	TypeJoinRoom                      = "chat.JoinRoom"
	TypeJoinRoomResponse              = "chat.JoinRoomResponse"
	TypeLeaveRoom                     = "chat.LeaveRoom"
	TypeLeaveRoomResponse             = "chat.LeaveRoomResponse"
	TypeUpdateRoom                    = "chat.UpdateRoom"
	TypeUpdateRoomResponse            = "chat.UpdateRoomResponse"
	TypeUpdateMember                  = "chat.UpdateMember"
	TypeUpdateMemberResponse          = "chat.UpdateMemberResponse"
	TypeGetRoomInfo                   = "chat.GetRoomInfo"
	TypeGetRoomInfoResponse           = "chat.GetRoomInfoResponse"
	TypeRoomEvent                     = "chat.RoomEvent"
	TypeSendMessageToRoom             = "chat.SendMessageToRoom"
	TypeSendMessageToRoomResponse     = "chat.SendMessageToRoomResponse"
	TypeFetchRoomConversation         = "chat.FetchRoomConversation"
	TypeFetchRoomConversationResponse = "chat.FetchRoomConversationResponse"
	TypeRoomConversationEvent         = "chat.RoomConversationEvent"
	TypeDestroyRoom                   = "chat.DestroyRoom"
	TypeDestroyRoomResponse           = "chat.DestroyRoomResponse"
)

// Statuses that client code compares with.
const (
	StatusOK            = "ok"
	StatusAlreadyExists = "already-exists"  // CreateRoom: a success for clients; the room is in the answer
	StatusAlreadyInRoom = "already-in-room" // JoinRoom: likewise
	StatusNotFound      = "not-found"
	StatusNotInRoom     = "not-in-room"
	StatusUnauthorized  = "unauthorized"
	StatusCapacity      = "capacity"
	StatusTimeout       = "timeout"
	StatusFailed        = "failed"
)

// OptionReenter in JoinRoom.Options: the client has been in this room before its connection was lost.
const OptionReenter = "reenter"

// RoomType is chat.RoomType.
type RoomType uint8

const (
	DirectChat     RoomType = 0
	MultiPartyChat RoomType = 1
	ModeratedChat  RoomType = 2
	TownHall       RoomType = 3
	Channel        RoomType = 4
)

// MemberRole is chat.MemberRole.
type MemberRole uint8

const (
	RoleParticipant MemberRole = 0
	RoleModerator   MemberRole = 1
	RolePresenter   MemberRole = 2
	RoleAudience    MemberRole = 3
)

// MemberState is chat.MemberState.
type MemberState uint8

const (
	StateActive     MemberState = 0
	StatePassive    MemberState = 1
	StateHandRaised MemberState = 2
	StateInactive   MemberState = 3
	StateOffline    MemberState = 4
)

// RoomEventType is chat.RoomEventType.
type RoomEventType uint8

const (
	MemberJoined  RoomEventType = 0
	MemberLeft    RoomEventType = 1
	MemberUpdated RoomEventType = 2
	RoomUpdated   RoomEventType = 3
	RoomEnded     RoomEventType = 4
)

// TrackState is chat.TrackState.
type TrackState uint8

const (
	TrackEnabled  TrackState = 0
	TrackDisabled TrackState = 1
	TrackEnded    TrackState = 2
)

// StreamType is chat.StreamType.
type StreamType uint8

const (
	StreamUser         StreamType = 0
	StreamPresentation StreamType = 1
	StreamAudio        StreamType = 2
)

// RoomConversationOption is chat.RoomConversationOption.
type RoomConversationOption uint8

// Subscribe makes a FetchRoomConversation a subscription: it is the only one there is.
const Subscribe RoomConversationOption = 0

// RoomConversationEventType is chat.RoomConversationEventType.
type RoomConversationEventType uint8

// ConversationMessage is RoomConversationEventType Message.
const ConversationMessage RoomConversationEventType = 0
