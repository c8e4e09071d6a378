"""Points are fitted to their observations robustly, at least as well as by a solver."""

from dataclasses import replace

import numpy as np
import pytest

from pixcli.geometry.observations import points_of, project, reprojection_errors
from pixcli.geometry.point_fit import cauchy, fit_points, linear_fit

import pycolmap


@pytest.mark.parametrize("scale", [0.05, 0.5])
def test_points_are_fitted_at_least_as_well_as_by_a_solver(feature_scene, scale):
    scene = feature_scene(frames=6, points=100)
    model, observations = pycolmap.Reconstruction(scene.truth), scene.observations
    rng = np.random.default_rng(0)
    observations.xy[:] = scene.projected + rng.normal(0, 0.05, scene.projected.shape)
    wrong = rng.choice(len(observations.xy), 20, replace=False)
    observations.xy[wrong] += 20
    points = np.array([model.points3D[k].xyz for k in observations.point_ids.tolist()])
    start = points + rng.normal(0, 0.01, points.shape)
    used = np.ones(len(observations.xy), bool)
    fitted, errors = fit_points(model, observations, start, used, scale)

    options = pycolmap.BundleAdjustmentOptions(refine_rig_from_world=False, refine_focal_length=False)
    options.refine_extra_params = options.print_summary = False
    options.ceres.loss_function_type, options.ceres.loss_function_scale = (
        pycolmap.LossFunctionType.CAUCHY,
        scale,
    )
    config = pycolmap.BundleAdjustmentConfig()
    for image_id, rows in observations.by_image.items():
        config.add_image(image_id)
        for row in rows.tolist():
            model.images[image_id].points2D[int(observations.keypoints[row])].xy = observations.xy[row]
    pycolmap.create_default_ceres_bundle_adjuster(options, config, model).solve()
    solved = np.linalg.norm(project(model, observations) - observations.xy, axis=1)
    assert cauchy(errors, scale).sum() <= 1.001 * cauchy(solved, scale).sum()
    assert np.median(np.linalg.norm(fitted - points, axis=1)) < np.median(
        np.linalg.norm(start - points, axis=1)
    )


def test_errors_are_taken_across_the_seam_of_spherical_images(feature_scene):
    scene = feature_scene("EQUIRECTANGULAR", [1024, 768])
    observations = replace(scene.observations, xy=scene.projected + np.array([1024 - 0.5, 0.25]))
    errors = reprojection_errors(scene.truth, observations)
    np.testing.assert_allclose(errors, np.broadcast_to([0.5, -0.25], errors.shape), atol=1e-6)
    points = points_of(scene.truth, observations)
    everything = np.ones(len(errors), bool)
    _, fitted = fit_points(scene.truth, observations, points, everything, 0.5)
    assert cauchy(fitted, 0.5).sum() <= cauchy(np.linalg.norm(errors, axis=1), 0.5).sum()


def test_a_linear_fit_lets_go_of_outliers_and_tells_its_precision():
    """Of 200 points, each seen along five random rays: noise, and one wrong observation of every point."""
    rng, views, noise = np.random.default_rng(0), 5, 0.02
    ptr = np.arange(0, 200 * views + 1, views)
    step, slope = rng.normal(0, 1, (200, 3)), rng.normal(0, 1, (200 * views, 2, 3))
    residual = -np.einsum("nij,nj->ni", slope, step.repeat(views, axis=0))
    residual += rng.normal(0, noise, residual.shape)
    residual[::views] += 50
    found, normal = linear_fit(residual, slope, ptr, (1.0, 0.25, 0.1), damping=1e-9)
    error = found - step
    good = np.linalg.norm(error, axis=1) < 0.5
    assert good.mean() > 0.95
    squares = np.einsum("pi,pij,pj->p", error, normal, error)[good] / noise**2
    assert 2 < np.median(squares) < 3.5  # chi square with three degrees: 2.4
