'use strict';
// A plain WebSocket client (npm's ws) for the echo endpoint; the commands come over stdin (lines.js).
//
//   open {url, options}       options as ws takes them, e.g. {"perMessageDeflate": false}
//   send {data, binary, fin}  data is text, or {"base64": ...}; bytes with binary false go out as a text frame, unchecked
//   ping {data}               pong {data}
//   close {code, reason}      terminate
//
// Events: open {protocol, extensions}, message {data, binary}, ping {data}, pong {data}, close {code, reason},
// error {message}.

const WebSocket = require('ws');
const {emit, serve} = require('./lines.js');

let socket = null;

serve({
  open({url, options}) {
    socket = new WebSocket(url, options || {});
    let extensions = ''; // as the server wrote them: socket.extensions has their names only
    socket.on('upgrade', ({headers}) => { extensions = headers['sec-websocket-extensions'] || ''; });
    socket.on('open', () => emit('open', {protocol: socket.protocol, extensions}));
    socket.on('message', (data, binary) => emit('message', {data: binary ? data : data.toString(), binary}));
    socket.on('ping', (data) => emit('ping', {data: data.toString()}));
    socket.on('pong', (data) => emit('pong', {data: data.toString()}));
    socket.on('close', (code, reason) => emit('close', {code, reason: reason.toString()}));
    socket.on('error', (error) => emit('error', {message: String(error.message || error.code || error)}));
  },

  send({data, binary, fin}) {
    return new Promise((resolve, reject) =>
      socket.send(data, {binary: Boolean(binary), fin: fin !== false}, (error) => error ? reject(error) : resolve()));
  },

  ping({data}) {
    socket.ping(data);
  },

  pong({data}) {
    socket.pong(data);
  },

  close({code, reason}) {
    socket.close(code, reason);
  },

  terminate() {
    socket.terminate();
  },
});
