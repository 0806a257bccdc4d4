// Prints vectors.json: messages encoded by the client's own code, for messages_test.go.
//
//   npm i --ignore-scripts phenix-web-proto@2020.0.3 ws && NODE_PATH=node_modules node vectors.js > vectors.json
//
// Enums are given as numbers, which the client's encoder takes as well as names, and bytes as base64, so that Go can
// read the same objects. Keys that begin with "Has" are for Go only; the encoder ignores them.
global.self = global; global.WebSocket = require('ws');
const proto = require('phenix-web-proto/dist/phenix-web-proto.js');

const tables = {
  pcast: `
    Authenticate clientVersion!string=1 deviceId!string=2 platform!string=3 platformVersion!string=4
      authenticationToken!string=5 connectionId?string=6 sessionId?string=7 applicationId?string=8 apiVersion?uint32=9[0]
      connectionRouteKey?string=10 remoteAddress?string=11 device?string=12 manufacturer?string=13
    AuthenticateResponse status!string=1 sessionId?string=2 redirect?string=3 roles*string=4
    Bye sessionId!string=1 reason!string=2
    ByeResponse status!string=1
    ConnectionDisconnected connectionId!string=1 reasonCode!uint32=2 description?string=3
    ConnectionDisconnectedResponse status!string=1
    SendEventToClient connectionId!string=1 type!string=2 payload!bytes=3
    SendEventToClientResponse status!string=1
    SendRequestToClient connectionId!string=1 type!string=2 payload!bytes=3
    SendRequestToClientResponse status!string=1 type?string=2 payload?bytes=3`,
  chat: `
    Room roomId?string=1 alias?string=2 name!string=3 description!string=4 type!RoomType=5 options*string=6
      bridgeId?string=7 pin?string=8
    Stream type!StreamType=1 uri!string=2 audioState!TrackState=3 videoState!TrackState=4
    Member sessionId!string=1 screenName!string=2 role!MemberRole=3 streams*Stream=4 state!MemberState=5 lastUpdate!uint64=6
    MemberUpdate sessionId!string=1 screenName?string=2 role?MemberRole=3 streams*Stream=4 state?MemberState=5
      lastUpdate!uint64=6 updateStreams!bool=7[false]
    ChatUser sessionId?string=1 screenName!string=2 role!MemberRole=3 lastUpdate!uint64=4
    ChatMessage messageId!string=1 timestamp!uint64=2 from!ChatUser=3 message!string=4
    CreateRoom sessionId!string=1 room!Room=2
    CreateRoomResponse status!string=1 room?Room=2
    JoinRoom roomId?string=1 alias?string=2 sessionId!string=3 member!Member=4 options*string=5 timestamp!uint64=6
    JoinRoomResponse status!string=1 room?Room=2 members*Member=3 options*string=4 self?Member=5
    LeaveRoom roomId!string=1 sessionId!string=2 timestamp!uint64=3
    LeaveRoomResponse status!string=1
    UpdateRoom sessionId!string=1 room!Room=2 timestamp!uint64=3
    UpdateRoomResponse status!string=1
    UpdateMember sessionId!string=1 member!MemberUpdate=2 options*string=3 timestamp!uint64=4 roomId?string=5
    UpdateMemberResponse status!string=1 lastUpdate?uint64=2
    GetRoomInfo roomId?string=1 alias?string=2 sessionId?string=3 applicationId?string=4 secret?string=5 options*string=6
    GetRoomInfoResponse status!string=1 room?Room=2 members*Member=3 options*string=4
    RoomEvent sessionId!string=1 roomId!string=2 eventType!RoomEventType=3 members*Member=4 room?Room=5 options*string=6
      timestamp!uint64=7
    SendMessageToRoom roomId!string=1 chatMessage!ChatMessage=2
    SendMessageToRoomResponse status!string=1
    FetchRoomConversation sessionId!string=1 roomId!string=2 afterMessageId?string=3 beforeMessageId?string=4
      limit!uint32=5 options*RoomConversationOption=6
    FetchRoomConversationResponse status!string=1 chatMessages*ChatMessage=2
    RoomConversationEvent sessionId!string=1 roomId!string=2 eventType!RoomConversationEventType=3 chatMessages*ChatMessage=4
    DestroyRoom roomId!string=1
    DestroyRoomResponse status!string=1`,
};
const enums = {
  RoomType: 'DirectChat MultiPartyChat ModeratedChat TownHall Channel', MemberRole: 'Participant Moderator Presenter Audience',
  MemberState: 'Active Passive HandRaised Inactive Offline', TrackState: 'TrackEnabled TrackDisabled TrackEnded',
  RoomEventType: 'MemberJoined MemberLeft MemberUpdated RoomUpdated RoomEnded', StreamType: 'User Presentation Audio',
  RoomConversationOption: 'Subscribe', RoomConversationEventType: 'Message',
};
const rules = {'!': 'required', '?': 'optional', '*': 'repeated'};
const bytesFields = new Set();
function schema(pkg) {
  const messages = [];
  for (const word of tables[pkg].trim().split(/\s+/)) {
    const f = /^(\w+)([!?*])(\w+)=(\d+)(?:\[(\w+)\])?$/.exec(word);
    if (!f) { messages.push({name: word, fields: []}); continue; }
    const field = {name: f[1], rule: rules[f[2]], type: f[3], id: +f[4]};
    if (f[5]) field.options = {default: JSON.parse(f[5])};
    if (f[3] === 'bytes') bytesFields.add(f[1]);
    messages[messages.length - 1].fields.push(field);
  }
  return {package: pkg, messages, enums: pkg !== 'chat' ? [] : Object.keys(enums).map(name =>
    ({name, values: enums[name].split(' ').map((n, id) => ({name: n, id}))}))};
}
const schemas = [schema('pcast'), schema('chat')];
const quiet = {info() {}, warn() {}, debug() {}, error() {}};
const codec = new proto.MQService(quiet, () => {}, () => {}, schemas, 5)._mqProtocol;

