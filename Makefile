.DEFAULT_GOAL := help
.PHONY: run watch test check stop-matrix stop-matrix-mutants restart services help

run: ## serve, with a Postgres, a Redis and a stub upstream of its own
	@scripts/services run --keep --preview -- scripts/run

watch: ## the same, rebuilt and restarted on each save
	@scripts/watch

# The tests mostly wait: more of them at once than cores.
test: ## the whole test suite, against services of its own
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-8} scripts/services run -- cargo test --locked --workspace

check: ## what CI checks besides tests: format, lints, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny

stop-matrix: ## drill: what a stop takes and loses; DRILL=--quick for one run under load
	@scripts/drill stop-matrix $(DRILL)

stop-matrix-mutants: ## drill: the same load must lose requests when the stop is spoilt
	@scripts/drill mutants stop-matrix

restart: ## drill: how long nobody answers after kill -9
	@scripts/drill restart $(DRILL)

services: ## only Postgres and Redis, to stay; writes .env (end them: scripts/services down)
	@scripts/services up

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-19s %s\n", $$1, $$2 }'
