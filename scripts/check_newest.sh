#!/usr/bin/env bash
# Builds and tries pixcli with the newest versions of everything that pyproject.toml allows, in an environment of its
# own, and runs the demo. To be run before a release, and now and then: what breaks is found before a user finds it.
# usage: check_newest.sh PYTHON
set -euo pipefail

python=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
environment=$(mktemp --directory)
trap 'rm -rf "$environment"' EXIT
"$python" -m venv "$environment"
"$environment/bin/pip" install --upgrade pip
"$environment/bin/pip" install . pytest
"$environment/bin/pip" list
"$environment/bin/python" scripts/try_installation.py
"$environment/bin/python" scripts/demo.py "$environment/demo"
