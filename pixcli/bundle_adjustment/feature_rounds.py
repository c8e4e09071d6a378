"""The strategies that compare features with references: patches around the projections, then adjustment."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli.bundle_adjustment.feature_costs import adjust_bundle, evaluation_problem
from pixcli.bundle_adjustment.guard import ImageCost, guard_features
from pixcli.bundle_adjustment.model_covariance import FeatureResiduals
from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import BundleSummary
from pixcli.bundle_adjustment.texture import Gated, find_gated
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.geometry.similarity import align
from pixcli.io.patch_store import Patches, writable
from pixcli.io.references import References
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.progress import Progress
from pixcli.sampling.feature_references import compute_references, extraction_around, strategy_interpolation
from pixcli.sampling.streaming import CACHE_OR, ImageFile

log = logging.getLogger(__name__)

_POINTS_ONLY = {
    "refine_focal_length": False,
    "refine_principal_point": False,
    "refine_extra_params": False,
    "refine_rig_from_world": False,
    "refine_sensor_from_rig": False,
}


@dataclass(frozen=True)
class FeatureAdjustment:
    """What an adjustment by features did."""

    summaries: list[BundleSummary]
    """What the solver did, level by level, in each repeat."""
    observations: Observations
    gated: Gated
    """Of the last repeat, on the finest level."""
    images: list[ImageCost]
    """Their featuremetric costs on that level."""
    residuals: FeatureResiduals | None
    """Of the features on that level in the adjusted model, if asked for."""


def adjust_by_features(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
    progress: Progress,
    given: Sequence[References] | None = None,
    with_residuals: bool = False,
) -> FeatureAdjustment:
    """Refine a model in place by features at the points' projections, against a reference for each point.

    Args:
        images: the registered images, by ascending id.
        given: the references of the points, on all levels; None: they are found, anew in each repeat.
        with_residuals: keep the residuals of the adjusted model, which covariances are made of.

    Images whose own cost rose are restored, see guard_features(). Points without texture stay.

    Raises:
        UserError: features cannot be compared, a level does not exist, or memory is too small.
    """
    before = pycolmap.Reconstruction(model)
    interpolation = strategy_interpolation(options.strategy, interpolation)
    observations = read_observations(model, adjustment.min_track_length)
    projected = project(model, observations)
    extraction, rows = extraction_around(model, images, observations, projected, features)
    extraction.check_distinct(interpolation)
    chosen = _chosen_levels(options, extraction.num_levels)
    count = len(observations.image_ids)
    log.info(
        "%d observations with patches of %d bytes each, adjusted %d times by at most %d iterations",
        *(
            count,
            extraction.num_bytes // max(count, 1),
            options.repeats * len(chosen),
            ceres.max_num_iterations,
        ),
    )
    extraction.estimate().announce(CACHE_OR + "take --FeaturemetricBundleAdjustment.strategy surface")
    levels = [patches for patches, _ in extraction.patches(progress)]
    summaries = []
    for repeat in range(options.repeats):
        if repeat > 0:
            projected = project(model, observations)
            levels = _follow(model, images, observations, projected, features, levels, rows, progress)
        references = []
        for index in chosen:
            if given is not None:
                references.append(given[index])
                continue
            with progress.phase("references", len(observations.point_ids)) as update:
                found = compute_references(
                    observations,
                    projected,
                    levels[index],
                    interpolation,
                    rows=rows,
                    num_threads=features.num_threads,
                    poll=update,
                )
            references.append(found)
        finest = levels[chosen[-1]], references[-1]
        gated = find_gated(observations, projected, finest[0], rows, finest[1], interpolation)
        held = constants
        if options.geometric_weight == 0:
            lost = observations.point_ids[gated.lost].tolist()
            held = replace(constants, points=constants.points.union(lost))
        with progress.phase("adjust", ceres.max_num_iterations) as update:
            summaries += adjust_bundle(
                model,
                observations,
                list(zip([levels[index] for index in chosen], references, strict=True)),
                options,
                interpolation,
                adjustment,
                ceres,
                rows=rows,
                constants=held,
                poll=lambda iteration, cost: update(iteration),
            )

    def problem_at(
        state: pycolmap.Reconstruction, options: FeaturemetricBundleAdjustmentOptions
    ) -> BundleProblem:
        return evaluation_problem(state, observations, finest, rows, options, interpolation, ceres)

    def follow() -> None:
        if adjustment.refine_points3D:
            points_only = replace(adjustment, **_POINTS_ONLY)
            alone = replace(held, priors=None)
            adjust_bundle(
                model,
                observations,
                [finest],
                options,
                interpolation,
                points_only,
                ceres,
                rows=rows,
                constants=alone,
            )

    with progress.phase("guard"):
        if not constants.images:  # which say that the frame is the same
            before.transform(align(before, model))
        costs = guard_features(
            before,
            model,
            observations,
            gated.counts,
            constants,
            lambda state: problem_at(state, options).observation_costs(),
            follow,
        )
    residuals = None
    if with_residuals:
        residuals = FeatureResiduals(*problem_at(model, replace(options, geometric_weight=0.0)).slopes())
    return FeatureAdjustment(summaries, observations, gated, costs, residuals)


def _chosen_levels(options: FeaturemetricBundleAdjustmentOptions, count: int) -> list[int]:
    indices = options.levels if options.levels is not None else tuple(range(count))
    if beyond := [index for index in indices if index >= count]:
        raise UserError(
            f"FeaturemetricBundleAdjustment.level_indices names the level {beyond[0]}, but the features have "
            f"the levels 0 to {count - 1}"
        )
    return list(indices)


def _follow(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    observations: Observations,
    projected: NDArray[np.float64],
    features: DenseFeaturesOptions,
    levels: Sequence[Patches],
    rows: NDArray[np.int64],
    progress: Progress,
) -> list[Patches]:
    """The patches, those cut anew whose points have left them on any level."""
    left = np.zeros(len(rows), bool)
    for patches in levels:
        inside = projected * patches.scales[rows] - 0.5 - patches.corners[rows]
        # Interpolation takes a sample before and two behind.
        last = np.array(patches.data.shape[2:0:-1]) - 2
        left |= ((inside < 1) | (inside > last)).any(axis=1)  # not where the point does not project: NaN
    if not left.any():
        return list(levels)
    if features.sparse:  # whose cache holds the patches around the old places
        features = replace(features, use_cache=False)
    extraction, new_rows = extraction_around(model, images, observations, projected, features, left)
    result = []
    for patches, (new, _) in zip(levels, extraction.patches(progress), strict=True):
        changed = writable(patches)
        changed.data[rows[left]] = new.data[new_rows[left]]
        changed.corners[rows[left]] = new.corners[new_rows[left]]
        result.append(changed)
    log.info("%d patches cut anew, whose points have left them", left.sum())
    return result
