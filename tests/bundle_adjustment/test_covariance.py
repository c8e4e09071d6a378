"""Covariances say how large errors are: normalised by them, errors of exact scenes with noise are near 1."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.feature_costs import adjust_bundle, evaluation_problem
from pixcli.bundle_adjustment.geometric import adjust_geometrically
from pixcli.bundle_adjustment.model_covariance import FeatureResiduals, check_covariance, model_covariance
from pixcli.bundle_adjustment.problem import Constants
from pixcli.errors import UserError
from pixcli.geometry.observations import read_observations
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)

import pycolmap

NOISE = 0.3  # pixels
SCALE = 0.35  # of the loss
FIXED = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
NOTHING = Constants()
CERES = BundleAdjustmentCeresOptions(function_tolerance=1e-9, num_threads=1)


def scene(frames=6, points=150, cameras_per_rig=1) -> pycolmap.Reconstruction:
    pycolmap.set_random_seed(1)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, cameras_per_rig
    options.num_frames_per_rig, options.num_points3D = frames, points
    return pycolmap.synthesize_dataset(options)


def noisy(truth: pycolmap.Reconstruction, seed: int) -> pycolmap.Reconstruction:
    rng, model = np.random.default_rng(seed), pycolmap.Reconstruction(truth)
    for _, image in sorted(model.images.items()):
        for point2D in image.points2D:
            point2D.xy = point2D.xy + rng.normal(0, NOISE, 2)
    return model


def solved(truth, seed, options=FIXED, constants=NOTHING):
    model = noisy(truth, seed)
    adjust_geometrically(model, [SCALE], options, CERES, constants)
    observations = read_observations(model)
    everything = np.ones(len(observations.xy), bool)
    return model, model_covariance(model, observations, everything, SCALE, options, constants)


def centres(model):
    return np.array([model.frames[k].rig_from_world.inverse().translation for k in sorted(model.frames)])


def errors(truth, model):
    """(f, 6) of the frames, in the axes of the covariance, and (p, 3) of the points."""
    poses = []
    for frame_id in sorted(truth.frames):
        true, ours = truth.frames[frame_id].rig_from_world, model.frames[frame_id].rig_from_world
        turn = (ours * true.inverse()).rotation
        axis_angle = 2 * np.array(turn.quat[:3]) * np.sign(turn.quat[3])
        poses.append(np.r_[axis_angle, ours.inverse().translation - true.inverse().translation])
    points = [model.points3D[k].xyz - truth.points3D[k].xyz for k in sorted(truth.points3D)]
    return np.array(poses), np.array(points)


def normalised(error, covariance):
    """Mean of the squared errors in units of the covariance, of one degree of freedom."""
    solution = np.linalg.solve(covariance, error[..., None])[..., 0]
    return (error * solution).sum(-1) / error.shape[-1]


@pytest.mark.parametrize(
    ("options", "cameras_per_rig"),
    [(FIXED, 1), (BundleAdjustmentOptions(), 1), (FIXED, 2)],
    ids=["fixed intrinsics", "refined intrinsics", "rig"],
)
def test_errors_are_as_large_as_predicted(options, cameras_per_rig):
    truth = scene(cameras_per_rig=cameras_per_rig)
    poses, points, intrinsics, deviations = [], [], [], []
    for seed in range(10):
        model, covariance = solved(truth, seed, options)
        model.transform(pycolmap.estimate_sim3d(centres(model), centres(truth)))
        of_poses, of_points = errors(truth, model)
        poses.append(normalised(of_poses, covariance.poses))
        points.append(normalised(of_points, covariance.points))
        deviations.append(covariance.deviation)
        for camera_id, camera in model.cameras.items():
            free = np.diag(covariance.cameras[camera_id]) > 0
            error = np.array(camera.params)[free] - np.array(truth.cameras[camera_id].params)[free]
            if free.any():
                intrinsics.append(normalised(error, covariance.cameras[camera_id][np.ix_(free, free)]))
    assert 0.8 < np.mean(poses) < 1.3
    assert 0.85 < np.mean(points) < 1.25
    assert 0.95 < np.mean(deviations) / NOISE < 1.2  # a robust loss costs some precision
    if options is not FIXED:
        assert 0.5 < np.mean(intrinsics) < 1.7


def test_held_images_are_exact_and_fix_the_frame():
    truth = scene()
    held = sorted(truth.images)[:2]
    constants = Constants(images=frozenset(held))
    poses, points = [], []
    for seed in range(10):
        model, covariance = solved(truth, seed, FIXED, constants)
        of_poses, of_points = errors(truth, model)
        rows = [sorted(truth.frames).index(truth.images[k].frame_id) for k in held]
        assert not covariance.poses[rows].any()
        free = np.setdiff1d(np.arange(len(of_poses)), rows)
        poses.append(normalised(of_poses[free], covariance.poses[free]))
        points.append(normalised(of_points, covariance.points))
    assert 0.75 < np.mean(poses) < 1.35
    assert 0.85 < np.mean(points) < 1.25


def test_the_units_of_the_model_do_not_matter():
    truth = scene(points=60)
    model, covariance = solved(truth, 0)
    larger = pycolmap.Reconstruction(model)
    larger.transform(pycolmap.Sim3d(10.0, pycolmap.Rotation3d(), np.array([100.0, 0, 0])))
    observations = read_observations(larger)
    everything = np.ones(len(observations.xy), bool)
    scaled = model_covariance(larger, observations, everything, SCALE, FIXED, Constants())
    np.testing.assert_allclose(scaled.points, 100 * covariance.points, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(scaled.poses[:, :3, :3], covariance.poses[:, :3, :3], rtol=1e-3, atol=1e-12)


def test_cameras_in_a_line_are_refused_before_the_work():
    model = scene()
    for place, frame_id in enumerate(sorted(model.frames)):
        pose = model.frames[frame_id].rig_from_world
        centre = np.array([1.0 * place, 0, 0])
        model.frames[frame_id].rig_from_world = pycolmap.Rigid3d(
            pose.rotation, -(pose.rotation.matrix() @ centre)
        )
    with pytest.raises(UserError, match="not in a line"):
        check_covariance(model, FIXED, Constants())
    check_covariance(model, FIXED, Constants(images=frozenset(sorted(model.images)[:2])))


@pytest.mark.parametrize("cameras_per_rig", [1, 2])
def test_features_predict_their_errors(feature_scene, cameras_per_rig):
    """The features of each observation are off by a constant: as much as its texture makes of it."""
    deviation, loss_scale = 0.1, 0.5
    poses, points, deviations = [], [], []
    for seed in range(8):
        made = feature_scene(channels=6, cameras_per_rig=cameras_per_rig, frames=6, points=120)
        rng, observations = np.random.default_rng(seed), made.observations
        made.patches.data[...] += rng.normal(0, deviation, (len(observations.xy), 1, 1, 6))
        model = pycolmap.Reconstruction(made.truth)
        options = FeaturemetricBundleAdjusterOptions(
            FeaturemetricBundleAdjustmentOptions(strategy="feature_reference", loss_scale=loss_scale),
            FIXED,
            CERES,
            interpolation=InterpolationOptions(l2_normalize=False),
        )
        level = (made.patches, made.references)
        adjust_bundle(model, observations, [level], options)
        rows = np.arange(len(observations.xy))
        problem = evaluation_problem(model, observations, level, rows, options)
        everything = np.ones(len(rows), bool)
        covariance = model_covariance(
            model, observations, everything, loss_scale, FIXED, NOTHING, FeatureResiduals(*problem.slopes())
        )
        model.transform(pycolmap.estimate_sim3d(centres(model), centres(made.truth)))
        of_poses, of_points = errors(made.truth, model)
        poses.append(normalised(of_poses, covariance.poses))
        points.append(normalised(of_points, covariance.points))
        deviations.append(covariance.deviation)
    assert 0.75 < np.mean(poses) < 1.4
    assert 0.8 < np.mean(points) < 1.3
    assert np.mean(deviations) == pytest.approx(deviation, rel=0.15)
