# make        what there is
# make run    the gateway with its built-in worker: ws://127.0.0.1:8080/ws, admin http://127.0.0.1:9090
# make test   everything, the end-to-end test with the real npm client included

GO       ?= go
NPM      ?= npm
PACKAGES ?= ./...
# How many inputs `make fuzz` tries with each target, and those that take some twenty times as long for one as the others.
# Not a time: at its end the fuzzer of Go before 1.27 may report its own deadline as a failure (go.dev/issue/75804).
INPUTS   ?= 100000
SLOW_FUZZ := FuzzCommandLine FuzzQueue
# How many seeds `make sim` runs.
SEEDS    ?= 10000
# Flags for mqgate serve in `make run`, e.g. make run ARGS='--log-level debug'
ARGS     ?=

# What `mqgate version` says; without git it is left to the binary to find out.
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null)
BUILD    := $(GO) build -trimpath -ldflags '-X main.version=$(VERSION) -X github.com/mqgate/mqgate/bench.linked=$(VERSION)'

# Folders of tests that need packages of npm.
NODE_TESTS := cmd/mqgate/e2e/node mq/nats/worker/node
E2E_DEPS   := $(NODE_TESTS:=/node_modules/.installed)

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/mqgate and bin/mqgate-bench
	$(BUILD) -o bin/ ./cmd/mqgate ./cmd/mqgate-bench

.PHONY: run
run: ## build, then serve on 127.0.0.1:8080 (admin on :9090); flags in ARGS
	$(BUILD) -o bin/ ./cmd/mqgate
	exec bin/mqgate serve $(ARGS)

.PHONY: test
test: e2e-deps ## all tests
	$(GO) test $(PACKAGES)

.PHONY: browser-test
browser-test: e2e-deps ## the gateway as pages in headless Chromium see it
	@command -v chromium >/dev/null || { echo "make browser-test: no chromium here (Debian: apt-get install --no-install-recommends chromium)" >&2; exit 1; }
	$(GO) test -tags browser ./cmd/mqgate/e2e -run '^TestBrowser'

.PHONY: race
race: e2e-deps ## all tests under the race detector
	$(GO) test -race $(PACKAGES)

.PHONY: invariants
invariants: e2e-deps ## all tests with ownership of buffers and loops checked
	$(GO) test -tags invariants $(PACKAGES)

.PHONY: sim
sim: ## the simulation of the whole gateway, SEEDS (10000) runs of it
	$(GO) test ./mq/sim -run TestSimulation -sim.seeds=$(SEEDS)

# go test takes one fuzz target of one package at a time.
.PHONY: fuzz
fuzz: ## every fuzz target on INPUTS (100000) inputs, slow targets on a twentieth of that
	@targets=$$(grep -rEo --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]+' . | sort); \
	if [ -z "$$targets" ]; then echo "make fuzz: no fuzz target found" >&2; exit 1; fi; \
	echo "$$targets" | sed 's/:func / /' | while read -r file target; do \
		inputs=$(INPUTS); \
		case ' $(SLOW_FUZZ) ' in *" $$target "*) inputs=$$((inputs / 20 + 1)) ;; esac; \
		echo "== $$target in $$(dirname "$$file"): $$inputs inputs"; \
		$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$${inputs}x "$$(dirname "$$file")" </dev/null || exit 1; \
	done

.PHONY: gobench
gobench: ## Go benchmarks of all packages, but for that of make scaling
	$(GO) test -run='^$$' -bench=. -skip='^BenchmarkScaling$$' -benchmem $(PACKAGES)

# The servers of the comparison: bench/peers says what each is. The first one is what ratios are to.
PEER_NODE  := bench/peers/node
PEER_DEPS  := $(PEER_NODE)/node_modules/.installed
PEER_FLAGS := --peer 'mqgate=bin/mqgate serve --listen 127.0.0.1:0 --admin= --echo-path /echo' \
	--peer 'floor=bin/peers floor' --peer 'netpoll=bin/peers netpoll' --peer 'gobwas=bin/peers gobwas' \
	--peer 'gws=bin/peers gws' --peer 'gorilla=bin/peers gorilla' --peer 'fasthttp=bin/peers fasthttp' \
	--peer 'coder=bin/peers coder' --peer 'ws=node $(PEER_NODE)/server.js --listen 127.0.0.1:0'
# How often each server has its turn, and how long a turn is measured.
ROUNDS     ?= 3
BENCH_TIME ?= 5s

.PHONY: peers
peers: $(PEER_DEPS) ## bin/peers and what is on Node: the servers to compare with
	cd bench/peers && $(GO) build -trimpath -o ../../bin/ .

$(PEER_DEPS): $(PEER_NODE)/package.json $(PEER_NODE)/package-lock.json $(PEER_NODE)/.npmrc
	cd $(PEER_NODE) && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

