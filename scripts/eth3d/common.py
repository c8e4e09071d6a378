"""What the scripts share: scenes on disk, options of the runs, tables."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pixcli.options import all_fields
from pixcli.options.fields import Value
from pixcli.options.presets import read_preset

# The training scenes, whose laser scans are public.
GROUPS = {
    "indoor": ("delivery_area", "kicker", "office", "pipes", "relief", "relief_2", "terrains"),
    "outdoor": ("courtyard", "electro", "facade", "meadow", "playground", "terrace"),
}
SCENES = (*GROUPS["indoor"], *GROUPS["outdoor"])
THRESHOLDS = np.array([0.001, 0.01, 0.1])
"""Of position errors, in metres."""
OFF = {
    "KeypointAdjustment.apply": False,
    "FeaturemetricBundleAdjustment.apply": False,
    "Reconstruction.report_pictures": False,
}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("datasets/eth3d"), help="folder of the scenes")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/eth3d"))
    parser.add_argument("--scenes", nargs="+", help="names of folders; default: all that are there")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["sift"],
        help="sift, or folders of hloc's files below OUTPUTS/features",
    )
    parser.add_argument("--tag", default="refined", help="what the results are called; raw: no refinement")
    parser.add_argument("--preset", help="a preset of pixcli")
    parser.add_argument("overrides", nargs="*", help="options as Group.name=value")
    return parser


def scenes_of(args: argparse.Namespace) -> list[str]:
    """The scenes to work on, all with their files."""
    there = [path.name for path in sorted(args.data.iterdir())] if args.data.is_dir() else []
    chosen = args.scenes or [name for name in there if calibration(args.data / name) is not None]
    for name in chosen:
        if calibration(args.data / name) is None:
            raise SystemExit(
                f"{args.data / name} is no scene of ETH3D: get it by download.py --scenes {name}"
            )
    if not chosen:
        raise SystemExit(f"there are no scenes in {args.data}: get them by download.py, or set --data")
    return list(chosen)


def calibration(scene: Path) -> Path | None:
    """The folder with the true model: undistorted where there is one, else of the distorted images."""
    for name in ("dslr_calibration_undistorted", "dslr_calibration_jpg"):
        if (scene / name / "images.txt").is_file():
            return scene / name
    return None


def hloc_files(args: argparse.Namespace, scene: str, method: str) -> dict[str, Path | None]:
    """hloc's files of a method; none of sift, which is extracted."""
    folder = args.outputs / "features" / scene / method
    pairs = folder / "pairs.txt"
    return {} if method == "sift" else {
        "features_path": folder / "features.h5",
        "matches_path": folder / "matches.h5",
        "pairs_path": pairs if pairs.is_file() else None,
    }  # fmt: skip


def values_of(args: argparse.Namespace) -> dict[str, Value]:
    """The options of a run by key."""
    values: dict[str, Value] = dict(read_preset(args.preset)) if args.preset else {}
    values |= OFF if args.tag == "raw" else {"Reconstruction.report_pictures": False}
    for override in args.overrides:
        key, equals, text = override.partition("=")
        if not equals or key not in all_fields():
            raise SystemExit(f"'{override}' is no option: give Group.name=value")
        values[key] = all_fields()[key].parse(text)
    values.setdefault("Reconstruction.skip_images_without_pose", True)  # queries
    values.setdefault("DenseFeatures.cache_path", str(args.outputs / "cache.h5"))
    return values


def write_results(args: argparse.Namespace, task: str, scene: str, method: str, results: Any) -> None:
    """Keeps the figures of one scene, for the tables and plots."""
    folder = args.outputs / task / scene
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"scene": scene, "method": method, "tag": args.tag, **results}
    path = folder / f"{method}_{args.tag}.json"
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def plot_arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a plot."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path("outputs/eth3d"))
    for name in ("scenes", "methods", "tags"):
        parser.add_argument(f"--{name}", nargs="+", help="default: all that there are results of")
    parser.add_argument("--out", type=Path, help="the picture; default: in OUTPUTS")
    return parser


def log_axis(axes: Any) -> None:
    """Makes the x axis of a plot logarithmic, with plain numbers at 1, 2 and 5 of every power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def read_results(args: argparse.Namespace, task: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Figures of all scenes, by method and tag, in the order in which these are asked for."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted((args.outputs / task).glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        chosen = ((args.scenes, "scene"), (args.methods, "method"), (args.tags, "tag"))
        if all(names is None or result[key] in names for names, key in chosen):
            found.setdefault((result["method"], result["tag"]), []).append(result)
    if not found:
        raise SystemExit(f"there are no results in {args.outputs / task}: run {task}.py first")
    return dict(sorted(found.items(), key=lambda item: (item[0][0], _place(item[0][1], args.tags))))


def _place(tag: str, tags: list[str] | None) -> tuple[int, str]:
    return (tags or []).index(tag) if tags else 0, tag


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=160).print(table)
