'use strict';
// Shows that schemas.js and the unchanged client make and read the golden vectors of the wire, byte for byte. Without
// this, a wrong schema here and a wrong codec there could agree with each other. Ends with status 0, or says what differs.

global.self = global;
const assert = require('assert');
const {MQService} = require('phenix-web-proto/dist/phenix-web-proto.js');
const {pcast, chat} = require('./schemas.js');

const leaveRoom = 'EgJDMBoOY2hhdC5MZWF2ZVJvb20qEAoDciMxEgJzMRj70JX/vDE=';
const leaveRoomResponse = 'EgJDMBoWY2hhdC5MZWF2ZVJvb21SZXNwb25zZSoECgJvazEAAAAAAAApQDgB';
const roomEvent = 'Gg5jaGF0LlJvb21FdmVudCoNCgJzMRIDciMxGAE4BTgC';
const streamEndedResponse = 'EgJTMhoZcGNhc3QuU3RyZWFtRW5kZWRSZXNwb25zZSoECgJvazEAAAAAAAAAADgB';

const silent = () => {};
const logger = {trace: silent, debug: silent, info: silent, warn: silent, error: silent};
// wallTime of a response is the time between request and response. The clock stands, so it is exactly 0; the client reads it
// by new Date().getTime().
Date.prototype.getTime = () => 1700000000123;

const sent = [];
let receive;
const service = new MQService(logger, (text) => sent.push(text), (callback) => { receive = callback; }, [pcast, chat], 5);

let answer;
service.sendRequest('chat.LeaveRoom', {roomId: 'r#1', sessionId: 's1', timestamp: 1700000000123}, (error, response) => {
  answer = {error, response};
});
assert.deepStrictEqual(sent, [leaveRoom], 'the request as the client writes it');

receive({data: leaveRoomResponse});
assert.deepStrictEqual(answer, {error: null, response: {status: 'ok'}}, 'the response as the client reads it');

let event;
service.onEvent('chat.RoomEvent', (body) => { event = body; });
receive({data: roomEvent});
assert.deepStrictEqual(event, {
  sessionId: 's1', roomId: 'r#1', eventType: 'MemberLeft', members: [], room: null, options: [], timestamp: 5,
}, 'the event as the client reads it');

service.onRequest('pcast.StreamEnded', (body, sendResponse) => sendResponse({status: 'ok'}, silent));
// Request S2 of pcast.StreamEnded {streamId "x", reason "y"}: fields 2, 3 and 5; Request is the default of field 7.
const request = Buffer.concat([
  Buffer.from([0x12, 2]), Buffer.from('S2'),
  Buffer.from([0x1a, 17]), Buffer.from('pcast.StreamEnded'),
  Buffer.from([0x2a, 6, 0x12, 1]), Buffer.from('x'), Buffer.from([0x1a, 1]), Buffer.from('y'),
]);
receive({data: request.toString('base64')});
assert.deepStrictEqual(sent.slice(1), [streamEndedResponse], 'the response to a request of the server');

service.dispose();
