#!/usr/bin/env bash
# Builds a wheel into dist/ by the environment of `make`, and repairs it: auditwheel checks which systems it runs on
# and names it for them.
# usage: build_wheel.sh BIN     (the environment's folder of programs)
set -euo pipefail

export PATH="$(realpath "$1"):$PATH"
cd "$(dirname "$0")/.."
rm -rf build/wheel dist
pip wheel --no-deps --no-build-isolation --config-settings=build-dir=build/meson --wheel-dir build/wheel .
auditwheel show build/wheel/*.whl
auditwheel repair --wheel-dir dist build/wheel/*.whl
