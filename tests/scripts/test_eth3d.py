"""scripts/eth3d on a synthetic scene in its layout."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pycolmap
import pytest

from pixcli.options import SyntheticOptions
from pixcli.synthetic.dataset import generate_dataset

SCRIPTS = Path(__file__).parents[2] / "scripts" / "eth3d"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


evaluation = load("multi_view_evaluation")


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eth3d")
    size = {"width": 400, "height": 300, "num_images": 6, "samples": 1, "seed": 1}
    generate_dataset(folder / "court", SyntheticOptions(camera_model="PINHOLE", layout="eth3d", **size))
    return folder


def test_the_layout_is_eth3ds(data: Path) -> None:
    scene = data / "court"
    model = pycolmap.Reconstruction(scene / "dslr_calibration_undistorted")
    for image in model.images.values():
        assert image.name.startswith("dslr_images_undistorted/")
        assert (scene / "images" / image.name).is_file()
    with np.load(scene / "surface.npz") as surface:
        samples, normals = surface["points"].astype(float), surface["normals"].astype(float)
    tree = evaluation.cKDTree(samples)
    for scan in evaluation.read_scans(scene / "dslr_scan_eval" / "scan_alignment.mlp"):
        distance, nearest = tree.query(scan.points[::50])
        near = distance < 0.03
        off = np.abs(((scan.points[::50] - samples[nearest]) * normals[nearest]).sum(axis=1))
        assert near.mean() > 0.5  # scanners see more than two images do
        assert np.median(off[near]) < 1e-4


def wall() -> list:
    """A wall 4 m away, seen from the origin, a beam every 5 mm."""
    x, y = np.meshgrid(np.arange(-1, 1, 0.005), np.arange(-1, 1, 0.005))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, 4.0)], axis=1)
    return [evaluation.Scan(points, np.zeros(3))]


def grid(z: float, half: float = 0.5) -> np.ndarray:
    x, y = np.meshgrid(np.arange(-half, half, 0.005), np.arange(-half, half, 0.005))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)


def test_accuracy_counts_what_beams_passed_through_and_nothing_else() -> None:
    exact, before, behind = grid(4.0), grid(3.9), grid(4.1)
    beside = grid(3.9) + np.array([10.0, 0, 0])
    for wrong, expected in ((before, 0.5), (behind, 1.0), (beside, 1.0)):
        scores = evaluation.evaluate(np.concatenate([exact, wrong]), wall())
        assert scores.accuracy[0.01] == pytest.approx(expected, abs=0.02)
    near = evaluation.evaluate(grid(3.985), wall())
    assert near.accuracy[0.01] == 0.0
    assert near.accuracy[0.02] == 1.0


def test_completeness_is_the_share_of_the_surface_whatever_its_density() -> None:
    quarter = evaluation.evaluate(grid(4.0), wall())
    assert quarter.completeness[0.01] == pytest.approx(0.25, abs=0.02)
    scan = wall()[0]
    right = scan.points[scan.points[:, 0] > 0]
    denser = [
        evaluation.Scan(np.concatenate([scan.points, *[right + k * 1e-6 for k in range(5)]]), scan.origin)
    ]
    assert evaluation.evaluate(grid(4.0), denser).completeness[0.01] == pytest.approx(0.25, abs=0.02)


def test_on_exact_synthetic_surfaces_scores_are_what_noise_makes_them(data: Path) -> None:
    scans = evaluation.read_scans(data / "court" / "dslr_scan_eval" / "scan_alignment.mlp")
    points = scans[0].points[::7]
    exact = evaluation.evaluate(points, scans)
    assert exact.accuracy[0.01] == 1.0
    towards = (scans[0].origin - points) / np.linalg.norm(scans[0].origin - points, axis=1)[:, None]
    wrong = np.random.default_rng(0).random(len(points)) < 0.3
    moved = evaluation.evaluate(points + np.where(wrong, 0.2, 0.0)[:, None] * towards, scans)
    assert moved.accuracy[0.05] == pytest.approx(0.7, abs=0.03)


def test_tables_and_plots(data: Path, tmp_path: Path) -> None:
    given = ["--data", data, "--outputs", tmp_path]
    for tag in ("raw", "refined"):
        more = ["SiftExtraction.max_num_features=1500", "FeaturemetricBundleAdjustment.rounds=1"]
        run = script("triangulation", *given, "--tag", tag, *more)
        assert run.returncode == 0, run.stderr
        assert f"sift {tag}" in run.stdout
    found = {
        tag: json.loads((tmp_path / "triangulation" / "court" / f"sift_{tag}.json").read_text())
        for tag in ("raw", "refined")
    }
    assert found["refined"]["accuracy"]["0.01"] > found["raw"]["accuracy"]["0.01"] > 0.5
    run = script("localization", *given, "--tag", "refined", "SiftExtraction.max_num_features=1500")
    assert run.returncode == 0, run.stderr
    errors = json.loads((tmp_path / "localization" / "court" / "sift_refined.json").read_text())["errors"]
    assert max(errors) < 0.02
    pytest.importorskip("matplotlib")
    for name in ("triangulation", "localization"):
        run = script(f"plot_{name}", "--outputs", tmp_path)
        assert run.returncode == 0, run.stderr
        assert (tmp_path / f"{name}.png").stat().st_size > 10000


def test_mistakes_are_told(tmp_path: Path) -> None:
    run = script("triangulation", "--data", tmp_path, "--scenes", "facade")
    assert run.returncode == 1
    assert "is no scene of ETH3D: get it by download.py --scenes facade" in run.stderr
    run = script("download", "--data", tmp_path, "--scenes", "facade", "--server", "http://127.0.0.1:9")
    assert run.returncode == 1
    assert "facade_dslr_undistorted.7z cannot be had" in run.stderr
    assert "Traceback" not in run.stderr
