# Everything that is built and checked here. "make" prints what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -X github.com/seed1de3961f/runbook/cmd/runbook/cli.version=$(VERSION)
# What the binary never uses: every process of a run would pay for its initialisation.
TAGS      := urfave_cli_no_docs grpcnotrace
FUZZTIME  ?= 10s
FUZZWORKERS ?= 2000x
CHECKS    ?= 200000
HALTRUNS  ?= 1000
HALTS     ?= 10000
BENCHTIME ?= 1s
ROUNDS    ?= 30

# Pinned: another version finds other things. "make tools" installs it.
GOLANGCI_VERSION    := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
PROTOC_GEN_GO       := v1.36.12
PROTOC_GEN_GO_GRPC  := v1.6.2

GOBIN    := $(shell go env GOPATH)/bin
GOLANGCI := $(GOBIN)/golangci-lint
GOVULNCHECK := $(GOBIN)/govulncheck
export PATH := $(GOBIN):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/runbook
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '-s -w $(LDFLAGS)' -o bin/runbook ./cmd/runbook
	@# The linker writes page by page, and page by page it is then mapped. Written at once, the file lies in large pages in the kernel's memory, and each start is a fifth shorter.
	@dd if=bin/runbook of=bin/.runbook bs=67108864 2>/dev/null && chmod 755 bin/.runbook && mv bin/.runbook bin/runbook

# The plugin for Kubernetes is a module of its own, because of the client library.
KUBERNETES := cmd/runbook-plugin-kubernetes

.PHONY: kubernetes
kubernetes: ## build bin/runbook-plugin-kubernetes
	cd $(KUBERNETES) && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/runbook-plugin-kubernetes .

.PHONY: demo
demo: build ## watch a service get stuck and be put right, on this machine, with nothing else needed
	bin/runbook demo

.PHONY: test
test: ## run the tests
	go test ./...
	cd $(KUBERNETES) && go test ./...

# Most of them wait, for servers and for clocks: four packages at a time.
.PHONY: test-e2e
test-e2e: build ## run the tests that need real servers (a Prometheus, PostgreSQL, systemd, ...); .ci/run installs those
	go test -count=1 -p 4 -tags e2e -run '^TestE2E' $$(grep -rl --include='*_test.go' '^//go:build.*e2e' . | xargs dirname | sort -u)

# All of Kubernetes takes some eight minutes to build on two cores. It is built once, for the versions that kubetest/go.mod names.
bin/kubernetes: $(KUBERNETES)/kubetest/go.mod
	mkdir -p $@
	cd $(KUBERNETES)/kubetest && export CGO_ENABLED=0 && for program in go.etcd.io/etcd/server/v3:etcd k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager; do \
		go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@/$$(basename "$${program#*:}") "$${program%:*}"; done
	touch $@

.PHONY: test-kubernetes
test-kubernetes: bin/kubernetes kubernetes ## run the tests of the plugin for Kubernetes against a real cluster's programs, which are built first
	cd $(KUBERNETES) && RUNBOOK_TEST_KUBERNETES=$(CURDIR)/bin/kubernetes go test -count=1 -v -tags kubernetes $(KUBEFLAGS) .

.PHONY: record-kubernetes
record-kubernetes: ## the same, and write down what was exchanged with it, for the tests without one
	$(MAKE) test-kubernetes KUBEFLAGS="-run '^Test(Queries|Deployments|Pods|Nodes|WithoutLeave|CronJob)$$$$' -record"

.PHONY: property
property: ## check the guards, the breaker and the books with CHECKS (200000) random histories, from SEED
	@seed=$${SEED:-$$RANDOM$$RANDOM}; echo "seed $$seed (again: make property SEED=$$seed CHECKS=$(CHECKS))"; \
	go test -count=1 -timeout 60m ./runtime/ledger ./runtime/guard ./runtime/breaker -run 'Propert|SlidingWindows|MoreBad' -rapid.checks=$(CHECKS) -rapid.seed=$$seed

.PHONY: halts
halts: ## set HALTS (10000) halts against processes that start actions in a loop, and against real runs
	RUNBOOK_TEST_HALTS=$(HALTS) go test -count=1 -timeout 5h -v -run '^TestNothingBeginsAfterHalt$$' ./runtime/control
	RUNBOOK_TEST_HALTS=$(HALTS) go test -count=1 -timeout 5h -v -tags e2e -run '^TestE2ENothingBeginsAfterHalt$$' ./cmd/runbook/cli

# A whole process under the race detector takes ten times as long, and every command is several of them: of the tests that start the real
# program, those of the commands that do several things at once stand for all.
PROCESSES := ^Test(Scripts|Killed|Bad|Secrets|Questions|Mistakes|Disk|ExamplesAreProved)
RACED     := run|halt|approve|backup|cleanup|replay|test

# Long tests of one goroutine: there is nothing in them for the race detector.
ALONE := ^Test(Pieces|InterruptedCapture|SpansAreSteps)$$

.PHONY: race
race: ## run the tests with the race detector, of those that start the real program only some
	GORACE=atexit_sleep_ms=0 go test -race -timeout 20m -skip '$(ALONE)' $$(go list ./... | grep -v /runbook/cli$$)
	GORACE=atexit_sleep_ms=0 go test -race -timeout 20m -skip '$(PROCESSES)' ./cmd/runbook/cli
	GORACE=atexit_sleep_ms=0 go test -race -timeout 20m -run '^TestScripts$$/^($(RACED))$$' ./cmd/runbook/cli

