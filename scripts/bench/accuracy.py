"""How accurate refined keypoints are, with default options: against exact truth, and on real photos.

The data sets synthetic_court and sacre_coeur lie in the folder PIXCLI_DATA and are judged by the evaluators
in PIXCLI_TOOLS, which know nothing of pixcli. Scenes of the project's own generator need neither.
"""

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from common import CACHE, Bench, arguments, folder_from

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.options import KeypointAdjustmentOptions, SyntheticOptions
from pixcli.synthetic.baseline import build_database
from pixcli.synthetic.dataset import generate_dataset
from pixcli.synthetic.evaluation import keypoint_errors

import pycolmap

WRONG_MATCH = 4.0  # pixels; errors beyond are counted, not averaged
SCENES = {
    "seed 11, court": SyntheticOptions(seed=11),
    "seed 12, mixed, strong change of light": SyntheticOptions(seed=12, scene="mixed", illumination=1.2),
    "seed 13, noise 5": SyntheticOptions(seed=13, noise=5.0),
    "seed 14, blur 0.7": SyntheticOptions(seed=14, blur=0.7),
}
SMALL = {"width": 640, "height": 480, "num_images": 8}


def refine(database: Path, images: Path, output: Path, *options: str) -> Path:
    """Runs feature_refiner; returns the refined database, which is made anew."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    paths = ["--database_path", database, "--image_path", images, "--output_path", output]
    command = [sys.executable, "-P", "-m", "pixcli", "feature_refiner", *map(str, paths), *options]
    subprocess.run(command, check=True, capture_output=True)
    return output


def evaluate(tools: Path, name: str, *arguments: object) -> dict[str, Any]:
    """What one of the independent evaluators reports."""
    out = CACHE / "report.json"
    run_tool(tools, name, *arguments, "--out", out)
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return report


def run_tool(tools: Path, name: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, tools / f"{name}.py", *map(str, arguments)], check=True, capture_output=True
    )


def raw_baseline(tools: Path, data: Path) -> Path:
    """A folder with the database and the model of raw SIFT of a data set, made once."""
    folder = CACHE / data.name / "raw"
    if not (folder / "sparse").is_dir():
        run_tool(tools, "build_baseline", data / "images", folder, "--gt", data / "gt")
    return folder


def mapped(tools: Path, data: Path, database: Path) -> Path:
    """The model that COLMAP's mapper makes of a refined database."""
    folder = database.parent / "map"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy_database(database, folder / "database.db")
    run_tool(tools, "build_baseline", data / "images", folder, "--gt", data / "gt")
    return folder / "sparse"


def copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(target)) as b:
        a.backup(b)


def court(bench: Bench, tools: Path, data: Path) -> None:
    """Exact truth: keypoints, then camera centres after mapping and a robust bundle adjustment."""
    raw = raw_baseline(tools, data)
    refined = refine(raw / "database.db", data / "images", CACHE / data.name / "refined.db")
    truth = data / "gt"
    before, after = (
        evaluate(tools, "eval_keypoints", truth, database, data / "depth")
        for database in (raw / "database.db", refined)
    )
    bench.row("court: keypoint error, median, raw", before["median_px"], "px")
    bench.row("court: keypoint error, median", after["median_px"], "px", "<= 0.07")
    bench.row("court: keypoint error, mean, raw", before["mean_px"], "px")
    bench.row("court: keypoint error, mean", after["mean_px"], "px", "<= 0.15")
    limit = 100 * before["outliers"]
    bench.row("court: wrong matches", 100 * after["outliers"], "%", f"<= {limit:.3f}")
    model = pycolmap.Reconstruction(truth)
    errors = errors_of_raw_matches(model, data / "depth", raw / "database.db", refined)
    bench.row(
        "court: errors grown by > 0.1 px", 100 * float((errors[1] > errors[0] + 0.1).mean()), "%", "<= 5"
    )
    for name, sparse in (("raw", raw / "sparse"), ("refined", mapped(tools, data, refined))):
        adjusted = CACHE / data.name / f"adjusted_{name}"
        run_tool(tools, "robust_ba", sparse, adjusted)
        centre = evaluate(tools, "eval_poses", truth, adjusted)["aligned"]["centre"]["mean"]
        target = "<= 0.06" if name == "refined" else None
        bench.row(f"court: camera centres after a robust BA, mean, {name}", centre, "mm", target)

    def median(database: Path) -> float:
        return float(evaluate(tools, "eval_keypoints", truth, database, data / "depth")["median_px"])

    compare_supports(bench, "court: keypoint error, median", median, raw, data, after["median_px"])


