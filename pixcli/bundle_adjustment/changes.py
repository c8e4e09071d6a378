"""What a refinement changed: poses after alignment, in degrees and baselines, and focal lengths."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pixcli.geometry.observations import read_observations, reprojection_errors
from pixcli.geometry.similarity import frame_centres

import pycolmap

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]

_JUMP = 5.0  # times the median change: what changed by more is named ...
_LEAST_ROTATION = 0.02  # degrees; ... if it changed by more than this,
_LEAST_MOVE = 0.005  # baselines,
_LEAST_FOCAL = 0.002  # or this much of the focal length
_LARGE_FOCAL = 0.02  # of the focal length: named whatever the others do
_NEIGHBORS = 5  # cameras that share the most points with one


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


def _median_errors(model: pycolmap.Reconstruction) -> dict[int, float]:
    observations = read_observations(model)
    errors = np.linalg.norm(reprojection_errors(model, observations), axis=1)
    errors[~np.isfinite(errors)] = np.inf
    return {image_id: float(np.median(errors[rows])) for image_id, rows in observations.by_image.items()}


def _far(changes: Float64, least: float) -> NDArray[np.bool_]:
    if not changes.size:
        return np.zeros(0, bool)
    return np.asarray(changes > max(_JUMP * float(np.median(changes)), least))
