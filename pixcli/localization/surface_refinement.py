"""The surface strategy: map points measured in a query against their references, and its pose from those.

Two steps after a first pose. *Matches*: what the query shows at its matched keypoints is measured, from where
the detector found them. *Points*: all that the query should see of the map is measured, from where the pose
says that it is, whether a detector found it or not.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pixcli.localization.first_pose import FirstPose, Matches
from pixcli.localization.localized import Step
from pixcli.localization.map import LocalizationMap
from pixcli.localization.measurement import QueryImage, align_points, measure_points
from pixcli.localization.objections import objection
from pixcli.localization.pose import Sightings, refine_pose
from pixcli.localization.query_pose import QueryPose
from pixcli.localization.rig_state import RefinedIntrinsics, RigState, pixel_deviation
from pixcli.options import LocalizationOptions
from pixcli.surfaces.measuring import SurfaceLimits

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_MATCH_LIMITS = SurfaceLimits(min_correlation=0.8, max_shift=3.0, num_threads=1)
POINT_LIMITS = SurfaceLimits(min_correlation=0.9, max_shift=2.0, max_deviation=0.25, num_threads=1)
_MAX_POINT_DEVIATION = 0.1  # pixels; points that their own views disagree on more are not asked for
_MATCH_SCALES = (5.0, 5.0)  # standard deviations, of the losses
_POINT_SCALES = (50.0, 20.0)  # wide: acceptance is strict, and cameras may not quite fit
_TOLERANCE = 0.5  # pixels that a pose may move projections by before warps are made again
_MAX_ROUNDS = 3
_ENOUGH_MATCHES = 2000  # measured matches; with fewer, points without a match are measured too
_MIN_MEASURED = 12  # points that refine a pose
_MIN_GAIN = 2.0  # in certainty: scatter tells nothing of biases, which about double the errors it predicts
_MIN_FOR_INTRINSICS = 100  # sightings


@dataclass(frozen=True)
class QueryView:
    """What one sensor of a query shows."""

    matches: Matches
    rows: Int64
    """(m,) the points of the matches in the map, -1 where it has none."""
    images: Sequence[QueryImage]
    """For each model of the map's chain."""


def localize_by_surfaces(
    known: LocalizationMap,
    views: Sequence[QueryView],
    first: FirstPose,
    options: LocalizationOptions,
    max_error: float,
) -> QueryPose:
    """Refine a first pose by both steps; each is undone if the guard objects to it.

    Args:
        max_error: of an inlier, in pixels.
    """
    return _Refinement(known, views, first, options, max_error).run()