.PHONY: race-all
race-all: ## run all tests with the race detector; takes a quarter of an hour
	GORACE=atexit_sleep_ms=0 go test -race -timeout 60m ./...

.PHONY: lint
lint: $(GOLANGCI) ## run golangci-lint as .golangci.yml says
	$(GOLANGCI) run ./...
	cd $(KUBERNETES) && $(GOLANGCI) run ./...
	$(GOLANGCI) fmt --diff

.PHONY: vet
vet: ## run go vet, for the other platforms as well
	go vet ./...
	GOOS=darwin go build -o /dev/null ./cmd/runbook
	GOOS=windows go build -o /dev/null ./cmd/runbook

.PHONY: tidy-diff
tidy-diff: ## check that go.mod and go.sum are what go mod tidy would write
	go mod tidy -diff
	cd $(KUBERNETES) && go mod tidy -diff
	cd cmd/runbook/bench/store && go mod tidy -diff

.PHONY: vuln
vuln: $(GOVULNCHECK) ## look for known vulnerabilities in what is used; needs the network
	@code=0; $(GOVULNCHECK) ./... || code=$$?; \
	case $$code in \
	0) ;; \
	3) exit 3 ;; \
	*) echo "govulncheck could not run (exit $$code, see above; without the network it cannot): nothing was checked" >&2 ;; \
	esac

.PHONY: generate
generate: ## write everything that is generated: protocol code and the command line reference
	go generate ./...
	go test ./cmd/runbook/cli -run '^TestReference$$' -update

# The version of protoc stands in the generated files and differs from machine to machine; the code does not.
.PHONY: generate-diff
generate-diff: generate ## check that what is committed is what is generated
	git diff --exit-code -I'^//[[:space:]]*(- )?protoc' -- docs ':(glob)**/*.pb.go'

.PHONY: check
check: tidy-diff vet lint vuln test generate-diff ## everything that a change must pass

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (10s), workers for FUZZWORKERS
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "== $$(dirname "$$file") $$name"; \
			case $$name in FuzzEvaluate) time=$(FUZZWORKERS) ;; *) time=$(FUZZTIME) ;; esac; \
			go test "$$(dirname "$$file")" -run '^$$' -fuzz "^$$name\$$" -fuzztime $$time || exit 1; \
		done; \
	done

.PHONY: crash
crash: ## cut the power 100,000 times, at every write and around every effect; takes some minutes
	RUNBOOK_CRASHES=$${RUNBOOK_CRASHES:-100000} go test -count=1 -timeout 1h -v -run '^TestCrashes$$' ./runtime/store/pebble

.PHONY: kill
kill: build ## kill KILLS (1000) real runs at random moments, and hold their effects against the records
	RUNBOOK_TEST_KILLS=$(or $(KILLS),1000) go test -count=1 -timeout 2h -v -tags e2e -run '^TestE2EKills$$' ./cmd/runbook/cli

.PHONY: bench
bench: bench-runs bench-workers bench-parts ## run all benchmarks

.PHONY: bench-runs
bench-runs: build ## measure whole runs against /bin/true and ansible-playbook
	go run ./cmd/runbook/bench -runbook bin/runbook -rounds $(ROUNDS)

.PHONY: bench-workers
bench-workers: build ## measure the start of a worker against runbook --version
	go run ./cmd/runbook/bench -workers -runbook bin/runbook -rounds 200

.PHONY: bench-halt
bench-halt: build ## measure runbook halt against /bin/true, also while the store is held or damaged, and on a full disk
	go run ./cmd/runbook/bench -halt -runbook bin/runbook -rounds $(HALTRUNS)

.PHONY: bench-guards
bench-guards: ## measure what asking every guard costs, against one append with fdatasync
	go run ./cmd/runbook/bench -guards -rounds 300

.PHONY: bench-store
bench-store: ## measure the records of an action against the bare disk and SQLite; needs a C compiler
	cd cmd/runbook/bench/store && go run . -dir $(CURDIR)

.PHONY: bench-promtool
bench-promtool: build ## measure runbook test against promtool test rules, on a week of 1,000 series; takes some minutes
	go run ./cmd/runbook/bench -promtool $(or $(PROMTOOL),promtool) -runbook bin/runbook -rounds 3

.PHONY: verdicts
verdicts: build ## compare the verdicts of runbook test and promtool on the unit tests of rules in FILES, and on copies with one number changed
	go run ./cmd/runbook/bench -verdicts -promtool $(or $(PROMTOOL),promtool) -runbook bin/runbook -rounds 25 $(FILES)

.PHONY: bench-plugins
bench-plugins: ## measure starting and calling plugins against go-plugin's own example over gRPC
	go run ./cmd/runbook/bench -plugins -rounds 40

.PHONY: bench-parts
bench-parts: ## run the Go benchmarks of the packages
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 60m ./...

.PHONY: tools
tools: $(GOLANGCI) $(GOVULNCHECK) ## install the pinned tools into GOPATH/bin
	go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC)

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION): some minutes, once"
	go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(GOVULNCHECK):
	go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
