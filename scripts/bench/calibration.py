"""What calibration gains: centre errors of generated scenes that COLMAP mapped with the wrong lens.

COLMAP maps each scene with SIMPLE_RADIAL and unknown intrinsics. Camera centres, after a similarity, are then
compared as mapped, refined with Calibration.model keep and auto, and with the true lens model set by hand.

    python scripts/bench/calibration.py [--scenes NAME ...]

Rendered and mapped scenes are kept in build/bench/calibration, or in the folder --cache names.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import CACHE, Bench, arguments

from pixcli.bundle_adjustment.refinement import refine_reconstruction
from pixcli.calibration.lenses import converted
from pixcli.errors import UserError
from pixcli.evaluation.poses import pair_errors
from pixcli.options import BundleAdjustmentOptions, CalibrationOptions, SyntheticOptions
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

SMALL = {"width": 800, "height": 600, "num_images": 14, "num_cameras": 1}


@dataclass(frozen=True)
class Case:
    """A generated scene, and how COLMAP maps it."""

    name: str
    synthetic: dict[str, Any]
    cameras: str = "folder"
    """Which images COLMAP gives a camera to: those of each true camera (folder), or each its own (image)."""
    images: tuple[int, ...] = ()
    """Of the rendered ones; all if empty."""
    target: float | None = None
    """Of the mean centre error with auto, in mm."""
    options: dict[str, str] = field(default_factory=dict)


THREE = {**SMALL, "seed": 901, "num_images": 24, "num_cameras": 3, "camera_model": "OPENCV"}
ONE = {**SMALL, "seed": 907}
CASES = (
    Case("3 cameras, OPENCV, 24 images", THREE, target=0.05),
    Case("a camera for each of 24 images", THREE, cameras="image", target=0.25),
    Case("a camera for each, shared", THREE, cameras="image", target=0.06, options={"share": "auto"}),
    Case("3 images", THREE, images=(7, 11, 15)),
    Case("5 images", THREE, images=(4, 8, 11, 15, 18), target=0.3),
    Case("8 images", THREE, images=(2, 5, 8, 11, 14, 17, 19, 21)),
    Case("SIMPLE_RADIAL", {**ONE, "camera_model": "SIMPLE_RADIAL"}),
    Case("OPENCV_FISHEYE", {**ONE, "camera_model": "OPENCV_FISHEYE"}, target=0.09),
    Case("RADIAL, 640 px", {**ONE, "camera_model": "RADIAL", "width": 640, "height": 480}),
    Case("FULL_OPENCV", {**ONE, "camera_model": "FULL_OPENCV"}),
    Case("THIN_PRISM_FISHEYE", {**ONE, "camera_model": "THIN_PRISM_FISHEYE", "seed": 908}),
    Case("flight over flat ground", {**ONE, "camera_model": "OPENCV", "scene": "flat", "path": "flight"}),
    Case("flight over rough ground", {**ONE, "camera_model": "OPENCV", "scene": "relief", "path": "flight"}),
    Case("narrow lens", {**ONE, "camera_model": "OPENCV", "focal_ratio": 2.5}),
    Case("forward motion", {**ONE, "camera_model": "OPENCV", "path": "forward"}),
    Case("turntable", {**ONE, "camera_model": "OPENCV", "path": "turntable"}),
    Case("weak texture", {**ONE, "camera_model": "OPENCV", "blur": 2.0, "noise": 8.0}),
)


def rendered(case: Case, cache: Path) -> Path:
    """The folder of the scene, rendered if it is not there yet."""
    name = "_".join(str(value) for _, value in sorted(case.synthetic.items()))
    folder = cache / name
    if not folder.exists():
        generate_dataset(folder, SyntheticOptions(**case.synthetic, surface_spacing=0.2))
    return folder


def database_of(scene: Path, cameras: str) -> Path:
    """SIFT features and verified matches, intrinsics unknown."""
    path = scene / f"{cameras}.db"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with pycolmap.Database.open(partial):
        pass
    truth = pycolmap.Reconstruction(scene / "gt")
    reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False)
    extraction.sift.max_num_features = 3000
    where = (partial, scene / "images")
    groups = {camera_id: [] for camera_id in sorted(truth.cameras)}
    for image in truth.images.values():
        groups[image.camera_id].append(image.name)
    mode = pycolmap.CameraMode.SINGLE if cameras == "folder" else pycolmap.CameraMode.PER_IMAGE
    for names in groups.values():
        pycolmap.import_images(*where, mode, sorted(names), reader)
        pycolmap.extract_features(*where, sorted(names), mode, reader, extraction)
    pycolmap.logging.minloglevel = 2
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pycolmap.set_random_seed(0)
    pycolmap.match_exhaustive(
        partial, pycolmap.FeatureMatchingOptions(use_gpu=False), verification_options=verification
    )
    partial.rename(path)
    return path


def mapped(case: Case, scene: Path) -> Path:
    """The largest model that COLMAP's mapper makes of the images, with free intrinsics."""
    target = scene / f"mapped_{case.cameras}_{len(case.images)}"
    if not target.exists():
        options = pycolmap.IncrementalPipelineOptions()
        options.min_model_size = 3
        options.extract_colors = False
        options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
        options.num_threads = options.mapper.num_threads = 1  # with more, two runs differ
        suffix = next((scene / "images").iterdir()).suffix
        options.image_names = [f"{k:04d}{suffix}" for k in case.images]
        with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
            models = pycolmap.incremental_mapping(
                database_of(scene, case.cameras), scene / "images", folder, options
            )
        if not models:
            raise UserError(f"{case.name}: COLMAP could not map the images")
        partial = scene / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        max(models.values(), key=lambda model: int(model.num_reg_images())).write(partial)
        partial.rename(target)
    return target


