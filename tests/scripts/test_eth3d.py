"""scripts/eth3d on a synthetic scene in its layout."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.hloc import Features, write_features, write_matches
from pixcli.options import SyntheticOptions
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

SCRIPTS = Path(__file__).parents[2] / "scripts" / "eth3d"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


evaluation = load("multi_view_evaluation")


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts import their folder's `common`; other folders have modules of that name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    sys.modules.pop("common", None)
    yield
    sys.modules.pop("common", None)


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
    x, y = np.meshgrid(np.arange(-0.6, 0.6, 0.005), np.arange(-0.6, 0.6, 0.005))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, 4.0)], axis=1)
    return [evaluation.Scan(points, np.zeros(3))]


def grid(z: float, half: float = 0.3) -> np.ndarray:
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


STAND_IN = """#!{python}
# Takes the arguments that the README of ETH3D's program documents, and prints as that does.
import argparse, sys
sys.path.insert(0, {scripts!r})
from pathlib import Path
import multi_view_evaluation as ours
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("reconstruction_ply_path", "ground_truth_mlp_path", "tolerances"):
    parser.add_argument("--" + name, required=True)
defaults = dict(voxel_size=0.01, beam_start_radius_meters=0.001125, beam_divergence_halfangle_deg=0.011)
for name, default in defaults.items():
    parser.add_argument("--" + name, type=float, default=default)
