# What a person does with this tree. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
DESTDIR ?=
SWIFT ?= swift
# The tests run against what users get: the campaigns are many times slower without optimisation.
CONFIGURATION ?= release
# Options for Benchmarks/run.py, such as "--data small --runs 1".
BENCH ?=
# A pattern that chooses tests by name, such as "CrashTests".
FILTER ?=

BINARY := .build/release/batchsync
BUILD_FLAGS := -c release --static-swift-stdlib --product batchsync
# Some tests look inside a room, which a release build allows only when told; so they are built in a folder of their own.
TEST_FLAGS := -c $(CONFIGURATION) --scratch-path .build/tests -Xswiftc -enable-testing --disable-xctest $(if $(FILTER),--filter "$(FILTER)")
# Two compilers at once are what two cores and a laptop's memory bear.
JOBS ?= 2

TEST_BINARY := $(CURDIR)/.build/tests/$(CONFIGURATION)/batchsync

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: build
build: ## the release binary, .build/release/batchsync
	@scripts/install-dependencies.sh build
	$(SWIFT) build --jobs $(JOBS) $(BUILD_FLAGS)

.PHONY: demo
demo: build ## backs up a copy of a real directory, changes it, restores, compares, verifies (SOURCE=DIR KEEP=1)
	@scripts/install-dependencies.sh demo
	@BATCHSYNC_BINARY="$(CURDIR)/$(BINARY)" SOURCE="$(SOURCE)" KEEP="$(KEEP)" scripts/demo.sh

.PHONY: test
test: ## all tests, with a seeded share of the long campaigns (FILTER=NAME for some)
	@scripts/install-dependencies.sh build test model
	@scripts/install-dependencies.sh ceph || echo 'test: going on without Ceph'
	@BATCHSYNC_BINARY="$(TEST_BINARY)" SWIFT="$(SWIFT)" scripts/run-tests.sh --jobs $(JOBS) $(TEST_FLAGS)

.PHONY: test-ceph
test-ceph: ## the tests of stores on a Ceph RADOS Gateway of one node, which it installs
	@scripts/install-dependencies.sh build test model ceph
	@$(MAKE) --no-print-directory test FILTER=CephTests

.PHONY: soak
soak: ## the campaigns at full length (RUNS=N SEED=N)
	@scripts/install-dependencies.sh build test model
	@export BATCHSYNC_TEST_RUNS="$(or $(RUNS),1000)"; \
	export BATCHSYNC_TEST_SEED="$(or $(SEED),$(shell date +%s))"; \
	echo "soak: $$BATCHSYNC_TEST_RUNS runs; again with: make soak RUNS=$$BATCHSYNC_TEST_RUNS SEED=$$BATCHSYNC_TEST_SEED"; \
	BATCHSYNC_TEST_MINUTES=100000 BATCHSYNC_BINARY="$(TEST_BINARY)" SWIFT="$(SWIFT)" scripts/run-tests.sh --jobs $(JOBS) $(TEST_FLAGS)

.PHONY: model
model: ## a model checker explores the protocol of writing and deleting (docs/protocol.md)
	@scripts/install-dependencies.sh model
	@scripts/check-model.sh

.PHONY: install
install: build ## the command, its man pages, completions, units and documents (PREFIX=DIR DESTDIR=DIR)
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/doc/batchsync"
	install -m 755 "$(BINARY)" "$(DESTDIR)$(PREFIX)/bin/batchsync"
	install -m 644 README.md LICENSE docs/*.md "$(DESTDIR)$(PREFIX)/share/doc/batchsync"
	install -d "$(DESTDIR)$(PREFIX)/share/doc/batchsync/profiles"
	install -m 644 profiles/*.toml "$(DESTDIR)$(PREFIX)/share/doc/batchsync/profiles"
	for page in man/*.[1-8]; do \
	    [[ -e "$$page" ]] || continue; \
	    section="$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}"; \
	    install -d "$$section"; \
	    install -m 644 "$$page" "$$section"; \
	done
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	for unit in scripts/systemd/*.in; do \
	    name="$${unit##*/}"; \
	    sed 's,@BINDIR@,$(PREFIX)/bin,' "$$unit" \
	        > "$(DESTDIR)$(PREFIX)/lib/systemd/system/$${name%.in}"; \
	done
	install -d "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" \
	    "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" \
	    "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	"$(BINARY)" --generate-completion-script bash \
	    > "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/batchsync"
	"$(BINARY)" --generate-completion-script zsh \
	    > "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_batchsync"
	"$(BINARY)" --generate-completion-script fish \
	    > "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/batchsync.fish"

.PHONY: deb
deb: ## a Debian package, .build/deb/batchsync_VERSION_ARCHITECTURE.deb
	@scripts/install-dependencies.sh build deb
	rm -rf .build/deb
	$(MAKE) install PREFIX=/usr DESTDIR="$(CURDIR)/.build/deb/tree"
	scripts/build-deb.sh .build/deb/tree .build/deb

.PHONY: deb-check
deb-check: deb ## installs, runs and purges the package in a scratch root, and asks lintian
	@scripts/install-dependencies.sh deb-check
	scripts/check-deb.sh .build/deb/*.deb

.PHONY: bench
bench: build ## measures batchsync beside restic, borg and a pipeline (BENCH="--data small --runs 1")
	@scripts/install-dependencies.sh bench
	BATCHSYNC_BINARY="$(CURDIR)/$(BINARY)" Benchmarks/run.py $(BENCH)

.PHONY: lint
lint: ## format, shell scripts, man pages, and a build in which every warning is an error
	@scripts/install-dependencies.sh build lint
	$(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests Benchmarks
	shellcheck --external-sources --source-path SCRIPTDIR \
	    scripts/*.sh scripts/servers/*.sh Benchmarks/*.sh .ci/run
	@for page in man/*.[1-8]; do \
	    [[ -e "$$page" ]] || continue; \
	    mandoc -T lint -W warning "$$page"; \
	done
	@# Python caches must not appear beside the sources.
	PYTHONDONTWRITEBYTECODE=1 python3 -W error -c 'import ast, sys; [ast.parse(open(p).read(), p) for p in sys.argv[1:]]' \
	    scripts/*.py scripts/servers/*.py Benchmarks/*.py Sources/SnapshotRepository/Recovery/recover.py
	$(SWIFT) build --jobs $(JOBS) --build-tests --scratch-path .build/lint \
	    --explicit-target-dependency-import-check error -Xswiftc -warnings-as-errors

.PHONY: format
format: ## puts all Swift files into the one format
	$(SWIFT) format --in-place --parallel --recursive Package.swift Sources Tests Benchmarks

.PHONY: clean
clean: ## removes everything that was built or fetched
	rm -rf .build
