'use strict';
// Drives the unchanged phenix-web-proto client for the end-to-end test; the commands come over stdin (lines.js).
//
//   connect {url}                  the client connects, and reconnects by itself for ever after
//   request {type, body}           → {error, response}: one of them null, just as the client's callback gets them
//   answer  {type, body}           from now on requests of the server of this type are answered with body
//   drop    {how: "fin" | "rst"}   the TCP connection goes, without a Close frame
//   disconnect                     a clean stop: Close 1000 "byebye"
//
// Events: connected, reconnecting, reconnected, disconnected {code, reason} as the client tells them; every pushed
// message as {event: type, body}; and from the WebSocket below, which the client keeps to itself: socket-close {code,
// reason} and socket-error {message}.

global.self = global; // the bundle was made for browsers
const WebSocket = require('ws');
const util = require('util');
const {emit, serve} = require('./lines.js');
const {pcast, chat} = require('./schemas.js');

const pushed = ['chat.RoomEvent', 'chat.RoomConversationEvent', 'pcast.StreamEnded'];

let current = null; // the newest WebSocket; the client makes a new one for every attempt
global.WebSocket = class extends WebSocket {
  constructor(uri) {
    super(uri);
    current = this;
    this.on('close', (code, reason) => emit('socket-close', {code, reason: reason.toString()}));
    this.on('error', (error) => emit('socket-error', {message: String(error.message || error.code || error)}));
  }
};
const {MQWebSocket} = require('phenix-web-proto/dist/phenix-web-proto.js');

const log = (level) => (...text) => process.stderr.write(`${level} ${util.format(...text)}\n`);
const logger = {trace: log('trace'), debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error')};

let client = null;

serve({
  connect({url}) {
    client = new MQWebSocket(url, logger, [pcast, chat], 5);
    for (const name of ['connected', 'reconnecting', 'reconnected']) {
      client.onEvent(name, () => emit(name));
    }
    client.onEvent('disconnected', (code, reason) => emit('disconnected', {code, reason}));
    for (const type of pushed) {
      client.onEvent(type, (body) => emit(type, {body}));
    }
  },

  request({type, body}) {
    return new Promise((resolve) => client.sendRequest(type, body, (error, response) => resolve({
      error: error ? error.reason || String(error) : null,
      response: response || null,
    })));
  },

  answer({type, body}) {
    client.onRequest(type, (request, sendResponse) => {
      emit('request', {type, body: request});
      sendResponse(body, (error) => {
        if (error) {
          throw error;
        }
      });
    });
  },

  drop({how}) {
    switch (how) {
    case 'fin':
      return current.terminate();
    case 'rst':
      return void current._socket.resetAndDestroy();
    default:
      throw new Error(`drop how? ${how}`);
    }
  },

  disconnect() {
    client.disconnect();
  },
});
