# mycore: the two commands that matter are `make demo` and `make test`.
GO      ?= go
BIN     := bin/mycore
PKGS    := ./...
FUZZTIME ?= 10s

.PHONY: all demo build test unit deps bench fuzz lint cross clean

all: build

build: ## the static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/mycore

demo: build ## the main job on an embedded incident; needs Go and nothing else
	./$(BIN) demo
	./$(BIN) demo freebsd

deps: ## what the tests need: debuggers and the real servers
	bash scripts/test-deps.sh

test: build deps lint cross ## everything, real servers included; a missing server fails
	MYCORE_REQUIRE_SERVERS=1 $(GO) test -count=1 -timeout 60m $(PKGS)
	$(GO) test -race -count=1 -short -timeout 20m ./elfcore/... ./libthr/... ./internal/analyze/... ./internal/unwind/... ./internal/cfi/... ./internal/symtab/... ./internal/modules/...
	$(MAKE) fuzz FUZZTIME=1500x

unit: ## without the servers; says which tests it skipped and why
	GO=$(GO) bash scripts/unit.sh $(PKGS)

bench: build ## Go benchmarks, then the whole command against gdb, lldb and eu-stack
	$(GO) test -run '^$$' -bench . -benchtime 0.5s $(PKGS)
	bash scripts/bench.sh

fuzz: ## each fuzz target for FUZZTIME
	bash scripts/fuzz.sh $(FUZZTIME)

lint: ## formatting and vet for every system that the program is built for
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "not gofmt'd" >&2; exit 1; }
	$(GO) vet $(PKGS)
	GOOS=freebsd $(GO) vet $(PKGS)
	@if command -v golangci-lint >/dev/null 2>&1; then golangci-lint run; else echo "golangci-lint is not installed: its checks were left out"; fi

cross: ## static builds for every supported system
	@for t in linux/amd64 linux/arm64 freebsd/amd64 freebsd/arm64; do \
	  echo "build $$t"; CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null ./cmd/mycore || exit 1; done

clean:
	rm -rf bin