const stream = {type: 1, uri: 'pcast://x/é', audioState: 1, videoState: 2};
const member = {sessionId: 's1', screenName: 'Zoë 🚀', role: 1, streams: [stream, {type: 0, uri: '', audioState: 0, videoState: 0}],
  state: 2, lastUpdate: 1700000000123};
const plain = {sessionId: 's2', screenName: 'b', role: 0, streams: [], state: 0, lastUpdate: 0};
const room = {roomId: 'r#1', alias: 'alias', name: 'Name', description: '', type: 1, options: ['a', ''], bridgeId: 'b', pin: '1234'};
const user = {sessionId: 's1', screenName: 'n', role: 3, lastUpdate: 7};
const message = {messageId: '0001', timestamp: 1700000000123, from: user, message: 'hi ü'};
const empty = {messageId: '', timestamp: 0, from: {sessionId: 's1', screenName: '', role: 0, lastUpdate: 0}, message: ''};
const many = [...Array(40).keys()].map(i => ({...member, sessionId: 's' + i}));

const cases = [
  ['pcast.Authenticate', {clientVersion: '1', deviceId: '', platform: 'node', platformVersion: '20', authenticationToken: 'tok',
    sessionId: 's1', apiVersion: 5}],
  ['pcast.Authenticate', {clientVersion: '1', deviceId: 'd', platform: 'p', platformVersion: 'v', authenticationToken: 't'.repeat(300),
    connectionId: 'c', applicationId: 'a', apiVersion: 0, connectionRouteKey: 'k', remoteAddress: '::1', device: 'x', manufacturer: 'm'}],
  ['pcast.AuthenticateResponse', {status: 'ok', sessionId: 's1', redirect: 'r', roles: ['a', 'b']}],
  ['pcast.AuthenticateResponse', {status: 'unauthorized'}],
  ['pcast.Bye', {sessionId: 's1', reason: 'app-unload'}], ['pcast.ByeResponse', {status: 'ok'}],
  ['pcast.ConnectionDisconnected', {connectionId: 'c', reasonCode: 1006, description: 'gone'}],
  ['pcast.ConnectionDisconnected', {connectionId: 'c', reasonCode: 0}],
  ['pcast.ConnectionDisconnectedResponse', {status: 'ok'}],
  ['pcast.SendEventToClient', {connectionId: 'c', type: 'x.Y', payload: 'AAEC/w=='}],
  ['pcast.SendEventToClient', {connectionId: 'c', type: 'x.Y', payload: ''}],
  ['pcast.SendEventToClientResponse', {status: 'ok'}],
  ['pcast.SendRequestToClient', {connectionId: 'c', type: 'x.Y', payload: 'AAEC/w=='}],
  ['pcast.SendRequestToClientResponse', {status: 'ok', type: 'x.YResponse', payload: '/w=='}],
  ['pcast.SendRequestToClientResponse', {status: 'closed'}],
  ['chat.Room', room], ['chat.Room', {name: '', description: '', type: 0}], ['chat.Stream', stream], ['chat.Member', member],
  ['chat.Member', plain], ['chat.Member', {...plain, lastUpdate: 2 ** 53}],
  ['chat.MemberUpdate', {sessionId: 's1', lastUpdate: 0}],
  ['chat.MemberUpdate', {sessionId: 's1', screenName: '', HasScreenName: true, role: 0, HasRole: true, state: 0, HasState: true,
    streams: [stream], updateStreams: true, lastUpdate: 300}],
  ['chat.MemberUpdate', {sessionId: 's1', updateStreams: false, state: 4, HasState: true, lastUpdate: 1}],
  ['chat.ChatUser', user], ['chat.ChatMessage', message], ['chat.ChatMessage', empty],
  ['chat.CreateRoom', {sessionId: 's1', room}], ['chat.CreateRoomResponse', {status: 'already-exists', room}],
  ['chat.CreateRoomResponse', {status: 'capacity'}],
  ['chat.JoinRoom', {roomId: 'r#1', sessionId: 's1', member, options: ['reenter'], timestamp: 1}],
  ['chat.JoinRoom', {alias: 'alias', sessionId: 's1', member: plain, options: [], timestamp: 0}],
  ['chat.JoinRoomResponse', {status: 'ok', room, members: [member, plain], options: ['o'], self: member}],
  ['chat.JoinRoomResponse', {status: 'ok', room, members: many, self: many[3]}],
  ['chat.JoinRoomResponse', {status: 'not-found'}],
  // embedded messages whose length takes two and three bytes
  ['chat.JoinRoom', {roomId: 'r#1', sessionId: 's1', member: {...member, screenName: 'x'.repeat(200)}, timestamp: 1}],
  ['chat.SendMessageToRoom', {roomId: 'r#1', chatMessage: {...message, message: 'y'.repeat(127)}}],
  ['chat.SendMessageToRoom', {roomId: 'r#1', chatMessage: {...message, message: 'y'.repeat(17000)}}],
  ['chat.LeaveRoom', {roomId: 'r#1', sessionId: 's1', timestamp: 1700000000123}], ['chat.LeaveRoom', {roomId: 'r', sessionId: 's', timestamp: 0}],
  ['chat.LeaveRoomResponse', {status: 'not-in-room'}],
  ['chat.UpdateRoom', {sessionId: 's1', room, timestamp: 5}], ['chat.UpdateRoomResponse', {status: 'ok'}],
  ['chat.UpdateMember', {sessionId: 's1', member: {sessionId: 's1', state: 1, HasState: true, lastUpdate: 9}, options: ['x'], timestamp: 2, roomId: 'r#1'}],
  ['chat.UpdateMemberResponse', {status: 'ok', lastUpdate: 0, HasLastUpdate: true}], ['chat.UpdateMemberResponse', {status: 'not-in-room'}],
  ['chat.GetRoomInfo', {roomId: 'r#1', sessionId: 's1', options: []}],
  ['chat.GetRoomInfo', {alias: 'a', applicationId: 'app', secret: 'x', options: ['o']}],
  ['chat.GetRoomInfoResponse', {status: 'ok', room, members: [plain], options: ['o']}],
  ['chat.RoomEvent', {sessionId: 's1', roomId: 'r#1', eventType: 1, timestamp: 5}],
  ['chat.RoomEvent', {sessionId: 's1', roomId: 'r#1', eventType: 0, members: [member], options: ['o'], timestamp: 0}],
  ['chat.RoomEvent', {sessionId: 's1', roomId: 'r#1', eventType: 3, room, timestamp: 1700000000123}],
  ['chat.SendMessageToRoom', {roomId: 'r#1', chatMessage: empty}], ['chat.SendMessageToRoomResponse', {status: 'ok'}],
  ['chat.FetchRoomConversation', {sessionId: 's1', roomId: 'r#1', limit: 0, options: [0]}],
  ['chat.FetchRoomConversation', {sessionId: 's1', roomId: 'r#1', afterMessageId: '1', beforeMessageId: '9', limit: 100, options: []}],
  ['chat.FetchRoomConversation', {sessionId: 's1', roomId: 'r#1', limit: 4294967295, options: [0, 0]}],
  ['chat.FetchRoomConversationResponse', {status: 'ok', chatMessages: [message, empty]}],
  ['chat.RoomConversationEvent', {sessionId: 's1', roomId: 'r#1', eventType: 0, chatMessages: [message]}],
  ['chat.DestroyRoom', {roomId: 'r#1'}], ['chat.DestroyRoomResponse', {status: 'ok'}],
  ['mq.Error', {reason: 'timeout'}],
  ['mq.Message', {requestId: 'C0', type: 'chat.LeaveRoom', payload: 'AQ==', messageType: 0}],
  ['mq.Message', {sessionId: 's', requestId: 'C1', type: 't', encoding: 'e', payload: '', wallTime: 0, HasWallTime: true, messageType: 1}],
  ['mq.Message', {type: 'chat.RoomEvent', payload: 'AAEC', messageType: 2}],
  ['mq.Message', {requestId: 'S9', type: 'a.B', payload: Buffer.alloc(200, 7).toString('base64'), wallTime: 12.5, HasWallTime: true, messageType: 1}],
];
const out = cases.map(([type, value]) => {
  const v = {...value};
  for (const k of bytesFields) if (typeof v[k] === 'string') v[k] = new Uint8Array(Buffer.from(v[k], 'base64'));
  if (type === 'mq.Message') {
    v.payload = new Uint8Array(Buffer.from(value.payload, 'base64'));
    v.messageType = ['Request', 'Response', 'Event'][value.messageType]; // by name: only then is the default left out
    if ('wallTime' in v) v.wallTime = [v.wallTime];
  }
  const bytes = Buffer.from(codec.encode(type, v));
  codec.decode(type, new Uint8Array(bytes)); // throws when the client cannot read it
  return JSON.stringify({type, base64: bytes.toString('base64'), value});
});
console.log('[\n' + out.join(',\n') + '\n]');
