"""The featuremetric strategy, after Lindenberger et al. (ICCV 2021): features of a query against references.

*Query keypoint adjustment*: each matched keypoint moves, inside its bound, to where its features agree with
the reference of the point that it matches; then the pose is found from the moved keypoints. *Query bundle
adjustment*: the pose, and on request intrinsics, move until the features at the points' projections agree
with the references. Either is undone if the guard objects, or where it leaves the pose less certain; the
former also where the latter is.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from pixcli.localization.feature_map import FeatureMap
from pixcli.localization.feature_pose import (
    CostedPose,
    Evaluate,
    Observed,
    observed_at,
    refine_costed_pose,
)
from pixcli.localization.feature_targets import Targets, align_keypoints, find_targets
from pixcli.localization.first_pose import FirstPose, Matches, estimate_pose
from pixcli.localization.localized import Step
from pixcli.localization.objections import objection
from pixcli.localization.query_pose import QueryPose
from pixcli.localization.rig_state import RefinedIntrinsics, RigState
from pixcli.options.localization import LocalizeOptions

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_CERTAIN = 1e-3  # pixels that projections may deviate by: nothing misleads that much


@dataclass(frozen=True)
class FeatureView:
    """What one sensor of a query shows."""

    matches: Matches
    ids: Int64
    """(m,) of the matches' points."""
    image: npt.NDArray[np.float32]
    """(h, w) grey or (h, w, 3) RGB, as the feature model takes it; may have been reduced to max_edge."""


def refine_by_features(
    known: FeatureMap,
    views: Sequence[FeatureView],
    first: FirstPose,
    options: LocalizeOptions,
    random_seed: int,
) -> QueryPose:
    """Refine a first pose by keypoint adjustment and bundle adjustment."""
    query = _Query(known, views, options, random_seed)
    found = start = first.pose
    steps, undone = [query.extraction], []
    # Features that place keypoints worse than the detector did would do the same to the pose. This is seen in
    # the keypoints alone: they are adjusted even where only the pose is to be.
    keypoints, step = query.align_keypoints()
    steps.append(step)
    certainty = query.certainty(found)
    moved = _attempt(
        "pose of moved keypoints", partial(query.find_pose, keypoints, step), found, certainty, first
    )
    steps.append(moved.step)
    if options.query_keypoint_adjustment.apply:
        found, certainty = moved.found, moved.certainty
        undone += [moved.objection] * bool(moved.objection)
    if options.query_bundle_adjustment.apply and moved.objection:
        undone.append("query bundle adjustment was not tried, as its features mislead")
    elif options.query_bundle_adjustment.apply:
        refined = _attempt("query bundle adjustment", query.adjust_bundle, found, certainty, first)
        steps.append(refined.step)
        # Features that do not agree on one pose together misled the keypoints one by one as well.
        found = start if refined.objection else refined.found
        undone += [refined.objection] * bool(refined.objection)
    return replace(found, undone=tuple(undone), steps=tuple(steps))


_Adjusted = tuple[QueryPose, CostedPose, int]
"""What an adjustment found, with its cost, and the measurements that it rests on."""


@dataclass(frozen=True)
class _Attempt:
    found: QueryPose
    """What it found, or what was there before if there is an objection."""
    certainty: float
    """Of what was found, see _Query.certainty."""
    step: Step
    objection: str


def _attempt(
    name: str,
    adjust: Callable[[QueryPose], _Adjusted | str],
    before: QueryPose,
    certainty: float,
    first: FirstPose,
) -> _Attempt:
    start = time.perf_counter()
    adjusted = adjust(before)
    step = Step(name, time.perf_counter() - start)
    if isinstance(adjusted, str):
        return _Attempt(before, certainty, step, f"the {name} {adjusted}")
    found, pose, measurements = adjusted
    step = replace(step, measurements=measurements, cost_before=pose.cost_before, cost_after=pose.cost_after)
    reason = objection(first, pose, found.num_inliers)
    if not reason and not pose.pixel_deviation <= max(certainty, _CERTAIN):
        reason = f"left projections uncertain by {pose.pixel_deviation:.3f}, not {certainty:.3f} pixels"
    if reason:
        return _Attempt(before, certainty, step, f"the {name} {reason}")
    return _Attempt(found, pose.pixel_deviation, step, "")


