"""Poses and keypoints from features: the truth, its covariance, rigs, intrinsics."""

from dataclasses import replace

import numpy as np
import pytest

from pixcli.localization.feature_pose import Observed, observed_at, refine_costed_pose
from pixcli.localization.feature_targets import Targets, align_keypoints
from pixcli.localization.rig_state import RefinedIntrinsics, RigState, Sensor, difference, project
from pixcli.options import InterpolationOptions, QueryKeypointAdjustmentOptions

import pycolmap

EDGE = 12
PLAIN = InterpolationOptions(l2_normalize=False)


def made_scene(model="OPENCV", sensors=1, count=120, noise=0.0, seed=0, channels=8):
    """A true pose, and for each sensor points with features that meet their references where they project to.

    Features are linear in the pixel, which bicubic sampling gives exactly; `noise` shifts those of every
    point, in pixels.
    """
    rng = np.random.default_rng(seed)
    camera = pycolmap.Camera.create_from_model_name(1, model, 500.0, 640, 480)
    params = np.array(camera.params)
    params[list(camera.extra_params_idxs())] = 0.01
    camera.params = params
    # Far from the origin of the world, as cameras of models are.
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rng.normal(0, 0.3, 3)), rng.normal(0, 5, 3))
    parts = []
    for k in range(sensors):
        turn = pycolmap.Rotation3d(np.array([0, 0.7 * k, 0]))
        sensor = Sensor(camera, pycolmap.Rigid3d(turn, np.array([0.2 * k, 0, 0])))
        in_camera = np.stack([*rng.uniform(-0.5, 0.5, (2, count)), np.ones(count)], 1)
        in_camera *= rng.uniform(2, 5, (count, 1))
        points = np.asarray((sensor.cam_from_rig * pose).inverse() * in_camera).reshape(-1, 3)
        xy = project(sensor, pose, points) + rng.normal(0, noise, (count, 2))
        corners = np.floor(xy - EDGE / 2).astype(np.int32)
        references = rng.uniform(-1, 1, (count, channels)).astype(np.float32)
        slopes = rng.uniform(-0.5, 0.5, (count, 1, 1, channels, 2))
        rows, columns = np.mgrid[:EDGE, :EDGE]
        at = np.stack([columns, rows], -1) + 0.5 + corners[:, None, None]
        data = references[:, None, None] + (slopes * (at - xy[:, None, None])[..., None, :]).sum(-1)
        level = (data.astype(np.float32), corners, np.ones((count, 2)), np.arange(count))
        parts.append((sensor, points, Targets(level, np.arange(count + 1), references), xy))
    return pose, parts


def observed_of(parts):
    return [
        Observed(points, lambda xy, targets=targets: targets.evaluate(xy, PLAIN, "cauchy", 0.5))
        for _, points, targets, _ in parts
    ]


def disturbed(pose, rng):
    turn = pycolmap.Rotation3d(rng.normal(0, 2e-3, 3))
    return pycolmap.Rigid3d(turn * pose.rotation, pose.translation + rng.normal(0, 5e-3, 3))


@pytest.mark.parametrize("model", ["SIMPLE_PINHOLE", "OPENCV", "OPENCV_FISHEYE", "FOV", "EUCM"])
@pytest.mark.parametrize("sensors", [1, 2])
def test_finds_the_true_pose(model, sensors):
    pose, parts = made_scene(model, sensors)
    start = disturbed(pose, np.random.default_rng(1))
    assert np.abs(difference(start, pose)).max() > 1e-3
    found = refine_costed_pose(
        RigState(start, [part[0] for part in parts]), observed_of(parts), RefinedIntrinsics(), 100, 1e-9
    )
    assert found is not None
    np.testing.assert_allclose(difference(found.state.rig_from_world, pose), 0, atol=1e-5)
    assert found.cost_after < 1e-5 * found.cost_before


