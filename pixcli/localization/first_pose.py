"""The first pose of a query: from its matches, robustly, by pycolmap."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pixcli.localization.pose import Sightings, covariance_of
from pixcli.localization.query_pose import QueryPose
from pixcli.localization.rig_state import Float64, RefinedIntrinsics, RigState, Sensor
from pixcli.options import AbsolutePoseOptions

import pycolmap

MIN_MATCHES = 4

_LOSS_SCALE = 1.0  # pixels, of the Cauchy loss that the pose is refined with: COLMAP's
_LEAST_DEVIATION = 0.5  # pixels, of a detector's keypoints; few matches can agree by chance


@dataclass(frozen=True)
class Matches:
    """m matches of one sensor of a query with points of the model."""

    sensor: Sensor
    xy: Float64
    """(m, 2) keypoints, COLMAP pixels."""
    points: Float64
    """(m, 3)"""


@dataclass(frozen=True)
class FirstPose:
    """A pose that a good part of the matches agrees on."""

    pose: QueryPose
    """Its cameras have the focal length that was estimated."""
    deviation: float
    """Pixels, of inliers from their points, along an axis."""
    refined: RefinedIntrinsics
    """What of the cameras is to be refined with the pose: the focal length too if it had to be estimated."""


def find_first_pose(
    matches: Sequence[Matches],
    options: AbsolutePoseOptions,
    random_seed: int,
    refined: RefinedIntrinsics | None = None,
) -> FirstPose | str:
    """The pose of a query of one sensor or several; in its place the reason why there is none.

    Args:
        refined: intrinsics that are not quite known; here they only widen the covariance.
    """
    refined = refined or RefinedIntrinsics()
    found = estimate_pose(matches, options, random_seed)
    if isinstance(found, str):
        return found
    state, inliers = found
    parts = [
        Sightings(part.points[inside], part.xy[inside], np.tile([1.0, 0, 1.0], (inside.sum(), 1)))
        for part, inside in zip(matches, inliers, strict=True)
    ]
    projected = state.project([seen.points for seen in parts])
    errors = np.concatenate(
        [np.linalg.norm(xy - seen.xy, axis=1) for xy, seen in zip(projected, parts, strict=True)]
    )
    deviation = max(float(np.median(errors)) / 1.1774, _LEAST_DEVIATION)  # Rayleigh
    scaled = [replace(seen, covariance=seen.covariance * deviation**2) for seen in parts]
    if state.sensors[0].camera.mean_focal_length() != matches[0].sensor.camera.mean_focal_length():
        refined = replace(refined, focal_length=True)
    covariance = covariance_of(state, scaled, _LOSS_SCALE / deviation, refined)
    if covariance is None:
        return _undetermined(matches)
    return FirstPose(QueryPose(state, covariance, inliers, [part.xy for part in matches]), deviation, refined)


def estimate_pose(
    matches: Sequence[Matches], options: AbsolutePoseOptions, random_seed: int
) -> tuple[RigState, list[npt.NDArray[np.bool_]]] | str:
    """The state and the inliers (m,) of each sensor as a first pose has them; or why there is none."""
    total = sum(len(part.xy) for part in matches)
    if total < MIN_MATCHES:
        return f"{total} matches with points of the model, but a pose takes {MIN_MATCHES} at least"
    found = _estimate(matches, options, random_seed)
    if found is None:
        return f"no pose agrees with its {total} matches"
    pose, sensors, mask = found
    if mask.sum() < options.min_num_inliers:
        return f"only {mask.sum()} of its {total} matches agree on a pose"
    if not np.isfinite(pose.params).all():
        return _undetermined(matches)
    return RigState(pose, sensors), np.split(mask, np.cumsum([len(part.xy) for part in matches])[:-1])


def _undetermined(matches: Sequence[Matches]) -> str:
    return f"its {sum(len(part.xy) for part in matches)} matches do not determine a pose"


def _estimate(
    matches: Sequence[Matches], options: AbsolutePoseOptions, random_seed: int
) -> tuple[pycolmap.Rigid3d, list[Sensor], npt.NDArray[np.bool_]] | None:
    ransac = pycolmap.RANSACOptions()
    for name in (
        "max_error",
        "min_inlier_ratio",
        "confidence",
        "dyn_num_trials_multiplier",
        "min_num_trials",
        "max_num_trials",
    ):
        setattr(ransac, name, getattr(options, name))
    ransac.random_seed = random_seed
    refinement = pycolmap.AbsolutePoseRefinementOptions(
        gradient_tolerance=1e-10, loss_function_scale=_LOSS_SCALE
    )
    sensors = [part.sensor for part in matches]
    xy = np.concatenate([part.xy for part in matches])
    points = np.concatenate([part.points for part in matches])
    if len(sensors) > 1:
        found = pycolmap.estimate_and_refine_generalized_absolute_pose(
            xy,
            points,
            np.repeat(np.arange(len(sensors)), [len(part.xy) for part in matches]).tolist(),
            [sensor.cam_from_rig for sensor in sensors],
            [sensor.camera for sensor in sensors],
            ransac,
            refinement,
        )
        if found is None:
            return None
        return found["rig_from_world"], sensors, np.asarray(found["inlier_mask"], bool)
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.ransac = ransac
    camera = deepcopy(sensors[0].camera)
    if options.estimate_focal_length and not camera.has_prior_focal_length:
        estimation.estimate_focal_length = refinement.refine_focal_length = True
    found = pycolmap.estimate_and_refine_absolute_pose(xy, points, camera, estimation, refinement)
    if found is None:
        return None
    sensor = replace(sensors[0], camera=camera)
    rig_from_world = sensor.cam_from_rig.inverse() * found["cam_from_world"]
    return rig_from_world, [sensor], np.asarray(found["inlier_mask"], bool)
