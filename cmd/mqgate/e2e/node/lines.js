'use strict';
// The wire between a Go test and a Node client: one JSON object per line.
//
//   in:   {"id": 7, "cmd": "request", ...arguments}
//   out:  {"id": 7, "result": ...}  or  {"id": 7, "error": "why"}     exactly one per command
//         {"event": "close", ...fields}                               whenever something happens
//
// Bytes travel as {"base64": "..."} both ways. When stdin ends, the process ends: no client outlives its test.

const readline = require('readline');

function write(line) {
  process.stdout.write(JSON.stringify(line, (key, value) => {
    if (value && value.type === 'Buffer' && Array.isArray(value.data)) { // what Buffer's own toJSON makes
      return {base64: Buffer.from(value.data).toString('base64')};
    }
    return value instanceof Uint8Array ? {base64: Buffer.from(value).toString('base64')} : value;
  }) + '\n');
}

function read(line) {
  return JSON.parse(line, (key, value) =>
    value && typeof value.base64 === 'string' ? Buffer.from(value.base64, 'base64') : value);
}

// emit tells the test that something happened.
function emit(event, fields) {
  write({...fields, event});
}

// serve runs the commands that come in. commands maps a name to function(arguments) returning the result or a promise
// of it; what it throws becomes the command's error.
function serve(commands) {
  process.on('uncaughtException', (error) => {
    // The clients throw out of their message handler when they cannot read what the server sent.
    emit('uncaught', {message: String(error && error.stack || error)});
    process.exitCode = 1;
  });

  readline.createInterface({input: process.stdin})
    .on('line', async (line) => {
      let id = null;
      try {
        const {cmd, ...rest} = read(line);
        id = rest.id;
        if (!Object.hasOwn(commands, cmd)) {
          throw new Error(`unknown command ${cmd}`);
        }
        const result = await commands[cmd](rest);
        write({id, result: result === undefined ? null : result});
      } catch (error) {
        write({id, error: String(error && error.message || error)});
      }
    })
    .on('close', () => process.exit());
}

module.exports = {emit, serve};
