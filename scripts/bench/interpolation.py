"""Interpolation of value and gradient of one cached keypoint, as a share of the machine's multiply-add rate.

The rate is measured beside each run by a loop of multiply-adds; the work of a normalisation is not counted.
"""

import os
import subprocess
import sys

import numpy as np
from common import Bench, arguments

from pixcli import _core

RUNS = 9
CASES = {  # name: (channels, dtype, mode, L2 normalised, target)
    "128 channels, half, bicubic": (128, np.float16, "bicubic", False, ">= 60"),
    "128 channels, half, bicubic, L2 normalised": (128, np.float16, "bicubic", True, None),
    "128 channels, float, bicubic": (128, np.float32, "bicubic", False, None),
    "128 channels, half, bilinear": (128, np.float16, "bilinear", False, None),
    "8 channels, half, bicubic": (8, np.float16, "bicubic", False, None),
    "3 channels, half, bicubic": (3, np.float16, "bicubic", False, None),
    "1 channel, half, bicubic": (1, np.float16, "bicubic", False, None),
}


def main() -> None:
    args = arguments(__doc__).parse_args()
    kernels = _core.build_config()["kernels"]
    bench = Bench("interpolation")
    for name, (channels, dtype, mode, l2_normalize, target) in CASES.items():
        patch = np.random.default_rng(0).standard_normal((16, 16, channels)).astype(dtype)
        runs = [
            _core.benchmark_interpolation(patch, mode=mode, l2_normalize=l2_normalize, repeats=50_000)
            for _ in range(RUNS)
        ]
        share = float(np.median([run["share_of_peak"] for run in runs]))
        target = target if kernels != "baseline" else None
        bench.row(f"{name}, {kernels} kernels", 100 * share, "% of peak", target)
        bench.row(f"{name}, time", 1e9 * min(run["seconds"] for run in runs), "ns")
    bench.finish(args)
    if kernels == "avx512":  # the same on machines without it
        subprocess.run([sys.executable, __file__], env={**os.environ, "PIXCLI_ISA": "avx2"}, check=True)


if __name__ == "__main__":
    main()
