#!/usr/bin/env bash
# Puts the headers of Ceres and Eigen into a folder, for systems without packages of them (containers of manylinux,
# macOS, Windows, Ubuntu 22.04). Nothing is compiled; show the folder to the compiler by CPLUS_INCLUDE_PATH (MSVC: INCLUDE).
# usage: install_ceres_headers.sh FOLDER
set -euo pipefail

ceres=${CERES_SOURCE:-https://github.com/ceres-solver/ceres-solver/archive/refs/tags/2.2.0.tar.gz}
eigen=${EIGEN_SOURCE:-https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz}

mkdir -p "$1"
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
for source in "$ceres" "$eigen"; do
  curl --fail --silent --show-error --location --output "$unpacked/archive" "$source"
  tar -xf "$unpacked/archive" -C "$unpacked"
done
cp -R "$unpacked"/ceres-solver-*/include/ceres "$unpacked"/eigen*/Eigen "$1"
cp "$unpacked"/ceres-solver-*/config/ceres/internal/config.h "$1/ceres/internal"
# CMake generates this one where the library is built.
printf '#pragma once\n#define CERES_EXPORT\n#define CERES_NO_EXPORT\n' > "$1/ceres/internal/export.h"
