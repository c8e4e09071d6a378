"""What `pixcli featuremetric_bundle_adjuster` tells of a refinement, and its guard."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pixcli.bundle_adjustment import feature_rounds
from pixcli.bundle_adjustment.refinement import STRATEGIES
from pixcli.cli.main import main

import pycolmap

FIXED = ["--BundleAdjustment.refine_focal_length", "0", "--BundleAdjustment.refine_extra_params", "0"]
STRATEGY = "--FeaturemetricBundleAdjustment.strategy"


def run(model: Path, output: Path, images: Path, *more: object) -> int:
    paths = ["--input_path", model, "--output_path", output, "--image_path", images]
    return main(["featuremetric_bundle_adjuster", *map(str, [*paths, *FIXED, *more])])


@pytest.fixture(scope="module")
def reported(small_scene, mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the refined model in `model`, `report.json`, `report.png` and `covariance.h5`."""
    folder = tmp_path_factory.mktemp("reported")
    more = ["--report_path", folder / "report.json", "--covariance_path", folder / "covariance.h5"]
    assert run(mapped, folder / "model", small_scene.path / "images", *more) == 0
    return folder


def test_every_image_is_reported(mapped: Path, reported: Path) -> None:
    report = json.loads((reported / "report.json").read_text())
    names = {image.name for image in pycolmap.Reconstruction(mapped).images.values()}
    for part in ("images", "image_residuals", "poses"):
        assert {entry["name"] for entry in report[part]} == names
    for image in report["images"]:
        assert image["after"] < image["before"]
        assert not image["restored"]
    for image in report["image_residuals"]:
        assert image["after"] < 0.5 * image["before"]
    assert report["cost"]["after"] == pytest.approx(sum(image["after"] for image in report["images"]))
    for pose in report["poses"]:
        assert 0 < pose["baselines"] < 0.1
        assert not pose["jumped"]
    assert [change["change"] for change in report["focal_lengths"]] == [0.0, 0.0]
    for field in report["residual_fields"]:
        assert field["model"] == "OPENCV"
        assert not field["too_simple"]
        assert np.shape(field["mean"])[:2] == np.shape(field["count"])


def test_the_residual_fields_are_drawn(reported: Path) -> None:
    with Image.open(reported / "report.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200


def test_covariances_are_of_the_size_of_the_errors(small_scene, reported: Path) -> None:
    model, truth = pycolmap.Reconstruction(reported / "model"), small_scene.truth
    with h5py.File(reported / "covariance.h5") as file:
        frames, poses = file["poses/frame_id"][()], file["poses/covariance"][()]
        names = [name.decode() for name in file["poses/image_name"][()]]
        point_ids, points = file["points/point3D_id"][()], file["points/covariance"][()]
        assert file.attrs["format"] == "pixcli model covariance"
        assert "projection centre" in file.attrs["convention"]
    assert frames.tolist() == sorted(model.frames)
    assert set(point_ids.tolist()) <= model.point3D_ids()
    images = [model.find_image_with_name(name) for name in names]
    assert [image.frame_id for image in images] == frames.tolist()
    ours = np.array([image.projection_center() for image in images])
    true = np.array([truth.find_image_with_name(name).projection_center() for name in names])
    error = np.linalg.norm(pycolmap.estimate_sim3d(ours, true) * ours - true, axis=1)
    predicted = np.sqrt(np.trace(poses[:, 3:, 3:], axis1=1, axis2=2))
    assert 0.2 < np.sqrt(np.mean(error**2) / np.mean(predicted**2)) < 5  # surfaces have a bias in common
    known = np.isfinite(points).all(axis=(1, 2))
    assert known.mean() > 0.9
    assert np.linalg.eigvalsh(points[known]).min() > 0


def test_the_table_has_a_column_for_each_round(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(mapped, tmp_path / "out", small_scene.path / "images") == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if "round 1" in line]
    assert "round 2" in head
    (accepted,) = [line for line in lines if "  surfaces refined" in line]
    assert len([cell for cell in accepted.split("│") if cell.strip().isdigit()]) == 2
    assert len(lines) < 70


@pytest.mark.parametrize("strategy", ["geometric", "surface", "feature_reference"])
def test_an_image_that_the_adjustment_spoils_goes_back(
    small_scene,
    mapped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    before = pycolmap.Reconstruction(mapped)
    name = "0002.jpg"

    def spoil(model: pycolmap.Reconstruction) -> None:
        frame = model.find_image_with_name(name).frame
        turn = pycolmap.Rotation3d(np.radians([0.3, -0.4, 0.0]))
        frame.rig_from_world = pycolmap.Rigid3d(turn, np.zeros(3)) * frame.rig_from_world

    calls = []

    def spoiling(original):
        def spoiled(given, *rest, **named):
            result = original(given, *rest, **named)
            if not calls:
                spoil(getattr(given, "model", given))
            calls.append(original)
            return result

        return spoiled

    if strategy == "feature_reference":  # it judges images itself, after it has adjusted them
        monkeypatch.setattr(feature_rounds, "adjust_bundle", spoiling(feature_rounds.adjust_bundle))
    else:
        monkeypatch.setitem(STRATEGIES, strategy, spoiling(STRATEGIES[strategy]))
    more = [STRATEGY, strategy, "--report_path", tmp_path / "report.json"]
    more += ["--DenseFeatures.model", "dsift"] if strategy == "feature_reference" else []
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [image["name"] for image in report["images"] if image["restored"]] == [name]
    captured = capsys.readouterr()
    assert f"{name} is back at its pose" in captured.err
    assert f"1 ({name})" in captured.out
    after = pycolmap.Reconstruction(tmp_path / "out")
    turns = {
        image.name: (image.cam_from_world() * before.images[k].cam_from_world().inverse()).rotation.angle()
        for k, image in after.images.items()
    }
    assert np.degrees(turns[name]) < 0.15  # of 0.5; the frames of the two models differ a little
    pose = next(pose for pose in report["poses"] if pose["name"] == name)
    assert pose["rotation"] < 0.02
    after.update_point_3d_errors()
    assert np.median([point.error for point in after.points3D.values()]) < 0.5


def test_a_report_that_is_named_like_its_picture_is_refused(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--report_path", tmp_path / "report.png"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 1
    assert "name a .json file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
