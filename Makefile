# On a new machine with Python 3.11 and make, `make run` and `make test` set up everything that they need.
# PYTHON=… uses another interpreter, VENV=… another folder. ARGS=… are further arguments for the command.

VENV ?= .venv
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
endif

# The number of tests at the same time: twice the number of cores, because most tests wait for processes and servers.
WORKERS ?= $(shell "$(PYTHON)" -c 'import os; print(min(2 * (os.cpu_count() or 1), 16))' 2>/dev/null || echo 2)

BIN := $(VENV)/bin
# These files are touched after an installation. If such a file is older than its lock file or pyproject.toml, make
# installs again.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run demo test faults check format bench bench-quick lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(RUN) ## Run the daemon with config.example.yaml and an embedded Redis server; installs what is missing
	@trap : INT; $(BIN)/event-router run -c config.example.yaml $(ARGS) || [ $$? -eq 130 ]  # 130: ended by Ctrl-C

demo: $(RUN) ## Show the router at work with sample events; ends by itself after some seconds
	@trap : INT; $(BIN)/event-router demo $(ARGS) || [ $$? -eq 130 ]

test: $(DEV) ## Run all tests against real servers, which the tests start; installs what is missing
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

faults: $(DEV) ## Run all fault scenarios (half an hour) and write the tables of docs/reliability.md; ARGS='--only killed' runs one
	@$(BIN)/python -m tests.faults.report --write $(ARGS)

check: $(DEV) ## Check lint rules, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## Format the code and apply the corrections of ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Measure the CPU time of an event; ARGS=NAME runs another benchmark, ARGS=--help lists all
	@$(BIN)/python -m benchmarks.bench $(ARGS)

bench-quick: $(DEV) ## Check in a minute whether an event has become more expensive; ARGS=--store stores the new figures
	@$(BIN)/python -m benchmarks.bench quick $(ARGS)

lock: $(DEV) ## Write the newest versions that pyproject.toml allows into the two lock files, with hashes
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --generate-hashes \
		--extra embedded --extra speed --extra watch --extra webpush --extra apprise pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --generate-hashes \
		--extra dev --constraint requirements.lock --no-emit-package event-router pyproject.toml -o requirements-dev.lock

clean: ## Remove installed, cached and built files
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "event-router needs Python 3.11 or newer, but $(or $(PYTHON),python3) is older or missing. Install a newer one, or name its path: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi
	@if ! "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$(PYTHON) can't make virtual environments: its module venv or ensurepip is missing. On Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	fi
	@echo "Setting up $(VENV): once, about a minute" >&2
	@"$(PYTHON)" -m venv $(VENV)

$(RUN): requirements.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps -e .
	@touch $@ $(RUN)