def test_finds_intrinsics_on_request():
    pose, parts = made_scene(count=300)
    (sensor, *rest) = parts[0]
    camera = sensor.camera
    factors = np.array([1.003, 0.998, 1, 1, 0.5, 1, 1, 1])
    params = np.array(camera.params) * factors
    wrong = pycolmap.Camera(model=camera.model, width=640, height=480, params=params)
    parts = [(replace(sensor, camera=wrong), *rest)]
    arguments = (RigState(disturbed(pose, np.random.default_rng(1)), [parts[0][0]]), observed_of(parts))
    found = refine_costed_pose(*arguments, RefinedIntrinsics(True, False, True), 100, 1e-12)
    assert found is not None
    np.testing.assert_allclose(found.state.sensors[0].camera.params, camera.params, atol=5e-2)
    np.testing.assert_allclose(difference(found.state.rig_from_world, pose), 0, atol=5e-4)
    held = refine_costed_pose(*arguments, RefinedIntrinsics(), 100, 1e-12)
    assert held is not None
    np.testing.assert_array_equal(held.state.sensors[0].camera.params, params)


@pytest.mark.parametrize("kind", ["features", "reprojection"])
def test_the_covariance_is_calibrated(kind):
    squares = []
    for seed in range(30):
        pose, parts = made_scene(noise=0.3, seed=seed, count=80)
        observed = observed_of(parts)
        if kind == "reprojection":
            observed = [observed_at(points, xy) for _, points, _, xy in parts]
        found = refine_costed_pose(RigState(pose, [parts[0][0]]), observed, RefinedIntrinsics(), 100, 1e-9)
        assert found is not None
        error = difference(found.state.rig_from_world, pose)
        squares.append(error @ np.linalg.solve(found.covariance, error) / 6)
    assert 0.7 < np.mean(squares) < 1.4


def test_the_curvature_of_reprojection_is_how_its_gradient_changes():
    rng = np.random.default_rng(0)
    xy, at = rng.uniform(0, 9, (2, 50, 2))
    observed = observed_at(np.zeros((50, 3)), xy)
    step = 1e-5

    def gradients(sign):
        return np.stack([observed.evaluate(at + sign * step * axis)[:, :3] for axis in np.eye(2)], 2)

    change = (gradients(1) - gradients(-1)) / (2 * step)
    np.testing.assert_allclose(observed.curvature(at), change[:, 1:], atol=1e-7)
    np.testing.assert_allclose(observed.evaluate(at)[:, 1:3], change[:, 0], atol=1e-7)


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_points_determine_no_pose(count):
    pose, parts = made_scene(count=count)
    sensors = [part[0] for part in parts]
    assert (
        refine_costed_pose(RigState(pose, sensors), observed_of(parts), RefinedIntrinsics(), 10, 1e-6) is None
    )


def test_keypoints_move_to_their_targets():
    _, parts = made_scene(count=20)
    _, _, targets, true = parts[0]
    start = true + np.random.default_rng(3).uniform(-1, 1, true.shape)
    aligned = align_keypoints(start, [targets], QueryKeypointAdjustmentOptions(), PLAIN)
    assert aligned.moved.all()
    np.testing.assert_allclose(aligned.xy, true, atol=1e-3)
    assert aligned.cost_after < 1e-3 * aligned.cost_before
    strict = QueryKeypointAdjustmentOptions(feature_inlier_thresh=0.0)
    near = align_keypoints(start, [targets], strict, PLAIN)
    assert not near.moved.any()
    np.testing.assert_array_equal(near.xy, start)
    bounded = align_keypoints(start, [targets], QueryKeypointAdjustmentOptions(bound=0.2), PLAIN)
    assert not bounded.moved[np.abs(true - start).max(1) > 0.25].any()
    np.testing.assert_array_equal(bounded.xy[~bounded.moved], start[~bounded.moved])


def test_a_keypoint_of_several_matches_moves_once_where_they_are_stacked():
    _, parts = made_scene(count=1)
    _, _, targets, true = parts[0]
    data, corners, scales, _ = targets.level
    features = np.repeat(targets.features, 2, axis=0)
    features[1] += 0.1
    twice = [Targets((data, corners, scales, np.array([0, 0])), np.arange(3), features)]
    both = np.repeat(true, 2, axis=0)
    apart = align_keypoints(both, twice, QueryKeypointAdjustmentOptions(), PLAIN).xy
    assert np.abs(apart[0] - apart[1]).max() > 0.01
    stacked = QueryKeypointAdjustmentOptions(stack_correspondences=True)
    together = align_keypoints(both, twice, stacked, PLAIN).xy
    np.testing.assert_array_equal(together[0], together[1])
    np.testing.assert_allclose(together[0], apart.mean(axis=0), atol=1e-3)
