'use strict';
// The page that browser_test.go opens in a real browser: it drives one WebSocket at a time. browser.js calls its functions,
// and gives it emit(event, fields), by which it tells the test what happened.

let socket = null;

const tell = (event) => {
  if (typeof event.data === 'string') {
    emit('message', {data: event.data, binary: false});
  } else {
    emit('message', {type: event.data.constructor.name, binary: true});
  }
};

window.openSocket = ({url, binaryType, protocols}) => {
  socket = new WebSocket(url, protocols || []);
  socket.binaryType = binaryType || 'arraybuffer';
  socket.onopen = () => emit('open', {protocol: socket.protocol, extensions: socket.extensions});
  socket.onclose = ({code, reason, wasClean}) => emit('close', {code, reason, clean: wasClean});
  socket.onerror = () => emit('error', {message: 'the browser does not say more'});
  socket.onmessage = tell;
};

const bytes = (size, seed) => Uint8Array.from({length: size}, (_, i) => (i * 7 >> 3) + seed);

// What a page may send, made of size bytes that seed changes.
const kinds = {
  text: (size, seed) => String.fromCodePoint(...bytes(Math.min(size, 1000), seed)).repeat(Math.ceil(size / 1000)).slice(0, size),
  emoji: (size) => '👋'.repeat(size / 2), // surrogate pairs: four bytes each on the wire
  arraybuffer: (size, seed) => bytes(size, seed).buffer,
  view: (size, seed) => bytes(size + 16, seed).subarray(7, 7 + size),
  blob: (size, seed) => new Blob([bytes(size, seed)]),
};

const plain = async (data) =>
  typeof data === 'string' ? data : new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data.buffer || data,
    data.byteOffset || 0, data.byteLength);

const same = (a, b) => typeof a === typeof b && a.length === b.length &&
  (typeof a === 'string' ? a === b : a.every((byte, i) => byte === b[i]));

// Sends count messages of a kind, each different, one right behind the other, and waits for all of them to come back.
// Returns the type that came back, how many were as sent, in order, and how many bytes waited in the browser at most.
window.echo = ({kind, size, count}) => new Promise((resolve, reject) => {
  const sent = Array.from({length: count}, (_, i) => kinds[kind](size, i));
  const came = [];
  const closed = socket.onclose;
  socket.onclose = (event) => {
    reject(new Error(`closed with ${event.code} after ${came.length} of ${count}`));
    closed(event);
  };
  socket.onmessage = async ({data}) => {
    if (came.push(data) < count) {
      return;
    }
    socket.onmessage = tell;
    socket.onclose = closed;
    let right = 0;
    for (let i = 0; i < count; i++) {
      right += same(await plain(sent[i]), await plain(came[i])) ? 1 : 0;
    }
    resolve({type: typeof data === 'string' ? 'string' : data.constructor.name, right, buffered, left: socket.bufferedAmount});
  };
  for (const data of sent) {
    socket.send(data);
  }
  const buffered = socket.bufferedAmount;
});

window.sendText = ({data}) => socket.send(data);

window.closeSocket = ({code, reason}) => code === undefined ? socket.close() : socket.close(code, reason);
