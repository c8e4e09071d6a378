"""What the features at a query's keypoints should be, and keypoints moved to where they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli import _core
from pixcli.localization.feature_map import FeatureMap
from pixcli.localization.first_pose import Matches
from pixcli.options import InterpolationOptions, QueryKeypointAdjustmentOptions
from pixcli.options.localization import TargetReference
from pixcli.sampling.feature_references import sampling_arguments

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """References of n places in an image, on one level of the features; a place may have several, or none."""

    level: tuple[npt.NDArray[Any], npt.NDArray[np.int32], Float64, Int64]
    """Patches (p, P, P, C), corners and scales (p, 2), and (n,) the patch of each place."""
    ptr: Int64
    """(n + 1,) those of place k are features[ptr[k]:ptr[k + 1]]."""
    features: npt.NDArray[np.float32]
    """(r, D)"""
    warps: Float64 | None = None
    """(n, 2, 2) that move the nodes around each place; None: they stay upright."""

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def evaluate(
        self, xy: Float64, interpolation: InterpolationOptions, loss: str, loss_scale: float
    ) -> Float64:
        """(n, 6) cost at xy (n, 2), its gradient x y and its Hessian xx xy yy by the pixel."""
        return _core.evaluate_targets(
            np.ascontiguousarray(xy),
            self.level,
            self.ptr,
            np.arange(len(self.features)),
            self.features,
            self.warps,
            **sampling_arguments(interpolation),
            loss=loss,
            loss_scale=loss_scale,
        )

    def of(self, rows: Int64) -> "Targets":
        """Those of some of the places."""
        ptr, members = _members(self.ptr, rows)
        level = (*self.level[:3], np.ascontiguousarray(self.level[3][rows]))
        warps = None if self.warps is None else np.ascontiguousarray(self.warps[rows])
        return Targets(level, ptr, np.ascontiguousarray(self.features[members]), warps)


@dataclass(frozen=True)
class AlignedKeypoints:
    """Where m keypoints agree with their targets."""

    xy: Float64
    """(m, 2)"""
    moved: npt.NDArray[np.bool_]
    """(m,) the others are where they were."""
    cost_before: float
    """Mean of those that moved, on the last level; NaN if none did."""
    cost_after: float


def find_targets(
    matches: Matches,
    ids: Int64,
    image: npt.NDArray[np.float32],
    feature_map: FeatureMap,
    target_reference: TargetReference,
) -> list[Targets]:
    """The targets of m matched keypoints on each level.

    Args:
        ids: (m,) of the matches' points.
        image: as the feature model takes it; may have been reduced to max_edge.
    """
    size = (matches.sensor.camera.width, matches.sensor.camera.height)
    # As complex numbers, pairs are compared far faster than as rows.
    unique, patch = np.unique(np.ascontiguousarray(matches.xy).view(complex)[:, 0], return_inverse=True)
    result = []
    for references, (data, corners, scales) in zip(
        feature_map.levels,
        feature_map.extractor.patches(image, size, unique.view(float).reshape(-1, 2)),
        strict=True,
    ):
        rows = references.rows_of(ids)
        known = rows >= 0
        observed = references.observations
        if target_reference in ("robust_mean", "full") or observed is None:
            ptr = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
            features = references.features[rows[known]]
        else:
            counted, members = _members(observed.ptr, rows[known])
            ptr = counted[np.concatenate([[0], np.cumsum(known)])]
            features = observed.features[members]
        targets = Targets((data, corners, scales, patch.astype(np.int64)), ptr, features)
        if target_reference == "nearest" and observed is not None:
            targets = _nearest(targets, matches.xy, feature_map.interpolation)
        result.append(targets)
    return result


def align_keypoints(
    xy: Float64,
    levels: Sequence[Targets],
    options: QueryKeypointAdjustmentOptions,
    interpolation: InterpolationOptions,
) -> AlignedKeypoints:
    """Move m keypoints to where their features agree with their targets, on one level after the other.

    One that ends on its bound, or that its features are further from than feature_inlier_thresh, stays.
    """
    place = np.arange(len(xy))
    if options.stack_correspondences:
        _, first, place = np.unique(levels[0].level[3], return_index=True, return_inverse=True)
        levels = [_stacked(targets, place, first) for targets in levels]
        detected = xy[first]
    else:
        detected = np.ascontiguousarray(xy)
    now, usable = detected, np.ones(len(detected), bool)
    before = after = np.zeros(0)
    for targets in levels:
        if options.feature_inlier_thresh >= 0:
            count = np.maximum(np.diff(targets.ptr), 1)
            squares = 2 * targets.evaluate(now, interpolation, "trivial", 1.0)[:, 0] / count
            usable &= np.sqrt(squares) <= options.feature_inlier_thresh
        found = _core.align_to_targets(
            detected,
            np.ascontiguousarray(now),
            targets.level,
            targets.ptr,
            np.arange(len(targets.features)),
            targets.features,
            targets.warps,
            **sampling_arguments(interpolation),
            loss=options.loss,
            loss_scale=options.loss_scale,
            bound=options.bound,
            max_iterations=options.max_iterations,
            parameter_tolerance=options.parameter_tolerance,
        )
        usable &= found["outcome"] == _core.TargetOutcome.ALIGNED
        now = np.where(usable[:, None], found["xy"], detected)
        before, after = found["before"][usable], found["after"][usable, 0]
    costs = (float(before.mean()), float(after.mean())) if len(before) else (float("nan"), float("nan"))
    return AlignedKeypoints(now[place], usable[place], *costs)


def _members(ptr: Int64, rows: Int64) -> tuple[Int64, Int64]:
    """What lies in ptr[row]:ptr[row + 1] for each row, one after the other, and where that of each starts."""
    counts = ptr[rows + 1] - ptr[rows]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ends, np.repeat(ptr[rows] - ends[:-1], counts) + np.arange(ends[-1])


def _nearest(targets: Targets, xy: Float64, interpolation: InterpolationOptions) -> Targets:
    """Of each place's targets the one that is nearest to its features."""
    owner = np.repeat(np.arange(len(targets)), np.diff(targets.ptr))
    level = (*targets.level[:3], np.ascontiguousarray(targets.level[3][owner]))
    each = Targets(level, np.arange(len(owner) + 1), targets.features)
    cost = each.evaluate(xy[owner], interpolation, "trivial", 1.0)[:, 0]
    order = np.lexsort((cost, owner))
    _, first = np.unique(owner, return_index=True)  # the cheapest of each owner comes first in `order`
    has_one = np.diff(targets.ptr) > 0
    ptr = np.concatenate([[0], np.cumsum(has_one)]).astype(np.int64)
    return Targets(targets.level, ptr, np.ascontiguousarray(targets.features[order[first]]))


def _stacked(targets: Targets, place: Int64, first: Int64) -> Targets:
    """Targets of the same keypoint together: place (n,) says which, first (k,) where each occurs first."""
    owner = place[np.repeat(np.arange(len(targets)), np.diff(targets.ptr))]
    order = np.argsort(owner, kind="stable")
    ptr = np.searchsorted(owner[order], np.arange(len(first) + 1)).astype(np.int64)
    level = (*targets.level[:3], np.ascontiguousarray(targets.level[3][first]))
    return Targets(level, ptr, np.ascontiguousarray(targets.features[order]))
