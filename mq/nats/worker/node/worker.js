// A worker: it answers requests of the type "example.Shout" with what they say in capitals. First argument: the URL of NATS.
'use strict';

const { connect, headers, StringCodec } = require('nats');

async function main() {
  const text = StringCodec();
  const nc = await connect({ servers: process.argv[2], name: 'example', maxReconnectAttempts: -1 });

  const requests = nc.subscribe('mqgate.req.example.Shout', { queue: 'workers' });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => nc.drain()); // takes nothing more, answers the rest, then ends
  }
  await nc.flush();
  console.log('ready');

  for await (const request of requests) {
    const said = text.decode(request.data);
    if (said === '') {
      const failed = headers();
      failed.set('Mqgate-Error', 'nothing was said'); // the client gets mq.Error "failed"; this is for the gateway's log
      request.respond(undefined, { headers: failed });
      continue;
    }
    // An event to the same client, by the gateway that holds its connection, before the answer.
    const connection = request.headers.get('Mqgate-Connection');
    const event = headers();
    event.set('Mqgate-Connection', connection);
    event.set('Mqgate-Type', 'example.Heard');
    nc.publish(`mqgate.gw.${request.headers.get('Mqgate-Node')}.event`, text.encode(said), { headers: event });

    request.respond(text.encode(said.toUpperCase())); // its type is example.ShoutResponse
  }
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
