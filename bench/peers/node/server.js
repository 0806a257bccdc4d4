// The peer of the benchmarks that runs on Node: npm's ws, one process, which is one thread for all connections, as Node
// programs are. As its README advises for speed: no perMessageDeflate, and bufferutil for the masks.
//
//	node server.js --listen 127.0.0.1:0
//	msg=listening peer=ws addr=127.0.0.1:41023 pid=4711

'use strict'

const { WebSocketServer } = require('ws')

const [flag, listen, ...rest] = process.argv.slice(2)
const at = listen === undefined ? -1 : listen.lastIndexOf(':')
if (flag !== '--listen' || at < 0 || rest.length > 0) {
  console.error('usage: node server.js --listen HOST:PORT')
  process.exit(2)
}

const server = new WebSocketServer({
  host: listen.slice(0, at),
  port: Number(listen.slice(at + 1)),
  backlog: 4096, // as Go has it; Node's 511 would drop the SYNs of a burst
  perMessageDeflate: false,
  clientTracking: false,
  maxPayload: 16 << 20
})

server.on('listening', () => {
  const { address, port } = server.address()
  console.log(`msg=listening peer=ws addr=${address}:${port} pid=${process.pid}`)
})
server.on('error', (err) => {
  console.error(`server.js: ${err.message}`)
  process.exit(1)
})
server.on('connection', (socket) => {
  socket.on('error', () => {}) // the close that follows is enough
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
})
