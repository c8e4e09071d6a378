"""An image whose own cost rose goes back to its pose, and its points follow."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.guard import guard_features, guard_reprojections, restore_points
from pixcli.bundle_adjustment.problem import Constants
from pixcli.geometry.observations import project
from pixcli.geometry.similarity import align

import pycolmap


def spoil(model: pycolmap.Reconstruction, frame_id: int, degrees: float = 0.5) -> None:
    """Turns one frame."""
    frame = model.frames[frame_id]
    turn = pycolmap.Rotation3d(np.radians(degrees) * np.array([0.6, -0.7, 0.3]))
    frame.rig_from_world = pycolmap.Rigid3d(turn, np.zeros(3)) * frame.rig_from_world


@pytest.fixture
def refined(feature_scene):
    """A model with small errors, refined to the truth in another frame, aligned; with what was observed."""

    def make(cameras_per_rig: int = 1):
        scene = feature_scene(cameras_per_rig=cameras_per_rig, frames=6, points=200)
        before, _ = scene.perturbed(degrees=0.03, position=0.002, hold=0)
        model = pycolmap.Reconstruction(scene.truth)
        turn = pycolmap.Rotation3d(np.array([0.3, -0.2, 0.5]))
        model.transform(pycolmap.Sim3d(1.7, turn, np.array([1.0, -2.0, 3.0])))
        before.transform(align(before, model))
        return scene, before, model

    return make


@pytest.mark.parametrize("cameras_per_rig", [1, 2])
def test_a_spoilt_image_goes_back(refined, cameras_per_rig, caplog):
    scene, before, model = refined(cameras_per_rig)
    frame_id = sorted(model.frames)[2]
    spoilt = {image.name for image in model.images.values() if image.frame_id == frame_id}
    spoil(model, frame_id)
    adjusted = pycolmap.Reconstruction(model)
    accepted = np.ones(len(scene.observations.xy), bool)
    costs = guard_reprojections(before, model, scene.observations, accepted, Constants())
    assert {cost.name for cost in costs if cost.restored} == spoilt
    for name in spoilt:
        assert f"{name} is back at its pose" in caplog.text
    for cost in costs:
        assert cost.after <= cost.before * 1.001 or cost.restored
    for image_id, image in model.images.items():
        source = before if image.name in spoilt else adjusted
        expected = source.images[image_id].cam_from_world().matrix()
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), expected, atol=1e-5
        )  # the rig's sensors stay
    # The points of the restored images are where they fit all images, not where the spoilt pose had them.
    errors = np.linalg.norm(project(model, scene.observations) - scene.observations.xy, axis=1)
    assert np.median(errors) < 0.3


def test_improved_images_stay(refined, caplog):
    scene, before, model = refined()
    adjusted = pycolmap.Reconstruction(model)
    accepted = np.ones(len(scene.observations.xy), bool)
    costs = guard_reprojections(before, model, scene.observations, accepted, Constants())
    assert not any(cost.restored for cost in costs)
    assert all(cost.after < 0.1 * cost.before for cost in costs)
    assert not caplog.text
    for image_id, image in model.images.items():
        expected = adjusted.images[image_id].cam_from_world().matrix()
        np.testing.assert_array_equal(image.cam_from_world().matrix(), expected)
    for point_id, point in model.points3D.items():
        np.testing.assert_array_equal(point.xyz, adjusted.points3D[point_id].xyz)


def test_constant_images_are_left_alone(refined):
    scene, before, model = refined()
    frame_id = sorted(model.frames)[2]
    spoil(model, frame_id)
    image_id = next(k for k, image in model.images.items() if image.frame_id == frame_id)
    accepted = np.ones(len(scene.observations.xy), bool)
    constants = Constants(images=frozenset([image_id]))
    costs = guard_reprojections(before, model, scene.observations, accepted, constants)
    assert not any(cost.restored for cost in costs)


def test_constant_points_stay_when_their_image_goes_back(refined):
    scene, before, model = refined()
    spoil(model, sorted(model.frames)[2])
    held = sorted(model.points3D)[::2]
    places = {k: np.array(model.points3D[k].xyz) for k in held}
    accepted = np.ones(len(scene.observations.xy), bool)
    constants = Constants(points=frozenset(held))
    costs = guard_reprojections(before, model, scene.observations, accepted, constants)
    assert sum(cost.restored for cost in costs) == 1
    for k in held:
        np.testing.assert_array_equal(model.points3D[k].xyz, places[k])


def test_a_model_that_was_spoilt_as_a_whole_comes_back_whole(refined):
    scene, before, model = refined()
    for k, frame_id in enumerate(sorted(model.frames)):
        spoil(model, frame_id, 0.5 if k % 2 else -0.5)
    for camera in model.cameras.values():
        params = np.array(camera.params)
        params[camera.focal_length_idxs()] *= 1.05
        camera.params = params
    accepted = np.ones(len(scene.observations.xy), bool)
    costs = guard_reprojections(before, model, scene.observations, accepted, Constants())
    assert all(cost.restored for cost in costs)
    for cost in costs:
        assert cost.after == pytest.approx(cost.before, rel=0.02)
    for camera_id, camera in model.cameras.items():
        np.testing.assert_array_equal(camera.params, before.cameras[camera_id].params)


def test_an_image_that_going_back_would_not_help_stays_and_is_told(refined, caplog):
    scene, before, model = refined()
    image_id = sorted(model.images)[0]
    rows = scene.observations.by_image[image_id]
    costs_by_pose = {0: 1.0, 1: 2.0, 2: 3.0}  # before, adjusted, restored

    def costs_of(state):
        costs = np.zeros(len(scene.observations.xy))
        same = np.allclose(
            state.images[image_id].cam_from_world().matrix(),
            before.images[image_id].cam_from_world().matrix(),
        )
        costs[rows[0]] = costs_by_pose[0 if state is before else 2 if same else 1]
        return costs

    counts = np.ones(len(scene.observations.xy), bool)
    costs = guard_features(before, model, scene.observations, counts, Constants(), costs_of, lambda: None)
    assert not any(cost.restored for cost in costs)
    assert (costs[0].before, costs[0].after) == (1.0, 2.0)
    assert f"{costs[0].name} costs more, and would at its old pose: 1 before, 2 adjusted" in caplog.text


def test_points_that_run_away_go_back(refined):
    _, before, model = refined()
    behind, beside, better = sorted(model.points3D)[:3]
    centre = np.mean([image.projection_center() for image in model.images.values()], axis=0)
    adjusted = {point_id: np.array(point.xyz) for point_id, point in model.points3D.items()}
    model.points3D[behind].xyz = 2 * centre - adjusted[behind]
    model.points3D[beside].xyz = adjusted[beside] + 0.2 * np.linalg.norm(adjusted[beside] - centre)
    before.points3D[better].xyz = 2 * centre - adjusted[better]
    assert restore_points(before, model) == 2
    for point_id, point in model.points3D.items():
        expected = before.points3D[point_id].xyz if point_id in (behind, beside) else adjusted[point_id]
        np.testing.assert_array_equal(point.xyz, expected)
