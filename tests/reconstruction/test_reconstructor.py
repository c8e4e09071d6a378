"""`pixcli reconstructor` on the images of the small scene."""

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixcli.reconstruction.reconstruct as reconstruct_module
from pixcli.reconstruction import colmap_steps as colmap
from pixcli.synthetic.evaluation import center_errors

import pycolmap

from .conftest import SMALL, Run, database_without_geometries

FIXED = [
    *("--Mapper.ba_refine_focal_length", 0, "--Mapper.ba_refine_extra_params", 0),
    *("--Mapper.abs_pose_refine_focal_length", 0, "--Mapper.abs_pose_refine_extra_params", 0),
    *("--BundleAdjustment.refine_focal_length", 0, "--BundleAdjustment.refine_extra_params", 0),
]
MODEL = ["cameras.bin", "frames.bin", "images.bin", "points3D.bin", "rigs.bin"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_of_images_becomes_a_refined_model(first_run: Path) -> None:
    out = first_run / "out"
    names = ["database.db", "model", "refined.db", "report", "report.json", "sparse", "steps.json"]
    assert sorted(os.listdir(out)) == names
    assert sorted(os.listdir(out / "model")) == sorted(os.listdir(out / "sparse" / "0")) == MODEL
    model = pycolmap.Reconstruction(out / "model")
    assert model.num_reg_images() == 4
    assert model.num_points3D() > 300
    steps = json.loads((out / "report.json").read_text())["steps"]
    assert list(steps) == ["features", "matches", "keypoints", "mapping", "adjustment", "report"]
    sampson = steps["report"]["sampson"]
    assert sampson["model"] < 0.5 * sampson["raw"]
    assert sampson["keypoints refined"] < 0.5 * sampson["raw"]
    assert steps["adjustment"]["reprojection_error"] < steps["mapping"]["reprojection_error"]
    assert all(step["seconds"] > 0 and step["peak_memory_mb"] > 50 for step in steps.values())


def test_pictures_are_drawn(first_run: Path) -> None:
    names = ["camera_path", "epipolar_residuals", "keypoint_shifts_1", "keypoint_shifts_2"]
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (first_run / "out" / "report").iterdir()}
    assert sorted(pictures) == names
    for pixels in pictures.values():
        assert pixels.shape[1] > 500
        assert 0.002 < (pixels != 255).any(axis=2).mean() < 0.9


def test_nothing_is_done_twice(run: Run, first_run: Path, finished: Path) -> None:
    before = bytes_of(finished / "model")
    again = run("reconstructor", "--image_path", first_run / "images", "--output_path", finished, *SMALL)
    assert again.code == 0
    assert again.out.count("was there") == 6
    assert again.err.count("nothing has changed") == 6
    assert bytes_of(finished / "model") == before


def test_a_changed_option_repeats_what_follows_from_it(run: Run, first_run: Path, finished: Path) -> None:
    paths = ["--image_path", first_run / "images", "--output_path", finished, *SMALL]
    changed = run("reconstructor", *paths, "--Mapper.init_min_tri_angle", "8")
    assert changed.again == [
        "mapping again: Mapper.init_min_tri_angle is 8.0, was 16.0",
        "adjustment again: the step mapping has changed",
        "report again: the step adjustment has changed",
    ]
    threads = run("reconstructor", *paths, *("--Mapper.init_min_tri_angle", "8"), *_threads(1))
    assert threads.again == []  # the number of threads changes nothing
    off = ["--FeaturemetricBundleAdjustment.apply", 0, "--KeypointAdjustment.apply", 0]
    plain = run("reconstructor", *paths, *off, "--Reconstruction.report_pictures", 0)
    assert plain.code == 0
    assert plain.again[0] == "mapping again: Mapper.init_min_tri_angle is 16.0, was 8.0, and 1 more"
    assert not (finished / "refined.db").exists()
    assert not (finished / "report").exists()
    assert bytes_of(finished / "model") == bytes_of(finished / "sparse" / "0")


def test_a_refinement_that_was_switched_off_is_done_again(run: Run, first_run: Path, finished: Path) -> None:
    paths = ["--image_path", first_run / "images", "--output_path", finished, *SMALL]
    refined = bytes_of(finished / "model")
    assert run("reconstructor", *paths, "--FeaturemetricBundleAdjustment.apply", 0).code == 0
    assert bytes_of(finished / "model") == bytes_of(finished / "sparse" / "0") != refined
    assert run("reconstructor", *paths).again[0] == "adjustment again: the step model was done since"
    assert bytes_of(finished / "model") == refined
    unrefined = run("reconstructor", *paths, "--KeypointAdjustment.apply", 0)
    assert unrefined.again[0] == "mapping again: it follows matches, not keypoints"


def _threads(number: int) -> list[object]:
    names = ("KeypointAdjustment", "DenseFeatures", "BundleAdjustmentCeres", "FeatureExtraction")
    return [word for name in names for word in (f"--{name}.num_threads", number)]


