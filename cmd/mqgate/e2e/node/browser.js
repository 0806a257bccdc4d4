'use strict';
// Drives page.js in a headless browser, by Playwright; the commands come over stdin (lines.js).
//
//   start {browser, page}   starts the program browser and opens the page: its version
//   the functions of page.js: openSocket, echo, sendText, closeSocket
//   look {width, dark, png} lays the page out, writes a picture of all of it to the file png, and says what is where:
//                           {width, charts: [{title, x, y, width, height}], requests, complaints}
//   leave                   goes to another page, as a user does: the socket's page is gone
//
// Events are those of page.js: open {protocol, extensions}, message {data, binary}, close {code, reason}, error {message}.

const {chromium} = require('playwright-core');
const {emit, serve} = require('./lines.js');

let page = null;
let requests = 0; // of the page and for what it needs
const complaints = []; // of the browser, in its console
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
    page.on('request', () => requests++);
    page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
    await page.exposeFunction('emit', emit);
    await page.goto(url);
    return program.version();
  },

  openSocket: inPage('openSocket'),
  echo: inPage('echo'),
  sendText: inPage('sendText'),
  closeSocket: inPage('closeSocket'),

  async look({width, dark, png}) {
    await page.setViewportSize({width, height: 900});
    await page.emulateMedia({colorScheme: dark ? 'dark' : 'light'});
    await page.screenshot({path: png, fullPage: true});
    const seen = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      charts: [...document.querySelectorAll('figure svg')].map((svg) => {
        const {x, y, width, height} = svg.getBoundingClientRect();
        return {title: svg.closest('figure').previousElementSibling?.textContent ?? '', x: x + scrollX, y: y + scrollY, width, height};
      }),
    }));
    return {...seen, requests, complaints};
  },

  async leave() {
    await page.goto('about:blank');
  },
});
