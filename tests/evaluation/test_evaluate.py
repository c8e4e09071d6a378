"""scripts/evaluate.py on the small scene."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixcli.evaluation.triangulation import held_out_errors, noise_floor
from pixcli.synthetic.baseline import map_database
from pixcli.synthetic.evaluation import center_errors

import pycolmap

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


def evaluate(*arguments: object) -> dict:
    run = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_model_and_a_database(small_scene, tmp_path: Path) -> None:
    model = map_database(small_scene.database_path, small_scene.path / "images")
    model.write_binary(tmp_path)
    truth = small_scene.path / "gt"
    figures = evaluate(truth, tmp_path, "--surface", small_scene.path / "surface.npz")
    assert figures["images"] == {"true": 4, "registered": 4}
    centres = 1000 * center_errors(small_scene.truth, model)
    assert figures["centres"]["mean"] == float(np.float64(figures["centres"]["mean"]))
    assert abs(figures["centres"]["mean"] - centres.mean()) < 1e-6
    assert 0.05 < figures["held_out_px"]["median"] < 1
    assert figures["pairs_deg"]["auc"]["5.0"] > 95
    keypoints = evaluate(truth, small_scene.database_path, "--depth", small_scene.path / "depth")
    assert keypoints["pairs"] == 6
    assert 0.02 < keypoints["sampson_px"]["median"] < keypoints["two_view_px"]["median"] < 1


def test_held_out_errors_and_the_random_part_are_those_of_the_noise(small_scene) -> None:
    truth = small_scene.truth
    rng = np.random.default_rng(0)
    medians, floors = [], []
    with np.load(small_scene.path / "surface.npz") as surface:
        points = surface["points"][:: max(1, len(surface["points"]) // 400)].astype(float)
    for noise in (0.1, 0.3):
        model = pycolmap.Reconstruction(truth)
        observed: dict[int, list[tuple[int, np.ndarray]]] = {image_id: [] for image_id in model.images}
        for k, xyz in enumerate(points):
            for image_id, image in model.images.items():
                xy = image.project_point(xyz)
                if xy is not None and (xy > 0).all() and (xy < [400, 300]).all():
                    observed[image_id].append((k, xy + rng.normal(0, noise, 2)))
        tracks: dict[int, list[pycolmap.TrackElement]] = {}
        for image_id, rows in observed.items():
            model.images[image_id].points2D = pycolmap.Point2DList([pycolmap.Point2D(xy) for _, xy in rows])
            for index, (k, _) in enumerate(rows):
                tracks.setdefault(k, []).append(pycolmap.TrackElement(image_id, index))
        for k, elements in tracks.items():
            if len(elements) >= 3:
                model.add_point3D(points[k], pycolmap.Track(elements))
        medians.append(np.median(held_out_errors(truth, model)))
        floors.append(noise_floor(truth, model, splits=1, scale=1.0))
        elsewhere = pycolmap.Reconstruction(model)
        turn = pycolmap.Rotation3d(np.array([1.0, 2.0, -0.5]))
        elsewhere.transform(pycolmap.Sim3d(0.2, turn, np.array([10.0, -20.0, 30.0])))
        assert np.median(held_out_errors(truth, elsewhere)) == pytest.approx(medians[-1], rel=1e-3)
    assert 2 < medians[1] / medians[0] < 4
    assert 0.1 < medians[0] < 0.4
    assert 1.5 < floors[1] / floors[0] < 6


def test_mistakes_are_told(small_scene, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "nowhere", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.startswith("evaluate.py: there is no folder")
    given = [SCRIPT, small_scene.path / "gt", small_scene.path / "gt", "--surface", tmp_path / "nowhere"]
    run = subprocess.run([sys.executable, *given], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.endswith("nowhere: check --surface\n")
