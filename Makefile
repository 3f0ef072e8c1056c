# make up    a fresh clone to a running stack on this machine, and what to type next
# make test  everything CI runs, installing what it needs
#
# One target directory for everything, outside the checkout, so that clones share what is compiled.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TARGET_DIR ?= $(HOME)/.cache/creel/target
PREBUILD := services/lib/store-rocksdb/prebuild.sh
export ROCKSDB_LIB_DIR ?= $(shell $(PREBUILD) --dir 2>/dev/null)
export ROCKSDB_STATIC := 1
TOOLS := $(HOME)/.cache/creel/tools

.PHONY: help setup tools build up down check fmt tidy test bench chaos probe zones clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: ## install what the build needs, and compile RocksDB once per machine (12-18 min, then never again)
	@deploy/build/packages.sh libclang-dev g++ make
	@$(PREBUILD)

tools: ## install what the tests drive Creel with: grpcurl, faketime, OpenClaw
	@deploy/build/packages.sh faketime iproute2 python3
	@deploy/build/grpcurl.sh $(TOOLS)/bin
	@deploy/build/openclaw.sh $(TOOLS)/openclaw

build: setup ## bin/creel and bin/creeld, release profile
	cargo build --release --locked -p creel-supervisor -p creel-cli
	@mkdir -p bin && cp -f $(CARGO_TARGET_DIR)/release/creel $(CARGO_TARGET_DIR)/release/creeld bin/

up: build ## a running stack on this machine
	@bin/creeld up --detach

down: ## stop it
	@bin/creeld down

check: setup ## formatting, lints, tidy, unit tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --lib --bins -q

test: setup tools ## everything CI runs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -q -- -D warnings
	cargo build --workspace --bins --locked
	PATH="$(TOOLS)/bin:$$PATH" cargo test --workspace --locked --no-fail-fast

bench: build ## Creel beside its peers on this machine, medians of one run
	@deploy/build/packages.sh nginx-light
	cargo build --release --locked -p creel-bench
	$(CARGO_TARGET_DIR)/release/creel-bench --bin bin --markdown target/bench.md

chaos: setup ## the long chaos run (200 kills); make test runs a short one
	cargo build --workspace --bins --locked
	CREEL_CHAOS_KILLS=200 cargo test --locked -p creel-tests --test chaos --test chaos_cron -- --nocapture

zones: ## every zone over forty years, ten million random expressions, against the brute-force rule (16 min)
	cargo test --release --locked -p creel-schedule -- --ignored --nocapture

clean: ## forget what was compiled (RocksDB's archive stays)
	rm -rf bin $(CARGO_TARGET_DIR)
