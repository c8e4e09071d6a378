"""The strategies that compare features with references: patches around the projections, then adjustment."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.feature_costs import adjust_bundle, evaluation_problem
from pixcli.bundle_adjustment.guard import ImageCost, guard_features
from pixcli.bundle_adjustment.model_covariance import FeatureResiduals
from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import BundleSummary
from pixcli.bundle_adjustment.strategy import Adjustment, Task
from pixcli.bundle_adjustment.texture import find_gated
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.geometry.similarity import align
from pixcli.io.patch_store import Patches, writable
from pixcli.io.references import References
from pixcli.options.bundle_adjustment import (
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.feature_references import compute_references, extraction_around, strategy_interpolation
from pixcli.sampling.streaming import CACHE_OR

import pycolmap

log = logging.getLogger(__name__)

_POINTS_ONLY = {
    "refine_focal_length": False,
    "refine_principal_point": False,
    "refine_extra_params": False,
    "refine_rig_from_world": False,
    "refine_sensor_from_rig": False,
}


def adjust_by_features(task: Task) -> Adjustment:
    """The strategies that compare features at the points' projections with a reference for each point.

    Images whose own cost rose are restored, see guard_features(). Points without texture stay.

    Raises:
        UserError: features cannot be compared, a level does not exist, or memory is too small.
    """
    model, options = task.model, task.options
    before = pycolmap.Reconstruction(model)
    how = options.featuremetric_bundle_adjustment
    interpolation = strategy_interpolation(how.strategy, options.interpolation)
    options = replace(options, interpolation=interpolation)
    observations = read_observations(model, options.bundle_adjustment.min_track_length)
    projected = project(model, observations)
    extraction, rows = extraction_around(model, task.images, observations, projected, options.dense_features)
    chosen = _chosen_levels(how, extraction.num_levels)
    _announce(extraction, options, len(chosen))
    levels = [patches for patches, _ in extraction.patches(task.progress)]
    solves: list[BundleSummary] = []
    for repeat in range(how.repeats):
        if repeat > 0:
            projected = project(model, observations)
            levels = _follow(task, observations, projected, levels, rows)
        pairs = _with_references(task, observations, projected, [levels[index] for index in chosen], rows)
        finest = pairs[-1]
        gated = find_gated(observations, projected, finest[0], rows, finest[1], interpolation)
        held = task.constants
        if how.geometric_weight == 0:
            lost = observations.point_ids[gated.lost].tolist()
            held = replace(held, points=held.points.union(lost))
        solves += _solve(replace(task, options=options, constants=held), observations, pairs, rows)
    features = _Features(replace(task, options=options, constants=held), observations, finest, rows)
    return Adjustment(
        observations,
        gated.counts,
        solves,
        gated=gated.reasons(),
        textureless_points=int(gated.lost.sum()),
        costs=_guard(before, features, task.constants, gated.counts),
        loss_scale=how.loss_scale,
        residuals=features.residuals() if task.with_residuals else None,
    )


def _announce(extraction: Extraction, options: FeaturemetricBundleAdjusterOptions, levels: int) -> None:
    """Says what the work will take; raises UserError where it cannot be done."""
    extraction.check_distinct(options.interpolation)
    log.info(
        "%d observations with patches of %d bytes each, adjusted %d times by at most %d iterations",
        extraction.num_keypoints,
        extraction.num_bytes // max(extraction.num_keypoints, 1),
        options.featuremetric_bundle_adjustment.repeats * levels,
        options.bundle_adjustment_ceres.max_num_iterations,
    )
    extraction.estimate().announce(CACHE_OR + "take --FeaturemetricBundleAdjustment.strategy surface")


def _with_references(
    task: Task,
    observations: Observations,
    projected: NDArray[np.float64],
    levels: Sequence[Patches],
    rows: NDArray[np.int64],
) -> list[tuple[Patches, References]]:
    """Levels with the references of the points on each: those that are given, or found at the projections."""
    if task.constants.references is not None:
        given = task.constants.references
        indices = task.options.featuremetric_bundle_adjustment.levels or range(len(given))
        return list(zip(levels, (given[index] for index in indices), strict=True))
    how = task.options.featuremetric_bundle_adjustment
    found = []
    for patches in levels:
        with task.progress.phase("references", len(observations.point_ids)) as update:
            references = compute_references(
                observations,
                projected,
                patches,
                strategy_interpolation(how.strategy, task.options.interpolation),
                rows=rows,
                num_threads=task.options.dense_features.num_threads,
                poll=update,
            )
        found.append((patches, references))
    return found


def _solve(
    task: Task,
    observations: Observations,
    levels: Sequence[tuple[Patches, References]],
    rows: NDArray[np.int64],
) -> list[BundleSummary]:
    ceres = task.options.bundle_adjustment_ceres
    with task.progress.phase("adjust", ceres.max_num_iterations) as update:
        return adjust_bundle(
            task.model,
            observations,
            levels,
            task.options,
            rows=rows,
            constants=task.constants,
            poll=lambda iteration, cost: update(iteration),
        )


@dataclass(frozen=True)
class _Features:
    """What features cost on the finest level, of a model that was adjusted to them."""

    task: Task
    observations: Observations
    finest: tuple[Patches, References]
    rows: NDArray[np.int64]

    def costs(self, state: pycolmap.Reconstruction) -> NDArray[np.float64]:
        """(n,) costs of the observations in a model."""
        return self._problem(state, self.task.options).observation_costs()

    def residuals(self) -> FeatureResiduals:
        """Of the features in the adjusted model, without what else takes part."""
        how = replace(self.task.options.featuremetric_bundle_adjustment, geometric_weight=0.0)
        options = replace(self.task.options, featuremetric_bundle_adjustment=how)
        return FeatureResiduals(*self._problem(self.task.model, options).slopes())

    def adjust_points(self) -> None:
        """Points move to where their features agree, poses and cameras held."""
        task, refined = self.task, self.task.options.bundle_adjustment
        if refined.refine_points3D:
            adjust_bundle(
                task.model,
                self.observations,
                [self.finest],
                replace(task.options, bundle_adjustment=replace(refined, **_POINTS_ONLY)),
                rows=self.rows,
                constants=replace(task.constants, priors=None),
            )

    def _problem(
        self, state: pycolmap.Reconstruction, options: FeaturemetricBundleAdjusterOptions
    ) -> BundleProblem:
        return evaluation_problem(state, self.observations, self.finest, self.rows, options)


def _guard(
    before: pycolmap.Reconstruction, features: _Features, constants: Constants, counts: NDArray[np.bool_]
) -> list[ImageCost]:
    model = features.task.model
    with features.task.progress.phase("guard"):
        if not constants.images:  # which say that the frame is the same
            before.transform(align(before, model))
        return guard_features(
            before,
            model,
            features.observations,
            counts,
            constants,
            features.costs,
            features.adjust_points,
        )


def _chosen_levels(options: FeaturemetricBundleAdjustmentOptions, count: int) -> list[int]:
    indices = options.levels if options.levels is not None else tuple(range(count))
    if beyond := [index for index in indices if index >= count]:
        raise UserError(
            f"FeaturemetricBundleAdjustment.level_indices names the level {beyond[0]}, but the features have "
            f"the levels 0 to {count - 1}"
        )
    return list(indices)


def _follow(
    task: Task,
    observations: Observations,
    projected: NDArray[np.float64],
    levels: Sequence[Patches],
    rows: NDArray[np.int64],
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
    features = task.options.dense_features
    if features.sparse:  # whose cache holds the patches around the old places
        features = replace(features, use_cache=False)
    extraction, new_rows = extraction_around(task.model, task.images, observations, projected, features, left)
    result = []
    for patches, (new, _) in zip(levels, extraction.patches(task.progress), strict=True):
        changed = writable(patches)
        changed.data[rows[left]] = new.data[new_rows[left]]
        changed.corners[rows[left]] = new.corners[new_rows[left]]
        result.append(changed)
    log.info("%d patches recut for points that left theirs", left.sum())
    return result
