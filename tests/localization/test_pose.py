"""Poses from exact and noisy sightings: several cameras, rigs, intrinsics, covariance; and the guard."""

from dataclasses import replace

import numpy as np
import pytest

from pixcli.localization.first_pose import FirstPose, Matches, find_first_pose
from pixcli.localization.objections import objection
from pixcli.localization.pose import Sightings, refine_pose
from pixcli.localization.query_pose import QueryPose
from pixcli.localization.rig_state import (
    RefinedIntrinsics,
    RefinedPose,
    RigState,
    Sensor,
    difference,
    project,
)
from pixcli.options import AbsolutePoseOptions

import pycolmap

SCALES = (5.0, 2.0, 1.0)
POSE = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.3, -0.2, 0.1])), np.array([0.2, -0.1, 0.4]))
CAMERAS = {
    "PINHOLE": [500, 510, 320, 240],
    "SIMPLE_RADIAL": [500, 320, 240, -0.1],
    "OPENCV": [500, 510, 320, 240, -0.1, 0.02, 1e-3, -1e-3],
    "OPENCV_FISHEYE": [400, 400, 320, 240, 0.01, -0.002, 0, 0],
}


def camera_of(model):
    return pycolmap.Camera(model=model, width=640, height=480, params=CAMERAS[model])


def sensors_of(model, number=1):
    side = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0, 0.9, 0])), np.array([-0.3, 0, 0.05]))
    return [Sensor(camera_of(model), pose) for pose in (pycolmap.Rigid3d(), side)[:number]]


def sightings_of(sensors, number, rng, noise=0.0):
    """Points in front of each sensor, and where it sees them, with noise of this deviation (pixels)."""
    out = []
    for sensor in sensors:
        rays = np.c_[rng.uniform(-0.5, 0.5, (number, 2)), np.ones(number)] * rng.uniform(2, 5, (number, 1))
        points = np.asarray((sensor.cam_from_rig * POSE).inverse() * rays)
        xy = project(sensor, POSE, points)
        deviation = noise * rng.uniform(0.5, 2, (number, 2)) if noise else np.ones((number, 2))
        if noise:
            xy = xy + deviation * rng.standard_normal((number, 2))
        covariance = np.c_[deviation[:, 0] ** 2, np.zeros(number), deviation[:, 1] ** 2]
        out.append(Sightings(points, xy, covariance))
    return out


def start(rng, size=0.01):
    turn = pycolmap.Rotation3d(size * rng.standard_normal(3))
    return pycolmap.Rigid3d(turn * POSE.rotation, POSE.translation + size * rng.standard_normal(3))


@pytest.mark.parametrize("model", CAMERAS)
@pytest.mark.parametrize("number", [1, 2])
def test_exact_sightings_give_the_exact_pose(model, number):
    rng = np.random.default_rng(0)
    sensors = sensors_of(model, number)
    sightings = sightings_of(sensors, 60, rng)
    refined = refine_pose(RigState(start(rng), sensors), sightings, SCALES, RefinedIntrinsics())
    assert np.abs(difference(POSE, refined.state.rig_from_world)).max() < 1e-7
    assert refined.cost_after < 1e-9 < refined.cost_before


@pytest.mark.parametrize("model", CAMERAS)
def test_intrinsics_come_back_on_request(model):
    rng = np.random.default_rng(1)
    (sensor,) = sensors_of(model)
    sightings = sightings_of([sensor], 400, rng)
    wrong = camera_of(model)
    wrong.params = np.array(wrong.params) * np.where(np.array(wrong.params) > 1, 1.01, 0.9)
    everything = RefinedIntrinsics(True, True, True)
    refined = refine_pose(
        RigState(POSE, [Sensor(wrong, sensor.cam_from_rig)]), sightings, (1e4, 1e2, 1.0), everything
    )
    np.testing.assert_allclose(
        refined.state.sensors[0].camera.params, sensor.camera.params, rtol=1e-4, atol=1e-5
    )
    focal = refine_pose(
        RigState(POSE, [Sensor(wrong, sensor.cam_from_rig)]),
        sightings,
        (1e3,),
        RefinedIntrinsics(focal_length=True),
    )
    others = [i for i in range(len(wrong.params)) if i not in wrong.focal_length_idxs()]
    assert np.array_equal(focal.state.sensors[0].camera.params[others], wrong.params[others])


def test_outliers_do_not_count():
    rng = np.random.default_rng(2)
    sensors = sensors_of("OPENCV")
    (seen,) = sightings_of(sensors, 200, rng, noise=0.05)
    xy = seen.xy.copy()
    xy[::4] += rng.uniform(-30, 30, (50, 2))
    clean = refine_pose(RigState(POSE, sensors), [seen], SCALES, RefinedIntrinsics())
    spoiled = refine_pose(
        RigState(start(rng, 1e-3), sensors), [replace(seen, xy=xy)], SCALES, RefinedIntrinsics()
    )
    sd = np.sqrt(np.diag(clean.covariance))
    assert (np.abs(difference(clean.state.rig_from_world, spoiled.state.rig_from_world)) < 3 * sd).all()


