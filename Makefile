# `make demo` and `make test` do all of their own set-up; `make help` lists the rest.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARTIAL := $(VENV)/.installing
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED = requirements$(if $(filter-out test,$(1)),-$(1)).lock

SITE := $(VENV)/.site

# Everything from outside is compared with its digest, what builds relic itself included.
# pip is silent for minutes; this tells that it is at work.
define INSTALL
@( s=0; while sleep 10 >/dev/null 2>&1; do s=$$((s + 10)); echo "still installing, $$s s"; done ) & beat=$$!; \
trap 'kill $$beat' EXIT; $(PIP_INSTALL) --require-hashes --requirement $(LOCKED) && \
$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
endef

.PHONY: help demo test test-all lint peers docs site clean

demo: $(STAMP)  ## train DCCF beside LightGCN: a figure, a table, a conclusion, runs/report.html
	$(BIN)/relic demo

test: $(STAMP)  ## the default tests
	$(BIN)/pytest -n $(JOBS)

test-all: peers  ## all tests: slow ones and comparisons with peers too
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/pytest -n $(JOBS) -m '' --hypothesis-profile=default

lint: $(STAMP)  ## style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

peers: $(STAMP)  ## the libraries that benchmarks compare with (PyTorch, diffrax, kronfluence, transformers)
	@echo "installing the peers into $(VENV) (some minutes and, with PyTorch for GPUs, 6 GB)"
	$(call INSTALL,peers)
	@echo "importing them"
	@$(BIN)/python -m experiments.lab.peers

docs: $(STAMP)  ## fill docs, README and RESULTS.md from the records under runs/
	$(BIN)/relic docs

site: $(SITE)  ## the documentation as web pages under site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is written last. An interrupted install leaves PARTIAL behind, and the next run starts over.
$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "relic needs Python 3.11 or newer; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@rm -f $(STAMP)
	@if [ -e $(PARTIAL) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(PARTIAL)
	@echo "installing relic and what it needs into $(VENV) (a minute or two)"
	$(call INSTALL,test)
	@rm -f $(PARTIAL)
	@touch $(STAMP)

$(SITE): $(STAMP)
	@echo "installing what builds the site into $(VENV)"
	$(call INSTALL,docs)
	@touch $(SITE)

clean:  ## remove the environment, the site, runs and caches
	rm -rf $(VENV) runs .relic site
