# `make demo` and `make test` do all of their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
DATA := $(or $(RELIC_DATA),$(wildcard ../shared/data))
export RELIC_DATA := $(DATA)

.PHONY: demo test test-all lint peers docs clean

demo: $(STAMP)
	$(BIN)/relic demo

test: lint
	$(BIN)/pytest -n $(JOBS)

test-all: lint
	$(BIN)/pytest -n $(JOBS) -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

peers: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[peers]'

docs: $(STAMP)
	$(BIN)/relic docs

# The stamp is written last: an interrupted install leaves none, and the next run repairs it.
$(STAMP): pyproject.toml requirements.lock
	@rm -f $(STAMP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "relic needs Python 3.11 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs .relic
