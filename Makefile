# Every command a person needs. `make` alone prints them.

# A distribution's own interpreter is built with profile-guided optimisation, one that pyenv builds is not unless asked:
# nodes take a fifth more processor time then.
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
endif
SEEDS ?= 1000
ARGS ?=

BIN := .venv/bin
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help setup up test check simulate docs drills bench profile lock clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1: \2/p' Makefile

setup: $(RUNTIME) ## create .venv and install replicad in it (the other targets do this by themselves)

up: $(RUNTIME) ## start a three-node cluster in the foreground, HTTP on 127.0.0.1:8001-8003 (ARGS="--nodes 5")
	@exec $(BIN)/replicad up $(ARGS)

# The container tests run wherever a Docker engine answers.
test: $(DEV) ## run every test (ARGS="-k name" picks some)
	@if docker info >/dev/null 2>&1; then \
		exec $(BIN)/pytest -n 2 --dist loadgroup $(ARGS); \
	else \
		echo "No Docker engine answers here: the container tests are left out."; \
		exec $(BIN)/pytest -n 2 --dist loadgroup -m "not compose" $(ARGS); \
	fi

check: $(DEV) ## format, lint, types, import directions, tidiness
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_tidy.py

simulate: $(RUNTIME) ## try SEEDS=1000 random runs of whole clusters in the simulator
	@exec $(BIN)/replicad simulate --seeds $(SEEDS) $(ARGS)

docs: $(DEV) ## write the tables of the docs again from the code
	$(BIN)/python -m tests.pages

# Measured before a release, on a quiet machine; each has --help. They take about half an hour together.
drills: $(DEV) ## measure failover, rolling restarts, read-back, protocols, members, groups, wiped disks, a million keys
	$(BIN)/python -m drills.read_back
	$(BIN)/python -m drills.failover
	$(BIN)/python -m drills.failover --protocol active
	$(BIN)/python -m drills.rolling
	$(BIN)/python -m drills.rolling --protocol active
	$(BIN)/python -m drills.protocols --write
	$(BIN)/python -m drills.grow
	$(BIN)/python -m drills.grow --protocol active
	$(BIN)/python -m drills.groups
	$(BIN)/python -m drills.wipe
	$(BIN)/python -m drills.million

# etcd, Redis, wrk and h2load come from the system: apt install etcd-server redis-server wrk nghttp2-client
bench: $(DEV) ## measure against etcd and Redis, into data/bench (ARGS="--quick", "--full", "--only NAME")
	@exec $(BIN)/python -m benchmarks $(ARGS)

profile: $(DEV) ## draw a flame graph per role under load, into data/bench
	@exec $(BIN)/python -m benchmarks.profile $(ARGS)

lock: ## resolve the dependencies anew into the two lock files
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools
	printf '# Made by `make lock` from pyproject.toml.\n' > .venv-lock/header
	set -e; for lock in "requirements.lock" "requirements-dev.lock --extra dev -c requirements.lock"; do \
		.venv-lock/bin/pip-compile -q --upgrade --no-header --no-annotate --strip-extras --allow-unsafe \
			--no-emit-index-url --no-emit-trusted-host --no-emit-find-links pyproject.toml -o $$lock; \
		cat .venv-lock/header $${lock%% *} > .venv-lock/lock; cp .venv-lock/lock $${lock%% *}; \
	done
	rm -rf .venv-lock

clean: ## remove .venv and every cache, keep ./data
	rm -rf .venv .venv-lock build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find replicad tests -name __pycache__ -type d -exec rm -rf {} +

$(RUNTIME): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || \
		{ echo "replicad needs Python 3.11 or newer, and there is no $(PYTHON) here." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "replicad needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
			"Name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (once; a minute at most) ..."
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@$(PIP) -r requirements-dev.lock
	@touch $@
