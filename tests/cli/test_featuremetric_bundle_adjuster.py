"""`pixcli featuremetric_bundle_adjuster` on a mapped model of the small scene, whose truth is exact."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixcli.bundle_adjustment.geometric import adjust_keypoints
from pixcli.bundle_adjustment.refinement import STRATEGIES
from pixcli.bundle_adjustment.strategy import Adjustment, Task
from pixcli.cli.main import main
from pixcli.synthetic.evaluation import center_errors, surface_errors

import pycolmap

FIXED_INTRINSICS = [
    "--BundleAdjustment.refine_focal_length",
    "0",
    "--BundleAdjustment.refine_extra_params",
    "0",
]
FILES = ["cameras.bin", "frames.bin", "images.bin", "points3D.bin", "rigs.bin"]


def run(model: Path, output: Path, images: Path, *more: object) -> int:
    paths = ["--input_path", model, "--output_path", output, "--image_path", images]
    return main(["featuremetric_bundle_adjuster", *map(str, [*paths, *FIXED_INTRINSICS, *more])])


@pytest.fixture(scope="session")
def refined(small_scene, mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the refined model in `model`, `report.json` and `normals.ply`."""
    folder = tmp_path_factory.mktemp("refined")
    more = ["--report_path", folder / "report.json", "--write_normals_path", folder / "normals.ply"]
    assert run(mapped, folder / "model", small_scene.path / "images", *more) == 0
    return folder


def test_cameras_and_points_come_closer_to_the_truth(small_scene, mapped: Path, refined: Path) -> None:
    before = pycolmap.Reconstruction(mapped)
    after = pycolmap.Reconstruction(refined / "model")
    truth = small_scene.truth
    assert center_errors(truth, after).mean() < 0.5 * center_errors(truth, before).mean()
    surface = small_scene.path / "surface.npz"
    distance = [np.median(surface_errors(truth, model, surface)) for model in (before, after)]
    assert distance[1] < 0.6 * distance[0]


def test_the_model_keeps_its_ids_and_has_the_refined_observations(mapped: Path, refined: Path) -> None:
    before = pycolmap.Reconstruction(mapped)
    after = pycolmap.Reconstruction(refined / "model")
    assert sorted(path.name for path in (refined / "model").iterdir()) == FILES
    assert sorted(after.point3D_ids()) == sorted(before.point3D_ids())
    moved = 0
    for image_id, image in before.images.items():
        other = after.images[image_id]
        assert (other.name, other.camera_id) == (image.name, image.camera_id)
        assert other.num_points2D() == image.num_points2D()  # completed observations are not written
        assert [p.point3D_id for p in other.points2D] == [p.point3D_id for p in image.points2D]
        shift = [np.linalg.norm(a.xy - b.xy) for a, b in zip(other.points2D, image.points2D, strict=True)]
        observed = np.array([point.has_point3D() for point in image.points2D])
        assert not np.any(np.array(shift)[~observed])
        moved += int(np.count_nonzero(shift))
    assert moved > 0.8 * before.compute_num_observations() * 0.5
    before.update_point_3d_errors()
    assert after.compute_mean_reprojection_error() < 0.6 * before.compute_mean_reprojection_error()


def test_the_report_tells_what_happened(refined: Path) -> None:
    report = json.loads((refined / "report.json").read_text())
    assert report["command"] == "featuremetric_bundle_adjuster"
    assert report["model"]["images"] == 4
    assert len(report["poses"]) == 4
    last = report["rounds"][-1]
    assert sum(last["statuses"].values()) == last["observations"] == report["model"]["observations"]
    assert last["residual_after"] < last["residual_before"]
    assert report["residual"]["after"] < report["residual"]["before"]


