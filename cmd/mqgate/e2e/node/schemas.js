'use strict';
// The message schemas of the packages pcast and chat, in the JSON form that phenix-web-proto takes (it carries only
// those of package mq). A field is written  name rule type = number [default]  with rule ! required, ? optional, * repeated.

function field(text) {
  const match = /^(\w+)([!?*])(\w+)=(\d+)(?:\[(\w+)\])?$/.exec(text);
  if (!match) {
    throw new Error(`not a field: ${text}`);
  }
  const [, name, rule, type, id, value] = match;
  const parsed = {rule: {'!': 'required', '?': 'optional', '*': 'repeated'}[rule], type, name, id: Number(id)};
  if (value !== undefined) {
    parsed.options = {default: JSON.parse(value)};
  }
  return parsed;
}

function schema(name, messages, enums) {
  return {
    package: name,
    messages: Object.entries(messages).map(([message, fields]) => ({
      name: message,
      fields: fields.split(/\s+/).filter(Boolean).map(field),
    })),
    enums: Object.entries(enums).map(([type, values]) => ({
      name: type,
      values: values.split(/\s+/).map((value, id) => ({name: value, id})),
    })),
  };
}

const pcast = schema('pcast', {
  Authenticate: `clientVersion!string=1 deviceId!string=2 platform!string=3 platformVersion!string=4
    authenticationToken!string=5 connectionId?string=6 sessionId?string=7 applicationId?string=8 apiVersion?uint32=9[0]
    connectionRouteKey?string=10 remoteAddress?string=11 device?string=12 manufacturer?string=13`,
  AuthenticateResponse: 'status!string=1 sessionId?string=2 redirect?string=3 roles*string=4',
  Bye: 'sessionId!string=1 reason!string=2',
  ByeResponse: 'status!string=1',
  StreamEnded: 'sessionId!string=1 streamId!string=2 reason!string=3 tags*string=4',
  StreamEndedResponse: 'status!string=1',
}, {});

const chat = schema('chat', {
  Room: `roomId?string=1 alias?string=2 name!string=3 description!string=4 type!RoomType=5 options*string=6
    bridgeId?string=7 pin?string=8`,
  Stream: 'type!StreamType=1 uri!string=2 audioState!TrackState=3 videoState!TrackState=4',
  Member: `sessionId!string=1 screenName!string=2 role!MemberRole=3 streams*Stream=4 state!MemberState=5
    lastUpdate!uint64=6`,
  MemberUpdate: `sessionId!string=1 screenName?string=2 role?MemberRole=3 streams*Stream=4 state?MemberState=5
    lastUpdate!uint64=6 updateStreams!bool=7[false]`,
  ChatUser: 'sessionId?string=1 screenName!string=2 role!MemberRole=3 lastUpdate!uint64=4',
  ChatMessage: 'messageId!string=1 timestamp!uint64=2 from!ChatUser=3 message!string=4',
  CreateRoom: 'sessionId!string=1 room!Room=2',
  CreateRoomResponse: 'status!string=1 room?Room=2',
  JoinRoom: 'roomId?string=1 alias?string=2 sessionId!string=3 member!Member=4 options*string=5 timestamp!uint64=6',
  JoinRoomResponse: 'status!string=1 room?Room=2 members*Member=3 options*string=4 self?Member=5',
  LeaveRoom: 'roomId!string=1 sessionId!string=2 timestamp!uint64=3',
  LeaveRoomResponse: 'status!string=1',
  UpdateRoom: 'sessionId!string=1 room!Room=2 timestamp!uint64=3',
  UpdateRoomResponse: 'status!string=1',
  UpdateMember: 'sessionId!string=1 member!MemberUpdate=2 options*string=3 timestamp!uint64=4 roomId?string=5',
  UpdateMemberResponse: 'status!string=1 lastUpdate?uint64=2',
  GetRoomInfo: `roomId?string=1 alias?string=2 sessionId?string=3 applicationId?string=4 secret?string=5
    options*string=6`,
  GetRoomInfoResponse: 'status!string=1 room?Room=2 members*Member=3 options*string=4',
  RoomEvent: `sessionId!string=1 roomId!string=2 eventType!RoomEventType=3 members*Member=4 room?Room=5
    options*string=6 timestamp!uint64=7`,
  SendMessageToRoom: 'roomId!string=1 chatMessage!ChatMessage=2',
  SendMessageToRoomResponse: 'status!string=1',
  FetchRoomConversation: `sessionId!string=1 roomId!string=2 afterMessageId?string=3 beforeMessageId?string=4
    limit!uint32=5 options*RoomConversationOption=6`,
  FetchRoomConversationResponse: 'status!string=1 chatMessages*ChatMessage=2',
  RoomConversationEvent: `sessionId!string=1 roomId!string=2 eventType!RoomConversationEventType=3
    chatMessages*ChatMessage=4`,
  DestroyRoom: 'roomId!string=1',
  DestroyRoomResponse: 'status!string=1',
}, {
  RoomType: 'DirectChat MultiPartyChat ModeratedChat TownHall Channel',
  MemberRole: 'Participant Moderator Presenter Audience',
  MemberState: 'Active Passive HandRaised Inactive Offline',
  RoomEventType: 'MemberJoined MemberLeft MemberUpdated RoomUpdated RoomEnded',
  TrackState: 'TrackEnabled TrackDisabled TrackEnded',
  StreamType: 'User Presentation Audio',
  RoomConversationOption: 'Subscribe',
  RoomConversationEventType: 'Message',
});

module.exports = {pcast, chat};
