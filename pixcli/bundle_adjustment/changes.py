"""What a refinement changed: poses after alignment, in degrees and baselines, and focal lengths."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pixcli.geometry.observations import read_observations, reprojection_errors

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]

_JUMP = 5.0  # times the median change: what changed by more is named ...
_LEAST_ROTATION = 0.02  # degrees; ... if it changed by more than this,
_LEAST_MOVE = 0.005  # baselines,
_LEAST_FOCAL = 0.002  # or this much of the focal length
_LARGE_FOCAL = 0.02  # of the focal length: named whatever the others do
_NEIGHBORS = 5  # cameras that share the most points with one
_ITERATIONS = 20


@dataclass(frozen=True)
class PoseChange:
    """How far an image moved, after the models are aligned."""

    name: str
    rotation: float
    """Degrees."""
    centre: float
    """Units of the model."""
    baselines: float
    """The same in baselines: the median distance of cameras to their neighbours."""
    jumped: bool
    """Far more than the others."""


@dataclass(frozen=True)
class ResidualChange:
    """Median reprojection error of an image's observations, as each model has them, in pixels."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class FocalChange:
    """How much the mean focal length of a camera changed, relative to what it was."""

    camera: int
    change: float
    jumped: bool
    """Far more than the others, or by more than 2 %."""


@dataclass(frozen=True)
class Changes:
    """What a refinement changed."""

    residuals: list[ResidualChange]
    poses: list[PoseChange]
    focal_lengths: list[FocalChange]


def changes_between(before: pycolmap.Reconstruction, after: pycolmap.Reconstruction) -> Changes:
    """Of two versions of a model; `before` is aligned to `after`, see align(). The log names outliers."""
    changes = Changes(
        residual_changes(before, after),
        pose_changes(before, after),
        focal_changes(before.cameras, after.cameras),
    )
    for pose in changes.poses:
        if pose.jumped:
            moved = f"{pose.rotation:.3g} degrees, {pose.baselines:.3g} baselines"
            log.warning("%s moved far more than others: %s", pose.name, moved)
    for focal in changes.focal_lengths:
        if focal.jumped:
            log.warning("camera %d: the focal length changed by %+.2f %%", focal.camera, 100 * focal.change)
    return changes


def pose_changes(before: pycolmap.Reconstruction, after: pycolmap.Reconstruction) -> list[PoseChange]:
    """Of the images that have a pose in both, by ascending id; the models are aligned."""
    ids = [image_id for image_id in sorted(after.reg_image_ids()) if before.images[image_id].has_pose]
    new = [after.images[image_id].cam_from_world() for image_id in ids]
    old = [before.images[image_id].cam_from_world() for image_id in ids]
    both = list(zip(new, old, strict=True))
    rotation = np.array([np.degrees((a * b.inverse()).rotation.angle()) for a, b in both])
    centre = np.array([np.linalg.norm(a.inverse().translation - b.inverse().translation) for a, b in both])
    baselines = centre / baseline(after)
    jumped = _far(rotation, _LEAST_ROTATION) | _far(baselines, _LEAST_MOVE)
    names = [after.images[image_id].name for image_id in ids]
    rows = zip(names, rotation, centre, baselines, jumped, strict=True)
    return [PoseChange(name, float(r), float(c), float(b), bool(j)) for name, r, c, b, j in rows]


def residual_changes(before: pycolmap.Reconstruction, after: pycolmap.Reconstruction) -> list[ResidualChange]:
    """Of the images that have observations in both models, by ascending id."""
    old, new = _median_errors(before), _median_errors(after)
    return [
        ResidualChange(after.images[image_id].name, old[image_id], new[image_id])
        for image_id in sorted(old.keys() & new.keys())
    ]


def focal_changes(
    before: Mapping[int, pycolmap.Camera], after: Mapping[int, pycolmap.Camera]
) -> list[FocalChange]:
    """Of the cameras that are in both and have a focal length, by ascending id."""
    ids = [
        camera_id
        for camera_id, camera in sorted(after.items())
        if camera_id in before and len(camera.focal_length_idxs())
    ]
    change = np.array([after[k].mean_focal_length() / before[k].mean_focal_length() - 1 for k in ids])
    jumped = _far(np.abs(change), _LEAST_FOCAL) | (np.abs(change) > _LARGE_FOCAL)
    return [FocalChange(k, float(c), bool(j)) for k, c, j in zip(ids, change, jumped, strict=True)]


