# The ways to build, try and test holm. Each target is one script or one command: read it to see what happens.
#
#   make            help
.DEFAULT_GOAL := help
.PHONY: help setup build images test conformance demo demo-clean bench fuzz lint check

help: ## shows this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## installs what building, running and testing need; says what and why; nothing when all is there
	@scripts/setup build run test

build: ## builds the release binary, target/release/holm
	@scripts/setup build
	cargo build --release --locked -p holm --bin holm

images: ## makes the guest and container images of the tests and the demo (cached)
	@scripts/setup test
	@scripts/images/build

test: ## sets up and runs all tests, those with real guests included
	@scripts/test

conformance: ## runs the public lists of OpenStack tests against holm, and notes the results in docs/openstack.md
	@scripts/conformance --record

demo: ## tells holm's story with real guests, containers and packets
	@scripts/demo

demo-clean: ## leaves the machine as it was before the demo
	@scripts/demo clean

bench: ## measures holm beside its peers, as ratios in one run
	@scripts/bench

fuzz: ## tries everything on what strangers send, a minute for each target; needs cargo-fuzz
	@scripts/fuzz

lint: ## formatting, clippy and the house rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask

check: lint test ## all that must pass before a change is taken
