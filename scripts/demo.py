"""Shows on a synthetic scene with exact truth what refining keypoints does for a COLMAP model.

usage: demo.py [FOLDER]     (default: build/demo; what was there is replaced)
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixcli.cli.terminal import print_table
from pixcli.evaluation.robust_adjustment import adjust_robustly
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.synthetic.baseline import build_database, map_database
from pixcli.synthetic.evaluation import center_errors, keypoint_errors, surface_errors

import pycolmap

WRONG_MATCH = 4.0  # pixels; errors beyond are counted, not averaged


def main(folder: Path) -> None:
    scene = folder / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pycolmap.logging.minloglevel = 2

    size = ["--Synthetic.width", "640", "--Synthetic.height", "480", "--Synthetic.num_images", "10"]
    generate = ["synthetic_dataset_generator", "--output_path", scene, *size]
    step("Render 10 images of a synthetic scene", pixcli, *generate)
    truth = pycolmap.Reconstruction(scene / "gt")
    raw, refined = folder / "raw.db", folder / "refined.db"
    step("Extract and match SIFT", build_database, truth, scene / "images", raw)
    paths = ["--database_path", raw, "--output_path", refined, "--image_path", scene / "images"]
    step("Refine the keypoints", pixcli, "feature_refiner", *paths)
    matches = read_match_graph(raw, "inlier")
    before = step("Map the raw keypoints", figures, raw, matches, truth, scene)
    after = step("Map the refined keypoints", figures, refined, matches, truth, scene)
    mapped, adjusted = refined.with_suffix(""), folder / "adjusted"
    paths = ["--input_path", mapped, "--output_path", adjusted, "--image_path", scene / "images"]
    fixed = ["--BundleAdjustment.refine_focal_length", 0, "--BundleAdjustment.refine_extra_params", 0]
    step("Refine the model", pixcli, "featuremetric_bundle_adjuster", *paths, *fixed)
    both = after | model_figures(pycolmap.Reconstruction(adjusted), truth, scene)
    rows = [(name, before[name], after[name], both[name]) for name in before]
    columns = ("", "raw SIFT", "keypoints refined", "and the model")
    print_table("Errors against the exact truth", columns, rows)


def pixcli(*arguments: object) -> None:
    # The installed command: `python -m pixcli` would find the source tree, which has no compiled modules.
    program = Path(sys.executable).with_name("pixcli")
    subprocess.run([program, *map(str, arguments)], check=True)


def step(title: str, function: Callable, *arguments: object):
    """Calls a function and says what it is and how long it took."""
    print(f"{title} ...", flush=True)
    start = time.perf_counter()
    result = function(*arguments)
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)
    return result


def figures(
    database: Path, matches: MatchGraph, truth: pycolmap.Reconstruction, scene: Path
) -> dict[str, str]:
    """Maps a database and measures it against the truth."""
    model = map_database(database, scene / "images")
    adjust_robustly(model)
    model_path = database.with_suffix("")
    model_path.mkdir()
    model.write(model_path)
    # The same matches are judged before and after.
    moved = matches.with_positions(read_match_graph(database, "raw").xy)
    keypoints = keypoint_errors(truth, moved, scene / "depth")
    keypoints = keypoints[np.isfinite(keypoints)]
    right = keypoints[keypoints < WRONG_MATCH]
    return {
        "keypoints, median (px)": f"{np.median(right):.3f}",
        "keypoints, mean (px)": f"{right.mean():.3f}",
        "wrong matches (%)": f"{100 * (keypoints >= WRONG_MATCH).mean():.2f}",
        **model_figures(model, truth, scene),
    }


def model_figures(
    model: pycolmap.Reconstruction, truth: pycolmap.Reconstruction, scene: Path
) -> dict[str, str]:
    surface = 1000 * surface_errors(truth, model, scene / "surface.npz")
    return {
        "images registered": f"{model.num_reg_images()} of {len(truth.images)}",
        "camera centres, mean (mm)": f"{1000 * center_errors(truth, model).mean():.3f}",
        "points to surface, median (mm)": f"{np.median(surface):.3f}",
        "points closer than 1 mm (%)": f"{100 * (surface < 1).mean():.1f}",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "build" / "demo")