def photos(bench: Bench, tools: Path, data: Path) -> None:
    """No exact truth: how well matches fit each pair's best epipolar geometry, and held-out observations."""
    raw = raw_baseline(tools, data)
    database = raw / "database.db"
    refined = refine(database, data / "images", CACHE / data.name / "refined.db")

    def residual(of: Path) -> float:
        return float(evaluate(tools, "eval_epipolar", of, "--matches-from", database)["median_px"])

    before, after = residual(database), residual(refined)
    bench.row("sacre_coeur: epipolar residual, median, raw", before, "px")
    bench.row("sacre_coeur: epipolar residual, median", after, "px")
    bench.row("sacre_coeur: epipolar residual falls by", 100 * (1 - after / before), "%", ">= 45")
    images = pycolmap.Reconstruction(mapped(tools, data, refined)).num_reg_images()
    bench.row("sacre_coeur: images registered", images, "", ">= 10")
    hold_out = [
        evaluate(tools, "eval_triangulation", data / "gt", CACHE / data.name / "triangulated", "--db", of)[
            "hold_out"
        ]
        for of in (database, refined)
    ]
    for figure in ("median_px", "mean_px"):
        name = f"sacre_coeur: hold-out reprojection, {figure.removesuffix('_px')}"
        bench.row(f"{name}, raw", hold_out[0][figure], "px")
        bench.row(name, hold_out[1][figure], "px", f"<= {hold_out[0][figure]:.4f}")
    compare_supports(bench, "sacre_coeur: epipolar residual, median", residual, raw, data, after)


def compare_supports(bench: Bench, figure: str, error: Any, raw: Path, data: Path, chosen: float) -> None:
    """Each support of the default list alone: the choice between them should be as good as the best."""
    fixed = []
    for support in KeypointAdjustmentOptions().supports.split(","):
        output = CACHE / data.name / f"refined_{support.replace(':', '_')}.db"
        option = ("--KeypointAdjustment.supports", support)
        fixed.append(error(refine(raw / "database.db", data / "images", output, *option)))
        bench.row(f"{figure}, support {support} alone", fixed[-1], "px")
    bench.row(f"{figure}, chosen support over the best alone", chosen / min(fixed), "x", "<= 1.1")


def errors_of_raw_matches(
    truth: pycolmap.Reconstruction, depth: Path, raw: Path, refined: Path
) -> np.ndarray[Any, Any]:
    """(2, n) errors of the raw database's matches before and after; wrong ones are left out."""
    before = read_match_graph(raw, "inlier")
    after = before.with_positions(read_match_graph(refined, "raw").xy)
    errors = np.stack([keypoint_errors(truth, graph, depth).ravel() for graph in (before, after)])
    return errors[:, (errors[0] < WRONG_MATCH) & np.isfinite(errors[1])]


def strip_frames(database: Path, graph: MatchGraph) -> None:
    """Leaves x and y of all keypoints, as learned detectors do."""
    with pycolmap.Database.open(database) as opened:
        for image, rows in zip(graph.images, graph.keypoints, strict=True):
            opened.update_keypoints(image.image_id, np.ascontiguousarray(rows[:, :2]))


def generated_scene(options: SyntheticOptions) -> Path:
    """A folder with a small scene of the project's own generator and its database raw.db, made once."""
    folder = CACHE / f"scene_{options.seed}"
    scene = dataclasses.replace(options, **SMALL)
    made = folder / "options.txt"
    if not made.is_file() or made.read_text(encoding="utf-8") != str(scene):
        shutil.rmtree(folder, ignore_errors=True)
        generate_dataset(folder / "scene", scene)
        build_database(
            pycolmap.Reconstruction(folder / "scene" / "gt"), folder / "scene" / "images", folder / "raw.db"
        )
        copy_database(folder / "raw.db", folder / "stripped.db")
        strip_frames(folder / "stripped.db", read_match_graph(folder / "raw.db", "inlier"))
        made.write_text(str(scene), encoding="utf-8")
    return folder


def generated(bench: Bench, name: str, options: SyntheticOptions) -> None:
    """A scene of the project's own generator, with and without the frames of its keypoints."""
    folder = generated_scene(options)
    truth = pycolmap.Reconstruction(folder / "scene" / "gt")
    for columns, database in (("", "raw.db"), (", 2 columns", "stripped.db")):
        refined = refine(folder / database, folder / "scene" / "images", folder / f"refined_{database}")
        errors = errors_of_raw_matches(truth, folder / "scene" / "depth", folder / database, refined)
        wrong = 100 * (errors[1] >= WRONG_MATCH).mean()
        for figure, value in (("median", np.median), ("mean", np.mean)):
            if not columns:
                bench.row(f"{name}: keypoint error, {figure}, raw", float(value(errors[0])), "px")
            after = float(value(np.minimum(errors[1], WRONG_MATCH)))
            bench.row(f"{name}{columns}: keypoint error, {figure}", after, "px", f"<= {value(errors[0]):.4f}")
        bench.row(
            f"{name}{columns}: errors grown by > 0.1 px",
            100 * float((errors[1] > errors[0] + 0.1).mean()),
            "%",
        )
        bench.row(f"{name}{columns}: right matches gone wrong", float(wrong), "%")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("court", "photos", "generated"), help="a part of it")
    args = parser.parse_args()
    pycolmap.logging.minloglevel = 2
    bench = Bench("accuracy")
    CACHE.mkdir(parents=True, exist_ok=True)
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    for part, name in ((court, "synthetic_court"), (photos, "sacre_coeur")):
        if data is not None and tools is not None and args.only in (None, part.__name__):
            part(bench, tools, data / name)
    if args.only in (None, "generated"):
        for scene, options in SCENES.items():
            generated(bench, scene, options)
    bench.finish(args)


if __name__ == "__main__":
    main()