parser.add_argument("--completeness_cloud_output_path", default="")
parser.add_argument("--accuracy_cloud_output_path", default="")
args = parser.parse_args()
assert vars(args).items() >= defaults.items()
cloud = Path(args.reconstruction_ply_path)
assert cloud.read_bytes().split(b"end_header")[0].count(b"property float ") == 3  # it takes no others
tolerances = [float(text) for text in args.tolerances.split(",")]
assert tolerances == sorted(tolerances)
scans = ours.read_scans(Path(args.ground_truth_mlp_path))
scores = ours.evaluate(ours.read_ply(cloud), scans, tuple(tolerances))
print("Loading reconstruction:", cloud)
print("Tolerances:", *tolerances)
print("Completenesses:", *scores.completeness.values())
print("Accuracies:", *scores.accuracy.values())
print("F1-scores:", *[0.5] * len(tolerances))
"""


def test_eth3ds_own_program_is_called_as_it_documents(data: Path, tmp_path: Path) -> None:
    program = tmp_path / "ETH3DMultiViewEvaluation"
    program.write_text(STAND_IN.format(python=sys.executable, scripts=str(SCRIPTS)))
    alignment = data / "court" / "dslr_scan_eval" / "scan_alignment.mlp"
    points = evaluation.read_scans(alignment)[0].points[::200] + np.array([0.004, 0, 0.004])
    with pytest.raises(UserError, match="cannot be run: Permission denied"):
        evaluation.by_program(program, points, alignment)
    program.chmod(0o755)
    tolerances = (0.05, 0.01)
    scores = evaluation.by_program(program, points, alignment, tolerances)
    expected = evaluation.evaluate(points, evaluation.read_scans(alignment), tolerances)
    for tolerance in tolerances:
        assert scores.accuracy[tolerance] == pytest.approx(expected.accuracy[tolerance], abs=1e-3)
        assert scores.completeness[tolerance] == pytest.approx(expected.completeness[tolerance], abs=1e-3)
    with pytest.raises(UserError, match="failed"):
        evaluation.by_program(program, points, tmp_path / "nowhere.mlp")
    with pytest.raises(UserError, match="told no accuracies"):
        evaluation.by_program(Path("/bin/true"), points, alignment)


def test_both_grids_of_voxels_count() -> None:
    # On the first grid these three share one voxel; on the other, the last one has its own.
    points = np.array([[0.001, 0, 0], [0.002, 0, 0], [0.008, 0, 0]])
    good = np.array([True, True, False])
    assert evaluation._voxel_mean(points, good) == pytest.approx(np.mean([2 / 3, 1, 0]))
    assert evaluation._voxel_mean(points[:0], good[:0]) == 0.0


@pytest.mark.slow
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
    # The same features as hloc's files.
    method = tmp_path / "features" / "court" / "other"
    method.mkdir(parents=True)
    write_hloc_files(tmp_path / "localization" / "court" / "sift.db", method)
    run = script("localization", *given, "--tag", "raw", "--methods", "other")
    assert run.returncode == 0, run.stderr
    for name in ("sift_refined", "other_raw"):
        found = json.loads((tmp_path / "localization" / "court" / f"{name}.json").read_text())
        assert max(found["errors"]) < 0.02
    pytest.importorskip("matplotlib")
    for name, row in (("triangulation", "sift      │ refined"), ("localization", "other     │ raw")):
        run = script(f"plot_{name}", "--outputs", tmp_path, "--scenes", "court", "--tags", "raw", "refined")
        assert run.returncode == 0, run.stderr
        assert row in run.stdout
        assert (tmp_path / f"{name}.png").stat().st_size > 10000
    assert script("plot_triangulation", "--outputs", tmp_path, "--tags", "none").returncode == 1


def write_hloc_files(database_path: Path, folder: Path) -> None:
    with pycolmap.Database.open(database_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        xy = {names[i]: database.read_keypoints(i)[:, :2].astype(float) for i in names}
        pairs = [pycolmap.pair_id_to_image_pair(pair_id) for pair_id in database.read_num_matches()[0]]
        matches = {(names[a], names[b]): database.read_matches(a, b) for a, b in pairs}
    write_features(folder / "features.h5", {name: Features(each, None, None) for name, each in xy.items()})
    write_matches(folder / "matches.h5", matches, {name: len(each) for name, each in xy.items()})


@pytest.mark.usefixtures("on_path")
def test_the_map_of_a_query_lacks_those_that_see_most_of_the_same(mapped: Path) -> None:
    model = pycolmap.Reconstruction(mapped)
    seen = {
        image.name: {point.point3D_id for point in image.points2D if point.has_point3D()}
        for image in model.images.values()
    }
    for name in seen:
        shared = {other: len(seen[name] & seen[other]) for other in seen if other != name}
        found = load("localization").neighbours(model, name, 2)
        assert len(found) == 2
        assert min(shared[other] for other in found) >= sorted(shared.values())[1]


CONTENT = bytes(range(256)) * 50


class _Server(BaseHTTPRequestHandler):
    """Serves CONTENT, also from some byte on."""

    asked: ClassVar[list[str | None]] = []

    def do_HEAD(self) -> None:
        self._head(200, len(CONTENT))

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self._head(206 if wanted else 200, len(CONTENT) - start)
        self.wfile.write(CONTENT[start:])

    def _head(self, code: int, length: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.usefixtures("on_path")
def test_a_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    download = load("download")
    assert f"facade_{download.PARTS[1]}.7z" == "facade_dslr_scan_eval.7z"  # as the server calls it
    archive = tmp_path / "facade.7z"
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/facade.7z"
        (tmp_path / "facade.7z.partial").write_bytes(CONTENT[:1000])
        download.fetch(url, archive)
        assert archive.read_bytes() == CONTENT
        download.fetch(url, archive)  # it is there
        archive.write_bytes(CONTENT[:10])  # something else is not
        download.fetch(url, archive)
        assert archive.read_bytes() == CONTENT
        (tmp_path / "facade.7z.partial").write_bytes(bytes(len(CONTENT) - 1))
        archive.unlink()
        download.fetch(url, archive)
        assert archive.stat().st_size == len(CONTENT)
        server.shutdown()
    assert _Server.asked == ["bytes=1000-", None, f"bytes={len(CONTENT) - 1}-"]


def test_mistakes_are_told(tmp_path: Path) -> None:
    run = script("triangulation", "--data", tmp_path, "--scenes", "facade")
    assert run.returncode == 1
    assert "is no scene of ETH3D: get it by download.py --scenes facade" in run.stderr
    run = script("download", "--data", tmp_path, "--scenes", "facade", "--server", "http://127.0.0.1:9")
    assert run.returncode == 1
    assert "facade_dslr_undistorted.7z cannot be had" in run.stderr
    assert "Traceback" not in run.stderr
