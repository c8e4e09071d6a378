"""`pixcli featuremetric_bundle_adjuster` on input that it cannot use: one line, exit 1, nothing changed."""

import shutil
import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pycolmap

GROUP = "--FeaturemetricBundleAdjustment"
GEOMETRIC = (f"{GROUP}.strategy", "geometric")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["cameras", "frames", "images", "points3D", "rigs"])
def test_truncated_files(model_workplace, name: str) -> None:
    truncate(model_workplace.model / f"{name}.bin")
    model_workplace.assert_refused(expected=(str(model_workplace.model), "is damaged"))


def test_no_model(model_workplace, tmp_path: Path) -> None:
    for file in model_workplace.model.iterdir():
        file.unlink()
    model_workplace.assert_refused(expected=("is no COLMAP model",))
    model_workplace.model.rmdir()
    model_workplace.assert_refused(expected=("there is no folder", "--input_path"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("images", "is damaged"), ("points3D", "is damaged"), ("cameras", "but its camera has 1024x768")],
)
def test_files_of_different_models(model_workplace, tmp_path: Path, name: str, message: str) -> None:
    other = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_points3D=50))
    (tmp_path / "other").mkdir()
    other.write_binary(str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / f"{name}.bin", model_workplace.model)
    model_workplace.assert_refused(expected=(message,))


def test_an_observation_that_no_point_knows(model_workplace) -> None:
    def drop(model: pycolmap.Reconstruction) -> None:
        point = next(point for _, point in sorted(model.points3D.items()) if point.track.length() > 2)
        point.track = pycolmap.Track(list(point.track.elements)[1:])

    model_workplace.change(drop)
    model_workplace.assert_refused(expected=("inconsistent", "observations"))


def deregister(model: pycolmap.Reconstruction) -> None:
    for frame_id in list(model.reg_frame_ids()):
        model.deregister_frame(frame_id)


def delete_points(model: pycolmap.Reconstruction) -> None:
    for point_id in model.point3D_ids():
        model.delete_point3D(point_id)


def shorten_tracks(model: pycolmap.Reconstruction) -> None:
    for point in model.points3D.values():
        first, *others = point.track.elements
        point.track = pycolmap.Track([first])
        for element in others:
            model.images[element.image_id].reset_point3D_for_point2D(element.point2D_idx)


def move_observation(xy: tuple[float, float]):
    def change(model: pycolmap.Reconstruction) -> None:
        image = min(model.images.values(), key=lambda image: image.name)
        next(point for point in image.points2D if point.has_point3D()).xy = np.array(xy)

    return change


def turn_nan(what: str):
    def change(model: pycolmap.Reconstruction) -> None:
        if what == "pose":
            frame = model.frames[min(model.frames)]
            rotation = frame.rig_from_world.rotation
            frame.rig_from_world = pycolmap.Rigid3d(rotation, np.array([np.nan, 0, 0]))
        elif what == "point":
            model.points3D[min(model.point3D_ids())].xyz = np.full(3, np.nan)
        else:
            camera = model.cameras[min(model.cameras)]
            camera.params = np.full(len(camera.params), np.nan)

    return change


def reverse_cameras(model: pycolmap.Reconstruction) -> None:
    """All points are behind them."""
    half_turn = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.0, 1.0, 0.0, 0.0])), np.zeros(3))
    for frame in model.frames.values():
        frame.rig_from_world = half_turn * frame.rig_from_world