@pytest.mark.parametrize("number", [1, 2])
def test_normalised_errors_are_near_one(number):
    errors = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sensors = sensors_of("OPENCV", number)
        sightings = sightings_of(sensors, 300, rng, noise=0.05)
        refined = refine_pose(RigState(start(rng, 1e-3), sensors), sightings, SCALES, RefinedIntrinsics())
        error = difference(refined.state.rig_from_world, POSE)
        errors.append(error @ np.linalg.solve(refined.covariance, error) / 6)
    assert 0.4 < np.mean(errors) < 1.3


def test_errors_that_neighbours_share_widen_the_covariance():
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sensors = sensors_of("OPENCV")
        (seen,) = sightings_of(sensors, 1000, rng, noise=0.05)
        cell = (seen.xy // 40).astype(int)
        shared = rng.normal(0, 0.05, (12, 16, 2))[np.clip(cell[:, 1], 0, 11), np.clip(cell[:, 0], 0, 15)]
        shifted = replace(seen, xy=seen.xy + shared)
        refined = refine_pose(RigState(POSE, sensors), [shifted], SCALES, RefinedIntrinsics())
        error = difference(refined.state.rig_from_world, POSE)
        errors.append(error @ np.linalg.solve(refined.covariance, error) / 6)
    assert 0.4 < np.mean(errors) < 2.5  # 15 if errors were taken for independent


def test_too_little_gives_no_pose():
    sensors = sensors_of("PINHOLE")
    (seen,) = sightings_of(sensors, 3, np.random.default_rng(0))
    assert refine_pose(RigState(POSE, sensors), [seen], SCALES, RefinedIntrinsics()) is None


@pytest.mark.parametrize("number", [1, 2])
def test_a_first_pose_agrees_with_most_matches(number):
    rng = np.random.default_rng(3)
    sensors = sensors_of("OPENCV", number)
    matches = []
    for sensor, seen in zip(sensors, sightings_of(sensors, 80, rng, noise=0.5), strict=True):
        xy = seen.xy.copy()
        xy[:30] = rng.uniform(0, 480, (30, 2))
        matches.append(Matches(sensor, xy, seen.points))
    options = AbsolutePoseOptions(estimate_focal_length=False)
    first = find_first_pose(matches, options, 0)
    assert isinstance(first, FirstPose)
    error = difference(first.pose.state.rig_from_world, POSE)
    assert np.abs(error).max() < 0.02
    assert error @ np.linalg.solve(first.pose.covariance, error) / 6 < 4
    for inliers in first.pose.inliers:
        assert inliers[30:].mean() > 0.95
        assert inliers[:30].mean() < 0.2


@pytest.mark.parametrize("number", [6, 12, 300])
def test_a_first_pose_is_as_certain_as_it_says(number):
    """With few matches too, which agree by chance; and with some that are not as precise as others."""
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sensors = sensors_of("OPENCV")
        (seen,) = sightings_of(sensors, number, rng, noise=0.3)
        coarse = rng.random(number) < 0.15
        xy = seen.xy + np.where(coarse, 3.0, 0)[:, None] * rng.standard_normal((number, 2))
        first = find_first_pose([Matches(sensors[0], xy, seen.points)], AbsolutePoseOptions(), 0)
        error = difference(first.pose.state.rig_from_world, POSE)
        errors.append(error @ np.linalg.solve(first.pose.covariance, error) / 6)
    assert 0.2 < np.median(errors) < 1.3
    assert np.mean(errors) < 4


def first_pose(sensors, covariance):
    pose = QueryPose(RigState(POSE, sensors), covariance, [np.ones(100, bool)], [])
    return FirstPose(pose, 0.5, RefinedIntrinsics())


def refined_to(pose, before=2.0, after=1.0):
    return RefinedPose(RigState(pose, sensors_of("PINHOLE")), np.eye(6), before, after)


def test_the_guard_objects_to_jumps_losses_and_costs():
    first = first_pose(sensors_of("PINHOLE"), np.eye(6) * 0.01**2)
    near = pycolmap.Rigid3d(POSE.rotation, POSE.translation + np.array([0.01, 0, 0]))
    far = pycolmap.Rigid3d(POSE.rotation, POSE.translation + np.array([0.5, 0, 0]))
    assert objection(first, refined_to(near), 80) == ""
    assert "standard deviations" in objection(first, refined_to(far), 80)
    assert "40 of 100 inliers" in objection(first, refined_to(near), 40)
    assert "raised its own cost" in objection(first, refined_to(near, 1.0, 1.1), 80)


def test_what_a_camera_does_not_fit_is_no_matter_of_single_sightings():
    """The most precise of them must not decide where all deviate by much more."""
    found, best = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sensors = sensors_of("OPENCV")
        (seen,) = sightings_of(sensors, 200, rng, noise=0.5)
        deviation = np.where(np.arange(200) % 10, 0.5, 0.01)[:, None] ** 2 * [1, 0, 1]
        claimed, known = (replace(seen, covariance=covariance) for covariance in (deviation, seen.covariance))
        errors = []
        for sightings in (claimed, known):
            refined = refine_pose(
                RigState(start(rng, 1e-3), sensors), [sightings], (5.0, 5.0), RefinedIntrinsics()
            )
            errors.append(difference(refined.state.rig_from_world, POSE))
        found.append(np.linalg.norm(errors[0]))
        best.append(np.linalg.norm(errors[1]))
    assert np.mean(found) < 1.5 * np.mean(best)  # 4.7 if claims counted