def baseline(model: pycolmap.Reconstruction) -> float:
    """The median distance of a camera to those that share the most points with it, in units of the model.

    Sensors of one frame count as one camera. 1 if there is no other camera, or none elsewhere.
    """
    frames = sorted({image.frame_id for image in model.images.values() if image.has_pose})
    row_of = {frame_id: row for row, frame_id in enumerate(frames)}
    observations = read_observations(model, 1)
    seen_from = np.empty(len(observations.image_ids), np.int64)
    for image_id, members in observations.by_image.items():
        seen_from[members] = row_of[model.images[image_id].frame_id]
    shape = (len(frames), len(observations.point_ids))
    sees = csr_matrix((np.ones(len(seen_from)), (seen_from, observations.point_index)), shape)
    sees.data[:] = 1  # points that two sensors of a frame see, or an image twice
    shared = (sees @ sees.T).tolil()
    centres = frame_centres(model, frames)
    distances = []
    for row, (others, counts) in enumerate(zip(shared.rows, shared.data, strict=True)):
        order = np.argsort(-np.array(counts), kind="stable")
        near = [others[k] for k in order if others[k] != row][:_NEIGHBORS]
        distances += np.linalg.norm(centres[near] - centres[row], axis=1).tolist()
    return float(np.median(distances)) or 1.0 if distances else 1.0


def frame_centres(model: pycolmap.Reconstruction, frame_ids: list[int]) -> Float64:
    """(n, 3) where frames are in the world."""
    poses = [model.frames[frame_id].rig_from_world for frame_id in frame_ids]
    return np.array([pose.inverse().translation for pose in poses], np.float64).reshape(-1, 3)


def align(source: pycolmap.Reconstruction, target: pycolmap.Reconstruction) -> pycolmap.Sim3d:
    """target_from_source of two versions of a model, by the cameras and points that are in both.

    Robust: what moved far weighs little. With the points it is well-defined for two cameras, or many in line.
    """
    frames = sorted(
        frame_id
        for frame_id, frame in source.frames.items()
        if frame.has_pose and frame_id in target.frames and target.frames[frame_id].has_pose
    )
    points = sorted(source.point3D_ids() & target.point3D_ids())
    groups = [
        (frame_centres(source, frames), frame_centres(target, frames)),
        (
            np.array([source.points3D[point_id].xyz for point_id in points]).reshape(-1, 3),
            np.array([target.points3D[point_id].xyz for point_id in points]).reshape(-1, 3),
        ),
    ]
    old, new = (np.concatenate(parts) for parts in zip(*groups, strict=True))
    group = np.repeat([0, 1], [len(frames), len(points)])
    if len(old) < 3 or np.array_equal(old, new):
        return pycolmap.Sim3d()
    weights = np.ones(len(old))
    target_from_source = pycolmap.Sim3d()
    for _ in range(_ITERATIONS):
        target_from_source = _umeyama(old, new, weights)
        squared = np.square(np.asarray(target_from_source * old) - new).sum(axis=1)
        # Cauchy's weights; cameras and points scatter each by as much as their median says.
        typical = np.array([np.median(squared[group == k]) if (group == k).any() else 1 for k in (0, 1)])
        weights = 1 / np.maximum(typical[group] + squared, 1e-30)
        weights /= weights.sum()
    return target_from_source


def _median_errors(model: pycolmap.Reconstruction) -> dict[int, float]:
    observations = read_observations(model)
    errors = np.linalg.norm(reprojection_errors(model, observations), axis=1)
    errors[~np.isfinite(errors)] = np.inf
    return {image_id: float(np.median(errors[rows])) for image_id, rows in observations.by_image.items()}


def _umeyama(source: Float64, target: Float64, weights: Float64) -> pycolmap.Sim3d:
    """The similarity with the least weighted squared distances (Umeyama, PAMI 1991)."""
    weights = weights / weights.sum()
    from_mean, to_mean = weights @ source, weights @ target
    x, y = source - from_mean, target - to_mean
    u, s, vt = np.linalg.svd((y * weights[:, None]).T @ x)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((s * sign).sum() / (weights @ np.square(x).sum(axis=1)))
    return pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), to_mean - scale * rotation @ from_mean)


def _far(changes: Float64, least: float) -> NDArray[np.bool_]:
    if not changes.size:
        return np.zeros(0, bool)
    return np.asarray(changes > max(_JUMP * float(np.median(changes)), least))
