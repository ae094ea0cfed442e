# Python 3.11 or newer and make are all that is needed. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := build/bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# With their extras: pip takes an extra's newest version for one without a hash where only the bare name is pinned.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-strip-extras
PROJECT := pyproject.toml streams/local/kafka-jars.txt Makefile
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo up test faults bench bench-install lint format cover reference lock clean clean-data
.DELETE_ON_ERROR:

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'ARGS="…" is handed on to demo, up, test, faults, cover and bench: make up ARGS="--workers 2"'

install: $(VENV)/.installed ## set up .venv with the command early-kill, Kafka and PostgreSQL; no network is needed afterwards

demo: install ## everything on this machine, and a simulated posting day to watch
	@$(BIN)/early-kill demo $(ARGS)

up: install ## Kafka, PostgreSQL, monitor and sink on this machine, until Ctrl-C
	@$(BIN)/early-kill up $(ARGS)

test: $(VENV)/.installed-dev lint ## lint, then all tests, on real Kafka and PostgreSQL
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

faults: $(VENV)/.installed-dev ## named faults and 200 random schedules of faults on real servers, four hours; ARGS="--runs 3 --seed 7" for few
	@EARLY_KILL_FAULTS=1 $(BIN)/python -m tests.faults $(ARGS)

bench: install bench-install ## all benchmarks, beside peers: an hour or more; ARGS="throughput" for one
	@$(BIN)/python -m benchmarks $(ARGS)

bench-install: $(BENCH)/.installed

lint: $(VENV)/.installed-dev ## ruff, mypy and the direction of imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo 'error: run `make format`' >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev ## let ruff lay the code out
	@$(BIN)/ruff format .

cover: $(VENV)/.installed-dev ## the tests, and which branches they miss
	@$(BIN)/python -m pytest --cov --cov-report=term-missing $(ARGS)

reference: install ## write docs/reference.md, the page of all settings, from the settings class
	@$(BIN)/python -m streams.reference > docs/reference.md

lock: $(VENV)/bin/python ## pin the newest versions that pyproject.toml allows
	@$(PIP) uv
	@$(COMPILE) --group build -o requirements.txt pyproject.toml
	@$(COMPILE) --group dev -c requirements.txt -o requirements-dev.txt pyproject.toml
	@echo 'pip-audit>=2.9,<3' | $(COMPILE) -c requirements.txt -o requirements-audit.txt -
	@echo 'quixstreams>=3.28,<4' | $(COMPILE) -o benchmarks/peers/requirements-quix.txt -

clean: ## remove .venv and what tools left
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find models streams tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

clean-data: install ## remove .early-kill: all records of `make up` and `make demo`
	@$(BIN)/python -m streams.local.remove .early-kill

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo 'error: $(PYTHON) is not installed; Python 3.11 or newer is needed' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECT) requirements.txt | $(VENV)/bin/python
	@echo 'installing into $(VENV); the first time this takes a minute or two' >&2
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m streams.local.fetch
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo 'installing what the tests need into $(VENV)' >&2
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

$(BENCH)/.installed: benchmarks/peers/requirements-quix.txt benchmarks/peers/kafka-streams-jars.txt | $(VENV)/.installed
	@echo "installing the benchmarks' peers into $(BENCH)" >&2
	@$(PYTHON) -m venv $(BENCH)/quix
	@$(BENCH)/quix/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/peers/requirements-quix.txt
	@$(BIN)/python -m benchmarks.peers.jars
	@touch $@
