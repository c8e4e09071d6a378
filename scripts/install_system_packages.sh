#!/usr/bin/env bash
# Installs the system packages that building pixcli needs, on Debian and Ubuntu, if any is missing.
set -euo pipefail

packages=(
  g++           # compiles the native modules (C++17)
  python3-dev   # Python's headers, for the native modules
  python3-venv  # the virtual environment that pixcli is installed into
  libceres-dev  # headers of ceres::CostFunction and ceres::Manifold, the bases of the native cost functions
  pkg-config    # finds Eigen, which those headers need and libceres-dev brings
)

if ! command -v dpkg-query > /dev/null; then
  echo "Not Debian or Ubuntu: please install the equivalents of: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

as_root=()
[[ $EUID -eq 0 ]] || as_root=(sudo)
echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
