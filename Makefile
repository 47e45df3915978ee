# Everything starts here: `make run` and `make test` set up what they need on a machine with Python 3.11, make and git.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run up plan repro check test faults benchmark schema clean

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

setup: .venv/.installed  ## make .venv from the lock (skipped when nothing changed)

.venv/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; name another one: make PYTHON=python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: Python 3.11 is needed, $(PYTHON) is another"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup  ## run the starter pipelines
	@tidemill data fetch
	@tidemill run --tag starter

up: setup  ## Prefect server, MLflow pages and scheduler, until Ctrl-C
	@tidemill up

repro: setup  ## reproduce every stage with DVC
	@tidemill data fetch
	@dvc repro

check: setup  ## ruff, mypy, import contracts
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test: setup  ## every test
	@tidemill data fetch
	@OMP_NUM_THREADS=1 pytest -n 2 --dist loadgroup --no-loadscope-reorder

faults: setup  ## each fault at 20 random moments, and what was lost (an hour or two)
	@python -m tests.faults

benchmark: setup .venv-benchmark/.installed  ## every pipeline beside its rivals, several seeds each (hours)
	@tidemill run --all; ran=$$?; test $$ran -lt 128 || exit $$ran; \
		.venv-benchmark/bin/python -m benchmarks.families && exit $$ran  # what failed is missing there, the rest is measured

# Rivals are no part of Tidemill: they live in an environment of their own, beside the same versions of everything else.
.venv-benchmark/.installed: requirements.lock benchmarks/requirements.txt
	test -x .venv-benchmark/bin/python || $(PYTHON) -m venv .venv-benchmark
	.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
		-r requirements.lock -r benchmarks/requirements.txt
	@touch $@

schema: setup  ## JSON Schema of params.yaml, for editors
	@tidemill schema

clean:  ## remove what runs have made, not the data
	rm -rf .tidemill results