# The least that a process can do to accept, in C: what the opening of connections is compared with.
bin/accept: bench/peers/accept/accept.c
	@mkdir -p bin
	$(CC) -O2 -Wall -Wextra -Werror -pthread -o $@ $<

.PHONY: peers-test
peers-test: build peers bin/accept ## each server to compare with: vet, tests, 100 connections that echo both kinds of messages
	cd bench/peers && $(GO) vet ./... && $(GO) test ./...
	staticcheck=$$($(GO) tool -n staticcheck) && cd bench/peers && $$staticcheck ./...
	bin/mqgate-bench compare echo --connections 100 --rounds 1 --warmup 0s --duration 200ms $(PEER_FLAGS)
	bin/mqgate-bench compare echo --connections 100 --rounds 1 --warmup 0s --duration 200ms --kind text --payload 20000 $(PEER_FLAGS)
	bin/mqgate-bench compare connect --path /ws --connections 1000 --loops 3 --fd-tables per-loop --rounds 1 --duration 200ms $(call ACCEPT_FLAGS,3)

.PHONY: bench
bench: build peers ## the comparison of docs/benchmarks.md: ROUNDS (3) of BENCH_TIME (5s), a quarter of an hour on a quiet machine
	bin/mqgate-bench compare echo --connections 1000 --payload 128 --duration $(BENCH_TIME) --rounds $(ROUNDS) \
		--json bin/bench-echo-128.json --markdown docs/benchmarks.md#echo-128 $(PEER_FLAGS)
	bin/mqgate-bench compare echo --connections 100 --payload 16KiB --duration $(BENCH_TIME) --rounds $(ROUNDS) \
		--json bin/bench-echo-16k.json --markdown docs/benchmarks.md#echo-16k $(PEER_FLAGS)
	bin/mqgate-bench compare connect --path /ws --connections 10000 --duration $(BENCH_TIME) --rounds $(ROUNDS) \
		--json bin/bench-idle.json --markdown docs/benchmarks.md#idle $(PEER_FLAGS)

# So many connections on one server process, beside a bare epoll accept: loops and threads with a descriptor table each,
# since no process here may have more than 20,000 open files in one table. What is held is held for HOLD. A million
# heartbeats every 20 s take both cores of a small machine, so that the rate of opening is measured without them, too.
CONNECTIONS ?= 1000000
LOOPS       ?= 60
HOLD        ?= 60s
ACCEPT_FLAGS = --peer 'mqgate=bin/mqgate serve --listen 127.0.0.1:0 --admin= --fd-tables per-loop --loops $(1)' \
	--peer 'without-heartbeat=bin/mqgate serve --listen 127.0.0.1:0 --admin= --fd-tables per-loop --loops $(1) --heartbeat off' \
	--peer 'accept=bin/accept --threads $(1) --tables'
.PHONY: million
million: build bin/accept ## CONNECTIONS (1000000) on one mqgate, and on a bare epoll accept in C; a quarter of an hour, 8 GiB of memory
	bench/million.sh bin/mqgate-bench compare connect --path /ws --connections $(CONNECTIONS) --loops $(LOOPS) --fd-tables per-loop --duration $(HOLD) \
		--rounds 1 --json bin/million.json --markdown docs/benchmarks.md#million $(call ACCEPT_FLAGS,$(LOOPS))

.PHONY: scaling
scaling: ## what NATS between gateways and workers costs, beside one process: docs/scaling.md; a quarter of an hour
	$(GO) test ./cmd/mqgate/scaling -run='^$$' -bench=Scaling -benchtime=3x -timeout=1h -v

# Least of COUNT runs of each; docs/frames.md says how to read it.
COUNT ?= 6
.PHONY: microbench
microbench: ## frames beside a plain copy, gobwas/ws and lxzan/gws: ratios
	@mkdir -p bin; $(GO) test ./frame -run='^$$' -bench='^Benchmark(Reader|Mask|Build|UTF8)$$' -benchtime=60ms -count=$(COUNT) >bin/microbench.txt || \
		{ cat bin/microbench.txt; exit 1; }
	@awk -f frame/ratios.awk bin/microbench.txt

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; with and without the tag invariants
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) vet -tags invariants $(PACKAGES)
	$(GO) vet -tags browser ./cmd/mqgate/e2e
	$(GO) tool staticcheck $(PACKAGES)
	$(GO) tool staticcheck -tags invariants $(PACKAGES)

.PHONY: e2e-deps
e2e-deps: $(E2E_DEPS) ## the npm clients of the end-to-end test, when missing or stale

$(E2E_DEPS): %/node_modules/.installed: %/package.json %/package-lock.json %/.npmrc
	cd $* && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf bin $(NODE_TESTS:=/node_modules) $(PEER_NODE)/node_modules
