# Two commands on a fresh machine: `make demo` and `make test`. Both need Python 3.11, pip and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files side by side, one process a core and four at most: each may start a Ray cluster of its own.
PYTEST := $(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check slow clean

demo: $(VENV)/.installed
	$(BIN)/climlstm demo demo --evaluator '{name: storms, options: {preset: extratropical}}'

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

$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]' $(foreach plugin,$(wildcard plugins/*/pyproject.toml),--editable $(dir $(plugin)))
	touch $@

clean:
	rm -rf $(VENV) demo build dist