def test_changed_images_and_lost_results_are_noticed(run: Run, first_run: Path, images: Path, tmp_path: Path):
    out = tmp_path / "out"
    off = ["--FeaturemetricBundleAdjustment.apply", 0, "--KeypointAdjustment.apply", 0]
    paths = ["--image_path", images, "--output_path", out, *SMALL, *off]
    assert run("reconstructor", *paths).code == 0
    for image in images.iterdir():
        os.utime(image)
    assert run("reconstructor", *paths).again == []  # another time, but the same bytes
    shutil.rmtree(out / "sparse")
    assert run("reconstructor", *paths).again == [
        "mapping again: its result sparse is gone",
        "model again: the step mapping was done since",
        "report again: the step mapping was done since",
    ]
    with Image.open(images / "0001.jpg") as image:
        image.save(images / "0001.jpg", quality=80)
    changed = run("reconstructor", *paths)
    assert changed.again[0] == "features again: 0001.jpg has changed"
    assert len(changed.again) == 5


@pytest.mark.parametrize("step", ["refine_database", "map_images", "refine_model"])
def test_an_interrupted_step_is_done_again(
    run: Run, first_run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    name, result = {
        "refine_database": ("keypoints", "refined.db"),
        "map_images": ("mapping", "sparse"),
        "refine_model": ("adjustment", "model"),
    }[step]
    colmap.remove(finished / result)
    paths = ["--image_path", first_run / "images", "--output_path", finished, *SMALL, *_threads(1)]

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(colmap if hasattr(colmap, step) else reconstruct_module, step, interrupted)
        assert run("reconstructor", *paths).code == 130
    assert not list(finished.glob(".pixcli*"))
    resumed = run("reconstructor", *paths)
    assert resumed.again[0] == f"{name} again: it was not finished"
    assert all(line.endswith(f"again: the step {name} was done since") for line in resumed.again[1:])
    assert bytes_of(finished / "sparse" / "0") == bytes_of(first_run / "out" / "sparse" / "0")
    model, expected = (pycolmap.Reconstruction(out / "model") for out in (finished, first_run / "out"))
    for image_id, image in expected.images.items():
        pose = model.images[image_id].cam_from_world()
        assert np.allclose(pose.matrix(), image.cam_from_world().matrix(), atol=1e-6)


def test_killed_while_it_matches_the_same_command_goes_on(run: Run, first_run: Path, finished: Path) -> None:
    state = json.loads((finished / "steps.json").read_text())
    state["steps"]["matches"]["done"] = False
    (finished / "steps.json").write_text(json.dumps(state))
    with pycolmap.Database.open(finished / "database.db") as database:
        pairs = [pycolmap.pair_id_to_image_pair(pair_id) for pair_id in database.read_num_matches()[0]]
        database.delete_matches(*pairs[0])
        database.delete_two_view_geometry(*pairs[0])
    resumed = run("reconstructor", "--image_path", first_run / "images", "--output_path", finished, *SMALL)
    assert resumed.again[:2] == [
        "matches again: it was not finished",
        "keypoints again: the step matches was done since",
    ]
    with (
        pycolmap.Database.open(finished / "database.db") as database,
        pycolmap.Database.open(first_run / "out" / "database.db") as expected,
    ):
        for pair in pairs:
            assert (database.read_matches(*pair) == expected.read_matches(*pair)).all()


def test_cameras_of_a_database_can_be_held(run: Run, small_scene, tmp_path: Path) -> None:
    paths = ["--image_path", small_scene.path / "images", "--output_path", tmp_path / "out"]
    before = small_scene.database_path.read_bytes()
    database = ["--database_path", small_scene.database_path]
    assert run("reconstructor", *paths, *database, *FIXED, "--mapper", "incremental").code == 0
    assert small_scene.database_path.read_bytes() == before
    model = pycolmap.Reconstruction(tmp_path / "out" / "model")
    mapped = pycolmap.Reconstruction(tmp_path / "out" / "sparse" / "0")
    for camera in model.cameras.values():
        true = small_scene.truth.images[1].camera.model
        assert camera.model == true
        assert any((camera.params == other.params).all() for other in small_scene.truth.cameras.values())
    raw = tmp_path / "raw"
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    paths = ["--image_path", small_scene.path / "images", "--output_path", raw]
    assert run("reconstructor", *paths, *database, *FIXED, *off).code == 0
    plain = center_errors(small_scene.truth, pycolmap.Reconstruction(raw / "model")).mean()
    assert center_errors(small_scene.truth, mapped).mean() < plain
    assert center_errors(small_scene.truth, model).mean() < 0.5 * plain


def test_a_database_of_images_alone_gets_features(
    run: Run, small_scene, images: Path, tmp_path: Path
) -> None:
    database = tmp_path / "cameras.db"
    pycolmap.Database.open(database).close()
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params="400,401,200,150")
    pycolmap.import_images(database, images, pycolmap.CameraMode.SINGLE, [], reader)
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    paths = ["--image_path", images, "--database_path", database, "--output_path", tmp_path / "out"]
    assert run("reconstructor", *paths, *SMALL, *off, *FIXED).code == 0
    cameras = pycolmap.Reconstruction(tmp_path / "out" / "model").cameras
    assert [camera.params.tolist() for camera in cameras.values()] == [[400.0, 401.0, 200.0, 150.0]]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_database_gets_what_it_lacks(
    run: Run,
    first_run: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,
) -> None:
    database = tmp_path / "some.db"
    shutil.copy(first_run / "out" / "database.db", database)
    with pycolmap.Database.open(database) as opened:
        if interrupted:
            opened.clear_keypoints()
            opened.clear_descriptors()
            opened.clear_matches()
            opened.clear_two_view_geometries()
        else:
            image = next(image for image in opened.read_all_images() if image.name == "0003.jpg")
            for other in range(1, 5):
                if other != image.image_id:
                    opened.delete_matches(image.image_id, other)
                    opened.delete_two_view_geometry(image.image_id, other)
    if not interrupted:
        with closing(sqlite3.connect(database)) as connection, connection:
            for table in ("keypoints", "descriptors"):
                connection.execute(f"DELETE FROM {table} WHERE image_id = ?", (image.image_id,))
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    paths = ["--image_path", images, "--database_path", database, "--output_path", tmp_path / "out"]
    if interrupted:  # when half of the images have features

        def extract_two(database: Path, folder: Path, names: list[str], *others: object) -> None:
            extract(database, folder, names[:2], *others)
            raise KeyboardInterrupt

        extract = colmap.extract_features
        with monkeypatch.context() as context:
            context.setattr(colmap, "extract_features", extract_two)
            assert run("reconstructor", *paths, *SMALL, *off).code == 130
    result = run("reconstructor", *paths, *SMALL, *off)
    assert result.code == 0, result.err
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as opened:
        assert all(opened.num_keypoints_for_image(i.image_id) > 500 for i in opened.read_all_images())
        assert opened.num_matched_image_pairs() == 6
    assert pycolmap.Reconstruction(tmp_path / "out" / "model").num_reg_images() == 4