class _Refinement:
    """The pose of a query as it gets better."""

    def __init__(
        self,
        known: LocalizationMap,
        views: Sequence[QueryView],
        first: FirstPose,
        options: LocalizationOptions,
        max_error: float,
    ) -> None:
        self._map, self._views, self._first = known, views, first
        self._options, self._max_error = options, max_error
        self._now = first.pose
        self._matched: list[tuple[Int64, Sightings]] = []
        """Matches of each sensor that agree with the pose, and where they were found."""
        self._residuals = [np.zeros(0)] * len(views)
        """Of each sensor's sightings, in standard deviations; infinite where they gave no pose."""

    def run(self) -> QueryPose:
        num_measured = self._refine_by_matches()
        densify = self._options.densify
        if densify == "always" or (densify == "auto" and num_measured < _ENOUGH_MATCHES):
            for _ in range(_MAX_ROUNDS):
                if self._refine_by_points() < _TOLERANCE:
                    break
        return self._now

    def _refine_by_matches(self) -> int:
        """Measure matched keypoints where the detector found them; how many could be measured.

        Inliers that cannot be take part as the detector has them, with its larger deviation.
        """
        start, first, state = self._seconds(), self._first, self._first.pose.state
        limits = replace(_MATCH_LIMITS, max_shift=max(_MATCH_LIMITS.max_shift, 3 * first.deviation))
        sightings, seen, keypoints, num_measured = [], [], [], 0
        for view, sensor, inliers in zip(self._views, state.sensors, first.pose.inliers, strict=True):
            xy, pose = np.array(view.matches.xy), sensor.cam_from_rig * state.rig_from_world
            at = np.flatnonzero(inliers & (view.rows >= 0))
            observation, near = self._map.nearest_to(view.rows[at], sensor.camera, pose)
            at, observation = at[near], observation[near]
            has_surface = self._map.has_surface[view.rows[at]]
            left, parts, members = np.ones(len(at), bool), [], []
            for measure, tried in ((measure_points, has_surface), (align_points, left)):
                asked = np.flatnonzero(tried)
                some = at[asked]
                accepted, sighted = measure(
                    self._map,
                    view.rows[some],
                    observation[asked],
                    sensor.camera,
                    pose,
                    view.images,
                    limits,
                    view.matches.xy[some],
                )
                xy[some[accepted]] = sighted.xy
                left[asked[accepted]] = False
                parts.append(sighted)
                members.append(some[accepted])
            measured = at[~left]
            raw = np.array(inliers)
            raw[measured] = False
            covariance = np.tile([first.deviation**2, 0, first.deviation**2], (int(raw.sum()), 1))
            kept = Sightings(view.matches.points[raw], xy[raw], covariance)
            sightings.append(_joined(*parts, kept))
            seen.append(np.concatenate([*members, np.flatnonzero(raw)]))
            keypoints.append(xy)
            num_measured += len(measured)
        given, self._now = self._now.keypoints, replace(self._now, keypoints=keypoints)
        self._refine("matches", start, num_measured, sightings, _MATCH_SCALES)
        for matches, sighted, residuals in zip(seen, sightings, self._residuals, strict=True):
            agree = residuals < _MATCH_SCALES[-1]
            self._matched.append((matches[agree], sighted.of(agree)))
        if self._now.undone:
            self._now = replace(self._now, keypoints=given)
        return num_measured

    def _refine_by_points(self) -> float:
        """Measure all that the query shows of the map, matched or not; how many pixels the pose moved by.

        Matches that are not among it take part as they were found, if they agreed with the pose.
        """
        start, state = self._seconds(), self._now.state
        max_points = self._options.max_num_points // len(self._views)
        matched = zip(self._views, self._now.inliers, strict=True)
        seen = np.concatenate([view.rows[inliers & (view.rows >= 0)] for view, inliers in matched])
        sightings, num_measured = [], 0
        for view, sensor, (matches, found) in zip(self._views, state.sensors, self._matched, strict=True):
            pose = sensor.cam_from_rig * state.rig_from_world
            rows, observation = self._map.visible(sensor.camera, pose, seen, max_points, _MAX_POINT_DEVIATION)
            accepted, sighted = measure_points(
                self._map, rows, observation, sensor.camera, pose, view.images, POINT_LIMITS
            )
            others = ~np.isin(view.rows[matches], rows[accepted])
            sightings.append(_joined(sighted, found.of(others)))
            num_measured += len(sighted.xy)
        if num_measured < _MIN_MEASURED:
            self._log(Step("points", self._seconds() - start, num_measured))
            return 0.0
        return self._refine("points", start, num_measured, sightings, _POINT_SCALES)

    def _refine(
        self,
        name: str,
        start: float,
        num_measured: int,
        sightings: Sequence[Sightings],
        scales: Sequence[float],
    ) -> float:
        """Take the pose that these sightings give, unless the guard objects; how many pixels it moved by."""
        before = self._now
        refined = self._first.refined
        if sum(len(part.xy) for part in sightings) < _MIN_FOR_INTRINSICS:
            refined = RefinedIntrinsics()
        pose = refine_pose(before.state, sightings, scales, refined)
        self._residuals = [np.full(len(part.xy), np.inf) for part in sightings]
        if pose is None:
            self._log(Step(name, self._seconds() - start, num_measured))
            return 0.0
        matches = [view.matches for view in self._views]
        inliers = [
            np.linalg.norm(xy - part.xy, axis=1) <= self._max_error
            for xy, part in zip(pose.state.project([part.points for part in matches]), matches, strict=True)
        ]
        after = replace(before, state=pose.state, covariance=pose.covariance, inliers=inliers)
        why_not = objection(self._first, pose, after.num_inliers)
        why_not = why_not or self._too_uncertain(pose.covariance)
        self._log(Step(name, self._seconds() - start, num_measured, pose.cost_before, pose.cost_after))
        if why_not:
            undone = f"the refinement by {name} {why_not}"
            self._now = replace(self._now, undone=(*before.undone, undone))
            return 0.0
        self._residuals = pose.residuals
        self._now = replace(after, steps=self._now.steps)
        return _moved(before.state, after.state, sightings)

    def _too_uncertain(self, covariance: Float64) -> str:
        """Why a refinement with this covariance is no better than the first pose; empty if it is."""
        first = self._first.pose
        points = [
            view.matches.points[inliers] for view, inliers in zip(self._views, first.inliers, strict=True)
        ]
        before, after = (pixel_deviation(first.state, points, c) for c in (first.covariance, covariance))
        if after * _MIN_GAIN <= before:
            return ""
        return f"left projections uncertain by {after:.3f} pixels, too much to improve on {before:.3f}"

    def _log(self, step: Step) -> None:
        self._now = replace(self._now, steps=(*self._now.steps, step))

    def _seconds(self) -> float:
        """Seconds, those aside that the scale space of the query took."""
        return time.perf_counter() - sum(image.seconds for view in self._views for image in view.images)


def _joined(*parts: Sightings) -> Sightings:
    return Sightings(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.xy for part in parts]),
        np.concatenate([part.covariance for part in parts]),
    )


def _moved(before: RigState, after: RigState, sightings: Sequence[Sightings]) -> float:
    """Median change of the projections, in pixels."""
    points = [part.points for part in sightings]
    changes = zip(after.project(points), before.project(points), strict=True)
    return float(np.median(np.linalg.norm(np.concatenate([new - old for new, old in changes]), axis=1)))
