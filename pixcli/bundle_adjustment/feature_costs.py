"""The strategies of bundle adjustment that compare features with references, and COLMAP's own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import BundleSummary, Loss
from pixcli.bundle_adjustment.view_warps import frontal_warps, reference_rows
from pixcli.geometry.observations import Observations
from pixcli.io.patch_store import Patches, release
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.sampling.feature_references import point_parts, poll_from, sampling_arguments

import pycolmap

"""Samples between the nodes of patch_warp."""


def adjust_bundle(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    levels: Sequence[tuple[Patches, References]],
    options: FeaturemetricBundleAdjusterOptions,
    *,
    rows: NDArray[np.int64] | None = None,
    constants: Constants | None = None,
    poll: Callable[[int, float], object] | None = None,
) -> list[BundleSummary]:
    """Refines a model in place; if it raises, the model is as the last level that ended has left it.

    Args:
        levels: feature maps from coarse to fine, each with patches and the references of the points; none
            for the strategy `geometric`.
        rows: (n,) the patch of each observation (None: patch k belongs to observation k).
        poll: called after each iteration of the solver with its number and cost; may raise to stop.

    Returns:
        What the solver did on each level.
    """
    if rows is None:
        rows = np.arange(len(observations.image_ids))
    summaries = []
    how = options.featuremetric_bundle_adjustment
    for level in levels if how.strategy != "geometric" else [None]:
        problem = BundleProblem(reconstruction, observations, options.bundle_adjustment, constants)
        _add_costs(problem, reconstruction, observations, level, rows, how, options.interpolation)
        problem.add_priors(how.loss_scale)
        summaries.append(problem.solve(options.bundle_adjustment_ceres, poll))
        problem.update(reconstruction)
    return summaries


def evaluation_problem(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    level: tuple[Patches, References],
    rows: NDArray[np.int64],
    options: FeaturemetricBundleAdjusterOptions,
) -> BundleProblem:
    """A problem with what adjust_bundle() minimises on this level, to be evaluated but not solved.

    Cost maps are replaced by what they are made of: the features, whose patches are at hand.
    """
    problem = BundleProblem(reconstruction, observations, BundleAdjustmentOptions())
    how = options.featuremetric_bundle_adjustment
    if how.strategy == "costmaps":
        how = replace(how, strategy="feature_reference")
    _add_costs(problem, reconstruction, observations, level, rows, how, options.interpolation)
    return problem


def _add_costs(
    problem: BundleProblem,
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    level: tuple[Patches, References] | None,
    rows: NDArray[np.int64],
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
) -> None:
    """Adds what the strategy minimises on a level of features; reprojection errors if there is none."""
    loss = Loss(options.loss, options.loss_scale)
    geometric_loss = Loss("trivial", 1.0)
    if level is None:
        problem.add_reprojections(observations.xy, geometric_loss)
        return
    if options.strategy == "costmaps":
        maps = compute_cost_maps(observations, *level, interpolation, rows=rows)
        problem.add_cost_maps(maps, *level, loss, rows=rows)
    elif options.strategy == "patch_warp":
        warps, facing = _warps(reconstruction, observations, *level, rows, options.regularize_source)
        problem.add_features(*level, interpolation, loss, warps=warps, rows=facing)
    else:
        problem.add_features(*level, interpolation, loss, rows=rows)
    if options.geometric_weight > 0:
        covariance = np.eye(2) / options.geometric_weight
        covariances = np.broadcast_to(covariance, (len(observations.xy), 2, 2))
        problem.add_reprojections(observations.xy, geometric_loss, covariances)


def _warps(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    patches: Patches,
    references: References,
    rows: NDArray[np.int64],
    regularize_source: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, 2, 2) what carries nodes around the reference into each patch, and the rows of those it can.

    Warps are those of the model as it is, and stay.
    """
    reference = reference_rows(observations, references)
    warps = frontal_warps(reconstruction, observations, reference)
    # From samples of the map of the reference to samples of the map of each observation.
    scales = patches.scales[rows]
    warps *= scales[:, :, None] / scales[reference][:, None, :]
    usable = np.isfinite(warps).all(axis=(1, 2))
    if not regularize_source:
        usable &= reference != np.arange(len(reference))
    return warps, np.where(usable, rows, -1)


def compute_cost_maps(
    observations: Observations,
    patches: Patches,
    references: References,
    interpolation: InterpolationOptions,
    *,
    rows: NDArray[np.int64] | None = None,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """(n, P, P, 3): distance of the features to the reference, and its derivatives along x and y.

    Of each sample of the patch of each observation; zeros where the point has no reference. Three numbers a
    sample, whatever the channels: with these, patches are needed no more.

    Args:
        rows: (n,) the patch of each observation (None: patch k belongs to observation k).
    """
    if rows is None:
        rows = np.arange(len(observations.image_ids))
    reference = references.rows_of(observations.point_ids)[observations.point_index]
    maps = np.empty((len(rows), *patches.data.shape[1:3], 3), np.float32)
    for first, last in point_parts(observations, patches):
        begin, end = observations.ptr[[first, last]].tolist()
        maps[begin:end] = _core.compute_cost_maps(
            patches.data,
            patches.corners,
            patches.scales,
            np.ascontiguousarray(rows[begin:end], np.int64),
            references.features,
            np.ascontiguousarray(reference[begin:end]),
            **sampling_arguments(interpolation),
            num_threads=num_threads,
            poll=partial(poll_from, poll, begin) if poll else None,
        )
        release(patches)
    return maps