class _Query:
    """What both steps need of a query."""

    def __init__(
        self,
        known: FeatureMap,
        views: Sequence[FeatureView],
        options: LocalizeOptions,
        random_seed: int,
    ) -> None:
        start = time.perf_counter()
        self._known, self._views, self._options, self._seed = known, views, options, random_seed
        self._targets = [
            find_targets(
                view.matches,
                view.ids,
                view.image,
                known,
                options.localization.target_reference,
            )
            for view in views
        ]
        count = sum(int(np.count_nonzero(np.diff(targets[-1].ptr))) for targets in self._targets)
        self.extraction = Step("features", time.perf_counter() - start, count)

    def certainty(self, found: QueryPose) -> float:
        """Pixels that projections deviate by, as the scatter of the inliers around them predicts."""
        pose = self._pose_of_keypoints(found, 0)
        return np.inf if pose is None else pose.pixel_deviation

    def align_keypoints(self) -> tuple[list[Float64], Step]:
        """Where the keypoints of each sensor agree with their targets, and what this cost."""
        start, how = time.perf_counter(), self._options.query_keypoint_adjustment
        aligned = [
            align_keypoints(view.matches.xy, targets, how, self._known.interpolation)
            for view, targets in zip(self._views, self._targets, strict=True)
        ]
        seconds = time.perf_counter() - start
        counts = [int(part.moved.sum()) for part in aligned]
        costs = np.nan_to_num([(part.cost_before, part.cost_after) for part in aligned])
        before, after = np.average(costs, axis=0, weights=counts).tolist() if sum(counts) else (0.0, 0.0)
        step = Step("query keypoint adjustment", seconds, sum(counts), before, after)
        return [part.xy for part in aligned], step

    def find_pose(self, keypoints: list[Float64], alignment: Step, found: QueryPose) -> _Adjusted | str:
        """The pose that moved keypoints agree on."""
        if not alignment.measurements:
            return "moved no keypoint"
        matches = [
            replace(view.matches, xy=xy, sensor=sensor)
            for view, xy, sensor in zip(self._views, keypoints, found.state.sensors, strict=True)
        ]
        estimated = estimate_pose(matches, self._options.absolute_pose, self._seed)
        if isinstance(estimated, str):
            return f"lost the pose: {estimated}"
        state, inliers = estimated
        adjusted = QueryPose(state, found.covariance, inliers, keypoints)
        costed = self._pose_of_keypoints(adjusted, 0)
        if costed is None:
            return "left the pose undetermined"
        costed = replace(costed, cost_before=alignment.cost_before, cost_after=alignment.cost_after)
        return replace(adjusted, covariance=costed.covariance), costed, adjusted.num_inliers

    def adjust_bundle(self, found: QueryPose) -> _Adjusted | str:
        """The pose at whose projections the features agree with the references."""
        how, options = self._options.query_bundle_adjustment, self._options.localization
        refined = RefinedIntrinsics(
            options.refine_focal_length, options.refine_principal_point, options.refine_extra_params
        )
        chosen = self._chosen(found)
        state, result, before = found.state, None, float("nan")
        for level in range(len(self._targets[0])):
            observed = []
            for k, (view, rows) in enumerate(zip(self._views, chosen, strict=True)):
                targets = self._targets[k][level].of(rows)
                if options.target_reference == "full":
                    warps = self._known.warps(level, view.ids[rows], state.sensors[k], state.rig_from_world)
                    targets = replace(targets, warps=warps)
                observed.append(Observed(view.matches.points[rows], self._evaluation(targets)))
            result = refine_costed_pose(state, observed, refined, how.max_iterations, how.function_tolerance)
            if result is None:
                return "does not determine the pose"
            state, before = result.state, result.cost_before
        if result is None:
            return "has no features"
        result = replace(result, cost_before=before)
        adjusted = replace(
            found,
            state=state,
            covariance=result.covariance,
            inliers=self._inliers(state, found.keypoints),
        )
        return adjusted, result, sum(map(len, chosen))

    def _evaluation(self, targets: Targets) -> Evaluate:
        options = self._options.query_bundle_adjustment

        def evaluate(xy: Float64) -> Float64:
            return targets.evaluate(xy, self._known.interpolation, options.loss, options.loss_scale)

        return evaluate

    def _chosen(self, found: QueryPose) -> list[Int64]:
        """Of each sensor the inliers with targets; on request only the best of each keypoint and point."""
        result = []
        projections = found.state.project([view.matches.points for view in self._views])
        for view, targets, projected, keypoints, inliers in zip(
            self._views, self._targets, projections, found.keypoints, found.inliers, strict=True
        ):
            rows = np.flatnonzero(inliers & (np.diff(targets[-1].ptr) > 0))
            if self._options.query_bundle_adjustment.unique_inliers == "min_error":
                error = np.linalg.norm(projected[rows] - keypoints[rows], axis=1)
                rows = rows[np.argsort(error, kind="stable")]
                for ids in (view.ids, targets[-1].level[3]):
                    rows = rows[np.sort(np.unique(ids[rows], return_index=True)[1])]
                rows = np.sort(rows)
            result.append(rows)
        return result

    def _inliers(self, state: RigState, keypoints: Sequence[Float64]) -> list[Bool]:
        limit = self._options.absolute_pose.max_error
        projections = state.project([view.matches.points for view in self._views])
        with np.errstate(invalid="ignore"):
            return [
                np.linalg.norm(projected - xy, axis=1) <= limit
                for projected, xy in zip(projections, keypoints, strict=True)
            ]

    def _pose_of_keypoints(self, found: QueryPose, max_iterations: int) -> CostedPose | None:
        observed = [
            observed_at(view.matches.points[inliers], xy[inliers])
            for view, xy, inliers in zip(self._views, found.keypoints, found.inliers, strict=True)
        ]
        return refine_costed_pose(found.state, observed, RefinedIntrinsics(), max_iterations, 1e-6)
