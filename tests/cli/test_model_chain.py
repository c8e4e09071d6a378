"""What stands around the adjustment of a model: loops over tracks, databases, priors, missing images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixcli.synthetic.evaluation import center_errors

import pycolmap

GROUP = "--FeaturemetricBundleAdjustment"
GEOMETRIC = (f"{GROUP}.strategy", "geometric")
STRATEGIES = ("surface", "geometric", "feature_reference", "costmaps", "patch_warp")
NODES = "-1,-1 0,-1 1,-1 -1,0 0,0 1,0 -1,1 0,1 1,1"


def strategy_options(strategy: str) -> tuple[object, ...]:
    """Options under which a strategy runs quickly."""
    of_features = () if strategy in ("surface", "geometric") else ("--DenseFeatures.model", "dsift")
    return (f"{GROUP}.strategy", strategy, f"{GROUP}.rounds", 1, *of_features)


def observations(model: pycolmap.Reconstruction) -> set[tuple[int, int]]:
    return {
        (image_id, row)
        for image_id, image in model.images.items()
        for row, point in enumerate(image.points2D)
        if point.has_point3D()
    }


def keypoints(database: Path) -> dict[str, np.ndarray]:
    with pycolmap.Database.open(database) as content:
        return {image.name: content.read_keypoints(image.image_id) for image in content.read_all_images()}


def descriptors(database: Path) -> dict[str, np.ndarray]:
    with pycolmap.Database.open(database) as content:
        images = content.read_all_images()
        return {image.name: np.array(content.read_descriptors(image.image_id).data) for image in images}


def assert_agree(model: pycolmap.Reconstruction, database: Path) -> None:
    """Every 2D point of the model is the keypoint of its row."""
    rows = keypoints(database)
    for image in model.images.values():
        assert image.num_points2D() == len(rows[image.name])
        xy = np.array([point.xy for point in image.points2D])
        np.testing.assert_allclose(xy, rows[image.name][:, :2], atol=1e-4)


def test_loops_complete_the_tracks(model_workplace) -> None:
    """Observations that were taken away come back, whatever has been refined before."""
    lost = []

    def edit(model: pycolmap.Reconstruction) -> None:
        points = [point for _, point in sorted(model.points3D.items()) if point.track.length() == 4]
        for point in points[:20]:
            element = point.track.elements[0]
            lost.append((element.image_id, element.point2D_idx))
            model.delete_observation(*lost[-1])

    model_workplace.change(edit)
    report = model_workplace.model.parent / "report.json"
    loops = ("--database_path", model_workplace.database, f"{GROUP}.num_loops", 2, "--report_path", report)
    after = observations(model_workplace.refine(*loops, f"{GROUP}.rounds", 1))
    told = json.loads(report.read_text())
    assert len(told["loops"]) == 2
    assert len(told["rounds"]) == 3
    assert told["loops"][0]["completed"] >= 15
    assert sum(row in after for row in lost) >= 15


def test_loops_filter_the_tracks(model_workplace) -> None:
    wrong = []

    def edit(model: pycolmap.Reconstruction) -> None:
        points = [point for _, point in sorted(model.points3D.items()) if point.track.length() == 4]
        for point in points[:5]:
            element = point.track.elements[0]
            wrong.append((element.image_id, element.point2D_idx))
            model.images[wrong[-1][0]].points2D[wrong[-1][1]].xy += np.array([0.0, 8.0])

    model_workplace.change(edit)
    loops = ("--database_path", model_workplace.database, f"{GROUP}.num_loops", 1)
    after = observations(model_workplace.refine(*loops, *GEOMETRIC))
    assert not any(row in after for row in wrong)


def test_loops_merge_tracks(model_workplace) -> None:
    """Halves of a track that are matched with each other become one point again."""

    def split(model: pycolmap.Reconstruction) -> None:
        points = [(i, point) for i, point in sorted(model.points3D.items()) if point.track.length() == 4]
        for _, point in points[:20]:
            elements = list(point.track.elements)[2:]
            halves = [pycolmap.TrackElement(e.image_id, e.point2D_idx) for e in elements]
            xyz = np.array(point.xyz)
            for element in halves:
                model.delete_observation(element.image_id, element.point2D_idx)
            model.add_point3D(xyz, pycolmap.Track(halves), np.zeros(3, np.uint8))

    model_workplace.change(split)
    report = model_workplace.model.parent / "report.json"
    loops = ("--database_path", model_workplace.database, f"{GROUP}.num_loops", 1, "--report_path", report)
    after = model_workplace.refine(*loops, *GEOMETRIC)
    assert json.loads(report.read_text())["loops"][0]["merged"] >= 40
    assert sum(point.track.length() == 4 for point in after.points3D.values()) >= 15


@pytest.mark.parametrize("strategy", STRATEGIES[1:4])
def test_loops_of_other_strategies(model_workplace, strategy: str) -> None:
    before = model_workplace.database.read_bytes()
    loops = ("--database_path", model_workplace.database, f"{GROUP}.num_loops", 1)
    run = model_workplace.run(*loops, *strategy_options(strategy))
    assert run.code == 0, run.err
    assert "loop 1: observations filtered" in run.out
    assert model_workplace.database.read_bytes() == before


def test_the_database_follows_the_model(model_workplace) -> None:
    before = model_workplace.database.read_bytes()
    database = ("--database_path", model_workplace.database)
    output = ("--output_database_path", model_workplace.output_database)
    model = model_workplace.refine(*database, *output, f"{GROUP}.rounds", 1)
    assert_agree(model, model_workplace.output_database)
    assert model_workplace.database.read_bytes() == before
    old, new = keypoints(model_workplace.database), keypoints(model_workplace.output_database)
    assert all(np.array_equal(old[name][:, 2:], new[name][:, 2:]) for name in old)
    observed = observations(model)
    moved = sum(int((old[name][:, :2] != new[name][:, :2]).any(1).sum()) for name in old)
    assert 0.5 * len(observed) < moved <= len(observed)


def test_a_database_is_updated_in_place_on_request(model_workplace) -> None:
    database = ("--database_path", model_workplace.database)
    output = ("--output_database_path", model_workplace.database, f"{GROUP}.overwrite", 1)
    model = model_workplace.refine(*database, *output, f"{GROUP}.rounds", 1)
    assert_agree(model, model_workplace.database)
    names = {path.name for path in model_workplace.model.parent.iterdir()}
    assert names == {"sparse", "database.db", "images", "refined"}


def test_completed_observations_are_appended_to_the_database(model_workplace, tmp_path: Path) -> None:
    """COLMAP itself takes the pair of model and database, and keeps every observation."""

    def thin(model: pycolmap.Reconstruction) -> None:
        for point_id in sorted(model.point3D_ids())[::2]:
            if model.points3D[point_id].track.length() == 4:
                element = model.points3D[point_id].track.elements[3]
                model.delete_observation(element.image_id, element.point2D_idx)

    model_workplace.change(thin)
    database = ("--database_path", model_workplace.database)
    output = ("--output_database_path", model_workplace.output_database)
    completed = (f"{GROUP}.write_completed", "database", f"{GROUP}.rounds", 1)
    model = model_workplace.refine(*database, *output, *completed)
    before = keypoints(model_workplace.database)
    assert_agree(model, model_workplace.output_database)
    added = sum(image.num_points2D() - len(before[image.name]) for image in model.images.values())
    assert added >= 5
    old, new = descriptors(model_workplace.database), descriptors(model_workplace.output_database)
    for image in model.images.values():
        count = len(old[image.name])
        assert len(new[image.name]) == image.num_points2D()
        np.testing.assert_array_equal(new[image.name][:count], old[image.name])
        for row in range(count, image.num_points2D()):
            # The descriptor of the same point in another image.
            track = model.points3D[image.points2D[row].point3D_id].track.elements
            others = [(model.images[e.image_id].name, e.point2D_idx) for e in track]
            assert any(
                np.array_equal(new[image.name][row], old[name][k])
                for name, k in others
                if name != image.name and k < len(old[name])
            )
    (tmp_path / "triangulated").mkdir()
    copy = tmp_path / "copy.db"
    shutil.copy(model_workplace.output_database, copy)
    again = pycolmap.triangulate_points(
        pycolmap.Reconstruction(model), copy, model_workplace.images, tmp_path / "triangulated", False
    )
    assert again.compute_num_observations() >= 0.99 * model.compute_num_observations()
    # The two are input for another refinement.
    second = model_workplace.model.parent / "second"
    pair = ("--database_path", model_workplace.output_database, "--input_path", model_workplace.output)
    run = model_workplace.run(*pair, f"{GROUP}.num_loops", 1, *GEOMETRIC, output=second)
    assert run.code == 0, run.err


def set_priors(database: Path, truth: pycolmap.Reconstruction, shift: np.ndarray, deviation: float) -> None:
    with pycolmap.Database.open(database) as content:
        for image in content.read_all_images():
            prior = pycolmap.PosePrior()
            prior.corr_data_id = image.data_id
            prior.position = 2 * truth.find_image_with_name(image.name).projection_center() + shift
            prior.position_covariance = np.eye(3) * deviation**2
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            content.write_pose_prior(prior)


@pytest.mark.parametrize("strategy", STRATEGIES[:3])
def test_position_priors_hold_the_model(small_scene, model_workplace, strategy: str) -> None:
    """The model takes scale and place of the priors; tight ones hold its cameras where they are."""
    shift = np.array([500.0, -200.0, 30.0])
    set_priors(model_workplace.database, small_scene.truth, shift, 1e-5)
    priors = ("--database_path", model_workplace.database, "--PosePrior.use_prior_position", 1)
    model = model_workplace.refine(*priors, *strategy_options(strategy))
    for image in model.images.values():
        expected = 2 * small_scene.truth.find_image_with_name(image.name).projection_center() + shift
        np.testing.assert_allclose(image.projection_center(), expected, atol=1e-3)


def test_wide_priors_leave_the_adjustment_alone(small_scene, model_workplace) -> None:
    set_priors(model_workplace.database, small_scene.truth, np.zeros(3), 10.0)
    priors = ("--database_path", model_workplace.database, "--PosePrior.use_prior_position", 1)
    model = model_workplace.refine(*priors)
    before = pycolmap.Reconstruction(model_workplace.model)
    truth = small_scene.truth
    assert center_errors(truth, model).mean() < 0.5 * center_errors(truth, before).mean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_missing_images_are_skipped_and_stay(model_workplace, strategy: str) -> None:
    first, *_ = model_workplace.own_images()
    first.unlink()
    before = pycolmap.Reconstruction(model_workplace.model)
    options = [f"{GROUP}.allow_missing_images", 1, *strategy_options(strategy)]
    if strategy == "patch_warp":
        options += ["--Interpolation.nodes", NODES]
    run = model_workplace.run(*options)
    assert run.code == 0, run.err
    assert "1 images are not on disk" in run.err
    after = pycolmap.Reconstruction(model_workplace.output)
    old, new = (model.find_image_with_name(first.name) for model in (before, after))
    np.testing.assert_array_equal(old.cam_from_world().matrix(), new.cam_from_world().matrix())
    assert [(p.point3D_id, *p.xy) for p in old.points2D] == [(p.point3D_id, *p.xy) for p in new.points2D]
    assert after.compute_num_observations() == before.compute_num_observations()
    moved = [
        name
        for name in (image.name for image in before.images.values())
        if not np.array_equal(
            *(model.find_image_with_name(name).cam_from_world().matrix() for model in (before, after))
        )
    ]
    assert moved


def test_lists_hold_cameras_and_points(model_workplace) -> None:
    place = model_workplace.model.parent
    before = pycolmap.Reconstruction(model_workplace.model)
    points = sorted(before.point3D_ids())[:50]
    (place / "points.txt").write_text("# fixed\n" + "\n".join(map(str, points)))
    (place / "cameras.txt").write_text("1\n")
    lists = ("--constant_camera_list_path", place / "cameras.txt")
    lists += ("--constant_point_list_path", place / "points.txt")
    free = ("--BundleAdjustment.refine_focal_length", 1)
    after = model_workplace.refine(*GEOMETRIC, *lists, *free)
    np.testing.assert_array_equal(before.cameras[1].params, after.cameras[1].params)
    assert not np.array_equal(before.cameras[2].params, after.cameras[2].params)
    for point_id in points:
        np.testing.assert_array_equal(before.points3D[point_id].xyz, after.points3D[point_id].xyz)
    loose = [i for i in before.point3D_ids() if i not in points]
    assert any(not np.array_equal(before.points3D[i].xyz, after.points3D[i].xyz) for i in loose)


def test_text_models_are_written_on_request_and_replace_binary_ones(model_workplace) -> None:
    model_workplace.refine(*GEOMETRIC)
    (model_workplace.output / "project.ini").write_text("of somebody else")
    again = ("--output_type", "txt", f"{GROUP}.overwrite", 1)
    model_workplace.refine(*GEOMETRIC, *again)
    names = sorted(path.name for path in model_workplace.output.iterdir())
    assert names == ["cameras.txt", "frames.txt", "images.txt", "points3D.txt", "project.ini", "rigs.txt"]
