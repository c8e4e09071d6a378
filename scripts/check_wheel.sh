#!/usr/bin/env bash
# Installs a wheel alone into a new environment and tries it where no compiler can be found.
# usage: check_wheel.sh PYTHON WHEEL
set -euo pipefail

python=$(realpath --no-symlinks "$1") wheel=$(realpath "$2")
cd "$(dirname "$0")/.."
environment=$(mktemp --directory)
trap 'rm -rf "$environment"' EXIT
"$python" -m venv "$environment"
"$environment/bin/pip" install --only-binary :all: --constraint requirements.lock "$wheel" pytest

bare() { env --ignore-environment HOME="$environment" PATH="$environment/bin" PIXCLI_DATA="${PIXCLI_DATA-$PWD/../shared/data}" "$@"; }
bare python scripts/try_installation.py
bare python -P - << 'CODE'
import re
import sys

import pixcli.ceres

with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1] for line in maps if re.search("lib(ceres|glog|gflags)", line)}
foreign = sorted(path for path in loaded if not path.startswith(sys.prefix))
if foreign:
    sys.exit(f"libraries of this system were loaded: {foreign}")
CODE
