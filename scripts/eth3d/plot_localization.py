"""Recall over the position error of what localization.py has measured, a line for each method, as a picture.

usage: plot_localization.py [--outputs FOLDER] [--scenes ...] [--tags raw refined] [--out FILE]
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from common import read_results

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path("outputs/eth3d"))
    parser.add_argument("--scenes", nargs="+")
    parser.add_argument("--tags", nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = read_results(args.outputs, "localization", args.scenes)
    names = sorted({name for name, _ in results if not args.tags or name.split("_")[-1] in args.tags})
    figure, axes = plt.subplots(figsize=(5, 4))
    for name in names:
        errors = np.sort(np.concatenate([found["errors"] for (m, _), found in results.items() if m == name]))
        recall = 100 * np.arange(1, len(errors) + 1) / len(errors)
        axes.step(1000 * errors, recall, where="post", label=name.replace("_", " "))
    axes.set(xlabel="position error (mm)", ylabel="localized (%)", xscale="log", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(args.out or args.outputs / "localization.png", dpi=150)


if __name__ == "__main__":
    main()
