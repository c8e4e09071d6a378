"""The strategies of bundle adjustment that compare features with references, and COLMAP's own."""

from collections.abc import Callable, Sequence

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli import _core
from pixcli.adjustment.observations import Observations
from pixcli.adjustment.problem import BundleProblem, Constants
from pixcli.adjustment.references import sampling_arguments
from pixcli.adjustment.solver import BundleSummary, Loss
from pixcli.adjustment.warps import frontal_warps, reference_rows
from pixcli.errors import UserError
from pixcli.io.patch_store import Patches
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
)


def adjust_bundle(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    levels: Sequence[tuple[Patches, References]],
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    *,
    constants: Constants | None = None,
    poll: Callable[[int, float], object] | None = None,
) -> list[BundleSummary]:
    """Refines a model in place; if it raises, the model is as the last level that ended has left it.

    Args:
        levels: feature maps from coarse to fine, each with the patches of the observations, in their order,
            and the references of the points. The strategy `geometric` needs none.
        poll: called after each iteration of the solver with its number and cost; may raise to stop.

    Returns:
        What the solver did on each level.
    """
    summaries = []
    for level in levels if options.strategy != "geometric" else [None]:
        problem = BundleProblem(reconstruction, observations, adjustment, constants)
        loss = Loss(options.loss, options.loss_scale)
        if level is None:
            geometric_loss = Loss(ceres.loss_function_type, ceres.loss_function_scale)
            problem.add_reprojections(observations.xy, geometric_loss)
        elif options.strategy == "costmaps":
            maps = compute_cost_maps(observations, *level, interpolation, num_threads=ceres.num_threads)
            problem.add_cost_maps(maps, *level, loss)
        elif options.strategy == "patch_warp":
            _add_warped_features(
                problem, reconstruction, observations, *level, options.regularize_source, interpolation, loss
            )
        else:
            problem.add_features(*level, interpolation, loss)
        if level is not None and options.geometric_weight > 0:
            geometric_loss = Loss(ceres.loss_function_type, ceres.loss_function_scale)
            covariance = np.eye(2) / options.geometric_weight
            covariances = np.broadcast_to(covariance, (len(observations.xy), 2, 2))
            problem.add_reprojections(observations.xy, geometric_loss, covariances)
        problem.add_priors(options.loss_scale)
        summaries.append(problem.solve(ceres, poll))
        problem.update(reconstruction)
    return summaries


def _add_warped_features(
    problem: BundleProblem,
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    patches: Patches,
    references: References,
    regularize_source: bool,
    interpolation: InterpolationOptions,
    loss: Loss,
) -> None:
    """Features at the nodes around the reference; warps are those of the model as it is, and stay."""
    if len(interpolation.offsets) < 2:
        raise UserError(
            "the strategy patch_warp compares nodes: give several, such as a grid, in Interpolation.nodes"
        )
    reference = reference_rows(observations, references)
    warps = frontal_warps(reconstruction, observations, reference)
    # From samples of the map of the reference to samples of the map of each observation.
    warps *= patches.scales[:, :, None] / patches.scales[reference][:, None, :]
    usable = np.isfinite(warps).all(axis=(1, 2))
    if not regularize_source:
        usable &= reference != np.arange(len(reference))
    problem.add_features(patches, references, interpolation, loss, warps=warps, rows=np.flatnonzero(usable))


def compute_cost_maps(
    observations: Observations,
    patches: Patches,
    references: References,
    interpolation: InterpolationOptions,
    *,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """(n, P, P, 3): distance of the features to the reference, and its derivatives along x and y.

    Of each sample of the patch of each observation; zeros where the point has no reference. Three numbers a
    sample, whatever the channels: with these, patches are needed no more.
    """
    reference = references.rows_of(observations.point_ids)[observations.point_index]
    return _core.compute_cost_maps(
        patches.data,
        patches.corners,
        patches.scales,
        np.arange(len(patches.data), dtype=np.int64),
        references.features,
        np.ascontiguousarray(reference),
        **sampling_arguments(interpolation),
        num_threads=num_threads,
        poll=poll,
    )
