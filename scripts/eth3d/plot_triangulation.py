"""Accuracy over completeness of what triangulation.py has measured, a line for each method, as a picture.

usage: plot_triangulation.py [--outputs FOLDER] [--scenes ...] [--tags raw refined] [--out FILE]
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
    results = read_results(args.outputs, "triangulation", args.scenes)
    names = sorted({name for name, _ in results if not args.tags or name.split("_")[-1] in args.tags})
    figure, axes = plt.subplots(figsize=(5, 4))
    for name in names:
        scores = [found for (method, _), found in results.items() if method == name]
        tolerances = list(scores[0]["accuracy"])
        accuracy, completeness = (
            [100 * np.mean([score[what][t] for score in scores]) for t in tolerances]
            for what in ("accuracy", "completeness")
        )
        axes.plot(completeness, accuracy, marker="o", label=name.replace("_", " "))
        for x, y, t in zip(completeness, accuracy, tolerances, strict=True):
            axes.annotate(
                f"{100 * float(t):g} cm", (x, y), fontsize=7, xytext=(4, -8), textcoords="offset points"
            )
    axes.set(xlabel="completeness (%)", ylabel="accuracy (%)", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(args.out or args.outputs / "triangulation.png", dpi=150)


if __name__ == "__main__":
    main()