MODELS = {
    "no registered images": (deregister, "no registered images"),
    "no points": (delete_points, "no 3D points"),
    "tracks of one observation": (shorten_tracks, "no point of the model has 2 observations"),
    "outside the image": (
        move_observation((500.0, 20.0)),
        "lies at (500, 20), outside of its 400x300 pixels",
    ),
    "beyond the border": (move_observation((20.0, -1.01)), "lies at (20, -1.01), outside"),
    "nowhere": (move_observation((np.nan, 20.0)), "lies at (nan, 20), outside"),
    "pose": (turn_nan("pose"), "the pose of image 0000.jpg is not finite"),
    "point": (turn_nan("point"), "is not finite"),
    "camera": (turn_nan("camera"), "the parameters of camera 1 are not finite"),
    "projection": (reverse_cameras, "projects none of its"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_cannot_be_refined(model_workplace, case: str) -> None:
    change, message = MODELS[case]
    model_workplace.change(change)
    model_workplace.assert_refused(expected=(message,))


def test_single_points_of_one_observation_stay_as_they_are(model_workplace) -> None:
    def shorten(model: pycolmap.Reconstruction) -> None:
        point_id = min(model.point3D_ids())
        first, *others = model.points3D[point_id].track.elements
        model.points3D[point_id].track = pycolmap.Track([first])
        for element in others:
            model.images[element.image_id].reset_point3D_for_point2D(element.point2D_idx)

    model_workplace.change(shorten)
    before = pycolmap.Reconstruction(model_workplace.model)
    after = model_workplace.refine(f"{GROUP}.rounds", 1)
    point_id = min(before.point3D_ids())
    np.testing.assert_array_equal(after.points3D[point_id].xyz, before.points3D[point_id].xyz)
    assert after.points3D[point_id].track.length() == 1


@pytest.mark.parametrize("xy", [(20.0, -0.05), (400.95, 20.0)])
def test_detectors_may_go_slightly_beyond_the_border(model_workplace, xy: tuple[float, float]) -> None:
    model_workplace.change(move_observation(xy))
    model_workplace.refine(f"{GROUP}.rounds", 1)


def test_outputs_that_would_replace_an_input_or_each_other(model_workplace) -> None:
    work, list_path = model_workplace, model_workplace.temporary / "list.txt"
    list_path.write_text("0000.jpg")
    one = work.temporary / "one"
    database = ("--database_path", work.database)
    for options, taken, option in (
        (("--report_path", one, "--covariance_path", one), "--covariance_path", "--report_path"),
        (
            ("--references_path", one, "--write_normals_path", one),
            "--references_path",
            "--write_normals_path",
        ),
        ((*database, "--covariance_path", work.database), "--database_path", "--covariance_path"),
        (
            (*database, "--output_database_path", one, "--report_path", work.temporary / "." / "one"),
            "--output_database_path",
            "--report_path",
        ),
        (
            ("--constant_image_list_path", list_path, "--write_normals_path", list_path),
            "--constant_image_list_path",
            "--write_normals_path",
        ),
        (
            ("--report_path", work.temporary / "r.json", "--covariance_path", work.temporary / "r.png"),
            "--covariance_path",
            "--report_path, whose picture this is",
        ),
    ):
        work.assert_refused(*options, expected=(f"is {taken} already", f"another {option}"))
    assert list_path.read_text() == "0000.jpg"
    assert not one.exists()


@pytest.mark.parametrize("options", [(), GEOMETRIC])
def test_images(model_workplace, tmp_path: Path, options: tuple[str, ...]) -> None:
    first = model_workplace.own_images()[0]
    with Image.open(first) as image:
        image.resize((200, 150)).save(first)
    model_workplace.assert_refused(
        *options, expected=(str(first), "the image is 200x150, but its camera has 400x300")
    )
    first.write_bytes(b"no image")
    model_workplace.assert_refused(*options, expected=(str(first), "cannot be read"))
    first.unlink()
    model_workplace.assert_refused(*options, expected=(str(first), "no such image", "allow_missing_images"))
    model_workplace.assert_refused(*options, "--image_path", tmp_path / "none", expected=("--image_path",))


def test_no_image_at_all_is_an_error_even_where_some_may_be_missing(model_workplace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    options = (f"{GROUP}.allow_missing_images", 1, "--image_path", tmp_path / "empty")
    model_workplace.assert_refused(*options, expected=("none of the images",))


def test_outputs(model_workplace, tmp_path: Path) -> None:
    place = model_workplace.model.parent
    (place / "file").write_text("in the way")
    model_workplace.assert_refused(output=place / "file", expected=("is no folder",))
    model_workplace.assert_refused(output=place / "file" / "model", expected=("there is no folder",))
    model_workplace.assert_refused(output=place / "none" / "model", expected=("there is no folder",))
    model_workplace.assert_refused(output=model_workplace.model, expected=("is the input", "overwrite"))
    model_workplace.assert_refused("--report_path", place, expected=("is a folder",))


def test_databases_of_other_models(model_workplace) -> None:
    database = ("--database_path", model_workplace.database)
    with pycolmap.Database.open(model_workplace.database) as content:
        image = content.read_all_images()[0]
        rows = content.read_keypoints(image.image_id)
        content.update_keypoints(image.image_id, rows + np.float32([30] + [0] * (rows.shape[1] - 1)))
    far = ("does not belong to the model", image.name, "30 pixels")
    model_workplace.assert_refused(*database, expected=far)
    with pycolmap.Database.open(model_workplace.database) as content:
        content.update_keypoints(image.image_id, rows[:-1])
    other = ("does not belong to the model", f"{image.name} has {len(rows) - 1} keypoints")
    model_workplace.assert_refused(*database, expected=other)
    with pycolmap.Database.open(model_workplace.database) as content:
        image.name = "other.png"
        content.update_image(image)
    model_workplace.assert_refused(*database, expected=("does not belong to the model", "has no image"))


NEEDS = {
    f"{GROUP}.num_loops": 1,
    "--PosePrior.use_prior_position": 1,
    "--output_database_path": "refined.db",
}


@pytest.mark.parametrize("option", NEEDS)
def test_options_that_need_a_database(model_workplace, option: str) -> None:
    model_workplace.assert_refused(option, NEEDS[option], expected=("--database_path is missing", option))


def test_databases_that_cannot_be_written(model_workplace) -> None:
    database = ("--database_path", model_workplace.database)
    completed = (f"{GROUP}.write_completed", "database")
    model_workplace.assert_refused(*completed, expected=("--output_database_path is missing",))
    in_place = ("--output_database_path", model_workplace.database)
    model_workplace.assert_refused(*database, *in_place, expected=("is the input", "overwrite 1"))
    model_workplace.output_database.write_bytes(b"precious")
    there = ("--output_database_path", model_workplace.output_database)
    model_workplace.assert_refused(*database, *there, expected=("exists already",))
    priors = ("--PosePrior.use_prior_position", 1)
    model_workplace.assert_refused(*database, *priors, expected=("positions of 0 of the images",))


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        (
            "constant_image_list_path",
            "0003.png",
            "line 1: there is no image 0003.png; did you mean 0003.jpg?",
        ),
        ("constant_camera_list_path", "# ids\n77", "line 2: the model has no camera 77"),
        ("constant_rig_list_path", "first", "line 1: expected the id of a rig, not first"),
        ("constant_point_list_path", "123456789", "line 1: the model has no point 123456789"),
    ],
)
def test_lists(model_workplace, option: str, content: str, message: str) -> None:
    path = model_workplace.model.parent / "list.txt"
    path.write_text(content)
    model_workplace.assert_refused(f"--{option}", path, expected=(message,))


def test_what_is_found_out_late_leaves_nothing_either(model_workplace) -> None:
    """Only decoding finds that a file is truncated."""
    truncate(model_workplace.own_images()[0])
    report = model_workplace.model.parent / "report.json"
    model_workplace.assert_refused("--report_path", report, expected=("cannot be read",))