def test_normals_are_written_for_the_refined_points(refined: Path) -> None:
    header, _, body = (refined / "normals.ply").read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    vertices = np.frombuffer(body, [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    assert len(vertices) == count
    assert count > 100
    np.testing.assert_allclose(np.linalg.norm(vertices["normal"], axis=1), 1, atol=1e-5)


def test_completed_observations_are_written_on_request(
    small_scene, mapped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["--FeaturemetricBundleAdjustment.write_completed", "model"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 0
    assert any("expecting to use" in line for line in caplog.messages)
    before, after = pycolmap.Reconstruction(mapped), pycolmap.Reconstruction(tmp_path / "out")
    assert after.compute_num_observations() >= before.compute_num_observations()
    added = sum(image.num_points2D() - before.images[i].num_points2D() for i, image in after.images.items())
    assert added == after.compute_num_observations() - before.compute_num_observations()


@pytest.mark.parametrize("strategy", ["geometric", "feature_reference", "costmaps"])
def test_the_other_strategies_run(small_scene, mapped: Path, tmp_path: Path, strategy: str) -> None:
    more = ["--FeaturemetricBundleAdjustment.strategy", strategy, "--DenseFeatures.model", "dsift"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 0
    after = pycolmap.Reconstruction(tmp_path / "out")
    assert after.num_reg_images() == 4
    assert center_errors(small_scene.truth, after).max() < 0.05


@pytest.mark.parametrize("strategy", ["surface", "feature_reference", "costmaps", "patch_warp", "geometric"])
def test_runs_with_one_thread_and_with_two_give_the_same_bytes(
    small_scene, mapped: Path, tmp_path: Path, strategy: str
) -> None:
    more = ["--FeaturemetricBundleAdjustment.strategy", strategy, "--DenseFeatures.model", "dsift"]
    if strategy == "surface":
        more = ["--FeaturemetricBundleAdjustment.write_completed", "model"]
    for threads in (1, 2):
        threads_option = ["--DenseFeatures.num_threads", threads]
        assert run(mapped, tmp_path / str(threads), small_scene.path / "images", *more, *threads_option) == 0
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_constant_images_keep_their_poses(small_scene, mapped: Path, tmp_path: Path) -> None:
    before = pycolmap.Reconstruction(mapped)
    held = sorted(image.name for image in before.images.values())[:2]
    (tmp_path / "list.txt").write_text("\n".join(held))
    more = ["--constant_image_list_path", tmp_path / "list.txt"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 0
    after = pycolmap.Reconstruction(tmp_path / "out")
    for name in held:
        old, new = (m.find_image_with_name(name).cam_from_world().matrix() for m in (before, after))
        np.testing.assert_array_equal(old, new)


def test_text_models_are_read(small_scene, mapped: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    pycolmap.Reconstruction(mapped).write_text(str(tmp_path / "text"))
    more = ["--FeaturemetricBundleAdjustment.strategy", "geometric"]
    assert run(tmp_path / "text", tmp_path / "out", small_scene.path / "images", *more) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def damage(model: Path, name: str) -> None:
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: shutil.rmtree(model), "there is no folder"),
        (lambda model: (model / "images.bin").unlink(), "is no COLMAP model"),
        (lambda model: (model / "points3D.bin").unlink(), "points3D.bin is missing"),
        (lambda model: damage(model, "images.bin"), "is damaged"),
        (lambda model: damage(model, "points3D.bin"), "points3D.bin is truncated"),
    ],
)
def test_bad_models_are_told_in_one_line(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change, message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(mapped, model)
    change(model)
    assert run(model, tmp_path / "out", small_scene.path / "images") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pixcli")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_a_model_is_refused(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(mapped, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert run(model, model, small_scene.path / "images") == 1
    assert "is the input" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    more = ["--FeaturemetricBundleAdjustment.overwrite", 1, "--FeaturemetricBundleAdjustment.rounds", 1]
    assert run(model, model, small_scene.path / "images", *more) == 0
    assert (model / "images.bin").read_bytes() != before["images.bin"]


def test_features_that_look_alike_everywhere_are_refused(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--FeaturemetricBundleAdjustment.strategy", "feature_reference"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 1
    assert "a single channel of unit length is 1 everywhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_lost_model_is_not_written(
    small_scene,
    mapped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lose(task: Task) -> Adjustment:
        adjusted = adjust_keypoints(task)
        for point in task.model.points3D.values():
            point.xyz = point.xyz + np.array([1.0, 0.0, 0.0])
        return adjusted

    monkeypatch.setitem(STRATEGIES, "geometric", lose)
    more = ["--FeaturemetricBundleAdjustment.strategy", "geometric"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_images_and_points_are_told(
    small_scene, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(mapped, tmp_path / "out", tmp_path) == 1
    assert "no such image, but the model has it" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    model = pycolmap.Reconstruction(mapped)
    for point_id in sorted(model.point3D_ids()):
        model.delete_point3D(point_id)
    model.write_binary(str(tmp_path / "empty"))
    assert run(tmp_path / "empty", tmp_path / "out", small_scene.path / "images") == 1
    assert "has no 3D points" in capsys.readouterr().err


def test_low_memory_works_alone_and_leaves_no_cache(small_scene, mapped: Path, tmp_path: Path) -> None:
    more = ["--preset", "low_memory", "--DenseFeatures.model", "dsift"]
    more += ["--FeaturemetricBundleAdjustment.rounds", "1"]
    assert run(mapped, tmp_path / "out", small_scene.path / "images", *more) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