def centre_error(truth: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> float:
    """Mean distance of the camera centres from the true ones after a similarity, in mm.

    pycolmap.estimate_sim3d() refuses three centres, which determine a similarity well enough.
    """
    names = sorted(image.name for image in model.images.values() if image.has_pose)
    found, true = (
        np.array([state.find_image_with_name(name).projection_center() for name in names])
        for state in (model, truth)
    )
    x, y = found - found.mean(axis=0), true - true.mean(axis=0)
    u, s, vt = np.linalg.svd(y.T @ x)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    aligned = (s * sign).sum() / np.square(x).sum() * x @ ((u * sign) @ vt).T
    return 1000 * float(np.linalg.norm(aligned - y, axis=1).mean())


def refined(case: Case, scene: Path, how: str) -> tuple[pycolmap.Reconstruction, float, list]:
    """The model that featuremetric_bundle_adjuster makes of the mapped one, the CPU seconds it
    takes, and what it says of the lenses.

    Args:
        how: keep, auto, or hand: the true camera model with a free principal point.
    """
    source, adjustment = mapped(case, scene), BundleAdjustmentOptions()
    calibration = CalibrationOptions(model="keep")
    model = pycolmap.Reconstruction(source)
    if how == "auto":
        calibration = CalibrationOptions(**case.options)
    elif how == "hand":
        for camera in model.cameras.values():
            lens = converted(camera, case.synthetic["camera_model"])
            camera.model, camera.params = lens.model, lens.params
        adjustment = BundleAdjustmentOptions(refine_principal_point=True)
    options = FeaturemetricBundleAdjusterOptions(bundle_adjustment=adjustment, calibration=calibration)
    start = time.process_time()
    result = refine_reconstruction(model, scene / "images", options)
    seconds = time.process_time() - start
    for report in result.calibrations:
        print(
            f"  {report.before} -> {report.model}",
            *(f"{c.model} {c.held_out:.4f} px ({c.ahead:+.1f})" for c in report.candidates),
            sep="\n    ",
        )
    return result.reconstruction, seconds, result.calibrations


def deviations(truth: pycolmap.Reconstruction, model: pycolmap.Reconstruction, reports: list) -> list[float]:
    """Errors of lens parameters in predicted standard deviations, where the true model was chosen."""
    errors = []
    for report in reports:
        for lens in report.lenses:
            name = next(image.name for image in model.images.values() if image.camera_id == lens.camera)
            true = truth.find_image_with_name(name).camera
            if true.model.name == lens.model:
                errors += [
                    (p.value - value) / p.deviation
                    for p, value in zip(lens.parameters, true.params, strict=True)
                    if p.deviation
                ]
    return errors


def relative_pose_auc(truth: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> str:
    """Area under the recall curve of relative pose errors up to .05, .1, .5 and 1 degree, in percent."""
    error = np.nanmax(np.stack(pair_errors(truth, model)), axis=0)
    error = np.sort(error[np.isfinite(error)])
    areas = []
    for limit in (0.05, 0.1, 0.5, 1.0):
        areas.append(100 * float(np.mean(np.clip(1 - error / limit, 0, 1))))
    return " / ".join(f"{area:.0f}" for area in areas)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--scenes", nargs="*", help="names of scenes; all if left out")
    parser.add_argument("--cache", type=Path, default=CACHE / "calibration")
    args = parser.parse_args()
    bench = Bench("calibration")
    gains, times, normalised = [], [], []
    for case in CASES:
        if args.scenes and case.name not in args.scenes:
            continue
        print(case.name, flush=True)
        scene = rendered(case, args.cache)
        truth, start = pycolmap.Reconstruction(scene / "gt"), pycolmap.Reconstruction(mapped(case, scene))
        models = {how: refined(case, scene, how) for how in ("keep", "auto", "hand")}
        error = {how: centre_error(truth, model) for how, (model, *_) in models.items()}
        limit = 1.1 * min(error["keep"], centre_error(truth, start))
        bench.row(f"{case.name}: as mapped", centre_error(truth, start), "mm")
        bench.row(f"{case.name}: keep", error["keep"], "mm")
        target = f"<= {case.target if case.target is not None else limit:.3g}"
        bench.row(f"{case.name}: auto", error["auto"], "mm", target)
        bench.row(f"{case.name}: true model by hand", error["hand"], "mm")
        bench.row(f"{case.name}: auto over by hand", error["auto"] / error["hand"], "times", "<= 1.25")
        for how in ("keep", "auto"):
            print(f"  relative pose AUC, {how}: {relative_pose_auc(truth, models[how][0])} %")
        if case.synthetic["camera_model"] != "SIMPLE_RADIAL":
            gains.append(error["keep"] / error["auto"])
        normalised += deviations(truth, models["auto"][0], models["auto"][2])
        times.append(models["auto"][1] / models["keep"][1])
    bench.row(
        "gain over keep where the mapped lens was too simple, median", np.median(gains), "times", ">= 20"
    )
    share = 100 * np.mean(np.abs(normalised) < 3)
    bench.row("lens parameters within 3 deviations of the truth", share, "%", ">= 95")
    bench.row("CPU time over keep, median", np.median(times), "times", "<= 1.5")
    bench.row("CPU time over keep, largest", max(times), "times")
    bench.finish(args)


if __name__ == "__main__":
    main()
