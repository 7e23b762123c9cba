# Every target installs what it needs through Go's own tool directive (go.mod);
# nothing has to be set up first but Go.

VERSION ?= 0.1.0
LDFLAGS := -s -w -X rutter.dev/rutter/cmd/cli.version=$(VERSION)
GO      ?= go
# What runs Go tests; .ci/run puts a runner that counts in its place.
GOTEST  ?= $(GO) test
# Packages that link the Istio library: large test binaries, left out of -race.
ISTIO   := builtins/istioctl|cmd/|tests

.DEFAULT_GOAL := help
# Which runbook is swept, how many of its cases (0 for all), and what picks them.
RUNBOOK ?= in-place
CASES   ?= 2000
SEED    ?= 1
SWEPT   = runbooks/istio/$(RUNBOOK)_test.star --run '^test_small_mesh$$' --sweep --seed $(SEED)
# How long each fuzz target runs.
FUZZTIME ?= 5m

.PHONY: help build release reproduce hostile demo test fuzz sweep race check e2e cluster-up cluster-down golden bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: bin/rutter ## build bin/rutter

bin/rutter: FORCE
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/rutter

release: ## build bin/release for linux and darwin on amd64 and arm64, with SBOMs and checksums
	$(GO) run ./tests/release --version $(VERSION)

reproduce: ## build this platform's release twice, from two folders, and compare the bytes
	$(GO) run ./tests/release --version $(VERSION) --twice --out bin/reproduce

hostile: ## run the hostile inputs: each in a process of its own, within a memory limit
	$(GOTEST) -count=1 ./tests/hostile

demo: bin/rutter ## build, then upgrade a simulated mesh with the in-place runbook
	./bin/rutter run runbooks/istio/in-place.star --set to=1.31.0 --sim mesh,istio=1.30.3,workloads=60,seed=1 --yes

test: ## run every test, golden tests of the runbooks included
	$(GOTEST) -timeout 40m ./...
	$(MAKE) --no-print-directory bin/rutter
	./bin/rutter test runbooks stdlib
	./bin/rutter test $(SWEPT) --cases 24

fuzz: ## fuzz everything that parses, one target after another, each for FUZZTIME (5m)
	@for file in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$file); do \
			echo "$$name in $$(dirname $$file)"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -parallel 1 ./$$(dirname $$file) || exit 1; \
		done; \
	done

sweep: bin/rutter ## fault sweep of RUNBOOK (in-place): every request failing, the host dying anywhere; CASES, SEED
	./bin/rutter test $(SWEPT) --cases $(CASES)

race: ## run the tests under the race detector (packages that don't link Istio)
	$(GOTEST) -timeout 40m -race $$($(GO) list ./... | grep -vE '$(ISTIO)')

check: ## format, vet, staticcheck, gosec, and known vulnerabilities where their database can be reached
	@out=$$($(GO) tool gofumpt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofumpt-formatted (go tool gofumpt -w FILE):"; echo "$$out"; exit 1; fi
	$(GO) vet -tags e2e ./...
	$(GO) tool staticcheck -tags e2e ./...
	$(GO) run ./tests/gosec ./builtins/... ./cmd/... ./runbooks/... ./runtime/... ./stdlib/...
	.ci/vulncheck

# GOGC: there is memory, and what runs is many short-lived processes on few processors.
# -o: test binaries that stay are linked again only when something changed; go
# test alone links each of them every time. "make check" vets.
e2e: ## run rutter against a real kube-apiserver and a real istiod on loopback
	$(GO) run ./tests/e2e/cmd/cluster build
	RUTTER_E2E_BUILT=1 GOGC=400 $(GOTEST) -vet=off -o bin/e2e/tests/ -tags e2e -count=1 -timeout 40m -v ./tests/e2e ./tests/conformance/requests ./tests/conformance/injection ./builtins/restart
	$(GO) run ./tests/e2e/cmd/cluster leaks

cluster-up: ## leave such a cluster running, with Istio 1.30.3, and print its kubeconfig
	@$(GO) run ./tests/e2e/cmd/cluster up --istio 1.30.3

cluster-down: ## stop it
	@$(GO) run ./tests/e2e/cmd/cluster down

golden: bin/rutter ## rewrite the golden files of Go tests and of runbooks
	$(GO) test $$(grep -rl 'flag.Bool("update"' --include=*_test.go . | xargs -n1 dirname | sort -u) -update
	UPDATE_SCRIPTS=1 $(GO) test ./tests/scripts
	./bin/rutter test runbooks stdlib --update

bench: bin/rutter ## measure against kubectl and istioctl, some of it on a real API server, and print ratios
	.ci/bench

clean: ## remove what was built; stops the cluster of cluster-up
	@if [ -e bin/e2e/cluster/plane.json ]; then $(MAKE) --no-print-directory cluster-down; fi
	rm -rf bin

FORCE:
