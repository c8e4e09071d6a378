"""`pixcli featuremetric_bundle_adjuster` finds the lens, unless it is told to keep it."""

import json
from pathlib import Path

import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.synthetic.evaluation import center_errors

import pycolmap


@pytest.fixture(scope="module")
def plain(mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mapped model with the lens that COLMAP takes by default: no tangential part, centred."""
    folder = tmp_path_factory.mktemp("plain")
    model = pycolmap.Reconstruction(mapped)
    for camera in model.cameras.values():
        focal, k1 = camera.params[0], camera.params[4]
        camera.model = pycolmap.CameraModelId.SIMPLE_RADIAL
        camera.params = [focal, camera.width / 2, camera.height / 2, k1]
    model.write(folder)
    return folder


def run(scene, model: Path, folder: Path, *more: str) -> tuple[pycolmap.Reconstruction, dict]:
    paths = ["--input_path", model, "--output_path", folder / "model", "--image_path", scene.path / "images"]
    folder.mkdir(exist_ok=True)
    report = folder / "report.json"
    arguments = [*map(str, paths), "--report_path", str(report), *more]
    assert main(["featuremetric_bundle_adjuster", *arguments]) == 0
    return pycolmap.Reconstruction(folder / "model"), json.loads(report.read_text())


def test_the_lens_is_found_and_reported(small_scene, plain, tmp_path, capsys):
    kept, report = run(small_scene, plain, tmp_path / "keep", "--Calibration.model", "keep")
    assert report["calibrations"] == []
    assert {camera.model.name for camera in kept.cameras.values()} == {"SIMPLE_RADIAL"}
    found, report = run(small_scene, plain, tmp_path / "auto")
    errors = [np.mean(center_errors(small_scene.truth, model)) for model in (kept, found)]
    assert errors[1] < errors[0]
    (calibration,) = report["calibrations"]
    assert calibration["before"] == "SIMPLE_RADIAL"
    assert len(calibration["candidates"]) > 1
    assert {camera.model.name for camera in found.cameras.values()} == {calibration["model"]}
    assert {lens["camera"] for lens in calibration["lenses"]} == set(found.cameras)
    for lens in calibration["lenses"]:
        values = [parameter["value"] for parameter in lens["parameters"]]
        np.testing.assert_allclose(values, found.cameras[lens["camera"]].params)
        assert all(parameter["deviation"] > 0 for parameter in lens["parameters"])
    assert "Camera models for SIMPLE_RADIAL" in capsys.readouterr().out


def test_constant_cameras_stay(small_scene, plain, tmp_path):
    cameras = pycolmap.Reconstruction(plain).cameras
    listed = tmp_path / "cameras.txt"
    listed.write_text("\n".join(map(str, cameras)) + "\n")
    refined, report = run(small_scene, plain, tmp_path, "--constant_camera_list_path", str(listed))
    assert report["calibrations"] == []
    for camera_id, camera in cameras.items():
        assert refined.cameras[camera_id] == camera


def test_an_unknown_model_is_an_error_in_one_line(small_scene, plain, tmp_path, capsys):
    arguments = ["--input_path", plain, "--output_path", tmp_path / "model"]
    arguments += ["--image_path", small_scene.path / "images", "--Calibration.model", "OPENCV_FISHEY"]
    assert main(["featuremetric_bundle_adjuster", *map(str, arguments)]) != 0
    assert "nearest: OPENCV_FISHEYE" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
