"""How accurate refined models are on synthetic_court, with default options: against exact truth; and what the
whole command takes.

The data set lies in the folder PIXCLI_DATA and is judged by the evaluators in PIXCLI_TOOLS.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import numpy as np
from accuracy import copy_database, evaluate, mapped, raw_baseline, refine
from common import CACHE, Bench, arguments, folder_from

import pycolmap

FIXED = ["--BundleAdjustment.refine_focal_length", "0", "--BundleAdjustment.refine_extra_params", "0"]


def adjust(model: Path, images: Path, output: Path, *options: str) -> Path:
    """Runs featuremetric_bundle_adjuster; returns the refined model, which is made anew."""
    subprocess.run(adjuster(model, images, output, *options), check=True, capture_output=True)
    return output


def adjuster(model: Path, images: Path, output: Path, *options: str) -> list[str]:
    """The command that refines a model; there is none at `output` afterwards."""
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    paths = ["--input_path", model, "--image_path", images, "--output_path", output]
    command = [sys.executable, "-P", "-m", "pixcli", "featuremetric_bundle_adjuster", *map(str, paths)]
    return [*command, *options]


def measure_command(bench: Bench, model: Path, images: Path, output: Path) -> None:
    """Time and memory of the whole command, interpreter and libraries included."""
    report = output.with_suffix(".json")
    start = time.perf_counter()
    process = subprocess.Popen(
        adjuster(model, images, output, *FIXED, "--report_path", str(report)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    seconds = time.perf_counter() - start
    bench.row(f"whole command, {os.cpu_count()} cores", seconds, "s", "<= 15")
    bench.row("whole command, time of all cores", usage.ru_utime + usage.ru_stime, "s")
    bench.row("whole command, peak memory", usage.ru_maxrss * 1024 / 1e6, "MB", "<= 600")
    for phase in json.loads(report.read_text(encoding="utf-8"))["phases"]:
        bench.row(f"whole command, phase {phase['name']}", phase["seconds"], "s")


def write(model: pycolmap.Reconstruction, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.write_binary(str(folder))
    return folder


def with_perturbed_poses(source: Path, folder: Path, position: float, degrees: float) -> Path:
    """A model whose cameras were moved and turned at random by so much."""
    rng, model = np.random.default_rng(0), pycolmap.Reconstruction(source)
    for frame_id in sorted(model.frames):
        frame = model.frames[frame_id]
        turn, move = rng.normal(size=3), rng.normal(size=3)
        turn *= np.radians(degrees) / np.linalg.norm(turn)
        change = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), move * position / np.linalg.norm(move))
        frame.rig_from_world = change * frame.rig_from_world
    return write(model, folder)


def with_noisy_keypoints(source: Path, folder: Path, deviation: float) -> Path:
    """A model whose 2D points, and by them its points and poses, were displaced at random."""
    rng, model = np.random.default_rng(0), pycolmap.Reconstruction(source)
    for image_id in sorted(model.images):
        image = model.images[image_id]
        size = (image.camera.width, image.camera.height)
        for point in image.points2D:
            point.xy = np.clip(point.xy + rng.normal(scale=deviation, size=2), 0, size)
    return write(least_squares(model), folder)


def least_squares(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """The model after a bundle adjustment as COLMAP's mapper does it, intrinsics fixed."""
    options = pycolmap.BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    options.print_summary = False
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    return model


def with_few_matches(source: Path, database: Path, images: Path, folder: Path, share: float) -> Path:
    """A model of a random share of the matches: triangulated anew, then its poses adjusted to that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    thin, rng = folder / "database.db", np.random.default_rng(0)
    copy_database(database, thin)
    with pycolmap.Database.open(thin) as opened:
        pair_ids, geometries = opened.read_two_view_geometries()
        opened.clear_two_view_geometries()
        for pair_id, geometry in zip(pair_ids, geometries, strict=True):
            matches = np.asarray(geometry.inlier_matches)
            geometry.inlier_matches = matches[rng.random(len(matches)) < share]
            opened.write_two_view_geometry(*pycolmap.pair_id_to_image_pair(pair_id), geometry)
    options = pycolmap.IncrementalPipelineOptions()
    options.triangulation.ignore_two_view_tracks = False
    options.num_threads = 1
    model = pycolmap.triangulate_points(
        pycolmap.Reconstruction(source), thin, images, folder / "sparse", options=options
    )
    return write(least_squares(model), folder / "adjusted")


def main() -> None:
    args = arguments(__doc__).parse_args()
    bench = Bench("model_accuracy")
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    if data is None or tools is None:
        bench.finish(args)
        return
    scene = data / "synthetic_court"
    work, raw = CACHE / "models", raw_baseline(tools, scene) / "sparse"

    def centre(model: Path) -> float:
        aligned = evaluate(tools, "eval_poses", scene / "gt", model)["aligned"]
        return float(aligned["centre"]["mean"])

    def refined(name: str, source: Path, target: str, *options: str) -> Path:
        output = adjust(source, scene / "images", work / "refined", *options)
        bench.row(f"{name}: camera centres, mean, before", centre(source), "mm")
        bench.row(f"{name}: camera centres, mean", centre(output), "mm", target)
        return output

    measure_command(bench, raw, scene / "images", work / "measured")
    model = refined("raw SIFT", raw, "<= 0.042", *FIXED)
    surface = evaluate(
        tools, "eval_triangulation", scene / "gt", model, "--surface", scene / "surface.npz", "--align"
    )
    within = 100 * surface["surface"]["accuracy"]["0.001"]
    bench.row("raw SIFT: points within 1 mm of the surface", within, "%", ">= 70")
    database = raw.parent / "database.db"
    keypoints = refine(database, scene / "images", CACHE / scene.name / "refined.db")
    refined("after feature_refiner", mapped(tools, scene, keypoints), "<= 0.042", *FIXED)
    thinned = with_few_matches(raw, database, scene / "images", work / "thinned", 0.02)
    refined("2 % of the matches", thinned, "<= 0.11", *FIXED)
    rounds = ["--FeaturemetricBundleAdjustment.rounds", "3"]
    moved = with_perturbed_poses(raw, work / "moved", 0.01, 0.1)
    refined("poses off by 10 mm and 0.1 degrees, 3 rounds", moved, "<= 0.06", *FIXED, *rounds)
    noisy = with_noisy_keypoints(raw, work / "noisy", 2.0)
    refined("keypoints off by 2 px, 3 rounds", noisy, "<= 0.06", *FIXED, *rounds)
    refined("raw SIFT, intrinsics refined", raw, "<= 0.19")
    bench.finish(args)


if __name__ == "__main__":
    main()
