"""Position errors of what localization.py has measured: a table of the area under the recall curve, and the
curves as a picture.

usage: plot_localization.py [--outputs FOLDER] [--scenes ...] [--methods ...] [--tags ...] [--out FILE]
"""

import matplotlib as mpl
import numpy as np
from common import THRESHOLDS, plot_arguments, print_table, read_results

from pixcli.evaluation.poses import area_under_curve

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    args = plot_arguments(__doc__).parse_args()
    results = read_results(args, "localization")
    figure, axes = plt.subplots(figsize=(5, 4))
    rows = []
    for (method, tag), found in results.items():
        errors = np.sort(np.concatenate([result["errors"] for result in found]))
        areas = 100 * area_under_curve(errors, THRESHOLDS, floor=0.001)
        rows.append([method, tag, str(len(errors)), *(f"{area:.2f}" for area in areas)])
        recall = 100 * np.arange(1, len(errors) + 1) / len(errors)
        axes.step(1000 * errors, recall, where="post", label=f"{method} {tag}")
    names = [f"AUC {100 * t:g} cm" for t in THRESHOLDS]
    print_table("Localization, %", ["keypoints", "tag", "queries", *names], rows)
    axes.set(xlabel="position error (mm)", ylabel="localized (%)", xscale="log", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(args.out or args.outputs / "localization.png", dpi=150)


if __name__ == "__main__":
    main()
