"""Position errors of what localization.py has measured: a table of the area under the recall curve, and the
curves as a picture.

usage: plot_localization.py [--outputs FOLDER] [--scenes ...] [--methods ...] [--tags ...] [--out FILE]
"""

import matplotlib as mpl
import numpy as np
from common import THRESHOLDS, log_axis, plot_arguments, print_table, read_results

from pixcli.evaluation.poses import area_under_curve

mpl.use("Agg")
from matplotlib import pyplot as plt

SHOWN = np.geomspace(0.1, 500, 801)
"""Position errors, in mm."""


def main() -> None:
    args = plot_arguments(__doc__).parse_args()
    results = read_results(args, "localization")
    figure, axes = plt.subplots(figsize=(5, 4))
    rows = []
    for (method, tag), found in results.items():
        errors = np.sort(np.concatenate([result["errors"] for result in found]))
        areas = 100 * area_under_curve(errors, THRESHOLDS, floor=0.001)
        rows.append([method, tag, str(len(errors)), *(f"{area:.2f}" for area in areas)])
        recall = 100 * np.searchsorted(errors, SHOWN / 1000, side="right") / len(errors)
        axes.plot(SHOWN, recall, label=f"{method} {tag}")
    names = [f"AUC {100 * t:g} cm" for t in THRESHOLDS]
    print_table("Localization, %", ["keypoints", "tag", "queries", *names], rows)
    axes.set(xlabel="position error (mm)", ylabel="localized (%)", ylim=(0, 101))
    log_axis(axes)
    axes.set(xlim=(SHOWN[0], SHOWN[-1]))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(args.out or args.outputs / "localization.png", dpi=150)


if __name__ == "__main__":
    main()
