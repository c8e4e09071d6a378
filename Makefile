# make demo, make test, make bench: each sets up what is missing, once, and runs. Needs Debian or Ubuntu;
# elsewhere install the prerequisites that README.md names, then the same commands work.
PYTHON ?= python3
# Tests run in several processes; each makes the scenes that its tests share, so that more than four gain little.
test: export PYTEST_ADDOPTS ?= --numprocesses auto --maxprocesses 4 --dist worksteal
BIN := .venv/bin
SOURCES := $(shell find pixcli native presets -type f -not -path '*/__pycache__/*')

.PHONY: demo test bench format
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/python scripts/demo.py

# The script `pytest`, not `python -m pytest`: the latter would import pixcli from the source tree, which has no
# compiled modules, instead of the installed package. Linters and types are tests too: tests/test_codebase.py.
test: .venv/installed
	$(BIN)/pytest

bench: .venv/installed
	$(BIN)/python scripts/bench/run_all.py --json build/bench.json

format: .venv/installed
	$(BIN)/ruff format pixcli scripts tests
	$(BIN)/ruff check --fix
	$(BIN)/clang-format -i $$(find native -name '*.h' -o -name '*.cc')

.venv/bin/python:
	scripts/install_system_packages.sh
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python $(SOURCES) meson.build pyproject.toml constraints.txt
	$(BIN)/pip install --constraint constraints.txt '.[test]'
	touch $@
