"""`pixcli triangulator` at the true poses of the small scene."""

from pathlib import Path

import numpy as np

from pixcli.synthetic.evaluation import surface_errors

import pycolmap

from .conftest import SMALL, Run


def same_cameras_and_poses(model: pycolmap.Reconstruction, truth: pycolmap.Reconstruction) -> bool:
    for image in truth.images.values():
        other = model.find_image_with_name(image.name)
        if not np.allclose(other.cam_from_world().matrix(), image.cam_from_world().matrix(), atol=1e-12):
            return False
        if not (other.camera.params == image.camera.params).all():
            return False
    return True


def test_points_come_close_to_the_surface_and_cameras_stay(run: Run, small_scene, tmp_path: Path) -> None:
    out, truth = tmp_path / "out", small_scene.truth
    paths = ["--image_path", small_scene.path / "images", "--reference_path", small_scene.path / "gt"]
    result = run("triangulator", *paths, "--output_path", out, *SMALL)
    assert result.code == 0, result.err
    model = pycolmap.Reconstruction(out / "model")
    assert model.num_reg_images() == 4
    assert same_cameras_and_poses(model, truth)
    off = ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    database = ["--database_path", out / "database.db"]
    raw = run("triangulator", *paths, "--output_path", tmp_path / "raw", *database, *off)
    assert raw.code == 0, raw.err
    plain = pycolmap.Reconstruction(tmp_path / "raw" / "model")
    surface = small_scene.path / "surface.npz"
    errors = [np.median(surface_errors(truth, each, surface)) for each in (model, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_a_database_under_other_ids_and_cameras_serves_too(run: Run, small_scene, tmp_path: Path) -> None:
    database = tmp_path / "database.db"
    pycolmap.Database.open(database).close()
    images = small_scene.path / "images"
    for name in (
        "0002.jpg",
        "0000.jpg",
        "0003.jpg",
        "0001.jpg",
    ):  # so that ids are not those of the reference
        reader = pycolmap.ImageReaderOptions()
        pycolmap.import_images(database, images, pycolmap.CameraMode.PER_IMAGE, [name], reader)
        pycolmap.extract_features(
            database,
            images,
            [name],
            pycolmap.CameraMode.PER_IMAGE,
            reader,
            pycolmap.FeatureExtractionOptions(),
        )
    paths = ["--image_path", images, "--reference_path", small_scene.path / "gt", "--database_path", database]
    given = [*paths, "--output_path", tmp_path / "out", "--FeaturemetricBundleAdjustment.apply", 0]
    result = run("triangulator", *given)
    assert result.code == 0, result.err
    model = pycolmap.Reconstruction(tmp_path / "out" / "model")
    assert model.num_points3D() > 300
    assert same_cameras_and_poses(model, small_scene.truth)


def test_poses_move_on_request(run: Run, small_scene, tmp_path: Path) -> None:
    paths = ["--image_path", small_scene.path / "images", "--reference_path", small_scene.path / "gt"]
    given = [*paths, "--database_path", small_scene.database_path, "--output_path", tmp_path / "out"]
    move = ["--BundleAdjustment.refine_rig_from_world", 1, "--FeaturemetricBundleAdjustment.rounds", 1]
    result = run("triangulator", *given, *move, "--KeypointAdjustment.apply", 0)
    assert result.code == 0, result.err
    assert not same_cameras_and_poses(pycolmap.Reconstruction(tmp_path / "out" / "model"), small_scene.truth)


def test_a_reference_without_some_images_or_with_others(run: Run, small_scene, tmp_path: Path) -> None:
    images = small_scene.path / "images"

    def reference(name: str, rename: dict[str, str]) -> Path:
        model = pycolmap.Reconstruction(small_scene.path / "gt")
        for image in model.images.values():
            image.name = rename.get(image.name, image.name)
        (tmp_path / name).mkdir()
        model.write_text(tmp_path / name)
        return tmp_path / name

    def refused(model: Path) -> str:
        paths = ["--image_path", images, "--reference_path", model, "--output_path", tmp_path / "out"]
        result = run("triangulator", *paths)
        assert result.code == 1
        assert not (tmp_path / "out").exists()
        return result.message

    message = refused(reference("one", {"0001.jpg": "other.jpg"}))
    assert "image other.jpg of" in message
    assert "is not in --image_path: put it there, or take it out of the model" in message
    message = refused(reference("none", {f"{k:04}.jpg": f"x{k}.jpg" for k in range(4)}))
    assert "has no pose of any of these images: its names are such as x0.jpg" in message
    assert "there is no folder" in refused(tmp_path / "nothing")
    less = pycolmap.Reconstruction(small_scene.path / "gt")
    less.deregister_frame(less.find_image_with_name("0002.jpg").frame_id)
    (tmp_path / "less").mkdir()
    less.write_text(tmp_path / "less")
    assert "has no pose of 0002.jpg: leave out what" in refused(tmp_path / "less")
    given = ["--image_path", images, "--reference_path", tmp_path / "less", "--output_path", tmp_path / "out"]
    given += ["--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0]
    assert run("triangulator", *given, *SMALL, "--Reconstruction.skip_images_without_pose", 1).code == 0
    assert pycolmap.Reconstruction(tmp_path / "out" / "model").num_reg_images() == 3
