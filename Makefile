# `make demo` and `make test` need Python 3.11+, make and a package index; they set up the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
KERNELS := $(wildcard tests/test_features*.py) $(addprefix tests/test_, intake.py signals.py \
	policies.py learner.py interventions.py trees.py calibration.py intent.py evidence.py \
	defects.py outcomes.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow check lint types layers bench coverage lock clean

help:  ## say what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## create .venv with the locked dependencies and the recoup command

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)  ## run the whole loop on a simulated shop, in the terminal
	$(BIN)/recoup demo

test: $(READY)  ## run the tests (without the long simulations)
	$(PYTEST) -m "not slow"

slow: $(READY)  ## run the long simulations and crash tests
	$(PYTEST) -m slow

check: lint types layers test  ## everything CI runs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

bench: $(READY)  ## print one JSON line per benchmark and peer
	$(BIN)/python -m benchmarks

coverage: $(READY)  ## line coverage: kernels without the compiler, then everything with it
	NUMBA_DISABLE_JIT=1 $(PYTEST) -m "not slow" $(KERNELS) --cov --cov-report=
	$(PYTEST) -m "not slow" --cov --cov-append --cov-report=term-missing

lock: $(READY)  ## compile pyproject.toml into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev --group bench \
		--no-emit-index-url --no-header --no-annotate -o requirements.lock pyproject.toml

clean:  ## remove what was built
	rm -rf $(VENV) build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis
