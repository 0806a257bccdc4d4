'use strict';
// Drives page.js in a headless browser, by Playwright; the commands come over stdin (lines.js).
//
//   start {browser, page}   starts the program browser and opens the page: its version
//   the functions of page.js: openSocket, echo, sendText, closeSocket
//   leave                   goes to another page, as a user does: the socket's page is gone
//
// Events are those of page.js: open {protocol, extensions}, message {data, binary}, close {code, reason}, error {message}.

const {chromium} = require('playwright-core');
const {emit, serve} = require('./lines.js');

let page = null;
const inPage = (name) => (args) => page.evaluate(([name, args]) => window[name](args), [name, args]);

serve({
  async start({browser, page: url}) {
    // Playwright gives it a profile of its own, removes that at the end, and ends the browser when this process ends.
    const program = await chromium.launch({
      executablePath: browser,
      chromiumSandbox: false, // root has none
      args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync'],
    });
    page = await program.newPage();
    page.on('pageerror', (error) => emit('uncaught', {message: String(error && error.stack || error)}));
    await page.exposeFunction('emit', emit);
    await page.goto(url);
    return program.version();
  },

  openSocket: inPage('openSocket'),
  echo: inPage('echo'),
  sendText: inPage('sendText'),
  closeSocket: inPage('closeSocket'),

  async leave() {
    await page.goto('about:blank');
  },
});
