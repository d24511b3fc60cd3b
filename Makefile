# All that is done to this project; each command also works by hand. {%- capture file %}{% raw %}
.DEFAULT_GOAL := help
.PHONY: run watch test check deny bench fuzz fuzz-api build pgo pgo-image image cluster release-check toolchain keep-dependencies alerts ready ready-mutants stop-matrix stop-matrix-mutants restart rollout rollout-cluster rollout-mutants chaos chaos-mutants load soak scaled services new-resource update help

run watch: preview = --preview # example: its stub upstream
run: ## serve, with a Postgres and a Redis of its own
	@scripts/services run --keep $(preview) -- scripts/run

watch: ## the same, rebuilt and restarted on each save
	@scripts/watch $(preview)

# The tests mostly wait: more of them at once than cores.
test: ## the whole test suite, against services of its own
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-8} scripts/services run -- cargo test --locked --workspace

check: ## what CI checks besides tests: format, lints, dependencies, manifests, alert rules, workflows
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny
	scripts/manifests

deny: ## what is known of the dependencies: vulnerabilities, licences, where they come from
	@scripts/deny

build: ## the server as it ships, for this machine
	@scripts/build

pgo: ## profile-guided optimisation: a fifth less CPU for what `make build` and the drills build; ten minutes, once
	@scripts/pgo host

pgo-image: ## the same for `make image`
	@scripts/pgo image

image: ## docker build, and checks of the image: size, user, no shell, start, stop
	@scripts/image

cluster: ## the image in a kind cluster of its own: what the manifests promise, and a rollout under load
	@scripts/cluster

release-check: image ## what a release shows without GitHub: the image, what it is made of, two builds with the same bytes
	@scripts/release version
	@scripts/release sbom
	@scripts/release reproduce

toolchain: ## the compiler of the Dockerfile, for this folder; needs rustup
	@scripts/toolchain

keep-dependencies: ## drops what was compiled of this workspace, so that a cache holds the rest alone
	@cargo clean --quiet --workspace
	@cargo clean --quiet --workspace --release

bench: ## what a log event and a request cost; with valgrind, in instructions too
	@cargo bench --locked --bench paths

fuzz: ## an hour of made-up log events; needs the nightly compiler and cargo-fuzz
	@cargo +nightly fuzz run line -- -max_total_time=3600

fuzz-api: ## thousands of requests that the OpenAPI document allows or forbids, and what came of them; needs Python
	@scripts/fuzz-api

alerts: ## drill: what must call somebody does, with a Prometheus and a server that has bad days
	@scripts/alerts

ready: ## drill: the readiness checklist, all twelve items of it executed; DRILL="--only metrics" for one
	@scripts/drill ready $(DRILL)

ready-mutants: ## drill: each item must fail on a project that has that fault
	@scripts/drill ready --mutants $(DRILL)

stop-matrix: ## drill: what a stop takes and loses; DRILL=--quick for one run under load
	@scripts/drill stop-matrix $(DRILL)

stop-matrix-mutants: ## drill: the same load must lose requests when the stop is spoilt
	@scripts/drill mutants stop-matrix

restart: ## drill: how long nobody answers after kill -9
	@scripts/drill restart $(DRILL)

rollout: ## drill: replaces three replicas under load, again and again; no request may fail
	@scripts/drill rollout $(DRILL)

rollout-cluster: ## drill: the same in the cluster of the current kubectl context; DRILL="--address HOST:PORT"
	@scripts/drill --cluster $(DRILL)

rollout-mutants: ## drill: the same must fail when a stop does not wait for the balancer
	@scripts/drill mutants rollout

chaos: ## drill: three dozen faults under a steady load: what is refused, and how soon all is well; DRILL="--only Redis"
	@scripts/drill chaos $(DRILL)

chaos-mutants: ## drill: servers that do not get over a fault must be found out
	@scripts/drill mutants chaos

load: ## drill: up to ten times the capacity, which the server must keep
	@scripts/drill load

soak: ## drill: 20 minutes at 0.8 of the capacity, with a fault in each; DRILL="--runs 5" for five of them
	@scripts/drill soak $(DRILL)

scaled: ## the API's tests through a PgBouncer and on a Redis Cluster; takes both as programs
	@scripts/services run -- scripts/scaled

services: ## only Postgres and Redis, to stay; writes .env (end them: scripts/services down)
	@scripts/services up

new-resource: ## NAME=orders: a small resource of your own, with migration and tests, to start from
	@scripts/new-resource $(NAME) $(ONE)

delete-example: ## bookmarks: the folder, the migration, and each line marked as this one # example
	rm -r src/api/bookmarks migrations/0003_bookmarks.sql # example
	rm tests/process/canaries.rs tests/process/previews.rs tests/process/time_split.rs # example
	git grep --untracked -lE '(//|#) example' | xargs perl -ni -e 'print unless m{(//|#) example\b}' # example

update: ## merge in a newer template; TO=v1.2.0 for that version, FROM=URL for another place
	@scripts/update "$(TO)" "$(FROM)"

help: ## this list
	@sed -n -e 's/ # [a-z]*$$//' -e 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-19s %s\n", $$1, $$2 }'
# cargo-generate: what follows stays here.
.PHONY: template
template: ## generate projects and check them as their owners would; TEMPLATE=--quick for two of them
	@scripts/template $(TEMPLATE)

check: template-marks
template-marks:
	scripts/template-marks
# cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "# cargo-generate" | first | replace: "prod-template", project-name | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "# example" %}{{ line }}{% endunless %}{% endfor -%}
