"""Localization of images left out of their map, one at a time, and what a point costs to measure.

Every map is triangulated at the true poses from the other images alone, by the evaluator eval_localization in
PIXCLI_TOOLS on scenes of PIXCLI_DATA and of the project's own generator: the query's image and keypoints have
no part in it. --images takes only every so many of the court's queries.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from accuracy import SCENES, generated_scene, raw_baseline
from common import Bench, arguments, folder_from

from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.measurement import measure_points, query_images
from pixcli.localization.rig_state import difference
from pixcli.localization.surface_refinement import POINT_LIMITS
from pixcli.options import DenseFeaturesOptions, LocalizationOptions
from pixcli.options.localization import LocalizeOptions

import pycolmap

NUM_MATCHES = (30, 125)


@dataclass(frozen=True)
class Fold:
    """A query, the map without it, and their matches."""

    name: str
    model: pycolmap.Reconstruction
    references: Path
    camera: pycolmap.Camera
    truth: pycolmap.Rigid3d
    keypoints: np.ndarray
    point_ids: np.ndarray

    def rows(self, number: int) -> np.ndarray:
        """So many of the matches at random, or all (0)."""
        count = len(self.point_ids)
        if number == 0 or number >= count:
            return np.arange(count)
        return np.random.default_rng(int(Path(self.name).stem, 36) % 2**32).choice(count, number, False)


def folds(tools: Path, scene: Path, database: Path, every: int = 1) -> Iterator[Fold]:
    """The folds of a scene; their maps are measured once and kept beside the database."""
    work = database.parent / "localization"
    if not (work / "poses.txt").is_file():
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "eval_localization.py", "run", database, scene / "gt", work, "--keep"]
        subprocess.run(list(map(str, command)), cwd=tools, check=True, capture_output=True)
    truth = pycolmap.Reconstruction(scene / "gt")
    images = sorted(truth.images.values(), key=lambda image: image.name)
    for image in images[::every]:
        folder = work / Path(image.name).stem
        model = pycolmap.Reconstruction(folder / "map")
        matches = np.loadtxt(folder / "matches.txt", ndmin=2)
        camera = deepcopy(truth.cameras[image.camera_id])
        camera.has_prior_focal_length = True
        yield Fold(
            image.name,
            model,
            folder / "references.h5",
            camera,
            image.cam_from_world(),
            matches[:, :2],
            matches[:, 5].astype(np.int64),
        )


def pose_error(pose: pycolmap.Rigid3d, truth: pycolmap.Rigid3d) -> tuple[float, float]:
    """Units of the model x 1000, and thousandths of a degree."""
    centre = pose.inverse().translation - truth.inverse().translation
    turn = np.linalg.norm(difference(pose, truth)[:3])
    return 1e3 * float(np.linalg.norm(centre)), 1e3 * float(np.degrees(turn))


def raw_pose(fold: Fold, rows: np.ndarray) -> pycolmap.Rigid3d:
    """What pycolmap makes of the matches."""
    points = np.array([fold.model.points3D[i].xyz for i in fold.point_ids[rows].tolist()])
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.ransac.random_seed = 0
    refinement = pycolmap.AbsolutePoseRefinementOptions(gradient_tolerance=1e-10)
    found = pycolmap.estimate_and_refine_absolute_pose(
        fold.keypoints[rows], points, fold.camera, estimation, refinement
    )
    return found["cam_from_world"]


@dataclass
class Errors:
    """Of one way to localize, for each fold."""

    raw: list[tuple[float, float]]
    refined: list[tuple[float, float]]
    normalised: list[float]
    seconds: list[dict[str, float]]
    points: list[int]
    undone: list[bool]
    """Whether the guard took a refinement back."""


def evaluate(
    scene: Path,
    all_folds: Iterator[Fold],
    numbers: tuple[int, ...],
    strategy: Literal["surface", "featuremetric"] = "surface",
) -> dict[int, Errors]:
    """Errors by the number of matches; default options, with dsift where a strategy takes features."""
    errors = {number: Errors([], [], [], [], [], []) for number in numbers}
    for fold in all_folds:
        if strategy == "surface":
            features = DenseFeaturesOptions(use_cache=True, cache_path=str(fold.references))
        else:
            features = DenseFeaturesOptions(model="dsift")
        localizer = QueryLocalizer(
            fold.model,
            LocalizeOptions(LocalizationOptions(strategy=strategy), dense_features=features),
            image_path=scene / "images",
        )
        for number, found in errors.items():
            rows = fold.rows(number)
            result = localizer.localize(
                fold.keypoints, rows, fold.point_ids[rows], fold.camera, image=scene / "images" / fold.name
            )
            found.raw.append(pose_error(raw_pose(fold, rows), fold.truth))
            if not result.success:
                found.refined.append((np.inf, np.inf))
                continue
            found.refined.append(pose_error(result.cam_from_world, fold.truth))
            error = difference(result.cam_from_world, fold.truth)
            found.normalised.append(float(error @ np.linalg.solve(result.covariance, error) / 6))
            found.seconds.append({step.name: step.seconds for step in result.steps})
            found.undone.append(bool(result.undone))
            found.points.append(max(step.measurements for step in result.steps))
    return errors


def report_exact(bench: Bench, name: str, errors: dict[int, Errors], targets: dict[int, str]) -> None:
    """Rows of a scene whose truth is exact."""
    for number, found in errors.items():
        figure = f"{name}, {number} matches" if number else f"{name}, all matches"
        raw, refined = np.array(found.raw), np.array(found.refined)
        bench.row(f"{figure}: position, mean, raw", raw[:, 0].mean(), "mm")
        bench.row(f"{figure}: position, mean", refined[:, 0].mean(), "mm", targets.get(number))
        bench.row(f"{figure}: worst against its raw error", (refined / raw)[:, 0].max(), "x", "<= 1.2")
        bench.row(f"{figure}: rotation, mean", refined[:, 1].mean(), "mdeg", "<= 0.5" if targets else None)
        bench.row(f"{figure}: squared normalised error, mean", np.mean(found.normalised), "", "<= 2")
        bench.row(f"{figure}: refinements taken back", 100 * np.mean(found.undone), "%")


def measure_times(bench: Bench, scene: Path, fold: Fold) -> None:
    """What it takes on one core to measure points in a query whose scale space is there already."""
    localizer = QueryLocalizer(fold.model, references=fold.references)
    known, camera, truth = localizer.map, fold.camera, fold.truth
    rows = known.rows_of(fold.point_ids)
    seen = rows[rows >= 0]
    images = query_images(known, scene / "images" / fold.name, camera)
    for number, target in ((500, "<= 5"), (5000, "<= 40")):
        points, references = known.visible(camera, truth, seen, number, 0.1)
        measure = partial(measure_points, known, points, references, camera, truth, images, POINT_LIMITS)
        measure()
        seconds = min(_cpu_time(measure) for _ in range(20))
        bench.row(f"{len(points)} points measured, the scale space aside, CPU", 1e3 * seconds, "ms", target)


def _cpu_time(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1, help="take every so many of the queries")
    args = parser.parse_args()
    pycolmap.logging.minloglevel = 2
    bench = Bench("localization")
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    if data is None or tools is None:
        bench.finish(args)
        return
    court = data / "synthetic_court"
    court_folds = partial(folds, tools, court, raw_baseline(tools, court) / "database.db", args.images)
    errors = evaluate(court, court_folds(), (0, *NUM_MATCHES))
    report_exact(bench, "court", errors, {0: "<= 0.055", 30: "<= 0.065"})
    for number, found in errors.items():
        for step in ("first pose", "image", "scale space", "matches", "points"):
            if seconds := [row[step] for row in found.seconds if step in row]:
                milliseconds = 1e3 * float(np.median(seconds))
                bench.row(f"court, {number or 'all'} matches: {step}", milliseconds, "ms")
        bench.row(f"court, {number or 'all'} matches: measured", float(np.median(found.points)), "points")
    measure_times(bench, court, next(court_folds()))
    for name, options in SCENES.items():
        folder = generated_scene(options)
        errors = evaluate(folder / "scene", folds(tools, folder / "scene", folder / "raw.db"), (0, 30))
        report_exact(bench, name, errors, {})
    sacre = data / "sacre_coeur"
    database = raw_baseline(tools, sacre) / "database.db"
    for strategy, name in (("surface", "sacre_coeur"), ("featuremetric", "sacre_coeur, featuremetric")):
        found = evaluate(sacre, folds(tools, sacre, database), (0,), strategy)[0]
        raw, refined = np.array(found.raw), np.array(found.refined)
        limits = np.median(raw, axis=0)
        bench.row(f"{name}: localized", 100 * np.isfinite(refined[:, 0]).mean(), "%", ">= 100")
        bench.row(f"{name}: refinements taken back", 100 * np.mean(found.undone), "%")
        bench.row(f"{name}: position, median, raw", limits[0], "1e-3 units")
        bench.row(f"{name}: position, median", np.median(refined[:, 0]), "1e-3 units", f"<= {limits[0]}")
        bench.row(f"{name}: rotation, median, raw", limits[1], "mdeg")
        bench.row(f"{name}: rotation, median", np.median(refined[:, 1]), "mdeg", f"<= {limits[1]}")
    bench.finish(args)


if __name__ == "__main__":
    main()
