"""Interpolation of value and gradient of one cached keypoint, as a share of the machine's multiply-add rate.

The rate is measured beside each run by a loop of multiply-adds; the work of a normalisation is not counted.
Both are native and no part of what is installed: the program is built first, in build/bench-native.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import Bench, arguments

from pixcli import _core

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench-native"
RUNS, REPEATS = 9, 50_000
CASES = {  # name: (channels, storage, mode, L2 normalised, target)
    "128 channels, half, bicubic": (128, "half", "bicubic", False, ">= 60"),
    "128 channels, half, bicubic, L2 normalised": (128, "half", "bicubic", True, None),
    "128 channels, float, bicubic": (128, "float", "bicubic", False, None),
    "128 channels, half, bilinear": (128, "half", "bilinear", False, None),
    "8 channels, half, bicubic": (8, "half", "bicubic", False, None),
    "3 channels, half, bicubic": (3, "half", "bicubic", False, None),
    "1 channel, half, bicubic": (1, "half", "bicubic", False, None),
}


def build_program() -> Path:
    """The native part, made as the extension is: by meson, ninja and pybind11, which developers have."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if not (BUILD / "build.ninja").is_file():
        command = ["meson", "setup", BUILD, ROOT, "--buildtype=release"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    command = ["meson", "compile", "-C", BUILD, "bench_interpolation"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return BUILD / "native" / "bench" / "bench_interpolation"


def main() -> None:
    args = arguments(__doc__).parse_args()
    kernels = _core.build_config()["kernels"]
    program = build_program()
    bench = Bench("interpolation")
    for name, (channels, storage, mode, l2_normalize, target) in CASES.items():
        command = [program, str(channels), storage, mode, str(int(l2_normalize)), str(REPEATS)]
        runs = np.array(
            [
                [float(text) for text in subprocess.check_output(command, text=True).split()]
                for _ in range(RUNS)
            ]
        )
        share = float(np.median(runs[:, 1] / runs[:, 0]))
        target = target if kernels != "baseline" else None
        bench.row(f"{name}, {kernels} kernels", 100 * share, "% of peak", target)
        bench.row(f"{name}, time", 1e9 * float(runs[:, 0].min()), "ns")
    bench.finish(args)
    if kernels == "avx512":  # the same on machines without it
        subprocess.run([sys.executable, __file__], env={**os.environ, "PIXCLI_ISA": "avx2"}, check=True)


if __name__ == "__main__":
    main()
