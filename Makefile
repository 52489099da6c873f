# Every target sets up what it needs in .venv; only Python 3.11 or 3.12 and make must be there before.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that runs, is 3.11 or 3.12, and can make environments. Choose another with make PYTHON=...
PYTHON ?= $(shell for candidate in python3.12 python3.11 python3 python; do \
	"$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	>/dev/null 2>&1 && { echo "$$candidate"; break; }; done)

.PHONY: help setup demo test lint format clean

help:
	@echo "make demo       synthesise a small orchestra and take it all the way to a report"
	@echo "make test       lint and tests"
	@echo "make lint       ruff alone; make format rewrites"
	@echo "make setup      only the environment, in $(VENV)"
	@echo "make clean      remove the environment and caches"

setup: $(VENV)/installed

# Installed again when what is to be installed has changed. The package itself is linked, not copied.
$(VENV)/installed: setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 with venv found. Install one (Debian: python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version); this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[beam,cpu,report,test]'
	@touch $@

demo: setup
	$(BIN)/melcache demo --output=demo_output

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
