"""How accurate refined models are on synthetic_court, with default options: against exact truth.

The data set lies in the folder PIXCLI_DATA and is judged by the evaluators in PIXCLI_TOOLS.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pycolmap
from accuracy import evaluate, raw_baseline
from common import CACHE, Bench, arguments, folder_from

FIXED = ["--BundleAdjustment.refine_focal_length", "0", "--BundleAdjustment.refine_extra_params", "0"]


def adjust(model: Path, images: Path, output: Path, *options: str) -> Path:
    """Runs featuremetric_bundle_adjuster; returns the refined model, which is made anew."""
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    paths = ["--input_path", model, "--image_path", images, "--output_path", output]
    command = [sys.executable, "-P", "-m", "pixcli", "featuremetric_bundle_adjuster", *map(str, paths)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return output


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
        for point in model.images[image_id].points2D:
            point.xy = point.xy + rng.normal(scale=deviation, size=2)
    options = pycolmap.BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    options.print_summary = False
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    return write(model, folder)


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

    model = refined("raw SIFT", raw, "<= 0.042", *FIXED)
    surface = evaluate(
        tools, "eval_triangulation", scene / "gt", model, "--surface", scene / "surface.npz", "--align"
    )
    print(surface)
    rounds = ["--FeaturemetricBundleAdjustment.rounds", "3"]
    moved = with_perturbed_poses(raw, work / "moved", 0.01, 0.1)
    refined("poses off by 10 mm and 0.1 degrees, 3 rounds", moved, "<= 0.06", *FIXED, *rounds)
    noisy = with_noisy_keypoints(raw, work / "noisy", 2.0)
    refined("keypoints off by 2 px, 3 rounds", noisy, "<= 0.06", *FIXED, *rounds)
    refined("raw SIFT, intrinsics refined", raw, "<= 0.19")
    bench.finish(args)


if __name__ == "__main__":
    main()
