"""Refinement of a COLMAP model in memory: loops over its tracks, a strategy, the guard and what they tell."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pixcli.bundle_adjustment.changes import changes_between
from pixcli.bundle_adjustment.feature_rounds import adjust_by_features
from pixcli.bundle_adjustment.field_causes import explain_fields
from pixcli.bundle_adjustment.geometric import (
    adjust_keypoints,
    camera_covariances,
    scales_down_to,
)
from pixcli.bundle_adjustment.guard import ImageCost, guard_reprojections, restore_points
from pixcli.bundle_adjustment.inputs import check_observations, set_aside
from pixcli.bundle_adjustment.model_covariance import ModelCovariance, check_covariance, model_covariance
from pixcli.bundle_adjustment.model_result import ModelResult
from pixcli.bundle_adjustment.position_priors import align_to_priors
from pixcli.bundle_adjustment.problem import Constants, with_centred
from pixcli.bundle_adjustment.residual_field import ResidualField, residual_fields
from pixcli.bundle_adjustment.strategy import Adjustment, Strategy, Task
from pixcli.bundle_adjustment.surface_rounds import adjust_by_surfaces
from pixcli.bundle_adjustment.track_revision import TrackRevision, revise_tracks
from pixcli.calibration.calibrate import cameras_to_calibrate, centred_cameras, ladders_of
from pixcli.calibration.lens_report import Calibration, calibrations
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.geometry.observations import reprojection_errors
from pixcli.geometry.similarity import align
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.progress import Progress
from pixcli.sampling.model_images import image_files

import pycolmap

log = logging.getLogger(__name__)

STRATEGIES: dict[str, Strategy] = {
    "surface": adjust_by_surfaces,
    "geometric": adjust_keypoints,
    "feature_reference": adjust_by_features,
    "costmaps": adjust_by_features,
    "patch_warp": adjust_by_features,
}

_WORST_RESIDUAL = 4.0  # pixels; features may move points off their keypoints, but not by what COLMAP filters


def refine_reconstruction(
    model: pycolmap.Reconstruction,
    images: Path | str,
    options: FeaturemetricBundleAdjusterOptions = FeaturemetricBundleAdjusterOptions(),
    *,
    graph: MatchGraph | None = None,
    constants: Constants = Constants(),
    with_covariance: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> ModelResult:
    """Refine the cameras, poses and points of a COLMAP model by what its images show.

    Writes nothing, but for a cache that the options name. The model that is given stays as it is.

    Args:
        images: the folder that image names are relative to.
        graph: the verified matches that the model was mapped from, for `num_loops` over its tracks.
        constants: what is given and not to be found: what is held fixed, position priors, references.
        with_covariance: also compute the covariances of poses, points and cameras.
        in_place: refine the given model itself, which saves the memory of a copy.

    Raises:
        UserError: something about the input cannot be used, or the adjustment has lost the model.
    """
    progress = progress or Progress()
    model = model if in_place else pycolmap.Reconstruction(model)
    task = _task(model, images, options, constants, with_covariance, progress)
    before = pycolmap.Reconstruction(task.model)
    loops, parts = _loop(task, graph)
    residuals = _median_residual(before), _median_residual(task.model)
    _check_not_lost(*residuals)
    if not constants.images:  # which say that the frame is the same
        before.transform(align(before, task.model))
    costs = _guard(before, task, parts[-1])
    restored_points = restore_points(before, task.model)
    covariance = None
    if with_covariance:
        with progress.phase("covariance"):
            covariance = _covariance(task, parts[-1])
    return _result(task, before, parts, loops, costs, restored_points, residuals[0], covariance)


def _task(
    model: pycolmap.Reconstruction,
    images: Path | str,
    options: FeaturemetricBundleAdjusterOptions,
    constants: Constants,
    with_covariance: bool,
    progress: Progress,
) -> Task:
    """All checks before the work starts; a model with position priors is aligned to them."""
    how = options.featuremetric_bundle_adjustment
    if not how.apply:
        raise UserError("FeaturemetricBundleAdjustment.apply is 0: there is nothing to do")
    check_observations(model, options.bundle_adjustment.min_track_length)
    if constants.priors is not None and not constants.images:  # which say where the world is
        align_to_priors(model, constants.priors)
    given = options.bundle_adjustment
    if how.strategy == "surface":
        lenses = cameras_to_calibrate(
            model, options.calibration, options.bundle_adjustment, constants.cameras
        )
        constants = replace(constants, lenses=lenses)
        if lenses:
            free = replace(options.bundle_adjustment, refine_principal_point=True)
            options = replace(options, bundle_adjustment=free)
    if with_covariance:
        check_covariance(model, options.bundle_adjustment, constants)
    return Task(
        model,
        image_files(model, Path(images), how.allow_missing_images),
        options,
        constants,
        ladders_of(model, options.calibration, given, constants.lenses),
        last=how.num_loops == 0,
        with_residuals=with_covariance,
        progress=progress,
    )


def _loop(task: Task, graph: MatchGraph | None) -> tuple[list[TrackRevision], list[Adjustment]]:
    """Adjust, and again after each revision of the tracks."""
    log.info("%d images, %d points", len(task.images), task.model.num_points3D())
    if task.missing:
        log.warning("%d images are not on disk: they take no part, and keep their poses", len(task.missing))
    how = task.options.featuremetric_bundle_adjustment
    strategy = STRATEGIES[how.strategy]
    loops: list[TrackRevision] = []
    parts: list[Adjustment] = []
    for loop in range(how.num_loops + 1):
        if loop > 0 and graph is not None:
            with task.progress.phase("tracks"):
                loops.append(revise_tracks(task.model, graph, task.options.tracks))
            log.info("loop %d: %s", loop, loops[-1])
        with set_aside(task.model, task.missing):
            parts.append(strategy(replace(task, last=loop == how.num_loops)))
    if not parts[-1].solves[-1].converged:
        log.warning(
            "the last adjustment ended after %d iterations before it had converged: raise "
            "--BundleAdjustmentCeres.max_num_iterations",
            parts[-1].solves[-1].iterations,
        )
    return loops, parts


def _check_not_lost(before: float, after: float) -> None:
    if not after < max(_WORST_RESIDUAL, before):
        raise UserError(
            f"the adjustment has lost the model (reprojection error {before:.2g} before, "
            f"{after:.2g} pixels after), and nothing was written: try the strategy surface"
        )


def _guard(before: pycolmap.Reconstruction, task: Task, part: Adjustment) -> list[ImageCost]:
    """What images cost, before and after; those whose cost rose are back at their poses."""
    if part.costs is not None:
        return part.costs
    constants = task.constants
    held = replace(constants, images=constants.images.union(task.missing))
    refine_points = task.options.bundle_adjustment.refine_points3D
    with task.progress.phase("guard"):
        return guard_reprojections(before, task.model, part.observations, part.accepted, held, refine_points)


def _covariance(task: Task, part: Adjustment) -> ModelCovariance:
    scale = part.loss_scale
    if scale is None:
        errors = np.linalg.norm(reprojection_errors(task.model, part.observations), axis=1)[part.accepted]
        scale = scales_down_to(errors[np.isfinite(errors)])[-1]
    return model_covariance(
        task.model,
        part.observations,
        part.accepted,
        scale,
        task.options.bundle_adjustment,
        task.constants,
        part.residuals,
    )


def _result(
    task: Task,
    before: pycolmap.Reconstruction,
    parts: Sequence[Adjustment],
    loops: list[TrackRevision],
    costs: list[ImageCost],
    restored_points: int,
    residual_before: float,
    covariance: ModelCovariance | None,
) -> ModelResult:
    model, last, priors = task.model, parts[-1], task.constants.priors
    return ModelResult(
        reconstruction=model,
        adjustment=last,
        covariance=covariance,
        num_missing_images=len(task.missing),
        residual_before=residual_before,
        residual_after=_median_residual(model),
        rounds=[done for part in parts for done in part.rounds],
        solves=[solve for part in parts for solve in part.solves],
        restored_points=restored_points,
        loops=loops,
        prior_distance=None if priors is None else priors.distance(model),
        images=costs,
        changes=changes_between(before, model),
        calibrations=_calibrations(task, last),
        residual_fields=_residual_fields(task, last),
        phases=task.progress.phases,
    )


def _calibrations(task: Task, part: Adjustment) -> list[Calibration]:
    """What became of the lenses, with how well they are known."""
    if not part.lenses:
        return []
    with task.progress.phase("calibrate"):
        covariances = camera_covariances(
            task.model,
            part.observations,
            part.accepted,
            task.options.bundle_adjustment,
            with_centred(task.constants, centred_cameras(part.lenses)),
        )
        return calibrations(task.model, part.lenses, covariances, task.constants.lenses)


def _residual_fields(task: Task, part: Adjustment) -> list[ResidualField]:
    """What residuals leave in the cameras, and what would explain it."""
    with task.progress.phase("diagnose"):
        given = (task.model, part.observations, part.accepted)
        explain = partial(explain_fields, *given, task.options, task.constants)
        return residual_fields(*given, explain)


def _median_residual(model: pycolmap.Reconstruction) -> float:
    model.update_point_3d_errors()
    errors = np.array([point.error for point in model.points3D.values()])
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("nan")
