# Developers and CI call the same targets. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# More arguments for the command, e.g. make drill ARGS='--rounds 10 --family dual'
ARGS ?=
# More arguments for tools/build_image.py, e.g. make image IMAGE_ARGS='--arch amd64 --arch arm64'
IMAGE_ARGS ?=
# More arguments for tools/real_cluster, e.g. make real-cluster REAL_ARGS='--flannel 0.28.9 --keep'
REAL_ARGS ?=
# Tests run side by side. Unit tests need the processor all the time; contract and kernel tests wait for most of theirs
# (for agents, pods and intervals that pass), so that three of them fit on two cores.
WORKERS ?= 2
WAITING_WORKERS ?= 3

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: drill
drill: setup ## Install what is missing, then restart three agents under load in the lab and print the verdict
	@$(BIN)/hitless drill $(ARGS)

.PHONY: test
test: setup-test check contract kernel image ## Install what is missing, then all checks and all tests

.PHONY: setup
setup: ## Install what the product needs (apt, .venv)
	@tools/setup drill

.PHONY: setup-test
setup-test: ## Install what the tests need too
	@tools/setup test

.PHONY: check
check: lint unit ## ruff, mypy, import layers, unit tests: no kernel needed

.PHONY: lint
lint: ## ruff, mypy, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: unit
unit: ## Unit tests and the rules of the project
	$(BIN)/pytest -q -n $(WORKERS) tests/unit tests/architecture

.PHONY: quick
quick: ## Unit tests without the slow ones (a quarter of a second and more)
	$(BIN)/pytest -q -n $(WORKERS) -m "not slow" tests/unit

.PHONY: contract
contract: ## The same tests for our doubles and for the real programs: no kernel needed, a few minutes
	$(BIN)/pytest -q -n $(WAITING_WORKERS) --dist worksteal tests/contract

.PHONY: kernel
kernel: ## Tests in namespaces, with real rules and packets
	$(BIN)/pytest -q -n $(WAITING_WORKERS) --dist worksteal tests/kernel

.PHONY: image
image: setup-test ## Build the container image as an OCI archive in dist/, print what is in it, start it with runc and in containerd
	$(BIN)/python tools/build_image.py $(IMAGE_ARGS)
	$(BIN)/pytest -q tests/image

.PHONY: manifests
manifests: setup-test ## Render deploy/manifests from the chart again
	$(BIN)/python tools/render_manifests.py

.PHONY: cluster
cluster: ## Tests against the cluster of KUBECONFIG
	$(BIN)/pytest -q -o faulthandler_timeout=0 tests/cluster

.PHONY: real-cluster
real-cluster: setup-test ## A real Kubernetes and flanneld on this machine: tests/cluster, the chart, drills (REAL_ARGS='--flannel 0.28.9')
	@[ -e dist/hitless-image.tar ] || $(BIN)/python tools/build_image.py
	@[ -e dist/hitless-flanneld.tar ] || $(BIN)/python tools/build_image.py --flanneld
	$(BIN)/python -m tools.real_cluster test $(REAL_ARGS)

.PHONY: bench
bench: setup-test ## Reproduce a figure: make bench ARGS='gaps --help', restarts, false_alarm, prober, semantics, agent, guard, cluster, hostile, windows
	$(BIN)/python bench/$(firstword $(ARGS)).py $(wordlist 2,99,$(ARGS))

.PHONY: lock
lock: ## Resolve the dependencies again and write the hashed lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock $(ARGS)
	$(BIN)/uv pip compile pyproject.toml --extra cluster --extra windows --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url --quiet -c requirements.lock -o deploy/image.lock
	echo hatchling | $(BIN)/uv pip compile - --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url --quiet -c requirements.lock -o deploy/build.lock

.PHONY: wheel
wheel: ## Build the wheel and the source archive into dist/
	$(BIN)/uv build --quiet --no-build-isolation

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
