#!/usr/bin/env bash
# Builds and tries pixcli with the lowest versions that pyproject.toml and meson.build allow, in an environment of its
# own.
# usage: check_lowest.sh PYTHON
set -euo pipefail

python=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || { echo "check_lowest.sh: wheels of the lowest versions are for Python 3.11 and 3.12" >&2; exit 1; }
environment=$(mktemp --directory)
trap 'rm -rf "$environment"' EXIT
"$python" - > "$environment/lowest.txt" << 'CODE'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    settings = tomllib.load(file)
wanted = settings["build-system"]["requires"] + settings["project"]["dependencies"]
wanted += [each for each in settings["project"]["optional-dependencies"]["test"] if each.startswith("pytest>")]
with open("meson.build") as file:
    wanted.append("meson" + re.search("meson_version: '(>=[0-9.]+)'", file.read())[1])
for each in wanted:
    print(re.sub("[>=]=([0-9.]+).*", r"==\1", each))
CODE
cat "$environment/lowest.txt"
"$python" -m venv "$environment"
"$environment/bin/pip" install --only-binary :all: --requirement "$environment/lowest.txt" ninja
PATH="$environment/bin:$PATH" "$environment/bin/pip" install --no-deps --no-build-isolation .
"$environment/bin/python" scripts/try_installation.py
