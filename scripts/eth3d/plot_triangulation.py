"""Accuracy and completeness of what triangulation.py has measured: a table by indoor and outdoor scenes, and
a picture with a line for each method.

usage: plot_triangulation.py [--outputs FOLDER] [--scenes ...] [--methods ...] [--tags ...] [--out FILE]
"""

from typing import Any

import matplotlib as mpl
import numpy as np
from common import GROUPS, log_axis, plot_arguments, print_table, read_results

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    args = plot_arguments(__doc__).parse_args()
    results = read_results(args, "triangulation")
    tolerances = list(next(iter(results.values()))[0]["accuracy"])
    rows = []
    for group, scenes in [*GROUPS.items(), ("all", None)]:
        for (method, tag), found in results.items():
            some = [result for result in found if scenes is None or result["scene"] in scenes]
            if some:
                means = [
                    f"{value:.2f}" for what in ("accuracy", "completeness") for value in mean(some, what)
                ]
                rows.append([group, str(len(some)), method, tag, *means])
    names = [f"{what} {100 * float(t):g} cm" for what in ("accuracy", "completeness") for t in tolerances]
    print_table("Triangulation, %", ["", "scenes", "keypoints", "tag", *names], rows)

    figure, axes = plt.subplots(figsize=(5, 4))
    for (method, tag), found in results.items():
        accuracy, completeness = mean(found, "accuracy"), mean(found, "completeness")
        axes.plot(completeness, accuracy, marker="o", label=f"{method} {tag}")
        for x, y, t in zip(completeness, accuracy, tolerances, strict=True):
            axes.annotate(
                f"{100 * float(t):g} cm", (x, y), fontsize=7, xytext=(4, -8), textcoords="offset points"
            )
    axes.set(xlabel="completeness (%)", ylabel="accuracy (%)")
    log_axis(axes)
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(args.out or args.outputs / "triangulation.png", dpi=150)


def mean(found: list[dict[str, Any]], what: str) -> list[float]:
    """The mean over scenes, in percent, for each tolerance."""
    return [100 * float(np.mean([result[what][t] for result in found])) for t in found[0][what]]


if __name__ == "__main__":
    main()
