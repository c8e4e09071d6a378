"""COLMAP's own bundle adjustment, with a robust loss that is tightened in steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import BundleSummary, Loss, solve_problem
from pixcli.bundle_adjustment.strategy import Adjustment, Task
from pixcli.calibration.lens_priors import add_lens_priors
from pixcli.geometry.observations import Observations, read_observations, reprojection_errors
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions, BundleAdjustmentOptions

import pycolmap

FIRST_SCALES = (1.0, 0.25)
"""Pixels: scales of the Cauchy loss that a model mapped without a robust loss starts with. The first is wide
enough to bring back an image whose pose is off."""

_LOOSE = 10.0
"""How much larger the tolerance is of a solve that only leads to the next one."""


def adjust_keypoints(task: Task) -> Adjustment:
    """The strategy `geometric`: the model's own 2D observations, adjusted robustly."""
    options = task.options
    with task.progress.phase("adjust"):
        solves = adjust_geometrically(
            task.model,
            FIRST_SCALES,
            options.bundle_adjustment,
            options.bundle_adjustment_ceres,
            task.constants,
        )
    observations = read_observations(task.model, options.bundle_adjustment.min_track_length)
    return Adjustment(observations, np.ones(len(observations.image_ids), bool), solves)


def adjust_geometrically(
    model: pycolmap.Reconstruction,
    scales: Sequence[float],
    options: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants | None = None,
) -> list[BundleSummary]:
    """Adjust a model in place with Cauchy losses of these scales (pixels), one after the other.

    Only the last one is solved to the tolerance asked for. Two cameras fix the gauge, unless poses are
    constant.
    """
    constants = constants or Constants()
    if constants.priors is not None:
        return _adjust_with_priors(model, scales, options, ceres, constants)
    solves = []
    for scale in scales:
        adjuster, _priors = _problem(model, scale, options, constants)
        # COLMAP's cameras, costs and gauge; but its own solve() is deaf to Ctrl-C until it has ended.
        stage = _stage(ceres, scale == scales[-1])
        solves.append(solve_problem(adjuster.problem, model.num_reg_images(), stage))
    return solves


def camera_covariances(
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    options: BundleAdjustmentOptions,
    constants: Constants,
) -> dict[int, NDArray[np.float64]]:
    """(k, k) covariances of the parameters of calibrated cameras, as far as residuals tell.

    Of the problem that adjust_geometrically() solves last, priors of lenses included. Cameras that it does
    not determine are missing.

    Args:
        accepted: (n,) observations that say how large residuals are.
    """
    squares = np.square(reprojection_errors(model, observations)[accepted]).sum(axis=1)
    squares = squares[np.isfinite(squares)]
    scale = scales_down_to(np.sqrt(squares))[-1]
    adjuster, _priors = _problem(model, scale, options, replace(constants, priors=None))
    wanted = pycolmap.BACovarianceOptions()
    wanted.params = pycolmap.BACovarianceOptionsParams.ALL
    covariance = pycolmap.estimate_ba_covariance(wanted, model, adjuster)
    if covariance is None or not squares.size:
        return {}
    # Huber, Robust Statistics: what the loss does to the variance, for each of the two coordinates.
    weight = 1 / (1 + squares / scale**2)
    slope = np.maximum(weight - 2 * squares / scale**2 * weight**2, 0)
    variance = (squares * weight**2).mean() / (weight + slope).mean()
    result = {}
    for camera_id in _calibrated(model, constants):
        found = covariance.get_other_params_cov(model.cameras[camera_id].params)
        if found is not None:
            result[camera_id] = variance * np.asarray(found)
    return result


def _calibrated(model: pycolmap.Reconstruction, constants: Constants) -> list[int]:
    """Ids of the cameras to calibrate that the model still has: some may share one now."""
    return [k for k in sorted(constants.lenses) if model.exists_camera(k)]


def _problem(
    model: pycolmap.Reconstruction, scale: float, options: BundleAdjustmentOptions, constants: Constants
) -> tuple[pycolmap.CeresBundleAdjuster, list[Any]]:
    """COLMAP's adjuster of the model with a Cauchy loss of this scale, and what must live as long as it."""
    adjustment = pycolmap.BundleAdjustmentOptions()
    for name in (
        "refine_focal_length",
        "refine_principal_point",
        "refine_extra_params",
        "refine_rig_from_world",
        "refine_sensor_from_rig",
        "refine_points3D",
        "min_track_length",
    ):
        setattr(adjustment, name, getattr(options, name))
    adjustment.print_summary = False
    adjustment.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    adjustment.ceres.loss_function_scale = scale
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    for image_id in sorted(constants.images):
        config.set_constant_rig_from_world_pose(model.images[image_id].frame_id)
    for camera_id in sorted(constants.cameras):
        config.set_constant_cam_intrinsics(camera_id)
    for rig_id in sorted(constants.rigs):
        for sensor_id in model.rigs[rig_id].non_ref_sensors:
            config.set_constant_sensor_from_rig_pose(sensor_id)
    for point_id in sorted(constants.points):
        if model.exists_point3D(point_id):
            config.add_constant_point(point_id)
    if not constants.images:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # Some principal points may be held by their priors: COLMAP holds those of all cameras or of none.
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(adjustment, config, model)
    lenses = {k: (model.cameras[k], constants.lenses[k]) for k in _calibrated(model, constants)}
    params = {k: camera.params for k, (camera, _) in lenses.items()}  # the model's memory, as COLMAP takes it
    return adjuster, add_lens_priors(adjuster.problem, lenses, params, scale)


def _adjust_with_priors(
    model: pycolmap.Reconstruction,
    scales: Sequence[float],
    options: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
) -> list[BundleSummary]:
    """The same costs in a problem of our own: COLMAP's takes none from outside."""
    observations = read_observations(model, options.min_track_length)
    solves = []
    for scale in scales:
        problem = BundleProblem(model, observations, options, constants)
        problem.add_reprojections(observations.xy, Loss("cauchy", scale))
        problem.add_priors(scale)
        solves.append(problem.solve(_stage(ceres, scale == scales[-1])))
        problem.update(model)
    return solves


def _stage(ceres: BundleAdjustmentCeresOptions, last: bool) -> BundleAdjustmentCeresOptions:
    """The options of one of several solves."""
    return ceres if last else replace(ceres, function_tolerance=_LOOSE * ceres.function_tolerance)


def scales_down_to(residuals: NDArray[np.float64]) -> list[float]:
    """The widest scale of a robust loss, then one as tight as the residuals (pixels, at least .02).

    The widest comes first, as solves that start with a tight one stop early. Steps between the two would only
    take time.
    """
    first = FIRST_SCALES[-1]
    finite = residuals[np.isfinite(residuals)]
    last = float(np.clip(np.median(finite), 0.02, first)) if finite.size else first
    return [first, last]