def test_options_of_colmap_pass_through(run: Run, images: Path, tmp_path: Path) -> None:
    shutil.move(images / "0003.jpg", tmp_path)  # three in a row suffice
    options = [
        *("--ImageReader.camera_model", "SIMPLE_PINHOLE", "--ImageReader.single_camera", 1),
        *("--SiftExtraction.max_num_features", 700, "--SiftMatching.max_ratio", 0.7),
        *("--matcher", "sequential", "--SequentialMatching.overlap", 1),
        *("--SequentialMatching.quadratic_overlap", 0, "--TwoViewGeometry.min_num_inliers", 20),
        *("--mapper", "global", "--GlobalMapper.min_num_matches", 16),
        *("--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0),
    ]
    out = tmp_path / "out"
    result = run("reconstructor", "--image_path", images, "--output_path", out, *options)
    assert result.code == 0, result.err
    with pycolmap.Database.open(out / "database.db") as database:
        assert [camera.model.name for camera in database.read_all_cameras()] == ["SIMPLE_PINHOLE"]
        assert database.num_keypoints() <= 3 * 1400  # a keypoint may have two orientations
        assert database.num_matched_image_pairs() == 2
    assert pycolmap.Reconstruction(out / "model").num_reg_images() >= 2


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (["--matcher", "vocab_tree", "--VocabTreeMatching.num_images", 2], range(2, 6)),
        (["--matcher", "sequential", "--SequentialMatching.overlap", 1], [3]),
        (
            [
                *("--matcher", "sequential", "--SequentialMatching.overlap", 1),
                *("--SequentialMatching.loop_detection", 1, "--SequentialMatching.loop_detection_period", 1),
            ],
            [6],
        ),
    ],
)
def test_images_are_retrieved_or_follow_each_other(
    run: Run, first_run: Path, finished: Path, options: list, pairs: Sequence[int]
) -> None:
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    off += ["--Reconstruction.report_pictures", 0, "--SequentialMatching.quadratic_overlap", 0]
    paths = ["--image_path", first_run / "images", "--output_path", finished]
    result = run("reconstructor", *paths, *SMALL, *off, *options)
    assert result.code == 0, result.err
    with pycolmap.Database.open(finished / "database.db") as database:
        assert database.num_matched_image_pairs() in pairs


def test_keypoints_and_matches_without_descriptors_are_verified(run: Run, first_run: Path, tmp_path: Path):
    database = tmp_path / "matched.db"
    database_without_geometries(first_run / "out" / "database.db", database)
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out"]
    assert run("reconstructor", *paths, "--database_path", database, *off).code == 0
    assert pycolmap.Reconstruction(tmp_path / "out" / "model").num_reg_images() == 4
