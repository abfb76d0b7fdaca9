# Two commands on a fresh machine: `make demo` and `make test`. Both need Python 3.11, pip and a package index.

PYTHON ?= python3
VENV ?= .venv
# pinned: as in constraints.txt; minimal: the lowest that pyproject.toml allows (needs uv); newest.
DEPENDENCIES ?= pinned
CONSTRAINTS_pinned := --constraint constraints.txt
CONSTRAINTS_minimal = --constraint $(VENV)/minimal.txt
BIN := $(VENV)/bin
# Test files side by side: one more process than cores, since tests wait for others that they start.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(4, 1 + len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))')
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist loadfile

.PHONY: demo pictures test check slow dist docs clean

demo: $(VENV)/.installed
	$(BIN)/climlstm demo demo --evaluator '{name: storms, options: {preset: extratropical}}'

# The gallery, docs/gallery.md, from real files (CLIMLSTM_REAL_DATA) and the demo.
pictures: $(VENV)/.installed
	test -d demo/forecasts.zarr || $(MAKE) demo
	test -d demo/ensemble.zarr || $(BIN)/climlstm forecast demo/runs/demo --members 10 --out demo/ensemble.zarr
	$(BIN)/python docs/pictures.py && $(BIN)/ruff format -q docs/gallery.md

test: $(VENV)/.installed check
	$(PYTEST)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pip check --disable-pip-version-check

slow: $(VENV)/.installed
	$(PYTEST) -m "slow or not slow"

# The site, in docs/_build/html; a warning is an error.
docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

# Wheels and source distributions of all packages; the tests install and try them.
dist: $(VENV)/.installed
	rm -rf dist
	for project in . $(PLUGINS); do (cd $$project && $(abspath $(BIN))/hatchling build -d $(CURDIR)/dist) || exit 1; done
	$(BIN)/pytest -q -m slow tests/test_distributions.py

PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' # knows dependency groups
ifeq ($(DEPENDENCIES),minimal)
	uv pip compile --quiet --resolution lowest-direct --extra all pyproject.toml --output-file $(VENV)/minimal.txt
endif
	$(BIN)/pip install --quiet --disable-pip-version-check $(CONSTRAINTS_$(DEPENDENCIES)) --group dev --editable '.[all]' $(foreach plugin,$(PLUGINS),--editable $(plugin))
	touch $@

clean:
	rm -rf $(VENV) demo build dist docs/_build docs/reference
