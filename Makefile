# make        what there is
# make run    the gateway with its built-in worker: ws://127.0.0.1:8080/ws, admin http://127.0.0.1:9090
# make test   everything, the end-to-end test with the real npm client included

GO       ?= go
NPM      ?= npm
PACKAGES ?= ./...
# Time for each fuzz target, as go test -fuzztime takes it.
FUZZTIME ?= 10s
# Flags for mqgate serve in `make run`, e.g. make run ARGS='--log-level debug'
ARGS     ?=

# What `mqgate version` says; without git it is left to the binary to find out.
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null)
BUILD    := $(GO) build -trimpath -ldflags '-X main.version=$(VERSION) -X github.com/mqgate/mqgate/bench.linked=$(VERSION)'

E2E_NODE := cmd/mqgate/e2e/node
E2E_DEPS := $(E2E_NODE)/node_modules/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

.PHONY: race
race: e2e-deps ## all tests under the race detector
	$(GO) test -race $(PACKAGES)

.PHONY: invariants
invariants: e2e-deps ## all tests with ownership of buffers and loops checked
	$(GO) test -tags invariants $(PACKAGES)

# go test takes one fuzz target of one package at a time.
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s) each
	@targets=$$(grep -rEo --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]+' . | sort); \
	if [ -z "$$targets" ]; then echo "make fuzz: no fuzz target found" >&2; exit 1; fi; \
	echo "$$targets" | sed 's/:func / /' | while read -r file target; do \
		echo "== $$target in $$(dirname "$$file") for $(FUZZTIME)"; \
		$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" </dev/null || exit 1; \
	done

.PHONY: bench
bench: ## Go benchmarks
	$(GO) test -run='^$$' -bench=. -benchmem $(PACKAGES)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; with and without the tag invariants
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) vet -tags invariants $(PACKAGES)
	$(GO) tool staticcheck $(PACKAGES)
	$(GO) tool staticcheck -tags invariants $(PACKAGES)

.PHONY: e2e-deps
e2e-deps: $(E2E_DEPS) ## the npm clients of the end-to-end test, when missing or stale

$(E2E_DEPS): $(E2E_NODE)/package.json $(E2E_NODE)/package-lock.json $(E2E_NODE)/.npmrc
	cd $(E2E_NODE) && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf bin $(E2E_NODE)/node_modules
