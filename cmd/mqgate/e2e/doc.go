// Package e2e holds the end-to-end tests of mqgate: they build the binary, start it as a user would, and talk to it with
// clients that nobody here wrote: the unchanged phenix-web-proto client and npm's ws, both under Node (folder node), and
// with bare TCP where no client would misbehave enough.
//
// `make browser-test` (build tag browser) adds headless Chromium, driven by playwright-core.
//
// `make test` installs the npm packages from the lock file; without them the tests fail, they are never skipped. With
// MQGATE_E2E_BINARY set to a path that binary is tested instead of one built from this source.
package e2e
